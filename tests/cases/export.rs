//! Exports: what is in them, that they are whole or not there, and what transformers makes of them.

use crate::program::{Folder, Ran, done, say};
use ggus::{GGmlType, GGuf, GGufMetaMapExt};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::runtime::device::Device;
use tokenformer::train::disk::Start;
use tokenformer::train::{Checkpoint, evaluate};

const NEWEST: &str = "runs/tiny/checkpoints/step-00000020.safetensors";
const NEOX: &str = "--arch transformer --set model.use_parallel_residual=true --set model.tie_word_embeddings=false \
    --set model.attention_bias=false";

/// The object on the last line of standard output.
fn answer(ran: &Ran) -> Value {
    serde_json::from_str(ran.stdout.lines().last().unwrap_or_default()).unwrap()
}

fn value(folder: &Folder, name: &str) -> Value {
    serde_json::from_str(&folder.text(name)).unwrap()
}

/// Everything beside the inputs of a folder, hidden or not.
fn entries(folder: &Folder) -> Vec<String> {
    let all = std::fs::read_dir(folder.path(".")).unwrap();
    let mut names: Vec<String> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !["in.txt", "run.toml", "runs"].contains(&name.as_str()));
    names.sort();
    names
}

fn floats(view: &TensorView) -> Vec<f32> {
    view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[test]
fn a_directory_for_transformers_has_every_tensor_in_shards() {
    let folder = Folder::new();
    folder.train(&format!("{NEOX} --tokenizer bpe:300")).ok();
    let made = folder.run("export runs/tiny hf --to hf --shard-size 0.00001 --json").ok();
    assert_eq!(entries(&folder), ["hf"]);
    let (said, config) = (answer(&made), value(&folder, "hf/config.json"));
    assert_eq!(config["architectures"], json!(["GPTNeoXForCausalLM"]));
    assert_eq!((&config["use_parallel_residual"], &config["tie_word_embeddings"]), (&json!(true), &json!(false)));
    // The token that ends a text.
    assert_eq!(
        (&config["eos_token_id"], &value(&folder, "hf/generation_config.json")["eos_token_id"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(value(&folder, "hf/tokenizer_config.json")["eos_token"], "<|endoftext|>");
    let model = Checkpoint::read(&folder.path(NEWEST)).unwrap();
    assert_eq!(folder.text("hf/tokenizer.json"), model.meta.tokenizer().unwrap().unwrap().to_file_text().unwrap());

    let index = value(&folder, "hf/model.safetensors.index.json");
    let mut shapes = BTreeMap::new();
    for (name, file) in index["weight_map"].as_object().unwrap() {
        let bytes = folder.read(&format!("hf/{}", file.as_str().unwrap()));
        let shard = SafeTensors::deserialize(&bytes).unwrap();
        assert!(shard.len() == 1 || shard.iter().map(|(_, tensor)| tensor.data().len()).sum::<usize>() <= 10_000);
        shapes.insert(name.clone(), shard.tensor(name).unwrap().shape().to_vec());
    }
    let values: usize = shapes.values().map(|shape| shape.iter().product::<usize>()).sum();
    assert_eq!((json!(values), &index["metadata"]["total_size"]), (said["parameters"].clone(), &json!(4 * values)));
    assert_eq!(shapes["gpt_neox.layers.0.attention.query_key_value.weight"], [48, 16]);
    assert_eq!(shapes["embed_out.weight"], shapes["gpt_neox.embed_in.weight"]);
    assert!(!shapes.contains_key("gpt_neox.layers.0.attention.dense.bias"));
    let card = folder.text("hf/README.md");
    assert!(card.contains("| Optimizer steps | 20 |") && card.contains("use_parallel_residual = true"), "{card}");
    assert!(!card.contains("out_dir"), "where a run lay is nobody's matter: {card}");
}

#[test]
fn an_earlier_export_is_replaced_where_that_is_asked_for_and_nothing_else_is() {
    let folder = Folder::new();
    folder.train("").ok();
    folder.run("export runs/tiny hf --to hf").ok();
    let code = folder.text("hf/modeling_tokenformer.py");
    assert!(code.contains("class TokenformerForCausalLM"));
    assert_eq!(
        value(&folder, "hf/config.json")["auto_map"]["AutoConfig"],
        "configuration_tokenformer.TokenformerConfig"
    );
    let refused = |args: &str, said: &str| {
        let sentence = folder.run(args).refused();
        assert!(sentence.contains(said), "{args}: {sentence}");
        sentence
    };
    say("export-again", &refused("export runs/tiny hf --to hf", "replace it with --overwrite"));
    folder.run("export runs/tiny hf --to hf --dtype bf16 --overwrite").ok();
    assert_eq!(value(&folder, "hf/config.json")["dtype"], "bfloat16");
    assert_eq!(entries(&folder), ["hf"]);

    folder.write("hf/notes.txt", "mine");
    say(
        "export-over-notes",
        &refused("export runs/tiny hf --to hf --overwrite", "it has \"notes.txt\", which an export has not"),
    );
    refused("export runs/tiny runs --to hf --overwrite", "is no export that could be replaced (it has no config.json)");
    refused("export runs/tiny in.txt --to safetensors --overwrite", "it is no safetensors file");
    folder.run(&format!("export {NEWEST} one.safetensors --to safetensors")).ok();
    refused(&format!("export {NEWEST} one.safetensors --to safetensors"), "--overwrite");
    let before = folder.read(NEWEST);
    std::fs::copy(folder.path(NEWEST), folder.path("copy.safetensors")).unwrap();
    refused("export runs/tiny copy.safetensors --to safetensors --overwrite", "its metadata has no \"exported_by\"");
    refused("export runs/tiny runs/tiny/checkpoints/x --to hf", "would lie among the checkpoints");
    refused("export runs/tiny none/x --to hf", "create it");
    say("export-gguf", &refused("export runs/tiny x.gguf --to gguf", "a TokenFormer cannot be a GGUF"));
    refused("export runs/tiny x --to hf --dtype q8_0", "--dtype q8_0 is a type of GGUF only");
    assert!(folder.read(NEWEST) == before);
    assert_eq!(entries(&folder), ["copy.safetensors", "hf", "one.safetensors"]);
}

#[test]
fn a_plain_file_has_the_parameters_under_their_own_names() {
    let folder = Folder::new();
    folder.train("").ok();
    folder.run("export runs/tiny all.safetensors --to safetensors --json").ok();
    let model = Checkpoint::read(&folder.path(NEWEST)).unwrap();
    let bytes = folder.read("all.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), model.params.len());
    for (name, tensor) in &model.params {
        let view = file.tensor(name).unwrap();
        assert!(view.shape() == tensor.shape && floats(&view) == tensor.data, "{name}");
    }
    folder.run("export runs/tiny half.safetensors --to safetensors --dtype f16").ok();
    let halves = folder.read("half.safetensors");
    let half = SafeTensors::deserialize(&halves).unwrap();
    let bias = half.tensor("norm.weight").unwrap();
    assert_eq!(bias.dtype(), Dtype::F16);
    let first = half::f16::from_le_bytes(*bias.data().first_chunk().unwrap()).to_f32();
    assert!((first - model.params["norm.weight"].data[0]).abs() < 1e-3);
}

#[test]
fn what_fails_half_way_leaves_nothing() {
    let folder = Folder::new();
    folder.train("--arch transformer").ok();
    let mut bytes = folder.read(NEWEST);
    // The last parameter before the moments of the optimizer.
    let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let at = file.tensor("norm.bias").unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
    assert!(at > header);
    bytes[at..at + 4].copy_from_slice(&1e6_f32.to_le_bytes());
    folder.write("large.safetensors", &bytes);
    let damaged = folder.run("export large.safetensors x --to hf").refused();
    assert!(damaged.contains("does not match its checksum") && damaged.ends_with("--accept-unverified"), "{damaged}");
    let large = folder.run("export large.safetensors x --to hf --dtype f16 --accept-unverified").refused();
    assert!(large.contains("has the value 1000000, but f16 ends at 65504"), "{large}");
    say("export-f16", &large);
    folder.write("large.safetensors", &bytes[..bytes.len() / 2]);
    assert!(folder.run("export large.safetensors x --to hf").refused().contains("is truncated"));
    assert_eq!(entries(&folder), ["large.safetensors"]);
}

#[test]
fn a_gguf_says_what_llama_cpp_wants_to_know() {
    let folder = Folder::new();
    folder.train(&format!("{NEOX} --tokenizer bpe:300 --set model.hidden_size=32")).ok();
    folder.run("export runs/tiny m.gguf --to gguf").ok();
    let model = Checkpoint::read(&folder.path(NEWEST)).unwrap();
    let vocab = model.params["word_embeddings.weight"].shape[0] as u64;
    let bytes = folder.read("m.gguf");
    let gguf = GGuf::new(&bytes).unwrap();
    assert_eq!((gguf.general_architecture().unwrap(), gguf.llm_block_count().unwrap()), ("gptneox", 1));
    assert_eq!((gguf.llm_embedding_length().unwrap(), gguf.llm_rope_dimension_count().unwrap()), (32, 4));
    assert!(gguf.llm_use_parallel_residual().unwrap());
    assert_eq!(gguf.get_str("tokenizer.ggml.model").unwrap(), "gpt2");
    assert_eq!(gguf.get_str_arr("tokenizer.ggml.tokens").unwrap().len() as u64, vocab);
    assert_eq!(gguf.get_usize("tokenizer.ggml.eos_token_id").unwrap(), 0);
    let tensor = |name: &str| gguf.tensors[name].to_info();
    // Columns first; biases that the model has not are zeros.
    assert_eq!(tensor("blk.0.attn_qkv.weight").shape(), [32, 96]);
    assert_eq!(tensor("output.weight").shape(), [32, vocab]);
    let data = |name: &str| {
        let info = tensor(name);
        let bytes = &gguf.data[info.offset()..info.offset() + info.nbytes()];
        bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect::<Vec<f32>>()
    };
    assert!(data("blk.0.attn_qkv.bias") == [0.0; 96]);
    let keys = &model.params["layers.0.attention.key.weight"].data;
    assert!(data("blk.0.attn_qkv.weight")[32 * 32..2 * 32 * 32] == keys[..]);

    folder.run("export runs/tiny m.gguf --to gguf --dtype q8_0 --overwrite").ok();
    let small = folder.read("m.gguf");
    let gguf = GGuf::new(&small).unwrap();
    let kinds = ["blk.0.ffn_up.weight", "blk.0.ffn_up.bias", "output_norm.weight"]
        .map(|name| gguf.tensors[name].to_info().ty());
    assert!(matches!(kinds, [GGmlType::Q8_0, GGmlType::F32, GGmlType::F32]));
    let scale = half::f16::from_le_bytes(*gguf.data.first_chunk().unwrap()).to_f32();
    let row = &model.params["word_embeddings.weight"].data[..32];
    let largest = row.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    assert!((scale - largest / 127.0).abs() <= scale / 1000.0, "{scale} {largest}");
    assert_eq!(entries(&folder), ["m.gguf"]);
}

/// The interpreter with torch and transformers, if there is one.
fn python() -> Option<String> {
    let python = std::env::var("TOKENFORMER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found =
        Command::new(&python).args(["-c", "import torch, transformers"]).output().is_ok_and(|it| it.status.success());
    if !found {
        println!("skipped: {python} has no torch and transformers; TOKENFORMER_TEST_PYTHON may name another one");
    }
    found.then_some(python)
}

/// The logits of the model in `checkpoint`, for the script that compares them.
fn write_logits(checkpoint: &Path, out: &Path) {
    let (start, _) = Start::resumed(Checkpoint::read(checkpoint).unwrap()).unwrap();
    let tokens: Vec<u32> = (0..start.host.model.seq_length as u32).map(|i| i * 7 % 50).collect();
    let device = Device::open(&AdapterRequest::default()).unwrap();
    let logits = evaluate::logits(&device, &start.host.model, &start.host.params, &tokens).unwrap();
    let (numbers, values): (Vec<u8>, Vec<u8>) = (
        tokens.iter().flat_map(|token| token.to_le_bytes()).collect(),
        logits.iter().flat_map(|value| value.to_le_bytes()).collect(),
    );
    let views = [
        ("tokens", TensorView::new(Dtype::I32, vec![tokens.len()], &numbers).unwrap()),
        ("logits", TensorView::new(Dtype::F32, vec![logits.len()], &values).unwrap()),
    ];
    safetensors::serialize_to_file(views, None, out).unwrap();
}

#[test]
fn transformers_computes_the_same() {
    let Some(python) = python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/compare-transformers.py");
    for (kind, growth) in [(NEOX, "--policy net2net --intermediate-size 80"), ("", "--ffn-slots 24")] {
        let folder = Folder::new();
        folder.train(&format!("{kind} --tokenizer char --set model.seq_length=128")).ok();
        folder.run(&format!("grow runs/tiny grown.safetensors {growth}")).ok();
        for (checkpoint, out) in [(NEWEST, "hf"), ("grown.safetensors", "hf-grown")] {
            folder.run(&format!("export {checkpoint} {out} --to hf")).ok();
            write_logits(&folder.path(checkpoint), &folder.path("logits.safetensors"));
            let command = folder.command("");
            let mut compare = Command::new(&python);
            compare.arg(&script).args([checkpoint, out, "--data", "in.txt", "--logits", "logits.safetensors"]);
            compare.arg("--program").arg(command.get_program()).current_dir(folder.path(""));
            compare.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            compare.env("HF_HOME", folder.path("cache")).env("HF_HUB_OFFLINE", "1");
            let ran = done(&mut compare);
            println!("{}", ran.stdout);
            assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        }
    }
}
