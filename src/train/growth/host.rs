//! A model on the host, and what a growth makes of it.

use super::cohorts::{self, Cohort};
use crate::config::{GrowthConfig, ModelConfig, OptimizerRule};
use crate::error::Result;
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
    /// Moving averages of the parameters; empty where there are none.
    pub averages: Tensors,
    /// Which rows were added when.
    pub cohorts: Vec<Cohort>,
}

impl HostModel {
    /// The parameters that the model is measured and used with: their averages, where there are any.
    pub fn used(&self) -> &Tensors {
        if self.averages.is_empty() { &self.params } else { &self.averages }
    }

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
        let grow = |params| grow::parameters(params, &self.model, &model, &rules, seed);
        let params = grow(&self.params);
        // Grown as the parameters are, with the same random rows: where a growth keeps what the model computes, it keeps what
        // the averages compute.
        let averages = if self.averages.is_empty() { Tensors::new() } else { grow(&self.averages) };
        let keep = |moments: &Tensors| match (moments.is_empty(), rules.optimizer) {
            (true, _) => Tensors::new(),
            (false, OptimizerRule::Reset) => grow::moments(&Tensors::new(), &model),
            (false, _) => grow::moments(moments, &model),
        };
        let cohorts = cohorts::grown(&self.cohorts, [&self.model, &model], &rules, step);
        cohorts::check_count(&cohorts)?;
        Ok(Self { params, moment1: keep(&self.moment1), moment2: keep(&self.moment2), averages, cohorts, model })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::HostTensor;
    use crate::config::{GrowthPolicy, RunConfig, TrainRule};
    use crate::model::init;

    #[test]
    fn two_growths_at_one_step_add_different_tokens() {
        let sizes = ModelConfig { vocab_size: 5, num_layers: 1, hidden_size: 8, ..ModelConfig::default() };
        let model = ModelConfig { num_attention_heads: 1, ffn_slot_num: 4, ..sizes };
        let none = Tensors::new;
        let (params, cohorts) = (init::initial(&model, 1), vec![cohorts::first(&model)]);
        let mut host = HostModel { model, params, moment1: none(), moment2: none(), averages: none(), cohorts };
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
