//! One open GPU: its queue, its limits, and the first thing that went wrong on it.
//!
//! wgpu reports most errors through callbacks and by default panics in them. Here the first one is
//! kept and becomes an ordinary error at the next [`Gpu::check`], [`Gpu::submit`], [`Gpu::wait`] or
//! [`Gpu::read`]. This file knows nothing of kernels or tensors.

use std::time::{Duration, Instant};

use wgpu::{AdapterInfo, BufferUsages, Features, Limits};

use super::fault::{FirstError, lost, plain, without_panic};

use super::adapter::{self, AdapterRequest, FoundAdapter};
use super::names;
use crate::error::{Error, Result};
use crate::kernel::{Dtype, Fragment, Fragments, Target};
use crate::report::number;

/// Longest wait for one submission before the GPU counts as hung.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(600);

/// Largest binding used whatever the adapter offers: past it, drivers have returned wrong results.
pub(crate) const MAX_BINDING_BYTES: u64 = (1 << 31) - 4;

/// Optional features asked for wherever they are offered.
const WANTED: Features =
    Features::TIMESTAMP_QUERY.union(Features::SHADER_F16).union(Features::SUBGROUP).union(Features::SUBGROUP_BARRIER);

/// An open device with its queue; cheap to share by reference, closed on drop.
#[derive(Debug)]
pub struct Gpu {
    /// The wgpu device.
    pub device: wgpu::Device,
    /// Its only queue.
    pub queue: wgpu::Queue,
    /// Name, driver, backend and type of the adapter.
    pub info: AdapterInfo,
    /// The limits the device was opened with: what the plan may use.
    pub limits: Limits,
    /// Optional features that are on: timestamps, f16, subgroups.
    pub features: Features,
    /// What it can do, for plans and the choice of kernels.
    pub target: Target,
    /// Why this adapter was chosen, for a line to the user.
    pub why: String,
    fault: FirstError,
}

impl Gpu {
    /// Opens the adapter `request` asks for, with all the adapter's limits (a binding capped at
    /// [`MAX_BINDING_BYTES`]). With `TOKENFORMER_DEVICE=webgpu` it opens as the least that WebGPU guarantees:
    /// [`webgpu_limits`] and no optional feature. With `TOKENFORMER_SOFTWARE=off` a software adapter is taken for a GPU and
    /// runs the schedules of one, slowly: for tests of those.
    ///
    /// # Errors
    /// Those of [`adapter::choose`], or a driver that refuses to open the device; another value of that variable.
    pub fn open(request: &AdapterRequest) -> Result<Self> {
        match std::env::var("TOKENFORMER_DEVICE").as_deref() {
            Err(_) | Ok("") => Self::open_with_limits(request, |limits| limits),
            Ok("webgpu") => {
                let (candidate, why) = adapter::choose(request)?;
                let why = format!("{why}; opened with the limits that WebGPU guarantees, and no optional features");
                Self::open_as(candidate, why, webgpu_limits, Features::empty())
            }
            Ok(other) => Err(Error::usage(format!(
                "TOKENFORMER_DEVICE is \"{other}\", but only \"webgpu\" is known: unset it for all that the adapter has"
            ))),
        }
    }

    /// As [`Gpu::open`], with limits lowered by `limits`, which is given the adapter's: so a test
    /// can run at [`webgpu_limits`].
    ///
    /// # Errors
    /// Those of [`Gpu::open`], or limits above the adapter's.
    pub fn open_with_limits(request: &AdapterRequest, limits: impl Fn(Limits) -> Limits) -> Result<Self> {
        let (candidate, why) = adapter::choose(request)?;
        Self::open_candidate(candidate, why, limits)
    }

    /// Opens an adapter already chosen; `why` is kept for the user.
    ///
    /// # Errors
    /// A driver that refuses, or limits above the adapter's.
    pub(crate) fn open_candidate(
        candidate: FoundAdapter,
        why: String,
        limits: impl Fn(Limits) -> Limits,
    ) -> Result<Self> {
        Self::open_as(candidate, why, limits, WANTED)
    }

