//! `tokenformer eval`: loss, perplexity and bits per byte of a checkpoint over a whole split.

use super::answer::Answer;
use crate::data::{EvalBatch, all_windows};
use crate::error::{Error, tell};
use crate::gpu::adapter::AdapterRequest;
use crate::ops::cross_entropy::IGNORED;
use crate::train::disk;
use crate::train::evaluate::Evaluator;
use crate::tune;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often an evaluation says how far it is.
const EVERY: Duration = Duration::from_secs(5);

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Run directory or checkpoint file.
    #[arg(value_name = "RUN|FILE")]
    checkpoint: PathBuf,
    /// Evaluate on all of this file instead of the data of the run.
    #[arg(short, long, value_name = "FILE")]
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
pub(crate) fn run(request: &AdapterRequest, args: &EvalArgs) -> Answer {
    let super::Loaded { path, meta, start, mut config, tokenizer } = super::load(&args.checkpoint)?;
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
    let windows = all_windows(source, config.train.batch_size, model.seq_length)?;
    let (batches, mut told) = (windows.len(), Instant::now());
    for (done, window) in windows.enumerate() {
        if told.elapsed() >= EVERY {
            told = Instant::now();
            let (share, loss) = (100 * done / batches.max(1), nats / tokens.max(1) as f64);
            tell(format_args!("eval: {share} % of {} tokens, loss {loss:.4} so far", source.len()));
        }
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
    super::print(&text)?;
    let bits_per_byte = (bytes > 0).then(|| nats / std::f64::consts::LN_2 / bytes as f64);
    Ok(json!({
        "checkpoint": path,
        "step": meta.step,
        "data": evaluated,
        "tokens": tokens,
        "loss": loss,
        "perplexity": loss.exp(),
        "bits_per_byte": bits_per_byte,
    }))
}
