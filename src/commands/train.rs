//! `tokenformer train`: a new run, or one that goes on.

use super::settings::Settings;
use crate::checkpoint::Store;
use crate::config::RunConfig;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::graph::plan::megabytes;
use crate::train::state::{self, Start};
use crate::train::{self, Summary, growth};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arguments of `train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    #[command(flatten)]
    settings: Settings,
    /// Continue from a run directory (its newest checkpoint) or a checkpoint file.
    #[arg(long, value_name = "RUN|FILE")]
    resume: Option<PathBuf>,
    /// Replace the run that is already in the output directory.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Show the resolved settings and stop.
    #[arg(long)]
    dry_run: bool,
}

/// Trains.
///
/// # Errors
/// Bad settings or data before anything is allocated; device errors; an interrupted or diverged run.
pub fn run(request: &AdapterRequest, args: &TrainArgs) -> Result<()> {
    let (mut config, start, tokenizer) = match &args.resume {
        Some(path) => {
            let (file, checkpoint) = super::load(path)?;
            let tokenizer = state::tokenizer(&checkpoint.meta)?;
            let (start, stored) = Start::resumed(checkpoint)?;
            let mut config = args.settings.over(stored)?;
            same_model(&start, &config)?;
            if path.is_dir() && config.out_dir != *path {
                config.out_dir.clone_from(path);
            }
            eprintln!("resuming from {} after step {}", file.display(), start.step);
            (config, Some(start), tokenizer)
        }
        None => (args.settings.resolve()?, None, None),
    };
    config.validate()?;
    let data = state::dataset(&config, tokenizer)?;
    config.model.resolve_vocab(data.vocab_size)?;
    config.validate()?;
    data.check_length(config.model.seq_length)?;
    if args.dry_run {
        return super::print(&config.to_toml()?);
    }
    let start = match start {
        Some(start) => start,
        None => {
            prepare_directory(&config, args.overwrite)?;
            Start::fresh(&config.model, config.train.seed)
        }
    };
    // A run shows the settings it was started with; where it goes on, those it goes on with.
    let path = config.out_dir.join("config.toml");
    std::fs::create_dir_all(&config.out_dir).map_err(|e| Error::io("create", &config.out_dir, &e))?;
    std::fs::write(&path, config.to_toml()?).map_err(|e| Error::io("write", &path, &e))?;

    let engine = super::open_engine(request)?;
    announce(&config, &data, &start);
    let summary = train::run(&engine, &config, &data, start, interrupt_flag()?.as_ref())?;
    super::print(&describe(&summary, &config.out_dir))
}

/// Flags may change how a model is trained on, not what it is.
fn same_model(start: &Start, config: &RunConfig) -> Result<()> {
    if start.host.model == config.model {
        return Ok(());
    }
    Err(Error::usage(
        "a resumed run keeps the model of its checkpoint: drop the --set model.* flags; to make it larger use \
         `tokenformer grow` or a growth in the settings",
    ))
}

fn prepare_directory(config: &RunConfig, overwrite: bool) -> Result<()> {
    let dir = &config.out_dir;
    let existing = Store::new(dir).list()?;
    let Some((step, _)) = existing.last() else { return Ok(()) };
    if !overwrite {
        return Err(Error::usage(format!(
            "{0} already holds a run at step {step}: continue it with --resume {0}, choose another --out, or replace it \
             with --overwrite",
            dir.display()
        )));
    }
    for (_, path) in existing {
        std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, &e))?;
    }
    Ok(())
}

fn announce(config: &RunConfig, data: &Dataset, start: &Start) {
    eprintln!("data: {}", data.description);
    let model = &start.host.model;
    eprintln!(
        "model: {:?}, {} layers x {}, {} parameters; {} steps of {} tokens; written to {}",
        model.arch,
        model.num_layers,
        model.hidden_size,
        model.param_count(),
        config.train.max_steps,
        config.train.total_batch_tokens.max(config.train.batch_size * model.seq_length),
        config.out_dir.display()
    );
}

/// Set by the first Ctrl-C (or SIGTERM, SIGHUP); the second ends the process at once.
fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = flag.clone();
    let installed = ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step; interrupt again to stop at once");
    });
    installed.map_err(|e| Error::usage(format!("cannot watch for Ctrl-C: {e}")))?;
    Ok(flag)
}

fn describe(summary: &Summary, out_dir: &Path) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<16}{value}\n"));
    line("steps", summary.steps.to_string());
    line("parameters", summary.parameters.to_string());
    line("train loss", format!("{:.4} nats/token", summary.loss));
    line("val loss", format!("{:.4} nats/token", summary.val_loss));
    if let Some(floor) = summary.entropy_floor {
        let above = 100.0 * (summary.val_loss / floor - 1.0);
        line("entropy floor", format!("{floor:.4} nats/token: val loss is {above:.1} % above it"));
    }
    for record in &summary.growths {
        line("growth", growth::describe(record));
    }
    line("time", format!("{:.1} s", summary.seconds));
    line("checkpoint", summary.checkpoint.display().to_string());
    line("next", format!("tokenformer generate {}", out_dir.display()));
    text
}

/// Device memory in words, for `plan` and messages.
pub(super) fn memory_line(name: &str, bytes: u64) -> String {
    format!("{name:<14}{:>12}  {bytes:>15} B\n", megabytes(bytes))
}
