//! Where a run's checkpoints live, and how one is replaced without ever being lost.
//!
//! A checkpoint is written to a temporary file beside its destination, synced, read back against its checksums, and
//! only then renamed into place; its directory is synced, and older ones are removed last. A crash, a loss of power, a
//! full disk or a failing one at any moment leaves the previous checkpoints as they were. One run directory has one
//! writer: that is `lock`'s business.

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::Encoded;
use super::storage::{Files, Storage, commit, create_dirs, is_unfinished};
use super::{Checkpoint, FileDigest, Metadata};
use crate::error::{Error, Result};

/// Directory of the checkpoints inside a run directory.
const FOLDER: &str = "checkpoints";
/// How the name of a checkpoint file starts; its step follows.
const PREFIX: &str = "step-";
/// How the name of a checkpoint from before a growth starts; its step follows.
const BEFORE_GROWTH: &str = "before-growth-";
/// How the name of a checkpoint file ends.
const SUFFIX: &str = ".safetensors";

/// The checkpoints of one run, `<dir>/checkpoints/step-00000100.safetensors` and so on, and those from before its growths,
/// `before-growth-00000100.safetensors`, which stay until the run is replaced and count as checkpoints of the run only as long
/// as it has no others. `M` is what they say of the run.
#[derive(Debug, Clone)]
pub struct Store<M> {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
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

/// The newest checkpoint that can be read.
#[derive(Debug)]
pub struct Latest<T> {
    /// Its path and what was read of it; `None` if the run has no checkpoint yet.
    pub found: Option<(PathBuf, T)>,
    /// One sentence for every newer file that was passed over because it could not be read.
    pub warnings: Vec<String>,
}

impl<M: Metadata> Store<M> {
    /// The store of the run directory `dir`. Nothing is created before the first save.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::on(Arc::new(Files), dir)
    }

    /// As [`Store::new`], on another storage than the file system.
    pub fn on(storage: Arc<dyn Storage>, dir: impl Into<PathBuf>) -> Self {
        Self { storage, dir: dir.into(), meta: PhantomData }
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
        let path = self.place(PREFIX, step)?;
        checkpoint.write_to(&*self.storage, &path)?;
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
        let path = self.place(BEFORE_GROWTH, checkpoint.meta.step())?;
        let encoded = checkpoint.encode()?;
        encoded.commit(&*self.storage, &path)?;
        FileDigest::of(&path, |out| encoded.write_to(out))
    }

    /// The path of a checkpoint, in a directory that exists and is free of what killed writers left.
    fn place(&self, prefix: &str, step: u64) -> Result<PathBuf> {
        let folder = self.dir.join(FOLDER);
        match self.storage.list(&folder) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                create_dirs(&*self.storage, &folder).map_err(|cause| Error::io("create", &folder, &cause))?;
            }
            listed => {
                let files = listed.map_err(|cause| Error::io("read", &folder, &cause))?;
                // First, because what killed writers left may be what fills the disk.
                files.iter().filter(|path| is_unfinished(path)).try_for_each(|path| self.remove(path))?;
            }
        }
        Ok(folder.join(format!("{prefix}{step:08}{SUFFIX}")))
    }

    /// Removes every checkpoint, durably: the run that they are of is to be replaced.
    ///
    /// # Errors
    /// An input error naming what cannot be removed.
    pub fn clear(&self) -> Result<()> {
        let known = self.all()?;
        // The newest last: if this is cut short, what is left is the end of the old run.
        known.iter().try_for_each(|(_, path)| self.remove(path))?;
        if known.is_empty() {
            return Ok(());
        }
        // An old checkpoint that came back after a loss of power would pass for one of the new run.
        let folder = self.dir.join(FOLDER);
        self.storage.sync_dir(&folder).map_err(|cause| Error::io("sync", &folder, &cause))
    }

    /// Those from before growths, then all others, oldest first.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub fn all(&self) -> Result<Vec<(u64, PathBuf)>> {
        let files = self.files()?;
        let mut known = under(&files, BEFORE_GROWTH);
        known.extend(under(&files, PREFIX));
        Ok(known)
    }

    /// Every checkpoint by its step, oldest first; of a run that grew before it had any, those from before its growths.
    /// Files under other names are not looked at.
    ///
    /// # Errors
    /// An input error if the directory exists and cannot be read.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let files = self.files()?;
        let checkpoints = under(&files, PREFIX);
        Ok(if checkpoints.is_empty() { under(&files, BEFORE_GROWTH) } else { checkpoints })
    }

    /// The newest checkpoint that can be read, and a warning for each newer one that cannot.
    ///
    /// # Errors
    /// An input error if there are checkpoints and none can be read: starting over must be the user's decision.
    pub fn latest(&self) -> Result<Latest<Checkpoint<M>>> {
        self.newest(&|path| Checkpoint::read_from(&*self.storage, path))
    }

    /// As [`Store::latest`], of what `read` takes from a file.
    ///
    /// # Errors
    /// As [`Store::latest`].
    pub fn newest<T>(&self, read: &dyn Fn(&Path) -> Result<T>) -> Result<Latest<T>> {
        let mut warnings = Vec::new();
        for (_, path) in self.list()?.into_iter().rev() {
            match read(&path) {
                Ok(found) => return Ok(Latest { found: Some((path, found)), warnings }),
                Err(error) => warnings.push(error.to_string()),
            }
        }
        match warnings.first() {
            None => Ok(Latest { found: None, warnings }),
            Some(newest) => Err(Error::input(format!(
                "none of the {} checkpoints in {} can be read (the newest: {newest}); move them away to start over",
                warnings.len(),
                self.dir.join(FOLDER).display()
            ))),
        }
    }

    /// Removes the checkpoints up to `step` that are not to be kept.
    fn prune(&self, step: u64, keep: Keep) -> Result<()> {
        if keep.last == 0 {
            return Ok(());
        }
        let mut known = self.list()?;
        known.retain(|(at, _)| *at <= step);
        let older = known.iter().rev().skip(keep.last);
        let prunable = older.filter(|(at, _)| keep.every == 0 || !at.is_multiple_of(keep.every));
        prunable.map(|(_, path)| path).try_for_each(|path| self.remove(path))
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
    fn commit(&self, storage: &dyn Storage, path: &Path) -> Result<()> {
        let done = commit(storage, path, &|out| self.write_to(out), &|source| self.check_written(source));
        done.map_err(|cause| {
            Error::input(format!(
                "{}; the checkpoint needs {} bytes, earlier ones are intact: free some space or choose another directory",
                Error::io("write", path, &cause),
                self.len()
            ))
        })
    }
}

