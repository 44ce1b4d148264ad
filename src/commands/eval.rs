//! `tokenformer eval`: loss, perplexity and bits per byte of a checkpoint over a whole split.

use crate::data::all_windows;
use crate::error::Result;
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::kernel::MatmulKernel;
use crate::graph::memory::Memory;
use crate::graph::plan::{Limits, Plan};
use crate::model::graphs::{self, BatchShape};
use crate::ops::cross_entropy::IGNORED;
use crate::train::state::{self, Start};
use crate::train::trainer::{upload_parameters, upload_rope};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Run directory or checkpoint file.
    #[arg(value_name = "RUN|FILE")]
    checkpoint: PathBuf,
    /// Evaluate on this file instead of the data of the run.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Which part of the data.
    #[arg(long, value_enum, default_value_t = Split::Val)]
    split: Split,
}

/// Part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Split {
    /// What the model was trained on.
    Train,
    /// What it was not.
    Val,
}

/// Evaluates over non-overlapping windows that cover the split.
///
/// # Errors
/// Data that does not fit the checkpoint's tokenizer or vocabulary; device errors.
pub fn run(request: &AdapterRequest, args: &EvalArgs) -> Result<()> {
    let (_, checkpoint) = super::load(&args.checkpoint)?;
    let tokenizer = state::tokenizer(&checkpoint.meta)?;
    let (start, mut config) = Start::resumed(checkpoint)?;
    if let Some(path) = &args.data {
        config.data.path = Some(path.clone());
        config.data.val_path = None;
    }
    let data = state::dataset(&config, tokenizer)?;
    let source = if args.split == Split::Val { &data.val } else { &data.train };
    let model = &start.host.model;

    let engine = super::open_engine(request)?;
    let shape = BatchShape {
        batch: config.train.batch_size,
        seq: model.seq_length,
        grad_accum: 1,
        chunk_rows: config.train.loss_chunk_rows,
    };
    let graph = graphs::evaluation(model, &shape, MatmulKernel::for_adapter(engine.gpu.software))?;
    let plan = Plan::new(&graph, &Limits::of(&engine.gpu))?;
    let (memory, programs) = Memory::allocate(&engine, &[&plan])?;
    upload_rope(&engine, &memory, model)?;
    upload_parameters(&engine, &memory, model, &start.host.params, str::to_string)?;
    let stats = memory.named(graphs::EVAL_STATS)?;

    let (mut nats, mut tokens, mut bytes) = (0.0, 0_u64, 0_u64);
    for window in all_windows(source, shape.batch, shape.seq)? {
        let window = window?;
        let target = |(&t, &counted): (&u32, &bool)| if counted { t } else { IGNORED };
        let targets: Vec<u32> = window.batch.targets.iter().zip(&window.counted).map(target).collect();
        for &t in targets.iter().filter(|t| **t != IGNORED) {
            tokens += 1;
            bytes += data.tokenizer.as_ref().map_or(0, |tokenizer| tokenizer.bytes_of(t)) as u64;
        }
        engine.write(memory.named(graphs::TOKENS)?, &window.batch.tokens);
        engine.write(memory.named(graphs::TARGETS)?, &targets);
        engine.write(stats, &[0.0_f32]);
        for program in &programs {
            engine.run(program)?;
        }
        nats += f64::from(engine.read(stats)?.first().copied().unwrap_or(f32::NAN)) * shape.rows() as f64;
    }
    let loss = nats / tokens.max(1) as f64;
    let mut text = format!("tokens          {tokens}\nloss            {loss:.4} nats/token\n");
    text.push_str(&format!("perplexity      {:.3}\n", loss.exp()));
    if bytes > 0 {
        text.push_str(&format!("bits per byte   {:.4}\n", nats / std::f64::consts::LN_2 / bytes as f64));
    }
    super::print(&text)
}
