//! Every case of the registry on the default adapter: f64 reference, gradients against finite differences,
//! guard words behind every tensor. As software adapters run them and as GPUs do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::engine;
use std::collections::{BTreeMap, BTreeSet};
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::gpu::choices::{Ability, Candidate, Choices, Layout, ProductKind};
use tokenformer::gpu::device::{Gpu, webgpu_limits};
use tokenformer::gpu::engine::Engine;
use tokenformer::gpu::kernel::Dtype;
use tokenformer::ops::check::{Prepared, check, check_in, normalised_error};
use tokenformer::ops::matmul::candidates::candidates;
use tokenformer::ops::matmul::trial::error_of;
use tokenformer::ops::{Case, mixed_registry, registry};

fn failures(engine: &Engine, choices: &Choices, cases: Vec<Case>) -> Vec<String> {
    let mut failures = Vec::new();
    for case in cases {
        let report = check(engine, &case, choices).unwrap();
        if !report.passed {
            failures.push(format!("{} {}: {report:?}", case.op, case.name));
        }
    }
    failures
}

#[test]
fn every_case_matches_its_reference() {
    let failed = failures(engine(), &engine().choices(), registry());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What a GPU runs: matrix products from workgroup memory, 64 lanes a row, within the limits that every
/// WebGPU device offers.
#[test]
fn the_kernels_for_gpus_match_too() {
    let mut gpu = Gpu::open_with_limits(&AdapterRequest::default(), webgpu_limits).unwrap();
    gpu.software = false;
    let engine = Engine::new(gpu).unwrap();
    let failed = failures(&engine, &engine.choices(), registry());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What multiplies matrices, with every kernel this device can run forced in turn, GPU kernels included.
#[test]
fn every_candidate_matches_and_gives_the_same_bits() {
    let software = Ability::of(&engine().gpu);
    let gpu = Ability { software: false, ..software };
    let mut seen: BTreeSet<Candidate> = BTreeSet::new();
    let mut bits: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (ability, layout) in [software, gpu].into_iter().flat_map(|a| Layout::ALL.map(|l| (a, l))) {
        for size in [[64; 3], [1, 64, 64], [64, 64, 4096]] {
            seen.extend(candidates(&ability, ProductKind { layout, size, half: false }, true));
        }
    }
    assert!(seen.len() > 15, "only {} candidates", seen.len());
    // A software driver takes up to 7 s to compile a kernel of a large block; tests/products.rs computes with those.
    let is_soon_compiled =
        |c: &Candidate| !matches!(c, Candidate::Tiles { thread: [rows, columns], .. } if rows * columns > 32);
    for candidate in seen.into_iter().filter(|c| !software.software || is_soon_compiled(c)) {
        let choices = Choices::forced(software, candidate);
        let products = || registry().into_iter().filter(|c| ["matmul", "linear", "pattention"].contains(&c.op));
        let failed = failures(engine(), &choices, products().collect());
        assert!(failed.is_empty(), "{candidate}: {}", failed.join("\n"));
        for case in products().filter(|c| c.op == "matmul" && candidate.keeps_order()) {
            let prepared = Prepared::new(engine(), &case, &choices, true).unwrap();
            prepared.run(engine()).unwrap();
            let found = prepared.bits(engine()).unwrap();
            let first = bits.entry(case.name.clone()).or_insert_with(|| found.clone());
            assert!(*first == found, "{candidate} gives other bits in {}", case.name);
        }
    }
}

/// Mixed precision: activations in f16, everything else in f32, against the same references at tolerances of its own.
#[test]
fn every_case_matches_its_reference_in_f16() {
    let choices = engine().choices();
    if !choices.ability().half {
        println!("{} has no f16: nothing to check", engine().gpu.describe());
        return;
    }
    let mut failed = Vec::new();
    for case in mixed_registry() {
        let report = check_in(engine(), &case, &choices, Dtype::F16).unwrap();
        println!("{} {}: {:.1e} {:.1e}", case.op, case.name, report.nmse, report.gradient_error.unwrap_or(0.0));
        if !report.passed {
            failed.push(format!("{} {}: {report:?}", case.op, case.name));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Operands in f16, with every candidate there is for them, matrix units included where the adapter has them.
#[test]
fn every_candidate_multiplies_f16() {
    let ability = Ability::of(&engine().gpu);
    if !ability.half {
        println!("{} has no f16: nothing to check", engine().gpu.describe());
        return;
    }
    let mut checked = BTreeSet::new();
    for ability in [ability, Ability { software: false, ..ability }] {
        for (layout, size) in Layout::ALL.into_iter().flat_map(|l| [[64; 3], [70, 131, 45], [1, 9, 3]].map(|s| (l, s)))
        {
            let product = ProductKind { layout, size, half: true };
            for candidate in candidates(&ability, product, true) {
                let emulated = engine().gpu.software && matches!(candidate, Candidate::Cooperative { .. });
                if emulated && candidate.block().iter().product::<usize>() > 64 * 32 {
                    // A software driver takes minutes to compile the large ones; they differ in numbers only.
                    continue;
                }
                let error = error_of(engine(), product, candidate).unwrap();
                // The operands are exact and the sums are f32.
                assert!(error < 1e-12, "{candidate} {product:?}: {error}");
                checked.insert(candidate);
            }
        }
    }
    println!(
        "{} candidates: {}",
        checked.len(),
        checked.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    );
}

/// The check itself must be able to fail: a wrong reference, a wrong gradient, a write past the end.
#[test]
fn planted_faults_are_found() {
    let gelu = || registry().into_iter().find(|c| c.op == "gelu" && c.name == "255").unwrap();
    let wrong_value = Case { reference: Box::new(|x| vec![x[0].iter().map(|v| v * 0.5).collect()]), ..gelu() };
    assert!(!check(engine(), &wrong_value, &engine().choices()).unwrap().passed);

    // Right outputs, but the recorded backward belongs to the tanh form.
    let wrong_gradient =
        Case { build: Box::new(|g, t| Ok(vec![tokenformer::ops::gelu::gelu(g, t[0], true)?])), nmse: 1.0, ..gelu() };
    let report = check(engine(), &wrong_gradient, &engine().choices()).unwrap();
    assert!(!report.passed && report.gradient_error.unwrap() > 1e-5, "{report:?}");

    // A cache whose capacity is said to be larger than the tensor is.
    let mut overrun = registry().into_iter().find(|c| c.op == "linear").unwrap();
    overrun.build = Box::new(|g, t| {
        let y = g.activation("short", &[1, 1]);
        let product = tokenformer::ops::matmul::Product::new(Layout::NT, [1, 9, 1]);
        product.record(g, t[0], t[1], y)?;
        Ok(vec![y])
    });
    overrun.gradient = false;
    let report = check(engine(), &overrun, &engine().choices()).unwrap();
    assert!(!report.guards_intact && !report.passed, "{report:?}");
}

#[test]
fn the_same_bits_every_time() {
    for op in ["matmul", "pattention", "attention", "layer_norm", "embedding", "cross_entropy", "grad_norm"] {
        let case = registry().into_iter().rfind(|c| c.op == op).unwrap();
        let prepared = Prepared::new(engine(), &case, &engine().choices(), true).unwrap();
        let runs: Vec<Vec<u32>> = (0..5)
            .map(|_| {
                prepared.run(engine()).unwrap();
                prepared.bits(engine()).unwrap()
            })
            .collect();
        assert!(!runs[0].is_empty() && runs.iter().all(|r| *r == runs[0]), "{op}");
    }
}

#[test]
fn errors_do_not_hide_in_an_average() {
    assert_eq!(normalised_error(&[f64::NAN], &[1.0]), f64::INFINITY);
    assert_eq!(normalised_error(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    assert!((normalised_error(&[1.0, 2.2], &[1.0, 2.0]) - 0.008).abs() < 1e-12);
}
