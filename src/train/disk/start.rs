//! Where a run starts: a new model, or what a checkpoint holds of one.

use super::meta::{Checkpoint, Meta, Store};
use crate::checkpoint::{read_meta, verify};
use crate::config::{ModelConfig, Optimizer, RunConfig};
use crate::console::warn;
use crate::data::{Dataset, Fingerprint, Tokenizer};
use crate::error::{Error, Result};
use crate::model::init;
use crate::train::growth::plateau::Plateau;
use crate::train::growth::{HostModel, cohorts};
use crate::train::run::loss_scale::LossScale;
use crate::train::run::position::Position;
use crate::train::run::spike::LossStatistics;
use crate::train::run::standing::Standing;
use std::collections::BTreeMap;

/// What a run starts from.
#[derive(Debug, Clone)]
pub struct Start {
    /// Parameters, moments and cohorts.
    pub host: HostModel,
    /// What was done, and what is still to come.
    pub standing: Standing,
    /// Where dynamic loss scaling stood.
    pub loss_scale: Option<LossScale>,
    /// What its losses are of; `None` where there are none.
    pub measured: Option<Measured>,
    /// What made its moments.
    pub optimizer: Optimizer,
}

/// What the losses of a run are of. Those of other data say little of this run's.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The data set by its contents, where the run was begun by a version that knows them.
    contents: Option<Fingerprint>,
    /// And in words.
    data: String,
    /// What share of it is validated on, where that is no file of its own.
    val_fraction: f64,
    /// And on how many rows.
    rows: usize,
}

impl Measured {
    fn by(config: &RunConfig, data: &str, contents: Option<Fingerprint>) -> Result<Self> {
        let rows = config.train.validation_rows(&config.model)?;
        Ok(Self { contents, data: data.to_owned(), val_fraction: config.data.val_fraction, rows })
    }

    /// Whether both train on the same text, and whether they validate on the same of it.
    fn same(&self, now: &Self) -> [bool; 2] {
        let split = self.val_fraction == now.val_fraction;
        let text = match (&self.contents, &now.contents) {
            // Another split of the same text has other parts.
            (Some(before), Some(after)) => {
                before.same_data(after) || !split && self.data == now.data && before.tokens() == after.tokens()
            }
            _ => self.data == now.data,
        };
        [text, text && split && self.rows == now.rows]
    }
}

impl Start {
    /// A new model of `config`, with every scale tau fixed to its initial value.
    pub fn fresh(config: &RunConfig) -> Self {
        let mut model = config.model.clone();
        model.freeze_tau();
        let params = init::initial(&model, config.train.seed);
        let cohorts = vec![cohorts::first(&model)];
        let none = init::Tensors::new;
        let host = HostModel { model, params, moment1: none(), moment2: none(), averages: none(), cohorts };
        Self {
            host,
            standing: Standing { growths_left: config.growth.len(), ..Standing::default() },
            loss_scale: None,
            measured: None,
            optimizer: config.train.optimizer,
        }
    }

