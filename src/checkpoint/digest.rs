//! The SHA-256 of a file, as `sha256sum` prints it: what a lineage knows another checkpoint by.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::storage::{Files, Source, Storage};
use crate::error::{Error, Result};
use crate::report::number::hexadecimal;

/// A file by its name and its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its name, without directories.
    pub name: String,
    /// SHA-256 of its bytes in hexadecimal.
    pub sha256: String,
}

impl FileDigest {
    /// Reads the file at `path`, a piece at a time.
    ///
    /// # Errors
    /// An input error where it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let mut source = Files.open(path).map_err(|cause| Error::io("read", path, &cause))?;
        Self::of(path, |out| io::copy(&mut source.bytes, out).map(drop))
    }

    /// Of the file at `path`, whose bytes `fill` writes, front to back.
    ///
    /// # Errors
    /// What `fill` says, as an input error.
    pub(super) fn of(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Self> {
        let mut hasher = Hasher(Sha256::new());
        fill(&mut hasher).map_err(|cause| Error::io("read", path, &cause))?;
        Ok(Self::new(path, hasher.0))
    }

    fn new(path: &Path, hasher: Sha256) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, sha256: hexadecimal(&hasher.finalize()) }
    }
}

/// The digest of a file that is read only once, for something else: of what passes.
pub(super) struct ReadDigest(Arc<Mutex<Sha256>>);

impl ReadDigest {
    /// `source`, and what takes in all that is read of it.
    pub(super) fn over(source: Source) -> (Self, Source) {
        let hasher = Arc::new(Mutex::new(Sha256::new()));
        let bytes = Box::new(HashingReader { bytes: source.bytes, hasher: hasher.clone() });
        (Self(hasher), Source { len: source.len, bytes })
    }

    /// Of the file at `path`, all of which was read.
    pub(super) fn digest(self, path: &Path) -> FileDigest {
        FileDigest::new(path, self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A file whose digest is taken while it is read.
struct HashingReader {
    bytes: Box<dyn Read>,
    hasher: Arc<Mutex<Sha256>>,
}

impl Read for HashingReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(into)?;
        let passed = into.get(..read).unwrap_or_default();
        self.hasher.lock().unwrap_or_else(PoisonError::into_inner).update(passed);
        Ok(read)
    }
}

/// Takes in what is written to it.
struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_digest_that_the_standard_gives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc.txt");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-4's example, and `printf abc | sha256sum`.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        assert_eq!(FileDigest::read(&path).unwrap(), FileDigest { name: "abc.txt".to_owned(), sha256 });
        let error = FileDigest::read(&dir.path().join("gone")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.contains("no such file"), "{error}");
    }
}
