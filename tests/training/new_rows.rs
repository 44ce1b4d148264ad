//! Training only what a growth added: the same gradients as training everything, less memory and work, and old rows that
//! stay as they are.

use crate::common::{self, device, engine, kernels, small_model, tinyshakespeare};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tokenformer::config::{
    Arch, GrowthConfig, GrowthPolicy, ModelConfig, NormActivation, RunConfig, TrainConfig, TrainRule,
};
use tokenformer::data::{TokenizerKind, train_batch};
use tokenformer::kernel::{KernelTable, Target};
use tokenformer::model::init;
use tokenformer::train::cohorts::{self, Stage};
use tokenformer::train::disk::{Start, dataset};
use tokenformer::train::growth::HostModel;
use tokenformer::train::trainer::{RunPlans, Trainer};
use tokenformer::train::{self, Store, Summary};

/// `growth` of a new model, with only what is new in training; what is new has values of its own already.
fn grown(model: &ModelConfig, growth: GrowthConfig) -> HostModel {
    let growth = GrowthConfig { train: Some(TrainRule::New), ..growth };
    let config = RunConfig { model: model.clone(), ..RunConfig::default() };
    let host = Start::fresh(&config).host.grown(&growth, 5, 7).unwrap();
    HostModel { params: init::initial(&host.model, 9), ..host }
}

fn tokens(policy: GrowthPolicy, qkv: usize, proj: usize, ffn: usize) -> GrowthConfig {
    GrowthConfig {
        policy,
        qkv_slot_num: Some(qkv),
        proj_slot_num: Some(proj),
        ffn_slot_num: Some(ffn),
        ..GrowthConfig::default()
    }
}

fn layers(policy: GrowthPolicy, num_layers: usize) -> GrowthConfig {
    GrowthConfig { policy, num_layers: Some(num_layers), ..GrowthConfig::default() }
}

#[test]
fn gradients_of_new_rows_are_those_of_the_whole_model() {
    let softmax = ModelConfig { norm_activation_type: NormActivation::Softmax, ..small_model() };
    let transformer = ModelConfig { arch: Arch::Transformer, ..small_model() };
    let untied = ModelConfig { tie_word_embeddings: false, ..small_model() };
    let neox =
        ModelConfig { use_parallel_residual: true, attention_bias: false, arch: Arch::Transformer, ..untied.clone() };
    let cases = [
        ("preserving", grown(&small_model(), tokens(GrowthPolicy::Preserving, 14, 12, 41))),
        ("official", grown(&softmax, tokens(GrowthPolicy::Official, 10, 13, 31))),
        ("copies", grown(&small_model(), tokens(GrowthPolicy::Copy, 18, 24, 60))),
        ("layers", grown(&small_model(), layers(GrowthPolicy::Stack, 4))),
        ("a transformer's layers", grown(&transformer, layers(GrowthPolicy::Stack, 4))),
        ("below a head of its own", grown(&untied, tokens(GrowthPolicy::Preserving, 14, 12, 41))),
        ("layers of GPT-NeoX", grown(&neox, layers(GrowthPolicy::Stack, 4))),
    ];
    let data: Vec<u32> = (0..2000_u32).map(|i| (i * i / 7 + i) % 40).collect();
    let data = tokenformer::data::TokenSource::from_tokens(data);
    for (what, host) in cases {
        for (recompute, accum) in [(false, 1), (true, 2)] {
            let total_batch_tokens = 3 * 24 * accum;
            let train = TrainConfig { batch_size: 3, total_batch_tokens, recompute, ..TrainConfig::default() };
            let gradients = |cohorts| {
                let trainer = Trainer::new(engine(), kernels(), &host.model, &train, cohorts, 3).unwrap();
                trainer.load_parameters(&host.params).unwrap();
                let batches: Vec<_> = (0..accum as u64).map(|i| train_batch(&data, 1, i, 3, 24).unwrap()).collect();
                trainer.step(&batches, 5, 1e-3).unwrap();
                (trainer.gradients().unwrap(), trainer.bytes())
            };
            let (all, all_bytes) = gradients(vec![cohorts::first(&host.model)]);
            let (new, new_bytes) = gradients(host.cohorts.clone());
            assert!(new_bytes.gradients < all_bytes.gradients && new_bytes.moments < all_bytes.moments, "{what}");
            let expected = &host.cohorts[1].rows;
            assert!(new.keys().eq(expected.keys()), "{what}: {:?}", new.keys());
            for (name, got) in new {
                let [first, end] = expected[&name];
                assert_eq!(got.shape[0] as u64, end - first, "{what} {name}");
                let want = &all[&name].data[all[&name].data.len() - got.data.len()..];
                let largest = want.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                assert!(largest > 0.0, "{what} {name}: nothing to compare");
                for (got, want) in got.data.iter().zip(want) {
                    assert!((got - want).abs() <= 1e-5 * largest, "{what} {name}: {got} and {want}");
                }
            }
        }
    }
}

