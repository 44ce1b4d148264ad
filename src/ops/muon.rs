//! Muon (Jordan et al., 2024; <https://kellerjordan.github.io/posts/muon/>): momentum whose matrices are made nearly orthogonal.
//!
//! ```text
//! g <- clip factor * g      m <- mu m + (1 - mu) g      x <- (1 - mu) g + mu m (Nesterov)
//! x <- x / max(|x|, 1e-7)   five times: A = x x^T, x <- (a I + b A + c A A) x      (Newton-Schulz)
//! p <- p (1 - lr wd) - lr adjust x
//! ```
//! |x| is the Frobenius norm. A matrix with more rows than columns has A = x^T x, and x <- x (a I + b A + c A A): the same,
//! transposed, so that A is the smaller of the two. Each step of the iteration moves every singular value s of x to
//! a s + b s^3 + c s^5, which brings it to between 0.7 and 1.2 and leaves the singular vectors alone. All of it is f32, in
//! mixed precision as well: a small singular value grows 3.4-fold in each step, and with it what f16 would round away.
//!
//! Matrices of one shape are a batch: their products are one dispatch each. What is between the momentum and the update lies
//! in memory of the plan that activations have otherwise.

use super::adamw::{MAX_SEGMENTS, Segment, SegmentsDims, UPDATE_WORDS, Update};
use super::matmul::Product;
use super::stats::{STATS, Stats};
use super::{Case, Input};
use crate::error::Result;
use crate::graph::view::Strided;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Uniform, Write};
use crate::kernel::{Kernel, Layout, parameter_block, word};
use bytemuck::Zeroable;

static MOMENTUM: Kernel = Kernel::new("muon.wgsl", "momentum", &[Read, Read, Write, Write, Write]);
static INVERSE_NORMS: Kernel = Kernel::new("muon.wgsl", "inverse_norms", &[Read, Write]);
static NORMALIZE: Kernel = Kernel::new("muon.wgsl", "normalize", &[Read, Write]);
static POLYNOMIAL: Kernel = Kernel::new("muon.wgsl", "polynomial", &[Read, Write]);
static UPDATE: Kernel = Kernel::new("muon.wgsl", "update_parameters", &[Uniform, Read, Read, Write]);
static UPDATE_AND_COPY: Kernel =
    Kernel::new("muon.wgsl", "update_parameters_and_copy", &[Uniform, Read, Read, Write, Write]);

/// Most matrices of a batch; `shaders/muon.wgsl` has the same number.
pub(crate) const MAX_MATRICES: usize = 64;
/// Elements that a workgroup takes at a time; the same there.
const CHUNK: usize = 1024;
/// Steps of the iteration.
const STEPS: usize = 5;
/// Coefficients a, b and c of its polynomial: Keller Jordan's, which make small singular values grow as fast as they can
/// without letting any leave the neighbourhood of 1.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Least norm that is divided by, as in PyTorch.
const EPS: f64 = 1e-7;

parameter_block! {
    /// Where a matrix lies.
    pub(crate) struct MatrixPlace {
        /// first element of the gradient
        state: u32,
        /// first element of the momentum
        moment: u32,
        spare_a: u32,
        spare_b: u32,
    }
}

parameter_block! {
    /// The parameter block of `momentum` in `shaders/muon.wgsl`.
    pub(crate) struct MuonMomentumDims {
        /// of a matrix
        elements: u32,
        /// of a matrix
        parts: u32,
        matrices: u32,
        spare: u32,
        momentum: f32,
        one_minus_momentum: f32,
        spare_a: f32,
        spare_b: f32,
        table: [MatrixPlace; MAX_MATRICES],
    }
}

parameter_block! {
    /// The parameter block of what is done to a batch of matrices in `shaders/muon.wgsl`.
    pub(crate) struct MuonMatrixDims {
        /// of a matrix
        elements: u32,
        /// of a matrix
        parts: u32,
        matrices: u32,
        /// rows and columns of A
        side: u32,
        a: f32,
        b: f32,
        c: f32,
        eps: f32,
    }
}

