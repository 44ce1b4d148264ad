//! At the limits of devices: the most workgroups and bytes that may be, and no checks but our own.
//!
//! The cases of more than 65 535 workgroups have up to 17 million elements, and their references and finite differences
//! are computed on the host: they have all cores, several cases at a time.
//!
//! The whole suite at the least that WebGPU guarantees is `TOKENFORMER_DEVICE=webgpu cargo test --release`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Mutex;
use std::time::Instant;
use tokenformer::config::{GrowthConfig, ModelConfig, Precision, TrainConfig};
use tokenformer::data::Batch;
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::gpu::device::Gpu;
use tokenformer::gpu::engine::Engine;
use tokenformer::graph::ElementwiseDims;
use tokenformer::graph::plan::Plan;
use tokenformer::graph::{Class, Graph, TensorInfo};
use tokenformer::kernel::{Access, Candidate, Kernel, KernelTable, Target};
use tokenformer::model::init::Tensors;
use tokenformer::model::sample::Sampling;
use tokenformer::model::{grow, init};
use tokenformer::ops::add::add;
use tokenformer::ops::{Case, Input, large_registry, registry};
use tokenformer::runtime::check::{Prepared, check};
use tokenformer::runtime::memory::Memory;
use tokenformer::train::cohorts;
use tokenformer::train::trainer::{RunPlans, Trainer};

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

/// The numbers of a run, each with a name: steps, what they leave behind, generation, a growth, and steps after it.
fn run_of_a_large_vocabulary(
    engine: &Engine,
    kernels: &KernelTable,
    model: &ModelConfig,
    precision: Precision,
) -> Vec<(String, Vec<u32>)> {
    // Two micro-batches of two chunks of logits, and a norm that clips.
    let train = TrainConfig {
        batch_size: 2,
        total_batch_tokens: 4 * model.seq_length,
        loss_chunk_rows: 4,
        grad_clip: 1e-3,
        precision,
        ..TrainConfig::default()
    };
    let mut told: Vec<(String, Vec<u32>)> = Vec::new();
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let steps = |trainer: &Trainer, from: u64, told: &mut Vec<(String, Vec<u32>)>| {
        for step in from..2 + from / 2 {
            let token = |i: u64| (i * i * 7919 + 31 * i + step * 977) as u32 % model.vocab_size as u32;
            let batch = |micro: u64| {
                let tokens: Vec<u32> = (0..2 * model.seq_length as u64).map(|i| token(i + 100 * micro)).collect();
                Batch { targets: tokens.iter().map(|t| (t + 30_011) % model.vocab_size as u32).collect(), tokens }
            };
            let batches = [batch(0), batch(1)];
            let stats = trainer.step(&batches, step, 1e-2).unwrap();
            assert!(stats.finite && stats.grad_norm > 2e-3, "{stats:?}");
            told.push((format!("loss and norm of step {step}"), bits(&[stats.loss, stats.grad_norm])));
            let loss = trainer.evaluate(&batches).unwrap().to_bits();
            told.push((format!("evaluation after {step}"), vec![(loss >> 32) as u32, loss as u32]));
        }
        let [first, second] = trainer.moments().unwrap();
        for (of, tensors) in [
            ("parameter", trainer.parameters().unwrap()),
            ("m", first),
            ("v", second),
            ("d", trainer.gradients().unwrap()),
        ] {
            told.extend(tensors.iter().map(|(name, x)| (format!("{of} {name} after {from}"), bits(&x.data))));
        }
        let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 3 };
        told.push((format!("tokens after {from}"), trainer.sample(&[5], 6, &sampling).unwrap()));
    };
    let new = |model: &ModelConfig, cohorts: Vec<cohorts::Cohort>, params: &Tensors, [m, v]: [&Tensors; 2]| {
        let trainer = Trainer::new(engine, kernels, model, &train, cohorts, 1).unwrap();
        trainer.load_parameters(params).unwrap();
        trainer.load_moments(m, v).unwrap();
        trainer
    };
    let zero: Tensors = init::initial(model, 3)
        .into_iter()
        .map(|(name, mut x)| {
            (name, {
                x.data.fill(0.0);
                x
            })
        })
        .collect();
    let trainer = new(model, vec![cohorts::first(model)], &init::initial(model, 3), [&zero, &zero]);
    steps(&trainer, 0, &mut told);
    let window: Vec<u32> = (0..model.seq_length as u32).map(|i| i * 6007 % model.vocab_size as u32).collect();
    let before = trainer.logits(&window).unwrap();

    let growth = GrowthConfig { ffn_slot_num: Some(model.ffn_slot_num + 12), ..GrowthConfig::default() };
    let after = growth.check(model).unwrap();
    let params = grow::parameters(&trainer.parameters().unwrap(), model, &after, &growth.resolve(), 1);
    let [m, v] = trainer.moments().unwrap();
    let [m, v] = [m, v].map(|moments| grow::moments(&moments, &after));
    let grown = cohorts::grown(&trainer.cohorts, [model, &after], &growth.resolve(), 2);
    drop(trainer);
    let trainer = new(&after, grown, &params, [&m, &v]);
    let logits = trainer.logits(&window).unwrap();
    assert_eq!(bits(&before), bits(&logits), "a growth changed logits");
    told.push(("logits".to_owned(), bits(&logits)));
    steps(&trainer, 2, &mut told);
    told
}

