//! Logits of a model that is not in training: for `grow` on a file, and for comparing checkpoints.

use super::trainer::{upload_parameters, upload_rope};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::gpu::engine::Engine;
use crate::graph::memory::Memory;
use crate::graph::plan::{Limits, Plan};
use crate::model::graphs;
use crate::model::init::Tensors;

/// Logits (tokens, vocab_size) of one sequence of at most `seq_length` tokens.
pub fn logits(engine: &Engine, model: &ModelConfig, params: &Tensors, tokens: &[u32]) -> Result<Vec<f32>> {
    let choices = &engine.choices();
    let graph = graphs::logits(model, 1, tokens.len(), false, choices)?;
    let plan = Plan::new(&graph, &Limits::of(&engine.gpu))?;
    let (memory, programs) = Memory::allocate(engine, &[&plan])?;
    upload_rope(engine, &memory, model)?;
    upload_parameters(engine, &memory, model, params)?;
    engine.write(memory.named(&graphs::chunk_tokens(tokens.len()))?, tokens);
    for program in &programs {
        engine.run(program)?;
    }
    engine.read(memory.named(graphs::LOGITS)?)
}

/// Mean cross-entropy of the next token, nats, from full logits of one sequence.
pub fn mean_loss(logits: &[f32], tokens: &[u32], vocab: usize) -> f64 {
    let rows = logits.chunks(vocab).zip(tokens.iter().skip(1));
    let (mut sum, mut count) = (0.0, 0);
    for (row, &target) in rows {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let total: f64 = row.iter().map(|&x| f64::from(x - largest).exp()).sum();
        sum += total.ln() - f64::from(row.get(target as usize).copied().unwrap_or(f32::MIN) - largest);
        count += 1;
    }
    sum / f64::from(count.max(1))
}
