//! At the limits of devices: the most workgroups and bytes that may be, and no checks but our own.
//!
//! The cases of more than 65 535 workgroups have up to 17 million elements, and their references and finite differences
//! are computed on the host: they have all cores, several cases at a time.
//!
//! The whole suite at the least that WebGPU guarantees is `TOKENFORMER_DEVICE=webgpu cargo test --release`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Mutex;
use std::time::Instant;
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::gpu::device::Gpu;
use tokenformer::gpu::engine::Engine;
use tokenformer::graph::ElementwiseDims;
use tokenformer::graph::plan::Plan;
use tokenformer::graph::{Class, Graph};
use tokenformer::kernel::{Access, Kernel, KernelTable};
use tokenformer::ops::add::add;
use tokenformer::ops::{Case, Input, large_registry, registry};
use tokenformer::runtime::check::{Prepared, check};
use tokenformer::runtime::memory::Memory;

fn engine() -> Engine {
    Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap()
}

/// The bits of every case of the registry, forward and backward; nothing may be written behind a tensor.
fn kernels(engine: &Engine) -> KernelTable {
    KernelTable::from_environment(engine.gpu.target, &engine.gpu.info.name).unwrap()
}

fn bits(engine: &Engine) -> Vec<(String, Vec<u32>)> {
    let one = |case: &Case| {
        let prepared = Prepared::new(engine, case, &kernels(engine), true).unwrap();
        prepared.run(engine).unwrap();
        assert!(prepared.guards_intact(engine).unwrap(), "{} {} writes outside a tensor", case.op, case.name);
        (format!("{} {}", case.op, case.name), prepared.bits(engine).unwrap())
    };
    registry().iter().map(one).collect()
}

/// What reads outside a tensor, or relies on being stopped, meets poison and guard words without the checks, and gives
/// other numbers. A compiler of a GPU may contract a product and a sum in one of the two texts and not in the other, which
/// rounds otherwise; on software drivers the bits are the same.
#[test]
fn kernels_need_no_checks() {
    let [expected, trusted] = [true, false].map(|checked| bits(&engine().with_checks(checked)));
    assert!(expected.len() > 80, "{} cases", expected.len());
    let software = engine().gpu.target.software;
    for ((name, with), (_, without)) in expected.iter().zip(&trusted) {
        assert_eq!(with.len(), without.len(), "{name}");
        let [with, without] = [with, without].map(|bits| bits.iter().copied().map(f32::from_bits).collect::<Vec<_>>());
        let differ = with.iter().zip(&without).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        if differ == 0 {
            continue;
        }
        let size = (with.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / with.len() as f64).sqrt();
        let apart = with.iter().zip(&without).map(|(a, b)| f64::from(a - b).abs()).max_by(f64::total_cmp).unwrap();
        println!("{name}: {differ} of {} differ, by at most {apart:e} where the RMS is {size:e}", with.len());
        assert!(!software, "{name}: other bits without checks");
        // NaN comes last in that order, and is within nothing.
        assert!(apart <= CONTRACTION * size, "{name}: other numbers without checks");
    }
}

/// What another rounding of some products and sums may change, as a share of the RMS of all results of a case.
const CONTRACTION: f64 = 1e-5;

/// The guard words themselves: a copy of nine elements into a tensor of one is seen, with checks and without.
#[test]
fn guard_words_find_what_is_written_behind_a_tensor() {
    static COPY: Kernel = Kernel::new("elementwise.wgsl", "copy", &[Access::Read, Access::Write]);
    for checked in [true, false] {
        let engine = engine().with_checks(checked);
        for (count, inside) in [(1, true), (9, false)] {
            let case = Case {
                inputs: vec![Input::normal("x", &[9], 1.0)],
                build: Box::new(move |g, t| {
                    let y = g.activation("y", &[1]);
                    g.call(&COPY).bind(&[t[0], y]).parameters(ElementwiseDims::of(count)).record()?;
                    Ok(vec![y])
                }),
                gradient: false,
                ..Case::default()
            };
            let prepared = Prepared::new(&engine, &case, &kernels(&engine), false).unwrap();
            prepared.run(&engine).unwrap();
            assert_eq!(prepared.guards_intact(&engine).unwrap(), inside, "checked: {checked}, {count} elements");
        }
    }
}

/// As past 65 535 workgroups, but in every case: few workgroups stride over all of the work. A gradient norm is summed in
/// one part a workgroup, at most 2048 of them, so there the number counts.
#[test]
fn the_number_of_workgroups_changes_no_bit() {
    let expected = bits(&engine());
    for most in [1, 3] {
        for ((name, few), (_, many)) in bits(&engine().with_most_groups(most)).iter().zip(&expected) {
            assert!(few == many || name.starts_with("grad_norm"), "{name} with {most} workgroups");
        }
    }
}

#[test]
fn more_work_than_65535_workgroups() {
    let engine = engine();
    let (failed, waiting) = (Mutex::new(Vec::new()), Mutex::new(large_registry().into_iter()));
    let next = || waiting.lock().unwrap().next();
    let work = || {
        while let Some(case) = next() {
            let start = Instant::now();
            let report = check(&engine, &case, &kernels(&engine)).unwrap();
            println!("{} {}, {:.1} s: {report:?}", case.op, case.name, start.elapsed().as_secs_f64());
            if !report.passed {
                failed.lock().unwrap().push(format!("{} {}: {report:?}", case.op, case.name));
            }
        }
    };
    // Each case takes up to 1.5 GB of host memory.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The largest tensor that fits a binding of 128 MiB is computed to its last element; one element more is refused before
/// anything is allocated.
#[test]
fn tensors_around_the_binding_of_128_mib() {
    let gpu = Gpu::open_with_limits(&AdapterRequest::default(), |mut limits| {
        limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(128 << 20);
        limits
    });
    let engine = Engine::new(gpu.unwrap()).unwrap();
    let largest = (128 << 20) / 4;
    let plan = |n: usize| {
        let mut g = Graph::forward_only(&kernels(&engine));
        let [a, b] = ["a", "b"].map(|name| g.tensor(name, &[n], Class::State));
        let y = add(&mut g, a, b).unwrap();
        g.keep(y, "y");
        Plan::new(&g)
    };
    let refused = plan(largest + 1).err().unwrap().to_string();
    assert!(refused.contains("\"a\" needs 134.2 MB in one binding, this device allows 134.2 MB"), "{refused}");
    assert_eq!(engine.allocated(), self::engine().allocated(), "nothing was allocated for it");

    let plan = plan(largest).unwrap();
    let (memory, programs) = Memory::allocate(&engine, &[&plan]).unwrap();
    let a: Vec<f32> = (0..largest).map(|i| (i % 1021) as f32).collect();
    let b: Vec<f32> = (0..largest).map(|i| (i % 8191) as f32).collect();
    engine.write_all(memory.named("a").unwrap(), &a).unwrap();
    engine.write_all(memory.named("b").unwrap(), &b).unwrap();
    engine.run(&programs[0]).unwrap();
    let y = engine.read(memory.named("y").unwrap()).unwrap();
    let wrong = (0..largest).find(|&i| y[i] != a[i] + b[i]);
    assert_eq!((y.len(), wrong), (largest, None));
}
