//! One growth: which projections get more parameter tokens, and by what rules.
//!
//! A growth is only described and checked here; the model room makes the new rows, the training loop
//! applies them.

use serde::{Deserialize, Serialize};

use super::{Arch, ModelConfig, Module, NormActivation, positive, require};
use crate::error::Result;

/// A set of rules with a name. A rule given on its own overrides its policy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrowthPolicy {
    /// The grown model computes exactly what the old one did: zero keys, kept tau, carried optimiser.
    Preserving,
    /// The published PyTorch recipe: random keys, tau follows `sqrt(N)`, optimiser state dropped.
    Official,
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
    /// Old tokens keep moments and step count; new ones start at zero with a step count of their own.
    Carry,
    /// As `carry`, but new tokens share the old step count in their bias correction.
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
    /// Only the parameter tokens this growth added.
    New,
}

/// One `[[growth]]` of a run, or the options of `tokenformer grow`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrowthConfig {
    /// Updates done before the model grows.
    pub at_step: usize,
    /// New `qkv_slot_num`; absent keeps it. Likewise the two below.
    pub qkv_slot_num: Option<usize>,
    /// New `proj_slot_num`.
    pub proj_slot_num: Option<usize>,
    /// New `ffn_slot_num`.
    pub ffn_slot_num: Option<usize>,
    /// Where the rules below come from when absent.
    pub policy: GrowthPolicy,
    /// Keys of the new tokens.
    pub init_keys: Option<InitKeys>,
    /// Values of the new tokens.
    pub init_values: Option<InitValues>,
    /// The scale of what grows.
    pub tau: Option<TauRule>,
    /// The AdamW state.
    pub optimizer: Option<OptimizerRule>,
    /// Learning rate of the new tokens as a multiple of the schedule's.
    pub lr_scale: Option<f64>,
    /// What trains afterwards.
    pub train: Option<TrainRule>,
}

