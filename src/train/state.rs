//! Where a run starts and what is kept of it: between checkpoints and a model in training.

use super::cohorts;
use super::growth::HostModel;
use super::position::Position;
use super::trainer::Trainer;
use crate::checkpoint::{Checkpoint, DataPosition, FORMAT, GrowthRecord, LossScale, LossStatistics, Meta, Plateau};
use crate::config::{ModelConfig, RunConfig};
use crate::data::{self, Dataset, Tokenizer};
use crate::error::{Error, Result};
use crate::gpu::engine::Engine;
use crate::model::init;
use std::path::Path;

/// The model and counters a run starts from.
#[derive(Debug, Clone)]
pub struct Start {
    /// Parameters, moments and cohorts.
    pub host: HostModel,
    /// Optimizer steps already done.
    pub step: u64,
    /// Growths already done.
    pub lineage: Vec<GrowthRecord>,
    /// How many growths of the run's configuration are still to come: its last ones.
    pub growths_left: usize,
    /// How far the validation loss is on the plateau that the next growth waits for.
    pub plateau: Plateau,
    /// Best validation loss so far.
    pub best_val_loss: Option<f64>,
    /// Where dynamic loss scaling stood.
    pub loss_scale: Option<LossScale>,
    /// What is usual of the training loss.
    pub losses: LossStatistics,
    /// How far in its data it was.
    pub position: Position,
    /// What its losses are of; `None` where there are none.
    pub measured: Option<Measured>,
}

/// What the losses of a run are of. Those of other data say little of this run's.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The data set in words.
    data: String,
    /// What share of it is validated on, where that is no file of its own.
    val_fraction: f64,
    /// And on how many rows.
    rows: usize,
}

impl Measured {
    fn by(config: &RunConfig, data: &str) -> Self {
        let RunConfig { train, data: of, .. } = config;
        let rows = train.eval_batches.max(1).saturating_mul(train.batch_size);
        Self { data: data.to_owned(), val_fraction: of.val_fraction, rows }
    }
}

impl Start {
    /// A new model of `config`, with every scale tau fixed to its initial value.
    pub fn fresh(config: &RunConfig) -> Self {
        let mut model = config.model.clone();
        model.freeze_tau();
        let params = init::initial(&model, config.train.seed);
        let cohorts = vec![cohorts::first(&model)];
        let host = HostModel { model, params, moment1: init::Tensors::new(), moment2: init::Tensors::new(), cohorts };
        Self {
            host,
            step: 0,
            lineage: Vec::new(),
            growths_left: config.growth.len(),
            plateau: Plateau::default(),
            best_val_loss: None,
            loss_scale: None,
            losses: LossStatistics::default(),
            position: Position::default(),
            measured: None,
        }
    }

    /// The state in a checkpoint, and the configuration of its run, whose growths are those still to come.
    ///
    /// # Errors
    /// An input error where the configuration is not one, or the parameters or the tokenizer are of another model.
    pub fn resumed(checkpoint: Checkpoint) -> Result<(Self, RunConfig)> {
        let config: RunConfig = checkpoint.meta.config()?;
        check_settings(&config)?;
        check_parameters(&config.model, &checkpoint.params)?;
        check_tokenizer(&config.model, tokenizer(&checkpoint.meta)?)?;
        let (next, tokens) = (checkpoint.meta.data.next_batch, checkpoint.meta.tokens_seen);
        let position = Position::at_batch(next, config.train.batch_size, tokens);
        let measured = Some(Measured::by(&config, &checkpoint.meta.data.description));
        let cohorts = match checkpoint.meta.cohorts.is_empty() {
            true => vec![cohorts::first(&config.model)],
            false => checkpoint.meta.cohorts,
        };
        let host = HostModel {
            model: config.model.clone(),
            params: checkpoint.params,
            moment1: checkpoint.moment1,
            moment2: checkpoint.moment2,
            cohorts,
        };
        let start = Self {
            host,
            step: checkpoint.meta.step,
            lineage: checkpoint.meta.lineage,
            growths_left: config.growth.len(),
            plateau: checkpoint.meta.plateau,
            best_val_loss: checkpoint.meta.best_val_loss,
            loss_scale: checkpoint.meta.loss_scale,
            losses: checkpoint.meta.losses,
            position,
            measured,
        };
        Ok((start, config))
    }

