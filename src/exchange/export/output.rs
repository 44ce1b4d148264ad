//! A file or a directory that is whole or not there: it is made under a hidden name beside its own, and renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::{Files, Storage};
use crate::error::{Error, Result};

/// A file that is written, front to back.
pub(super) struct Out {
    path: PathBuf,
    file: BufWriter<File>,
    written: u64,
}

impl Out {
    /// Creates the file at `path`, which is not there.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|cause| Error::io("create", path, &cause))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file), written: 0 })
    }

    /// Appends.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|cause| Error::io("write", &self.path, &cause))
    }

    /// Bytes that were written.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Makes all of it survive a loss of power.
    pub(super) fn finish(self) -> Result<u64> {
        let io = |cause: io::Error| Error::io("write", &self.path, &cause);
        let file = self.file.into_inner().map_err(|e| io(e.into_error()))?;
        file.sync_all().map_err(io)?;
        Ok(self.written)
    }
}

/// What is being made, under its hidden name; removed where it is not finished.
pub(super) struct Unfinished {
    /// Where it is meanwhile.
    pub(super) at: PathBuf,
    out: PathBuf,
    done: bool,
}

impl Unfinished {
    /// A new directory that will be `out`.
    pub(super) fn directory(out: &Path) -> Result<Self> {
        let made = Self::new(out)?;
        fs::create_dir(&made.at).map_err(|cause| Error::io("create", &made.at, &cause))?;
        Ok(made)
    }

    /// A place for a file that will be `out`. What a killed export left there is removed.
    pub(super) fn new(out: &Path) -> Result<Self> {
        let at = hidden(out, "unfinished")?;
        remove(&at).map_err(|cause| Error::io("remove", &at, &cause))?;
        Ok(Self { at, out: out.to_owned(), done: false })
    }

    /// Gives it its name, in the place of what has that.
    pub(super) fn finish(mut self) -> Result<()> {
        let io = |cause: io::Error| Error::io("write", &self.out, &cause);
        let parent = self.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A file gives way by itself, a directory does not.
        let old = hidden(&self.out, "replaced")?;
        let replaces = self.out.is_dir();
        if replaces {
            remove(&old).map_err(io)?;
            fs::rename(&self.out, &old).map_err(io)?;
        }
        if let Err(cause) = fs::rename(&self.at, &self.out) {
            if replaces {
                // The first failure is the one to report.
                let _ = fs::rename(&old, &self.out);
            }
            return Err(io(cause));
        }
        self.done = true;
        Files.sync_dir(parent).map_err(io)?;
        remove(&old).map_err(|cause| Error::io("remove", &old, &cause))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.done {
            // There is another failure to report.
            let _ = remove(&self.at);
        }
    }
}

/// A name beside `out`.
fn hidden(out: &Path, end: &str) -> Result<PathBuf> {
    let name = out.file_name().ok_or_else(|| {
        Error::usage(format!("{} has no name that an export could have: name a new file or directory", out.display()))
    })?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    hidden.push(end);
    Ok(out.with_file_name(hidden))
}

/// Removes what is there, if anything.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(cause) => Err(cause),
    };
    match removed {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Refuses to write to `out` where something is that may not be replaced; `is_export` says why it is none.
///
/// # Errors
/// Something there, and no `overwrite`; something that is no export; what cannot be read.
pub(super) fn check_free(
    out: &Path,
    overwrite: bool,
    is_export: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<()> {
    let shown = out.display();
    let empty = |out: &Path| fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if fs::symlink_metadata(out).is_err() || empty(out) {
        return Ok(());
    }
    if let Err(why) = is_export(out) {
        return Err(Error::usage(format!(
            "{shown} exists and is no export that could be replaced ({why}): choose another output"
        )));
    }
    if !overwrite {
        return Err(Error::usage(format!(
            "{shown} is an earlier export: replace it with --overwrite, or choose another output"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finished_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model");
        let names = || {
            let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        drop(Unfinished::directory(&out).unwrap());
        assert!(names().is_empty());
        for text in ["first", "second"] {
            let made = Unfinished::directory(&out).unwrap();
            let mut file = Out::create(&made.at.join("a")).unwrap();
            file.write(text.as_bytes()).unwrap();
            assert_eq!(file.finish().unwrap(), text.len() as u64);
            made.finish().unwrap();
            assert_eq!(fs::read_to_string(out.join("a")).unwrap(), text);
            assert_eq!(names(), ["model"]);
        }
        assert_eq!(Unfinished::new(Path::new("..")).map(drop).unwrap_err().exit_code(), 1);
    }

    #[test]
    fn only_an_export_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model");
        let said = |overwrite, export: Result<(), String>| {
            check_free(&out, overwrite, |_| export).map_err(|e| e.to_string()).err().unwrap_or_default()
        };
        assert_eq!(said(false, Err(String::new())), "");
        fs::write(&out, "x").unwrap();
        assert!(said(true, Err("it is a text".to_owned())).contains("no export that could be replaced (it is a text)"));
        assert!(said(false, Ok(())).contains("--overwrite"));
        assert_eq!(said(true, Ok(())), "");
    }
}
