//! LayerNorm over the columns of each row, without parameters (inside the blocks of a TokenFormer) or
//! with weight and bias (its final norm, and the Transformer's).
//!
//! y = (x - mean) rstd w + b with the biased variance. dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy w;
//! dw = sum of dy xhat, db = sum of dy over rows. Saved: x, which is the residual stream, and mean and rstd of each row.

use super::{Case, Input};
use crate::error::Result;
use crate::gpu::kernel::Access::{Read, Write};
use crate::gpu::kernel::{Dims, Kernel, workgroups};
use crate::graph::{Graph, Tensor};

static FORWARD_PLAIN: Kernel = Kernel::new("layer_norm.wgsl", "forward_plain", &[Read, Write, Write]);
static FORWARD_AFFINE: Kernel = Kernel::new("layer_norm.wgsl", "forward_affine", &[Read, Read, Read, Write, Write]);
static BACKWARD_PLAIN: Kernel = Kernel::new("layer_norm.wgsl", "backward_plain", &[Read, Read, Read, Write]);
static BACKWARD_AFFINE: Kernel = Kernel::new("layer_norm.wgsl", "backward_affine", &[Read, Read, Read, Read, Write]);
static BACKWARD_PARAMETERS: Kernel =
    Kernel::new("layer_norm.wgsl", "backward_parameters", &[Read, Read, Read, Write, Write]);

/// y (R, C) from x (R, C), and `(weight, bias)`, each (C), where given.
pub fn layer_norm(g: &mut Graph, x: Tensor, affine: Option<(Tensor, Tensor)>, eps: f64) -> Result<Tensor> {
    let (rows, columns) = g.matrix(x)?;
    let y = g.activation("layer norm", &[rows, columns]);
    let stats = g.statistic("mean and rstd", &[rows, 2]);
    let dims = move |accumulate| Dims::new().u(rows).u(columns).f(eps).flag(accumulate);
    match affine {
        None => g.call(&FORWARD_PLAIN, &[x, y, stats], dims(false), workgroups(rows), 0)?,
        Some((w, b)) => g.call(&FORWARD_AFFINE, &[x, w, b, y, stats], dims(false), workgroups(rows), 0)?,
    }
    g.on_backward(move |g| {
        let dy = g.take_grad(y)?;
        if let Some((w, b)) = affine {
            let (dw, _) = g.grad_target(w)?;
            let (db, _) = g.grad_target(b)?;
            let groups = workgroups(columns.div_ceil(8));
            g.call(&BACKWARD_PARAMETERS, &[x, stats, dy, dw, db], dims(true), groups, 0)?;
        }
        let (dx, add) = g.grad_target(x)?;
        match affine {
            None => g.call(&BACKWARD_PLAIN, &[x, stats, dy, dx], dims(add), workgroups(rows), 0),
            Some((w, _)) => g.call(&BACKWARD_AFFINE, &[x, stats, dy, w, dx], dims(add), workgroups(rows), 0),
        }
    });
    Ok(y)
}

/// LayerNorm of rows of `columns` in f64.
pub fn reference(columns: usize, eps: f64, x: &[f64], affine: Option<(&[f64], &[f64])>) -> Vec<f64> {
    x.chunks(columns)
        .flat_map(|row| {
            let mean = row.iter().sum::<f64>() / columns as f64;
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / columns as f64;
            let rstd = 1.0 / (variance + eps).sqrt();
            row.iter().map(move |v| (v - mean) * rstd).collect::<Vec<_>>()
        })
        .enumerate()
        .map(|(i, v)| affine.map_or(v, |(w, b)| v * w[i % columns] + b[i % columns]))
        .collect()
}

fn plain(rows: usize, columns: usize) -> Case {
    Case {
        op: "layer_norm",
        name: format!("plain {rows}x{columns}"),
        inputs: vec![Input::residual("x", &[rows, columns], 2.0)],
        build: Box::new(|g, t| Ok(vec![layer_norm(g, t[0], None, 1e-5)?])),
        reference: Box::new(move |x| vec![reference(columns, 1e-5, &x[0], None)]),
        ..Case::default()
    }
}

fn affine(rows: usize, columns: usize) -> Case {
    Case {
        op: "layer_norm",
        name: format!("affine {rows}x{columns}"),
        inputs: vec![
            Input::residual("x", &[rows, columns], 2.0),
            Input::parameter("weight", &[columns], 1.0),
            Input::parameter("bias", &[columns], 1.0),
        ],
        build: Box::new(|g, t| Ok(vec![layer_norm(g, t[0], Some((t[1], t[2])), 1e-5)?])),
        reference: Box::new(move |x| vec![reference(columns, 1e-5, &x[0], Some((&x[1], &x[2])))]),
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    let sizes = [(1, 3), (5, 16), (33, 80), (7, 129)];
    sizes.into_iter().flat_map(|(rows, columns)| [plain(rows, columns), affine(rows, columns)]).collect()
}

pub(super) fn large_cases() -> Vec<Case> {
    // The sums over rows of the affine gradients are longer than software drivers can be trusted with.
    vec![plain(65_539, 5)]
}
