//! Growing a model that is being trained: what changes on the host, and how much it hurt.

use super::trainer::Trainer;
use crate::checkpoint::{Cohort, GrowthRecord};
use crate::config::{GrowthConfig, ModelConfig, Module, OptimizerRule, TrainRule};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::gpu::engine::Engine;
use crate::model::grow;
use crate::model::init::Tensors;

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
    /// The model after `growth` at `step`. `seed` decides the new values.
    ///
    /// # Errors
    /// Those of [`GrowthConfig::check`].
    pub fn grown(&self, growth: &GrowthConfig, step: u64, seed: u64) -> Result<Self> {
        let model = growth.check(&self.model)?;
        let rules = growth.resolve();
        let params = grow::parameters(&self.params, &model, &rules, seed ^ step.rotate_left(32));
        let keep = |moments: &Tensors| match (moments.is_empty(), rules.optimizer) {
            (true, _) => Tensors::new(),
            (false, OptimizerRule::Reset) => grow::moments(&Tensors::new(), &model),
            (false, _) => grow::moments(moments, &model),
        };
        let mut cohorts = self.cohorts.clone();
        for cohort in &mut cohorts {
            cohort.frozen |= rules.train == TrainRule::New;
            if rules.optimizer == OptimizerRule::Reset {
                cohort.born_step = step;
            }
        }
        let born_step = match rules.optimizer {
            OptimizerRule::CarryStep => cohorts.first().map_or(step, |c| c.born_step),
            OptimizerRule::Carry | OptimizerRule::Reset => step,
        };
        let rows = grow::new_rows(&self.model, &model);
        cohorts.push(Cohort { born_step, lr_scale: rules.lr_scale, frozen: false, rows });
        Ok(Self { params, moment1: keep(&self.moment1), moment2: keep(&self.moment2), cohorts, model })
    }
}

/// Slots of query/key/value, projection and MLP.
pub fn slots(model: &ModelConfig) -> [u64; 3] {
    [Module::Query, Module::Proj, Module::Mlp].map(|m| model.slots(m) as u64)
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
    let loss_after = trainer.evaluate(probe.batches)?;
    let policy = serde_json::to_value(growth.resolve())
        .map_err(|e| Error::usage(format!("the growth policy cannot be recorded: {e}")))?;
    let record = GrowthRecord {
        at_step: step,
        policy,
        slots_before: slots(&before.model),
        slots_after: slots(&after.model),
        params_before: before.model.param_count(),
        params_after: after.model.param_count(),
        max_logit_change,
        loss_before,
        loss_after,
    };
    Ok((trainer, record))
}

/// One line about a growth, for people.
pub fn describe(record: &GrowthRecord) -> String {
    let [qkv, proj, ffn] = record.slots_before;
    let [qkv_after, proj_after, ffn_after] = record.slots_after;
    format!(
        "grown at step {}: slots qkv {qkv} -> {qkv_after}, proj {proj} -> {proj_after}, ffn {ffn} -> {ffn_after}; \
         parameters {} -> {}; max |logit change| {:.1e}; val loss {:.4} -> {:.4}",
        record.at_step,
        record.params_before,
        record.params_after,
        record.max_logit_change,
        record.loss_before,
        record.loss_after
    )
}
