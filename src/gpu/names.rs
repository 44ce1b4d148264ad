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

/// See [`Gpu::describe_briefly`]. What is in parentheses goes first, then the end.
pub(crate) fn describe_briefly(info: &AdapterInfo) -> String {
    // 79 with "adapter: " before it.
    const MOST: usize = 70;
    let whole = describe(info);
    if whole.chars().count() <= MOST {
        return whole;
    }
    let (mut brief, mut depth) = (String::new(), 0_u32);
    for c in whole.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => brief.push(c),
            _ => {}
        }
    }
    let brief = brief.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").replace(" ,", ",");
    match brief.char_indices().nth(MOST) {
        None => brief,
        Some(_) => brief.chars().take(MOST - 3).chain("...".chars()).collect(),
    }
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
        assert_eq!(describe_briefly(&info), "llvmpipe, Vulkan, Mesa 22.3.6, software");
        let old = cache_key(&info);
        assert!(old.starts_with("llvmpipe-llvm-15-0-6-256-bits-vulkan-"), "{old}");
        info.driver_info = "Mesa 25.0.0 (LLVM 19)".into();
        assert_ne!(cache_key(&info), old);
        info.name = "NVIDIA H200".into();
        (info.driver, info.driver_info) = ("NVIDIA".into(), "550.127.05".into());
        assert_eq!(describe_briefly(&info), describe(&info), "what fits stays as it is");
        for length in 0..200 {
            info.name = "\u{e9}".repeat(length);
            assert!(describe_briefly(&info).chars().count() <= 70);
        }
    }
}
