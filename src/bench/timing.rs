//! From chains of dispatches to a median: how often a program is repeated, which clock is believed.
//!
//! A sample is one submission that runs the program `repeats` times, long enough for the submission itself to be
//! lost in it; its time is divided by `repeats`. A warm-up comes first. All samples of a case are kept. A program that
//! takes longer than systems let one submission run is cut into several, as in training.
//!
//! A GPU that is asked for little lowers its clocks: an H200 went from 1980 to 345 MHz within a second of short bursts with
//! host work between them. There clocks are brought up first ([`Stopwatch::raise_clocks`]), the program itself runs until
//! its time is steady, and the samples follow at once, with no host work between them.

use crate::error::Result;
use crate::gpu::engine::Program;
use crate::gpu::timing::{Sample, Stopwatch};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Length of a sample in seconds, where the time for the case allows it.
const SAMPLE_SECONDS: f64 = 0.05;
/// Samples that the time for a case is meant to be enough for.
const SAMPLES: f64 = 10.0;
/// Fewest samples, unless one of them takes longer than the whole case may.
const FEWEST: usize = 3;
/// On a GPU: length of a sample in seconds ...
const STEADY_SECONDS: f64 = 4e-3;
/// ... how many are taken ...
const STEADY_SAMPLES: usize = 6;
/// ... by what share two successive readings may differ to agree ...
const AGREE: f64 = 0.01;
/// ... how often in a row they must ...
const AGREEMENTS: usize = 4;
/// ... and the least and most seconds that this may take, the most scaled by the time of a case that is shorter than a second.
const HOLD_SECONDS: [f64; 2] = [0.12, 1.5];
/// Most dispatches of one submission: each is kept in host memory until it ran.
const MOST_DISPATCHES: usize = 1 << 14;
/// Timestamps and wall clock may differ by this factor ...
const FACTOR: f64 = 1.5;
/// ... and the wall clock by this much more: submitting, being woken up.
const SUBMISSION_MS: f64 = 2.0;

/// What told the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Clock {
    /// The device's own, at both ends of the chain.
    Timestamps,
    /// The host's, from submission to completion.
    #[default]
    Wall,
}

impl Clock {
    /// As it is written in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Timestamps => "timestamps",
            Self::Wall => "wall",
        }
    }
}

/// The samples of one case.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Timed {
    /// Milliseconds of one run, one value a sample, in the order they were taken.
    pub samples_ms: Vec<f64>,
    /// Runs in each sample.
    pub repeats: u32,
    /// What told the time.
    pub clock: Clock,
    /// Why timestamps were there but not believed.
    pub note: Option<String>,
}

impl Timed {
    /// Median of the samples, milliseconds.
    pub(crate) fn median_ms(&self) -> f64 {
        quantile(&self.samples_ms, 0.5)
    }

    /// Shortest sample, milliseconds.
    pub(crate) fn best_ms(&self) -> f64 {
        quantile(&self.samples_ms, 0.0)
    }

    /// Interquartile range as percent of the median.
    pub(crate) fn spread_percent(&self) -> f64 {
        let range = quantile(&self.samples_ms, 0.75) - quantile(&self.samples_ms, 0.25);
        100.0 * range / self.median_ms()
    }
}

/// How a sample of a program is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// So many runs in one submission.
    Repeats(u32),
    /// One run in several submissions.
    Pieces,
}

impl Way {
    fn sample(self, stopwatch: &Stopwatch, program: &Program) -> Result<Sample> {
        match self {
            Self::Repeats(repeats) => stopwatch.sample(program, repeats),
            Self::Pieces => stopwatch.sample_in_chunks(program),
        }
    }

    fn runs(self) -> u32 {
        match self {
            Self::Repeats(repeats) => repeats,
            Self::Pieces => 1,
        }
    }
}

/// Times `program` for about `seconds`: repeats are raised until a sample is long enough, then samples are taken.
///
/// # Errors
/// Those of the device.
pub(super) fn time(stopwatch: &Stopwatch, program: &Program, seconds: f64) -> Result<Timed> {
    // Also how many runs make a sample depends on the clocks.
    stopwatch.raise_clocks()?;
    time_as_it_is(stopwatch, program, seconds)
}

