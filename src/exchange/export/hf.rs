//! A directory for Hugging Face's transformers: configuration, tensors, tokenizer, model card, and for a TokenFormer its code.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::card;
use super::output::{Out, Unfinished, check_free};
use super::shards::{self, MARK, WRITER};
use super::source::Source;
use super::values::Stored;
use crate::config::{Arch, ModelConfig, Module};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::exchange::neox;
use crate::exchange::neox_config::{CLASS, NeoxConfig};
use crate::exchange::piece::Piece;

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CARD: &str = "README.md";
/// The code of a TokenFormer.
const CODE: [(&str, &str); 2] = [
    ("configuration_tokenformer.py", include_str!("hf/configuration_tokenformer.py")),
    ("modeling_tokenformer.py", include_str!("hf/modeling_tokenformer.py")),
];

/// Writes the directory `out`.
pub(super) fn write(
    source: &mut Source,
    out: &Path,
    stored: Stored,
    shard_bytes: u64,
    overwrite: bool,
) -> Result<(Vec<PathBuf>, u64)> {
    check_free(out, overwrite, is_export)?;
    let model = source.config.model.clone();
    let pieces: Vec<Piece> = match model.arch {
        Arch::Tokenformer => model.parameters().into_iter().map(Piece::from).collect(),
        Arch::Transformer => neox::tensors(&model),
    };
    let made = Unfinished::directory(out)?;
    let (mut files, mut bytes) = shards::write_all(source, &pieces, stored, shard_bytes, &made.at)?;
    for (name, text) in texts(source, out, stored)? {
        let mut file = Out::create(&made.at.join(name))?;
        file.write(text.as_bytes())?;
        bytes += file.finish()?;
        files.push(PathBuf::from(name));
    }
    made.finish()?;
    Ok((files.into_iter().map(|name| out.join(name)).collect(), bytes))
}

/// Every file but the tensors.
fn texts(source: &Source, out: &Path, stored: Stored) -> Result<Vec<(&'static str, String)>> {
    let end = source.tokenizer.as_ref().and_then(Tokenizer::end_of_text);
    let generation = json!({ "bos_token_id": end, "eos_token_id": end, "use_cache": true });
    let model = &source.config.model;
    let mut texts = vec![
        (CONFIG, format!("{:#}\n", config(model, end, stored)?)),
        (GENERATION, format!("{generation:#}\n")),
        (CARD, card::text(source, out, stored)?),
    ];
    if let Some(tokenizer) = &source.tokenizer {
        texts.push((TOKENIZER, tokenizer.to_tokenizer_json()?));
        texts.push((TOKENIZER_CONFIG, format!("{:#}\n", tokenizer_config(tokenizer, model))));
    }
    if model.arch == Arch::Tokenformer {
        texts.extend(CODE.map(|(name, text)| (name, text.to_owned())));
    }
    Ok(texts)
}

fn config(model: &ModelConfig, end: Option<u32>, stored: Stored) -> Result<Value> {
    let mut config = match model.arch {
        Arch::Transformer => serde_json::to_value(NeoxConfig::of(model)),
        Arch::Tokenformer => Ok(tokenformer(model)),
    }
    .map_err(|e| Error::defect(format!("a config.json cannot be written: {e}")))?;
    let dtype = match stored {
        Stored::F16 => "float16",
        Stored::Bf16 => "bfloat16",
        Stored::F32 | Stored::Q8_0 => "float32",
    };
    let class = match model.arch {
        Arch::Transformer => CLASS,
        Arch::Tokenformer => "TokenformerForCausalLM",
    };
    let all = [
        ("architectures", json!([class])),
        ("dtype", json!(dtype)),
        // Both, also where there is none: left out, transformers takes tokens of the text for them.
        ("bos_token_id", json!(end)),
        ("eos_token_id", json!(end)),
        (MARK, json!(WRITER)),
    ];
    if let Some(fields) = config.as_object_mut() {
        fields.extend(all.map(|(name, value)| (name.to_owned(), value)));
    }
    Ok(config)
}

fn tokenformer(model: &ModelConfig) -> Value {
    json!({
        "model_type": "tokenformer",
        "auto_map": {
            "AutoConfig": "configuration_tokenformer.TokenformerConfig",
            "AutoModelForCausalLM": "modeling_tokenformer.TokenformerForCausalLM",
        },
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "max_position_embeddings": model.seq_length,
        "qkv_slot_num": model.qkv_slot_num,
        "proj_slot_num": model.proj_slot_num,
        "ffn_slot_num": model.ffn_slot_num,
        "norm_activation_type": model.norm_activation_type,
        "tau_qkv": model.tau(Module::Query),
        "tau_proj": model.tau(Module::Proj),
        "tau_ffn": model.tau(Module::Mlp),
        "pattention_eps": model.pattention_eps,
        "gelu_tanh": model.gelu_tanh,
        "rotary_pct": model.rotary_pct,
        "rotary_emb_base": model.rotary_emb_base,
        "layer_norm_eps": model.layernorm_epsilon,
        "tie_word_embeddings": model.tie_word_embeddings,
        "dropout": model.dropout,
    })
}

fn tokenizer_config(tokenizer: &Tokenizer, model: &ModelConfig) -> Value {
    let end = tokenizer.end_of_text().map(|end| tokenizer.decode(&[end]));
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.seq_length,
        "clean_up_tokenization_spaces": false,
    });
    if let (Some(fields), Some(end)) = (config.as_object_mut(), end) {
        fields.extend(["bos_token", "eos_token"].map(|name| (name.to_owned(), json!(end))));
    }
    config
}

/// Whether `dir` is an export in which nothing else lies; if not, why.
fn is_export(dir: &Path) -> Result<(), String> {
    let text = fs::read_to_string(dir.join(CONFIG)).map_err(|_| format!("it has no {CONFIG}"))?;
    let config: Value = serde_json::from_str(&text).map_err(|_| format!("its {CONFIG} is no JSON"))?;
    if config[MARK].as_str().is_none_or(|writer| !writer.starts_with("tokenformer ")) {
        return Err(format!("its {CONFIG} is not one of this program"));
    }
    let texts =
        [CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG, CARD, CODE[0].0, CODE[1].0, "model.safetensors.index.json"];
    let own = |name: &str| texts.contains(&name) || name.starts_with("model") && name.ends_with(".safetensors");
    let entries = fs::read_dir(dir).map_err(|e| e.to_string())?;
    for entry in entries {
        let name = entry.map_err(|e| e.to_string())?.file_name().to_string_lossy().into_owned();
        if !own(&name) {
            return Err(format!("it has {name:?}, which an export has not"));
        }
    }
    Ok(())
}
