//! Kernels compiled once, and programs that bind them to buffers.

use super::engine::{Compiled, Engine};
use super::fault::cause;
use super::module;
use super::program::{Dispatch, Program, Step};
use crate::error::{Error, Result};
#[cfg(test)]
use crate::kernel::COSTS_DEVICE;
use crate::kernel::{Access, Kernel, shader};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

impl Engine {
    /// Compiles what is not compiled yet and binds buffers. All uniform blocks of a program lie in
    /// one buffer, written once.
    pub(crate) fn prepare(&self, dispatches: &[Dispatch]) -> Result<Program> {
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
                dims: dispatch.dims.clone(),
                #[cfg(test)]
                blocks: dispatch.blocks.clone(),
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
    pub(crate) fn compile_ahead(&self, kernels: &[&'static Kernel], threads: usize, until: Option<Instant>) {
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

    /// The text of a kernel, and the values of its `override` constants.
    pub(super) fn source(&self, kernel: &Kernel) -> Result<(String, Vec<(&'static str, f64)>)> {
        let source = kernel
            .text
            .map_or_else(|| shader::source_for(kernel.file, kernel.real, kernel.rows), |text| Ok(text.to_owned()))?;
        let mut constants: Vec<_> = kernel.flags.iter().map(|&(n, on)| (n, f64::from(u8::from(on)))).collect();
        if source.contains("override LANES") {
            constants.push(("LANES", if self.gpu.target.software { 8.0 } else { 64.0 }));
        }
        Ok((source, constants))
    }

    fn compile(&self, kernel: &'static Kernel) -> Result<Compiled> {
        let device = &self.gpu.device;
        #[cfg(test)]
        if kernel.file.ends_with(COSTS_DEVICE) {
            device.destroy();
        }
        let (source, constants) = self.source(kernel)?;
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
