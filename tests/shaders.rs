//! Every shader, on every back end, without a GPU: naga parses, validates and translates each entry point.
//!
//! Also holds the shaders to the limits every WebGPU device has, to barriers in uniform control flow, and
//! to the form a reader may count on. Each check is shown to find a planted fault. What a shader computes
//! is tested elsewhere, against references.

// clippy.toml allows these in tests, but not in the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod uniformity;

use std::fmt::Display;

use naga::back::{PipelineConstants, hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::proc::Layouter;
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, Scalar, ShaderStage, TypeInner};
use std::collections::BTreeMap;
use tokenformer::gpu::choices::{Ability, Candidate, Layout, ProductKind};
use tokenformer::gpu::kernel::{Dtype, Kernel};
use tokenformer::gpu::shader;
use tokenformer::ops::matmul::candidates::{self, candidates};
use tokenformer::ops::matmul::source::Types;

const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_WORKGROUP_BYTES: u32 = 16 * 1024;
const MAX_INVOCATIONS: u32 = 256;
const MAX_HEADER_LINES: usize = 15;

/// What generated kernels may use besides; the files in `shaders/` may not, see [`form`].
const EXTRA: Capabilities =
    Capabilities::SUBGROUP.union(Capabilities::SHADER_FLOAT16).union(Capabilities::COOPERATIVE_MATRIX);

type Check = Result<(), String>;

/// Turns any error into one that says what was being done.
fn during<T, E: Display>(what: impl Display, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn validate(module: &Module) -> Result<ModuleInfo, String> {
    Validator::new(ValidationFlags::all(), Capabilities::default() | EXTRA)
        .validate(module)
        .map_err(|error| format!("{:?}", error.into_inner()))
}

/// Every check on a complete shader (imports resolved).
fn lint(source: &str) -> Check {
    lint_for(source, MAX_WORKGROUP_BYTES, false)
}

/// As [`lint`], with a limit for workgroup memory; `cooperative`: uses matrix units, which neither DX12 nor naga's
/// HLSL has.
fn lint_for(source: &str, workgroup_bytes: u32, cooperative: bool) -> Check {
    let options = naga::front::wgsl::Options::new();
    let module = naga::front::wgsl::Frontend::new_with_options(options)
        .parse(source)
        .map_err(|error| error.emit_to_string(source))?;
    let info = during("validation", validate(&module))?;
    for entry in &module.entry_points {
        let name = entry.name.as_str();
        if name == "main" {
            return Err("an entry point is named after what it computes, not main".into());
        }
        for constants in override_values(&module)? {
            let stage = Some((ShaderStage::Compute, name));
            let (module, info) = during(name, process_overrides(&module, &info, stage, &constants))?;
            limits(name, &module, &info, workgroup_bytes)?;
            translate(name, &module, &info, cooperative)?;
        }
        if let Some(barrier) = uniformity::divergent_barriers(&module, entry, source).first() {
            return Err(format!("{name}: the barrier at {barrier} is in divergent control flow"));
        }
    }
    Ok(())
}

/// What every WebGPU device allows, for a module of one entry point.
fn limits(name: &str, module: &Module, info: &ModuleInfo, workgroup_bytes: u32) -> Check {
    let uses = info.get_entry_point(0);
    let used = module.global_variables.iter().filter(|(handle, _)| uses[*handle] != GlobalUse::empty());
    let used: Vec<_> = used.map(|(_, variable)| variable).collect();
    let buffers = used.iter().filter(|variable| matches!(variable.space, AddressSpace::Storage { .. })).count();
    at_most(name, "storage buffers", buffers, MAX_STORAGE_BUFFERS)?;

    let mut layouter = Layouter::default();
    during(name, layouter.update(module.to_ctx()))?;
    let shared = used.iter().filter(|variable| variable.space == AddressSpace::WorkGroup);
    let bytes = shared.map(|variable| layouter[variable.ty].size).sum();
    at_most(name, "bytes of workgroup memory", bytes, workgroup_bytes)?;

    let invocations = module.entry_points[0].workgroup_size.iter().product();
    at_most(name, "invocations", invocations, MAX_INVOCATIONS)
}

fn at_most<T: PartialOrd + Display>(entry: &str, what: &str, found: T, limit: T) -> Check {
    if found > limit {
        return Err(format!("{entry} uses {found} {what}, every device allows {limit}"));
    }
    Ok(())
}

/// All combinations of the boolean `override` constants; others must have a default, which is used.
fn override_values(module: &Module) -> Result<Vec<PipelineConstants>, String> {
    let mut sets = vec![PipelineConstants::default()];
    for (_, constant) in module.overrides.iter() {
        let name = constant.name.clone().unwrap_or_default();
        if module.types[constant.ty].inner == TypeInner::Scalar(Scalar::BOOL) {
            let with = |value: f64| {
                let name = name.clone();
                sets.clone().into_iter().map(move |mut set| {
                    set.insert(name.clone(), value);
                    set
                })
            };
            sets = with(0.0).chain(with(1.0)).collect();
        } else if constant.init.is_none() {
            return Err(format!("override {name} is not a boolean and has no default"));
        }
    }
    Ok(sets)
}

/// Translates an entry point as wgpu would for Vulkan, Metal and DX12.
fn translate(name: &str, module: &Module, info: &ModuleInfo, cooperative: bool) -> Check {
    let stage = ShaderStage::Compute;
    let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: name.into() };
    let words = spv::write_vec(module, info, &spv::Options::default(), Some(&pipeline));
    during(format!("{name} to SPIR-V"), words)?;

    let pipeline = msl::PipelineOptions { entry_point: Some((stage, name.into())), ..Default::default() };
    let options = msl::Options { lang_version: if cooperative { (2, 3) } else { (1, 0) }, ..Default::default() };
    let text = msl::write_string(module, info, &options, &pipeline);
    let (_, translated) = during(format!("{name} to MSL"), text)?;
    for name in translated.entry_point_names {
        during("MSL entry point", name)?;
    }

    if cooperative {
        return Ok(());
    }
    let pipeline = hlsl::PipelineOptions { entry_point: Some((stage, name.into())) };
    let (mut text, options) = (String::new(), hlsl::Options::default());
    let translated = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    for name in during(format!("{name} to HLSL"), translated)?.entry_point_names {
        during("HLSL entry point", name)?;
    }
    Ok(())
}

