//! A training step as GPUs run it: how many dispatches it takes, what it clears, and what it keeps beside the parameters.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use tokenformer::config::{Arch, ModelConfig, Precision, RunConfig, TrainConfig};
use tokenformer::data::{Batch, token_index};
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::gpu::device::Gpu;
use tokenformer::graph::grad_name;
use tokenformer::graph::plan::Plan;
use tokenformer::kernel::{Dtype, Fragments, KernelTable, Target};
use tokenformer::model::graphs::{self, MicroBatch};
use tokenformer::model::init;
use tokenformer::ops::stats::fresh_stats;
use tokenformer::runtime::device::Device;
use tokenformer::runtime::memory::Memory;
use tokenformer::train::cohorts;
use tokenformer::train::trainer::{RunPlans, Trainer, batch_shape, upload_parameters, upload_rope};

/// This adapter, taken for a GPU.
fn gpu() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let mut gpu = Gpu::open(&AdapterRequest::default()).expect("these tests need an adapter");
        gpu.target.software = false;
        Device::new(gpu).expect("a device")
    })
}

/// A large GPU, such as one of a data centre.
fn large() -> Target {
    Target {
        software: false,
        subgroup_sizes: [32; 2],
        subgroup_barrier: true,
        invocations: 1024,
        workgroup_bytes: 48 * 1024,
        max_binding: (1 << 31) - 4,
        max_buffer: 1 << 38,
        max_storage_buffers: 16,
        f16: true,
        fragments: Fragments::of(|fragment| fragment.side == 16 && fragment.operand == Dtype::F16),
    }
}

/// The paper's 150M model, of which a step takes 4 sequences of 1024 tokens.
fn config_of_150m(change: impl Fn(&mut TrainConfig)) -> RunConfig {
    let mut config = RunConfig::preset("150m").unwrap();
    config.model.seq_length = 1024;
    config.train.total_batch_tokens = 0;
    change(&mut config.train);
    config
}

#[test]
fn a_step_of_150m_is_few_dispatches() {
    for precision in [Precision::F32, Precision::F16] {
        let config = config_of_150m(|train| train.precision = precision);
        let cohorts = [cohorts::first(&config.model)];
        let kernels = KernelTable::defaults(large());
        let plans = RunPlans::new(&config.model, &config.train, &cohorts, 1, &kernels).unwrap();
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for call in plans.micro.calls.iter().chain(&plans.update.calls) {
            *kinds.entry(call.kernel.name()).or_default() += 1;
        }
        println!("{precision:?}: {} dispatches: {kinds:#?}", plans.dispatches_per_step());
        println!("{:?}", plans.bytes().unwrap());
        assert!(plans.dispatches_per_step() < MOST_DISPATCHES, "{precision:?}: {}", plans.dispatches_per_step());
    }
}

/// Before steps were planned for GPUs it was some 520, and 387 before the gradients of keys and values of a Pattention were
/// one product.
const MOST_DISPATCHES: usize = 350;

#[test]
fn the_rows_of_logits_follow_the_device_and_what_is_set() {
    let rows = |set: usize, target: Target| {
        let config = config_of_150m(|train| train.loss_chunk_rows = set);
        batch_shape(&config.model, &config.train, &KernelTable::defaults(target)).unwrap().chunk_rows
    };
    assert_eq!(rows(0, large()), 4096);
    assert_eq!(rows(0, Target { software: true, ..large() }), 1024);
    assert_eq!(rows(0, Target { max_binding: 1 << 30, ..large() }), 2668);
    // 1024 rows of 50,304 logits are 206 MB.
    assert_eq!(rows(0, Target { max_binding: 256 << 20, ..large() }), 1024);
    assert_eq!(rows(0, Target { max_binding: 128 << 20, ..large() }), 640);
    assert_eq!(rows(0, Target { max_binding: 128 << 20, software: true, ..large() }), 640);
    assert_eq!(rows(77, large()), 77);
}

fn small(arch: Arch) -> ModelConfig {
    let mut model = ModelConfig {
        arch,
        vocab_size: 61,
        num_layers: 2,
        hidden_size: 32,
        num_attention_heads: 2,
        seq_length: 24,
        qkv_slot_num: 20,
        proj_slot_num: 33,
        ffn_slot_num: 70,
        intermediate_size: 50,
        ..ModelConfig::default()
    };
    model.freeze_tau();
    model.validate().unwrap();
    model
}

/// Both architectures, and a Transformer with every option of GPT-NeoX.
fn models() -> [ModelConfig; 3] {
    let [tokenformer, transformer] = [Arch::Tokenformer, Arch::Transformer].map(small);
    let options = ModelConfig { attention_bias: false, tie_word_embeddings: false, ..transformer.clone() };
    [tokenformer, transformer, ModelConfig { use_parallel_residual: true, ..options }]
}

fn batch(model: &ModelConfig, train: &TrainConfig, seed: usize) -> Batch {
    let rows = train.batch_size * model.seq_length;
    // Not every token of the vocabulary.
    let tokens: Vec<u32> = (0..rows).map(|i| ((i * i + 7 * i + seed) % (model.vocab_size - 9)) as u32).collect();
    let targets = tokens.iter().skip(1).chain(&tokens[..1]).copied().collect();
    Batch { tokens, targets }
}

