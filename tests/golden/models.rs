//! Whole models, training runs, growth, and published checkpoints.

use crate::case::Case;
use crate::common::{Ran, engine, kernels, words};
use crate::ops::{norm_activation, tau};
use serde_json::Value;
use std::collections::BTreeMap;
use tokenformer::array::HostTensor;
use tokenformer::config::{Arch, GrowthConfig, ModelConfig, Module, OptimizerRule, Precision, TrainConfig};
use tokenformer::data::Batch;
use tokenformer::exchange::{Options, official_name, open};
use tokenformer::model::{graphs, grow};
use tokenformer::ops::rotary;
use tokenformer::train::cohorts;
use tokenformer::train::trainer::Trainer;

type Tensors = BTreeMap<String, HostTensor>;

pub fn config(c: &Value, seq_length: usize) -> ModelConfig {
    let size = |key: &str| c[key].as_u64().unwrap_or_else(|| panic!("no {key}")) as usize;
    let real = |key: &str| c[key].as_f64().unwrap_or_else(|| panic!("no {key}"));
    let option = |key: &str, default: bool| c[key].as_bool().unwrap_or(default);
    let norm = norm_activation(c["activation"].as_str().unwrap());
    let scale = |key: &str| c[key].as_f64().map(|s| tau(norm, s));
    let mut model = ModelConfig {
        arch: if c["arch"] == "transformer" { Arch::Transformer } else { Arch::Tokenformer },
        vocab_size: size("vocab"),
        num_layers: size("layers"),
        hidden_size: size("width"),
        num_attention_heads: size("heads"),
        seq_length,
        qkv_slot_num: size("qkv_slots"),
        proj_slot_num: size("proj_slots"),
        ffn_slot_num: size("ffn_slots"),
        intermediate_size: size("ffn_slots"),
        norm_activation_type: norm,
        tau_qkv: scale("scale_qkv"),
        tau_proj: scale("scale_proj"),
        tau_ffn: scale("scale_ffn"),
        pattention_eps: real("pattention_eps"),
        gelu_tanh: c["gelu_tanh"].as_bool().unwrap(),
        rotary_pct: real("rotary_pct"),
        rotary_emb_base: real("rotary_base"),
        layernorm_epsilon: real("norm_eps"),
        use_parallel_residual: option("use_parallel_residual", false),
        attention_bias: option("attention_bias", true),
        tie_word_embeddings: option("tie_word_embeddings", true),
        dropout: c["dropout"].as_f64().unwrap_or(0.0),
    };
    model.freeze_tau();
    model.validate().unwrap();
    model
}

/// The oracle's parameter names, and ours.
pub fn names(model: &ModelConfig) -> Vec<(String, String)> {
    let mut names = vec![("embed.weight".to_string(), "word_embeddings.weight".to_string())];
    for i in 0..model.num_layers {
        let mut pair =
            |oracle: String, ours: String| names.push((format!("layers.{i}.{oracle}"), format!("layers.{i}.{ours}")));
        let modules = Module::ALL.iter().zip(["q", "k", "v", "proj", "ffn"]);
        if model.arch == Arch::Tokenformer {
            for (module, short) in modules {
                pair(format!("{short}.keys"), format!("{}.key_param_tokens", module.name()));
                pair(format!("{short}.values"), format!("{}.value_param_tokens", module.name()));
            }
            continue;
        }
        for kind in ["weight", "bias"] {
            let biased = kind == "weight" || model.attention_bias;
            for (module, short) in modules.clone().take(4).filter(|_| biased) {
                pair(format!("{short}.{kind}"), format!("{}.{kind}", module.name()));
            }
            pair(format!("ln1.{kind}"), format!("input_layernorm.{kind}"));
            pair(format!("ln2.{kind}"), format!("post_attention_layernorm.{kind}"));
            pair(format!("fc_in.{kind}"), format!("mlp.dense_h_to_4h.{kind}"));
            pair(format!("fc_out.{kind}"), format!("mlp.dense_4h_to_h.{kind}"));
        }
    }
    for kind in ["weight", "bias"] {
        names.push((format!("final_norm.{kind}"), format!("norm.{kind}")));
    }
    if !model.tie_word_embeddings {
        names.push(("head.weight".to_string(), "embed_out.weight".to_string()));
    }
    names
}

