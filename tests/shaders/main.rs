//! Shaders, on every back end, without a GPU: naga parses, validates and translates each entry point in each variant.
//!
//! Also holds them to the limits every WebGPU device has, to barriers in uniform control flow, to the words that Rust
//! puts into their uniform blocks, and to the form a reader may count on. Each check is shown to find planted faults.
//! What a shader computes is tested elsewhere, against references.

// clippy.toml allows these in tests, but not in the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dump;
mod generated;
mod layouts;
mod lint;
mod spirv;
mod uniformity;

use lint::{Check, lint, lint_for};
use std::collections::BTreeMap;
use tokenformer::kernel::shader::{self, Rows};
use tokenformer::kernel::{Candidate, Dtype, Fragments, Kernel, Layout, ProductKind, Target};
use tokenformer::ops::attention::{self, Generated};
use tokenformer::ops::matmul::candidates::{self, candidates};
use tokenformer::ops::matmul::parts;
use tokenformer::ops::matmul::source::{ProductForm, Types, Vectors};

/// What a file leaves open: the type of activations, and how rows are read.
const VARIANTS: [(Dtype, Rows); 4] =
    [(Dtype::F32, Rows::Scalar), (Dtype::F32, Rows::Vec4), (Dtype::F16, Rows::Scalar), (Dtype::F16, Rows::Vec4)];

const MAX_HEADER_LINES: usize = 15;

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
        for (real, rows) in VARIANTS {
            let source = shader::source_for(name, real, rows).unwrap();
            entry_points += source.matches("@compute").count();
            lint::overrides_are_known(&source)
                .and_then(|()| lint(&source))
                .unwrap_or_else(|fault| panic!("shaders/{name}: {fault}"));
        }
    }
    assert!(entry_points >= shader::FILES.len(), "only {entry_points} entry points were seen");
}

/// The matrix products are generated: every candidate of a GPU and of a software driver, in every layout.
fn generated_kernels() -> BTreeMap<&'static str, (&'static Kernel, Candidate)> {
    let gpu = Target {
        subgroup_sizes: [32; 2],
        f16: true,
        fragments: Fragments::of(|fragment| fragment.side == 16),
        workgroup_bytes: 48 * 1024,
        ..Target::WEBGPU
    };
    let apple = Target {
        subgroup_sizes: [4, 64],
        fragments: Fragments::of(|fragment| fragment.side == 8),
        workgroup_bytes: 32 * 1024,
        ..gpu
    };
    let software = Target { software: true, ..gpu };
    let mut kernels = BTreeMap::new();
    let all = [gpu, apple, software].into_iter().flat_map(|a| Layout::ALL.map(|l| (a, l)));
    for ((target, layout), half) in all.flat_map(|x| [(x, false), (x, true)]) {
        let products =
            [[64; 3], [1, 64, 64], [64, 64, 4096]].map(|size| ProductKind { layout, size, half, pair: false });
        for candidate in products.map(|product| candidates(&target, product, true)).concat() {
            let operand = if half { Dtype::F16 } else { Dtype::F32 };
            for (c, vectors) in [(Dtype::F32, Vectors::NONE), (Dtype::F32, Vectors::ALL), (operand, Vectors::ALL)] {
                let types = Types { a: operand, b: operand, c };
                let kernel = candidates::kernel(candidate, layout, types, vectors, ProductForm::Whole);
                kernels.insert(kernel.file, (kernel, candidate));
                if let (Some(candidate), true) = (candidate.paired(), vectors.b) {
                    let pair = candidates::kernel(candidate, layout, types, vectors, ProductForm::Pair);
                    kernels.insert(pair.file, (pair, candidate));
                }
                // Logits of a part of the vocabulary.
                if layout == Layout::NT {
                    let columns = candidates::kernel(candidate, layout, types, vectors, ProductForm::Columns);
                    kernels.insert(columns.file, (columns, candidate));
                }
            }
        }
    }
    assert!(kernels.len() > 150, "only {} kernels", kernels.len());
    kernels
}

