//! What a run does when its GPU or its numbers fail: back to the last good checkpoint, and on.
//!
//! A lost GPU is opened again and the run goes on as if it had been stopped and resumed there: the same bits. After
//! three steps in a row whose loss or gradients were not finite, or a spike of the loss, the run goes on from the
//! checkpoint with the data that follow those steps. Neither goes on for ever: see [`MAX_LOSSES`] and [`MAX_ROLLBACKS`].

pub mod diagnose;
#[cfg(test)]
pub(super) mod faults;

use crate::checkpoint::RunLock;
use crate::config::RunConfig;
use crate::console::warn;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::runtime::device::Device;
use crate::train::Summary;
use crate::train::disk::Start;
use crate::train::disk::meta::Store;
use crate::train::run::Run;
use crate::train::run::health::Bad;
use crate::train::run::hooks::{Hooks, NoHooks};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Losses of the GPU, without a checkpoint saved between them, that end a run.
pub(crate) const MAX_LOSSES: u32 = 3;
/// Returns because of bad steps, without a good step past them between, that end a run.
pub(crate) const MAX_ROLLBACKS: u32 = 3;

/// How often in a row something sent a run back.
#[derive(Default)]
struct Returns {
    count: u32,
    /// The step that the run has to get past: the furthest that sent it back.
    past: u64,
}

impl Returns {
    /// Counts one more, of a run that had got to `reached` and must now get past `step`.
    fn again(&mut self, reached: u64, step: u64) -> u32 {
        self.count = if reached > self.past { 1 } else { self.count + 1 };
        self.past = self.past.max(step);
        self.count
    }
}

/// What came of the attempts at a run so far.
#[derive(Default)]
struct Attempts {
    rollbacks: Returns,
    /// When the first one began: no time comes back with a checkpoint.
    began: Option<(Instant, f64)>,
    /// Whether one got as far as to claim the run's directory. Before that, a checkpoint in it may be of the run that this
    /// one is to replace.
    claimed: bool,
}

/// A run and where it may start again.
pub(crate) struct Job<'a> {
    /// Every setting.
    pub config: &'a RunConfig,
    /// What it trains on.
    pub data: &'a Dataset,
    /// The state it started from, for when there is no checkpoint of it yet.
    pub origin: &'a dyn Fn() -> Result<Start>,
    /// Set when the run is to save and stop.
    pub stop: &'a AtomicBool,
    /// What to give to go on after the GPU was lost for good, for messages.
    pub go_on: String,
}

/// [`Job::go_on`] of a run by itself.
pub(crate) fn resuming(config: &RunConfig) -> String {
    format!(
        "--resume {}, with a smaller batch_size, --polite, or on another adapter with --adapter",
        config.out_dir.display()
    )
}

/// A GPU that can be opened again.
pub(crate) struct Opener<'a> {
    /// `None` only while it is opened again, or where that failed.
    device: Option<Device>,
    reopen: &'a dyn Fn() -> Result<Device>,
}

impl<'a> Opener<'a> {
    /// `reopen` opens the adapter and driver of `device` again, with its kernels.
    pub(crate) fn new(device: Device, reopen: &'a dyn Fn() -> Result<Device>) -> Self {
        Self { device: Some(device), reopen }
    }

    fn device(&self) -> Result<&Device> {
        self.device.as_ref().ok_or_else(|| Error::device("the GPU did not come back"))
    }

    /// Opens the GPU again. `false` where it is another one.
    fn open_again(&mut self) -> Result<bool> {
        let adapter = self.device()?.engine.gpu.describe();
        // Closed before it is opened again: some drivers give a GPU to one at a time.
        self.device = None;
        let device = self.device.insert((self.reopen)()?);
        Ok(device.engine.gpu.describe() == adapter)
    }
}

