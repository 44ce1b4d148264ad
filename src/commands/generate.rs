//! `tokenformer generate`: text from a checkpoint, printed as it comes.

use super::answer::Answer;
use super::prompt::PromptArgs;
use super::stop::StopText;
use super::weights::Taken;
use crate::console::note;
use crate::data::{StreamDecoder, Tokenizer};
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::model::sample::Sampling;
use crate::runtime::device::Device;
use crate::runtime::generate::GeneratorPlans;
use crate::runtime::memory::Memory;
use crate::train::trainer::{upload_parameters, upload_rope};
use crate::tune;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Between two samples.
const RULE: &str = "---\n";

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Run directory or checkpoint file.
    #[arg(value_name = "RUN|FILE")]
    checkpoint: PathBuf,
    #[command(flatten)]
    choice: super::Choice,
    #[command(flatten)]
    weights: super::weights::WeightsArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    /// Tokens to generate.
    #[arg(short = 'n', long, default_value_t = 300, value_parser = super::whole::<usize>)]
    tokens: usize,
    /// Texts to generate, one after the other, with seeds that follow --seed.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::counted::<u64>)]
    num_samples: u64,
    /// End a text where this one comes, which is not printed (repeatable).
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// End a text at the token that ends a text, <|endoftext|> or its like, which is not printed.
    #[arg(long)]
    stop_at_eos: bool,
    /// Divides the logits; 0 takes the most likely token.
    #[arg(long, default_value_t = 0.8, value_parser = super::number)]
    temperature: f64,
    /// Keep only the k most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 0, value_parser = super::whole::<usize>)]
    top_k: usize,
    /// Keep only the most likely tokens that reach this probability together.
    #[arg(long, default_value_t = 1.0, value_parser = super::number)]
    top_p: f64,
    /// Keep only tokens at least this share as likely as the most likely one; 0 keeps all.
    #[arg(long, default_value_t = 0.0, value_parser = super::number)]
    min_p: f64,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0, value_parser = super::whole::<u64>)]
    seed: u64,
}

/// Generates.
///
/// # Errors
/// A checkpoint without a tokenizer, a prompt it cannot encode, bad sampling settings, device errors.
pub(crate) fn run(request: &AdapterRequest, args: &GenerateArgs) -> Answer {
    let GenerateArgs { temperature, top_k, top_p, min_p, seed, .. } = *args;
    let sampling = Sampling { temperature, top_k, top_p, min_p, seed };
    sampling.validate()?;
    if args.stop.iter().any(String::is_empty) {
        return Err(Error::usage("--stop is empty: give the text that ends a generation, or leave it out"));
    }
    let super::Loaded { path, start, config, tokenizer, .. } = super::load(&args.checkpoint, args.choice)?;
    let tokenizer = tokenizer.ok_or_else(|| {
        Error::input(format!(
            "{} was trained on token shards and has no tokenizer, so there is no text to print; train on text instead",
            path.display()
        ))
    })?;
    let eos = tokenizer.end_of_text().filter(|_| args.stop_at_eos);
    if args.stop_at_eos && eos.is_none() {
        return Err(Error::usage(format!(
            "--stop-at-eos needs a token that ends a text, which the tokenizer of {} ({}) has not: leave it out, or end a text \
             with --stop",
            path.display(),
            tokenizer.describe()
        )));
    }
    let model = &start.host.model;
    let prompt = args.prompt.tokens(&tokenizer, model.seq_length)?;
    let Device { engine, kernels, .. } = super::open_device(request)?;
    // No timing for one use; what is known is used.
    let kernels = tune::recall(&engine, &kernels);
    let plans = GeneratorPlans::new(model, prompt.len(), &kernels)?;
    let (memory, programs) = Memory::allocate(&engine, &plans.plans.iter().collect::<Vec<_>>())?;
    let programs = programs.try_into().map_err(|_| Error::defect("plans and programs differ in number"))?;
    let generator = plans.ready(programs);
    upload_rope(&engine, &memory, model)?;
    let (weights, taken) = args.weights.of(&start.host);
    upload_parameters(&engine, &memory, model, weights)?;
    if let Some(taken) = taken {
        note(format_args!("weights: {}", taken.said(&config)));
    }

    let (mut samples, mut tokens, started) = (Vec::new(), 0_u64, Instant::now());
    for sample in 0..args.num_samples {
        if sample > 0 {
            super::print(RULE)?;
        }
        let sampling = Sampling { seed: seed.wrapping_add(sample), ..sampling };
        let mut text = Printed::new(&tokenizer, &args.stop);
        text.out.print(&tokenizer.decode_prompt(&prompt))?;
        generator.generate(&engine, &memory, &prompt, args.tokens, &sampling, |token| {
            tokens += 1;
            if eos == Some(token) {
                text.stopped = true;
                return Ok(false);
            }
            text.push(token)
        })?;
        let (text, stopped) = text.finish()?;
        samples.push(json!({ "seed": sampling.seed, "text": text, "stopped": stopped }));
    }
    let seconds = started.elapsed().as_secs_f64();
    let per_second = tokens as f64 / seconds;
    let last = seed.wrapping_add(args.num_samples.saturating_sub(1));
    let seeds = if last == seed { format!("seed {seed}") } else { format!("seeds {seed} to {last}") };
    note(format_args!("{seeds}: {tokens} tokens in {seconds:.2} s, {per_second:.0} tokens/s"));
    Ok(json!({
        "checkpoint": path,
        "weights": taken.map(Taken::name),
        "prompt": tokenizer.decode_prompt(&prompt),
        "prompt_tokens": prompt.len(),
        "samples": samples,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": per_second,
    }))
}

/// A generated text on its way to standard output.
struct Printed<'a> {
    decoder: StreamDecoder<'a>,
    stop: StopText<'a>,
    out: super::Pieces,
    text: String,
    stopped: bool,
}

impl<'a> Printed<'a> {
    fn new(tokenizer: &'a Tokenizer, stops: &'a [String]) -> Self {
        let (decoder, stop) = (StreamDecoder::new(tokenizer), StopText::new(stops));
        Self { decoder, stop, out: super::Pieces::default(), text: String::new(), stopped: false }
    }

    /// Prints what `token` completes; false at the end.
    fn push(&mut self, token: u32) -> Result<bool> {
        let come = self.decoder.push(token);
        self.show(&come)?;
        Ok(!self.stopped)
    }

    fn show(&mut self, come: &str) -> Result<()> {
        let (text, stopped) = self.stop.push(come);
        self.stopped |= stopped;
        self.text += &text;
        self.out.print(&text)
    }

    /// Prints what is left, and the end of the line: the text, and whether it was stopped.
    fn finish(mut self) -> Result<(String, bool)> {
        if !self.stopped {
            let left = self.decoder.finish();
            self.show(&left)?;
        }
        let held = if self.stopped { String::new() } else { self.stop.finish() };
        self.out.end(&format!("{held}\n"))?;
        Ok((self.text + &held, self.stopped))
    }
}
