//! A learning-rate range test (Smith, 2015, arXiv 1506.01186): a new model is trained while the rate rises exponentially, until
//! the loss has grown far above its lowest value. Nothing is written, and no run is touched.
//!
//! The loss that counts for a rate is that of the batch after its update: the update itself is what a rate is judged by.

mod curve;
mod picture;

pub use curve::{Point, Suggestion, smoothed, suggest};
pub(crate) use picture::picture;

use super::cohorts;
use super::run::loss_scale;
use super::trainer::Trainer;
use crate::config::{RunConfig, TrainConfig};
use crate::console::Parts;
use crate::data::{Batch, Dataset, train_batch};
use crate::error::{Error, Result};
use crate::model::init;
use crate::runtime::device::Device;
use curve::{Watch, rate};

/// The rates of a test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// From the first to the last.
    pub rates: [f64; 2],
    /// How many.
    pub steps: usize,
}

/// Fewest and most steps of a test.
const STEPS: std::ops::RangeInclusive<usize> = 10..=10_000;

impl Range {
    /// # Errors
    /// A usage error that names what is out of its limits.
    pub fn check(&self) -> Result<()> {
        let Self { rates: [low, high], steps } = *self;
        if !STEPS.contains(&steps) {
            let (least, most) = (STEPS.start(), STEPS.end());
            return Err(Error::usage(format!(
                "{steps} steps are no range test, which takes {least} to {most}: give another --steps"
            )));
        }
        let is_rate = |rate: f64| (rate as f32).is_normal() && rate > 0.0;
        if !(is_rate(low) && is_rate(high) && low < high) {
            return Err(Error::usage(format!(
                "a range test goes from a small rate to a larger one, and --min-lr is {low}, --max-lr {high}: give two numbers \
                 above 0 in this order"
            )));
        }
        Ok(())
    }
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Of each rate, in order.
    pub points: Vec<Point>,
    /// Whether the loss grew too large, or was no number, before the last rate.
    pub diverged: bool,
}

/// Trains a new model of `config`, as it is before its growths, through `range`.
///
/// # Errors
/// A model that does not fit, data that cannot be read, a device error.
pub fn measure(device: &Device, config: &RunConfig, data: &Dataset, range: Range) -> Result<Measured> {
    let mut model = config.model.clone();
    model.freeze_tau();
    // Averages would be of other rates.
    let train = &TrainConfig { ema_decay: 0.0, ..config.train.clone() };
    let cohorts = vec![cohorts::first(&model)];
    let mut trainer = Trainer::new(&device.engine, &device.kernels, &model, train, cohorts, 1)?;
    trainer.load_parameters(&init::initial(&model, train.seed))?;
    let of_step = trainer.shape().grad_accum as u64;
    let batches = |step: u64| -> Result<Vec<Batch>> {
        let batch = |index| train_batch(&data.train, train.seed, index, train.batch_size, model.seq_length);
        (step * of_step..(step + 1) * of_step).map(batch).collect()
    };
    let (mut watch, mut points, mut diverged) = (Watch::new(), Vec::with_capacity(range.steps), false);
    let mut parts = Parts::new("raising the learning rate, steps", range.steps);
    // Each step says what the one before it did.
    let mut before = None;
    for step in 0..=range.steps {
        parts.done(step);
        let lr = rate(range.rates, step.min(range.steps - 1), range.steps);
        let stats = trainer.step(&batches(step as u64)?, step as u64, lr)?;
        let loss = f64::from(stats.loss);
        match loss_scale::after(trainer.loss_scale, trainer.is_mixed(), stats.finite) {
            Some(next) => trainer.loss_scale = next,
            None => diverged = true,
        }
        // A step that only overflowed f16 changed nothing, and its loss may be no number.
        if let Some(lr) = before.filter(|_| !diverged && loss.is_finite()) {
            diverged = watch.ends_with(loss);
            points.push(Point { lr, loss });
        }
        if diverged {
            break;
        }
        before = Some(lr);
    }
    drop(parts);
    device.engine.check_heartbeat()?;
    Ok(Measured { points, diverged })
}
