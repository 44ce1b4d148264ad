//! The names of a run's checkpoints, and what a command may take them for.
//!
//! A name says where to look; what counts is the step in the file.

use std::path::{Path, PathBuf};

use super::storage::unfinished;

/// Directory of the checkpoints inside a run directory.
pub(super) const FOLDER: &str = "checkpoints";
/// How the name of a checkpoint file starts; its step follows.
pub(super) const PREFIX: &str = "step-";
/// How the name of a checkpoint from before a growth starts; its step follows.
pub(super) const BEFORE_GROWTH: &str = "before-growth-";
/// Name of the checkpoint with the lowest validation loss.
pub(super) const BEST: &str = "best.safetensors";
/// How the name of a checkpoint file ends.
const SUFFIX: &str = ".safetensors";

/// The name of the checkpoint of a step.
pub(super) fn name(prefix: &str, step: u64) -> String {
    format!("{prefix}{step:08}{SUFFIX}")
}

/// Those of `files` whose name is `prefix` and a step, by their step.
pub(super) fn under(files: &[PathBuf], prefix: &str) -> Vec<(u64, PathBuf)> {
    let mut found: Vec<_> = files.iter().filter_map(|path| Some((step_of(path, prefix)?, path.clone()))).collect();
    found.sort();
    found
}

/// The best checkpoint among `files`.
pub(super) fn best(files: &[PathBuf]) -> Option<&PathBuf> {
    files.iter().find(|path| path.file_name().is_some_and(|name| name == BEST))
}

/// The step in a checkpoint's file name, if it is one that a [`Store`](super::Store) would give after `prefix`.
fn step_of(path: &Path, prefix: &str) -> Option<u64> {
    step_in(path.file_name()?.to_str()?, prefix)
}

fn step_in(file: &str, prefix: &str) -> Option<u64> {
    let step = file.strip_prefix(prefix)?.strip_suffix(SUFFIX)?.parse().ok()?;
    (name(prefix, step) == file).then_some(step)
}

fn is_known(file: &str) -> bool {
    file == BEST || [PREFIX, BEFORE_GROWTH].into_iter().any(|prefix| step_in(file, prefix).is_some())
}

/// Whether a file is what a killed writer left of a checkpoint.
pub(super) fn is_left_over(path: &Path) -> bool {
    unfinished(path).is_some_and(is_known)
}

/// Whether a file has no name that a run gives.
pub(super) fn is_foreign(path: &Path) -> bool {
    !is_left_over(path) && path.file_name().is_some_and(|name| name.to_str().is_none_or(|name| !is_known(name)))
}
