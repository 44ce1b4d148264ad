//! The directory of a run: which one it is, whether it may be used, and taking it over.
//!
//! The checks write nothing, so that a run which cannot start leaves everything as it was. They are made with the
//! directory locked, or another process could change what they found. [`claim`] is the first write; the loop calls it
//! once the data are read, the GPU is open and all its memory is allocated.

use super::meta::{Checkpoint, Store};
use super::metrics::{self, Metrics};
use crate::checkpoint::{Storage, create_dirs, replace};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The resolved settings of a run, in its directory.
const SETTINGS: &str = "config.toml";

/// Refuses `dir` for a new run where it holds one already, or files of someone's own, or cannot be written.
///
/// # Errors
/// A usage error with the ways out; an input error where the directory cannot be used.
pub(crate) fn check_new(dir: &Path) -> Result<()> {
    check_writable(dir)?;
    let shown = dir.display();
    if let Some((step, _)) = Store::new(dir).list()?.last() {
        return Err(Error::usage(format!(
            "{shown} already holds a run at step {step}: continue it with --resume {shown}, choose another --out, or \
             replace it with --overwrite"
        )));
    }
    check_own(dir, "replace it with --overwrite")
}

/// Refuses `dir`, which holds no checkpoints, where a run would write over a file that none has written; `remedy` is a way
/// out.
fn check_own(dir: &Path, remedy: &str) -> Result<()> {
    let foreign = match (dir.join(SETTINGS).exists(), dir.join(metrics::FILE).metadata()) {
        (true, Err(_)) => SETTINGS,
        // Empty ones are the first that a run writes.
        (false, Ok(stat)) if stat.len() > 0 => metrics::FILE,
        _ => return Ok(()),
    };
    Err(Error::usage(format!(
        "{} holds a {foreign} that is not a run's, and a run would replace it: choose another --out, or {remedy}",
        dir.display()
    )))
}

/// Where a run continues that is resumed from `file`, which was found as `given`: in the directory it is in, or else,
/// as a file of its own, in the directory it was `stored` with.
pub(crate) fn of_resumed(given: &Path, file: &Path, stored: &Path) -> PathBuf {
    if given.is_dir() {
        return given.to_path_buf();
    }
    Store::run_of(file).unwrap_or_else(|| stored.to_path_buf())
}

/// Refuses `dir` for a run resumed from the checkpoint `file` after `step` where that would overwrite another run, or
/// what this one did later.
///
/// # Errors
/// As [`check_new`].
pub(crate) fn check_resumed(dir: &Path, given: &Path, file: &Path, step: u64) -> Result<()> {
    check_writable(dir)?;
    let store = Store::new(dir);
    let known = store.list()?;
    let shown = dir.display();
    if same(dir, given) {
        // Then `file` was the newest that could be read: later ones are damaged, and may be replaced.
        let mut later = known.iter().rev().filter(|(at, _)| *at > step);
        return match later.find(|(_, path)| Checkpoint::read(path).is_ok()) {
            None => Ok(()),
            Some((at, _)) => Err(Error::input(format!(
                "another process has taken the run in {shown} from step {step} to step {at} just now: give the command \
                 again to go on from there"
            ))),
        };
    }
    let Some((latest, _)) = known.last() else { return check_own(dir, "move it away") };
    if !store.all()?.iter().any(|(_, path)| same(path, file)) {
        return Err(Error::usage(format!(
            "{shown} already holds a run at step {latest}, and {} is not one of its checkpoints: choose another --out",
            file.display()
        )));
    }
    if *latest > step {
        return Err(Error::usage(format!(
            "{shown} already holds step {latest} of this run, later than step {step} of {}: continue from there with \
             --resume {shown}, or choose another --out",
            file.display()
        )));
    }
    Ok(())
}

