//! `tokenformer eval`: loss, perplexity and bits per byte of a checkpoint over a whole split.

use crate::data::all_windows;
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::kernel::Dtype;
use crate::graph::memory::Memory;
use crate::graph::plan::{Limits, Plan};
use crate::model::graphs::{self, BatchShape};
use crate::ops::cross_entropy::IGNORED;
use crate::ops::matmul::tune;
use crate::train::state;
use crate::train::trainer::{upload_parameters, upload_rope};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Run directory or checkpoint file.
    #[arg(value_name = "RUN|FILE")]
    checkpoint: PathBuf,
    /// Evaluate on all of this file instead of the data of the run.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Which part of the data of the run.
    #[arg(long, value_enum, default_value_t = Split::Val, conflicts_with = "data")]
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
    let super::Loaded { start, mut config, tokenizer, .. } = super::load(&args.checkpoint)?;
    if let Some(path) = &args.data {
        // As its own validation data a file is not split.
        (config.data.path, config.data.val_path) = (Some(path.clone()), Some(path.clone()));
    }
    let model = &start.host.model;
    let data = state::dataset_of_trained(&config, tokenizer)?;
    let (source, evaluated) = match (&args.data, args.split) {
        (Some(path), _) => (&data.val, format!("all of {}", path.display())),
        (None, Split::Val) => (&data.val, format!("the validation split of the {}", data.description)),
        (None, Split::Train) => (&data.train, format!("the training split of the {}", data.description)),
    };
    if source.len() <= model.seq_length {
        return Err(Error::input(format!(
            "{evaluated} is {} tokens, but seq_length {} needs at least {}: evaluate on more with --data",
            source.len(),
            model.seq_length,
            model.seq_length + 1
        )));
    }

    let engine = super::open_engine(request)?;
    // No timing for one use; what is known is used.
    tune::recall(&engine);
    let shape = BatchShape {
        batch: config.train.batch_size,
        seq: model.seq_length,
        grad_accum: 1,
        chunk_rows: config.train.loss_chunk_rows,
        recompute: false,
        precision: Dtype::F32,
    };
    let graph = graphs::evaluation(model, &shape, &engine.choices())?;
    let plan = Plan::new(&graph, &Limits::of(&engine.gpu))?;
    let (memory, programs) = Memory::allocate(&engine, &[&plan])?;
    upload_rope(&engine, &memory, model)?;
    upload_parameters(&engine, &memory, model, &start.host.params)?;
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
    let mut text = format!("data            {evaluated}\n");
    text.push_str(&format!("tokens          {tokens}\nloss            {loss:.4} nats/token\n"));
    text.push_str(&format!("perplexity      {:.3}\n", loss.exp()));
    if bytes > 0 {
        text.push_str(&format!("bits per byte   {:.4}\n", nats / std::f64::consts::LN_2 / bytes as f64));
    }
    super::print(&text)
}
