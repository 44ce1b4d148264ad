//! Speed of every operator, on the adapter that `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` leave.
//!
//! `cargo bench --bench ops` times the largest registry case of each op, forward and forward+backward;
//! matrix products of 256 and 512, and a Pattention of training size. Matrix products are
//! timed with every candidate of this adapter. `cargo bench --bench ops -- matmul` times what has that in its name.
//! Every case is checked against its f64 reference first; if one is wrong, nothing is timed.
//!
//! One iteration is one [`Prepared::run`]: write the inputs, clear the gradients, submit, wait. For the small
//! registry cases that round trip is most of the time, so compare those with each other only. From 256 on the
//! kernels dominate on a software driver, and `elem/s` reads as floating-point operations a second; on a fast GPU the
//! writes may still weigh more. What was tried is in `NOTES.md`.

use criterion::{Criterion, Throughput};
use std::process::ExitCode;
use std::time::Duration;
use tokenformer::config::NormActivation;
use tokenformer::error::{Error, Result};
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::gpu::device::Gpu;
use tokenformer::gpu::engine::Engine;
use tokenformer::kernel::{Candidate, KernelTable, ProductKind};
use tokenformer::ops::matmul::candidates::candidates;
use tokenformer::ops::matmul::{self, Layout};
use tokenformer::ops::pattention::{self, Settings};
use tokenformer::ops::{Case, Input, registry};
use tokenformer::runtime::check::{Prepared, check};

/// A case, and the candidates its products are timed with; `None` for the usual ones.
struct Bench {
    case: Case,
    candidates: Vec<Option<Candidate>>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run() -> Result<()> {
    let engine = Engine::new(Gpu::open(&AdapterRequest::default())?)?;
    println!("adapter: {}", engine.gpu.describe());
    let usual = KernelTable::from_environment(engine.gpu.target, &engine.gpu.info.name)?;
    let choose = |forced: &Option<Candidate>| match forced {
        Some(candidate) => KernelTable::forced(*usual.target(), *candidate),
        None => usual.clone(),
    };
    let benches = benches(&usual);
    for Bench { case, candidates } in &benches {
        candidates.iter().try_for_each(|forced| correct(&engine, case, &choose(forced)))?;
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .nresamples(1000)
        .without_plots()
        .configure_from_args();
    for Bench { case, candidates } in &benches {
        candidates.iter().try_for_each(|forced| {
            let name = forced.map_or_else(String::new, |candidate| format!("/{candidate}"));
            time(&mut criterion, &engine, case, &name, &choose(forced))
        })?;
    }
    criterion.final_summary();
    Ok(())
}

/// The largest case of each op, then the sizes that matter.
fn benches(usual: &KernelTable) -> Vec<Bench> {
    let mut largest: Vec<Case> = Vec::new();
    for case in registry() {
        match largest.iter_mut().find(|known| known.op == case.op) {
            Some(known) if size(&case) > size(known) => *known = case,
            Some(_) => {}
            None => largest.push(case),
        }
    }
    let mut benches: Vec<Bench> = largest.into_iter().map(|case| Bench { case, candidates: vec![None] }).collect();
    for (n, layout) in [256, 512].into_iter().flat_map(|n| Layout::ALL.map(|layout| (n, layout))) {
        let candidates =
            candidates(usual.target(), ProductKind { layout, size: [n; 3], half: false, pair: false }, false)
                .into_iter()
                .map(Some)
                .collect();
        benches.push(Bench { case: square(layout, n), candidates });
    }
    benches.push(Bench { case: training_pattention(), candidates: vec![None] });
    benches
}

/// Elements of all inputs.
fn size(case: &Case) -> usize {
    case.inputs.iter().map(|input| input.shape.iter().product::<usize>()).sum()
}

/// A product of two n x n matrices. Without a backward, which is two products of the other layouts.
fn square(layout: Layout, n: usize) -> Case {
    Case {
        op: "matmul",
        name: format!("{layout:?} {n}x{n}x{n}"),
        inputs: vec![Input::normal("a", &[n, n], 1.0), Input::normal("b", &[n, n], 1.0)],
        build: Box::new(move |g, t| Ok(vec![matmul::matmul(g, layout, t[0], t[1])?])),
        reference: Box::new(move |x| vec![matmul::reference(layout, [n; 3], &x[0], &x[1])]),
        nmse: 1e-9,
        gradient: false,
        ..Case::default()
    }
}

/// The feed-forward part of the `shakespeare-char` preset, for 8 of its sequences: 512 rows of width 128
/// against 512 parameter tokens.
fn training_pattention() -> Case {
    let sizes @ [rows, c_in, n, c_out] = [512, 128, 512, 128];
    let settings = Settings {
        norm: NormActivation::L2NormGelu,
        tau: (n as f64).sqrt(),
        eps: 1e-6,
        gelu_tanh: false,
        zeros_rest: false,
    };
    Case {
        op: "pattention",
        name: format!("training {rows}x{c_in}x{n}x{c_out}"),
        inputs: vec![
            Input::normal("x", &[rows, c_in], 1.0),
            Input::normal("keys", &[n, c_in], 0.1),
            Input::normal("values", &[n, c_out], 0.1),
        ],
        build: Box::new(move |g, t| {
            let tokens = pattention::Tokens { keys: t[1], values: t[2] };
            Ok(vec![pattention::pattention(g, t[0], tokens, settings)?])
        }),
        reference: Box::new(move |x| vec![pattention::reference(sizes, &settings, &x[0], &x[1], &x[2])]),
        ..Case::default()
    }
}

/// Refuses to time a wrong result.
fn correct(engine: &Engine, case: &Case, kernels: &KernelTable) -> Result<()> {
    let report = check(engine, case, kernels)?;
    if report.passed {
        return Ok(());
    }
    Err(Error::device(format!(
        "{} {} is wrong on {}: {report:?}; nothing was timed",
        case.op,
        case.name,
        engine.gpu.describe()
    )))
}

/// Times `op/case[/candidate]/forward` and, where there is one, `.../forward+backward`.
fn time(criterion: &mut Criterion, engine: &Engine, case: &Case, candidate: &str, kernels: &KernelTable) -> Result<()> {
    let mut group = criterion.benchmark_group(case.op);
    for gradient in [false, true] {
        if gradient && !case.gradient {
            continue;
        }
        let prepared = Prepared::new(engine, case, kernels, gradient)?;
        if prepared.flops > 0 {
            group.throughput(Throughput::Elements(prepared.flops));
        }
        let pass = if gradient { "forward+backward" } else { "forward" };
        let mut outcome = Ok(());
        group.bench_function(format!("{}{candidate}/{pass}", case.name), |bencher| {
            bencher.iter(|| {
                if let Err(error) = prepared.run(engine) {
                    outcome = Err(error);
                }
            });
        });
        outcome?;
    }
    group.finish();
    Ok(())
}