    /// As [`Gpu::open_candidate`], with those of `wanted` that the adapter has.
    fn open_as(
        candidate: FoundAdapter,
        why: String,
        limits: impl Fn(Limits) -> Limits,
        wanted: Features,
    ) -> Result<Self> {
        let on_cpu = candidate.is_software();
        let software = on_cpu && std::env::var("TOKENFORMER_SOFTWARE").as_deref() != Ok("off");
        let FoundAdapter { info, adapter, .. } = candidate;
        let limits = limits(usable(adapter.limits()));
        let mut features = adapter.features() & wanted;
        // lavapipe with vectors of 512 bits (Mesa 26.1.6) crashes when it compiles matrices of 8 x 8.
        let crashes = on_cpu && info.subgroup_max_size > 8;
        let fragments = if crashes { Fragments::NONE } else { fragments(&adapter, features) };
        if !fragments.is_empty() {
            features |= Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("tokenformer"),
            required_features: features,
            required_limits: limits.clone(),
            // The plan allocates a few large buffers; wgpu's default would round each up to 128 MiB blocks.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            experimental_features: if fragments.is_empty() { Default::default() } else { experimental() },
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request)
            .map_err(|cause| Error::device(format!("cannot open adapter \"{}\": {}", info.name, plain(&cause))))?;
        let fault = FirstError::default();
        fault.watch(&device);
        let target = target(&info, &limits, features, fragments, software);
        Ok(Self { device, queue, info, limits, features, target, why, fault })
    }

    /// The first error or loss since the device was opened, if any.
    ///
    /// # Errors
    /// That error, as one sentence.
    pub fn check(&self) -> Result<()> {
        self.fault.first().map_or(Ok(()), Err)
    }

    /// Creates a buffer of `bytes`, or says which one did not fit.
    ///
    /// # Errors
    /// Past the device's limit, or out of device memory.
    pub fn buffer(&self, label: &str, bytes: u64, usage: BufferUsages) -> Result<wgpu::Buffer> {
        let limit = self.limits.max_buffer_size;
        if bytes > limit {
            return Err(Error::device(format!(
                "buffer \"{label}\" needs {}, this device allows {} in one buffer; use a smaller batch_size",
                number::bytes(bytes),
                number::bytes(limit)
            )));
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: false };
        let buffer = self.device.create_buffer(&descriptor);
        if pollster::block_on(scope.pop()).is_some() {
            let (needed, adapter) = (number::bytes(bytes), &self.info.name);
            let sentence = format!(
                "buffer \"{label}\" needs {needed}, more than \"{adapter}\" has free; use a smaller batch_size"
            );
            return Err(Error::out_of_memory(bytes, sentence));
        }
        self.check()?;
        Ok(buffer)
    }

    /// Submits the commands of `encoder`.
    ///
    /// # Errors
    /// Anything wgpu found wrong with them, or earlier.
    pub fn submit(&self, encoder: wgpu::CommandEncoder) -> Result<wgpu::SubmissionIndex> {
        self.submit_commands(encoder.finish())
    }

    /// Submits commands that were encoded before.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn submit_commands(&self, commands: wgpu::CommandBuffer) -> Result<wgpu::SubmissionIndex> {
        self.check()?;
        let submission = self.queue.submit([commands]);
        self.check()?;
        Ok(submission)
    }

    /// Blocks until `submission` has run.
    ///
    /// # Errors
    /// A GPU that takes longer than [`WAIT_LIMIT`], a lost device, or any earlier error.
    pub fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        self.wait_within(submission, WAIT_LIMIT, || "its work".to_owned())
    }

    /// As [`Gpu::wait`] with a limit of its own; `what` says what was waited for.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn wait_within(
        &self,
        submission: wgpu::SubmissionIndex,
        limit: Duration,
        what: impl FnOnce() -> String,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let poll = wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout: Some(limit) };
            match without_panic(|| self.device.poll(poll)) {
                Some(Ok(_)) => return self.check(),
                // wgpu's GL backend gives up after 2.1 seconds whatever the timeout; so the clock is ours.
                Some(Err(wgpu::PollError::Timeout)) if start.elapsed() < limit => {
                    self.check()?;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Some(Err(wgpu::PollError::Timeout)) => {
                    return Err(Error::lost(format!(
                        "the GPU \"{}\" did not finish {} within {} s: it hangs, or other programs keep it busy",
                        self.info.name,
                        what(),
                        limit.as_secs()
                    )));
                }
                // A submission that was never made: the device was lost before it.
                Some(Err(cause)) => return self.check().and_then(|()| Err(Error::lost(lost(&plain(&cause))))),
                // wgpu panics in poll when the driver reports a lost device.
                None => return self.check().and_then(|()| Err(Error::lost(lost("the driver gave up")))),
            }
        }
    }

    /// The adapter in a line: "llvmpipe (LLVM 15.0.6, 256 bits), Vulkan, Mesa 22.3.6, software".
    pub fn describe(&self) -> String {
        names::describe(&self.info)
    }

    /// The same within a line of a terminal: "llvmpipe, Vulkan, Mesa 22.3.6, software".
    pub(crate) fn describe_briefly(&self) -> String {
        names::describe_briefly(&self.info)
    }

    /// Name of this adapter, backend and driver, fit for a file name: another driver version is another key.
    pub(crate) fn cache_key(&self) -> String {
        names::cache_key(&self.info)
    }
}

