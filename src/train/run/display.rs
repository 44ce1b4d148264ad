//! What a run shows while it goes on: its latest numbers, its speed, its last sample.

use super::progress::{Numbers, Progress};
use crate::config::TrainConfig;
use crate::train::trainer::StepStats;
use std::time::Instant;

/// Seconds over which the speed is taken, at least.
const WINDOW: f64 = 0.5;

/// The numbers of a run and where they are shown.
pub(crate) struct Display {
    progress: Progress,
    /// The latest ones.
    pub(crate) numbers: Numbers,
    /// The last sample.
    pub(crate) sample: String,
    started: Instant,
    /// Since when the speed is taken, and the steps done then.
    window: (Instant, u64),
}

impl Display {
    /// Of a run that has done `step` steps and takes `memory` of the device, in words.
    pub(crate) fn new(step: u64, train: &TrainConfig, memory: String) -> Self {
        let now = Instant::now();
        Self {
            progress: Progress::new(step, train.max_steps as u64, train.log_interval as u64, memory),
            numbers: Numbers { step, ..Numbers::default() },
            sample: String::new(),
            started: now,
            window: (now, step),
        }
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// `steps` are done, the last of which measured `stats`.
    pub(crate) fn step(&mut self, stats: StepStats, steps: u64, lr: f64, tokens_per_step: u64) {
        let (since, first) = self.window;
        let seconds = since.elapsed().as_secs_f64();
        if seconds > WINDOW || self.numbers.tokens_per_s == 0.0 {
            self.numbers.tokens_per_s = ((steps - first) * tokens_per_step) as f64 / seconds.max(1e-9);
            self.window = (Instant::now(), steps);
        }
        self.numbers.step = steps;
        self.numbers.loss = f64::from(stats.loss);
        self.numbers.grad_norm = f64::from(stats.grad_norm);
        self.numbers.lr = lr;
        self.progress.step(&self.numbers);
    }

    /// Device memory changed, after a growth.
    pub(crate) fn set_memory(&mut self, memory: String) {
        self.progress.set_memory(memory);
    }

    /// A line that stays.
    pub(crate) fn print(&self, line: &str) {
        self.progress.print(line);
    }

    /// Removes what does not stay.
    pub(crate) fn finish(&self) {
        self.progress.finish();
    }
}
