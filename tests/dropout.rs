//! Training with dropout: the same masks on every way to the same update, and none where nothing trains.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{compiles_slowly, device, engine};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use tokenformer::config::{Arch, GrowthConfig, ModelConfig, Precision, RunConfig, TrainConfig};
use tokenformer::data::{Batch, Dataset, train_batch};
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::gpu::device::Gpu;
use tokenformer::kernel::{AttentionSchedule, Dtype, Fragments, KernelTable, Target};
use tokenformer::model::init;
use tokenformer::model::init::Tensors;
use tokenformer::runtime::device::Device;
use tokenformer::train::cohorts;
use tokenformer::train::disk::{Start, dataset};
use tokenformer::train::trainer::{RunPlans, StepStats, Trainer};
use tokenformer::train::{self, Checkpoint, Store};

/// A run of a few seconds on a software adapter, of 8 sequences an update.
fn tiny(dir: &Path, change: impl Fn(&mut RunConfig)) -> (RunConfig, Dataset) {
    let mut config = RunConfig { out_dir: dir.to_path_buf(), ..RunConfig::default() };
    config.model = ModelConfig {
        num_layers: 2,
        hidden_size: 16,
        num_attention_heads: 2,
        seq_length: 23,
        qkv_slot_num: 16,
        proj_slot_num: 16,
        ffn_slot_num: 32,
        rotary_pct: 0.5,
        dropout: 0.2,
        ..ModelConfig::default()
    };
    config.train = TrainConfig {
        batch_size: 2,
        total_batch_tokens: 8 * 23,
        max_steps: 8,
        eval_interval: 3,
        eval_batches: 2,
        sample_interval: 0,
        checkpoint_interval: 1,
        keep_last: 100,
        ..TrainConfig::default()
    };
    config.data.corpus_sentences = 500;
    change(&mut config);
    let data = dataset(&config, None).unwrap();
    config.model.resolve_vocab(data.vocab_size).unwrap();
    config.model.freeze_tau();
    config.validate().unwrap();
    (config, data)
}

fn plain(change: impl Fn(&mut RunConfig)) -> (RunConfig, Dataset) {
    tiny(Path::new("unused"), change)
}

/// Parameters large enough for every mask to show. In f16 those of a new model: attention of large ones looks at single keys,
/// and where these are dropped in both heads, what is left is so small that the gradient of its norm overflows.
fn parameters(config: &RunConfig) -> Tensors {
    let mut params = init::initial(&config.model, 1);
    if config.train.precision == Precision::F32 {
        params.values_mut().flat_map(|tensor| &mut tensor.data).for_each(|x| *x *= 4.0);
    }
    params
}

fn trainer_on<'a>(Device { engine, kernels, .. }: &'a Device, config: &RunConfig) -> Trainer<'a> {
    let model = &config.model;
    let trainer = Trainer::new(engine, kernels, model, &config.train, vec![cohorts::first(model)], 3).unwrap();
    trainer.load_parameters(&parameters(config)).unwrap();
    trainer
}

fn trainer(config: &RunConfig) -> Trainer<'static> {
    trainer_on(device(), config)
}

/// The 8 sequences of a step, in micro-batches.
fn batches(config: &RunConfig, data: &Dataset, step: u64) -> Vec<Batch> {
    let (batch, seq) = (config.train.batch_size, config.model.seq_length);
    let count = 8 / batch as u64;
    (0..count).map(|i| train_batch(&data.train, 9, step * count + i, batch, seq).unwrap()).collect()
}

fn steps(trainer: &Trainer, config: &RunConfig, data: &Dataset, count: u64) -> (Vec<StepStats>, Tensors) {
    let step = |step| trainer.step(&batches(config, data, step), step, 1e-3).unwrap();
    ((0..count).map(step).collect(), trainer.parameters().unwrap())
}

/// How far two gradients are apart, over the size of the second.
fn distance(a: &Tensors, b: &Tensors) -> f64 {
    let pairs =
        || a.iter().flat_map(|(name, a)| a.data.iter().zip(&b[name].data)).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let of = |sum: f64| sum.sqrt();
    of(pairs().map(|(a, b)| (a - b) * (a - b)).sum()) / of(pairs().map(|(_, b)| b * b).sum())
}

fn architectures(config: &mut RunConfig, which: usize) {
    if which > 0 {
        config.model.arch = Arch::Transformer;
        config.model.use_parallel_residual = which == 2;
    }
}

fn has_f16() -> bool {
    let has = engine().gpu.target.f16;
    if !has {
        println!("{} has no f16: nothing to check", engine().gpu.describe());
    }
    has
}

/// Gradients and loss of the first step, by the kernels of `device`.
fn first_step(device: &Device, config: &RunConfig, data: &Dataset) -> (StepStats, Tensors) {
    let trainer = trainer_on(device, config);
    (trainer.step(&batches(config, data, 0), 0, 0.0).unwrap(), trainer.gradients().unwrap())
}

/// This adapter, taken for a GPU.
fn gpu() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| gpu_with(None))
}

