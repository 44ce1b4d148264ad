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
mod pair;
pub mod parts;
#[cfg(test)]
pub mod planted;
pub mod source;
mod tiles;

use super::{Case, Input};
use crate::error::{Error, Result};
use crate::graph::view::Strided;
use crate::graph::{Graph, Tensor};
pub(crate) use crate::kernel::MAX_SUM;
use crate::kernel::{Candidate, Dtype, ParameterBlock, word};
pub use crate::kernel::{Layout, ProductKind};
use pair::Second;
use source::{Dims, ProductForm, Types, Vectors};

/// Most products that one dispatch adds up: so many times [`MAX_SUM`] terms, a few in each turn of a loop, stay clear of
/// the same limit.
const MOST_SUMMED: usize = 4;

/// Products of one shape, recorded as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// Which operand is transposed.
    pub layout: Layout,
    /// (m, n, k): C is m x n, k is summed over.
    pub size: [usize; 3],
    /// Add to C instead of overwriting it.
    pub accumulate: bool,
    /// How many there are; their operands lie as [`Strided`] says.
    pub count: usize,
    /// How many are added up in one C.
    pub sum: usize,
    /// Elements from row to row of A as stored, where that is not its width.
    pub a_width: Option<usize>,
    /// Elements from row to row of C, where that is not its width.
    pub c_width: Option<usize>,
    /// Whether its sums may be cut in parts.
    pub cut: bool,
    /// Terms after which a sum is added to C, and begins anew: at most [`MAX_SUM`].
    pub longest: usize,
}

impl Product {
    /// One product that overwrites C.
    pub fn new(layout: Layout, size: [usize; 3]) -> Self {
        Self {
            layout,
            size,
            accumulate: false,
            count: 1,
            sum: 1,
            a_width: None,
            c_width: None,
            cut: true,
            longest: MAX_SUM,
        }
    }

    /// The same, added to C where `accumulate` says so.
    pub fn adding(self, accumulate: bool) -> Self {
        Self { accumulate, ..self }
    }

    /// `count` such products.
    pub fn batch(self, count: usize) -> Self {
        Self { count, ..self }
    }

    /// The sum of `count` such products: C = op(A_0) op(B_0) + op(A_1) op(B_1) + ... On a GPU each output is one sum in
    /// one accumulator, products ascending, then k ascending; elsewhere one product is added to C after the other.
    pub fn summed(self, count: usize) -> Self {
        Self { sum: count, ..self }
    }

    /// The same, with an A that is so many neighbouring columns, as stored, of a matrix this wide.
    pub fn of_columns(self, a_width: usize) -> Self {
        Self { a_width: Some(a_width), ..self }
    }

    /// The same, into so many neighbouring columns of a matrix this wide; with each sum in one part.
    pub fn into_columns(self, c_width: usize) -> Self {
        Self { c_width: Some(c_width), cut: false, ..self }
    }

    /// The same with sums of `terms` terms that are added up in C.
    pub(crate) fn in_sums_of(self, terms: usize) -> Self {
        Self { longest: terms.clamp(1, MAX_SUM), ..self }
    }

    /// The same with each sum in one part. For all that makes logits: a growth makes sums longer, and where it moved the
    /// boundary of a part, the model that grew would differ from the one before in its last bits.
    pub(crate) fn uncut(self) -> Self {
        Self { cut: false, ..self }
    }

