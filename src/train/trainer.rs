//! A model in training on one device: parameters, moments and the programs that use them.
//!
//! A [`Trainer`] knows how to take one step, evaluate, generate, and give logits. When to do so is the loop's
//! business ([`super::run()`]).

mod step;

pub(super) use step::At;
pub(crate) use step::PendingStep;

use super::growth::cohorts::Cohort;
use super::parallel::Share;
use super::parallel::exchange::Exchange;
use super::parallel::leaves::Leaves;
use super::parallel::shard::Sharded;
pub(crate) use super::plans::compared_rows;
use super::plans::overwrites;
pub use super::plans::{RunPlans, batch_shape};
use super::run::loss_scale::{self, LossScale};
use crate::array::HostTensor;
use crate::config::{ModelConfig, Precision, TrainConfig};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::gpu::deferred_read::Staging;
use crate::gpu::engine::{Engine, Program};
use crate::graph::{average_name, grad_name, moment_names};
use crate::kernel::KernelTable;
use crate::model::graphs::{self, BatchShape};
use crate::model::init::Tensors;
use crate::model::sample::Sampling;
use crate::ops::rotary;
use crate::ops::stats::{STATS, Stats};
use crate::runtime::distributed::World;
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
    world: World,
    leaves: Leaves,
    /// With other ranks, where there are any.
    exchange: Option<Exchange>,
    /// With them, where each has a share of the optimizer's state.
    sharded: Option<Sharded>,
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
    /// What of it has a second moment.
    by_adamw: Vec<(String, Vec<usize>)>,
    /// Taken in turn: the numbers of one step are read while the next runs.
    staging: [Staging; 2],
}

