//! **Preserving**: new parameter tokens with zero keys under a kept tau. The function does not change, to the bit: a zero
//! key scores 0 against every input, adds nothing to the norm of a row of scores, and gelu(0) = 0 (both l2 forms; not
//! softmax, where exp(0) = 1 takes part). New values are random, because with keys and values both zero neither would
//! ever get a gradient. The optimizer's state is carried.

use super::policy::{Defaults, Grows, Policy, Promise};
use super::tokens;
use crate::config::{GrowthPolicy, InitKeys, InitValues, OptimizerRule, TauRule};

pub(super) static POLICY: Policy = Policy {
    name: GrowthPolicy::Preserving,
    grows: Grows::Tokens,
    promise: Promise::SameBits,
    defaults: Defaults {
        init_keys: Some(InitKeys::Zero),
        init_values: Some(InitValues::Random),
        tau: Some(TauRule::Keep),
        optimizer: OptimizerRule::Carry,
    },
    check: tokens::check,
    tau: tokens::tau,
    make: tokens::append,
};
