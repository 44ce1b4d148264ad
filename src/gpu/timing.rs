//! Time of a program on the device: the same dispatches over and over in one submission.
//!
//! One submission costs about as much as a small kernel, so a program is recorded many times into one pass and the
//! time is that of the whole chain. Where the device has timestamps they are taken at both ends of the pass; whether
//! they are to be believed is the caller's decision, so the wall clock always comes along.

use super::device::Gpu;
use super::engine::{Engine, Program};
use crate::error::Result;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Bytes of the two ticks that frame a pass.
const TICK_BYTES: u64 = 16;
/// Most samples of one submission.
const MOST_SAMPLES: u32 = 16;
/// Seconds that a submission of several samples may take: systems end those of about two.
const MOST_SECONDS: f64 = 0.2;

/// One chain of dispatches, timed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// From the submission, already encoded, until the host knows that all of it ran.
    pub wall: Duration,
    /// Device ticks before and after the pass; `None` where the device has no timestamps.
    pub ticks: Option<[u64; 2]>,
    /// Nanoseconds of a tick.
    pub tick_ns: f64,
}

/// Timestamps are believed where they say no more than the wall clock, and no less than this share of it.
const LEAST_SHARE: f64 = 0.5;

impl Sample {
    /// Seconds by the device's clock where it is to be believed, and else by the wall clock.
    pub(crate) fn seconds(&self) -> f64 {
        let wall = self.wall.as_secs_f64();
        let ticks = self.ticks.and_then(|[begin, end]| end.checked_sub(begin).filter(|_| begin > 0));
        let device = ticks.map_or(0.0, |ticks| ticks as f64 * self.tick_ns * 1e-9);
        if (LEAST_SHARE * wall..=wall).contains(&device) { device } else { wall }
    }
}

/// Times programs on one engine.
pub(crate) struct Stopwatch<'e> {
    /// The device with its kernels.
    pub engine: &'e Engine,
    queries: Option<Queries>,
    /// What [`Stopwatch::raise_clocks`] runs, once it was called.
    pub(super) multiply_adds: RefCell<Option<Program>>,
}

struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

impl Queries {
    fn new(gpu: &Gpu) -> Result<Self> {
        let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("ticks"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * MOST_SAMPLES,
        });
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Self { set, resolved: gpu.buffer("ticks", TICK_BYTES * u64::from(MOST_SAMPLES), usage)? })
    }

    /// The ticks around pass `i` of a submission.
    fn writes(&self, i: u32) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(2 * i),
            end_of_pass_write_index: Some(2 * i + 1),
        }
    }
}

