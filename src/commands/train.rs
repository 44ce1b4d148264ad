//! `tokenformer train`: a new run, or one that goes on.

use super::answer::{Answer, value};
use super::budget::Budget;
use super::settings::Settings;
use super::{Choice, interrupt, ranks, resume, run_dir};
use crate::checkpoint::{RunLock, check_unlocked};
use crate::config::{Precision, RunConfig, TrainConfig};
use crate::console::{note, warn};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::budget::{CHUNK_TIME, POLITE_CHUNK_TIME};
use crate::gpu::device::Gpu;
use crate::gpu::engine::Engine;
use crate::kernel::{Dtype, KernelTable};
use crate::ops::matmul::ProductKind;
use crate::report::shell;
use crate::runtime::device::Device;
use crate::runtime::distributed::World;
use crate::train::cohorts::{self, Stage};
use crate::train::disk::settings::Edits;
use crate::train::disk::{self, Start};
use crate::train::fit::{self, MemoryLimit};
use crate::train::recovery::{Job, Opener, resuming};
use crate::train::trainer::{RunPlans, Trainer};
use crate::train::{Best, Store, Summary, directory, report};
use crate::tune::{self, Effort, Sandbox};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Arguments of `train`.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    budget: Budget,
    /// Continue from a run directory (its newest checkpoint; RUN@best is its best one) or a checkpoint file.
    #[arg(long, value_name = "RUN|FILE")]
    resume: Option<PathBuf>,
    /// Go on although the data are not those that the run was trained on, and forget the losses on those.
    #[arg(long, requires = "resume")]
    accept_data_change: bool,
    /// Replace the run that is already in the output directory.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// What becomes of edits to the run's config.toml: they are taken, or dropped.
    #[arg(long, value_enum, value_name = "take|drop")]
    config_edits: Option<ConfigEdits>,
    /// Take the checkpoint to resume from as it is where its checksums do not match: another program changed it on purpose.
    #[arg(long, requires = "resume")]
    accept_unverified: bool,
    /// Time the matrix-product kernels on this adapter: a few seconds the first time a shape is seen.
    #[arg(long, value_enum, default_value_t)]
    tune: Effort,
    /// Choose micro-batch and recomputation for so much device memory, such as 6GB, or without SIZE for what the device
    /// gives: the batch of an update stays.
    #[arg(long, value_name = "SIZE", value_parser = super::bytes, num_args = 0..=1, conflicts_with = "dry_run")]
    fit: Option<Option<u64>>,
    /// Compute the gradients of every N-th step twice and compare them: for a GPU that is not trusted.
    #[arg(long, value_name = "N", value_parser = super::kept::<usize>)]
    verify_every: Option<usize>,
    /// Write event files for TensorBoard as well, into tensorboard/ of the run.
    #[arg(long)]
    tensorboard: bool,
    /// Leave the GPU to the display between short pieces of work: for the GPU of the screen you work at.
    #[arg(long)]
    polite: bool,
    /// Show the resolved settings and stop.
    #[arg(long)]
    dry_run: bool,
}

/// What becomes of edits to the settings of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConfigEdits {
    /// The run goes on by them.
    Take,
    /// The run replaces them by what it goes on by.
    Drop,
}

/// What is left to do.
enum Next {
    Steps(Box<Prepared>),
    /// A run that is complete: to a script that goes on with it until it is, that is no error.
    Nothing(serde_json::Value),
}

/// What a run needs before a GPU is opened.
struct Prepared {
    config: RunConfig,
    data: Dataset,
    /// `None` for a new run: its parameters are made when it is known that the device can hold them.
    start: Option<Start>,
    /// Adapter of the checkpoint and the kernels chosen on it.
    kernels: Option<(String, BTreeMap<String, String>)>,
    /// The run's directory is nobody else's from here on; `None` where nothing will be written.
    lock: Option<RunLock>,
}

