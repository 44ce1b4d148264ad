//! Where a run's checkpoints live, and how one is replaced without ever being lost.
//!
//! A checkpoint is written to a temporary file beside its destination, synced, read back against its checksums, and
//! only then renamed into place; its directory is synced, and older ones are removed last. A crash, a loss of power, a
//! full disk or a failing one at any moment leaves the previous checkpoints as they were. One run directory has one
//! writer: that is `lock`'s business.

use std::collections::BTreeSet;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::format::{Encoded, within};
use super::load::{is_foreign, read_meta_from};
use super::names::{self, BEFORE_GROWTH, BEST, FOLDER, PREFIX, is_left_over, under};
use super::read::TensorFile;
use super::storage::{Files, Storage, commit, create_dirs};
use super::{Checkpoint, FileDigest, Metadata};
use crate::error::{Error, Result};

/// The checkpoints of one run, `<dir>/checkpoints/step-00000100.safetensors` and so on; those from before its growths,
/// `before-growth-00000100.safetensors`, which stay until the run is replaced; and `best.safetensors`, which has the lowest
/// validation loss. The latter two count as checkpoints of the run only as long as it has no others, and the best one also
/// where others are damaged. `M` is what they say of the run.
#[derive(Debug, Clone)]
pub struct Store<M> {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    /// Checkpoints that were written or verified here.
    whole: Arc<Mutex<BTreeSet<PathBuf>>>,
    meta: PhantomData<fn() -> M>,
}

/// Which checkpoints stay when a newer one is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// This many of the newest; 0 keeps all.
    pub last: usize,
    /// Those of steps that are multiples of this; 0 is off.
    pub every: u64,
}

/// Times that the newest checkpoint may vanish before it is opened. Each needs a save of another process.
const MOST_GONE: usize = 100;
/// What to do about a checkpoint that is there and cannot be read.
const NOT_PASSED_OVER: &str = "an older checkpoint is not taken in its place: make it readable, or name another file";

/// The newest checkpoint that can be read.
#[derive(Debug)]
pub struct Latest<T> {
    /// Its path and what was read of it; `None` if the run has no checkpoint yet.
    pub found: Option<(PathBuf, T)>,
    /// One sentence for every newer file that was passed over because it is damaged.
    pub warnings: Vec<String>,
}

/// What came of looking for the newest checkpoint.
enum Found<T> {
    Latest(Latest<T>),
    /// It cannot be read, or is gone.
    Gone(Error, PathBuf),
}

