//! Which files make a data set: one text, a text and a validation text, or token shards.

use std::path::Path;

use super::shard::Shard;
use super::text::{self, Text};
use super::{Dataset, TokenSource, Tokenizer, TokenizerKind};
use crate::console::warn;
use crate::error::{Error, Result};

/// Opens a data set: a token shard if `path` ends in `.bin`, else UTF-8 text.
///
/// A byte order mark is no text; with the byte tokenizer a text may be any bytes. Validation is on the file at `val_path`, or else on the last `val_fraction` of `path` (at a character
/// boundary). A text gets a tokenizer of `kind`, made for both files; shards get none, and need their
/// `vocab_size_for_shards`.
///
/// # Errors
/// What cannot be read, is empty or not UTF-8; a `val_fraction` out of range; a shard without vocabulary; a text and a
/// shard together.
pub fn open(
    path: &Path,
    val_path: Option<&Path>,
    kind: &TokenizerKind,
    val_fraction: f64,
    vocab_size_for_shards: Option<usize>,
) -> Result<Dataset> {
    check_kinds(path, val_path)?;
    if is_shard(path) {
        let Some(vocab) = vocab_size_for_shards.filter(|&vocab| vocab > 0) else {
            // Whatever else is wrong with the file comes first, such as that there is none.
            let largest = Shard::open(path, usize::MAX)?.largest();
            let other = val_path.map(|path| Shard::open(path, usize::MAX)).transpose()?;
            let largest = other.map_or(largest, |other| other.largest().max(largest));
            let least = u64::from(largest) + 1;
            return Err(Error::usage(format!(
                "{} is a token shard, which does not say its vocabulary; its largest id is {largest}: set it with --set \
                 model.vocab_size={least}, or to that of its tokenizer (GPT-2: 50257)",
                path.display()
            )));
        };
        return open_shards(path, val_path, val_fraction, vocab, None);
    }
    open_texts(path, val_path, val_fraction, kind.takes_bytes(), |texts| {
        let texts: Vec<&str> = texts.iter().map(|(_, text)| *text).collect();
        let made = Tokenizer::of(kind, &texts).and_then(|made| check_several(&made, &texts).map(|()| made));
        made.map_err(|error| within(path, error))
    })
}

/// [`open`] with the tokenizer of a checkpoint; a shard is then taken to hold that tokenizer's tokens.
///
/// # Errors
/// As [`open`], and a character outside the tokenizer's vocabulary.
pub(crate) fn open_with(
    tokenizer: Tokenizer,
    path: &Path,
    val_path: Option<&Path>,
    val_fraction: f64,
) -> Result<Dataset> {
    check_kinds(path, val_path)?;
    if is_shard(path) {
        return open_shards(path, val_path, val_fraction, tokenizer.vocab_size(), Some(tokenizer));
    }
    let takes_bytes = tokenizer.takes_bytes();
    let known = |texts: &[(&Path, &str)]| check_known(&tokenizer, texts).map(|()| tokenizer.clone());
    open_texts(path, val_path, val_fraction, takes_bytes, known)
}

/// [`open_with`] for data that are beside those that the model is trained on.
///
/// # Errors
/// As there.
pub(crate) fn open_beside(tokenizer: Tokenizer, path: &Path, val_fraction: f64) -> Result<Dataset> {
    if is_shard(path) {
        return open_with(tokenizer, path, None, val_fraction);
    }
    open_texts(path, None, val_fraction, tokenizer.takes_bytes(), |_| Ok(tokenizer))
}

/// A model knows all the characters of what it was trained on.
fn check_known(tokenizer: &Tokenizer, texts: &[(&Path, &str)]) -> Result<()> {
    let unknown = texts.iter().find_map(|(path, text)| Some((path, tokenizer.first_unknown(text)?)));
    let Some((path, (c, position))) = unknown else { return Ok(()) };
    let (path, shown, code, count) = (path.display(), c.escape_debug(), u32::from(c), tokenizer.vocab_size());
    Err(Error::input(format!(
        "{path}: character '{shown}' (U+{code:04X}) at position {position} is not among the {count} characters of the text \
         that the model was trained on, so this is another text; name that one with --data FILE, remove the character, or \
         train a new model on this"
    )))
}

/// Whether [`open`] takes the file for a token shard.
pub(crate) fn is_shard(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("bin"))
}

/// Both files are read as what the first one is, and either reads as the other without complaint.
fn check_kinds(path: &Path, val_path: Option<&Path>) -> Result<()> {
    let Some(other) = val_path.filter(|other| is_shard(other) != is_shard(path)) else { return Ok(()) };
    let kind = |path: &Path| if is_shard(path) { "a token shard (.bin)" } else { "text" };
    let (name, main) = (other.display(), path.display());
    Err(Error::usage(format!(
        "val_path {name} is {}, but path {main} is {}: give two files of one kind, or drop val_path to validate on the \
         end of {main}",
        kind(other),
        kind(path)
    )))
}

fn open_texts(
    path: &Path,
    val_path: Option<&Path>,
    val_fraction: f64,
    takes_bytes: bool,
    tokenizer: impl FnOnce(&[(&Path, &str)]) -> Result<Tokenizer>,
) -> Result<Dataset> {
    let main = text::read(path, takes_bytes, "name a text file with --data")?;
    let (train, val, tokenizer) = match val_path {
        Some(val_path) => {
            let other = text::read(val_path, takes_bytes, "name a text file with --set data.val_path=FILE")?;
            let tokenizer = tokenizer(&[(path, main.characters()), (val_path, other.characters())])?;
            (encoded(path, &main, &tokenizer)?, encoded(val_path, &other, &tokenizer)?, tokenizer)
        }
        None => {
            let tokenizer = tokenizer(&[(path, main.characters())])?;
            let (train, val) = main.split(val_fraction, &tokenizer).map_err(|error| within(path, error))?;
            (train, val, tokenizer)
        }
    };
    let (vocab, description) = (tokenizer.vocab_size(), describe(path, val_path));
    Ok(Dataset {
        train,
        val,
        old_val: None,
        tokenizer: Some(tokenizer),
        vocab_size: vocab,
        entropy_floor: None,
        description,
        format: None,
    })
}

