//! Growing a model on the host: whether it can, by what policy, and the parameters and moments of the larger shape.
//!
//! Each policy is a file with its mathematics: `preserving`, `official` and `copy` add parameter tokens, `identity` and
//! `stack` layers, `net2net` and `zero_units` units of a Transformer's MLP; [`policy()`] is the table. What is old
//! keeps its place: new rows come after the old ones, new columns after the old ones, new layers after (above) the old
//! ones. Moments of what is new start at zero, also where it is a copy, and those of what is old stay as they are, also
//! where it shares its outgoing weights with a copy.

mod check;
mod part;
mod policy;
mod stages;
mod table;
#[cfg(test)]
mod tests;
mod tokens;
mod units;

/// The files of the policies, which `config/growth.rs` lists.
macro_rules! files {
    ($($policy:ident = $file:ident),*) => {
        $(mod $file;)*
    };
}

crate::config::growth_policies!(files);

pub use policy::{Defaults, Grows, Policy, Promise};
pub use table::{policies, policy};

use super::init::Tensors;
use crate::config::{ModelConfig, Parameter, ResolvedGrowth};
use part::{Growth, Part, padded};
use std::collections::BTreeMap;

pub(super) use part::width;

/// The parameters `params` of the model `before` for the shape of `after`. `seed` decides what is random.
pub fn parameters(
    params: &Tensors,
    before: &ModelConfig,
    after: &ModelConfig,
    rules: &ResolvedGrowth,
    seed: u64,
) -> Tensors {
    let growth = Growth { before, after, params, rules, seed };
    let make = |parameter: Parameter| {
        let (name, old) = (parameter.name.clone(), params.get(&parameter.name));
        (name, (policy(rules.policy).make)(Part { growth: &growth, parameter, old }))
    };
    after.parameters().into_iter().map(make).collect()
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
pub(crate) fn new_rows(before: &ModelConfig, after: &ModelConfig) -> BTreeMap<String, [u64; 2]> {
    let old: BTreeMap<String, Vec<usize>> = before.param_shapes().into_iter().collect();
    let rows = |shape: &Vec<usize>| shape.first().copied().unwrap_or(1) as u64;
    let grown = |(name, shape): (String, Vec<usize>)| {
        let first = old.get(&name).map_or(0, rows);
        (rows(&shape) > first).then(|| (name, [first, rows(&shape)]))
    };
    after.param_shapes().into_iter().filter_map(grown).collect()
}
