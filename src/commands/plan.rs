//! `tokenformer plan`: what a run needs, computed without allocating anything.

use super::settings::Settings;
use super::train::memory_line;
use crate::error::Result;
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::choices::{Ability, Choices};
use crate::gpu::device::Gpu;
use crate::graph::plan::Limits;
use crate::train::cohorts::{self, Stage};
use crate::train::trainer::RunPlans;
use clap::Args;

/// Vocabulary assumed where it depends on data that `plan` does not read.
const BYTE_VOCABULARY: usize = 256;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    settings: Settings,
    /// Plan for the limits that every WebGPU device offers instead of this machine's adapter.
    #[arg(long)]
    webgpu_limits: bool,
}

/// Prints bytes by class for every stage of the run.
///
/// # Errors
/// A tensor over a limit: its name, bytes, the limit and the remedy.
pub fn run(request: &AdapterRequest, args: &PlanArgs) -> Result<()> {
    let mut config = args.settings.resolve()?;
    if config.model.vocab_size == 0 {
        config.model.resolve_vocab(BYTE_VOCABULARY)?;
    }
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
    let (limits, choices, name) = if args.webgpu_limits {
        (Limits::WEBGPU_DEFAULT, Choices::usual(Ability::WEBGPU_DEFAULT), "any WebGPU device".to_string())
    } else {
        let gpu = Gpu::open(request)?;
        (Limits::of(&gpu), Choices::of(&gpu), gpu.describe())
    };
    let mut text = format!("limits of {name}\n");
    for (i, Stage { model, cohorts }) in stages.iter().enumerate() {
        let plans = RunPlans::new(model, &config.train, cohorts, 1, &limits, &choices)?;
        let bytes = plans.bytes()?;
        text.push_str(&format!(
            "\n{}: {:.3} GFLOP a step in {} dispatches\n",
            stage(i),
            plans.flops_per_step() as f64 / 1e9,
            plans.micro.calls.len() * plans.shape.grad_accum + plans.update.calls.len()
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

fn stage(i: usize) -> String {
    if i == 0 { "at the start".to_string() } else { format!("after growth {i}") }
}
