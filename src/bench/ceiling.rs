//! What every figure of a ceiling needs: the kernels of `roofline.wgsl`, and a record of the most that a device can do.

use super::record::{Pass, Record};
use crate::error::{Error, Result};
use crate::gpu::clocks::RooflineDims;
use crate::gpu::custom::Custom;
use crate::gpu::engine::{Block, Engine, Program};
use crate::kernel::{Access, Dtype, MAX_WORKGROUPS, shader};

/// Share of a case's time that one configuration of a sweep gets.
pub(super) const SWEEP_SHARE: f64 = 0.1;

/// The kernels in a type.
pub(super) fn kernels(dtype: Dtype) -> Result<String> {
    shader::source("roofline.wgsl", dtype)
}

/// A record of what the device can do at most, without a time.
pub(super) fn peak(op: &str, case: &str, dtype: Dtype) -> Record {
    Record {
        op: op.to_owned(),
        case: case.to_owned(),
        pass: Pass::Peak,
        dtype: dtype.name().to_owned(),
        ..Record::default()
    }
}

/// A result is wrong, so it was not timed.
pub(super) fn wrong(engine: &Engine, what: &str) -> Error {
    Error::device(format!(
        "{what} on {}; nothing was timed: update its driver, or choose another adapter with --adapter or --backend",
        engine.gpu.describe()
    ))
}

/// A kernel with a workgroup size.
pub(super) struct Setup<'a> {
    pub(super) text: &'a str,
    pub(super) entry: &'a str,
    /// Accumulators, and multiply-adds on each in a turn.
    pub(super) chains: [usize; 2],
    pub(super) workgroup: usize,
}

impl Setup<'_> {
    pub(super) fn prepare(
        &self,
        engine: &Engine,
        dims: RooflineDims,
        blocks: &[(u32, Access, &Block)],
        groups: usize,
    ) -> Result<Program> {
        let [accumulators, unrolled] = self.chains.map(|count| count as f64);
        let workgroup = self.workgroup as f64;
        let sizes = [("ACCUMULATORS", accumulators), ("UNROLLED", unrolled), ("WORKGROUP", workgroup)];
        let groups = u32::try_from(groups).unwrap_or(MAX_WORKGROUPS).clamp(1, MAX_WORKGROUPS);
        Custom { text: self.text, entry: self.entry, constants: &sizes, parameters: dims.into(), blocks, groups }
            .prepare(engine)
    }
}
