//! Buffers, pipelines and dispatches on one device.
//!
//! An [`Engine`] compiles each kernel once and keeps it; a [`Program`] is a flat list of dispatches,
//! replayed as often as wanted. The engine does not know what a tensor means.

use super::block::Allocation;
pub use super::block::Block;
use super::clocks::Seen;
use super::device::{Gpu, cause};
use super::flight::{Pace, Pulse};
use super::module;
use super::program::Step;
pub use super::program::{BYTE_COST, Dispatch, Program};
use crate::error::{Error, Result};
use crate::kernel::{Access, Candidate, Kernel, KernelTable, MAX_WORKGROUPS, Schedule, shader};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Written behind tensors in tests. Not a NaN: arithmetic passes those on unchanged, so that a kernel that
/// reads and writes past the end would put back what it found.
const SENTINEL: u32 = 0xdead_beef;
/// What guarded tensors hold before anything writes them: a large number that spoils any result.
const POISON: f32 = 1.0e30;
/// Guard words after a guarded tensor.
const GUARD_WORDS: u64 = 64;

/// End of the names of kernels that cost the device when they are compiled: some drivers know such.
#[cfg(test)]
pub(crate) const COSTS_DEVICE: &str = "-costs-device";

/// Bytes written at once by [`Engine::write_all`].
const WRITE_PIECE: usize = 64 << 20;
/// Bytes of the staging buffer all reads go through.
const STAGING_BYTES: u64 = 1 << 20;

type Compiled = (wgpu::ComputePipeline, wgpu::BindGroupLayout);

/// A device with its compiled kernels.
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
    kernels: Mutex<KernelTable>,
    pipelines: Mutex<HashMap<&'static Kernel, Compiled>>,
    /// Whether wgpu puts checks into kernels, see [`super::module`].
    checked: bool,
    /// Of a dispatch; kernels stride over the rest.
    most_groups: u32,
    allocated: Arc<AtomicU64>,
    /// All reads go through it, one at a time.
    staging: Mutex<wgpu::Buffer>,
    pace: Mutex<Pace>,
    order: Mutex<Order>,
    pulse: OnceLock<Pulse>,
    /// How fast the kernel that brings clocks up was.
    pub(super) clocks: Mutex<Seen>,
}

/// Submissions are made one after the other, so that the pulse tells which of them ran.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// How many were made.
    pub(super) submitted: u32,
    /// The submission after so many more never runs.
    #[cfg(test)]
    pub(super) drop_after: Option<u32>,
}

#[cfg(test)]
impl Order {
    /// Whether the next submission is lost.
    fn drops(&mut self) -> bool {
        let more = self.drop_after.take();
        self.drop_after = more.and_then(|more| more.checked_sub(1));
        more == Some(0)
    }
}

