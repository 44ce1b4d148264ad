//! Training: the loop, what a step is, what a growth is, what is kept of a run.
//!
//! Everything a step needs is a pure function of the configuration, the seed and the step number, so a
//! run that stops and resumes is the same run, bit for bit. Start with `run/mod.rs`, the loop.
//!
//! - `run/`: a run in progress. When to step, evaluate, sample, grow and save.
//! - [`trainer`]: a model in training on one device. What one step is; [`plans`] has every computation of it.
//! - `parallel`: an update by several leaves, whose gradients are added up by a tree; by one rank or many.
//! - [`growth`]: what a growth or pruning makes of a model, its moments and its cohorts.
//! - [`recovery`]: back to a checkpoint where the GPU or the numbers fail.
//! - [`lr_find`]: a test of many learning rates, before a run.
//! - `report`: the page of a run, `report.html`, made of its metrics; [`flops`] counts what a step costs.
//! - [`disk`]: directory, metrics, checkpoints and what a run starts from.

pub mod disk;
pub mod evaluate;
pub mod fit;
pub mod flops;
pub mod growth;
pub mod lr_find;
pub(crate) mod parallel;
pub mod plans;
pub mod recovery;
pub(crate) mod report;
mod run;
pub mod trainer;

pub use disk::meta::{Checkpoint, DataPosition, Meta, Store};
pub use disk::{directory, metrics};
pub use growth::plateau::Plateau;
pub use growth::{GrowthRecord, cohorts, prune};
pub use run::loss_scale::LossScale;
pub use run::position::Position;
pub use run::schedule;
pub use run::spike::LossStatistics;
pub use run::standing::Standing;

use crate::checkpoint::RunLock;
use crate::config::RunConfig;
use crate::data::Dataset;
use crate::error::Result;
use crate::runtime::device::Device;
use disk::Start;
use metrics::BothLosses;
use recovery::Job;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Steps done.
    pub steps: u64,
    /// Parameters at the end.
    pub parameters: u64,
    /// Last training loss, nats per token.
    pub loss: f64,
    /// Validation loss at the end, nats per token.
    pub val_loss: f64,
    /// Bits per byte there, where the bytes of the validation data are known.
    pub bits_per_byte: Option<f64>,
    /// The lowest validation loss.
    pub best: Option<Best>,
    /// Where there are old validation data: the first evaluation of the run, and the last.
    pub both_losses: Option<[BothLosses; 2]>,
    /// Entropy of the data, where it is known, nats per token.
    pub entropy_floor: Option<f64>,
    /// Growths of the model so far.
    pub growths: Vec<GrowthRecord>,
    /// A sample drawn at the end.
    pub sample: String,
    /// Seconds of this process.
    pub seconds: f64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
}

/// The lowest validation loss of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// The step it was measured after.
    pub step: u64,
    /// Nats per token.
    pub val_loss: f64,
    /// The same in bits per byte, where the bytes of the validation data are known.
    pub bits_per_byte: Option<f64>,
    /// The checkpoint of that step, where it was kept.
    pub checkpoint: Option<PathBuf>,
}

/// Trains `start` on `data` until `max_steps`, or until `stop` is set; see [`Job`].
///
/// A run that starts at step 0 replaces the run that is in its directory, if any: see [`directory::check_new`].
///
/// # Errors
/// As [`Job::run_on`], also where another process writes to the run's directory.
pub fn run(device: &Device, config: &RunConfig, data: &Dataset, start: Start, stop: &AtomicBool) -> Result<Summary> {
    let origin = || Ok(start.clone());
    let mut lock = RunLock::take(&config.out_dir)?;
    let go_on = recovery::resuming(config);
    Job { config, data, origin: &origin, stop, go_on }.run_on(device, start.clone(), &mut lock)
}
