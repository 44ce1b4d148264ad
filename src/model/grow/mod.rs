//! Growing a model on the host: parameters and moments of the larger shape.
//!
//! What each policy adds is in `tokens`, `units` and `depth`. What is old keeps its place: new rows come after
//! the old ones, new columns after the old ones, new layers after (above) the old ones. Moments of what is new start at
//! zero, also where it is a copy, and those of what is old stay as they are, also where it shares its outgoing weights
//! with a copy. Whether a model may grow is [`crate::config::GrowthConfig`]'s matter.

mod depth;
#[cfg(test)]
mod tests;
mod tokens;
mod units;

use super::init::{self, Tensors};
use crate::array::HostTensor;
use crate::config::{GrowthPolicy, ModelConfig, ResolvedGrowth};
use crate::rng::{Rng, Stream};
use std::collections::BTreeMap;

/// The parameters `params` of the model `before` for the shape of `after`. `seed` decides what is random.
pub fn parameters(
    params: &Tensors,
    before: &ModelConfig,
    after: &ModelConfig,
    rules: &ResolvedGrowth,
    seed: u64,
) -> Tensors {
    let make = |(name, shape): (String, Vec<usize>)| {
        let old = params.get(&name);
        let part = Part { name: &name, shape, old, after, seed };
        let tensor = match rules.policy {
            GrowthPolicy::Preserving | GrowthPolicy::Official => tokens::append(part, rules),
            GrowthPolicy::Copy => tokens::copy(part),
            GrowthPolicy::Identity => depth::identity(part),
            GrowthPolicy::Stack => depth::stack(part, params, before),
            GrowthPolicy::Net2net => units::split(part),
            GrowthPolicy::ZeroUnits => units::append(part),
        };
        (name, tensor)
    };
    after.param_shapes().into_iter().map(make).collect()
}

/// One parameter of the grown model, to be made.
struct Part<'a> {
    name: &'a str,
    shape: Vec<usize>,
    /// The same parameter before; none in a new layer.
    old: Option<&'a HostTensor>,
    after: &'a ModelConfig,
    seed: u64,
}

impl Part<'_> {
    fn rng(&self) -> Rng {
        Rng::named(self.seed, Stream::Growth, self.name)
    }

    /// `n` values as at the creation of a model.
    fn initial(&self, n: usize) -> Vec<f32> {
        init::values(self.after, self.name, n, self.rng())
    }

    /// The old values, then what `fill` makes of the number that are missing: new rows.
    fn appended(self, fill: impl FnOnce(&Self, usize) -> Vec<f32>) -> HostTensor {
        let mut data = self.old.map(|tensor| tensor.data.clone()).unwrap_or_default();
        let missing = self.shape.iter().product::<usize>().saturating_sub(data.len());
        data.extend(fill(&self, missing));
        HostTensor { shape: self.shape, data }
    }

    /// The old values, and zeros in new rows and columns.
    fn padded(self) -> HostTensor {
        padded(self.old, &self.shape)
    }
}

/// Values of a row.
pub(super) fn width(shape: &[usize]) -> usize {
    shape.iter().skip(1).product::<usize>().max(1)
}

fn padded(old: Option<&HostTensor>, shape: &[usize]) -> HostTensor {
    let mut new = HostTensor::zeros(shape);
    if let Some(old) = old {
        let rows = new.data.chunks_mut(width(shape)).zip(old.data.chunks(width(&old.shape)));
        rows.for_each(|(new, old)| new.iter_mut().zip(old).for_each(|(new, old)| *new = *old));
    }
    new
}

/// Moments for the shape of `after`: zero where there were none.
pub fn moments(moments: &Tensors, after: &ModelConfig) -> Tensors {
    let grow = |(name, shape): (String, Vec<usize>)| {
        let moment = padded(moments.get(&name), &shape);
        (name, moment)
    };
    after.param_shapes().into_iter().map(grow).collect()
}

/// First new row and end of each parameter that got rows, all rows of each in a new layer. New columns are in old rows.
pub fn new_rows(before: &ModelConfig, after: &ModelConfig) -> BTreeMap<String, [u64; 2]> {
    let old: BTreeMap<String, Vec<usize>> = before.param_shapes().into_iter().collect();
    let rows = |shape: &Vec<usize>| shape.first().copied().unwrap_or(1) as u64;
    let grown = |(name, shape): (String, Vec<usize>)| {
        let first = old.get(&name).map_or(0, rows);
        (rows(&shape) > first).then(|| (name, [first, rows(&shape)]))
    };
    after.param_shapes().into_iter().filter_map(grown).collect()
}
