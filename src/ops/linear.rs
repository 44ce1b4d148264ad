//! Linear layer of the Transformer baseline: y = x W^T + b.
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

/// Weight and bias of one layer.
#[derive(Debug, Clone, Copy)]
pub struct Affine {
    /// (out, in)
    pub weight: Tensor,
    /// (out)
    pub bias: Tensor,
}

/// y (R, out) from x (R, in).
pub fn linear(g: &mut Graph, x: Tensor, affine: Affine) -> Result<Tensor> {
    let [y] = batch(g, x, [affine])?;
    Ok(y)
}

/// Several layers of one x and one shape, such as query, key and value: one product does the work of all, where their
/// weights lie at even distances in memory.
pub fn several<const M: usize>(g: &mut Graph, x: Tensor, layers: [Affine; M]) -> Result<[Tensor; M]> {
    let weights = layers.map(|l| l.weight);
    if g.strided(&weights).is_some() && g.even_laid_out(&weights) {
        return batch(g, x, layers);
    }
    let mut outs = [x; M];
    for (out, layer) in outs.iter_mut().zip(layers) {
        *out = linear(g, x, layer)?;
    }
    Ok(outs)
}

fn batch<const M: usize>(g: &mut Graph, x: Tensor, layers: [Affine; M]) -> Result<[Tensor; M]> {
    let ((rows, c_in), (c_out, _)) = (g.matrix(x)?, g.matrix(layers[0].weight)?);
    let outs = g.strided_activations::<M>("linear", &[rows, c_out])?;
    let mut stored = layers.map(|l| l.weight);
    for weight in &mut stored {
        *weight = g.weight(*weight)?;
    }
    let (weights, out) = (g.strided_or_copied(&stored)?, g.strided_or_copied(&outs)?);
    let dims = LinearDims { rows: word(rows), columns: word(c_out), accumulate: 0 };
    // The bias first: with it added to a product that was stored, f16 outputs would be rounded twice.
    for (y, Affine { bias, .. }) in outs.into_iter().zip(layers) {
        g.call(&START_WITH_BIAS).bind(&[bias, y]).parameters(dims).groups((rows * c_out).div_ceil(64)).record()?;
    }
    Product::new(Layout::NT, [rows, c_out, c_in]).batch(M).adding(true).uncut().record(g, x, weights, out)?;
    g.on_backward(move |g| {
        let mut douts = outs;
        for (dout, Affine { bias, .. }) in douts.iter_mut().zip(layers) {
            *dout = g.take_grad(*dout)?;
            let (dbias, add) = g.grad_target(bias)?;
            bias_gradient(g, *dout, dbias, add)?;
        }
        let dout = g.strided_or_copied(&douts)?;
        let (dweights, add) = g.strided_grads(&layers.map(|l| l.weight))?;
        let of_weights = Product::new(Layout::TN, [c_out, c_in, rows]).adding(add);
        of_weights.batch(M).record(g, dout, x, dweights)?;
        let (dx, add) = g.grad_target(x)?;
        let of_x = Product::new(Layout::NN, [rows, c_in, c_out]).summed(M).adding(add);
        of_x.record(g, dout, weights, dx)
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

fn case(size: [usize; 3]) -> Case {
    Case {
        op: "linear",
        name: format!("{}x{}x{}", size[0], size[1], size[2]),
        inputs: vec![
            Input::normal("x", &[size[0], size[1]], 1.0),
            Input::parameter("weight", &[size[2], size[1]], 0.5),
            Input::parameter("bias", &[size[2]], 1.0),
        ],
        build: Box::new(|g, t| Ok(vec![linear(g, t[0], Affine { weight: t[1], bias: t[2] })?])),
        reference: Box::new(move |x| vec![reference(size, &x[0], &x[1], &x[2])]),
        nmse: 1e-9,
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    [[1, 1, 1], [9, 7, 11], [33, 20, 70], [130, 8, 64]].into_iter().map(case).collect()
}

/// The gradient of the bias is a sum over more rows than software drivers can be trusted with.
pub(super) fn large_cases() -> Vec<Case> {
    vec![Case { gradient: false, ..case([65_539, 3, 65]) }]
}
