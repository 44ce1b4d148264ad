//! The directory of a run: which one it is, whether it may be used, and taking it over.
//!
//! The checks write nothing, so that a run which cannot start leaves everything as it was. They are made with the
//! directory locked, or another process could change what they found. [`claim`] is the first write; the loop calls it
//! once the data are read, the GPU is open and all its memory is allocated.

use super::meta::{Checkpoint, Meta, Store};
use super::metrics::{self, Metrics, Origin};
use super::settings;
use crate::checkpoint::{Storage, check_lock, create_dirs, read_meta, replace};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::train::run::schedule::is_due;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Refuses `dir` for a new run where it holds one already, or files of someone's own, or cannot be written. With `overwrite`
/// a run may be replaced: what that is, in words.
///
/// # Errors
/// A usage error with the ways out; an input error where the directory cannot be used.
pub(crate) fn check_new(dir: &Path, overwrite: bool) -> Result<Option<String>> {
    let (shown, store) = (dir.display(), Store::new(dir));
    [dir, &store.folder()].into_iter().try_for_each(check_writable)?;
    check_own(dir)?;
    settings::check(dir)?;
    let known = store.list()?;
    if overwrite {
        return replaced(dir, &store, known.last().map(|(step, _)| *step));
    }
    let others = store.of_others(None);
    let own = |(_, path): &&(u64, PathBuf)| !others.as_ref().is_ok_and(|others| others.contains(path));
    if let Some((step, _)) = known.iter().rev().find(own) {
        return Err(Error::usage(format!(
            "{shown} already holds a run at step {step}: continue it with --resume {shown}, choose another --out, or \
             replace it with --overwrite"
        )));
    }
    check_others(&others?, "move it away, or choose another --out")?;
    if let Some(other) = store.foreign()?.first() {
        return Err(Error::usage(format!(
            "{shown} holds {}, which has no name that a run gives its checkpoints: give it back the name it had, move it away, \
             or choose another --out",
            other.display()
        )));
    }
    match metrics::origin(dir)? {
        Origin::Run { steps, resumed, .. } if resumed || had_checkpoint(dir, steps) => Err(Error::usage(format!(
            "{shown} holds the metrics of a run of {steps} steps and none of its checkpoints: put them back into \
             {shown}/checkpoints, choose another --out, or replace what is left with --overwrite"
        ))),
        _ => Ok(None),
    }
}

/// Refuses where others have written files under the names of checkpoints.
fn check_others(others: &[PathBuf], remedy: &str) -> Result<()> {
    others.first().map_or(Ok(()), |other| {
        Err(Error::input(format!(
            "{} is not a checkpoint of this program, and a run would replace it: {remedy}",
            other.display()
        )))
    })
}

/// What `--overwrite` replaces in `dir`.
fn replaced(dir: &Path, store: &Store, last: Option<u64>) -> Result<Option<String>> {
    let files = store.all()?;
    for path in &files {
        // Damage is no sign of another owner.
        if let Err(error @ (Error::Input(_) | Error::Foreign(_))) = read_meta::<Meta>(path) {
            return Err(Error::input(format!(
                "{error}; a run would replace it: move it away, or choose another --out"
            )));
        }
    }
    check_others(&store.of_others(None)?, "move it away, or choose another --out")?;
    let lines = match metrics::origin(dir)? {
        Origin::Run { lines, .. } => lines,
        _ => 0,
    };
    let at = last.map_or_else(String::new, |step| format!(" at step {step}"));
    let (count, shown) = (files.len(), dir.display());
    let said = format!("--overwrite replaces the run in {shown}{at}: {count} checkpoints and {lines} lines of metrics");
    Ok(Some(said).filter(|_| count + lines > 0))
}

/// Whether a run in `dir` that took so many steps had saved one, going by its settings.
fn had_checkpoint(dir: &Path, steps: u64) -> bool {
    let Ok(RunConfig { train, .. }) = RunConfig::read(&dir.join(settings::FILE)) else { return steps > 0 };
    // Killed right after the last step before it, a run has not.
    let interval = if train.checkpoint_interval == 0 { train.max_steps } else { train.checkpoint_interval };
    steps > interval as u64 || steps >= train.max_steps as u64
}

