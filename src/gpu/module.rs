//! Compiling WGSL, with or without the checks that wgpu writes into it.
//!
//! With them, no kernel reads or writes outside what is bound, divides by zero or loops for ever, whatever its text.
//! Every kernel here keeps to that by itself, and gives the same bits without them; they stay because they cost nothing
//! that could be measured. `TOKENFORMER_CHECKS=off` leaves them out, for measuring that on other devices.

/// Whether the environment leaves the checks in.
pub fn checked_by_default() -> bool {
    std::env::var("TOKENFORMER_CHECKS").as_deref() != Ok("off")
}

/// The module of `source`; errors are reported as for any other.
pub fn create(device: &wgpu::Device, label: &str, source: &str, checked: bool) -> wgpu::ShaderModule {
    let source = wgpu::ShaderSource::Wgsl(source.into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source };
    if checked { device.create_shader_module(descriptor) } else { unchecked(device, descriptor) }
}

#[allow(unsafe_code)]
fn unchecked(device: &wgpu::Device, descriptor: wgpu::ShaderModuleDescriptor) -> wgpu::ShaderModule {
    // SAFETY: asked for by a person or a test. The shaders are this program's own: they index within what is bound, no
    // divisor is zero, every loop ends.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
