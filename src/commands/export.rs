//! `tokenformer export`: the model of a checkpoint in the form of another program. Needs no GPU; the input is only read.

use super::answer::{Answer, value};
use super::weights::Taken;
use crate::console::note;
use crate::exchange::export::{Form, Source, Stored, Wanted, export};
use crate::report::number::bytes;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Bytes of a gigabyte, as shards are measured in.
const GB: f64 = 1e9;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Run directory or checkpoint file to export.
    #[arg(value_name = "RUN|FILE")]
    input: PathBuf,
    #[command(flatten)]
    choice: super::Choice,
    #[command(flatten)]
    weights: super::weights::WeightsArgs,
    /// Directory (hf) or file to write.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// What for.
    #[arg(long, value_enum, value_name = "FORM")]
    to: Form,
    /// Type of the numbers.
    #[arg(long = "dtype", value_enum, value_name = "TYPE", default_value_t = Stored::F32)]
    stored: Stored,
    /// Most gigabytes of tensors in one file of a directory.
    #[arg(long, value_name = "GB", default_value_t = 5.0, value_parser = super::number)]
    shard_size: f64,
    /// Replace an earlier export.
    #[arg(long, alias = "force")]
    overwrite: bool,
}

/// Exports.
///
/// # Errors
/// A checkpoint that cannot be read, a form that cannot hold its model, an output that exists, files that cannot be written.
pub(crate) fn run(args: &ExportArgs) -> Answer {
    super::check_place(&args.output)?;
    let open = |file: &std::path::Path, checks| Source::open(file, checks).map(|source| (source.meta().step, source));
    let waived = |file: &std::path::Path| Source::open(file, crate::checkpoint::Checks::Waived).map(drop);
    let (path, mut source) = super::chosen(&args.input, args.choice, &open, &waived)?;
    super::tell_verified(&path, source.verified(), args.choice);
    let taken = args.weights.taken(source.has_averages());
    source.take_averages(taken == Some(Taken::Averaged));
    let wanted = Wanted {
        form: args.to,
        stored: args.stored,
        shard_bytes: (args.shard_size.max(0.0) * GB) as u64,
        overwrite: args.overwrite,
    };
    let (files, size) = export(&mut source, &args.output, wanted)?;
    if source.tokenizer.is_none() {
        note("the model was trained on token shards, so no tokenizer is in the export");
    }
    let (step, parameters) = (source.meta().step, source.config.model.param_count());
    let files_said = if let [_] = files.as_slice() { String::new() } else { format!(" in {} files", files.len()) };
    let weights = taken.map_or_else(String::new, |taken| format!(", {},", taken.said(&source.config)));
    super::print(&format!(
        "{parameters} parameters of step {step}{weights} as {}, {}{files_said}; written to {}\n",
        args.stored.name(),
        bytes(size),
        args.output.display()
    ))?;
    Ok(json!({
        "checkpoint": path,
        "output": args.output,
        "step": step,
        "weights": taken.map(Taken::name),
        "to": value(&args.to)?,
        "dtype": args.stored.name(),
        "parameters": parameters,
        "bytes": size,
        "files": files,
    }))
}
