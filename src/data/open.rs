//! Which files make a data set: texts, token shards, directories of them, or several of these by weight.

use std::path::Path;

use super::find::{Found, describe, describe_sources, find};
use super::texts::{check_known, check_several, within};
use super::tokens::{self, MadeWith, Tokens, Vocabulary};
use super::{Dataset, TokenSource, Tokenizer, TokenizerKind, texts};
use crate::config::DataSource;
use crate::error::{Error, Result};

/// Opens a data set: what `path` names is UTF-8 text, token shards, or a directory that `tokenformer prepare` wrote.
///
/// A byte order mark is no text; with the byte tokenizer a text may be any bytes. Validation is on what `val_path` names, or
/// on what a directory says is for that, or else on the last `val_fraction` of `path` (at a character boundary). A text gets a
/// tokenizer of `kind` (`None`: characters), made for both files; a prepared directory has its own; shards are taken to be
/// tokens of `kind`, and where that does not say their vocabulary, need their `vocab_size_for_shards`.
///
/// # Errors
/// What cannot be read, is empty or not UTF-8; a `val_fraction` out of range; a shard without vocabulary; a directory of
/// another tokenizer than `kind`; a text and a shard together.
pub fn open(
    path: &Path,
    val_path: Option<&Path>,
    kind: Option<&TokenizerKind>,
    val_fraction: f64,
    vocab_size_for_shards: Option<usize>,
) -> Result<Dataset> {
    one(path, val_path, val_fraction, &Known::Kind(kind, vocab_size_for_shards.filter(|&vocab| vocab > 0)))
}

/// [`open`] with the tokenizer of a checkpoint; a shard is then taken to hold that tokenizer's tokens.
///
/// # Errors
/// As [`open`], a character outside the tokenizer's vocabulary, and a directory that was prepared with another one.
pub(crate) fn open_with(
    tokenizer: Tokenizer,
    path: &Path,
    val_path: Option<&Path>,
    val_fraction: f64,
) -> Result<Dataset> {
    one(path, val_path, val_fraction, &Known::Model(tokenizer))
}

/// [`open_with`] for data that are beside those that the model is trained on.
///
/// # Errors
/// As there.
pub(crate) fn open_beside(tokenizer: Tokenizer, path: &Path, val_fraction: f64) -> Result<Dataset> {
    one(path, None, val_fraction, &Known::Beside(tokenizer))
}

/// Opens several sources, from which rows are drawn by weight: with the tokenizer of a checkpoint, or as [`open`] does.
///
/// # Errors
/// As [`open`] and [`open_with`], texts and tokens together, and tokens of several tokenizers.
pub(crate) fn open_sources(
    sources: &[DataSource],
    tokenizer: Option<Tokenizer>,
    kind: Option<&TokenizerKind>,
    val_fraction: f64,
    vocab_size_for_shards: Option<usize>,
) -> Result<Dataset> {
    let known = match tokenizer {
        Some(tokenizer) => Known::Model(tokenizer),
        None => Known::Kind(kind, vocab_size_for_shards.filter(|&vocab| vocab > 0)),
    };
    if let [only] = sources {
        return one(&only.path, None, val_fraction, &known);
    }
    let found: Vec<Found> = sources.iter().map(|source| find(&source.path)).collect::<Result<_>>()?;
    let is_text = |found: &&Found| matches!(found, Found::Text(_));
    let (first, texts) = (sources.first(), found.iter().filter(is_text).count());
    let datasets = if texts == found.len() {
        let places: Vec<(&Path, Option<&Path>)> = sources.iter().map(|source| (source.path.as_path(), None)).collect();
        of_texts(&places, val_fraction, &known)?
    } else if let Some((text, _)) = sources.iter().zip(&found).find(|(_, found)| is_text(found)) {
        return Err(Error::usage(format!(
            "data.sources has the text {} beside tokens: make tokens of it with `tokenformer prepare` and the tokenizer of the \
             others",
            text.path.display()
        )));
    } else {
        let tokens: Vec<Tokens> = found.into_iter().map(Tokens::of).collect::<Result<_>>()?;
        let vocabulary = known.vocabulary()?;
        let paths = sources.iter().map(|source| source.path.as_path());
        // What one of them says of its tokens is so of all.
        let vocabulary =
            tokens.iter().zip(paths.clone()).try_fold(vocabulary, |known, (of, path)| of.settled(path, known))?;
        let open = |(of, path): (Tokens, &Path)| tokens::open(path, None, of, None, val_fraction, &vocabulary);
        tokens.into_iter().zip(paths).map(open).collect::<Result<_>>()?
    };
    first.map_or_else(|| Err(Error::usage("data.sources is empty: name a source")), |_| Ok(joined(sources, datasets)))
}

