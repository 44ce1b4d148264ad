//! What a growth policy is. Each is one file of this folder with a `POLICY`, a variant of [`GrowthPolicy`] (its name in
//! configurations and its line in `grow --help`), and a line in `table`.

use super::part::Part;
use crate::array::HostTensor;
use crate::config::{GrowthPolicy, InitKeys, InitValues, ModelConfig, OptimizerRule, ResolvedGrowth, TauRule};
use crate::error::Result;
use serde::Serialize;

/// One way to grow a model.
pub struct Policy {
    /// Its name.
    pub name: GrowthPolicy,
    /// What there is more of afterwards.
    pub grows: Grows,
    /// What becomes of the function that the model computes.
    pub promise: Promise,
    /// The rules that a growth has where it says nothing of them.
    pub defaults: Defaults,
    /// Refuses what this policy cannot do or could not keep its promise in, besides what none can.
    pub(super) check: fn(&Asked) -> Result<()>,
    /// The scale tau of a projection whose tokens grow, from the old one and its new slot number.
    pub(super) tau: fn(&ResolvedGrowth, f64, usize) -> f64,
    /// One parameter of the grown model.
    pub(super) make: fn(Part) -> HostTensor,
}

/// What a policy makes more of. A growth makes more of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grows {
    /// `qkv_slot_num`, `proj_slot_num`, `ffn_slot_num` of a TokenFormer.
    Tokens,
    /// `num_layers` of either architecture.
    Layers,
    /// `intermediate_size` of a Transformer.
    Units,
}

impl Grows {
    /// What there is more of afterwards.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Tokens => "parameter tokens",
            Self::Layers => "layers",
            Self::Units => "MLP units",
        }
    }
}

/// What becomes of the function that a model computes when it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// It stays, to the bit.
    SameBits,
    /// It stays but for roundings.
    Roundings,
    /// It changes.
    Changes,
}

/// The rules of a policy. It has no rule for what is `None`: what becomes of that, the policy itself says.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Keys of new parameter tokens.
    pub init_keys: Option<InitKeys>,
    /// Their values.
    pub init_values: Option<InitValues>,
    /// The scale of what grows.
    pub tau: Option<TauRule>,
    /// The AdamW state.
    pub optimizer: OptimizerRule,
}

impl Defaults {
    /// Of a policy that leaves nothing to choose but what becomes of the optimizer and what trains.
    pub(super) const NO_INIT: Self =
        Self { init_keys: None, init_values: None, tau: None, optimizer: OptimizerRule::Carry };
}

/// One size that a growth may change.
pub(super) struct Size {
    pub(super) key: &'static str,
    /// As the command line of `grow` has it.
    pub(super) option: &'static str,
    /// What there are so many of.
    pub(super) noun: &'static str,
    pub(super) kind: Grows,
    pub(super) old: usize,
    pub(super) new: usize,
}

/// A growth that is asked for, of a model that has what it grows.
pub(super) struct Asked<'a> {
    pub(super) policy: &'static Policy,
    pub(super) before: &'a ModelConfig,
    pub(super) rules: ResolvedGrowth,
    pub(super) sizes: [Size; 5],
}

impl Asked<'_> {
    /// The sizes that grow.
    pub(super) fn grown(&self) -> impl Iterator<Item = &Size> {
        self.sizes.iter().filter(|size| size.new != size.old)
    }
}

/// `check` of a policy that can do all that its kind can.
pub(super) fn anything(_: &Asked) -> Result<()> {
    Ok(())
}

/// `tau` of a policy that leaves it as it is.
pub(super) fn kept(_: &ResolvedGrowth, old: f64, _: usize) -> f64 {
    old
}

/// A choice as configurations write it, in quotes.
pub(super) fn word(choice: impl Serialize) -> String {
    serde_json::to_string(&choice).unwrap_or_default()
}
