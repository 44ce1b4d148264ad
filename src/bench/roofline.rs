//! What the device can do at most: multiply-adds, copying, reading, and starting dispatches.
//!
//! Each figure is the best of a sweep over configurations (by their fastest sample, as other work on the machine only
//! slows one down), measured again at full length. Every kernel is checked
//! before it is timed, and the numbers are such that work left undone shows: an accumulator counts its own
//! multiply-adds.

use super::cooperative::peak_of_matrix_units;
use super::probe::Probe;
use super::record::{Record, Report};
use super::timing::{Timed, quantile, time, time_beside};
use crate::error::{Error, Result, tell};
use crate::gpu::clocks::RooflineDims;
use crate::gpu::custom::Custom;
use crate::gpu::engine::{Block, Engine, Program};
use crate::gpu::facts::has_f16;
use crate::gpu::timing::Stopwatch;
use crate::kernel::{Access, Dtype, MAX_WORKGROUPS, shader};
use std::time::Instant;

const FILE: &str = "roofline.wgsl";

/// Numbers each invocation keeps, and multiply-adds on each in a turn of the loop. Many numbers hide how long one
/// multiply-add takes, long turns hide the loop; compilers may lose registers over either.
const CHAINS: [[usize; 2]; 7] = [[8, 8], [16, 8], [24, 8], [32, 8], [8, 32], [16, 32], [32, 32]];
/// Invocations of a workgroup, that of the first sweep first.
const WORKGROUPS: [usize; 6] = [64, 8, 16, 32, 128, 256];
/// Multiply-adds on each accumulator: in f16 it counts to 2048.
const TERMS: usize = 1984;
/// Most invocations of one dispatch; each stores one word.
const MOST_INVOCATIONS: usize = 1 << 20;
/// A dispatch is made larger until it takes this long, so that starting it does not matter.
const DISPATCH_SECONDS: f64 = 2e-3;
/// Bytes that are copied or read: more than caches hold.
const COPY_BYTES: u64 = 256 << 20;
/// The same on software adapters, which share their memory and time with everything else.
const COPY_BYTES_SOFTWARE: u64 = 64 << 20;
/// Share of a case's time that one configuration of a sweep gets.
const SWEEP_SHARE: f64 = 0.1;
/// Runs of a dispatch, and waits for one, that are timed by the wall clock.
const WAITS: usize = 200;

/// Adds every figure to `report`; each takes about `seconds`, and its sweep about as much again or twice that.
///
/// # Errors
/// A device error where a kernel computes something else than it must.
pub fn run(stopwatch: &Stopwatch, seconds: f64, report: &mut Report) -> Result<()> {
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
pub fn ceilings(stopwatch: &Stopwatch, seconds: f64, report: &mut Report) -> Result<()> {
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
    Ok(())
}

pub(super) fn peak(op: &str, case: &str, dtype: Dtype) -> Record {
    Record {
        op: op.to_owned(),
        case: case.to_owned(),
        pass: "peak".to_owned(),
        dtype: dtype.name().to_owned(),
        ..Record::default()
    }
}

pub(super) fn wrong(engine: &Engine, what: &str) -> Error {
    Error::device(format!(
        "{what} on {}; nothing was timed: update its driver, or choose another adapter with --adapter or --backend",
        engine.gpu.describe()
    ))
}

/// The kernel of a file entry with a workgroup size.
struct Setup<'a> {
    text: &'a str,
    entry: &'a str,
    /// Accumulators, and multiply-adds on each in a turn.
    chains: [usize; 2],
    workgroup: usize,
}

impl Setup<'_> {
    fn prepare(
        &self,
        engine: &Engine,
        dims: RooflineDims,
        blocks: &[(u32, Access, &Block)],
        groups: usize,
    ) -> Result<Program> {
        let [accumulators, unrolled] = self.chains.map(|count| count as f64);
        let workgroup = self.workgroup as f64;
        let sizes = [("ACCUMULATORS", accumulators), ("UNROLLED", unrolled), ("WORKGROUP", workgroup)];
        let constants = if self.entry == "tick" { &[][..] } else { &sizes[..] };
        let groups = u32::try_from(groups).unwrap_or(MAX_WORKGROUPS).clamp(1, MAX_WORKGROUPS);
        Custom { text: self.text, entry: self.entry, constants, parameters: dims.into(), blocks, groups }
            .prepare(engine)
    }
}

/// Most multiply-adds a second in a type: the best number of accumulators and workgroup size, measured again.
///
/// # Errors
/// A device error where a sum is not what so many multiply-adds make.
pub fn fma_peak(stopwatch: &Stopwatch, dtype: Dtype, seconds: f64) -> Result<Record> {
    Ok(FmaPeak::find(stopwatch, dtype, seconds)?.record)
}

