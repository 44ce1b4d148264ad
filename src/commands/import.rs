//! `tokenformer import`: a model of another program as a checkpoint of this one. The input is only read. Needs no GPU.

use super::answer::{Answer, value};
use crate::config::TokenizerKind;
use crate::console::{note, slowly};
use crate::data::Tokenizer;
use crate::exchange::{Imported, Options, open};
use crate::report::{number, shell};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Directory of a GPT-NeoX or Pythia model, published weights of a TokenFormer (.bin, .pt or .safetensors), or a checkpoint
    /// of this program that another one changed.
    #[arg(value_name = "DIR|FILE")]
    input: PathBuf,
    /// File to write.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Attention heads, where no file says how many.
    #[arg(long, value_name = "N", value_parser = super::counted::<usize>)]
    heads: Option<usize>,
    /// Tokens of a sequence, by default as many as the model was made for.
    #[arg(long, value_name = "N", value_parser = super::counted::<usize>)]
    seq_length: Option<usize>,
    /// Tokenizer that the model was trained with, by default the tokenizer.json beside the weights: a tokenizer.json, byte, gpt2,
    /// cl100k or o200k.
    #[arg(long, value_name = "KIND|FILE")]
    tokenizer: Option<TokenizerKind>,
}

/// Looks at the model, says what no file says of it, and writes it.
///
/// # Errors
/// An output that exists, files that are no model of this program or cannot be read.
pub(crate) fn run(args: &ImportArgs) -> Answer {
    super::check_output("import", &args.output)?;
    let ImportArgs { heads, seq_length, tokenizer, .. } = args;
    let options = Options { heads: *heads, seq_length: *seq_length, tokenizer: tokenizer.clone() };
    let imported = open(&args.input, &options)?;
    imported.assumed().iter().for_each(|sentence| note(format_args!("{sentence}")));
    if imported.tokenizer().is_none() {
        note("there is no tokenizer.json: without one the model takes token shards only; give one with --tokenizer");
    }
    let model = imported.model();
    let size = number::bytes(model.param_count().saturating_mul(4));
    let import = slowly(&format!("writing {size}"), || imported.write(&args.output))?;
    super::print(&describe(args, &imported))?;
    Ok(json!({
        "input": args.input,
        "output": args.output,
        "form": imported.form(),
        "parameters": model.param_count(),
        "model": value(model)?,
        "tokenizer": imported.tokenizer().map(Tokenizer::describe),
        "assumed": imported.assumed(),
        "files": value(&import.files)?,
    }))
}

fn describe(args: &ImportArgs, imported: &Imported) -> String {
    let model = imported.model();
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<16}{value}\n"));
    line("imported", format!("{} as {}", args.input.display(), imported.form()));
    line(
        "model",
        format!(
            "{:?}, {} layers x {}, {} heads, {} rows of vocabulary",
            model.arch, model.num_layers, model.hidden_size, model.num_attention_heads, model.vocab_size
        ),
    );
    line("parameters", model.param_count().to_string());
    line("tokenizer", imported.tokenizer().map_or_else(|| "none".to_owned(), Tokenizer::describe));
    line("written to", args.output.display().to_string());
    let output = shell::word(&args.output);
    line("next", format!("tokenformer train --resume {output} --data FILE --steps N"));
    text
}