impl<M: Metadata> Store<M> {
    /// The store of the run directory `dir`. Nothing is created before the first save.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::on(Arc::new(Files), dir)
    }

    /// As [`Store::new`], on another storage than the file system.
    pub fn on(storage: Arc<dyn Storage>, dir: impl Into<PathBuf>) -> Self {
        Self { storage, dir: dir.into(), whole: Arc::default(), meta: PhantomData }
    }

    /// The directory of the run that `file` is a checkpoint of, going by its place; `None` for a file elsewhere.
    pub(crate) fn run_of(file: &Path) -> Option<PathBuf> {
        let folder = file.parent().filter(|folder| folder.file_name().is_some_and(|name| name == FOLDER))?;
        let run = folder.parent().filter(|run| !run.as_os_str().is_empty());
        Some(run.unwrap_or(Path::new(".")).to_path_buf())
    }

    /// Saves a checkpoint under its step; once it is safe, removes those up to that step that are not to be kept.
    ///
    /// Files of later steps, left by a run that was since resumed from an earlier one, are not touched.
    ///
    /// # Errors
    /// An input error if the checkpoint cannot be written whole (the sentence says how many bytes it needs; earlier
    /// ones are as they were), or if an old one cannot be removed (the new one is saved then).
    pub fn save(&self, checkpoint: &Checkpoint<M>, keep: Keep) -> Result<PathBuf> {
        let step = checkpoint.meta.step();
        let path = self.place(&names::name(PREFIX, step))?;
        checkpoint.write_to(&*self.storage, &path)?;
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        let pruned = self.prune(step, keep);
        pruned.map_err(|error| Error::input(format!("the checkpoint of step {step} is saved, but {error}")))?;
        Ok(path)
    }

    /// Saves a checkpoint of the model as it is before a growth, in place of an older one of the same step. No other save
    /// removes it.
    ///
    /// # Errors
    /// An input error if the checkpoint cannot be written whole, as [`Store::save`].
    pub fn save_before_growth(&self, checkpoint: &Checkpoint<M>) -> Result<FileDigest> {
        let path = self.place(&names::name(BEFORE_GROWTH, checkpoint.meta.step()))?;
        let encoded = checkpoint.encode()?;
        encoded.commit(&*self.storage, &path)?;
        FileDigest::of(&path, |out| encoded.write_to(out))
    }

    /// Saves the checkpoint with the lowest validation loss so far, in place of the one before. No other save removes it.
    ///
    /// # Errors
    /// An input error if the checkpoint cannot be written whole, as [`Store::save`].
    pub fn save_best(&self, checkpoint: &Checkpoint<M>) -> Result<()> {
        checkpoint.write_to(&*self.storage, &self.place(BEST)?)
    }

    /// Where the checkpoints are, if there are any.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.join(FOLDER)
    }

    /// Where the checkpoint with the lowest validation loss is, if there is one.
    pub fn best(&self) -> PathBuf {
        self.dir.join(FOLDER).join(BEST)
    }

    /// The path of a checkpoint, in a directory that exists and is free of what killed writers left.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let folder = self.dir.join(FOLDER);
        match self.storage.list(&folder) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                create_dirs(&*self.storage, &folder).map_err(|cause| Error::io("create", &folder, &cause))?;
            }
            listed => {
                let files = listed.map_err(|cause| Error::io("read", &folder, &cause))?;
                // First, because what killed writers left may be what fills the disk.
                files.iter().filter(|path| is_left_over(path)).try_for_each(|path| self.remove(path))?;
            }
        }
        Ok(folder.join(name))
    }

    /// Removes every checkpoint, durably: the run that they are of is to be replaced.
    ///
    /// # Errors
    /// An input error naming what cannot be removed.
    pub fn clear(&self) -> Result<()> {
        let known = self.all()?;
        // The newest last: if this is cut short, what is left is the end of the old run.
        known.iter().try_for_each(|path| self.remove(path))?;
        if known.is_empty() {
            return Ok(());
        }
        // An old checkpoint that came back after a loss of power would pass for one of the new run.
        let folder = self.dir.join(FOLDER);
        self.storage.sync_dir(&folder).map_err(|cause| Error::io("sync", &folder, &cause))
    }

    /// The best one, those from before growths, then all others, oldest first.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub fn all(&self) -> Result<Vec<PathBuf>> {
        let files = self.files()?;
        let steps = under(&files, BEFORE_GROWTH).into_iter().chain(under(&files, PREFIX)).map(|(_, path)| path);
        Ok(names::best(&files).cloned().into_iter().chain(steps).collect())
    }

    /// What is in the directory of the checkpoints under names that no run gives.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub(crate) fn foreign(&self) -> Result<Vec<PathBuf>> {
        let mut files = self.files()?;
        files.retain(|path| names::is_foreign(path));
        files.sort();
        Ok(files)
    }

    /// The files of others under names that a run gives; with `after`, those only that it may write over after so many steps.
    ///
    /// # Errors
    /// As [`Store::list`], and a file that cannot be read.
    pub(crate) fn of_others(&self, after: Option<u64>) -> Result<Vec<PathBuf>> {
        let files = self.files()?;
        let steps = under(&files, PREFIX).into_iter().filter(|(at, _)| after.is_none_or(|after| *at > after));
        let growths = under(&files, BEFORE_GROWTH).into_iter().filter(|(at, _)| after.is_none_or(|after| *at >= after));
        let mut others = Vec::new();
        for path in names::best(&files).cloned().into_iter().chain(growths.chain(steps).map(|(_, path)| path)) {
            if is_foreign::<M>(&*self.storage, &path)? {
                others.push(path);
            }
        }
        Ok(others)
    }

    /// Every checkpoint by its step, oldest first; of a run that has none yet, those from before its growths and the best one.
    /// Files under other names are not looked at.
    ///
    /// # Errors
    /// An input error if the directory exists and cannot be read.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let files = self.files()?;
        let checkpoints = under(&files, PREFIX);
        if !checkpoints.is_empty() {
            return Ok(checkpoints);
        }
        let mut others = under(&files, BEFORE_GROWTH);
        if let Some(best) = names::best(&files) {
            // Its name does not say; damage is named when it is read as a whole.
            let step = read_meta_from::<M>(&*self.storage, best).map_or(0, |meta| meta.step());
            others.push((step, best.clone()));
            others.sort();
        }
        Ok(others)
    }

    /// The newest checkpoint that can be read, and a warning for each newer one that is damaged. Where one is damaged, the best
    /// one counts like any other.
    ///
    /// # Errors
    /// As [`Store::newest`].
    pub fn latest(&self) -> Result<Latest<Checkpoint<M>>> {
        self.newest(&|path| {
            let checkpoint = Checkpoint::<M>::read_from(&*self.storage, path)?;
            Ok((checkpoint.meta.step(), checkpoint))
        })
    }

    /// As [`Store::latest`], of what `read` takes from a file, with the step that is in it.
    ///
    /// # Errors
    /// An input error if there are checkpoints and all are damaged: starting over must be the user's decision. One that
    /// cannot be read, or holds another step than its name says, is no reason to go back to an older one either.
    pub fn newest<T>(&self, read: &dyn Fn(&Path) -> Result<(u64, T)>) -> Result<Latest<T>> {
        let mut gone = 0;
        loop {
            match self.newest_of(self.list()?, read)? {
                Found::Latest(latest) => return Ok(latest),
                // Another process writes there, and has removed what was the newest a moment ago.
                Found::Gone(error, path) if gone == MOST_GONE || self.files()?.contains(&path) => {
                    return Err(Error::input(format!("{error}; {NOT_PASSED_OVER}")));
                }
                Found::Gone(..) => gone += 1,
            }
        }
    }

    fn newest_of<T>(&self, known: Vec<(u64, PathBuf)>, read: &dyn Fn(&Path) -> Result<(u64, T)>) -> Result<Found<T>> {
        let (mut known, mut warnings, best) = (known, Vec::new(), self.best());
        let mut spare = read_meta_from::<M>(&*self.storage, &best).ok().map(|meta| (meta.step(), best));
        spare = spare.filter(|best| !known.contains(best));
        while let Some((named, path)) = known.pop() {
            match read(&path) {
                Ok((step, _)) if step != named => return Err(self.misnamed(&path, named, step)),
                Ok((_, found)) => return Ok(Found::Latest(Latest { found: Some((path, found)), warnings })),
                Err(damage @ Error::Damaged(_)) => {
                    warnings.push(damage.to_string());
                    known.extend(spare.take());
                    known.sort();
                }
                Err(other) => return Ok(Found::Gone(other, path)),
            }
        }
        match warnings.first() {
            None => Ok(Found::Latest(Latest { found: None, warnings })),
            Some(newest) => Err(Error::input(format!(
                "none of the {} checkpoints in {} can be read (the newest: {newest}); move them away to start over",
                warnings.len(),
                self.dir.join(FOLDER).display()
            ))),
        }
    }

    /// Refuses the checkpoint `path` if it holds another step than its name says.
    ///
    /// # Errors
    /// An input error with the remedy; nothing is said of a file that cannot be read.
    pub(crate) fn check_name(&self, path: &Path) -> Result<()> {
        let file = [path.to_path_buf()];
        let named = [PREFIX, BEFORE_GROWTH].into_iter().find_map(|prefix| under(&file, prefix).pop());
        let inside = read_meta_from::<M>(&*self.storage, path).map(|meta| meta.step());
        match (named, inside) {
            (Some((named, path)), Ok(step)) if named != step => Err(self.misnamed(&path, named, step)),
            _ => Ok(()),
        }
    }

    /// Refuses to go on from `step` where a whole checkpoint of a later one is there under a name that no run gives.
    ///
    /// # Errors
    /// An input error with the remedy; nothing is said of a file that is no checkpoint, or damaged.
    pub(crate) fn check_renamed(&self, step: u64) -> Result<()> {
        for path in self.foreign()? {
            let later = read_meta_from::<M>(&*self.storage, &path).map(|meta| meta.step()).ok().filter(|at| *at > step);
            let Some(later) = later.filter(|_| Checkpoint::<M>::read_from(&*self.storage, &path).is_ok()) else {
                continue;
            };
            return Err(Error::input(format!(
                "{} holds step {later} under a name that no run gives, and the run would go on from step {step}: {}",
                path.display(),
                self.way_out(&path, later, later)
            )));
        }
        Ok(())
    }

    fn misnamed(&self, path: &Path, named: u64, step: u64) -> Error {
        let (shown, remedy) = (path.display(), self.way_out(path, named, step));
        Error::input(format!("{shown} holds step {step} and not the {named} of its name: {remedy}"))
    }

    /// What to do about the checkpoint of `step` at `path`, whose name should be another.
    fn way_out(&self, path: &Path, named: u64, step: u64) -> String {
        let place = path.with_file_name(names::name(PREFIX, step));
        let (shown, run) = (path.display(), self.dir.display());
        match self.files().is_ok_and(|files| files.contains(&place)) {
            false => format!("give it its name with `mv {shown} {}`", place.display()),
            true => format!(
                "move it out of that folder, as with `mv {shown} {run}-{named}.safetensors`, and give it an --out"
            ),
        }
    }

    /// Whether a checkpoint is not damaged. Each is read once: one that was written here was read back then.
    fn is_whole(&self, path: &Path) -> bool {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let verified = |path| TensorFile::open(&*self.storage, path).and_then(TensorFile::verify).is_ok();
        whole.contains(path) || verified(path) && whole.insert(path.to_path_buf())
    }

    /// Removes the checkpoints up to `step` that are not to be kept; those that are damaged do not count for `keep.last`. What
    /// holds another step than its name says, or is of another program, was not put there by a run that rotates them.
    fn prune(&self, step: u64, keep: Keep) -> Result<()> {
        if keep.last == 0 {
            return Ok(());
        }
        let mut known = under(&self.files()?, PREFIX);
        known.retain(|(at, _)| *at <= step);
        let mut kept = 0;
        // Once there are enough, no older one is read.
        let older = known.iter().rev().filter(|(_, path)| {
            let is_older = kept == keep.last;
            kept += usize::from(!is_older && self.is_whole(path));
            is_older
        });
        for (named, path) in older.filter(|(at, _)| keep.every == 0 || !at.is_multiple_of(keep.every)) {
            match read_meta_from::<M>(&*self.storage, path) {
                Ok(meta) if meta.step() != *named => {}
                Err(Error::Foreign(_)) => {}
                Err(Error::Damaged(_)) if is_foreign::<M>(&*self.storage, path)? => {}
                Ok(_) | Err(Error::Damaged(_)) => self.remove(path)?,
                // Somebody removed it meanwhile.
                Err(_) if !self.files()?.contains(path) => {}
                Err(unreadable) => return Err(unreadable),
            }
        }
        Ok(())
    }

    /// Every entry of the checkpoint directory; none if it does not exist.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let folder = self.dir.join(FOLDER);
        match self.storage.list(&folder) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(|cause| Error::io("read", &folder, &cause)),
        }
    }

    /// Removes a file, unless it is gone already.
    fn remove(&self, path: &Path) -> Result<()> {
        match self.storage.remove(path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, &cause)),
            _ => Ok(()),
        }
    }
}

impl<M: Metadata> Checkpoint<M> {
    /// Writes the checkpoint to `path`, replacing what is there in one step or not at all.
    ///
    /// # Errors
    /// An input error if it contradicts itself or cannot be written whole; `path` is then as it was.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.write_to(&Files, path)
    }

    /// As [`Checkpoint::write`], to any storage.
    fn write_to(&self, storage: &dyn Storage, path: &Path) -> Result<()> {
        self.encode()?.commit(storage, path)
    }
}

impl Encoded<'_> {
    /// As [`Checkpoint::write`], to any storage.
    pub(super) fn commit(&self, storage: &dyn Storage, path: &Path) -> Result<()> {
        let done = commit(storage, path, &|out| self.write_to(out), &|source| self.check_written(source));
        done.map_err(|cause| {
            if cause.get_ref().is_some_and(|inner| inner.is::<Error>()) {
                return within(&cause);
            }
            let remedy = match cause.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "make its directory writable",
                _ => "free some space",
            };
            Error::input(format!(
                "{}; the checkpoint needs {} bytes, earlier ones are intact: {remedy} or choose another directory",
                Error::io("write", path, &cause),
                self.len()
            ))
        })
    }
}

#[cfg(test)]
mod tests;