impl Engine {
    /// An engine on `gpu`, with nothing compiled yet.
    ///
    /// # Errors
    /// Not even a small staging buffer fits, or the environment asks for what there is not.
    pub fn new(gpu: Gpu) -> Result<Self> {
        let staging =
            gpu.buffer("staging", STAGING_BYTES, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        let engine = Self {
            kernels: Mutex::new(first_choices(&gpu)?),
            pace: Mutex::new(Pace::new(gpu.target.software)),
            checked: module::checked_by_default(gpu.target.software)?,
            gpu,
            pipelines: Mutex::default(),
            most_groups: MAX_WORKGROUPS,
            allocated: Arc::default(),
            staging: Mutex::new(staging),
            order: Mutex::default(),
            pulse: OnceLock::new(),
            clocks: Mutex::default(),
        };
        let pulse = Pulse::new(&engine)?;
        engine.pulse.get_or_init(|| pulse);
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

    /// Which kernels plans for this device should use.
    pub fn kernels(&self) -> KernelTable {
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes [`Engine::kernels`], for plans made from now on.
    pub fn choose(&self, kernels: KernelTable) {
        *self.kernels.lock().unwrap_or_else(PoisonError::into_inner) = kernels;
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
    pub fn allocate_guarded(&self, label: &str, bytes: u64) -> Result<Block> {
        let words = bytes.div_ceil(4) + GUARD_WORDS;
        let mut block = self.allocate(label, words * 4)?;
        let mut content = vec![POISON.to_bits(); (words - GUARD_WORDS) as usize];
        content.resize(words as usize, SENTINEL);
        self.write(&block, &content);
        block.bytes = bytes;
        Ok(block)
    }

    /// Whether the words after a guarded block are untouched.
    pub fn guard_intact(&self, block: &Block) -> Result<bool> {
        let words: Vec<u32> = self.read_words(block, block.bytes.next_multiple_of(4), GUARD_WORDS as usize)?;
        Ok(words.iter().all(|&w| w == SENTINEL))
    }

    /// Writes `values` at the start of `block` before the next submission.
    pub fn write<T: bytemuck::Pod>(&self, block: &Block, values: &[T]) {
        self.gpu.queue.write_buffer(&block.allocation.buffer, block.offset, bytemuck::cast_slice(values));
    }

    /// Writes a large block, in pieces with a submission after each: queued writes are staged in host
    /// memory until then.
    pub fn write_all<T: bytemuck::Pod>(&self, block: &Block, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        for (i, piece) in bytes.chunks(WRITE_PIECE).enumerate() {
            let at = block.offset + (i * WRITE_PIECE) as u64;
            self.gpu.queue.write_buffer(&block.allocation.buffer, at, piece);
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
    pub fn encoder(&self) -> wgpu::CommandEncoder {
        self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    /// Appends a program's dispatches to `encoder`.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder, program: &Program) {
        program.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
    }

    /// Submits `encoder` without waiting for it; a mark of the pulse comes last.
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
        order: &mut Order,
        mut encoder: wgpu::CommandEncoder,
        behind: impl FnOnce(&mut wgpu::CommandEncoder, Option<&Block>),
    ) -> wgpu::CommandEncoder {
        let pulse = self.pulse.get();
        if let Some(pulse) = pulse {
            pulse.beat(&mut encoder);
        }
        behind(&mut encoder, pulse.map(|pulse| &pulse.count));
        order.submitted = order.submitted.wrapping_add(1);
        #[cfg(test)]
        if order.drops() {
            encoder = self.encoder();
        }
        encoder
    }

    /// Finishes commands that [`Engine::submit_encoded`] submits later, with their mark.
    pub(super) fn finish(&self, mut encoder: wgpu::CommandEncoder) -> wgpu::CommandBuffer {
        if let Some(pulse) = self.pulse.get() {
            pulse.beat(&mut encoder);
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
    pub(crate) fn forgive(&self) {
        let mut order = self.order();
        order.submitted = self.read_count().unwrap()[0];
    }

    pub(super) fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pulse as it stands on the device.
    pub(super) fn read_count(&self) -> Result<Vec<u32>> {
        self.pulse.get().map_or_else(|| Ok(Vec::new()), |pulse| self.read_words(&pulse.count, 0, 1))
    }

    /// Runs one dispatch of a program and waits for it.
    pub fn run_one(&self, program: &Program, dispatch: usize) -> Result<()> {
        let mut encoder = self.encoder();
        program.encode_range(&mut encoder, dispatch..dispatch + 1);
        let submission = self.submit(encoder)?;
        self.gpu.wait(submission)
    }

    /// Runs a program and waits for it.
    pub fn run(&self, program: &Program) -> Result<()> {
        self.land(self.start(self.encoder(), program)?)
    }

    /// Compiles what is not compiled yet and binds buffers. All uniform blocks of a program lie in
    /// one buffer, written once.
    pub fn prepare(&self, dispatches: &[Dispatch]) -> Result<Program> {
        let align = u64::from(self.gpu.limits.min_uniform_buffer_offset_alignment).max(16);
        let mut words: Vec<u32> = Vec::new();
        let mut ranges = Vec::with_capacity(dispatches.len());
        for dispatch in dispatches {
            words.resize((words.len() as u64 * 4).next_multiple_of(align) as usize / 4, 0);
            ranges.push((words.len() as u64 * 4, dispatch.dims.len() as u64 * 4));
            words.extend(&dispatch.dims);
        }
        let uniforms = self.allocate("dims", words.len() as u64 * 4)?;
        self.write(&uniforms, &words);
        let mut steps = Vec::with_capacity(dispatches.len());
        for (dispatch, (offset, size)) in dispatches.iter().zip(ranges) {
            let (pipeline, layout) = self.pipeline(dispatch.kernel)?;
            let mut entries = vec![entry(0, &uniforms.allocation.buffer, offset, size)];
            for (i, block) in dispatch.blocks.iter().enumerate() {
                entries.push(entry(i as u32 + 1, &block.allocation.buffer, block.offset, block.bound));
            }
            let bind_group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.kernel.entry),
                layout: &layout,
                entries: &entries,
            });
            let groups = dispatch.groups.min(self.most_groups);
            let (cost, kernel) = (dispatch.cost, Some(dispatch.kernel));
            steps.push(Step {
                pipeline,
                bindings: bind_group,
                groups,
                cost,
                kernel,
                #[cfg(test)]
                output: dispatch.blocks.last().cloned(),
            });
        }
        self.gpu.check()?;
        Ok(Program { steps, uniforms })
    }

    /// The compiled pipeline of a kernel. Threads compile side by side; two that want one kernel may both compile it.
    fn pipeline(&self, kernel: &'static Kernel) -> Result<Compiled> {
        let known = || self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = known().get(kernel) {
            return Ok(compiled.clone());
        }
        let compiled = self.compile(kernel)?;
        known().insert(kernel, compiled.clone());
        Ok(compiled)
    }

    /// Compiles `kernels` in so many threads, so that [`Engine::prepare`] finds them compiled; none is begun after `until`.
    /// One that does not compile fails again, with its cause, where it is prepared.
    pub fn compile_ahead(&self, kernels: &[&'static Kernel], threads: usize, until: Option<Instant>) {
        // GL has one context, and wgpu panics where a thread waits for it for seconds.
        let threads = if self.gpu.info.backend == wgpu::Backend::Gl { 1 } else { threads.min(kernels.len()) };
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(kernel) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                if until.is_some_and(|until| Instant::now() >= until)
                    || self.pipeline(kernel).is_err() && self.gpu.check().is_err()
                {
                    break;
                }
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            // A panic inside of wgpu is of one kernel, which fails again where it is prepared.
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
    }

    fn compile(&self, kernel: &'static Kernel) -> Result<Compiled> {
        let device = &self.gpu.device;
        #[cfg(test)]
        if kernel.file.ends_with(COSTS_DEVICE) {
            device.destroy();
        }
        let source = kernel
            .text
            .map_or_else(|| shader::source_for(kernel.file, kernel.real, kernel.rows), |text| Ok(text.to_owned()))?;
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = module::create(device, kernel.file, &source, self.checked);
        let kinds = std::iter::once(&Access::Uniform).chain(kernel.bindings);
        let entries: Vec<_> = kinds.enumerate().map(|(i, access)| layout_entry(i as u32, *access)).collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(kernel.entry),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.entry),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let mut constants: Vec<(&str, f64)> =
            kernel.flags.iter().map(|&(n, on)| (n, f64::from(u8::from(on)))).collect();
        if source.contains("override LANES") {
            constants.push(("LANES", if self.gpu.target.software { 8.0 } else { 64.0 }));
        }
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.entry),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(kernel.entry),
            // Every kernel writes its workgroup memory before it reads it.
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::device(format!(
                "kernel {} does not compile on {}: {}",
                kernel.name(),
                self.gpu.describe(),
                cause(&error)
            )));
        }
        self.gpu.check()?;
        Ok((pipeline, layout))
    }
}

/// The usual candidates, or the one that `TOKENFORMER_MATMUL` names, and the schedule that `TOKENFORMER_ATTENTION` names.
fn first_choices(gpu: &Gpu) -> Result<KernelTable> {
    let target = gpu.target;
    let attention = Schedule::from_environment(&target)?;
    let named = std::env::var("TOKENFORMER_MATMUL").ok().filter(|name| !name.is_empty());
    let Some(name) = named else { return Ok(KernelTable::defaults(target).with_attention(attention)) };
    let candidate: Candidate = name.parse()?;
    if !candidate.fits(&target) {
        return Err(Error::device(format!(
            "TOKENFORMER_MATMUL={name} needs what \"{}\" does not have; `tokenformer bench matmul` lists what it can run",
            gpu.info.name
        )));
    }
    Ok(KernelTable::forced(target, candidate).with_attention(attention))
}

pub(super) fn entry(binding: u32, buffer: &wgpu::Buffer, offset: u64, size: u64) -> wgpu::BindGroupEntry<'_> {
    let size = std::num::NonZeroU64::new(size);
    wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size }),
    }
}

pub(super) fn layout_entry(binding: u32, access: Access) -> wgpu::BindGroupLayoutEntry {
    let ty = match access {
        Access::Uniform => wgpu::BufferBindingType::Uniform,
        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Access::Write => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}
