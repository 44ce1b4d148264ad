//! Pruning a model on the host: what becomes of parameters, moments and cohorts, and what its tokens contribute.

use super::cohorts;
use super::host::HostModel;
use crate::config::{GrowthConfig, ModelConfig, Precision, TrainConfig};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::graph::grad_name;
use crate::model::init::Tensors;
use crate::model::prune::{self, Kept, Scores};
use crate::runtime::device::Device;
use crate::train::trainer::{At, Trainer};

impl HostModel {
    /// The model of the shape `model` with the rows of `kept`. Every row keeps its moments, its averages and its cohort; a cohort of
    /// which nothing is left is dropped.
    pub fn pruned(&self, kept: &Kept, model: &ModelConfig) -> Self {
        let keep = |tensors: &Tensors| prune::tensors(tensors, kept);
        let mut cohorts = self.cohorts.clone();
        for cohort in &mut cohorts {
            for (name, rows) in &mut cohort.rows {
                if let Some(stay) = kept.get(name) {
                    *rows = prune::range(stay, *rows);
                }
            }
            cohort.rows.retain(|_, [first, end]| first < end);
        }
        cohorts.retain(|cohort| !cohort.rows.is_empty());
        let [params, moment1, moment2, averages] =
            [&self.params, &self.moment1, &self.moment2, &self.averages].map(keep);
        Self { model: model.clone(), params, moment1, moment2, averages, cohorts }
    }
}

/// What the value of each parameter token contributes to the loss on `batches`, in f32: see [`crate::model::prune`].
///
/// # Errors
/// An input error where a gradient is not finite; device errors.
pub fn contributions(device: &Device, host: &HostModel, train: &TrainConfig, batches: &[Batch]) -> Result<Scores> {
    let train = TrainConfig { precision: Precision::F32, total_batch_tokens: 0, ema_decay: 0.0, ..train.clone() };
    // As it computes without dropout, whose masks would be a part of every score.
    let model = ModelConfig { dropout: 0.0, ..host.model.clone() };
    // Of every token, also of those that do not train.
    let Device { engine, kernels, .. } = device;
    let trainer = Trainer::new(engine, kernels, &model, &train, vec![cohorts::first(&model)], 1)?;
    trainer.load_parameters(host.used())?;
    let mut scores = Scores::new();
    for batch in batches {
        trainer.prepare(batch, At { step: 0, micro_batch: 0 })?;
        engine.run(trainer.micro())?;
        for (projection, module) in prune::projections(&host.model) {
            let values = prune::values(&projection);
            let gradient = engine.read(trainer.memory().named(&grad_name(&values))?)?;
            let sums = scores.entry(projection).or_insert_with(|| vec![0.0; host.model.slots(module)]);
            let of_batch = prune::contribution(host.used().get(&values), &gradient);
            sums.iter_mut().zip(of_batch).for_each(|(sum, score)| *sum += score / batches.len() as f64);
        }
    }
    match scores.iter().find(|(_, scores)| !scores.iter().all(|score| score.is_finite())) {
        None => Ok(scores),
        Some((projection, _)) => Err(Error::input(format!(
            "the gradient of \"{projection}\" is not finite on this data, so its tokens have no scores: prune an earlier \
             checkpoint of the run"
        ))),
    }
}