#[test]
fn every_generated_shader_is_valid_and_translates() {
    for (name, (kernel, candidate)) in generated_kernels() {
        // What a candidate says it needs is what keeps it from devices that have less.
        let most = candidate.workgroup_bytes().max(1);
        let cooperative = matches!(candidate, Candidate::Cooperative { .. });
        lint_for(kernel.text.expect(name), most, cooperative).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}

/// The kernels of attention that are generated, of every head width that has its own: on GPUs with matrix units and
/// without, without subgroups, and on a software driver.
fn attention() -> BTreeMap<&'static str, Generated> {
    let least = Target { f16: true, ..Target::WEBGPU };
    let lanes = Target { subgroup_sizes: [32; 2], workgroup_bytes: 32 * 1024, ..least };
    let nvidia = Target {
        fragments: Fragments::of(|f| f.side == 16),
        subgroup_barrier: true,
        workgroup_bytes: 48 * 1024,
        ..lanes
    };
    let apple = Target { fragments: Fragments::of(|f| f.side == 8), ..lanes };
    let software = Target { software: true, subgroup_sizes: [8; 2], ..nvidia };
    let matrices = Target { fragments: Fragments::of(|f| f.side == 8), ..software };
    // Drivers that choose the size of subgroups: RADV, one with few invocations, Apple's.
    let radv = Target { subgroup_sizes: [32, 64], ..nvidia };
    let few = Target { subgroup_sizes: [64; 2], invocations: 128, ..nvidia };
    let any_apple = Target { subgroup_sizes: [4, 64], ..apple };
    let all = [least, lanes, nvidia, apple, software, matrices, radv, few, any_apple];
    let kernels = all.iter().flat_map(attention::kernels);
    let kernels: BTreeMap<_, _> = kernels.map(|kernel| (kernel.kernel().file, kernel)).collect();
    let cooperative = kernels.values().filter(|kernel| matches!(kernel, Generated::Cooperative(_))).count();
    assert!(kernels.len() > 150 && cooperative > 40, "{} kernels, {cooperative} cooperative", kernels.len());
    kernels
}

#[test]
fn every_attention_is_valid_and_translates() {
    for (name, generated) in attention() {
        let cooperative = matches!(generated, Generated::Cooperative(_));
        let text = generated.kernel().text.expect(name);
        lint_for(text, generated.workgroup_bytes(), cooperative).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        // What every WebGPU device has is enough for all but matrix units.
        let shared = generated.workgroup_bytes();
        assert!(cooperative || shared <= 32 * 1024, "{name}: {shared} bytes of workgroup memory");
    }
    for generated in attention::kernels(&Target::WEBGPU) {
        assert!(generated.workgroup_bytes() <= 16 * 1024, "{}", generated.kernel().file);
    }
}

#[test]
fn the_sums_of_parts_are_valid_and_translate() {
    for (dtype, vectors) in [Dtype::F32, Dtype::F16].into_iter().flat_map(|d| [(d, false), (d, true)]) {
        let kernel = parts::kernel(dtype, vectors);
        lint(kernel.text.unwrap()).unwrap_or_else(|fault| panic!("{}: {fault}", kernel.file));
    }
}

#[test]
fn every_file_on_disk_is_compiled_in() {
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders")).unwrap() {
        let file = file.unwrap();
        // The texts that are generated have a folder.
        if file.file_type().unwrap().is_dir() {
            continue;
        }
        let name = file.file_name().into_string().unwrap();
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

    let local = |words: usize| kernel("", &format!("var a: array<u32, {words}>; a[lane] = 1u; y[lane] = a[x[lane]];"));
    lint(&local(1024)).unwrap();
    caught(&local(1025), "uses 4100 bytes of private memory");
    let private = "var<private> p: array<u32, 1000>; fn f() -> u32 { var a: array<u32, 100>; return a[p[0]]; }";
    caught(&kernel(private, "y[lane] = f();"), "uses 4400 bytes of private memory");

    lint::overrides_are_known(&kernel("override LANES: u32; override FLAG: bool;", "")).unwrap();
    lint::overrides_are_known(&kernel("override LINES: u32 = 1u;", "")).expect_err("an override of unknown values");
    // Only 8 lanes make this workgroup too large.
    let by_lanes = "override LANES: u32 = 64u; override N: u32 = 40000u / LANES; var<workgroup> big: array<u32, N>;";
    caught(&kernel(by_lanes, "big[lane] = 1u;"), "uses 20000 bytes of workgroup memory");
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
        "if (lane < 4u) { y[lane] = subgroupAdd(lane); }",
        "for (var i = lane; i < 64u; i += 8u) { y[i] = subgroupBroadcast(i, 0u); }",
        "if (x[lane] == 0u) { return; } y[lane] = subgroupBallot(true).x;",
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
        "let sum = subgroupAdd(lane); if (lane < 4u) { y[lane] = sum; }",
    ];
    for body in sound {
        lint(&kernel(helper, body)).unwrap_or_else(|fault| panic!("{body}: {fault}"));
    }
}
