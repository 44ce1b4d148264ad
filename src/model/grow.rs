//! Growing a TokenFormer: parameter tokens are appended to every module, after the old ones.
//!
//! With zero keys and a kept tau the function does not change: a zero key scores 0 against every input,
//! adds nothing to the norm of a row of scores, and gelu(0) = 0 (both l2 forms; not softmax, where
//! exp(0) = 1 takes part). New values are random, because with keys and values both zero neither would
//! ever get a gradient. Moments of the new tokens start at zero. The policies are
//! [`crate::config::GrowthConfig`]'s.

use super::init::{KEY_STD, Tensors, value_std};
use crate::array::HostTensor;
use crate::config::{InitKeys, InitValues, ModelConfig, ResolvedGrowth};
use crate::rng::{Rng, Stream};
use std::collections::BTreeMap;

/// Appends rows to `params` for the shape of `after`. `seed` decides the random ones.
pub fn parameters(params: &Tensors, after: &ModelConfig, rules: &ResolvedGrowth, seed: u64) -> Tensors {
    let std_of = |name: &str| match name.ends_with("key_param_tokens") {
        true if rules.init_keys == InitKeys::Zero => 0.0,
        true => KEY_STD,
        false if rules.init_values == InitValues::Zero => 0.0,
        false => value_std(after),
    };
    append_rows(params, after, |name, n| match std_of(name) {
        0.0 => vec![0.0; n],
        std => Rng::named(seed, Stream::Growth, name).normals(n, std),
    })
}

/// Appends zero rows to moments for the shape of `after`.
pub fn moments(moments: &Tensors, after: &ModelConfig) -> Tensors {
    append_rows(moments, after, |_, n| vec![0.0; n])
}

fn append_rows(tensors: &Tensors, after: &ModelConfig, fill: impl Fn(&str, usize) -> Vec<f32>) -> Tensors {
    let grow = |(name, shape): (String, Vec<usize>)| {
        let mut data = tensors.get(&name).map(|t| t.data.clone()).unwrap_or_default();
        let missing = shape.iter().product::<usize>().saturating_sub(data.len());
        data.extend(fill(&name, missing));
        (name, HostTensor { shape, data })
    };
    after.param_shapes().into_iter().map(grow).collect()
}

/// First new row and end of each parameter that grew.
pub fn new_rows(before: &ModelConfig, after: &ModelConfig) -> BTreeMap<String, [u64; 2]> {
    let old: BTreeMap<String, Vec<usize>> = before.param_shapes().into_iter().collect();
    let rows = |shape: &[usize]| shape.first().copied().unwrap_or(1) as u64;
    let grown = |(name, shape): (String, Vec<usize>)| {
        let first = rows(old.get(&name)?);
        (rows(&shape) > first).then(|| (name, [first, rows(&shape)]))
    };
    after.param_shapes().into_iter().filter_map(grown).collect()
}