/// Trains.
///
/// # Errors
/// Bad settings or data before a GPU is opened or anything written; device errors; an interrupted or diverged run.
pub(crate) fn run(world: &World, request: &AdapterRequest, args: &TrainArgs) -> Answer {
    let prepared = match &args.resume {
        Some(given) => resumed(world, given, args)?,
        None => Next::Steps(Box::new(fresh(world, args)?)),
    };
    let Prepared { mut config, data, start, kernels, lock } = match prepared {
        Next::Steps(prepared) => *prepared,
        Next::Nothing(answer) => return Ok(answer),
    };
    config.train.tensorboard |= args.tensorboard;
    config.train.verify_every = args.verify_every.unwrap_or(config.train.verify_every);
    let Some(mut lock) = lock else {
        if world.is_root() {
            super::print_text(&config.to_toml()?)?;
        }
        return Ok(json!({ "dry_run": true, "config": value(&config)? }));
    };
    let request = &ranks::adapter(world, request)?;
    ranks::agree_on_job(world, &config, &data)?;
    let mut device = super::open_device(request)?;
    device.world = world.clone();
    let stages = cohorts::stages(&config, start.as_ref().map(|start| start.host.cohorts.clone()))?;
    if let Some(most) = args.fit {
        let gives = |stage: &Stage, train: &TrainConfig| allocates(&device, stage, train);
        let room = most.map_or(MemoryLimit::Device(&gives), MemoryLimit::Bytes);
        config.train = fit::fit(&config, &stages, &room, &device.kernels)?;
        config.train = ranks::as_root(world, config.train)?;
        let (batch, recompute) = (config.train.batch_size, config.train.recompute);
        note(format_args!("--fit: batch_size {batch}{}", if recompute { " with recomputation" } else { "" }));
    }
    let products = check_limits(&device.kernels, &stages, &config.train)?;
    if config.train.precision == Precision::F16 {
        super::selftest::once_per_adapter(&device, request, Dtype::F16)?;
    }
    // Kernels of another adapter say nothing here.
    let stored = kernels.filter(|(adapter, _)| *adapter == device.engine.gpu.describe()).map(|(_, chosen)| chosen);
    let another = || Engine::new(Gpu::open(request)?);
    let process = || super::probe::command(request);
    let sandbox = Sandbox { open: &another, process: Some(&process) };
    let stored = stored.unwrap_or_default();
    let tuned = |stored: &_| tune::tune(&device.engine, &device.kernels, &sandbox, &products, args.tune, stored);
    let tuned = ranks::tune(world, config.train.mixed_adapters, stored, tuned)?;
    device.kernels = tuned;
    ranks::agree_on_device(world, config.train.mixed_adapters, &device)?;
    let fresh = || Start::fresh(&config);
    let start = start.unwrap_or_else(fresh);
    announce(&config, &data, &start);
    let chunk_time = if args.polite { POLITE_CHUNK_TIME } else { CHUNK_TIME };
    device.engine.set_chunk_time(chunk_time);
    let kernels = device.kernels.clone();
    let reopen = || {
        let again = super::open_device(request)?;
        again.engine.set_chunk_time(chunk_time);
        Ok(Device { kernels: kernels.clone(), world: world.clone(), ..again })
    };
    let origin =
        || args.resume.as_deref().map_or_else(|| Ok(fresh()), |given| Ok(super::load(given, args.choice())?.start));
    let stop = interrupt::flag(what_is_safe(&config))?;
    let asked = stop.clone();
    world.set_stop(move || asked.load(Ordering::Relaxed));
    let job = Job { config: &config, data: &data, origin: &origin, stop: &stop, go_on: resuming(&config) };
    let ended = job.run(&mut Opener::new(device, &reopen), start, &mut lock);
    let summary = ended.map_err(|error| with_options(error, request, args))?;
    if !world.is_root() {
        return Ok(serde_json::Value::Null);
    }
    super::print(&describe(&summary, &config.out_dir, data.tokenizer.is_some()))?;
    found(&summary, &config.out_dir)
}

