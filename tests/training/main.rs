//! Whole runs: the same bits every time, resumed at any step and across growths; memory as planned.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod default_run;
mod new_rows;

use common::{device, engine, kernels};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tokenformer::config::{
    Arch, GrowthConfig, GrowthPolicy, GrowthWhen, ModelConfig, Precision, RunConfig, TrainConfig, TrainRule,
};
use tokenformer::data::{Batch, Dataset, train_batch};
use tokenformer::error::Error;
use tokenformer::model::init;
use tokenformer::model::sample::Sampling;
use tokenformer::train::cohorts;
use tokenformer::train::disk::{Start, dataset};
use tokenformer::train::trainer::{RunPlans, Trainer};
use tokenformer::train::{self, Checkpoint, LossScale, Store, Summary};

/// A run of a few seconds on a software adapter.
fn tiny(dir: &Path, steps: usize) -> (RunConfig, Dataset) {
    let mut config = RunConfig { out_dir: dir.to_path_buf(), ..RunConfig::default() };
    config.model = ModelConfig {
        num_layers: 1,
        hidden_size: 16,
        num_attention_heads: 2,
        seq_length: 24,
        qkv_slot_num: 16,
        proj_slot_num: 16,
        ffn_slot_num: 32,
        ..ModelConfig::default()
    };
    config.train = TrainConfig {
        batch_size: 2,
        total_batch_tokens: 96,
        max_steps: steps,
        eval_interval: 3,
        eval_batches: 2,
        sample_interval: 5,
        sample_tokens: 40,
        checkpoint_interval: 0,
        keep_last: 100,
        ..TrainConfig::default()
    };
    config.data.corpus_sentences = 500;
    let data = dataset(&config, None).unwrap();
    config.model.resolve_vocab(data.vocab_size).unwrap();
    config.validate().unwrap();
    (config, data)
}

fn grow_at(at_step: usize, ffn: usize) -> GrowthConfig {
    GrowthConfig { at_step, ffn_slot_num: Some(ffn), qkv_slot_num: Some(ffn - 10), ..GrowthConfig::default() }
}

fn fresh(config: &RunConfig, data: &Dataset) -> Summary {
    let start = Start::fresh(config);
    std::fs::create_dir_all(&config.out_dir).unwrap();
    train::run(device(), config, data, start, &AtomicBool::new(false)).unwrap()
}

fn resume(dir: &Path, step: u64, data: &Dataset, steps: usize) -> Summary {
    let (_, path) = Store::new(dir).list().unwrap().into_iter().find(|(s, _)| *s == step).unwrap();
    let (start, mut config) = Start::resumed(Checkpoint::read(&path).unwrap()).unwrap();
    config.train.max_steps = steps;
    config.out_dir = dir.to_path_buf();
    config.validate().unwrap();
    train::run(device(), &config, data, start, &AtomicBool::new(false)).unwrap()
}

/// The metrics without what depends on the clock, on where the run stopped and on its directory, which is part of every
/// checkpoint and so of its digest.
fn curve(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let clean = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("seconds");
        value.get_mut("record").map(|record| record["before"]["sha256"].take());
        (value["kind"] != "run").then(|| value.to_string())
    };
    text.lines().filter_map(clean).collect()
}

fn last_checkpoint(dir: &Path) -> Checkpoint {
    Store::new(dir).latest().unwrap().found.unwrap().1
}

fn assert_same_tensors(a: &Checkpoint, b: &Checkpoint) {
    assert_eq!(a.averages.keys().collect::<Vec<_>>(), b.averages.keys().collect::<Vec<_>>());
    for (name, tensor) in &a.averages {
        assert_eq!(tensor, &b.averages[name], "{name}");
    }
    for (x, y) in [(&a.params, &b.params), (&a.moment1, &b.moment1), (&a.moment2, &b.moment2)] {
        assert!(!x.is_empty() && x.keys().eq(y.keys()));
        for (name, tensor) in x {
            let bits = |t: &tokenformer::array::HostTensor| t.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(tensor), bits(&y[name]), "{name}");
        }
    }
}

#[test]
fn two_runs_have_the_same_bits() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for dir in &dirs {
        let (config, data) = tiny(dir.path(), 7);
        fresh(&config, &data);
    }
    assert_eq!(curve(dirs[0].path()), curve(dirs[1].path()));
    assert_same_tensors(&last_checkpoint(dirs[0].path()), &last_checkpoint(dirs[1].path()));
}