/// The same at the clocks that the last work left: what tells whether they were up.
///
/// # Errors
/// Those of the device.
pub(crate) fn time_as_it_is(stopwatch: &Stopwatch, program: &Program, seconds: f64) -> Result<Timed> {
    let way = warm_up(stopwatch, program, seconds)?;
    let steady = !stopwatch.engine.gpu.target.software;
    if steady {
        hold(|| stopwatch_seconds(stopwatch, program, way), seconds)?;
    }
    if let (true, Way::Repeats(repeats)) = (steady, way) {
        return Ok(from_samples(&stopwatch.samples(program, repeats, STEADY_SAMPLES)?, repeats));
    }
    let (mut samples, mut spent) = (Vec::new(), 0.0);
    loop {
        let sample = way.sample(stopwatch, program)?;
        let wall = sample.wall.as_secs_f64();
        spent += wall;
        samples.push(sample);
        let enough = samples.len() >= FEWEST || wall >= seconds;
        if spent >= seconds && enough || steady && samples.len() == STEADY_SAMPLES {
            break;
        }
    }
    Ok(from_samples(&samples, way.runs()))
}

/// Seconds of one sample, by the device's clock where it has one.
fn stopwatch_seconds(stopwatch: &Stopwatch, program: &Program, way: Way) -> Result<f64> {
    let sample = way.sample(stopwatch, program)?;
    Ok(device_ms(&sample).and_then(Result::ok).unwrap_or_else(|| wall_ms(&sample)) * 1e-3)
}

/// Takes readings until they are steady: two successive ones agree several times in a row, and the least time has passed; or
/// until the most time has. Returns whether they became steady.
///
/// # Errors
/// Those of `reading`.
pub(super) fn hold(mut reading: impl FnMut() -> Result<f64>, seconds: f64) -> Result<bool> {
    let [least, most] = HOLD_SECONDS.map(|limit| limit * seconds.min(1.0));
    let start = Instant::now();
    let (mut last, mut agreed) = (f64::INFINITY, 0);
    loop {
        let now = reading()?;
        agreed = if (now / last - 1.0).abs() <= AGREE { agreed + 1 } else { 0 };
        last = now;
        let spent = start.elapsed().as_secs_f64();
        let steady = agreed >= AGREEMENTS && spent >= least;
        if steady || spent >= most {
            return Ok(steady);
        }
    }
}

/// Times `program` and `other` in turn, for about `seconds` each: the first sample of one belongs to the first of the
/// other, and so on. What a machine's speed does from second to second is then no part of their ratio.
///
/// # Errors
/// Those of the device.
pub(crate) fn time_beside(
    stopwatch: &Stopwatch,
    program: &Program,
    other: &Program,
    seconds: f64,
) -> Result<[Timed; 2]> {
    let programs = [program, other];
    stopwatch.raise_clocks()?;
    let ways = [warm_up(stopwatch, program, seconds)?, warm_up(stopwatch, other, seconds)?];
    let steady = !stopwatch.engine.gpu.target.software;
    if steady {
        hold(|| stopwatch_seconds(stopwatch, program, ways[0]), seconds)?;
    }
    let (mut samples, mut spent) = ([Vec::new(), Vec::new()], 0.0);
    while samples[0].len() < FEWEST || spent < 2.0 * seconds && !(steady && samples[0].len() >= STEADY_SAMPLES) {
        for ((samples, program), way) in samples.iter_mut().zip(programs).zip(ways) {
            let sample = way.sample(stopwatch, program)?;
            spent += sample.wall.as_secs_f64();
            samples.push(sample);
        }
    }
    let [of_program, of_other] = samples;
    Ok([from_samples(&of_program, ways[0].runs()), from_samples(&of_other, ways[1].runs())])
}