/// What a run came to, for programs.
fn found(summary: &Summary, out_dir: &Path) -> Answer {
    let lineage = value(&summary.growths)?;
    let best = summary.best.as_ref().map(
        |Best { step, val_loss, bits_per_byte, checkpoint }| {
            json!({ "step": step, "val_loss": val_loss, "val_bpb": bits_per_byte, "checkpoint": checkpoint })
        },
    );
    Ok(json!({
        "run": out_dir,
        "checkpoint": summary.checkpoint,
        "step": summary.steps,
        "complete": true,
        "parameters": summary.parameters,
        "train_loss": summary.loss,
        "val_loss": summary.val_loss,
        "val_bpb": summary.bits_per_byte,
        "best": best,
        "old_val_loss": summary.both_losses.as_ref().map(|[_, last]| last.old_val_loss),
        "entropy_floor": summary.entropy_floor,
        "lineage": lineage,
        "seconds": summary.seconds,
    }))
}

/// What is left of a run that is ended at once.
fn what_is_safe(config: &RunConfig) -> impl Fn() -> String + Send + Sync + 'static {
    let (dir, checkpoints) = (shell::word(&config.out_dir), Store::new(&config.out_dir));
    move || match checkpoints.list().ok().and_then(|known| known.last().map(|(step, _)| *step)) {
        Some(step) => format!("step {step} is saved; go on with tokenformer train --resume {dir}"),
        None => "nothing was saved yet".to_owned(),
    }
}

/// The command that goes on with an interrupted run, with the options that its checkpoint does not have.
fn with_options(error: Error, request: &AdapterRequest, args: &TrainArgs) -> Error {
    let Error::Interrupted(sentence) = error else { return error };
    let named = [("--adapter", &request.adapter), ("--backend", &request.backend)];
    let named = named.into_iter().filter_map(|(option, value)| value.as_ref().map(|value| (option, value)));
    let mut options: Vec<String> =
        named.map(|(option, value)| format!(" {option} {}", shell::word(Path::new(value)))).collect();
    if args.tune == Effort::Off {
        options.push(" --tune off".to_owned());
    }
    if args.polite {
        options.push(" --polite".to_owned());
    }
    Error::Interrupted(sentence + &options.concat())
}

impl TrainArgs {
    fn choice(&self) -> Choice {
        Choice::newest(self.accept_unverified)
    }
}

fn fresh(world: &World, args: &TrainArgs) -> Result<Prepared> {
    let mut config = args.settings.resolve()?;
    config.validate()?;
    let data = disk::dataset(&config, None)?;
    args.budget.set_length(&mut config, args.settings.names_steps(), Some(data.train.len()))?;
    config.model.resolve_vocab(data.vocab_size)?;
    check_together(&config, &data)?;
    data.oversized(config.model.vocab_size).into_iter().for_each(warn);
    if args.dry_run {
        return Ok(Prepared { config, data, start: None, kernels: None, lock: None });
    }
    if !world.is_root() {
        let lock = Some(RunLock::of_another());
        return Ok(Prepared { config, data, start: None, kernels: None, lock });
    }
    // Before it is locked as well, because that touches it.
    let check = || directory::check_new(&config.out_dir, args.overwrite);
    let dir = &config.out_dir;
    check().or_else(|refused| check_unlocked(dir).and(Err(refused)))?;
    let own = args.settings.config().is_some_and(|file| directory::is_settings_of(dir, file));
    if !own && args.config_edits != Some(ConfigEdits::Drop) && !args.overwrite {
        let edits = Edits::since(dir, &config, &[], false)?;
        let take = format!("--config {}", shell::word(&directory::settings_of(dir)));
        edits.refuse("this command, which would replace the file", &take)?;
    }
    let lock = Some(run_dir::lock(dir)?);
    if let Some(replaced) = check()? {
        note(replaced);
    }
    Ok(Prepared { config, data, start: None, kernels: None, lock })
}

