//! **Identity** (Gesmundo and Maile, 2023, arXiv 2308.06103): new layers on top, in either architecture, as at creation
//! but with output projections of zero, so that each adds exactly 0 to the residual stream and changes no bit. On top,
//! because there nothing old is renamed, and the gradient of the output projections comes from the head without passing
//! another new layer. The rest of such a layer learns from the second step on.

use super::part::Part;
use super::policy::{Defaults, Grows, Policy, Promise, anything, kept};
use crate::array::HostTensor;
use crate::config::GrowthPolicy;

pub(super) static POLICY: Policy = Policy {
    name: GrowthPolicy::Identity,
    grows: Grows::Layers,
    promise: Promise::SameBits,
    defaults: Defaults::NO_INIT,
    check: anything,
    tau: kept,
    make,
};

/// The old layers, then ones that add nothing yet.
fn make(part: Part) -> HostTensor {
    let zero = part.parameter.role.writes_to_residual();
    part.appended(|part, n| if zero { vec![0.0; n] } else { part.initial(n) })
}
