//! `tokenformer generate`: text from a checkpoint, printed as it comes.

use crate::data::StreamDecoder;
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::model::sample::Sampling;
use crate::runtime::device::Device;
use crate::runtime::generate::GeneratorPlans;
use crate::runtime::memory::Memory;
use crate::train::trainer::{upload_parameters, upload_rope};
use crate::tune;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Run directory or checkpoint file.
    #[arg(value_name = "RUN|FILE")]
    checkpoint: PathBuf,
    #[command(flatten)]
    choice: super::Choice,
    /// Text to continue; by default a line break, or the first token of a tokenizer that knows none.
    #[arg(long)]
    prompt: Option<String>,
    /// Tokens to generate.
    #[arg(long, default_value_t = 300, value_parser = super::whole::<usize>)]
    tokens: usize,
    /// Divides the logits; 0 takes the most likely token.
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// Keep only the k most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 0, value_parser = super::whole::<usize>)]
    top_k: usize,
    /// Keep only the most likely tokens that reach this probability together.
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0, value_parser = super::whole::<u64>)]
    seed: u64,
}

/// Generates.
///
/// # Errors
/// A checkpoint without a tokenizer, a prompt it cannot encode, bad sampling settings, device errors.
pub(crate) fn run(request: &AdapterRequest, args: &GenerateArgs) -> Result<()> {
    let sampling = Sampling { temperature: args.temperature, top_k: args.top_k, top_p: args.top_p, seed: args.seed };
    sampling.validate()?;
    let super::Loaded { path, start, tokenizer, .. } = super::load(&args.checkpoint, args.choice)?;
    let tokenizer = tokenizer.ok_or_else(|| {
        Error::input(format!(
            "{} was trained on token shards and has no tokenizer, so there is no text to print; train on text instead",
            path.display()
        ))
    })?;
    let prompt = match &args.prompt {
        Some(text) => tokenizer.encode(text).map_err(|e| Error::input(format!("--prompt: {e}")))?,
        None => tokenizer.usual_prompt(),
    };
    if prompt.is_empty() {
        return Err(Error::usage("--prompt is empty: give at least one character, such as a line break"));
    }
    let Device { engine, kernels } = super::open_device(request)?;
    // No timing for one use; what is known is used.
    let kernels = tune::recall(&engine, &kernels);
    let model = &start.host.model;
    let plans = GeneratorPlans::new(model, prompt.len(), &kernels)?;
    let (memory, programs) = Memory::allocate(&engine, &plans.plans.iter().collect::<Vec<_>>())?;
    let programs = programs.try_into().map_err(|_| Error::defect("plans and programs differ in number"))?;
    let generator = plans.ready(programs);
    upload_rope(&engine, &memory, model)?;
    upload_parameters(&engine, &memory, model, &start.host.params)?;

    super::print_text(&tokenizer.decode(&prompt))?;
    let mut decoder = StreamDecoder::new(&tokenizer);
    generator.generate(&engine, &memory, &prompt, args.tokens, &sampling, |token| {
        super::print_text(&decoder.push(token))?;
        Ok(true)
    })?;
    super::print_text(&format!("{}\n", decoder.finish()))
}
