//! Every plan of a training run: what its steps, its evaluations and its samples compute on the device.

use super::growth::cohorts::{self, Cohort};
use super::parallel::Share;
use super::parallel::leaves::LeafPlans;
use super::parallel::shard::Shards;
use crate::config::{ModelConfig, Precision, TrainConfig};
use crate::error::{Error, Result};
use crate::graph::plan::Plan;
use crate::graph::{Class, Graph, TensorInfo};
use crate::kernel::{Dtype, KernelTable, Target};
use crate::model::graphs::{self, BatchShape, MicroBatch};
use crate::model::update;
use crate::ops::matmul::{MAX_SUM, ProductKind};
use crate::runtime::generate::GeneratorPlans;
use crate::runtime::memory::{Bytes, Ledger};
use std::ops::Range;

/// Most rows of full logits computed to measure a growth.
const PROBE_ROWS: usize = 128;
/// Rows of logits held at once, at least and at most, where nobody says how many.
pub(super) const FEWEST_CHUNK_ROWS: usize = 1024;
const MOST_CHUNK_ROWS: usize = 4096;
/// Rows of a block of most kernels for products.
const BLOCK: usize = 64;

/// Every plan of a training run; known, with every byte, before anything is allocated.
pub struct RunPlans {
    /// One micro-batch, forward and backward. On a GPU the first of a step, whose gradients take the place of those that
    /// are there; elsewhere any of them: its gradients are added to those that are there, which start from zeros.
    pub micro: Plan,
    /// The micro-batches after the first, where they are computed otherwise.
    pub later: Option<Plan>,
    /// The copies of parameters that products read in mixed precision, from the parameters.
    pub copies: Option<Plan>,
    /// Gradient norm and the optimizer's update.
    pub update: Plan,
    /// The moving averages of the parameters, where they are kept: after an update.
    pub averages: Option<Plan>,
    /// One evaluation batch.
    pub evaluation: Plan,
    /// Logits of the first tokens of a validation window.
    pub logits: Plan,
    /// Samples during the run.
    pub generator: GeneratorPlans,
    /// The blocks of the gradient norm, where ranks share the update.
    pub(super) norm: Option<Plan>,
    /// Who updates what there.
    pub(super) shards: Option<Shards>,
    /// And where the parameters lie that each rank updates.
    pub(super) updated: Vec<Vec<(String, Range<usize>)>>,
    /// How the leaves of an update are added up.
    pub(super) leaves: LeafPlans,
    /// Shape of a micro-batch.
    pub shape: BatchShape,
    /// What trains: see [`cohorts::trained`].
    pub trained: Vec<(String, Vec<usize>)>,
    /// What of it has a second moment.
    pub by_adamw: Vec<(String, Vec<usize>)>,
    /// Which kernels they were made for.
    pub kernels: KernelTable,
}

/// The shape of a micro-batch of `model` trained as `train` says on a device that `kernels` are of.
///
/// # Errors
/// Those of [`TrainConfig::grad_accum`].
pub fn batch_shape(model: &ModelConfig, train: &TrainConfig, kernels: &KernelTable) -> Result<BatchShape> {
    let precision = if train.precision == Precision::F16 { Dtype::F16 } else { Dtype::F32 };
    let chosen = || loss_chunk_rows(model.vocab_size, precision, kernels.target());
    Ok(BatchShape {
        batch: train.batch_size,
        seq: model.seq_length,
        grad_accum: train.grad_accum(model)?,
        chunk_rows: if train.loss_chunk_rows == 0 { chosen() } else { train.loss_chunk_rows },
        recompute: train.recompute,
        precision,
    })
}

