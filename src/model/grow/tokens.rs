//! More parameter tokens of a TokenFormer: appended, or every one twice.
//!
//! **Appended**: with zero keys and a kept tau the function does not change: a zero key scores 0 against every input,
//! adds nothing to the norm of a row of scores, and gelu(0) = 0 (both l2 forms; not softmax, where exp(0) = 1 takes
//! part). New values are random, because with keys and values both zero neither would ever get a gradient.
//!
//! **Twice**: keys k and k, values v/2 + e and v/2 - e, tau times sqrt(2). Both copies get the same weight s, so
//! s (v/2 + e) + s (v/2 - e) = s v, and s is what it was:
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

use super::Part;
use crate::array::HostTensor;
use crate::config::{InitKeys, InitValues, ResolvedGrowth};
use crate::model::init::value_std;

/// Standard deviation of e over the root mean square of a parameter's values; where all are zero, over the standard
/// deviation of new ones.
pub const COPY_NOISE: f64 = 0.1;

/// The old tokens, then new ones by `rules`.
pub(super) fn append(part: Part, rules: &ResolvedGrowth) -> HostTensor {
    let zero = match part.name.ends_with("key_param_tokens") {
        true => rules.init_keys == Some(InitKeys::Zero),
        false => rules.init_values == Some(InitValues::Zero),
    };
    part.appended(|part, n| if zero { vec![0.0; n] } else { part.initial(n) })
}

/// The old tokens twice, where the number of tokens is doubled.
pub(super) fn copy(part: Part) -> HostTensor {
    let Some(old) = part.old.filter(|old| old.shape != part.shape) else { return part.padded() };
    if part.name.ends_with("key_param_tokens") {
        return HostTensor { data: old.data.repeat(2), shape: part.shape };
    }
    let squares: f64 = old.data.iter().map(|v| f64::from(*v).powi(2)).sum();
    let size = match (squares / old.data.len() as f64).sqrt() {
        0.0 => value_std(part.after),
        size => size,
    };
    let noise = part.rng().normals(old.data.len(), COPY_NOISE * size);
    let mut data: Vec<f32> = old.data.iter().zip(noise).map(|(v, e)| 0.5 * v + e).collect();
    // Rather than v/2 - e, which is rounded by itself.
    let second: Vec<f32> = old.data.iter().zip(&data).map(|(v, first)| v - first).collect();
    data.extend(second);
    HostTensor { data, shape: part.shape }
}