/// An embedding in three parts, or in two with a head of its own in as many, gives every bit that one in one piece gives, in
/// both precisions, in the schedules of software drivers and, in the long form, of GPUs: a software adapter compiles those for
/// a minute.
#[test]
fn an_embedding_in_parts_gives_the_same_bits() {
    let mut tied = ModelConfig {
        vocab_size: 70_001,
        num_layers: 1,
        hidden_size: 16,
        num_attention_heads: 2,
        seq_length: 4,
        qkv_slot_num: 12,
        proj_slot_num: 16,
        ffn_slot_num: 20,
        ..ModelConfig::default()
    };
    tied.freeze_tau();
    let untied = ModelConfig { vocab_size: 40_001, tie_word_embeddings: false, ..tied.clone() };
    let engine = engine();
    let here = engine.gpu.target;
    let full = std::env::var_os("TOKENFORMER_TEST_FULL").is_some();
    let schedules: &[bool] = match here.software {
        true if full => &[true, false],
        software => &[software],
    };
    for &software in schedules {
        // Parts of 32,768 rows of 16 numbers, and room for seven rows of logits.
        let [whole, parts] = [128 << 20, 2 << 20].map(|max_binding| {
            let target = Target { software, max_binding, ..here };
            let small = Candidate::Lanes { lanes: 8, rows: 8, columns: 2, unroll: 4, broadcast: false };
            if software { KernelTable::forced(target, small) } else { KernelTable::defaults(target) }
        });
        let tables = |model: &ModelConfig, kernels: &KernelTable| {
            let train = TrainConfig { batch_size: 1, ..TrainConfig::default() };
            let plans = RunPlans::new(model, &train, &[cohorts::first(model)], 1, kernels).unwrap();
            let named = |info: &&TensorInfo| info.class == Class::Parameter && !info.parts.is_empty();
            plans.micro.tensors.iter().filter(named).map(|info| info.parts.len()).collect::<Vec<_>>()
        };
        assert_eq!([&whole, &parts].map(|kernels| tables(&tied, kernels)), [vec![], vec![3]]);
        assert_eq!([&whole, &parts].map(|kernels| tables(&untied, kernels)), [vec![], vec![2, 2]]);
        for (model, precision) in [(&tied, Precision::F32), (&tied, Precision::F16), (&untied, Precision::F32)] {
            if precision == Precision::F16 && !here.f16 {
                println!("{} has no f16: nothing to check", engine.gpu.describe());
                continue;
            }
            let start = Instant::now();
            let [expected, found] =
                [&whole, &parts].map(|kernels| run_of_a_large_vocabulary(&engine, kernels, model, precision));
            assert_eq!(expected.len(), found.len());
            for ((name, expected), (_, found)) in expected.iter().zip(&found) {
                assert!(expected == found, "{name} in {precision:?}, as of a software driver: {software}");
            }
            println!("{} numbers, {:.1} s", expected.len(), start.elapsed().as_secs_f64());
        }
    }
}
