//! Plateaus: a validation loss that no longer falls.
//!
//! As Keras's and PyTorch's `ReduceLROnPlateau` with an absolute threshold: an improvement is a loss more than
//! `min_delta` below the lowest one, which it then is. What is counted is in the checkpoint, as it was before the
//! evaluation of that step, so that a resumed run, which evaluates again, counts no evaluation twice.

use crate::checkpoint::number;
use crate::config::PlateauRule;
use serde::{Deserialize, Serialize};

/// What a growth on a plateau of the validation loss goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    /// The loss that an improvement is measured from, in nats per token: the lowest since the last growth. `None` before
    /// the first evaluation.
    #[serde(with = "number::optional", default)]
    pub best: Option<f64>,
    /// Evaluations in a row without an improvement.
    pub evaluations: u64,
}

impl Plateau {
    /// Whether the next validation loss since the last growth shows a plateau. A loss that is not finite is no improvement.
    pub(crate) fn reached(&mut self, loss: f64, rule: PlateauRule) -> bool {
        let improved = self.best.is_none_or(|best| loss < best - rule.min_delta);
        if improved {
            // Anything is an improvement on a first loss that is not finite.
            let best = if loss.is_finite() { loss } else { f64::INFINITY };
            *self = Self { best: Some(best), evaluations: 0 };
        } else {
            self.evaluations = self.evaluations.saturating_add(1);
        }
        self.evaluations >= rule.patience as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After which of `losses`, counted from 0, there is a plateau of so many evaluations.
    fn plateaus(losses: &[f64], patience: usize, min_delta: f64) -> Vec<usize> {
        let mut plateau = Plateau::default();
        let mut found = Vec::new();
        for (at, &loss) in losses.iter().enumerate() {
            if plateau.reached(loss, PlateauRule { patience, min_delta }) {
                found.push(at);
            }
        }
        found
    }

    #[test]
    fn a_falling_loss_is_none_and_a_flat_one_is_after_as_many_evaluations_as_asked_for() {
        let falling: Vec<f64> = (0..50).map(|i| 4.0 - 0.02 * f64::from(i)).collect();
        assert_eq!(plateaus(&falling, 1, 0.01), [0; 0]);
        assert_eq!(plateaus(&[4.0, 3.0, 3.0, 3.0, 3.0], 3, 0.01), [4]);
        assert_eq!(plateaus(&[4.0, 3.0, 3.1, 3.2, 3.3], 1, 0.0), [2, 3, 4], "it lasts until something is done");
    }

    #[test]
    fn an_improvement_starts_the_count_again_and_a_smaller_step_does_not() {
        // 2.99 is not more than 0.01 below 3.0; many small steps are measured from the last improvement together.
        assert_eq!(plateaus(&[3.0, 2.995, 2.992, 2.98, 2.979, 2.978], 2, 0.01), [2, 5]);
        assert_eq!(plateaus(&[3.0, 3.0, 2.5, 2.5, 2.0, 2.0], 2, 0.01), [0; 0]);
        assert_eq!(plateaus(&[3.0, 3.0, 2.0, 2.5, 2.4], 2, 0.01), [4], "below the last loss is not below the lowest");
        assert_eq!(plateaus(&[3.0, 2.75], 1, 0.25), [1], "exactly as much is not more");
    }

    #[test]
    fn a_loss_that_is_not_finite_is_no_improvement() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        assert_eq!(plateaus(&[nan, 3.0, 2.0], 1, 0.01), [0; 0]);
        assert_eq!(plateaus(&[inf, inf, 3.0], 1, 0.01), [1]);
        assert_eq!(plateaus(&[3.0, nan, nan, 2.0], 2, 0.01), [2]);
        // What a forged file may say is no reason to panic.
        let mut forged = Plateau { best: Some(nan), evaluations: u64::MAX };
        assert!(forged.reached(1.0, PlateauRule { patience: 1, min_delta: 0.0 }));
    }
}
