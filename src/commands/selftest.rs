//! `tokenformer selftest`: every operator against its reference on this machine, and a short form of it
//! that runs by itself the first time an adapter and driver are seen.

use super::answer::Answer;
use crate::cache;
use crate::console::note;
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::engine::Engine;
use crate::kernel::{Dtype, shader};
use crate::ops::attention;
use crate::ops::{Case, mixed_registry, registry};
use crate::runtime::check::{Report, check_in};
use crate::runtime::device::Device;
use crate::runtime::overflow;
use crate::tune::kernel_texts;
use clap::Args;
use serde_json::json;
use std::collections::HashMap;

/// Arguments of `selftest`.
#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Two cases of each operator instead of all.
    #[arg(long)]
    quick: bool,
}

/// Runs the registry and prints a table.
///
/// # Errors
/// A device error where a case fails.
pub(crate) fn run(request: &AdapterRequest, args: &SelftestArgs) -> Answer {
    let device = Device::open(request)?;
    let Device { engine, kernels, .. } = &device;
    super::print(&format!("{}\n\n", engine.gpu.describe()))?;
    super::print(&format!("{:<14} {:<44} {:<4} {:>9} {:>9}\n", "op", "case", "type", "NMSE", "gradient"))?;
    let (mut failed, mut all) = (Vec::new(), 0);
    let mut precisions = vec![Dtype::F32];
    precisions.extend(engine.gpu.target.f16.then_some(Dtype::F16));
    for (precision, case) in
        precisions.clone().into_iter().flat_map(|p| cases(p, args.quick).into_iter().map(move |c| (p, c)))
    {
        all += 1;
        let report = check_in(engine, &case, kernels, precision)?;
        super::print(&row(&case, precision, &report))?;
        if !report.passed {
            failed.push(format!("{} {} in {}", case.op, case.name, precision.name()));
        }
    }
    let half = precisions.contains(&Dtype::F16);
    let range = if half { overflow::check(&device) } else { Ok(()) };
    if half {
        all += 1;
        let (found, op, name) = (if range.is_ok() { "" } else { "  FAILED" }, "overflow", "to infinity");
        super::print(&format!("{op:<14} {name:<44} f16  {:>9} {:>9}{found}\n", "-", "-"))?;
    }
    let wrong = failed.len() + usize::from(range.is_err());
    for precision in precisions {
        let suffix = format!(" in {}", precision.name());
        let sound = precision == Dtype::F32 || range.is_ok();
        remember(engine, precision, sound && !failed.iter().any(|name| name.ends_with(&suffix)));
    }
    super::print(&format!("\n{} of {all} cases passed\n", all - wrong))?;
    verdict(engine, &failed)?;
    range?;
    Ok(json!({ "adapter": engine.gpu.describe(), "cases": all, "passed": all - wrong }))
}

fn row(case: &Case, precision: Dtype, report: &Report) -> String {
    let gradient = report.gradient_error.map_or_else(|| "-".to_string(), |e| format!("{e:.1e}"));
    let guards = if report.guards_intact { "" } else { "  WROTE OUTSIDE A TENSOR" };
    let failed = if report.passed { "" } else { "  FAILED" };
    let (op, name, nmse) = (case.op, &case.name, report.nmse);
    format!("{op:<14} {name:<44} {:<4} {nmse:>9.1e} {gradient:>9}{guards}{failed}\n", precision.name())
}

fn verdict(engine: &Engine, failed: &[String]) -> Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::device(format!(
        "{} computes wrong numbers ({}); update its driver, or choose another adapter with --adapter or --backend",
        engine.gpu.describe(),
        failed.join(", ")
    )))
}

/// What is checked in one precision; `quick`: the two first cases of every op, the smallest and one with real shapes.
fn cases(precision: Dtype, quick: bool) -> Vec<Case> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut cases = if precision == Dtype::F16 { mixed_registry() } else { registry() };
    if !quick {
        return cases;
    }
    cases.retain(|case| {
        // Layouts and normalisations have kernels of their own: the first word of the name.
        let variant = if matches!(case.op, "matmul" | "pattention") { case.name.split(' ').next() } else { None };
        let count = seen.entry(format!("{} {}", case.op, variant.unwrap_or_default())).or_default();
        *count += 1;
        *count <= 2
    });
    cases
}

/// Runs the quick cases unless this adapter, driver and version passed them before in this precision. Half of them run on
/// a second device of the adapter that `request` asks for: nearly all of the time goes into compiling, on one core.
///
/// # Errors
/// A device error naming what came out wrong: numbers from such an adapter are worth nothing. In f16 also where an overflow
/// would go unseen.
pub(crate) fn once_per_adapter(device: &Device, request: &AdapterRequest, precision: Dtype) -> Result<()> {
    let engine = &device.engine;
    if cache::read(&verdict_file(engine, precision)).as_deref() == Some("passed\n") {
        return Ok(());
    }
    let what = if precision == Dtype::F16 { " in f16" } else { "" };
    note(format_args!("first use of this adapter and driver: checking its numbers{what} once"));
    if precision == Dtype::F16 {
        overflow::check(device)?;
    }
    let cases = cases(precision, true);
    let failures = |Device { engine, kernels, .. }: &Device, first: usize, step: usize| -> Result<Vec<String>> {
        let mut failed = Vec::new();
        for case in cases.iter().skip(first).step_by(step) {
            if !check_in(engine, case, kernels, precision)?.passed {
                failed.push(format!("{} {}{what}", case.op, case.name));
            }
        }
        Ok(failed)
    };
    let failed = std::thread::scope(|scope| {
        let Ok(second) = Device::open(request) else { return failures(device, 0, 1) };
        let theirs = scope.spawn(move || failures(&second, 1, 2));
        let mut failed = failures(device, 0, 2)?;
        failed.extend(theirs.join().map_err(|_| Error::device("the check of the adapter ended in a panic"))??);
        Ok(failed)
    })?;
    remember(engine, precision, failed.is_empty());
    verdict(engine, &failed)
}

/// Name of the verdict: per adapter, driver, program version and text of the shaders.
fn verdict_file(engine: &Engine, precision: Dtype) -> String {
    let target = engine.gpu.target;
    let generated = kernel_texts(&target).into_iter().chain(attention::kernel_texts(&target));
    let texts = shader::FILES.iter().map(|(_, text)| *text).chain(generated);
    let hash = cache::fingerprint(texts);
    let (adapter, version) = (engine.gpu.cache_key(), env!("CARGO_PKG_VERSION"));
    format!("selftest-{}-{adapter}-{version}-{hash:016x}", precision.name())
}

fn remember(engine: &Engine, precision: Dtype, passed: bool) {
    cache::write(&verdict_file(engine, precision), if passed { "passed\n" } else { "failed\n" });
}
