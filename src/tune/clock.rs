//! Which of several programs is the fastest on one device.
//!
//! A GPU that is asked for little lowers its clocks: after a second of short bursts with host work between them an H200
//! went from 1980 to 345 MHz, and one kernel read 42 instead of 195 TFLOP/s. So clocks are brought up before the programs of
//! a class are timed, and they are timed back to back, by timestamps, with nothing but the next recording between them; each
//! is first run until its readings agree.

use crate::error::Result;
use crate::gpu::engine::{Engine, Program};
use crate::gpu::timing::Stopwatch;
use std::time::{Duration, Instant};

/// Length of one reading on a GPU.
const READING: Duration = Duration::from_millis(4);
/// The same on a software adapter, which has no clocks to hold.
const SOFTWARE_READING: Duration = Duration::from_millis(2);
/// Most runs in one reading, on either.
const MOST_REPEATS: [f64; 2] = [1000.0, 64.0];
/// Two readings agree within this.
const AGREE: f64 = 0.01;
/// How often they must before the first timing, and for how long at least and at most.
const WARM_READINGS: u32 = 4;
const WARM_UP: [Duration; 2] = [Duration::from_millis(120), Duration::from_millis(1500)];
/// Most readings until two agree, later on.
const MOST_UNSTEADY: u32 = 6;
/// Readings of a program that is not clearly slower.
const SAMPLES: u32 = 3;
/// Rounds of the last comparison.
const ROUNDS: u32 = 6;
/// Clearly slower than the best.
const SLOWER: f64 = 1.25;
/// Nearly as fast as the best.
const NEARLY: f64 = 1.03;

/// Times programs on one device.
pub(super) struct Clock<'e> {
    stopwatch: Stopwatch<'e>,
    software: bool,
}

impl<'e> Clock<'e> {
    /// # Errors
    /// Those of the device.
    pub(super) fn new(engine: &'e Engine) -> Result<Self> {
        Ok(Self { stopwatch: Stopwatch::new(engine)?, software: engine.gpu.target.software })
    }

    /// Brings the clocks up; the multiply-adds that the device does then, in floating-point operations a second. `None` where
    /// there are no clocks to bring up.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn raise(&self) -> Result<Option<f64>> {
        self.stopwatch.raise_clocks()
    }

    /// Runs a program until the device's clocks are up and its readings agree; the last one in seconds a run.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn warm_up(&self, program: &Program) -> Result<f64> {
        self.raise()?;
        let start = Instant::now();
        let mut last = self.reading(program, self.reading(program, f64::INFINITY)?)?;
        let mut agreed = 0;
        let [least, most] = WARM_UP;
        while start.elapsed() < most && (agreed < WARM_READINGS || start.elapsed() < least) {
            let next = self.reading(program, last)?;
            agreed = if agree(last, next) { agreed + 1 } else { 0 };
            last = next;
        }
        Ok(last)
    }

    /// The fastest of `programs` by number, and its seconds a run; the first unless another is faster.
    ///
    /// # Errors
    /// Those of the device; no programs.
    pub(super) fn fastest(&self, programs: &[&Program]) -> Result<(usize, f64)> {
        self.raise()?;
        let mut best = f64::INFINITY;
        let mut times = Vec::with_capacity(programs.len());
        for program in programs {
            let seconds = if self.software { self.on_software(program, best)? } else { self.on_gpu(program, best)? };
            best = best.min(seconds);
            times.push(seconds);
        }
        // Once more in turn: a candidate may only have had the quieter or the cooler moment.
        let near = |&i: &usize| i == 0 || times.get(i).is_some_and(|seconds| *seconds <= NEARLY * best);
        let fastest = (0..times.len()).min_by(|&i, &j| times[i].total_cmp(&times[j])).unwrap_or_default();
        let finalists: Vec<usize> = if self.software {
            if fastest == 0 { vec![0] } else { vec![0, fastest] }
        } else {
            (0..times.len()).filter(near).collect()
        };
        if finalists.len() < 2 {
            return Ok((fastest, best));
        }
        let mut readings = vec![Vec::new(); finalists.len()];
        for _ in 0..if self.software { 2 } else { ROUNDS } {
            for (&i, readings) in finalists.iter().zip(&mut readings) {
                readings.push(self.reading(programs[i], times[i])?);
            }
        }
        let seconds =
            readings.iter_mut().map(|readings| if self.software { least(readings) } else { median(readings) });
        // The first of equals: the reference stays unless another is faster.
        let mut won = (fastest, f64::INFINITY);
        for (&i, seconds) in finalists.iter().zip(seconds) {
            if seconds < won.1 {
                won = (i, seconds);
            }
        }
        Ok(won)
    }

    /// The best of a few readings; one clearly slower than `best` is run once.
    fn on_software(&self, program: &Program, best: f64) -> Result<f64> {
        let first = self.reading(program, f64::INFINITY)?;
        if first > 2.0 * best + 1e-3 {
            return Ok(first);
        }
        (0..SAMPLES).try_fold(first, |least, _| Ok(least.min(self.reading(program, first)?)))
    }

    /// The median of a few readings, once two in a row agree.
    fn on_gpu(&self, program: &Program, best: f64) -> Result<f64> {
        let mut last = self.reading(program, self.reading(program, f64::INFINITY)?)?;
        for _ in 0..MOST_UNSTEADY {
            if last > SLOWER * best {
                return Ok(last);
            }
            let next = self.reading(program, last)?;
            if agree(last, next) {
                break;
            }
            last = next;
        }
        let mut readings = (0..SAMPLES).map(|_| self.reading(program, last)).collect::<Result<Vec<_>>>()?;
        Ok(median(&mut readings))
    }

    /// Seconds of one run, among as many as fill a reading where one takes `seconds`.
    fn reading(&self, program: &Program, seconds: f64) -> Result<f64> {
        let length = if self.software { SOFTWARE_READING } else { READING };
        let most = MOST_REPEATS[usize::from(self.software)];
        let repeats = (length.as_secs_f64() / seconds).ceil().clamp(1.0, most) as u32;
        let sample = self.stopwatch.sample(program, repeats)?;
        let seconds = if self.software { sample.wall.as_secs_f64() } else { sample.seconds() };
        Ok(seconds / f64::from(repeats))
    }
}

/// Whether two readings are the same but for noise.
pub(super) fn agree(one: f64, other: f64) -> bool {
    (one - other).abs() <= AGREE * one.min(other)
}

fn least(readings: &[f64]) -> f64 {
    readings.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(readings: &mut [f64]) -> f64 {
    readings.sort_by(f64::total_cmp);
    readings.get(readings.len() / 2).copied().unwrap_or(f64::INFINITY)
}
