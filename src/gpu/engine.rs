//! Buffers, pipelines and dispatches on one device.
//!
//! An [`Engine`] compiles each kernel once and keeps it; a [`Program`] is a flat list of dispatches,
//! replayed as often as wanted. The engine does not know what a tensor means.

use super::block::Allocation;
pub use super::block::Block;
use super::budget::ChunkBudget;
use super::clock_speed::ClockSpeed;
use super::device::Gpu;
use super::heartbeat::{Heartbeat, Submissions};
use super::module;
pub use super::program::Program;
pub(crate) use super::program::{BYTE_COST, Dispatch};
use crate::error::Result;
use crate::kernel::{Kernel, MAX_WORKGROUPS};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Written behind tensors in tests. Not a NaN: arithmetic passes those on unchanged, so that a kernel that
/// reads and writes past the end would put back what it found.
const SENTINEL: u32 = 0xdead_beef;
/// What guarded tensors hold before anything writes them: a large number that spoils any result.
const POISON: f32 = 1.0e30;
/// Guard words after a guarded tensor.
const GUARD_WORDS: u64 = 64;

/// Bytes written at once by [`Engine::write_all`].
const WRITE_PIECE: usize = 64 << 20;
/// Bytes of the staging buffer all reads go through.
const STAGING_BYTES: u64 = 1 << 20;

pub(super) type Compiled = (wgpu::ComputePipeline, wgpu::BindGroupLayout);

/// A device with its compiled kernels. On GL use it from one thread at a time: there wgpu panics where a thread waits a
/// second for another.
///
/// ```no_run
/// use tokenformer::gpu::{adapter::AdapterRequest, device::Gpu, engine::Engine};
///
/// // The best adapter that is there; `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` choose another.
/// let engine = Engine::new(Gpu::open(&AdapterRequest::default())?)?;
/// println!("{}", engine.gpu.describe());
/// # Ok::<(), tokenformer::error::Error>(())
/// ```
pub struct Engine {
    /// The device.
    pub gpu: Gpu,
    pub(super) pipelines: Mutex<HashMap<&'static Kernel, Compiled>>,
    /// Whether wgpu puts checks into kernels, see [`super::module`].
    pub(super) checked: bool,
    /// Of a dispatch; kernels stride over the rest.
    pub(super) most_groups: u32,
    allocated: Arc<AtomicU64>,
    /// All reads go through it, one at a time.
    staging: Mutex<wgpu::Buffer>,
    budget: Mutex<ChunkBudget>,
    order: Mutex<Submissions>,
    heartbeat: OnceLock<Heartbeat>,
    /// How fast the kernel that brings clocks up was.
    pub(super) clocks: Mutex<ClockSpeed>,
}

impl Engine {
    /// An engine on `gpu`, with nothing compiled yet.
    ///
    /// # Errors
    /// Not even a small staging buffer fits.
    pub fn new(gpu: Gpu) -> Result<Self> {
        let staging =
            gpu.buffer("staging", STAGING_BYTES, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        let engine = Self {
            budget: Mutex::new(ChunkBudget::new(gpu.target.software)),
            checked: module::checked_by_default(gpu.target.software)?,
            gpu,
            pipelines: Mutex::default(),
            most_groups: MAX_WORKGROUPS,
            allocated: Arc::default(),
            staging: Mutex::new(staging),
            order: Mutex::default(),
            heartbeat: OnceLock::new(),
            clocks: Mutex::default(),
        };
        let count = engine.allocate("heartbeat", 4)?;
        let program = engine.prepare(&[Heartbeat::dispatch(&count)])?;
        engine.heartbeat.get_or_init(|| Heartbeat { count, program });
        Ok(engine)
    }

    /// The same with checks in its kernels or without them, see [`super::module`].
    pub fn with_checks(self, checked: bool) -> Self {
        Self { checked, ..self }
    }

    /// Whether wgpu puts checks into its kernels.
    pub fn checked(&self) -> bool {
        self.checked
    }

    /// The same with at most so many workgroups a dispatch, as if a device allowed no more: kernels stride over the rest.
    /// Changes no bit of a result.
    pub fn with_most_groups(self, most_groups: u32) -> Self {
        Self { most_groups, ..self }
    }

    /// Bytes of device memory that live now and were allocated through this engine.
    pub fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Allocates `bytes` (rounded up to 16), zeroed.
    ///
    /// # Errors
    /// The device's own out-of-memory or limit error, as one sentence.
    pub fn allocate(&self, label: &str, bytes: u64) -> Result<Block> {
        let size = bytes.max(4).next_multiple_of(16);
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::UNIFORM
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let buffer = self.gpu.buffer(label, size, usage)?;
        self.allocated.fetch_add(size, Ordering::Relaxed);
        let allocation = Arc::new(Allocation { buffer, bytes: size, counter: self.allocated.clone() });
        Ok(Block { allocation, offset: 0, bytes, bound: bytes.max(4).next_multiple_of(4) })
    }

    /// Allocates `bytes` of poison followed by guard words inside the binding, so that a write past
    /// the end is seen by [`Engine::guard_intact`] instead of being clamped away by the driver.
    pub(crate) fn allocate_guarded(&self, label: &str, bytes: u64) -> Result<Block> {
        let words = bytes.div_ceil(4) + GUARD_WORDS;
        let mut block = self.allocate(label, words * 4)?;
        let mut content = vec![POISON.to_bits(); (words - GUARD_WORDS) as usize];
        content.resize(words as usize, SENTINEL);
        self.write(&block, &content);
        block.bytes = bytes;
        Ok(block)
    }

    /// Whether the words after a guarded block are untouched.
    pub(crate) fn guard_intact(&self, block: &Block) -> Result<bool> {
        let words: Vec<u32> = self.read_words(block, block.bytes.next_multiple_of(4), GUARD_WORDS as usize)?;
        Ok(words.iter().all(|&w| w == SENTINEL))
    }

    /// Writes `values` at the start of `block` before the next submission.
    pub fn write<T: bytemuck::Pod>(&self, block: &Block, values: &[T]) {
        self.gpu.queue.write_buffer(&block.allocation.buffer, block.offset, bytemuck::cast_slice(values));
    }

    /// Writes a large block, in chunks with a submission after each: queued writes are staged in host
    /// memory until then.
    pub fn write_all<T: bytemuck::Pod>(&self, block: &Block, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        for (i, chunk) in bytes.chunks(WRITE_PIECE).enumerate() {
            let at = block.offset + (i * WRITE_PIECE) as u64;
            self.gpu.queue.write_buffer(&block.allocation.buffer, at, chunk);
            if bytes.len() > WRITE_PIECE {
                let submission = self.gpu.submit(self.encoder())?;
                self.gpu.wait(submission)?;
            }
        }
        self.gpu.check()
    }

    /// Reads a block back as f32, waiting for all work submitted before.
    pub fn read(&self, block: &Block) -> Result<Vec<f32>> {
        self.read_words(block, 0, (block.bytes / 4) as usize)
    }

    /// Reads a block of f16 back as bits.
    pub fn read_halves(&self, block: &Block) -> Result<Vec<u16>> {
        self.read_words(block, 0, (block.bytes / 2) as usize)
    }

    fn read_words<T: bytemuck::Pod>(&self, block: &Block, offset: u64, count: usize) -> Result<Vec<T>> {
        let staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        self.gpu.read(&block.allocation.buffer, block.offset + offset, count, Some(&staging))
    }

    /// Zeroes blocks within `encoder`, in order with its dispatches.
    pub fn clear<'a>(&self, encoder: &mut wgpu::CommandEncoder, blocks: impl IntoIterator<Item = &'a Block>) {
        for block in blocks {
            encoder.clear_buffer(&block.allocation.buffer, block.offset, Some(block.bound));
        }
    }