/// Several data sets of one vocabulary as one.
fn joined(sources: &[DataSource], datasets: Vec<Dataset>) -> Dataset {
    let total: f64 = sources.iter().map(|source| source.weight).sum();
    let (mut train, mut val, mut formats) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tokenizer, mut vocab_size) = (None, 0);
    for (source, data) in sources.iter().zip(datasets) {
        let (name, share) = (source.path.display().to_string(), source.weight / total);
        formats.extend(data.format.map(|format| format!("{name}: {format}")));
        train.push((name.clone(), data.train, share));
        val.push((name, data.val, share));
        (tokenizer, vocab_size) = (data.tokenizer, data.vocab_size);
    }
    Dataset {
        train: TokenSource::joined(train),
        val: TokenSource::joined(val),
        old_val: None,
        tokenizer,
        vocab_size,
        entropy_floor: None,
        description: describe_sources(sources),
        format: Some(formats.join("; ")).filter(|formats| !formats.is_empty()),
    }
}

/// What is known of the tokens before the data are opened.
enum Known<'a> {
    /// What makes tokens of a text or made those of shards, if that is said, and how many shards may have.
    Kind(Option<&'a TokenizerKind>, Option<usize>),
    /// The tokenizer of a model that is trained on these data.
    Model(Tokenizer),
    /// The tokenizer of a model that is trained on other data.
    Beside(Tokenizer),
}

impl Known<'_> {
    /// What shards are taken to hold.
    fn vocabulary(&self) -> Result<Vocabulary> {
        match self {
            // What those make depends on their text.
            Self::Kind(kind @ (None | Some(TokenizerKind::Char | TokenizerKind::Bpe(_))), size) => {
                let made_with = kind.map_or(MadeWith::Unknown, |kind| MadeWith::Kind(kind.clone()));
                Ok(Vocabulary { size: *size, made_with })
            }
            Self::Kind(Some(kind), _) => Tokenizer::of(kind, &[]).map(Vocabulary::of),
            Self::Model(tokenizer) | Self::Beside(tokenizer) => Ok(Vocabulary::of(tokenizer.clone())),
        }
    }

    fn takes_bytes(&self) -> bool {
        match self {
            Self::Kind(kind, _) => kind.is_some_and(TokenizerKind::takes_bytes),
            Self::Model(tokenizer) | Self::Beside(tokenizer) => tokenizer.takes_bytes(),
        }
    }

    /// The tokenizer of these texts.
    fn tokenizer(&self, texts: &[(&Path, &str)]) -> Result<Tokenizer> {
        match self {
            Self::Kind(kind, _) => {
                let path = texts.first().map_or(Path::new(""), |(path, _)| path);
                let texts: Vec<&str> = texts.iter().map(|(_, text)| *text).collect();
                let kind = kind.unwrap_or(&TokenizerKind::Char);
                let made = Tokenizer::of(kind, &texts);
                // A file is wrong whatever the text.
                let made =
                    if matches!(kind, TokenizerKind::File(_)) { made? } else { made.map_err(|e| within(path, e))? };
                check_several(&made, &texts).map_err(|error| within(path, error))?;
                Ok(made)
            }
            Self::Model(tokenizer) => check_known(tokenizer, texts).map(|()| tokenizer.clone()),
            Self::Beside(tokenizer) => Ok(tokenizer.clone()),
        }
    }
}

