//! Matrix product: C = op(A) op(B), the op everything heavy is made of.
//!
//! | layout | A | B | C | dA | dB |
//! |---|---|---|---|---|---|
//! | NN | (m, k) | (k, n) | A B | dC B^T | A^T dC |
//! | NT | (m, k) | (n, k) | A B^T | dC B | dC^T A |
//! | TN | (k, m) | (k, n) | A^T B | B dC^T | A dC |

pub mod candidates;
mod cooperative;
mod lanes;
pub mod source;
mod tiles;
pub mod tune;

use super::{Case, Input};
use crate::error::{Error, Result};
use crate::gpu::choices::Candidate;
pub use crate::gpu::choices::{Layout, ProductKind};
use crate::gpu::kernel::Access::{Read, Write};
use crate::gpu::kernel::{Dims, Dtype, Kernel, workgroups};
use crate::graph::{Graph, Tensor};
use source::Types;

static SUM_PARTS: Kernel = Kernel::new("reduce.wgsl", "sum_parts", &[Read, Write]);

/// Longest sum of one dispatch; longer ones are cut and added up. Mesa's llvmpipe (22.3.6, Vulkan and
/// GL) silently ends every loop of an invocation after 65 535 iterations in all, inner loops counted,
/// so no kernel here may come near that.
pub const MAX_SUM: usize = 32_768;

/// Sizes and places of one product; offsets in elements, for a block of rows of a larger matrix.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// Which operand is transposed.
    pub layout: Layout,
    /// (m, n, k): C is m x n, k is summed over.
    pub size: [usize; 3],
    /// First element of A, B and C.
    pub offsets: [usize; 3],
    /// Add to C instead of overwriting it.
    pub accumulate: bool,
}

impl Product {
    /// A product of whole matrices that overwrites C.
    pub fn new(layout: Layout, size: [usize; 3]) -> Self {
        Self { layout, size, offsets: [0; 3], accumulate: false }
    }

    /// Records the dispatches, without a backward.
    pub fn record(self, g: &mut Graph, a: Tensor, b: Tensor, c: Tensor) -> Result<()> {
        let [m, n, k] = self.size;
        let [a_offset, b_offset, c_offset] = self.offsets;
        // From row to row as stored, and from one term of the sum to the next.
        let (a_stride, a_term) = if self.layout == Layout::TN { (m, m) } else { (k, 1) };
        let (b_stride, b_term) = if self.layout == Layout::NT { (k, 1) } else { (n, n) };
        let types = Types { a: g.dtype(a), b: g.dtype(b), c: g.dtype(c) };
        let half = types.a == Dtype::F16 && types.b == Dtype::F16;
        let product = ProductKind { layout: self.layout, size: self.size, half };
        let candidate = g.choices().pick(product);
        g.note_product(product);
        let aligned = a_offset.is_multiple_of(4) && a_stride.is_multiple_of(4);

        let [block_rows, block_columns] = candidate.block();
        let blocks = m.div_ceil(block_rows) * n.div_ceil(block_columns);
        for first in (0..k).step_by(MAX_SUM) {
            let terms = MAX_SUM.min(k - first);
            let accumulate = self.accumulate || first > 0;
            let dims = Dims::new().u(m).u(n).u(terms).u(a_offset + first * a_term).u(b_offset + first * b_term);
            let flops = 2 * (m * n) as u64 * terms as u64;
            // Parts are added up in f32; where C is f16 it is no sum over the tokens of a batch, and not worth cutting.
            let (part, parts) = if types.c == Dtype::F16 { (terms, 1) } else { split(candidate, terms) };
            if parts == 1 {
                let kernel = candidates::kernel(candidate, self.layout, types, aligned);
                let dims = dims.u(c_offset).u(a_stride).u(b_stride).flag(accumulate).u(terms);
                g.call(kernel, &[a, b, c], dims, workgroups(blocks), flops)?;
                continue;
            }
            let partial = g.statistic("parts of a product", &[parts, m, n]);
            let kernel = candidates::kernel(candidate, self.layout, Types { c: Dtype::F32, ..types }, aligned);
            let dims = dims.u(0).u(a_stride).u(b_stride).flag(false).u(part);
            g.call(kernel, &[a, b, partial], dims, workgroups(blocks * parts), flops)?;
            let dims = Dims::new().u(m * n).u(parts).u(c_offset).flag(accumulate);
            g.call(&SUM_PARTS, &[partial, c], dims, workgroups((m * n).div_ceil(64)), 0)?;
        }
        Ok(())
    }
}

