//! SPIR-V as wgpu makes it for Vulkan, held against the specification by `spirv-val` of spirv-tools.
//!
//! naga's own validator judges the WGSL. This one judges what drivers are given, in the newest and the oldest dialect
//! that wgpu writes. Where the program is not installed nothing is checked and a line says so, except in CI.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage};
use tokenformer::kernel::shader;

use crate::lint::{during, parse, variants};

/// Environment of `spirv-val`, version of SPIR-V, and whether buffers are checked by the shader, as wgpu has them.
const TARGETS: [(&str, (u8, u8), BoundsCheckPolicy); 2] =
    [("vulkan1.1", (1, 3), BoundsCheckPolicy::Restrict), ("vulkan1.3", (1, 6), BoundsCheckPolicy::Unchecked)];

/// Complaints that are not faults, each with the reason.
const ALLOWED: [(&str, &str); 1] =
    [("Invalid capability operand: 6022", "spirv-tools before 2023.4 do not know SPV_KHR_cooperative_matrix")];

fn words(
    name: &str,
    (module, info): &(Module, ModuleInfo),
    lang_version: (u8, u8),
    buffer: BoundsCheckPolicy,
) -> Result<Vec<u32>, String> {
    let index = BoundsCheckPolicy::Restrict;
    let options = spv::Options {
        lang_version,
        bounds_check_policies: BoundsCheckPolicies { index, buffer, ..BoundsCheckPolicies::default() },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: name.into() };
    during(name, spv::write_vec(module, info, &options, Some(&pipeline)))
}

/// What `spirv-val` says against a module; `None` where it is not installed.
fn complaint(words: &[u32], environment: &str) -> Option<Result<(), String>> {
    let mut command = Command::new("spirv-val");
    command.args(["--target-env", environment]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    let allowed = ALLOWED.iter().any(|(text, _)| said.contains(text));
    Some(if output.status.success() || allowed { Ok(()) } else { Err(said) })
}

/// Every module of a complete shader, judged.
fn judge(source: &str) -> Option<Result<usize, String>> {
    let modules = parse(source).and_then(|(module, info)| {
        let mut all = Vec::new();
        for entry in &module.entry_points {
            for variant in variants(&module, &info, &entry.name)? {
                for (environment, version, buffer) in TARGETS {
                    all.push((environment, words(&entry.name, &variant, version, buffer)?));
                }
            }
        }
        Ok(all)
    });
    let modules = match modules {
        Ok(modules) => modules,
        Err(fault) => return Some(Err(fault)),
    };
    for (environment, words) in &modules {
        if let Err(said) = complaint(words, environment)? {
            return Some(Err(format!("{environment}: {said}")));
        }
    }
    Some(Ok(modules.len()))
}

fn installed() -> bool {
    let installed = Command::new("spirv-val").arg("--version").output().is_ok();
    assert!(installed || std::env::var_os("CI").is_none(), "spirv-val is missing: install spirv-tools");
    if !installed {
        println!("not checked: spirv-val is not installed (it is in spirv-tools)");
    }
    installed
}

#[test]
fn every_translation_is_valid_spirv() {
    if !installed() {
        return;
    }
    let files = shader::FILES.iter().flat_map(|(name, _)| {
        crate::VARIANTS
            .map(|(real, rows)| (format!("{name} {real:?} {rows:?}"), shader::source_for(name, real, rows).unwrap()))
    });
    let generated = crate::generated_kernels().into_iter();
    let generated = generated.map(|(name, (kernel, _))| (name.to_owned(), kernel.text.unwrap().to_owned()));
    let attention = crate::attention().into_iter();
    let attention = attention.map(|(name, kernel)| (name.to_owned(), kernel.kernel().text.unwrap().to_owned()));
    let sources: Vec<_> = files.chain(generated).chain(attention).collect();
    let (next, judged, faults) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((name, source)) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match judge(source).unwrap() {
                        Ok(modules) => drop(judged.fetch_add(modules, Ordering::Relaxed)),
                        Err(fault) => faults.lock().unwrap().push(format!("{name}: {fault}")),
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
    let judged = judged.into_inner();
    println!("{judged} modules of {} shaders", sources.len());
    assert!(judged > sources.len(), "only {judged} modules of {} shaders", sources.len());
}

#[test]
fn planted_spirv_is_caught() {
    if !installed() {
        return;
    }
    let source = crate::kernel("", "y[lane] = x[lane];");
    let (module, info) = parse(&source).unwrap();
    let variant = variants(&module, &info, "work").unwrap().remove(0);
    let (environment, version, buffer) = TARGETS[1];
    let mut sound = words("work", &variant, version, buffer).unwrap();
    assert_eq!(complaint(&sound, environment), Some(Ok(())));
    // The last instruction ends the function: one word, opcode 56.
    assert_eq!(sound.pop(), Some(1 << 16 | 56));
    let said = complaint(&sound, environment).unwrap().unwrap_err();
    assert!(said.contains("FunctionEnd"), "{said}");
}
