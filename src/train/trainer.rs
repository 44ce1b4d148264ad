//! A model in training on one device: parameters, moments and the programs that use them.
//!
//! A [`Trainer`] knows how to take one step, evaluate, generate, and give logits. When to do so is the loop's
//! business ([`super::run()`]).

use super::growth::cohorts::Cohort;
pub(crate) use super::plans::compared_rows;
use super::plans::overwrites;
pub use super::plans::{RunPlans, batch_shape};
use super::run::loss_scale::{self, LossScale};
use crate::array::HostTensor;
use crate::config::{ModelConfig, Precision, TrainConfig};
use crate::data::{Batch, token_index};
use crate::error::{Error, Result};
use crate::gpu::deferred_read::{DeferredRead, Staging};
use crate::gpu::engine::{Block, Engine, Program};
use crate::gpu::submission::{Ahead, Submission};
use crate::graph::{grad_name, moment_names};
use crate::kernel::KernelTable;
use crate::model::graphs::{self, BatchShape};
use crate::model::init::Tensors;
use crate::model::sample::Sampling;
use crate::ops::adamw::{CohortStep, Update};
use crate::ops::rotary;
use crate::ops::stats::{STATS, Stats, fresh_stats};
use crate::runtime::generate::Generator;
use crate::runtime::memory::{Bytes, Memory};

/// Names of a parameter's moments on the device.
const MOMENT_NAMES: [fn(&str) -> String; 2] = [|name| moment_names(name).0, |name| moment_names(name).1];

/// What one optimizer step measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStats {
    /// Mean loss of the step's tokens before the update, nats per token.
    pub loss: f32,
    /// Global gradient norm before clipping.
    pub grad_norm: f32,
    /// Whether loss and gradients were finite; if not, nothing was updated.
    pub finite: bool,
}

/// A model in training.
pub struct Trainer<'e> {
    engine: &'e Engine,
    kernels: KernelTable,
    /// The model as it is now.
    pub model: ModelConfig,
    /// Training settings.
    pub train: TrainConfig,
    /// Which rows were added when.
    pub cohorts: Vec<Cohort>,
    /// Factor on the loss of the next step; 1 without mixed precision.
    pub loss_scale: LossScale,
    memory: Memory,
    programs: Programs,
    /// Whether the first micro-batch of a step overwrites gradients.
    overwrites: bool,
    shape: BatchShape,
    flops_per_step: u64,
    /// What trains: see [`cohorts::trained`].
    trained: Vec<(String, Vec<usize>)>,
    /// Taken in turn: the numbers of one step are read while the next runs.
    staging: [Staging; 2],
}

/// A step the device is working on.
#[derive(Debug)]
pub(crate) struct PendingStep {
    /// Its number, from 0.
    pub(super) step: u64,
    /// Its learning rate.
    pub(super) lr: f64,
    submission: Submission,
    reading: DeferredRead,
}

impl PendingStep {
    /// Waits for the step, not for steps submitted after it.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn finish(self, engine: &Engine) -> Result<StepStats> {
        engine.wait(self.submission)?;
        let stats = Stats::from_words(&self.reading.wait(&engine.gpu)?);
        Ok(StepStats { loss: stats.loss, grad_norm: stats.norm, finite: stats.is_finite() })
    }
}

struct Programs {
    micro: Program,
    later: Option<Program>,
    copies: Option<Program>,
    update: Program,
    evaluation: Program,
    logits: Program,
    generator: Generator,
}

impl<'e> Trainer<'e> {
    /// Plans, allocates and compiles; parameters and moments start at zero.
    pub fn new(
        engine: &'e Engine,
        kernels: &KernelTable,
        model: &ModelConfig,
        train: &TrainConfig,
        cohorts: Vec<Cohort>,
        prompt: usize,
    ) -> Result<Self> {
        let kernels = kernels.clone();
        let plans = RunPlans::new(model, train, &cohorts, prompt, &kernels)?;
        let (memory, programs) = Memory::allocate(engine, &plans.all())?;
        let mut prepared = programs.into_iter();
        let wrong = || Error::defect("plans and programs differ in number");
        let mut next = || prepared.next().ok_or_else(wrong);
        let programs = Programs {
            micro: next()?,
            later: plans.later.as_ref().map(|_| next()).transpose()?,
            copies: plans.copies.as_ref().map(|_| next()).transpose()?,
            update: next()?,
            evaluation: next()?,
            logits: next()?,
            generator: plans.generator.ready([next()?, next()?, next()?]),
        };
        upload_rope(engine, &memory, model)?;
        let (model, train) = (model.clone(), train.clone());
        let loss_scale = loss_scale::initial(train.precision == Precision::F16);
        let overwrites = overwrites(&kernels);
        let staging = || engine.staging(4 * STATS as u64);
        let flops_per_step = plans.flops_per_step();
        let (shape, trained, staging) = (plans.shape, plans.trained, [staging()?, staging()?]);
        Ok(Self {
            engine,
            kernels,
            model,
            train,
            cohorts,
            loss_scale,
            memory,
            programs,
            overwrites,
            shape,
            flops_per_step,
            trained,
            staging,
        })
    }