/// A run of 12 steps with checkpoints after each, and that it ends in the same bits resumed after any of `steps`.
fn resumes_to_the_same_bits(
    (mut config, data): (RunConfig, Dataset),
    growths: &[GrowthConfig],
    steps: &[u64],
) -> Summary {
    let straight = tempfile::tempdir().unwrap();
    config.out_dir = straight.path().to_path_buf();
    config.growth = growths.to_vec();
    config.train.checkpoint_interval = 1;
    config.validate().unwrap();
    let summary = fresh(&config, &data);
    assert_eq!(summary.growths.len(), growths.len());
    let wanted = curve(straight.path());
    for &step in steps {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("checkpoints")).unwrap();
        let copy = |name: &str| std::fs::copy(straight.path().join(name), dir.path().join(name)).unwrap();
        copy("metrics.jsonl");
        copy(&format!("checkpoints/step-{step:08}.safetensors"));
        let resumed = resume(dir.path(), step, &data, 12);
        assert_eq!(curve(dir.path()), wanted, "resumed after step {step}");
        assert_same_tensors(&last_checkpoint(dir.path()), &last_checkpoint(straight.path()));
        assert_eq!(resumed.sample, summary.sample);
    }
    summary
}

#[test]
fn a_resumed_run_is_the_same_run_at_every_step_and_across_growths() {
    let growths = [grow_at(4, 50), grow_at(8, 64)];
    // 3: before any growth; 4 and 8: just before one; 5: after the first; 11: after both.
    let summary = resumes_to_the_same_bits(tiny(Path::new("unused"), 12), &growths, &[3, 4, 5, 8, 11]);
    assert!(summary.growths.iter().all(|g| g.max_logit_change == 0.0 && g.loss_before == g.loss_after));
}

#[test]
fn a_run_that_goes_on_with_another_batch_keeps_its_place_in_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = tiny(dir.path(), 3);
    fresh(&config, &data);
    // Rows of 24 tokens: 12 in batches of 2, then 3 of 1, then 6 in batches of 3 and 4 in batches of 2.
    let go_on = |batch_size, total_batch_tokens, steps| {
        let (start, mut config) = Start::resumed(last_checkpoint(dir.path())).unwrap();
        config.train = TrainConfig { batch_size, total_batch_tokens, max_steps: steps, ..config.train };
        train::run(device(), &config, &data, start, &AtomicBool::new(false)).unwrap();
        let meta = last_checkpoint(dir.path()).meta;
        (meta.tokens_seen, meta.data.next_batch)
    };
    let meta = last_checkpoint(dir.path()).meta;
    assert_eq!((meta.tokens_seen, meta.data.next_batch), (12 * 24, 6));
    assert_eq!(go_on(1, 0, 6), (15 * 24, 15));
    assert_eq!(go_on(3, 0, 8), (21 * 24, 7));
    assert_eq!(go_on(2, 96, 9), (25 * 24, 13), "the 22nd row is passed over for a whole batch");
    let lines = curve(dir.path()).into_iter().map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
    let rows: Vec<u64> = lines.filter_map(|line| Some(line["tokens"].as_u64()? / 24)).collect();
    assert_eq!(rows, [4, 8, 12, 13, 14, 15, 18, 21, 25]);
}

#[test]
fn losses_on_other_data_are_forgotten_where_a_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut config, data) = tiny(dir.path(), 5);
    // No evaluation is an improvement but the first: at step 0, and anew where that is forgotten, at step 6.
    let rule = GrowthConfig { patience: Some(2), min_delta: Some(9.0), ..grow_at(0, 48) };
    config.growth = vec![GrowthConfig { when: GrowthWhen::Plateau, ..rule }];
    fresh(&config, &data);
    let file = Store::new(dir.path()).list().unwrap().pop().unwrap().1;
    let go_on = |change: &dyn Fn(&mut RunConfig)| {
        let dir = tempfile::tempdir().unwrap();
        let (start, mut config) = Start::resumed(Checkpoint::read(&file).unwrap()).unwrap();
        (config.train.max_steps, config.out_dir) = (8, dir.path().to_path_buf());
        change(&mut config);
        let data = dataset(&config, data.tokenizer.clone()).unwrap();
        let growths = train::run(device(), &config, &data, start, &AtomicBool::new(false)).unwrap().growths;
        (growths.len(), last_checkpoint(dir.path()).meta.losses.count)
    };
    assert_eq!(go_on(&|_| {}), (1, 2), "after the growth at step 6");
    assert_eq!(go_on(&|config| config.data.corpus_seed = Some(5)), (0, 3), "no loss before step 5 counts");
    assert_eq!(go_on(&|config| config.train.eval_batches = 1), (0, 8));
    assert_eq!(go_on(&|config| config.data.val_fraction = 0.2), (0, 8));
}

