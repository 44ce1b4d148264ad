//! The computations of a run, recorded: a training micro-batch, the optimizer's update, an evaluation
//! batch, full logits, and a chunk of a generation.
//!
//! Tensors that outlive a graph are shared by name through [`crate::runtime::memory::Memory`]; the names are
//! the constants here.

use super::{Inputs, hidden};
use crate::config::{ModelConfig, TrainConfig};
use crate::error::Result;
use crate::graph::pack::{Packed, Piece};
use crate::graph::view::Strided;
use crate::graph::{Class, Graph, Tensor, grad_name, moment_names};
use crate::kernel::{Dtype, KernelTable};
use crate::ops::adamw::{Segment, Trained, UPDATE_WORDS, adamw};
use crate::ops::cross_entropy::{self, Head, head_loss};
use crate::ops::embedding::TokenRows;
use crate::ops::grad_norm::{self, grad_norm};
use crate::ops::stats::STATS;
use std::collections::BTreeMap;
use std::ops::Range;

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
/// from then on kept as the parameters are by [`update`].
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

/// Where the gradients of all that trains and the parameters lie, and which elements of them are updated how.
struct Updated {
    grads: Packed,
    parameters: Packed,
    /// By the numbers of their storages, for each pair that has any.
    segments: Vec<([usize; 2], Vec<Segment>)>,
}

impl Updated {
    fn of(
        g: &mut Graph,
        config: &ModelConfig,
        trained: &Shapes,
        segments: &BTreeMap<String, Vec<Segment>>,
    ) -> Result<Self> {
        let parameters = g.pack(&config.param_shapes(), Class::Parameter, str::to_owned)?;
        let grads = g.pack(trained, Class::Gradient, grad_name)?;
        let of_name: BTreeMap<&str, &Piece> =
            parameters.pieces.iter().map(|piece| (piece.name.as_str(), piece)).collect();
        let mut all = Vec::new();
        for (i, &grad) in grads.storages.iter().enumerate() {
            for (j, &parameter) in parameters.storages.iter().enumerate() {
                let inside = grads.pieces.iter().filter_map(|piece| {
                    let whole = of_name.get(piece.name.as_str())?;
                    let (of_grad, of_parameter) = (g.view_of(piece.tensor)?, g.view_of(whole.tensor)?);
                    let both = of_grad.storage == grad && of_parameter.storage == parameter;
                    let elements = g.shape(whole.tensor).iter().product::<usize>();
                    both.then(|| {
                        let of_piece = whole.first..whole.first + elements;
                        let segments = segments.get(&piece.of).map_or(&[][..], Vec::as_slice);
                        (segments, of_piece, of_parameter.offset, of_grad.offset)
                    })
                });
                let placed = inside.flat_map(|(segments, of_piece, first, state)| {
                    let of_piece = segments.iter().filter_map(move |segment| segment.within(&of_piece));
                    of_piece.map(move |s| Segment {
                        first: s.first + first,
                        state: s.state + state,
                        moment: s.moment + state,
                        ..s
                    })
                });
                all.push(([i, j], joined(placed)));
            }
        }
        Ok(Self { grads, parameters, segments: all })
    }
}

/// A share of all gradients, for which a process keeps the optimizer's state: ranges of their storages, one storage after the
/// other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shard(pub Vec<Range<usize>>);

impl Shard {
    /// The name of what belongs to one of the ranges.
    pub(crate) fn name(range: usize) -> String {
        format!("shard {range}")
    }

    /// The ranges of one storage that begins at `start` and has so many elements, by number.
    fn of_storage(&self, start: usize, elements: usize) -> impl Iterator<Item = (usize, Range<usize>, usize)> {
        self.0.iter().enumerate().filter_map(move |(i, range)| {
            let (first, end) = (range.start.max(start), range.end.min(start + elements));
            (first < end).then(|| (i, first - start..end - start, first - range.start))
        })
    }
}

