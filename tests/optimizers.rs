//! Muon and the moving average of the parameters in training: what a step does to each parameter, across growths, resumed at any
//! step, and in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{device, engine, kernels, small_model};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tokenformer::config::{
    Arch, GrowthConfig, GrowthPolicy, ModelConfig, MuonAdjust, Optimizer, Precision, RunConfig, TrainConfig, TrainRule,
};
use tokenformer::data::{Batch, Dataset, TokenSource, train_batch};
use tokenformer::model::init::Tensors;
use tokenformer::ops::muon::orthogonalized;
use tokenformer::train::cohorts;
use tokenformer::train::disk::{Start, dataset};
use tokenformer::train::evaluate::Evaluator;
use tokenformer::train::growth::HostModel;
use tokenformer::train::trainer::{RunPlans, Trainer};
use tokenformer::train::{self, Checkpoint, Store, Summary};

fn small(arch: Arch) -> ModelConfig {
    ModelConfig { arch, ..small_model() }
}

fn muon() -> TrainConfig {
    TrainConfig { batch_size: 3, optimizer: Optimizer::Muon, ..TrainConfig::default() }
}

fn start(model: &ModelConfig) -> HostModel {
    Start::fresh(&RunConfig { model: model.clone(), ..RunConfig::default() }).host
}

fn source() -> TokenSource {
    TokenSource::from_tokens((0..2000_u32).map(|i| (i * i / 7 + i) % 40).collect())
}

fn batches(train: &TrainConfig, step: u64) -> Vec<Batch> {
    let count = (train.total_batch_tokens / (train.batch_size * 24)).max(1) as u64;
    (0..count).map(|i| train_batch(&source(), 1, step * count + i, train.batch_size, 24).unwrap()).collect()
}

fn trainer(host: &HostModel, train: &TrainConfig) -> Trainer<'static> {
    let trainer = Trainer::new(engine(), kernels(), &host.model, train, host.cohorts.clone(), 3).unwrap();
    trainer.load_parameters(&host.params).unwrap();
    trainer
}

/// What two steps of Muon do to a matrix, whose trained rows are `first..` (all before are frozen), in f64.
fn stepped(
    start: &[f32],
    grads: &[(Vec<f32>, f64)],
    columns: usize,
    first: usize,
    train: &TrainConfig,
    rates: impl Fn(usize) -> f64,
) -> Vec<f64> {
    let mut p: Vec<f64> = start.iter().map(|x| f64::from(*x)).collect();
    let rows = p.len() / columns - first;
    let mut m = vec![0.0; rows * columns];
    for (grad, clip) in grads {
        let grad = &grad[grad.len() - m.len()..];
        let mu = train.muon_momentum;
        let mut nesterov = Vec::new();
        for (m, g) in m.iter_mut().zip(grad) {
            let g = f64::from(*g) * clip;
            *m = mu * *m + (1.0 - mu) * g;
            nesterov.push((1.0 - mu) * g + mu * *m);
        }
        let adjust = 0.2 * (rows.max(columns) as f64).sqrt();
        for (i, o) in orthogonalized(&nesterov, [rows, columns]).into_iter().enumerate() {
            let (at, lr) = (first * columns + i, train.lr * rates(first + i / columns));
            p[at] = p[at] * (1.0 - lr * train.weight_decay) - lr * adjust * o;
        }
    }
    p
}

/// Two steps on the device, and their gradients with what they are clipped by.
fn two_steps(trainer: &Trainer, train: &TrainConfig) -> BTreeMap<String, Vec<(Vec<f32>, f64)>> {
    let mut all: BTreeMap<String, Vec<(Vec<f32>, f64)>> = BTreeMap::new();
    for step in 10..12 {
        let stats = trainer.step(&batches(train, step), step, train.lr).unwrap();
        let clip = (train.grad_clip / f64::from(stats.grad_norm)).min(1.0);
        for (name, grad) in trainer.gradients().unwrap() {
            all.entry(name).or_default().push((grad.data, clip));
        }
    }
    all
}

#[track_caller]
fn assert_close(name: &str, start: &[f32], found: &[f32], wanted: &[f64]) {
    let moved = found.iter().zip(start).map(|(x, s)| f64::from(*x) - f64::from(*s));
    let expected = wanted.iter().zip(start).map(|(x, s)| x - f64::from(*s));
    let largest = expected.clone().fold(0.0_f64, |most, x| most.max(x.abs()));
    let off = moved.zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    // Of the update, as in tests/golden/optimizers.rs, and a rounding of the parameter itself.
    assert!(off < 1e-3 * largest + 2e-7 && largest > 0.0, "{name}: off by {off:e} of {largest:e}");
}

