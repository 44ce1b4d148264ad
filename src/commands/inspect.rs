//! `tokenformer inspect`: what is in a checkpoint, and whether it is whole. Needs no GPU.

use crate::checkpoint::{FileDigest, Verified, list_tensors, read_meta, verify};
use crate::config::RunConfig;
use crate::console::{legible, warn};
use crate::error::Result;
use crate::train::{Meta, Store};
use clap::Args;
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
pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let (path, verdict) = if args.checkpoint.is_dir() {
        let latest = Store::new(&args.checkpoint).newest(&verify)?;
        latest.warnings.iter().for_each(|warning| warn(warning));
        let (path, verdict) = latest.found.ok_or_else(|| super::no_checkpoint(&args.checkpoint))?;
        (path, Some(verdict))
    } else {
        (args.checkpoint.clone(), None)
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
    super::print(match verdict.map_or_else(|| verify(&path), Ok)? {
        Verified::Intact => "\nall of the file matches its checksums\n",
        Verified::NoChecksums => "\nthe file has no checksums (format 1): damage to tensors could not be seen\n",
    })
}
