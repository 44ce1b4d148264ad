//! Time of a program on the device: the same dispatches over and over in one submission.
//!
//! One submission costs about as much as a small kernel, so a program is recorded many times into one pass and the
//! time is that of the whole chain. Where the device has timestamps they are taken at both ends of the pass; whether
//! they are to be believed is the caller's decision, so the wall clock always comes along.

use super::device::Gpu;
use super::engine::{Engine, Program};
use crate::error::Result;
use std::time::{Duration, Instant};

/// Bytes of the two ticks that frame a pass.
const TICK_BYTES: u64 = 16;

/// One chain of dispatches, timed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// From the submission, already encoded, until the host knows that all of it ran.
    pub wall: Duration,
    /// Device ticks before and after the pass; `None` where the device has no timestamps.
    pub ticks: Option<[u64; 2]>,
    /// Nanoseconds of a tick.
    pub tick_ns: f64,
}

/// Times programs on one engine.
pub struct Stopwatch<'e> {
    /// The device with its kernels.
    pub engine: &'e Engine,
    queries: Option<Queries>,
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
            count: 2,
        });
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Self { set, resolved: gpu.buffer("ticks", TICK_BYTES, usage)? })
    }

    fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }
}

impl<'e> Stopwatch<'e> {
    /// A stopwatch that reads the device's clock where it has one.
    ///
    /// # Errors
    /// Those of the device.
    pub fn new(engine: &'e Engine) -> Result<Self> {
        let has_ticks = engine.gpu.features.contains(wgpu::Features::TIMESTAMP_QUERY);
        let queries = has_ticks.then(|| Queries::new(&engine.gpu)).transpose()?;
        Ok(Self { engine, queries })
    }

    /// Runs `program` `repeats` times in one submission and waits for it. Each run sees what the one before it left.
    ///
    /// # Errors
    /// Those of the device.
    pub fn sample(&self, program: &Program, repeats: u32) -> Result<Sample> {
        let gpu = &self.engine.gpu;
        let mut encoder = self.engine.encoder();
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("timed"),
                timestamp_writes: self.queries.as_ref().map(Queries::writes),
            });
            for _ in 0..repeats {
                program.encode(&mut pass);
            }
        }
        if let Some(queries) = &self.queries {
            encoder.resolve_query_set(&queries.set, 0..2, &queries.resolved, 0);
        }
        // Encoding is the host's work and happens here, before the clock starts.
        let commands = encoder.finish();
        gpu.check()?;
        let start = Instant::now();
        let submission = gpu.queue.submit([commands]);
        gpu.wait(submission)?;
        let wall = start.elapsed();
        let ticks = match &self.queries {
            Some(queries) => gpu.read::<u64>(&queries.resolved, 0, 2, None)?.first_chunk().copied(),
            None => None,
        };
        Ok(Sample { wall, ticks, tick_ns: f64::from(gpu.queue.get_timestamp_period()) })
    }
}
