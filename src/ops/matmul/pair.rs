//! Two batches of products as one dispatch, where only their operands B are in two tensors: twice the blocks of C, which a
//! large GPU needs to be busy.
//!
//! The two weight gradients of a Pattention, of its keys and of its values, are such. Each alone has 36 to 144 blocks of
//! 128 x 128 in the 150M model, on an H100 with 132 multiprocessors.

use super::source::Types;
use super::{Layout, Product, ProductKind, reference};
use crate::error::Result;
use crate::graph::Graph;
use crate::graph::view::Strided;
use crate::ops::{Case, Input};

/// Where the second half of a batch lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Second {
    /// First element of A, in the tensor of the first half.
    pub a: usize,
    /// Its B.
    pub b: Strided,
    /// First element of C, in the tensor of the first half and behind its C.
    pub c: usize,
}

impl Product {
    /// Records two batches of such products: A, B and C of the first and of the second. Their bits are those of two calls
    /// of [`Product::record`] that use the same kernel.
    ///
    /// It is one dispatch on a GPU where both A are in one tensor, and both C, with the same strides, and where both B can be
    /// read in vectors.
    pub fn record_pair(self, g: &mut Graph, first: [Strided; 3], second: [Strided; 3]) -> Result<()> {
        self.check_extents(g, first)?;
        self.check_extents(g, second)?;
        if self.fits_one_dispatch(g, first, second) {
            let storages = |batch: [Strided; 3]| batch.map(|operand| g.in_storage(operand));
            let (mut first, mut second) = (storages(first), storages(second));
            // Kernels count from the first C to the second.
            if second[2].offset < first[2].offset {
                (first, second) = (second, first);
            }
            let both = self.batch(2 * self.count);
            let types = Types::of(first.map(|operand| g.dtype(operand.storage)));
            let product = ProductKind { pair: true, ..both.kind(g, types) };
            let picked = g.kernels().pick(product);
            if let Some(candidate) = picked.paired() {
                let [a, b, c] = second;
                let second = Second { a: a.offset, b, c: c.offset };
                let candidate = if both.may_be_cut(g, candidate) { candidate } else { candidate.uncut() };
                return both.dispatch(g, candidate, product, first, Some(second));
            }
        }
        for [a, b, c] in [first, second] {
            self.record(g, a, b, c)?;
        }
        Ok(())
    }

    fn fits_one_dispatch(&self, g: &Graph, first: [Strided; 3], second: [Strided; 3]) -> bool {
        // Loads of single elements, each in a branch of its own, would be there twice: a software driver compiled them for
        // half a minute.
        let [_, n, k] = self.size;
        let across = if self.layout == Layout::NT { k } else { n };
        let fours =
            |Strided { offset, stride, .. }: Strided| [offset, stride, across].iter().all(|n| n.is_multiple_of(4));
        let in_vectors = fours(g.in_storage(first[1])) && fours(g.in_storage(second[1]));
        let alike = |i: usize| {
            let [first, second] = [first[i], second[i]].map(|operand| g.in_storage(operand));
            first.storage == second.storage && first.stride == second.stride
        };
        let of_one_type = g.dtype(first[1].storage) == g.dtype(second[1].storage);
        g.on_gpu() && self.sum == 1 && in_vectors && alike(0) && alike(2) && of_one_type
    }
}

/// Two batches of `count` products each, one B of the second for all of it.
fn case(layout: Layout, size: [usize; 3], count: usize) -> Case {
    let [m, n, k] = size;
    Case {
        op: "matmul",
        name: format!("{layout:?} {m}x{n}x{k}, a pair of {count}"),
        inputs: vec![
            Input::normal("a", &[2 * count, m * k], 1.0),
            Input::normal("b", &[count, k * n], 1.0),
            Input::normal("b2", &[k * n], 1.0),
        ],
        build: Box::new(move |g, t| {
            let c = g.activation("pair of products", &[2 * count, m * n]);
            let stride = |elements: usize| if count > 1 { elements } else { 0 };
            let from = |storage, first: usize, elements| Strided {
                storage,
                offset: first * elements,
                stride: stride(elements),
            };
            let first = [from(t[0], 0, m * k), from(t[1], 0, k * n), from(c, 0, m * n)];
            let second = [from(t[0], count, m * k), t[2].into(), from(c, count, m * n)];
            Product::new(layout, size).batch(count).record_pair(g, first, second)?;
            Ok(vec![c])
        }),
        reference: Box::new(move |x| {
            let b = x[1].chunks(k * n).chain(std::iter::repeat_n(&x[2][..], count));
            vec![x[0].chunks(m * k).zip(b).flat_map(|(a, b)| reference(layout, size, a, b)).collect()]
        }),
        nmse: 1e-9,
        gradient: false,
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    let of =
        |layout| [([5, 9, 7], 1), ([36, 68, 44], 3), ([70, 36, 132], 1)].map(|(size, count)| case(layout, size, count));
    Layout::ALL.into_iter().flat_map(of).collect()
}
