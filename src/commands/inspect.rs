//! `tokenformer inspect`: what is in a checkpoint. Reads the header only and needs no GPU.

use crate::checkpoint::{Store, list_tensors, read_meta};
use crate::config::RunConfig;
use crate::error::Result;
use crate::train::growth::describe;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Run directory or checkpoint file.
    #[arg(value_name = "RUN|FILE")]
    checkpoint: PathBuf,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
}

/// Prints configuration, parameters and lineage.
///
/// # Errors
/// A file that is not a checkpoint.
pub fn run(args: &InspectArgs) -> Result<()> {
    let path = if args.checkpoint.is_dir() {
        let newest = Store::new(&args.checkpoint).list()?.pop();
        newest.map(|(_, path)| path).ok_or_else(|| super::no_checkpoint(&args.checkpoint))?
    } else {
        args.checkpoint.clone()
    };
    let (meta, tensors) = (read_meta(&path)?, list_tensors(&path)?);
    let config: RunConfig = meta.config()?;
    let moments = tensors.iter().filter(|t| t.name.starts_with("optimizer.")).count();
    let mut text = format!("{}\n", path.display());
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<16}{value}\n"));
    line("written by", format!("{} on {}", meta.created_by, meta.adapter));
    line("step", format!("{} ({} tokens)", meta.step, meta.tokens_seen));
    line("data", format!("{}, next batch {}", meta.data.description, meta.data.next_batch));
    if let Some(best) = meta.best_val_loss {
        line("best val loss", format!("{best:.4} nats/token"));
    }
    line("parameters", config.model.param_count().to_string());
    line("tensors", format!("{} parameters, {moments} optimizer moments", tensors.len() - moments));
    for record in &meta.lineage {
        line("growth", describe(record));
    }
    text.push_str(&format!("\n{}", config.to_toml()?));
    if args.tensors {
        text.push('\n');
        for t in &tensors {
            text.push_str(&format!("{:<60} {:<5} {:?}\n", t.name, t.dtype, t.shape));
        }
    }
    super::print(&text)
}
