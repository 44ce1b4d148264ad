//! What a run saves on the way and at its end.

use super::Run;
use super::health::Bad;
use super::ranks::by_root;
use super::schedule::is_due;
use super::standing::Standing;
use crate::checkpoint::{Keep, read_meta};
use crate::console::{detail, warn};
use crate::error::{Error, Result};
use crate::model::init::Tensors;
use crate::train::disk::capture::checkpoint;
use crate::train::disk::meta::{Checkpoint, Meta};
use crate::train::disk::metrics::{self, BothLosses};
use crate::train::{Best, Summary};
use std::time::Instant;

impl Run<'_> {
    /// Saves where that is due, or where the run is interrupted. After the last step it is evaluated first.
    pub(super) fn save_if_due(&mut self, interrupted: bool) -> Result<()> {
        let is_last = self.is_over();
        let due = is_due(self.standing.step, self.config.train.checkpoint_interval) && (is_last || self.has_room()?);
        if interrupted || due || is_last {
            self.catch_up()?;
        }
        // Not amid bad steps, which may be about to send the run back: it would go back to here.
        let wanted = interrupted || due && !self.health.is_in_doubt();
        if self.health.is_bad() || is_last || !wanted {
            return Ok(());
        }
        let saved = self.save();
        self.unless_not_finite(saved).map(drop)
    }

    pub(super) fn save(&mut self) -> Result<()> {
        self.catch_up()?;
        let began = Instant::now();
        if let Some(checkpoint) = self.checkpoint(self.standing.clone())? {
            self.saved = self.store.save(&checkpoint, self.keep())?;
        }
        let took = began.elapsed();
        detail(format_args!("saved {} in {:.2} s", self.saved.display(), took.as_secs_f64()));
        self.paused(took);
        Ok(())
    }

    fn keep(&self) -> Keep {
        let train = &self.config.train;
        Keep { last: train.keep_last, every: train.keep_every as u64 }
    }

    /// As [`Self::save`], without the other ranks; the step that is saved.
    pub(super) fn save_alone(&mut self) -> Result<u64> {
        self.catch_up()?;
        if self.health.is_bad() || self.health.is_in_doubt() {
            return Err(Error::Diverged("the last steps were bad".to_owned()));
        }
        let checkpoint = self.own_checkpoint(self.standing.clone(), self.trainer.moments()?)?;
        self.saved = self.store.save(&checkpoint, self.keep())?;
        Ok(self.standing.step)
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
        let Some(Some(checkpoint)) = self.unless_not_finite(checkpoint)? else { return Ok(()) };
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
        Some(Best { step, val_loss, bits_per_byte: self.eval_sets.bytes.bits(val_loss), checkpoint })
    }

    /// The run as it is, but for what it counts, which is `at`. Only rank 0 has one.
    pub(super) fn checkpoint(&mut self, at: Standing) -> Result<Option<Checkpoint>> {
        let world = self.world().clone();
        // Of all ranks where each has some.
        let needed = world.is_root() || self.config.train.shard_optimizer;
        let moments = if needed { self.trainer.moments()? } else { Default::default() };
        by_root(&world, || self.own_checkpoint(at, moments))
    }

    fn own_checkpoint(&mut self, at: Standing, moments: [Tensors; 2]) -> Result<Checkpoint> {
        self.engine.check_heartbeat()?;
        self.lock.check()?;
        // First: a run that resumes from the checkpoint counts on the lines of all steps before it.
        self.metrics.sync()?;
        checkpoint(self.config, self.data, &self.trainer, moments, at)
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
        let is_root = self.world().is_root();
        let first = if is_root { metrics::first_of_both(&self.config.out_dir)? } else { None };
        self.sample()?;
        self.save()?;
        self.save_best()?;
        self.metrics.show(&self.standing);
        self.tell_of_growths_left();
        self.display.finish();
        let best = self.best();
        Ok(Summary {
            best,
            steps: self.standing.step,
            parameters: self.trainer.model.param_count(),
            loss: self.display.numbers.loss,
            val_loss: self.display.numbers.val_loss.unwrap_or(f64::NAN),
            bits_per_byte: self.display.numbers.val_loss.and_then(|loss| self.eval_sets.bytes.bits(loss)),
            both_losses: first.zip(self.both_losses()).map(<[BothLosses; 2]>::from),
            entropy_floor: self.data.entropy_floor,
            growths: self.standing.lineage,
            seconds: self.display.seconds(),
            sample: self.display.sample,
            checkpoint: self.saved,
        })
    }
}