/// A text of one character leaves nothing to learn, and is seldom meant.
fn check_several(tokenizer: &Tokenizer, texts: &[&str]) -> Result<()> {
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

fn open_shards(
    path: &Path,
    val_path: Option<&Path>,
    val_fraction: f64,
    vocab_size: usize,
    tokenizer: Option<Tokenizer>,
) -> Result<Dataset> {
    let main = Shard::open(path, vocab_size)?;
    let other = val_path.map(|val_path| Shard::open(val_path, vocab_size)).transpose()?;
    let format = match &other {
        Some(other) => format!("{} and {}", main.describe(), other.describe()),
        None => main.describe(),
    };
    if let Some(only) = main.only()?.filter(|_| main.len() > 1) {
        return Err(Error::input(format!(
            "{}: every token is {only}, and to predict it takes at least two different ones; name a shard with more in it",
            path.display()
        )));
    }
    let main = TokenSource::from_shard(main);
    let (train, val) = match other {
        Some(other) => (main, TokenSource::from_shard(other)),
        None => {
            let boundary = text::split_count(main.len(), val_fraction)?;
            main.split_at(boundary)
        }
    };
    let (format, description) = (Some(format), describe(path, val_path));
    Ok(Dataset { train, val, old_val: None, tokenizer, vocab_size, entropy_floor: None, description, format })
}

/// A data set of these files in words.
pub(crate) fn describe(path: &Path, val_path: Option<&Path>) -> String {
    let second = val_path.map(|path| format!(" and {}", path.display())).unwrap_or_default();
    format!("data in {}{second}", path.display())
}

fn encoded(path: &Path, text: &Text, tokenizer: &Tokenizer) -> Result<TokenSource> {
    text.encoded(tokenizer).map_err(|error| within(path, error))
}

/// Puts the name of the file before what is wrong with its text.
fn within(path: &Path, error: Error) -> Error {
    Error::input(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn write(dir: &tempfile::TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn a_text_is_split_by_characters_in_either_tokenizer() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "text.txt", "ééééabcd");
        for (kind, tokens) in [(TokenizerKind::Char, (4, 4)), (TokenizerKind::Byte, (8, 4))] {
            let data = open(&path, None, &kind, 0.5, None).unwrap();
            assert_eq!((data.train.len(), data.val.len()), tokens);
            let all = data.val.window(0, 4).unwrap();
            assert_eq!(data.tokenizer.unwrap().decode(&all), "abcd");
        }
        let data = open(&path, None, &TokenizerKind::Byte, 0.5, None).unwrap();
        let said = data.check_length(4).unwrap_err().to_string();
        assert!(said.contains("validation split") && said.contains("has 4 tokens") && said.contains("5"), "{said}");
    }

    #[test]
    fn a_validation_file_and_a_tokenizer_of_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (write(&dir, "a.txt", "abab"), write(&dir, "b.txt", "abc"));
        let data = open(&a, Some(&b), &TokenizerKind::Char, 0.0, None).unwrap();
        assert_eq!((data.train.len(), data.val.len(), data.vocab_size), (4, 3, 3));
        let narrow = open(&a, None, &TokenizerKind::Char, 0.5, None).unwrap().tokenizer.unwrap();
        let said = open_with(narrow, &a, Some(&b), 0.5).unwrap_err().to_string();
        assert!(said.contains("b.txt: character 'c' (U+0063) at position 2"), "{said}");
    }

    #[test]
    fn shards_need_a_vocabulary() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "train.bin", (0..20_u16).flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
        let open = |vocab| open(&path, None, &TokenizerKind::Char, 0.25, vocab);
        assert_eq!(open(None).unwrap_err().exit_code(), 1);
        let missing = super::open(&dir.path().join("no.bin"), None, &TokenizerKind::Char, 0.25, None).unwrap_err();
        assert!(missing.to_string().starts_with("cannot open "), "{missing}");
        let data = open(Some(20)).unwrap();
        assert_eq!((data.train.len(), data.val.len(), data.tokenizer.is_none()), (15, 5, true));
        assert_eq!(data.val.window(0, 5).unwrap(), [15, 16, 17, 18, 19]);
        assert!(open(Some(19)).unwrap_err().to_string().contains("token 19 at position 19"));
        assert_eq!(open_with(Tokenizer::Byte, &path, None, 0.5).unwrap().vocab_size, 256);
    }

    #[test]
    fn a_text_and_a_shard_are_no_data_set() {
        let dir = tempfile::tempdir().unwrap();
        let (shard, text) = (write(&dir, "a.bin", "ab".repeat(9)), write(&dir, "a.txt", "ab".repeat(9)));
        for (path, val) in [(&shard, &text), (&text, &shard)] {
            let fresh = open(path, Some(val), &TokenizerKind::Byte, 0.5, Some(1 << 16)).unwrap_err().to_string();
            let known = open_with(Tokenizer::Byte, path, Some(val), 0.5).unwrap_err().to_string();
            assert!(fresh == known && fresh.contains("two files of one kind"), "{fresh}\n{known}");
        }
    }
}
