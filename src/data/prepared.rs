//! A directory that `tokenformer prepare` wrote: its manifest, read as input from a stranger.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::manifest::{MANIFEST, Manifest, ManifestSplit, TOKENIZER, VERSION};
use super::shard::ShardFile;
use super::{Tokenizer, bounded};
use crate::checkpoint::FileDigest;
use crate::config::MAX_SIZE;
use crate::error::{Error, Result};
use crate::report::number::hexadecimal;

/// Most bytes of a manifest: two million shards have as many.
const MOST_BYTES: u64 = 1 << 28;
/// Most characters that a sentence repeats of what a file says.
const LONGEST: usize = 100;

/// A prepared directory that was found to be whole, but for the contents of its shards.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The tokenizer as it was asked for.
    pub name: String,
    /// That of the tokens.
    pub tokenizer: Tokenizer,
    /// Every token is below it.
    pub vocab_size: usize,
    /// What is trained on.
    pub train: Vec<ShardFile>,
    /// What is validated on, if anything.
    pub val: Vec<ShardFile>,
}

/// Reads the directory `dir`.
///
/// # Errors
/// A manifest, a tokenizer or a shard that is missing, or does not fit the others.
pub(super) fn read(dir: &Path) -> Result<Prepared> {
    let path = dir.join(MANIFEST);
    let wrong = |reason: String| {
        let reason: String = reason.chars().flat_map(char::escape_debug).take(4 * LONGEST).collect();
        Error::input(format!("{} {reason}; make the directory again with `tokenformer prepare`", path.display()))
    };
    let manifest = parsed(&bytes_of(&path)?).map_err(wrong)?;
    let tokenizer = tokenizer(dir, &manifest.tokenizer_sha256)?;
    let (vocab_size, tokens) = (manifest.vocab_size, tokenizer.vocab_size());
    if !(1..=MAX_SIZE).contains(&vocab_size) || tokens > vocab_size {
        return Err(wrong(format!(
            "says that its vocabulary is {vocab_size}, but that of its tokenizer is {tokens} and the most is {MAX_SIZE}"
        )));
    }
    let mut names = BTreeSet::new();
    let mut shards = |name: &str, split: &ManifestSplit| -> Result<Vec<ShardFile>> {
        let sum = split.shards.iter().try_fold(0_u64, |sum, shard| sum.checked_add(shard.tokens));
        if sum != Some(split.tokens) {
            let tokens = split.tokens;
            return Err(wrong(format!(
                "says that its {name} split has {tokens} tokens, which its shards do not add up to"
            )));
        }
        let mut files = Vec::new();
        for shard in &split.shards {
            if !is_name(&shard.file) {
                return Err(wrong(format!(
                    "lists the shard {}, which is no name of a file beside it",
                    short(&shard.file)
                )));
            }
            if !names.insert(shard.file.clone()) {
                return Err(wrong(format!("lists the shard {} twice", short(&shard.file))));
            }
            files.push(ShardFile::listed(&dir.join(&shard.file), shard.tokens)?);
        }
        Ok(files)
    };
    let (train, val) = (shards("training", &manifest.train)?, shards("validation", &manifest.val)?);
    if train.is_empty() {
        return Err(wrong("lists no tokens to train on".to_owned()));
    }
    Ok(Prepared { name: short(&manifest.tokenizer), tokenizer, vocab_size, train, val })
}

/// The manifest of the directory `dir`, which is one that [`read`] takes.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_manifest(dir: &Path) -> Result<Manifest> {
    read(dir)?;
    parsed(&bytes_of(&dir.join(MANIFEST))?).map_err(Error::input)
}

/// Compares the shards of the directory `dir` with the sums in its `manifest`. `done` is told how many were.
///
/// # Errors
/// The first shard that is not what was written.
pub(crate) fn verify(dir: &Path, manifest: &Manifest, mut done: impl FnMut(usize)) -> Result<()> {
    for (index, shard) in manifest.train.shards.iter().chain(&manifest.val.shards).enumerate() {
        done(index);
        let path = dir.join(&shard.file);
        let found = FileDigest::read(&path)?.sha256;
        if found != shard.sha256 {
            return Err(Error::damaged(format!(
                "{} is not what was written: its sha256 is {}, but {MANIFEST} says {}; make the directory again with \
                 `tokenformer prepare`",
                path.display(),
                short(&found),
                short(&shard.sha256)
            )));
        }
    }
    Ok(())
}

/// Whether `name` is that of a file in a directory, and leads nowhere else.
fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let is_plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(only)), None) if only == name);
    // More is a name on no system.
    is_plain && name.len() <= 255
}

fn parsed(bytes: &[u8]) -> Result<Manifest, String> {
    #[derive(Deserialize)]
    struct Layout {
        version: u32,
    }
    match serde_json::from_slice::<Manifest>(bytes) {
        Ok(manifest) if manifest.version == VERSION => Ok(manifest),
        Ok(manifest) => Err(of_version(manifest.version)),
        Err(cause) => match serde_json::from_slice::<Layout>(bytes) {
            Ok(Layout { version }) if version != VERSION => Err(of_version(version)),
            _ => Err(format!("cannot be read: {cause}")),
        },
    }
}

fn of_version(version: u32) -> String {
    format!("is of version {version}, only version {VERSION} is known")
}

