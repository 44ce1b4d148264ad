//! Pattention: attention between input tokens and learnable parameter tokens (arXiv 2410.23168, eq. 5).
//!
//! ```text
//! A = X K^T        S = normalise(A)        O = S W          X (R, Cin)  K (N, Cin)  W (N, Cout)
//! l2_norm_gelu     S = gelu(tau A / (|A_r| + eps))
//! gelu_l2_norm     S = tau G / (|G_r| + eps),  G = gelu(A)
//! softmax          S = tau^2 softmax(A_r)
//! ```
//! Backward: dW = S^T dO, dS = dO W^T, dA by row (see `shaders/pattention.wgsl`), dX = dA K, dK = dA^T X:
//! six products and one row pass each way. Saved: A and two numbers a row; S is computed again, in
//! l2_norm_gelu by the pass that makes dA.
//! No 1/sqrt(C) on the scores. The official code has no eps and gives NaN on an all-zero row; here such
//! a row gives zeros, and its gradient is upstream / eps. Dropout makes such rows: the first token of a sequence sees one key in
//! each head, and all of these may be dropped. What goes on from there meets weights of 0, and must not be infinite in f16:
//! see [`Settings::zeros_rest`].

use super::matmul::{Layout, Product};
use super::dropout::{Dropout, DropoutDraw, Place, draw_input, dropout};
use super::{Case, Input};
use crate::config::NormActivation;
use crate::error::{Error, Result};
use crate::graph::view::Strided;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Dtype, Kernel, parameter_block, word};

/// What does not depend on the shapes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Which normalisation.
    pub norm: NormActivation,
    /// Scale of the token weights: a stored number of the layer, sqrt(N) at creation.
    pub tau: f64,
    /// Added to the norm of a row of scores.
    pub eps: f64,
    /// The tanh approximation of GELU, as the JAX variant.
    pub gelu_tanh: bool,
    /// Whether a row of zeros has a gradient of zero, and not one of upstream / eps: in training with dropout.
    pub zeros_rest: bool,
}

parameter_block! {
    /// The parameter block of `shaders/pattention_dims.wgsl`.
    pub(crate) struct PattentionDims {
        rows: u32,
        n: u32,
        tau: f32,
        eps: f32,
        use_tanh: u32,
        /// whether a row of zeros has a gradient of zero
        zeros_rest: u32,
    }
}

const FORWARD: &[crate::kernel::Access] = &[Read, Write, Write];
const BACKWARD: &[crate::kernel::Access] = &[Read, Read, Write];
static L2_NORM_GELU: Kernel = Kernel::new("pattention.wgsl", "l2_norm_gelu", FORWARD);
static L2_NORM_GELU_BACKWARD: Kernel =
    Kernel::new("pattention.wgsl", "l2_norm_gelu_backward", &[Read, Read, Write, Write]);
static GELU_L2_NORM: Kernel = Kernel::new("pattention.wgsl", "gelu_l2_norm", FORWARD);
static GELU_L2_NORM_BACKWARD: Kernel = Kernel::new("pattention.wgsl", "gelu_l2_norm_backward", BACKWARD);
static SOFTMAX: Kernel = Kernel::new("pattention.wgsl", "softmax", FORWARD);
static SOFTMAX_BACKWARD: Kernel = Kernel::new("pattention.wgsl", "softmax_backward", BACKWARD);

// The schedules for GPUs.
static L2_NORM_GELU_GPU: Kernel = Kernel::new("pattention_gpu.wgsl", "l2_norm_gelu", FORWARD);
static L2_NORM_GELU_BACKWARD_GPU: Kernel =
    Kernel::new("pattention_gpu.wgsl", "l2_norm_gelu_backward", &[Read, Read, Write, Write]);
