//! What a person sees during a run: a progress bar on a terminal, plain lines elsewhere. On stderr, so that
//! stdout stays clean.

use crate::error::{legible, tell};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Instant;

/// The latest numbers of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Numbers {
    /// Steps done.
    pub step: u64,
    /// Training loss, nats per token.
    pub loss: f64,
    /// Validation loss, once measured.
    pub val_loss: Option<f64>,
    /// Validation loss on the data that the model knew before.
    pub old_val_loss: Option<f64>,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Speed since the last report.
    pub tokens_per_s: f64,
}

/// Shows the progress of one run.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    steps: u64,
    first: u64,
    started: Instant,
    log_interval: u64,
    memory: String,
}

impl Progress {
    /// A run from step `first` to `steps`, using `memory` of the device.
    pub(super) fn new(first: u64, steps: u64, log_interval: u64, memory: String) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps).with_position(first);
            let template = "{bar:24} {pos}/{len} {msg} eta {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, steps, first, started: Instant::now(), log_interval: log_interval.max(1), memory }
    }

    /// Device memory changed (after a growth).
    pub(crate) fn set_memory(&mut self, memory: String) {
        self.memory = memory;
    }

    /// One step is done.
    pub(super) fn step(&self, n: &Numbers) {
        let val = n.val_loss.map_or_else(|| "-".to_string(), |v| format!("{v:.4}"));
        let old = n.old_val_loss.map_or_else(String::new, |v| format!(" old {v:.4}"));
        let text = format!(
            "loss {:.4} val {val}{old} lr {:.2e} norm {:.2} {:.0} tok/s {}",
            n.loss, n.lr, n.grad_norm, n.tokens_per_s, self.memory
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(n.step);
                bar.set_message(text);
            }
            None if n.step.is_multiple_of(self.log_interval) || n.step == self.steps => {
                let done = (n.step - self.first).max(1) as f64;
                let left = self.started.elapsed().as_secs_f64() / done * (self.steps - n.step) as f64;
                tell(format_args!("step {}/{} {text} eta {left:.0}s", n.step, self.steps));
            }
            None => {}
        }
    }

    /// A line that stays.
    pub(super) fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => line.lines().for_each(|line| bar.println(legible(line))),
            None => tell(line),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
