//! **Net2net** (Net2WiderNet, Chen et al., 2016, arXiv 1511.05641): new units in the MLP of a Transformer that are copies
//! of old ones and share their outgoing weights with them. The function does not change but for roundings.
//!
//! A unit is a row of `mlp.dense_h_to_4h` (incoming weights, and a bias) and a column of `mlp.dense_4h_to_h` (outgoing
//! weights). New units come after the old ones. Each is a copy of an old one, drawn evenly and with replacement, in each
//! layer by itself. All copies of a unit have its incoming weights and so its activation; each of its outgoing weights is
//! divided among them by random positive shares that add up to 1. The shares differ from weight to weight: one for a
//! whole unit would only scale the gradients of a copy, which AdamW's steps do not see, and the copies would stay alike.

use super::part::{Part, width};
use super::policy::{Defaults, Grows, Policy, Promise, kept};
use super::units;
use crate::array::HostTensor;
use crate::config::{GrowthPolicy, Linear, Module, Role};
use crate::rng::Rng;

pub(super) static POLICY: Policy = Policy {
    name: GrowthPolicy::Net2net,
    grows: Grows::Units,
    promise: Promise::Roundings,
    defaults: Defaults::NO_INIT,
    check: units::check,
    tau: kept,
    make,
};

/// The old units, then copies of them.
fn make(part: Part) -> HostTensor {
    match (part.old, part.parameter.role) {
        (Some(old), Role::Weight(Linear::MlpIn) | Role::Bias(Linear::MlpIn)) => {
            let row = width(&old.shape);
            let originals = originals(old.rows(), part.parameter.shape.first(), &part);
            let of = |&unit: &usize| old.data.iter().skip(unit * row).take(row);
            let data = originals.iter().flat_map(of).copied().collect();
            part.filled(data)
        }
        (Some(old), Role::Weight(Linear::MlpOut)) => {
            let originals = originals(width(&old.shape), part.parameter.shape.get(1), &part);
            let mut rng = part.rng();
            let data = old.data.chunks(width(&old.shape)).flat_map(|row| divided(row, &originals, &mut rng)).collect();
            part.filled(data)
        }
        _ => part.padded(),
    }
}

/// The old unit that each of the `new` units is or copies, for the incoming and the outgoing weights of a layer alike.
fn originals(old: usize, new: Option<&usize>, part: &Part) -> Vec<usize> {
    let layer = part.parameter.layer.unwrap_or_default();
    let mut rng = part.rng_of(&format!("layers.{layer}.{}", Module::Mlp.name()));
    (0..new.copied().unwrap_or(0)).map(|unit| if unit < old { unit } else { rng.below(old as u64) as usize }).collect()
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