/// Also what it leaves to AdamW, which does with it what it does alone.
#[test]
fn muon_updates_the_matrices_of_layers_and_adamw_all_else() {
    for arch in [Arch::Tokenformer, Arch::Transformer] {
        let host = start(&small(arch));
        let train = muon();
        let trainer_of_both = trainer(&host, &train);
        let grads = two_steps(&trainer_of_both, &train);
        let params = trainer_of_both.parameters().unwrap();
        let [m, v] = trainer_of_both.moments().unwrap();
        let mut hidden = 0;
        for parameter in host.model.parameters() {
            let name = &parameter.name;
            let (old, new) = (&host.params[name].data, &params[name].data);
            assert!(m[name].data.iter().any(|x| *x != 0.0), "{name}");
            let second = v[name].data.iter().any(|x| *x != 0.0);
            if parameter.role.is_hidden_matrix() {
                let wanted = stepped(old, &grads[name], parameter.shape[1], 0, &train, |_| 1.0);
                assert_close(name, old, new, &wanted);
                assert!(!second, "{name} has a second moment");
                hidden += 1;
            } else {
                assert!(second, "{name} has no second moment");
            }
        }
        assert_eq!(hidden, if arch == Arch::Tokenformer { 20 } else { 12 });
        // One step from the same parameters has the same gradients whoever makes it.
        let one = |optimizer| {
            let train = TrainConfig { optimizer, ..muon() };
            let trainer = trainer(&host, &train);
            trainer.step(&batches(&train, 0), 0, 1e-2).unwrap();
            trainer.parameters().unwrap()
        };
        let (with, without) = (one(Optimizer::Muon), one(Optimizer::Adamw));
        for parameter in host.model.parameters() {
            let same = with[&parameter.name] == without[&parameter.name];
            assert_eq!(same, !parameter.role.is_hidden_matrix(), "{}", parameter.name);
        }
    }
}

fn tokens(train: TrainRule, lr_scale: f64) -> GrowthConfig {
    let (qkv_slot_num, proj_slot_num, ffn_slot_num) = (Some(14), Some(12), Some(41));
    let (train, lr_scale, policy) = (Some(train), Some(lr_scale), GrowthPolicy::Official);
    GrowthConfig { policy, qkv_slot_num, proj_slot_num, ffn_slot_num, train, lr_scale, ..GrowthConfig::default() }
}

/// Rows that are frozen have no share in what is made orthogonal; rows that train are one matrix whatever their age, and each
/// has the learning rate of its cohort.
#[test]
fn grown_rows_are_updated_with_the_old_ones_or_alone() {
    for (rule, scale) in [(TrainRule::All, 0.5), (TrainRule::New, 1.0), (TrainRule::New, 0.25)] {
        let before = small(Arch::Tokenformer);
        let host = start(&before).grown(&tokens(rule, scale), 5, 7).unwrap();
        let train = muon();
        let trainer = trainer(&host, &train);
        let grads = two_steps(&trainer, &train);
        let params = trainer.parameters().unwrap();
        let old_rows: BTreeMap<String, usize> =
            before.param_shapes().into_iter().map(|(name, shape)| (name, shape[0])).collect();
        for parameter in host.model.parameters().into_iter().filter(|p| p.role.is_hidden_matrix()) {
            let (name, old) = (&parameter.name, old_rows[&parameter.name]);
            let (from, to) = (&host.params[name].data, &params[name].data);
            if rule == TrainRule::New && old == parameter.shape[0] {
                assert_eq!(from, to, "{name} is frozen");
                continue;
            }
            let first = if rule == TrainRule::New { old } else { 0 };
            let rate = |row: usize| if row < old { 1.0 } else { scale };
            let wanted = stepped(from, &grads[name], parameter.shape[1], first, &train, rate);
            assert_close(name, from, to, &wanted);
            let frozen = first * parameter.shape[1];
            assert_eq!(from[..frozen], to[..frozen], "{name}: frozen rows");
        }
    }
}

#[test]
fn muon_makes_the_same_bits_with_recomputation_and_adds_leaves_as_adamw_does() {
    for arch in [Arch::Tokenformer, Arch::Transformer] {
        let host = start(&small(arch));
        let after = |train: &TrainConfig| {
            let trainer = trainer(&host, train);
            for step in 0..3 {
                trainer.step(&batches(train, step), step, 1e-2).unwrap();
            }
            (trainer.parameters().unwrap(), trainer.moments().unwrap())
        };
        let train = TrainConfig { total_batch_tokens: 4 * 3 * 24, ..muon() };
        let plain = after(&train);
        assert!(after(&train) == plain);
        assert!(after(&TrainConfig { recompute: true, ..train.clone() }) == plain);
        let leaves = after(&TrainConfig { gradient_leaves: 4, ..train });
        for (name, tensor) in &plain.0 {
            let off = tensor.data.iter().zip(&leaves.0[name].data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-3, "{name}: {off}");
        }
    }
}

