//! Logits and losses of a model that is not in training: for `grow` and `prune` on a file, and for `eval`.

use super::trainer::{batch_shape, upload_parameters, upload_rope};
use crate::config::{ModelConfig, TrainConfig};
use crate::data::{Batch, IGNORED, Tokenizer};
use crate::error::Result;
use crate::gpu::engine::{Engine, Program};
use crate::graph::plan::Plan;
use crate::model::graphs;
use crate::model::init::Tensors;
use crate::ops::stats::Stats;
use crate::runtime::device::Device;
use crate::runtime::memory::Memory;

/// Logits (tokens, vocab_size) of one sequence of at most `seq_length` tokens.
pub fn logits(device: &Device, model: &ModelConfig, params: &Tensors, tokens: &[u32]) -> Result<Vec<f32>> {
    let Device { engine, kernels, .. } = device;
    let graph = graphs::logits(model, 1, tokens.len(), false, kernels)?;
    let plan = Plan::new(&graph)?;
    let (memory, programs) = Memory::allocate(engine, &[&plan])?;
    upload_rope(engine, &memory, model)?;
    upload_parameters(engine, &memory, model, params)?;
    engine.write(memory.named(&graphs::chunk_tokens(tokens.len()))?, tokens);
    for program in &programs {
        engine.run(program)?;
    }
    engine.read(memory.named(graphs::LOGITS)?)
}

/// A model ready to have its loss measured, with any parameters of its shape.
pub struct Evaluator<'e> {
    engine: &'e Engine,
    model: ModelConfig,
    memory: Memory,
    programs: Vec<Program>,
}

impl<'e> Evaluator<'e> {
    /// Plans and allocates for batches of the shape that `train` says, in f32.
    ///
    /// # Errors
    /// A model that does not fit the device.
    pub fn new(device: &'e Device, model: &ModelConfig, train: &TrainConfig) -> Result<Self> {
        let Device { engine, kernels, .. } = device;
        let graph = graphs::evaluation(model, &batch_shape(model, train, kernels)?, kernels)?;
        let plan = Plan::new(&graph)?;
        let (memory, programs) = Memory::allocate(engine, &[&plan])?;
        upload_rope(engine, &memory, model)?;
        Ok(Self { engine, model: model.clone(), memory, programs })
    }

    /// Puts `params` on the device.
    ///
    /// # Errors
    /// A missing parameter or one of another shape is named.
    pub fn load(&self, params: &Tensors) -> Result<()> {
        upload_parameters(self.engine, &self.memory, &self.model, params)
    }

    /// Loss of a batch over its number of tokens, nats; targets that are `IGNORED` add nothing.
    ///
    /// # Errors
    /// Those of the device.
    pub fn loss(&self, batch: &Batch) -> Result<f64> {
        let stats = self.memory.named(graphs::EVAL_STATS)?;
        self.engine.write(self.memory.named(graphs::TOKENS)?, &batch.tokens);
        self.engine.write(self.memory.named(graphs::TARGETS)?, &batch.targets);
        self.engine.write(stats, &[0.0_f32]);
        for program in &self.programs {
            self.engine.run(program)?;
        }
        Ok(f64::from(Stats::from_words(&self.engine.read(stats)?).loss))
    }

    /// Mean loss of `params` over the targets of `batches` that count, nats per token.
    ///
    /// # Errors
    /// As [`Self::load`] and [`Self::loss`].
    pub fn mean(&self, params: &Tensors, batches: &[Batch]) -> Result<f64> {
        self.load(params)?;
        let losses: Vec<f64> = batches.iter().map(|batch| self.loss(batch)).collect::<Result<_>>()?;
        Ok(losses.iter().sum::<f64>() / batches.iter().map(Batch::counted).sum::<f64>())
    }
}

/// Tokens that are predicted, and the bytes of text that they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ByteCount {
    /// Targets that count.
    pub tokens: u64,
    /// Their bytes; 0 where nobody knows them.
    pub bytes: u64,
}

impl ByteCount {
    /// Of the targets of these batches.
    pub(crate) fn of(batches: &[Batch], tokenizer: Option<&Tokenizer>) -> Self {
        let mut all = Self::default();
        batches.iter().for_each(|batch| all.add(batch, tokenizer));
        all
    }

    /// Counts those of one more batch.
    pub(crate) fn add(&mut self, batch: &Batch, tokenizer: Option<&Tokenizer>) {
        for &token in batch.targets.iter().filter(|token| **token != IGNORED) {
            self.tokens += 1;
            self.bytes += tokenizer.map_or(0, |tokenizer| tokenizer.bytes_of(token)) as u64;
        }
    }

    /// Bits per byte at a loss in nats per token; `None` where the bytes are not known.
    pub(crate) fn bits(self, loss: f64) -> Option<f64> {
        (self.bytes > 0).then(|| loss * self.tokens as f64 / std::f64::consts::LN_2 / self.bytes as f64)
    }
}

/// Mean cross-entropy of the next token, nats, from full logits of one sequence.
pub(crate) fn mean_loss(logits: &[f32], tokens: &[u32], vocab: usize) -> f64 {
    let rows = logits.chunks(vocab).zip(tokens.iter().skip(1));
    let (mut sum, mut count) = (0.0, 0);
    for (row, &target) in rows {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let total: f64 = row.iter().map(|&x| f64::from(x - largest).exp()).sum();
        sum += total.ln() - f64::from(row.get(target as usize).copied().unwrap_or(f32::MIN) - largest);
        count += 1;
    }
    sum / f64::from(count.max(1))
}