fn by(policy: GrowthPolicy, at_step: usize) -> GrowthConfig {
    GrowthConfig { policy, at_step, ..GrowthConfig::default() }
}

/// The largest changes of a logit in a run's growths, in order; losses change only where logits do.
fn changes(summary: &Summary) -> Vec<f64> {
    for growth in &summary.growths {
        assert!(growth.max_logit_change > 0.0 || growth.loss_before == growth.loss_after, "{growth:?}");
        assert!(growth.after.params > growth.before.params, "{growth:?}");
    }
    summary.growths.iter().map(|growth| growth.max_logit_change).collect()
}

#[test]
fn a_tokenformer_grows_in_every_way_in_one_run_and_resumes_in_between() {
    let copy = GrowthConfig {
        qkv_slot_num: Some(32),
        proj_slot_num: Some(32),
        ffn_slot_num: Some(64),
        ..by(GrowthPolicy::Copy, 2)
    };
    let identity = GrowthConfig { num_layers: Some(2), ..by(GrowthPolicy::Identity, 4) };
    let stack = GrowthConfig { num_layers: Some(4), lr_scale: Some(0.5), ..by(GrowthPolicy::Stack, 6) };
    let growths = [copy, identity, stack, grow_at(8, 70)];
    let summary = resumes_to_the_same_bits(tiny(Path::new("unused"), 12), &growths, &[2, 3, 4, 5, 6, 7, 9]);
    let [copy, identity, stack, tokens] = changes(&summary)[..] else { panic!("four growths") };
    assert!(copy > 0.0 && copy < 1e-5 && identity == 0.0 && stack > 1e-3 && tokens == 0.0);
    let last = &summary.growths[3];
    assert_eq!((last.before.layers, last.after.layers, last.after.intermediate_size), (4, 4, 0));
}

#[test]
fn a_transformer_grows_in_every_way_in_one_run_and_resumes_in_between() {
    let (mut config, data) = tiny(Path::new("unused"), 12);
    config.model.arch = Arch::Transformer;
    let net2net = GrowthConfig { intermediate_size: Some(100), ..by(GrowthPolicy::Net2net, 2) };
    let zero_units = GrowthConfig { intermediate_size: Some(128), ..by(GrowthPolicy::ZeroUnits, 4) };
    let identity = GrowthConfig { num_layers: Some(2), ..by(GrowthPolicy::Identity, 6) };
    let stack = GrowthConfig { num_layers: Some(4), ..by(GrowthPolicy::Stack, 8) };
    let growths = [net2net, zero_units, identity, stack];
    let summary = resumes_to_the_same_bits((config, data), &growths, &[2, 3, 4, 5, 6, 7, 8, 9]);
    let [net2net, zero_units, identity, stack] = changes(&summary)[..] else { panic!("four growths") };
    assert!(net2net < 1e-5 && zero_units == 0.0 && identity == 0.0 && stack > 1e-3);
    let first = &summary.growths[0];
    assert_eq!((first.before.intermediate_size, first.after.intermediate_size, first.after.slots), (64, 100, [0; 3]));
}

#[test]
fn only_what_is_new_trains_where_that_is_asked_for() {
    let only_new = |growth| GrowthConfig { train: Some(TrainRule::New), ..growth };
    let cases = [
        only_new(GrowthConfig { num_layers: Some(2), ..by(GrowthPolicy::Identity, 3) }),
        only_new(GrowthConfig { num_layers: Some(3), ..by(GrowthPolicy::Stack, 3) }),
        only_new(GrowthConfig { ffn_slot_num: Some(64), ..by(GrowthPolicy::Copy, 3) }),
    ];
    for growth in cases {
        let dir = tempfile::tempdir().unwrap();
        let (mut config, data) = tiny(dir.path(), 6);
        config.growth = vec![growth.clone()];
        config.train.checkpoint_interval = 1;
        fresh(&config, &data);
        let (_, path) = Store::new(dir.path()).list().unwrap().into_iter().find(|(step, _)| *step == 3).unwrap();
        let start = Start::resumed(Checkpoint::read(&path).unwrap()).unwrap().0;
        let at_growth = start.host.grown(&growth, 3, config.train.seed).unwrap();
        let at_end = last_checkpoint(dir.path()).params;
        let new = &at_growth.cohorts[1].rows;
        for (name, tensor) in &at_growth.params {
            let row: usize = tensor.shape.iter().skip(1).product();
            let first_new = new.get(name).map_or(tensor.data.len(), |rows| rows[0] as usize * row);
            let (old, new) = tensor.data.split_at(first_new);
            let (old_after, new_after) = at_end[name].data.split_at(first_new);
            assert_eq!(old, old_after, "{name}");
            assert!(new.is_empty() || new != new_after, "{name}");
        }
        assert!(!new.is_empty());
    }
}

