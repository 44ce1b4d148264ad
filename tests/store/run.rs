//! All that a run does to its disk, without the training: the directory claimed, a line of metrics a step, checkpoints.

use crate::checkpoint;
use crate::disk::Disk;
use std::path::Path;
use std::sync::Arc;
use tokenformer::checkpoint::{Keep, Storage};
use tokenformer::config::RunConfig;
use tokenformer::error::Result;
use tokenformer::train::Store;
use tokenformer::train::directory::claim;
use tokenformer::train::disk::settings::written;

/// The directory that the disk has from the start.
pub const ROOT: &str = "/disk";
/// The run's directory, two levels below it.
pub const RUN: &str = "/disk/runs/mine";
/// Steps of a run.
pub const STEPS: u64 = 9;
/// A checkpoint after every so many of them.
const INTERVAL: u64 = 3;

pub fn store(disk: &Disk) -> Store {
    Store::on(Arc::new(disk.clone()), RUN)
}

/// Trains from `step` to the end. `saved` is the step of the last checkpoint that was reported safe, 0 once a new run
/// has the directory.
pub fn train(disk: &Disk, step: u64, saved: &mut Option<u64>) -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let config = RunConfig { out_dir: RUN.into(), ..RunConfig::default() };
    let mut metrics = claim(&storage, &config, step)?;
    *saved = saved.or(Some(step));
    let store = store(disk);
    for step in step..STEPS {
        metrics.write(&serde_json::json!({"kind": "train", "step": step + 1, "loss": step as f64 / 3.0}))?;
        if (step + 1) % INTERVAL == 0 {
            metrics.sync()?;
            store.save(&checkpoint(step + 1), Keep { last: 1, every: 0 })?;
            *saved = Some(step + 1);
        }
    }
    Ok(())
}

/// Goes on from the newest checkpoint, as `--resume` or, where there is none, the same command would. The checkpoint
/// found is one that was saved, whole, and not older than `saved`.
pub fn resume(disk: &Disk, saved: Option<u64>) {
    let latest = store(disk).latest().unwrap();
    assert_eq!(latest.warnings, [""; 0], "no file under a checkpoint's name is ever damaged");
    let step = latest.found.map_or(0, |(_, found)| {
        assert_eq!(found, checkpoint(found.meta.step));
        found.meta.step
    });
    assert!(Some(step) >= saved, "step {saved:?} was reported safe, step {step} is found");
    train(disk, step, &mut None).unwrap();
    if step < STEPS {
        check_complete(disk);
    }
}

/// A run that is done: settings, every line of metrics once, the last checkpoint and nothing else.
pub fn check_complete(disk: &Disk) {
    let text = |name: &str| String::from_utf8(disk.bytes(&Path::new(RUN).join(name)).unwrap()).unwrap();
    let steps: Vec<u64> = text("metrics.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=STEPS).collect::<Vec<_>>());
    let config = RunConfig { out_dir: RUN.into(), ..RunConfig::default() };
    assert_eq!(text("config.toml"), written(&config).unwrap());
    assert_eq!(disk.names(Path::new(RUN)), ["config.toml", "metrics.jsonl"]);
    assert_eq!(disk.names(&Path::new(RUN).join("checkpoints")), ["step-00000009.safetensors"]);
    assert_eq!(store(disk).latest().unwrap().found.unwrap().1, checkpoint(STEPS));
}
