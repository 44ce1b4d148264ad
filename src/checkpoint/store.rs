//! Where a run's checkpoints live, and how one is replaced without ever being lost.
//!
//! A checkpoint is written to a temporary file beside its destination, flushed, synced, read back and compared, and
//! only then renamed into place; older ones are removed last. A crash, a full disk or a failing one at any moment
//! leaves the previous checkpoints as they were. One run directory has one writer: that is not enforced here.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::Checkpoint;
use crate::error::{Error, Result};

/// Directory of the checkpoints inside a run directory.
const FOLDER: &str = "checkpoints";
/// How the name of a checkpoint file starts; its step follows.
const PREFIX: &str = "step-";
/// How the name of a checkpoint file ends.
const SUFFIX: &str = ".safetensors";
/// How the name of a file that is still being written ends.
const UNFINISHED: &str = ".unfinished";

/// The checkpoints of one run, `<dir>/checkpoints/step-00000100.safetensors` and so on.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// The newest checkpoint that can be read.
#[derive(Debug)]
pub struct Latest {
    /// Its path and content; `None` if the run has no checkpoint yet.
    pub found: Option<(PathBuf, Checkpoint)>,
    /// One sentence for every newer file that was passed over because it could not be read.
    pub warnings: Vec<String>,
}

impl Store {
    /// The store of the run directory `dir`. Nothing is created before the first save.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory of the run that `file` is a checkpoint of, going by its place; `None` for a file elsewhere.
    pub fn run_of(file: &Path) -> Option<PathBuf> {
        let folder = file.parent().filter(|folder| folder.file_name().is_some_and(|name| name == FOLDER))?;
        let run = folder.parent().filter(|run| !run.as_os_str().is_empty());
        Some(run.unwrap_or(Path::new(".")).to_path_buf())
    }

    /// Saves a checkpoint under its step, then removes all but the `keep_last` newest up to that step (0 keeps all).
    ///
    /// Files of later steps, left by a run that was since resumed from an earlier one, are not touched.
    ///
    /// # Errors
    /// An input error if the checkpoint cannot be written whole (nothing changed then, and the sentence says how many
    /// bytes it needs), or if an old one cannot be removed (the new one is saved then).
    pub fn save(&self, checkpoint: &Checkpoint, keep_last: usize) -> Result<PathBuf> {
        let folder = self.dir.join(FOLDER);
        if !folder.is_dir() {
            let io = |cause| Error::io("create", &folder, &cause);
            std::fs::create_dir_all(&folder).map_err(io)?;
            sync_dir(&self.dir).map_err(io)?;
        }
        let step = checkpoint.meta.step;
        let path = folder.join(format!("{PREFIX}{step:08}{SUFFIX}"));
        // First, because what killed writers left may be what fills the disk.
        for unfinished in self.files()?.iter().filter(|path| is_unfinished(path)) {
            remove(unfinished)?;
        }
        checkpoint.write(&path)?;
        let pruned = self.prune(step, keep_last);
        pruned.map_err(|error| Error::input(format!("the checkpoint of step {step} is saved, but {error}")))?;
        Ok(path)
    }

    /// Every checkpoint by its step, oldest first. Files under other names are not looked at.
    ///
    /// # Errors
    /// An input error if the directory exists and cannot be read.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut found: Vec<_> = self.files()?.into_iter().filter_map(|path| Some((step_of(&path)?, path))).collect();
        found.sort();
        Ok(found)
    }

    /// The newest checkpoint that can be read, and a warning for each newer one that cannot.
    ///
    /// # Errors
    /// An input error if there are checkpoints and none can be read: starting over must be the user's decision.
    pub fn latest(&self) -> Result<Latest> {
        let mut warnings = Vec::new();
        for (_, path) in self.list()?.into_iter().rev() {
            match Checkpoint::read(&path) {
                Ok(checkpoint) => return Ok(Latest { found: Some((path, checkpoint)), warnings }),
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

    /// Removes all but the `keep_last` newest checkpoints up to `step`.
    fn prune(&self, step: u64, keep_last: usize) -> Result<()> {
        let mut known = self.list()?;
        known.retain(|(at, _)| *at <= step);
        let keep = if keep_last == 0 { known.len() } else { keep_last };
        known.iter().rev().skip(keep).try_for_each(|(_, path)| remove(path))
    }

    /// Every entry of the checkpoint directory; none if it does not exist.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let folder = self.dir.join(FOLDER);
        let io = |cause: io::Error| Error::io("read", &folder, &cause);
        match std::fs::read_dir(&folder) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(cause) => Err(io(cause)),
            Ok(entries) => entries.map(|entry| Ok(entry.map_err(io)?.path())).collect(),
        }
    }
}

impl Checkpoint {
    /// Writes the checkpoint to `path`, replacing what is there in one step or not at all.
    ///
    /// # Errors
    /// An input error if it contradicts itself or cannot be written whole; `path` is then as it was.
    pub fn write(&self, path: &Path) -> Result<()> {
        let encoded = self.encode()?;
        replace(path, &|out| encoded.write_to(out)).map_err(|cause| {
            Error::input(format!(
                "{}; the checkpoint needs {} bytes, earlier ones are intact: free some space or choose another directory",
                Error::io("write", path, &cause),
                encoded.len
            ))
        })
    }
}

/// The step in a checkpoint's file name, if it is one that [`Store::save`] would give.
fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let step = digits.parse().ok()?;
    (format!("{step:08}") == digits).then_some(step)
}

/// Whether a file is one that [`replace`] did not get to rename.
fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with('.') && name.ends_with(UNFINISHED))
}

