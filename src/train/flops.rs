//! What a step costs in floating-point operations.
//!
//! They are counted from the dispatches of a step (those of a micro-batch as often as there are any, and the update), not
//! estimated by 6ND. Counted are matrix products, attention's included with their causal halves; work by row or by element
//! (norms, activations, additions, AdamW) is not. Every adapter is given the same count.

use super::growth::cohorts::{self, Stage};
use super::trainer::batch_shape;
use crate::config::TrainConfig;
use crate::error::Result;
use crate::kernel::{Dtype, KernelTable, Target};
use crate::model::graphs::{self, BatchShape, MicroBatch};
use crate::model::update;

/// Floating-point operations of one optimizer step.
///
/// # Errors
/// Shapes that cannot be recorded.
pub fn flops_per_step(Stage { model, cohorts: rows }: &Stage, train: &TrainConfig) -> Result<u64> {
    let kernels = KernelTable::defaults(Target::WEBGPU);
    // Half precision has the same products; what is computed twice to save memory counts once.
    let shape = BatchShape { precision: Dtype::F32, recompute: false, ..batch_shape(model, train, &kernels)? };
    let trained = cohorts::trained(model, rows)?;
    let micro = graphs::training(model, &trained, &shape, MicroBatch::Later, &kernels)?.flops();
    let segments = cohorts::segments(model, rows, &trained);
    let update = update::update(model, train, &trained, &segments, shape.precision, None, &kernels)?.flops();
    Ok(micro * shape.grad_accum as u64 + update)
}
