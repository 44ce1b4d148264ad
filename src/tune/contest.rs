//! Which candidates are tried for a product, with which types, and how a refused one is named.

use crate::kernel::{Candidate, Dtype, ProductKind, Target};
use crate::ops::matmul::candidates::candidates;
use crate::ops::matmul::source::Types;

/// A product and the candidates for it; the first is the reference.
#[derive(Debug, Clone)]
pub(super) struct Contest {
    /// What is multiplied.
    pub product: ProductKind,
    /// What may multiply it.
    pub candidates: Vec<Candidate>,
}

/// The candidates for a product, the reference first: the default one without matrix units. Behind it come those of the
/// order of summation that all products of the type have on this device.
pub(super) fn contest(target: &Target, product: ProductKind, all: bool) -> Vec<Candidate> {
    let reference = target.default_scalar(product);
    let order = target.default_order(product.half);
    let others = candidates(target, product, all).into_iter();
    let others = others.filter(|&candidate| candidate.order() == order && candidate != reference);
    std::iter::once(reference).chain(others).filter(|&candidate| candidate.fits(target)).collect()
}

/// What is tried: operands of one type, a result that is f32, and for f16 one that is f16.
pub(super) fn trial_types(half: bool) -> Vec<Types> {
    let operand = if half { Dtype::F16 } else { Dtype::F32 };
    let results: &[Dtype] = if half { &[Dtype::F32, Dtype::F16] } else { &[Dtype::F32] };
    results.iter().map(|&c| Types::of([operand, operand, c])).collect()
}

/// How a refusal is kept: kernels of one candidate differ by layout and type.
pub(super) fn refusal(product: ProductKind, candidate: Candidate) -> String {
    let ProductKind { layout, half, pair, .. } = product;
    let [half, pair] = [(half, " f16"), (pair, " pair")].map(|(is, name)| if is { name } else { "" });
    format!("{layout:?} {candidate}{half}{pair}")
}

/// The candidate that a file names, where this device can run it.
pub(super) fn usable(target: &Target, name: &str) -> Option<Candidate> {
    name.parse().ok().filter(|candidate: &Candidate| candidate.fits(target))
}
