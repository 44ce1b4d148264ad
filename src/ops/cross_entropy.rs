//! The head: logits against the embedding or a matrix of its shape, cross-entropy and its gradient, a chunk of rows at a time.
//!
//! logits = h E^T,  loss = weight * sum over rows of (logsumexp(logits_r) - logits_r,target)   (nats)
//! In training the gradient of the loss is computed with it and never more than `chunk_rows` rows of
//! logits exist: dlogits replaces logits, dh = dlogits E, dE += dlogits^T h.
//!
//! Of an embedding in parts each part makes its columns of the logits, a term of dh, and its rows of dE.

use super::HALF_GRADIENT_TOLERANCE;
use super::matmul::{self, Layout, MAX_SUM, Product};
use super::stats::{ReduceDims, STATS, fresh_stats};
use super::{Case, Input};
/// A target that is not counted.
pub use crate::data::IGNORED;
use crate::error::Result;
use crate::graph::table::{Part, rows_of_a_sum};
use crate::graph::view::Strided;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Dtype, Kernel, parameter_block, word};

static FORWARD: Kernel = Kernel::new("cross_entropy.wgsl", "forward", &[Read, Write, Write, Read]);
/// The schedule for GPUs.
static FORWARD_GPU: Kernel = Kernel::new("cross_entropy_gpu.wgsl", "forward", &[Read, Write, Write, Read]);
static SUM_LOSSES: Kernel = Kernel::new("reduce.wgsl", "sum_losses", &[Read, Write]);

parameter_block! {
    /// The parameter block of `shaders/cross_entropy.wgsl` and `shaders/cross_entropy_gpu.wgsl`.
    pub(crate) struct CrossEntropyDims {
        rows: u32,
        vocab: u32,
        first_row: u32,
        weight: f32,
        gradient: u32,
    }
}

/// Settings of the head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// Most rows of logits held at once.
    pub chunk_rows: usize,
    /// Weight of each row in the loss: 1 / rows counted, over all micro-batches of a step.
    pub weight: f64,
}

/// Adds the loss of h (R, C) against `targets` (R) to that in `stats`, which holds the loss scale: see [`super::stats::Stats`].
pub(crate) fn head_loss(g: &mut Graph, h: Tensor, embed: Tensor, targets: Tensor, stats: Tensor, head: Head) -> Result<()> {
    let ((rows, width), (vocab, _)) = (g.matrix(h)?, g.matrix(embed)?);
    let losses = g.statistic("losses", &[rows]);
    let training = g.is_training();
    let gradients = if training { Some(Gradients::new(g, h, embed)?) } else { None };
    for first in (0..rows).step_by(head.chunk_rows.max(1)) {
        let chunk = head.chunk_rows.max(1).min(rows - first);
        let logits = g.activation("logits", &[chunk, vocab]);
        let from_first = |storage| Strided { storage, offset: first * width, stride: 0 };
        record_logits(g, from_first(h), embed, logits, chunk)?;
        let dims = CrossEntropyDims {
            rows: word(chunk),
            vocab: word(vocab),
            first_row: word(first),
            weight: head.weight as f32,
            gradient: u32::from(training),
        };
        let kernel = forward(g, vocab);
        let call = g.call(kernel).bind(&[targets, logits, losses, stats]);
        call.parameters(dims).groups(chunk).record()?;
        if let Some(Gradients { dembed, dh, .. }) = &gradients {
            let sum = rows_of_a_sum([vocab, width]);
            let columns = |part: &Part| Strided { storage: logits, offset: part.first, stride: 0 };
            for part in g.parts(embed) {
                let weight = g.weight(part.tensor)?;
                let product = Product::new(Layout::NN, [chunk, width, part.rows]).of_columns(vocab).in_sums_of(sum);
                product.adding(part.first > 0).record(g, columns(&part), weight, from_first(*dh))?;
            }
            for (part, (dpart, add)) in g.parts(embed).iter().zip(dembed) {
                let product = Product::new(Layout::TN, [part.rows, width, chunk]).of_columns(vocab);
                product.adding(*add || first > 0).record(g, columns(part), from_first(h), *dpart)?;
            }
        }
    }
    if let Some(Gradients { dh, to, .. }) = gradients.filter(|gradients| gradients.dh != gradients.to) {
        g.cast(dh, to)?;
    }
    let dims = ReduceDims { n: word(rows), first_part: 0, value: head.weight as f32 };
    g.call(&SUM_LOSSES).bind(&[losses, stats]).parameters(dims).record()
}

/// Where the gradients of the head go.
struct Gradients {
    /// Of each part of the embedding, and whether it is added to what is there.
    dembed: Vec<(Tensor, bool)>,
    /// The sums that make that of h.
    dh: Tensor,
    /// It itself.
    to: Tensor,
}

