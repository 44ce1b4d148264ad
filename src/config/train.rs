//! How a model is trained: optimiser, schedule, intervals.
//!
//! The rate a step runs at is computed by `train::schedule`.

use serde::{Deserialize, Serialize};

use super::{MAX_SIZE, ModelConfig, MuonAdjust, Optimizer, fraction, in_range, not_negative, positive, require};
use crate::error::{Error, Result};

/// The most tokens of one micro-batch: keeps (tokens, vocabulary) products far inside 64 bits.
const MAX_MICRO_BATCH_TOKENS: usize = 1 << 28;

/// The most tokens of one update, and of one evaluation: all are held in memory at once, at 8 bytes each.
const MAX_TOKENS_AT_ONCE: usize = 1 << 30;

/// How the learning rate goes from `lr` to `min_lr` after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// Half a cosine that reaches `min_lr` at `max_steps`, as the official schedule.
    Cosine,
    /// `lr` throughout.
    Constant,
    /// Warm-up, stable, decay: `lr` until the last `decay_fraction`, then a straight line to `min_lr`.
    Wsd,
}

/// What a run does about steps whose loss or gradients are not finite, none of which changes a parameter, and about spikes
/// of the loss, see `spike_zscore`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadSteps {
    /// Goes on; after three in a row or a spike from the last checkpoint, with the data that follow.
    Rollback,
    /// Goes on, however many there are; a spike is named.
    Skip,
    /// Ends at the first one.
    Stop,
}

/// Type of activations, and of the copies of weights that products read. Parameters, moments, gradients of
/// parameters, sums and statistics are f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision throughout.
    #[value(alias = "float32", alias = "fp32")]
    #[serde(alias = "float32", alias = "fp32")]
    F32,
    /// Mixed precision with dynamic loss scaling; for adapters with 16-bit floats in shaders.
    #[value(alias = "float16", alias = "fp16")]
    #[serde(alias = "float16", alias = "fp16")]
    F16,
}

