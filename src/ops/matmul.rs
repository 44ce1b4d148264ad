//! Matrix product: C = op(A) op(B), the op everything heavy is made of.
//!
//! | layout | A | B | C | dA | dB |
//! |---|---|---|---|---|---|
//! | NN | (m, k) | (k, n) | A B | dC B^T | A^T dC |
//! | NT | (m, k) | (n, k) | A B^T | dC B | dC^T A |
//! | TN | (k, m) | (k, n) | A^T B | B dC^T | A dC |

pub mod candidates;
pub mod child;
mod clock;
mod cooperative;
mod known;
mod lanes;
mod measure;
#[cfg(test)]
pub mod planted;
pub mod probe;
mod results;
pub mod source;
mod tiles;
pub mod trial;
pub mod tune;

use super::{Case, Input};
use crate::error::{Error, Result};
use crate::gpu::choices::Candidate;
pub use crate::gpu::choices::{Layout, ProductKind};
use crate::gpu::kernel::Access::{Read, Write};
use crate::gpu::kernel::{Dims, Dtype, Kernel, workgroups};
use crate::graph::part::Even;
use crate::graph::{Graph, Tensor};
use source::Types;

static SUM_PARTS: Kernel = Kernel::new("reduce.wgsl", "sum_parts", &[Read, Write]);

/// Longest sum of one dispatch; longer ones are cut and added up. Mesa's llvmpipe (22.3.6, Vulkan and
/// GL) silently ends every loop of an invocation after 65 535 iterations in all, inner loops counted,
/// so no kernel here may come near that.
pub const MAX_SUM: usize = 32_768;

/// Products of one shape, recorded as one.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// Which operand is transposed.
    pub layout: Layout,
    /// (m, n, k): C is m x n, k is summed over.
    pub size: [usize; 3],
    /// Add to C instead of overwriting it.
    pub accumulate: bool,
    /// How many there are; their operands lie as [`Even`] says.
    pub count: usize,
    /// Elements from row to row of A as stored, where that is not its width.
    pub a_width: Option<usize>,
}

impl Product {
    /// One product that overwrites C.
    pub fn new(layout: Layout, size: [usize; 3]) -> Self {
        Self { layout, size, accumulate: false, count: 1, a_width: None }
    }

    /// The same, added to C where `accumulate` says so.
    pub fn adding(self, accumulate: bool) -> Self {
        Self { accumulate, ..self }
    }

    /// `count` such products.
    pub fn batch(self, count: usize) -> Self {
        Self { count, ..self }
    }

    /// The same, with an A that is so many neighbouring columns, as stored, of a matrix this wide.
    pub fn of_columns(self, a_width: usize) -> Self {
        Self { a_width: Some(a_width), ..self }
    }

    /// Records the dispatches, without a backward. A whole tensor stands for all elements of it from the first.
    pub fn record(self, g: &mut Graph, a: impl Into<Even>, b: impl Into<Even>, c: impl Into<Even>) -> Result<()> {
        let operands = [a.into(), b.into(), c.into()];
        if self.count > 1 && operands[2].stride == 0 {
            return Err(Error::usage("several products would write one matrix; this is a defect"));
        }
        let types = Types::of(operands.map(|operand| g.dtype(operand.whole)));
        let product = self.kind(g, types);
        let picked = g.choices().pick(product);
        // Parts are added up in f32; where C is f16 it is no sum over the tokens of a batch, and not worth cutting. And
        // they must fit one binding, which they may in one product of a class and not in another.
        let parts_fit = self.part_bytes(picked) <= g.choices().ability().binding_bytes;
        let candidate = if types.c == Dtype::F32 && parts_fit { picked } else { picked.unsplit() };
        if self.count > 1 && candidate.splits() > 1 {
            let one = |i| self.batch(1).dispatch(g, candidate, product, operands.map(|operand| operand.at(i)));
            return (0..self.count).try_for_each(one);
        }
        self.dispatch(g, candidate, product, operands)
    }