pub fn ours(model: &ModelConfig, tensors: &Tensors) -> Tensors {
    let get = |(oracle, ours): (String, String)| {
        let tensor = tensors.get(&oracle).unwrap_or_else(|| panic!("no {oracle}")).clone();
        (ours, tensor)
    };
    names(model).into_iter().map(get).collect()
}

fn expect_all(case: &mut Case, prefix: &str, model: &ModelConfig, got: &Tensors) {
    for (oracle, ours) in names(model) {
        case.expect(&format!("{prefix}{oracle}"), &got[&ours].data);
    }
}

/// Rows of [.., T + 1] tokens as inputs and shifted targets.
fn batch(tokens: &[u32], row: usize) -> Batch {
    let part = |range: std::ops::Range<usize>| tokens.chunks(row).flat_map(|r| r[range.clone()].to_vec()).collect();
    Batch { tokens: part(0..row - 1), targets: part(1..row) }
}

fn logits(model: &ModelConfig, params: &Tensors, tokens: &[u32]) -> Ran {
    let batch = tokens.len() / model.seq_length;
    let kernels = kernels();
    let graph = graphs::logits(model, batch, model.seq_length, true, kernels).unwrap();
    let table = rotary::table(model.seq_length, model.rotary_width(), model.rotary_emb_base);
    let chunk = graphs::chunk_tokens(tokens.len());
    let mut given: Vec<(&str, Vec<u32>)> = params.iter().map(|(n, t)| (n.as_str(), words(&t.data))).collect();
    given.push((&chunk, tokens.to_vec()));
    given.push((graphs::ROPE, words(&table)));
    Ran::new(&graph, &given).unwrap()
}

pub fn train_config(hyper: &Value, batch_size: usize) -> TrainConfig {
    let real = |key: &str, default: f64| hyper[key].as_f64().unwrap_or(default);
    TrainConfig {
        batch_size,
        beta1: real("beta1", 0.9),
        beta2: real("beta2", 0.95),
        adam_eps: real("eps", 1e-8),
        weight_decay: real("weight_decay", 0.1),
        grad_clip: real("clip", 1.0),
        // A chunk that does not divide the rows, so that the seams are tested too.
        loss_chunk_rows: 23,
        seed: hyper["seed"].as_u64().unwrap_or(1337),
        ..TrainConfig::default()
    }
}

/// The step whose masks a case of dropout has.
fn step(hyper: &Value) -> u64 {
    hyper["step"].as_u64().unwrap_or(0)
}

pub fn trainer(model: &ModelConfig, train: &TrainConfig, params: &Tensors) -> Trainer<'static> {
    let trainer = Trainer::new(engine(), kernels(), model, train, vec![cohorts::first(model)], 1).unwrap();
    trainer.load_parameters(params).unwrap();
    trainer
}

pub fn model(case: &mut Case) {
    let (shape, tokens) = case.int("in.tokens").clone();
    let model = config(&case.config, shape[1]);
    let params = ours(&model, &case.with_prefix("param."));
    let ran = logits(&model, &params, &tokens);
    case.expect("out.logits", &ran.read(graphs::LOGITS));
    for i in 0..model.num_layers {
        case.expect(&format!("out.layers.{i}.out"), &ran.read(&format!("layers.{i}.out")));
    }
    let trainer = trainer(&model, &train_config(&case.hyper, shape[0]), &params);
    let stats =
        trainer.step(&[Batch { tokens, targets: case.int("in.targets").1.clone() }], step(&case.hyper), 0.0).unwrap();
    case.expect("out.loss", &[stats.loss]);
    expect_all(case, "grad.", &model, &trainer.gradients().unwrap());
}

