//! An adapter and its driver in words: for people, and for the names of files kept for it.

use super::adapter::backend_name;
use wgpu::AdapterInfo;

/// The adapter in a line; see [`Gpu::describe`].
pub(crate) fn describe(info: &AdapterInfo) -> String {
    let mut parts = vec![info.name.clone(), backend_name(info.backend).to_owned()];
    for part in [&info.driver, &info.driver_info] {
        // Mesa gives "llvmpipe" as the driver of the adapter "llvmpipe (LLVM 15.0.6, 256 bits)".
        if !part.is_empty() && !parts.iter().any(|said| said.contains(part.as_str())) {
            parts.push(part.clone());
        }
    }
    if info.device_type == wgpu::DeviceType::Cpu {
        parts.push("software".to_owned());
    }
    parts.join(", ")
}

/// See [`Gpu::cache_key`].
pub(crate) fn cache_key(info: &AdapterInfo) -> String {
    let exact = format!(
        "{}|{}|{}|{}|{:x}:{:x}",
        info.name, info.backend, info.driver, info.driver_info, info.vendor, info.device
    );
    // FNV-1a of the exact text keeps two keys apart that look alike after the characters are simplified.
    let hash = exact
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let words: Vec<&str> = info.name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let name: String = words.join("-").to_lowercase().chars().take(40).collect();
    format!("{name}-{}-{hash:016x}", info.backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_have_their_own_cache_key() {
        let mut info = AdapterInfo::new(wgpu::DeviceType::Cpu, wgpu::Backend::Vulkan);
        info.name = "llvmpipe (LLVM 15.0.6, 256 bits)".into();
        info.driver = "llvmpipe".into();
        info.driver_info = "Mesa 22.3.6 (LLVM 15.0.6)".into();
        assert_eq!(describe(&info), "llvmpipe (LLVM 15.0.6, 256 bits), Vulkan, Mesa 22.3.6 (LLVM 15.0.6), software");
        let old = cache_key(&info);
        assert!(old.starts_with("llvmpipe-llvm-15-0-6-256-bits-vulkan-"), "{old}");
        info.driver_info = "Mesa 25.0.0 (LLVM 19)".into();
        assert_ne!(cache_key(&info), old);
    }
}