fn resumed(world: &World, given: &Path, args: &TrainArgs) -> Result<Next> {
    let given = &run_dir::of(given);
    let super::Loaded { path, meta, mut start, config: stored, tokenizer, .. } = super::load(given, args.choice())?;
    let run = directory::of_resumed(given, &path, &stored.out_dir);
    let own = args.settings.config().is_some_and(|file| directory::is_settings_of(&run, file));
    let take = own || args.config_edits == Some(ConfigEdits::Take);
    // Of what was stored: what this version makes of it is no edit.
    let edits = Edits::since(&run, &meta.config()?, &meta.lineage, given.is_dir())?;
    let base = if take { edits.over(&stored)? } else { stored.clone() };
    if let Some(said) = edits.nothing().filter(|_| args.config_edits == Some(ConfigEdits::Take)) {
        note(said);
    }
    let mut config = args.settings.over(base, own)?;
    if !take && args.config_edits.is_none() {
        edits.not_given(&stored, &config)?.refuse("its checkpoint", "--config-edits take")?;
    }
    resume::same_model(&stored, &config)?;
    let about_tokenizer = resume::same_tokenizer(&stored, &config, tokenizer.as_ref())?;
    if args.settings.out().is_none() && config.out_dir == stored.out_dir {
        config.out_dir = run;
    }
    config.validate()?;
    let about_validation = resume::same_validation(&stored, &mut config)?;
    let complete = |config: &RunConfig| -> Result<Option<Next>> {
        let step = start.standing.step;
        if let Some(said) = resume::complete(config, &path, &start) {
            if !args.dry_run && world.is_root() {
                resume::finish(config, &path, &start.standing);
            }
            note(said);
            let answer = json!({ "run": config.out_dir, "checkpoint": path, "step": step, "complete": true });
            return Ok(Some(Next::Nothing(answer)));
        }
        resume::still_ahead(config, &stored, &path, &start).map(|()| None)
    };
    args.budget.set_length(&mut config, args.settings.names_steps(), None)?;
    if !args.budget.needs_data()
        && let Some(nothing) = complete(&config)?
    {
        return Ok(nothing);
    }
    let data = disk::dataset_of_trained(&config, tokenizer)?;
    if args.budget.needs_data() {
        args.budget.set_length(&mut config, args.settings.names_steps(), Some(data.train.len()))?;
        if let Some(nothing) = complete(&config)? {
            return Ok(nothing);
        }
    }
    start.standing.growths_left = config.growth.len();
    // Of an imported model nobody knows what it was trained on before.
    let as_imported = meta.imported.is_some() && start.standing.step == 0;
    let about_data = match as_imported {
        true => None,
        false => resume::same_data([&stored, &config], &meta.data, &data, &path, args.accept_data_change)?,
    };
    check_together(&config, &data)?;
    let mut held = None;
    if !args.dry_run && !world.is_root() {
        held = Some(RunLock::of_another());
    } else if !args.dry_run {
        let logged = stored.train.log_interval as u64;
        let check = || directory::check_resumed(&config.out_dir, given, &path, start.standing.step, logged);
        // Before it is locked as well, because that touches it.
        check().or_else(|refused| check_unlocked(&config.out_dir).and(Err(refused)))?;
        held = Some(run_dir::lock(&config.out_dir)?);
        check()?;
        match as_imported {
            true => note(format_args!(
                "training the imported model of {} with a fresh schedule of {}",
                path.display(),
                config.train.length()
            )),
            false => note(format_args!("resuming from {} after step {}", path.display(), start.standing.step)),
        }
        about_tokenizer
            .iter()
            .chain(&about_data)
            .chain(&about_validation)
            .for_each(|sentence| note(format_args!("{sentence}")));
        if !start.host.averages.is_empty() && config.train.ema_decay == 0.0 {
            note(
                "train.ema_decay is 0, so the run goes on without the moving average of the weights in its checkpoint",
            );
        }
        if start.host.moment1.is_empty() && start.standing.step > 0 {
            warn(format_args!(
                "{} has no optimizer moments (optimizer.m.*, optimizer.v.*): AdamW starts them again",
                path.display()
            ));
        }
    }
    let kernels = Some((meta.adapter, meta.kernels));
    Ok(Next::Steps(Box::new(Prepared { config, data, start: Some(start), kernels, lock: held })))
}