    /// Records the dispatches, without a backward. A whole tensor stands for all elements of it from the first.
    pub fn record(
        self,
        g: &mut Graph,
        a: impl Into<Strided>,
        b: impl Into<Strided>,
        c: impl Into<Strided>,
    ) -> Result<()> {
        let operands = [a.into(), b.into(), c.into()];
        if self.count > 1 && (operands[2].stride == 0 || self.sum > 1) {
            return Err(Error::defect("several products would write one matrix"));
        }
        self.check_extents(g, operands)?;
        let types = Types::of(operands.map(|operand| g.dtype(operand.storage)));
        let product = self.kind(g, types);
        let picked = g.kernels().pick(product);
        let lanes = matches!(picked, Candidate::Lanes { .. });
        if self.sum > 1 && (lanes || self.sum > MOST_SUMMED || g.kernels().target().software) {
            let one = Self { sum: 1, ..self };
            let at = |i: usize| [operands[0].at(i), operands[1].at(i), operands[2]];
            let record = |i: usize| {
                let [a, b, c] = at(i);
                one.adding(self.accumulate || i > 0).record(g, a, b, c)
            };
            return (0..self.sum).try_for_each(record);
        }
        let candidate = if self.may_be_cut(g, picked) { picked } else { g.kernels().pick_uncut(product) };
        self.dispatch(g, candidate, product, operands, None)
    }

    /// Parts must fit one binding, which they may in one product of a class and not in another.
    fn may_be_cut(&self, g: &Graph, candidate: Candidate) -> bool {
        let [m, n, k] = self.size;
        let part_bytes = 4 * (self.count * k.div_ceil(candidate.chunk().max(1)) * m * n) as u64;
        self.cut && self.sum == 1 && part_bytes <= g.kernels().target().max_tensor()
    }

    /// Refuses operands whose last element is outside of their tensor. Kernels clamp or mask against (m, n, k) alone, and on
    /// GPUs nothing else keeps them inside.
    fn check_extents(&self, g: &Graph, operands: [Strided; 3]) -> Result<()> {
        let [m, n, k] = self.size;
        let (a_rows, a_columns) = if self.layout == Layout::TN { (k, m) } else { (m, k) };
        let (b_rows, b_columns) = if self.layout == Layout::NT { (n, k) } else { (k, n) };
        // Rows and columns as stored, and elements from row to row.
        let a = (a_rows, a_columns, self.a_width.unwrap_or(a_columns));
        let stored = [a, (b_rows, b_columns, b_columns), (m, n, self.c_width.unwrap_or(n))];
        for ((operand, (rows, columns, width)), name) in operands.into_iter().zip(stored).zip(["A", "B", "C"]) {
            let rows_before = rows.saturating_sub(1).saturating_mul(width);
            let matrices_before = (self.count.max(self.sum) - 1).saturating_mul(operand.stride);
            let end =
                [matrices_before, rows_before, columns].iter().fold(operand.offset, |end, &n| end.saturating_add(n));
            let elements = g.shape(operand.storage).iter().fold(1_usize, |n, &extent| n.saturating_mul(extent));
            if end > elements || columns > width {
                return Err(Error::defect(format!(
                    "{name} of a product {:?} {m}x{n}x{k} ends at element {end} of \"{}\", which has {elements}",
                    self.layout,
                    g.tensors()[operand.storage.index()].name
                )));
            }
        }
        Ok(())
    }