/// Runs of `program` that make a sample long enough.
fn warm_up(stopwatch: &Stopwatch, program: &Program, seconds: f64) -> Result<Way> {
    let longest = if stopwatch.engine.gpu.target.software { SAMPLE_SECONDS } else { STEADY_SECONDS };
    let wanted = longest.min(seconds / SAMPLES);
    let most = (MOST_DISPATCHES / program.dispatches().max(1)).clamp(1, MOST_DISPATCHES) as u32;
    let mut repeats = 1;
    // The first run may compile, page in and wake up: its time counts for nothing, and where it is long the second one
    // tells. A single dispatch cannot be cut.
    let slow = || Ok(stopwatch.sample_in_chunks(program)?.wall > stopwatch.engine.chunk_time());
    if program.dispatches() > 1 && slow()? && slow()? {
        return Ok(Way::Pieces);
    }
    stopwatch.sample(program, repeats)?;
    let mut spent = 0.0;
    loop {
        let wall = stopwatch.sample(program, repeats)?.wall.as_secs_f64();
        spent += wall;
        if wall >= 0.7 * wanted || repeats == most || spent > seconds {
            return Ok(Way::Repeats(repeats));
        }
        let factor = (wanted / wall).clamp(1.5, 16.0);
        repeats = most.min((f64::from(repeats) * factor).ceil() as u32);
    }
}

/// Milliseconds of one run for each sample: by timestamps where all of them can be believed, else by the wall clock.
pub(crate) fn from_samples(samples: &[Sample], repeats: u32) -> Timed {
    let per_run = |ms: Vec<f64>| ms.into_iter().map(|ms| ms / f64::from(repeats)).collect();
    let by_wall = || per_run(samples.iter().map(wall_ms).collect());
    let believed: Option<Result<Vec<f64>, String>> = samples.iter().map(device_ms).collect();
    match believed {
        Some(Ok(ms)) => Timed { samples_ms: per_run(ms), repeats, clock: Clock::Timestamps, note: None },
        Some(Err(reason)) => {
            let note = Some(format!("timestamps not believed: {reason}"));
            Timed { samples_ms: by_wall(), repeats, clock: Clock::Wall, note }
        }
        None => Timed { samples_ms: by_wall(), repeats, clock: Clock::Wall, note: None },
    }
}

fn wall_ms(sample: &Sample) -> f64 {
    sample.wall.as_secs_f64() * 1e3
}

/// Milliseconds by timestamps, or why they cannot be right; `None` where there are none.
fn device_ms(sample: &Sample) -> Option<Result<f64, String>> {
    let [begin, end] = sample.ticks?;
    let wall = wall_ms(sample);
    Some(match end.checked_sub(begin) {
        _ if begin == 0 || end == 0 => Err("one is zero".to_owned()),
        None => Err("they run backwards".to_owned()),
        Some(ticks) => {
            let ms = ticks as f64 * sample.tick_ns * 1e-6;
            let agree = ms > 0.0 && ms <= wall * FACTOR && wall <= ms * FACTOR + SUBMISSION_MS;
            if agree { Ok(ms) } else { Err(format!("they say {ms:.3} ms where the wall clock says {wall:.3} ms")) }
        }
    })
}