#[test]
fn muon_in_mixed_precision_keeps_the_copies_of_its_matrices() {
    if !engine().gpu.target.f16 {
        println!("{} has no f16: nothing to check", engine().gpu.describe());
        return;
    }
    let host = start(&small(Arch::Tokenformer));
    let train = TrainConfig { precision: Precision::F16, ..muon() };
    let trainer = trainer(&host, &train);
    let losses = |trainer: &Trainer| {
        (0..2).map(|step| trainer.step(&batches(&train, step), step, 0.0).unwrap().loss.to_bits()).collect::<Vec<_>>()
    };
    trainer.step(&batches(&train, 9), 9, 1e-2).unwrap();
    let kept = losses(&trainer);
    // Copies made anew of the parameters are those that the update kept.
    trainer.load_parameters(&trainer.parameters().unwrap()).unwrap();
    assert_eq!(losses(&trainer), kept);
}

/// The average of the first updates is made of few parameters, and evaluations are of it.
#[test]
fn averages_follow_the_parameters_and_are_what_is_evaluated() {
    let host = start(&small(Arch::Tokenformer));
    let train = TrainConfig { batch_size: 3, ema_decay: 0.5, ..TrainConfig::default() };
    let trainer = trainer(&host, &train);
    let mut average: BTreeMap<String, Vec<f64>> = host
        .params
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.data.iter().map(|x| f64::from(*x)).collect()))
        .collect();
    for step in 0..12_u64 {
        trainer.step(&batches(&train, step), step, 1e-2).unwrap();
        let t = step as f64 + 1.0;
        let decay = ((1.0 + t) / (10.0 + t)).min(0.5);
        for (name, tensor) in trainer.parameters().unwrap() {
            let average = average.get_mut(&name).unwrap();
            average.iter_mut().zip(&tensor.data).for_each(|(e, p)| *e = decay * *e + (1.0 - decay) * f64::from(*p));
        }
    }
    let (params, averages) = (trainer.parameters().unwrap(), trainer.averages().unwrap());
    for (name, wanted) in &average {
        let found = &averages[name].data;
        let off = found.iter().zip(wanted).map(|(x, y)| (f64::from(*x) - y).abs()).fold(0.0, f64::max);
        assert!(off < 1e-6, "{name}: {off:e}");
        assert_ne!(*found, params[name].data, "{name}");
    }
    let evaluated = trainer.evaluate(&batches(&train, 99)).unwrap();
    let evaluator = Evaluator::new(device(), &host.model, &train).unwrap();
    let mean = |params: &Tensors| evaluator.mean(params, &batches(&train, 99)).unwrap();
    assert_eq!(evaluated.to_bits(), mean(&averages).to_bits());
    assert_ne!(evaluated.to_bits(), mean(&params).to_bits());
}

/// A step that went bad changes neither parameters nor averages.
#[test]
fn bad_steps_change_no_average_and_no_momentum() {
    let mut host = start(&small(Arch::Tokenformer));
    let train = TrainConfig { ema_decay: 0.9, ..muon() };
    let trainer = trainer(&host, &train);
    trainer.step(&batches(&train, 0), 0, 1e-2).unwrap();
    let state = |trainer: &Trainer| (trainer.averages().unwrap(), trainer.moments().unwrap());
    let before = state(&trainer);
    host.params = trainer.parameters().unwrap();
    host.params.get_mut("norm.weight").unwrap().data[3] = f32::INFINITY;
    let averages = trainer.averages().unwrap();
    trainer.load_parameters(&host.params).unwrap();
    trainer.load_averages(&averages).unwrap();
    let stats = trainer.step(&batches(&train, 1), 1, 1e-2).unwrap();
    assert!(!stats.finite && state(&trainer) == before);
}

#[test]
fn memory_is_planned() {
    let model = small(Arch::Tokenformer);
    let bytes = |train: &TrainConfig| {
        let cohorts = [cohorts::first(&model)];
        RunPlans::new(&model, train, &cohorts, 3, kernels()).unwrap().bytes().unwrap()
    };
    let plain = bytes(&TrainConfig { batch_size: 3, ..TrainConfig::default() });
    let averaged = bytes(&TrainConfig { batch_size: 3, ema_decay: 0.9, ..TrainConfig::default() });
    assert_eq!((plain.averages, averaged.averages), (0, plain.parameters));
    assert_eq!(averaged.total(), plain.total() + plain.parameters);
    let muon = bytes(&muon());
    let hidden: usize = model
        .parameters()
        .iter()
        .filter(|p| p.role.is_hidden_matrix())
        .map(|p| p.shape.iter().product::<usize>().next_multiple_of(128))
        .sum();
    assert_eq!(muon.moments, plain.moments - 4 * hidden as u64);
    let host = start(&model);
    for train in [TrainConfig { ema_decay: 0.9, ..self::muon() }, self::muon()] {
        assert_eq!(trainer(&host, &train).bytes(), bytes(&train));
    }
}