/// What a reader may count on in the file as written.
fn form(text: &str) -> Check {
    let header = text.lines().take_while(|line| line.starts_with("//")).count();
    if !(1..=MAX_HEADER_LINES).contains(&header) {
        return Err(format!("the header comment has {header} lines, not 1 to {MAX_HEADER_LINES}"));
    }
    for (line, number) in text.lines().zip(1..) {
        // WGSL's own directives ask for features that not every device has.
        let directive = ["enable ", "requires ", "diagnostic("].iter().any(|word| line.trim_start().starts_with(word));
        let import = line.starts_with("#import \"") && line.ends_with(".wgsl\"");
        if directive || (line.contains('#') && !line.trim_start().starts_with("//") && !import) {
            return Err(format!("line {number}: the only directive is #import \"file.wgsl\", not {line:?}"));
        }
    }
    Ok(())
}

#[test]
fn every_shader_is_valid_and_translates() {
    let mut entry_points = 0;
    for (name, text) in shader::FILES {
        form(text).unwrap_or_else(|fault| panic!("shaders/{name}: {fault}"));
        for real in [Dtype::F32, Dtype::F16] {
            let source = shader::source(name, real).unwrap();
            entry_points += source.matches("@compute").count();
            lint(&source).unwrap_or_else(|fault| panic!("shaders/{name}: {fault}"));
        }
    }
    assert!(entry_points >= shader::FILES.len(), "only {entry_points} entry points were seen");
}

