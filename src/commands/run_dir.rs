//! Which run is meant by a path.

use std::path::{Path, PathBuf};

/// `given`, or the run whose folder of checkpoints it is: `runs/mine/checkpoints` is `runs/mine`.
pub(super) fn of(given: &Path) -> PathBuf {
    const FOLDER: &str = "checkpoints";
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

#[cfg(test)]
mod tests {
    use super::*;

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
