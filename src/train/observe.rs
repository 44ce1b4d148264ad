//! What a run measures and shows of its model on the way: validation losses and samples.

use super::metrics::{self, BothLosses};
use super::{Run, is_due};
use crate::error::Result;
use crate::model::sample::Sampling;
use serde_json::json;

impl Run<'_> {
    /// Where both old and new data are validated on, so that it can be said what became of both.
    pub(super) fn evaluate_before_the_first_step(&mut self) -> Result<()> {
        let (dir, interval) = (&self.config.out_dir, self.config.train.eval_interval);
        let later = self.old_validation.is_empty() || is_due(self.step, interval);
        if later || metrics::first_of_both(dir)?.is_some() { Ok(()) } else { self.evaluate().map(drop) }
    }

    /// The validation loss, nats per token.
    pub(super) fn evaluate(&mut self) -> Result<f64> {
        self.catch_up()?;
        let val_loss = self.trainer()?.evaluate(&self.validation)?;
        self.numbers.val_loss = Some(val_loss);
        self.best_val_loss = Some(self.best_val_loss.map_or(val_loss, |best| best.min(val_loss)));
        let mut line = json!({"kind": "eval", "step": self.step, "val_loss": val_loss});
        if !self.old_validation.is_empty() {
            let old_val_loss = self.trainer()?.evaluate(&self.old_validation)?;
            self.numbers.old_val_loss = Some(old_val_loss);
            line["old_val_loss"] = json!(old_val_loss);
        }
        self.metrics.write(&line)?;
        Ok(val_loss)
    }

    pub(super) fn sample_if_due(&mut self) -> Result<()> {
        let due = is_due(self.step, self.config.train.sample_interval);
        if due && self.step < self.config.train.max_steps as u64 { self.sample() } else { Ok(()) }
    }

    pub(super) fn sample(&mut self) -> Result<()> {
        let train = &self.config.train;
        let Some(tokenizer) = &self.data.tokenizer else { return Ok(()) };
        if train.sample_tokens == 0 {
            return Ok(());
        }
        self.catch_up()?;
        let temperature = train.sample_temperature;
        let sampling = Sampling { temperature, top_k: 0, top_p: 1.0, seed: train.seed.wrapping_add(self.step) };
        let drawn = self.trainer()?.sample(&self.prompt, train.sample_tokens, &sampling)?;
        let text = tokenizer.decode(&self.prompt) + &tokenizer.decode(&drawn);
        self.progress.say(&format!("--- sample after step {} ---\n{}\n---", self.step, text.trim()));
        self.metrics.write(&json!({"kind": "sample", "step": self.step - 1, "text": text}))?;
        self.last_sample = text;
        Ok(())
    }

    pub(super) fn both_losses(&self) -> Option<BothLosses> {
        let (val_loss, old_val_loss) = self.numbers.val_loss.zip(self.numbers.old_val_loss)?;
        Some(BothLosses { step: self.step, val_loss, old_val_loss })
    }
}
