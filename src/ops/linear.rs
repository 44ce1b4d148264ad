//! Linear layer of the Transformer baseline: y = x W^T + b.
//!
//! dx = dy W, dW = dy^T x, db = sum of dy over rows.

use super::matmul::{self, Layout, Product};
use super::{Case, Input};
use crate::error::Result;
use crate::gpu::kernel::Access::{Read, Write};
use crate::gpu::kernel::{Dims, Kernel, workgroups};
use crate::graph::{Graph, Tensor};

static ADD_BIAS: Kernel = Kernel::new("linear.wgsl", "add_bias", &[Read, Write]);
static BACKWARD_BIAS: Kernel = Kernel::new("linear.wgsl", "backward_bias", &[Read, Write]);

/// y (R, out) from x (R, in), weight (out, in) and bias (out).
pub fn linear(g: &mut Graph, x: Tensor, weight: Tensor, bias: Tensor) -> Result<Tensor> {
    let ((rows, c_in), (c_out, _)) = (g.matrix(x)?, g.matrix(weight)?);
    let y = g.activation("linear", &[rows, c_out]);
    let stored = g.weight(weight)?;
    let dims = move || Dims::new().u(rows).u(c_out);
    Product::new(Layout::NT, [rows, c_out, c_in]).record(g, x, stored, y)?;
    g.call(&ADD_BIAS, &[bias, y], dims(), workgroups((rows * c_out).div_ceil(64)), 0)?;
    g.on_backward(move |g| {
        let dy = g.take_grad(y)?;
        let (dbias, _) = g.grad_target(bias)?;
        g.call(&BACKWARD_BIAS, &[dy, dbias], dims(), workgroups(c_out.div_ceil(8)), 0)?;
        let (dweight, accumulate) = g.grad_target(weight)?;
        Product { accumulate, ..Product::new(Layout::TN, [c_out, c_in, rows]) }.record(g, dy, x, dweight)?;
        let (dx, accumulate) = g.grad_target(x)?;
        Product { accumulate, ..Product::new(Layout::NN, [rows, c_in, c_out]) }.record(g, dy, stored, dx)
    });
    Ok(y)
}

fn reference([rows, c_in, c_out]: [usize; 3], x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let product = matmul::reference(Layout::NT, [rows, c_out, c_in], x, weight);
    product.iter().enumerate().map(|(i, v)| v + bias[i % c_out]).collect()
}

pub(super) fn cases() -> Vec<Case> {
    [[1, 1, 1], [9, 7, 11], [33, 20, 70]]
        .into_iter()
        .map(|size| Case {
            op: "linear",
            name: format!("{}x{}x{}", size[0], size[1], size[2]),
            inputs: vec![
                Input::normal("x", &[size[0], size[1]], 1.0),
                Input::parameter("weight", &[size[2], size[1]], 0.5),
                Input::parameter("bias", &[size[2]], 1.0),
            ],
            build: Box::new(|g, t| Ok(vec![linear(g, t[0], t[1], t[2])?])),
            reference: Box::new(move |x| vec![reference(size, &x[0], &x[1], &x[2])]),
            nmse: 1e-9,
            ..Case::default()
        })
        .collect()
}
