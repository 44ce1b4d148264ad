//! Data sets of text files, and what a tokenizer is to know of them.

use std::path::Path;

use super::text::{self, Text};
use super::{TokenSource, Tokenizer};
use crate::console::warn;
use crate::error::{Error, Result};

/// What is trained on, and what is validated on.
type Splits = (TokenSource, TokenSource);
/// A text that was read, and where it is.
type Read<'a> = (&'a Path, Text);

/// The splits of each text, the last `val_fraction` of which is validated on where it has no file of its own for that, and
/// the tokenizer of all.
///
/// # Errors
/// What cannot be read, is empty or not UTF-8; a `val_fraction` out of range.
pub(super) fn open(
    places: &[(&Path, Option<&Path>)],
    val_fraction: f64,
    takes_bytes: bool,
    tokenizer: impl FnOnce(&[(&Path, &str)]) -> Result<Tokenizer>,
) -> Result<(Vec<Splits>, Tokenizer)> {
    let mut read: Vec<(Read, Option<Read>)> = Vec::new();
    for (path, val_path) in places {
        let main = text::read(path, takes_bytes, "name a text file with --data")?;
        let other = |path| text::read(path, takes_bytes, "name a text file with --set data.val_path=FILE");
        let other = val_path.map(|path| Ok((path, other(path)?))).transpose()?;
        read.push(((path, main), other));
    }
    let mut texts: Vec<(&Path, &str)> = Vec::new();
    for ((path, main), other) in &read {
        texts.push((path, main.characters()));
        texts.extend(other.iter().map(|(path, other)| (*path, other.characters())));
    }
    let tokenizer = tokenizer(&texts)?;
    let encoded = |path: &Path, text: &Text| text.encoded(&tokenizer).map_err(|error| within(path, error));
    let split = |((path, main), other): &(Read, Option<Read>)| match other {
        Some((val_path, other)) => Ok((encoded(path, main)?, encoded(val_path, other)?)),
        None => main.split(val_fraction, &tokenizer).map_err(|error| within(path, error)),
    };
    let splits = read.iter().map(split).collect::<Result<_>>()?;
    Ok((splits, tokenizer))
}

/// A model knows all the characters of what it was trained on.
pub(super) fn check_known(tokenizer: &Tokenizer, texts: &[(&Path, &str)]) -> Result<()> {
    let unknown = texts.iter().find_map(|(path, text)| Some((path, tokenizer.first_unknown(text)?)));
    let Some((path, (c, position))) = unknown else { return Ok(()) };
    let (path, shown, code, count) = (path.display(), c.escape_debug(), u32::from(c), tokenizer.vocab_size());
    Err(Error::input(format!(
        "{path}: character '{shown}' (U+{code:04X}) at position {position} is not among the {count} characters of the text \
         that the model was trained on, so this is another text; name that one with --data FILE, remove the character, or \
         train a new model on this"
    )))
}

/// A text of one character leaves nothing to learn, and is seldom meant.
pub(super) fn check_several(tokenizer: &Tokenizer, texts: &[&str]) -> Result<()> {
    let only = texts.iter().find_map(|text| text.chars().next());
    let Some(only) = only.filter(|only| texts.iter().all(|text| text.chars().all(|c| c == *only))) else {
        return Ok(());
    };
    if *tokenizer == Tokenizer::Byte {
        let only = only.escape_debug();
        warn(format_args!(
            "the text is the character '{only}' over and over, of which there is hardly anything to learn"
        ));
        return Ok(());
    }
    let times: usize = texts.iter().map(|text| text.chars().count()).sum();
    let (only, times) = (only.escape_debug(), if times == 1 { "once".to_owned() } else { format!("{times} times") });
    Err(Error::input(format!(
        "the text is the character '{only}' {times}, and to predict it takes at least two different ones; name a file with \
         more in it"
    )))
}

/// Puts the name of the file before what is wrong with its text.
pub(super) fn within(path: &Path, error: Error) -> Error {
    Error::input(format!("{}: {error}", path.display()))
}
