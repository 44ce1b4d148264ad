//! Compiling WGSL, with or without the checks that wgpu writes into it.
//!
//! With them, no kernel reads or writes outside what is bound or loops for ever, whatever its text. On an H200 they cost
//! f32 products that are written out 10 %, f32 attention 15 to 25 % and attention on matrix units 20 %, so kernels for GPUs
//! are trusted and go without. On software adapters they cost nothing that could be measured, and stay.
//! `TOKENFORMER_CHECKS=on` or `off` decides for any adapter. On software adapters no bit of a result depends on it; a GPU's
//! compiler may contract other products and sums, and then results differ by roundings.
//!
//! What proves the index of a trusted kernel:
//!
//! | index | proof |
//! |---|---|
//! | of a matrix product | its kernel clamps or masks rows, columns and terms against (m, n, k); `Product::record` refuses operands whose last element by offset, stride and extents is outside of the tensor |
//! | of any other kernel | it loops to, or masks against, extents that its op reads off the shapes of the tensors it binds |
//! | a token, a target | kernels take the smaller of it and the last of the vocabulary, and leave out what is in no row of theirs |
//! | a row of the embedding's gradient | `data::token_index` made it, and refuses tokens outside the vocabulary |
//! | a position of a run | `runtime::generate` keeps it below the capacity of caches and tables; `cache.wgsl` masks it, `rotary::rotate` holds the rows of a run against the table |
//! | in workgroup memory | bounds of loops that are constants of the text |
//! | any, as 32 bits | the plan refuses tensors of 2^31 bytes and more |
//!
//! Sentinels hold all of it: in the tests guard words follow every tensor of every case inside its binding, with checks and
//! without, and the numbers are the same.

use crate::error::{Error, Result};

/// Whether kernels get checks: as the environment says, or where the adapter is `software`.
///
/// # Errors
/// A usage error where the environment says neither `on` nor `off`.
pub(crate) fn checked_by_default(software: bool) -> Result<bool> {
    checked(software, std::env::var("TOKENFORMER_CHECKS").ok().as_deref())
}

fn checked(software: bool, asked: Option<&str>) -> Result<bool> {
    match asked {
        None | Some("") => Ok(software),
        Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(Error::usage(format!(
            "TOKENFORMER_CHECKS=\"{other}\" is neither \"on\" nor \"off\"; without it, kernels are checked on software adapters"
        ))),
    }
}

/// The module of `source`; errors are reported as for any other.
pub fn create(device: &wgpu::Device, label: &str, source: &str, checked: bool) -> wgpu::ShaderModule {
    let source = wgpu::ShaderSource::Wgsl(source.into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source };
    if checked { device.create_shader_module(descriptor) } else { trusted(device, descriptor) }
}

#[allow(unsafe_code)]
fn trusted(device: &wgpu::Device, descriptor: wgpu::ShaderModuleDescriptor) -> wgpu::ShaderModule {
    // SAFETY: the shaders are this program's own, never a user's. Every index is proven as the table above says, every loop
    // ends after a count that is a constant or comes from the uniform block, and no divisor is zero: they are constants,
    // extents of tensors, which have an element or more, and sums that start from one.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

#[cfg(test)]
mod tests {
    use super::super::adapter::AdapterRequest;
    use super::super::custom::Custom;
    use super::super::device::Gpu;
    use super::super::engine::Engine;
    use super::*;
    use crate::kernel::{Access, parameter_block};

    parameter_block! {
        struct At {
            x: u32,
        }
    }

    #[test]
    fn the_environment_decides_and_else_the_adapter() {
        for software in [true, false] {
            assert_eq!(checked(software, None).unwrap(), software);
            assert_eq!(checked(software, Some("")).unwrap(), software);
            assert!(checked(software, Some("on")).unwrap() && !checked(software, Some("off")).unwrap());
            let said = checked(software, Some("yes")).unwrap_err().to_string();
            assert!(said.contains("TOKENFORMER_CHECKS=\"yes\"") && said.contains("\"off\""), "{said}");
        }
    }

    /// The one thing that tells them apart without harm: an index past the end of an array in workgroup memory, between two
    /// others, which checks turn into the last one.
    #[test]
    fn checks_are_there_or_not_as_asked() {
        let text = "
            @group(0) @binding(0) var<uniform> at: vec4<u32>;
            @group(0) @binding(1) var<storage, read_write> y: array<f32>;
            struct Shared { before: array<f32, 8>, middle: array<f32, 4>, after: array<f32, 8> }
            var<workgroup> sh: Shared;
            @compute @workgroup_size(1)
            fn work() {
                for (var i = 0u; i < 8u; i++) { sh.before[i] = 1.0; sh.after[i] = 3.0; }
                for (var i = 0u; i < 4u; i++) { sh.middle[i] = 2.0; }
                y[0] = sh.middle[at.x];
            }";
        for checked in [true, false] {
            let engine = Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap().with_checks(checked);
            let y = engine.allocate("y", 16).unwrap();
            let (parameters, blocks) = (At { x: 6 }.into(), [(1, Access::Write, &y)]);
            let custom = Custom { text, entry: "work", constants: &[], parameters, blocks: &blocks, groups: 1 };
            engine.run(&custom.prepare(&engine).unwrap()).unwrap();
            let found = engine.read(&y).unwrap()[0];
            // Elsewhere a compiler may do anything with such an index.
            if checked || engine.gpu.target.software {
                assert_eq!(found, if checked { 2.0 } else { 3.0 });
            }
        }
    }
}
