//! One growth: what gets larger, and by what rules.
//!
//! A growth is only described here. Whether a model can grow so is in `growth_check`; the model module makes the
//! new parameters, the training loop puts them in place.

use super::{GrowthWhen, PlateauRule};
use serde::{Deserialize, Serialize};

/// How a model grows: what gets larger, and where the new parameters come from. A rule given on its own overrides
/// its policy's, where the policy has such a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrowthPolicy {
    /// New parameter tokens that change nothing: zero keys, kept tau, carried optimiser.
    Preserving,
    /// New parameter tokens by the published PyTorch recipe: random keys, tau follows `sqrt(N)`, optimiser state
    /// dropped.
    Official,
    /// Every parameter token twice, its value divided between the two and `tau` times `sqrt(2)`: changes nothing but
    /// roundings.
    Copy,
    /// New layers on top that add exactly 0 to the residual stream, in either architecture: their output projections
    /// are zero (Gesmundo and Maile, 2023, arXiv 2308.06103).
    Identity,
    /// The whole stack of layers repeated, in either architecture: `G_stack` of Du et al., 2024, arXiv 2405.15319. The
    /// function changes.
    Stack,
    /// New MLP units of a Transformer that are copies of old ones and share their outgoing weights with them
    /// (Net2WiderNet of Chen et al., 2016, arXiv 1511.05641): changes nothing but roundings.
    Net2net,
    /// New MLP units of a Transformer whose outgoing weights are zero: changes nothing (arXiv 2308.06103).
    ZeroUnits,
}

/// What a policy makes more of. A growth makes more of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grows {
    /// `qkv_slot_num`, `proj_slot_num`, `ffn_slot_num`.
    Tokens,
    /// `num_layers`.
    Layers,
    /// `intermediate_size`.
    Units,
}

impl GrowthPolicy {
    pub(super) fn grows(self) -> Grows {
        match self {
            Self::Preserving | Self::Official | Self::Copy => Grows::Tokens,
            Self::Identity | Self::Stack => Grows::Layers,
            Self::Net2net | Self::ZeroUnits => Grows::Units,
        }
    }
}

/// Keys of new parameter tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitKeys {
    /// All zero.
    Zero,
    /// As at the model's creation.
    Random,
}

/// Values of new parameter tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitValues {
    /// All zero.
    Zero,
    /// As at the model's creation.
    Random,
}

/// What growth does to the scale of the projections that grow; the others keep theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TauRule {
    /// The number it was.
    Keep,
    /// The square root of the new slot number.
    SqrtN,
}

/// What growth does to the AdamW state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerRule {
    /// What is old keeps moments and step count; new rows start at zero with a step count of their own. New columns
    /// start at zero too, but count with their rows.
    Carry,
    /// As `carry`, but new rows share the old step count in their bias correction.
    CarryStep,
    /// Every moment and step count starts again.
    Reset,
}

/// Which parameters train after a growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainRule {
    /// All of them.
    All,
    /// Only the parameter tokens or layers this growth added.
    New,
}

/// One `[[growth]]` of a run, or the options of `tokenformer grow`.
/// ```
/// use tokenformer::config::{GrowthConfig, GrowthPolicy, ModelConfig};
///
/// let model = ModelConfig::default();
/// let growth = GrowthConfig { ffn_slot_num: Some(768), ..GrowthConfig::default() };
/// assert_eq!(growth.check(&model)?.ffn_slot_num, 768);
///
/// // What a policy cannot do is refused in a sentence.
/// let tripled = GrowthConfig { policy: GrowthPolicy::Copy, ffn_slot_num: Some(3 * 512), ..growth };
/// assert!(tripled.check(&model).unwrap_err().to_string().contains("doubles what it grows"));
/// # Ok::<(), tokenformer::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrowthConfig {
    /// What makes the model grow: a step, or a plateau of the validation loss.
    pub when: GrowthWhen,
    /// Steps done before it grows; it must be given. On a plateau it is the earliest step, and may be left out.
    pub at_step: usize,
    /// Of the plateau: evaluations in a row without an improvement; absent is 5. Only with `when = "plateau"`.
    pub patience: Option<usize>,
    /// Of the plateau: how far below the lowest loss since the last growth an improvement is, in nats per token; absent is
    /// 0.01. Only with `when = "plateau"`.
    pub min_delta: Option<f64>,
    /// New `qkv_slot_num`, in all; absent keeps it. The next four likewise.
    pub qkv_slot_num: Option<usize>,
    /// New `proj_slot_num`.
    pub proj_slot_num: Option<usize>,
    /// New `ffn_slot_num`.
    pub ffn_slot_num: Option<usize>,
    /// New `num_layers`.
    pub num_layers: Option<usize>,
    /// New `intermediate_size` of a Transformer.
    pub intermediate_size: Option<usize>,
    /// What grows, and where the rules below come from when they are absent.
    pub policy: GrowthPolicy,
    /// Keys of the new tokens.
    pub init_keys: Option<InitKeys>,
    /// Values of the new tokens.
    pub init_values: Option<InitValues>,
    /// The scale of what grows.
    pub tau: Option<TauRule>,
    /// The AdamW state.
    pub optimizer: Option<OptimizerRule>,
    /// Learning rate of the new tokens or layers as a multiple of the schedule's; absent is 1.
    pub lr_scale: Option<f64>,
    /// What trains afterwards.
    pub train: Option<TrainRule>,
}

