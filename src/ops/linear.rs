//! Linear layer of the Transformer baseline: y = x W^T + b, or without b.
//!
//! dx = dy W, dW = dy^T x, db = sum of dy over rows.

use super::matmul::{self, Layout, Product};
use super::{Case, Input};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Kernel, parameter_block, word};

static START_WITH_BIAS: Kernel = Kernel::new("linear.wgsl", "start_with_bias", &[Read, Write]);
static BACKWARD_BIAS: Kernel = Kernel::new("linear.wgsl", "backward_bias", &[Read, Write]);
static BIAS_PARTS: Kernel = Kernel::new("linear.wgsl", "bias_parts", &[Read, Write]);
static BIAS_SUMS: Kernel = Kernel::new("linear.wgsl", "bias_sums", &[Read, Write]);

parameter_block! {
    /// The parameter block of `shaders/linear.wgsl`.
    pub(crate) struct LinearDims {
        rows: u32,
        columns: u32,
        accumulate: u32,
    }
}

/// Rows that one workgroup adds up for the gradient of a bias on a GPU; the same in the shader.
const CHUNK: usize = 64;

/// y (R, out) from x (R, in), a weight (out, in), and a bias (out) where there is one.
pub fn linear(g: &mut Graph, x: Tensor, weight: Tensor, bias: Option<Tensor>) -> Result<Tensor> {
    let [y] = batch(g, x, [weight], bias.map(|bias| [bias]))?;
    Ok(y)
}

/// Several layers of one x and one shape, such as query, key and value: one product does the work of all, where their
/// weights lie at even distances in memory.
pub fn several<const M: usize>(
    g: &mut Graph,
    x: Tensor,
    weights: [Tensor; M],
    biases: Option<[Tensor; M]>,
) -> Result<[Tensor; M]> {
    if g.strided(&weights).is_some() && g.even_laid_out(&weights) {
        return batch(g, x, weights, biases);
    }
    let mut outs = weights;
    for (i, out) in outs.iter_mut().enumerate() {
        *out = linear(g, x, weights[i], biases.map(|biases| biases[i]))?;
    }
    Ok(outs)
}

fn batch<const M: usize>(
    g: &mut Graph,
    x: Tensor,
    weights: [Tensor; M],
    biases: Option<[Tensor; M]>,
) -> Result<[Tensor; M]> {
    let ((rows, c_in), (c_out, _)) = (g.matrix(x)?, g.matrix(weights[0])?);
    let outs = g.strided_activations::<M>("linear", &[rows, c_out])?;
    let mut stored = weights;
    for weight in &mut stored {
        *weight = g.weight(*weight)?;
    }
    let (stored, out) = (g.strided_or_copied(&stored)?, g.strided_or_copied(&outs)?);
    let dims = LinearDims { rows: word(rows), columns: word(c_out), accumulate: 0 };
    // The bias first: with it added to a product that was stored, f16 outputs would be rounded twice.
    for (y, bias) in outs.into_iter().zip(biases.into_iter().flatten()) {
        g.call(&START_WITH_BIAS).bind(&[bias, y]).parameters(dims).groups((rows * c_out).div_ceil(64)).record()?;
    }
    let product = Product::new(Layout::NT, [rows, c_out, c_in]).batch(M).adding(biases.is_some()).uncut();
    product.record(g, x, stored, out)?;
    g.on_backward(move |g| {
        let mut douts = outs;
        for (i, dout) in douts.iter_mut().enumerate() {
            *dout = g.take_grad(*dout)?;
            if let Some(biases) = biases {
                let (dbias, add) = g.grad_target(biases[i])?;
                bias_gradient(g, *dout, dbias, add)?;
            }
        }
        let dout = g.strided_or_copied(&douts)?;
        let (dweights, add) = g.strided_grads(&weights)?;
        let of_weights = Product::new(Layout::TN, [c_out, c_in, rows]).adding(add);
        of_weights.batch(M).record(g, dout, x, dweights)?;
        let (dx, add) = g.grad_target(x)?;
        let of_x = Product::new(Layout::NN, [rows, c_in, c_out]).summed(M).adding(add);
        of_x.record(g, dout, stored, dx)
    });
    Ok(outs)
}

/// The sum over the rows of `dout` (R, C). On a GPU, which a sum by few workgroups would leave idle, in two dispatches.
fn bias_gradient(g: &mut Graph, dout: Tensor, dbias: Tensor, add: bool) -> Result<()> {
    let (rows, columns) = g.matrix(dout)?;
    let dims = LinearDims { rows: word(rows), columns: word(columns), accumulate: u32::from(add) };
    if !g.on_gpu() {
        return g.call(&BACKWARD_BIAS).bind(&[dout, dbias]).parameters(dims).groups(columns.div_ceil(8)).record();
    }
    let count = rows.div_ceil(CHUNK);
    let parts = g.statistic("parts of d bias", &[count, columns]);
    let tiles = columns.div_ceil(64);
    g.call(&BIAS_PARTS).bind(&[dout, parts]).parameters(dims).groups(count * tiles).record()?;
    g.call(&BIAS_SUMS).bind(&[parts, dbias]).parameters(dims).groups(tiles).record()
}

fn reference([rows, c_in, c_out]: [usize; 3], x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let product = matmul::reference(Layout::NT, [rows, c_out, c_in], x, weight);
    product.iter().enumerate().map(|(i, v)| v + bias[i % c_out]).collect()
}

fn case(size: [usize; 3], biased: bool) -> Case {
    let known = [Input::normal("x", &[size[0], size[1]], 1.0), Input::parameter("weight", &[size[2], size[1]], 0.5)];
    Case {
        op: "linear",
        name: format!("{}x{}x{}{}", size[0], size[1], size[2], if biased { "" } else { ", no bias" }),
        inputs: known.into_iter().chain(biased.then(|| Input::parameter("bias", &[size[2]], 1.0))).collect(),
        build: Box::new(|g, t| Ok(vec![linear(g, t[0], t[1], t.get(2).copied())?])),
        reference: Box::new(move |x| match x.get(2) {
            Some(bias) => vec![reference(size, &x[0], &x[1], bias)],
            None => vec![reference(size, &x[0], &x[1], &vec![0.0; size[2]])],
        }),
        nmse: 1e-9,
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    let biased = [[1, 1, 1], [9, 7, 11], [33, 20, 70], [130, 8, 64]].map(|size| case(size, true));
    biased.into_iter().chain([case([33, 20, 70], false)]).collect()
}

/// The gradient of the bias is a sum over more rows than software drivers can be trusted with.
pub(super) fn large_cases() -> Vec<Case> {
    vec![Case { gradient: false, ..case([65_539, 3, 65], true) }]
}