/// The matrix products are generated: every candidate of a GPU and of a software driver, in every layout.
#[test]
fn every_generated_shader_is_valid_and_translates() {
    let gpu = Ability {
        subgroup: Some(32),
        half: true,
        fragment: Some(16),
        workgroup_bytes: 48 * 1024,
        ..Ability::WEBGPU_DEFAULT
    };
    let apple = Ability { fragment: Some(8), workgroup_bytes: 32 * 1024, ..gpu };
    let software = Ability { software: true, subgroup: Some(8), ..gpu };
    let mut kernels: BTreeMap<&str, (&Kernel, Candidate)> = BTreeMap::new();
    let all = [gpu, apple, software].into_iter().flat_map(|a| Layout::ALL.map(|l| (a, l)));
    for ((ability, layout), half) in all.flat_map(|x| [(x, false), (x, true)]) {
        let products = [[64; 3], [1, 64, 64], [64, 64, 4096]].map(|size| ProductKind { layout, size, half });
        for candidate in products.map(|product| candidates(&ability, product, true)).concat() {
            let operand = if half { Dtype::F16 } else { Dtype::F32 };
            for (c, aligned) in [(Dtype::F32, false), (operand, true)] {
                let kernel = candidates::kernel(candidate, layout, Types { a: operand, b: operand, c }, aligned);
                kernels.insert(kernel.file, (kernel, candidate));
            }
        }
    }
    assert!(kernels.len() > 150, "only {} kernels", kernels.len());
    for (name, (kernel, candidate)) in kernels {
        // What a candidate says it needs is what keeps it from devices that have less.
        let most = candidate.workgroup_bytes().max(1);
        let cooperative = matches!(candidate, Candidate::Cooperative { .. });
        lint_for(kernel.text.expect(name), most, cooperative).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}

#[test]
fn every_file_on_disk_is_compiled_in() {
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(shader::FILES.iter().any(|(known, _)| *known == name), "shaders/{name} is not in gpu/shader.rs");
    }
}

/// An entry point `work` with the usual inputs and one writable buffer around `body`, after `declarations`.
fn kernel(declarations: &str, body: &str) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read> x: array<u32>;
        @group(0) @binding(1) var<storage, read_write> y: array<u32>;
        var<workgroup> sh: array<u32, 64>;
        {declarations}
        @compute @workgroup_size(64)
        fn work(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
            {body}
        }}"
    )
}

#[track_caller]
fn caught(source: &str, words: &str) {
    let fault = lint(source).expect_err("the fault was not found");
    assert!(fault.contains(words), "found something else: {fault}");
}

#[test]
fn planted_limits_are_caught() {
    let buffers = |count: usize| {
        let declare = |i| format!("@group(0) @binding({i}) var<storage, read_write> b{i}: array<u32>;");
        let declarations: String = (2..count).map(declare).collect();
        let stores: String = (2..count).map(|i| format!("b{i}[0] = 1u;")).collect();
        kernel(&declarations, &format!("y[lane] = x[lane]; {stores}"))
    };
    lint(&buffers(8)).unwrap();
    caught(&buffers(9), "uses 9 storage buffers");

    let shared = |words: usize| kernel(&format!("var<workgroup> big: array<u32, {words}>;"), "big[lane] = 1u;");
    lint(&shared(4096)).unwrap();
    caught(&shared(4097), "uses 16388 bytes of workgroup memory");
    let sized = "override N: u32 = 5000u; var<workgroup> big: array<u32, N>;";
    caught(&kernel(sized, "big[lane] = 1u;"), "uses 20000 bytes of workgroup memory");

    caught(&kernel("", "").replace("size(64)", "size(257)"), "uses 257 invocations");
    caught(&kernel("", "").replace("fn work", "fn main"), "named after what it computes");
    caught(&kernel("override FLAG: u32;", ""), "has no default");
    caught(&kernel("", "y[lane] = 1.0;"), "error");
    caught(&kernel("", "x[lane] = 1u;"), "validation");
    // Only the second value of FLAG makes this workgroup too large.
    let by_flag =
        "override FLAG: bool = false; override N: u32 = 1u + u32(FLAG) * 5000u; var<workgroup> big: array<u32, N>;";
    caught(&kernel(by_flag, "big[lane] = 1u;"), "uses 20004 bytes of workgroup memory");
}

#[test]
fn planted_form_is_caught() {
    form("// What it does.\n#import \"row.wgsl\"\n").unwrap();
    for fault in
        ["fn f() {}", "// A.\n#ifdef X\n", "// A.\n#import row.wgsl\n", "// A.\nenable f16;\n", "// A.\n  # define\n"]
    {
        form(fault).expect_err(fault);
    }
    form(&"// line\n".repeat(15)).unwrap();
    form(&"// line\n".repeat(16)).expect_err("a header of 16 lines");
}

