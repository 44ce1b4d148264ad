//! What must hold without any stored value: invariances of Pattention, growth that changes nothing, chunked generation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Ran, backward, device, engine, is_full, kernels, words};
use tokenformer::config::{Arch, GrowthConfig, GrowthPolicy, ModelConfig, NormActivation, TrainConfig};
use tokenformer::data::Batch;
use tokenformer::graph::Graph;
use tokenformer::graph::plan::Plan;
use tokenformer::model::init::Tensors;
use tokenformer::model::{graphs, grow, init};
use tokenformer::ops::pattention::{Settings, Tokens, pattention};
use tokenformer::rng::{Rng, Stream};
use tokenformer::runtime::generate::feed_chunk;
use tokenformer::runtime::memory::Memory;
use tokenformer::train::cohorts;
use tokenformer::train::evaluate::logits;
use tokenformer::train::trainer::{Trainer, upload_parameters, upload_rope};

const ROWS: usize = 19;
const WIDTH: usize = 24;
const SLOTS: usize = 70;

fn random(name: &str, n: usize) -> Vec<f32> {
    Rng::named(5, Stream::Test, name).normals(n, 1.0)
}

/// Output and gradients of one Pattention with eps = 0.
struct Outcome {
    y: Vec<f32>,
    dx: Vec<f32>,
    dkeys: Vec<f32>,
}

