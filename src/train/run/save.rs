//! What a run saves on the way and at its end.

use super::Run;
use super::health::Bad;
use super::schedule::is_due;
use super::standing::Standing;
use crate::checkpoint::{Keep, read_meta};
use crate::console::{detail, warn};
use crate::error::{Error, Result};
use crate::train::disk::capture::checkpoint;
use crate::train::disk::meta::{Checkpoint, Meta};
use crate::train::disk::metrics::{self, BothLosses};
use crate::train::{Best, Summary};
use std::time::Instant;

impl Run<'_> {
    /// Saves where that is due, or where the run is interrupted. After the last step it is evaluated first.
    pub(super) fn save_if_due(&mut self, interrupted: bool) -> Result<()> {
        let (step, last) = (self.standing.step, self.config.train.max_steps as u64);
        let due = is_due(step, self.config.train.checkpoint_interval);
        if interrupted || due || step == last {
            self.catch_up()?;
        }
        // Not amid bad steps, which may be about to send the run back: it would go back to here.
        let wanted = interrupted || due && !self.health.is_in_doubt();
        if self.health.is_bad() || step == last || !wanted {
            return Ok(());
        }
        let saved = self.save();
        self.unless_not_finite(saved).map(drop)
    }

    pub(super) fn save(&mut self) -> Result<()> {
        self.catch_up()?;
        let began = Instant::now();
        let checkpoint = self.checkpoint(self.standing.clone())?;
        let train = &self.config.train;
        let keep = Keep { last: train.keep_last, every: train.keep_every as u64 };
        self.saved = self.store.save(&checkpoint, keep)?;
        let took = began.elapsed();
        detail(format_args!("saved {} in {:.2} s", self.saved.display(), took.as_secs_f64()));
        self.display.aside(took);
        Ok(())
    }

    /// Saves the run as it was before the evaluation that found the lowest loss so far, with that loss: whoever goes on from
    /// there evaluates once more. A model that has not trained is not worth a file. No run ends for want of this one.
    pub(super) fn save_best(&mut self) -> Result<()> {
        let Some(mut before) = self.unsaved_best.take() else { return Ok(()) };
        if !self.config.train.keep_best || before.step == 0 || self.health.is_bad() {
            return Ok(());
        }
        (before.best_val_loss, before.best_step) = (self.standing.best_val_loss, self.standing.best_step);
        let checkpoint = self.checkpoint(before);
        let Some(checkpoint) = self.unless_not_finite(checkpoint)? else { return Ok(()) };
        if let Err(error) = self.store.save_best(&checkpoint)
            && !std::mem::replace(&mut self.is_best_missed, true)
        {
            warn(format_args!("the best model so far, of step {}, is not kept: {error}", checkpoint.meta.step));
        }
        Ok(())
    }

    /// The lowest validation loss, and where the model is that has it.
    fn best(&self) -> Option<Best> {
        let (val_loss, step) = (self.standing.best_val_loss?, self.standing.best_step?);
        let file = self.store.best();
        let checkpoint = read_meta::<Meta>(&file).ok().filter(|meta| meta.step == step).map(|_| file);
        Some(Best { step, val_loss, checkpoint })
    }

    /// The run as it is, but for what it counts, which is `at`.
    pub(super) fn checkpoint(&mut self, at: Standing) -> Result<Checkpoint> {
        self.engine.check_heartbeat()?;
        self.lock.check()?;
        // First: a run that resumes from the checkpoint counts on the lines of all steps before it.
        self.metrics.sync()?;
        checkpoint(self.config, self.data, &self.trainer, at)
    }

    /// What was read of the run to save it; `None` where that shows that the run is to go back: the update before made
    /// something not finite.
    pub(super) fn unless_not_finite<T>(&mut self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Err(Error::Diverged(_)) if self.health.may_go_back() => {
                self.health.go_back(Bad::not_finite(self.standing.step.saturating_sub(1)));
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Samples and saves, after the last evaluation.
    pub(crate) fn finish(mut self) -> Result<Summary> {
        let first = metrics::first_of_both(&self.config.out_dir)?;
        self.sample()?;
        self.save()?;
        self.save_best()?;
        self.tell_of_growths_left();
        self.display.finish();
        let best = self.best();
        Ok(Summary {
            best,
            steps: self.standing.step,
            parameters: self.trainer.model.param_count(),
            loss: self.display.numbers.loss,
            val_loss: self.display.numbers.val_loss.unwrap_or(f64::NAN),
            both_losses: first.zip(self.both_losses()).map(<[BothLosses; 2]>::from),
            entropy_floor: self.data.entropy_floor,
            growths: self.standing.lineage,
            seconds: self.display.seconds(),
            sample: self.display.sample,
            checkpoint: self.saved,
        })
    }
}
