//! **Official**: new parameter tokens by the published PyTorch recipe. Keys are random, tau follows `sqrt(N)` and the
//! optimizer starts again, so the function changes.

use super::policy::{Defaults, Grows, Policy, Promise};
use super::tokens;
use crate::config::{GrowthPolicy, InitKeys, InitValues, OptimizerRule, TauRule};

pub(super) static POLICY: Policy = Policy {
    name: GrowthPolicy::Official,
    grows: Grows::Tokens,
    promise: Promise::Changes,
    defaults: Defaults {
        init_keys: Some(InitKeys::Random),
        init_values: Some(InitValues::Random),
        tau: Some(TauRule::SqrtN),
        optimizer: OptimizerRule::Reset,
    },
    check: tokens::check,
    tau: tokens::tau,
    make: tokens::append,
};