#[test]
fn an_interrupt_saves_after_the_step_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = tiny(dir.path(), 9);
    std::fs::create_dir_all(dir.path()).unwrap();
    let start = Start::fresh(&config);
    let error = train::run(device(), &config, &data, start, &AtomicBool::new(true)).unwrap_err();
    assert!(matches!(&error, Error::Interrupted(text) if text.contains("--resume")), "{error}");
    assert_eq!(last_checkpoint(dir.path()).meta.step, 1);
    resume(dir.path(), 1, &data, 9);
    let straight = tempfile::tempdir().unwrap();
    let (config, data) = tiny(straight.path(), 9);
    fresh(&config, &data);
    assert_same_tensors(&last_checkpoint(dir.path()), &last_checkpoint(straight.path()));
}

fn trainer(config: &RunConfig) -> Trainer<'static> {
    let model = Start::fresh(config).host.model;
    let trainer = Trainer::new(engine(), kernels(), &model, &config.train, vec![cohorts::first(&model)], 3).unwrap();
    trainer.load_parameters(&init::initial(&model, 1)).unwrap();
    trainer
}

fn batches(config: &RunConfig, data: &Dataset, step: u64) -> Vec<Batch> {
    let batch = |micro| train_batch(&data.train, 9, step * 2 + micro, config.train.batch_size, config.model.seq_length);
    (0..2).map(|micro| batch(micro).unwrap()).collect()
}

/// Whether this adapter can train in mixed precision; GL cannot.
fn has_f16() -> bool {
    let has = engine().gpu.target.f16;
    if !has {
        println!("{} has no f16: nothing to check", engine().gpu.describe());
    }
    has
}

#[test]
fn a_resumed_run_in_mixed_precision_is_the_same_run_with_the_same_loss_scale() {
    if !has_f16() {
        return;
    }
    let [straight, parts] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (mut config, data) = tiny(straight.path(), 8);
    config.train.precision = Precision::F16;
    config.growth = vec![grow_at(5, 48)];
    fresh(&config, &data);
    let (mut config, data) = tiny(parts.path(), 8);
    config.train.precision = Precision::F16;
    config.train.checkpoint_interval = 3;
    config.growth = vec![grow_at(5, 48)];
    fresh(&config, &data);
    resume(parts.path(), 3, &data, 8);
    assert_eq!(curve(straight.path()), curve(parts.path()));
    let [a, b] = [last_checkpoint(straight.path()), last_checkpoint(parts.path())];
    assert_same_tensors(&a, &b);
    assert_eq!(a.meta.loss_scale, Some(LossScale { scale: 65536.0, good_steps: 8 }));
    assert_eq!(a.meta.loss_scale, b.meta.loss_scale);
}

#[test]
fn mixed_precision_follows_f32_and_an_overflow_writes_nothing() {
    if !has_f16() {
        return;
    }
    let (mut config, data) = tiny(Path::new("unused"), 5);
    let single = trainer(&config);
    config.train.precision = Precision::F16;
    let mut mixed = trainer(&config);
    for step in 0..5 {
        let parts = batches(&config, &data, step);
        let (a, b) = (single.step(&parts, step, 1e-3).unwrap(), mixed.step(&parts, step, 1e-3).unwrap());
        assert!((a.loss - b.loss).abs() < 2e-3 && (a.grad_norm / b.grad_norm - 1.0).abs() < 2e-2, "{a:?} {b:?}");
    }
    let before = mixed.parameters().unwrap();
    mixed.loss_scale.scale = 2.0_f32.powi(40);
    let stats = mixed.step(&batches(&config, &data, 5), 5, 1e-3).unwrap();
    assert!(!stats.finite);
    assert_eq!(mixed.parameters().unwrap(), before);
    mixed.loss_scale.scale = 1024.0;
    assert!(mixed.step(&batches(&config, &data, 5), 5, 1e-3).unwrap().finite);
    assert_ne!(mixed.parameters().unwrap(), before);
}

