//! One writer for each run directory.
//!
//! The lock is the operating system's, on the file `lock` in the directory, so that it goes with its process, however
//! that ends; a file left behind locks nobody out. It holds the number of the process while the directory is locked,
//! for the sentence that the next one gets. On network file systems the lock is as good as theirs; where there are no
//! locks at all, that is said and the run goes on.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::storage::{Files, Storage, parent};
use crate::console::warn;
use crate::error::{Error, Result};

/// Name of the locked file in a run directory.
const FILE: &str = "lock";
/// "No locks available", as a network file system without a lock server says it.
const ENOLCK: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 37 } else { 77 };
/// Attempts at a lock before giving up. Each needs another process that gives its own up at the same moment.
const MOST_ATTEMPTS: usize = 1000;

/// The right to write to a run directory; given back when it is dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct RunLock {
    /// `None` only while it is dropped.
    file: Option<File>,
    path: PathBuf,
    /// What a file that was there held, and when it was written: put back unless the run starts.
    found: Option<(Vec<u8>, Option<SystemTime>)>,
    /// What was created for the lock and goes again unless the run starts, innermost last: directories, then the file.
    created: Vec<PathBuf>,
}

impl RunLock {
    /// Locks the run directory `dir`, which is created where it is missing, until [`RunLock::keep`] only for trial.
    ///
    /// # Errors
    /// An input error where another process writes to the directory, or it cannot be written to; a usage error where a file
    /// has the lock's name that no run wrote.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let mut lock = Self { file: None, path: dir.join(FILE), found: None, created: Vec::new() };
        for _ in 0..MOST_ATTEMPTS {
            if lock.attempt(dir)? {
                return Ok(lock);
            }
        }
        Err(Error::input(format!(
            "cannot lock {}: its file {FILE} was replaced {MOST_ATTEMPTS} times meanwhile; choose another directory",
            dir.display()
        )))
    }

    /// No right to anything, for a process that leaves all writing to another one.
    pub(crate) fn of_another() -> Self {
        Self { file: None, path: PathBuf::new(), found: None, created: Vec::new() }
    }

    /// The directory is a run's from now on, durably, and stays when this is dropped.
    ///
    /// # Errors
    /// An input error where its directories cannot be synced.
    pub(crate) fn keep(&mut self) -> Result<()> {
        self.found = None;
        for path in std::mem::take(&mut self.created) {
            Files.sync_dir(parent(&path)).map_err(|cause| Error::io("sync", parent(&path), &cause))?;
        }
        Ok(())
    }

    /// Gives the lock back, and leaves no file of it.
    pub(crate) fn remove(mut self) {
        self.found = None;
        self.created = vec![self.path.clone()];
    }

    /// The file that is locked is still the one that another process would lock.
    ///
    /// # Errors
    /// An input error where it was removed or replaced, so that another run may write to the directory as well.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.file {
            Some(file) if !is_still_there(file, &self.path) => Err(Error::input(format!(
                "{} was removed or replaced during the run, so another run may write to its directory: this one stops before \
                 they mix, and goes on with --resume once it is alone",
                self.path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// `false` where another process removed the directory or the file at the same moment.
    fn attempt(&mut self, dir: &Path) -> Result<bool> {
        let io = |cause: io::Error| Error::io("lock", dir, &cause);
        create_missing(dir, &mut self.created).map_err(io)?;
        // Before it is opened: a pipe would be waited for, and a link leads to a file of another name.
        check_kind(dir)?;
        let file = match self.open() {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(io)?,
        };
        match file.try_lock() {
            Ok(()) if !is_still_there(&file, &self.path) => return Ok(false),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(dir, file)),
            Err(TryLockError::Error(cause)) if has_no_locks(&cause) => warn(format_args!(
                "the file system of {} has no locks ({cause}): make sure that no other run writes there",
                dir.display()
            )),
            Err(TryLockError::Error(cause)) => return Err(io(cause)),
        }
        if self.created.last() != Some(&self.path) {
            let held = content(&file).map_err(io)?;
            if !is_owner(&held) {
                return Err(foreign(dir));
            }
            self.found = Some((held, file.metadata().and_then(|stat| stat.modified()).ok()));
        }
        write_owner(&file).map_err(io)?;
        self.file = Some(file);
        Ok(true)
    }

    fn open(&mut self) -> io::Result<File> {
        match File::options().read(true).write(true).create_new(true).open(&self.path) {
            Ok(file) => {
                self.created.push(self.path.clone());
                Ok(file)
            }
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                File::options().read(true).write(true).open(&self.path)
            }
            Err(cause) => Err(cause),
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        // Nobody is told: the lock goes in any case, and what is left does no harm.
        let _ = file.set_len(0);
        if let Some((held, written)) = self.found.take() {
            let _ = (&file).rewind().and_then(|()| (&file).write_all(&held));
            let _ = written.map(|time| file.set_modified(time));
        }
        if self.created.last() == Some(&self.path) {
            self.created.pop();
            // While it is locked, so that no other process can have locked the same file.
            let _ = std::fs::remove_file(&self.path);
        }
        drop(file);
        for dir in self.created.iter().rev() {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Refuses `dir` where a file has the lock's name that no run wrote. Writes nothing.
///
/// # Errors
/// A usage error with the way out; an input error where the file cannot be read.
pub(crate) fn check_lock(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    check_kind(dir)?;
    let held = match File::open(&path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.and_then(|file| content(&file)),
    };
    match held {
        Ok(held) if is_owner(&held) => Ok(()),
        Ok(_) => Err(foreign(dir)),
        // Windows does not let a locked file be read; whose it is comes out when it is to be locked.
        Err(_) if cfg!(windows) => Ok(()),
        Err(cause) => Err(Error::input(format!("{}; choose another directory", Error::io("read", &path, &cause)))),
    }
}

/// Refuses `dir` where another process writes to it, without a lock of one's own that would outlast the question. A process
/// that takes the lock at that moment is refused: ask only where there is no way on.
///
/// # Errors
/// An input error that names the process.
pub(crate) fn check_unlocked(dir: &Path) -> Result<()> {
    // A pipe would be waited for.
    let opened = check_kind(dir).is_ok().then(|| File::open(dir.join(FILE)));
    let Some(Ok(file)) = opened else { return Ok(()) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(held(dir, file)),
        _ => Ok(()),
    }
}

/// Refuses a lock that is a directory, a pipe or a link.
fn check_kind(dir: &Path) -> Result<()> {
    match std::fs::symlink_metadata(dir.join(FILE)) {
        Ok(stat) if !stat.is_file() => Err(foreign(dir)),
        _ => Ok(()),
    }
}

fn foreign(dir: &Path) -> Error {
    let path = dir.join(FILE);
    Error::usage(format!(
        "{} is not a run's lock, and a run would write over it: choose another --out, or move it away",
        path.display()
    ))
}

/// The start of a lock's content: more than a run writes shows that it is none.
fn content(mut file: &File) -> io::Result<Vec<u8>> {
    let mut held = Vec::new();
    file.rewind()?;
    file.take(32).read_to_end(&mut held)?;
    Ok(held)
}

/// What a run leaves in its lock: nothing, or the number of its process where it was killed.
fn is_owner(held: &[u8]) -> bool {
    let number = held.strip_suffix(b"\n").unwrap_or(held);
    number.len() <= 10 && number.iter().all(u8::is_ascii_digit)
}

/// Creates a directory and those above it, and notes which ones, outermost first.
fn create_missing(dir: &Path, created: &mut Vec<PathBuf>) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Ok(()) => created.push(dir.to_path_buf()),
        Err(_) if dir.is_dir() => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && parent(dir) != Path::new(".") => {
            create_missing(parent(dir), created)?;
            return create_missing(dir, created);
        }
        Err(cause) => return Err(cause),
    }
    Ok(())
}

/// What the process that came second is told.
fn held(dir: &Path, mut file: File) -> Error {
    let owner = owner(&mut file).map_or_else(String::new, |pid| format!(" (process {pid})"));
    Error::input(format!(
        "another tokenformer{owner} is writing to {}: wait until it is done, stop it, or choose another directory with \
         --out",
        dir.display()
    ))
}

/// The number of the process that holds a lock. It is written a moment after the lock is taken, and on a busy machine
/// that may be some time.
fn owner(file: &mut File) -> Option<u32> {
    for _ in 0..50 {
        let mut text = String::new();
        file.rewind().ok()?;
        // Windows does not let a locked file be read.
        Read::by_ref(file).take(32).read_to_string(&mut text).ok()?;
        if let Some(number) = text.strip_suffix('\n') {
            return number.parse().ok();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// Writes the number of this process, for [`held`].
fn write_owner(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Whether locks are not to be had on this system or file system.
fn has_no_locks(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::Unsupported || cfg!(unix) && cause.raw_os_error() == Some(ENOLCK)
}

/// Whether the locked file is the one at `path`: another process may have removed it between opening and locking.
#[cfg(unix)]
fn is_still_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |stat: io::Result<std::fs::Metadata>| stat.ok().map(|stat| (stat.dev(), stat.ino()));
    let locked = identity(file.metadata());
    locked.is_some() && locked == identity(std::fs::metadata(path))
}

/// Elsewhere an open file keeps its name.
#[cfg(not(unix))]
fn is_still_there(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_by_name_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let mut first = RunLock::take(&run).unwrap();
        first.keep().unwrap();
        let error = RunLock::take(&run).unwrap_err();
        let owner = if cfg!(windows) { String::new() } else { format!(" (process {})", std::process::id()) };
        let sentence = format!("another tokenformer{owner} is writing to {}: wait", run.display());
        assert!(error.to_string().starts_with(&sentence), "{error}");
        assert_eq!(error.exit_code(), 2);
        drop(first);
        assert_eq!(std::fs::read(run.join(FILE)).unwrap(), b"", "no owner is named where there is none");
        RunLock::take(&run).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_that_was_removed_or_replaced_holds_nobody_off() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        lock.check().unwrap();
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(lock.check().unwrap_err().to_string().contains("lock was removed or replaced during the run"));
        std::fs::write(dir.path().join(FILE), "").unwrap();
        assert!(lock.check().is_err());
    }

    #[test]
    fn a_lock_for_trial_leaves_what_it_found() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a/b/run");
        drop(RunLock::take(&run).unwrap());
        assert!(!dir.path().join("a").exists());
        std::fs::create_dir_all(&run).unwrap();
        std::fs::write(run.join(FILE), "4711\n").unwrap();
        drop(RunLock::take(&run).unwrap());
        assert_eq!(std::fs::read(run.join(FILE)).unwrap(), b"4711\n", "a file that was there stays as it was");
        std::fs::write(run.join(FILE), "my notes\n").unwrap();
        for error in [check_lock(&run).unwrap_err(), RunLock::take(&run).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("lock is not a run's") && error.ends_with("or move it away"), "{error}");
        }
        assert_eq!(std::fs::read(run.join(FILE)).unwrap(), b"my notes\n");
        std::fs::remove_file(run.join(FILE)).unwrap();
        std::fs::write(dir.path().join("a/other"), "").unwrap();
        drop(RunLock::take(&run).unwrap());
        assert!(run.is_dir() && !run.join(FILE).exists());
    }

    #[test]
    fn locks_that_come_and_go_never_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let (run, inside) = (dir.path().join("run"), std::sync::atomic::AtomicU32::new(0));
        let taken = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let Ok(lock) = RunLock::take(&run) else { continue };
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        taken.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst), 1);
                        drop(lock);
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
    }
}