fn planned(stage: &Stage, train: &TrainConfig) -> RunPlans {
    let kernels = KernelTable::defaults(Target::WEBGPU);
    RunPlans::new(&stage.model, train, &stage.cohorts, 1, &kernels).unwrap()
}

#[test]
fn memory_and_work_are_those_of_what_trains() {
    let RunConfig { mut model, train, .. } = RunConfig::preset("shakespeare-char").unwrap();
    model.vocab_size = 65;
    model.freeze_tau();
    let (r, c, t) = ((train.batch_size * model.seq_length) as f64, model.hidden_size as f64, model.seq_length as f64);
    let products = |plans: &RunPlans| plans.micro.calls.iter().map(|call| call.flops).sum::<u64>() as f64;
    let accum = train.grad_accum(&model).unwrap() as f64;

    // Twice the tokens: scores and output forward, their gradients back, and the gradients of half the keys and values.
    let [qkv, proj, ffn] = [model.qkv_slot_num, model.proj_slot_num, model.ffn_slot_num];
    let growth =
        GrowthConfig { train: Some(TrainRule::New), ..tokens(GrowthPolicy::Preserving, 2 * qkv, 2 * proj, 2 * ffn) };
    let after = growth.check(&model).unwrap();
    let cohorts = cohorts::grown(&[cohorts::first(&model)], [&model, &after], &growth.resolve(), 5);
    let new = Stage { model: after.clone(), cohorts };
    let all = Stage { cohorts: vec![cohorts::first(&after)], model: after };
    let (new, all) = (planned(&new, &train), planned(&all, &train));
    let slots = (2 * (3 * qkv + proj + ffn)) as f64;
    let product = 2.0 * r * c;
    let per_layer = product * slots * (2.0 + 2.0 + 1.0) + (2.0 + 7.0) * r * t * c;
    // Below the first scores nothing trains; and the embedding, which is the head as well, does not.
    let by_hand = model.num_layers as f64 * per_layer - product * 3.0 * 2.0 * qkv as f64 + 2.0 * product * 65.0;
    let counted = products(&new);
    assert!((counted / by_hand - 1.0).abs() < 0.01, "{counted} by the plan, {by_hand} by hand, {accum} micro-batches");
    assert!(products(&new) < 0.87 * products(&all));
    let (new, all) = (new.bytes().unwrap(), all.bytes().unwrap());
    let of_new = (model.num_layers * 2 * (3 * qkv + proj + ffn) * model.hidden_size * 4) as u64;
    assert_eq!((new.gradients, new.moments), (of_new, 2 * of_new));
    assert!(2 * new.moments < all.moments, "{new:?} {all:?}");
    assert!(new.activations + new.workspace < all.activations + all.workspace, "{new:?} {all:?}");

    // Layers on top: nothing goes back through the old ones, and they save nothing.
    let growth = GrowthConfig { train: Some(TrainRule::New), ..layers(GrowthPolicy::Identity, model.num_layers + 1) };
    let after = growth.check(&model).unwrap();
    let cohorts = cohorts::grown(&[cohorts::first(&model)], [&model, &after], &growth.resolve(), 5);
    let new = planned(&Stage { model: after.clone(), cohorts }, &train);
    let all = planned(&Stage { cohorts: vec![cohorts::first(&after)], model: after }, &train);
    let layers = model.num_layers as f64;
    let forward = product * slots / 2.0 * 2.0 + 2.0 * r * t * c;
    let backward = product * slots / 2.0 * 4.0 + 7.0 * r * t * c;
    // The gradient of the lowest new layer's input is of no use.
    let unread = product * 3.0 * qkv as f64;
    let by_hand = (layers + 1.0) * forward + backward - unread + 2.0 * product * 65.0;
    let counted = products(&new);
    assert!((counted / by_hand - 1.0).abs() < 0.01, "{counted} by the plan, {by_hand} by hand");
    let (new, all) = (new.bytes().unwrap(), all.bytes().unwrap());
    assert!(3 * new.activations < all.activations && 3 * new.moments < all.moments, "{new:?} {all:?}");
}

