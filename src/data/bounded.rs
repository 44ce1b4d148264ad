//! Files that are read as a whole, and of which no more is read than they may have.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::missing::unreadable;
use crate::error::{Error, Result};

/// The file at `path`, of at most so many bytes. `remedy` says what to do where it cannot be read.
///
/// # Errors
/// One that is missing, no regular file, or longer.
pub(crate) fn read(path: &Path, most: u64, remedy: &str) -> Result<Vec<u8>> {
    let io = |cause| unreadable("read", path, &cause, remedy);
    let stat = std::fs::metadata(path).map_err(io)?;
    let refused = |what: String| Err(Error::input(format!("{} {what}; {remedy}", path.display())));
    // Asked of the path first: a pipe would be waited for when it is opened, and a device has no end.
    if !stat.is_file() {
        return refused("is no regular file".to_owned());
    }
    if stat.len() > most {
        return refused(format!("has {} bytes, but at most {most} bytes are read of it", stat.len()));
    }
    let mut bytes = Vec::new();
    // It may be growing.
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(io)?;
    Ok(bytes)
}
