//! Reading a text file and choosing where its validation part begins.
//!
//! The whole text is held in memory. Text is taken as it is, but for a byte order mark before it: no normalisation, no
//! change of line ends. The byte tokenizer takes what is not UTF-8 as well.

use std::path::Path;

use super::encoding::{MARK, wide, without_mark};
use super::missing::unreadable;
use super::{TokenSource, Tokenizer, lookalike};
use crate::console::warn;
use crate::error::{Error, Result};

/// What a file holds.
#[derive(Debug)]
pub(super) enum Text {
    Utf8(String),
    /// What the byte tokenizer takes although it is not UTF-8.
    Bytes(Vec<u8>),
}

/// The text of a file, for a tokenizer that takes bytes which are not UTF-8 or for one that does not. `remedy` says how to name
/// another file.
///
/// # Errors
/// Missing or unreadable, empty, or not UTF-8 (naming the first bad byte and its offset, and what it may be instead).
pub(super) fn read(path: &Path, takes_bytes: bool, remedy: &str) -> Result<Text> {
    let io = |cause| unreadable("read", path, &cause, remedy);
    let name = path.display();
    let stat = std::fs::metadata(path).map_err(io)?;
    if !stat.is_file() {
        // A device such as /dev/zero has no end.
        let kind = if stat.is_dir() { "a directory" } else { "no regular file" };
        return Err(Error::input(format!("{name} is {kind}; {remedy}")));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    if bytes.is_empty() {
        return Err(Error::input(format!("{name} is empty; name a file with text in it")));
    }
    let wide = wide(&bytes).map(|encoding| {
        let convert = format!("convert it with `iconv -f {encoding} -t UTF-8 {name} > utf8.txt`");
        format!("{name} looks like {encoding} text, not UTF-8; {convert}")
    });
    match (&wide, takes_bytes) {
        (Some(sentence), false) => return Err(Error::input(sentence.clone())),
        (Some(sentence), true) => warn(format_args!("{sentence}: its bytes are taken as they are")),
        (None, _) => {}
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => match without_mark(&text) {
            "" => return Err(Error::input(format!("{name} is a byte order mark and no text; name another file"))),
            rest if rest.len() < text.len() => Text::Utf8(rest.to_owned()),
            _ => Text::Utf8(text),
        },
        Err(error) if takes_bytes => Text::Bytes(error.into_bytes()),
        Err(error) => return Err(not_utf8(path, error.as_bytes(), error.utf8_error().valid_up_to())),
    };
    // Of a file that is refused, nothing is to be removed.
    if wide.is_none() {
        warn_of_nuls(path, text.bytes());
    }
    warn_of_marks(path, text.characters());
    Ok(text)
}

/// NULs are tokens as any other, but few texts have them on purpose.
fn warn_of_nuls(path: &Path, bytes: &[u8]) {
    let Some(first) = bytes.iter().position(|&byte| byte == 0) else { return };
    let count = bytes.iter().filter(|&&byte| byte == 0).count();
    warn(format_args!(
        "{} has {count} NULs, the first at offset {first}, which become tokens as any other character: remove them \
         with `tr -d '\\000'` if they are not meant",
        path.display()
    ));
}

/// One in the middle is mostly of a second file that was put behind the first.
fn warn_of_marks(path: &Path, text: &str) {
    let Some(first) = text.chars().position(|c| c == MARK) else { return };
    let count = text.matches(MARK).count();
    warn(format_args!(
        "{} has {count} more byte order marks (U+FEFF), the first at character {first}, which are kept as characters: remove \
         them with `sed 's/\\xef\\xbb\\xbf//g'` if they are of files that were joined",
        path.display()
    ));
}

fn not_utf8(path: &Path, bytes: &[u8], offset: usize) -> Error {
    let (name, byte) = (path.display(), bytes.get(offset).copied().unwrap_or_default());
    if let Some(found) = lookalike::binary(bytes) {
        return Error::input(format!("{name} is not UTF-8 text, but looks like {}; {}", found.what, found.remedy));
    }
    // Hardly any text of an encoding of one byte a character has control characters.
    let control = |byte: &&u8| **byte < 0x20 && !byte.is_ascii_whitespace();
    let single = bytes.iter().filter(control).count() * 100 < bytes.len();
    let convert = match single {
        true => format!("if it is Latin-1, convert it with `iconv -f WINDOWS-1252 -t UTF-8 {name} > utf8.txt`"),
        false => "convert the file to UTF-8 (a token shard must be named *.bin)".to_owned(),
    };
    let sentence = format!("{name} is not UTF-8 text: byte 0x{byte:02x} at offset {offset} does not fit");
    Error::input(format!("{sentence}; {convert}, or train with the byte tokenizer (data.tokenizer=byte)"))
}

impl Text {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Utf8(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The characters that a tokenizer is made for; the byte tokenizer is made for none.
    pub(super) fn characters(&self) -> &str {
        match self {
            Self::Utf8(text) => text,
            Self::Bytes(_) => "",
        }
    }

    /// All of its tokens; errors as [`Tokenizer::encode`].
    pub(super) fn encoded(&self, tokenizer: &Tokenizer) -> Result<TokenSource> {
        match self {
            Self::Utf8(text) => TokenSource::from_text(text, tokenizer),
            Self::Bytes(bytes) => Ok(TokenSource::from_bytes(bytes)),
        }
    }

    /// The tokens before the last `val_fraction` of its characters, or of its bytes, and those of the rest, each made on
    /// its own as nanoGPT does; errors as [`split_at`] and [`Tokenizer::encode`].
    pub(super) fn split(&self, val_fraction: f64, tokenizer: &Tokenizer) -> Result<(TokenSource, TokenSource)> {
        match self {
            Self::Utf8(text) => {
                let (train, val) = text.split_at(split_at(text, val_fraction)?);
                Ok((TokenSource::from_text(train, tokenizer)?, TokenSource::from_text(val, tokenizer)?))
            }
            Self::Bytes(bytes) => {
                let boundary = split_count(bytes.len(), val_fraction)?;
                Ok(TokenSource::from_bytes(bytes).split_at(boundary))
            }
        }
    }
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
        let read = |takes_bytes| read(&path, takes_bytes, "name a text file with --data");
        let said = || read(false).unwrap_err().to_string();
        assert!(said().starts_with("cannot read"), "{}", said());
        std::fs::write(&path, b"").unwrap();
        assert!(said().contains("is empty"), "{}", said());
        std::fs::write(&path, b"\xef\xbb\xbf").unwrap();
        assert!(said().contains("is a byte order mark and no text"), "{}", said());
        std::fs::write(&path, b"caf\xe9 au lait").unwrap();
        assert!(said().contains("byte 0xe9 at offset 3") && said().contains("iconv -f WINDOWS-1252"), "{}", said());
        assert!(matches!(read(true).unwrap(), Text::Bytes(bytes) if bytes.len() == 12));
        std::fs::write(&path, b"\x1f\x8b\x08\0\xff\xff").unwrap();
        assert!(said().contains("packed with gzip"), "{}", said());
        std::fs::write(&path, b"\xff\xfec\0a\0").unwrap();
        assert!(said().contains("`iconv -f UTF-16 -t UTF-8 "), "{}", said());
        for text in ["café", "\u{feff}café"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read(false).unwrap(), Text::Utf8(text) if text == "café"));
        }
    }
}
