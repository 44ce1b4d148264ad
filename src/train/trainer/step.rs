//! One optimizer step of a [`Trainer`]: gradients, leaf by leaf, with other ranks where there are any, and the update.

use super::{StepStats, Trainer};
use crate::array::HostTensor;
use crate::data::{Batch, token_index};
use crate::error::{Error, Result};
use crate::gpu::deferred_read::DeferredRead;
use crate::gpu::engine::{Block, Engine, Program};
use crate::gpu::submission::{Ahead, Breaks, Submission};
use crate::model::graphs;
use crate::model::init::Tensors;
use crate::ops::adamw::{CohortStep, Update};
use crate::ops::dropout::DropoutDraw;
use crate::ops::stats::{Stats, fresh_stats};
use crate::train::cohorts::Cohort;
use crate::train::parallel::exchange::{Exchange, Sent};
use crate::train::parallel::told::{Heard, Told};

/// Which micro-batch of a run: dropout draws by it.
#[derive(Debug, Clone, Copy)]
pub(in crate::train) struct At {
    /// The step, from 0.
    pub step: u64,
    /// The number of the micro-batch within the update, over all ranks.
    pub micro_batch: u64,
}

/// The gradients of a step, which the device is working on.
pub(in crate::train) struct Gradients {
    submission: Submission,
    /// What is on its way to other ranks.
    sent: Vec<Sent>,
}

/// A step the device is working on.
#[derive(Debug)]
pub(crate) struct PendingStep {
    /// Its number, from 0.
    pub(in crate::train) step: u64,
    /// Its learning rate.
    pub(in crate::train) lr: f64,
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

impl Trainer<'_> {
    /// One optimizer step on `batches`, one for each micro-batch of this rank. `step` counts from 0.
    pub fn step(&self, batches: &[Batch], step: u64, lr: f64) -> Result<StepStats> {
        self.start_step(batches, step, lr)?.finish(self.engine)
    }

    /// Forward and backward of the micro-batch of this number within its leaf.
    fn micro_batch(&self, number: usize) -> &Program {
        let super::Programs { micro, later, .. } = &self.programs;
        later.as_ref().filter(|_| number > 0).unwrap_or(micro)
    }

    /// Puts a micro-batch on the device as the first of a step.
    pub(in crate::train) fn prepare(&self, batch: &Batch, at: At) -> Result<()> {
        self.upload(batch, at)?;
        let mut encoder = self.engine.encoder();
        self.engine.clear(&mut encoder, self.cleared());
        self.engine.write(self.memory.named(graphs::STATS_NAME)?, &fresh_stats(self.loss_scale.scale));
        self.engine.submit(encoder).map(drop)
    }

    /// The gradients that a step starts from zeros, because it only adds to them.
    fn cleared(&self) -> &[Block] {
        if self.overwrites { &[] } else { self.memory.gradients() }
    }

    /// Computes the gradients of a step twice, leaf by leaf, and compares all their bits.
    ///
    /// # Errors
    /// [`Error::Lost`] where they differ: the GPU or its driver computes wrongly now and then.
    pub fn verify(&self, batches: &[Batch], step: u64) -> Result<()> {
        let size = self.leaves.micro_batches;
        batches.chunks(size).enumerate().try_for_each(|(leaf, batches)| self.verify_leaf(batches, step, leaf * size))
    }

