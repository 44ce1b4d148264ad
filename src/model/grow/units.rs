//! New units of an MLP: what `net2net` and `zero_units` share.

use super::policy::{Asked, word};
use crate::config::{TrainRule, require};
use crate::error::Result;

/// New units are columns of the outgoing weights too, and those train with their rows.
pub(super) fn check(asked: &Asked) -> Result<()> {
    let rules = asked.rules;
    let of_rows = [
        ("train", word(rules.train), rules.train == TrainRule::All),
        ("lr_scale", rules.lr_scale.to_string(), rules.lr_scale == 1.0),
    ];
    for (key, value, usual) in of_rows {
        require(usual, || {
            format!(
                "{key} is {value}, but policy {} also adds columns to mlp.dense_4h_to_h.weight, and only whole rows can \
                 train by a rule of their own: leave {key} out",
                word(rules.policy)
            )
        })?;
    }
    Ok(())
}