/// What Muon goes by, apart from the scalars of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// mu.
    pub momentum: f64,
    /// What the update of a matrix is multiplied by.
    pub adjust: f64,
    /// Its learning rate as a multiple of that of the step; of weight decay as well.
    pub rate: f64,
}

/// Storages that matrices lie in.
#[derive(Debug, Clone, Copy)]
pub struct Storages {
    /// Of the parameters.
    pub parameter: Tensor,
    /// Of their gradients.
    pub grad: Tensor,
    /// Of their momentum.
    pub momentum: Tensor,
    /// Of the copy of the parameters that products read, where there is one, in the precision of the graph.
    pub copy: Option<Tensor>,
}

/// Updates `matrices` of `shape` (rows, columns), [`MAX_MATRICES`] at most, in place. Each is given as the segments of its rows
/// by cohort, one right after the other; cohorts differ in their learning rate only. `update` is [`Update::words`], `stats`
/// holds clip factor and flag.
pub fn muon(
    g: &mut Graph,
    [update, stats]: [Tensor; 2],
    of: Storages,
    shape: [usize; 2],
    matrices: &[Vec<Segment>],
    rule: Rule,
) -> Result<()> {
    let ([rows, columns], count) = (shape, matrices.len());
    let (elements, side) = (rows * columns, rows.min(columns));
    let parts = elements.div_ceil(CHUNK);
    let [x, next] = ["momentum", "step of Newton-Schulz"].map(|name| g.statistic(name, &[count, elements]));
    let [sums, scales] = [("squares", count * parts), ("1 / norm", count)].map(|(name, n)| g.statistic(name, &[n]));

    let mut places = [MatrixPlace::zeroed(); MAX_MATRICES];
    for (to, first) in places.iter_mut().zip(matrices.iter().filter_map(|matrix| matrix.first())) {
        *to = MatrixPlace { state: word(first.state), moment: word(first.moment), ..MatrixPlace::zeroed() };
    }
    let dims = MuonMomentumDims {
        elements: word(elements),
        parts: word(parts),
        matrices: word(count),
        momentum: rule.momentum as f32,
        one_minus_momentum: (1.0 - rule.momentum) as f32,
        table: places,
        ..MuonMomentumDims::zeroed()
    };
    let moved = (16 * count * elements) as u64;
    let call = g.call(&MOMENTUM).bind(&[stats, of.grad, of.momentum, x, sums]).parameters(dims);
    call.groups(count * parts).moves(moved).record()?;

    let [a, b, c] = COEFFICIENTS.map(|coefficient| coefficient as f32);
    let dims = MuonMatrixDims {
        elements: word(elements),
        parts: word(parts),
        matrices: word(count),
        side: word(side),
        a,
        b,
        c,
        eps: EPS as f32,
    };
    g.call(&INVERSE_NORMS).bind(&[sums, scales]).parameters(dims).groups(count).record()?;
    g.call(&NORMALIZE).bind(&[scales, x]).parameters(dims).groups((count * elements).div_ceil(256)).record()?;

    let [gram, square] = ["A", "A A"].map(|name| g.statistic(name, &[count, side * side]));
    let every = |storage, stride| Strided { storage, offset: 0, stride: if count > 1 { stride } else { 0 } };
    let (gram_of, square_of) = (every(gram, side * side), every(square, side * side));
    let product = |layout, size| Product::new(layout, size).batch(count);
    for step in 0..STEPS {
        let (from, to) = if step % 2 == 0 { (x, next) } else { (next, x) };
        let (from, to) = (every(from, elements), every(to, elements));
        if rows > columns {
            product(Layout::TN, [side, side, rows]).record(g, from, from, gram_of)?;
        } else {
            product(Layout::NT, [side, side, columns]).record(g, from, from, gram_of)?;
        }
        product(Layout::NN, [side; 3]).record(g, gram_of, gram_of, square_of)?;
        let call = g.call(&POLYNOMIAL).bind(&[gram, square]).parameters(dims);
        call.groups((count * side * side).div_ceil(256)).record()?;
        let product = product(Layout::NN, [rows, columns, side]);
        if rows > columns {
            product.record(g, from, square_of, to)?;
        } else {
            product.record(g, square_of, from, to)?;
        }
    }
    // An odd number of steps.
    update_parameters(g, [update, stats], of, next, elements, matrices, rule)
}

