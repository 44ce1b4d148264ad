//! LayerNorm over the columns of each row, without parameters (inside the blocks of a TokenFormer) or
//! with weight and bias (its final norm, and the Transformer's).
//!
//! y = (x - mean) rstd w + b with the biased variance. dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy w;
//! dw = sum of dy xhat, db = sum of dy over rows. Saved: x, which is the residual stream, and mean and rstd of each row.
//!
//! [`add_norm`] is a residual addition and the norm of its sum. On a GPU both are one dispatch, and the sum is not read
//! again; software adapters keep the two, and so their bits.

use super::add::add;
use super::{Case, Input};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Kernel, ParameterBlock, parameter_block, word};

static FORWARD_PLAIN: Kernel = Kernel::new("layer_norm.wgsl", "forward_plain", &[Read, Write, Write]);
static FORWARD_AFFINE: Kernel = Kernel::new("layer_norm.wgsl", "forward_affine", &[Read, Read, Read, Write, Write]);
static BACKWARD_PLAIN: Kernel = Kernel::new("layer_norm.wgsl", "backward_plain", &[Read, Read, Read, Write]);
static BACKWARD_AFFINE: Kernel = Kernel::new("layer_norm.wgsl", "backward_affine", &[Read, Read, Read, Read, Write]);
static BACKWARD_PARAMETERS: Kernel =
    Kernel::new("layer_norm.wgsl", "backward_parameters", &[Read, Read, Read, Write, Write]);

// The schedules for GPUs.
static FORWARD_PLAIN_GPU: Kernel = Kernel::new("layer_norm_gpu.wgsl", "forward_plain", &[Read, Write, Write]);
static FORWARD_AFFINE_GPU: Kernel =
    Kernel::new("layer_norm_gpu.wgsl", "forward_affine", &[Read, Read, Read, Write, Write]);
static ADD_PLAIN_GPU: Kernel = Kernel::new("layer_norm_gpu.wgsl", "add_plain", &[Read, Read, Write, Write, Write]);
static ADD_AFFINE_GPU: Kernel =
    Kernel::new("layer_norm_gpu.wgsl", "add_affine", &[Read, Read, Read, Read, Write, Write, Write]);
static BACKWARD_PLAIN_GPU: Kernel =
    Kernel::new("layer_norm_backward_gpu.wgsl", "backward_plain", &[Read, Read, Read, Write]);
static BACKWARD_AFFINE_GPU: Kernel = Kernel::new(
    "layer_norm_backward_gpu.wgsl",
    "backward_affine",
    &[Read, Read, Read, Read, Write, Read, Write, Write],
);
static PARAMETER_PARTS: Kernel =
    Kernel::new("layer_norm_backward_gpu.wgsl", "parameter_parts", &[Read, Read, Read, Write]);

parameter_block! {
    /// The parameter block of `shaders/layer_norm.wgsl`.
    pub(crate) struct LayerNormDims {
        rows: u32,
        columns: u32,
        eps: f32,
        accumulate: u32,
    }
}

parameter_block! {
    /// The parameter block of `shaders/layer_norm_gpu.wgsl`.
    pub(crate) struct LayerNormGpuDims {
        rows: u32,
        columns: u32,
        eps: f32,
        /// embed_plain: rows of x
        vocab: u32,
    }
}

parameter_block! {
    /// The parameter block of `shaders/layer_norm_backward_gpu.wgsl`.
    pub(crate) struct LayerNormBackwardDims {
        rows: u32,
        columns: u32,
        eps: f32,
        /// dx
        accumulate: u32,
        accumulate_parameters: u32,
    }
}

/// Rows that one workgroup adds up for the gradients of weight and bias on a GPU; the same in the shader.
const CHUNK: usize = 64;

/// Weight and bias, each (C).
pub type Affine = (Tensor, Tensor);

/// What forward and backward have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
    rows: usize,
    columns: usize,
    affine: Option<Affine>,
    eps: f64,
    /// Mean and rstd (R, 2).
    pub(super) stats: Tensor,
}