/// The first micro-batch of a step gives the same gradients whatever was there as a later one gives on zeros.
#[test]
fn the_first_micro_batch_overwrites_gradients() {
    let Device { engine, kernels, .. } = gpu();
    for (model, precision) in
        models().iter().flat_map(|model| [Precision::F32, Precision::F16].map(|precision| (model, precision)))
    {
        if precision == Precision::F16 && !engine.gpu.target.f16 {
            println!("{} has no f16: nothing to check", engine.gpu.describe());
            continue;
        }
        // Two chunks of logits, of which the second adds to the first.
        let train = TrainConfig { batch_size: 3, loss_chunk_rows: 40, precision, ..TrainConfig::default() };
        let shape = batch_shape(model, &train, kernels).unwrap();
        let trained = model.param_shapes();
        let plan = |which| {
            let graph = graphs::training(model, &trained, &shape, which, kernels).unwrap();
            Plan::new(&graph).unwrap()
        };
        let copies = graphs::copies(model, shape.precision, kernels).unwrap();
        let copies = Plan::new(&copies).unwrap();
        let plans = [plan(MicroBatch::First), plan(MicroBatch::Later), copies];
        let mixed = shape.precision != Dtype::F32;
        let used: Vec<&Plan> = plans.iter().take(if mixed { 3 } else { 2 }).collect();
        let (memory, programs) = Memory::allocate(engine, &used).unwrap();
        upload_rope(engine, &memory, model).unwrap();
        upload_parameters(engine, &memory, model, &init::initial(model, 3)).unwrap();
        programs.iter().skip(2).for_each(|copies| engine.run(copies).unwrap());
        let batch = batch(model, &train, 5);
        let index = token_index(&batch.tokens, model.vocab_size).unwrap();
        engine.write(memory.named(graphs::SORTED_ROWS).unwrap(), &index.rows);
        engine.write(memory.named(graphs::TOKEN_STARTS).unwrap(), &index.starts);
        engine.write(memory.named(graphs::TOKENS).unwrap(), &batch.tokens);
        engine.write(memory.named(graphs::TARGETS).unwrap(), &batch.targets);
        let gradients = |which: usize, before: f32| -> Vec<Vec<f32>> {
            engine.write(memory.named(graphs::STATS_NAME).unwrap(), &fresh_stats(64.0));
            let blocks = trained.iter().map(|(name, _)| memory.named(&grad_name(name)).unwrap());
            let blocks: Vec<_> = blocks.collect();
            for block in &blocks {
                engine.write(block, &vec![before; (block.bytes() / 4) as usize]);
            }
            engine.run(&programs[which]).unwrap();
            blocks.iter().map(|block| engine.read(block).unwrap()).collect()
        };
        let added = gradients(1, 0.0);
        assert!(added.iter().all(|of| of.iter().any(|x| *x != 0.0) && of.iter().all(|x| x.is_finite())));
        let overwritten = gradients(0, f32::NAN);
        for ((name, _), (a, b)) in trained.iter().zip(added.iter().zip(&overwritten)) {
            assert_eq!(a, b, "{name} of {model:?} in {precision:?}");
        }
        // And a later one does add.
        let doubled = gradients(1, 1.0);
        assert!(added.iter().zip(&doubled).all(|(a, b)| a.iter().zip(b).all(|(a, b)| (a + 1.0 - b).abs() < 1e-4)));
    }
}

fn trainer<'e>(Device { engine, kernels, .. }: &'e Device, model: &ModelConfig, train: &TrainConfig) -> Trainer<'e> {
    let trainer = Trainer::new(engine, kernels, model, train, vec![cohorts::first(model)], 1).unwrap();
    trainer.load_parameters(&init::initial(model, 3)).unwrap();
    trainer
}

/// Steps of two micro-batches, as a GPU takes them and as this adapter does.
#[test]
fn steps_as_on_a_gpu_follow_those_of_this_adapter() {
    for model in models() {
        let train = TrainConfig { batch_size: 3, total_batch_tokens: 144, ..TrainConfig::default() };
        let [usual, gpu] = [common::device(), gpu()].map(|device| trainer(device, &model, &train));
        for step in 0..3 {
            let batches = [0, 1].map(|i| batch(&model, &train, 10 * step + i));
            let [a, b] = [&usual, &gpu].map(|t| t.step(&batches, step as u64, 1e-3).unwrap());
            assert!((a.loss - b.loss).abs() < 1e-4 && (a.grad_norm / b.grad_norm - 1.0).abs() < 1e-3, "{a:?} {b:?}");
            gpu.verify(&batches, step as u64).unwrap();
        }
    }
}

/// The copies of parameters that AdamW writes are those that would be made anew.
#[test]
fn copies_of_parameters_follow_them() {
    for device in [common::device(), gpu()] {
        let engine = &device.engine;
        if !engine.gpu.target.f16 {
            println!("{} has no f16: nothing to check", engine.gpu.describe());
            continue;
        }
        let model = small(Arch::Tokenformer);
        let train = TrainConfig { batch_size: 3, precision: Precision::F16, ..TrainConfig::default() };
        let [kept, renewed] = [0, 1].map(|_| trainer(device, &model, &train));
        for step in 0..4 {
            let batches = [batch(&model, &train, step)];
            let [a, b] = [&kept, &renewed].map(|t| t.step(&batches, step as u64, 1e-2).unwrap());
            assert_eq!(a, b, "step {step}");
            renewed.load_parameters(&renewed.parameters().unwrap()).unwrap();
        }
        let [a, b] = [&kept, &renewed].map(|t| t.parameters().unwrap());
        assert_eq!(a, b);
        // The test can fail: with the copies of the first step only, losses would differ.
        let stale = trainer(device, &model, &train);
        let first = [batch(&model, &train, 0)];
        let before = stale.step(&first, 0, 1e-2).unwrap();
        assert_ne!(stale.step(&first, 1, 1e-2).unwrap().loss, before.loss);
    }
}
