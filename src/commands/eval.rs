//! `tokenformer eval`: loss, perplexity and bits per byte of a checkpoint over a whole split.

use crate::data::{EvalBatch, all_windows};
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::ops::cross_entropy::IGNORED;
use crate::train::disk;
use crate::train::evaluate::Evaluator;
use crate::tune;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Run directory or checkpoint file.
    #[arg(value_name = "RUN|FILE")]
    checkpoint: PathBuf,
    #[command(flatten)]
    choice: super::Choice,
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
pub(crate) fn run(request: &AdapterRequest, args: &EvalArgs) -> Result<()> {
    let super::Loaded { start, mut config, tokenizer, .. } = super::load(&args.checkpoint, args.choice)?;
    if let Some(path) = &args.data {
        // As its own validation data a file is not split.
        (config.data.path, config.data.val_path) = (Some(path.clone()), Some(path.clone()));
    }
    let model = &start.host.model;
    let data = disk::dataset_of_trained(&config, tokenizer)?;
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

    let mut device = super::open_device(request)?;
    // No timing for one use; what is known is used.
    device.kernels = tune::recall(&device.engine, &device.kernels);
    let probe = Evaluator::new(&device, model, &config.train)?;
    probe.load(&start.host.params)?;

    let (mut nats, mut tokens, mut bytes) = (0.0, 0_u64, 0_u64);
    for window in all_windows(source, config.train.batch_size, model.seq_length)? {
        let EvalBatch { mut batch, counted } = window?;
        for (target, _) in batch.targets.iter_mut().zip(counted).filter(|(_, counted)| !counted) {
            *target = IGNORED;
        }
        for &t in batch.targets.iter().filter(|t| **t != IGNORED) {
            tokens += 1;
            bytes += data.tokenizer.as_ref().map_or(0, |tokenizer| tokenizer.bytes_of(t)) as u64;
        }
        nats += probe.loss(&batch)? * batch.tokens.len() as f64;
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