#[test]
fn planted_divergent_barriers_are_caught() {
    let helper = "fn meet() { workgroupBarrier(); }
        fn meet_if(flag: bool) { if (flag) { workgroupBarrier(); } }
        fn first(lane: u32) -> u32 { if (lane == 0u) { return 1u; } return 1u; }
        fn put(p: ptr<function, u32>, value: u32) { *p = value; }
        fn half(n: u32) -> u32 { return n / 2u; }";
    let faults = [
        "if (lane < 4u) { workgroupBarrier(); }",
        "if (lane < 4u) {} else { storageBarrier(); }",
        "if (lane < 4u) { meet(); }",
        "if (lane < 4u) { return; } workgroupBarrier();",
        "meet_if(lane == 0u);",
        "for (var i = lane; i < 64u; i += 8u) { workgroupBarrier(); }",
        "for (var i = 0u; i < 64u; i++) { workgroupBarrier(); if (i == lane) { break; } }",
        "for (var i = 0u; i < 64u; i++) { if (i == lane) { continue; } workgroupBarrier(); }",
        "for (var i = 0u; i < 64u; i++) { for (var j = 0u; j < 4u; j++) { if (i == lane) { return; } } } workgroupBarrier();",
        "loop { workgroupBarrier(); continuing { break if lane == 0u; } }",
        "switch lane { case 0u: { workgroupBarrier(); } default: {} }",
        "var n = 1u; if (lane == 0u) { n = 2u; } for (var i = 0u; i < n; i++) { workgroupBarrier(); }",
        "var n = 1u; for (var i = 0u; i < lane; i++) { n++; } if (n > 3u) { workgroupBarrier(); }",
        "var n = 1u; for (var i = 0u; i < n; i++) { workgroupBarrier(); n = sh[0]; }",
        "var a: array<u32, 4>; a[lane % 4u] = 1u; if (a[0] == 1u) { workgroupBarrier(); }",
        "var n = 1u; put(&n, lane); if (n == 1u) { workgroupBarrier(); }",
        "if (y[0] == 1u) { workgroupBarrier(); }",
        "if (x[lane] == 1u) { workgroupBarrier(); }",
        "if (sh[0] == 1u) { workgroupBarrier(); }",
        "if (first(lane) == 1u) { workgroupBarrier(); }",
        "if (half(lane) == 1u) { workgroupBarrier(); }",
        "let n = group.x + lane; if (max(n, 3u) == 3u && x[0] == 1u) { workgroupBarrier(); }",
        "if (lane == 0u) { y[0] = workgroupUniformLoad(&sh[0]); }",
    ];
    for body in faults {
        let fault = lint(&kernel(helper, body)).expect_err(body);
        assert!(fault.contains("divergent"), "{body}: {fault}");
    }
    let sound = [
        "if (lane < 4u) { sh[lane] = 1u; } workgroupBarrier();",
        "if (group.x == 3u) { return; } workgroupBarrier();",
        "meet_if(group.x == 0u); meet();",
        "for (var row = group.x; row < x[0]; row += 7u) { for (var i = lane; i < 64u; i += 8u) { sh[i] = 1u; } meet(); }",
        "for (var half = 32u; half > 0u; half /= 2u) { if (lane < half) { sh[lane] += 1u; } workgroupBarrier(); }",
        "for (var i = lane; i < 9u; i++) { if (x[i] == 0u) { break; } } workgroupBarrier();",
        "if (half(group.x) == 1u) { workgroupBarrier(); } y[lane] = half(lane);",
        "y[lane] = first(lane); workgroupBarrier();",
        "if (workgroupUniformLoad(&sh[0]) == 1u) { workgroupBarrier(); }",
        "switch group.x { case 0u: { workgroupBarrier(); } default: { break; } } workgroupBarrier();",
    ];
    for body in sound {
        lint(&kernel(helper, body)).unwrap_or_else(|fault| panic!("{body}: {fault}"));
    }
}
