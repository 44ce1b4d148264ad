//! The computations of a run, recorded: a training micro-batch, an evaluation batch, full logits, and a chunk of a
//! generation. The optimizer's update is [`super::update`]'s.
//!
//! Tensors that outlive a graph are shared by name through [`crate::runtime::memory::Memory`]; the names are
//! the constants here.

use super::{Inputs, hidden};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::graph::view::Strided;
use crate::graph::{Class, Graph, Tensor};
use crate::kernel::{Dtype, KernelTable};
use crate::ops::cross_entropy::{self, Head, head_loss};
use crate::ops::dropout::DRAW_WORDS;
use crate::ops::embedding::TokenRows;
use crate::ops::stats::STATS;

/// Token ids of a training or evaluation batch.
pub const TOKENS: &str = "tokens";
/// Targets of a training or evaluation batch.
pub const TARGETS: &str = "targets";
/// Rows of the batch sorted by token.
pub const SORTED_ROWS: &str = "sorted_rows";
/// Where each token's rows start.
pub const TOKEN_STARTS: &str = "token_starts";
/// Uniform block of a run at position 0.
pub const RUN: &str = "run";
/// Cosines and sines.
pub const ROPE: &str = "rope";
/// Loss, gradient norm, clip factor, finite flag of a training step.
pub const STATS_NAME: &str = "stats";
/// Sums of squares of the blocks of all gradients, for ranks that each have a share of them.
pub(crate) const NORM_PARTS: &str = "norm_parts";
/// Loss of evaluation batches.
pub(crate) const EVAL_STATS: &str = "eval_stats";
/// What draws the masks of dropout of a micro-batch.
pub(crate) const DROPOUT: &str = "dropout";
/// Scalars of an optimizer step.
pub(crate) const UPDATE: &str = "update";
/// Tokens of a logits pass or generation chunk, by rows: see [`chunk_tokens`].
const CHUNK_TOKENS: &str = "chunk_tokens";
/// Logits of a logits pass.
pub const LOGITS: &str = "logits";
/// Logits of the last row of a generation chunk.
pub(crate) const LAST_LOGITS: &str = "last_logits";
/// Uniform block of a generation.
pub(crate) const CHUNK_RUN: &str = "chunk_run";

/// Words of the run block.
pub(crate) const RUN_WORDS: usize = 4;

/// Name of the token buffer of a chunk of `rows`.
pub fn chunk_tokens(rows: usize) -> String {
    format!("{CHUNK_TOKENS}:{rows}")
}

/// Shape of one micro-batch and its weight in the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchShape {
    /// Sequences.
    pub batch: usize,
    /// Tokens a sequence.
    pub seq: usize,
    /// Micro-batches a step: each weighs 1 / grad_accum.
    pub grad_accum: usize,
    /// Most rows of logits held at once.
    pub chunk_rows: usize,
    /// Type of activations in training.
    pub precision: Dtype,
    /// Whether the backward computes the activations of a layer again.
    pub recompute: bool,
}

impl BatchShape {
    /// Tokens of a micro-batch.
    pub fn rows(&self) -> usize {
        self.batch * self.seq
    }

    fn head(&self, grad_accum: usize) -> Head {
        Head { chunk_rows: self.chunk_rows, weight: 1.0 / (self.rows() * grad_accum) as f64 }
    }
}

/// Parameters by name.
pub(crate) type Shapes = [(String, Vec<usize>)];

fn rope(g: &mut Graph, config: &ModelConfig) -> Tensor {
    g.state(ROPE, &[config.seq_length, config.rotary_width().max(2)])
}

fn batch_inputs(g: &mut Graph, config: &ModelConfig, shape: &BatchShape) -> Inputs {
    let rows = shape.rows();
    Inputs {
        batch: shape.batch,
        seq: shape.seq,
        tokens: g.state(TOKENS, &[rows]),
        index: None,
        run: g.state(RUN, &[RUN_WORDS]),
        rope: rope(g, config),
        cache: None,
        dropout: None,
        separate_layers: shape.recompute,
    }
}

/// Which micro-batch of an optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MicroBatch {
    /// Its gradients take the place of those of the step before.
    First,
    /// Its gradients are added to those that are there.
    Later,
}