#[test]
fn accumulated_micro_batches_are_one_large_batch() {
    let (config, data) = tiny(Path::new("unused"), 5);
    let (small, mut large_config) = (trainer(&config), config.clone());
    large_config.train.batch_size = 4;
    // Also another chunking of the logits.
    large_config.train.loss_chunk_rows = 7;
    let large = trainer(&large_config);
    for step in 0..3 {
        let parts = batches(&config, &data, step);
        let join = |f: fn(&Batch) -> &Vec<u32>| parts.iter().flat_map(|b| f(b).clone()).collect();
        let whole = Batch { tokens: join(|b| &b.tokens), targets: join(|b| &b.targets) };
        let (a, b) = (small.step(&parts, step, 1e-3).unwrap(), large.step(&[whole], step, 1e-3).unwrap());
        assert!((a.loss - b.loss).abs() < 1e-5 && (a.grad_norm / b.grad_norm - 1.0).abs() < 1e-4, "{a:?} {b:?}");
    }
}

#[test]
fn recomputed_activations_are_the_same_bits_in_less_memory() {
    for preset in ["quickstart", "transformer", "neox"] {
        let (mut config, data) = tiny(Path::new("unused"), 5);
        if preset != "quickstart" {
            config.model.arch = Arch::Transformer;
        }
        config.model.use_parallel_residual = preset == "neox";
        config.model.tie_word_embeddings = preset != "neox";
        config.model.num_layers = 4;
        let kept = trainer(&config);
        config.train.recompute = true;
        let again = trainer(&config);
        for step in 0..3 {
            let parts = batches(&config, &data, step);
            assert_eq!(kept.step(&parts, step, 1e-3).unwrap(), again.step(&parts, step, 1e-3).unwrap());
        }
        assert_eq!(kept.parameters().unwrap(), again.parameters().unwrap());
        let (with, without) = (again.bytes(), kept.bytes());
        assert!(with.activations * 2 < without.activations, "{with:?} {without:?}");
    }
}

/// Pieces are cut by the clock, so where must not matter; nor whether steps are computed twice and compared.
#[test]
fn steps_cut_anywhere_and_verified_steps_give_the_same_bits() {
    use std::time::Duration;
    use tokenformer::{gpu::adapter::AdapterRequest, runtime::device::Device};
    let (config, data) = tiny(Path::new("unused"), 3);
    let model = Start::fresh(&config).host.model;
    let after = |piece: Duration, verified: bool| {
        let Device { engine, kernels, .. } = Device::open(&AdapterRequest::default()).unwrap();
        engine.set_chunk_time(piece);
        let trainer = Trainer::new(&engine, &kernels, &model, &config.train, vec![cohorts::first(&model)], 3).unwrap();
        trainer.load_parameters(&init::initial(&model, 1)).unwrap();
        for step in 0..3 {
            let batches = batches(&config, &data, step);
            if verified {
                trainer.verify(&batches, step).unwrap();
            }
            trainer.step(&batches, step, 1e-3).unwrap();
        }
        (trainer.parameters().unwrap(), trainer.moments().unwrap())
    };
    let whole = after(Duration::from_secs(10), false);
    assert!(after(Duration::from_nanos(1), false) == whole, "a dispatch a submission");
    assert!(after(Duration::from_micros(300), true) == whole, "some dispatches a submission, computed twice");
}

