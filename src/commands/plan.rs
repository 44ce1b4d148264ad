//! `tokenformer plan`: what a run needs, computed without allocating anything.

use super::answer::{Answer, value};
use super::settings::Settings;
use super::target::SavedTarget;
use crate::config::RunConfig;
use crate::console::{legible, note, warn};
use crate::data::not_there;
use crate::error::Result;
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::device::Gpu;
use crate::graph::Class;
use crate::kernel::KernelTable;
use crate::report::number;
use crate::runtime::memory::Bytes;
use crate::train::cohorts::{self, Stage};
use crate::train::disk;
use crate::train::trainer::RunPlans;
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
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
/// A tensor over a limit, after the table in which it is marked: its name, bytes, the limit and the remedy; data that cannot
/// be read.
pub(crate) fn run(request: &AdapterRequest, args: &PlanArgs) -> Answer {
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
    let (mut found, mut refused) = (Vec::new(), None);
    for (i, Stage { model, cohorts }) in stages.iter().enumerate() {
        let plans = match RunPlans::new(model, &config.train, cohorts, 1, &kernels) {
            Ok(plans) => plans,
            Err(why) => {
                // What it would need is worth seeing; where even that cannot be counted, the reason alone is told.
                let unlimited = RunPlans::unchecked(model, &config.train, cohorts, &kernels);
                refused = refused.or(Some(why));
                let Ok(plans) = unlimited else { break };
                plans
            }
        };
        let bytes = plans.bytes()?;
        text.push_str(&table(&stage(i), &plans, &bytes));
        found.push(json!({
            "stage": stage(i),
            "parameters": model.param_count(),
            "flops_per_step": plans.flops_per_step(),
            "dispatches_per_step": plans.dispatches_per_step(),
            "bytes": value(&bytes)?,
            "parts": plans.in_parts().map(|(info, parts)| (info.name.clone(), parts)).collect::<BTreeMap<_, _>>(),
            "total_bytes": bytes.total(),
        }));
    }
    super::print(&text)?;
    match refused {
        Some(why) => Err(why),
        None => Ok(json!({ "adapter": adapter, "stages": found })),
    }
}

/// Bytes by class; a line is marked where a tensor of it is larger than any binding of the device.
fn table(stage: &str, plans: &RunPlans, bytes: &Bytes) -> String {
    let (flops, dispatches) = (plans.flops_per_step() as f64 / 1e9, plans.dispatches_per_step());
    let mut text = format!("\n{stage}: {flops:.3} GFLOP a step in {dispatches} dispatches\n");
    for (class, amount) in [
        (Some(Class::Parameter), bytes.parameters),
        (Some(Class::Gradient), bytes.gradients),
        (Some(Class::Moment), bytes.moments),
        (Some(Class::Average), bytes.averages),
        (Some(Class::Activation), bytes.activations),
        (Some(Class::State), bytes.workspace),
        (None, bytes.total()),
    ] {
        // Most runs have none.
        if class == Some(Class::Average) && amount == 0 {
            continue;
        }
        let line = memory_line(class.map_or("total", name), amount);
        match class.and_then(|class| plans.over(class)) {
            Some(info) => {
                let (needs, most) = (info.bytes(), plans.kernels.target().max_tensor());
                let mark = format!("<- {} is {}, at most {}", info.name, number::bytes(needs), number::bytes(most));
                text.push_str(&format!("{}  {mark}\n", line.trim_end()));
            }
            None => text.push_str(&line),
        }
        if class == Some(Class::Parameter) {
            for (info, parts) in plans.in_parts() {
                let bytes = number::bytes(info.bytes());
                text.push_str(&format!("  {} of {bytes} in {parts} parts, for no binding holds it\n", info.name));
            }
        }
    }
    text
}

/// What a class is called in the table.
fn name(class: Class) -> &'static str {
    match class {
        Class::Parameter => "parameters",
        Class::Gradient => "gradients",
        Class::Moment => "moments",
        Class::Average => "averages",
        Class::Activation => "activations",
        Class::State => "workspace",
    }
}

/// The vocabulary of the data, as `train` finds it. Data that were not `asked` for, such as a preset's, need not be there.
fn vocabulary(config: &RunConfig, asked: bool) -> Result<usize> {
    if let Some(path) = config.data.path.as_ref().filter(|path| !asked && not_there(path).is_some()) {
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
    if let Some(path) = config.data.val_path.take_if(|path| not_there(path).is_some()) {
        let missing = path.display();
        note(format_args!("{missing} is not here: what characters the validation data have is left out"));
    }
    let data = disk::dataset(&config, None)?;
    note(format_args!("data: {}", data.told()));
    data.oversized(config.model.vocab_size).into_iter().for_each(warn);
    Ok(data.vocab_size)
}

fn stage(i: usize) -> String {
    if i == 0 { "at the start".to_string() } else { format!("after growth {i}") }
}

/// Device memory in words.
fn memory_line(name: &str, bytes: u64) -> String {
    format!("{name:<14}{:>12}  {bytes:>15} B\n", number::bytes(bytes))
}