/// The tokenizer of the directory, whose file is to have this hash.
fn tokenizer(dir: &Path, sha256: &str) -> Result<Tokenizer> {
    let path = dir.join(TOKENIZER);
    let bytes = bytes_of(&path)?;
    let found = hexadecimal(&Sha256::digest(&bytes));
    if found != sha256 {
        return Err(Error::input(format!(
            "{} is not the tokenizer that the shards beside it were made with: its sha256 is {}, but {MANIFEST} says {}; put \
             that one back, or make the directory again with `tokenformer prepare`",
            path.display(),
            short(&found),
            short(sha256)
        )));
    }
    let text = str::from_utf8(&bytes).map_err(|_| Error::input("it is not UTF-8"));
    let read = text.and_then(Tokenizer::from_file_text);
    read.map_err(|e| Error::input(format!("{}: {e}", path.display())))
}

/// All of a file of the directory.
fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    bounded::read(path, MOST_BYTES, "make its directory again with `tokenformer prepare`")
}

fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::manifest::ManifestShard;

    /// A directory of shards of these tokens with the byte tokenizer, its manifest changed by `change`.
    fn prepared(train: &[&[u16]], val: &[&[u16]], change: impl FnOnce(&mut Manifest)) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(TOKENIZER), "\"byte\"").unwrap();
        let split = |name: &str, shards: &[&[u16]]| {
            let shard = |(at, tokens): (usize, &&[u16])| {
                let mut bytes: Vec<u8> =
                    [20_240_520, 1, tokens.len() as i32].iter().flat_map(|w| w.to_le_bytes()).collect();
                bytes.resize(1024, 0);
                bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
                let file = format!("{name}_{at:06}.bin");
                std::fs::write(dir.path().join(&file), &bytes).unwrap();
                ManifestShard { file, tokens: tokens.len() as u64, sha256: hexadecimal(&Sha256::digest(&bytes)) }
            };
            let shards: Vec<ManifestShard> = shards.iter().enumerate().map(shard).collect();
            ManifestSplit { tokens: shards.iter().map(|shard| shard.tokens).sum(), shards, ..ManifestSplit::default() }
        };
        let mut manifest: Manifest = serde_json::from_value(serde_json::json!({
            "version": VERSION, "tokenizer": "byte", "tokenizer_sha256": hexadecimal(&Sha256::digest("\"byte\"")),
            "vocab_size": 256, "end_of_text": null, "split": "documents", "val_fraction": 0.1, "train": split("train", train),
            "val": split("val", val), "sources": [], "skipped": 0, "created_by": "tokenformer",
        }))
        .unwrap();
        change(&mut manifest);
        std::fs::write(dir.path().join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        dir
    }

    #[test]
    fn a_whole_directory_is_read_and_verified() {
        let dir = prepared(&[&[1, 2, 3], &[4]], &[&[5, 6]], |_| ());
        let read = read(dir.path()).unwrap();
        assert_eq!((read.tokenizer, read.vocab_size, read.name.as_str()), (Tokenizer::Byte, 256, "byte"));
        assert_eq!([read.train.len(), read.val.len(), read.train[0].len()], [2, 1, 3]);
        let manifest = read_manifest(dir.path()).unwrap();
        verify(dir.path(), &manifest, |_| ()).unwrap();
        let shard = dir.path().join("val_000000.bin");
        let mut changed = std::fs::read(&shard).unwrap();
        changed[1024] = 9;
        std::fs::write(&shard, changed).unwrap();
        let said = verify(dir.path(), &manifest, |_| ()).unwrap_err().to_string();
        assert!(said.contains("val_000000.bin is not what was written"), "{said}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let said = |change: fn(&mut Manifest)| {
            let dir = prepared(&[&[1, 2, 3], &[4]], &[&[5, 6]], change);
            let said = read(dir.path()).unwrap_err().to_string();
            assert!(said.len() < 700, "{said}");
            said
        };
        for name in
            ["../../etc/passwd", "/etc/passwd", "a/b.bin", "..", ".", "", "./train_000000.bin", "val_000000.bin/"]
        {
            let dir = prepared(&[&[1, 2, 3], &[4]], &[&[5, 6]], |m| m.train.shards[0].file = name.to_owned());
            let said = read(dir.path()).unwrap_err().to_string();
            assert!(said.contains("no name of a file beside it"), "{said}");
        }
        assert!(said(|m| m.version = 2).contains("is of version 2"));
        assert!(said(|m| m.vocab_size = 0).contains("vocabulary is 0"));
        assert!(said(|m| m.vocab_size = 1 << 40).contains("vocabulary is 1099511627776"));
        assert!(said(|m| m.vocab_size = 255).contains("its tokenizer is 256"));
        assert!(said(|m| m.tokenizer_sha256 = "é".repeat(10_000)).contains("not the tokenizer"));
        assert!(said(|m| m.train.tokens = 5).contains("do not add up"));
        assert!(said(|m| m.train.shards[0].tokens = u64::MAX).contains("do not add up"));
        assert!(said(|m| m.train.shards[1].file = "train_000000.bin".into()).contains("twice"));
        assert!(
            said(|m| (m.train.shards[0].tokens, m.train.shards[1].tokens) = (1, 3)).contains("do not fit the 1 tokens")
        );
        assert!(said(|m| m.val.shards[0].file = "none.bin".into()).contains("cannot open"));
        assert!(said(|m| (m.train.tokens, m.train.shards) = (0, Vec::new())).contains("no tokens to train on"));
        assert!(said(|m| m.val.shards[0].file = "x\n".repeat(100_000)).contains("no name of a file"));
    }
}
