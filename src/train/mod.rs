//! The training loop: when to step, evaluate, sample, grow and save.
//!
//! Everything a step needs is a pure function of the configuration, the seed and the step number, so a
//! run that stops and resumes is the same run, bit for bit. What a step does is [`trainer`]'s; what a
//! growth does is [`growth`]'s and when one is due `growing`'s; what is written is [`metrics`] and the checkpoint room's.

pub mod cohorts;
pub mod diagnose;
pub mod directory;
#[cfg(test)]
mod faults;
pub mod fit;
mod growing;
pub mod growth;
pub mod loss_scale;
pub mod metrics;
mod observe;
pub mod plans;
mod plateau;
pub mod position;
pub mod probe;
pub mod progress;
pub mod prune;
pub mod recover;
pub mod schedule;
pub mod spike;
pub mod state;
pub mod trainer;

use crate::checkpoint::{Checkpoint, Files, GrowthRecord, Keep, LossStatistics, Plateau, RunLock, Storage, Store};
use crate::config::{BadSteps, RunConfig};
use crate::data::{Batch, Dataset, TokenSource, train_batch, validation_batches};
use crate::error::{Error, Result};
use crate::gpu::engine::Engine;
use crate::report::number;
use metrics::{BothLosses, Metrics};
use position::Position;
use progress::{Numbers, Progress};
use serde_json::json;
use state::{Snapshot, Start};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use trainer::{PendingStep, Trainer};

/// Steps with non-finite numbers in a row before a run is given up.
const MAX_BAD_STEPS: u32 = 3;

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Steps done.
    pub steps: u64,
    /// Parameters at the end.
    pub parameters: u64,
    /// Last training loss, nats per token.
    pub loss: f64,
    /// Validation loss at the end, nats per token.
    pub val_loss: f64,
    /// Where there are old validation data: the first evaluation of the run, and the last.
    pub both_losses: Option<[BothLosses; 2]>,
    /// Entropy of the data, where it is known, nats per token.
    pub entropy_floor: Option<f64>,
    /// Growths of the model so far.
    pub growths: Vec<GrowthRecord>,
    /// A sample drawn at the end.
    pub sample: String,
    /// Seconds of this process.
    pub seconds: f64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
}

/// Trains `start` on `data` until `max_steps`, or until `stop` is set; see [`recover::Job`].
///
/// A run that starts at step 0 replaces the run that is in its directory, if any: see [`directory::check_new`].
///
/// # Errors
/// As [`recover::Job::run_on`], also where another process writes to the run's directory.
pub fn run(engine: &Engine, config: &RunConfig, data: &Dataset, start: Start, stop: &AtomicBool) -> Result<Summary> {
    let origin = || Ok(start.clone());
    let mut lock = RunLock::take(&config.out_dir)?;
    let go_on = recover::resuming(config);
    recover::Job { config, data, origin: &origin, stop, go_on }.run_on(engine, start.clone(), &mut lock)
}

/// How the steps of a run ended.
enum Outcome {
    /// All were taken.
    Done,
    /// They went bad.
    Bad(Bad),
}

/// What sends a run back to its last checkpoint.
struct Bad {
    /// The step that showed it.
    step: u64,
    /// A clause for messages.
    why: String,
    /// Whether all numbers were finite.
    finite: bool,
}

impl Bad {
    fn not_finite(step: u64) -> Self {
        let why = format!("loss or gradients were not finite for three steps in a row, the last at step {step}");
        Self { step, why, finite: false }
    }
}

fn is_due(step: u64, interval: usize) -> bool {
    interval > 0 && step.is_multiple_of(interval as u64)
}

/// A run in progress.
struct Run<'a> {
    engine: &'a Engine,
    config: &'a RunConfig,
    data: &'a Dataset,
    /// `None` only while a growth replaces it.
    trainer: Option<Trainer<'a>>,
    /// The last step submitted, with its number and learning rate, until its numbers are read.
    pending: Option<(PendingStep, u64, f64)>,
    store: Store,
    metrics: Metrics,
    progress: Progress,
    prompt: Vec<u32>,
    validation: Vec<Batch>,
    /// Of the data that the model knew before; empty where none are given.
    old_validation: Vec<Batch>,
    lineage: Vec<GrowthRecord>,
    /// Growths of the configuration that are still to come, its last ones.
    growths_left: usize,
    /// Of the next growth, where that waits for one.
    plateau: Plateau,
    step: u64,
    numbers: Numbers,
    bad_steps: u32,
    started: Instant,
    window: (Instant, u64),
    best_val_loss: Option<f64>,
    last_sample: String,
    saved: PathBuf,
    losses: LossStatistics,
    /// The last step whose numbers were as they should be.
    last_good: Option<u64>,
    gone_bad: Option<Bad>,
    /// The step it started from, and how far in its data it was.
    from: (u64, Position),
}

