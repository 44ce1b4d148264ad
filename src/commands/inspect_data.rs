//! `tokenformer inspect` of a directory that `prepare` wrote: what is in it, and whether it is whole.

use super::answer::Answer;
use crate::console::{Parts, legible};
use crate::data::{ManifestSplit, read_manifest, verify};
use serde_json::json;
use std::path::Path;

/// Prints tokenizer and splits, then compares every shard with its SHA-256.
///
/// # Errors
/// A directory that is refused as data, or in which a shard is not what was written.
pub(super) fn run(dir: &Path) -> Answer {
    let manifest = read_manifest(dir)?;
    let mut text = format!("{}\n", dir.display());
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<16}{}\n", legible(&value)));
    line("written by", manifest.created_by.clone());
    line("tokenizer", format!("{}, sha256 {}", manifest.tokenizer, manifest.tokenizer_sha256));
    line("vocabulary", manifest.vocab_size.to_string());
    let split = |split: &ManifestSplit| {
        let ManifestSplit { tokens, documents, bytes, shards } = split;
        format!("{tokens} tokens in {} shards, of {documents} documents, {bytes} bytes", shards.len())
    };
    line("training", split(&manifest.train));
    line("validation", split(&manifest.val));
    super::print(&text)?;
    let shards = manifest.train.shards.len() + manifest.val.shards.len();
    let mut parts = Parts::new("reading shards", shards);
    verify(dir, &manifest, |done| parts.done(done))?;
    drop(parts);
    super::print("\nall shards are what was written\n")?;
    let split = |split: &ManifestSplit| {
        json!({
            "tokens": split.tokens, "documents": split.documents, "bytes": split.bytes, "shards": split.shards.len(),
        })
    };
    Ok(json!({
        "data": dir,
        "created_by": manifest.created_by,
        "tokenizer": manifest.tokenizer,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "vocab_size": manifest.vocab_size,
        "train": split(&manifest.train),
        "val": split(&manifest.val),
        "checked": "intact",
    }))
}