/// The square matrices that an adapter's matrix units multiply into f32: of f16, 16 x 16 on most GPUs and 8 x 8 on Apple's,
/// which multiplies f32 as well.
fn fragments(adapter: &wgpu::Adapter, features: Features) -> Fragments {
    if !adapter.features().contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) || !features.contains(Features::SUBGROUP)
    {
        return Fragments::NONE;
    }
    let offered = adapter.cooperative_matrix_properties();
    Fragments::of(|Fragment { side, operand }| {
        let (scalar, needed) = match operand {
            Dtype::F16 => (wgpu::CooperativeScalarType::F16, Features::SHADER_F16),
            Dtype::F32 => (wgpu::CooperativeScalarType::F32, Features::empty()),
        };
        let found = offered.iter().any(|p| {
            [p.m_size, p.n_size, p.k_size] == [side; 3]
                && p.ab_type == scalar
                && p.cr_type == wgpu::CooperativeScalarType::F32
        });
        found && features.contains(needed)
    })
}

/// The permission wgpu asks for before it enables an experimental feature.
#[allow(unsafe_code)]
fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: what is asked is to accept that the feature may have defects. It is used by the generated matrix
    // products only, in the way its documentation shows, and their results are verified before they are used.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// What a device with these limits and features can do.
fn target(info: &AdapterInfo, limits: &Limits, features: Features, fragments: Fragments, software: bool) -> Target {
    let subgroups = features.contains(Features::SUBGROUP);
    let sizes = [info.subgroup_min_size, info.subgroup_max_size];
    Target {
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        invocations: limits.max_compute_invocations_per_workgroup,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        subgroup_sizes: sizes.map(|lanes| if subgroups { lanes } else { 0 }),
        subgroup_barrier: features.contains(Features::SUBGROUP_BARRIER),
        f16: features.contains(Features::SHADER_F16),
        fragments,
        software,
    }
}

/// What may be used of an adapter's limits: bindings up to [`MAX_BINDING_BYTES`], buffers of whole words.
fn usable(mut offered: Limits) -> Limits {
    offered.max_storage_buffer_binding_size = offered.max_storage_buffer_binding_size.min(MAX_BINDING_BYTES);
    // Mesa's GL offers 2^31-1 bytes, and fails on them: wgpu rounds sizes up to whole words.
    offered.max_buffer_size -= offered.max_buffer_size % 4;
    offered
}