    /// As it goes on with `config` on `data`: without the losses that are of something else.
    pub(super) fn on(mut self, config: &RunConfig, data: &Dataset) -> Self {
        let now = Measured::by(config, &data.description);
        let before = self.measured.replace(now.clone()).unwrap_or_else(|| now.clone());
        if before.data != now.data {
            self.losses = LossStatistics::default();
        }
        if before != now {
            (self.plateau, self.best_val_loss) = (Plateau::default(), None);
        }
        self
    }

    /// Growths done and still to come.
    pub(super) fn growths(&self) -> usize {
        self.lineage.len().saturating_add(self.growths_left)
    }
}

/// Settings from a file are as untrusted as the rest of it. Growths are not checked: they are still to come.
fn check_settings(config: &RunConfig) -> Result<()> {
    let model = &config.model;
    let checked = model.validate().and_then(|()| config.train.validate(model)).and_then(|()| config.data.validate());
    checked.map_err(|e| Error::input(format!("the checkpoint's configuration is damaged: {e}")))
}

/// Exactly the parameters of `model`, by name and shape.
fn check_parameters(model: &ModelConfig, params: &init::Tensors) -> Result<()> {
    let refuse = |what: String| Err(Error::input(format!("{what}: it is damaged, or put together of two models")));
    let expected = model.param_shapes();
    for (name, shape) in &expected {
        match params.get(name) {
            None => return refuse(format!("the checkpoint lacks parameter \"{name}\" of its configuration")),
            Some(tensor) if tensor.shape != *shape => {
                let found = &tensor.shape;
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

fn check_tokenizer(model: &ModelConfig, tokenizer: Option<Tokenizer>) -> Result<()> {
    match tokenizer.map(|t| t.vocab_size()) {
        Some(tokens) if tokens > model.vocab_size => Err(Error::input(format!(
            "the checkpoint's tokenizer has {tokens} tokens, but its model a vocab_size of {}: it is damaged",
            model.vocab_size
        ))),
        _ => Ok(()),
    }
}

/// The counters of a run at one moment.
pub struct Snapshot {
    /// Optimizer steps done.
    pub step: u64,
    /// Growths done.
    pub lineage: Vec<GrowthRecord>,
    /// Growths still to come, the last ones of the configuration.
    pub growths_left: usize,
    /// How far the validation loss is on the plateau that the next one waits for.
    pub plateau: Plateau,
    /// Best validation loss so far.
    pub best_val_loss: Option<f64>,
    /// What is usual of the training loss.
    pub losses: LossStatistics,
    /// How far in its data it is.
    pub position: Position,
}

/// Everything a run needs to go on, read from the device.
///
/// # Errors
/// [`Error::Diverged`] where a parameter is not finite: such a model is never stored. Device errors.
pub fn checkpoint(
    engine: &Engine,
    config: &RunConfig,
    data: &Dataset,
    trainer: &Trainer,
    at: Snapshot,
) -> Result<Checkpoint> {
    // The configuration of what is left: the model as it is now, and the growths still to come.
    let mut rest = config.clone();
    rest.model = trainer.model.clone();
    // Chosen by what this device has: another choice would add in another order.
    rest.train.loss_chunk_rows = trainer.shape().chunk_rows;
    rest.growth.drain(..rest.growth.len().saturating_sub(at.growths_left));
    let params = trainer.parameters()?;
    let (moment1, moment2) = trainer.moments()?;
    for (what, tensors) in [("parameter", &params), ("first moment of", &moment1), ("second moment of", &moment2)] {
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !tensor.data.iter().all(|x| x.is_finite())) {
            return Err(Error::Diverged(format!(
                "{what} \"{name}\" is not finite after step {}, so that step is not saved; earlier checkpoints are intact: \
                 lower train.lr (it is {}) or raise train.warmup_fraction and resume from the last one",
                at.step, config.train.lr
            )));
        }
    }
    let next_batch = at.position.next_batch(trainer.shape().batch);
    let meta = Meta {
        format: FORMAT,
        step: at.step,
        tokens_seen: at.position.tokens,
        seed: config.train.seed,
        config: to_json("the configuration", &rest)?,
        tokenizer: data.tokenizer.as_ref().map(|t| to_json("the tokenizer", t)).transpose()?,
        data: DataPosition { description: data.description.clone(), next_batch },
        cohorts: trainer.cohorts.clone(),
        lineage: at.lineage,
        adapter: engine.gpu.describe(),
        kernels: engine.kernels().names(),
        loss_scale: Some(trainer.loss_scale).filter(|_| trainer.is_mixed()),
        losses: at.losses,
        plateau: at.plateau,
        best_val_loss: at.best_val_loss,
        created_by: concat!("tokenformer ", env!("CARGO_PKG_VERSION")).to_string(),
    };
    Ok(Checkpoint { meta, params, moment1, moment2 })
}

fn to_json(what: &str, value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| Error::defect(format!("{what} cannot be stored: {e}")))
}

/// The tokenizer stored in a checkpoint.
///
/// # Errors
/// A stored tokenizer that is not one.
pub fn tokenizer(meta: &Meta) -> Result<Option<Tokenizer>> {
    let parse = |value: &serde_json::Value| {
        serde_json::from_value(value.clone())
            .map_err(|e| Error::input(format!("the tokenizer in the checkpoint is damaged: {e}")))
    };
    meta.tokenizer.as_ref().map(parse).transpose()
}

/// The data a configuration names. `known` is the tokenizer of the checkpoint a run resumes from; see
/// [`dataset_of_trained`] for checkpoints in general.
///
/// # Errors
/// Those of the data room: missing, empty, not UTF-8, too short; a text as `old_path` where there is no tokenizer.
pub fn dataset(config: &RunConfig, known: Option<Tokenizer>) -> Result<Dataset> {
    let d = &config.data;
    let corpus_seed = d.corpus_seed.unwrap_or(config.train.seed);
    let mut dataset = match (&d.path, known) {
        (None, Some(tokenizer)) => data::builtin_with(tokenizer, corpus_seed, d.corpus_sentences, d.val_fraction),
        (None, None) => data::builtin(corpus_seed, d.corpus_sentences, d.tokenizer, d.val_fraction),
        (Some(path), Some(tokenizer)) => data::open_with(tokenizer, path, d.val_path.as_deref(), d.val_fraction),
        (Some(path), None) => {
            data::open(path, d.val_path.as_deref(), d.tokenizer, d.val_fraction, Some(config.model.vocab_size))
        }
    }?;
    if let Some(old) = &d.old_path {
        let old = match dataset.tokenizer.clone() {
            Some(tokenizer) => data::open_with(tokenizer, old, None, d.val_fraction),
            // With a tokenizer of its own, its tokens would be others than those of the model.
            None if !data::is_shard(old) => Err(Error::input(format!(
                "{} is text, but the model is trained on token shards and has no tokenizer: name a token shard (.bin)",
                old.display()
            ))),
            None => data::open(old, None, d.tokenizer, d.val_fraction, Some(dataset.vocab_size)),
        };
        dataset.old_val = Some(old.map_err(|e| Error::input(format!("data.old_path: {e}")))?.val);
    }
    Ok(dataset)
}

/// The data a configuration names, for a model that was trained with `tokenizer` (`None`: on token shards).
///
/// # Errors
/// As [`dataset`], and text for a model that knows no tokenizer.
pub fn dataset_of_trained(config: &RunConfig, tokenizer: Option<Tokenizer>) -> Result<Dataset> {
    let trained_on_shards = tokenizer.is_none();
    let data = dataset(config, tokenizer)?;
    if trained_on_shards && data.tokenizer.is_some() {
        let text = config.data.path.as_deref().unwrap_or(Path::new("the built-in corpus"));
        return Err(Error::input(format!(
            "{} is text, but the checkpoint was trained on token shards and has no tokenizer: give a token shard (.bin) \
             with --data",
            text.display()
        )));
    }
    Ok(data)
}

/// The prompt of samples: as configured, or the tokenizer's usual one, or the first token of the data.
///
/// # Errors
/// A prompt with characters the tokenizer does not know.
pub fn sample_prompt(text: &str, data: &Dataset) -> Result<Vec<u32>> {
    let tokens = match &data.tokenizer {
        Some(tokenizer) if !text.is_empty() => {
            tokenizer.encode(text).map_err(|e| Error::input(format!("sample_prompt: {e}")))?
        }
        Some(tokenizer) => tokenizer.usual_prompt(),
        None => Vec::new(),
    };
    if tokens.is_empty() { data.train.window(0, 1) } else { Ok(tokens) }
}