/// Optimisation and the rhythm of a run. Intervals are in steps (parameter updates).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainConfig {
    /// Sequences of one micro-batch, B.
    pub batch_size: usize,
    /// Tokens of one update, a multiple of `batch_size * seq_length`; 0 is exactly that product.
    pub total_batch_tokens: usize,
    /// Groups of micro-batches of one update whose gradients are added up by themselves, and then by a binary tree. Ranks share
    /// them, so the number of ranks must divide it, and any such number gives the same bits. 1 adds up one micro-batch after
    /// the other. Each doubling takes memory for the gradients once more.
    pub gradient_leaves: usize,
    /// Each rank keeps the optimizer's moments of its share of the parameters only (ZeRO stage 1): less memory, the same bits.
    pub shard_optimizer: bool,
    /// Ranks on adapters that compute other bits may train together; also `--mixed`. Needs `shard_optimizer`: each parameter is
    /// updated by one rank, so all have the same model.
    pub mixed_adapters: bool,
    /// Type in which ranks send each other gradients: `f16` halves what travels and changes bits.
    pub transfer_precision: Precision,
    /// Updates of the whole run; also `--steps`, `--tokens`, `--epochs`.
    pub max_steps: usize,
    /// Seconds that the run may train, from its first step to its last one, with the evaluations, samples and checkpoints
    /// between; 0 is no limit; also `--max-time`. It ends then or after `max_steps`, whichever comes first, and the learning
    /// rate follows whichever is nearer its end. How many steps that is depends on the machine.
    pub max_seconds: f64,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end.
    pub min_lr: f64,
    /// Shape of the learning rate over the run.
    pub lr_schedule: LrSchedule,
    /// Share of `max_steps` spent rising from 0 to `lr`.
    pub warmup_fraction: f64,
    /// Share of `max_steps` that the `wsd` schedule spends falling to `min_lr`.
    pub decay_fraction: f64,
    /// What updates the parameters.
    pub optimizer: Optimizer,
    /// AdamW: decay of the first moment.
    pub beta1: f64,
    /// AdamW: decay of the second moment.
    pub beta2: f64,
    /// AdamW: added to the root of the second moment.
    pub adam_eps: f64,
    /// Decoupled weight decay of everything but norms and biases, per unit of learning rate.
    pub weight_decay: f64,
    /// Muon: decay of its momentum, which looks ahead (Nesterov).
    pub muon_momentum: f64,
    /// Muon: peak learning rate of the matrices that it updates, which follows the schedule of `lr`; 0 is `lr` itself.
    pub muon_lr: f64,
    /// Muon: what an update is multiplied by besides, by the shape of the matrix.
    pub muon_adjust: MuonAdjust,
    /// Largest global gradient norm; 0 turns clipping off.
    pub grad_clip: f64,
    /// Decay of an exponential moving average of the parameters, such as 0.999, which evaluations, samples and the choice of the
    /// best checkpoint then go by, and which `eval`, `generate` and `export` take; 0 is off. Update t decays by
    /// `min(ema_decay, (1 + t) / (10 + t))`. It takes the memory of the parameters once more.
    pub ema_decay: f64,
    /// Seed of everything random in the run.
    pub seed: u64,
    /// Steps between evaluations; 0 evaluates at the end only.
    pub eval_interval: usize,
    /// Sequences of one evaluation, as a multiple of those of an update: the same whatever `batch_size` is.
    pub eval_batches: usize,
    /// Sequences of one evaluation; 0 is as `eval_batches` says.
    pub eval_rows: usize,
    /// Steps between printed samples; 0 samples at the end only.
    pub sample_interval: usize,
    /// Tokens of a sample; 0 prints none.
    pub sample_tokens: usize,
    /// Text a sample continues; empty is a line break, or the first token where the text has none.
    pub sample_prompt: String,
    /// Temperature of samples; 0 always takes the likeliest token.
    pub sample_temperature: f64,
    /// Steps between checkpoints; 0 saves at the end only.
    pub checkpoint_interval: usize,
    /// Checkpoints kept: the newest ones. Older ones are removed once a newer one is safe; those from before growths stay.
    pub keep_last: usize,
    /// Checkpoints of steps that are multiples of this are never removed; 0 is off.
    pub keep_every: usize,
    /// Keep the checkpoint with the lowest validation loss besides: one more file, written at every evaluation that finds a
    /// lower loss.
    pub keep_best: bool,
    /// Evaluations in a row without a lower validation loss that end the run early; 0 is off. They count once no growth is to come.
    pub patience: usize,
    /// Most rows of logits held at once: memory is `loss_chunk_rows * vocab_size` values. 0 chooses: 1024, and on GPUs up
    /// to 4096 where the logits fit half of the largest binding. Where 1024 rows are over the largest binding, as many
    /// as fit 128 MiB: 640 of 50,257 tokens. Checkpoints hold what was chosen.
    pub loss_chunk_rows: usize,
    /// Type of activations and of the weights that products read; also `--precision`.
    pub precision: Precision,
    /// Keep only the input of each layer and compute its activations again in the backward: less memory for about
    /// a quarter more operations, the same bits; also `--recompute`.
    pub recompute: bool,
    /// What to do about steps whose loss or gradients are not finite. Such a step changes no parameter.
    pub on_bad_steps: BadSteps,
    /// A step whose loss lies more than so many standard deviations above the mean of about the last 100 is bad as well: the
    /// run goes back at once, names it, or ends, as `on_bad_steps` says. 0 is off, 8 is cautious.
    pub spike_zscore: f64,
    /// Steps between those whose gradients are computed twice and compared bit by bit; 0 is off; also `--verify-every`.
    pub verify_every: usize,
    /// Steps between lines of the log.
    pub log_interval: usize,
    /// Write what metrics.jsonl says for TensorBoard as well, into `tensorboard/` of the run; also `--tensorboard`.
    pub tensorboard: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch_size: 12,
            total_batch_tokens: 0,
            gradient_leaves: 1,
            shard_optimizer: false,
            mixed_adapters: false,
            transfer_precision: Precision::F32,
            max_steps: 2000,
            max_seconds: 0.0,
            lr: 1e-3,
            min_lr: 1e-4,
            lr_schedule: LrSchedule::Cosine,
            warmup_fraction: 0.05,
            decay_fraction: 0.2,
            optimizer: Optimizer::Adamw,
            beta1: 0.9,
            beta2: 0.95,
            adam_eps: 1e-8,
            weight_decay: 0.1,
            muon_momentum: 0.95,
            muon_lr: 0.0,
            muon_adjust: MuonAdjust::MatchRmsAdamw,
            grad_clip: 1.0,
            ema_decay: 0.0,
            seed: 1337,
            eval_interval: 250,
            eval_batches: 20,
            eval_rows: 0,
            sample_interval: 500,
            sample_tokens: 200,
            sample_prompt: String::new(),
            sample_temperature: 0.8,
            checkpoint_interval: 500,
            keep_last: 2,
            keep_every: 0,
            keep_best: true,
            patience: 0,
            loss_chunk_rows: 0,
            precision: Precision::F32,
            recompute: false,
            on_bad_steps: BadSteps::Rollback,
            spike_zscore: 0.0,
            verify_every: 0,
            log_interval: 10,
            tensorboard: false,
        }
    }
}