/// The limits WebGPU guarantees everywhere, or the adapter's where those are lower: for
/// [`Gpu::open_with_limits`].
pub fn webgpu_limits(adapter: Limits) -> Limits {
    Limits::defaults().or_worse_values_from(&adapter)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Uses what every kernel here uses: a uniform, read and read_write storage, workgroup memory, an override.
    const ROW_SUMS: &str = "
        override WIDTH: u32 = 1;
        struct Dims { rows: u32, columns: u32 }
        @group(0) @binding(0) var<uniform> dims: Dims;
        @group(0) @binding(1) var<storage, read> x: array<f32>;
        @group(0) @binding(2) var<storage, read_write> sums: array<f32>;
        var<workgroup> sh_part: array<f32, 64>;
        @compute @workgroup_size(64)
        fn row_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
            var part = 0.0;
            for (var c = lane; c < dims.columns; c += WIDTH) { part += x[group.x * dims.columns + c]; }
            sh_part[lane] = part;
            workgroupBarrier();
            if (lane == 0u && group.x < dims.rows) {
                for (var i = 1u; i < WIDTH; i++) { part += sh_part[i]; }
                sums[group.x] = part;
            }
        }";

    /// Every adapter of this machine that can compute, opened; fails where there is none.
    pub(crate) fn every_adapter() -> Vec<Gpu> {
        let candidates = adapter::enumerate(&AdapterRequest::default()).unwrap();
        assert!(candidates.iter().any(|it| it.lacks().is_none()), "no adapter: tests need at least a software driver");
        let able = candidates.into_iter().filter(|it| it.lacks().is_none());
        able.map(|candidate| Gpu::open_candidate(candidate, String::new(), |limits| limits).unwrap()).collect()
    }

    fn row_sums(gpu: &Gpu, zero_initialize_workgroup_memory: bool) -> Result<Vec<f32>> {
        let (rows, columns) = (5_u32, 150_u32);
        let x: Vec<f32> = (0..rows * columns).map(|i| (i % 97) as f32).collect();
        let dims = gpu.buffer("dims", 8, BufferUsages::UNIFORM | BufferUsages::COPY_DST)?;
        let input = gpu.buffer("x", 4 * x.len() as u64, BufferUsages::STORAGE | BufferUsages::COPY_DST)?;
        let output = gpu.buffer("sums", 4 * u64::from(rows), BufferUsages::STORAGE | BufferUsages::COPY_SRC)?;
        gpu.queue.write_buffer(&dims, 0, bytemuck::cast_slice(&[rows, columns]));
        gpu.queue.write_buffer(&input, 0, bytemuck::cast_slice(&x));
        let source = wgpu::ShaderSource::Wgsl(ROW_SUMS.into());
        let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("row_sums"),
            layout: None,
            module: &module,
            entry_point: Some("row_sums"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[("WIDTH", 64.0)],
                zero_initialize_workgroup_memory,
            },
            cache: None,
        });
        let entries: Vec<_> = (0..)
            .zip([&dims, &input, &output])
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let layout = pipeline.get_bind_group_layout(0);
        let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries,
        });
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(rows, 1, 1);
        }
        gpu.submit(encoder)?;
        gpu.read(&output, 0, rows as usize, None)
    }

    #[test]
    fn a_kernel_runs_on_every_adapter() {
        for gpu in every_adapter() {
            for zeroed in [true, false] {
                let start = Instant::now();
                let sums = row_sums(&gpu, zeroed).unwrap();
                println!("{}: {:?} (zeroed workgroup memory: {zeroed})", gpu.describe(), start.elapsed());
                let want: Vec<f32> = (0..5).map(|r| (r * 150..r * 150 + 150).map(|i| (i % 97) as f32).sum()).collect();
                assert_eq!(sums, want, "{}", gpu.describe());
            }
        }
    }

    #[test]
    fn errors_and_loss_are_sentences_not_panics() {
        for gpu in every_adapter() {
            let error = gpu.buffer("moments", u64::MAX / 2, BufferUsages::STORAGE).unwrap_err().to_string();
            assert!(error.starts_with("buffer \"moments\" needs "), "{error}");
            gpu.check().unwrap();
            let source = wgpu::ShaderSource::Wgsl("fn broken( { }".into());
            let _ = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("broken"), source });
            let error = gpu.check().unwrap_err();
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains("broken") && !error.to_string().contains('\n'), "{error}");
            println!("{error}");
            assert!(row_sums(&gpu, true).is_err(), "the first error sticks");
        }
        for gpu in every_adapter() {
            let buffer = gpu.buffer("b", 4, BufferUsages::COPY_SRC).unwrap();
            gpu.device.destroy();
            let error = gpu.read::<u32>(&buffer, 0, 1, None).unwrap_err();
            println!("{error}");
        }
    }

    #[test]
    fn the_guaranteed_limits_are_enough_to_open_a_device() {
        let gpu = Gpu::open_with_limits(&AdapterRequest::default(), webgpu_limits).unwrap();
        assert!(gpu.limits.max_storage_buffer_binding_size <= 128 << 20);
        assert_eq!(
            gpu.device.limits().max_compute_workgroup_storage_size,
            gpu.limits.max_compute_workgroup_storage_size
        );
        row_sums(&gpu, false).unwrap();
    }
}