    /// Device memory by class.
    pub fn bytes(&self) -> Bytes {
        self.memory.bytes()
    }

    /// Device memory of the kernels' uniform blocks, which the plan does not count.
    pub fn uniform_bytes(&self) -> u64 {
        let Programs { micro, later, copies, update, evaluation, logits, generator } = &self.programs;
        let programs = [micro, update, evaluation, logits].into_iter().chain(later).chain(copies);
        programs.map(Program::uniform_bytes).sum::<u64>() + generator.uniform_bytes()
    }

    /// Whether activations are f16.
    pub(crate) fn is_mixed(&self) -> bool {
        self.train.precision == Precision::F16
    }

    /// The shape of a micro-batch, and how many make a step.
    pub fn shape(&self) -> &BatchShape {
        &self.shape
    }

    /// Floating-point operations of one optimizer step.
    pub(crate) fn flops_per_step(&self) -> u64 {
        self.flops_per_step
    }

    /// One optimizer step on `batches`, one per micro-batch. `step` counts from 0.
    pub fn step(&self, batches: &[Batch], step: u64, lr: f64) -> Result<StepStats> {
        self.start_step(batches, step, lr)?.finish(self.engine)
    }

    /// The kernels that its plans were made for.
    pub fn kernels(&self) -> &KernelTable {
        &self.kernels
    }

    /// The device that it is on.
    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    /// What is allocated on it.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Forward and backward of the first micro-batch of a step.
    pub(super) fn micro(&self) -> &Program {
        &self.programs.micro
    }

    /// The same of the micro-batch of this number.
    fn micro_batch(&self, number: usize) -> &Program {
        let Programs { micro, later, .. } = &self.programs;
        later.as_ref().filter(|_| number > 0).unwrap_or(micro)
    }

    /// Puts a micro-batch on the device as the first of a step.
    pub(super) fn prepare(&self, batch: &Batch) -> Result<()> {
        self.upload(batch)?;
        let mut encoder = self.engine.encoder();
        self.engine.clear(&mut encoder, self.cleared());
        self.engine.write(self.memory.named(graphs::STATS_NAME)?, &fresh_stats(self.loss_scale.scale));
        self.engine.submit(encoder).map(drop)
    }

    /// The gradients that a step starts from zeros, because it only adds to them.
    fn cleared(&self) -> &[Block] {
        if self.overwrites { &[] } else { self.memory.gradients() }
    }

    /// Computes the gradients of a step twice and compares all their bits.
    ///
    /// # Errors
    /// [`Error::Lost`] where they differ: the GPU or its driver computes wrongly now and then.
    pub fn verify(&self, batches: &[Batch], step: u64) -> Result<()> {
        let once = || -> Result<Tensors> {
            for (i, batch) in batches.iter().enumerate() {
                if i == 0 {
                    self.prepare(batch)?
                } else {
                    self.upload(batch)?
                }
                self.engine.run(self.micro_batch(i))?;
            }
            self.gradients()
        };
        let bits = |tensor: &HostTensor| tensor.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let (first, second) = (once()?, once()?);
        match first.iter().zip(&second).find(|((_, a), (_, b))| bits(a) != bits(b)) {
            None => Ok(()),
            Some(((name, _), _)) => Err(Error::lost(format!(
                "the gradient of \"{name}\" in step {} was computed twice with two results",
                step + 1
            ))),
        }
    }

    /// Submits a step. At most one other may be pending.
    pub(crate) fn start_step(&self, batches: &[Batch], step: u64, lr: f64) -> Result<PendingStep> {
        self.start_encoded(self.encode_step(batches)?, batches, step, lr)
    }