/// Refuses `dir` where a run would write over a file that none has written.
fn check_own(dir: &Path) -> Result<()> {
    check_lock(dir)?;
    let settings = std::fs::symlink_metadata(dir.join(settings::FILE)).is_ok();
    let foreign = match (settings, metrics::origin(dir)?) {
        (true, Origin::Nothing) if !dir.join(metrics::FILE).exists() => settings::FILE,
        (_, Origin::Foreign) | (false, Origin::Run { .. }) => metrics::FILE,
        _ => return Ok(()),
    };
    Err(not_own(dir, foreign))
}

fn not_own(dir: &Path, foreign: &str) -> Error {
    Error::usage(format!(
        "{} holds a {foreign} that is not a run's, and a run would replace it: choose another --out, or move it away",
        dir.display()
    ))
}

/// Whether `file` is the settings of the run in `dir`.
pub(crate) fn is_settings_of(dir: &Path, file: &Path) -> bool {
    same(&dir.join(settings::FILE), file)
}

/// Where the settings of the run in `dir` are.
pub(crate) fn settings_of(dir: &Path) -> PathBuf {
    dir.join(settings::FILE)
}

/// Whether `dir` is a run's, going by what it holds.
pub(crate) fn is_run(dir: &Path) -> bool {
    let holds = |name| std::fs::symlink_metadata(dir.join(name)).is_ok();
    holds(metrics::FILE) || holds(settings::FILE) || Store::new(dir).all().is_ok_and(|known| !known.is_empty())
}

/// Where a run continues that is resumed from `file`, which was found as `given`: in the directory it is in, or else,
/// as a file of its own, in the directory it was `stored` with.
pub(crate) fn of_resumed(given: &Path, file: &Path, stored: &Path) -> PathBuf {
    if given.is_dir() {
        return given.to_path_buf();
    }
    let linked = || Store::run_of(&file.canonicalize().ok()?);
    Store::run_of(file).or_else(linked).unwrap_or_else(|| stored.to_path_buf())
}