impl<'a> Run<'a> {
    fn new(
        engine: &'a Engine,
        config: &'a RunConfig,
        data: &'a Dataset,
        start: Start,
        lock: &mut RunLock,
    ) -> Result<Self> {
        let start = start.on(config, data);
        let (train, model) = (&config.train, &start.host.model);
        data.check_length(model.seq_length)?;
        let batches =
            |of: &TokenSource| validation_batches(of, train.eval_batches.max(1), train.batch_size, model.seq_length);
        let validation = batches(&data.val)?;
        let old_validation = data.old_val.as_ref().map_or_else(|| Ok(Vec::new()), batches)?;
        let prompt = state::sample_prompt(&train.sample_prompt, data)?;
        let mut trainer = Trainer::new(engine, model, train, start.host.cohorts.clone(), prompt.len())?;
        if let (Some(stored), true) = (start.loss_scale, trainer.is_mixed()) {
            trainer.loss_scale = stored;
        }
        trainer.load_parameters(&start.host.params)?;
        if !start.host.moment1.is_empty() {
            trainer.load_moments(&start.host.moment1, &start.host.moment2)?;
        }
        let memory = number::bytes(trainer.bytes().total());
        let files: Arc<dyn Storage> = Arc::new(Files);
        #[cfg(test)]
        faults::before_claim(start.step)?;
        lock.keep()?;
        let metrics = directory::claim(&files, config, start.step)?;
        let now = Instant::now();
        let growths_left = start.growths_left.min(config.growth.len());
        let waits = growing::next(&config.growth, growths_left).is_some_and(|growth| growth.plateau().is_some());
        Ok(Self {
            engine,
            config,
            data,
            store: Store::on(files, &config.out_dir),
            metrics,
            progress: Progress::new(start.step, train.max_steps as u64, train.log_interval as u64, memory),
            prompt,
            validation,
            old_validation,
            lineage: start.lineage,
            growths_left,
            plateau: if waits { start.plateau } else { Plateau::default() },
            step: start.step,
            numbers: Numbers { step: start.step, ..Numbers::default() },
            bad_steps: 0,
            started: now,
            window: (now, start.step),
            best_val_loss: start.best_val_loss,
            last_sample: String::new(),
            saved: PathBuf::new(),
            trainer: Some(trainer),
            pending: None,
            losses: start.losses,
            last_good: None,
            gone_bad: None,
            from: (start.step, start.position),
        })
    }

    /// Takes the steps that are left.
    fn go(&mut self, stop: &AtomicBool) -> Result<Outcome> {
        let (config, steps) = (self.config, self.config.train.max_steps as u64);
        self.metrics.write(&self.header())?;
        self.evaluate_before_the_first_step()?;
        while self.step < steps {
            self.grow_if_due()?;
            self.evaluate_if_due()?;
            self.train_step()?;
            if self.gone_bad.is_none() {
                self.sample_if_due()?;
            }
            let interrupted = stop.load(Ordering::Relaxed);
            if interrupted || is_due(self.step, config.train.checkpoint_interval) || self.step == steps {
                self.catch_up()?;
            }
            if let Some(bad) = self.gone_bad.take() {
                return Ok(Outcome::Bad(bad));
            }
            // Not amid bad steps, which may be about to send the run back: it would go back to here.
            let amid_bad_steps = self.bad_steps > 0 && config.train.on_bad_steps == BadSteps::Rollback;
            let due = is_due(self.step, config.train.checkpoint_interval) && !amid_bad_steps;
            // After the last step it is evaluated first.
            if self.step < steps && (interrupted || due) {
                let saved = self.save();
                self.unless_gone_bad(saved)?;
                if let Some(bad) = self.gone_bad.take() {
                    return Ok(Outcome::Bad(bad));
                }
            }
            if interrupted && self.step < steps {
                self.progress.finish();
                return Err(Error::Interrupted(format!(
                    "interrupted after step {}; everything is saved in {}; continue with --resume {}",
                    self.step,
                    self.saved.display(),
                    config.out_dir.display()
                )));
            }
        }
        self.evaluate_at_the_end()
    }

