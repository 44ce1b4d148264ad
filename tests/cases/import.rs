//! Models of other programs: what they compute here, what becomes of them, and why others are refused.
//!
//! The small models in `fixtures/import` were made by `scripts/neox-models.py`, with what transformers computes of them.

use super::common::{device, engine, kernels, root};
use super::program::{Folder, Ran};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokenformer::array::HostTensor;
use tokenformer::config::{Arch, ModelConfig, RunConfig, TrainConfig};
use tokenformer::data::Batch;
use tokenformer::exchange::{Options, open};
use tokenformer::train::evaluate::logits;
use tokenformer::train::trainer::Trainer;
use tokenformer::train::{Checkpoint, cohorts};

type Tensors = BTreeMap<String, HostTensor>;

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

fn options(heads: usize) -> Options {
    Options { heads: Some(heads), seq_length: Some(16), ..Options::default() }
}

fn answer(ran: &Ran) -> Value {
    serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap()
}

/// The model that `path` becomes as a checkpoint.
fn imported(path: &Path, options: &Options) -> (ModelConfig, Tensors) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("imported.safetensors");
    let imported = open(path, options).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    imported.write(&file).unwrap();
    let checkpoint = Checkpoint::read(&file).unwrap();
    assert!(checkpoint.moment1.is_empty() && checkpoint.meta.step == 0 && checkpoint.meta.imported.is_some());
    (imported.model().clone(), checkpoint.params)
}

/// What transformers computed: tokens (steps, B, T + 1), logits (B, T, V), losses.
struct Expected {
    rows: usize,
    tokens: Vec<Vec<u32>>,
    logits: Vec<f32>,
    losses: Vec<f32>,
}

