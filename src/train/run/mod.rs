//! A run in progress: when to step, evaluate, sample, grow and save. [`Run::go`] is the loop.
//!
//! What a step is stands in `step`, when a growth is due in `grow`, what is measured on the way in `measure`, what is
//! saved in `save`. The run's state is in four values: the [`Trainer`] (tensors on the device), the [`Standing`] (all that
//! it counts), the [`Health`] (whether its numbers are as they should be) and the [`Display`].

mod clock;
mod display;
mod eval_sets;
mod grow;
pub(crate) mod health;
pub(crate) mod hooks;
mod line;
pub(crate) mod loss_scale;
mod measure;
pub(crate) mod position;
mod progress;
mod ranks;
pub(crate) mod record;
mod save;
pub mod schedule;
pub(crate) mod spike;
pub(crate) mod standing;
mod step;

use super::disk::meta::Store;
use super::disk::metrics;
use super::disk::start::Start;
use super::disk::tensorboard;
use super::growth::plateau::Plateau;
use super::trainer::{PendingStep, Trainer};
use crate::checkpoint::{Files, RunLock, Storage};
use crate::config::RunConfig;
use crate::console::{note, slowly};
use crate::data::{Dataset, Fingerprint};
use crate::error::{Error, Result};
use crate::gpu::engine::Engine;
use crate::report::shell;
use crate::runtime::device::Device;
use clock::Clock;
use display::Display;
use eval_sets::EvalSets;
use health::{Bad, Health};
use hooks::Hooks;
use ranks::Ranks;
use record::Record;
use schedule::is_due;
use standing::Standing;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A run in progress.
pub(crate) struct Run<'a> {
    engine: &'a Engine,
    config: &'a RunConfig,
    data: &'a Dataset,
    hooks: &'a dyn Hooks,
    trainer: Trainer<'a>,
    /// The last step submitted, until its numbers are read.
    pending: Option<PendingStep>,
    standing: Standing,
    health: Health,
    ranks: Ranks,
    clock: Clock,
    display: Display,
    eval_sets: EvalSets,
    store: Store,
    lock: &'a RunLock,
    pub(crate) metrics: Record,
    /// The last checkpoint.
    saved: PathBuf,
    /// As it was before the evaluation that found the lowest loss, until that is saved.
    unsaved_best: Option<Standing>,
    /// Whether that failed, which is said once.
    is_best_missed: bool,
}

impl<'a> Run<'a> {
    /// Puts `start` on the device and claims the run's directory, which is the first write.
    ///
    /// # Errors
    /// Data that are too short, a prompt that cannot be read, device and file errors.
    pub(crate) fn new(
        Device { engine, kernels, world }: &'a Device,
        config: &'a RunConfig,
        data: &'a Dataset,
        start: Start,
        lock: &'a mut RunLock,
        hooks: &'a dyn Hooks,
    ) -> Result<Self> {
        let Start { host, mut standing, loss_scale, .. } = start.on(config, data)?;
        ranks::agree_on_start(world, standing.step, &host)?;
        let train = &config.train;
        let eval_sets = EvalSets::new(config, &host.model, data)?;
        let prompt = eval_sets.prompt.len();
        let compiled = || Trainer::of_rank(world, engine, kernels, &host.model, train, host.cohorts.clone(), prompt);
        let mut trainer = slowly("compiling kernels and allocating memory", compiled)?;
        if let (Some(stored), true) = (loss_scale, trainer.is_mixed()) {
            trainer.loss_scale = stored;
        }
        trainer.load_parameters(&host.params)?;
        trainer.load_averages(host.used())?;
        if !host.moment1.is_empty() {
            trainer.load_moments(&host.moment1, &host.moment2)?;
        }
        hooks.before_claim(standing.step)?;
        let files: Arc<dyn Storage> = Arc::new(Files);
        lock.keep()?;
        let metrics = match world.is_root() {
            true => Record::claim(&files, config, standing.step)?,
            false => Record::of_another(),
        };
        standing.growths_left = standing.growths_left.min(config.growth.len());
        if standing.next_growth(&config.growth).is_none_or(|growth| growth.plateau().is_none()) {
            standing.plateau = Plateau::default();
        }
        Ok(Self {
            engine,
            config,
            data,
            hooks,
            pending: None,
            health: Health::new(train),
            ranks: Ranks::default(),
            clock: Clock::new(train, standing.seconds),
            display: Display::new(standing.step, train, &trainer),
            trainer,
            standing,
            eval_sets,
            store: Store::on(files, &config.out_dir),
            lock,
            metrics,
            saved: PathBuf::new(),
            unsaved_best: None,
            is_best_missed: false,
        })
    }