/// The peak, ready to be measured again beside something else.
pub struct FmaPeak {
    /// What was measured.
    pub record: Record,
    program: Program,
}

impl FmaPeak {
    /// As [`fma_peak`].
    ///
    /// # Errors
    /// As there.
    pub fn find(stopwatch: &Stopwatch, dtype: Dtype, seconds: f64) -> Result<Self> {
        let Fma { program, flops, config } = best_fma(stopwatch, dtype, seconds)?;
        let record = Record { flops, config: Some(config), ..peak("fma", "multiply-add", dtype) };
        let record = record.timed(time(stopwatch, &program, seconds)?);
        Ok(Self { record, program })
    }

    /// Times `program` in turn with the peak, and puts both into `record`: with `flops` in it, its share of the peak of
    /// the same moments.
    ///
    /// # Errors
    /// Those of the device.
    pub fn beside(&self, stopwatch: &Stopwatch, record: Record, program: &Program, seconds: f64) -> Result<Record> {
        let [own, peak] = time_beside(stopwatch, program, &self.program, seconds)?;
        let work = 100.0 * record.flops as f64 / self.record.flops as f64;
        let shares: Vec<f64> =
            own.samples_ms.iter().zip(&peak.samples_ms).map(|(own, peak)| work * peak / own).collect();
        Ok(Record { peak_percent: Some(quantile(&shares, 0.5)), ..record.timed(own) })
    }
}

/// The best configuration of multiply-adds.
fn best_fma(stopwatch: &Stopwatch, dtype: Dtype, seconds: f64) -> Result<Fma> {
    let engine = stopwatch.engine;
    let text = shader::source(FILE, dtype)?;
    let fits = |workgroup: &usize| *workgroup <= engine.gpu.limits.max_compute_invocations_per_workgroup as usize;
    let workgroups: Vec<usize> = WORKGROUPS.into_iter().filter(fits).collect();
    let Some(&first) = workgroups.first() else { return Err(wrong(engine, "no workgroup size fits")) };
    let setup = |chains, workgroup| Setup { text: &text, entry: "multiply_add", chains, workgroup };
    tell(format_args!("multiply-adds in {}: trying {} configurations", dtype.name(), CHAINS.len() + workgroups.len()));
    let sums = engine.allocate("sums", 4 * MOST_INVOCATIONS as u64)?;
    let narrow: Vec<Setup> = CHAINS.into_iter().map(|chains| setup(chains, first)).collect();
    let chains = narrow[fastest(stopwatch, &narrow, &sums, seconds)?.0].chains;
    let wide: Vec<Setup> = workgroups.into_iter().map(|workgroup| setup(chains, workgroup)).collect();
    Ok(fastest(stopwatch, &wide, &sums, seconds)?.1)
}

/// The setup that does most, by number. Each has two turns, so that one disturbance does not decide.
fn fastest(stopwatch: &Stopwatch, setups: &[Setup], sums: &Block, seconds: f64) -> Result<(usize, Fma)> {
    let all = setups.iter().map(|setup| Fma::new(stopwatch, setup, sums)).collect::<Result<Vec<_>>>()?;
    let mut rates = vec![0.0_f64; all.len()];
    for _ in 0..2 {
        for (rate, fma) in rates.iter_mut().zip(&all) {
            *rate = rate.max(fma.flops as f64 / time(stopwatch, &fma.program, seconds * SWEEP_SHARE)?.best_ms());
        }
    }
    let best = all.into_iter().enumerate().max_by(|(i, _), (j, _)| rates[*i].total_cmp(&rates[*j]));
    best.ok_or_else(|| wrong(stopwatch.engine, "no workgroup size fits"))
}

/// One configuration of multiply-adds, checked.
pub(super) struct Fma {
    pub(super) program: Program,
    pub(super) flops: u64,
    config: String,
}

impl Fma {
    /// A configuration that every device can run, for readings that are compared with each other.
    pub(super) fn fixed(stopwatch: &Stopwatch) -> Result<Self> {
        let text = shader::source(FILE, Dtype::F32)?;
        let sums = stopwatch.engine.allocate("sums", 4 * MOST_INVOCATIONS as u64)?;
        Self::new(stopwatch, &Setup { text: &text, entry: "multiply_add", chains: [8, 32], workgroup: 64 }, &sums)
    }