impl Job<'_> {
    /// Trains from `start`. A GPU that is lost is opened again.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after saving when `stop` was set; [`Error::Diverged`]; device and file errors, also after
    /// [`MAX_LOSSES`].
    pub(crate) fn run(&self, opener: &mut Opener, start: Start, lock: &mut RunLock) -> Result<Summary> {
        self.run_with(&NoHooks, opener, start, lock)
    }

    fn run_with(
        &self,
        hooks: &dyn Hooks,
        opener: &mut Opener,
        mut start: Start,
        lock: &mut RunLock,
    ) -> Result<Summary> {
        let mut attempts = Attempts::default();
        let mut losses = Returns { count: 0, past: start.standing.step };
        let growths = start.standing.growths();
        loop {
            let why = match self.attempt(opener.device()?, start, lock, &mut attempts, hooks) {
                // Other ranks do not wait until a GPU is opened again.
                Err(Error::Lost(why)) if opener.device()?.world.size() == 1 => why,
                other => return other,
            };
            start = self.last_good(growths, &attempts)?;
            let step = start.standing.step;
            let count = losses.again(step, step);
            if count >= MAX_LOSSES {
                return Err(Error::device(format!(
                    "the GPU was lost {count} times in a row, the last time because {why}; what was saved is intact: go on \
                     with {}",
                    self.go_on
                )));
            }
            warn(format_args!("{why}; opening the GPU again and going on from step {step}"));
            if !opener.open_again()? {
                return Err(Error::device(format!(
                    "the GPU was lost because {why}, and another one is there in its place; what was saved is intact: go on \
                     with {}",
                    self.go_on
                )));
            }
        }
    }

    /// As [`Job::run`], but a lost GPU is an error.
    ///
    /// # Errors
    /// As there, and [`Error::Lost`].
    pub(crate) fn run_on(&self, device: &Device, start: Start, lock: &mut RunLock) -> Result<Summary> {
        self.attempt(device, start, lock, &mut Attempts::default(), &NoHooks)
    }

    /// Until the end or a lost GPU; goes back to a checkpoint where steps went bad.
    fn attempt(
        &self,
        device: &Device,
        mut start: Start,
        lock: &mut RunLock,
        attempts: &mut Attempts,
        hooks: &dyn Hooks,
    ) -> Result<Summary> {
        let mut note = None;
        let growths = start.standing.growths();
        attempts.began.get_or_insert_with(|| (Instant::now(), start.standing.seconds));
        loop {
            let mut run = Run::new(device, self.config, self.data, start, lock, hooks)?;
            attempts.claimed = true;
            if let Some(note) = note.take() {
                run.metrics.write(&note)?;
            }
            let (run, bad) = run.go(self.stop)?;
            let Some(Bad { step: bad, why, finite }) = bad else { return run.finish() };
            start = self.last_good(growths, attempts)?;
            if attempts.rollbacks.again(run.last_good().unwrap_or(0), bad) >= MAX_ROLLBACKS {
                let found = if finite { String::new() } else { format!("{}; ", run.diagnose(bad)?) };
                return Err(Error::Diverged(format!(
                    "{why}, after {} returns to the checkpoint before it; {found}no such step was stored; lower train.lr (it \
                     is {}) or raise train.warmup_fraction, and resume from the last checkpoint or start again",
                    MAX_ROLLBACKS - 1,
                    self.config.train.lr
                )));
            }
            // The data up to the bad steps are stepped over, and so are those that this run had stepped over itself: the
            // checkpoint may be older than that.
            let to = start.standing.step;
            let skipped = (bad + 1).saturating_sub(to) * run.micro_batches();
            start.standing.position.rows = run.position(bad + 1).rows;
            drop(run);
            warn(format_args!("{why}; going back to step {to} and over the {skipped} batches of the steps since"));
            note = Some(serde_json::json!({
                "kind": "rollback", "from_step": bad + 1, "to_step": to, "skipped_batches": skipped, "why": why,
            }));
        }
    }

    /// The newest valid checkpoint of this run, or where it started. `growths`, done or still to come, are as many as
    /// ever: the settings in that checkpoint, which may be older than this run's, have no say in them.
    fn last_good(&self, growths: usize, attempts: &Attempts) -> Result<Start> {
        let latest = || Store::new(&self.config.out_dir).latest();
        let mut start = match attempts.claimed.then(latest).transpose()?.and_then(|latest| latest.found) {
            Some((_, checkpoint)) => Start::resumed(checkpoint)?.0,
            None => (self.origin)()?,
        };
        start.standing.growths_left = growths.saturating_sub(start.standing.lineage.len());
        if let (Some((since, spent)), Some(_)) = (attempts.began, self.config.train.seconds()) {
            start.standing.seconds = start.standing.seconds.max(spent + since.elapsed().as_secs_f64());
        }
        Ok(start)
    }
}
