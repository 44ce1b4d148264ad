//! What the device can do at most: multiply-adds, copying, reading, and starting dispatches.
//!
//! Each figure is the best of a sweep over configurations (by their fastest sample, as other work on the machine only
//! slows one down), measured again at full length. Every kernel is checked before it is timed, and the numbers are such
//! that work left undone shows.

use super::ceiling::{SWEEP_SHARE, Setup, kernels, peak, wrong};
use super::cooperative::peak_of_matrix_units;
use super::fma::fma_peak;
use super::probe::Probe;
use super::record::{Record, Report};
use super::timing::{Timed, time};
use crate::error::Result;
use crate::gpu::clocks::RooflineDims;
use crate::gpu::custom::Custom;
use crate::gpu::engine::{Block, Engine, Program};
use crate::gpu::facts::has_f16;
use crate::gpu::timing::Stopwatch;
use crate::kernel::{Access, Dtype, MAX_WORKGROUPS};
use std::time::Instant;

/// Bytes that are copied or read: more than caches hold.
const COPY_BYTES: u64 = 256 << 20;
/// The same on software adapters, which share their memory and time with everything else.
const COPY_BYTES_SOFTWARE: u64 = 64 << 20;
/// Runs of a dispatch, and waits for one, that are timed by the wall clock.
const WAITS: usize = 200;

/// Adds every figure to `report`; each takes about `seconds`, and its sweep about as much again or twice that.
///
/// # Errors
/// A device error where a kernel computes something else than it must.
pub(crate) fn run(stopwatch: &Stopwatch, seconds: f64, report: &mut Report) -> Result<()> {
    Probe::new(stopwatch)?.around("roofline", report, |report| {
        ceilings(stopwatch, seconds, report)?;
        report.add(dispatch_in_pass(stopwatch, seconds)?);
        report.add(submit_and_wait(stopwatch)?);
        Ok(())
    })
}

/// Adds the multiply-add and bandwidth figures that `report` does not hold yet: the lines of a roofline.
///
/// # Errors
/// As [`run`].
pub(crate) fn ceilings(stopwatch: &Stopwatch, seconds: f64, report: &mut Report) -> Result<()> {
    for dtype in [Dtype::F32, Dtype::F16] {
        let offered = dtype == Dtype::F32 || has_f16(&stopwatch.engine.gpu);
        if offered && report.fma_peak(dtype.name()).is_none() {
            report.add(fma_peak(stopwatch, dtype, seconds)?);
        }
    }
    if !report.records.iter().any(|record| record.op == "mma") {
        peak_of_matrix_units(stopwatch, seconds, report)?;
    }
    for op in ["copy", "read"] {
        if !report.records.iter().any(|record| record.op == op) {
            report.add(bandwidth(stopwatch, op, seconds)?);
        }
    }
    keep_peaks(stopwatch.engine, report);
    Ok(())
}

/// Keeps the most operations a second of each type, for runs to say how much of it they reach.
fn keep_peaks(engine: &Engine, report: &Report) {
    for dtype in [Dtype::F32, Dtype::F16] {
        let peaks = report.records.iter().filter(|record| record.is_peak() && record.dtype == dtype.name());
        if let Some(most) = peaks.filter_map(|record| record.gflops_best).max_by(f64::total_cmp) {
            engine.gpu.keep_peak(dtype, most * 1e9);
        }
    }
}