    /// As many workgroups as make a dispatch that is long enough.
    fn new(stopwatch: &Stopwatch, setup: &Setup, sums: &Block) -> Result<Self> {
        let engine = stopwatch.engine;
        let blocks = [(3, Access::Write, sums)];
        let [accumulators, unrolled] = setup.chains;
        let rounds = TERMS / unrolled;
        let most = (MOST_INVOCATIONS / setup.workgroup).min(MAX_WORKGROUPS as usize);
        let mut groups = (256 / setup.workgroup).max(4);
        stopwatch.raise_clocks()?;
        loop {
            let program = setup.prepare(engine, RooflineDims::of(rounds, 0, true), &blocks, groups)?;
            let wall = stopwatch.sample(&program, 1)?.wall.as_secs_f64();
            // The first run compiles where drivers put that off, so its time may be far too long; ask again.
            let wall = if wall < DISPATCH_SECONDS { wall } else { stopwatch.sample(&program, 1)?.wall.as_secs_f64() };
            if wall >= DISPATCH_SECONDS || groups == most {
                check_sums(engine, setup, &engine.read(&sums.sized(4 * (groups * setup.workgroup) as u64))?)?;
                let program = setup.prepare(engine, RooflineDims::of(rounds, 0, false), &blocks, groups)?;
                let chain = 2 * (TERMS * accumulators) as u64;
                let config =
                    format!("{accumulators} accumulators, {unrolled} terms a turn, workgroup {}", setup.workgroup);
                return Ok(Self { program, flops: chain * (groups * setup.workgroup) as u64, config });
            }
            groups = (groups * 4).min(most);
        }
    }
}

/// Accumulator j of lane l starts at l mod 8 + j and counts its multiply-adds.
fn expected_sum(accumulators: usize, invocation: usize) -> f32 {
    (accumulators * (invocation % 8 + TERMS) + accumulators * (accumulators - 1) / 2) as f32
}

/// The first sum that is wrong, and its invocation.
fn wrong_sum(accumulators: usize, sums: &[f32]) -> Option<(usize, f32)> {
    sums.iter().copied().enumerate().find(|&(i, sum)| sum != expected_sum(accumulators, i))
}

fn check_sums(engine: &Engine, setup: &Setup, sums: &[f32]) -> Result<()> {
    let accumulators = setup.chains[0];
    let Some((i, sum)) = wrong_sum(accumulators, sums) else { return Ok(()) };
    let right = expected_sum(accumulators, i);
    let size = setup.workgroup;
    let what = format!(
        "multiply_add with {accumulators} accumulators and workgroups of {size} gives {sum} in invocation {i}, {right} is right"
    );
    Err(wrong(engine, &what))
}

/// Bytes a second of `copy` (each byte counts twice: read and written) or `read`.
///
/// # Errors
/// A device error where the copy differs, or a sum is wrong.
pub fn bandwidth(stopwatch: &Stopwatch, op: &str, seconds: f64) -> Result<Record> {
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
    let text = shader::source(FILE, Dtype::F32)?;
    let mut best: Option<(f64, Program, String)> = None;
    for workgroup in [64, 256] {
        for each in [4, 16] {
            let setup = Setup { text: &text, entry, chains: CHAINS[0], workgroup };
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
pub fn dispatch_in_pass(stopwatch: &Stopwatch, seconds: f64) -> Result<Record> {
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
pub fn submit_and_wait(stopwatch: &Stopwatch) -> Result<Record> {
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
    let text = shader::source(FILE, Dtype::F32)?;
    let setup = Setup { text: &text, entry: "tick", chains: CHAINS[0], workgroup: 1 };
    Ok((setup.prepare(engine, RooflineDims::of(0, 0, false), &[(3, Access::Write, &word)], 1)?, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_in_both_types() {
        // f16 holds every integer up to 2048, f32 up to 2^24.
        const { assert!(7 + 31 + TERMS <= 2048) };
        assert!(CHAINS.iter().all(|[_, unrolled]| TERMS.is_multiple_of(*unrolled)));
        let by_hand: usize = (0..24).map(|j| 5 + j + 1984).sum();
        assert_eq!(expected_sum(24, 13), by_hand as f32);
        assert!(expected_sum(32, 7) < 16_777_216.0);
        let mut sums: Vec<f32> = (0..20).map(|i| expected_sum(8, i)).collect();
        assert_eq!(wrong_sum(8, &sums), None);
        // One multiply-add too few on one accumulator.
        sums[11] -= 1.0;
        assert_eq!(wrong_sum(8, &sums), Some((11, sums[11])));
        sums[3] = f32::NAN;
        assert!(wrong_sum(8, &sums).is_some_and(|(i, _)| i == 3));
    }
}