/// Forward and backward of one micro-batch: adds to the loss in [`STATS_NAME`], and writes the gradients of what is
/// `trained`: parameters by name, with the shape of their last rows that are. In mixed precision the copies of parameters
/// are there, see [`copies`].
pub fn training(
    config: &ModelConfig,
    trained: &Shapes,
    shape: &BatchShape,
    which: MicroBatch,
    kernels: &KernelTable,
) -> Result<Graph> {
    let mut g = Graph::training(kernels);
    g.set_precision(shape.precision);
    g.keep_weights();
    if which == MicroBatch::First {
        g.overwrite_gradients();
    }
    let mut inputs = batch_inputs(&mut g, config, shape);
    let targets = g.state(TARGETS, &[shape.rows()]);
    inputs.index = Some(TokenRows {
        sorted_rows: g.state(SORTED_ROWS, &[shape.rows()]),
        starts: g.state(TOKEN_STARTS, &[config.vocab_size + 1]),
    });
    inputs.dropout = (config.dropout > 0.0).then(|| g.state(DROPOUT, &[DRAW_WORDS]));
    let stats = g.state(STATS_NAME, &[STATS]);
    g.lay_out_gradients(trained)?;
    let (h, _) = hidden(&mut g, config, &inputs)?;
    let head = g.find(config.head())?;
    head_loss(&mut g, h, head, targets, stats, shape.head(shape.grad_accum))?;
    g.backward()?;
    g.drop_unread();
    if shape.recompute {
        g.recompute();
    }
    Ok(g)
}

/// Copies of all parameters in `precision`, for [`training`] to read: made after parameters were written by the host, and
/// from then on kept as the parameters are by [`super::update`].
pub fn copies(config: &ModelConfig, precision: Dtype, kernels: &KernelTable) -> Result<Graph> {
    let mut g = Graph::forward_only(kernels);
    g.set_precision(precision);
    for parameter in g.pack(&config.param_shapes(), Class::Parameter, str::to_owned)?.storages {
        let copy = g.weight_copy(parameter);
        g.cast(parameter, copy)?;
    }
    Ok(g)
}

/// Adds the mean loss of one batch to [`EVAL_STATS`], in f32 whatever the precision of training.
pub fn evaluation(config: &ModelConfig, shape: &BatchShape, kernels: &KernelTable) -> Result<Graph> {
    let mut g = Graph::forward_only(kernels);
    // No more bytes of logits than in training, which may hold many f16 rows on a GPU.
    let fewer = shape.chunk_rows * shape.precision.bytes() as usize / 4;
    let shape = BatchShape { chunk_rows: if g.on_gpu() { fewer.max(1) } else { shape.chunk_rows }, ..*shape };
    let inputs = batch_inputs(&mut g, config, &shape);
    let targets = g.state(TARGETS, &[shape.rows()]);
    let stats = g.state(EVAL_STATS, &[STATS]);
    let (h, _) = hidden(&mut g, config, &inputs)?;
    let head = g.find(config.head())?;
    head_loss(&mut g, h, head, targets, stats, shape.head(1))?;
    Ok(g)
}

/// Full logits of `batch` sequences of `seq` tokens in [`LOGITS`], read from [`chunk_tokens`], at position
/// 0. The outputs of the layers are kept as `layers.{i}.out` where `keep_layers` is set.
pub fn logits(
    config: &ModelConfig,
    batch: usize,
    seq: usize,
    keep_layers: bool,
    kernels: &KernelTable,
) -> Result<Graph> {
    let mut g = Graph::forward_only(kernels);
    let inputs = Inputs {
        batch,
        seq,
        tokens: g.state(&chunk_tokens(batch * seq), &[batch * seq]),
        index: None,
        run: g.state(RUN, &[RUN_WORDS]),
        rope: rope(&mut g, config),
        cache: None,
        dropout: None,
        separate_layers: keep_layers,
    };
    let (h, layers) = hidden(&mut g, config, &inputs)?;
    let head = g.find(config.head())?;
    let logits = cross_entropy::logits(&mut g, h, head)?;
    g.keep(logits, LOGITS);
    if keep_layers {
        for (i, layer) in layers.into_iter().enumerate() {
            g.keep(layer, &format!("layers.{i}.out"));
        }
    }
    Ok(g)
}

/// A chunk of `rows` tokens appended to the key/value caches at the position in [`CHUNK_RUN`]; logits of
/// its last row in [`LAST_LOGITS`]. The caches hold `seq_length` positions.
pub fn chunk(config: &ModelConfig, rows: usize, kernels: &KernelTable) -> Result<Graph> {
    let mut g = Graph::forward_only(kernels);
    let inputs = Inputs {
        batch: 1,
        seq: rows,
        tokens: g.state(&chunk_tokens(rows), &[rows]),
        index: None,
        run: g.state(CHUNK_RUN, &[RUN_WORDS]),
        rope: rope(&mut g, config),
        cache: Some(config.seq_length),
        dropout: None,
        separate_layers: false,
    };
    let (h, _) = hidden(&mut g, config, &inputs)?;
    let head = g.find(config.head())?;
    let logits = g.state(LAST_LOGITS, &[config.vocab_size]);
    let last = Strided { storage: h, offset: (rows - 1) * config.hidden_size, stride: 0 };
    cross_entropy::record_logits(&mut g, last, head, logits, 1)?;
    Ok(g)
}
