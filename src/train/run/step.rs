//! One step of a run: submitted, and its numbers read once the next one is on its way.

use super::health::{Fault, Seen, Verdict};
use super::position::Position;
use super::schedule::{self, is_due};
use super::{Run, loss_scale};
use crate::console;
use crate::data::{Batch, train_batch};
use crate::error::{Error, Result};
use crate::train::recovery::diagnose::describe;
use crate::train::trainer::PendingStep;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

impl Run<'_> {
    /// Submits a step, then reads the numbers of the one before it, so that the device never waits for the host.
    pub(super) fn train_step(&mut self, stop: &AtomicBool) -> Result<()> {
        let began = Instant::now();
        let (train, step) = (&self.config.train, self.standing.step);
        let mut place = self.clock.place(step, self.pending.is_some() && !self.trainer.is_mixed());
        let batches = self.batches(step)?;
        if step > 0 && is_due(step, train.verify_every) {
            self.catch_up()?;
            self.trainer.verify(&batches, step)?;
        }
        self.hooks.before_step(&self.trainer, step)?;
        let first = self.trainer.encode_step(&batches, step)?;
        // The loss scale of a step depends on the one before it.
        if self.trainer.is_mixed() {
            self.catch_up()?;
            if self.health.is_bad() {
                return Ok(());
            }
        }
        let gradients = self.trainer.start_gradients(first, &batches, step)?;
        self.hooks.before_update(&self.trainer, step)?;
        let told = self.told(step, place, stop.load(Ordering::Relaxed));
        let (submission, heard) = self.trainer.exchange(gradients, told)?;
        self.ranks.hear(heard);
        self.check_heard()?;
        if let Some(told) = self.ranks.place().filter(|_| !self.world().is_root()) {
            place = told;
            self.clock.hear(place);
        }
        let submitted = self.trainer.start_update(submission, step, schedule::learning_rate(train, place))?;
        self.standing.advance(self.trainer.shape());
        let before = self.pending.replace(submitted);
        self.complete(before)?;
        self.clock.step_took(began.elapsed());
        self.standing.seconds = self.clock.trained();
        Ok(())
    }

    /// Reads the numbers of every step submitted.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        let last = self.pending.take();
        self.complete(last)
    }

    /// Waits for a step, writes its numbers down, judges and shows them.
    fn complete(&mut self, pending: Option<PendingStep>) -> Result<()> {
        let Some(pending) = pending else { return Ok(()) };
        let (step, lr) = (pending.step, pending.lr);
        let stats = pending.finish(self.engine)?;
        let mut line = json!({
            "kind": "train", "step": step + 1, "loss": stats.loss, "lr": lr, "grad_norm": stats.grad_norm,
            "tokens": self.position(step + 1).tokens, "seconds": self.display.seconds(),
        });
        if self.trainer.is_mixed() {
            line["loss_scale"] = json!(self.trainer.loss_scale.scale);
        }
        self.describe_ranks(&mut line, step);
        self.metrics.write(&line)?;
        self.ranks.measured = Some((step, [stats.loss, stats.grad_norm].map(f32::to_bits)));
        let loss = f64::from(stats.loss);
        let seen = match loss_scale::after(self.trainer.loss_scale, self.trainer.is_mixed(), stats.finite) {
            Some(next) => {
                self.trainer.loss_scale = next;
                if stats.finite { Seen::Finite(loss) } else { Seen::Overflow }
            }
            None => Seen::NotFinite,
        };
        let is_diverging = match self.health.judge(step, seen, &mut self.standing.losses) {
            Verdict::Go => false,
            // A smaller loss scale puts an overflow right.
            Verdict::Skip(None) => seen == Seen::NotFinite,
            Verdict::Rollback => true,
            Verdict::Skip(Some(why)) => {
                console::warn(why);
                true
            }
            Verdict::Stop(fault) => return Err(self.stopped(step, &fault)?),
        };
        let tokens_per_step = Position::default().after(1, self.trainer.shape()).tokens;
        (self.display.numbers.lr, self.display.numbers.is_diverging) = (lr, is_diverging);
        self.display.numbers.steps = self.clock.steps(self.standing.step);
        self.display.step(stats, step + 1, tokens_per_step, self.pending.is_some());
        Ok(())
    }

    /// Why the run ends after a bad step.
    fn stopped(&self, step: u64, fault: &Fault) -> Result<Error> {
        let lr = self.config.train.lr;
        Ok(Error::Diverged(match fault {
            Fault::Spike(why) => {
                format!("{why}; lower train.lr (it is {lr}) or raise spike_zscore, and resume from the last checkpoint")
            }
            Fault::NotFinite => format!(
                "loss or gradients of step {} were not finite; {}; nothing was updated by it; lower train.lr (it is \
                 {lr}) or raise train.warmup_fraction, and resume from the last checkpoint or start again",
                step + 1,
                self.diagnose(step)?
            ),
        }))
    }

    /// What was the first to be not finite in a step that went bad.
    pub(crate) fn diagnose(&self, step: u64) -> Result<String> {
        let found = self.trainer.diagnose(&self.batches(step)?, step, self.eval_sets.prompt.len())?;
        let said = describe(found.as_ref());
        if self.world().size() == 1 {
            return Ok(said);
        }
        // Of several ranks the first that found something.
        let all = self.world().all_gather([&[u8::from(found.is_some())], said.as_bytes()].concat())?;
        let first = all.iter().find(|told| told.first() == Some(&1)).or(all.first());
        let said = first.and_then(|told| told.get(1..)).unwrap_or_default();
        Ok(String::from_utf8_lossy(said).into_owned())
    }

    /// How far in its data the run is before a step.
    pub(crate) fn position(&self, step: u64) -> Position {
        self.standing.position_before(step, self.trainer.shape())
    }

    /// Micro-batches of a step.
    pub(crate) fn micro_batches(&self) -> u64 {
        self.trainer.shape().grad_accum as u64
    }

    /// The micro-batches of a step that this rank computes.
    fn batches(&self, step: u64) -> Result<Vec<Batch>> {
        let (seed, shape) = (self.config.train.seed, self.trainer.shape());
        let first = self.position(step).next_batch(shape.batch);
        self.trainer
            .own_micro_batches()
            .map(|micro| train_batch(&self.data.train, seed, first.wrapping_add(micro), shape.batch, shape.seq))
            .collect()
    }
}