/// The same with a schedule of attention.
fn gpu_with(schedule: Option<AttentionSchedule>) -> Device {
    let mut gpu = Gpu::open(&AdapterRequest::default()).expect("these tests need an adapter");
    gpu.target.software = false;
    let mut device = Device::new(gpu).expect("a device");
    device.kernels = device.kernels.with_attention(schedule);
    device
}

/// Masks that hung on the micro-batch would move the loss by 0.1, as those of another step do.
#[test]
fn every_cut_of_an_update_draws_the_same_masks() {
    for which in 0..3 {
        let of = |batch_size, gradient_leaves| {
            let (config, data) = plain(|config| {
                architectures(config, which);
                (config.train.batch_size, config.train.gradient_leaves) = (batch_size, gradient_leaves);
            });
            first_step(device(), &config, &data)
        };
        let (whole, gradients) = of(8, 1);
        for (batch_size, leaves) in [(4, 1), (2, 1), (1, 1), (2, 2), (1, 4)] {
            let (stats, other) = of(batch_size, leaves);
            assert!((stats.loss - whole.loss).abs() < 1e-5, "{which}: {batch_size}, {leaves}: {stats:?} {whole:?}");
            let apart = distance(&other, &gradients);
            assert!(apart < 1e-5, "{which}: {batch_size}, {leaves}: gradients are {apart:.1e} apart");
        }
    }
}

#[test]
fn masks_change_with_the_step_and_the_seed_and_come_back() {
    let (config, data) = plain(|_| {});
    let (trainer, first) = (trainer(&config), batches(&config, &data, 0));
    // Without an update: the same model, the same data.
    let loss = |step| trainer.step(&first, step, 0.0).unwrap().loss;
    let [a, b, c] = [0, 1, 0].map(loss);
    assert_eq!(a.to_bits(), c.to_bits());
    assert!((a - b).abs() > 1e-3, "{a} {b}");
    let (config, _) = plain(|config| config.train.seed += 1);
    let reseeded = trainer_on(device(), &config).step(&first, 0, 0.0).unwrap().loss;
    assert!((a - reseeded).abs() > 1e-3, "{a} {reseeded}");
}

#[test]
fn recomputed_layers_and_verified_steps_have_the_same_bits() {
    for (which, precision) in (0..3).flat_map(|which| [Precision::F32, Precision::F16].map(|p| (which, p))) {
        if precision == Precision::F16 && !has_f16() {
            continue;
        }
        let (config, data) = plain(|config| {
            architectures(config, which);
            config.train.precision = precision;
        });
        let recomputes = RunConfig { train: TrainConfig { recompute: true, ..config.train.clone() }, ..config.clone() };
        // Kernels do not know what they are part of.
        let devices = if which > 0 && compiles_slowly() { vec![device()] } else { vec![device(), gpu()] };
        for device in devices {
            let kept = steps(&trainer_on(device, &config), &config, &data, 3);
            assert!(kept.0.iter().all(|stats| stats.finite), "{which} {precision:?}: {:?}", kept.0);
            let again = trainer_on(device, &recomputes);
            assert!(steps(&again, &recomputes, &data, 3) == kept, "{which} {precision:?}");
            again.verify(&batches(&config, &data, 3), 3).unwrap();
        }
    }
}

/// By every schedule of attention, and by the row kernels of GPUs as of software drivers: sums in another order, of the same.
#[test]
fn every_kernel_draws_the_same_masks() {
    for which in 0..if compiles_slowly() { 2 } else { 3 } {
        let (config, data) = plain(|config| architectures(config, which));
        let wanted = first_step(device(), &config, &data);
        for schedule in [AttentionSchedule::Software, AttentionSchedule::Lanes] {
            let (stats, gradients) = first_step(&gpu_with(Some(schedule)), &config, &data);
            assert!((stats.loss - wanted.0.loss).abs() < 1e-5, "{which}: {schedule}: {stats:?} {:?}", wanted.0);
            let apart = distance(&gradients, &wanted.1);
            assert!(apart < 1e-5, "{which}: {schedule}: gradients are {apart:.1e} apart");
        }
    }
}

#[test]
fn what_does_not_train_drops_nothing() {
    let (config, data) = plain(|_| {});
    let (dropped, whole) = (trainer(&config), plain(|config| config.model.dropout = 0.0).0);
    let whole = trainer(&whole);
    let given: Vec<Batch> = batches(&config, &data, 0);
    let [a, b] = [&dropped, &whole].map(|trainer| trainer.evaluate(&given).unwrap());
    assert_eq!(a.to_bits(), b.to_bits());
    let tokens = &given[0].tokens[..config.model.seq_length];
    assert_eq!(dropped.logits(tokens).unwrap(), whole.logits(tokens).unwrap());
    let [a, b] = [&dropped, &whole].map(|trainer| trainer.step(&given, 0, 0.0).unwrap());
    assert!((a.loss - b.loss).abs() > 1e-3, "{a:?} {b:?}");
}