fn attend(norm: NormActivation, x: &[f32], keys: &[f32], values: &[f32]) -> Outcome {
    let slots = keys.len() / WIDTH;
    let mut g = Graph::training(kernels());
    let [px, pk, pv] =
        [("x", ROWS), ("keys", slots), ("values", slots)].map(|(name, rows)| g.parameter(name, &[rows, WIDTH]));
    // tau is that of SLOTS tokens, whatever number there is now.
    let settings = Settings { norm, tau: (SLOTS as f64).sqrt(), eps: 0.0, gelu_tanh: false, zeros_rest: false };
    let y = pattention(&mut g, px, Tokens { keys: pk, values: pv }, settings).unwrap();
    backward(&mut g, y).unwrap();
    g.keep(y, "y");
    let upstream = words(&random("upstream", ROWS * WIDTH));
    let given = [("x", words(x)), ("keys", words(keys)), ("values", words(values)), ("upstream", upstream)];
    let ran = Ran::new(&g, &given).unwrap();
    Outcome { y: ran.read("y"), dx: ran.read("grad:x"), dkeys: ran.read("grad:keys") }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn size(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

#[test]
fn l2_norm_gelu_does_not_see_the_length_of_keys_or_inputs() {
    let (x, keys, values) = (random("x", ROWS * WIDTH), random("k", SLOTS * WIDTH), random("v", SLOTS * WIDTH));
    let norm = NormActivation::L2NormGelu;
    let plain = attend(norm, &x, &keys, &values);
    // Powers of two scale exactly, so the result has the same bits.
    let doubled: Vec<f32> = keys.iter().map(|k| k * 4.0).collect();
    assert_eq!(attend(norm, &x, &doubled, &values).y, plain.y);
    let halved: Vec<f32> = x.iter().enumerate().map(|(i, v)| if i < WIDTH { v * 0.5 } else { *v }).collect();
    assert_eq!(attend(norm, &halved, &keys, &values).y, plain.y);
    // So gradients are orthogonal to what they belong to.
    assert!(dot(&keys, &plain.dkeys).abs() < 1e-5 * size(&keys) * size(&plain.dkeys));
    for (row, drow) in x.chunks(WIDTH).zip(plain.dx.chunks(WIDTH)) {
        assert!(dot(row, drow).abs() < 1e-5 * size(row) * size(drow));
    }
    // The other forms do see it: the test can fail.
    let softmax = attend(NormActivation::Softmax, &x, &keys, &values);
    assert!(dot(&keys, &softmax.dkeys).abs() > 1e-3 * size(&keys) * size(&softmax.dkeys));
}

#[test]
fn zero_keys_change_no_bit_in_both_l2_forms_and_do_in_softmax() {
    let (x, keys, values) = (random("x", ROWS * WIDTH), random("k", SLOTS * WIDTH), random("v", SLOTS * WIDTH));
    for added in [1, 3, 58, 64] {
        let more_keys = [keys.clone(), vec![0.0; added * WIDTH]].concat();
        let more_values = [values.clone(), random("new", added * WIDTH)].concat();
        for norm in [NormActivation::L2NormGelu, NormActivation::GeluL2Norm] {
            assert_eq!(attend(norm, &x, &more_keys, &more_values).y, attend(norm, &x, &keys, &values).y, "{added}");
        }
        let softmax = NormActivation::Softmax;
        assert_ne!(attend(softmax, &x, &more_keys, &more_values).y, attend(softmax, &x, &keys, &values).y);
    }
}

fn small(seed: u64) -> ModelConfig {
    let mut rng = Rng::new(seed, Stream::Test, 1);
    let mut pick = |kernels: &[usize]| kernels[rng.below(kernels.len() as u64) as usize];
    let heads = pick(&[1, 2, 3]);
    let mut model = ModelConfig {
        vocab_size: pick(&[5, 61, 130]),
        num_layers: pick(&[1, 2]),
        hidden_size: heads * pick(&[8, 16, 24]),
        num_attention_heads: heads,
        seq_length: pick(&[4, 17, 33]),
        qkv_slot_num: pick(&[3, 16, 40]),
        proj_slot_num: pick(&[7, 32]),
        ffn_slot_num: pick(&[9, 64, 100]),
        norm_activation_type: [NormActivation::L2NormGelu, NormActivation::GeluL2Norm][pick(&[0, 1])],
        ..ModelConfig::default()
    };
    model.freeze_tau();
    model.validate().unwrap();
    model
}

/// Random models to try; `TOKENFORMER_TEST_FULL=1` asks for the full form.
fn models() -> u64 {
    if is_full() { 100 } else { 20 }
}

#[test]
fn growing_random_models_changes_no_logit() {
    for seed in 0..models() {
        let model = ModelConfig { tie_word_embeddings: seed % 2 == 0, ..small(seed) };
        let mut rng = Rng::new(seed, Stream::Test, 2);
        let mut more = |n: usize| Some(n + rng.below(70) as usize);
        let growth = GrowthConfig {
            qkv_slot_num: more(model.qkv_slot_num),
            proj_slot_num: more(model.proj_slot_num),
            ffn_slot_num: more(model.ffn_slot_num + 1),
            ..GrowthConfig::default()
        };
        // Larger than at initialisation, so that every module matters.
        let mut params = init::initial(&model, seed);
        for tensor in params.values_mut() {
            tensor.data.iter_mut().for_each(|x| *x *= 4.0);
        }
        let after = growth.check(&model).unwrap();
        let grown = grow::parameters(&params, &model, &after, &growth.resolve(), seed);
        let tokens: Vec<u32> = (0..model.seq_length).map(|i| (i * 7 % model.vocab_size) as u32).collect();
        let before = logits(device(), &model, &params, &tokens).unwrap();
        assert!(before.iter().all(|x| x.is_finite()) && size(&before) > 0.0);
        assert_eq!(logits(device(), &after, &grown, &tokens).unwrap(), before, "seed {seed}: {model:?} to {after:?}");
        let official = GrowthConfig { policy: GrowthPolicy::Official, ..growth };
        let after = official.check(&model).unwrap();
        let grown = grow::parameters(&params, &model, &after, &official.resolve(), seed);
        assert_ne!(logits(device(), &after, &grown, &tokens).unwrap(), before, "seed {seed}");
    }
}

fn transformer(seed: u64) -> ModelConfig {
    let mut rng = Rng::new(seed, Stream::Test, 3);
    let intermediate_size = 5 + rng.below(90) as usize;
    ModelConfig { arch: Arch::Transformer, intermediate_size, ..small(seed) }
}

/// A Transformer with some of the options of GPT-NeoX: every seed other ones.
fn neox(seed: u64) -> ModelConfig {
    let has = |option: u64| (seed % 7 + 1) & option != 0;
    ModelConfig {
        use_parallel_residual: has(1),
        tie_word_embeddings: !has(2),
        attention_bias: !has(4),
        gelu_tanh: seed.is_multiple_of(2),
        ..transformer(seed)
    }
}

/// As at creation, but with biases: larger ones would make of roundings more than they are.
fn random_parameters(model: &ModelConfig, seed: u64) -> Tensors {
    let mut params = init::initial(model, seed);
    for (name, tensor) in params.iter_mut().filter(|(name, _)| name.ends_with(".bias")) {
        tensor.data = Rng::named(seed, Stream::Test, name).normals(tensor.data.len(), 0.3);
    }
    params
}

fn grown(model: &ModelConfig, growth: &GrowthConfig, params: &Tensors, seed: u64) -> (ModelConfig, Tensors) {
    let after = growth.check(model).unwrap();
    let grown = grow::parameters(params, model, &after, &growth.resolve(), seed);
    (after, grown)
}

fn doubled(model: &ModelConfig) -> GrowthConfig {
    GrowthConfig {
        qkv_slot_num: Some(2 * model.qkv_slot_num),
        proj_slot_num: Some(2 * model.proj_slot_num),
        ffn_slot_num: Some(2 * model.ffn_slot_num),
        policy: GrowthPolicy::Copy,
        ..GrowthConfig::default()
    }
}

fn wider(model: &ModelConfig, policy: GrowthPolicy, seed: u64) -> GrowthConfig {
    let more = 1 + Rng::new(seed, Stream::Test, 4).below(90) as usize;
    GrowthConfig { intermediate_size: Some(model.mlp_width() + more), policy, ..GrowthConfig::default() }
}

fn deeper(model: &ModelConfig, policy: GrowthPolicy) -> GrowthConfig {
    GrowthConfig { num_layers: Some(2 * model.num_layers), policy, ..GrowthConfig::default() }
}

/// Largest change of a logit over the largest logit.
fn relative_change(model: &ModelConfig, growth: &GrowthConfig, seed: u64) -> f64 {
    let params = random_parameters(model, seed);
    let (after, grown) = grown(model, growth, &params, seed);
    let tokens: Vec<u32> = (0..model.seq_length).map(|i| (i * 7 % model.vocab_size) as u32).collect();
    let before = logits(device(), model, &params, &tokens).unwrap();
    let after = logits(device(), &after, &grown, &tokens).unwrap();
    let largest = before.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert!(largest.is_finite() && largest > 0.0, "{model:?}");
    tokenformer::train::growth::max_change(&before, &after) / f64::from(largest)
}

#[test]
fn every_growth_that_promises_it_changes_no_logit_of_random_models() {
    let mut most = std::collections::BTreeMap::new();
    for seed in 0..models() {
        let norms = [NormActivation::L2NormGelu, NormActivation::GeluL2Norm, NormActivation::Softmax];
        let tokens = ModelConfig { norm_activation_type: norms[seed as usize % 3], ..small(seed) };
        let no_eps = ModelConfig { pattention_eps: 0.0, ..tokens.clone() };
        let (linear, neox) = (transformer(seed), neox(seed));
        let cases = [
            ("copy, no epsilon", &no_eps, doubled(&no_eps), 1e-5),
            ("copy", &tokens, doubled(&tokens), 1e-5),
            ("identity", &tokens, deeper(&tokens, GrowthPolicy::Identity), 0.0),
            ("identity, transformer", &linear, deeper(&linear, GrowthPolicy::Identity), 0.0),
            ("net2net", &linear, wider(&linear, GrowthPolicy::Net2net, seed), 1e-5),
            ("zero_units", &linear, wider(&linear, GrowthPolicy::ZeroUnits, seed), 0.0),
            ("identity, GPT-NeoX", &neox, deeper(&neox, GrowthPolicy::Identity), 0.0),
            ("net2net, GPT-NeoX", &neox, wider(&neox, GrowthPolicy::Net2net, seed), 1e-5),
            ("zero_units, GPT-NeoX", &neox, wider(&neox, GrowthPolicy::ZeroUnits, seed), 0.0),
        ];
        for (name, model, growth, bound) in cases {
            let change = relative_change(model, &growth, seed);
            assert!(change <= bound, "seed {seed}, {name}: {change:e}, {model:?}");
            let known = most.entry(name).or_insert(0.0_f64);
            *known = known.max(change);
        }
        // No promise, and none kept: the test can fail.
        for model in [&tokens, &linear, &neox] {
            let change = relative_change(model, &deeper(model, GrowthPolicy::Stack), seed);
            assert!(change > 1e-3, "seed {seed}, stack: {change:e}, {model:?}");
            let known = most.entry("stack, at least").or_insert(f64::INFINITY);
            *known = known.min(change);
        }
    }
    println!("largest change of a logit over the largest logit: {most:?}");
}

/// Trains a few steps with equal moments and step counts for all.
fn trained(model: &ModelConfig, params: &Tensors) -> Tensors {
    let train = TrainConfig { batch_size: 2, ..TrainConfig::default() };
    let trainer = Trainer::new(engine(), kernels(), model, &train, vec![cohorts::first(model)], 1).unwrap();
    trainer.load_parameters(params).unwrap();
    let mut rng = Rng::new(1, Stream::Test, 5);
    for step in 0..4 {
        let mut tokens = || (0..2 * model.seq_length).map(|_| rng.below(model.vocab_size as u64) as u32).collect();
        let batch = Batch { tokens: tokens(), targets: tokens() };
        assert!(trainer.step(&[batch], step, 1e-3).unwrap().finite);
    }
    trainer.parameters().unwrap()
}

/// How far two rows are apart after training, over how far the first has come; they start in one place.
fn apart(before: &[f32], after: [&[f32]; 2]) -> f64 {
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    distance(after[0], after[1]) / distance(before, after[0])
}

#[test]
fn copies_part_when_they_train() {
    let model = small(3);
    let (after, params) = grown(&model, &doubled(&model), &random_parameters(&model, 3), 3);
    let keys = |params: &Tensors| {
        let new = trained(&after, params);
        let keys = |(name, _): &(String, Vec<usize>)| name.ends_with("key_param_tokens");
        let each = after.param_shapes().into_iter().filter(keys).map(|(name, _)| {
            let (old, new) = (&params[&name].data, &new[&name].data);
            let half = old.len() / 2;
            apart(&old[..half], [&new[..half], &new[half..]])
        });
        each.fold((f64::INFINITY, 0.0_f64), |(least, most), x| (least.min(x), most.max(x)))
    };
    let (least, most) = keys(&params);
    println!("copied keys: {least:.3} to {most:.3} of their way apart");
    assert!(least > 0.02);
    // Without the noise they stay together, so it is the noise that parts them.
    let mut even = params.clone();
    for (_, tensor) in even.iter_mut().filter(|(name, _)| name.ends_with("value_param_tokens")) {
        let half = tensor.data.len() / 2;
        let (first, second) = tensor.data.split_at_mut(half);
        second.copy_from_slice(first);
    }
    assert_eq!(keys(&even), (0.0, 0.0));
}

#[test]
fn split_units_part_when_they_train() {
    let model = ModelConfig { num_layers: 1, intermediate_size: 1, ..transformer(3) };
    let growth = GrowthConfig { intermediate_size: Some(2), policy: GrowthPolicy::Net2net, ..GrowthConfig::default() };
    let old = random_parameters(&model, 3);
    let (after, params) = grown(&model, &growth, &old, 3);
    let units = |params: &Tensors| {
        let name = "layers.0.mlp.dense_h_to_4h.weight";
        let (old, new) = (&params[name].data, &trained(&after, params)[name].data);
        let (first, second) = new.split_at(model.hidden_size);
        apart(&old[..model.hidden_size], [first, second])
    };
    let distance = units(&params);
    // One share for the whole unit: AdamW's steps do not see the size of a gradient.
    let mut shared = params.clone();
    let outgoing = "layers.0.mlp.dense_4h_to_h.weight";
    let halves = old[outgoing].data.iter().flat_map(|w| [w * 0.25, w * 0.75]).collect();
    shared.get_mut(outgoing).unwrap().data = halves;
    let shared = units(&shared);
    println!("units: {distance:.3} of their way apart, with one share for all weights {shared:.6}");
    assert!(distance > 0.02 && shared < 0.1 * distance);
}

/// However a sequence is cut into chunks, the logits after it are those of one full pass, bit for bit.
#[test]
fn chunks_on_a_cache_give_the_logits_of_a_full_pass() {
    let all_options = neox(6);
    assert!(all_options.use_parallel_residual && !all_options.tie_word_embeddings && !all_options.attention_bias);
    chunks_of(&small(3), &[vec![90], vec![1, 89], vec![64, 26], vec![70, 1, 1, 18], vec![1; 90]]);
    chunks_of(&all_options, &[vec![70, 1, 1, 18]]);
}

fn chunks_of(model: &ModelConfig, all_cuts: &[Vec<usize>]) {
    let model = ModelConfig { seq_length: 90, ..model.clone() };
    let params = init::initial(&model, 4);
    let tokens: Vec<u32> = (0..90).map(|i| (i * i + 3) % model.vocab_size as u32).collect();
    let full = logits(device(), &model, &params, &tokens).unwrap();
    for cuts in all_cuts {
        let plans: Vec<Plan> =
            cuts.iter().map(|&rows| Plan::new(&graphs::chunk(&model, rows, kernels()).unwrap()).unwrap()).collect();
        let (memory, programs) = Memory::allocate(engine(), &plans.iter().collect::<Vec<_>>()).unwrap();
        upload_rope(engine(), &memory, &model).unwrap();
        upload_parameters(engine(), &memory, &model, &params).unwrap();
        let mut position = 0;
        for (rows, program) in cuts.iter().zip(&programs) {
            let chunk = &tokens[position..position + rows];
            let got = feed_chunk(engine(), &memory, program, chunk, position).unwrap();
            position += rows;
            let want = &full[(position - 1) * model.vocab_size..position * model.vocab_size];
            assert_eq!(got, want, "after {position} tokens of {cuts:?}");
        }
    }
}