impl Gradients {
    fn new(g: &mut Graph, h: Tensor, embed: Tensor) -> Result<Self> {
        let ((rows, width), (vocab, _)) = (g.matrix(h)?, g.matrix(embed)?);
        let parts = g.parts(embed);
        let dembed = parts.iter().map(|part| g.grad_target(part.tensor)).collect::<Result<_>>()?;
        let (to, _) = g.grad_target(h)?;
        // Sums of few rows are many, and each would be rounded to f16.
        let rounded = g.dtype(to) == Dtype::F16 && rows_of_a_sum([vocab, width]) < MAX_SUM;
        let dh = if rounded { g.statistic("dh", &[rows, width]) } else { to };
        Ok(Self { dembed, dh, to })
    }
}

/// Records the logits (`rows`, V) of so many rows of h, from where `h` says on.
pub(crate) fn record_logits(g: &mut Graph, h: Strided, embed: Tensor, logits: Tensor, rows: usize) -> Result<()> {
    let (vocab, width) = g.matrix(embed)?;
    for part in g.parts(embed) {
        let weight = g.weight(part.tensor)?;
        let to = Strided { storage: logits, offset: part.first, stride: 0 };
        Product::new(Layout::NT, [rows, part.rows, width]).into_columns(vocab).record(g, h, weight, to)?;
    }
    Ok(())
}

/// Cross-entropy alone: `logits` (R, V) are replaced by their gradient times the loss scale in `stats`; losses (R) are
/// returned.
pub fn cross_entropy(g: &mut Graph, logits: Tensor, targets: Tensor, stats: Tensor, weight: f64) -> Result<Tensor> {
    let (rows, vocab) = g.matrix(logits)?;
    let losses = g.statistic("losses", &[rows]);
    let dims =
        CrossEntropyDims { rows: word(rows), vocab: word(vocab), first_row: 0, weight: weight as f32, gradient: 1 };
    let kernel = forward(g, vocab);
    let call = g.call(kernel).bind(&[targets, logits, losses, stats]);
    call.parameters(dims).groups(rows).record()?;
    Ok(losses)
}

fn forward(g: &Graph, vocab: usize) -> &'static Kernel {
    if g.on_gpu() { FORWARD_GPU.for_width(vocab) } else { &FORWARD }
}

/// Logits (R, V) of h (R, C), for comparing models.
pub(crate) fn logits(g: &mut Graph, h: Tensor, embed: Tensor) -> Result<Tensor> {
    let ((rows, _), (vocab, _)) = (g.matrix(h)?, g.matrix(embed)?);
    let logits = g.activation("logits", &[rows, vocab]);
    record_logits(g, h.into(), embed, logits, rows)?;
    Ok(logits)
}

fn reference(sizes: [usize; 3], weight: f64, h: &[f64], embed: &[f64], targets: &[f64]) -> f64 {
    let [rows, vocab, width] = sizes;
    let logits = matmul::reference(Layout::NT, [rows, vocab, width], h, embed);
    let row_loss = |row: &[f64], target: f64| {
        let largest = row.iter().copied().fold(f64::MIN, f64::max);
        largest + row.iter().map(|x| (x - largest).exp()).sum::<f64>().ln() - row[target as usize]
    };
    let counted = logits.chunks(vocab).zip(targets).filter(|(_, t)| **t != f64::from(IGNORED));
    weight * counted.map(|(row, &t)| row_loss(row, t)).sum::<f64>()
}

/// Largest relative error of dh = sum of dlogits E, one row, in f16: with nothing to average it, rounding may add up.
///
/// Of every term, E and dlogit are rounded once, by 2^-11 of it at most. A logit is off by 2^-10 of itself, from E and its own
/// rounding, which moves each dlogit by up to 2^-9 of the largest logit. The terms may cancel: their sizes count against
/// the size of the sum.
fn half_bound([vocab, width]: [usize; 2], h: &[f64], embed: &[f64], target: usize) -> f64 {
    let logits = matmul::reference(Layout::NT, [1, vocab, width], h, embed);
    let largest = logits.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
    let dlogit = |v: usize| logits[v].exp() / sum - f64::from(u8::from(v == target));
    let norm = |of: fn(f64) -> f64| {
        let column = |c| (0..vocab).map(|v| of(dlogit(v) * embed[v * width + c])).sum::<f64>();
        (0..width).map(|c| column(c) * column(c)).sum::<f64>().sqrt()
    };
    let cancelled = norm(f64::abs) / norm(|x| x);
    (cancelled * (2.0 + 4.0 * largest) + 1.0) / 2048.0
}

/// Names of inputs that are parts of the embedding.
const PARTS: [&str; 3] = ["embed", "embed from part 1", "embed from part 2"];