/// Removes a file, unless it is gone already.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, &cause)),
        _ => Ok(()),
    }
}

/// Replaces the file at `path` by what `fill` writes, at once and durably; on failure leaves no trace.
///
/// `fill` is called twice and must write the same bytes: the second time they are compared with the file's.
///
/// # Errors
/// Whatever the system says; the file at `path` is then as it was.
pub fn replace(path: &Path, fill: &dyn Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(UNFINISHED);
    // Opened here, because the crate's own opener keeps the file from everyone but its owner.
    let mut unfinished = builder.make_in(folder, |path| File::options().write(true).create_new(true).open(path))?;
    fill(unfinished.as_file_mut())?;
    unfinished.as_file().sync_all()?;
    // Closes the file, which Windows wants before it is renamed; dropping the path removes it.
    let unfinished = unfinished.into_temp_path();
    let mut compare = Compare { file: File::open(&unfinished)?, chunk: Vec::new() };
    fill(&mut compare)?;
    if compare.file.read(&mut [0])? != 0 {
        return Err(Compare::mismatch());
    }
    drop(compare);
    unfinished.persist(path).map_err(|failed| failed.error)?;
    sync_dir(folder)
}

/// A writer that changes nothing: it fails unless what it is given is what the file already holds.
struct Compare {
    file: File,
    chunk: Vec<u8>,
}

impl Compare {
    fn mismatch() -> io::Error {
        io::Error::other("what was written reads back differently, the disk may be failing")
    }
}

impl Write for Compare {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.resize(bytes.len(), 0);
        match self.file.read_exact(&mut self.chunk) {
            Ok(()) if self.chunk == bytes => Ok(bytes.len()),
            Err(cause) if cause.kind() != io::ErrorKind::UnexpectedEof => Err(cause),
            _ => Err(Self::mismatch()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes renames inside a directory durable. Elsewhere than on Unix a directory cannot be opened, nor needs to be.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    /// Names in the checkpoint directory, sorted.
    fn names(store: &Store) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<_> = store.files().unwrap().into_iter().map(name).collect();
        names.sort();
        names
    }

    fn store_with(steps: &[u64]) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("run"));
        steps.iter().for_each(|&step| drop(store.save(&sample(step), 0).unwrap()));
        (dir, store)
    }

    /// Takes `left` bytes, then the disk is full.
    struct Full<'a> {
        out: &'a mut dyn Write,
        left: usize,
    }

    impl Write for Full<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let some = &bytes[..bytes.len().min(self.left)];
            if some.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.left -= some.len();
            self.out.write(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_write_that_fails_after_any_number_of_bytes_changes_nothing() {
        let (_dir, store) = store_with(&[100]);
        let path = store.list().unwrap()[0].1.clone();
        let newer = sample(101);
        let encoded = newer.encode().unwrap();
        for left in 0..encoded.len as usize {
            let fill = |out: &mut dyn Write| encoded.write_to(&mut Full { out, left });
            assert_eq!(replace(&path, &fill).unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert_eq!(names(&store), ["step-00000100.safetensors"]);
        }
        assert_eq!(Checkpoint::read(&path).unwrap().meta.step, 100);
        replace(&path, &|out| encoded.write_to(out)).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap(), newer);
    }

    #[test]
    fn a_disk_that_reads_back_something_else_is_noticed() {
        let (_dir, store) = store_with(&[100]);
        let path = store.list().unwrap()[0].1.clone();
        let calls = std::cell::Cell::new(0);
        for (first, second) in [("abc", "abd"), ("abc", "ab"), ("abc", "abcd")] {
            calls.set(0);
            let fill = |out: &mut dyn Write| {
                calls.set(calls.get() + 1);
                out.write_all(if calls.get() == 1 { first } else { second }.as_bytes())
            };
            assert!(replace(&path, &fill).is_err());
            assert_eq!(names(&store), ["step-00000100.safetensors"]);
        }
        assert!(Checkpoint::read(&path).is_ok());
    }

    #[test]
    fn the_error_names_the_path_and_the_bytes_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone/model.safetensors");
        let error = sample(1).write(&path).unwrap_err().to_string();
        let len = sample(1).encode().unwrap().len;
        assert!(error.starts_with(&format!("cannot write {}: no such file", path.display())), "{error}");
        assert!(error.contains(&format!("needs {len} bytes")), "{error}");
    }

    #[test]
    fn saving_keeps_the_newest_and_what_is_not_its_own() {
        let (_dir, store) = store_with(&[100, 200, 300, 123_456_789]);
        let folder = store.dir.join(FOLDER);
        std::fs::write(folder.join("step-7.safetensors"), "a user's own").unwrap();
        std::fs::write(folder.join(".x9.unfinished"), "from a killed run").unwrap();
        let path = store.save(&sample(400), 2).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), {
            let mut bytes = Vec::new();
            sample(400).encode().unwrap().write_to(&mut bytes).unwrap();
            bytes
        });
        let kept = ["step-00000300.safetensors", "step-00000400.safetensors"];
        assert_eq!(names(&store), [kept[0], kept[1], "step-123456789.safetensors", "step-7.safetensors"]);
    }

    #[test]
    fn the_newest_readable_one_is_found_and_damage_is_named() {
        let (_dir, store) = store_with(&[]);
        assert!(store.latest().unwrap().found.is_none());
        let (_dir, store) = store_with(&[100, 200]);
        let damage = |index: usize| {
            let path = &store.list().unwrap()[index].1;
            File::options().write(true).open(path).unwrap().set_len(500).unwrap();
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
