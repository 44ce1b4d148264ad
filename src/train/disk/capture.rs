//! A checkpoint of a run in progress.

use super::meta::{Checkpoint, DataPosition, Meta};
use crate::config::RunConfig;
use crate::data::{Dataset, Fingerprint};
use crate::error::{Error, Result};
use crate::model::init::Tensors;
use crate::train::run::standing::Standing;
use crate::train::trainer::Trainer;

/// Everything that a run which stands at `at` needs to go on: both moments as they were read, the parameters from the device.
///
/// # Errors
/// [`Error::Diverged`] where a parameter is not finite: such a model is never stored. Device errors.
pub(crate) fn checkpoint(
    config: &RunConfig,
    data: &Dataset,
    trainer: &Trainer,
    [moment1, moment2]: [Tensors; 2],
    at: Standing,
) -> Result<Checkpoint> {
    // The configuration of what is left: the model as it is now, and the growths still to come.
    let mut rest = config.clone();
    rest.model = trainer.model.clone();
    // Chosen by what this device has: another choice would add in another order.
    rest.train.loss_chunk_rows = trainer.shape().chunk_rows;
    rest.growth.drain(..rest.growth.len().saturating_sub(at.growths_left));
    let (params, averages) = (trainer.parameters()?, trainer.averages()?);
    for (what, tensors) in [
        ("parameter", &params),
        ("first moment of", &moment1),
        ("second moment of", &moment2),
        ("average of", &averages),
    ] {
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !tensor.data.iter().all(|x| x.is_finite())) {
            return Err(Error::Diverged(format!(
                "{what} \"{name}\" is not finite after step {}, so that step is not saved; earlier checkpoints are intact: \
                 lower train.lr (it is {}) or raise train.warmup_fraction and resume from the last one",
                at.step, config.train.lr
            )));
        }
    }
    let next_batch = at.position.next_batch(trainer.shape().batch);
    let engine = trainer.engine();
    let meta = Meta {
        step: at.step,
        tokens_seen: at.position.tokens,
        seed: config.train.seed,
        config: to_json("the configuration", &rest)?,
        tokenizer: data.tokenizer.as_ref().map(|t| to_json("the tokenizer", t)).transpose()?,
        data: DataPosition {
            description: data.description.clone(),
            next_batch,
            fingerprint: Some(Fingerprint::of(data)?),
        },
        cohorts: trainer.cohorts.clone(),
        lineage: at.lineage,
        imported: at.imported,
        adapter: engine.gpu.describe(),
        kernels: trainer.kernels().names(),
        seconds: at.seconds,
        loss_scale: Some(trainer.loss_scale).filter(|_| trainer.is_mixed()),
        losses: at.losses,
        plateau: at.plateau,
        best_val_loss: at.best_val_loss,
        best_step: at.best_step,
        created_by: concat!("tokenformer ", env!("CARGO_PKG_VERSION")).to_string(),
    };
    Ok(Checkpoint { meta, params, moment1, moment2, averages })
}

fn to_json(what: &str, value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| Error::defect(format!("{what} cannot be stored: {e}")))
}
