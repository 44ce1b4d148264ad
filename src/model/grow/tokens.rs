//! New parameter tokens after the old ones, by the rules of a growth: what `preserving` and `official` share.

use super::part::Part;
use super::policy::{Asked, Promise};
use crate::array::HostTensor;
use crate::config::{InitKeys, InitValues, NormActivation, ResolvedGrowth, Role, TauRule, require};
use crate::error::Result;

/// The old tokens, then new ones.
pub(super) fn append(part: Part) -> HostTensor {
    let rules = part.growth.rules;
    let zero = match part.parameter.role {
        Role::Keys(_) => rules.init_keys == Some(InitKeys::Zero),
        _ => rules.init_values == Some(InitValues::Zero),
    };
    part.appended(|part, n| if zero { vec![0.0; n] } else { part.initial(n) })
}

/// As it was, or the square root of the slot number.
pub(super) fn tau(rules: &ResolvedGrowth, old: f64, slots: usize) -> f64 {
    if rules.tau == Some(TauRule::SqrtN) { (slots as f64).sqrt() } else { old }
}

/// The new tokens can learn, and a policy that promises to preserve the model can do so.
pub(super) fn check(asked: &Asked) -> Result<()> {
    let rules = asked.rules;
    let zero_keys = rules.init_keys == Some(InitKeys::Zero);
    if asked.before.norm_activation_type == NormActivation::Softmax {
        let keeps = zero_keys && rules.tau == Some(TauRule::Keep);
        let promises = asked.policy.promise == Promise::SameBits;
        return require(!(promises || keeps), || {
            "growth cannot preserve a model with norm_activation_type \"softmax\", because exp(0) = 1 and so a new \
             token with a zero key still takes its share: use policy = \"copy\", policy = \"official\" with its own \
             rules, or an l2 normalisation from the start"
                .to_owned()
        });
    }
    require(!(zero_keys && rules.init_values == Some(InitValues::Zero)), || {
        "new tokens with zero keys and zero values never get a gradient (a dead start): use init_values = \"random\" \
         or init_keys = \"random\""
            .to_owned()
    })
}
