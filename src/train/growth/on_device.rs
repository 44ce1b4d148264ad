//! Growing a model on the device, and measuring how much it hurt.

use super::host::HostModel;
use super::record::{Change, GrowthRecord, Rules, max_change};
use crate::config::GrowthConfig;
use crate::data::Batch;
use crate::error::Result;
use crate::train::trainer::Trainer;

/// What the measurement of a growth needs: a window for logits and batches for the loss.
pub(crate) struct Comparison<'a> {
    /// Tokens whose logits are compared, [`crate::train::trainer::compared_rows`] of them.
    pub tokens: &'a [u32],
    /// Batches whose loss is compared.
    pub batches: &'a [Batch],
}

/// Grows the model in `trainer` and measures logits and loss before and after.
///
/// # Errors
/// Those of [`GrowthConfig::check`], or a device error. The old model is freed before the new one is
/// allocated, so an error after that point ends the run; the last checkpoint holds.
pub(crate) fn grow_trainer<'e>(
    trainer: Trainer<'e>,
    growth: &GrowthConfig,
    step: u64,
    compared: &Comparison,
    prompt: usize,
) -> Result<(Trainer<'e>, GrowthRecord)> {
    let logits_before = trainer.logits(compared.tokens)?;
    let loss_before = trainer.evaluate(compared.batches)?;
    let [moment1, moment2] = trainer.moments()?;
    let (model, cohorts) = (trainer.model.clone(), trainer.cohorts.clone());
    let (params, averages) = (trainer.parameters()?, trainer.averages()?);
    let before = HostModel { model, params, moment1, moment2, averages, cohorts };
    let after = before.grown(growth, step, trainer.train.seed)?;
    let (engine, train, loss_scale) = (trainer.engine(), trainer.train.clone(), trainer.loss_scale);
    let (kernels, world) = (trainer.kernels().clone(), trainer.world().clone());
    drop(trainer);

    let mut trainer = Trainer::of_rank(&world, engine, &kernels, &after.model, &train, after.cohorts.clone(), prompt)?;
    trainer.loss_scale = loss_scale;
    trainer.load_parameters(&after.params)?;
    trainer.load_averages(after.used())?;
    trainer.load_moments(&after.moment1, &after.moment2)?;
    let max_logit_change = max_change(&logits_before, &trainer.logits(compared.tokens)?);
    let change = Change { max_logit_change, loss_before, loss_after: trainer.evaluate(compared.batches)? };
    let rules = Rules::Growth(growth.resolve());
    let record = GrowthRecord::new(rules, step, [&before.model, &after.model], change);
    Ok((trainer, record))
}
