//! Loss spikes: a loss far above what the losses before it lead to expect.
//!
//! Mean and variance of the training loss are followed with weights that fade over 100 steps. They are in the
//! checkpoint, so that a resumed run finds the same spikes.

use crate::checkpoint::LossStatistics;

/// Steps over which old losses fade.
const WINDOW: u64 = 100;
/// Losses before the first verdict: a few say little of how much they vary.
const FEWEST: u64 = 50;

/// A loss that is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spike {
    /// The mean before it, nats per token.
    pub mean: f64,
    /// Standard deviations between it and that mean.
    pub zscore: f64,
}

/// Whether `loss` lies more than `limit` standard deviations above the mean of those before it (0: never). A loss that is
/// no spike is taken into `losses`.
pub fn follow(losses: &mut LossStatistics, loss: f64, limit: f64) -> Option<Spike> {
    let LossStatistics { count, mean, variance } = *losses;
    let zscore = (loss - mean) / variance.sqrt();
    if limit > 0.0 && count >= FEWEST && zscore > limit {
        return Some(Spike { mean, zscore });
    }
    take_in(losses, loss);
    None
}

/// Makes `loss` one of those that are usual.
pub fn take_in(losses: &mut LossStatistics, loss: f64) {
    let LossStatistics { count, mean, variance } = *losses;
    let weight = 1.0 / (count + 1).min(WINDOW) as f64;
    let away = loss - mean;
    losses.count = count + 1;
    losses.mean = mean + weight * away;
    losses.variance = (1.0 - weight) * (variance + weight * away * away);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    #[test]
    fn mean_and_variance_are_those_of_the_first_losses() {
        let mut losses = LossStatistics::default();
        for loss in [2.0, 4.0, 9.0] {
            follow(&mut losses, loss, 0.0);
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
            assert_eq!(follow(&mut losses, loss, 6.0), None, "step {step}");
        }
        let before = losses;
        let spike = follow(&mut losses, 2.0, 6.0).unwrap();
        assert!(spike.zscore > 8.0 && (spike.mean - 1.0).abs() < 0.1, "{spike:?}");
        assert_eq!(losses, before, "what is a spike is no part of what is usual");
        assert_eq!(follow(&mut losses, 2.0, 0.0), None, "0 is off");
    }
}
