//! What a run is measured on.

use crate::config::{ModelConfig, RunConfig};
use crate::data::{Batch, Dataset, TokenSource, validation_batches};
use crate::error::Result;
use crate::train::disk::dataset::sample_prompt;
use crate::train::evaluate::ByteCount;

/// What a run is measured on: the same for all of its models.
pub(super) struct EvalSets {
    /// What samples begin with.
    pub(super) prompt: Vec<u32>,
    /// Of the data it trains on.
    pub(super) validation: Vec<Batch>,
    /// Bytes of text that are predicted there.
    pub(super) bytes: ByteCount,
    /// Of the data that the model knew before; empty where none are given.
    pub(super) old_validation: Vec<Batch>,
}

impl EvalSets {
    pub(super) fn new(config: &RunConfig, model: &ModelConfig, data: &Dataset) -> Result<Self> {
        let train = &config.train;
        data.check_length(model.seq_length)?;
        let rows = train.validation_rows(model)?;
        let batches = |of: &TokenSource| validation_batches(of, rows, train.batch_size, model.seq_length);
        let validation = batches(&data.val)?;
        let old_validation = data.old_val.as_ref().map_or_else(|| Ok(Vec::new()), batches)?;
        let bytes = ByteCount::of(&validation, data.tokenizer.as_ref());
        Ok(Self { bytes, prompt: sample_prompt(&train.sample_prompt, data)?, validation, old_validation })
    }
}