    /// The state in a checkpoint, and the configuration of its run, whose growths are those still to come.
    ///
    /// # Errors
    /// An input error where the configuration is not one, or the parameters or the tokenizer are of another model.
    pub fn resumed(checkpoint: Checkpoint) -> Result<(Self, RunConfig)> {
        let shapes = checkpoint.params.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())).collect();
        let (config, _) = described(&checkpoint.meta, &shapes)?;
        let Checkpoint { meta, params, moment1, moment2, averages } = checkpoint;
        let Meta { step, seconds, tokens_seen, data, losses, plateau, best_val_loss, best_step, loss_scale, .. } = meta;
        let (lineage, imported) = (meta.lineage, meta.imported);
        let mut cohorts = meta.cohorts;
        if cohorts.is_empty() {
            cohorts.push(cohorts::first(&config.model));
        }
        let position = Position::at_batch(data.next_batch, config.train.batch_size, tokens_seen);
        let growths_left = config.growth.len();
        let measured = Some(Measured::by(&config, &data.description, data.fingerprint)?);
        let start = Self {
            host: HostModel { model: config.model.clone(), params, moment1, moment2, averages, cohorts },
            standing: Standing {
                step,
                position,
                losses,
                plateau,
                growths_left,
                lineage,
                imported,
                best_val_loss,
                best_step,
                seconds,
            },
            loss_scale,
            measured,
            optimizer: config.train.optimizer,
        };
        Ok((start, config))
    }

    /// As it goes on with `config` on `data`: without the losses that are of something else.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub(crate) fn on(mut self, config: &RunConfig, data: &Dataset) -> Result<Self> {
        self.keep_moments(config.train.optimizer);
        // The one setting of a model that may change from run to run.
        self.host.model.dropout = config.model.dropout;
        let now = Measured::by(config, &data.description, Some(Fingerprint::of(data)?))?;
        let before = self.measured.replace(now.clone()).unwrap_or_else(|| now.clone());
        let [same_text, same_validation] = before.same(&now);
        if !same_text {
            self.standing.losses = LossStatistics::default();
        }
        if !same_validation {
            self.standing.plateau = Plateau::default();
            (self.standing.best_val_loss, self.standing.best_step) = (None, None);
        }
        if self.standing.step > 0 {
            self.keep_better(config, &now);
        }
        Ok(self)
    }

    /// Drops moments that another optimizer made, which say nothing to this one: as a growth with `optimizer = "reset"` does.
    fn keep_moments(&mut self, optimizer: Optimizer) {
        let (host, before) = (&mut self.host, std::mem::replace(&mut self.optimizer, optimizer));
        if before == optimizer || host.moment1.is_empty() {
            return;
        }
        warn(format_args!(
            "train.optimizer was \"{}\" and is \"{}\": the moments in the checkpoint are dropped, and begin again",
            before.name(),
            optimizer.name()
        ));
        (host.moment1, host.moment2) = Default::default();
        host.cohorts.iter_mut().for_each(|cohort| cohort.born_step = self.standing.step);
    }

    /// Counts the best checkpoint of the run where it is better than all that this one knows of: a run that goes on
    /// from before it, because later checkpoints were lost or training went bad, does not replace it by a worse one.
    fn keep_better(&mut self, run: &RunConfig, now: &Measured) {
        let file = Store::new(&run.out_dir).best();
        let Ok(meta) = read_meta::<Meta>(&file) else { return };
        let (Some(loss), Ok(config)) = (meta.best_val_loss, meta.config::<RunConfig>()) else { return };
        let same_run = meta.seed == run.train.seed && meta.best_step == Some(meta.step);
        let better = self.standing.best_val_loss.is_none_or(|best| !best.is_finite() || loss < best);
        let measured = Measured::by(&config, &meta.data.description, meta.data.fingerprint);
        let comparable = measured.is_ok_and(|measured| measured.same(now)[1]);
        // Its values last, because that reads all of it.
        if same_run && better && loss.is_finite() && comparable && verify(&file).is_ok() {
            (self.standing.best_val_loss, self.standing.best_step) = (Some(loss), Some(meta.step));
        }
    }
}

/// The settings and the tokenizer of a checkpoint whose parameters have these shapes.
///
/// # Errors
/// An input error where the configuration is not one, or the parameters or the tokenizer are of another model.
pub(crate) fn described(meta: &Meta, shapes: &BTreeMap<&str, &[usize]>) -> Result<(RunConfig, Option<Tokenizer>)> {
    let mut config: RunConfig = meta.config()?;
    if meta.data.fingerprint.is_none() && meta.imported.is_none() {
        config.train.count_micro_batches(&config.model);
    }
    check_settings(&config)?;
    check_parameters(&config.model, shapes)?;
    let tokenizer = meta.tokenizer()?;
    check_tokenizer(&config.model, tokenizer.as_ref())?;
    Ok((config, tokenizer))
}

/// Settings from a file are as untrusted as the rest of it. Growths are not checked: they are still to come.
fn check_settings(config: &RunConfig) -> Result<()> {
    let model = &config.model;
    let checked = model.validate().and_then(|()| config.train.validate(model)).and_then(|()| config.data.validate());
    checked.map_err(|e| Error::input(format!("the checkpoint's configuration is damaged: {e}")))
}

/// Exactly the parameters of `model`, by name and shape.
fn check_parameters(model: &ModelConfig, params: &BTreeMap<&str, &[usize]>) -> Result<()> {
    let refuse = |what: String| Err(Error::input(format!("{what}: it is damaged, or put together of two models")));
    let expected = model.param_shapes();
    for (name, shape) in &expected {
        match params.get(name.as_str()) {
            None => return refuse(format!("the checkpoint lacks parameter \"{name}\" of its configuration")),
            Some(found) if found != shape => {
                return refuse(format!(
                    "the checkpoint's parameter \"{name}\" has shape {found:?}, its configuration says {shape:?}"
                ));
            }
            Some(_) => {}
        }
    }
    if params.len() > expected.len() {
        let (have, want) = (params.len(), expected.len());
        return refuse(format!("the checkpoint has {have} parameters, its configuration says {want}"));
    }
    Ok(())
}

fn check_tokenizer(model: &ModelConfig, tokenizer: Option<&Tokenizer>) -> Result<()> {
    match tokenizer.map(|t| t.vocab_size()) {
        Some(tokens) if tokens > model.vocab_size => Err(Error::input(format!(
            "the checkpoint's tokenizer has {tokens} tokens, but its model a vocab_size of {}: it is damaged",
            model.vocab_size
        ))),
        _ => Ok(()),
    }
}