    /// Bytes of the parts of a C whose sums a candidate cuts.
    fn part_bytes(&self, candidate: Candidate) -> u64 {
        let [m, n, _] = self.size;
        4 * (candidate.splits() * m * n) as u64
    }

    /// Records the dispatches of `candidate`, which was picked for `product`.
    fn dispatch(self, g: &mut Graph, candidate: Candidate, product: ProductKind, operands: [Even; 3]) -> Result<()> {
        let ([m, n, k], [a, b, c]) = (self.size, operands);
        // From row to row as stored, and from one term of the sum to the next.
        let a_stride = self.a_width.unwrap_or(if self.layout == Layout::TN { m } else { k });
        let a_term = if self.layout == Layout::TN { a_stride } else { 1 };
        let (b_stride, b_term) = if self.layout == Layout::NT { (k, 1) } else { (n, n) };
        let types = Types::of(operands.map(|operand| g.dtype(operand.whole)));
        let aligned = [a.offset, a_stride, a.stride].iter().all(|n| n.is_multiple_of(4));

        let [block_rows, block_columns] = candidate.block();
        let blocks = m.div_ceil(block_rows) * n.div_ceil(block_columns) * self.count;
        for first in (0..k).step_by(MAX_SUM) {
            let terms = MAX_SUM.min(k - first);
            let accumulate = self.accumulate || first > 0;
            let dims = Dims::new().u(m).u(n).u(terms).u(a.offset + first * a_term).u(b.offset + first * b_term);
            let flops = 2 * (m * n * self.count) as u64 * terms as u64;
            let (part, parts) = split(candidate, terms);
            if parts == 1 {
                let kernel = candidates::kernel(candidate, self.layout, types, aligned);
                let dims = dims.u(c.offset).u(a_stride).u(b_stride).flag(accumulate).u(terms);
                let dims = dims.u(self.count).u(a.stride).u(b.stride).u(c.stride);
                g.call(kernel, &[a.whole, b.whole, c.whole], dims, workgroups(blocks), flops)?;
                g.last_is(product);
                g.last_moves(self.bytes(types, [a, b, c], terms, accumulate));
                continue;
            }
            let partial = g.statistic("parts of a product", &[parts, m, n]);
            let kernel = candidates::kernel(candidate, self.layout, Types { c: Dtype::F32, ..types }, aligned);
            let dims = dims.u(0).u(a_stride).u(b_stride).flag(false).u(part).u(1).u(0).u(0).u(0);
            g.call(kernel, &[a.whole, b.whole, partial], dims, workgroups(blocks * parts), flops)?;
            g.last_is(product);
            g.last_moves(self.bytes(types, [a, b, c], terms, false) + 4 * (m * n * (parts - 1)) as u64);
            let dims = Dims::new().u(m * n).u(parts).u(c.offset).flag(accumulate);
            g.call(&SUM_PARTS, &[partial, c.whole], dims, workgroups((m * n).div_ceil(64)), 0)?;
            g.last_moves(4 * (m * n * (parts + 1)) as u64);
        }
        Ok(())
    }

    /// What the choice of a kernel depends on. A GPU works on all matrices of a batch side by side, as on one that is so
    /// many times as tall; on a software driver the size of one decides.
    fn kind(&self, g: &Graph, types: Types) -> ProductKind {
        let [m, n, k] = self.size;
        let tall = if g.choices().ability().software { m } else { m * self.count };
        let half = types.a == Dtype::F16 && types.b == Dtype::F16;
        ProductKind { layout: self.layout, size: [tall, n, k], half }
    }

