//! Every case of the registry on the default adapter: f64 reference, gradients against finite differences,
//! guard words behind every tensor. As software adapters run them and as GPUs do.
//!
//! A trial is called `op/case`, and `op/case@schedule` where other kernels than this adapter's run it, so
//! `cargo test --test ops attention` runs one operator, `attention/2x17` one case, `@gpu` one schedule.
//! Tests of another kind are functions, listed in `main`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{compiles_slowly, device, engine, is_full, kernels};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::OnceLock;
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::gpu::device::{Gpu, webgpu_limits};
use tokenformer::gpu::engine::Engine;
use tokenformer::graph::ElementwiseDims;
use tokenformer::kernel::{Access, Candidate, Dtype, Kernel, KernelTable, Layout, ProductKind, Target};
use tokenformer::ops::matmul::candidates::candidates;
use tokenformer::ops::{Case, Input, mixed_registry, registry};
use tokenformer::runtime::check::{Prepared, check, check_in, normalised_error};
use tokenformer::runtime::device::Device;
use tokenformer::runtime::overflow;
use tokenformer::tune::trial::error_of;

static COPY: Kernel = Kernel::new("elementwise.wgsl", "copy", &[Access::Read, Access::Write]);

fn main() -> ExitCode {
    // Names the functions as trials.
    macro_rules! functions {
        ($($name:ident),* $(,)?) => {
            [$((stringify!($name), $name as fn())),*]
        };
    }
    let functions = functions![
        every_candidate_matches_and_gives_the_same_bits,
        every_candidate_multiplies_f16,
        an_overflow_to_f16_gives_infinity,
        planted_faults_are_found,
        the_same_bits_every_time,
        errors_do_not_hide_in_an_average,
        every_function_is_a_trial,
    ];
    let function = |(name, run): (&str, fn())| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = SCHEDULES.iter().flat_map(AttentionSchedule::trials).collect();
    trials.extend(functions.into_iter().map(function));
    let mut arguments = Arguments::from_args();
    if engine().gpu.info.backend == wgpu::Backend::Gl {
        // GL has one context, and wgpu panics where a thread waits for it while another compiles for seconds.
        arguments.test_threads = Some(1);
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Kernels that every case is held against its reference with.
struct AttentionSchedule {
    /// Behind the name of a case.
    suffix: &'static str,
    device: fn() -> &'static Device,
    cases: fn() -> Vec<Case>,
    /// Of the activations.
    precision: Dtype,
}

const SCHEDULES: [AttentionSchedule; 4] = [
    // What this adapter runs.
    AttentionSchedule { suffix: "", device, cases: registry, precision: Dtype::F32 },
    AttentionSchedule { suffix: "@gpu", device: gpu, cases: registry, precision: Dtype::F32 },
    // Mixed precision: activations in f16, everything else in f32, against the same references at tolerances of its own.
    AttentionSchedule { suffix: "@f16", device, cases: mixed_registry, precision: Dtype::F16 },
    AttentionSchedule { suffix: "@gpu-f16", device: gpu, cases: mixed_registry, precision: Dtype::F16 },
];

/// What a GPU runs, within the limits that every WebGPU device offers.
fn gpu() -> &'static Device {
    static ENGINE: OnceLock<Device> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut gpu =
            Gpu::open_with_limits(&AdapterRequest::default(), webgpu_limits).expect("these tests need an adapter");
        gpu.target.software = false;
        Device::new(gpu).expect("a device")
    })
}

impl AttentionSchedule {
    fn trials(&'static self) -> impl Iterator<Item = Trial> {
        (self.cases)().into_iter().map(move |case| {
            let name = format!("{}/{}{}", case.op, case.name, self.suffix);
            Trial::ignorable_test(name, move || self.holds(&case))
        })
    }

    fn holds(&self, case: &Case) -> Result<Completion, Failed> {
        let Device { engine, kernels, .. } = (self.device)();
        if self.precision == Dtype::F16 && !kernels.target().f16 {
            return Ok(Completion::ignored_with(format!("{} has no f16", engine.gpu.describe())));
        }
        let report = check_in(engine, case, kernels, self.precision)?;
        if report.passed { Ok(Completion::Completed) } else { Err(format!("{report:?}").into()) }
    }
}

fn failures(engine: &Engine, kernels: &KernelTable, cases: Vec<Case>) -> Vec<String> {
    let mut failures = Vec::new();
    for case in cases {
        let report = check(engine, &case, kernels).unwrap();
        if !report.passed {
            failures.push(format!("{} {}: {report:?}", case.op, case.name));
        }
    }
    failures
}