    /// As [`Trainer::start_step`], with what [`Trainer::encode_step`] gave for the same batches; nothing else may have been
    /// submitted since then.
    pub(crate) fn start_encoded(&self, first: Ahead, batches: &[Batch], step: u64, lr: f64) -> Result<PendingStep> {
        let gradients = self.start_gradients(first, batches)?;
        self.start_update(gradients, step, lr)
    }

    /// Encodes what a step begins with, and brings its first micro-batch on the way: the device may still work on the step
    /// before.
    pub(crate) fn encode_step(&self, batches: &[Batch]) -> Result<Ahead> {
        batches.first().map_or(Ok(()), |batch| self.upload(batch))?;
        let mut encoder = self.engine.encoder();
        self.engine.clear(&mut encoder, self.cleared());
        self.engine.encode_ahead(encoder, &self.programs.micro)
    }

    /// Submits the gradients of a step: the first half of [`Trainer::start_encoded`].
    pub(super) fn start_gradients(&self, first: Ahead, batches: &[Batch]) -> Result<Submission> {
        let stats = self.memory.named(graphs::STATS_NAME)?;
        let (mut submission, mut first) = (Submission::default(), Some(first));
        for (i, batch) in batches.iter().enumerate() {
            submission.then(match first.take() {
                Some(first) => {
                    self.engine.write(stats, &fresh_stats(self.loss_scale.scale));
                    self.engine.start_encoded(first, &self.programs.micro)?
                }
                None => {
                    self.upload(batch)?;
                    self.engine.start(self.engine.encoder(), self.micro_batch(i))?
                }
            });
        }
        Ok(submission)
    }

    /// Submits the update by the gradients of a step, right after them.
    pub(super) fn start_update(&self, gradients: Submission, step: u64, lr: f64) -> Result<PendingStep> {
        let (stats, mut submission) = (self.memory.named(graphs::STATS_NAME)?, gradients);
        self.engine.write(self.memory.named(graphs::UPDATE)?, &self.update_scalars(step, lr).words()?);
        submission.then(self.engine.start(self.engine.encoder(), &self.programs.update)?);
        let staging = &self.staging[(step % 2) as usize];
        let reading = self.engine.submit_and_read(self.engine.encoder(), stats, staging)?;
        Ok(PendingStep { step, lr, submission, reading })
    }

    fn update_scalars(&self, step: u64, lr: f64) -> Update {
        let train = &self.train;
        let cohort = |c: &Cohort| CohortStep {
            t: (step + 1).saturating_sub(c.born_step),
            lr_scale: c.lr_scale,
            frozen: c.frozen,
        };
        Update {
            lr,
            beta1: train.beta1,
            beta2: train.beta2,
            eps: train.adam_eps,
            weight_decay: train.weight_decay,
            cohorts: self.cohorts.iter().map(cohort).collect(),
        }
    }

    /// Puts a micro-batch on the device.
    pub(super) fn upload(&self, batch: &Batch) -> Result<()> {
        let index = token_index(&batch.tokens, self.model.vocab_size)?;
        self.engine.write(self.memory.named(graphs::SORTED_ROWS)?, &index.rows);
        self.engine.write(self.memory.named(graphs::TOKEN_STARTS)?, &index.starts);
        self.engine.write(self.memory.named(graphs::TOKENS)?, &batch.tokens);
        self.engine.write(self.memory.named(graphs::TARGETS)?, &batch.targets);
        Ok(())
    }

    /// Mean loss over the targets of `batches` that count, nats per token.
    pub fn evaluate(&self, batches: &[Batch]) -> Result<f64> {
        let stats = self.memory.named(graphs::EVAL_STATS)?;
        let mut sum = 0.0;
        for batch in batches {
            self.engine.write(self.memory.named(graphs::TOKENS)?, &batch.tokens);
            self.engine.write(self.memory.named(graphs::TARGETS)?, &batch.targets);
            let mut encoder = self.engine.encoder();
            self.engine.clear(&mut encoder, [stats]);
            self.engine.wait(self.engine.start(encoder, &self.programs.evaluation)?)?;
            sum += f64::from(Stats::from_words(&self.engine.read(stats)?).loss);
        }
        self.engine.check_heartbeat()?;
        Ok(sum / batches.iter().map(Batch::counted).sum::<f64>())
    }

