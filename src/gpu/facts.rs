//! An open device as plain data, for the head of a results file.

use super::adapter::{backend_name, type_name};
use super::device::Gpu;
use serde::{Deserialize, Serialize};

/// Who made the numbers: adapter, driver, and the limits and features that kernels depend on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct AdapterFacts {
    /// Name as the driver gives it.
    pub name: String,
    /// `Vulkan`, `Metal`, `DX12` or `GL`.
    pub backend: String,
    /// Name of the driver.
    pub driver: String,
    /// Its version, in its own words.
    pub driver_info: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `unknown type`.
    pub device_type: String,
    /// PCI vendor.
    pub vendor_id: u32,
    /// PCI device.
    pub device_id: u32,
    /// Fewest and most lanes of a subgroup.
    pub subgroup_sizes: [u32; 2],
    /// Optional features that are on: `f16`, `subgroups`, `timestamps`.
    pub features: Vec<String>,
    /// Largest storage binding, bytes.
    pub max_storage_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Workgroup memory, bytes.
    pub max_workgroup_memory: u32,
    /// Invocations of a workgroup.
    pub max_invocations: u32,
    /// Storage buffers of a kernel.
    pub max_storage_buffers: u32,
}

impl AdapterFacts {
    /// The facts of an open device.
    pub(crate) fn of(gpu: &Gpu) -> Self {
        let (info, limits) = (&gpu.info, &gpu.limits);
        let named = [
            (wgpu::Features::SHADER_F16, "f16"),
            (wgpu::Features::SUBGROUP, "subgroups"),
            (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
        ];
        let on = named.into_iter().filter(|(feature, _)| gpu.features.contains(*feature));
        Self {
            name: info.name.clone(),
            backend: backend_name(info.backend).to_owned(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            device_type: type_name(info.device_type).to_owned(),
            vendor_id: info.vendor,
            device_id: info.device,
            subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
            features: on.map(|(_, name)| name.to_owned()).collect(),
            max_storage_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            max_workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        }
    }

    /// The adapter in a line: name, backend, driver and its version.
    pub(crate) fn line(&self) -> String {
        let mut parts = vec![self.name.clone(), self.backend.clone()];
        for part in [&self.driver, &self.driver_info] {
            if !part.is_empty() && !parts.iter().any(|said| said.contains(part.as_str())) {
                parts.push(part.clone());
            }
        }
        parts.join(", ")
    }
}

/// Whether WGSL's `enable f16;` may be used on a device.
pub fn has_f16(gpu: &Gpu) -> bool {
    gpu.features.contains(wgpu::Features::SHADER_F16)
}