    /// A new list of commands.
    pub(crate) fn encoder(&self) -> wgpu::CommandEncoder {
        self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    /// Appends a program's dispatches to `encoder`.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder, program: &Program) {
        program.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
    }

    /// Submits `encoder` without waiting for it; a mark of the heartbeat comes last.
    pub fn submit(&self, encoder: wgpu::CommandEncoder) -> Result<wgpu::SubmissionIndex> {
        Ok(self.submit_with(encoder, |_, _| ())?.0)
    }

    /// As [`Engine::submit`], with commands behind the mark. Also says how many marks there are then.
    pub(super) fn submit_with(
        &self,
        encoder: wgpu::CommandEncoder,
        behind: impl FnOnce(&mut wgpu::CommandEncoder, Option<&Block>),
    ) -> Result<(wgpu::SubmissionIndex, u32)> {
        let mut order = self.order();
        let encoder = self.marked(&mut order, encoder, behind);
        Ok((self.gpu.submit(encoder)?, order.submitted))
    }

    /// The commands of the next submission with its mark; what holds `order` must submit them.
    pub(super) fn marked(
        &self,
        order: &mut Submissions,
        mut encoder: wgpu::CommandEncoder,
        behind: impl FnOnce(&mut wgpu::CommandEncoder, Option<&Block>),
    ) -> wgpu::CommandEncoder {
        let heartbeat = self.heartbeat.get();
        if let Some(heartbeat) = heartbeat {
            heartbeat.record(&mut encoder);
        }
        behind(&mut encoder, heartbeat.map(|heartbeat| &heartbeat.count));
        order.submitted = order.submitted.wrapping_add(1);
        #[cfg(test)]
        if order.drops() {
            encoder = self.encoder();
        }
        encoder
    }

    /// Finishes commands that [`Engine::submit_encoded`] submits later, with their mark.
    pub(super) fn finish(&self, mut encoder: wgpu::CommandEncoder) -> wgpu::CommandBuffer {
        if let Some(heartbeat) = self.heartbeat.get() {
            heartbeat.record(&mut encoder);
        }
        encoder.finish()
    }

    /// Submits what [`Engine::finish`] gave.
    pub(super) fn submit_encoded(&self, commands: wgpu::CommandBuffer) -> Result<wgpu::SubmissionIndex> {
        let mut order = self.order();
        order.submitted = order.submitted.wrapping_add(1);
        #[cfg(test)]
        let commands = if order.drops() { self.encoder().finish() } else { commands };
        self.gpu.submit_commands(commands)
    }

    /// Loses the submission after so many more, as a driver might.
    #[cfg(test)]
    pub(crate) fn drop_after(&self, more: u32) {
        self.order().drop_after = Some(more);
    }

    /// Takes the marks that are there for all that were made.
    #[cfg(test)]
    pub(crate) fn accept_count(&self) {
        let mut order = self.order();
        order.submitted = self.read_count().unwrap()[0];
    }

    pub(super) fn order(&self) -> MutexGuard<'_, Submissions> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn budget(&self) -> MutexGuard<'_, ChunkBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The heartbeat as it stands on the device.
    pub(super) fn read_count(&self) -> Result<Vec<u32>> {
        self.heartbeat.get().map_or_else(|| Ok(Vec::new()), |heartbeat| self.read_words(&heartbeat.count, 0, 1))
    }
}
