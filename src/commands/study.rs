//! `tokenformer study`: several ways to train, each with several seeds, and one report.

use super::{interrupt, ranks, train};
use crate::checkpoint::{Files, read_meta, replace};
use crate::config::{Precision, RunConfig};
use crate::console::note;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::device::Gpu;
use crate::gpu::engine::Engine;
use crate::kernel::Dtype;
use crate::report::number;
use crate::runtime::device::Device;
use crate::runtime::distributed::World;
use crate::study::comparison::compare;
use crate::study::file::Study;
use crate::study::plan::{PlannedRun, StudyPlan};
use crate::study::predict;
use crate::study::report::{self, MARKDOWN, PAGE, RESULTS};
use crate::study::results::Findings;
use crate::study::runner::Runner;
use crate::train::cohorts::{self, Stage};
use crate::train::{Meta, Store, disk};
use crate::tune::{self, Effort, Sandbox};
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Arguments of `study`.
#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    /// What to compare; see studies/ for examples.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Training text (UTF-8) or token shard (.bin), instead of the file's data.path.
    #[arg(short, long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Directory of the runs and the report, instead of the file's out_dir.
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the runs in the output directory that were made with other settings.
    #[arg(long)]
    overwrite: bool,
    /// Time the matrix-product kernels on this adapter: a few seconds the first time a shape is seen.
    #[arg(long, value_enum, default_value_t)]
    tune: Effort,
    /// Show what every arm costs and stop; needs no GPU.
    #[arg(long)]
    dry_run: bool,
    /// Time a few steps of every model, say how long the study will take, and stop.
    #[arg(long, conflicts_with = "dry_run")]
    predict: bool,
}

/// Runs a study, or what is left of it, and writes its report.
///
/// # Errors
/// Anything impossible about the study before a GPU is opened; device errors; an interrupted study.
pub(crate) fn run(world: &World, request: &AdapterRequest, args: &StudyArgs) -> Result<()> {
    let mut study = Study::read(&args.file, args.data.as_deref())?;
    study.out_dir = args.out.clone().unwrap_or(study.out_dir);
    let data = resolve(&mut study)?;
    let plan = StudyPlan::new(&study)?;
    let is_root = world.is_root();
    if is_root {
        super::print(&budgets(&plan))?;
    }
    if args.dry_run {
        return Ok(());
    }
    if is_root {
        check_report(&study.out_dir)?;
    }
    let stop = interrupt::flag(|| "what was saved is whole; the same command goes on".to_owned())?;
    let asked = stop.clone();
    world.set_stop(move || asked.load(Ordering::Relaxed));
    // Where a rank ends, the others save and end as well.
    world.on_fault(stop.clone());
    let request = &ranks::adapter(world, request)?;
    ranks::agree_on_study(world, &args.file, &data)?;
    let reopen = || super::open_device(request);
    let runner = Runner { plan: &plan, data: &data, world, stop: &stop, reopen: &reopen, overwrite: args.overwrite };
    let _lock = if args.predict { None } else { Some(runner.claim()?) };
    world.barrier()?;
    let pending = runner.pending()?;
    world.barrier()?;
    let mut device = super::open_device(request)?;
    prepare(world, request, args, &mut device, &pending, &plan)?;
    if !pending.is_empty() && is_root {
        let seconds = predict::seconds(&device, &pending, &data)?;
        let line = format!("{} runs to do, about {} on this adapter\n", pending.len(), number::seconds(seconds));
        super::print(&line)?;
    }
    if args.predict {
        return Ok(());
    }
    let kernels = device.kernels.clone();
    let reopen = || Ok(Device { kernels: kernels.clone(), ..super::open_device(request)? });
    let findings = Runner { reopen: &reopen, ..runner }.run(device)?;
    if is_root { write_report(&findings, &study.out_dir) } else { Ok(()) }
}

/// Reads the data and gives every arm's model their vocabulary.
fn resolve(study: &mut Study) -> Result<Dataset> {
    let first = study.arms.first().map(|arm| &arm.config).ok_or_else(|| Error::usage("the study has no arms"))?;
    first.data.validate()?;
    let data = disk::dataset(first, None)?;
    for arm in &mut study.arms {
        arm.config.model.resolve_vocab(data.vocab_size)?;
        data.check_length(arm.config.model.seq_length)?;
    }
    Ok(data)
}

