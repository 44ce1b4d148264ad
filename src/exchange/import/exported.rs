//! What this program exported: a TokenFormer for transformers, and parameters in one file with their configuration.

use super::fit::{self, Shapes};
use super::{Found, Options, Take};
use crate::config::{Arch, ModelConfig, TokenizerKind};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// What the `config.json` of a TokenFormer calls its kind.
const MODEL_TYPE: &str = "tokenformer";
/// Settings of a model that such a file calls otherwise.
const RENAMED: [(&str, &str); 3] = [
    ("num_hidden_layers", "num_layers"),
    ("max_position_embeddings", "seq_length"),
    ("layer_norm_eps", "layernorm_epsilon"),
];
/// Settings of which there is no default: a model of another size would be assumed.
const NEEDED: [&str; 8] = [
    "vocab_size",
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "seq_length",
    "qkv_slot_num",
    "proj_slot_num",
    "ffn_slot_num",
];

/// The fields of a `config.json` that is a TokenFormer's.
pub(super) fn config_of(json: &str) -> Option<Map<String, Value>> {
    let fields: Map<String, Value> = serde_json::from_str(json).ok()?;
    fields.get("model_type").is_some_and(|kind| kind == MODEL_TYPE).then_some(fields)
}

/// The model of a `config.json` with these fields.
///
/// # Errors
/// As [`of_settings`]; a size that is missing.
pub(super) fn of_config(path: &Path, mut fields: Map<String, Value>, all: &Shapes, options: &Options) -> Result<Found> {
    for (theirs, ours) in RENAMED {
        fields.remove(theirs).map(|value| fields.insert(ours.to_owned(), value));
    }
    if let Some(missing) = NEEDED.iter().find(|key| !fields.contains_key(**key)) {
        let named = RENAMED.iter().find(|(_, ours)| ours == missing).map_or(*missing, |(theirs, _)| *theirs);
        return Err(Error::input(format!(
            "the config.json of {} does not say {named}: export the model again",
            path.display()
        )));
    }
    fields.insert("arch".to_owned(), MODEL_TYPE.into());
    of_settings(path, Value::Object(fields), all, options)
}

/// The model that settings say, under the names of this program.
///
/// # Errors
/// Settings of no model, other tensors than they say, options that contradict them.
pub(super) fn of_settings(path: &Path, settings: Value, all: &Shapes, options: &Options) -> Result<Found> {
    let refuse = |what: String| Error::input(format!("{} is no model as it was exported: {what}", path.display()));
    let mut model: ModelConfig = serde_json::from_value(settings).map_err(|cause| refuse(cause.to_string()))?;
    model.validate().map_err(|cause| refuse(cause.to_string()))?;
    options.check_heads(path, &model)?;
    model.seq_length = options.seq_length.unwrap_or(model.seq_length);
    fit::check_layers(model.num_layers, all).map_err(refuse)?;
    fit::check(&model.param_shapes().into_iter().collect(), all).map_err(refuse)?;
    let takes = model.param_shapes().into_iter().map(|(name, _)| (name.clone(), Take::Whole(name))).collect();
    let form = match model.arch {
        Arch::Tokenformer => "an exported TokenFormer",
        Arch::Transformer => "an exported Transformer",
    };
    Ok(Found { model, takes, form: form.to_owned(), assumed: Vec::new() })
}

/// The part of a `tokenizer.json` that has its tokens.
#[derive(Deserialize)]
struct Listed {
    model: Vocabulary,
}

#[derive(Deserialize)]
struct Vocabulary {
    vocab: BTreeMap<String, u32>,
}

/// The tokenizer of bytes or characters that was exported as this `tokenizer.json`, which other programs apply only in part:
/// they drop what is no token.
pub(super) fn tokenizer(json: &str) -> Option<Tokenizer> {
    let Listed { model: Vocabulary { vocab } } = serde_json::from_str(json).ok()?;
    let characters: String = vocab.into_keys().filter(|token| token.chars().count() == 1).collect();
    let kinds = [(TokenizerKind::Byte, ""), (TokenizerKind::Char, characters.as_str())];
    let mut made = kinds.iter().filter_map(|(kind, text)| Tokenizer::of(kind, &[text]).ok());
    made.find(|tokenizer| tokenizer.to_tokenizer_json().is_ok_and(|exported| exported == json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokenizers_of_this_program_are_known_again() {
        for kind in [TokenizerKind::Byte, TokenizerKind::Char] {
            let made = Tokenizer::of(&kind, &["caf\u{e9} au lait\n\u{1f600}"]).unwrap();
            let json = made.to_tokenizer_json().unwrap();
            assert_eq!(tokenizer(&json), Some(made));
            assert_eq!(tokenizer(&format!("{json} ")), None);
        }
        assert_eq!(tokenizer(r#"{"model": {"vocab": {"a": 0}}}"#), None);
    }
}
