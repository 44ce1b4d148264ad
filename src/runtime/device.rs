//! An open GPU, and which kernels plans for it should use.

use crate::error::Result;
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::device::Gpu;
use crate::gpu::engine::Engine;
use crate::kernel::KernelTable;
use crate::runtime::distributed::World;

/// A GPU with its compiled kernels, and the table of which kernel computes which product on it.
pub struct Device {
    /// Buffers, pipelines and dispatches.
    pub engine: Engine,
    /// For plans made from now on.
    pub kernels: KernelTable,
    /// The processes that train together with this one; it alone, until that is changed.
    pub(crate) world: World,
}

impl Device {
    /// Opens the adapter that `request` asks for. Its kernels are the default ones, or those that the environment names.
    ///
    /// # Errors
    /// No such adapter, a driver that refuses, or an environment that asks for what there is not.
    pub fn open(request: &AdapterRequest) -> Result<Self> {
        Self::new(Gpu::open(request)?)
    }

    /// The same on a GPU that is open.
    ///
    /// # Errors
    /// Not even a small staging buffer fits, or the environment asks for what there is not.
    pub fn new(gpu: Gpu) -> Result<Self> {
        let kernels = KernelTable::from_environment(gpu.target, &gpu.info.name)?;
        Ok(Self { engine: Engine::new(gpu)?, kernels, world: World::alone() })
    }
}