/// Settings and data fit each other, and the settings can be written.
fn check_together(config: &RunConfig, data: &Dataset) -> Result<()> {
    config.validate()?;
    data.check_length(config.model.seq_length)?;
    disk::sample_prompt(&config.train.sample_prompt, data)?;
    config.to_toml().map(drop)
}

/// Whether the device gives the memory that training needs.
fn allocates(device: &Device, stage: &Stage, train: &TrainConfig) -> Result<bool> {
    match Trainer::new(&device.engine, &device.kernels, &stage.model, train, stage.cohorts.clone(), 1) {
        Ok(_) => Ok(true),
        Err(Error::OutOfMemory { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Every model of the run, also after its growths, within what the device allows; their matrix products.
pub(super) fn check_limits(kernels: &KernelTable, stages: &[Stage], train: &TrainConfig) -> Result<Vec<ProductKind>> {
    let mut products = Vec::new();
    for Stage { model, cohorts } in stages {
        let plans = RunPlans::new(model, train, cohorts, 1, kernels)?;
        products.extend(plans.products());
    }
    Ok(products)
}

fn announce(config: &RunConfig, data: &Dataset, start: &Start) {
    note(format_args!("data: {}", data.told()));
    let model = &start.host.model;
    note(format_args!(
        "model: {:?}, {} layers x {}, {} parameters\nrun: {}, each of {} tokens, written to {}",
        model.arch,
        model.num_layers,
        model.hidden_size,
        model.param_count(),
        config.train.length(),
        config.train.total_batch_tokens.max(config.train.batch_size * model.seq_length),
        config.out_dir.display()
    ));
}

/// `is_text`: without a tokenizer there is no text to generate.
fn describe(summary: &Summary, out_dir: &Path, is_text: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<16}{value}\n"));
    line("steps", summary.steps.to_string());
    line("parameters", summary.parameters.to_string());
    line("train loss", format!("{:.4} nats/token", summary.loss));
    match &summary.both_losses {
        Some([first, last]) => {
            let change =
                |before: f64, after: f64| format!("{before:.4} -> {after:.4} nats/token since step {}", first.step);
            line("val loss", change(first.val_loss, last.val_loss));
            line("old val loss", change(first.old_val_loss, last.old_val_loss));
        }
        None => line("val loss", format!("{:.4} nats/token", summary.val_loss)),
    }
    if let Some(bits) = summary.bits_per_byte {
        let best = summary.best.as_ref().and_then(|best| best.bits_per_byte);
        line(
            "bits per byte",
            format!("{bits:.4}{}", best.map_or_else(String::new, |best| format!(", at best {best:.4}"))),
        );
    }
    if let Some(Best { step, val_loss, checkpoint, .. }) = &summary.best {
        line("best val loss", format!("{val_loss:.4} nats/token at step {step}"));
        if let Some(file) = checkpoint {
            line("best checkpoint", file.display().to_string());
        }
    }
    if let Some(floor) = summary.entropy_floor {
        let above = 100.0 * (summary.val_loss / floor - 1.0);
        line("entropy floor", format!("{floor:.4} nats/token: val loss is {above:.1} % above it"));
    }
    for record in &summary.growths {
        line("lineage", record.describe());
    }
    line("time", format!("{:.1} s", summary.seconds));
    line("checkpoint", summary.checkpoint.display().to_string());
    let next = if is_text { "generate" } else { "eval" };
    line("report", out_dir.join(report::FILE).display().to_string());
    line("next", format!("tokenformer {next} {}", shell::word(out_dir)));
    text
}
