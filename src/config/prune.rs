//! One pruning: how many parameter tokens of a TokenFormer stay, and by what score they are picked.
//!
//! The inverse of a growth in parameter tokens. What a score is in numbers, and what becomes of the rows that stay, is
//! the model module's matter.

use super::{Arch, ModelConfig, require};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// What a parameter token is worth: in each projection, those worth most stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum PruneScore {
    /// Length of its key times length of its value: needs no data.
    Weight,
    /// How much the loss on training data would change, to first order, if its value were zero.
    Contribution,
    /// A random number: the control.
    Random,
}

impl PruneScore {
    /// Every score, in the order of a report.
    pub const ALL: [Self; 3] = [Self::Weight, Self::Contribution, Self::Random];

    /// The name, as the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Contribution => "contribution",
            Self::Random => "random",
        }
    }
}

/// How many parameter tokens stay in every projection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PruneTo {
    /// This share of each slot number, rounded, but at least one token.
    Share(f64),
    /// `qkv_slot_num`, `proj_slot_num` and `ffn_slot_num`; absent keeps the number there is.
    Slots([Option<usize>; 3]),
}

impl PruneTo {
    /// The model that `before` becomes, every scale tau the stored number that it was.
    ///
    /// # Errors
    /// A usage error for a transformer, which has no parameter tokens, for a share that is none, for a slot number that
    /// is 0 or above what there is, and where nothing would be dropped.
    pub fn check(&self, before: &ModelConfig) -> Result<ModelConfig> {
        require(before.arch == Arch::Tokenformer, || {
            "a transformer has no parameter tokens to prune: give a checkpoint of a tokenformer".to_owned()
        })?;
        let old = [before.qkv_slot_num, before.proj_slot_num, before.ffn_slot_num];
        let [qkv, proj, ffn] = match self {
            Self::Share(share) => shared(*share, old)?,
            Self::Slots(slots) => numbered(*slots, old)?,
        };
        let mut after = before.clone();
        after.freeze_tau();
        (after.qkv_slot_num, after.proj_slot_num, after.ffn_slot_num) = (qkv, proj, ffn);
        Ok(after)
    }
}

fn shared(share: f64, old: [usize; 3]) -> Result<[usize; 3]> {
    require(share > 0.0 && share <= 1.0, || {
        format!("keep is {share}, but is the share of the parameter tokens that stays: use one above 0 and below 1")
    })?;
    let new = old.map(|n| ((n as f64 * share).round() as usize).max(1));
    require(new != old, || {
        let [qkv, proj, ffn] = old;
        format!(
            "keep is {share}, so nothing would be dropped of {qkv} qkv, {proj} proj and {ffn} ffn slots: use a smaller share"
        )
    })?;
    Ok(new)
}

fn numbered(slots: [Option<usize>; 3], old: [usize; 3]) -> Result<[usize; 3]> {
    let mut new = old;
    for (((new, old), slots), noun) in new.iter_mut().zip(old).zip(slots).zip(["qkv", "proj", "ffn"]) {
        *new = slots.unwrap_or(old);
        require(*new > 0, || {
            format!("pruning to 0 {noun} slots would leave the projections without tokens: keep between 1 and {old}")
        })?;
        require(*new <= old, || {
            format!(
                "pruning to {new} {noun} slots, but there are {old}: keep at most as many, or make the model larger with \
                 `tokenformer grow`"
            )
        })?;
    }
    require(new != old, || {
        let [qkv, proj, ffn] = old;
        format!(
            "nothing would be dropped: ask for --keep below 1, --qkv-slots below {qkv}, --proj-slots below {proj} or \
             --ffn-slots below {ffn}"
        )
    })?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Module;

    fn refusal(to: PruneTo, model: &ModelConfig) -> String {
        to.check(model).unwrap_err().to_string()
    }

    #[test]
    fn slots_shrink_and_scales_stay() {
        let before = ModelConfig { tau_proj: Some(3.0), ..ModelConfig::default() };
        let after = PruneTo::Share(0.3).check(&before).unwrap();
        assert_eq!((after.qkv_slot_num, after.proj_slot_num, after.ffn_slot_num), (38, 38, 154));
        assert_eq!(Module::ALL.map(|m| after.tau(m)), Module::ALL.map(|m| before.tau(m)));
        let after = PruneTo::Slots([None, Some(1), Some(512)]).check(&before).unwrap();
        assert_eq!((after.qkv_slot_num, after.proj_slot_num, after.ffn_slot_num), (128, 1, 512));
        let least = PruneTo::Share(1e-9).check(&before).unwrap();
        assert_eq!((least.qkv_slot_num, least.ffn_slot_num), (1, 1));
    }

    #[test]
    fn what_is_no_pruning_is_refused() {
        let model = ModelConfig::default();
        for share in [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY] {
            let text = refusal(PruneTo::Share(share), &model);
            assert!(
                text.starts_with(&format!("keep is {share}, but")) && text.contains("above 0 and below 1"),
                "{text}"
            );
        }
        for share in [1.0, 0.9999] {
            assert!(refusal(PruneTo::Share(share), &model).contains("nothing would be dropped of 128 qkv"));
        }
        assert!(refusal(PruneTo::Slots([None; 3]), &model).contains("--ffn-slots below 512"));
        assert!(refusal(PruneTo::Slots([Some(128), None, Some(512)]), &model).starts_with("nothing would be dropped"));
        let text = refusal(PruneTo::Slots([None, Some(0), None]), &model);
        assert!(text.starts_with("pruning to 0 proj slots") && text.ends_with("between 1 and 128"), "{text}");
        let text = refusal(PruneTo::Slots([Some(64), None, Some(513)]), &model);
        assert!(text.starts_with("pruning to 513 ffn slots, but there are 512"), "{text}");
        let transformer = ModelConfig { arch: Arch::Transformer, ..model };
        assert!(refusal(PruneTo::Share(0.5), &transformer).starts_with("a transformer has no parameter tokens"));
    }
}