/// The last part of [`muon`], from what the iteration left in `o`.
fn update_parameters(
    g: &mut Graph,
    [update, stats]: [Tensor; 2],
    of: Storages,
    o: Tensor,
    elements: usize,
    matrices: &[Vec<Segment>],
    rule: Rule,
) -> Result<()> {
    let in_batch = |(number, matrix): (usize, &Vec<Segment>)| {
        let first = matrix.first().map_or(0, |segment| segment.state);
        let placed = |s: &Segment| Segment { state: number * elements + s.state - first, ..*s };
        matrix.iter().map(placed).collect::<Vec<_>>()
    };
    let segments: Vec<Segment> = matrices.iter().enumerate().flat_map(in_batch).collect();
    for segments in segments.chunks(MAX_SEGMENTS) {
        let dims = SegmentsDims::of(segments, [rule.rate, rule.adjust]);
        let all = [update, stats, o, of.parameter];
        let call = match of.copy {
            None => g.call(&UPDATE).bind(&all),
            Some(copy) => g.call(&UPDATE_AND_COPY).bind(&[&all[..], &[copy]].concat()),
        };
        let moved = 12 * segments.iter().map(|segment| segment.n as u64).sum::<u64>();
        call.parameters(dims).groups(dims.groups()).moves(moved).record()?;
    }
    Ok(())
}

/// The iteration in f64, on one matrix (rows, columns) that is not normalized yet.
pub fn orthogonalized(x: &[f64], [rows, columns]: [usize; 2]) -> Vec<f64> {
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt().max(EPS);
    let mut x: Vec<f64> = x.iter().map(|x| x / norm).collect();
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..STEPS {
        let gram = super::matmul::reference(Layout::NT, [rows, rows, columns], &x, &x);
        let square = super::matmul::reference(Layout::NN, [rows; 3], &gram, &gram);
        let entry = |i: usize| if i / rows == i % rows { a } else { 0.0 } + b * gram[i] + c * square[i];
        let polynomial: Vec<f64> = (0..rows * rows).map(entry).collect();
        x = super::matmul::reference(Layout::NN, [rows, columns, rows], &polynomial, &x);
    }
    x
}

fn reference(update: &Update, shape: [usize; 2], matrices: &[Vec<Segment>], rule: Rule, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    // Statistics that f32 holds exactly.
    let words: Vec<f32> = x[1].iter().map(|&word| word as f32).collect();
    let stats = Stats::from_words(&words);
    let (grad, mut p, mut m, mut copy) = (&x[2], x[3].clone(), x[4].clone(), x[5].clone());
    for matrix in matrices.iter().filter(|_| stats.is_finite()) {
        let (mut nesterov, first) = (Vec::new(), matrix[0]);
        for i in 0..shape[0] * shape[1] {
            let (g, m) = (grad[first.state + i] * f64::from(stats.clip_factor), &mut m[first.moment + i]);
            *m = rule.momentum * *m + (1.0 - rule.momentum) * g;
            nesterov.push((1.0 - rule.momentum) * g + rule.momentum * *m);
        }
        let o = orthogonalized(&nesterov, shape);
        for segment in matrix {
            let lr = update.lr * rule.rate * update.cohorts[segment.cohort].lr_scale;
            for at in 0..segment.n {
                let p = &mut p[segment.first + at];
                *p *= if segment.decay { 1.0 - lr * update.weight_decay } else { 1.0 };
                *p -= lr * rule.adjust * o[segment.state - first.state + at];
                copy[segment.first + at] = *p;
            }
        }
    }
    vec![p, m, copy]
}