static GELU_L2_NORM_GPU: Kernel = Kernel::new("pattention_gpu.wgsl", "gelu_l2_norm", FORWARD);
static GELU_L2_NORM_BACKWARD_GPU: Kernel = Kernel::new("pattention_gpu.wgsl", "gelu_l2_norm_backward", BACKWARD);
static SOFTMAX_GPU: Kernel = Kernel::new("pattention_gpu.wgsl", "softmax", FORWARD);
static SOFTMAX_BACKWARD_GPU: Kernel = Kernel::new("pattention_gpu.wgsl", "softmax_backward", BACKWARD);

impl Settings {
    /// Forward and backward for rows of `n` scores.
    fn kernels(&self, g: &Graph, n: usize) -> (&'static Kernel, &'static Kernel) {
        if g.on_gpu() {
            let (forward, backward) = match self.norm {
                NormActivation::L2NormGelu => (&L2_NORM_GELU_GPU, &L2_NORM_GELU_BACKWARD_GPU),
                NormActivation::GeluL2Norm => (&GELU_L2_NORM_GPU, &GELU_L2_NORM_BACKWARD_GPU),
                NormActivation::Softmax => (&SOFTMAX_GPU, &SOFTMAX_BACKWARD_GPU),
            };
            return (forward.for_width(n), backward.for_width(n));
        }
        match self.norm {
            NormActivation::L2NormGelu => (&L2_NORM_GELU, &L2_NORM_GELU_BACKWARD),
            NormActivation::GeluL2Norm => (&GELU_L2_NORM, &GELU_L2_NORM_BACKWARD),
            NormActivation::Softmax => (&SOFTMAX, &SOFTMAX_BACKWARD),
        }
    }

    fn dims(&self, rows: usize, n: usize) -> PattentionDims {
        PattentionDims {
            rows: word(rows),
            n: word(n),
            tau: self.tau as f32,
            eps: self.eps as f32,
            use_tanh: u32::from(self.gelu_tanh),
            zeros_rest: u32::from(self.zeros_rest),
        }
    }
}

/// Parameter tokens of one Pattention.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    /// Keys (N, Cin).
    pub keys: Tensor,
    /// Values (N, Cout).
    pub values: Tensor,
}

/// O (R, Cout) from x (R, Cin) and its parameter tokens.
pub fn pattention(g: &mut Graph, x: Tensor, tokens: Tokens, settings: Settings) -> Result<Tensor> {
    Ok(with_weights(g, x, tokens, settings)?.0)
}

/// As [`pattention`], also giving the token weights S (R, N).
pub fn with_weights(g: &mut Graph, x: Tensor, tokens: Tokens, settings: Settings) -> Result<(Tensor, Tensor)> {
    let ([out], weights) = batch(g, x, [tokens], settings)?;
    Ok((out, weights))
}

/// Several Pattentions of one x with tokens of one shape, such as query, key and value: one dispatch does the work of
/// all, where their tokens lie at even distances in memory.
pub fn several<const M: usize>(
    g: &mut Graph,
    x: Tensor,
    tokens: [Tokens; M],
    settings: Settings,
) -> Result<[Tensor; M]> {
    let even = |of: [Tensor; M]| g.strided(&of).is_some() && g.even_laid_out(&of);
    if even(tokens.map(|t| t.keys)) && even(tokens.map(|t| t.values)) {
        return Ok(batch(g, x, tokens, settings)?.0);
    }
    let mut outs = [x; M];
    for (out, tokens) in outs.iter_mut().zip(tokens) {
        *out = pattention(g, x, tokens, settings)?;
    }
    Ok(outs)
}

