//! The learning rate of each step, a pure function of the configuration.
//!
//! Warm-up and cosine are those of the official training code, to the last operation. Multiples for the
//! tokens a growth added are the optimiser's matter.

use std::f64::consts::PI;

use crate::config::{LrSchedule, TrainConfig};

/// The rate of update number `step`, counted from 0; between two of them where the time of a run has it so.
///
/// With `warm = warmup_fraction * max_steps`, which is not rounded, steps up to `warm` run at
/// `lr * step / warm`: update 0 runs at rate 0 and changes no weight, though it does fill the moments.
/// Past `max_steps` the rate stays at its last value.
pub fn learning_rate(train: &TrainConfig, step: f64) -> f64 {
    let total = train.max_steps as f64;
    let warm = train.warmup_fraction * total;
    if warm > 0.0 && step <= warm {
        return train.lr * step / warm;
    }
    match train.lr_schedule {
        LrSchedule::Constant => train.lr,
        LrSchedule::Cosine | LrSchedule::Wsd if step >= total => train.min_lr,
        LrSchedule::Cosine => {
            let cosine = 0.5 * (1.0 + (PI * (step - warm) / (total - warm)).cos());
            train.min_lr.max(train.min_lr + (train.lr - train.min_lr) * cosine)
        }
        LrSchedule::Wsd => {
            let decay = train.decay_fraction * total;
            // Without a decay this is infinite, and clamped to the stable rate.
            let left = ((total - step) / decay).min(1.0);
            train.min_lr + (train.lr - train.min_lr) * left
        }
    }
}

/// Whether what is done every `interval` steps (0: never) is done after `step` of them.
pub(crate) fn is_due(step: u64, interval: usize) -> bool {
    interval > 0 && step.is_multiple_of(interval as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lr_schedule: LrSchedule) -> TrainConfig {
        TrainConfig {
            lr_schedule,
            max_steps: 30,
            lr: 3e-3,
            min_lr: 3e-4,
            warmup_fraction: 0.1,
            decay_fraction: 0.2,
            ..TrainConfig::default()
        }
    }

    #[track_caller]
    fn close(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-17, "{got} is not {want}");
    }

    #[test]
    fn cosine_equals_the_official_schedule() {
        let train = run(LrSchedule::Cosine);
        // Printed by the official formula in Python.
        let official = [
            (0, 0.0),
            (1, 0.001),
            (3, 0.003_000_000_000_000_000_5),
            (4, 0.002_990_871_782_951_623_2),
            (12, 0.002_325),
            (21, 0.000_975_000_000_000_000_4),
            (29, 0.000_309_128_217_048_376_87),
        ];
        for (step, want) in official {
            close(learning_rate(&train, f64::from(step)), want);
        }
        close(learning_rate(&train, 30.0), 3e-4);
        close(learning_rate(&train, 45.0), 3e-4);
    }

    #[test]
    fn warm_up_is_not_rounded() {
        let train = TrainConfig { warmup_fraction: 0.05, ..run(LrSchedule::Constant) };
        // warm = 1.5 steps: step 1 is two thirds of the way up, step 2 is past it.
        close(learning_rate(&train, 1.0), 0.002);
        close(learning_rate(&train, 2.0), 0.003);
        close(learning_rate(&train, 1000.0), 0.003);
    }

    #[test]
    fn without_warm_up_the_first_step_runs_at_the_peak() {
        let train = TrainConfig { warmup_fraction: 0.0, ..run(LrSchedule::Cosine) };
        close(learning_rate(&train, 0.0), 0.003);
    }

    #[test]
    fn all_warm_up_never_divides_by_zero() {
        let train = TrainConfig { warmup_fraction: 1.0, ..run(LrSchedule::Cosine) };
        close(learning_rate(&train, 15.0), 0.0015);
        close(learning_rate(&train, 30.0), 0.003);
        close(learning_rate(&train, 31.0), 3e-4);
    }

    #[test]
    fn wsd_is_stable_and_then_a_straight_line() {
        let train = run(LrSchedule::Wsd);
        // The last 20 % of 30 steps: from step 24, six steps down.
        for (step, want) in [(2, 0.002), (3, 0.003), (24, 0.003), (27, 0.001_65), (30, 3e-4), (99, 3e-4)] {
            close(learning_rate(&train, f64::from(step)), want);
        }
        let flat = TrainConfig { decay_fraction: 0.0, ..train };
        close(learning_rate(&flat, 29.0), 0.003);
    }
}
