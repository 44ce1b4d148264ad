//! When a run grows, and what it keeps of the model before.
//!
//! Growths are done in the order of the configuration: at their step, or right after the evaluation that shows the
//! plateau they wait for, before the next step. First the checkpoint is saved that the run has at that step anyway, as
//! it was before the evaluation: going on from there with the growth is going on with the run, without it undoes it.

use super::growth::{self, Probe};
use super::state::Snapshot;
use super::trainer::probe_rows;
use super::{Run, is_due, plateau};
use crate::checkpoint::{LossStatistics, Plateau};
use crate::config::GrowthConfig;
use crate::error::Result;
use crate::report::number;
use serde_json::json;

impl<'a> Run<'a> {
    /// Grows where the next growth is one for this step, or for one before it at which others were still to come.
    pub(super) fn grow_if_due(&mut self) -> Result<()> {
        let at_step = |growth: &&GrowthConfig| growth.plateau().is_none() && growth.at_step as u64 <= self.step;
        let Some(growth) = next(&self.config.growth, self.growths_left).filter(at_step) else { return Ok(()) };
        self.catch_up()?;
        let before = self.snapshot()?;
        self.grow(growth, before)
    }

    /// Evaluates where that is due, and grows where the next growth waits for a plateau and this is one.
    pub(super) fn evaluate_if_due(&mut self) -> Result<()> {
        if !is_due(self.step, self.config.train.eval_interval) {
            return Ok(());
        }
        self.catch_up()?;
        let before = self.snapshot()?;
        let val_loss = self.evaluate()?;
        let Some(growth) = next(&self.config.growth, self.growths_left) else { return Ok(()) };
        let Some(rule) = growth.plateau() else { return Ok(()) };
        let shown = plateau::follow(&mut self.plateau, val_loss, rule);
        if shown && growth.at_step as u64 <= self.step { self.grow(growth, before) } else { Ok(()) }
    }

    /// Does the next growth, on a device that has no step pending. `before` is the run as it goes on without it.
    fn grow(&mut self, growth: &GrowthConfig, before: Snapshot) -> Result<()> {
        // Then it goes back to its last checkpoint before it gets here again.
        if self.gone_bad.is_some() {
            return Ok(());
        }
        let checkpoint = self.checkpoint(before);
        let Some(checkpoint) = self.unless_gone_bad(checkpoint)? else { return Ok(()) };
        let file = self.store.save_before_growth(&checkpoint)?;
        drop(checkpoint);
        let Some(trainer) = self.trainer.take() else { return Ok(()) };
        let tokens = self.data.val.window(0, probe_rows(&trainer.model))?;
        let probe = Probe { tokens: &tokens, batches: &self.validation };
        let (trainer, mut record) =
            growth::grow_in_run(self.engine, trainer, growth, self.step, &probe, self.prompt.len())?;
        record.before = Some(file);
        self.progress.set_memory(number::bytes(trainer.bytes().total()));
        self.progress.say(&growth::describe(&record));
        self.metrics.write(&json!({"kind": "growth", "step": self.step, "record": record}))?;
        self.lineage.push(record);
        self.growths_left -= 1;
        // What was usual of the smaller model says little of this one.
        self.losses = LossStatistics::default();
        self.plateau = Plateau::default();
        self.trainer = Some(trainer);
        Ok(())
    }

    /// Says at the end of a run which growth it did not come to.
    pub(super) fn tell_of_growths_left(&self) {
        let Some(growth) = next(&self.config.growth, self.growths_left) else { return };
        let why = match growth.plateau() {
            Some(rule) => format!(
                "there was no plateau of {} evaluations (min_delta {}) from step {} on",
                rule.patience, rule.min_delta, growth.at_step
            ),
            None => "the one before it came too late".to_owned(),
        };
        let (number, all) = (self.config.growth.len() - self.growths_left + 1, self.config.growth.len());
        self.progress.say(&format!("growth {number} of {all} was not done: {why}"));
    }
}

/// The first of the last `left` growths.
pub(super) fn next(growths: &[GrowthConfig], left: usize) -> Option<&GrowthConfig> {
    growths.get(growths.len().checked_sub(left)?)
}
