//! When a run grows, and what it keeps of the model before.
//!
//! Growths are done in the order of the configuration: at their step, or right after the evaluation that shows the
//! plateau they wait for, before the next step. First the checkpoint is saved that the run has at that step anyway, as
//! it was before the evaluation: going on from there with the growth is going on with the run, without it undoes it.
//!
//! A growth takes the run and gives it back, because the old model is freed before the new one is allocated: where that
//! fails there is no run any more, only its checkpoints.

use super::schedule::is_due;
use super::standing::Standing;
use super::{Run, ranks};
use crate::config::GrowthConfig;
use crate::console::{note, slowly, warn};
use crate::error::Result;
use crate::train::growth::on_device::{Comparison, grow_trainer};
use crate::train::trainer::compared_rows;
use serde_json::json;

impl Run<'_> {
    /// Grows where the next growth is one for this step, or for one before it at which others were still to come.
    pub(super) fn grow_if_due(mut self) -> Result<Self> {
        let at_step =
            |growth: &&GrowthConfig| growth.plateau().is_none() && growth.at_step as u64 <= self.standing.step;
        let Some(growth) = self.standing.next_growth(&self.config.growth).filter(at_step) else { return Ok(self) };
        self.catch_up()?;
        let before = self.standing.clone();
        self.grow(growth, before)
    }

    /// Evaluates where that is due, and grows where the next growth waits for a plateau and this is one.
    pub(super) fn evaluate_if_due(mut self) -> Result<Self> {
        if !is_due(self.standing.step, self.config.train.eval_interval) || !self.has_room()? {
            return Ok(self);
        }
        self.catch_up()?;
        let before = self.standing.clone();
        let val_loss = self.evaluate()?;
        let Some(growth) = self.standing.next_growth(&self.config.growth) else { return Ok(self) };
        let Some(rule) = growth.plateau() else { return Ok(self) };
        let reached = self.standing.plateau.reached(val_loss, rule);
        if reached && growth.at_step as u64 <= self.standing.step { self.grow(growth, before) } else { Ok(self) }
    }

    /// Does the next growth, on a device that has no step pending. `before` is the run as it goes on without it.
    fn grow(mut self, growth: &GrowthConfig, before: Standing) -> Result<Self> {
        // Then it goes back to its last checkpoint before it gets here again.
        if self.health.is_bad() {
            return Ok(self);
        }
        let checkpoint = self.checkpoint(before);
        let Some(checkpoint) = self.unless_not_finite(checkpoint)? else { return Ok(self) };
        let saved = checkpoint.as_ref().map(|checkpoint| self.store.save_before_growth(checkpoint));
        let file = saved.transpose()?;
        drop(checkpoint);
        let tokens = self.data.val.window(0, compared_rows(&self.trainer.model))?;
        let compared = Comparison { tokens: &tokens, batches: &self.eval_sets.validation };
        let (step, prompt) = (self.standing.step, self.eval_sets.prompt.len());
        let (trainer, mut record) = slowly("growing", || grow_trainer(self.trainer, growth, step, &compared, prompt))?;
        self.trainer = trainer;
        ranks::agree_on_model(self.world(), &self.trainer)?;
        record.file_before = file;
        self.display.set_model(&self.trainer);
        note(record.describe());
        self.metrics.write(&json!({"kind": "growth", "step": step, "record": record}))?;
        self.standing.grown(record);
        self.metrics.show(&self.standing);
        Ok(self)
    }

    /// Says at the end of a run which growth it did not come to.
    pub(super) fn tell_of_growths_left(&self) {
        let Some(growth) = self.standing.next_growth(&self.config.growth) else { return };
        let why = match growth.plateau() {
            Some(rule) => format!(
                "there was no plateau of {} evaluations (min_delta {}) from step {} on",
                rule.patience, rule.min_delta, growth.at_step
            ),
            None if growth.at_step as u64 >= self.standing.step => {
                format!("the run ended at step {}, before its at_step {}", self.standing.step, growth.at_step)
            }
            None => "the one before it came too late".to_owned(),
        };
        let all = self.config.growth.len();
        let number = all - self.standing.growths_left + 1;
        warn(format_args!("growth {number} of {all} was not done: {why}"));
    }
}