impl Default for GrowthConfig {
    fn default() -> Self {
        Self {
            at_step: 0,
            qkv_slot_num: None,
            proj_slot_num: None,
            ffn_slot_num: None,
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
    /// Keys of the new tokens.
    pub init_keys: InitKeys,
    /// Values of the new tokens.
    pub init_values: InitValues,
    /// The scale of what grows.
    pub tau: TauRule,
    /// The AdamW state.
    pub optimizer: OptimizerRule,
    /// Learning rate of the new tokens as a multiple of the schedule's.
    pub lr_scale: f64,
    /// What trains afterwards.
    pub train: TrainRule,
}

impl GrowthConfig {
    /// The policy's rules with the explicit ones over them.
    pub fn resolve(&self) -> ResolvedGrowth {
        let (keys, tau, optimizer) = match self.policy {
            GrowthPolicy::Preserving => (InitKeys::Zero, TauRule::Keep, OptimizerRule::Carry),
            GrowthPolicy::Official => (InitKeys::Random, TauRule::SqrtN, OptimizerRule::Reset),
        };
        ResolvedGrowth {
            init_keys: self.init_keys.unwrap_or(keys),
            init_values: self.init_values.unwrap_or(InitValues::Random),
            tau: self.tau.unwrap_or(tau),
            optimizer: self.optimizer.unwrap_or(optimizer),
            lr_scale: self.lr_scale.unwrap_or(1.0),
            train: self.train.unwrap_or(TrainRule::All),
        }
    }

    /// The model that `before` becomes, every scale a stored number. Does not look at `at_step`.
    ///
    /// # Errors
    /// A usage error when the model has no parameter tokens, when nothing would grow or something would
    /// shrink, when the new tokens could never learn, or when the policy cannot hold its promise.
    pub fn check(&self, before: &ModelConfig) -> Result<ModelConfig> {
        require(before.arch == Arch::Tokenformer, || {
            "a transformer has no parameter tokens and cannot grow: use arch = \"tokenformer\", or drop the growth \
             (growth = [])"
                .to_owned()
        })?;
        let rules = self.resolve();
        positive("lr_scale", rules.lr_scale)?;
        self.check_slots(before)?;
        self.check_start(before.norm_activation_type, rules)?;

        let mut after = before.clone();
        after.freeze_tau();
        after.qkv_slot_num = self.qkv_slot_num.unwrap_or(before.qkv_slot_num);
        after.proj_slot_num = self.proj_slot_num.unwrap_or(before.proj_slot_num);
        after.ffn_slot_num = self.ffn_slot_num.unwrap_or(before.ffn_slot_num);
        if rules.tau == TauRule::SqrtN {
            let grown =
                |module| (after.slots(module) > before.slots(module)).then(|| (after.slots(module) as f64).sqrt());
            let (qkv, proj, ffn) = (grown(Module::Query), grown(Module::Proj), grown(Module::Mlp));
            after.tau_qkv = qkv.or(after.tau_qkv);
            after.tau_proj = proj.or(after.tau_proj);
            after.tau_ffn = ffn.or(after.tau_ffn);
        }
        after.validate()?;
        Ok(after)
    }

    /// Nothing shrinks and something grows.
    fn check_slots(&self, before: &ModelConfig) -> Result<()> {
        let groups = [
            ("qkv", before.qkv_slot_num, self.qkv_slot_num),
            ("proj", before.proj_slot_num, self.proj_slot_num),
            ("ffn", before.ffn_slot_num, self.ffn_slot_num),
        ];
        for (name, old, new) in groups {
            let new = new.unwrap_or(old);
            require(new >= old, || {
                format!(
                    "growth to {new} {name} slots from {old} would remove parameter tokens, which growth cannot do: \
                     ask for more than {old}, or train a smaller model from the start"
                )
            })?;
        }
        require(groups.iter().any(|&(_, old, new)| new.is_some_and(|new| new > old)), || {
            let now = groups.map(|(name, old, _)| format!("{name}_slot_num above {old}"));
            format!("the growth adds no parameter tokens: ask for {}", now.join(" or "))
        })
    }

    /// The new tokens can learn, and a policy that promises to preserve the model can do so.
    fn check_start(&self, activation: NormActivation, rules: ResolvedGrowth) -> Result<()> {
        let zero_keys = rules.init_keys == InitKeys::Zero;
        if activation == NormActivation::Softmax {
            let preserving = self.policy == GrowthPolicy::Preserving || (zero_keys && rules.tau == TauRule::Keep);
            return require(!preserving, || {
                "growth cannot preserve a model with norm_activation_type \"softmax\", because exp(0) = 1 and so a new \
                 token with a zero key still takes its share: use policy = \"official\" with its own rules, or an l2 \
                 normalisation from the start"
                    .to_owned()
            });
        }
        require(!(zero_keys && rules.init_values == InitValues::Zero), || {
            "new tokens with zero keys and zero values never get a gradient (a dead start): use init_values = \"random\" \
             or init_keys = \"random\""
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_ffn(slots: usize) -> GrowthConfig {
        GrowthConfig { ffn_slot_num: Some(slots), ..GrowthConfig::default() }
    }

    fn refusal(growth: &GrowthConfig, model: &ModelConfig) -> String {
        growth.check(model).unwrap_err().to_string()
    }

    #[test]
    fn explicit_rules_override_the_policy() {
        let official = GrowthConfig { policy: GrowthPolicy::Official, tau: Some(TauRule::Keep), ..to_ffn(600) };
        let expected = ResolvedGrowth {
            init_keys: InitKeys::Random,
            init_values: InitValues::Random,
            tau: TauRule::Keep,
            optimizer: OptimizerRule::Reset,
            lr_scale: 1.0,
            train: TrainRule::All,
        };
        assert_eq!(official.resolve(), expected);
        let preserving = to_ffn(600).resolve();
        assert_eq!((preserving.init_keys, preserving.tau), (InitKeys::Zero, TauRule::Keep));
        assert_eq!(preserving.optimizer, OptimizerRule::Carry);
    }

    #[test]
    fn tau_is_kept_or_follows_what_grew() {
        let before = ModelConfig { tau_qkv: Some(2.0), ..ModelConfig::default() };
        let kept = to_ffn(1024).check(&before).unwrap();
        assert_eq!((kept.ffn_slot_num, kept.proj_slot_num), (1024, 128));
        assert_eq!(
            (kept.tau_qkv, kept.tau_proj, kept.tau_ffn),
            (Some(2.0), Some(128_f64.sqrt()), Some(512_f64.sqrt()))
        );
        let official = GrowthConfig { policy: GrowthPolicy::Official, ..to_ffn(1024) }.check(&before).unwrap();
        assert_eq!(
            (official.tau_qkv, official.tau_proj, official.tau_ffn),
            (Some(2.0), Some(128_f64.sqrt()), Some(32.0))
        );
    }

    #[test]
    fn shrinking_and_standing_still_are_refused() {
        let model = ModelConfig::default();
        let text = refusal(&to_ffn(48), &model);
        assert!(text.starts_with("growth to 48 ffn slots from 512 would remove parameter tokens"), "{text}");
        assert!(refusal(&to_ffn(512), &model).contains("adds no parameter tokens"));
        assert!(refusal(&GrowthConfig::default(), &model).contains("ffn_slot_num above 512"));
        let mixed = GrowthConfig { qkv_slot_num: Some(64), ..to_ffn(1024) };
        assert!(refusal(&mixed, &model).contains("growth to 64 qkv slots from 128"));
        assert!(refusal(&to_ffn(usize::MAX), &model).contains("ffn_slot_num is"));
    }

    #[test]
    fn a_dead_start_is_refused() {
        let dead = GrowthConfig { init_values: Some(InitValues::Zero), ..to_ffn(1024) };
        assert!(refusal(&dead, &ModelConfig::default()).contains("dead start"));
        let alive = GrowthConfig { init_keys: Some(InitKeys::Random), ..dead };
        assert!(alive.check(&ModelConfig::default()).is_ok());
    }

    #[test]
    fn softmax_and_transformers_are_refused_with_the_reason() {
        let softmax = ModelConfig { norm_activation_type: NormActivation::Softmax, ..ModelConfig::default() };
        assert!(refusal(&to_ffn(1024), &softmax).contains("exp(0) = 1"));
        let official = GrowthConfig { policy: GrowthPolicy::Official, ..to_ffn(1024) };
        // tau^2 multiplies the softmax: the official factor N.
        assert_eq!(official.check(&softmax).unwrap().tau_ffn, Some(32.0));
        let same = GrowthConfig { init_keys: Some(InitKeys::Zero), tau: Some(TauRule::Keep), ..official };
        assert!(refusal(&same, &softmax).contains("exp(0) = 1"));
        let transformer = ModelConfig { arch: Arch::Transformer, ..ModelConfig::default() };
        assert!(refusal(&to_ffn(1024), &transformer).contains("no parameter tokens"));
    }

    #[test]
    fn a_learning_rate_multiple_is_positive() {
        let frozen = GrowthConfig { lr_scale: Some(0.0), ..to_ffn(1024) };
        assert!(refusal(&frozen, &ModelConfig::default()).contains("lr_scale is 0"));
    }
}
