//! What is said of a data file that cannot be read.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::Error;

/// The file at `path` cannot be read, and what to do about it. Of a relative path it says where it was looked for.
pub(crate) fn unreadable(verb: &str, path: &Path, cause: &std::io::Error, remedy: &str) -> Error {
    let folder = std::env::current_dir().ok().filter(|_| cause.kind() == ErrorKind::NotFound && path.is_relative());
    let place =
        folder.map_or_else(String::new, |folder| format!(" (a relative path, looked up in {})", folder.display()));
    Error::input(format!("{}{place}; {remedy}", Error::io(verb, path, cause)))
}
