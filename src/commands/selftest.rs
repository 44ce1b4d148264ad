//! `tokenformer selftest`: every operator against its reference on this machine, and a short form of it
//! that runs by itself the first time an adapter and driver are seen.

use crate::cache;
use crate::error::{Error, Result, tell};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::device::Gpu;
use crate::gpu::engine::Engine;
use crate::gpu::shader;
use crate::ops::check::{Report, check};
use crate::ops::{Case, registry};
use clap::Args;
use std::collections::HashMap;

/// Arguments of `selftest`.
#[derive(Debug, Args)]
pub struct SelftestArgs {
    /// Two cases of each operator instead of all.
    #[arg(long)]
    quick: bool,
}

/// Runs the registry and prints a table.
///
/// # Errors
/// A device error where a case fails.
pub fn run(request: &AdapterRequest, args: &SelftestArgs) -> Result<()> {
    let engine = Engine::new(Gpu::open(request)?)?;
    super::print(&format!("{}\n\n", engine.gpu.describe()))?;
    super::print(&format!("{:<14} {:<44} {:>9} {:>9}\n", "op", "case", "NMSE", "gradient"))?;
    let (mut failed, mut all) = (Vec::new(), 0);
    for case in if args.quick { quick() } else { registry() } {
        all += 1;
        let report = check(&engine, &case, &engine.choices())?;
        super::print(&row(&case, &report))?;
        if !report.passed {
            failed.push(format!("{} {}", case.op, case.name));
        }
    }
    remember(&engine, failed.is_empty());
    super::print(&format!("\n{} of {all} cases passed\n", all - failed.len()))?;
    verdict(&engine, &failed)
}

fn row(case: &Case, report: &Report) -> String {
    let gradient = report.gradient_error.map_or_else(|| "-".to_string(), |e| format!("{e:.1e}"));
    let guards = if report.guards_intact { "" } else { "  WROTE OUTSIDE A TENSOR" };
    let failed = if report.passed { "" } else { "  FAILED" };
    format!("{:<14} {:<44} {:>9.1e} {gradient:>9}{guards}{failed}\n", case.op, case.name, report.nmse)
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

/// The two first cases of every op: the smallest, and one with real shapes.
fn quick() -> Vec<Case> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut cases = registry();
    cases.retain(|case| {
        // Layouts and normalisations have kernels of their own: the first word of the name.
        let variant = if matches!(case.op, "matmul" | "pattention") { case.name.split(' ').next() } else { None };
        let count = seen.entry(format!("{} {}", case.op, variant.unwrap_or_default())).or_default();
        *count += 1;
        *count <= 2
    });
    cases
}

/// Runs the quick cases unless this adapter, driver and version passed them before.
///
/// # Errors
/// A device error naming what came out wrong: numbers from such an adapter are worth nothing.
pub fn once_per_adapter(engine: &Engine) -> Result<()> {
    if cache::read(&verdict_file(engine)).as_deref() == Some("passed\n") {
        return Ok(());
    }
    tell("first use of this adapter and driver: checking its numbers once");
    let mut failed = Vec::new();
    for case in quick() {
        let report = check(engine, &case, &engine.choices())?;
        if !report.passed {
            failed.push(format!("{} {}", case.op, case.name));
        }
    }
    remember(engine, failed.is_empty());
    verdict(engine, &failed)
}

/// Name of the verdict: per adapter, driver, program version and text of the shaders.
fn verdict_file(engine: &Engine) -> String {
    let hash = cache::fingerprint(shader::FILES.iter().map(|(_, text)| *text));
    format!("selftest-{}-{}-{hash:016x}", engine.gpu.cache_key(), env!("CARGO_PKG_VERSION"))
}

fn remember(engine: &Engine, passed: bool) {
    cache::write(&verdict_file(engine), if passed { "passed\n" } else { "failed\n" });
}