/// Terms of each part of a sum, and how many parts there are: parts are whole tiles.
fn split(candidate: Candidate, terms: usize) -> (usize, usize) {
    let Candidate::Tiles { depth, .. } = candidate else { return (terms, 1) };
    let part = terms.div_ceil(candidate.splits()).next_multiple_of(depth as usize);
    (part, terms.div_ceil(part))
}

/// C = op(A) op(B), differentiable in both.
pub fn matmul(g: &mut Graph, layout: Layout, a: Tensor, b: Tensor) -> Result<Tensor> {
    let (a_shape, b_shape) = (g.matrix(a)?, g.matrix(b)?);
    let (m, k) = if layout == Layout::TN { (a_shape.1, a_shape.0) } else { a_shape };
    let (n, k_b) = if layout == Layout::NT { b_shape } else { (b_shape.1, b_shape.0) };
    if k != k_b {
        return Err(Error::usage(format!(
            "matmul {layout:?}: {a_shape:?} and {b_shape:?} do not fit; this is a defect"
        )));
    }
    let c = g.activation("product", &[m, n]);
    Product::new(layout, [m, n, k]).record(g, a, b, c)?;
    g.on_backward(move |g| {
        let dc = g.take_grad(c)?;
        let (da, add_a) = g.grad_target(a)?;
        let (db, add_b) = g.grad_target(b)?;
        let into = |layout, size, accumulate| Product { accumulate, ..Product::new(layout, size) };
        match layout {
            Layout::NN => {
                into(Layout::NT, [m, k, n], add_a).record(g, dc, b, da)?;
                into(Layout::TN, [k, n, m], add_b).record(g, a, dc, db)
            }
            Layout::NT => {
                into(Layout::NN, [m, k, n], add_a).record(g, dc, b, da)?;
                into(Layout::TN, [n, k, m], add_b).record(g, dc, a, db)
            }
            Layout::TN => {
                into(Layout::NT, [k, m, n], add_a).record(g, b, dc, da)?;
                into(Layout::NN, [k, n, m], add_b).record(g, a, dc, db)
            }
        }
    });
    Ok(c)
}

/// Plain f64 product, for tests and references of other ops.
pub fn reference(layout: Layout, [m, n, k]: [usize; 3], a: &[f64], b: &[f64]) -> Vec<f64> {
    let a_at = |r: usize, i: usize| if layout == Layout::TN { a[i * m + r] } else { a[r * k + i] };
    let b_at = |i: usize, c: usize| if layout == Layout::NT { b[c * k + i] } else { b[i * n + c] };
    (0..m * n).map(|e| (0..k).map(|i| a_at(e / n, i) * b_at(i, e % n)).sum()).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let sizes =
        [[1, 1, 1], [7, 13, 5], [8, 64, 16], [9, 65, 17], [64, 64, 64], [65, 131, 33], [3, 257, 97], [2, 3, 70_001]];
    let mut cases = Vec::new();
    for layout in [Layout::NN, Layout::NT, Layout::TN] {
        for size in sizes {
            let [m, n, k] = size;
            let a_shape = if layout == Layout::TN { [k, m] } else { [m, k] };
            let b_shape = if layout == Layout::NT { [n, k] } else { [k, n] };
            cases.push(Case {
                op: "matmul",
                name: format!("{layout:?} {m}x{n}x{k}"),
                inputs: vec![Input::normal("a", &a_shape, 1.0), Input::normal("b", &b_shape, 1.0)],
                build: Box::new(move |g, t| Ok(vec![matmul(g, layout, t[0], t[1])?])),
                reference: Box::new(move |x| vec![reference(layout, size, &x[0], &x[1])]),
                nmse: 1e-9,
                ..Case::default()
            });
        }
    }
    cases
}