/// The growths of `all` that `model`, made at `step` by a `change` of its size, can still make, and when the others were due,
/// with the reason.
pub(crate) fn growths_ahead(
    all: &[GrowthConfig],
    model: &ModelConfig,
    step: u64,
    change: &str,
) -> (Vec<GrowthConfig>, Vec<(String, String)>) {
    let (mut model, mut ahead, mut dropped) = (model.clone(), Vec::<GrowthConfig>::new(), Vec::new());
    for growth in all {
        let waits = growth.plateau().is_some();
        let when = if waits { "on a plateau".to_owned() } else { format!("at step {}", growth.at_step) };
        // One after one on a plateau waits for that, whatever its step.
        let after_a_plateau = ahead.iter().any(|growth| growth.plateau().is_some());
        match growth.check(&model) {
            Ok(_) if !waits && !after_a_plateau && growth.at_step as u64 <= step => {
                dropped.push((when, format!("the {change} is at step {step}")));
            }
            Ok(after) => {
                model = after;
                ahead.push(growth.clone());
            }
            Err(reason) => dropped.push((when, reason.to_string())),
        }
    }
    (ahead, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GrowthPolicy, GrowthWhen, PruneTo};
    use crate::model::init;

    fn host() -> HostModel {
        let mut model = ModelConfig {
            vocab_size: 9,
            num_layers: 1,
            hidden_size: 4,
            num_attention_heads: 1,
            rotary_pct: 0.5,
            qkv_slot_num: 5,
            proj_slot_num: 6,
            ffn_slot_num: 7,
            ..ModelConfig::default()
        };
        model.freeze_tau();
        let of = |seed| init::initial(&model, seed);
        let (params, moment1, moment2, averages) = (of(1), of(2), of(3), of(4));
        HostModel { cohorts: vec![cohorts::first(&model)], model, params, moment1, moment2, averages }
    }

    fn grown(growth: GrowthConfig) -> HostModel {
        host().grown(&growth, 8, 0).unwrap()
    }

    #[test]
    fn pruning_by_weight_takes_back_a_preserving_growth_in_every_bit() {
        let before = host();
        let sizes = [Some(9), Some(6), Some(20)];
        let [qkv_slot_num, proj_slot_num, ffn_slot_num] = sizes;
        let after = grown(GrowthConfig { qkv_slot_num, proj_slot_num, ffn_slot_num, ..GrowthConfig::default() });
        let smaller = PruneTo::Slots([Some(5), None, Some(7)]).check(&after.model).unwrap();
        let back = after.pruned(&prune::kept(&prune::weight(&after.model, &after.params), &smaller), &smaller);
        assert_eq!((&back.params, &back.moment1, &back.moment2), (&before.params, &before.moment1, &before.moment2));
        assert_eq!(back.averages, before.averages);
        assert_eq!((back.model, back.cohorts), (before.model, before.cohorts));
    }

    #[test]
    fn rows_keep_their_moments_and_their_cohort() {
        let after = grown(GrowthConfig { ffn_slot_num: Some(12), lr_scale: Some(0.5), ..GrowthConfig::default() });
        let scores = [0., 1., 9., 0., 8., 0., 0., 7., 0., 0., 6., 0.];
        let smaller = ModelConfig { ffn_slot_num: 4, ..after.model.clone() };
        let mut all = prune::random(&after.model, 0);
        all.insert("layers.0.mlp".to_owned(), scores.to_vec());
        let pruned = after.pruned(&prune::kept(&all, &smaller), &smaller);
        let name = "layers.0.mlp.value_param_tokens";
        for (old, new) in
            [(&after.params, &pruned.params), (&after.moment1, &pruned.moment1), (&after.moment2, &pruned.moment2)]
        {
            let rows = [2, 4, 7, 10].map(|row| &old[name].data[row * 4..row * 4 + 4]).concat();
            assert_eq!((&new[name].data, &new[name].shape), (&rows, &vec![4, 4]));
            assert_eq!(new["word_embeddings.weight"], old["word_embeddings.weight"]);
        }
        assert_eq!([&pruned.cohorts[0].rows[name], &pruned.cohorts[1].rows[name]], [&[0, 2], &[2, 4]]);
        assert_eq!((pruned.cohorts[1].lr_scale, pruned.cohorts[1].born_step), (0.5, 8));
        // Of the first cohort nothing is left in this projection, of a second nothing at all.
        all.insert("layers.0.mlp".to_owned(), (0..12).map(f64::from).collect());
        let newest = after.pruned(&prune::kept(&all, &smaller), &smaller);
        assert!(!newest.cohorts[0].rows.contains_key(name) && newest.cohorts[1].rows[name] == [0, 4]);
        all.insert("layers.0.mlp".to_owned(), (0..12).rev().map(f64::from).collect());
        let oldest = after.pruned(&prune::kept(&all, &smaller), &smaller);
        assert_eq!((oldest.cohorts.len(), oldest.cohorts[0].rows[name]), (1, [0, 4]));
    }

    #[test]
    fn growths_that_a_pruned_model_cannot_make_are_named() {
        let to = |at_step, ffn| GrowthConfig { at_step, ffn_slot_num: Some(ffn), ..GrowthConfig::default() };
        let copy = GrowthConfig { policy: GrowthPolicy::Copy, ..to(30, 28) };
        let waiting = |ffn| GrowthConfig { when: GrowthWhen::Plateau, ..to(0, ffn) };
        let all = [to(10, 14), to(20, 14), copy, to(40, 3), waiting(20), waiting(32)];
        let (ahead, dropped) = growths_ahead(&all, &host().model, 10, "pruning");
        // One that waits for a plateau has no step to have been passed.
        assert_eq!(ahead.iter().map(|growth| growth.at_step).collect::<Vec<_>>(), [20, 30, 0]);
        assert_eq!(dropped[0], ("at step 10".to_owned(), "the pruning is at step 10".to_owned()));
        assert!(dropped[1].0 == "at step 40" && dropped[1].1.contains("3 ffn slots from 28"), "{dropped:?}");
        assert!(dropped[2].0 == "on a plateau" && dropped[2].1.contains("20 ffn slots from 28"), "{dropped:?}");
        // Nor has one that is done after it.
        let (ahead, dropped) = growths_ahead(&[waiting(14), to(9, 20)], &host().model, 10, "pruning");
        assert!(ahead.len() == 2 && dropped.is_empty(), "{dropped:?}");
    }
}
