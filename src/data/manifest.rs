//! `manifest.json` of a prepared directory: which shards make a data set, and of which tokenizer they are.

use serde::{Deserialize, Serialize};

/// The file's name in its directory.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The tokenizer's file beside it: a `tokenizer.json` of Hugging Face, or a [`Tokenizer`](super::Tokenizer) as JSON.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// The layout of this file that the program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// A prepared directory. Fields are written in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The tokenizer as it was asked for, such as `gpt2`.
    pub tokenizer: String,
    /// SHA-256 of [`TOKENIZER`], in hexadecimal.
    pub tokenizer_sha256: String,
    /// Every token is below it.
    pub vocab_size: usize,
    /// The token that follows each document.
    pub end_of_text: Option<u32>,
    /// How documents were chosen for validation: `documents` by hash, `end` for the end of the text.
    pub split: String,
    /// Share that is validated on.
    pub val_fraction: f64,
    /// Tokens of every shard but the last.
    #[serde(default)]
    pub shard_tokens: u64,
    /// The key or column that held the text of lines and rows.
    #[serde(default)]
    pub text_key: String,
    /// What is trained on.
    pub train: ManifestSplit,
    /// What is validated on.
    pub val: ManifestSplit,
    /// What the tokens were made of, in this order.
    pub sources: Vec<ManifestSource>,
    /// Records that could not be read and were left out.
    pub skipped: u64,
    /// The program that wrote the file, such as `tokenformer 0.1.0`.
    pub created_by: String,
}

/// One split of a prepared directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestSplit {
    /// Tokens of all shards, ends of texts among them.
    pub tokens: u64,
    /// Documents.
    pub documents: u64,
    /// Bytes of their text as UTF-8.
    pub bytes: u64,
    /// The shards, in the order of their tokens.
    pub shards: Vec<ManifestShard>,
}

/// One shard, in the format of llm.c.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestShard {
    /// Name of the file in the directory.
    pub file: String,
    /// Its tokens.
    pub tokens: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// One file that tokens were made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestSource {
    /// As it was named or found.
    pub path: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Documents in it.
    pub documents: u64,
}