fn one(path: &Path, val_path: Option<&Path>, val_fraction: f64, known: &Known) -> Result<Dataset> {
    let (main, other) = (find(path)?, val_path.map(find).transpose()?);
    check_kinds((path, &main), val_path.zip(other.as_ref()))?;
    if let Found::Text(path) = &main {
        let datasets = of_texts(&[(path, val_path)], val_fraction, known)?;
        return datasets.into_iter().next().ok_or_else(|| Error::defect("a text gave no data"));
    }
    let (main, other) = (Tokens::of(main)?, other.map(Tokens::of).transpose()?);
    let mut vocabulary = main.settled(path, known.vocabulary()?)?;
    if let Some((path, other)) = val_path.zip(other.as_ref()) {
        vocabulary = other.settled(path, vocabulary)?;
    }
    tokens::open(path, val_path, main, other, val_fraction, &vocabulary)
}

/// A data set of each text, with one tokenizer.
fn of_texts(places: &[(&Path, Option<&Path>)], val_fraction: f64, known: &Known) -> Result<Vec<Dataset>> {
    let tokenizer = |texts: &[(&Path, &str)]| known.tokenizer(texts);
    let (splits, tokenizer) = texts::open(places, val_fraction, known.takes_bytes(), tokenizer)?;
    let dataset = |((train, val), (path, val_path)): ((TokenSource, TokenSource), &(&Path, Option<&Path>))| Dataset {
        train,
        val,
        old_val: None,
        vocab_size: tokenizer.vocab_size(),
        tokenizer: Some(tokenizer.clone()),
        entropy_floor: None,
        description: describe(path, *val_path),
        format: None,
    };
    Ok(splits.into_iter().zip(places).map(dataset).collect())
}

/// Both are read as what the first one is, and either reads as the other without complaint.
fn check_kinds((path, main): (&Path, &Found), other: Option<(&Path, &Found)>) -> Result<()> {
    let is_text = |found: &Found| matches!(found, Found::Text(_));
    let Some((other, found)) = other.filter(|(_, found)| is_text(found) != is_text(main)) else { return Ok(()) };
    let kind = |found: &Found| match found {
        Found::Text(_) => "text",
        Found::Prepared(_) => "a prepared directory",
        Found::Shards(files) if files.len() == 1 => "a token shard (.bin)",
        Found::Shards(_) | Found::Split { .. } => "token shards",
    };
    let (name, shown) = (other.display(), path.display());
    Err(Error::usage(format!(
        "val_path {name} is {}, but path {shown} is {}: give two files of one kind, or drop val_path to validate on the \
         end of {shown}",
        kind(found),
        kind(main)
    )))
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
            let data = open(&path, None, Some(&kind), 0.5, None).unwrap();
            assert_eq!((data.train.len(), data.val.len()), tokens);
            let all = data.val.window(0, 4).unwrap();
            assert_eq!(data.tokenizer.unwrap().decode(&all), "abcd");
        }
        let data = open(&path, None, Some(&TokenizerKind::Byte), 0.5, None).unwrap();
        let said = data.check_length(4).unwrap_err().to_string();
        assert!(said.contains("validation split") && said.contains("has 4 tokens") && said.contains("5"), "{said}");
    }

    #[test]
    fn a_validation_file_and_a_tokenizer_of_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (write(&dir, "a.txt", "abab"), write(&dir, "b.txt", "abc"));
        let data = open(&a, Some(&b), None, 0.0, None).unwrap();
        assert_eq!((data.train.len(), data.val.len(), data.vocab_size), (4, 3, 3));
        let narrow = open(&a, None, None, 0.5, None).unwrap().tokenizer.unwrap();
        let said = open_with(narrow, &a, Some(&b), 0.5).unwrap_err().to_string();
        assert!(said.contains("b.txt: character 'c' (U+0063) at position 2"), "{said}");
    }

    #[test]
    fn shards_need_a_vocabulary() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "train.bin", (0..20_u16).flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
        let open = |vocab| open(&path, None, None, 0.25, vocab);
        assert_eq!(open(None).unwrap_err().exit_code(), 1);
        let missing = super::open(&dir.path().join("no.bin"), None, None, 0.25, None).unwrap_err();
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
            let fresh = open(path, Some(val), Some(&TokenizerKind::Byte), 0.5, Some(1 << 16)).unwrap_err().to_string();
            let known = open_with(Tokenizer::Byte, path, Some(val), 0.5).unwrap_err().to_string();
            assert!(fresh == known && fresh.contains("two files of one kind"), "{fresh}\n{known}");
        }
    }
}
