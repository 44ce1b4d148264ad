//! `tokenformer inspect`: what is in a checkpoint, and whether it is whole. Needs no GPU.

use super::answer::{Answer, value};
use crate::checkpoint::{FileDigest, Verified, list_tensors, read_meta, verify};
use crate::config::RunConfig;
use crate::console::{legible, warn};
use crate::train::{Meta, Store};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Run directory or checkpoint file.
    #[arg(value_name = "RUN|FILE")]
    checkpoint: PathBuf,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
}

/// Prints configuration, parameters and lineage, then compares all of the file with its checksums.
///
/// # Errors
/// A file that is not a checkpoint, or is damaged.
pub(crate) fn run(args: &InspectArgs) -> Answer {
    let checkpoint = super::run_dir::of(&args.checkpoint);
    let (path, verdict) = if checkpoint.is_dir() {
        let latest = Store::new(&checkpoint).newest(&verify)?;
        latest.warnings.iter().for_each(|warning| warn(warning));
        let (path, verdict) = latest.found.ok_or_else(|| super::no_checkpoint(&checkpoint))?;
        (path, Some(verdict))
    } else {
        (checkpoint, None)
    };
    let (meta, tensors) = (read_meta::<Meta>(&path)?, list_tensors(&path)?);
    let config: RunConfig = meta.config()?;
    let moments = tensors.iter().filter(|t| t.name.starts_with("optimizer.")).count();
    let mut text = format!("{}\n", path.display());
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<16}{}\n", legible(&value)));
    line("written by", format!("{} on {}", meta.created_by, meta.adapter));
    line("step", format!("{} ({} tokens)", meta.step, meta.tokens_seen));
    line("data", format!("{}, next batch {}", meta.data.description, meta.data.next_batch));
    if let Some(best) = meta.best_val_loss {
        line("best val loss", format!("{best:.4} nats/token"));
    }
    line("parameters", config.model.param_count().to_string());
    line("tensors", format!("{} parameters, {moments} optimizer moments", tensors.len() - moments));
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
    let (checked, said) = match verdict.map_or_else(|| verify(&path), Ok)? {
        Verified::Intact => ("intact", "\nall of the file matches its checksums\n"),
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
        "parameters": config.model.param_count(),
        "tensors": tensors.len() - moments,
        "moments": moments,
        "lineage": value(&meta.lineage)?,
        "config": value(&config)?,
        "checked": checked,
    }))
}
