//! More units in the MLP of a Transformer: copies that share their outgoing weights, or ones without any yet.
//!
//! A unit is a row of `mlp.dense_h_to_4h` (incoming weights, and a bias) and a column of `mlp.dense_4h_to_h` (outgoing
//! weights). New units come after the old ones; the function does not change.
//!
//! **Copies** (Net2WiderNet, Chen et al., 2016, arXiv 1511.05641): each new unit is a copy of an old one, drawn evenly
//! and with replacement, in each layer by itself. All copies of a unit have its incoming weights and so its activation;
//! each of its outgoing weights is divided among them by random positive shares that add up to 1. The shares differ from
//! weight to weight: one for a whole unit would only scale the gradients of a copy, which AdamW's steps do not see, and
//! the copies would stay alike.
//!
//! **Zero outgoing weights** (arXiv 2308.06103): incoming weights are as at creation and learn from the second step on,
//! when the outgoing ones, which learn from the first, are not zero any more.

use super::{Part, width};
use crate::array::HostTensor;
use crate::rng::{Rng, Stream};

/// The old units, then copies of them.
pub(super) fn split(part: Part) -> HostTensor {
    let incoming = part.name.contains("mlp.dense_h_to_4h.");
    let outgoing = part.name.ends_with("mlp.dense_4h_to_h.weight");
    let Some(old) = part.old.filter(|_| incoming || outgoing) else { return part.padded() };
    let units = |shape: &[usize]| if incoming { shape.first() } else { shape.get(1) }.copied().unwrap_or(0);
    let originals = originals(units(&old.shape), units(&part.shape), mapping(&part));
    let data = match incoming {
        true => {
            let row = width(&old.shape);
            let of = |&unit: &usize| old.data.iter().skip(unit * row).take(row);
            originals.iter().flat_map(of).copied().collect()
        }
        false => {
            let mut rng = part.rng();
            old.data.chunks(width(&old.shape)).flat_map(|row| divided(row, &originals, &mut rng)).collect()
        }
    };
    HostTensor { data, shape: part.shape }
}

/// The old units, then new ones that nothing reads yet.
pub(super) fn append(part: Part) -> HostTensor {
    match part.name.contains("mlp.dense_h_to_4h.") {
        true => part.appended(|part, n| part.initial(n)),
        false => part.padded(),
    }
}

/// Random numbers that the incoming and outgoing weights of a layer have in common.
fn mapping(part: &Part) -> Rng {
    let layer = part.name.split_once(".dense_").map_or(part.name, |(layer, _)| layer);
    Rng::named(part.seed, Stream::Growth, layer)
}

/// The old unit that each of `new` units is or copies.
fn originals(old: usize, new: usize, mut rng: Rng) -> Vec<usize> {
    (0..new).map(|unit| if unit < old { unit } else { rng.below(old as u64) as usize }).collect()
}

/// The outgoing weights `row` of the old units to one channel, divided among all their copies.
fn divided(row: &[f32], originals: &[usize], rng: &mut Rng) -> Vec<f32> {
    let weights: Vec<f64> = originals.iter().map(|_| 0.5 + rng.uniform()).collect();
    let mut sums = vec![0.0; row.len()];
    for (&unit, weight) in originals.iter().zip(&weights) {
        sums[unit] += weight;
    }
    let share = |(&unit, weight): (&usize, f64)| (f64::from(row[unit]) * (weight / sums[unit])) as f32;
    originals.iter().zip(weights).map(share).collect()
}
