//! Brings a GPU's clocks up before anything is timed, and knows when they are.
//!
//! A GPU that is asked for little lowers its clocks, and raises them only after up to a second of work. That a kernel takes
//! the same time again and again says nothing: an H100 ran steadily at 345 of 1980 MHz for some tenths of a second, and one
//! reading was 11,159 GFLOP/s instead of 63,900. So a fixed kernel of multiply-adds is run until it is as fast as it was
//! ever seen on this device. Where clocks are up that takes two readings of a few milliseconds.
//!
//! Software adapters have no clocks of their own, and on GL nothing tells how long a kernel takes: neither is warmed up.

use super::clock_speed::Reading;
use super::custom::Custom;
use super::engine::{Engine, Program};
use super::timing::Stopwatch;
use crate::error::Result;
use crate::kernel::{Access, Dtype, parameter_block, shader, word};
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

parameter_block! {
    /// The parameter block of `shaders/roofline.wgsl`.
    pub struct RooflineDims {
        /// of UNROLLED fma on every accumulator
        rounds: u32,
        /// vec4 to copy or read
        count: u32,
        /// Whether sums are stored.
        store: u32,
        /// Of each fma.
        multiplier: f32,
        /// Of each fma.
        addend: f32,
    }
}

impl RooflineDims {
    /// With multiplier and addend 1, which count the fma.
    pub fn of(rounds: usize, count: usize, store: bool) -> Self {
        Self { rounds: word(rounds), count: word(count), store: u32::from(store), multiplier: 1.0, addend: 1.0 }
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
        parameters: RooflineDims::of(ROUNDS, 0, false).into(),
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
