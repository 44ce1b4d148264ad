//! The few file operations that a run needs, and how a file is replaced so that it is whole or not there.
//!
//! Everything a run writes (checkpoints, settings, metrics) goes through [`Storage`]: [`Files`] is the file system,
//! and the tests put a disk in its place that fails, or loses power, at any operation. What the operations promise
//! is little: until [`Sink::sync`] and [`Storage::sync_dir`] have returned, a loss of power may undo, tear or reorder
//! whatever was done before. This file does not know what is in the files.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// How the name of a file that is still being written ends.
pub(super) const UNFINISHED: &str = ".unfinished";

/// The file operations of a run.
pub trait Storage: Debug + Send + Sync {
    /// Opens a regular file for reading, from its start.
    ///
    /// # Errors
    /// What the system says; anything that is not a regular file.
    fn open(&self, path: &Path) -> io::Result<Source>;

    /// Creates a file.
    ///
    /// # Errors
    /// What the system says; `AlreadyExists` where there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>>;

    /// Opens a file that is there for writing at its end.
    ///
    /// # Errors
    /// What the system says.
    fn append(&self, path: &Path) -> io::Result<Box<dyn Sink>>;

    /// Gives a file another name, in place of the file that has it.
    ///
    /// # Errors
    /// What the system says; both names are then as they were.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says; `NotFound` where there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The paths of everything in a directory, in any order.
    ///
    /// # Errors
    /// What the system says; `NotFound` where there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Creates a directory in one that exists; `false` where it was there already.
    ///
    /// # Errors
    /// What the system says; `NotFound` where its parent is missing.
    fn create_dir(&self, dir: &Path) -> io::Result<bool>;

    /// Makes what was created, renamed and removed in a directory survive a loss of power.
    ///
    /// # Errors
    /// What the system says; how much of it survives is then unknown.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is read.
pub struct Source {
    /// Bytes it had when it was opened.
    pub len: u64,
    /// Its content, front to back.
    pub bytes: Box<dyn Read>,
}

/// A file that is written, front to back.
pub trait Sink: Write + Send {
    /// Makes what was written survive a loss of power.
    ///
    /// # Errors
    /// What the system says. What was written is then lost for good, even if another call succeeds: Linux marks the
    /// pages that could not be written as clean.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files;

impl Sink for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl Storage for Files {
    fn open(&self, path: &Path) -> io::Result<Source> {
        let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        // Asked of the path first, because opening a pipe would wait for its writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(not_regular());
        }
        let file = File::open(path)?;
        // Of the open file: another one may have its name by now.
        let stat = file.metadata()?;
        if stat.is_file() { Ok(Source { len: stat.len(), bytes: Box::new(file) }) } else { Err(not_regular()) }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(File::options().write(true).create_new(true).open(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(File::options().append(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<bool> {
        match std::fs::create_dir(dir) {
            Ok(()) => Ok(true),
            // Not only `AlreadyExists`: for a directory on a read-only mount some systems complain about the mount.
            Err(_) if dir.is_dir() => Ok(false),
            Err(cause) => Err(cause),
        }
    }

    /// Elsewhere than on Unix a directory cannot be opened, nor needs to be.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if !cfg!(unix) {
            return Ok(());
        }
        match File::open(dir)?.sync_all() {
            // Some network and FUSE file systems cannot sync a directory: they keep its order themselves, or nobody
            // can make them.
            Err(cause) if matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            done => done,
        }
    }
}

/// The directory that a path lies in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a directory and those above it, durably; nothing changes where it is there.
///
/// # Errors
/// What the system says.
pub(crate) fn create_dirs(storage: &dyn Storage, dir: &Path) -> io::Result<()> {
    let above = parent(dir);
    let created = match storage.create_dir(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && above != Path::new(".") => {
            create_dirs(storage, above)?;
            storage.create_dir(dir)?
        }
        other => other?,
    };
    let synced = storage.sync_dir(above);
    // Where the directory was there, an earlier start may have failed to sync it. It need not be ours to sync.
    if created { synced } else { Ok(()) }
}

/// Replaces a text file, at once and durably or not at all.
///
/// # Errors
/// What the system says; the file is then as it was.
pub fn replace(storage: &dyn Storage, path: &Path, text: &str) -> io::Result<()> {
    let check = |source: Source| {
        let mut found = Vec::new();
        source.bytes.take(text.len() as u64 + 1).read_to_end(&mut found)?;
        if found == text.as_bytes() { Ok(()) } else { Err(differs()) }
    };
    commit(storage, path, &|out| out.write_all(text.as_bytes()), &check)
}

/// Replaces the file at `path` by what `fill` writes: under another name, synced, read back by `check`, and only then
/// renamed. Leaves nothing behind where it fails.
///
/// # Errors
/// What the system or `check` says. The file at `path` is then as it was, unless the last step failed, the sync of
/// its directory: then it is the old or the new one, whole.
pub(super) fn commit(
    storage: &dyn Storage,
    path: &Path,
    fill: &dyn Fn(&mut dyn Write) -> io::Result<()>,
    check: &dyn Fn(Source) -> io::Result<()>,
) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it has no file name"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(UNFINISHED);
    let unfinished = path.with_file_name(hidden);
    let mut file = match storage.create(&unfinished) {
        // Left by a writer that was killed.
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            storage.remove(&unfinished)?;
            storage.create(&unfinished)?
        }
        created => created?,
    };
    let written = fill(&mut *file).and_then(|()| file.sync());
    // Closed before it is renamed, which Windows wants.
    drop(file);
    let renamed =
        written.and_then(|()| check(storage.open(&unfinished)?)).and_then(|()| storage.rename(&unfinished, path));
    if renamed.is_err() {
        // The first failure is the one to report.
        let _ = storage.remove(&unfinished);
    }
    renamed.and_then(|()| storage.sync_dir(parent(path)))
}

/// What a read-back says that finds something else than was written.
pub(super) fn differs() -> io::Error {
    io::Error::other("what was written reads back differently, the disk may be failing")
}

/// The name that a file was to get which [`commit`] did not get to rename; `None` for another file.
pub(super) fn unfinished(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix('.')?.strip_suffix(UNFINISHED)
}