impl Default for GrowthConfig {
    fn default() -> Self {
        Self {
            when: GrowthWhen::Step,
            at_step: 0,
            patience: None,
            min_delta: None,
            qkv_slot_num: None,
            proj_slot_num: None,
            ffn_slot_num: None,
            num_layers: None,
            intermediate_size: None,
            policy: GrowthPolicy::Preserving,
            init_keys: None,
            init_values: None,
            tau: None,
            optimizer: None,
            lr_scale: None,
            train: None,
        }
    }
}

/// The rules of a growth with nothing left open.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ResolvedGrowth {
    /// What grows and how.
    pub policy: GrowthPolicy,
    /// Keys of the new tokens; absent, as the two below, where the policy itself says what becomes of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_keys: Option<InitKeys>,
    /// Values of the new tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_values: Option<InitValues>,
    /// The scale of what grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tau: Option<TauRule>,
    /// The AdamW state.
    pub optimizer: OptimizerRule,
    /// Learning rate of the new tokens or layers as a multiple of the schedule's.
    pub lr_scale: f64,
    /// What trains afterwards.
    pub train: TrainRule,
    /// The plateau that made it grow; absent where that was a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plateau: Option<PlateauRule>,
}

impl GrowthConfig {
    /// The policy's rules with the explicit ones over them.
    pub fn resolve(&self) -> ResolvedGrowth {
        let (keys, values, tau, optimizer) = match self.policy {
            GrowthPolicy::Preserving => {
                (Some(InitKeys::Zero), Some(InitValues::Random), Some(TauRule::Keep), OptimizerRule::Carry)
            }
            GrowthPolicy::Official => {
                (Some(InitKeys::Random), Some(InitValues::Random), Some(TauRule::SqrtN), OptimizerRule::Reset)
            }
            _ => (None, None, None, OptimizerRule::Carry),
        };
        ResolvedGrowth {
            policy: self.policy,
            init_keys: self.init_keys.or(keys),
            init_values: self.init_values.or(values),
            tau: self.tau.or(tau),
            optimizer: self.optimizer.unwrap_or(optimizer),
            lr_scale: self.lr_scale.unwrap_or(1.0),
            train: self.train.unwrap_or(TrainRule::All),
            plateau: self.plateau(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_rules_override_the_policy() {
        let official =
            GrowthConfig { policy: GrowthPolicy::Official, tau: Some(TauRule::Keep), ..GrowthConfig::default() };
        let expected = ResolvedGrowth {
            policy: GrowthPolicy::Official,
            init_keys: Some(InitKeys::Random),
            init_values: Some(InitValues::Random),
            tau: Some(TauRule::Keep),
            optimizer: OptimizerRule::Reset,
            lr_scale: 1.0,
            train: TrainRule::All,
            plateau: None,
        };
        assert_eq!(official.resolve(), expected);
        let preserving = GrowthConfig::default().resolve();
        assert_eq!((preserving.init_keys, preserving.tau), (Some(InitKeys::Zero), Some(TauRule::Keep)));
        assert_eq!(preserving.optimizer, OptimizerRule::Carry);
    }

    #[test]
    fn a_record_names_the_rules_that_the_policy_has() {
        let words = |policy| {
            let growth = GrowthConfig { policy, ..GrowthConfig::default() };
            serde_json::to_string(&growth.resolve()).unwrap()
        };
        assert_eq!(
            words(GrowthPolicy::Net2net),
            r#"{"policy":"net2net","optimizer":"carry","lr_scale":1.0,"train":"all"}"#
        );
        let plateau = GrowthConfig { when: GrowthWhen::Plateau, patience: Some(3), ..GrowthConfig::default() };
        let said = serde_json::to_string(&plateau.resolve()).unwrap();
        assert!(said.ends_with(r#","plateau":{"patience":3,"min_delta":0.01}}"#), "{said}");
        assert!(words(GrowthPolicy::Preserving).contains(r#""init_keys":"zero","init_values":"random","tau":"keep""#));
    }
}
