//! From text in files of many kinds to token shards: `tokenformer prepare`, and a large text that is trained on.
//!
//! ```text
//! inputs -> feed -> batches -> encode, on all cores -> shards
//!           one thread         flow keeps the order    one thread, with notes of progress
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `inputs`, `kind` | which files are read, in which order; what each is by its name |
//! | `unpack` | a file as a stream, also packed, from any place on |
//! | `batch` | what is handed on, and where it is from |
//! | `feed` | whole lines, or pieces of a text, in batches |
//! | `table` | rows of a parquet file (feature `parquet`) |
//! | `documents`, `json` | the documents in a batch; the text in a line of JSON |
//! | `cut` | where a text can be cut without changing its tokens |
//! | `split` | which documents are validated on |
//! | `encode` | from documents to the bytes of tokens |
//! | `flow` | threads, the order, and bounded memory |
//! | `writer` | shards of llm.c, written so that a killed process can be gone on with |
//! | `state` | what a directory says of the work that is done in it |
//! | `sample` | what is looked at before: text for a tokenizer, characters, where one text is cut in two |
//! | `settled` | what a request comes to: the split and the tokenizer |
//! | `job` | one directory, from its request to its manifest |
//! | `told` | progress for people |
//! | `cached` | a large text that is trained on, prepared once |
//!
//! **Memory.** At most 4 MB of input a thread are on their way (16 to 64 MB), and a line or a document without a place to cut
//! it has at most 16 MB. So what is held is bounded whatever the input: beside the tokenizer some 60 MB on two cores with
//! usual text, 200 MB with the longest lines there may be, and what a `.zst` asks for, of which more than 100 MB is refused.

mod batch;
mod cached;
mod cut;
mod documents;
mod encode;
mod feed;
mod flow;
mod inputs;
mod job;
mod json;
mod kind;
mod sample;
mod settled;
mod split;
mod state;
#[cfg(feature = "parquet")]
mod table;
mod told;
mod unpack;
mod writer;

use std::path::PathBuf;

pub(crate) use self::cached::{CachedText, cached_text};
pub(crate) use self::job::prepare;
pub(crate) use self::kind::Kind;
pub(crate) use self::split::ValBy;
pub(crate) use self::writer::MOST_TOKENS;
use super::manifest::Manifest;
use super::{Tokenizer, TokenizerKind};

/// What is to be prepared, and how.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Files, directories, patterns, or `-`.
    pub inputs: Vec<PathBuf>,
    /// What they are whose names do not say.
    pub format: Option<Kind>,
    /// Where shards go.
    pub out: PathBuf,
    pub tokenizer: Wanted,
    /// Tokens of a shard.
    pub shard_tokens: u64,
    /// `None`: the end of a single text, else documents.
    pub val_by: Option<ValBy>,
    /// `None`: what is usual.
    pub val_fraction: Option<f64>,
    /// The key of the text in lines of JSON, or its column.
    pub text_key: String,
    /// Whether records that are no documents are left out, instead of refused.
    pub skip_bad: bool,
    pub threads: usize,
    /// Whether what is prepared there is replaced.
    pub overwrite: bool,
    /// Whether the name and time of the inputs do not matter, because `out` is named by their content.
    pub by_content: bool,
}

/// Which tokenizer makes the tokens.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Kind(TokenizerKind),
    /// One that a model knows.
    Known(Tokenizer),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub manifest: Manifest,
    /// Whether all of it was there before.
    pub was_finished: bool,
    pub seconds: f64,
    /// Bytes of text that this process made into tokens.
    pub text_bytes: u64,
    /// Tokens that it made.
    pub tokens: u64,
}