/// `parts`: how many rows of the embedding each of its parts has.
fn case(rows: usize, parts: &'static [usize], width: usize, chunk_rows: usize) -> Case {
    let vocab = parts.iter().sum();
    let head = Head { chunk_rows, weight: 1.0 / rows as f64 };
    let targets = (0..rows).map(|r| if r % 5 == 4 { IGNORED } else { (r * 31 % vocab) as u32 }).collect();
    let in_parts = if parts.len() > 1 { format!(" in parts {parts:?}") } else { String::new() };
    let name = format!("{rows}x{vocab} of width {width}{in_parts}, chunks of {chunk_rows}");
    let known = [
        Input::normal("h", &[rows, width], 1.0),
        Input::words("targets", &[rows], targets),
        Input::floats("stats", &[STATS], fresh_stats(1.0).to_vec()),
    ];
    let of_part = |(&name, &rows): (&&'static str, &usize)| Input::parameter(name, &[rows, width], 1.0);
    let inputs: Vec<Input> = known.into_iter().chain(PARTS.iter().zip(parts).map(of_part)).collect();
    let values: Vec<Vec<f64>> = inputs.iter().map(|input| input.values(&name).1).collect();
    let one_row = if rows == 1 { half_bound([vocab, width], &values[0], &values[3..].concat(), 0) } else { 0.0 };
    let half_gradient = HALF_GRADIENT_TOLERANCE.max(one_row);
    Case {
        op: "cross_entropy",
        half_gradient,
        inputs,
        build: Box::new(move |g, t| {
            let embed = if let [one] = t[3..] { one } else { g.in_parts("embed", &t[3..])? };
            head_loss(g, t[0], embed, t[1], t[2], head)?;
            Ok(vec![t[2]])
        }),
        reference: Box::new(move |x| {
            let loss = reference([rows, vocab, width], head.weight, &x[0], &x[3..].concat(), &x[1]);
            // In f64: the loss is not rounded.
            let [_, rest @ ..] = fresh_stats(1.0).map(f64::from);
            vec![[&[loss][..], &rest].concat()]
        }),
        seeded: false,
        name,
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    let whole = [
        (1, &[2][..], 1, 8),
        (18, &[37], 16, 7),
        (48, &[257], 12, 48),
        (33, &[65], 20, 16),
        // What a lane of the schedule for GPUs reads in one turn, and past it, at odd and at even widths.
        (5, &[5003], 4, 3),
        (3, &[4612], 4, 3),
    ];
    // Columns of logits from odd and from even places on.
    let in_parts = [(18, &[37, 100][..], 16, 7), (33, &[64, 128, 8], 20, 16)];
    let of = |(rows, parts, width, chunk_rows)| case(rows, parts, width, chunk_rows);
    whole.into_iter().chain(in_parts).map(of).collect()
}

pub(super) fn large_cases() -> Vec<Case> {
    // The gradient of the table sums over more rows than software drivers can be trusted with.
    vec![Case { gradient: false, ..case(65_539, &[3], 2, 65_539) }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EMBEDDING;
    use crate::graph::Class;
    use crate::kernel::{KernelTable, Target};

    /// Terms of each product of dh, in parts of 128 MiB and in one piece: the same sums.
    #[test]
    fn sums_over_the_vocabulary_are_the_same_in_parts() {
        let terms = |shape: [usize; 2], max_binding: u64| {
            let target = Target { max_binding, max_buffer: 4 << 30, ..Target::WEBGPU };
            let mut g = Graph::training(&KernelTable::defaults(target));
            let packed = g.pack(&[(EMBEDDING.to_owned(), shape.to_vec())], Class::Parameter, str::to_owned).unwrap();
            let h = g.activation("h", &[5, shape[1]]);
            let [targets, stats] = [("targets", 5), ("stats", STATS)].map(|(name, n)| g.state(name, &[n]));
            let table = packed.tensors[0].1;
            head_loss(&mut g, h, table, targets, stats, Head { chunk_rows: 5, weight: 0.2 }).unwrap();
            let of_dh = g.calls().iter().filter(|call| call.kernel.name().starts_with("matmul-nn"));
            (g.parts(table).len(), of_dh.map(|call| call.parameters.words()[2]).collect::<Vec<_>>())
        };
        for (shape, parts, expected) in [
            ([50_257, 768], 2, vec![32_768, 17_489]),
            ([50_257, 1600], 4, vec![16_384, 16_384, 16_384, 1105]),
            ([151_936, 1024], 5, vec![32_768, 32_768, 32_768, 32_768, 20_864]),
        ] {
            assert_eq!(terms(shape, 128 << 20), (parts, expected.clone()), "{shape:?}");
            assert_eq!(terms(shape, 1 << 30), (1, expected), "{shape:?}");
        }
        assert_eq!(terms([50_257, 64], 128 << 20).1, [32_768, 17_489], "as ever");
    }

    #[test]
    fn what_cancels_counts_against_what_is_left() {
        let bound = |h: f64, embed: [f64; 2]| 2048.0 * half_bound([2, 1], &[h], &embed, 0);
        // Two terms of one sign: (2 + 4) + 1 roundings. Nearly equal rows: sizes 0.483 for a difference of 0.035.
        assert!((bound(1.0, [1.0, -1.0]) - 7.0).abs() < 1e-9);
        assert!((bound(0.0, [0.259, 0.224]) - (2.0 * 0.483 / 0.035 + 1.0)).abs() < 1e-9);
    }
}
