//! **Zero units** (Gesmundo and Maile, 2023, arXiv 2308.06103): new units in the MLP of a Transformer whose outgoing
//! weights are zero, so that nothing changes, to the bit. A unit is a row of `mlp.dense_h_to_4h` and a column of
//! `mlp.dense_4h_to_h`. Incoming weights are as at creation and learn from the second step on, when the outgoing ones,
//! which learn from the first, are not zero any more.

use super::part::Part;
use super::policy::{Defaults, Grows, Policy, Promise, kept};
use super::units;
use crate::array::HostTensor;
use crate::config::{GrowthPolicy, Linear, Role};

pub(super) static POLICY: Policy = Policy {
    name: GrowthPolicy::ZeroUnits,
    grows: Grows::Units,
    promise: Promise::SameBits,
    defaults: Defaults::NO_INIT,
    check: units::check,
    tau: kept,
    make,
};

/// The old units, then new ones that nothing reads yet.
fn make(part: Part) -> HostTensor {
    match part.parameter.role {
        Role::Weight(Linear::MlpIn) | Role::Bias(Linear::MlpIn) => part.appended(|part, n| part.initial(n)),
        _ => part.padded(),
    }
}
