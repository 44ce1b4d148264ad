//! The record of a growth or pruning in a checkpoint's lineage: by what rules, from which shape to which, what it changed.

use crate::checkpoint::{FileDigest, number};
use crate::config::{Arch, ModelConfig, Module, PlateauRule, PruneScore, ResolvedGrowth};
use crate::config::{OptimizerRule, TauRule};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was measured across a growth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Largest absolute change of a logit.
    pub max_logit_change: f64,
    /// Loss before, nats per token.
    pub loss_before: f64,
    /// Loss after.
    pub loss_after: f64,
}

/// One growth or pruning of a model, and what was measured across it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Flat", into = "Flat")]
pub struct GrowthRecord {
    /// Optimizer updates done before it.
    pub at_step: u64,
    /// How it was done.
    pub rules: Rules,
    /// The model before.
    pub before: Shape,
    /// The model after.
    pub after: Shape,
    /// Largest absolute change of a logit on the compared tokens.
    pub max_logit_change: f64,
    /// Loss on the compared batches before, in nats per token.
    pub loss_before: f64,
    /// Loss on the compared batches after, in nats per token.
    pub loss_after: f64,
    /// The checkpoint of the model before; `None` in a record from when none was kept.
    pub file_before: Option<FileDigest>,
}

/// By what rules a model was grown or pruned.
#[derive(Debug, Clone, PartialEq)]
pub enum Rules {
    /// Those of a growth.
    Growth(ResolvedGrowth),
    /// Those of a pruning.
    Pruning(PruneRules),
    /// What another version of the program, or nobody, wrote: kept as it is.
    Other(Value),
}

/// The rules of a pruning. Only the score can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PruneRules {
    policy: Prune,
    /// What decided which tokens stayed.
    pub score: PruneScore,
    tau: TauRule,
    optimizer: OptimizerRule,
}

/// What a pruning has in the place of a growth's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Prune {
    Prune,
}

impl PruneRules {
    /// Those of a pruning by `score`.
    pub fn by(score: PruneScore) -> Self {
        Self { policy: Prune::Prune, score, tau: TauRule::Keep, optimizer: OptimizerRule::Carry }
    }
}

impl Rules {
    /// What a file says. Only rules that are written again as they were read count as understood.
    pub fn of(json: Value) -> Self {
        let growth = ResolvedGrowth::deserialize(&json).ok().map(Self::Growth);
        let rules = growth.or_else(|| PruneRules::deserialize(&json).ok().map(Self::Pruning));
        rules.filter(|rules| rules.json() == json).unwrap_or(Self::Other(json))
    }

    /// As they are stored.
    pub fn json(&self) -> Value {
        match self {
            Self::Growth(rules) => serde_json::to_value(rules),
            Self::Pruning(rules) => serde_json::to_value(rules),
            Self::Other(json) => return json.clone(),
        }
        .unwrap_or_default()
    }

    /// The plateau that made the model grow; `None` where that was a step.
    pub fn plateau(&self) -> Option<PlateauRule> {
        match self {
            Self::Growth(rules) => rules.plateau,
            Self::Pruning(_) | Self::Other(_) => None,
        }
    }
}

/// How large a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Slots of query/key/value, proj and ffn; 0 in a Transformer.
    pub slots: [u64; 3],
    /// Layers; 0, as the one below, in a record from when only slots could grow.
    pub layers: u64,
    /// Width of a Transformer's MLP; 0 in a TokenFormer.
    pub intermediate_size: u64,
    /// Parameters.
    pub params: u64,
}

impl Shape {
    /// That of `model`.
    pub fn of(model: &ModelConfig) -> Self {
        let (slots, intermediate_size) = match model.arch {
            Arch::Tokenformer => ([Module::Query, Module::Proj, Module::Mlp].map(|m| model.slots(m) as u64), 0),
            Arch::Transformer => ([0; 3], model.mlp_width() as u64),
        };
        Self { slots, layers: model.num_layers as u64, intermediate_size, params: model.param_count() }
    }
}

impl GrowthRecord {
    /// Of a growth or pruning by `rules` at `step` that made the model `after` of `before`, without the file of the model
    /// before.
    pub fn new(rules: Rules, step: u64, [before, after]: [&ModelConfig; 2], change: Change) -> Self {
        let Change { max_logit_change, loss_before, loss_after } = change;
        let (before, after) = (Shape::of(before), Shape::of(after));
        Self { at_step: step, rules, before, after, max_logit_change, loss_before, loss_after, file_before: None }
    }

    /// One line for people: when and why, what there is more of or less, and what changed.
    pub fn describe(&self) -> String {
        let Self { before, after, .. } = self;
        let what = if after.params < before.params { "pruned" } else { "grown" };
        let mut changed = Vec::new();
        if before.slots != after.slots {
            let ([qkv, proj, ffn], [qkv_after, proj_after, ffn_after]) = (before.slots, after.slots);
            changed
                .push(format!("slots qkv {qkv} -> {qkv_after}, proj {proj} -> {proj_after}, ffn {ffn} -> {ffn_after}"));
        }
        for (what, before, after) in [
            ("layers", before.layers, after.layers),
            ("intermediate_size", before.intermediate_size, after.intermediate_size),
        ] {
            if before != after {
                changed.push(format!("{what} {before} -> {after}"));
            }
        }
        let why = self.rules.plateau().map_or_else(String::new, |PlateauRule { patience, min_delta }| {
            format!(" on a plateau of {patience} evaluations (min_delta {min_delta})")
        });
        format!(
            "{what} at step {}{why}: {}; parameters {} -> {}; max |logit change| {:.1e}; val loss {:.4} -> {:.4}",
            self.at_step,
            changed.join(", "),
            before.params,
            after.params,
            self.max_logit_change,
            self.loss_before,
            self.loss_after
        )
    }
}

