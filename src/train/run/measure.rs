//! What a run measures and shows of its model on the way: validation losses and samples.

use super::Run;
use super::health::Bad;
use super::line;
use super::ranks::root_says;
use super::schedule::is_due;
use crate::console::{detail, note, slowly};
use crate::error::{Error, Result};
use crate::model::sample::Sampling;
use crate::train::disk::metrics::{self, BothLosses};
use serde_json::json;
use std::time::Instant;

impl Run<'_> {
    /// Where both old and new data are validated on, so that it can be said what became of both.
    pub(super) fn evaluate_before_the_first_step(&mut self) -> Result<()> {
        let (dir, interval) = (&self.config.out_dir, self.config.train.eval_interval);
        let later = self.eval_sets.old_validation.is_empty() || is_due(self.standing.step, interval);
        let known = || Ok(metrics::first_of_both(dir)?.is_some());
        if later || root_says(self.world(), known)? { Ok(()) } else { self.evaluate().map(drop) }
    }

    /// The validation loss, nats per token.
    pub(super) fn evaluate(&mut self) -> Result<f64> {
        self.catch_up()?;
        let began = Instant::now();
        let (step, steps) = (self.standing.step, self.clock.steps(self.standing.step));
        let (new, old) = (&self.eval_sets.validation, &self.eval_sets.old_validation);
        let batches = new.len() + old.len();
        let doing = format!("evaluating on {batches} batches after step {step}");
        let evaluated = || -> Result<_> { Ok((self.trainer.evaluate(new)?, self.trainer.evaluate(old)?)) };
        let (val_loss, old_val_loss) = slowly(&doing, evaluated)?;
        let old_val_loss = (!old.is_empty()).then_some(old_val_loss);
        self.display.numbers.val_loss = Some(val_loss);
        let before = self.standing.clone();
        if self.standing.validated(val_loss) {
            self.unsaved_best = Some(before);
        }
        // The last step's own checkpoint comes first: it counts for more where the disk is full.
        if !self.is_over() {
            self.save_best()?;
        }
        let mut line = json!({"kind": "eval", "step": step, "val_loss": val_loss});
        let mut shown = format!("eval {} val loss {val_loss:.4}", line::of(step, steps));
        if let Some(old_val_loss) = old_val_loss {
            shown.push_str(&format!(" old {old_val_loss:.4}"));
            self.display.numbers.old_val_loss = Some(old_val_loss);
            line["old_val_loss"] = json!(old_val_loss);
        }
        let bits_per_byte = self.eval_sets.bytes.bits(val_loss);
        if let Some(bits) = bits_per_byte {
            line["bits_per_byte"] = json!(bits);
        }
        self.metrics.write(&line)?;
        // Nor does the page: after the last step it is written behind the checkpoint.
        if !self.is_over() {
            self.metrics.show(&self.standing);
        }
        self.display.refresh();
        note(shown);
        let took = began.elapsed();
        detail(format_args!("evaluated on {batches} batches in {:.2} s", took.as_secs_f64()));
        self.paused(took);
        Ok(val_loss)
    }

    /// What sends the run back after its last step. A model without a validation loss is not stored: only this can tell
    /// what the last steps did to it.
    pub(super) fn evaluate_at_the_end(&mut self) -> Result<Option<Bad>> {
        let (val_loss, step) = (self.evaluate()?, self.standing.step);
        if val_loss.is_finite() {
            return Ok(None);
        }
        let why = format!("the validation loss after the last step, {step}, is {val_loss}");
        if self.health.may_go_back() {
            return Ok(Some(Bad { step: step.saturating_sub(1), why, finite: false }));
        }
        Err(Error::Diverged(format!(
            "{why}, so that step is not saved; lower train.lr (it is {}) or raise train.warmup_fraction, and resume from the \
             last checkpoint or start again",
            self.config.train.lr
        )))
    }

    /// Not after the last step, and not where the run goes back.
    pub(super) fn sample_if_due(&mut self) -> Result<()> {
        let (step, train) = (self.standing.step, &self.config.train);
        let due = is_due(step, train.sample_interval) && !self.is_over();
        if due && !self.health.is_bad() && self.has_room()? { self.sample() } else { Ok(()) }
    }

    /// On rank 0: those of others would be the same.
    pub(super) fn sample(&mut self) -> Result<()> {
        let train = &self.config.train;
        let Some(tokenizer) = &self.data.tokenizer else { return Ok(()) };
        if train.sample_tokens == 0 || !self.world().is_root() {
            return Ok(());
        }
        self.catch_up()?;
        let began = Instant::now();
        let (step, prompt) = (self.standing.step, &self.eval_sets.prompt);
        let temperature = train.sample_temperature;
        let sampling = Sampling { temperature, top_k: 0, top_p: 1.0, min_p: 0.0, seed: train.seed.wrapping_add(step) };
        let drawn = self.trainer.sample(prompt, train.sample_tokens, &sampling)?;
        let text = tokenizer.decode_prompt(prompt) + &tokenizer.decode(&drawn);
        note(format_args!("--- sample after step {step} ---\n{}\n---", text.trim()));
        self.metrics.write(&json!({"kind": "sample", "step": step, "text": text}))?;
        self.paused(began.elapsed());
        self.display.sample = text;
        Ok(())
    }

    pub(super) fn both_losses(&self) -> Option<BothLosses> {
        let (val_loss, old_val_loss) = self.display.numbers.val_loss.zip(self.display.numbers.old_val_loss)?;
        Some(BothLosses { step: self.standing.step, val_loss, old_val_loss })
    }
}