/// The outputs, and the token weights S (M R, N) of all.
fn batch<const M: usize>(
    g: &mut Graph,
    x: Tensor,
    tokens: [Tokens; M],
    settings: Settings,
) -> Result<([Tensor; M], Tensor)> {
    let [(rows, c_in), (n, key_width), (value_rows, c_out)] =
        [g.matrix(x)?, g.matrix(tokens[0].keys)?, g.matrix(tokens[0].values)?];
    if key_width != c_in || value_rows != n {
        return Err(Error::defect(format!(
            "pattention: x has width {c_in}, keys are {n} x {key_width}, values have {value_rows} rows"
        )));
    }
    let (forward, backward) = settings.kernels(g, n);
    let scores = g.activation("scores", &[M * rows, n]);
    let stats = g.statistic("row norms", &[M * rows, 2]);
    let weights = g.activation("token weights", &[M * rows, n]);
    let outs = g.strided_activations::<M>("pattention", &[rows, c_out])?;
    let mut copies = tokens;
    for copy in &mut copies {
        *copy = Tokens { keys: g.weight(copy.keys)?, values: g.weight(copy.values)? };
    }
    let keys = g.strided_or_copied(&copies.map(|t| t.keys))?;
    let values = g.strided_or_copied(&copies.map(|t| t.values))?;
    let out = g.strided_or_copied(&outs)?;
    // Scores and weights of all lie one below the other.
    let stacked = move |storage| Strided { storage, offset: 0, stride: rows * n };
    let products = |layout, size| Product::new(layout, size).batch(M);

    products(Layout::NT, [rows, n, c_in]).uncut().record(g, x, keys, stacked(scores))?;
    let dims = settings.dims(M * rows, n);
    g.call(forward).bind(&[scores, weights, stats]).parameters(dims).groups(M * rows).record()?;
    products(Layout::NN, [rows, c_out, n]).uncut().record(g, stacked(weights), values, out)?;

    g.on_backward(move |g| {
        let mut douts = outs;
        for dout in &mut douts {
            *dout = g.take_grad(*dout)?;
        }
        let dout = g.strided_or_copied(&douts)?;
        let [weights, dscores] = backward_activations(g, [M * rows, n], g.dtype(scores))?;
        products(Layout::NT, [rows, n, c_out]).record(g, dout, values, stacked(dscores))?;
        if settings.norm == NormActivation::L2NormGelu {
            // One pass makes both, because they have most of GELU in common.
            let call = g.call(backward).bind(&[scores, stats, dscores, weights]);
            call.parameters(dims).groups(M * rows).record()?;
        } else {
            let norms = g.statistic("row norms again", &[M * rows, 2]);
            g.call(forward).bind(&[scores, weights, norms]).parameters(dims).groups(M * rows).record()?;
            g.call(backward).bind(&[scores, stats, dscores]).parameters(dims).groups(M * rows).record()?;
        }
        // Of the tokens that train, which are the last.
        let from = |storage, first| Strided { storage, offset: first, stride: rows * n };
        let gradients = |width, first, add| products(Layout::TN, [n - first, width, rows]).of_columns(n).adding(add);
        let first = [tokens[0].values, tokens[0].keys].map(|tokens| g.first_trained(tokens));
        let (dvalues, add_values) = g.strided_grads(&tokens.map(|t| t.values))?;
        let (dkeys, add_keys) = g.strided_grads(&tokens.map(|t| t.keys))?;
        let of_values = gradients(c_out, first[0], add_values);
        let of_keys = gradients(c_in, first[1], add_keys);
        let values_of = [from(weights, first[0]), dout, dvalues];
        let keys_of = [from(dscores, first[1]), x.into(), dkeys];
        if of_values == of_keys {
            of_values.record_pair(g, values_of, keys_of)?;
        } else {
            let [a, b, c] = values_of;
            of_values.record(g, a, b, c)?;
            let [a, b, c] = keys_of;
            of_keys.record(g, a, b, c)?;
        }
        let (dx, add) = g.grad_target(x)?;
        let of_x = Product::new(Layout::NN, [rows, c_in, n]).summed(M).adding(add);
        of_x.record(g, stacked(dscores), keys, dx)
    });
    Ok((outs, weights))
}

/// The token weights again, and the gradient of the token weights, which becomes that of the scores. On GPUs both are in
/// one tensor, where a device can bind it, so that the gradients of keys and values are products of one dispatch.
fn backward_activations(g: &mut Graph, shape: [usize; 2], dtype: Dtype) -> Result<[Tensor; 2]> {
    let names = ["token weights again", "d token weights, then d scores"];
    let bytes = 2 * (shape[0] * shape[1]).next_multiple_of(128) as u64 * dtype.bytes();
    if g.on_gpu() && bytes <= g.kernels().target().max_tensor() {
        return g.strided_activations::<2>(&names.join(", "), &shape);
    }
    Ok(names.map(|name| g.activation(name, &shape)))
}

