//! Loss spikes: a loss far above what the losses before it lead to expect.
//!
//! Mean and variance of the training loss are followed with weights that fade over 100 steps. They are in the
//! checkpoint, so that a resumed run finds the same spikes.

use crate::checkpoint::number;
use serde::{Deserialize, Serialize};

/// Mean and variance of the training loss, with weights that fade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LossStatistics {
    /// Losses that were taken in.
    pub count: u64,
    /// In nats per token.
    #[serde(with = "number")]
    pub mean: f64,
    /// Its square.
    #[serde(with = "number")]
    pub variance: f64,
}

/// Steps over which old losses fade.
const WINDOW: u64 = 100;
/// Losses before the first verdict: a few say little of how much they vary.
const FEWEST: u64 = 50;

/// A loss that is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spike {
    /// The mean before it, nats per token.
    pub mean: f64,
    /// Standard deviations between it and that mean.
    pub zscore: f64,
}

impl LossStatistics {
    /// Whether `loss` lies more than `limit` standard deviations above the mean of those before it (0: never). A loss that
    /// is no spike is added to them.
    pub(crate) fn add_unless_spike(&mut self, loss: f64, limit: f64) -> Option<Spike> {
        let Self { count, mean, variance } = *self;
        let zscore = (loss - mean) / variance.sqrt();
        if limit > 0.0 && count >= FEWEST && zscore > limit {
            return Some(Spike { mean, zscore });
        }
        self.add(loss);
        None
    }

    /// Moves mean and variance by a loss.
    pub fn add(&mut self, loss: f64) {
        let Self { count, mean, variance } = *self;
        let weight = 1.0 / (count + 1).min(WINDOW) as f64;
        let away = loss - mean;
        self.count = count + 1;
        self.mean = mean + weight * away;
        self.variance = (1.0 - weight) * (variance + weight * away * away);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    #[test]
    fn mean_and_variance_are_those_of_the_first_losses() {
        let mut losses = LossStatistics::default();
        for loss in [2.0, 4.0, 9.0] {
            losses.add_unless_spike(loss, 0.0);
        }
        // Numpy: mean 5, variance 26 / 3.
        assert!((losses.mean - 5.0).abs() < 1e-12 && (losses.variance - 26.0 / 3.0).abs() < 1e-12, "{losses:?}");
    }

    #[test]
    fn a_jump_is_found_and_noise_and_a_falling_loss_are_not() {
        let mut rng = Rng::new(1, Stream::Test, 0);
        let mut losses = LossStatistics::default();
        for step in 0..5000 {
            let loss = 4.0 * (-f64::from(step) / 1000.0).exp() + 1.0 + 0.1 * rng.normal();
            assert_eq!(losses.add_unless_spike(loss, 6.0), None, "step {step}");
        }
        let before = losses;
        let spike = losses.add_unless_spike(2.0, 6.0).unwrap();
        assert!(spike.zscore > 8.0 && (spike.mean - 1.0).abs() < 0.1, "{spike:?}");
        assert_eq!(losses, before, "what is a spike is no part of what is usual");
        assert_eq!(losses.add_unless_spike(2.0, 0.0), None, "0 is off");
    }
}