/// What multiplies matrices, with every kernel this device can run forced in turn, GPU kernels included.
fn every_candidate_matches_and_gives_the_same_bits() {
    let software = engine().gpu.target;
    let gpu = Target { software: false, ..software };
    let mut seen: BTreeSet<Candidate> = BTreeSet::new();
    let mut bits: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (target, layout) in [software, gpu].into_iter().flat_map(|a| Layout::ALL.map(|l| (a, l))) {
        for size in [[64; 3], [1, 64, 64], [64, 64, 4096]] {
            seen.extend(candidates(&target, ProductKind { layout, size, half: false, pair: false }, true));
        }
    }
    // At the least what every device runs, and what this one runs where nothing was measured.
    let mut least: BTreeSet<Candidate> = BTreeSet::new();
    for (layout, size) in Layout::ALL.into_iter().flat_map(|l| [[64; 3], [64, 64, 4096]].map(|s| (l, s))) {
        least.extend(candidates(&Target::WEBGPU, ProductKind { layout, size, half: false, pair: false }, true));
    }
    assert!(least.len() >= 8 && least.iter().any(|c| c.chunk() > 0), "{least:?}");
    let of = |size| ProductKind { layout: Layout::NN, size, half: false, pair: false };
    least.extend(
        [software, gpu].into_iter().flat_map(|a| [[1, 64, 64], [64; 3]].map(|size| a.default_candidate(of(size)))),
    );
    let missing: Vec<&Candidate> = least.difference(&seen).collect();
    assert!(missing.is_empty(), "never run: {missing:?}");
    // A software driver takes up to 7 s to compile a kernel of a large block; tests/products.rs computes with those.
    let is_soon_compiled =
        |c: &Candidate| !matches!(c, Candidate::Tiles { thread: [rows, columns], .. } if rows * columns > 32);
    // In the short form, sizes in whole vectors and sizes past every edge, on a software driver for GPUs' candidates in turn:
    // nearly all of the time goes into compiling.
    let full = is_full();
    let sizes = [" 8x64x16", " 65x131x33"];
    for (i, candidate) in seen.into_iter().filter(|c| !software.software || is_soon_compiled(c)).enumerate() {
        let kernels = KernelTable::forced(software, candidate);
        let in_turn = compiles_slowly() && !matches!(candidate, Candidate::Lanes { .. });
        let sizes = if in_turn { &sizes[i % 2..=i % 2] } else { &sizes };
        let is_tried = |c: &Case| {
            let at_an_edge = c.op == "matmul" && sizes.iter().any(|size| c.name.ends_with(size));
            at_an_edge || full && ["matmul", "linear", "pattention"].contains(&c.op)
        };
        let products = || registry().into_iter().filter(is_tried);
        let failed = failures(engine(), &kernels, products().collect());
        assert!(failed.is_empty(), "{candidate}: {}", failed.join("\n"));
        for case in products().filter(|c| c.op == "matmul" && candidate.keeps_order()) {
            let prepared = Prepared::new(engine(), &case, &kernels, true).unwrap();
            prepared.run(engine()).unwrap();
            let found = prepared.bits(engine()).unwrap();
            let first = bits.entry(case.name.clone()).or_insert_with(|| found.clone());
            assert!(*first == found, "{candidate} gives other bits in {}", case.name);
        }
    }
}

/// What mixed precision needs to see an overflow; `tokenformer selftest` refuses f16 without it.
fn an_overflow_to_f16_gives_infinity() {
    if engine().gpu.target.f16 {
        overflow::check(device()).unwrap();
    } else {
        println!("{} has no f16: nothing to check", engine().gpu.describe());
    }
}

/// Holds every candidate for operands in f16 in one layout against sums in f64; those that were.
fn multiply_f16(target: &Target, layout: Layout) -> Vec<Candidate> {
    let full = is_full();
    let mut checked = Vec::new();
    for size in [[64; 3], [70, 131, 45], [1, 9, 3]] {
        let product = ProductKind { layout, size, half: true, pair: false };
        for (i, candidate) in candidates(target, product, true).into_iter().enumerate() {
            // On a software driver each in one layout, in turn: as above.
            if compiles_slowly() && Layout::ALL[i % Layout::ALL.len()] != layout {
                continue;
            }
            let large = match candidate {
                Candidate::Cooperative { .. } => candidate.block().iter().product::<usize>() > 64 * 32,
                Candidate::Tiles { thread: [rows, columns], .. } => !full && rows * columns > 32,
                Candidate::Lanes { .. } => false,
            };
            if engine().gpu.target.software && large {
                // A software driver takes seconds to minutes to compile the large ones; they differ in numbers only.
                continue;
            }
            let error = error_of(engine(), product, candidate).unwrap();
            // The operands are exact and the sums are f32.
            assert!(error < 1e-12, "{candidate} {product:?}: {error}");
            checked.push(candidate);
        }
    }
    checked
}

