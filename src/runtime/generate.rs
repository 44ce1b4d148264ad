//! Generation with a key/value cache.
//!
//! The prompt goes through in one pass, then one token at a time. When the context of `seq_length` tokens
//! is full, its last half is read again from position 0 and generation goes on; everything is planned and
//! allocated before the first token.

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::gpu::engine::{Engine, Program};
use crate::graph::Graph;
use crate::graph::plan::Plan;
use crate::kernel::KernelTable;
use crate::model::graphs::{self, CHUNK_RUN, LAST_LOGITS};
use crate::model::sample::Sampling;
use crate::runtime::memory::Memory;

/// The three chunk sizes of a generation.
pub struct GeneratorPlans {
    /// Prompt, second half of a full context, one token.
    pub plans: [Plan; 3],
    rows: [usize; 3],
    capacity: usize,
}

impl GeneratorPlans {
    /// Plans for prompts of `prompt` tokens (longer ones keep their end), at least 1.
    pub fn new(config: &ModelConfig, prompt: usize, kernels: &KernelTable) -> Result<Self> {
        Self::with(config, prompt, kernels, |graph| Plan::new(&graph))
    }

    /// As [`Self::new`], with plans that `make` makes.
    pub(crate) fn with(
        config: &ModelConfig,
        prompt: usize,
        kernels: &KernelTable,
        make: impl Fn(Graph) -> Result<Plan>,
    ) -> Result<Self> {
        let capacity = config.seq_length;
        let rows = [prompt.clamp(1, capacity), (capacity / 2).max(1), 1];
        let plan = |rows: usize| make(graphs::chunk(config, rows, kernels)?);
        Ok(Self { plans: [plan(rows[0])?, plan(rows[1])?, plan(rows[2])?], rows, capacity })
    }

    /// With the programs that [`Memory::allocate`] made of [`GeneratorPlans::plans`].
    pub fn ready(&self, programs: [Program; 3]) -> Generator {
        let [prompt, refill, single] = programs;
        let [prompt_rows, refill_rows, _] = self.rows;
        Generator {
            prompt: (prompt_rows, prompt),
            refill: (refill_rows, refill),
            single: (1, single),
            capacity: self.capacity,
        }
    }
}

/// Generates from the parameters in a [`Memory`].
pub struct Generator {
    prompt: (usize, Program),
    refill: (usize, Program),
    single: (usize, Program),
    capacity: usize,
}

impl Generator {
    /// Device memory of its kernels' uniform blocks.
    pub fn uniform_bytes(&self) -> u64 {
        [&self.prompt, &self.refill, &self.single].iter().map(|(_, program)| program.uniform_bytes()).sum()
    }

    /// Draws `count` tokens after `prompt` and hands each to `on_token` as it comes; stops early when
    /// that returns false.
    ///
    /// # Errors
    /// A prompt that is empty or shorter than planned, or a device error.
    pub fn generate(
        &self,
        engine: &Engine,
        memory: &Memory,
        prompt: &[u32],
        count: usize,
        sampling: &Sampling,
        mut on_token: impl FnMut(u32) -> Result<bool>,
    ) -> Result<()> {
        sampling.validate()?;
        let mut context = prompt.to_vec();
        let mut logits = self.feed(engine, memory, &self.prompt, &context, 0)?;
        let mut position = self.prompt.0;
        for drawn in 0..count {
            let token = sampling.draw(&logits, drawn as u64);
            context.push(token);
            if !on_token(token)? || drawn + 1 == count {
                break;
            }
            if position < self.capacity {
                logits = self.feed(engine, memory, &self.single, &context, position)?;
                position += 1;
            } else {
                logits = self.feed(engine, memory, &self.refill, &context, 0)?;
                position = self.refill.0;
            }
        }
        Ok(())
    }

    /// Logits after the last rows of `context`, which stand at `position`.
    fn feed(
        &self,
        engine: &Engine,
        memory: &Memory,
        (rows, program): &(usize, Program),
        context: &[u32],
        position: usize,
    ) -> Result<Vec<f32>> {
        let first = context
            .len()
            .checked_sub(*rows)
            .ok_or_else(|| Error::defect(format!("a prompt of {} tokens where {rows} were planned", context.len())))?;
        feed_chunk(engine, memory, program, context.get(first..).unwrap_or_default(), position)
    }
}

/// Runs one chunk program on `tokens` at `position` and reads the logits of its last row.
pub fn feed_chunk(
    engine: &Engine,
    memory: &Memory,
    program: &Program,
    tokens: &[u32],
    position: usize,
) -> Result<Vec<f32>> {
    engine.write(memory.named(&graphs::chunk_tokens(tokens.len()))?, tokens);
    engine.write(memory.named(CHUNK_RUN)?, &[position as u32, 0, 0, 0]);
    engine.run(program)?;
    engine.read(memory.named(LAST_LOGITS)?)
}