/// Token weights of one row of scores, in f64.
pub(crate) fn reference_weights(scores: &[f64], settings: &Settings) -> Vec<f64> {
    let gelu = |x: f64| super::gelu::reference(x, settings.gelu_tanh);
    let norm = |row: &[f64]| row.iter().map(|a| a * a).sum::<f64>().sqrt() + settings.eps;
    match settings.norm {
        NormActivation::L2NormGelu => {
            let q = norm(scores);
            scores.iter().map(|a| gelu(settings.tau * a / q)).collect()
        }
        NormActivation::GeluL2Norm => {
            let activated: Vec<f64> = scores.iter().map(|&a| gelu(a)).collect();
            let q = norm(&activated);
            activated.iter().map(|a| settings.tau * a / q).collect()
        }
        NormActivation::Softmax => {
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let exps: Vec<f64> = scores.iter().map(|a| (a - largest).exp()).collect();
            let sum: f64 = exps.iter().sum();
            exps.iter().map(|e| settings.tau * settings.tau * e / sum).collect()
        }
    }
}

/// The whole op in f64; `size` is (rows, c_in, n, c_out).
pub fn reference(size: [usize; 4], settings: &Settings, x: &[f64], keys: &[f64], values: &[f64]) -> Vec<f64> {
    let [rows, c_in, n, c_out] = size;
    let scores = super::matmul::reference(Layout::NT, [rows, n, c_in], x, keys);
    let weights: Vec<f64> = scores.chunks(n).flat_map(|row| reference_weights(row, settings)).collect();
    super::matmul::reference(Layout::NN, [rows, c_out, n], &weights, values)
}

/// Three Pattentions of one x, their tokens at even distances as the plan packs them.
fn several_case(norm: NormActivation, size: [usize; 4]) -> Case {
    let [rows, c_in, n, c_out] = size;
    let settings = Settings { norm, tau: (n as f64).sqrt(), eps: 1e-6, gelu_tanh: false, zeros_rest: false };
    let [key_stride, value_stride] = [n * c_in, n * c_out].map(|elements| elements.next_multiple_of(128));
    let stride = key_stride + value_stride;
    Case {
        op: "pattention",
        name: format!("three, {norm:?} {rows}x{c_in}x{n}x{c_out}"),
        inputs: vec![
            Input::normal("x", &[rows, c_in], 1.0),
            Input::parameter("tokens", &[3 * stride], 0.5),
            Input::residual("residual", &[rows, c_out], 1.0),
        ],
        build: Box::new(move |g, t| {
            let mut tokens = [Tokens { keys: t[1], values: t[1] }; 3];
            for (i, tokens) in tokens.iter_mut().enumerate() {
                tokens.keys = g.view(t[1], i * stride, "keys", &[n, c_in])?;
                tokens.values = g.view(t[1], i * stride + key_stride, "values", &[n, c_out])?;
            }
            let [q, k, v] = several(g, t[0], tokens, settings)?;
            // One output that depends on all three.
            let sum = [q, k, v].into_iter().try_fold(t[2], |sum, out| super::add::add(g, sum, out))?;
            Ok(vec![sum])
        }),
        reference: Box::new(move |x| {
            let one = |i: usize| {
                let (keys, values) = (&x[1][i * stride..][..n * c_in], &x[1][i * stride + key_stride..][..n * c_out]);
                reference(size, &settings, &x[0], keys, values)
            };
            let [q, k, v] = [one(0), one(1), one(2)];
            vec![(0..q.len()).map(|i| x[2][i] + q[i] + k[i] + v[i]).collect()]
        }),
        ..Case::default()
    }
}

