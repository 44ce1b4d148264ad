//! **Copy**: every parameter token twice. Keys k and k, values v/2 + e and v/2 - e, tau times sqrt(2). Both copies get the
//! same weight s, so s (v/2 + e) + s (v/2 - e) = s v, and s is what it was:
//!
//! ```text
//! l2_norm_gelu   |(a, a)| = sqrt(2) |a|:   sqrt(2) tau a / (sqrt(2) |a| + eps sqrt(2) tau) = tau a / (|a| + eps tau)
//! gelu_l2_norm   the same with gelu(a) in the place of a
//! softmax        (sqrt(2) tau)^2 exp(a) / (2 sum exp(a)) = tau^2 exp(a) / sum exp(a)
//! ```
//! So all three forms are preserved up to roundings. That is why the epsilon of a norm counts in units of tau. A row of
//! zeros stays one.
//!
//! Without e the copies would be updated alike for ever: the gradient of a value is s dO, that of a key depends on its
//! value. A share of v would not do, as AdamW's steps do not see the size of a gradient.

use super::part::Part;
use super::policy::{Asked, Defaults, Grows, Policy, Promise, Size};
use crate::array::HostTensor;
use crate::config::{GrowthPolicy, Role, require};
use crate::error::Result;
use crate::model::init::value_std;
use std::f64::consts::SQRT_2;

pub(super) static POLICY: Policy = Policy {
    name: GrowthPolicy::Copy,
    grows: Grows::Tokens,
    promise: Promise::Roundings,
    defaults: Defaults::NO_INIT,
    check,
    tau: |_, old, _| old * SQRT_2,
    make,
};

/// Standard deviation of e over the root mean square of a parameter's values; where all are zero, over the standard
/// deviation of new ones.
pub(super) const NOISE: f64 = 0.1;

/// What grows is doubled.
fn check(asked: &Asked) -> Result<()> {
    let doubled = |Size { key, option, old, new, .. }: &Size| {
        require(Some(*new) == old.checked_mul(2), || {
            format!(
                "{key} is {new}, but policy \"copy\" doubles what it grows: use {}, or leave {key} ({option}) out",
                old.saturating_mul(2)
            )
        })
    };
    asked.grown().try_for_each(doubled)
}

/// The old tokens twice, where the number of tokens is doubled.
fn make(part: Part) -> HostTensor {
    let Some(old) = part.old.filter(|old| old.shape != part.parameter.shape) else { return part.padded() };
    if matches!(part.parameter.role, Role::Keys(_)) {
        return part.filled(old.data.repeat(2));
    }
    let squares: f64 = old.data.iter().map(|v| f64::from(*v).powi(2)).sum();
    let size = match (squares / old.data.len() as f64).sqrt() {
        0.0 => value_std(part.growth.after),
        size => size,
    };
    let noise = part.rng().normals(old.data.len(), NOISE * size);
    let mut data: Vec<f32> = old.data.iter().zip(noise).map(|(v, e)| 0.5 * v + e).collect();
    // Rather than v/2 - e, which is rounded by itself.
    let second: Vec<f32> = old.data.iter().zip(&data).map(|(v, first)| v - first).collect();
    data.extend(second);
    part.filled(data)
}
