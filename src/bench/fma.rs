//! Most multiply-adds a second: the best of a sweep over accumulators and workgroup sizes, measured again at full length.
//!
//! An accumulator counts its own multiply-adds, so that work left undone shows.

use super::ceiling::{SWEEP_SHARE, Setup, kernels, peak, wrong};
use super::record::Record;
use super::timing::{quantile, time, time_beside};
use crate::console::note;
use crate::error::Result;
use crate::gpu::clocks::RooflineDims;
use crate::gpu::engine::{Block, Engine, Program};
use crate::gpu::timing::Stopwatch;
use crate::kernel::{Access, Dtype, MAX_WORKGROUPS};

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

/// Most multiply-adds a second in a type: the best number of accumulators and workgroup size, measured again.
///
/// # Errors
/// A device error where a sum is not what so many multiply-adds make.
pub(crate) fn fma_peak(stopwatch: &Stopwatch, dtype: Dtype, seconds: f64) -> Result<Record> {
    Ok(FmaPeak::find(stopwatch, dtype, seconds)?.record)
}

/// The peak, ready to be measured again beside something else.
pub(crate) struct FmaPeak {
    /// What was measured.
    pub record: Record,
    program: Program,
}

impl FmaPeak {
    /// As [`fma_peak`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn find(stopwatch: &Stopwatch, dtype: Dtype, seconds: f64) -> Result<Self> {
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
    pub(crate) fn beside(
        &self,
        stopwatch: &Stopwatch,
        record: Record,
        program: &Program,
        seconds: f64,
    ) -> Result<Record> {
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
    let text = kernels(dtype)?;
    let fits = |workgroup: &usize| *workgroup <= engine.gpu.limits.max_compute_invocations_per_workgroup as usize;
    let workgroups: Vec<usize> = WORKGROUPS.into_iter().filter(fits).collect();
    let Some(&first) = workgroups.first() else { return Err(wrong(engine, "no workgroup size fits")) };
    let setup = |chains, workgroup| Setup { text: &text, entry: "multiply_add", chains, workgroup };
    note(format_args!("multiply-adds in {}: trying {} configurations", dtype.name(), CHAINS.len() + workgroups.len()));
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
        let text = kernels(Dtype::F32)?;
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
