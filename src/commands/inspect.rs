//! `tokenformer inspect`: what is in a checkpoint, and whether it is whole. Needs no GPU.

use super::answer::{Answer, value};
use super::run_dir;
use crate::checkpoint::{Examined, FileDigest, Verified, examine};
use crate::config::RunConfig;
use crate::console::legible;
use crate::data::{Tokenizer, prepared_directory};
use crate::train::{Meta, Store};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Run directory, checkpoint file, or directory of `prepare`.
    #[arg(value_name = "RUN|FILE|DATA")]
    checkpoint: PathBuf,
    /// Of a run, show the checkpoint with the lowest validation loss and not the newest.
    #[arg(long)]
    best: bool,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
}

/// Prints configuration, parameters and lineage, then compares all of the file with its checksums.
///
/// # Errors
/// A file that is not a checkpoint, or is damaged.
pub(crate) fn run(args: &InspectArgs) -> Answer {
    if let Some(dir) = prepared_directory(&args.checkpoint) {
        return super::inspect_data::run(&dir);
    }
    let given = run_dir::of(&args.checkpoint);
    let whole = |path: &Path| {
        let mut examined = examine::<Meta>(path)?;
        examined.verified = Ok(examined.verified?);
        Ok((examined.meta.step, examined))
    };
    let choice = super::Choice { best: args.best, accept_unverified: false };
    let dir = given.is_dir();
    let (path, Examined { meta, tensors, verified }) = match choice.best_of(&given)? {
        Some(best) => (best.clone(), examine(&best)?),
        None if dir => super::newest(&given, &whole)?,
        None => (given.clone(), examine(&given)?),
    };
    let config: RunConfig = meta.config()?;
    let tokenizer = meta.tokenizer()?;
    let sha256 = tokenizer.as_ref().map(Tokenizer::sha256).transpose()?;
    let under = |prefix: &str| tensors.iter().filter(|t| t.name.starts_with(prefix)).count();
    let averages = under("optimizer.ema.");
    let moments = under("optimizer.") - averages;
    let parameters = tensors.len() - moments - averages;
    let mut text = format!("{}\n", path.display());
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<16}{}\n", legible(&value)));
    line("written by", format!("{} on {}", meta.created_by, meta.adapter));
    if let Some(tokenizer) = &tokenizer {
        line("tokenizer", tokenizer.describe());
    }
    line("step", format!("{} ({} tokens)", meta.step, meta.tokens_seen));
    line("data", format!("{}, next batch {}", meta.data.description, meta.data.next_batch));
    if let Some(best) = meta.best_val_loss {
        let at = meta.best_step.map_or_else(String::new, |step| format!(" at step {step}"));
        line("best val loss", format!("{best:.4} nats/token{at}"));
        if let Some(file) = Some(Store::new(&given).best()).filter(|file| dir && file.exists()) {
            line("best checkpoint", file.display().to_string());
        }
    }
    line("parameters", config.model.param_count().to_string());
    let averaged = if averages > 0 { format!(", {averages} averages of parameters") } else { String::new() };
    line("tensors", format!("{parameters} parameters, {moments} optimizer moments{averaged}"));
    if let Some(import) = &meta.imported {
        line("lineage", import.describe());
        for FileDigest { name, sha256 } in &import.files {
            line("  of", format!("{name}, sha256 {sha256}"));
        }
    }
    for record in &meta.lineage {
        line("lineage", record.describe());
        if let Some(FileDigest { name, sha256 }) = &record.file_before {
            line("  before it", format!("{name}, sha256 {sha256}"));
        }
    }
    text.push_str(&format!("\n{}", config.to_toml()?));
    if args.tensors {
        text.push('\n');
        for t in &tensors {
            text.push_str(&format!("{:<60} {:<5} {:?}\n", legible(&t.name), t.dtype, t.shape));
        }
    }
    super::print(&text)?;
    // Last, because what could be read of a damaged file is worth seeing.
    let (checked, said) = match verified? {
        Verified::Intact => ("intact", "\nall of the file matches its checksums\n"),
        Verified::SavedAgain => (
            "saved again",
            "\nanother program saved the file again: all of it matches the checksums it was written with\n",
        ),
        Verified::NoChecksums => {
            ("no checksums", "\nthe file has no checksums (format 1): damage to tensors could not be seen\n")
        }
    };
    super::print(said)?;
    Ok(json!({
        "checkpoint": path,
        "created_by": meta.created_by,
        "adapter": meta.adapter,
        "step": meta.step,
        "tokens_seen": meta.tokens_seen,
        "data": meta.data.description,
        "best_val_loss": meta.best_val_loss,
        "best_step": meta.best_step,
        "tokenizer": tokenizer.as_ref().map(|it| json!({
            "description": it.describe(), "tokens": it.vocab_size(), "sha256": sha256,
        })),
        "parameters": config.model.param_count(),
        "tensors": parameters,
        "moments": moments,
        "averages": averages,
        "imported": value(&meta.imported)?,
        "lineage": value(&meta.lineage)?,
        "config": value(&config)?,
        "checked": checked,
    }))
}
