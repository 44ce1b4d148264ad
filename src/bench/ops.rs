//! Every case of every operator, forward and forward with backward.
//!
//! Most cases are small: what they time is mostly the dispatches. They are there because they are the cases that are
//! checked, and to see one operator get slower. Use `bench matmul` and `bench step` for what training spends.

use super::probe::Probe;
use super::record::{Pass, Record, Report};
use super::timing::time;
use crate::error::{Error, Result};
use crate::gpu::engine::Engine;
use crate::gpu::timing::Stopwatch;
use crate::kernel::KernelTable;
use crate::ops::{Case, registry};
use crate::runtime::check::{Prepared, check};

/// Adds a record for each case whose operator and name contain `filter`, and each pass it has.
///
/// # Errors
/// A usage error where no case has that name; a device error where a result is wrong.
pub(crate) fn run(
    stopwatch: &Stopwatch,
    kernels: &KernelTable,
    filter: &str,
    seconds: f64,
    report: &mut Report,
) -> Result<()> {
    let mut cases = registry();
    cases.retain(|case| format!("{} {}", case.op, case.name).contains(filter));
    if cases.is_empty() {
        return Err(Error::usage(format!(
            "--filter \"{filter}\" is in no case's name: `tokenformer selftest` lists all, \"attention\" is an example"
        )));
    }
    Probe::new(stopwatch)?.around("operators", report, |report| {
        for case in &cases {
            correct(stopwatch.engine, kernels, case)?;
            for gradient in [false, true] {
                if case.gradient || !gradient {
                    report.add(timed(stopwatch, kernels, case, gradient, seconds)?);
                }
            }
        }
        Ok(())
    })
}

/// Refuses to time a wrong result.
fn correct(engine: &Engine, kernels: &KernelTable, case: &Case) -> Result<()> {
    let report = check(engine, case, kernels)?;
    if report.passed {
        return Ok(());
    }
    let gradient = report.gradient_error.map(|error| format!(", gradient error {error:.1e}")).unwrap_or_default();
    let guards = if report.guards_intact { "" } else { ", and it wrote outside a tensor" };
    Err(Error::device(format!(
        "{} {} is wrong on {}: normalised mean square error {:.1e}, at most {:.0e} is right{gradient}{guards}; it was \
         not timed: update the driver, or choose another adapter with --adapter or --backend",
        case.op,
        case.name,
        engine.gpu.describe(),
        report.nmse,
        case.nmse
    )))
}

fn timed(stopwatch: &Stopwatch, kernels: &KernelTable, case: &Case, gradient: bool, seconds: f64) -> Result<Record> {
    let prepared = Prepared::new(stopwatch.engine, case, kernels, gradient)?;
    // Inputs are written once; the runs of a chain see what the one before them left.
    prepared.run(stopwatch.engine)?;
    let record = Record {
        op: case.op.to_owned(),
        case: case.name.clone(),
        pass: if gradient { Pass::ForwardBackward } else { Pass::Forward },
        dtype: "f32".to_owned(),
        candidate: "default".to_owned(),
        flops: prepared.flops,
        bytes: prepared.bytes,
        ..Record::default()
    };
    Ok(record.timed(time(stopwatch, prepared.program(), seconds)?))
}