    /// Logits (rows, vocab_size) of [`compared_rows`] tokens.
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        self.engine.write(self.memory.named(&graphs::chunk_tokens(tokens.len()))?, tokens);
        self.engine.run(&self.programs.logits)?;
        self.engine.read(self.memory.named(graphs::LOGITS)?)
    }

    /// Draws `count` tokens after `prompt`, which has the length given to [`Trainer::new`] or more.
    pub fn sample(&self, prompt: &[u32], count: usize, sampling: &Sampling) -> Result<Vec<u32>> {
        let mut drawn = Vec::with_capacity(count);
        self.programs.generator.generate(self.engine, &self.memory, prompt, count, sampling, |token| {
            drawn.push(token);
            Ok(true)
        })?;
        Ok(drawn)
    }

    /// Puts `params` on the device.
    ///
    /// # Errors
    /// A missing parameter or one of another shape is named.
    pub fn load_parameters(&self, params: &Tensors) -> Result<()> {
        upload_parameters(self.engine, &self.memory, &self.model, params)?;
        self.programs.copies.as_ref().map_or(Ok(()), |copies| self.engine.run(copies))
    }

    /// Puts both moments on the device, of the rows that train.
    ///
    /// # Errors
    /// A missing one or one of another shape is named.
    pub fn load_moments(&self, first: &Tensors, second: &Tensors) -> Result<()> {
        for (moments, device_name) in [first, second].into_iter().zip(MOMENT_NAMES) {
            check_shapes(&self.model, moments)?;
            for (name, shape) in &self.trained {
                let Some(moment) = moments.get(name) else { continue };
                let before = moment.data.len().saturating_sub(shape.iter().product());
                let data = moment.data.get(before..).unwrap_or_default();
                self.memory.write(self.engine, &device_name(name), data)?;
            }
        }
        Ok(())
    }

    /// Reads the parameters back.
    pub fn parameters(&self) -> Result<Tensors> {
        self.download(&self.model.param_shapes(), str::to_string)
    }

    /// Reads both moments back; those of rows that do not train are zero.
    pub fn moments(&self) -> Result<(Tensors, Tensors)> {
        let [first, second] = MOMENT_NAMES.map(|device_name| {
            let trained = self.download(&self.trained, device_name)?;
            let padded = |(name, shape): (String, Vec<usize>)| {
                let mut data = vec![0.0; shape.iter().product()];
                if let Some(known) = trained.get(&name) {
                    let last = data.iter_mut().rev().zip(known.data.iter().rev());
                    last.for_each(|(to, from)| *to = *from);
                }
                (name, HostTensor { shape, data })
            };
            Ok(self.model.param_shapes().into_iter().map(padded).collect())
        });
        Ok((first?, second?))
    }

    /// Reads the gradients of the last step back, before clipping, of the rows that train; for tests and diagnosis.
    pub fn gradients(&self) -> Result<Tensors> {
        self.download(&self.trained, grad_name)
    }

    fn download(&self, tensors: &graphs::Shapes, device_name: impl Fn(&str) -> String) -> Result<Tensors> {
        let read = |(name, shape): &(String, Vec<usize>)| {
            let data = self.memory.read(self.engine, &device_name(name))?;
            Ok((name.clone(), HostTensor { shape: shape.clone(), data }))
        };
        tensors.iter().map(read).collect()
    }
}

/// Writes the rotary table of `model`.
pub fn upload_rope(engine: &Engine, memory: &Memory, model: &ModelConfig) -> Result<()> {
    let table = rotary::table(model.seq_length, model.rotary_width(), model.rotary_emb_base);
    if !table.is_empty() {
        engine.write(memory.named(graphs::ROPE)?, &table);
    }
    Ok(())
}

/// Writes every parameter of `model` to the device.
///
/// # Errors
/// A missing tensor or one of another shape is named.
pub fn upload_parameters(engine: &Engine, memory: &Memory, model: &ModelConfig, tensors: &Tensors) -> Result<()> {
    check_shapes(model, tensors)?;
    tensors.iter().try_for_each(|(name, tensor)| memory.write(engine, name, &tensor.data))
}

/// Refuses tensors that are not one for each parameter of `model`, in its shape.
fn check_shapes(model: &ModelConfig, tensors: &Tensors) -> Result<()> {
    for (name, shape) in model.param_shapes() {
        let tensor = tensors.get(&name).ok_or_else(|| {
            Error::input(format!("parameter \"{name}\" is missing: the checkpoint is of another model"))
        })?;
        if tensor.shape != shape {
            return Err(Error::input(format!(
                "parameter \"{name}\" has shape {:?}, the configuration says {shape:?}: the checkpoint is of another \
                 model",
                tensor.shape
            )));
        }
    }
    Ok(())
}