/// Those of `files` whose name is `prefix` and a step, by their step.
fn under(files: &[PathBuf], prefix: &str) -> Vec<(u64, PathBuf)> {
    let mut found: Vec<_> = files.iter().filter_map(|path| Some((step_of(path, prefix)?, path.clone()))).collect();
    found.sort();
    found
}

/// The step in a checkpoint's file name, if it is one that a [`Store`] would give after `prefix`.
fn step_of(path: &Path, prefix: &str) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix(prefix)?.strip_suffix(SUFFIX)?;
    let step = digits.parse().ok()?;
    (format!("{step:08}") == digits).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Said, sample};
    use super::*;

    const ALL: Keep = Keep { last: 0, every: 0 };

    /// Names in the checkpoint directory, sorted.
    fn names(store: &Store<Said>) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<_> = store.files().unwrap().into_iter().map(name).collect();
        names.sort();
        names
    }

    fn store_with(steps: &[u64]) -> (tempfile::TempDir, Store<Said>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("run"));
        steps.iter().for_each(|&step| drop(store.save(&sample(step), ALL).unwrap()));
        (dir, store)
    }

    #[test]
    fn the_error_names_the_path_and_the_bytes_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone/model.safetensors");
        let error = sample(1).write(&path).unwrap_err().to_string();
        let len = sample(1).encode().unwrap().len();
        assert!(error.starts_with(&format!("cannot write {}: no such file", path.display())), "{error}");
        assert!(error.contains(&format!("needs {len} bytes")), "{error}");
    }

    #[test]
    fn saving_keeps_the_newest_and_what_is_not_its_own() {
        let (_dir, store) = store_with(&[100, 200, 300, 123_456_789]);
        let folder = store.dir.join(FOLDER);
        std::fs::write(folder.join("step-7.safetensors"), "a user's own").unwrap();
        std::fs::write(folder.join(".x9.unfinished"), "from a killed run").unwrap();
        let path = store.save(&sample(400), Keep { last: 2, every: 0 }).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), {
            let mut bytes = Vec::new();
            sample(400).encode().unwrap().write_to(&mut bytes).unwrap();
            bytes
        });
        let kept = ["step-00000300.safetensors", "step-00000400.safetensors"];
        assert_eq!(names(&store), [kept[0], kept[1], "step-123456789.safetensors", "step-7.safetensors"]);
    }

    #[test]
    fn every_so_many_steps_a_checkpoint_is_kept_for_good() {
        let (_dir, store) = store_with(&[]);
        for step in (100..=700).step_by(100) {
            store.save(&sample(step), Keep { last: 2, every: 300 }).unwrap();
        }
        let steps: Vec<u64> = store.list().unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [300, 600, 700]);
        store.clear().unwrap();
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn what_was_before_a_growth_stays_until_the_run_is_replaced_and_counts_where_nothing_else_is() {
        let (_dir, store) = store_with(&[100]);
        let digest = store.save_before_growth(&sample(150)).unwrap();
        let path = store.dir.join(FOLDER).join(&digest.name);
        assert_eq!(digest.name, "before-growth-00000150.safetensors");
        assert_eq!(FileDigest::read(&path).unwrap(), digest);
        assert_eq!(Checkpoint::<Said>::read(&path).unwrap(), sample(150));
        assert_eq!(store.latest().unwrap().found.unwrap().1, sample(100));
        // Once more: the same bytes in its place.
        assert_eq!(store.save_before_growth(&sample(150)).unwrap(), digest);
        store.save(&sample(200), Keep { last: 1, every: 0 }).unwrap();
        assert_eq!(names(&store), ["before-growth-00000150.safetensors", "step-00000200.safetensors"]);
        store.clear().unwrap();
        assert_eq!(names(&store), [""; 0]);
        // A run that was killed before its first checkpoint goes on from there.
        store.save_before_growth(&sample(150)).unwrap();
        assert_eq!(store.latest().unwrap().found.unwrap().1, sample(150));
        store.clear().unwrap();
        assert_eq!(names(&store), [""; 0]);
    }

    #[test]
    fn the_newest_readable_one_is_found_and_damage_is_named() {
        let (_dir, store) = store_with(&[]);
        assert!(store.latest().unwrap().found.is_none());
        let (_dir, store) = store_with(&[100, 200]);
        let damage = |index: usize| {
            let path = &store.list().unwrap()[index].1;
            std::fs::File::options().write(true).open(path).unwrap().set_len(500).unwrap();
        };
        damage(1);
        let latest = store.latest().unwrap();
        assert_eq!(latest.found.unwrap().1, sample(100));
        assert_eq!(latest.warnings.len(), 1);
        assert!(latest.warnings[0].contains("step-00000200.safetensors is truncated"), "{}", latest.warnings[0]);
        damage(0);
        assert!(store.latest().unwrap_err().to_string().starts_with("none of the 2 checkpoints in "));
    }
}