    /// Records the dispatches of `candidate`, which was picked for `product`; `second` is where the second half of the batch
    /// lies, if elsewhere.
    fn dispatch(
        self,
        g: &mut Graph,
        candidate: Candidate,
        product: ProductKind,
        operands: [Strided; 3],
        second: Option<Second>,
    ) -> Result<()> {
        let ([m, n, k], [a, b, c]) = (self.size, operands);
        // From row to row as stored, and from one term of the sum to the next.
        let a_stride = self.a_width.unwrap_or(if self.layout == Layout::TN { m } else { k });
        let a_term = if self.layout == Layout::TN { a_stride } else { 1 };
        let (b_stride, b_term) = if self.layout == Layout::NT { (k, 1) } else { (n, n) };
        // With one row there is no next one.
        let c_stride = self.c_width.filter(|_| m > 1).unwrap_or(n);
        let form = match second {
            Some(_) => ProductForm::Pair,
            None if c_stride != n => ProductForm::Columns,
            None => ProductForm::Whole,
        };
        let types = Types::of(operands.map(|operand| g.dtype(operand.storage)));

        let [block_rows, block_columns] = candidate.block();
        let blocks = m.div_ceil(block_rows) * n.div_ceil(block_columns) * self.count;
        // A sum in parts has no long loop.
        let chunk = candidate.chunk();
        let longest = if chunk > 0 { k.max(1) } else { self.longest };
        for first in (0..k).step_by(longest) {
            let terms = longest.min(k - first);
            let accumulate = self.accumulate || first > 0;
            let [a_offset, b_offset] = [a.offset + first * a_term, b.offset + first * b_term];
            let flops = 2 * (m * n * self.count * self.sum) as u64 * terms as u64;
            let (part, parts) = if chunk > 0 { (chunk, terms.div_ceil(chunk)) } else { (terms, 1) };
            // Where the kernel writes: C, or the parts of it.
            let (to, to_second, add) = if parts == 1 {
                (c, second.map_or(0, |second| second.c), accumulate)
            } else {
                let storage = g.statistic("parts of a product", &[self.count * parts, m, n]);
                let stride = if self.count > 1 { parts * m * n } else { 0 };
                (Strided { storage, offset: 0, stride }, self.count / 2 * stride, false)
            };
            // The same of the second half as of the first, if there is none.
            let [a_second, b_second, b2_stride] = second.map_or([a_offset, b_offset, b.stride], |second| {
                [second.a + first * a_term, second.b.offset + first * b_term, second.b.stride]
            });
            let types = Types { c: g.dtype(to.storage), ..types };
            let vectors = Vectors::of([
                [a_offset, a_stride, a.stride, if self.layout == Layout::TN { m } else { terms }, a_second, 0],
                [b_offset, b_stride, b.stride, if self.layout == Layout::NT { terms } else { n }, b_second, b2_stride],
                [to.offset, n, to.stride, to_second, c_stride, 0],
            ]);
            let kernel = candidates::kernel(candidate, self.layout, types, vectors, form);
            let dims = Dims {
                m: word(m),
                n: word(n),
                k: word(terms),
                a_offset: word(a_offset),
                b_offset: word(b_offset),
                c_offset: word(to.offset),
                a_stride: word(a_stride),
                b_stride: word(b_stride),
                accumulate: u32::from(add),
                part: word(part),
                batch: word(self.count),
                a_batch: word(a.stride),
                b_batch: word(b.stride),
                c_batch: word(to.stride),
                sum: word(self.sum),
                a_second: word(a_second),
                b_second: word(b_second),
                c_second: word(to_second.saturating_sub(to.offset)),
                b2_batch: word(b2_stride),
                c_stride: word(c_stride),
            };
            let fields = form.fields(matches!(candidate, Candidate::Lanes { .. }));
            let b2 = second.map(|second| second.b.storage);
            let bound: Vec<_> = [a.storage, b.storage, to.storage].into_iter().chain(b2).collect();
            g.call(kernel)
                .bind(&bound)
                .parameters(ParameterBlock::from(dims).first_fields(fields))
                .groups(blocks * parts)
                .flops(flops)
                .moves(self.bytes(types, [a, b, to], second, [terms, parts], add))
                .product(product)
                .record()?;
            if parts > 1 {
                self.sum_parts(g, to.storage, parts, c, second.map(|second| second.c))?;
            }
        }
        Ok(())
    }

    /// What the choice of a kernel depends on. A GPU works on all matrices of a batch side by side, as on one that is so
    /// many times as tall, and on a sum of products as on one of so many times the terms; on a software driver the size of
    /// one decides.
    fn kind(&self, g: &Graph, types: Types) -> ProductKind {
        let [m, n, k] = self.size;
        let half = types.a == Dtype::F16 && types.b == Dtype::F16;
        let size = if g.kernels().target().software { self.size } else { [m * self.count, n, k * self.sum] };
        ProductKind { layout: self.layout, size, half, pair: false }
    }