    /// A model without a validation loss is not stored: of what the last steps did to it, only this may tell.
    fn evaluate_at_the_end(&mut self) -> Result<Outcome> {
        let (val_loss, train) = (self.evaluate()?, &self.config.train);
        if val_loss.is_finite() {
            return Ok(Outcome::Done);
        }
        let why = format!("the validation loss after the last step, {}, is {val_loss}", self.step);
        if train.on_bad_steps == BadSteps::Rollback {
            return Ok(Outcome::Bad(Bad { step: self.step.saturating_sub(1), why, finite: false }));
        }
        Err(Error::Diverged(format!(
            "{why}, so that step is not saved; lower train.lr (it is {}) or raise train.warmup_fraction, and resume from the \
             last checkpoint or start again",
            train.lr
        )))
    }

    /// What was read of the run to save it; `None` where that shows that the run is to go back: the update before made
    /// something not finite.
    fn unless_gone_bad<T>(&mut self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Err(Error::Diverged(_)) if self.config.train.on_bad_steps == BadSteps::Rollback => {
                self.gone_bad.get_or_insert(Bad::not_finite(self.step.saturating_sub(1)));
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// What was the first to be not finite in a step that went bad.
    fn diagnose(&self, step: u64) -> Result<Option<diagnose::Finding>> {
        self.trainer()?.diagnose(&self.batches(step)?, self.prompt.len())
    }

    /// The micro-batches of a step.
    fn batches(&self, step: u64) -> Result<Vec<Batch>> {
        let (seed, shape) = (self.config.train.seed, self.trainer()?.shape());
        let first = self.position(step)?.next_batch(shape.batch);
        (0..shape.grad_accum as u64)
            .map(|micro| train_batch(&self.data.train, seed, first.wrapping_add(micro), shape.batch, shape.seq))
            .collect()
    }

    /// How far in its data the run is before a step.
    fn position(&self, step: u64) -> Result<Position> {
        let (first, position) = self.from;
        Ok(position.after(step.saturating_sub(first), self.trainer()?.shape()))
    }

    fn trainer(&self) -> Result<&Trainer<'a>> {
        self.trainer.as_ref().ok_or_else(|| Error::device("the model was lost in a failed growth; resume the run"))
    }

    fn header(&self) -> serde_json::Value {
        let parameters = self.trainer.as_ref().map(|t| t.model.param_count());
        json!({
            "kind": "run", "from_step": self.step, "adapter": self.engine.gpu.describe(), "parameters": parameters,
            "data": self.data.description, "entropy_floor": self.data.entropy_floor,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    /// Submits a step, then reads the numbers of the one before it, so that the device never waits for the host.
    fn train_step(&mut self) -> Result<()> {
        let train = &self.config.train;
        let lr = schedule::learning_rate(train, self.step as usize);
        let batches = self.batches(self.step)?;
        if self.step > 0 && is_due(self.step, train.verify_every) {
            self.catch_up()?;
            self.trainer()?.verify(&batches, self.step)?;
        }
        let trainer = self.trainer()?;
        #[cfg(test)]
        faults::before_step(trainer, self.step)?;
        let (first, is_mixed) = (trainer.encode_step(&batches)?, trainer.is_mixed());
        // The loss scale of a step depends on the one before it.
        if is_mixed {
            self.catch_up()?;
            if self.gone_bad.is_some() {
                return Ok(());
            }
        }
        let submitted = (self.trainer()?.start_encoded(first, &batches, self.step, lr)?, self.step, lr);
        self.step += 1;
        let before = self.pending.replace(submitted);
        self.complete(before)
    }

    /// Reads the numbers of every step submitted.
    fn catch_up(&mut self) -> Result<()> {
        let last = self.pending.take();
        self.complete(last)
    }

    /// Waits for a step and reports it.
    fn complete(&mut self, step: Option<(PendingStep, u64, f64)>) -> Result<()> {
        let Some((pending, step, lr)) = step else { return Ok(()) };
        let stats = pending.finish(self.engine)?;
        let trainer = self.trainer()?;
        let tokens_per_step = Position::default().after(1, trainer.shape()).tokens;
        let mut line = json!({
            "kind": "train", "step": step, "loss": stats.loss, "lr": lr, "grad_norm": stats.grad_norm,
            "tokens": self.position(step + 1)?.tokens, "seconds": self.started.elapsed().as_secs_f64(),
        });
        if trainer.is_mixed() {
            line["loss_scale"] = json!(trainer.loss_scale.scale);
        }
        self.metrics.write(&line)?;
        self.follow_finite(stats.finite);
        match self.config.train.on_bad_steps {
            BadSteps::Rollback if self.bad_steps >= MAX_BAD_STEPS => {
                self.gone_bad.get_or_insert(Bad::not_finite(step));
            }
            BadSteps::Stop if self.bad_steps > 0 => {
                let found = self.diagnose(step)?;
                return Err(Error::Diverged(format!(
                    "loss or gradients of step {step} were not finite; {}; nothing was updated by it; lower train.lr (it \
                     is {}) or raise train.warmup_fraction, and resume from the last checkpoint or start again",
                    diagnose::describe(found.as_ref()),
                    self.config.train.lr
                )));
            }
            _ => {}
        }
        if stats.finite {
            self.follow_loss(f64::from(stats.loss), step)?;
        }
        self.report(stats, step + 1, lr, tokens_per_step);
        Ok(())
    }

    /// Counts steps that went wrong. One that a smaller loss scale may put right is only skipped.
    fn follow_finite(&mut self, finite: bool) {
        let Some(trainer) = &mut self.trainer else { return };
        match loss_scale::after(trainer.loss_scale, trainer.is_mixed(), finite) {
            Some(next) => trainer.loss_scale = next,
            None => self.bad_steps += 1,
        }
        if finite {
            self.bad_steps = 0;
        }
    }

    /// Looks for spikes, where that is asked for.
    fn follow_loss(&mut self, loss: f64, step: u64) -> Result<()> {
        let limit = self.config.train.spike_zscore;
        let Some(spike) = spike::follow(&mut self.losses, loss, limit) else {
            // A step that was submitted before it was known that one went bad is not past that one.
            if self.gone_bad.is_none() {
                self.last_good = Some(step);
            }
            return Ok(());
        };
        let spike::Spike { zscore, mean } = spike;
        let why = format!(
            "the loss of step {step} is {loss:.4}, {zscore:.1} standard deviations above its mean of {mean:.4} \
             (train.spike_zscore is {limit})"
        );
        match self.config.train.on_bad_steps {
            BadSteps::Rollback => {
                self.gone_bad.get_or_insert(Bad { step, why, finite: true });
            }
            BadSteps::Skip => {
                // What the run goes on with is usual in the end: else it would be told at every step.
                spike::take_in(&mut self.losses, loss);
                self.progress.say(&format!("warning: {why}"));
            }
            BadSteps::Stop => {
                let lr = self.config.train.lr;
                return Err(Error::Diverged(format!(
                    "{why}; lower train.lr (it is {lr}) or raise spike_zscore, and resume from the last checkpoint"
                )));
            }
        }
        Ok(())
    }

    fn report(&mut self, stats: trainer::StepStats, steps: u64, lr: f64, tokens_per_step: u64) {
        let (since, first) = self.window;
        let seconds = since.elapsed().as_secs_f64();
        if seconds > 0.5 || self.numbers.tokens_per_s == 0.0 {
            self.numbers.tokens_per_s = ((steps - first) * tokens_per_step) as f64 / seconds.max(1e-9);
            self.window = (Instant::now(), steps);
        }
        self.numbers.step = steps;
        self.numbers.loss = f64::from(stats.loss);
        self.numbers.grad_norm = f64::from(stats.grad_norm);
        self.numbers.lr = lr;
        self.progress.step(&self.numbers);
    }

    fn save(&mut self) -> Result<()> {
        self.catch_up()?;
        let checkpoint = self.checkpoint(self.snapshot()?)?;
        let train = &self.config.train;
        let keep = Keep { last: train.keep_last, every: train.keep_every as u64 };
        self.saved = self.store.save(&checkpoint, keep)?;
        Ok(())
    }

    /// The run as it is, but for the counters, which are those of `at`.
    fn checkpoint(&mut self, at: Snapshot) -> Result<Checkpoint> {
        self.trainer()?.engine().check_heartbeat()?;
        // First: a run that resumes from the checkpoint counts on the lines of all steps before it.
        self.metrics.sync()?;
        state::checkpoint(self.engine, self.config, self.data, self.trainer()?, at)
    }

    fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot {
            step: self.step,
            lineage: self.lineage.clone(),
            growths_left: self.growths_left,
            plateau: self.plateau,
            best_val_loss: self.best_val_loss,
            losses: self.losses,
            position: self.position(self.step)?,
        })
    }

    /// After the last evaluation.
    fn finish(mut self) -> Result<Summary> {
        let first = metrics::first_of_both(&self.config.out_dir)?;
        self.sample()?;
        self.save()?;
        self.tell_of_growths_left();
        self.progress.finish();
        Ok(Summary {
            steps: self.step,
            parameters: self.trainer()?.model.param_count(),
            loss: self.numbers.loss,
            val_loss: self.numbers.val_loss.unwrap_or(f64::NAN),
            both_losses: first.zip(self.both_losses()).map(<[BothLosses; 2]>::from),
            entropy_floor: self.data.entropy_floor,
            growths: self.lineage,
            sample: self.last_sample,
            seconds: self.started.elapsed().as_secs_f64(),
            checkpoint: self.saved,
        })
    }
}
