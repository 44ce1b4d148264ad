//! Training data: from a text file, token shards or the built-in corpus to batches of token numbers.
//!
//! | file | idea |
//! |---|---|
//! | `tokenizer` | text to tokens and back |
//! | `text`, `encoding` | reading a text file, splitting off its validation part; what else than UTF-8 it may be |
//! | `texts` | data sets of texts |
//! | `shard`, `megatron` | memory-mapped `.bin` files of ready tokens; the index beside some |
//! | `shards`, `tokens` | many of them as one; data sets of them |
//! | `lookalike`, `likeness`, `spread` | what a file is whose name promises something else |
//! | `prepare`, `prepared`, `manifest` | from text in many files to a directory of shards, and what such a directory says |
//! | `find`, `open` | what a path names; which files make a data set |
//! | `source` | a split's tokens, wherever they are |
//! | `missing`, `bounded` | what is said of a file that cannot be read; reading all of a small one |
//! | `contents`, `fingerprint` | what a data set is, told by its contents |
//! | `batch` | which windows make a batch: a pure function of seed and number |
//! | `grammar`, `corpus` | the built-in corpus and its exact entropy |
//!
//! This module knows neither the GPU nor the model, and downloads nothing.

mod batch;
pub(crate) mod bounded;
mod contents;
mod corpus;
mod encoding;
mod find;
mod fingerprint;
mod grammar;
mod likeness;
mod lookalike;
mod manifest;
mod megatron;
mod missing;
mod open;
mod prepare;
mod prepared;
mod shard;
mod shards;
mod source;
mod spread;
mod text;
mod texts;
mod tokenizer;
mod tokens;

pub use batch::{Batch, IGNORED, TokenIndex, token_index, train_batch, validation_batches};
pub(crate) use batch::{EvalBatch, all_windows};

pub use contents::Contents;
pub use corpus::builtin;
pub(crate) use corpus::builtin_with;
pub use encoding::without_mark;
pub(crate) use find::{describe, describe_sources, has_split, is_text, not_there, prepared_directory};
pub use fingerprint::{Fingerprint, Share};
pub(crate) use manifest::ManifestSplit;
pub(crate) use missing::unreadable;
pub use open::open;
pub(crate) use open::{open_beside, open_sources, open_with};
pub(crate) use prepare::{
    CachedText, Kind, MOST_TOKENS as MOST_SHARD_TOKENS, Outcome, Request, ValBy, Wanted, cached_text, prepare,
};
pub(crate) use prepared::{read_manifest, verify};
pub use shard::ShardView;
pub use source::TokenSource;
pub(crate) use tokenizer::Words;
pub use tokenizer::{CharTokenizer, FileTokenizer, MAX_CHARS, StreamDecoder, Tiktoken, Tokenizer, TokenizerKind};

use crate::error::{Error, Result};
use source::Part;

/// What a run trains on.
///
/// ```
/// use tokenformer::data::{TokenizerKind, builtin, train_batch};
///
/// // The built-in corpus; `open` takes a text or token shards.
/// let data = builtin(1, 1000, &TokenizerKind::Char, 0.1)?;
/// data.check_length(64)?;
/// // Batch 7 of seed 1, 4 sequences of 64 tokens: the same in every run.
/// let batch = train_batch(&data.train, 1, 7, 4, 64)?;
/// assert_eq!(batch, train_batch(&data.train, 1, 7, 4, 64)?);
/// # Ok::<(), tokenformer::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Tokens to train on.
    pub train: TokenSource,
    /// Tokens to validate on.
    pub val: TokenSource,
    /// Tokens of what the model knew before, to validate on as well.
    pub old_val: Option<TokenSource>,
    /// How tokens become text; `None` for shards, whose tokenizer is not known.
    pub tokenizer: Option<Tokenizer>,
    /// Every token is below it.
    pub vocab_size: usize,
    /// Entropy in nats per token of the built-in corpus: the lowest loss there is. `None` for files.
    pub entropy_floor: Option<f64>,
    /// Where the tokens are from, for people.
    pub description: String,
    /// What the files were taken for, for people, where that is not plain to see.
    pub format: Option<String>,
}

impl Dataset {
    /// Where the tokens are from and what the files were taken for; of a text, how many tokens it is.
    pub(crate) fn told(&self) -> String {
        let counted = || {
            let (train, val) = (self.train.len(), self.val.len());
            format!("{train} tokens to train on, {val} to validate on, of {} different ones", self.vocab_size)
        };
        format!("{}: {}", self.description, self.format.clone().unwrap_or_else(counted))
    }

    /// What is to be said of a model's `vocab_size` of which most is for tokens that these data never have.
    pub(crate) fn oversized(&self, vocab_size: usize) -> Option<String> {
        let (what, used) = match &self.tokenizer {
            Some(tokenizer) => {
                let used = tokenizer.vocab_size();
                (format!("the tokenizer of the {} has {used} tokens", self.description), used)
            }
            None => {
                let largest = self.train.largest_of_shards().max(self.val.largest_of_shards())?;
                (format!("the largest id in the {} is {largest}", self.description), largest as usize + 1)
            }
        };
        (vocab_size > used.saturating_mul(2)).then(|| {
            format!(
                "model.vocab_size is {vocab_size}, but {what}: the rows of all other tokens take memory and time and learn \
                 nothing; --set model.vocab_size={used} leaves them out"
            )
        })
    }

    /// Checks that both splits have a window of `seq_length` tokens and the one after them.
    ///
    /// # Errors
    /// The split, its length, what is needed and what to change.
    pub fn check_length(&self, seq_length: usize) -> Result<()> {
        let needed = seq_length.saturating_add(1);
        let splits = [
            ("training split", Some(&self.train), "val_fraction smaller"),
            ("validation split", Some(&self.val), "val_fraction larger"),
            ("validation split of old_path beside", self.old_val.as_ref(), "val_fraction larger"),
        ];
        for (name, split, remedy) in splits {
            let parts = split.map_or(&[][..], TokenSource::parts);
            let shortest = parts.iter().min_by_key(|part| part.len);
            let have = shortest.map_or_else(|| split.map_or(needed, TokenSource::len), |part| part.len);
            if have < needed {
                let of =
                    shortest.map_or_else(|| self.description.clone(), |Part { name, .. }| format!("source {name}"));
                let sentence = format!("the {name} of the {of} has {have} tokens");
                let limit = format!(", but seq_length {seq_length} needs at least {needed}");
                return Err(Error::input(sentence + &limit + "; use more text, make seq_length smaller or " + remedy));
            }
        }
        Ok(())
    }
}
