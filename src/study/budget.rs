//! What training costs: tokens and floating-point operations as a function of the step, through all growths.
//!
//! How the operations of a step are counted is in [`flops_per_step`]'s file; evaluations and growth itself are not.

use crate::config::RunConfig;
use crate::error::Result;
use crate::report::number;
use crate::train::cohorts::Stage;
pub use crate::train::flops::flops_per_step;

/// What two runs may have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Training tokens.
    Tokens,
    /// FLOPs of the whole training.
    Flops,
    /// FLOPs after the last growth; of the whole training where nothing grows.
    MarginalFlops,
}

impl Axis {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Tokens, Self::Flops, Self::MarginalFlops];

    /// Its name in `results.jsonl`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Flops => "flops",
            Self::MarginalFlops => "marginal_flops",
        }
    }

    /// A position on it with its unit.
    pub(crate) fn amount(self, value: f64) -> String {
        match self {
            Self::Tokens => format!("{} tokens", number::grouped(value as u64)),
            Self::Flops | Self::MarginalFlops => number::flops(value),
        }
    }
}

/// What each step of a run costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// Tokens of an update.
    pub tokens_per_step: u64,
    /// Steps done before each growth, ascending.
    pub growth_steps: Vec<u64>,
    /// FLOPs of a step at the start and after each growth.
    pub flops_per_step: Vec<u64>,
}

impl Timeline {
    /// The costs of a run with these `stages`.
    ///
    /// # Errors
    /// As [`flops_per_step`].
    pub fn new(config: &RunConfig, stages: &[Stage], growth_steps: Vec<u64>) -> Result<Self> {
        let train = &config.train;
        let tokens = (train.grad_accum(&config.model)? * train.batch_size * config.model.seq_length) as u64;
        let flops = stages.iter().map(|stage| flops_per_step(stage, train)).collect::<Result<_>>()?;
        Ok(Self { tokens_per_step: tokens, growth_steps, flops_per_step: flops })
    }

    /// Training tokens of the first `step` steps.
    pub fn tokens(&self, step: u64) -> f64 {
        (self.tokens_per_step * step) as f64
    }

    /// FLOPs of the first `step` steps.
    pub fn flops(&self, step: u64) -> f64 {
        let starts = std::iter::once(0).chain(self.growth_steps.iter().copied());
        let ends = self.growth_steps.iter().copied().chain([u64::MAX]);
        let stages = starts.zip(ends).zip(&self.flops_per_step);
        stages.map(|((start, end), flops)| step.min(end).saturating_sub(start) as f64 * *flops as f64).sum()
    }

    /// Step of the last growth; 0 where nothing grows.
    pub(crate) fn last_growth(&self) -> u64 {
        self.growth_steps.last().copied().unwrap_or(0)
    }

    /// Position of a step on an axis; `None` before the last growth on that of what comes after it.
    pub fn at(&self, axis: Axis, step: u64) -> Option<f64> {
        match axis {
            Axis::Tokens => Some(self.tokens(step)),
            Axis::Flops => Some(self.flops(step)),
            Axis::MarginalFlops => {
                let since = step.checked_sub(self.last_growth())?;
                Some(since as f64 * self.last_flops())
            }
        }
    }

    /// What one more step at the end adds on an axis.
    pub fn last_step(&self, axis: Axis) -> f64 {
        match axis {
            Axis::Tokens => self.tokens_per_step as f64,
            Axis::Flops | Axis::MarginalFlops => self.last_flops(),
        }
    }

    fn last_flops(&self) -> f64 {
        self.flops_per_step.last().copied().unwrap_or(0) as f64
    }
}

/// The largest number in `1..=most` for which a rising `cost` is at most `budget`; 0 where there is none.
pub(crate) fn most_steps(budget: f64, most: u64, cost: impl Fn(u64) -> f64) -> u64 {
    let (mut fits, mut over) = (0, most + 1);
    while over - fits > 1 {
        let middle = fits + (over - fits) / 2;
        if cost(middle) <= budget { fits = middle } else { over = middle }
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_costs_what_its_stage_costs() {
        let line = Timeline { tokens_per_step: 10, growth_steps: vec![3, 5], flops_per_step: vec![1, 10, 100] };
        let flops: Vec<f64> = (0..=7).map(|step| line.flops(step)).collect();
        assert_eq!(flops, [0.0, 1.0, 2.0, 3.0, 13.0, 23.0, 123.0, 223.0]);
        assert_eq!((line.at(Axis::Tokens, 7), line.at(Axis::MarginalFlops, 7)), (Some(70.0), Some(200.0)));
        assert_eq!((line.at(Axis::MarginalFlops, 4), line.at(Axis::MarginalFlops, 5)), (None, Some(0.0)));
        let whole = Timeline { growth_steps: Vec::new(), flops_per_step: vec![7], ..line };
        assert_eq!((whole.at(Axis::MarginalFlops, 6), whole.flops(6)), (Some(42.0), 42.0));
    }

    #[test]
    fn a_budget_is_met_or_just_missed() {
        let cost = |steps: u64| 3.0 * steps as f64;
        for (budget, steps) in [(2.9, 0), (3.0, 1), (8.9, 2), (9.0, 3), (1e9, 100)] {
            assert_eq!(most_steps(budget, 100, cost), steps, "{budget}");
        }
    }
}
