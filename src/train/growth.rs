//! Growing a model that is being trained: what changes on the host, and how much it hurt.

use super::cohorts;
use super::trainer::Trainer;
use crate::checkpoint::{Cohort, GrowthRecord};
use crate::config::{Arch, GrowthConfig, ModelConfig, Module, OptimizerRule, PlateauRule};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::gpu::engine::Engine;
use crate::model::grow;
use crate::model::init::Tensors;
use serde::{Deserialize, Serialize};

/// A model on the host: everything growth touches.
#[derive(Debug, Clone)]
pub struct HostModel {
    /// Its configuration.
    pub model: ModelConfig,
    /// Parameters.
    pub params: Tensors,
    /// First moments; empty where there is no optimizer state.
    pub moment1: Tensors,
    /// Second moments.
    pub moment2: Tensors,
    /// Which rows were added when.
    pub cohorts: Vec<Cohort>,
}

impl HostModel {
    /// The model after `growth` at `step`. `seed` decides what is random in it.
    ///
    /// # Errors
    /// Those of [`GrowthConfig::check`] and [`cohorts::check_count`].
    pub fn grown(&self, growth: &GrowthConfig, step: u64, seed: u64) -> Result<Self> {
        let model = growth.check(&self.model)?;
        let rules = growth.resolve();
        // A second growth at one step draws other numbers than the first: equal tokens would stay equal for ever.
        let earlier = self.cohorts.len().saturating_sub(1) as u64;
        let seed = seed ^ step.rotate_left(32) ^ earlier.rotate_left(56);
        let params = grow::parameters(&self.params, &self.model, &model, &rules, seed);
        let keep = |moments: &Tensors| match (moments.is_empty(), rules.optimizer) {
            (true, _) => Tensors::new(),
            (false, OptimizerRule::Reset) => grow::moments(&Tensors::new(), &model),
            (false, _) => grow::moments(moments, &model),
        };
        let cohorts = cohorts::grown(&self.cohorts, [&self.model, &model], &rules, step);
        cohorts::check_count(&cohorts)?;
        Ok(Self { params, moment1: keep(&self.moment1), moment2: keep(&self.moment2), cohorts, model })
    }
}

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

/// The record of a growth or pruning by `rules` at `step` that made the model `after` of `before`, without the file of the
/// model before.
///
/// # Errors
/// Rules that JSON cannot hold: a defect.
pub fn record(
    rules: &impl Serialize,
    step: u64,
    [before, after]: [&ModelConfig; 2],
    change: Change,
) -> Result<GrowthRecord> {
    let policy =
        serde_json::to_value(rules).map_err(|e| Error::defect(format!("the policy cannot be recorded: {e}")))?;
    let slots = |model: &ModelConfig| match model.arch {
        Arch::Tokenformer => [Module::Query, Module::Proj, Module::Mlp].map(|m| model.slots(m) as u64),
        Arch::Transformer => [0; 3],
    };
    let units = |model: &ModelConfig| match model.arch {
        Arch::Tokenformer => 0,
        Arch::Transformer => model.mlp_width() as u64,
    };
    let Change { max_logit_change, loss_before, loss_after } = change;
    Ok(GrowthRecord {
        at_step: step,
        policy,
        slots_before: slots(before),
        slots_after: slots(after),
        layers_before: before.num_layers as u64,
        layers_after: after.num_layers as u64,
        intermediate_size_before: units(before),
        intermediate_size_after: units(after),
        params_before: before.param_count(),
        params_after: after.param_count(),
        max_logit_change,
        loss_before,
        loss_after,
        before: None,
    })
}

/// Largest absolute difference of two sets of logits.
pub fn max_change(before: &[f32], after: &[f32]) -> f64 {
    before.iter().zip(after).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

/// What the measurement of a growth needs: a window for logits and batches for the loss.
pub struct Probe<'a> {
    /// Tokens whose logits are compared, [`super::trainer::probe_rows`] of them.
    pub tokens: &'a [u32],
    /// Batches whose loss is compared.
    pub batches: &'a [Batch],
}

/// Grows the model in `trainer` and measures logits and loss before and after.
///
/// # Errors
/// Those of [`GrowthConfig::check`], or a device error. The old model is freed before the new one is
/// allocated, so an error after that point ends the run; the last checkpoint holds.
pub fn grow_in_run<'e>(
    engine: &'e Engine,
    trainer: Trainer<'e>,
    growth: &GrowthConfig,
    step: u64,
    probe: &Probe,
    prompt: usize,
) -> Result<(Trainer<'e>, GrowthRecord)> {
    let logits_before = trainer.probe(probe.tokens)?;
    let loss_before = trainer.evaluate(probe.batches)?;
    let (moment1, moment2) = trainer.moments()?;
    let (model, cohorts) = (trainer.model.clone(), trainer.cohorts.clone());
    let before = HostModel { model, params: trainer.parameters()?, moment1, moment2, cohorts };
    let after = before.grown(growth, step, trainer.train.seed)?;
    let (train, loss_scale) = (trainer.train.clone(), trainer.loss_scale);
    drop(trainer);

    let mut trainer = Trainer::new(engine, &after.model, &train, after.cohorts, prompt)?;
    trainer.loss_scale = loss_scale;
    trainer.load_parameters(&after.params)?;
    trainer.load_moments(&after.moment1, &after.moment2)?;
    let max_logit_change = max_change(&logits_before, &trainer.probe(probe.tokens)?);
    let change = Change { max_logit_change, loss_before, loss_after: trainer.evaluate(probe.batches)? };
    let record = record(&growth.resolve(), step, [&before.model, &after.model], change)?;
    Ok((trainer, record))
}

