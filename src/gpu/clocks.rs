//! Brings a GPU's clocks up before anything is timed, and knows when they are.
//!
//! A GPU that is asked for little lowers its clocks, and raises them only after up to a second of work. That a kernel takes
//! the same time again and again says nothing: an H100 ran steadily at 345 of 1980 MHz for some tenths of a second, and one
//! reading was 11,159 GFLOP/s instead of 63,900. So a fixed kernel of multiply-adds is run until it is as fast as it was
//! ever seen on this device. Where clocks are up that takes two readings of a few milliseconds.
//!
//! Software adapters have no clocks of their own, and on GL nothing tells how long a kernel takes: neither is warmed up.

use super::custom::Custom;
use super::engine::{Engine, Program};
use super::timing::Stopwatch;
use crate::error::Result;
use crate::kernel::{Access, Dims, Dtype, shader};
use std::sync::PoisonError;

/// Workgroups and invocations of each, accumulators of an invocation, multiply-adds on each in a turn of the loop, turns:
/// 0.13 ms on an H100, 0.1 s on a small integrated GPU.
const GROUPS: usize = 4096;
const WORKGROUP: usize = 64;
const ACCUMULATORS: usize = 8;
const UNROLLED: usize = 32;
const ROUNDS: usize = 62;
/// Floating-point operations of one run.
const FLOPS: usize = 2 * GROUPS * WORKGROUP * ACCUMULATORS * UNROLLED * ROUNDS;
/// Seconds of one reading, and most runs in it.
const READING: f64 = 4e-3;
const MOST_RUNS: f64 = 1000.0;
/// Clocks are up where a run takes at most so many times the shortest one, ...
const UP: f64 = 1.1;
/// ... so often in a row.
const READINGS: u32 = 2;
/// Until then, or where nothing is known: seconds of work at least, ...
const LEAST: f64 = 1.0;
/// ... without a reading that is better by this share ...
const BETTER: f64 = 0.01;
/// ... for so many seconds, ...
const SETTLED: f64 = 0.5;
/// ... and seconds at most.
const MOST: f64 = 2.0;

/// One reading of the kernel.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Seconds of a run.
    run: f64,
    /// Seconds that the reading took.
    spent: f64,
}

/// How fast the kernel was so far.
#[derive(Debug, Default)]
pub(super) struct Seen(Option<f64>);

impl Seen {
    /// Takes readings until clocks are up; the seconds of a run then. A device that stays slower than it was for as long as
    /// clocks may take to rise has become slower, as laptops do: what it does now is the measure from then on.
    fn rise(&mut self, mut reading: impl FnMut() -> Result<Reading>) -> Result<f64> {
        let (mut spent, mut up, mut best, mut improved) = (0.0, 0, f64::INFINITY, 0.0);
        loop {
            let now = reading()?;
            spent += now.spent;
            up = if self.0.is_some_and(|known| now.run <= UP * known) { up + 1 } else { 0 };
            if up >= READINGS {
                self.0 = self.0.map(|known| known.min(now.run));
                return Ok(now.run);
            }
            if now.run < (1.0 - BETTER) * best {
                (best, improved) = (now.run, spent);
            }
            if spent >= MOST || spent >= LEAST && spent - improved >= SETTLED {
                self.0 = Some(best.min(now.run));
                return Ok(now.run);
            }
        }
    }
}

/// The kernel, ready to run.
///
/// # Errors
/// Those of the device.
fn multiply_adds(engine: &Engine) -> Result<Program> {
    let text = shader::source("roofline.wgsl", Dtype::F32)?;
    let sums = engine.allocate("sums", 4 * (GROUPS * WORKGROUP) as u64)?;
    let constants = [("ACCUMULATORS", ACCUMULATORS), ("UNROLLED", UNROLLED), ("WORKGROUP", WORKGROUP)];
    let custom = Custom {
        text: &text,
        entry: "multiply_add",
        constants: &constants.map(|(name, n)| (name, n as f64)),
        dims: Dims::new().u(ROUNDS).u(0).flag(false).f(1.0).f(1.0),
        blocks: &[(3, Access::Write, &sums)],
        groups: GROUPS as u32,
    };
    custom.prepare(engine)
}