/// Without dropout a step is what it was: no kernel, no tensor and no binding is of it.
#[test]
fn without_dropout_nothing_is_there_of_it() {
    let targets =
        [Target { software: true, ..Target::WEBGPU }, Target::WEBGPU].map(|target| Target { f16: true, ..target });
    let matrices = Target {
        subgroup_sizes: [32; 2],
        subgroup_barrier: true,
        workgroup_bytes: 48 * 1024,
        fragments: Fragments::of(|fragment| fragment.side == 16 && fragment.operand == Dtype::F16),
        ..targets[1]
    };
    for (target, precision) in
        [targets[0], targets[1], matrices].into_iter().flat_map(|t| [Precision::F32, Precision::F16].map(|p| (t, p)))
    {
        let calls = |dropout: f64| {
            let mut config = RunConfig::preset("bench-tiny").unwrap();
            (config.model.dropout, config.train.precision) = (dropout, precision);
            let cohorts = [cohorts::first(&config.model)];
            let plans =
                RunPlans::new(&config.model, &config.train, &cohorts, 1, &KernelTable::defaults(target)).unwrap();
            let training = plans.micro.calls.iter().chain(plans.later.iter().flat_map(|plan| &plan.calls));
            let of_plan = |plan: &tokenformer::graph::plan::Plan| plan.tensors.iter().any(|t| t.name == "dropout");
            let with: usize = training.filter(|call| call.kernel.name().contains("dropout")).count();
            let elsewhere = [&plans.evaluation, &plans.logits].into_iter().chain(&plans.generator.plans);
            let elsewhere = elsewhere.filter(|plan| of_plan(plan)).count();
            (with, of_plan(&plans.micro), elsewhere, plans.micro.calls.len(), config.model.num_layers)
        };
        let (none, there, _, before, _) = calls(0.0);
        assert!(none == 0 && !there);
        let (with, there, elsewhere, after, layers) = calls(0.1);
        assert!(with > 0 && there && elsewhere == 0);
        // Rows: of the embedding, and twice a layer, forward and backward. On a GPU the first norm no longer looks rows up.
        let rows = 2 * (1 + 2 * layers);
        assert!(
            (before + rows..=before + rows + 1).contains(&after),
            "{target:?}: {before} calls, {after} with dropout"
        );
    }
}

fn fresh(config: &RunConfig, data: &Dataset) {
    std::fs::create_dir_all(&config.out_dir).unwrap();
    train::run(device(), config, data, Start::fresh(config), &AtomicBool::new(false)).unwrap();
}

fn checkpoint(dir: &Path, step: u64) -> Checkpoint {
    let (_, path) = Store::new(dir).list().unwrap().into_iter().find(|(s, _)| *s == step).unwrap();
    Checkpoint::read(&path).unwrap()
}

/// A copy of the run in `from`, as it was after `step`, that goes on in `to`.
fn resume(from: &Path, to: &Path, step: u64, data: &Dataset, change: impl Fn(&mut RunConfig)) {
    std::fs::create_dir_all(to.join("checkpoints")).unwrap();
    for name in ["metrics.jsonl".to_owned(), format!("checkpoints/step-{step:08}.safetensors")] {
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
    let (start, mut config) = Start::resumed(checkpoint(to, step)).unwrap();
    config.out_dir = to.to_path_buf();
    change(&mut config);
    train::run(device(), &config, data, start, &AtomicBool::new(false)).unwrap();
}

fn bits(checkpoint: &Checkpoint) -> Vec<u32> {
    let all = [&checkpoint.params, &checkpoint.moment1, &checkpoint.moment2];
    all.iter().flat_map(|of| of.values()).flat_map(|tensor| tensor.data.iter().map(|x| x.to_bits())).collect()
}

#[test]
fn a_resumed_run_has_the_same_bits_across_a_growth() {
    let [straight, parts] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (mut config, data) = tiny(straight.path(), |_| {});
    config.growth = vec![GrowthConfig { at_step: 4, ffn_slot_num: Some(40), ..GrowthConfig::default() }];
    fresh(&config, &data);
    for step in [2, 4, 6] {
        let dir = parts.path().join(step.to_string());
        resume(straight.path(), &dir, step, &data, |_| {});
        assert!(bits(&checkpoint(&dir, 8)) == bits(&checkpoint(straight.path(), 8)), "resumed after step {step}");
    }
    let grown = checkpoint(straight.path(), 8).meta.config::<RunConfig>().unwrap();
    assert_eq!((grown.model.dropout, grown.model.ffn_slot_num), (0.2, 40));
}

#[test]
fn a_run_may_go_on_with_another_dropout() {
    let [straight, parts] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (config, data) = tiny(straight.path(), |_| {});
    fresh(&config, &data);
    resume(straight.path(), parts.path(), 6, &data, |config| config.model.dropout = 0.0);
    let [was, is] = [straight.path(), parts.path()].map(|dir| checkpoint(dir, 8));
    assert!(bits(&was) != bits(&is));
    assert_eq!([was, is].map(|c| c.meta.config::<RunConfig>().unwrap().model.dropout), [0.2, 0.0]);
}