impl TrainConfig {
    /// `max_steps` of a run that only its time limits.
    pub const NO_LIMIT: usize = u32::MAX as usize;

    /// The most seconds of training, where there is a limit.
    pub fn seconds(&self) -> Option<f64> {
        (self.max_seconds > 0.0).then_some(self.max_seconds)
    }

    /// How long a run is, in words: "2000 steps", "300 s", or "2000 steps or 300 s".
    pub fn length(&self) -> String {
        let steps = (self.max_steps != Self::NO_LIMIT).then(|| format!("{} steps", self.max_steps));
        let seconds = self.seconds().map(|seconds| format!("{seconds} s"));
        let limits: Vec<_> = steps.into_iter().chain(seconds).collect();
        if limits.is_empty() { format!("{} steps", self.max_steps) } else { limits.join(" or ") }
    }

    /// Micro-batches of one update.
    ///
    /// # Errors
    /// A usage error when `total_batch_tokens` is not a multiple of `batch_size * seq_length`, or when either is
    /// too large, or that product zero.
    pub fn grad_accum(&self, model: &ModelConfig) -> Result<usize> {
        let (batch, length) = (self.batch_size, model.seq_length);
        let micro = batch.checked_mul(length).filter(|&tokens| (1..=MAX_MICRO_BATCH_TOKENS).contains(&tokens));
        let Some(micro) = micro else {
            return Err(Error::usage(format!(
                "a micro-batch of batch_size {batch} x seq_length {length} tokens is not between 1 and \
                 {MAX_MICRO_BATCH_TOKENS}: change batch_size and reach a larger batch through total_batch_tokens"
            )));
        };
        let total = self.total_batch_tokens;
        in_range("total_batch_tokens", total, 0, MAX_TOKENS_AT_ONCE)?;
        require(total.is_multiple_of(micro), || {
            let below = total / micro * micro;
            let nearest = if below == 0 { micro } else { below };
            format!(
                "total_batch_tokens {total} is not a multiple of batch_size {batch} x seq_length {length} = {micro}: \
                 use {nearest}, or 0 for one micro-batch"
            )
        })?;
        Ok((total / micro).max(1))
    }