/// Makes the directory of a run its own: creates it, drops the checkpoints of an older run if this one is new
/// (`step` 0), opens the metrics and writes the settings.
///
/// A crash at any moment leaves a directory that the same command starts from again.
///
/// # Errors
/// An input error naming what cannot be written or removed.
pub fn claim(storage: &Arc<dyn Storage>, config: &RunConfig, step: u64) -> Result<Metrics> {
    let dir = &config.out_dir;
    let settings = config.to_toml()?;
    create_dirs(&**storage, dir).map_err(|e| Error::io("create", dir, &e))?;
    if step == 0 {
        Store::on(storage.clone(), dir).clear()?;
    }
    // Before the settings, because [`check_new`] takes settings without metrics for somebody's own.
    let metrics = Metrics::open(&**storage, dir, step)?;
    let path = dir.join(SETTINGS);
    replace(&**storage, &path, &settings).map_err(|e| Error::io("write", &path, &e))?;
    Ok(metrics)
}

/// Whether files can be created in `dir`, or it in the nearest directory there is. Leaves nothing behind.
///
/// # Errors
/// An input error naming the directory that cannot be written.
pub(crate) fn check_writable(dir: &Path) -> Result<()> {
    let there = dir.ancestors().map(|part| if part.as_os_str().is_empty() { Path::new(".") } else { part });
    let Some((nearest, stat)) = there.filter_map(|part| Some((part, std::fs::metadata(part).ok()?))).next() else {
        return Ok(());
    };
    if !stat.is_dir() {
        return Err(Error::input(format!(
            "cannot write to {}: {} is a file, not a directory; choose another directory",
            dir.display(),
            nearest.display()
        )));
    }
    let refuse = |e| Error::input(format!("{}; choose another directory", Error::io("write to", dir, &e)));
    tempfile::tempfile_in(nearest).map(drop).map_err(refuse)
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Files;

    #[test]
    fn a_run_continues_where_its_checkpoint_is() {
        let dir = tempfile::tempdir().unwrap();
        let stored = Path::new("runs/stored");
        assert_eq!(of_resumed(dir.path(), &dir.path().join("checkpoints/x.safetensors"), stored), dir.path());
        for (file, run) in [
            ("moved/checkpoints/step-00000002.safetensors", "moved"),
            ("checkpoints/step-00000002.safetensors", "."),
            ("grown.safetensors", "runs/stored"),
        ] {
            assert_eq!(of_resumed(Path::new(file), Path::new(file), stored), Path::new(run));
        }
    }

    #[test]
    fn checks_leave_nothing_and_claiming_drops_only_what_it_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a/run");
        check_new(&run).unwrap();
        assert!(!dir.path().join("a").exists());
        let config = RunConfig { out_dir: run.clone(), ..RunConfig::default() };
        let old = run.join("checkpoints/step-00000007.safetensors");
        std::fs::create_dir_all(run.join("checkpoints")).unwrap();
        std::fs::write(&old, "x").unwrap();
        assert!(check_new(&run).unwrap_err().to_string().contains("holds a run at step 7"));
        let files: Arc<dyn Storage> = Arc::new(Files);
        claim(&files, &config, 3).unwrap();
        assert!(old.exists());
        claim(&files, &config, 0).unwrap();
        assert!(!old.exists());
        check_new(&run).unwrap();
        let refused = |said: &str| {
            let resumed = check_resumed(&run, Path::new("x.safetensors"), Path::new("x.safetensors"), 3);
            for (checked, remedy) in [(check_new(&run), "--overwrite"), (resumed, "move it away")] {
                let error = checked.unwrap_err().to_string();
                assert!(error.contains(said) && error.ends_with(remedy), "{error}");
            }
        };
        std::fs::remove_file(run.join(metrics::FILE)).unwrap();
        refused("config.toml that is not a run's");
        std::fs::remove_file(run.join(SETTINGS)).unwrap();
        std::fs::write(run.join(metrics::FILE), "").unwrap();
        check_new(&run).unwrap();
        std::fs::write(run.join(metrics::FILE), "{}\n").unwrap();
        refused("metrics.jsonl that is not a run's");
    }
}