/// Refuses `dir` for a run resumed from the checkpoint `file` after `step` where that would overwrite another run, or
/// what this one did later; its metrics have a line every `log_interval` steps.
///
/// # Errors
/// As [`check_new`].
pub(crate) fn check_resumed(dir: &Path, given: &Path, file: &Path, step: u64, log_interval: u64) -> Result<()> {
    let store = Store::new(dir);
    [dir, &store.folder()].into_iter().try_for_each(check_writable)?;
    check_lock(dir)?;
    settings::check(dir)?;
    match metrics::origin(dir)? {
        Origin::Foreign => return Err(not_own(dir, metrics::FILE)),
        // They are made durable before each checkpoint.
        Origin::Run { reached, .. } if is_in(dir, file) && step >= reached.saturating_add(log_interval.max(1)) => {
            let (file, metrics) = (file.display(), dir.join(metrics::FILE));
            return Err(Error::input(format!(
                "{file} is of step {step}, and {} ends at step {reached}, so they are of two runs: move out of {} the one that \
                 does not belong there, or go on in a directory of its own with --out",
                metrics.display(),
                dir.display()
            )));
        }
        _ => {}
    }
    check_others(&store.of_others(Some(step))?, "move it away")?;
    let known = store.list()?;
    known.iter().try_for_each(|(_, path)| store.check_name(path))?;
    store.check_renamed(step)?;
    let shown = dir.display();
    if same(dir, given) {
        // Then `file` was the newest that is whole: later ones are damaged, and may be replaced.
        for (at, path) in known.iter().rev().filter(|(at, _)| *at > step) {
            match Checkpoint::read(path) {
                Err(Error::Damaged(_)) => {}
                Err(other) => return Err(other),
                Ok(_) => {
                    return Err(Error::input(format!(
                        "another process has taken the run in {shown} from step {step} to step {at} just now: give the \
                         command again to go on from there"
                    )));
                }
            }
        }
        return Ok(());
    }
    let Some((latest, _)) = known.last() else { return check_own(dir) };
    if !store.all()?.iter().any(|path| same(path, file)) {
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
    let settings = settings::written(config)?;
    create_dirs(&**storage, dir).map_err(|e| Error::io("create", dir, &e))?;
    if step == 0 {
        Store::on(storage.clone(), dir).clear()?;
    }
    // Before the settings, because [`check_new`] takes settings without metrics for somebody's own.
    let metrics = Metrics::open(&**storage, dir, step, is_due(step, config.train.eval_interval))?;
    let path = dir.join(settings::FILE);
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

/// Whether `file` is among the checkpoints of the run in `dir`.
fn is_in(dir: &Path, file: &Path) -> bool {
    Store::run_of(file).is_some_and(|run| same(&run, dir))
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
        check_new(&run, false).unwrap();
        assert!(!dir.path().join("a").exists());
        let config = RunConfig { out_dir: run.clone(), ..RunConfig::default() };
        let files: Arc<dyn Storage> = Arc::new(Files);
        let old = run.join("checkpoints/step-00000007.safetensors");
        let mut metrics = claim(&files, &config, 0).unwrap();
        metrics.write(&serde_json::json!({"kind": "run"})).unwrap();
        check_new(&run, false).unwrap();
        std::fs::create_dir_all(run.join("checkpoints")).unwrap();
        for how in [false, true] {
            std::fs::write(&old, "my thesis").unwrap();
            let said = check_new(&run, how).unwrap_err().to_string();
            assert!(said.contains("step-00000007.safetensors is not a checkpoint of this program"), "{said}");
        }
        std::fs::write(&old, "").unwrap();
        assert!(check_new(&run, false).unwrap_err().to_string().contains("holds a run at step 7"));
        let said = check_new(&run, true).unwrap().unwrap();
        assert!(said.ends_with("at step 7: 1 checkpoints and 1 lines of metrics"), "{said}");
        claim(&files, &config, 3).unwrap();
        assert!(old.exists());
        claim(&files, &config, 0).unwrap();
        assert!(!old.exists());
        check_new(&run, false).unwrap();
        let refused = |said: &str| {
            let resumed = check_resumed(&run, Path::new("x.safetensors"), Path::new("x.safetensors"), 3, 1);
            let new = [false, true].map(|overwrite| check_new(&run, overwrite).map(drop));
            for checked in new.into_iter().chain([resumed]) {
                let error = checked.unwrap_err().to_string();
                assert!(error.contains(said) && error.ends_with("move it away"), "{error}");
            }
        };
        std::fs::remove_file(run.join(metrics::FILE)).unwrap();
        refused("config.toml that is not a run's");
        std::fs::write(run.join(metrics::FILE), "{\"loss\": 1}\n").unwrap();
        refused("metrics.jsonl that is not a run's");
        std::fs::remove_file(run.join(settings::FILE)).unwrap();
        refused("metrics.jsonl that is not a run's");
        std::fs::write(run.join(metrics::FILE), "").unwrap();
        check_new(&run, false).unwrap();
    }

    #[test]
    fn a_run_whose_checkpoints_are_elsewhere_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = RunConfig { out_dir: dir.path().to_path_buf(), ..RunConfig::default() };
        config.train.checkpoint_interval = 2;
        let files: Arc<dyn Storage> = Arc::new(Files);
        let mut metrics = claim(&files, &config, 0).unwrap();
        metrics.write(&serde_json::json!({"kind": "run", "from_step": 0})).unwrap();
        for step in 0..3 {
            // Killed before its first checkpoint, it starts again.
            check_new(dir.path(), false).unwrap();
            metrics.write(&serde_json::json!({"kind": "train", "step": step})).unwrap();
        }
        let said = check_new(dir.path(), false).unwrap_err().to_string();
        assert!(said.contains("metrics of a run of 3 steps and none of its checkpoints"), "{said}");
        std::fs::create_dir(dir.path().join("checkpoints")).unwrap();
        std::fs::write(dir.path().join("checkpoints/kept.safetensors"), "x").unwrap();
        assert!(check_new(dir.path(), false).unwrap_err().to_string().contains("kept.safetensors, which has no name"));
    }
}