/// y (R, C) from x (R, C), and `(weight, bias)`, each (C), where given.
pub fn layer_norm(g: &mut Graph, x: Tensor, affine: Option<Affine>, eps: f64) -> Result<Tensor> {
    let (norm, y) = begin(g, x, affine, eps)?;
    let (plain, with_affine) = match g.on_gpu() {
        true => (FORWARD_PLAIN_GPU.for_width(norm.columns), FORWARD_AFFINE_GPU.for_width(norm.columns)),
        false => (&FORWARD_PLAIN, &FORWARD_AFFINE),
    };
    let dims = norm.forward_parameters(g.on_gpu());
    let call = match affine {
        None => g.call(plain).bind(&[x, y, norm.stats]),
        Some((w, b)) => g.call(with_affine).bind(&[x, w, b, y, norm.stats]),
    };
    call.parameters(dims).groups(norm.rows).record()?;
    g.on_backward(move |g| norm.backward(g, x, y));
    Ok(y)
}

/// x + d, both (R, C), and the [`layer_norm`] of it.
pub(crate) fn add_norm(g: &mut Graph, [x, d]: [Tensor; 2], affine: Option<Affine>, eps: f64) -> Result<(Tensor, Tensor)> {
    if !g.on_gpu() {
        let sum = add(g, x, d)?;
        return Ok((sum, layer_norm(g, sum, affine, eps)?));
    }
    let shape = g.shape(x).to_vec();
    let sum = g.residual("sum", &shape);
    let (norm, y) = begin(g, sum, affine, eps)?;
    let (plain, with_affine) = (ADD_PLAIN_GPU.for_width(norm.columns), ADD_AFFINE_GPU.for_width(norm.columns));
    let call = match affine {
        None => g.call(plain).bind(&[x, d, sum, y, norm.stats]),
        Some((w, b)) => g.call(with_affine).bind(&[x, w, b, d, sum, y, norm.stats]),
    };
    call.parameters(norm.forward_parameters(true)).groups(norm.rows).record()?;
    g.on_backward(move |g| {
        norm.backward(g, sum, y)?;
        // As of any addition: both terms get the gradient of the sum.
        let dsum = g.take_grad(sum)?;
        g.set_grad(x, dsum);
        g.set_grad(d, dsum);
        Ok(())
    });
    Ok((sum, y))
}

/// Where the norm of `x` goes.
pub(super) fn begin(g: &mut Graph, x: Tensor, affine: Option<Affine>, eps: f64) -> Result<(Norm, Tensor)> {
    let (rows, columns) = g.matrix(x)?;
    let y = g.activation("layer norm", &[rows, columns]);
    let stats = g.statistic("mean and rstd", &[rows, 2]);
    Ok((Norm { rows, columns, affine, eps, stats }, y))
}

impl Norm {
    fn forward_parameters(&self, on_gpu: bool) -> ParameterBlock {
        let Self { rows, columns, eps, .. } = *self;
        match on_gpu {
            true => LayerNormGpuDims { rows: word(rows), columns: word(columns), eps: eps as f32, vocab: 0 }.into(),
            false => self.dims(false).into(),
        }
    }

    fn dims(&self, accumulate: bool) -> LayerNormDims {
        let Self { rows, columns, eps, .. } = *self;
        LayerNormDims { rows: word(rows), columns: word(columns), eps: eps as f32, accumulate: u32::from(accumulate) }
    }

    fn backward_dims(&self, accumulate: bool, accumulate_parameters: bool) -> LayerNormBackwardDims {
        let LayerNormDims { rows, columns, eps, accumulate } = self.dims(accumulate);
        let accumulate_parameters = u32::from(accumulate_parameters);
        LayerNormBackwardDims { rows, columns, eps, accumulate, accumulate_parameters }
    }

    pub(super) fn backward(&self, g: &mut Graph, x: Tensor, y: Tensor) -> Result<()> {
        if g.on_gpu() { self.backward_on_gpu(g, x, y) } else { self.backward_on_software(g, x, y) }
    }

