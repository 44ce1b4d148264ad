//! Where a run starts and what is kept of it: between checkpoints and a model in training.

use super::growth::HostModel;
use super::trainer::{Trainer, first_cohort};
use crate::checkpoint::{Checkpoint, DataPosition, FORMAT, GrowthRecord, Meta};
use crate::config::{ModelConfig, RunConfig};
use crate::data::{self, Dataset, Tokenizer};
use crate::error::{Error, Result};
use crate::gpu::engine::Engine;
use crate::model::init;

/// The model and counters a run starts from.
#[derive(Debug, Clone)]
pub struct Start {
    /// Parameters, moments and cohorts.
    pub host: HostModel,
    /// Optimizer steps already done.
    pub step: u64,
    /// Growths already done.
    pub lineage: Vec<GrowthRecord>,
    /// Best validation loss so far.
    pub best_val_loss: Option<f64>,
}

impl Start {
    /// A new model of `config`, with every scale tau fixed to its initial value.
    pub fn fresh(config: &ModelConfig, seed: u64) -> Self {
        let mut model = config.clone();
        model.freeze_tau();
        let params = init::initial(&model, seed);
        let cohorts = vec![first_cohort(&model)];
        let host = HostModel { model, params, moment1: init::Tensors::new(), moment2: init::Tensors::new(), cohorts };
        Self { host, step: 0, lineage: Vec::new(), best_val_loss: None }
    }

    /// The state in a checkpoint, and the configuration of its run.
    ///
    /// # Errors
    /// A configuration this version does not know.
    pub fn resumed(checkpoint: Checkpoint) -> Result<(Self, RunConfig)> {
        let config: RunConfig = checkpoint.meta.config()?;
        let cohorts = match checkpoint.meta.cohorts.is_empty() {
            true => vec![first_cohort(&config.model)],
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
            best_val_loss: checkpoint.meta.best_val_loss,
        };
        Ok((start, config))
    }
}

/// The counters of a run at one moment.
pub struct Snapshot {
    /// Optimizer steps done.
    pub step: u64,
    /// Growths done.
    pub lineage: Vec<GrowthRecord>,
    /// Best validation loss so far.
    pub best_val_loss: Option<f64>,
}

/// Everything a run needs to go on, read from the device.
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
    rest.growth.retain(|g| g.at_step as u64 > at.step || !at.lineage.iter().any(|r| r.at_step == g.at_step as u64));
    let (moment1, moment2) = trainer.moments()?;
    let accum = trainer.grad_accum() as u64;
    let meta = Meta {
        format: FORMAT,
        step: at.step,
        tokens_seen: at.step * accum * (config.train.batch_size * trainer.model.seq_length) as u64,
        seed: config.train.seed,
        config: to_json("the configuration", &rest)?,
        tokenizer: data.tokenizer.as_ref().map(|t| to_json("the tokenizer", t)).transpose()?,
        data: DataPosition { description: data.description.clone(), next_batch: at.step * accum },
        cohorts: trainer.cohorts.clone(),
        lineage: at.lineage,
        adapter: engine.gpu.describe(),
        best_val_loss: at.best_val_loss,
        created_by: concat!("tokenformer ", env!("CARGO_PKG_VERSION")).to_string(),
    };
    Ok(Checkpoint { meta, params: trainer.parameters()?, moment1, moment2 })
}

fn to_json(what: &str, value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| Error::usage(format!("{what} cannot be stored: {e}; this is a defect")))
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

/// The data a configuration names. `known` is the tokenizer of the checkpoint a run resumes from.
///
/// # Errors
/// Those of the data room: missing, empty, not UTF-8, too short.
pub fn dataset(config: &RunConfig, known: Option<Tokenizer>) -> Result<Dataset> {
    let d = &config.data;
    match (&d.path, known) {
        (None, Some(tokenizer)) => data::builtin_with(tokenizer, config.train.seed, d.corpus_sentences, d.val_fraction),
        (None, None) => data::builtin(config.train.seed, d.corpus_sentences, d.tokenizer, d.val_fraction),
        (Some(path), Some(tokenizer)) => data::open_with(tokenizer, path, d.val_path.as_deref(), d.val_fraction),
        (Some(path), None) => {
            data::open(path, d.val_path.as_deref(), d.tokenizer, d.val_fraction, Some(config.model.vocab_size))
        }
    }
}

/// The prompt of samples: as configured, or a line break, or the first token of the data.
///
/// # Errors
/// A prompt with characters the tokenizer does not know.
pub fn sample_prompt(text: &str, data: &Dataset) -> Result<Vec<u32>> {
    let tokens = match &data.tokenizer {
        Some(tokenizer) if !text.is_empty() => tokenizer.encode(text)?,
        Some(tokenizer) => tokenizer.encode("\n").unwrap_or_default(),
        None => Vec::new(),
    };
    if tokens.is_empty() { data.train.window(0, 1) } else { Ok(tokens) }
}
