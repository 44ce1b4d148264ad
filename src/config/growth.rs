//! One growth: what gets larger, and by what rules.
//!
//! A growth is only described here. Whether a model can grow so, what a policy's rules are and what it makes of each
//! parameter is [`crate::model::grow`]'s; the training loop puts the grown model in place.

use super::{GrowthWhen, PlateauRule};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Defines the policies, and a macro that hands each with its file in `model/grow/` to another macro: so a new one is that
/// file and a line here. `$d` is a dollar sign, which a macro inside of a macro cannot write by itself.
macro_rules! define_policies {
    ($d:tt $(#[$attribute:meta])* pub enum $name:ident { $($(#[$of_variant:meta])* $policy:ident = $file:ident),* $(,)? }) => {
        $(#[$attribute])*
        pub enum $name {
            $($(#[$of_variant])* $policy,)*
        }

        macro_rules! growth_policies {
            ($d callback:ident) => {
                $d callback! { $($policy = $file),* }
            };
        }
        pub(crate) use growth_policies;
    };
}

define_policies! {
    $
    /// How a model grows: what gets larger, and where the new parameters come from. A rule given on its own overrides
    /// its policy's, where the policy has such a rule.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
    #[serde(rename_all = "snake_case")]
    pub enum GrowthPolicy {
        /// New parameter tokens that change nothing.
        ///
        /// Zero keys, kept tau, carried optimiser.
        Preserving = preserving,
        /// New parameter tokens by the published recipe.
        ///
        /// That in PyTorch: random keys, tau follows `sqrt(N)`, optimiser state dropped.
        Official = official,
        /// Every parameter token twice; changes nothing but roundings.
        ///
        /// The value of each is divided between the two, and `tau` is times `sqrt(2)`.
        Copy = copy,
        /// New layers on top that change nothing.
        ///
        /// In either architecture. They add exactly 0 to the residual stream: their output projections are zero (Gesmundo and
        /// Maile, 2023, arXiv 2308.06103).
        Identity = identity,
        /// The whole stack of layers repeated; changes the function.
        ///
        /// In either architecture: `G_stack` of Du et al., 2024, arXiv 2405.15319.
        Stack = stack,
        /// New MLP units that are copies of old ones; changes nothing but roundings.
        ///
        /// Of a Transformer. They share their outgoing weights with the old ones (Net2WiderNet of Chen et al., 2016, arXiv
        /// 1511.05641).
        Net2net = net2net,
        /// New MLP units that change nothing.
        ///
        /// Of a Transformer. Their outgoing weights are zero (arXiv 2308.06103).
        #[value(alias = "zero_units")]
        ZeroUnits = zero_units,
    }
}

/// Keys of new parameter tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum InitKeys {
    /// All zero.
    Zero,
    /// As at the model's creation.
    Random,
}

/// Values of new parameter tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum InitValues {
    /// All zero.
    Zero,
    /// As at the model's creation.
    Random,
}

/// What growth does to the scale of the projections that grow; the others keep theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TauRule {
    /// The number it was.
    Keep,
    /// The square root of the new slot number.
    #[value(alias = "sqrt_n")]
    SqrtN,
}

/// What growth does to the AdamW state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerRule {
    /// What is old keeps moments and step count; new rows start at zero with a step count of their own.
    ///
    /// New columns start at zero too, but count with their rows.
    Carry,
    /// As `carry`, but new rows share the old step count in their bias correction.
    #[value(alias = "carry_step")]
    CarryStep,
    /// Every moment and step count starts again.
    Reset,
}

/// Which parameters train after a growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TrainRule {
    /// All of them.
    All,
    /// Only the parameter tokens or layers this growth added.
    New,
}

/// One `[[growth]]` of a run, or the options of `tokenformer grow`.
///
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