    fn backward_on_software(&self, g: &mut Graph, x: Tensor, y: Tensor) -> Result<()> {
        let Self { rows, columns, affine, stats, .. } = *self;
        let dy = g.take_grad(y)?;
        let Some((w, b)) = affine else {
            let (dx, add) = g.grad_target(x)?;
            let call = g.call(&BACKWARD_PLAIN).bind(&[x, stats, dy, dx]);
            return call.parameters(self.dims(add)).groups(rows).record();
        };
        let (dw, db, add_parameters) = parameter_gradients(g, (w, b))?;
        let call = g.call(&BACKWARD_PARAMETERS).bind(&[x, stats, dy, dw, db]);
        call.parameters(self.dims(add_parameters)).groups(columns.div_ceil(8)).record()?;
        let (dx, add) = g.grad_target(x)?;
        let call = g.call(&BACKWARD_AFFINE).bind(&[x, stats, dy, w, dx]);
        call.parameters(self.dims(add)).groups(rows).record()
    }

    fn backward_on_gpu(&self, g: &mut Graph, x: Tensor, y: Tensor) -> Result<()> {
        let Self { rows, columns, affine, stats, .. } = *self;
        let dy = g.take_grad(y)?;
        let Some((w, b)) = affine else {
            let (dx, add) = g.grad_target(x)?;
            let call = g.call(BACKWARD_PLAIN_GPU.for_width(columns)).bind(&[x, stats, dy, dx]);
            return call.parameters(self.backward_dims(add, false)).groups(rows).record();
        };
        let (dw, db, add_parameters) = parameter_gradients(g, (w, b))?;
        // Sums by few workgroups would leave a GPU idle: parts first, which are added up along with dx.
        let count = rows.div_ceil(CHUNK);
        let parts = g.statistic("parts of d weight and d bias", &[count, 2, columns]);
        let call = g.call(PARAMETER_PARTS.for_width(columns)).bind(&[x, stats, dy, parts]);
        call.parameters(self.backward_dims(false, false)).groups(count * columns.div_ceil(64)).record()?;
        let (dx, add) = g.grad_target(x)?;
        let call = g.call(BACKWARD_AFFINE_GPU.for_width(columns)).bind(&[x, stats, dy, w, dx, parts, dw, db]);
        call.parameters(self.backward_dims(add, add_parameters)).groups(rows).record()
    }
}

/// Where the gradients of weight and bias go, and whether they are added to what is there.
fn parameter_gradients(g: &mut Graph, (w, b): Affine) -> Result<(Tensor, Tensor, bool)> {
    let (dw, add_w) = g.grad_target(w)?;
    let (db, add_b) = g.grad_target(b)?;
    // Both belong to one norm: they are new together.
    Ok((dw, db, add_w || add_b))
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

/// A residual addition before it; with both outputs in use, as in a block, where a gradient reaches each.
fn added(rows: usize, columns: usize, affine: bool) -> Case {
    let shape = [rows, columns];
    let parameter = |name| Input::parameter(name, &[columns], 1.0);
    Case {
        op: "layer_norm",
        name: format!("after add, {} {rows}x{columns}", if affine { "affine" } else { "plain" }),
        inputs: [Input::residual("x", &shape, 2.0), Input::normal("d", &shape, 2.0)]
            .into_iter()
            .chain(affine.then(|| ["weight", "bias"].map(parameter)).into_iter().flatten())
            .collect(),
        build: Box::new(move |g, t| {
            let (sum, y) = add_norm(g, [t[0], t[1]], affine.then(|| (t[2], t[3])), 1e-5)?;
            let y = super::gelu::gelu(g, y, false)?;
            Ok(vec![add(g, sum, y)?])
        }),
        reference: Box::new(move |x| {
            let sum: Vec<f64> = x[0].iter().zip(&x[1]).map(|(x, d)| x + d).collect();
            let y = reference(columns, 1e-5, &sum, affine.then(|| (x[2].as_slice(), x[3].as_slice())));
            vec![sum.iter().zip(&y).map(|(sum, y)| sum + super::gelu::reference(*y, false)).collect()]
        }),
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    // The last two: past what a workgroup of a GPU holds in registers.
    let sizes = [(1, 3), (5, 16), (33, 80), (7, 129), (70, 130), (2, 4101), (3, 4612)];
    let all = |(rows, columns)| {
        [plain(rows, columns), affine(rows, columns), added(rows, columns, false), added(rows, columns, true)]
    };
    sizes.into_iter().flat_map(all).collect()
}

pub(super) fn large_cases() -> Vec<Case> {
    // The sums over rows of the affine gradients are longer than software drivers can be trusted with.
    vec![plain(65_539, 5), added(65_539, 4, false)]
}