    /// Bytes of the ranges of A, B and C that `terms` of the sum take, C in so many parts; an operand that all share counts
    /// once.
    fn bytes(
        &self,
        types: Types,
        [a, b, _]: [Strided; 3],
        second: Option<Second>,
        [terms, parts]: [usize; 2],
        accumulate: bool,
    ) -> u64 {
        let [m, n, _] = self.size;
        let halves = if second.is_some() { 2 } else { 1 };
        let matrices = |operand: Strided| if operand.stride == 0 { 1 } else { self.count * self.sum / halves };
        let of = |matrices: usize, elements: usize, dtype: Dtype| (elements * matrices) as u64 * dtype.bytes();
        let of_b = matrices(b) + second.map_or(0, |second| matrices(second.b));
        let passes = if accumulate { 2 } else { parts as u64 };
        let c = (m * n * self.count) as u64 * types.c.bytes();
        of(halves * matrices(a), m * terms, types.a) + of(of_b, n * terms, types.b) + passes * c
    }
}

/// C = op(A) op(B), differentiable in both.
pub fn matmul(g: &mut Graph, layout: Layout, a: Tensor, b: Tensor) -> Result<Tensor> {
    let (a_shape, b_shape) = (g.matrix(a)?, g.matrix(b)?);
    let (m, k) = if layout == Layout::TN { (a_shape.1, a_shape.0) } else { a_shape };
    let (n, k_b) = if layout == Layout::NT { b_shape } else { (b_shape.1, b_shape.0) };
    if k != k_b {
        return Err(Error::defect(format!("matmul {layout:?}: {a_shape:?} and {b_shape:?} do not fit")));
    }
    let c = g.activation("product", &[m, n]);
    Product::new(layout, [m, n, k]).uncut().record(g, a, b, c)?;
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

/// The sum of several products in one C.
fn summed_case(layout: Layout, size: [usize; 3], count: usize) -> Case {
    let [m, n, k] = size;
    Case {
        op: "matmul",
        name: format!("{layout:?} {m}x{n}x{k} summed over {count}"),
        inputs: vec![Input::normal("a", &[count, m * k], 1.0), Input::normal("b", &[count, k * n], 1.0)],
        build: Box::new(move |g, t| {
            let c = g.activation("sum of products", &[m, n]);
            let every = |storage, stride| Strided { storage, offset: 0, stride };
            Product::new(layout, size).summed(count).record(g, every(t[0], m * k), every(t[1], k * n), c)?;
            Ok(vec![c])
        }),
        reference: Box::new(move |x| {
            let products = x[0].chunks(m * k).zip(x[1].chunks(k * n)).map(|(a, b)| reference(layout, size, a, b));
            let add = |sum: Vec<f64>, one: Vec<f64>| sum.iter().zip(one).map(|(x, y)| x + y).collect();
            vec![products.fold(vec![0.0; m * n], add)]
        }),
        nmse: 1e-9,
        gradient: false,
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    let sizes =
        [[1, 1, 1], [7, 13, 5], [8, 64, 16], [9, 65, 17], [64, 64, 64], [65, 131, 33], [3, 257, 97], [2, 3, 70_001]];
    let sums = [([5, 9, 7], 2), ([70, 68, 36], 3), ([33, 65, 17], 6)];
    let of =
        |layout| sizes.map(|size| case(layout, size)).into_iter().chain(sums.map(|(s, n)| summed_case(layout, s, n)));
    Layout::ALL.into_iter().flat_map(of).chain(pair::cases()).collect()
}

/// Their gradients are sums over two million rows, which no model asks for.
pub(super) fn large_cases() -> Vec<Case> {
    let tall = |layout| Case { gradient: false, ..case(layout, [32 * 65_535 + 5, 1, 3]) };
    Layout::ALL.into_iter().map(tall).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::plan::Plan;
    use crate::graph::{Class, Graph};
    use crate::kernel::{KernelTable, ShapeClass, Target};

    #[test]
    fn operands_outside_of_their_tensors_are_refused() {
        let mut g = Graph::forward_only(&KernelTable::defaults(Target::WEBGPU));
        let [a, b, c] = [("a", 30), ("b", 42), ("c", 35)].map(|(name, n)| g.state(name, &[n]));
        let from = |storage, offset| Strided { storage, offset, stride: 0 };
        // (5, 6) by (6, 7).
        let product = |layout| Product::new(layout, [5, 7, 6]);
        for layout in Layout::ALL {
            product(layout).record(&mut g, a, b, c).unwrap();
            for (operands, name) in [
                ([from(a, 1), b.into(), c.into()], "A"),
                ([a.into(), from(b, 1), c.into()], "B"),
                ([a.into(), b.into(), from(c, 1)], "C"),
            ] {
                let [a, b, c] = operands;
                let said = product(layout).record(&mut g, a, b, c).unwrap_err().to_string();
                assert!(said.starts_with(&format!("{name} of a product")), "{said}");
            }
        }
        let wide = product(Layout::NN).of_columns(7);
        assert!(wide.record(&mut g, a, b, c).unwrap_err().to_string().contains("ends at element 34 of \"a\""));
        assert!(product(Layout::NN).of_columns(5).record(&mut g, a, b, c).is_err(), "rows that overlap");
        let several = Strided { storage: c, offset: 0, stride: 1 };
        assert!(product(Layout::NN).batch(2).record(&mut g, a, b, several).is_err());
    }

    const SPLIT: Candidate = Candidate::Tiles { block: [64; 2], depth: 16, thread: [4; 2], chunk: 512 };

    fn names(plan: &Plan) -> Vec<String> {
        plan.calls.iter().map(|call| call.kernel.name()).collect()
    }

    /// Eight parts of C need 210 MB, and every device is only sure to bind 134 MB.
    #[test]
    fn a_sum_is_not_cut_where_its_parts_fit_no_binding() {
        for (m, fits) in [(5120, false), (1280, true)] {
            let mut g = Graph::forward_only(&KernelTable::forced(Target::WEBGPU, SPLIT));
            let [a, b, c] = [("a", 4096 * m), ("b", 4096 * 1280), ("c", m * 1280)]
                .map(|(name, len)| g.typed(name, &[len], Dtype::F32, Class::State));
            Product::new(Layout::TN, [m, 1280, 4096]).record(&mut g, a, b, c).unwrap();
            let plan = Plan::new(&g).unwrap();
            assert_eq!(names(&plan).len(), if fits { 2 } else { 1 });
        }
    }

    /// The parts of all products of a batch are computed in one dispatch, and added up in one.
    #[test]
    fn a_batch_is_computed_by_the_kernel_that_was_chosen_for_it() {
        let product = ProductKind { layout: Layout::TN, size: [3 * 64, 64, 4096], half: false, pair: false };
        let kernels = KernelTable::defaults(Target::WEBGPU).with_table([(ShapeClass::of(product), SPLIT)].into());
        let mut g = Graph::forward_only(&kernels);
        let [a, b, c] = [("a", 3 * 4096 * 64), ("b", 4096 * 64), ("c", 3 * 64 * 64)]
            .map(|(name, len)| g.typed(name, &[len], Dtype::F32, Class::State));
        let every = |storage, stride| Strided { storage, offset: 0, stride };
        let batch = Product::new(Layout::TN, [64, 64, 4096]).batch(3);
        batch.record(&mut g, every(a, 4096 * 64), b, every(c, 64 * 64)).unwrap();
        let plan = Plan::new(&g).unwrap();
        assert_eq!(names(&plan), ["matmul-tn-tiles-64x64x16-4x4-vabc", "sum-parts-vec4"]);
        assert_eq!((plan.products, plan.calls[0].groups), (vec![product], 3 * 8));
    }
}
