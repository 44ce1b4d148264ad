//! Data sets of ready tokens: shards, and directories of shards that say more of them.

use std::path::{Path, PathBuf};

use super::find::{Found, describe};
use super::prepared;
use super::shard::ShardFile;
use super::shards::Shards;
use super::{Dataset, TokenSource, Tokenizer, TokenizerKind, text};
use crate::error::{Error, Result};

/// What is known of tokens.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    /// They are all below it.
    pub size: Option<usize>,
    /// What made them.
    pub made_with: MadeWith,
}

/// What made tokens.
#[derive(Debug, Clone)]
pub(super) enum MadeWith {
    /// Nobody says.
    Unknown,
    /// Something of this kind, made of a text that is not at hand.
    Kind(TokenizerKind),
    /// This one.
    Tokenizer(Tokenizer),
}

impl Vocabulary {
    /// That of tokens of `tokenizer`.
    pub(super) fn of(tokenizer: Tokenizer) -> Self {
        Self { size: Some(tokenizer.vocab_size()), made_with: MadeWith::Tokenizer(tokenizer) }
    }
}

/// Token shards that were found, and what is said of them.
#[derive(Debug)]
pub(super) struct Tokens {
    train: Vec<ShardFile>,
    /// What is validated on, where that is said.
    val: Option<Vec<ShardFile>>,
    /// The tokenizer as it was asked for, and what it is.
    made_with: Option<(String, Tokenizer, usize)>,
    left_out: Vec<PathBuf>,
}

impl Tokens {
    /// Those that were found; a text has none.
    ///
    /// # Errors
    /// A shard or a directory that is refused.
    pub(super) fn of(found: Found) -> Result<Self> {
        let files = |paths: Vec<PathBuf>| paths.iter().map(|path| ShardFile::find(path)).collect::<Result<Vec<_>>>();
        match found {
            Found::Text(path) => Err(Error::defect(format!("{} is text and has no tokens", path.display()))),
            Found::Shards(paths) => Ok(Self { train: files(paths)?, val: None, made_with: None, left_out: Vec::new() }),
            Found::Split { train, val, test } => {
                Ok(Self { train: files(train)?, val: Some(files(val)?), made_with: None, left_out: test })
            }
            Found::Prepared(dir) => {
                let prepared = prepared::read(&dir)?;
                let made_with = Some((prepared.name, prepared.tokenizer, prepared.vocab_size));
                let val = Some(prepared.val).filter(|val| !val.is_empty());
                Ok(Self { train: prepared.train, val, made_with, left_out: Vec::new() })
            }
        }
    }

    /// What is `known` of tokens and of these, which `path` names.
    ///
    /// # Errors
    /// Tokens of another tokenizer.
    pub(super) fn settled(&self, path: &Path, known: Vocabulary) -> Result<Vocabulary> {
        let shown = path.display();
        let Some((name, own, size)) = &self.made_with else {
            return match &known.made_with {
                MadeWith::Kind(kind @ TokenizerKind::Bpe(_)) => Err(Error::usage(format!(
                    "data.tokenizer is {kind}, which is trained on a text, but {shown} has tokens: name the tokenizer.json that \
                     made them, or drop that setting"
                ))),
                _ => Ok(known),
            };
        };
        let hash = |tokenizer: &Tokenizer| tokenizer.sha256().map(|hash| hash.chars().take(12).collect::<String>());
        match &known.made_with {
            MadeWith::Tokenizer(wanted) if wanted == own => Ok(known),
            MadeWith::Tokenizer(wanted) => Err(Error::input(format!(
                "{shown} holds tokens of another tokenizer ({name}, sha256 {}) than data.tokenizer, the model or the other data \
                 have ({}, sha256 {}); make tokens of its text with that one by `tokenformer prepare`, or leave it out",
                hash(own)?,
                wanted.describe(),
                hash(wanted)?
            ))),
            MadeWith::Kind(kind) if kind.to_string() != *name => Err(Error::usage(format!(
                "data.tokenizer is {kind}, but {shown} holds tokens of {name}: drop that setting, or make tokens of its text \
                 with that one by `tokenformer prepare`"
            ))),
            MadeWith::Kind(_) | MadeWith::Unknown => {
                Ok(Vocabulary { size: Some(*size), made_with: MadeWith::Tokenizer(own.clone()) })
            }
        }
    }
}

/// The data set of `main`, which `path` names, validated on `other`, which `val_path` names, on what `main` has for that, or
/// on the last `val_fraction` of it.
///
/// # Errors
/// Shards that are refused, no vocabulary, or tokens outside of it.
pub(super) fn open(
    path: &Path,
    val_path: Option<&Path>,
    main: Tokens,
    other: Option<Tokens>,
    val_fraction: f64,
    vocabulary: &Vocabulary,
) -> Result<Dataset> {
    let val = match other {
        Some(other) => Some(other.val.unwrap_or(other.train)),
        None => main.val,
    };
    let Some(vocab_size) = vocabulary.size else {
        return Err(no_vocabulary(path, [Some(main.train), val])?);
    };
    let train = Shards::open(main.train, vocab_size)?;
    let val = val.map(|files| Shards::open(files, vocab_size)).transpose()?;
    let mut format = train.describe();
    if let Some(val) = &val {
        format = format!("{format} and {}", val.describe());
    }
    if let Some((name, ..)) = &main.made_with {
        format = format!("tokens of {name}, {format}");
    }
    if let Some(first) = main.left_out.first() {
        format = format!("{format}, {} left out ({})", main.left_out.len(), first.display());
    }
    if let Some(only) = train.only()?.filter(|_| train.len() > 1) {
        return Err(Error::input(format!(
            "{}: every token is {only}, and to predict it takes at least two different ones; name a shard with more in it",
            path.display()
        )));
    }
    let train = TokenSource::from_shards(train);
    let (train, val) = match val {
        Some(val) => (train, TokenSource::from_shards(val)),
        None => {
            let boundary = text::split_count(train.len(), val_fraction)?;
            train.split_at(boundary)
        }
    };
    Ok(Dataset {
        train,
        val,
        old_val: None,
        tokenizer: match &vocabulary.made_with {
            MadeWith::Tokenizer(tokenizer) => Some(tokenizer.clone()),
            MadeWith::Kind(_) | MadeWith::Unknown => None,
        },
        vocab_size,
        entropy_floor: None,
        description: describe(path, val_path),
        format: Some(format),
    })
}

/// That the shards do not say their vocabulary. Whatever else is wrong with them comes first, such as that there are none.
fn no_vocabulary(path: &Path, splits: [Option<Vec<ShardFile>>; 2]) -> Result<Error> {
    let (mut largest, mut files) = (0, 0);
    for split in splits.into_iter().flatten() {
        files += split.len();
        largest = Shards::open(split, usize::MAX)?.largest().max(largest);
    }
    let (what, its) = match files {
        1 => ("is a token shard, which does not say its", "its largest id is"),
        _ => ("has token shards, which do not say their", "their largest id is"),
    };
    let least = u64::from(largest) + 1;
    Ok(Error::usage(format!(
        "{} {what} vocabulary; {its} {largest}: name what made them, as with --tokenizer gpt2, or set --set model.vocab_size={least} or \
         more",
        path.display()
    )))
}