/// Operands in f16, with every candidate there is for them, matrix units included where the adapter has them.
fn every_candidate_multiplies_f16() {
    let target = engine().gpu.target;
    if !target.f16 {
        println!("{} has no f16: nothing to check", engine().gpu.describe());
        return;
    }
    let of_layout = |layout| {
        // What a software adapter runs, and what it would run if it were a GPU.
        let software = if target.software { multiply_f16(&target, layout) } else { Vec::new() };
        software.into_iter().chain(multiply_f16(&Target { software: false, ..target }, layout)).collect::<Vec<_>>()
    };
    let checked: BTreeSet<Candidate> = if target.software {
        Layout::ALL.into_iter().flat_map(of_layout).collect()
    } else {
        // A GPU's driver compiles some hundred kernels, half a second each.
        std::thread::scope(|scope| {
            let threads = Layout::ALL.map(|layout| scope.spawn(move || of_layout(layout)));
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    };
    println!(
        "{} candidates: {}",
        checked.len(),
        checked.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    );
}

/// The check itself must be able to fail: a wrong reference, a wrong gradient, a write past the end.
fn planted_faults_are_found() {
    let gelu = || registry().into_iter().find(|c| c.op == "gelu" && c.name == "255").unwrap();
    let wrong_value = Case { reference: Box::new(|x| vec![x[0].iter().map(|v| v * 0.5).collect()]), ..gelu() };
    assert!(!check(engine(), &wrong_value, kernels()).unwrap().passed);

    // Right outputs, but the recorded backward belongs to the tanh form.
    let wrong_gradient =
        Case { build: Box::new(|g, t| Ok(vec![tokenformer::ops::gelu::gelu(g, t[0], true)?])), nmse: 1.0, ..gelu() };
    let report = check(engine(), &wrong_gradient, kernels()).unwrap();
    assert!(!report.passed && report.gradient_error.unwrap() > 1e-5, "{report:?}");

    // A copy of more elements than the tensor has.
    let overrun = Case {
        inputs: vec![Input::normal("x", &[9], 1.0)],
        build: Box::new(|g, t| {
            let y = g.activation("short", &[1]);
            g.call(&COPY).bind(&[t[0], y]).parameters(ElementwiseDims::of(9)).record()?;
            Ok(vec![y])
        }),
        reference: Box::new(|x| vec![x[0][..1].to_vec()]),
        gradient: false,
        ..Case::default()
    };
    let report = check(engine(), &overrun, kernels()).unwrap();
    assert!(!report.guards_intact && !report.passed, "{report:?}");
}

fn the_same_bits_every_time() {
    for op in ["matmul", "pattention", "attention", "layer_norm", "embedding", "cross_entropy", "grad_norm"] {
        let case = registry().into_iter().rfind(|c| c.op == op).unwrap();
        let prepared = Prepared::new(engine(), &case, kernels(), true).unwrap();
        let runs: Vec<Vec<u32>> = (0..5)
            .map(|_| {
                prepared.run(engine()).unwrap();
                prepared.bits(engine()).unwrap()
            })
            .collect();
        assert!(!runs[0].is_empty() && runs.iter().all(|r| *r == runs[0]), "{op}");
    }
}

fn errors_do_not_hide_in_an_average() {
    assert_eq!(normalised_error(&[f64::NAN], &[1.0]), f64::INFINITY);
    assert_eq!(normalised_error(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    assert!((normalised_error(&[1.0, 2.2], &[1.0, 2.0]) - 0.008).abs() < 1e-12);
}

/// A function that `main` does not list, or a name that two trials share, would be a test that nobody runs.
fn every_function_is_a_trial() {
    let mut names: Vec<String> = Vec::new();
    let text = include_str!("ops.rs");
    let listed = text.split_once("functions![\n").and_then(|(_, rest)| rest.split_once("];")).unwrap().0;
    for line in text.lines().filter(|line| line.starts_with("fn ") && line.ends_with("() {")) {
        let name = line.trim_start_matches("fn ").trim_end_matches("() {");
        assert!(listed.contains(&format!(" {name},")), "{name} is not in the list of main");
        names.push(name.to_owned());
    }
    assert!(names.len() > 5, "{names:?}");
    names.extend(SCHEDULES.iter().flat_map(AttentionSchedule::trials).map(|trial| trial.name().to_owned()));
    let unique: BTreeSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}
