//! **Stack** (`G_stack`, Du et al., 2024, arXiv 2405.15319): the whole stack of layers again, in order, in either
//! architecture, so layer i is a copy of layer i mod L. The function changes; layers on another input are no copies for
//! long.

use super::part::Part;
use super::policy::{Asked, Defaults, Grows, Policy, Promise, Size, kept};
use crate::array::HostTensor;
use crate::config::{GrowthPolicy, require};
use crate::error::Result;

pub(super) static POLICY: Policy = Policy {
    name: GrowthPolicy::Stack,
    grows: Grows::Layers,
    promise: Promise::Changes,
    defaults: Defaults::NO_INIT,
    check,
    tau: kept,
    make,
};

/// The stack is repeated as a whole.
fn check(asked: &Asked) -> Result<()> {
    asked.grown().try_for_each(|Size { key, old, new, .. }| {
        require(new.is_multiple_of(*old), || {
            format!(
                "{key} is {new}, but policy \"stack\" repeats the whole stack of {old} layers: use a multiple of {old}, \
                 such as {}, or policy (--policy) \"identity\"",
                old.saturating_mul(2)
            )
        })
    })
}

/// The old layers again and again.
fn make(part: Part) -> HostTensor {
    let original = part.parameter.layer.and_then(|layer| layer.checked_rem(part.growth.before.num_layers));
    let copied = original.and_then(|layer| part.growth.params.get(&part.parameter.role.name_in(layer)));
    copied.cloned().unwrap_or_else(|| part.padded())
}
