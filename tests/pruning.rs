//! Pruning on a device: it takes back a growth in every bit, its scores are derivatives, and on real text they are worth
//! more than chance.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{device, tinyshakespeare};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use tokenformer::config::{GrowthConfig, ModelConfig, NormActivation, PruneTo, RunConfig, TrainConfig};
use tokenformer::data::{Batch, Dataset, train_batch, validation_batches};
use tokenformer::model::prune::{self, Scores};
use tokenformer::train::disk::{Start, dataset};
use tokenformer::train::evaluate::{Evaluator, logits};
use tokenformer::train::growth::HostModel;
use tokenformer::train::prune::contributions;
use tokenformer::train::{self, Store};

/// A run of some seconds on a software adapter, on the text at `path` or the built-in corpus.
fn small(path: Option<PathBuf>) -> (RunConfig, Dataset) {
    let model = ModelConfig {
        num_layers: 2,
        hidden_size: 32,
        num_attention_heads: 2,
        seq_length: 32,
        qkv_slot_num: 32,
        proj_slot_num: 32,
        ffn_slot_num: 64,
        ..ModelConfig::default()
    };
    let train = TrainConfig {
        batch_size: 8,
        max_steps: 400,
        lr: 3e-3,
        eval_interval: 0,
        eval_batches: 16,
        sample_interval: 0,
        sample_tokens: 0,
        checkpoint_interval: 0,
        ..TrainConfig::default()
    };
    let mut config = RunConfig { model, train, ..RunConfig::default() };
    config.data.path = path;
    config.data.corpus_sentences = 500;
    let data = dataset(&config, None).unwrap();
    config.model.resolve_vocab(data.vocab_size).unwrap();
    config.model.freeze_tau();
    (config, data)
}

fn pruned(host: &HostModel, scores: &Scores, to: PruneTo) -> HostModel {
    let smaller = to.check(&host.model).unwrap();
    host.pruned(&prune::kept(scores, &smaller), &smaller)
}

fn loss(host: &HostModel, train: &TrainConfig, batches: &[Batch]) -> f64 {
    Evaluator::new(device(), &host.model, train).unwrap().mean(&host.params, batches).unwrap()
}

fn training_batches(config: &RunConfig, data: &Dataset, count: u64) -> Vec<Batch> {
    let (train, seq) = (&config.train, config.model.seq_length);
    (0..count).map(|at| train_batch(&data.train, train.seed, at, train.batch_size, seq).unwrap()).collect()
}

#[test]
fn a_preserving_growth_is_taken_back_with_the_same_logits() {
    for norm in [NormActivation::L2NormGelu, NormActivation::GeluL2Norm] {
        let (mut config, data) = small(None);
        config.model.norm_activation_type = norm;
        // In one of the two the head is a parameter of its own.
        config.model.tie_word_embeddings = norm == NormActivation::L2NormGelu;
        let before = Start::fresh(&config).host;
        let [qkv_slot_num, proj_slot_num, ffn_slot_num] = [Some(45), Some(33), Some(100)];
        let growth = GrowthConfig { qkv_slot_num, proj_slot_num, ffn_slot_num, ..GrowthConfig::default() };
        let grown = before.grown(&growth, 3, 1).unwrap();
        let back = PruneTo::Slots([Some(32), Some(32), Some(64)]);
        let tokens = data.val.window(0, 32).unwrap();
        let of = |host: &HostModel| logits(device(), &host.model, &host.params, &tokens).unwrap();
        let bits = |host: &HostModel| of(host).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let taken_back = pruned(&grown, &prune::weight(&grown.model, &grown.params), back);
        assert_eq!((&taken_back.params, &taken_back.model), (&before.params, &before.model));
        assert_eq!(bits(&taken_back), bits(&before));
        // Nor does what is in between change anything: new tokens are the last to stay.
        let part =
            pruned(&grown, &prune::weight(&grown.model, &grown.params), PruneTo::Slots([Some(40), None, Some(70)]));
        assert_eq!(bits(&part), bits(&before));
        // Others are missed.
        let random = pruned(&grown, &prune::random(&grown.model, 1), back);
        assert_ne!(bits(&random), bits(&before));
    }
}

#[test]
fn a_contribution_is_the_derivative_of_the_loss() {
    let (config, data) = small(None);
    let host = Start::fresh(&config).host;
    let batches = training_batches(&config, &data, 2);
    let scores = contributions(device(), &host, &config.train, &batches).unwrap();
    let (name, width, step) = ("layers.1.attention.value", 32, 0.1_f32);
    let mut order: Vec<usize> = (0..32).collect();
    order.sort_by(|&a, &b| scores[name][b].total_cmp(&scores[name][a]));
    for &token in &order[..3] {
        // The central difference of the loss as the value of the token shrinks and grows, batch by batch.
        let at = |factor: f32, batch: &Batch| {
            let mut other = host.clone();
            let values = &mut other.params.get_mut(&prune::values(name)).unwrap().data;
            values[token * width..(token + 1) * width].iter_mut().for_each(|v| *v *= factor);
            loss(&other, &config.train, std::slice::from_ref(batch))
        };
        let slope = |batch: &Batch| ((at(1.0 + step, batch) - at(1.0 - step, batch)) / f64::from(2.0 * step)).abs();
        let expected = batches.iter().map(slope).sum::<f64>() / 2.0;
        assert!((scores[name][token] / expected - 1.0).abs() < 0.05, "{}: {expected}", scores[name][token]);
    }
}

#[test]
fn on_real_text_a_score_loses_less_than_chance_and_training_goes_on() {
    let Some(text) = tinyshakespeare() else { return };
    let (mut config, data) = small(Some(text));
    let dir = tempfile::tempdir().unwrap();
    config.out_dir = dir.path().join("whole");
    std::fs::create_dir_all(&config.out_dir).unwrap();
    let go = |config: &RunConfig, start| train::run(device(), config, &data, start, &AtomicBool::new(false)).unwrap();
    let trained = go(&config, Start::fresh(&config));
    let (_, checkpoint) = Store::new(&config.out_dir).latest().unwrap().found.unwrap();
    let (mut start, mut config) = Start::resumed(checkpoint).unwrap();
    let host = start.host.clone();
    let val =
        validation_batches(&data.val, 16 * config.train.batch_size, config.train.batch_size, config.model.seq_length)
            .unwrap();
    let half = |scores: &Scores| loss(&pruned(&host, scores, PruneTo::Share(0.5)), &config.train, &val);
    let contribution = contributions(device(), &host, &config.train, &training_batches(&config, &data, 16)).unwrap();
    let by_contribution = half(&contribution);
    let by_weight = half(&prune::weight(&host.model, &host.params));
    let by_chance: Vec<f64> = (0..3).map(|seed| half(&prune::random(&host.model, seed))).collect();
    println!(
        "{:.4}; by contribution {by_contribution:.4}, weight {by_weight:.4}, chance {by_chance:.4?}",
        trained.val_loss
    );
    let best_chance = by_chance.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(by_contribution < best_chance && by_weight < best_chance);
    assert!(by_contribution > trained.val_loss);

    start.host = pruned(&host, &contribution, PruneTo::Share(0.5));
    (config.model, config.out_dir, config.train.max_steps) = (start.host.model.clone(), dir.path().join("half"), 500);
    std::fs::create_dir_all(&config.out_dir).unwrap();
    let healed = go(&config, start);
    assert!(healed.steps == 500 && healed.val_loss < by_contribution, "{healed:?}");
    assert!(healed.parameters < trained.parameters);
}
