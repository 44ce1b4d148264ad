//! Which run, or which checkpoint of a run, is meant by a path; the lock of its directory.

use crate::checkpoint::RunLock;
use crate::error::Result;
use crate::train::{Store, directory};
use std::path::{Path, PathBuf};

/// What stands behind the name of a run for its checkpoint with the lowest validation loss.
const BEST: &str = "@best";

/// `given`, or the run whose folder of checkpoints it is: `runs/mine/checkpoints` is `runs/mine`. `runs/mine@best` is the best
/// checkpoint of that run, unless there is something of that name.
pub(super) fn of(given: &Path) -> PathBuf {
    const FOLDER: &str = "checkpoints";
    if let Some(run) = best_of(given) {
        return Store::new(of(&run)).best();
    }
    if !given.is_dir() || given.join(FOLDER).is_dir() {
        return given.to_path_buf();
    }
    match given.file_name() {
        Some(name) if name == FOLDER => match given.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        },
        // `.` and `..` have no name of their own.
        None if given.canonicalize().is_ok_and(|path| path.ends_with(FOLDER)) => given.join(".."),
        _ => given.to_path_buf(),
    }
}

/// The run whose best checkpoint is meant.
fn best_of(given: &Path) -> Option<PathBuf> {
    let run = given.to_str()?.trim_end_matches('/').strip_suffix(BEST)?;
    (!run.is_empty() && !given.exists()).then(|| PathBuf::from(run))
}

/// Locks the directory of a run, before anything in it is looked at.
pub(super) fn lock(dir: &Path) -> Result<RunLock> {
    directory::check_writable(dir)?;
    RunLock::take(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_checkpoint_of_a_run_has_a_short_name() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let best = run.join("checkpoints/best.safetensors");
        assert_eq!(of(&dir.path().join("run@best")), best);
        std::fs::create_dir_all(run.join("checkpoints")).unwrap();
        assert_eq!(of(&run.join("checkpoints@best")), best);
        assert_eq!(of(Path::new("@best")), Path::new("@best"));
        assert_eq!(of(&dir.path().join("run@last")), dir.path().join("run@last"));
        std::fs::create_dir(dir.path().join("run@best")).unwrap();
        assert_eq!(of(&dir.path().join("run@best")), dir.path().join("run@best"));
    }

    #[test]
    fn the_folder_of_checkpoints_stands_for_its_run() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        std::fs::create_dir_all(run.join("checkpoints")).unwrap();
        assert_eq!(of(&run), run);
        assert_eq!(of(&run.join("checkpoints")), run);
        assert_eq!(of(&run.join("checkpoints/")), run);
        assert_eq!(of(&run.join("checkpoints/.").join("../checkpoints")), run.join("checkpoints/.."));
        assert_eq!(of(&run.join("nosuch")), run.join("nosuch"));
        // A run may be called so, too.
        let named = dir.path().join("checkpoints");
        std::fs::create_dir_all(named.join("checkpoints")).unwrap();
        assert_eq!(of(&named), named);
    }
}
