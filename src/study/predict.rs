//! How long a study will take on this adapter: a few steps of each of its models are timed.
//!
//! An estimate for people. Compilation, checkpoints and growth are not in it.

use super::plan::PlannedRun;
use crate::config::RunConfig;
use crate::data::{Dataset, train_batch, validation_batches};
use crate::error::Result;
use crate::model::init;
use crate::runtime::device::Device;
use crate::train::cohorts::{self, Stage};
use crate::train::trainer::Trainer;
use std::time::{Duration, Instant};

/// Longest timing of one model, after its first step.
const BUDGET: Duration = Duration::from_millis(400);

/// Seconds of a step and of an evaluation.
#[derive(Debug, Clone, Copy)]
struct Times {
    step: f64,
    evaluation: f64,
}

/// Predicted seconds of all `runs` together.
///
/// # Errors
/// Device errors, also where a model does not fit.
pub(crate) fn seconds(device: &Device, runs: &[PlannedRun], data: &Dataset) -> Result<f64> {
    let mut known: Vec<(Stage, Times)> = Vec::new();
    let mut total = 0.0;
    for PlannedRun { config, .. } in runs {
        let ends = config.growth.iter().map(|growth| growth.at_step).chain([config.train.max_steps]);
        let starts = std::iter::once(0).chain(config.growth.iter().map(|growth| growth.at_step));
        let stages = cohorts::stages(config, None)?;
        for ((start, end), mut stage) in starts.zip(ends).zip(stages) {
            // Scales change no time.
            (stage.model.tau_qkv, stage.model.tau_proj, stage.model.tau_ffn) = (None, None, None);
            let times = match known.iter().find(|(other, _)| *other == stage) {
                Some((_, times)) => *times,
                None => {
                    let times = measure(device, &stage, config, data)?;
                    known.push((stage, times));
                    times
                }
            };
            let steps = (end - start) as f64;
            let interval = config.train.eval_interval;
            let evaluations = if interval == 0 { 0.0 } else { steps / interval as f64 };
            total += steps * times.step + (evaluations + 1.0) * times.evaluation;
        }
    }
    Ok(total)
}

fn measure(device: &Device, stage: &Stage, config: &RunConfig, data: &Dataset) -> Result<Times> {
    let train = &config.train;
    let mut model = stage.model.clone();
    model.freeze_tau();
    let trainer = Trainer::new(&device.engine, &device.kernels, &model, train, stage.cohorts.clone(), 1)?;
    trainer.load_parameters(&init::initial(&model, train.seed))?;
    let batches = (0..trainer.shape().grad_accum as u64)
        .map(|index| train_batch(&data.train, train.seed, index, train.batch_size, model.seq_length))
        .collect::<Result<Vec<_>>>()?;
    let validation = validation_batches(&data.val, train.batch_size, train.batch_size, model.seq_length)?;
    // The first of each compiles.
    trainer.step(&batches, 0, train.lr)?;
    trainer.evaluate(&validation)?;
    let started = Instant::now();
    let mut steps = 0;
    while steps < 2 || started.elapsed() < BUDGET && steps < 100 {
        steps += 1;
        trainer.step(&batches, steps, train.lr)?;
    }
    let step = started.elapsed().as_secs_f64() / steps as f64;
    let started = Instant::now();
    trainer.evaluate(&validation)?;
    let batches = train.validation_rows(&model)?.div_ceil(train.batch_size);
    Ok(Times { step, evaluation: started.elapsed().as_secs_f64() * batches as f64 })
}
