//! Settings that fit a given amount of device memory: a smaller micro-batch, and recomputation where that is not enough.
//!
//! The batch of an update stays what it was. A smaller micro-batch costs no operations, but adds gradients in another
//! order, so with other last bits; recomputation costs about a quarter more operations and no bit.

use super::growth::cohorts::Stage;
use super::plans::{FEWEST_CHUNK_ROWS, RunPlans};
use crate::config::{ModelConfig, RunConfig, TrainConfig};
use crate::error::{Error, Result};
use crate::kernel::KernelTable;
use crate::report::number;

/// What a run may take.
pub enum MemoryLimit<'a> {
    /// So many bytes of device memory.
    Bytes(u64),
    /// What the device gives: whether it gives enough for a stage and settings.
    Device(&'a dyn Fn(&Stage, &TrainConfig) -> Result<bool>),
}

impl MemoryLimit<'_> {
    fn fits(&self, stage: &Stage, train: &TrainConfig, bytes: u64) -> Result<bool> {
        match self {
            Self::Bytes(most) => Ok(bytes <= *most),
            Self::Device(gives) => gives(stage, train),
        }
    }
}

/// The settings of `config.train` with the largest micro-batch whose run fits into `room` in each of its `stages`;
/// without recomputation where one fits.
///
/// # Errors
/// Even the smallest does not fit: what it needs.
pub fn fit(config: &RunConfig, stages: &[Stage], room: &MemoryLimit, kernels: &KernelTable) -> Result<TrainConfig> {
    let micro_batches_of_update = config.train.grad_accum(&config.model)?;
    let total_batch_tokens = micro_batches_of_update * config.train.batch_size * config.model.seq_length;
    let mut least = None;
    for recompute in [config.train.recompute, true] {
        for batch_size in micro_batches(&config.train, &config.model)? {
            for loss_chunk_rows in chunk_rows(&config.train) {
                let train = config.train.clone();
                let train = TrainConfig { batch_size, total_batch_tokens, recompute, loss_chunk_rows, ..train };
                match largest(stages, &train, kernels) {
                    Ok((stage, bytes)) if room.fits(stage, &train, bytes)? => return Ok(train),
                    Ok((_, bytes)) => least = Some(least.map_or(bytes, |known: u64| known.min(bytes))),
                    // A tensor of a large micro-batch may be over a limit of the device.
                    Err(Error::Device(_)) => {}
                    Err(other) => return Err(other),
                }
            }
        }
    }
    Err(match least {
        Some(bytes) => {
            let allowed = match room {
                MemoryLimit::Bytes(most) => format!("--fit allows {}", number::bytes(*most)),
                MemoryLimit::Device(_) => "the device has not that much free".to_owned(),
            };
            let needed = number::bytes(bytes);
            Error::out_of_memory(
                bytes,
                format!(
                    "the run needs at least {needed} of device memory, {allowed}; use a smaller model, seq_length or \
                     loss_chunk_rows, or allow more"
                ),
            )
        }
        None => Error::device(
            "no micro-batch of the run is within the limits of this device; `tokenformer plan` says why".to_owned(),
        ),
    })
}

/// Rows of logits held at once: as configured; where that leaves it open, also the fewest, which cost less than a smaller
/// micro-batch.
fn chunk_rows(train: &TrainConfig) -> Vec<usize> {
    if train.loss_chunk_rows == 0 { vec![0, FEWEST_CHUNK_ROWS] } else { vec![train.loss_chunk_rows] }
}

/// Sequences of a micro-batch: as configured, and fewer that divide the update, largest first.
fn micro_batches(train: &TrainConfig, model: &ModelConfig) -> Result<Vec<usize>> {
    let update = train.batch_size * train.grad_accum(model)?;
    // Whole micro-batches, and as many in each leaf.
    let fits = |size: &usize| update.is_multiple_of(size * train.gradient_leaves);
    Ok((1..=train.batch_size).rev().filter(fits).collect())
}

/// The stage of the run that needs the most memory, and how much.
fn largest<'a>(stages: &'a [Stage], train: &TrainConfig, kernels: &KernelTable) -> Result<(&'a Stage, u64)> {
    let of = |stage: &'a Stage| {
        let plans = RunPlans::new(&stage.model, train, &stage.cohorts, 1, kernels)?;
        Ok((stage, plans.bytes()?.total()))
    };
    let all: Vec<_> = stages.iter().map(of).collect::<Result<_>>()?;
    let most = all.into_iter().max_by_key(|(_, bytes)| *bytes);
    most.ok_or_else(|| Error::defect("a run without a model"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Target;
    use crate::train::cohorts;

    #[test]
    fn the_micro_batch_shrinks_first_and_the_update_stays() {
        let mut config = RunConfig::preset("bench-tiny").unwrap();
        config.model.vocab_size = 256;
        let kernels = KernelTable::defaults(Target::WEBGPU);
        let stages = cohorts::stages(&config, None).unwrap();
        let need = |train: &TrainConfig| largest(&stages, train, &kernels).unwrap().1;
        let fitted = |most| fit(&config, &stages, &MemoryLimit::Bytes(most), &kernels);
        assert_eq!((config.train.batch_size, config.model.seq_length), (8, 128));

        let all = need(&config.train);
        let same = fitted(all).unwrap();
        assert_eq!((same.batch_size, same.grad_accum(&config.model).unwrap(), same.recompute), (8, 1, false));
        let half = fitted(all - 1).unwrap();
        assert_eq!((half.batch_size, half.grad_accum(&config.model).unwrap(), half.recompute), (4, 2, false));
        let one = TrainConfig { batch_size: 1, total_batch_tokens: 1024, ..config.train.clone() };
        let lean = fitted(need(&one) - 1).unwrap();
        assert!(lean.recompute && need(&lean) < need(&one));
        let error = fitted(1 << 20).unwrap_err().to_string();
        assert!(error.contains("--fit allows 1.0 MB"), "{error}");

        // A device that has room for half of it, and one that has none.
        let half = |_: &Stage, train: &TrainConfig| Ok(need(train) < all);
        let fitted = fit(&config, &stages, &MemoryLimit::Device(&half), &kernels).unwrap();
        assert_eq!((fitted.batch_size, fitted.recompute), (4, false));
        let error = fit(&config, &stages, &MemoryLimit::Device(&|_, _| Ok(false)), &kernels).unwrap_err().to_string();
        assert!(error.contains("the device has not that much free"), "{error}");
    }
}