struct Programs {
    micro: Program,
    later: Option<Program>,
    copies: Option<Program>,
    averages: Option<Program>,
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
        Self::of_rank(&World::alone(), engine, kernels, model, train, cohorts, prompt)
    }

    /// As [`Trainer::new`], for one of several ranks.
    ///
    /// # Errors
    /// As there, and leaves that cannot be shared out evenly.
    pub(crate) fn of_rank(
        world: &World,
        engine: &'e Engine,
        kernels: &KernelTable,
        model: &ModelConfig,
        train: &TrainConfig,
        cohorts: Vec<Cohort>,
        prompt: usize,
    ) -> Result<Self> {
        let kernels = kernels.clone();
        let share = Share { rank: world.rank(), ranks: world.size() };
        let plans = RunPlans::of_share(model, train, &cohorts, prompt, &kernels, share)?;
        let (memory, programs) = Memory::allocate(engine, &plans.all())?;
        let mut prepared = programs.into_iter();
        let wrong = || Error::defect("plans and programs differ in number");
        let mut next = || prepared.next().ok_or_else(wrong);
        let programs = Programs {
            micro: next()?,
            later: plans.later.as_ref().map(|_| next()).transpose()?,
            copies: plans.copies.as_ref().map(|_| next()).transpose()?,
            averages: plans.averages.as_ref().map(|_| next()).transpose()?,
            update: next()?,
            evaluation: next()?,
            logits: next()?,
            generator: plans.generator.ready([next()?, next()?, next()?]),
        };
        let norm = plans.norm.as_ref().map(|_| prepared.next().ok_or_else(wrong)).transpose()?;
        let sharded = norm
            .zip(plans.shards.clone())
            .map(|(norm, shards)| Sharded::new(engine, &memory, shards, share.rank, &plans.updated, norm));
        let sharded = sharded.transpose()?;
        let leaves = Leaves::new(&plans.leaves, &memory, prepared.collect())?;
        let last = if leaves.micro_batches > 1 { plans.later.as_ref() } else { None }.unwrap_or(&plans.micro);
        let complete_after = |bucket: &_| plans.leaves.layout.complete_after(bucket, last);
        let exchange = || Exchange::new(engine, world, train, &plans.leaves, &leaves, complete_after);
        let exchange = (share.ranks > 1).then(exchange).transpose()?;
        upload_rope(engine, &memory, model)?;
        let (model, train) = (model.clone(), train.clone());
        let loss_scale = loss_scale::initial(train.precision == Precision::F16);
        let overwrites = overwrites(&kernels);
        let staging = || engine.staging(4 * STATS as u64);
        let flops_per_step = plans.flops_per_step();
        let (shape, trained, by_adamw, staging) =
            (plans.shape, plans.trained, plans.by_adamw, [staging()?, staging()?]);
        Ok(Self {
            world: world.clone(),
            leaves,
            exchange,
            sharded,
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
            by_adamw,
            staging,
        })
    }

    /// Device memory by class.
    pub fn bytes(&self) -> Bytes {
        self.memory.bytes()
    }

    /// Device memory of the kernels' uniform blocks, which the plan does not count.
    pub fn uniform_bytes(&self) -> u64 {
        let Programs { micro, later, copies, averages, update, evaluation, logits, generator } = &self.programs;
        let programs = [micro, update, evaluation, logits].into_iter().chain(later).chain(copies).chain(averages);
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

    /// The kernels that its plans were made for.
    pub fn kernels(&self) -> &KernelTable {
        &self.kernels
    }

    /// The device that it is on.
    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    /// The micro-batches of a step that this rank computes, by number.
    pub(super) fn own_micro_batches(&self) -> std::ops::Range<u64> {
        let own = (self.leaves.count() * self.leaves.micro_batches) as u64;
        let first = self.world.rank() as u64 * own;
        first..first + own
    }

    /// The ranks that train with it.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// What is allocated on it.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Forward and backward of the first micro-batch of a step.
    pub(super) fn micro(&self) -> &Program {
        &self.programs.micro
    }

    /// Mean loss over the targets of `batches` that count, nats per token: of the averages of the parameters where these are
    /// kept, as are [`Trainer::logits`] and [`Trainer::sample`].
    pub fn evaluate(&self, batches: &[Batch]) -> Result<f64> {
        let stats = self.memory.named(graphs::EVAL_STATS)?;
        // Shared out among the ranks, and added up in one order.
        let (rank, ranks) = (self.world.rank(), self.world.size());
        let own = batches.len() * rank / ranks..batches.len() * (rank + 1) / ranks;
        let mut losses = Vec::with_capacity(own.len());
        for batch in &batches[own] {
            self.engine.write(self.memory.named(graphs::TOKENS)?, &batch.tokens);
            self.engine.write(self.memory.named(graphs::TARGETS)?, &batch.targets);
            let mut encoder = self.engine.encoder();
            self.engine.clear(&mut encoder, [stats]);
            self.engine.wait(self.engine.start(encoder, &self.programs.evaluation)?)?;
            losses.push(Stats::from_words(&self.engine.read(stats)?).loss);
        }
        if ranks > 1 {
            let all = self.world.all_gather(bytemuck::cast_slice(&losses).to_vec())?.concat();
            losses = all.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
        }
        let sum: f64 = losses.into_iter().map(f64::from).sum();
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

    /// Puts `params` on the device, from which their averages start where these are kept.
    ///
    /// # Errors
    /// A missing parameter or one of another shape is named.
    pub fn load_parameters(&self, params: &Tensors) -> Result<()> {
        upload_parameters(self.engine, &self.memory, &self.model, params)?;
        self.load_averages(params)?;
        self.programs.copies.as_ref().map_or(Ok(()), |copies| self.engine.run(copies))
    }

    /// Puts the averages of the parameters on the device, where they are kept.
    ///
    /// # Errors
    /// A missing one or one of another shape is named.
    pub fn load_averages(&self, averages: &Tensors) -> Result<()> {
        if self.programs.averages.is_none() {
            return Ok(());
        }
        check_shapes(&self.model, averages)?;
        averages.iter().try_for_each(|(name, tensor)| self.memory.write(self.engine, &average_name(name), &tensor.data))
    }

    /// Puts both moments on the device, of the rows that train.
    ///
    /// # Errors
    /// A missing one or one of another shape is named.
    pub fn load_moments(&self, first: &Tensors, second: &Tensors) -> Result<()> {
        if let Some(sharded) = &self.sharded {
            [first, second].into_iter().try_for_each(|moments| check_shapes(&self.model, moments))?;
            return sharded.load_moments(self.world.rank(), self.engine, &self.memory, [first, second]);
        }
        let with_moment = [&self.trained, &self.by_adamw];
        for ((moments, names), device_name) in [first, second].into_iter().zip(with_moment).zip(MOMENT_NAMES) {
            check_shapes(&self.model, moments)?;
            for (name, shape) in names {
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

    /// Reads the averages of the parameters back; empty where none are kept.
    pub fn averages(&self) -> Result<Tensors> {
        let kept = self.programs.averages.as_ref().map(|_| self.model.param_shapes()).unwrap_or_default();
        self.download(&kept, average_name)
    }

    /// Reads both moments back; those of rows that do not train are zero, and so is the second one of what Muon updates. Where ranks share them, all must do so at once.
    pub fn moments(&self) -> Result<[Tensors; 2]> {
        let with_moment = |names: &[(String, Vec<usize>)], device_name: fn(&str) -> String| {
            let trained = match &self.sharded {
                Some(Sharded { shards, .. }) => {
                    shards.gather(&self.world, self.engine, &self.memory, names, device_name)?
                }
                None => self.download(names, device_name)?,
            };
            let padded = |(name, shape): (String, Vec<usize>)| {
                let mut data = vec![0.0; shape.iter().product()];
                if let Some(known) = trained.get(&name) {
                    let last = data.iter_mut().rev().zip(known.data.iter().rev());
                    last.for_each(|(to, from)| *to = *from);
                }
                (name, HostTensor { shape, data })
            };
            Ok(self.model.param_shapes().into_iter().map(padded).collect())
        };
        let [first, second] = MOMENT_NAMES;
        Ok([with_moment(&self.trained, first)?, with_moment(&self.by_adamw, second)?])
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