fn case(norm: NormActivation, size: [usize; 4], gelu_tanh: bool) -> Case {
    let [rows, c_in, n, c_out] = size;
    let settings = Settings { norm, tau: (n as f64).sqrt() * 0.9, eps: 1e-6, gelu_tanh, zeros_rest: false };
    Case {
        op: "pattention",
        name: format!("{norm:?} {rows}x{c_in}x{n}x{c_out}{}", if gelu_tanh { " tanh" } else { "" }),
        inputs: vec![
            Input::normal("x", &[rows, c_in], 1.0),
            Input::parameter("keys", &[n, c_in], 0.5),
            Input::parameter("values", &[n, c_out], 0.5),
        ],
        build: Box::new(move |g, t| {
            let tokens = Tokens { keys: t[1], values: t[2] };
            Ok(vec![pattention(g, t[0], tokens, settings)?])
        }),
        reference: Box::new(move |x| vec![reference(size, &settings, &x[0], &x[1], &x[2])]),
        // One token: |A| = |a|, so its gradient vanishes and only rounding is left.
        gradient: n > 1,
        ..Case::default()
    }
}

/// Of rows of 2 channels that are dropped, many of them whole. In f16 a gradient of upstream / eps would be infinite, and those
/// of x and of the keys no numbers.
fn resting_case(norm: NormActivation, [rows, n, c_out]: [usize; 3]) -> Case {
    let size = [rows, 2, n, c_out];
    let settings = Settings { norm, tau: (n as f64).sqrt(), eps: 1e-6, gelu_tanh: false, zeros_rest: true };
    let (place, draw) = (Place::Projection(0), DropoutDraw::new(0.6, 1, 0, 0));
    let plain = case(norm, size, false);
    Case {
        name: format!("{norm:?} {rows}x2x{n}x{c_out}, rows of zeros"),
        inputs: plain.inputs.into_iter().chain([draw_input(draw)]).collect(),
        build: Box::new(move |g, t| {
            let x = dropout(g, t[0], rows, Dropout { draw: t[3], place })?;
            Ok(vec![pattention(g, x, Tokens { keys: t[1], values: t[2] }, settings)?])
        }),
        reference: Box::new(move |x| {
            let of = |(i, x): (usize, &f64)| x * f64::from(draw.factor(place, 0, 0, i / 2, i % 2));
            let dropped: Vec<f64> = x[0].iter().enumerate().map(of).collect();
            vec![reference(size, &settings, &dropped, &x[1], &x[2])]
        }),
        ..plain
    }
}

const NORMS: [NormActivation; 3] = [NormActivation::L2NormGelu, NormActivation::GeluL2Norm, NormActivation::Softmax];

pub(super) fn large_cases() -> Vec<Case> {
    NORMS.into_iter().map(|norm| case(norm, [65_539, 8, 17, 2], false)).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for norm in NORMS {
        for (size, gelu_tanh) in
            [([1, 1, 1, 1], false), ([5, 8, 12, 6], false), ([33, 20, 67, 17], false), ([16, 16, 65, 16], true)]
        {
            cases.push(case(norm, size, gelu_tanh));
        }
    }
    // Past what a workgroup of a GPU holds in registers, at an odd and at an even width.
    for (norm, size) in NORMS.into_iter().flat_map(|norm| [[2, 3, 4101, 2], [3, 2, 4612, 2]].map(|size| (norm, size))) {
        cases.push(case(norm, size, false));
    }
    cases.push(several_case(NormActivation::L2NormGelu, [5, 8, 12, 6]));
    cases.push(several_case(NormActivation::Softmax, [9, 16, 24, 16]));
    cases.push(several_case(NormActivation::L2NormGelu, [33, 20, 67, 17]));
    // Gradients of keys and values as one dispatch: in vectors, and element by element.
    cases.push(several_case(NormActivation::L2NormGelu, [33, 20, 68, 20]));
    cases.push(several_case(NormActivation::GeluL2Norm, [21, 17, 35, 17]));
    for norm in NORMS {
        cases.push(resting_case(norm, [33, 12, 6]));
    }
    cases
}