/// One line about a growth or pruning, for people: when and why, what there is more of or less, and what changed.
pub fn describe(record: &GrowthRecord) -> String {
    let what = if record.params_after < record.params_before { "pruned" } else { "grown" };
    let mut changed = Vec::new();
    if record.slots_before != record.slots_after {
        let [qkv, proj, ffn] = record.slots_before;
        let [qkv_after, proj_after, ffn_after] = record.slots_after;
        changed.push(format!("slots qkv {qkv} -> {qkv_after}, proj {proj} -> {proj_after}, ffn {ffn} -> {ffn_after}"));
    }
    for (what, before, after) in [
        ("layers", record.layers_before, record.layers_after),
        ("intermediate_size", record.intermediate_size_before, record.intermediate_size_after),
    ] {
        if before != after {
            changed.push(format!("{what} {before} -> {after}"));
        }
    }
    let plateau = record.policy.get("plateau").and_then(|rule| PlateauRule::deserialize(rule).ok());
    let why = plateau.map_or_else(String::new, |PlateauRule { patience, min_delta }| {
        format!(" on a plateau of {patience} evaluations (min_delta {min_delta})")
    });
    format!(
        "{what} at step {}{why}: {}; parameters {} -> {}; max |logit change| {:.1e}; val loss {:.4} -> {:.4}",
        record.at_step,
        changed.join(", "),
        record.params_before,
        record.params_after,
        record.max_logit_change,
        record.loss_before,
        record.loss_after
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::HostTensor;
    use crate::config::{GrowthPolicy, GrowthWhen, RunConfig, TrainRule};
    use crate::model::init;

    #[test]
    fn what_grew_is_said_and_nothing_else() {
        let change = Change { max_logit_change: 0.0, loss_before: 2.0, loss_after: 2.0 };
        let line = |before: &ModelConfig, growth: GrowthConfig| {
            describe(&record(&growth.resolve(), 7, [before, &growth.check(before).unwrap()], change).unwrap())
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
    fn two_growths_at_one_step_add_different_tokens() {
        let sizes = ModelConfig { vocab_size: 5, num_layers: 1, hidden_size: 8, ..ModelConfig::default() };
        let model = ModelConfig { num_attention_heads: 1, ffn_slot_num: 4, ..sizes };
        let none = Tensors::new;
        let (params, cohorts) = (init::initial(&model, 1), vec![cohorts::first(&model)]);
        let mut host = HostModel { model, params, moment1: none(), moment2: none(), cohorts };
        for slots in [6, 8] {
            let growth =
                GrowthConfig { ffn_slot_num: Some(slots), policy: GrowthPolicy::Official, ..GrowthConfig::default() };
            host = host.grown(&growth, 7, 1).unwrap();
        }
        let grown = |(name, t): &(&String, &HostTensor)| name.ends_with("value_param_tokens") && t.shape[0] == 8;
        let values = host.params.iter().find(grown).unwrap().1;
        let rows: Vec<&[f32]> = values.data.chunks(8).collect();
        assert_eq!(rows.len(), 8, "{:?}", host.params.keys());
        assert!(rows[4] != rows[6] && rows[5] != rows[7]);
    }

    #[test]
    fn a_model_grows_as_often_as_its_cohorts_can_be_told_apart() {
        let model = ModelConfig { vocab_size: 5, ..ModelConfig::default() };
        let growth = |n: usize| GrowthConfig { at_step: n, ffn_slot_num: Some(512 + n), ..GrowthConfig::default() };
        let config =
            |n| RunConfig { model: model.clone(), growth: (1..=n).map(growth).collect(), ..RunConfig::default() };
        assert_eq!(cohorts::stages(&config(31), None).unwrap().len(), 32);
        let error = cohorts::stages(&config(32), None).unwrap_err().to_string();
        assert_eq!(error, "a model can grow 31 times in all, and with this it would be 32: add more at a time");
    }

    #[test]
    fn a_growth_that_trains_all_thaws_what_was_frozen() {
        let model = ModelConfig { vocab_size: 5, ..ModelConfig::default() };
        let rules = |train| GrowthConfig { train: Some(train), ..GrowthConfig::default() }.resolve();
        let after = |cohorts: &[Cohort], train, step| cohorts::grown(cohorts, [&model, &model], &rules(train), step);
        let said = |cohorts: &[Cohort]| cohorts.iter().map(|c| (c.frozen, c.born_step)).collect::<Vec<_>>();
        let one = after(&[cohorts::first(&model)], TrainRule::New, 10);
        assert_eq!(said(&one), [(true, 0), (false, 10)]);
        assert_eq!(said(&after(&one, TrainRule::New, 20)), [(true, 0), (true, 10), (false, 20)]);
        // Frozen rows kept no moments, so their bias correction begins again; that of the others goes on.
        assert_eq!(said(&after(&one, TrainRule::All, 20)), [(false, 20), (false, 10), (false, 20)]);
    }
}