fn tiny(dir: &Path, train: TrainConfig) -> (RunConfig, Dataset) {
    let mut config = RunConfig { out_dir: dir.to_path_buf(), model: small(Arch::Tokenformer), ..RunConfig::default() };
    config.model.vocab_size = 0;
    config.train = TrainConfig {
        batch_size: 2,
        max_steps: 12,
        eval_interval: 3,
        eval_batches: 2,
        sample_tokens: 5,
        checkpoint_interval: 1,
        keep_last: 100,
        ..train
    };
    config.data.corpus_sentences = 500;
    let data = dataset(&config, None).unwrap();
    config.model.resolve_vocab(data.vocab_size).unwrap();
    (config, data)
}

fn go(config: &RunConfig, data: &Dataset, start: Start) -> Summary {
    std::fs::create_dir_all(&config.out_dir).unwrap();
    config.validate().unwrap();
    train::run(device(), config, data, start, &AtomicBool::new(false)).unwrap()
}

/// As `go`, from the checkpoint of a step in another directory.
fn resumed(from: &Path, step: u64, into: &Path, data: &Dataset, change: impl Fn(&mut TrainConfig)) -> Checkpoint {
    let path = from.join(format!("checkpoints/step-{step:08}.safetensors"));
    let (start, mut config) = Start::resumed(Checkpoint::read(&path).unwrap()).unwrap();
    config.out_dir = into.to_path_buf();
    change(&mut config.train);
    go(&config, data, start);
    last(into)
}

fn last(dir: &Path) -> Checkpoint {
    Store::new(dir).latest().unwrap().found.unwrap().1
}

#[test]
fn runs_with_muon_and_an_average_resume_to_the_same_bits_across_growths() {
    let dir = tempfile::tempdir().unwrap();
    let (mut config, data) =
        tiny(dir.path(), TrainConfig { ema_decay: 0.95, muon_adjust: MuonAdjust::Original, muon_lr: 0.01, ..muon() });
    let grow = |at_step, ffn, train| GrowthConfig {
        at_step,
        ffn_slot_num: Some(ffn),
        train: Some(train),
        ..GrowthConfig::default()
    };
    config.growth = vec![grow(4, 50, TrainRule::New), grow(8, 64, TrainRule::All)];
    let summary = go(&config, &data, Start::fresh(&config));
    let straight = last(dir.path());
    assert!(!straight.averages.is_empty() && straight.averages != straight.params);
    // What is measured of a growth is the average, which a preserving growth preserves as it does the parameters.
    assert!(summary.growths.iter().all(|g| g.max_logit_change == 0.0 && g.loss_before == g.loss_after));
    for step in [1, 4, 6, 11] {
        let into = tempfile::tempdir().unwrap();
        let found = resumed(dir.path(), step, into.path(), &data, |_| ());
        assert!(found.params == straight.params, "parameters, resumed after step {step}");
        assert!(found.averages == straight.averages, "averages, resumed after step {step}");
        assert!((found.moment1, found.moment2) == (straight.moment1.clone(), straight.moment2.clone()));
        assert_eq!(found.meta.best_val_loss, straight.meta.best_val_loss);
    }
}

#[test]
fn an_average_can_begin_and_end_with_a_resume_and_so_can_muon() {
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [first, averaged, without, other] = [0, 1, 2, 3].map(|i| dirs[i].path());
    let (config, data) = tiny(first, TrainConfig { max_steps: 12, ..TrainConfig::default() });
    go(&config, &data, Start::fresh(&config));
    let plain = last(first);
    assert!(plain.averages.is_empty());
    let found = resumed(first, 6, averaged, &data, |train| train.ema_decay = 0.9);
    assert!(!found.averages.is_empty() && found.params == plain.params, "an average changes no training");
    let found = resumed(averaged, 9, without, &data, |train| train.ema_decay = 0.0);
    assert!(found.averages.is_empty() && found.params == plain.params);
    // Moments begin again, and none of them is of two optimizers.
    let found = resumed(first, 6, other, &data, |train| train.optimizer = Optimizer::Muon);
    assert!(found.meta.cohorts.iter().all(|cohort| cohort.born_step == 6));
    assert!(found.moment2["layers.0.mlp.key_param_tokens"].data.iter().all(|x| *x == 0.0));
    assert!(found.moment2["word_embeddings.weight"].data.iter().any(|x| *x != 0.0));
}