/// Gradient norm, clipping and AdamW over all that is `trained`, as for [`training`]; `segments` gives its cohorts, and
/// `precision` that of the copies of parameters, which change with them. With a `shard` only that is updated, and the blocks
/// of the norm are there, see [`norm`].
pub fn update(
    config: &ModelConfig,
    train: &TrainConfig,
    trained: &Shapes,
    segments: &BTreeMap<String, Vec<Segment>>,
    precision: Dtype,
    shard: Option<&Shard>,
    kernels: &KernelTable,
) -> Result<Graph> {
    let mut g = Graph::forward_only(kernels);
    g.set_precision(precision);
    let stats = g.state(STATS_NAME, &[STATS]);
    let scalars = g.state(UPDATE, &[UPDATE_WORDS]);
    let Updated { grads, parameters, segments } = Updated::of(&mut g, config, trained, segments)?;
    let of_moments = shard.map(|Shard(ranges)| {
        ranges.iter().enumerate().map(|(i, range)| (Shard::name(i), vec![range.len()])).collect::<Vec<_>>()
    });
    let of_moments = of_moments.as_deref().unwrap_or(trained);
    let m = g.pack(of_moments, Class::Moment, |name| moment_names(name).0)?;
    let v = g.pack(of_moments, Class::Moment, |name| moment_names(name).1)?;
    let copies: Vec<Option<Tensor>> =
        parameters.storages.iter().map(|&p| (precision != Dtype::F32).then(|| g.weight_copy(p))).collect();
    match shard {
        None => grad_norm(&mut g, &grads.sums, stats, train.grad_clip)?,
        Some(_) => {
            let parts = g.state(NORM_PARTS, &[grad_norm::parts_of(&grads.sums), 2]);
            grad_norm::finish_norm(&mut g, parts, stats, train.grad_clip)?;
        }
    }
    for ([i, j], segments) in &segments {
        let (grad, parameter, copy) = (grads.storages[*i], parameters.storages[*j], copies[*j]);
        let Some(shard) = shard else {
            let trained = Trained { parameter, grad, m: m.storages[*i], v: v.storages[*i], copy };
            adamw(&mut g, scalars, stats, trained, segments)?;
            continue;
        };
        let length = |storage: &Tensor| g.shape(*storage).iter().product::<usize>();
        let start: usize = grads.storages[..*i].iter().map(length).sum();
        let elements = length(&grad);
        for (k, (&m_storage, &v_storage)) in m.storages.iter().zip(&v.storages).enumerate() {
            let ranges = shard.of_storage(start, elements).filter_map(|(number, range, before)| {
                let view = g.view_of(m.pieces.get(number)?.tensor)?;
                (view.storage == m.storages[k]).then_some((range, view.offset + before))
            });
            let ranges: Vec<(Range<usize>, usize)> = ranges.collect();
            let owned =
                ranges.iter().flat_map(|(range, moment)| segments.iter().filter_map(|s| s.owned(range, *moment)));
            let owned: Vec<Segment> = owned.collect();
            let trained = Trained { parameter, grad, m: m_storage, v: v_storage, copy };
            adamw(&mut g, scalars, stats, trained, &owned)?;
        }
    }
    Ok(g)
}

/// The blocks of the gradient norm, in [`NORM_PARTS`], for ranks that each have a share of the gradients.
pub fn norm(trained: &Shapes, kernels: &KernelTable) -> Result<Graph> {
    let mut g = Graph::forward_only(kernels);
    let grads = g.pack(trained, Class::Gradient, grad_name)?;
    let parts = g.state(NORM_PARTS, &[grad_norm::parts_of(&grads.sums), 2]);
    grad_norm::square_sums(&mut g, &grads.sums, parts)?;
    Ok(g)
}

/// Where what a shard updates lies among the parameters: names of their storages and ranges of elements, in order.
pub(crate) fn updated_parameters(
    config: &ModelConfig,
    trained: &Shapes,
    segments: &BTreeMap<String, Vec<Segment>>,
    shard: &Shard,
    kernels: &KernelTable,
) -> Result<Vec<(String, Range<usize>)>> {
    let mut g = Graph::forward_only(kernels);
    let Updated { grads, parameters, segments } = Updated::of(&mut g, config, trained, segments)?;
    let length = |storage: &Tensor| g.shape(*storage).iter().product::<usize>();
    let mut found = Vec::new();
    for ([i, j], segments) in &segments {
        let start: usize = grads.storages[..*i].iter().map(length).sum();
        let name = &g.tensors()[parameters.storages[*j].index()].name;
        for (_, range, _) in shard.of_storage(start, length(&grads.storages[*i])) {
            let owned = segments.iter().filter_map(|segment| segment.owned(&range, 0));
            found.extend(owned.map(|s| (name.clone(), s.first..s.first + s.n)));
        }
    }
    Ok(found)
}

/// Neighbours that are updated alike as one, over the gaps between packed tensors: those hold zeros and keep them.
fn joined(segments: impl Iterator<Item = Segment>) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::new();
    for next in segments {
        match joined.last_mut() {
            Some(last)
                if (last.cohort, last.decay) == (next.cohort, next.decay)
                    && next.first - last.first == next.state - last.state
                    && next.state - last.state == next.moment - last.moment =>
            {
                last.n = next.first + next.n - last.first
            }
            _ => joined.push(next),
        }
    }
    joined
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
        separate_layers: false,
    };
    let (h, _) = hidden(&mut g, config, &inputs)?;
    let head = g.find(config.head())?;
    let logits = g.state(LAST_LOGITS, &[config.vocab_size]);
    let last = Strided { storage: h, offset: (rows - 1) * config.hidden_size, stride: 0 };
    cross_entropy::record_logits(&mut g, last, head, logits, 1)?;
    Ok(g)
}