/// Rows of logits held at once where nobody says how many. Long products are the fast ones: on an H200 those of the head
/// run at 157 to 191 TFLOP/s with 1024 rows and at 167 to 215 with 4096. On GPUs as many as fit half of the largest
/// binding, which is the only thing that a device tells of its memory; 1024 at least, and on software adapters always. Where
/// so many are over the largest binding, as many as every device can bind.
fn loss_chunk_rows(vocab: usize, precision: Dtype, target: &Target) -> usize {
    // Software adapters evaluate as many rows as they train, in f32.
    let row_bytes = vocab.max(1) as u64 * if target.software { Dtype::F32 } else { precision }.bytes();
    let fitting = |bytes: u64| (bytes / row_bytes).min(MOST_CHUNK_ROWS as u64) as usize;
    let half = if target.software { 0 } else { fitting(target.max_tensor() / 2) };
    let chosen = half.max(FEWEST_CHUNK_ROWS);
    if chosen as u64 * row_bytes <= target.max_tensor() {
        return chosen;
    }
    let rows = fitting(Target::WEBGPU.max_binding.min(target.max_tensor()));
    // Whole blocks of the kernels.
    if rows > BLOCK { rows - rows % BLOCK } else { rows.max(1) }
}

impl RunPlans {
    /// Plans for `model` trained as `train` says; `prompt` is the length of the sample prompt in tokens.
    pub fn new(
        model: &ModelConfig,
        train: &TrainConfig,
        cohorts: &[Cohort],
        prompt: usize,
        kernels: &KernelTable,
    ) -> Result<Self> {
        Self::of_share(model, train, cohorts, prompt, kernels, Share::ALL)
    }

    /// As [`Self::new`], for one of several ranks.
    ///
    /// # Errors
    /// As there, and leaves that cannot be shared out evenly.
    pub(super) fn of_share(
        model: &ModelConfig,
        train: &TrainConfig,
        cohorts: &[Cohort],
        prompt: usize,
        kernels: &KernelTable,
        share: Share,
    ) -> Result<Self> {
        Self::with(model, train, cohorts, prompt, kernels, share, Plan::new)
    }

    /// As [`Self::new`] on a device without limits: for the bytes of what cannot run, with samples of one token.
    ///
    /// # Errors
    /// What no device could run.
    pub(crate) fn unchecked(
        model: &ModelConfig,
        train: &TrainConfig,
        cohorts: &[Cohort],
        kernels: &KernelTable,
    ) -> Result<Self> {
        Self::with(model, train, cohorts, 1, kernels, Share::ALL, |graph| Ok(Plan::unchecked(graph)))
    }

    /// As [`Self::new`], with plans that `make` makes.
    fn with(
        model: &ModelConfig,
        train: &TrainConfig,
        cohorts: &[Cohort],
        prompt: usize,
        kernels: &KernelTable,
        share: Share,
        make: impl Fn(&Graph) -> Result<Plan>,
    ) -> Result<Self> {
        let shape = batch_shape(model, train, kernels)?;
        check_rows(&shape, kernels)?;
        check_precision(train, kernels)?;
        let trained = cohorts::trained(model, cohorts)?;
        let segments = cohorts::segments(model, cohorts, &trained);
        let plan = |graph: Result<Graph>| make(&graph?);
        // What measures or uses the model reads the averages where they are kept.
        let is_averaged = train.ema_decay > 0.0;
        let used = |graph: Graph| if is_averaged { graph.of_averages() } else { graph };
        let training = |which| plan(graphs::training(model, &trained, &shape, which, kernels));
        let (overwrites, mixed) = (overwrites(kernels), shape.precision != Dtype::F32);
        let later = overwrites && shape.grad_accum > train.gradient_leaves;
        let leaves = LeafPlans::new(train, &trained, &shape, share, kernels, &make)?;
        let sharded = share.ranks > 1 && train.shard_optimizer;
        let shards = sharded.then(|| Shards::of(&leaves.layout, &leaves.buckets, share.ranks));
        let all = shards.as_ref().map_or(&[][..], |shards| &shards.ranks);
        let own = all.get(share.rank);
        let updated = |shard| update::updated_parameters(model, &trained, &segments, shard, kernels);
        let updated = all.iter().map(updated).collect::<Result<_>>()?;
        Ok(Self {
            micro: training(if overwrites { MicroBatch::First } else { MicroBatch::Later })?,
            later: later.then(|| training(MicroBatch::Later)).transpose()?,
            copies: mixed.then(|| plan(graphs::copies(model, shape.precision, kernels))).transpose()?,
            update: plan(update::update(model, train, &trained, &segments, shape.precision, own, kernels))?,
            norm: shards.as_ref().map(|_| plan(update::norm(&trained, kernels))).transpose()?,
            averages: is_averaged.then(|| plan(update::averages(model, kernels))).transpose()?,
            evaluation: plan(graphs::evaluation(model, &shape, kernels).map(used))?,
            logits: plan(graphs::logits(model, 1, compared_rows(model), false, kernels).map(used))?,
            generator: GeneratorPlans::with(model, prompt, kernels, |graph| make(&used(graph)))?,
            leaves,
            shards,
            updated,
            shape,
            by_adamw: update::updated_by_adamw(model, train, &trained),
            trained,
            kernels: kernels.clone(),
        })
    }

