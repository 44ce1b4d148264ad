//! `tokenformer plan`: what a run needs, computed without allocating anything.

use super::settings::Settings;
use super::target::SavedTarget;
use super::train::memory_line;
use crate::config::RunConfig;
use crate::console::{legible, note};
use crate::error::Result;
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::device::Gpu;
use crate::kernel::KernelTable;
use crate::train::cohorts::{self, Stage};
use crate::train::disk;
use crate::train::trainer::RunPlans;
use clap::Args;
use std::path::PathBuf;

/// Vocabulary assumed where it depends on data that are not here.
const BYTE_VOCABULARY: usize = 256;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    settings: Settings,
    /// Plan for a device that is not here: `webgpu` for what every device offers, or a file of `devices --save`.
    #[arg(long, value_name = "webgpu|FILE")]
    target: Option<PathBuf>,
}

/// Prints bytes by class for every stage of the run.
///
/// # Errors
/// A tensor over a limit: its name, bytes, the limit and the remedy; data that cannot be read.
pub(crate) fn run(request: &AdapterRequest, args: &PlanArgs) -> Result<()> {
    let saved = args.target.as_deref().map(|named| match named.to_str() {
        Some("webgpu") => Ok(SavedTarget::webgpu()),
        _ => SavedTarget::read(named),
    });
    let saved = saved.transpose()?;
    let mut config = args.settings.resolve()?;
    config.validate()?;
    config.model.resolve_vocab(vocabulary(&config, args.settings.data().is_some())?)?;
    config.validate()?;
    let stages = cohorts::stages(&config, None)?;
    for (i, Stage { model, .. }) in stages.iter().enumerate() {
        super::print(&format!(
            "{}: {:?}, {} layers x {}, vocabulary {}, {} parameters\n",
            stage(i),
            model.arch,
            model.num_layers,
            model.hidden_size,
            model.vocab_size,
            model.param_count()
        ))?;
    }
    let here = || Gpu::open(request).map(|gpu| SavedTarget::of(&gpu));
    let SavedTarget { adapter, target } = saved.map_or_else(here, Ok)?;
    let kernels = KernelTable::defaults(target);
    let mut text = format!("limits of {}\n", legible(&adapter));
    for (i, Stage { model, cohorts }) in stages.iter().enumerate() {
        let plans = RunPlans::new(model, &config.train, cohorts, 1, &kernels)?;
        let bytes = plans.bytes()?;
        text.push_str(&format!(
            "\n{}: {:.3} GFLOP a step in {} dispatches\n",
            stage(i),
            plans.flops_per_step() as f64 / 1e9,
            plans.dispatches_per_step()
        ));
        for (class, amount) in [
            ("parameters", bytes.parameters),
            ("gradients", bytes.gradients),
            ("moments", bytes.moments),
            ("activations", bytes.activations),
            ("workspace", bytes.workspace),
            ("total", bytes.total()),
        ] {
            text.push_str(&memory_line(class, amount));
        }
    }
    super::print(&text)
}

/// The vocabulary of the data, as `train` finds it. Data that were not `asked` for, such as a preset's, need not be there.
fn vocabulary(config: &RunConfig, asked: bool) -> Result<usize> {
    if let Some(path) = config.data.path.as_ref().filter(|path| !asked && !path.exists()) {
        if config.model.vocab_size > 0 {
            return Ok(config.model.vocab_size);
        }
        let missing = path.display();
        note(format_args!(
            "{missing} is not here, vocabulary {BYTE_VOCABULARY} is assumed: name your data with --data"
        ));
        return Ok(BYTE_VOCABULARY);
    }
    // Neither what the model knew before nor a validation shard has a say in the vocabulary.
    let mut config = config.clone();
    config.data.old_path = None;
    if let Some(path) = config.data.val_path.take_if(|path| !path.exists()) {
        let missing = path.display();
        note(format_args!("{missing} is not here: what characters the validation data have is left out"));
    }
    let data = disk::dataset(&config, None)?;
    note(format_args!("data: {}", data.description));
    Ok(data.vocab_size)
}

fn stage(i: usize) -> String {
    if i == 0 { "at the start".to_string() } else { format!("after growth {i}") }
}
