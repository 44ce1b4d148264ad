//! One dispatch of a kernel whose text or numeric `override` constants are chosen at run time.
//!
//! Everything a model runs is a [`Kernel`](crate::kernel::Kernel), which is data known when the program is built. What is
//! only measured (how many accumulators, which workgroup size, f16 in place of f32) goes through here and is
//! compiled anew each time.

use super::engine::{Block, Engine, Program};
use super::module;
use super::pipelines::{entry, layout_entry};
use crate::error::{Error, Result};
use crate::kernel::{Access, ParameterBlock};

/// What to compile and run.
pub(crate) struct Custom<'a> {
    /// Complete WGSL.
    pub text: &'a str,
    /// Entry point in it.
    pub entry: &'a str,
    /// Values of its `override` constants.
    pub constants: &'a [(&'a str, f64)],
    /// The uniform block at binding 0.
    pub parameters: ParameterBlock,
    /// The other bindings: number, use and memory.
    pub blocks: &'a [(u32, Access, &'a Block)],
    /// Workgroups along x.
    pub groups: u32,
}

impl Custom<'_> {
    /// Compiles the kernel and binds its memory.
    ///
    /// # Errors
    /// A device error with the compiler's words where it does not compile.
    pub(crate) fn prepare(&self, engine: &Engine) -> Result<Program> {
        let gpu = &engine.gpu;
        let words = self.parameters.words();
        let uniforms = engine.allocate("dims", words.len() as u64 * 4)?;
        engine.write(&uniforms, &words);
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let (pipeline, bindings) = self.compile(engine, &uniforms);
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::device(format!(
                "kernel {} {:?} does not compile on {}: {error}",
                self.entry,
                self.constants,
                gpu.describe()
            )));
        }
        gpu.check()?;
        Ok(Program::single(pipeline, bindings, self.groups, uniforms))
    }

    fn compile(&self, engine: &Engine, uniforms: &Block) -> (wgpu::ComputePipeline, wgpu::BindGroup) {
        let device = &engine.gpu.device;
        let module = module::create(device, self.entry, self.text, engine.checked());
        let mut kinds = vec![layout_entry(0, Access::Uniform)];
        let mut entries = vec![entry(0, uniforms.place().0, 0, uniforms.bytes())];
        for &(binding, access, block) in self.blocks {
            kinds.push(layout_entry(binding, access));
            let (buffer, offset) = block.place();
            entries.push(entry(binding, buffer, offset, block.bytes()));
        }
        let layout = device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(self.entry), entries: &kinds });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(self.entry),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(self.entry),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(self.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: self.constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(self.entry),
            layout: &layout,
            entries: &entries,
        });
        (pipeline, bindings)
    }
}
