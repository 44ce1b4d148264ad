//! Where a run stands: all that it counts, apart from its tensors. The same value is the run in progress, the copy that
//! a growth goes back to, and what a checkpoint's [`Meta`](crate::train::Meta) is made from and gives again.

use super::position::Position;
use super::spike::LossStatistics;
use crate::config::GrowthConfig;
use crate::model::graphs::BatchShape;
use crate::train::growth::plateau::Plateau;
use crate::train::growth::{GrowthRecord, Import};

/// What a run has done, and what it goes by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Optimizer steps done.
    pub step: u64,
    /// Seconds trained, of a run whose time is limited.
    pub seconds: f64,
    /// How far in its data it is, before the next step.
    pub position: Position,
    /// Mean and variance of the training loss.
    pub losses: LossStatistics,
    /// How far the validation loss is on the plateau that the next growth waits for.
    pub plateau: Plateau,
    /// Growths of the configuration that are still to come: its last ones.
    pub growths_left: usize,
    /// Growths done, oldest first.
    pub lineage: Vec<GrowthRecord>,
    /// Where the model is from, if it was imported.
    pub imported: Option<Import>,
    /// The lowest validation loss so far, in nats per token.
    pub best_val_loss: Option<f64>,
    /// The step it was measured after; `None` in the checkpoints of versions that did not write it.
    pub best_step: Option<u64>,
}

impl Standing {
    /// Growths done and still to come.
    pub fn growths(&self) -> usize {
        self.lineage.len().saturating_add(self.growths_left)
    }

    /// The next growth of a configuration with these.
    pub(crate) fn next_growth<'c>(&self, growths: &'c [GrowthConfig]) -> Option<&'c GrowthConfig> {
        growths.get(growths.len().checked_sub(self.growths_left)?)
    }

    /// A step of this shape was submitted.
    pub(crate) fn advance(&mut self, shape: &BatchShape) {
        self.position = self.position.after(1, shape);
        self.step += 1;
    }

    /// How far in its data the run is before a step: the next one, or an earlier one of the same shape.
    pub(crate) fn position_before(&self, step: u64, shape: &BatchShape) -> Position {
        self.position.back(self.step.saturating_sub(step), shape)
    }

    /// A validation loss was measured. Whether it is the lowest so far.
    pub(crate) fn validated(&mut self, loss: f64) -> bool {
        let lowest = loss.is_finite() && self.best_val_loss.is_none_or(|best| !best.is_finite() || loss < best);
        if lowest {
            (self.best_val_loss, self.best_step) = (Some(loss), Some(self.step));
        }
        lowest
    }

    /// Evaluations since the lowest loss or the last growth, with so many steps between them.
    pub(crate) fn evaluations_in_vain(&self, interval: usize) -> u64 {
        let grown = self.lineage.last().map(|growth| growth.at_step);
        let since = self.best_step.max(grown).unwrap_or(0);
        self.step.saturating_sub(since).checked_div(interval as u64).unwrap_or(0)
    }

    /// The next growth was done. The losses of the smaller model say little of this one's.
    pub(crate) fn grown(&mut self, record: GrowthRecord) {
        self.lineage.push(record);
        self.growths_left = self.growths_left.saturating_sub(1);
        (self.losses, self.plateau) = (LossStatistics::default(), Plateau::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_loss_is_the_first_of_equals_and_a_number() {
        let mut standing = Standing { step: 3, ..Standing::default() };
        let lowest = [f64::NAN, 2.0, 2.0, f64::INFINITY, 1.0].map(|loss| {
            standing.step += 1;
            standing.validated(loss)
        });
        assert_eq!(lowest, [false, true, false, false, true]);
        assert_eq!((standing.best_val_loss, standing.best_step), (Some(1.0), Some(8)));
    }

    #[test]
    fn evaluations_in_vain_are_those_since_the_lowest_loss() {
        let mut standing = Standing { step: 20, ..Standing::default() };
        assert_eq!((standing.evaluations_in_vain(5), standing.evaluations_in_vain(0)), (4, 0));
        standing.validated(1.0);
        standing.step = 29;
        assert_eq!(standing.evaluations_in_vain(5), 1);
    }

    #[test]
    fn the_growths_left_are_the_last_ones() {
        let growths = [1, 2, 3].map(|at_step| GrowthConfig { at_step, ..GrowthConfig::default() });
        let next = |growths_left| {
            let standing = Standing { growths_left, ..Standing::default() };
            standing.next_growth(&growths).map(|growth| growth.at_step)
        };
        assert_eq!([0, 1, 3, 4].map(next), [None, Some(3), Some(1), None]);
    }
}