    /// Takes the steps that are left; what sends the run back, where that is what ended them.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after saving when `stop` was set; [`Error::Diverged`]; device and file errors.
    pub(crate) fn go(mut self, stop: &AtomicBool) -> Result<(Self, Option<Bad>)> {
        self.metrics.write(&self.header()?)?;
        self.metrics.show(&self.standing);
        self.evaluate_before_the_first_step()?;
        let first = self.standing.step;
        self.clock.start();
        while !self.is_over() {
            self = self.grow_if_due()?.evaluate_if_due()?;
            if self.is_out_of_patience() {
                return Ok((self, None));
            }
            if self.standing.step == first {
                // Some drivers compile when a kernel first runs.
                let step = || self.train_step(stop);
                slowly("taking the first step, in which drivers may compile kernels", step)
            } else {
                self.train_step(stop)
            }
            .map_err(|error| self.saved_despite(error))?;
            self.sample_if_due()?;
            let interrupted = self.is_stopped(stop);
            self.save_if_due(interrupted)?;
            if let Some(bad) = self.health.take_bad() {
                return Ok((self, Some(bad)));
            }
            if interrupted && !self.is_over() {
                return Err(self.interrupted());
            }
        }
        let bad = self.evaluate_at_the_end()?;
        Ok((self, bad))
    }

    /// Whether the last step was taken.
    pub(super) fn is_over(&self) -> bool {
        self.standing.step >= self.config.train.max_steps as u64 || self.clock.is_over()
    }

    /// What is done aside of steps, and how long that took.
    pub(super) fn paused(&mut self, took: Duration) {
        self.clock.paused(took);
        self.display.aside(took);
    }

    /// Whether there is time for what is done on the way: of several ranks the first has the clock.
    pub(super) fn has_room(&self) -> Result<bool> {
        match self.config.train.seconds() {
            Some(_) => ranks::root_says(self.world(), || Ok(self.clock.has_room())),
            None => Ok(true),
        }
    }

    /// Whether the run ends early, which is then said.
    fn is_out_of_patience(&self) -> bool {
        let (train, standing) = (&self.config.train, &self.standing);
        let evaluations = standing.evaluations_in_vain(train.eval_interval);
        let is_over = train.patience > 0
            && standing.growths_left == 0
            && is_due(standing.step, train.eval_interval)
            && evaluations >= train.patience as u64
            && !self.health.is_bad();
        if is_over {
            let (step, best) = (standing.step, standing.best_step.unwrap_or(0));
            note(format_args!(
                "no lower validation loss in {evaluations} evaluations, which is train.patience: the run ends after step {step} \
                 of {}, its best model is of step {best}",
                train.length()
            ));
        }
        is_over
    }

    /// After it was saved.
    fn interrupted(&self) -> Error {
        self.display.finish();
        Error::Interrupted(format!(
            "stopped after step {} of {}; saved; go on with tokenformer train --resume {}",
            self.standing.step,
            self.config.train.length().trim_end_matches(" steps"),
            shell::word(&self.config.out_dir)
        ))
    }

    fn header(&self) -> Result<serde_json::Value> {
        Ok(serde_json::json!({
            "kind": "run", "metrics": metrics::VERSION, "from_step": self.standing.step, "adapter": self.engine.gpu.describe(),
            "parameters": self.trainer.model.param_count(), "data": self.data.description,
            "fingerprint": Fingerprint::of(self.data)?, "ranks": self.world().size(),
            "memory": self.trainer.bytes().total(), "started": tensorboard::now() - self.display.seconds(),
            "validation_rows": self.config.train.validation_rows(&self.trainer.model)?,
            "entropy_floor": self.data.entropy_floor, "version": env!("CARGO_PKG_VERSION"),
        }))
    }

    /// The last step whose numbers were as they should be.
    pub(crate) fn last_good(&self) -> Option<u64> {
        self.health.last_good()
    }
}