/// What every arm costs, and all of them together.
fn budgets(plan: &StudyPlan) -> String {
    let study = plan.study;
    let runs = plan.cases.len() * study.seeds.len();
    let rates = study.trials.rates.len();
    let trials = if rates > 1 { study.arms.len() * rates * study.trials.seeds.len() } else { 0 };
    let flops: f64 =
        plan.cases.iter().map(|case| case.timeline.flops(case.steps)).sum::<f64>() * study.seeds.len() as f64;
    format!(
        "{}\n{runs} runs with {} seeds ({} in all) and {trials} learning-rate trials; reference \"{}\"; written to {}\n",
        report::tables::planned(plan).markdown(),
        study.seeds.len(),
        number::flops(flops),
        study.reference,
        study.out_dir.display()
    )
}

/// Every model fits the device, and its kernels are chosen.
fn prepare(
    world: &World,
    request: &AdapterRequest,
    args: &StudyArgs,
    device: &mut Device,
    pending: &[PlannedRun],
    plan: &StudyPlan,
) -> Result<()> {
    let configs: Vec<&RunConfig> = pending.iter().map(|run| &run.config).collect();
    let mut products = Vec::new();
    let mut known: Vec<Vec<Stage>> = Vec::new();
    for config in configs {
        let stages = cohorts::stages(config, None)?;
        if !known.contains(&stages) {
            products.extend(train::check_limits(&device.kernels, &stages, &config.train)?);
            known.push(stages);
        }
    }
    if plan.study.arms.iter().any(|arm| arm.config.train.precision == Precision::F16) {
        super::selftest::once_per_adapter(device, request, Dtype::F16)?;
    }
    let another = || Engine::new(Gpu::open(request)?);
    let process = || super::probe::command(request);
    let sandbox = Sandbox { open: &another, process: Some(&process) };
    let stored = stored_kernels(&device.engine, pending);
    let tuned = |stored: &_| tune::tune(&device.engine, &device.kernels, &sandbox, &products, args.tune, stored);
    device.kernels = ranks::tune(world, false, stored, tuned)?;
    ranks::agree_on_device(world, false, device)
}

/// The kernels that a run of this study was begun with on this adapter: it is to go on with them.
fn stored_kernels(engine: &Engine, pending: &[PlannedRun]) -> BTreeMap<String, String> {
    let adapter = engine.gpu.describe();
    let kernels = |run: &PlannedRun| {
        let (_, path) = Store::new(&run.config.out_dir).list().ok()?.pop()?;
        let meta = read_meta::<Meta>(&path).ok()?;
        (meta.adapter == adapter).then_some(meta.kernels)
    };
    pending.iter().find_map(kernels).unwrap_or_default()
}

/// Whether `out` is free for a report: one that is there already must be one of ours.
///
/// # Errors
/// A usage error naming the file that would be replaced.
pub(super) fn check_report(out: &Path) -> Result<()> {
    let ours = std::fs::read_to_string(out.join(RESULTS)).is_ok_and(|text| report::is_results(&text));
    match [RESULTS, MARKDOWN, PAGE].map(|name| out.join(name)).iter().find(|path| path.exists()) {
        Some(path) if !ours => Err(Error::usage(format!(
            "{} is not of a report of this program, and a report would replace it: choose another --out",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Writes `report.html`, `report.md` with its pictures and `results.jsonl` into `out`, and the findings in words to standard output.
pub(super) fn write_report(findings: &Findings, out: &Path) -> Result<()> {
    let all = compare(findings);
    crate::checkpoint::create_dirs(&Files, out).map_err(|cause| Error::io("create", out, &cause))?;
    for (name, text) in report::files(findings, &all)? {
        let path = out.join(name);
        replace(&Files, &path, &text).map_err(|cause| Error::io("write", &path, &cause))?;
    }
    note(format_args!("written to {0}/{PAGE}, {0}/{MARKDOWN} and {0}/{RESULTS}", out.display()));
    super::print(&report::plain(findings, &all))
}
