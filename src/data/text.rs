//! Reading a UTF-8 text file and choosing where its validation part begins.
//!
//! The whole text is held in memory. Text is taken as it is: no normalisation, no change of line ends.

use std::path::Path;

use crate::error::{Error, Result};

/// The text of a file.
///
/// # Errors
/// Missing or unreadable, empty, or not UTF-8 (naming the first bad byte and its offset).
pub(super) fn read(path: &Path) -> Result<String> {
    let io = |cause| Error::input(format!("{}; name a text file with --data", Error::io("read", path, &cause)));
    let stat = std::fs::metadata(path).map_err(io)?;
    if !stat.is_file() {
        // A device such as /dev/zero has no end.
        let kind = if stat.is_dir() { "a directory" } else { "no regular file" };
        return Err(Error::input(format!("{} is {kind}; name a text file with --data", path.display())));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    if bytes.is_empty() {
        return Err(Error::input(format!("{} is empty; name a file with text in it", path.display())));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(offset).copied().unwrap_or_default();
        let name = path.display();
        let sentence = format!("{name} is not UTF-8 text: byte 0x{byte:02x} at offset {offset} does not fit");
        Error::input(sentence + "; convert the file to UTF-8 (a token shard must be named *.bin)")
    })
}

/// Byte offset at which the last `val_fraction` of the characters of `text` begins.
///
/// nanoGPT's rule: of n characters the first `floor(n * (1 - val_fraction))` are for training.
///
/// # Errors
/// `val_fraction` not strictly between 0 and 1.
pub(super) fn split_at(text: &str, val_fraction: f64) -> Result<usize> {
    let chars = split_count(text.chars().count(), val_fraction)?;
    Ok(text.char_indices().nth(chars).map_or(text.len(), |(offset, _)| offset))
}

/// Of `n` characters or tokens, how many come before the last `val_fraction`; errors as [`split_at`].
pub(crate) fn split_count(n: usize, val_fraction: f64) -> Result<usize> {
    if !(val_fraction > 0.0 && val_fraction < 1.0) {
        let sentence = format!("val_fraction is {val_fraction}, it must lie between 0 and 1 (exclusive)");
        return Err(Error::usage(sentence + "; use for example 0.1"));
    }
    Ok((n as f64 * (1.0 - val_fraction)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_nanogpts_and_never_inside_a_character() {
        assert_eq!(split_count(1_115_394, 0.1).unwrap(), 1_003_854);
        let text = "ééééééabcd";
        assert_eq!(split_at(text, 0.5).unwrap(), 10);
        for bad in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            assert_eq!(split_at(text, bad).unwrap_err().exit_code(), 1);
        }
    }

    #[test]
    fn bad_files_are_named_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text.txt");
        let said = || read(&path).unwrap_err().to_string();
        assert!(said().starts_with("cannot read"), "{}", said());
        std::fs::write(&path, b"").unwrap();
        assert!(said().contains("is empty"), "{}", said());
        std::fs::write(&path, b"caf\xe9 au lait").unwrap();
        assert!(said().contains("byte 0xe9 at offset 3"), "{}", said());
        std::fs::write(&path, "café").unwrap();
        assert_eq!(read(&path).unwrap(), "café");
    }
}