    /// Sequences of one evaluation.
    ///
    /// # Errors
    /// As [`Self::grad_accum`].
    pub fn validation_rows(&self, model: &ModelConfig) -> Result<usize> {
        let update = self.batch_size.saturating_mul(self.grad_accum(model)?);
        Ok(if self.eval_rows > 0 { self.eval_rows } else { self.eval_batches.max(1).saturating_mul(update) })
    }

    /// Keeps the validation of a run that was begun when `eval_batches` counted micro-batches.
    pub(crate) fn count_micro_batches(&mut self, model: &ModelConfig) {
        if self.eval_rows == 0 && self.grad_accum(model).is_ok_and(|micro_batches| micro_batches > 1) {
            self.eval_rows = self.eval_batches.max(1).saturating_mul(self.batch_size);
        }
    }

    /// Checks the settings against each other and the model's sequence length.
    ///
    /// # Errors
    /// A usage error naming the setting, its value, the limit and the remedy.
    pub fn validate(&self, model: &ModelConfig) -> Result<()> {
        let update = self.batch_size * self.grad_accum(model)?;
        let micro_batches = update / self.batch_size.max(1);
        in_range("gradient_leaves", self.gradient_leaves, 1, micro_batches)?;
        require(micro_batches.is_multiple_of(self.gradient_leaves), || {
            format!(
                "gradient_leaves {} does not divide the {micro_batches} micro-batches of an update: change it, batch_size or \
                 total_batch_tokens",
                self.gradient_leaves
            )
        })?;
        require(self.shard_optimizer || !self.mixed_adapters, || {
            "mixed_adapters needs shard_optimizer, so that each parameter is updated on one adapter: set \
             shard_optimizer = true as well"
                .to_owned()
        })?;
        in_range("max_steps", self.max_steps, 1, Self::NO_LIMIT)?;
        not_negative("max_seconds", self.max_seconds)?;
        let most_rows = MAX_TOKENS_AT_ONCE / model.seq_length;
        let most_batches = if self.eval_rows > 0 { usize::MAX } else { (most_rows / update).max(1) };
        in_range("eval_batches", self.eval_batches, 1, most_batches)?;
        in_range("eval_rows", self.eval_rows, 0, most_rows)?;
        in_range("sample_tokens", self.sample_tokens, 0, MAX_SIZE)?;
        in_range("keep_last", self.keep_last, 1, usize::MAX)?;
        in_range("loss_chunk_rows", self.loss_chunk_rows, 0, MAX_SIZE)?;
        in_range("log_interval", self.log_interval, 1, usize::MAX)?;
        require(self.patience == 0 || self.eval_interval > 0, || {
            format!(
                "patience is {}, but eval_interval is 0, which evaluates at the end only: set eval_interval",
                self.patience
            )
        })?;
        not_negative("weight_decay", self.weight_decay)?;
        not_negative("grad_clip", self.grad_clip)?;
        not_negative("sample_temperature", self.sample_temperature)?;
        not_negative("spike_zscore", self.spike_zscore)?;
        positive("adam_eps", self.adam_eps)?;
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            // In 32 bits, where the device divides by 1 - beta.
            require((0.0..1.0).contains(&beta) && (beta as f32) < 1.0, || {
                format!("{name} is {beta}, but must be at least 0 and below 1: the usual values are 0.9 and 0.95")
            })?;
        }
        self.validate_optimizer()?;
        // TOML, the format runs are written in, has signed integers only.
        require(i64::try_from(self.seed).is_ok(), || {
            format!("seed is {}, but a seed in a file is at most {}: choose a smaller one", self.seed, i64::MAX)
        })?;
        self.validate_schedule()
    }

    fn validate_schedule(&self) -> Result<()> {
        positive("lr", self.lr)?;
        not_negative("min_lr", self.min_lr)?;
        require(self.min_lr <= self.lr, || {
            format!("min_lr {} is above lr {}: lower min_lr, usually to a tenth of lr", self.min_lr, self.lr)
        })?;
        fraction("warmup_fraction", self.warmup_fraction)?;
        fraction("decay_fraction", self.decay_fraction)?;
        let overlap = self.lr_schedule == LrSchedule::Wsd && self.warmup_fraction + self.decay_fraction > 1.0;
        require(!overlap, || {
            format!(
                "warmup_fraction {} and decay_fraction {} add up to more than the whole run: lower one of them",
                self.warmup_fraction, self.decay_fraction
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut TrainConfig)) -> String {
        let mut train = TrainConfig::default();
        change(&mut train);
        train.validate(&ModelConfig::default()).unwrap_err().to_string()
    }

    #[test]
    fn a_validation_has_as_many_rows_in_micro_batches_of_any_size() {
        let model = ModelConfig::default();
        let of = |batch_size, total_batch_tokens| TrainConfig {
            batch_size,
            total_batch_tokens,
            eval_batches: 3,
            ..TrainConfig::default()
        };
        let rows = |train: &TrainConfig| train.validation_rows(&model).unwrap();
        assert_eq!([of(12, 0), of(12, 768), of(4, 768), of(1, 768)].map(|train| rows(&train)), [36; 4]);
        let mut earlier = of(4, 768);
        earlier.count_micro_batches(&model);
        assert_eq!((rows(&earlier), earlier.validate(&model)), (12, Ok(())));
        let mut alone = of(12, 0);
        alone.count_micro_batches(&model);
        assert_eq!(alone, of(12, 0));
    }

    #[test]
    fn accumulation_is_whole_micro_batches() {
        let model = ModelConfig::default();
        let of = |total_batch_tokens| TrainConfig { total_batch_tokens, ..TrainConfig::default() }.grad_accum(&model);
        assert_eq!((of(0), of(768), of(3 * 768)), (Ok(1), Ok(1), Ok(3)));
        assert!(of(1000).unwrap_err().to_string().contains("12 x seq_length 64 = 768: use 768"));
        assert!(of(100).unwrap_err().to_string().contains("use 768"));
    }

    #[test]
    fn a_micro_batch_cannot_overflow_or_vanish() {
        assert!(refusal(|t| t.batch_size = usize::MAX).contains("not between 1 and"));
        assert!(refusal(|t| t.batch_size = 0).contains("batch_size 0 x seq_length 64"));
        assert!(refusal(|t| t.total_batch_tokens = 768 << 40).contains("total_batch_tokens is 844424930131968"));
        assert!(
            refusal(|t| t.eval_batches = 10_000_000).contains("eval_batches is 10000000, but must be between 1 and")
        );
    }

    #[test]
    fn rates_and_fractions_make_sense() {
        assert!(refusal(|t| t.lr = 0.0).contains("lr is 0"));
        assert!(refusal(|t| t.lr = 1e39).contains("lr is 1e39, but must be between 1.1754944e-38 and 3.4028235e38"));
        assert!(refusal(|t| t.min_lr = 0.5).contains("min_lr 0.5 is above lr 0.001"));
        assert!(refusal(|t| t.beta2 = 1.0).contains("beta2 is 1"));
        assert!(refusal(|t| t.beta1 = 1.0 - 1e-9).contains("beta1 is 0.999999999"));
        assert!(refusal(|t| t.adam_eps = 1e-60).contains("adam_eps is 1e-60, but must be between 1.1754944e-38"));
        // 0 would turn clipping off.
        assert!(refusal(|t| t.grad_clip = 1e-60).contains("grad_clip is 1e-60, but must be between 1.1754944e-38"));
        assert!(refusal(|t| t.warmup_fraction = 1.1).contains("warmup_fraction is 1.1"));
        assert!(refusal(|t| t.seed = u64::MAX).contains("seed is 18446744073709551615"));
        let wsd = |t: &mut TrainConfig| (t.lr_schedule, t.decay_fraction) = (LrSchedule::Wsd, 0.96);
        assert!(refusal(wsd).contains("more than the whole run"));
    }
}