    /// Bytes of the ranges of A, B and C that `terms` of the sum take; an operand that all share counts once.
    fn bytes(&self, types: Types, operands: [Even; 3], terms: usize, accumulate: bool) -> u64 {
        let [m, n, _] = self.size;
        let of = |operand: Even, elements: usize, dtype: Dtype| {
            let matrices = if operand.stride == 0 { 1 } else { self.count };
            (elements * matrices) as u64 * dtype.bytes()
        };
        let [a, b, c] = operands;
        let passes = if accumulate { 2 } else { 1 };
        of(a, m * terms, types.a) + of(b, n * terms, types.b) + passes * of(c, m * n, types.c)
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
        let into = |layout, size, add| Product::new(layout, size).adding(add);
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

fn case(layout: Layout, size: [usize; 3]) -> Case {
    let [m, n, k] = size;
    let a_shape = if layout == Layout::TN { [k, m] } else { [m, k] };
    let b_shape = if layout == Layout::NT { [n, k] } else { [k, n] };
    Case {
        op: "matmul",
        name: format!("{layout:?} {m}x{n}x{k}"),
        inputs: vec![Input::normal("a", &a_shape, 1.0), Input::normal("b", &b_shape, 1.0)],
        build: Box::new(move |g, t| Ok(vec![matmul(g, layout, t[0], t[1])?])),
        reference: Box::new(move |x| vec![reference(layout, size, &x[0], &x[1])]),
        nmse: 1e-9,
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    let sizes =
        [[1, 1, 1], [7, 13, 5], [8, 64, 16], [9, 65, 17], [64, 64, 64], [65, 131, 33], [3, 257, 97], [2, 3, 70_001]];
    Layout::ALL.into_iter().flat_map(|layout| sizes.map(|size| case(layout, size))).collect()
}

/// Their gradients are sums over two million rows, which no model asks for.
pub(super) fn large_cases() -> Vec<Case> {
    let tall = |layout| Case { gradient: false, ..case(layout, [32 * 65_535 + 5, 1, 3]) };
    Layout::ALL.into_iter().map(tall).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::choices::{Ability, Choices, ShapeClass};
    use crate::graph::plan::{Limits, Plan};
    use crate::graph::{Class, Graph};

    const SPLIT: Candidate = Candidate::Tiles { block: [64; 2], depth: 16, thread: [4; 2], splits: 8 };

    fn kernels(plan: &Plan) -> Vec<String> {
        plan.calls.iter().map(|call| call.kernel.name()).collect()
    }

    /// Eight parts of C need 210 MB, and every device is only sure to bind 134 MB.
    #[test]
    fn a_sum_is_not_cut_where_its_parts_fit_no_binding() {
        for (m, fits) in [(5120, false), (1280, true)] {
            let mut g = Graph::forward_only(&Choices::forced(Ability::WEBGPU_DEFAULT, SPLIT));
            let [a, b, c] = [("a", 4096 * m), ("b", 4096 * 1280), ("c", m * 1280)]
                .map(|(name, len)| g.typed(name, &[len], Dtype::F32, Class::State));
            Product::new(Layout::TN, [m, 1280, 4096]).record(&mut g, a, b, c).unwrap();
            let plan = Plan::new(&g, &Limits::WEBGPU_DEFAULT).unwrap();
            assert_eq!(kernels(&plan).len(), if fits { 2 } else { 1 });
        }
    }

    /// Products that are one batch, but too many for one dispatch of the chosen kernel, still get that kernel.
    #[test]
    fn a_batch_is_computed_by_the_kernel_that_was_chosen_for_it() {
        let product = ProductKind { layout: Layout::TN, size: [3 * 64, 64, 4096], half: false };
        let choices = Choices::usual(Ability::WEBGPU_DEFAULT).with_table([(ShapeClass::of(product), SPLIT)].into());
        let mut g = Graph::forward_only(&choices);
        let [a, b, c] = [("a", 3 * 4096 * 64), ("b", 4096 * 64), ("c", 3 * 64 * 64)]
            .map(|(name, len)| g.typed(name, &[len], Dtype::F32, Class::State));
        let every = |whole, stride| Even { whole, offset: 0, stride };
        let batch = Product::new(Layout::TN, [64, 64, 4096]).batch(3);
        batch.record(&mut g, every(a, 4096 * 64), b, every(c, 64 * 64)).unwrap();
        let plan = Plan::new(&g, &Limits::WEBGPU_DEFAULT).unwrap();
        let sums = kernels(&plan).iter().filter(|name| name.contains("sum_parts")).count();
        assert_eq!((sums, plan.products), (3, vec![product; 3]));
    }
}