/// Real text of another kind: the sources of this crate.
/// Parameters and gradients are packed each by themselves, so a whole may end inside a layer's query, key and value.
#[test]
fn wherever_a_whole_of_gradients_ends_the_model_can_be_planned() {
    let model = small_model();
    let growths = [tokens(GrowthPolicy::Preserving, 21, 24, 61), layers(GrowthPolicy::Identity, 5)];
    let transformer = ModelConfig { arch: Arch::Transformer, ..model.clone() };
    for (model, growth) in [(&model, &growths[0]), (&model, &growths[1]), (&transformer, &growths[1])] {
        let HostModel { model, cohorts, .. } = grown(model, growth.clone());
        let train = TrainConfig { batch_size: 1, ..TrainConfig::default() };
        for max_binding in (12 << 10..120 << 10).step_by(1 << 10) {
            let kernels = KernelTable::defaults(Target { max_binding, ..Target::WEBGPU });
            RunPlans::new(&model, &train, &cohorts, 1, &kernels).unwrap();
        }
    }
}

fn sources(dir: &Path) -> PathBuf {
    fn collect(folder: &Path, text: &mut String) {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                collect(&path, text);
            } else {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut text = String::new();
    collect(&common::root().join("src"), &mut text);
    let path = dir.join("sources.txt");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn new_tokens_learn_new_text_and_both_losses_are_told() {
    let Some(shakespeare) = tinyshakespeare() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut config = RunConfig { out_dir: dir.path().join("old"), ..RunConfig::default() };
    config.model = ModelConfig { hidden_size: 32, vocab_size: 0, qkv_slot_num: 16, proj_slot_num: 16, ..small_model() };
    config.train = TrainConfig {
        batch_size: 16,
        max_steps: 200,
        lr: 1e-2,
        eval_interval: 50,
        eval_batches: 10,
        sample_tokens: 0,
        checkpoint_interval: 0,
        ..TrainConfig::default()
    };
    config.data.path = Some(shakespeare.clone());
    config.data.tokenizer = Some(TokenizerKind::Byte);
    let go = |config: &RunConfig, start: Start| -> Summary {
        std::fs::create_dir_all(&config.out_dir).unwrap();
        let data = dataset(config, None).unwrap();
        train::run(device(), config, &data, start, &AtomicBool::new(false)).unwrap()
    };
    config.model.resolve_vocab(256).unwrap();
    go(&config, Start::fresh(&config));
    let known = Store::new(&config.out_dir).latest().unwrap().found.unwrap().1;
    let known = Start::resumed(known).unwrap().0;

    let adapted = |rule: TrainRule, name: &str| {
        let growth = GrowthConfig { train: Some(rule), ..tokens(GrowthPolicy::Preserving, 32, 32, 60) };
        let mut start = known.clone();
        start.host = known.host.grown(&growth, 200, 1).unwrap();
        let mut config = RunConfig { out_dir: dir.path().join(name), ..config.clone() };
        config.model = start.host.model.clone();
        config.train.max_steps = 400;
        config.data.path = Some(sources(dir.path()));
        config.data.old_path = Some(shakespeare.clone());
        let before = start.host.clone();
        let summary = go(&config, start);
        let after = Store::new(&config.out_dir).latest().unwrap().found.unwrap().1;
        (summary.both_losses.unwrap(), before, after)
    };
    let ([_, all], _, _) = adapted(TrainRule::All, "all");
    let ([first, new], before, after) = adapted(TrainRule::New, "new");
    println!("old and new text before {first:?}, all trained {all:?}, only new tokens {new:?}");
    assert_eq!((first.step, new.step), (200, 400));
    // Which of the two forgets less differs from seed to seed; that the old text is not what trains shows in both.
    for last in [all, new] {
        assert!(last.val_loss < first.val_loss - 0.5, "{first:?} {last:?}");
        assert!(last.old_val_loss > first.old_val_loss + 0.05, "{first:?} {last:?}");
    }
    for (name, tensor) in &before.params {
        let row: usize = tensor.shape.iter().skip(1).product();
        let old = before.cohorts[1].rows.get(name).map_or(tensor.data.len(), |rows| rows[0] as usize * row);
        assert_eq!(tensor.data[..old], after.params[name].data[..old], "{name}");
        assert!(after.moment1[name].data[..old].iter().all(|&x| x == 0.0), "{name}");
        assert!(after.moment1[name].data[old..].iter().all(|&x| x != 0.0), "{name}");
    }
}