    /// `first`: how many micro-batches of this rank come before.
    fn verify_leaf(&self, batches: &[Batch], step: u64, first: usize) -> Result<()> {
        let once = || -> Result<Tensors> {
            for (i, batch) in batches.iter().enumerate() {
                let at = self.own(step, first + i);
                if i == 0 {
                    self.prepare(batch, at)?
                } else {
                    self.upload(batch, at)?
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
        self.start_encoded(self.encode_step(batches, step)?, batches, step, lr)
    }

    /// As [`Trainer::start_step`], with what [`Trainer::encode_step`] gave for the same batches; nothing else may have been
    /// submitted since then.
    pub(crate) fn start_encoded(&self, first: Ahead, batches: &[Batch], step: u64, lr: f64) -> Result<PendingStep> {
        let gradients = self.start_gradients(first, batches, step)?;
        let told = Told { step, ..Told::default() };
        let (submission, _) = self.exchange(gradients, told)?;
        self.start_update(submission, step, lr)
    }

    /// Encodes what a step begins with, and brings its first micro-batch on the way: the device may still work on the step
    /// before.
    pub(crate) fn encode_step(&self, batches: &[Batch], step: u64) -> Result<Ahead> {
        batches.first().map_or(Ok(()), |batch| self.upload(batch, self.own(step, 0)))?;
        let mut encoder = self.engine.encoder();
        self.engine.clear(&mut encoder, self.cleared());
        let breaks = self.exchange.as_ref().filter(|_| batches.len() == 1).map_or(&[][..], Exchange::breaks);
        self.engine.encode_ahead(encoder, &self.programs.micro, &Breaks::new(breaks, &mut |_| Ok(())))
    }

    /// Submits the gradients of a step, leaf by leaf: the first part of [`Trainer::start_encoded`].
    pub(in crate::train) fn start_gradients(&self, first: Ahead, batches: &[Batch], step: u64) -> Result<Gradients> {
        let (engine, leaves) = (self.engine, &self.leaves);
        let stats = self.memory.named(graphs::STATS_NAME)?;
        let (mut submission, mut first, mut sent) = (Submission::default(), Some(first), Vec::new());
        self.exchange.as_ref().into_iter().for_each(Exchange::begin);
        for (leaf, of_leaf) in batches.chunks(leaves.micro_batches).enumerate() {
            let exchange = self.exchange.as_ref().filter(|_| leaf + 1 == leaves.count());
            leaves.save(engine, leaf)?;
            for (i, batch) in of_leaf.iter().enumerate() {
                let last = exchange.filter(|_| i + 1 == of_leaf.len());
                let mut send = |number| -> Result<()> {
                    if let Some(exchange) = last {
                        sent.push(exchange.send(engine, leaves, number)?);
                    }
                    Ok(())
                };
                let mut breaks = Breaks::new(last.map_or(&[], Exchange::breaks), &mut send);
                let begun = match first.take() {
                    Some(first) => {
                        engine.write(stats, &fresh_stats(self.loss_scale.scale));
                        engine.start_encoded(first, &self.programs.micro, &mut breaks)?
                    }
                    None => {
                        self.upload(batch, self.own(step, leaf * leaves.micro_batches + i))?;
                        let mut encoder = engine.encoder();
                        if i == 0 {
                            engine.write(stats, &fresh_stats(self.loss_scale.scale));
                            engine.clear(&mut encoder, self.cleared());
                        }
                        engine.start_with(encoder, self.micro_batch(i), &mut breaks)?
                    }
                };
                submission.then(begun);
            }
            match exchange {
                Some(exchange) => sent.push(exchange.send_loss(engine, leaves)?),
                None => leaves.sums(leaf).try_for_each(|sum| -> Result<()> {
                    submission.then(engine.start(engine.encoder(), sum)?);
                    Ok(())
                })?,
            }
        }
        Ok(Gradients { submission, sent })
    }

    /// Adds up the gradients of a step with those of other ranks, who are told `told`; alone, nothing happens.
    pub(in crate::train) fn exchange(&self, gradients: Gradients, told: Told) -> Result<(Submission, Heard)> {
        let Gradients { submission, sent } = gradients;
        let Some(exchange) = &self.exchange else { return Ok((submission, Heard::default())) };
        let heard = exchange.run(self.engine, &self.leaves, sent, told)?;
        self.engine.write(self.memory.named(graphs::STATS_NAME)?, &heard.stats(self.loss_scale.scale));
        Ok((submission, heard))
    }

    /// Submits the update by the gradients of a step, right after them.
    pub(in crate::train) fn start_update(&self, gradients: Submission, step: u64, lr: f64) -> Result<PendingStep> {
        let (stats, mut submission) = (self.memory.named(graphs::STATS_NAME)?, gradients);
        if let Some(sharded) = &self.sharded {
            sharded.gather_norm(&self.world, self.engine)?;
        }
        self.engine.write(self.memory.named(graphs::UPDATE)?, &self.update_scalars(step, lr).words()?);
        submission.then(self.engine.start(self.engine.encoder(), &self.programs.update)?);
        if let Some(sharded) = &self.sharded {
            sharded.share(&self.world, self.engine)?;
            if let Some(copies) = &self.programs.copies {
                submission.then(self.engine.start(self.engine.encoder(), copies)?);
            }
        }
        if let Some(averages) = &self.programs.averages {
            submission.then(self.engine.start(self.engine.encoder(), averages)?);
        }
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
            average_decay: train.average_decay(step + 1),
            cohorts: self.cohorts.iter().map(cohort).collect(),
        }
    }

    /// The micro-batch of this number among those of this rank.
    pub(in crate::train) fn own(&self, step: u64, number: usize) -> At {
        At { step, micro_batch: self.own_micro_batches().start + number as u64 }
    }

    /// Puts a micro-batch on the device.
    pub(in crate::train) fn upload(&self, batch: &Batch, at: At) -> Result<()> {
        if self.model.dropout > 0.0 {
            let sequence = at.micro_batch * self.shape.batch as u64;
            let draw = DropoutDraw::new(self.model.dropout, self.train.seed, at.step, sequence);
            self.engine.write(self.memory.named(graphs::DROPOUT)?, &draw.words());
        }
        let index = token_index(&batch.tokens, self.model.vocab_size)?;
        self.engine.write(self.memory.named(graphs::SORTED_ROWS)?, &index.rows);
        self.engine.write(self.memory.named(graphs::TOKEN_STARTS)?, &index.starts);
        self.engine.write(self.memory.named(graphs::TOKENS)?, &batch.tokens);
        self.engine.write(self.memory.named(graphs::TARGETS)?, &batch.targets);
        Ok(())
    }
}
