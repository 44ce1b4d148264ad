//! What a run shows while it goes on: its latest numbers, its speed, its last sample.

use super::line::{Numbers, Speed};
use super::progress::Progress;
use crate::config::TrainConfig;
use crate::console;
use crate::report::number;
use crate::train::trainer::{StepStats, Trainer};
use std::time::{Duration, Instant};

/// Seconds over which the speed is taken, at least.
const WINDOW: f64 = 0.5;

/// The numbers of a run and where they are shown.
#[derive(Debug)]
pub(crate) struct Display {
    progress: Progress,
    /// The latest ones.
    pub(super) numbers: Numbers,
    /// The last sample.
    pub(crate) sample: String,
    started: Instant,
    /// Since when the pace is taken, and the steps done then: since the first step of this process, as drivers may still compile
    /// in it.
    paced: Option<(Instant, u64)>,
    window: Option<Window>,
    /// Of one step of the model as it is.
    flops: u64,
    /// Floating-point operations a second that the device can do at most, where that was measured.
    peak: Option<f64>,
}

/// Since when the speed is taken.
#[derive(Debug)]
struct Window {
    since: Instant,
    /// Steps done then.
    step: u64,
    /// What was no step since then.
    aside: Duration,
    /// Whether another step was in flight then.
    in_flight: bool,
}

impl Display {
    /// Of a run that has done `step` steps with `trainer`.
    pub(super) fn new(step: u64, train: &TrainConfig, trainer: &Trainer) -> Self {
        let mut display = Self {
            progress: Progress::new(train.log_interval),
            numbers: Numbers { step, steps: train.max_steps as u64, ..Numbers::default() },
            sample: String::new(),
            started: Instant::now(),
            paced: None,
            window: None,
            flops: 0,
            peak: trainer.engine().gpu.measured_peak(trainer.shape().precision),
        };
        display.set_model(trainer);
        display
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// `steps` are done, the last of which measured `stats`; `in_flight` says whether the next one is on its way.
    pub(super) fn step(&mut self, stats: StepStats, steps: u64, tokens_per_step: u64, in_flight: bool) {
        self.measure_speed(steps, tokens_per_step, in_flight);
        let (since, first) = *self.paced.get_or_insert_with(|| (Instant::now(), steps));
        let numbers = &mut self.numbers;
        numbers.seconds_left = steps.checked_sub(first).filter(|done| *done > 0).map(|done| {
            let pace = since.elapsed().as_secs_f64() / done as f64;
            pace * numbers.steps.saturating_sub(steps) as f64
        });
        numbers.step = steps;
        numbers.is_measured = true;
        numbers.loss = f64::from(stats.loss);
        numbers.grad_norm = f64::from(stats.grad_norm);
        self.progress.step(&self.numbers);
    }

    /// The first step only starts the clock: drivers may still compile in it. With another step in flight a driver may tell of
    /// one when both are done: so both ends of a window are with one, or both without.
    fn measure_speed(&mut self, steps: u64, tokens_per_step: u64, in_flight: bool) {
        let now = Instant::now();
        if let Some(window) = self.window.as_ref().filter(|window| window.in_flight == in_flight) {
            let seconds = now.duration_since(window.since).saturating_sub(window.aside).as_secs_f64();
            if seconds < WINDOW && self.numbers.speed.is_some() {
                return;
            }
            let each = seconds.max(1e-9) / steps.saturating_sub(window.step).max(1) as f64;
            let peak_percent = self.peak.map(|peak| 100.0 * self.flops as f64 / each / peak);
            self.numbers.speed = Some(Speed { seconds: each, tokens: tokens_per_step as f64 / each, peak_percent });
        }
        self.window = Some(Window { since: now, step: steps, aside: Duration::ZERO, in_flight });
    }

    /// Shows the numbers as they are now.
    pub(super) fn refresh(&self) {
        self.progress.refresh(&self.numbers);
    }

    /// What took so long was no step.
    pub(super) fn aside(&mut self, took: Duration) {
        if let Some(window) = &mut self.window {
            window.aside += took;
        }
    }

    /// The model is another one, after a growth.
    pub(super) fn set_model(&mut self, trainer: &Trainer) {
        self.numbers.memory = number::bytes(trainer.bytes().total());
        self.numbers.speed = None;
        self.window = None;
        self.flops = trainer.flops_per_step();
    }

    /// Removes what does not stay.
    pub(super) fn finish(&self) {
        console::clear();
    }
}
