//! `tokenformer eval`: loss, perplexity and bits per byte of a checkpoint over a whole split.

use super::answer::Answer;
use super::changed::{Split, tell_of_change};
use super::weights::Taken;
use crate::config::RunConfig;
use crate::console::Parts;
use crate::data::{EvalBatch, IGNORED, all_windows, describe, has_split, not_there, unreadable};
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::train::disk;
use crate::train::evaluate::{ByteCount, Evaluator};
use crate::tune;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Run directory or checkpoint file.
    #[arg(value_name = "RUN|FILE")]
    checkpoint: PathBuf,
    #[command(flatten)]
    choice: super::Choice,
    #[command(flatten)]
    weights: super::weights::WeightsArgs,
    /// Evaluate on all of this file, or on the validation part that a directory says it has, instead of the data of the run;
    /// with --split on that part of it.
    #[arg(short, long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Which part of the data of the run, by default `val`.
    #[arg(long, value_enum)]
    split: Option<Split>,
}

/// Evaluates over non-overlapping windows that cover the split.
///
/// # Errors
/// Data that does not fit the checkpoint's tokenizer or vocabulary; device errors.
pub(crate) fn run(request: &AdapterRequest, args: &EvalArgs) -> Answer {
    let super::Loaded { path, start, mut config, tokenizer, meta, .. } = super::load(&args.checkpoint, args.choice)?;
    let evaluated = args.narrow(&mut config)?;
    let model = &start.host.model;
    args.find(&config)?;
    let data = disk::dataset_to_measure(&config, tokenizer)?;
    let whole = config.data.path.is_some() && config.data.path == config.data.val_path;
    let source = if args.split == Some(Split::Train) && !whole { &data.train } else { &data.val };
    let evaluated = evaluated.unwrap_or_else(|| format!("the {} split of the {}", args.split(), data.description));
    // All of another file is meant to be others.
    let compared = args.data.is_none() || args.split.is_some();
    let changed = if compared { tell_of_change(&meta.data, source, args.split(), &evaluated)? } else { None };
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
    let (weights, taken) = args.weights.of(&start.host);
    probe.load(weights)?;

    let (mut nats, mut counts) = (0.0, ByteCount::default());
    let windows = all_windows(source, config.train.batch_size, model.seq_length)?;
    let mut parts = Parts::new("evaluating, batches", windows.len());
    for (done, window) in windows.enumerate() {
        parts.done(done);
        let EvalBatch { mut batch, counted } = window?;
        for (target, _) in batch.targets.iter_mut().zip(counted).filter(|(_, counted)| !counted) {
            *target = IGNORED;
        }
        counts.add(&batch, data.tokenizer.as_ref());
        nats += probe.loss(&batch)? * batch.tokens.len() as f64;
    }
    drop(parts);
    let tokens = counts.tokens;
    let loss = nats / tokens.max(1) as f64;
    let bits_per_byte = counts.bits(loss);
    let mut text = taken.map_or_else(String::new, |taken| format!("weights         {}\n", taken.said(&config)));
    text.push_str(&format!("data            {evaluated}\n"));
    text.push_str(&format!("tokens          {tokens}\nloss            {loss:.4} nats/token\n"));
    text.push_str(&format!("perplexity      {:.3}\n", loss.exp()));
    if let Some(bits) = bits_per_byte {
        text.push_str(&format!("bits per byte   {bits:.4}\n"));
    }
    super::print(&text)?;
    Ok(json!({
        "checkpoint": path,
        "step": meta.step,
        "weights": taken.map(Taken::name),
        "data": evaluated,
        "data_changed": changed,
        "tokens": tokens,
        "loss": loss,
        "perplexity": loss.exp(),
        "bits_per_byte": bits_per_byte,
    }))
}

impl EvalArgs {
    fn split(&self) -> Split {
        self.split.unwrap_or(Split::Val)
    }

    /// The data of the run are where it found them: of another file only the same part is what they were.
    fn find(&self, config: &RunConfig) -> Result<()> {
        let Some(path) = config.data.path.as_ref().filter(|_| self.data.is_none()) else { return Ok(()) };
        let split = if self.split() == Split::Train { "train" } else { "val" };
        let remedy = format!("name the data of the run where they are now with --data FILE --split {split}");
        not_there(path).map_or(Ok(()), |cause| Err(unreadable("read", path, &cause, &remedy)))
    }

    /// Leaves in `config` the one file that is evaluated on; what it is in words, where it is not a part of the data.
    fn narrow(&self, config: &mut RunConfig) -> Result<Option<String>> {
        let data = &mut config.data;
        let own = data.val_path.is_some();
        let described = data.path.as_deref().map(|path| describe(path, data.val_path.as_deref()));
        let file = match (&self.data, self.split()) {
            (Some(path), _) => Some(path.clone()),
            (None, Split::Val) if own => data.val_path.clone(),
            (None, Split::Train) if own => data.path.clone(),
            (None, _) => None,
        };
        let Some(file) = file else { return Ok(None) };
        if self.data.is_some() && self.split.is_some() && !own {
            // A part of a file that took the place of another.
            data.name(Some(file), None);
            return Ok(None);
        }
        if self.data.is_some() && has_split(&file) {
            // Which part of it is validated on is said there.
            data.name(Some(file), None);
            return Ok(None);
        }
        let words = match &self.data {
            Some(path) => format!("all of {}", path.display()),
            None => format!("the {} split of the {}", self.split(), described.unwrap_or_default()),
        };
        // As its own validation data a file is not split; what has a split of its own has the part that is asked for.
        let val_path = Some(file.clone()).filter(|file| !has_split(file));
        data.name(Some(file), val_path);
        Ok(Some(words))
    }
}