impl<'e> Stopwatch<'e> {
    /// A stopwatch that reads the device's clock where it has one.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn new(engine: &'e Engine) -> Result<Self> {
        let has_ticks = engine.gpu.features.contains(wgpu::Features::TIMESTAMP_QUERY);
        let queries = has_ticks.then(|| Queries::new(&engine.gpu)).transpose()?;
        Ok(Self { engine, queries, multiply_adds: RefCell::default() })
    }

    /// Runs `program` once, in as many submissions as training would make of it, by the wall clock.
    ///
    /// # Errors
    /// Those of the device; work that it reports as done and did not do.
    pub(crate) fn sample_in_chunks(&self, program: &Program) -> Result<Sample> {
        let start = Instant::now();
        self.engine.run(program)?;
        let wall = start.elapsed();
        self.engine.check_heartbeat()?;
        Ok(Sample { wall, ticks: None, tick_ns: 1.0 })
    }

    /// Runs `program` `repeats` times in one submission and waits for it. Each run sees what the one before it left.
    /// Systems end submissions that take long: [`Stopwatch::sample_in_chunks`] is for those.
    ///
    /// # Errors
    /// Those of the device; work that it reports as done and did not do.
    pub(crate) fn sample(&self, program: &Program, repeats: u32) -> Result<Sample> {
        let (wall, ticks) = self.passes(program, repeats, 1)?;
        Ok(Sample { wall, ticks: ticks.first().copied(), tick_ns: self.tick_ns() })
    }

    /// `count` times [`Stopwatch::sample`], one after the other. Where the device has timestamps and the samples are short,
    /// they are passes of one submission, so that the device never waits for the host; each then has its share of the
    /// submission's wall time.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn samples(&self, program: &Program, repeats: u32, count: usize) -> Result<Vec<Sample>> {
        let first = self.sample(program, repeats)?;
        let passes = u32::try_from(count).unwrap_or(MOST_SAMPLES).min(MOST_SAMPLES);
        if first.ticks.is_none() || first.wall.as_secs_f64() * f64::from(passes) > MOST_SECONDS {
            let others = (1..count).map(|_| self.sample(program, repeats));
            return std::iter::once(Ok(first)).chain(others).collect();
        }
        let (wall, ticks) = self.passes(program, repeats, passes)?;
        let sample = |ticks| Sample { wall: wall / passes, ticks: Some(ticks), tick_ns: self.tick_ns() };
        Ok(ticks.into_iter().map(sample).collect())
    }

    fn tick_ns(&self) -> f64 {
        f64::from(self.engine.gpu.queue.get_timestamp_period())
    }

    /// Wall time of one submission of `count` passes, and the ticks around each; no ticks where the device has no clock.
    fn passes(&self, program: &Program, repeats: u32, count: u32) -> Result<(Duration, Vec<[u64; 2]>)> {
        let gpu = &self.engine.gpu;
        let mut encoder = self.engine.encoder();
        for i in 0..count {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("timed"),
                timestamp_writes: self.queries.as_ref().map(|queries| queries.writes(i)),
            });
            for _ in 0..repeats {
                program.encode(&mut pass);
            }
        }
        if let Some(queries) = &self.queries {
            encoder.resolve_query_set(&queries.set, 0..2 * count, &queries.resolved, 0);
        }
        // Encoding is the host's work and happens here, before the clock starts.
        let mut order = self.engine.order();
        let commands = self.engine.marked(&mut order, encoder, |_, _| ()).finish();
        gpu.check()?;
        let start = Instant::now();
        let submission = gpu.queue.submit([commands]);
        drop(order);
        gpu.wait_within(submission, self.engine.patience(), || "what is timed".to_owned())?;
        let wall = start.elapsed();
        self.engine.check_heartbeat()?;
        let ticks = match &self.queries {
            Some(queries) => gpu.read::<u64>(&queries.resolved, 0, 2 * count as usize, None)?,
            None => Vec::new(),
        };
        Ok((wall, ticks.as_chunks().0.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::adapter::AdapterRequest;
    use super::super::engine::Dispatch;
    use super::*;
    use crate::kernel::{Access, Kernel};

    static COPY: Kernel = Kernel::new("elementwise.wgsl", "copy", &[Access::Read, Access::Write]);

    #[test]
    fn timestamps_are_believed_within_the_wall_clock() {
        let micros = |ticks| {
            let sample = Sample { wall: Duration::from_micros(5), ticks, tick_ns: 2.0 };
            (sample.seconds() * 1e6).round()
        };
        assert_eq!(micros(None), 5.0);
        assert_eq!(micros(Some([1, 2001])), 4.0);
        for wrong in [[0, 2000], [2001, 1], [1, 3001], [1, 1001], [7, 7]] {
            assert_eq!(micros(Some(wrong)), 5.0, "{wrong:?}");
        }
    }

    #[test]
    fn work_that_was_dropped_is_not_timed() {
        let engine = Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap();
        let blocks: Vec<_> = ["from", "to"].map(|name| engine.allocate(name, 16).unwrap()).into();
        let dispatch = Dispatch { kernel: &COPY, dims: vec![0; 8], blocks, groups: 1, cost: 1.0 };
        let program = engine.prepare(&[dispatch]).unwrap();
        let stopwatch = Stopwatch::new(&engine).unwrap();
        for sample in [|s: &Stopwatch, p: &Program| s.sample(p, 3), |s: &Stopwatch, p: &Program| s.sample_in_chunks(p)]
        {
            sample(&stopwatch, &program).unwrap();
            engine.drop_after(0);
            let said = sample(&stopwatch, &program).unwrap_err().to_string();
            assert!(said.contains("left no mark"), "{said}");
            engine.accept_count();
        }
    }
}