impl Stopwatch<'_> {
    /// Works until the GPU's clocks are up: two short readings where they are, up to two seconds where they are not. The
    /// multiply-adds in f32 that it does then, in floating-point operations a second; `None` where there is nothing to raise.
    ///
    /// # Errors
    /// Those of the device.
    pub fn raise_clocks(&self) -> Result<Option<f64>> {
        let gpu = &self.engine.gpu;
        if gpu.target.software || gpu.info.backend == wgpu::Backend::Gl {
            return Ok(None);
        }
        let mut kernel = self.multiply_adds.borrow_mut();
        if kernel.is_none() {
            *kernel = Some(multiply_adds(self.engine)?);
        }
        let Some(program) = kernel.as_ref() else { return Ok(None) };
        let mut runs = 1;
        let reading = || {
            let sample = self.sample(program, runs)?;
            let run = sample.seconds() / f64::from(runs);
            runs = (READING / run).ceil().clamp(1.0, MOST_RUNS) as u32;
            Ok(Reading { run, spent: sample.wall.as_secs_f64() })
        };
        let run = self.engine.clocks.lock().unwrap_or_else(PoisonError::into_inner).rise(reading)?;
        Ok(Some(FLOPS as f64 / run))
    }
}

#[cfg(test)]
mod tests {
    use super::super::adapter::AdapterRequest;
    use super::super::device::Gpu;
    use super::*;

    /// Plays readings of 4 ms by the time that was spent, and says how much was.
    fn play(seen: &mut Seen, run: impl Fn(f64) -> f64) -> (f64, f64) {
        let mut spent = 0.0;
        let result = seen.rise(|| {
            spent += READING;
            Ok(Reading { run: run(spent), spent: READING })
        });
        (result.unwrap(), spent)
    }

    #[test]
    fn a_steady_low_clock_is_not_taken_for_a_high_one() {
        let mut seen = Seen::default();
        // Steady at 345 MHz for 0.9 s, then at 1980.
        let late = |spent: f64| if spent < 0.9 { 1980.0 / 345.0 } else { 1.0 };
        let (run, spent) = play(&mut seen, late);
        assert!(run == 1.0 && (1.39..1.45).contains(&spent), "{run} after {spent}");
        // Now that it is known, a drop is noticed, and a rise.
        let (run, spent) = play(&mut seen, |spent| if spent < 0.6 { 5.7 } else { 1.02 });
        assert!(run == 1.02 && (0.6..0.62).contains(&spent), "{run} after {spent}");
        // Nothing to do.
        assert_eq!(play(&mut seen, |_| 1.04), (1.04, 2.0 * READING));
        assert_eq!(seen.0, Some(1.0));
    }

    #[test]
    fn clocks_that_stay_low_or_never_settle_end_the_wait() {
        let mut seen = Seen(Some(1.0));
        // Throttled.
        let (run, spent) = play(&mut seen, |_| 1.2);
        assert!(run == 1.2 && (0.99..1.01).contains(&spent), "{run} after {spent}");
        assert_eq!(play(&mut seen, |_| 1.2), (1.2, 2.0 * READING));
        // Always a little better.
        let (_, spent) = play(&mut Seen::default(), |spent| 10.0 - 4.0 * spent);
        assert!((1.99..2.01).contains(&spent), "{spent}");
        assert!(Seen::default().rise(|| Err(crate::error::Error::lost("gone"))).is_err());
    }

    #[test]
    fn software_adapters_are_not_warmed_up_and_gpus_are() {
        for software in [true, false] {
            let mut gpu = Gpu::open(&AdapterRequest::default()).unwrap();
            gpu.target.software = software;
            let engine = Engine::new(gpu).unwrap();
            let stopwatch = Stopwatch::new(&engine).unwrap();
            let rate = stopwatch.raise_clocks().unwrap();
            assert_eq!(rate.is_none(), software || engine.gpu.info.backend == wgpu::Backend::Gl);
            assert!(rate.is_none_or(|rate| (1e8..1e13).contains(&rate)), "{rate:?}");
            // A device that is gone is an error here as anywhere.
            engine.gpu.device.destroy();
            assert!(rate.is_none() || stopwatch.raise_clocks().is_err());
        }
    }
}