/// The value at `share` of the way through the sorted values, between neighbours in proportion; 0 of nothing.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share * sorted.len().saturating_sub(1) as f64;
    let value = |index: f64| sorted.get(index as usize).copied().unwrap_or(0.0);
    value(at.floor()) + (value(at.ceil()) - value(at.floor())) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::adapter::AdapterRequest;
    use crate::gpu::device::Gpu;
    use crate::gpu::engine::{Dispatch, Engine};
    use crate::kernel::{Access, Kernel};
    use std::time::Duration;

    static COPY: Kernel = Kernel::new("elementwise.wgsl", "copy", &[Access::Read, Access::Write]);

    fn sample(wall_ms: u64, ticks: Option<[u64; 2]>) -> Sample {
        Sample { wall: Duration::from_millis(wall_ms), ticks, tick_ns: 1.0 }
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let timed = Timed { samples_ms: vec![4.0, 1.0, 3.0, 2.0], ..Timed::default() };
        assert_eq!((timed.best_ms(), timed.median_ms()), (1.0, 2.5));
        assert_eq!(timed.spread_percent(), 100.0 * (3.25 - 1.75) / 2.5);
        assert_eq!(quantile(&[7.0], 0.75), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn good_timestamps_are_used_and_divided_by_the_repeats() {
        let samples = [sample(51, Some([5, 50_000_005])), sample(50, Some([5, 49_000_005]))];
        let timed = from_samples(&samples, 10);
        assert_eq!(timed.clock, Clock::Timestamps);
        assert_eq!((timed.samples_ms, timed.note), (vec![5.0, 4.9], None));
    }

    #[test]
    fn bad_timestamps_give_way_to_the_wall_clock_with_a_note() {
        let good = sample(50, Some([5, 50_000_005]));
        for (ticks, words) in [
            ([0, 50_000_000], "zero"),
            ([50_000_000, 0], "zero"),
            ([60_000_000, 10_000_000], "backwards"),
            ([7, 7], "say 0.000 ms"),
            ([1, 80_000_001], "say 80.000 ms where the wall clock says 50.000 ms"),
            ([1, 20_000_001], "say 20.000 ms"),
        ] {
            let timed = from_samples(&[good, sample(50, Some(ticks))], 1);
            assert_eq!((timed.clock, timed.samples_ms), (Clock::Wall, vec![50.0, 50.0]));
            assert!(timed.note.as_ref().is_some_and(|note| note.contains(words)), "{:?}", timed.note);
        }
        // A short sample: the rest is the submission.
        assert_eq!(from_samples(&[sample(2, Some([1, 300_001]))], 1).clock, Clock::Timestamps);
        let without = from_samples(&[sample(50, None)], 1);
        assert_eq!((without.clock, without.note), (Clock::Wall, None));
    }

    #[test]
    fn readings_are_taken_until_they_are_steady() {
        // Clocks that rise for some readings, then stay.
        let mut taken = 0_usize;
        let rising = || {
            taken += 1;
            std::thread::sleep(Duration::from_millis(1));
            Ok(1.0 + 0.1 * (20 - taken.min(20)) as f64)
        };
        assert!(hold(rising, 1.0).unwrap());
        assert!(taken >= 20 + AGREEMENTS, "{taken}");
        let mut up = false;
        let start = Instant::now();
        let never = || {
            up = !up;
            std::thread::sleep(Duration::from_millis(1));
            Ok(if up { 1.0 } else { 1.02 })
        };
        assert!(!hold(never, 0.1).unwrap());
        assert!(start.elapsed() >= Duration::from_millis(150));
    }

    /// As on a GPU: as many samples as there are to be, from passes of one submission where they are short.
    #[test]
    fn a_gpu_is_timed_at_steady_clocks() {
        let mut gpu = Gpu::open(&AdapterRequest::default()).unwrap();
        gpu.target.software = false;
        let engine = Engine::new(gpu).unwrap();
        let blocks: Vec<_> = ["from", "to"].map(|name| engine.allocate(name, 1 << 16).unwrap()).into();
        let dispatch = Dispatch { kernel: &COPY, dims: vec![1 << 14; 4], blocks, groups: 64, cost: 1.0 };
        let program = engine.prepare(&[dispatch]).unwrap();
        let stopwatch = Stopwatch::new(&engine).unwrap();
        let timed = time(&stopwatch, &program, 0.1).unwrap();
        assert_eq!(timed.samples_ms.len(), STEADY_SAMPLES);
        assert!(timed.median_ms() > 0.0, "{timed:?}");
    }

    /// As if no submission might take any time.
    #[test]
    fn a_long_program_is_timed_in_pieces() {
        let engine = Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap();
        let blocks: Vec<_> = ["from", "to"].map(|name| engine.allocate(name, 16).unwrap()).into();
        let dispatch = || Dispatch { kernel: &COPY, dims: vec![0; 8], blocks: blocks.clone(), groups: 1, cost: 1.0 };
        let stopwatch = Stopwatch::new(&engine).unwrap();
        let program =
            |dispatches| engine.prepare(&std::iter::repeat_with(dispatch).take(dispatches).collect::<Vec<_>>());
        let ways = || [1, 2].map(|n| warm_up(&stopwatch, &program(n).unwrap(), 1e-3).unwrap());
        assert!(!ways().contains(&Way::Pieces));
        engine.set_chunk_time(Duration::ZERO);
        let [one, two] = ways();
        assert!(one != Way::Pieces && two == Way::Pieces);
        let timed = time(&stopwatch, &program(2).unwrap(), 1e-3).unwrap();
        assert_eq!((timed.clock, timed.repeats, timed.note), (Clock::Wall, 1, None));
    }
}