pub(super) fn cases() -> Vec<Case> {
    use super::adamw::{CohortStep, scalars_of_cases};
    let cohort = |lr_scale| CohortStep { t: 3, lr_scale, frozen: false };
    let update = scalars_of_cases(vec![cohort(1.0), cohort(0.5)]);
    let rule = Rule { momentum: 0.95, adjust: 1.5, rate: 0.75 };
    // Matrices with a gap between them; the rows from `grown` on are of a second cohort.
    let case = move |name: &str, shape: [usize; 2], count: usize, grown: usize, copied: bool, finite: f32| {
        let ([rows, columns], elements) = (shape, shape[0] * shape[1]);
        let stride = elements.next_multiple_of(128);
        let n = count * stride;
        // Before the first lie elements of the parameter that do not train.
        let untrained = if copied { 5 } else { 0 };
        let matrix = |i: usize| {
            let cut = grown.min(rows) * columns;
            let part = |from: usize, to: usize, cohort| {
                let at = i * stride + from;
                Segment {
                    first: untrained + at,
                    state: at,
                    moment: at,
                    n: to - from,
                    cohort,
                    decay: i.is_multiple_of(2),
                    frozen: false,
                }
            };
            [part(0, cut, 0), part(cut, elements, 1)].into_iter().filter(|s| s.n > 0).collect::<Vec<_>>()
        };
        let matrices: Vec<Vec<Segment>> = (0..count).map(matrix).collect();
        let stats = Stats { loss: 2.0, norm: 3.0, clip_factor: 0.25, finite, ..Stats::zeroed() };
        let (update, again, built) = (update.clone(), update.clone(), matrices.clone());
        Case {
            op: "muon",
            name: name.to_owned(),
            inputs: vec![
                Input::floats("update", &[UPDATE_WORDS], update.words().unwrap_or_default()),
                Input::floats("stats", &[STATS], stats.words().to_vec()),
                Input::parameter("grad", &[n], 1.0).without_gradient(),
                // Small, so that the outputs are of the size of the update.
                Input::parameter("p", &[untrained + n], 1e-3).without_gradient(),
                Input::parameter("momentum", &[n], 0.3).without_gradient(),
                Input::parameter("copy", &[untrained + n], 1e-3).without_gradient(),
            ],
            build: Box::new(move |g, t| {
                let copy = t.get(5).copied().filter(|_| copied);
                let of = Storages { parameter: t[3], grad: t[2], momentum: t[4], copy };
                muon(g, [t[0], t[1]], of, shape, &built, rule)?;
                Ok([t[3], t[4]].into_iter().chain(copy).collect())
            }),
            reference: Box::new(move |x| reference(&again, shape, &matrices, rule, x)),
            // Roundings of f32, 6e-8, in the direction of a singular value near 0 grow by 3.4445^5 = 485.
            nmse: 1e-9,
            gradient: false,
            ..Case::default()
        }
    };
    vec![
        case("1x3", [1, 3], 1, 1, false, 1.0),
        case("16x16", [16, 16], 1, 16, false, 1.0),
        case("3 of 8x40, two cohorts", [8, 40], 3, 5, false, 1.0),
        case("2 of 40x7, two cohorts", [40, 7], 2, 33, false, 1.0),
        case("33x65 with a copy", [33, 65], 1, 33, true, 1.0),
        case("130x36", [130, 36], 1, 130, false, 1.0),
        case("flag down: nothing written", [8, 8], 2, 8, true, 0.0),
    ]
}

/// None: the products and sums of large matrices are those of other operators.
pub(super) fn large_cases() -> Vec<Case> {
    Vec::new()
}
