//! What a device can do, as plain data: enough to plan for it and to choose its kernels without having it.

use super::fragments::Fragments;
use serde::{Deserialize, Serialize};

/// What a device can do, as far as plans and the choice of kernels depend on it.
///
/// ```
/// use tokenformer::kernel::Target;
///
/// // A device that is not here: planning and choosing kernels need no more of it.
/// let laptop = Target { f16: true, subgroup_sizes: [32, 32], max_buffer: 4 << 30, ..Target::WEBGPU };
/// assert_eq!(laptop.check(), Ok(()));
/// assert_eq!((laptop.subgroup_size(), laptop.max_tensor()), (Some(32), 128 << 20));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Largest storage binding, bytes.
    pub max_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Most storage bindings of one kernel.
    pub max_storage_buffers: u32,
    /// Most invocations of a workgroup.
    pub invocations: u32,
    /// Workgroup memory, bytes.
    pub workgroup_bytes: u32,
    /// Fewest and most lanes of a subgroup; 0 where there are none.
    pub subgroup_sizes: [u32; 2],
    /// Whether subgroups have a barrier of their own.
    pub subgroup_barrier: bool,
    /// f16 in storage and arithmetic.
    pub f16: bool,
    /// What its matrix units multiply, where they may be used.
    pub fragments: Fragments,
    /// Runs on the CPU: kernels have the schedules of software drivers.
    pub software: bool,
}

impl Target {
    /// What every WebGPU device offers.
    pub const WEBGPU: Self = Self {
        max_binding: 128 << 20,
        max_buffer: 256 << 20,
        max_storage_buffers: 8,
        invocations: 256,
        workgroup_bytes: 16 << 10,
        subgroup_sizes: [0; 2],
        subgroup_barrier: false,
        f16: false,
        fragments: Fragments::NONE,
        software: false,
    };

    /// What of a target from a file no device has, if anything.
    ///
    /// # Errors
    /// The field, its value and the limit, for a message.
    pub fn check(&self) -> Result<(), String> {
        let least = Self::WEBGPU;
        let at_least = [
            ("max_binding", self.max_binding, least.max_binding),
            ("max_buffer", self.max_buffer, least.max_buffer),
            ("max_storage_buffers", self.max_storage_buffers.into(), least.max_storage_buffers.into()),
            ("invocations", self.invocations.into(), least.invocations.into()),
            ("workgroup_bytes", self.workgroup_bytes.into(), least.workgroup_bytes.into()),
        ];
        if let Some((name, value, least)) = at_least.into_iter().find(|(_, value, least)| value < least) {
            return Err(format!("{name} is {value}, and every WebGPU device has {least}"));
        }
        let [fewest, most] = self.subgroup_sizes;
        let powers = fewest.is_power_of_two() && most.is_power_of_two() && fewest <= most && most <= 128;
        if !powers && self.subgroup_sizes != [0; 2] {
            return Err(format!("subgroup_sizes is [{fewest}, {most}], and must be two powers of two up to 128"));
        }
        Ok(())
    }

    /// Largest tensor in bytes. Past 2^31 - 4 some drivers compute addresses wrongly
    /// (gfx-rs/wgpu #10305, #6221), whatever limit they report.
    pub fn max_tensor(&self) -> u64 {
        self.max_binding.min(self.max_buffer).min((1 << 31) - 4)
    }

    /// Size of every subgroup, where they are there and of one size.
    pub fn subgroup_size(&self) -> Option<u32> {
        let [least, most] = self.subgroup_sizes;
        (least == most && least > 0).then_some(least)
    }

    /// Sizes that subgroups may have, the likely ones first: where a driver chooses among several, it is mostly 32.
    pub fn lanes(&self) -> Vec<u32> {
        let [least, most] = self.subgroup_sizes;
        let mut lanes: Vec<u32> = (0..8).map(|i| 1 << i).filter(|n| (least..=most).contains(n)).collect();
        lanes.sort_by_key(|n| n.abs_diff(32));
        lanes
    }
}