/// Bytes a second of `copy` (each byte counts twice: read and written) or `read`.
///
/// # Errors
/// A device error where the copy differs, or a sum is wrong.
pub(crate) fn bandwidth(stopwatch: &Stopwatch, op: &str, seconds: f64) -> Result<Record> {
    let engine = stopwatch.engine;
    let wanted = if engine.gpu.target.software { COPY_BYTES_SOFTWARE } else { COPY_BYTES };
    let limits = &engine.gpu.limits;
    // A power of two: every configuration divides it.
    let bytes = 1_u64 << wanted.min(limits.max_storage_buffer_binding_size).min(limits.max_buffer_size).ilog2();
    let count = (bytes / 16) as usize;
    let values: Vec<f32> = (0..bytes / 4).map(|i| (i % 8) as f32).collect();
    let origin = engine.allocate("origin", bytes)?;
    engine.write_all(&origin, &values)?;
    let copied = engine.allocate("copied", if op == "copy" { bytes } else { 16 })?;
    let sums = engine.allocate("sums", (count * 4) as u64)?;
    let (entry, blocks) = match op {
        "copy" => ("copy_all", [(1, Access::Read, &origin), (2, Access::Write, &copied)]),
        _ => ("read_all", [(1, Access::Read, &origin), (3, Access::Write, &sums)]),
    };
    let text = kernels(Dtype::F32)?;
    let mut best: Option<(f64, Program, String)> = None;
    for workgroup in [64, 256] {
        for each in [4, 16] {
            // This kernel has no chains.
            let setup = Setup { text: &text, entry, chains: [8, 8], workgroup };
            let groups = (count / workgroup / each).clamp(1, MAX_WORKGROUPS as usize);
            engine.run(&setup.prepare(engine, RooflineDims::of(0, count, true), &blocks, groups)?)?;
            let right = match op {
                "copy" => engine.read(&copied)? == values,
                _ => {
                    // Each vec4 holds 0 to 3 or 4 to 7; the stride is even, so a lane sees only one kind.
                    let lanes = groups * workgroup;
                    let sum = |lane: usize| (6 + 16 * (lane % 2)) as f32 * (count / lanes) as f32;
                    let got = engine.read(&sums.sized(4 * lanes as u64))?;
                    !count.is_multiple_of(lanes) || got.iter().enumerate().all(|(lane, &got)| got == sum(lane))
                }
            };
            if !right {
                return Err(wrong(engine, &format!("{op} with workgroups of {workgroup} gives wrong numbers")));
            }
            let program = setup.prepare(engine, RooflineDims::of(0, count, false), &blocks, groups)?;
            let fastest = time(stopwatch, &program, seconds * SWEEP_SHARE)?.best_ms();
            if best.as_ref().is_none_or(|(least, ..)| fastest < *least) {
                best = Some((fastest, program, format!("workgroup {workgroup}, {each} vec4 an invocation")));
            }
        }
    }
    let Some((_, program, config)) = best else {
        return Err(wrong(engine, "no workgroup size fits"));
    };
    let moved = if op == "copy" { 2 * bytes } else { bytes };
    let case = format!("{} MiB", bytes >> 20);
    let record = Record { bytes: moved, config: Some(config), ..peak(op, &case, Dtype::F32) };
    Ok(record.moved(time(stopwatch, &program, seconds)?))
}

/// Time of one smallest dispatch among many in a pass, each waiting for the one before it.
///
/// # Errors
/// A device error where some did not run.
pub(crate) fn dispatch_in_pass(stopwatch: &Stopwatch, seconds: f64) -> Result<Record> {
    let (program, word) = tick(stopwatch.engine)?;
    let runs = 100;
    stopwatch.sample(&program, runs)?;
    let ran = stopwatch.engine.read(&word)?.first().copied().unwrap_or(0.0);
    if ran != runs as f32 {
        return Err(wrong(stopwatch.engine, &format!("{ran} of {runs} dispatches in one pass ran")));
    }
    Ok(peak("dispatch", "in one pass", Dtype::F32).timed(time(stopwatch, &program, seconds)?))
}

/// Time from submitting one smallest dispatch until the host knows it ran, encoding included.
///
/// # Errors
/// Those of the device.
pub(crate) fn submit_and_wait(stopwatch: &Stopwatch) -> Result<Record> {
    let engine = stopwatch.engine;
    let (program, _) = tick(engine)?;
    engine.run(&program)?;
    let mut samples_ms = Vec::with_capacity(WAITS);
    for _ in 0..WAITS {
        let start = Instant::now();
        // Without the mark that ends other submissions: it is a dispatch too.
        let mut encoder = engine.encoder();
        engine.record(&mut encoder, &program);
        let submission = engine.gpu.submit(encoder)?;
        engine.gpu.wait(submission)?;
        samples_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let timed = Timed { samples_ms, repeats: 1, ..Timed::default() };
    Ok(peak("dispatch", "submit and wait", Dtype::F32).timed(timed))
}

fn tick(engine: &Engine) -> Result<(Program, Block)> {
    let word = engine.allocate("ticks", 4)?;
    let (text, blocks) = (kernels(Dtype::F32)?, [(3, Access::Write, &word)]);
    let tick = Custom {
        text: &text,
        entry: "tick",
        constants: &[],
        parameters: RooflineDims::of(0, 0, false).into(),
        blocks: &blocks,
        groups: 1,
    };
    Ok((tick.prepare(engine)?, word))
}