/// Run on a device of its own, so that other tests do not disturb the count.
#[test]
fn memory_is_what_the_plan_says_and_nothing_is_allocated_after_the_first_step() {
    use tokenformer::{gpu::adapter::AdapterRequest, runtime::device::Device};
    let Device { engine, kernels, .. } = Device::open(&AdapterRequest::default()).unwrap();
    // The counter of submissions.
    let before = engine.allocated();
    assert!(before <= 32);
    let (config, data) = tiny(Path::new("unused"), 5);
    let model = Start::fresh(&config).host.model;
    let cohorts = vec![cohorts::first(&model)];
    let plans = RunPlans::new(&model, &config.train, &cohorts, 3, &kernels).unwrap();
    let planned = plans.bytes().unwrap();
    let trainer = Trainer::new(&engine, &kernels, &model, &config.train, cohorts, 3).unwrap();
    assert_eq!(trainer.bytes(), planned);
    // What is not in the plan: uniform blocks and rounding up to 16 bytes.
    let (allocated, uniforms) = (engine.allocated(), trainer.uniform_bytes());
    let slack = allocated as f64 / (planned.total() + uniforms) as f64;
    assert!((1.0..1.02).contains(&slack), "planned {} + {uniforms}, allocated {allocated}", planned.total());
    trainer.load_parameters(&init::initial(&model, 1)).unwrap();
    let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 1 };
    for step in 0..6 {
        trainer.step(&batches(&config, &data, step), step, 1e-3).unwrap();
        trainer.evaluate(&batches(&config, &data, 0)).unwrap();
        trainer.sample(&[1, 2, 3], 60, &sampling).unwrap();
        assert_eq!(engine.allocated(), allocated, "after step {step}");
    }
    drop(trainer);
    assert_eq!(engine.allocated(), before, "everything is freed with the model");
}

/// By wgpu's own account, where its backend keeps one; a model that is large beside the buffers that are always there.
#[test]
fn memory_is_what_the_allocator_reports() {
    use tokenformer::{gpu::adapter::AdapterRequest, runtime::device::Device};
    let Device { engine, kernels, .. } = Device::open(&AdapterRequest::default()).unwrap();
    let reported = || Some(engine.gpu.device.generate_allocator_report()?.total_allocated_bytes);
    let Some(before) = reported() else {
        println!("{} keeps no account of its memory: nothing to compare", engine.gpu.describe());
        return;
    };
    let (mut config, data) = tiny(Path::new("unused"), 5);
    (config.model.hidden_size, config.model.ffn_slot_num, config.train.batch_size) = (256, 2048, 16);
    config.train.total_batch_tokens = 2 * 16 * config.model.seq_length;
    let model = Start::fresh(&config).host.model;
    let trainer = Trainer::new(&engine, &kernels, &model, &config.train, vec![cohorts::first(&model)], 3).unwrap();
    trainer.load_parameters(&init::initial(&model, 1)).unwrap();
    trainer.step(&batches(&config, &data, 0), 0, 1e-3).unwrap();
    let (planned, found) = (trainer.bytes().total(), reported().unwrap() - before);
    let ratio = found as f64 / planned as f64;
    println!("planned {planned} bytes, wgpu allocated {found}: {ratio:.4}");
    assert!((0.98..1.02).contains(&ratio), "planned {planned} bytes, wgpu allocated {found}");
}

#[test]
fn a_step_with_numbers_that_are_not_finite_writes_nothing() {
    let (config, data) = tiny(Path::new("unused"), 5);
    let trainer = trainer(&config);
    let mut params = trainer.parameters().unwrap();
    params.get_mut("norm.weight").unwrap().data[3] = f32::INFINITY;
    trainer.load_parameters(&params).unwrap();
    let stats = trainer.step(&batches(&config, &data, 0), 0, 1e-3).unwrap();
    assert!(!stats.finite);
    assert_eq!(trainer.parameters().unwrap(), params);
    assert!(trainer.moments().unwrap()[0].values().all(|m| m.data.iter().all(|x| *x == 0.0)));
}

#[test]
fn a_run_that_diverges_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = tiny(dir.path(), 20);
    let mut start = Start::fresh(&config);
    start.host.params.get_mut("norm.bias").unwrap().data[0] = f32::NAN;
    let error = train::run(device(), &config, &data, start, &AtomicBool::new(false)).unwrap_err();
    let said = error.to_string();
    assert!(
        error.exit_code() == 4 && said.contains("three steps in a row") && said.contains("\"norm.bias\""),
        "{said}"
    );
}

/// Past the context length the second half is read again; drawn tokens depend on nothing but the seed.
#[test]
fn sampling_goes_on_past_the_context_and_repeats() {
    let (config, _) = tiny(Path::new("unused"), 5);
    let trainer = trainer(&config);
    let sampling = Sampling { temperature: 1.0, top_k: 5, top_p: 0.9, min_p: 0.0, seed: 11 };
    let drawn = trainer.sample(&[1, 2, 3], 100, &sampling).unwrap();
    assert_eq!(drawn.len(), 100);
    assert_eq!(trainer.sample(&[1, 2, 3], 100, &sampling).unwrap(), drawn);
    assert_ne!(trainer.sample(&[1, 2, 3], 100, &Sampling { seed: 12, ..sampling }).unwrap(), drawn);
}
