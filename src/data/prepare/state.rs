//! What a directory says of the work that is done in it: what is prepared how, and how far that is.
//!
//! | file | written | holds |
//! |---|---|---|
//! | `prepare.json` | first | [`Identity`]: what a later process must agree with to go on |
//! | `progress.json` | every few seconds | [`Progress`]: what is written, and where reading goes on |
//! | `manifest.json` | last | the result; the other two are removed |

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::batch::Position;
use super::inputs::Source;
use super::split::Split;
use super::writer;
use crate::checkpoint::{Files, Storage, replace};
use crate::data::manifest::{MANIFEST, Manifest, ManifestShard, TOKENIZER};
use crate::error::{Error, Result};

const IDENTITY: &str = "prepare.json";
const PROGRESS: &str = "progress.json";
/// The lock of the directory, which may be there.
const LOCK: &str = "lock";

/// What is prepared, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The program that began it: another one may make other tokens.
    pub created_by: String,
    /// The tokenizer as it was asked for.
    pub tokenizer: String,
    /// SHA-256 of its file.
    pub tokenizer_sha256: String,
    pub shard_tokens: u64,
    pub split: String,
    pub val_fraction: f64,
    pub text_key: String,
    pub sources: Vec<InputRecord>,
}

/// An input as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InputRecord {
    pub path: String,
    pub bytes: u64,
    pub modified: u64,
}

impl InputRecord {
    pub(super) fn of(source: &Source) -> Self {
        Self { path: source.path.display().to_string(), bytes: source.bytes, modified: source.modified }
    }
}

impl Identity {
    /// The first thing in which `wanted` differs, in words.
    pub(super) fn difference(&self, wanted: &Self) -> Option<String> {
        let differs = |name: &str, was: &str, is: &str| (was != is).then(|| format!("{name} was {was} and is {is}"));
        let count = |known: &Self| format!("{} files", known.sources.len());
        let source = || {
            let (was, is) = self.sources.iter().zip(&wanted.sources).find(|(was, is)| was != is)?;
            Some(match was.path == is.path {
                true => format!("{} has changed since", is.path),
                false => format!("{} is read where {} was", is.path, was.path),
            })
        };
        differs("the program", &self.created_by, &wanted.created_by)
            .or_else(|| differs("the tokenizer", &self.tokenizer, &wanted.tokenizer))
            .or_else(|| differs("its file", &self.tokenizer_sha256, &wanted.tokenizer_sha256))
            .or_else(|| differs("--shard-tokens", &self.shard_tokens.to_string(), &wanted.shard_tokens.to_string()))
            .or_else(|| differs("--val-by", &self.split, &wanted.split))
            .or_else(|| differs("--val-fraction", &self.val_fraction.to_string(), &wanted.val_fraction.to_string()))
            .or_else(|| differs("--text-key", &self.text_key, &wanted.text_key))
            .or_else(source)
            .or_else(|| differs("the input", &count(self), &count(wanted)))
    }
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub position: Position,
    pub splits: [Written; 2],
    /// Documents of each source so far.
    pub documents: Vec<u64>,
    /// Records that were left out.
    pub skipped: u64,
    /// The least number of a document, by which they are chosen; `None` before the first.
    pub least: Option<u64>,
}

/// What is written of a split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    pub tokens: u64,
    pub documents: u64,
    pub bytes: u64,
    /// Shards that are whole.
    pub shards: Vec<ManifestShard>,
    /// Tokens in the one that is not.
    pub open: u64,
}

/// What is found in the output directory.
#[derive(Debug)]
pub(super) enum OutputState {
    /// Nothing, or less than a beginning.
    Nothing,
    Begun(Box<(Identity, Option<Progress>)>),
    Finished(Box<Manifest>),
    /// Files of someone else, one of them.
    Others(String),
}

/// What is in `dir`, which need not be there.
///
/// # Errors
/// What cannot be read.
pub(super) fn look(dir: &Path) -> Result<OutputState> {
    if let Some(manifest) = read(&dir.join(MANIFEST))? {
        return Ok(OutputState::Finished(Box::new(manifest)));
    }
    if let Some(identity) = read(&dir.join(IDENTITY))? {
        return Ok(OutputState::Begun(Box::new((identity, read(&dir.join(PROGRESS))?))));
    }
    let entries = match std::fs::read_dir(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(OutputState::Nothing),
        entries => entries.map_err(|cause| Error::io("read", dir, &cause))?,
    };
    for entry in entries {
        let name = entry.map_err(|cause| Error::io("read", dir, &cause))?.file_name().to_string_lossy().into_owned();
        // The tokenizer is written before anything else.
        if name != LOCK && !name.starts_with('.') && name != TOKENIZER {
            return Ok(OutputState::Others(name));
        }
    }
    Ok(OutputState::Nothing)
}

/// Most bytes that are read of a file: a few million names of inputs.
const MOST_BYTES: u64 = 1 << 30;

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let source = match Files.open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        source => source.map_err(|cause| Error::io("read", path, &cause))?,
    };
    let bytes = io::Read::take(source.bytes, MOST_BYTES);
    serde_json::from_reader(io::BufReader::new(bytes))
        .map(Some)
        .map_err(|error| Error::input(format!("{} is damaged ({error}): begin again with --overwrite", path.display())))
}

pub(super) fn write_identity(dir: &Path, identity: &Identity) -> Result<()> {
    write(&dir.join(IDENTITY), identity)
}

pub(super) fn write_progress(dir: &Path, progress: &Progress) -> Result<()> {
    write(&dir.join(PROGRESS), progress)
}

/// Writes the result, and removes what only led to it.
pub(super) fn finish(dir: &Path, manifest: &Manifest) -> Result<()> {
    let text =
        serde_json::to_string_pretty(manifest).map_err(|e| Error::defect(format!("a manifest is no JSON: {e}")))?;
    write_text(&dir.join(MANIFEST), &(text + "\n"))?;
    remove(&dir.join(PROGRESS)).and_then(|()| remove(&dir.join(IDENTITY)))
}

/// Removes all that [`finish`] and what leads to it write, the manifest first.
pub(super) fn clear(dir: &Path) -> Result<()> {
    for name in [MANIFEST, PROGRESS, TOKENIZER] {
        remove(&dir.join(name))?;
    }
    for split in Split::ALL {
        for (path, _) in writer::of_split(dir, split)? {
            remove(&path)?;
        }
    }
    remove(&dir.join(IDENTITY))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, &cause)),
        _ => Ok(()),
    }
}

fn write(path: &Path, what: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(what).map_err(|e| Error::defect(format!("progress is no JSON: {e}")))?;
    write_text(path, &text)
}

pub(super) fn write_text(path: &Path, text: &str) -> Result<()> {
    replace(&Files, path, text).map_err(|cause| Error::io("write", path, &cause))
}