/// Largest absolute difference of two sets of logits.
pub fn max_change(before: &[f32], after: &[f32]) -> f64 {
    before.iter().zip(after).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

/// A [`GrowthRecord`] as files have it, in this order.
#[derive(Clone, Serialize, Deserialize)]
struct Flat {
    at_step: u64,
    policy: Value,
    slots_before: [u64; 3],
    slots_after: [u64; 3],
    #[serde(default)]
    layers_before: u64,
    #[serde(default)]
    layers_after: u64,
    #[serde(default)]
    intermediate_size_before: u64,
    #[serde(default)]
    intermediate_size_after: u64,
    params_before: u64,
    params_after: u64,
    #[serde(with = "number")]
    max_logit_change: f64,
    #[serde(with = "number")]
    loss_before: f64,
    #[serde(with = "number")]
    loss_after: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<FileDigest>,
}

impl From<Flat> for GrowthRecord {
    fn from(flat: Flat) -> Self {
        Self {
            at_step: flat.at_step,
            rules: Rules::of(flat.policy),
            before: Shape {
                slots: flat.slots_before,
                layers: flat.layers_before,
                intermediate_size: flat.intermediate_size_before,
                params: flat.params_before,
            },
            after: Shape {
                slots: flat.slots_after,
                layers: flat.layers_after,
                intermediate_size: flat.intermediate_size_after,
                params: flat.params_after,
            },
            max_logit_change: flat.max_logit_change,
            loss_before: flat.loss_before,
            loss_after: flat.loss_after,
            file_before: flat.before,
        }
    }
}

impl From<GrowthRecord> for Flat {
    fn from(record: GrowthRecord) -> Self {
        let GrowthRecord { before, after, .. } = record;
        Self {
            at_step: record.at_step,
            policy: record.rules.json(),
            slots_before: before.slots,
            slots_after: after.slots,
            layers_before: before.layers,
            layers_after: after.layers,
            intermediate_size_before: before.intermediate_size,
            intermediate_size_after: after.intermediate_size,
            params_before: before.params,
            params_after: after.params,
            max_logit_change: record.max_logit_change,
            loss_before: record.loss_before,
            loss_after: record.loss_after,
            before: record.file_before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GrowthConfig, GrowthPolicy, GrowthWhen};
    use serde_json::json;

    #[test]
    fn what_grew_is_said_and_nothing_else() {
        let change = Change { max_logit_change: 0.0, loss_before: 2.0, loss_after: 2.0 };
        let line = |before: &ModelConfig, growth: GrowthConfig| {
            let after = growth.check(before).unwrap();
            GrowthRecord::new(Rules::Growth(growth.resolve()), 7, [before, &after], change).describe()
        };
        let tokenformer = ModelConfig { vocab_size: 9, ..ModelConfig::default() };
        let transformer = ModelConfig { arch: Arch::Transformer, ..tokenformer.clone() };
        let tokens = GrowthConfig { ffn_slot_num: Some(640), ..GrowthConfig::default() };
        let deeper = GrowthConfig { num_layers: Some(8), policy: GrowthPolicy::Identity, ..GrowthConfig::default() };
        let wider =
            GrowthConfig { intermediate_size: Some(600), policy: GrowthPolicy::Net2net, ..GrowthConfig::default() };
        let waiting = GrowthConfig { when: GrowthWhen::Plateau, ..tokens.clone() };
        for (model, growth, said) in [
            (&tokenformer, tokens, ": slots qkv 128 -> 128, proj 128 -> 128, ffn 512 -> 640; parameters"),
            (&tokenformer, deeper.clone(), "grown at step 7: layers 4 -> 8; parameters"),
            (&transformer, deeper, "grown at step 7: layers 4 -> 8; parameters"),
            (&transformer, wider, "grown at step 7: intermediate_size 512 -> 600; parameters"),
            (
                &tokenformer,
                waiting,
                "grown at step 7 on a plateau of 5 evaluations (min_delta 0.01): slots qkv 128 -> 128",
            ),
        ] {
            let text = line(model, growth);
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn rules_are_written_as_they_were_read_and_typed_where_they_are_understood() {
        let plateau = GrowthConfig { when: GrowthWhen::Plateau, policy: GrowthPolicy::Copy, ..GrowthConfig::default() };
        let rules = [GrowthConfig::default(), plateau].map(|growth| Rules::Growth(growth.resolve()));
        for rules in rules.into_iter().chain([Rules::Pruning(PruneRules::by(PruneScore::Weight))]) {
            assert_eq!(Rules::of(rules.json()), rules);
        }
        let pruned = json!({"policy": "prune", "score": "random", "tau": "keep", "optimizer": "carry"});
        assert_eq!(Rules::of(pruned), Rules::Pruning(PruneRules::by(PruneScore::Random)));
        let copied = json!({"policy": "copy", "optimizer": "carry", "lr_scale": 1.0, "train": "all"});
        assert!(matches!(Rules::of(copied), Rules::Growth(rules) if rules.policy == GrowthPolicy::Copy));
        for other in [
            json!({}),
            json!(null),
            json!({"init_keys": "zero"}),
            json!({"policy": "copy", "optimizer": "carry", "lr_scale": 1, "train": "all"}),
            json!({"policy": "copy", "optimizer": "carry", "lr_scale": 1.0, "train": "all", "more": 1}),
        ] {
            assert_eq!(
                (Rules::of(other.clone()).json(), Rules::of(other.clone())),
                (other.clone(), Rules::Other(other))
            );
        }
    }
}