    /// Plans in the order of their fields.
    pub(super) fn all(&self) -> Vec<&Plan> {
        let now_and_then = self.later.iter().chain(&self.copies).chain(&self.averages);
        let always = [&self.update, &self.evaluation, &self.logits].into_iter().chain(&self.generator.plans);
        [&self.micro].into_iter().chain(now_and_then).chain(always).chain(&self.norm).chain(&self.leaves.sums).collect()
    }

    /// Every matrix product of the run: what tuning is about.
    pub fn products(&self) -> Vec<ProductKind> {
        self.all().into_iter().flat_map(|plan| plan.products.iter().copied()).collect()
    }

    /// Device memory of the run by class.
    pub fn bytes(&self) -> Result<Bytes> {
        let mut ledger = Ledger::default();
        for plan in self.all() {
            ledger.admit(plan)?;
        }
        Ok(ledger.bytes())
    }

    /// The first tensor of a class that the device has no binding for.
    pub(crate) fn over(&self, class: Class) -> Option<&TensorInfo> {
        self.all().into_iter().find_map(|plan| plan.over(class, self.kernels.target()))
    }

    /// Parameters that this device cannot bind as a whole, and into how many parts they are cut for it.
    pub(crate) fn in_parts(&self) -> impl Iterator<Item = (&TensorInfo, usize)> {
        self.micro.in_parts()
    }

    /// Dispatches of one optimizer step.
    pub fn dispatches_per_step(&self) -> usize {
        let later = self.later.as_ref().unwrap_or(&self.micro);
        let after = self.averages.iter().map(|plan| plan.calls.len()).sum::<usize>();
        let more = later.calls.len().saturating_mul(self.shape.grad_accum - 1);
        more.saturating_add(self.micro.calls.len() + self.update.calls.len() + after)
    }

    /// Floating-point operations of one optimizer step.
    pub fn flops_per_step(&self) -> u64 {
        self.micro.flops().saturating_mul(self.shape.grad_accum as u64).saturating_add(self.update.flops())
    }
}

/// Whether the first micro-batch of a step overwrites gradients. On software adapters they are cleared and added to, as they
/// always were: 0 + x is x, but for the sign of a zero.
pub(super) fn overwrites(kernels: &KernelTable) -> bool {
    !kernels.target().software
}

/// Sums over the rows of a micro-batch stay within what software drivers do without error.
fn check_rows(shape: &BatchShape, kernels: &KernelTable) -> Result<()> {
    if kernels.target().software && shape.rows() > MAX_SUM {
        return Err(Error::device(format!(
            "a micro-batch of batch_size {} x seq_length {} is {} tokens, software adapters are trusted with {MAX_SUM}; use \
             a smaller batch_size and reach a larger batch through total_batch_tokens",
            shape.batch,
            shape.seq,
            shape.rows()
        )));
    }
    Ok(())
}

fn check_precision(train: &TrainConfig, kernels: &KernelTable) -> Result<()> {
    if train.precision == Precision::F16 && !kernels.target().f16 {
        return Err(Error::device(
            "precision f16 needs 16-bit floats in shaders, which this adapter does not offer; use precision f32, or \
             another adapter: `tokenformer devices` lists what each has",
        ));
    }
    Ok(())
}

/// Tokens of a window whose logits are compared across a growth.
pub(crate) fn compared_rows(model: &ModelConfig) -> usize {
    model.seq_length.min(PROBE_ROWS)
}