fn learning_rates(case: &Case) -> Vec<f64> {
    case.hyper["learning_rates"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

pub fn trajectory(case: &mut Case) {
    let (shape, tokens) = case.int("in.tokens").clone();
    let model = config(&case.config, shape[2] - 1);
    let params = ours(&model, &case.with_prefix("param."));
    let trainer = trainer(&model, &train_config(&case.hyper, shape[1]), &params);
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for (step, (lr, step_tokens)) in
        learning_rates(case).into_iter().zip(tokens.chunks(shape[1] * shape[2])).enumerate()
    {
        let stats = trainer.step(&[batch(step_tokens, shape[2])], step as u64, lr).unwrap();
        losses.push(stats.loss);
        norms.push(stats.grad_norm);
    }
    case.expect("out.loss", &losses);
    case.expect("out.grad_norm", &norms);
    expect_all(case, "final.", &model, &trainer.parameters().unwrap());
}

pub fn growth(case: &mut Case) {
    let (shape, tokens) = case.int("in.tokens").clone();
    let (train_shape, train_tokens) = case.int("in.train_tokens").clone();
    let row = shape[1];
    let before = config(&case.config, row - 1);
    let params = ours(&before, &case.with_prefix("before.param."));
    let probe = batch(&tokens, row);
    let logits_before = logits(&before, &params, &probe.tokens).read(graphs::LOGITS);
    case.expect("before.logits", &logits_before);
    let train = train_config(&case.hyper, shape[0]);
    case.expect(
        "before.loss",
        &[trainer(&before, &train, &params).evaluate(std::slice::from_ref(&probe)).unwrap() as f32],
    );
    let modes: Vec<String> = case.hyper["grown_configs"].as_object().unwrap().keys().cloned().collect();
    for mode in modes {
        let after = config(&case.hyper["grown_configs"][&mode], row - 1);
        if mode == "preserving" {
            grown_by_our_own_rules(case, &before, &after, &params);
        }
        let params = ours(&after, &case.with_prefix(&format!("{mode}.param.")));
        let got = logits(&after, &params, &probe.tokens).read(graphs::LOGITS);
        case.expect(&format!("{mode}.logits"), &got);
        if mode == "preserving" {
            assert_eq!(got, logits_before, "{}: a preserving growth changed logits", case.name);
        }
        let trainer = trainer(&after, &train, &params);
        let [m, v] = ["before.m.", "before.v."].map(|p| grow::moments(&ours(&before, &case.with_prefix(p)), &after));
        trainer.load_moments(&m, &v).unwrap();
        let loss = trainer.evaluate(std::slice::from_ref(&probe)).unwrap();
        case.expect(&format!("{mode}.loss"), &[loss as f32]);
        let first = case.hyper["t_before"].as_u64().unwrap();
        let steps = learning_rates(case).into_iter().zip(train_tokens.chunks(train_shape[1] * train_shape[2]));
        let losses: Vec<f32> = steps
            .enumerate()
            .map(|(i, (lr, tokens))| trainer.step(&[batch(tokens, row)], first + i as u64, lr).unwrap().loss)
            .collect();
        case.expect(&format!("{mode}.train_loss"), &losses);
        if case.is_expected(&format!("{mode}.final.embed.weight")) {
            expect_all(case, &format!("{mode}.final."), &after, &trainer.parameters().unwrap());
        }
    }
}

/// Our default policy gives the grown configuration of the oracle, old rows unchanged and new keys zero.
fn grown_by_our_own_rules(case: &Case, before: &ModelConfig, after: &ModelConfig, params: &Tensors) {
    let slots = |key: &str| case.hyper["new_slots"][key].as_u64().map(|n| n as usize);
    let growth = GrowthConfig {
        qkv_slot_num: slots("qkv"),
        proj_slot_num: slots("proj"),
        ffn_slot_num: slots("ffn"),
        optimizer: Some(OptimizerRule::CarryStep),
        ..GrowthConfig::default()
    };
    let mut expected = after.clone();
    expected.intermediate_size = before.intermediate_size;
    assert_eq!(growth.check(before).unwrap(), expected);
    let grown = grow::parameters(params, before, after, &growth.resolve(), 3);
    for (name, tensor) in &grown {
        let old = &params[name].data;
        assert_eq!(&tensor.data[..old.len()], &old[..], "{name}");
        let new = &tensor.data[old.len()..];
        let zero = new.iter().all(|x| *x == 0.0);
        assert_eq!(zero, new.is_empty() || name.ends_with("key_param_tokens"), "{name}");
    }
}

pub fn official_naming(case: &mut Case) {
    let Some((shape, tokens)) = case.ints.get("in.tokens").cloned() else {
        return weights_under_published_names(case);
    };
    let model = config(&case.config, shape[1]);
    let (_, params) = published(case, "official_naming", &model);
    let got = logits(&model, &params, &tokens).read(graphs::LOGITS);
    case.expect("out.logits", &got);
}

/// What the published weights in the file `name` are, and all of them under our names.
fn published(case: &Case, name: &str, model: &ModelConfig) -> (ModelConfig, Tensors) {
    let options = Options { heads: Some(model.num_attention_heads), ..Options::default() };
    let read = open(&case.directory.join(format!("{name}.safetensors")), &options).unwrap();
    let names = read.model().param_shapes().into_iter();
    let params = names.map(|(name, _)| (name.clone(), read.parameter(&name).unwrap())).collect();
    (read.model().clone(), params)
}

/// The file is read whole, under our names, with the sizes its configuration says.
fn weights_under_published_names(case: &mut Case) {
    let model = config(&case.config, 16);
    let (read, params) = published(case, &case.name, &model);
    let sizes =
        [read.num_layers, read.hidden_size, read.vocab_size, read.qkv_slot_num, read.proj_slot_num, read.ffn_slot_num];
    let want = [
        model.num_layers,
        model.hidden_size,
        model.vocab_size,
        model.qkv_slot_num,
        model.proj_slot_num,
        model.ffn_slot_num,
    ];
    assert_eq!(sizes, want, "{}", case.name);
    let listed = case.doc["names"].as_object().unwrap();
    for (oracle, ours) in names(&model) {
        let theirs = listed[&oracle].as_str().unwrap();
        assert_eq!(official_name(&ours, model.num_layers).as_deref(), Some(theirs));
        let tensor = &params[&ours];
        if let Some(stored) = case.floats.get(theirs) {
            assert_eq!(tensor, stored, "{theirs}");
        }
        assert!(tensor.data.iter().all(|x| x.is_finite()) && tensor.data.iter().any(|x| *x != 0.0), "{theirs}");
        case.checked += 1;
    }
    assert_eq!(params.len(), listed.len(), "{}", case.name);
}

/// Relative error of a gradient tensor in mixed precision: activations and their gradients have 11 bits.
const HALF_GRADIENT: f64 = 2e-2;
/// Error of a loss in mixed precision, nats a token.
const HALF_LOSS: f32 = 5e-4;

/// Loss and gradients of a whole model with activations in f16, at tolerances of their own.
pub fn model_in_f16(case: &Case) -> Vec<String> {
    let (shape, tokens) = case.int("in.tokens").clone();
    let model = config(&case.config, shape[1]);
    let params = ours(&model, &case.with_prefix("param."));
    let train = TrainConfig { precision: Precision::F16, ..train_config(&case.hyper, shape[0]) };
    let trainer = trainer(&model, &train, &params);
    let stats =
        trainer.step(&[Batch { tokens, targets: case.int("in.targets").1.clone() }], step(&case.hyper), 0.0).unwrap();
    let mut failures = Vec::new();
    let want = case.float("out.loss").data[0];
    if !stats.finite || (stats.loss - want).abs() > HALF_LOSS {
        failures.push(format!("{}: loss {} is not {want}", case.name, stats.loss));
    }
    let scale = f64::from(trainer.loss_scale.scale);
    let wanted = ours(&model, &case.with_prefix("grad."));
    for (name, got) in trainer.gradients().unwrap() {
        let pairs = || got.data.iter().zip(&wanted[&name].data).map(|(g, w)| (f64::from(*g) / scale, f64::from(*w)));
        let error = pairs().map(|(g, w)| (g - w) * (g - w)).sum::<f64>().sqrt();
        let size = pairs().map(|(_, w)| w * w).sum::<f64>().sqrt();
        println!("{} {name}: relative error {:.1e}", case.name, error / size);
        // Written so that NaN fails.
        let within = error <= HALF_GRADIENT * size;
        if !within {
            failures.push(format!("{} grad {name}: relative error {:.2e}", case.name, error / size));
        }
    }
    failures
}

/// The losses of a training run with activations in f16.
pub fn trajectory_in_f16(case: &Case) -> Vec<String> {
    let (shape, tokens) = case.int("in.tokens").clone();
    let model = config(&case.config, shape[2] - 1);
    let params = ours(&model, &case.with_prefix("param."));
    let train = TrainConfig { precision: Precision::F16, ..train_config(&case.hyper, shape[1]) };
    let trainer = trainer(&model, &train, &params);
    let steps = learning_rates(case).into_iter().zip(tokens.chunks(shape[1] * shape[2])).enumerate();
    let run = |(step, (lr, tokens)): (usize, (f64, &[u32]))| {
        let stats = trainer.step(&[batch(tokens, shape[2])], step as u64, lr).unwrap();
        let want = case.float("out.loss").data[step];
        println!("{} step {step}: loss {} for {want}", case.name, stats.loss);
        let within = stats.finite && (stats.loss - want).abs() <= 2.0 * HALF_LOSS;
        (!within).then(|| format!("{} step {step}: loss {} is not {want}", case.name, stats.loss))
    };
    steps.filter_map(run).collect()
}
