//! What must hold without any stored value: invariances of Pattention, exact growth, chunked generation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Ran, backward, engine, words};
use tokenformer::config::{GrowthConfig, ModelConfig, NormActivation};
use tokenformer::gpu::choices::Choices;
use tokenformer::graph::Graph;
use tokenformer::graph::memory::Memory;
use tokenformer::graph::plan::{Limits, Plan};
use tokenformer::model::generate::feed_chunk;
use tokenformer::model::{graphs, grow, init};
use tokenformer::ops::pattention::{Settings, Tokens, pattention};
use tokenformer::rng::{Rng, Stream};
use tokenformer::train::probe::logits;
use tokenformer::train::trainer::{upload_parameters, upload_rope};

const ROWS: usize = 19;
const WIDTH: usize = 24;
const SLOTS: usize = 70;

fn choices() -> Choices {
    engine().choices()
}

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
    let mut g = Graph::training(&choices());
    let [px, pk, pv] =
        [("x", ROWS), ("keys", slots), ("values", slots)].map(|(name, rows)| g.parameter(name, &[rows, WIDTH]));
    // tau is that of SLOTS tokens, whatever number there is now.
    let settings = Settings { norm, tau: (SLOTS as f64).sqrt(), eps: 0.0, gelu_tanh: false };
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
    let mut pick = |choices: &[usize]| choices[rng.below(choices.len() as u64) as usize];
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

#[test]
fn growing_random_models_changes_no_logit() {
    for seed in 0..20 {
        let model = small(seed);
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
        let before = logits(engine(), &model, &params, &tokens).unwrap();
        assert!(before.iter().all(|x| x.is_finite()) && size(&before) > 0.0);
        assert_eq!(logits(engine(), &after, &grown, &tokens).unwrap(), before, "seed {seed}: {model:?} to {after:?}");
        let official = GrowthConfig { policy: tokenformer::config::GrowthPolicy::Official, ..growth };
        let after = official.check(&model).unwrap();
        let grown = grow::parameters(&params, &model, &after, &official.resolve(), seed);
        assert_ne!(logits(engine(), &after, &grown, &tokens).unwrap(), before, "seed {seed}");
    }
}

/// However a sequence is cut into chunks, the logits after it are those of one full pass, bit for bit.
#[test]
fn chunks_on_a_cache_give_the_logits_of_a_full_pass() {
    let model = ModelConfig { seq_length: 90, ..small(3) };
    let params = init::initial(&model, 4);
    let tokens: Vec<u32> = (0..90).map(|i| (i * i + 3) % model.vocab_size as u32).collect();
    let full = logits(engine(), &model, &params, &tokens).unwrap();
    for cuts in [vec![90], vec![1, 89], vec![64, 26], vec![70, 1, 1, 18], vec![1; 90]] {
        let plans: Vec<Plan> = cuts
            .iter()
            .map(|&rows| {
                Plan::new(&graphs::chunk(&model, rows, &choices()).unwrap(), &Limits::of(&engine().gpu)).unwrap()
            })
            .collect();
        let (memory, programs) = Memory::allocate(engine(), &plans.iter().collect::<Vec<_>>()).unwrap();
        upload_rope(engine(), &memory, &model).unwrap();
        upload_parameters(engine(), &memory, &model, &params, str::to_string).unwrap();
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