impl Expected {
    fn read(dir: &Path) -> Self {
        let bytes = fs::read(dir.join("expected.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: &str| -> Vec<f32> {
            file.tensor(name).unwrap().data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        let tokens = file.tensor("in.tokens").unwrap();
        let [_, rows, row] = tokens.shape() else { panic!("{:?}", tokens.shape()) };
        let all: Vec<u32> = tokens.data().as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let tokens = all.chunks(rows * row).map(<[u32]>::to_vec).collect();
        Self { rows: *rows, tokens, logits: floats("out.logits"), losses: floats("out.loss") }
    }

    fn batch(&self, step: usize) -> Batch {
        let tokens = &self.tokens[step];
        let row = tokens.len() / self.rows;
        let part = |range: std::ops::Range<usize>| tokens.chunks(row).flat_map(|r| r[range.clone()].to_vec()).collect();
        Batch { tokens: part(0..row - 1), targets: part(1..row) }
    }
}

/// Holds the logits of an imported model against those of transformers: within 1e-4 of the largest, or of 1.
fn check_logits(dir: &Path, model: &ModelConfig, params: &Tensors, expected: &Expected) {
    let tokens = expected.batch(0).tokens;
    let found: Vec<f32> =
        tokens.chunks(model.seq_length).flat_map(|row| logits(device(), model, params, row).unwrap()).collect();
    assert_eq!(found.len(), expected.logits.len());
    let largest = expected.logits.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
    let error = found.iter().zip(&expected.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{}: logits up to {largest:.2} differ by {error:.1e}", dir.display());
    assert!(error <= 1e-4 * largest, "{}: {error}", dir.display());
}

#[test]
fn models_of_transformers_give_its_logits() {
    for name in ["pythia", "tied"] {
        let dir = fixture("import").join(name);
        let (model, params) = imported(&dir, &Options::default());
        assert_eq!((model.use_parallel_residual, model.tie_word_embeddings), (name == "pythia", name == "tied"));
        check_logits(&dir, &model, &params, &Expected::read(&dir));
    }
}

#[test]
fn weights_that_pytorch_stored_are_those_of_safetensors_to_the_bit() {
    for name in ["official_naming", "official_naming_module_f16"] {
        let file = |end: &str| fixture("golden").join(format!("{name}.{end}"));
        let [(model, params), (_, expected)] = ["pt", "safetensors"].map(|end| imported(&file(end), &options(4)));
        assert_eq!(params, expected, "{name}");
        assert_eq!((model.num_layers, model.pattention_eps, model.tau_ffn.is_some()), (2, 0.0, true));
    }
}

#[test]
fn a_tokenizer_travels_with_its_model() {
    let dir = fixture("import/pythia");
    let imported = open(&dir, &Options::default()).unwrap();
    let known: Value = serde_json::from_slice(&fs::read(dir.join("tokens.json")).unwrap()).unwrap();
    let tokens: Vec<u64> = known["tokens"].as_array().unwrap().iter().map(|token| token.as_u64().unwrap()).collect();
    let tokenizer = imported.tokenizer().unwrap();
    let found = tokenizer.encode_with_special(known["text"].as_str().unwrap()).unwrap();
    assert_eq!(found.iter().map(|token| u64::from(*token)).collect::<Vec<_>>(), tokens);
    // Rows of the embedding that no text uses.
    assert_eq!((tokenizer.vocab_size(), imported.model().vocab_size), (280, 288));
    assert_eq!(tokenizer.end_of_text(), Some(0));
}

#[test]
fn what_was_imported_is_measured_continued_and_grown() {
    let folder = Folder::new();
    let pythia = fixture("import/pythia");
    let ran = folder.run(&format!("import {} p.safetensors --json", pythia.display())).ok();
    let said = answer(&ran);
    assert_eq!((&said["form"], &said["parameters"]), (&"a GPT-NeoX of transformers".into(), &13696.into()));
    let loss = answer(&folder.run("eval p.safetensors --data in.txt --json").ok())["loss"].as_f64().unwrap();
    assert!((4.0..9.0).contains(&loss), "{loss}");
    assert!(folder.run("generate p.safetensors -n 4").ok().stdout.len() > 1);

    let ran = folder.run("train --resume p.safetensors --data in.txt --steps 2 --tune off --out r").ok();
    assert!(ran.stderr.contains("training the imported model of p.safetensors with a fresh schedule of 2 steps"));
    assert!(!ran.stderr.contains("warning") && !ran.stderr.contains("did not record"), "{}", ran.stderr);
    let ran = folder.run("train --resume r --steps 3 --tune off").ok();
    assert!(ran.stderr.contains("after step 2"), "{}", ran.stderr);
    let said = answer(&folder.run("inspect r --json").ok());
    let files = said["imported"]["files"].as_array().unwrap();
    let names: Vec<&str> = files.iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert_eq!(
        (&said["imported"]["name"], names),
        (&"pythia".into(), vec!["model.safetensors", "config.json", "tokenizer.json"])
    );

    for (index, growth) in
        ["--policy zero_units --intermediate-size 48", "--policy identity --layers 3"].into_iter().enumerate()
    {
        let ran = folder.run(&format!("grow p.safetensors g{index}.safetensors {growth} --json")).ok();
        assert_eq!(answer(&ran)["growth"]["max_logit_change"], 0.0, "{growth}: {}", ran.stdout);
        let text = folder.run(&format!("inspect g{index}.safetensors")).ok().stdout;
        assert!(text.contains("imported from pythia, a GPT-NeoX") && text.contains("grown at step 0"), "{text}");
    }
}

#[test]
fn tokens_of_published_weights_grow_without_a_change() {
    let folder = Folder::new();
    let file = fixture("golden/official_naming_module_f16.pt");
    let given = format!("import {} o.safetensors --seq-length 16", file.display());
    let refused = folder.run(&given).refused();
    assert!(
        refused.contains("no published model has 2 layers of width 32") && refused.contains("--heads"),
        "{refused}"
    );
    let ran = folder.run(&format!("{given} --heads 4")).ok();
    assert!(ran.stderr.contains("assumed, as no file says it: 4 heads, as asked"), "{}", ran.stderr);
    for growth in ["--ffn-slots 128 --qkv-slots 40", "--policy identity --layers 3"] {
        let ran = folder.run(&format!("grow o.safetensors g.safetensors {growth} --json")).ok();
        assert_eq!(answer(&ran)["growth"]["max_logit_change"], 0.0, "{growth}");
        fs::remove_file(folder.path("g.safetensors")).unwrap();
    }
    let refused = folder.run(&format!("{given} --heads 4")).refused();
    assert!(refused.contains("o.safetensors exists and import does not overwrite"), "{refused}");
}

#[test]
fn a_checkpoint_that_another_program_changed_is_taken() {
    let folder = Folder::new();
    folder.train("--steps 2 --out r").ok();
    let file = folder.path("r/checkpoints/step-00000002.safetensors");
    let before = Checkpoint::read(&file).unwrap();
    let bytes = fs::read(&file).unwrap();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    // As `save_file` does after a change of values, with the metadata and without.
    let mut changed = read.tensor("norm.bias").unwrap().data().to_vec();
    changed[..4].copy_from_slice(&2.5_f32.to_le_bytes());
    let views: Vec<_> = read
        .tensors()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("optimizer."))
        .map(|(name, view)| match name.as_str() {
            "norm.bias" => {
                let shape = view.shape().to_vec();
                (name, safetensors::tensor::TensorView::new(view.dtype(), shape, &changed).unwrap())
            }
            _ => (name, view),
        })
        .collect();
    let metadata = header.metadata().clone().map(|all| all.into_iter().collect());
    safetensors::serialize_to_file(views.clone(), metadata, &folder.path("edited.safetensors")).unwrap();
    safetensors::serialize_to_file(views, None, &folder.path("bare.safetensors")).unwrap();
    assert!(folder.run("eval edited.safetensors").refused().contains("edited.safetensors"));
    folder.run("import edited.safetensors a.safetensors").ok();
    let refused = folder.run("import bare.safetensors b.safetensors").refused();
    assert!(refused.contains("does not say how many attention heads"), "{refused}");
    let ran = folder.run("import bare.safetensors b.safetensors --heads 2 --seq-length 16").ok();
    assert!(ran.stderr.contains("its metadata are lost"), "{}", ran.stderr);
    for name in ["a.safetensors", "b.safetensors"] {
        let after = Checkpoint::read(&folder.path(name)).unwrap();
        let mut expected = before.params.clone();
        expected.get_mut("norm.bias").unwrap().data[0] = 2.5;
        assert_eq!((after.params, after.meta.step), (expected, 0), "{name}");
        assert_eq!(after.meta.tokenizer.is_some(), name == "a.safetensors");
    }
    folder.run("eval a.safetensors --data in.txt").ok();
}

#[test]
fn what_was_exported_comes_back_with_the_same_bits() {
    let folder = Folder::new();
    folder.train("--steps 2 --out t").ok();
    folder.train("--steps 2 --out x --set model.arch=transformer --set model.tie_word_embeddings=false").ok();
    folder.run(&format!("import {} p.safetensors", fixture("import/pythia").display())).ok();
    for given in ["t", "x", "p.safetensors"] {
        let source = match given {
            "p.safetensors" => folder.path(given),
            run => folder.path(&format!("{run}/checkpoints/step-00000002.safetensors")),
        };
        let before = Checkpoint::read(&source).unwrap();
        for (out, form) in [("hf", "hf"), ("one.safetensors", "safetensors")] {
            if form == "safetensors" && given != "t" {
                continue;
            }
            folder.run(&format!("export {given} {given}-{out} --to {form}")).ok();
            folder.run(&format!("import {given}-{out} {given}-{form}-back.safetensors")).ok();
            let after = Checkpoint::read(&folder.path(&format!("{given}-{form}-back.safetensors"))).unwrap();
            assert_eq!(after.params, before.params, "{given} as {form}");
            let model = |checkpoint: &Checkpoint| checkpoint.meta.config::<RunConfig>().unwrap().model;
            let (mut was, is) = (model(&before), model(&after));
            if was.arch == Arch::Transformer && form == "hf" {
                // What a Transformer has none of.
                (was.tau_qkv, was.tau_proj, was.tau_ffn) = (is.tau_qkv, is.tau_proj, is.tau_ffn);
                (was.qkv_slot_num, was.proj_slot_num, was.ffn_slot_num) =
                    (is.qkv_slot_num, is.proj_slot_num, is.ffn_slot_num);
                was.intermediate_size = was.mlp_width();
                was.pattention_eps = is.pattention_eps;
            }
            assert_eq!(is, was, "{given} as {form}");
            // One file has no place for a tokenizer.
            let tokenizer = |checkpoint: &Checkpoint| checkpoint.meta.tokenizer.is_some();
            assert_eq!(tokenizer(&after), form == "hf", "{given} as {form}");
            if given != "p.safetensors" && form == "hf" {
                assert_eq!(after.meta.tokenizer, before.meta.tokenizer);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let folder = Folder::new();
    let copy = |config: &dyn Fn(&mut Value)| {
        fs::create_dir_all(folder.path("m")).unwrap();
        for file in ["model.safetensors", "tokenizer.json"] {
            fs::copy(fixture("import/pythia").join(file), folder.path("m").join(file)).unwrap();
        }
        let text = fs::read(fixture("import/pythia/config.json")).unwrap();
        let mut json: Value = serde_json::from_slice(&text).unwrap();
        config(&mut json);
        folder.write("m/config.json", json.to_string());
        folder.run("import m out.safetensors").refused()
    };
    let set = |key: &'static str, value: Value| move |json: &mut Value| json[key] = value.clone();
    for (change, said) in [
        (set("num_hidden_layers", 3.into()), "\"gpt_neox.layers.2.attention.dense.bias\" [16] is missing, "),
        (set("num_hidden_layers", 3.into()), ", and 7 more do not fit"),
        (set("intermediate_size", 48.into()), "has shape [32, 16] and not [48, 16]"),
        (set("attention_bias", false.into()), "\"gpt_neox.layers.0.attention.dense.bias\" has no place in it"),
        (set("hidden_act", "relu".into()), "hidden_act is \"relu\""),
        (set("rope_scaling", serde_json::json!({"type": "linear"})), "rope_scaling"),
        (set("vocab_size", 279.into()), "has shape [288, 16] and not [279, 16]"),
        (set("model_type", "llama".into()), "\"llama\""),
    ] {
        let refused = copy(&change);
        assert!(refused.contains(said), "{refused}");
    }
    assert!(!folder.path("out.safetensors").exists());
}

/// Python with torch and transformers, where there is one.
fn python() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("TOKENFORMER_TEST_PYTHON").unwrap_or_else(|| "python3".into()));
    let has = Command::new(&python).args(["-c", "import torch, transformers, safetensors"]).output();
    if has.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!("skipped: {} has no torch and transformers; TOKENFORMER_TEST_PYTHON names another", python.display());
    None
}

/// Makes random models in `dir`.
fn make_models(dir: &Path, count: &str) -> bool {
    let Some(python) = python() else { return false };
    let script = root().join("scripts/neox-models.py");
    let made = Command::new(python).arg(script).arg(dir).args(["--count", count]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    true
}

/// Random models, as many as `TOKENFORMER_TEST_MODELS` says, or those in the folder that it names: logits, gradients, and 20
/// steps of AdamW.
#[test]
fn random_models_of_transformers_train_as_there() {
    let temporary = tempfile::tempdir().unwrap();
    let asked = std::env::var("TOKENFORMER_TEST_MODELS").unwrap_or_else(|_| "2".to_owned());
    let dir = match asked.parse::<usize>() {
        Ok(_) if !make_models(temporary.path(), &asked) => return,
        Ok(_) => temporary.path().to_path_buf(),
        Err(_) => PathBuf::from(asked),
    };
    let mut models: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.sort();
    for dir in models {
        let (model, params) = imported(&dir, &Options::default());
        let expected = Expected::read(&dir);
        check_logits(&dir, &model, &params, &expected);
        let train =
            TrainConfig { batch_size: expected.rows, weight_decay: 0.1, grad_clip: 1.0, ..TrainConfig::default() };
        let trainer = Trainer::new(engine(), kernels(), &model, &train, vec![cohorts::first(&model)], 1).unwrap();
        trainer.load_parameters(&params).unwrap();
        let (mut worst, gradients) = (0.0_f32, open(&dir.join("gradient"), &Options::default()).unwrap());
        for (step, loss) in expected.losses.iter().enumerate() {
            let found = trainer.step(&[expected.batch(step)], step as u64, 1e-3).unwrap();
            worst = worst.max((found.loss - loss).abs());
            if step == 0 {
                check_gradients(&dir, &trainer.gradients().unwrap(), &|name| gradients.parameter(name).unwrap());
            }
        }
        println!("{}: {} losses differ by {worst:.1e}", dir.display(), expected.losses.len());
        assert!(worst <= 1e-3, "{}: {worst}", dir.display());
    }
}

/// Each tensor within 1e-4 of its norm, or of what the largest of them has.
fn check_gradients(dir: &Path, found: &Tensors, expected: &dyn Fn(&str) -> HostTensor) {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let mut worst = 0.0_f64;
    for (name, tensor) in found {
        let expected = expected(name);
        assert_eq!(tensor.shape, expected.shape);
        let error = norm(&mut tensor.data.iter().zip(&expected.data).map(|(a, b)| a - b));
        // The gradient of a key's bias is nothing but rounding.
        let size = norm(&mut expected.data.iter().copied()).max(1e-3);
        worst = worst.max(error / size);
        assert!(error <= 1e-4 * size, "{}: gradient of {name} is off by {error:.1e} of {size:.1e}", dir.display());
    }
    println!("{}: gradients differ by {worst:.1e}", dir.display());
}
