//! What the steps of a run cost in floating-point operations, from its settings and the records of its growths.

use super::history::Grown;
use crate::config::{Arch, ModelConfig, ResolvedGrowth, RunConfig};
use crate::train::cohorts::{self, Stage};
use crate::train::flops::flops_per_step;
use crate::train::growth::{Rules, Shape};

/// FLOPs of a step from each of these steps on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Costs(Vec<(u64, u64)>);

impl Costs {
    /// Of a run that began after step `first`; `None` where the models cannot be made out.
    pub(crate) fn of(config: &RunConfig, first: u64, growths: &[Grown]) -> Option<Self> {
        config.model.validate().and_then(|()| config.train.validate(&config.model)).ok()?;
        let shapes = growths.first().map(|grown| grown.record.before).into_iter();
        let shapes: Vec<Shape> = shapes.chain(growths.iter().map(|grown| grown.record.after)).collect();
        let models: Vec<ModelConfig> = match shapes.is_empty() {
            true => vec![config.model.clone()],
            false => shapes.iter().map(|shape| model(&config.model, *shape)).collect::<Option<_>>()?,
        };
        let rules: Vec<ResolvedGrowth> =
            growths.iter().map(|grown| rules(&grown.record.rules)).collect::<Option<_>>()?;
        let stages: Vec<Stage> = cohorts::staged(models, rules, None);
        stages.last().map_or(Ok(()), |last| cohorts::check_count(&last.cohorts)).ok()?;
        let since = std::iter::once(first).chain(growths.iter().map(|grown| grown.record.at_step));
        let costs = stages.iter().map(|stage| flops_per_step(stage, &config.train).ok());
        since.zip(costs).map(|(step, flops)| Some((step, flops?))).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Of all steps until `step`.
    pub(crate) fn at(&self, step: u64) -> f64 {
        let ends = self.0.iter().skip(1).map(|(step, _)| *step).chain([u64::MAX]);
        let of_stage =
            |(&(since, flops), end): (&(u64, u64), u64)| step.min(end).saturating_sub(since) as f64 * flops as f64;
        self.0.iter().zip(ends).map(of_stage).sum()
    }
}

fn rules(rules: &Rules) -> Option<ResolvedGrowth> {
    if let Rules::Growth(rules) = rules { Some(*rules) } else { None }
}

/// The model of a run that has this shape; `None` where the settings are of another one.
fn model(of: &ModelConfig, shape: Shape) -> Option<ModelConfig> {
    let size = |size: u64| usize::try_from(size).ok();
    let mut model = of.clone();
    if shape.layers > 0 {
        model.num_layers = size(shape.layers)?;
    }
    match of.arch {
        Arch::Tokenformer => {
            let [qkv, proj, ffn] = shape.slots.map(size);
            (model.qkv_slot_num, model.proj_slot_num, model.ffn_slot_num) = (qkv?, proj?, ffn?);
        }
        Arch::Transformer => model.intermediate_size = size(shape.intermediate_size)?,
    }
    model.validate().ok()?;
    (model.param_count() == shape.params).then_some(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GrowthConfig;
    use crate::train::growth::{Change, GrowthRecord};
    use crate::train::report::series::At;

    #[test]
    fn every_step_costs_what_its_model_does() {
        let growth = GrowthConfig { at_step: 5, ffn_slot_num: Some(768), ..GrowthConfig::default() };
        let mut config = RunConfig { growth: vec![growth.clone()], ..RunConfig::default() };
        config.model.vocab_size = 65;
        let stages = cohorts::stages(&config, None).unwrap();
        let [before, after] =
            [&stages[0], &stages[1]].map(|stage| flops_per_step(stage, &config.train).unwrap() as f64);
        let change = Change { max_logit_change: 0.0, loss_before: 1.0, loss_after: 1.0 };
        let models = [&stages[0].model, &stages[1].model];
        let record = GrowthRecord::new(Rules::Growth(growth.resolve()), 5, models, change);
        let grown = Grown { at: At::default(), record };
        let costs = Costs::of(&config, 2, std::slice::from_ref(&grown)).unwrap();
        assert_eq!([2, 5, 7].map(|step| costs.at(step)), [0.0, 3.0 * before, 3.0 * before + 2.0 * after]);
        // The settings that a run goes on with later are of the grown model.
        config.model = stages[1].model.clone();
        assert_eq!(Costs::of(&config, 2, std::slice::from_ref(&grown)), Some(costs));
        config.model.hidden_size *= 2;
        assert_eq!(Costs::of(&config, 2, &[grown]), None);
        assert!(Costs::of(&config, 0, &[]).unwrap().at(1) > 0.0);
    }
}
