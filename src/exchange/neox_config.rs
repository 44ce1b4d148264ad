//! `config.json` of a GPT-NeoX, written and read.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Arch, ModelConfig};
use crate::error::{Error, Result};

/// What such a file calls its kind.
pub(crate) const MODEL_TYPE: &str = "gpt_neox";
/// The class of transformers that it is for.
pub(crate) const CLASS: &str = "GPTNeoXForCausalLM";

/// What a `config.json` says of a model. What is left out has the defaults of transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NeoxConfig {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
    /// As versions of transformers before 5 have it; newer ones read it too.
    rotary_pct: f64,
    rotary_emb_base: f64,
    /// As transformers 5 writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_parameters: Option<Rope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_scaling: Option<Value>,
    use_parallel_residual: bool,
    tie_word_embeddings: bool,
    attention_bias: bool,
    /// Of the weights of attention, in training.
    attention_dropout: f64,
    /// Of the embedding and of what a layer adds, in training.
    hidden_dropout: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Rope {
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    rope_type: Option<String>,
}

impl Default for NeoxConfig {
    fn default() -> Self {
        Self {
            model_type: String::new(),
            vocab_size: 50_432,
            hidden_size: 6144,
            num_hidden_layers: 44,
            num_attention_heads: 64,
            intermediate_size: 24_576,
            hidden_act: "gelu".to_owned(),
            max_position_embeddings: 2048,
            layer_norm_eps: 1e-5,
            rotary_pct: 0.25,
            rotary_emb_base: 10_000.0,
            rope_parameters: None,
            rope_scaling: None,
            use_parallel_residual: true,
            tie_word_embeddings: false,
            attention_bias: true,
            attention_dropout: 0.0,
            hidden_dropout: 0.0,
        }
    }
}

impl NeoxConfig {
    /// Of `model`, a Transformer.
    pub(crate) fn of(model: &ModelConfig) -> Self {
        Self {
            model_type: MODEL_TYPE.to_owned(),
            vocab_size: model.vocab_size,
            hidden_size: model.hidden_size,
            num_hidden_layers: model.num_layers,
            num_attention_heads: model.num_attention_heads,
            intermediate_size: model.mlp_width(),
            hidden_act: if model.gelu_tanh { "gelu_pytorch_tanh" } else { "gelu" }.to_owned(),
            max_position_embeddings: model.seq_length,
            layer_norm_eps: model.layernorm_epsilon,
            rotary_pct: model.rotary_pct,
            rotary_emb_base: model.rotary_emb_base,
            rope_parameters: None,
            rope_scaling: None,
            use_parallel_residual: model.use_parallel_residual,
            tie_word_embeddings: model.tie_word_embeddings,
            attention_bias: model.attention_bias,
            attention_dropout: model.dropout,
            hidden_dropout: model.dropout,
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// An input error: no JSON, a field of a wrong type, another kind of model.
    pub(crate) fn read(json: &str) -> Result<Self> {
        let wrong = |e: serde_json::Error| Error::input(format!("it is no config.json of a GPT-NeoX: {e}"));
        let read: Self = serde_json::from_str(json).map_err(wrong)?;
        if read.model_type != MODEL_TYPE {
            return Err(Error::input(format!(
                "its model_type is {:?}, but only {MODEL_TYPE:?} can be read: give a GPT-NeoX or Pythia model",
                read.model_type
            )));
        }
        Ok(read)
    }

    /// The model of this program that computes the same.
    ///
    /// # Errors
    /// An input error where this program has no such model.
    pub(crate) fn model(&self) -> Result<ModelConfig> {
        let refuse = |what: String| Error::input(format!("{what}, which this program cannot compute"));
        let gelu_tanh = match self.hidden_act.as_str() {
            "gelu" => false,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => true,
            other => return Err(refuse(format!("its hidden_act is {other:?}"))),
        };
        let rope = self.rope_parameters.as_ref();
        let kind = rope.and_then(|rope| rope.rope_type.as_deref()).unwrap_or("default");
        if kind != "default" {
            return Err(refuse(format!("its rope_type is {kind:?}")));
        }
        if let Some(scaling) = self.rope_scaling.as_ref().filter(|scaling| !scaling.is_null()) {
            return Err(refuse(format!("its rope_scaling is {scaling}")));
        }
        let model = ModelConfig {
            arch: Arch::Transformer,
            vocab_size: self.vocab_size,
            num_layers: self.num_hidden_layers,
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            seq_length: self.max_position_embeddings,
            intermediate_size: self.intermediate_size,
            gelu_tanh,
            rotary_pct: rope.and_then(|rope| rope.partial_rotary_factor).unwrap_or(self.rotary_pct),
            rotary_emb_base: rope.and_then(|rope| rope.rope_theta).unwrap_or(self.rotary_emb_base),
            layernorm_epsilon: self.layer_norm_eps,
            use_parallel_residual: self.use_parallel_residual,
            tie_word_embeddings: self.tie_word_embeddings,
            attention_bias: self.attention_bias,
            // What it computes does not hang on it: where there are two shares, it is for who trains it to choose one.
            dropout: if self.attention_dropout == self.hidden_dropout { self.hidden_dropout } else { 0.0 },
            ..ModelConfig::default()
        };
        // 0 would be the tokenizer's number of tokens, or four times the width.
        for (name, size) in [("vocab_size", self.vocab_size), ("intermediate_size", self.intermediate_size)] {
            if size == 0 {
                return Err(refuse(format!("its {name} is 0")));
            }
        }
        model.validate().map_err(|e| Error::input(format!("its configuration is impossible: {e}")))?;
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> ModelConfig {
        ModelConfig {
            arch: Arch::Transformer,
            vocab_size: 61,
            intermediate_size: 300,
            gelu_tanh: true,
            rotary_pct: 0.5,
            rotary_emb_base: 1234.5,
            layernorm_epsilon: 1e-6,
            dropout: 0.2,
            ..ModelConfig::default()
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let json = serde_json::to_string(&NeoxConfig::of(&model())).unwrap();
        assert_eq!(NeoxConfig::read(&json).unwrap().model().unwrap(), model());
    }

    #[test]
    fn rotations_of_newer_files_count_more() {
        let json = r#"{"model_type":"gpt_neox","hidden_size":64,"num_attention_heads":4,"rotary_pct":0.1,
            "rope_parameters":{"rope_theta":500,"partial_rotary_factor":0.5,"rope_type":"default"}}"#;
        let model = NeoxConfig::read(json).unwrap().model().unwrap();
        assert_eq!((model.rotary_emb_base, model.rotary_pct, model.num_layers), (500.0, 0.5, 44));
    }

    #[test]
    fn two_shares_of_dropout_are_left_to_who_trains() {
        let json = r#"{"model_type":"gpt_neox","attention_dropout":0.1,"hidden_dropout":0.3}"#;
        assert_eq!(NeoxConfig::read(json).unwrap().model().unwrap().dropout, 0.0);
    }

    #[test]
    fn what_cannot_be_is_refused_in_a_sentence() {
        let refused = |json: &str| {
            let json = json.replacen('{', r#"{"model_type":"gpt_neox","#, 1);
            NeoxConfig::read(&json).and_then(|config| config.model()).unwrap_err().to_string()
        };
        for (json, said) in [
            (r#"{"hidden_act":"relu"}"#, "\"relu\""),
            (r#"{"rope_scaling":{"type":"linear","factor":2}}"#, "rope_scaling"),
            (r#"{"rope_parameters":{"rope_type":"yarn"}}"#, "\"yarn\""),
            (r#"{"hidden_size":-1}"#, "-1"),
            (r#"{"num_hidden_layers":1e99}"#, "1e+99"),
            (r#"{"num_hidden_layers":18446744073709551615}"#, "num_layers"),
            (r#"{"vocab_size":0}"#, "vocab_size is 0"),
            (r#"{"num_attention_heads":7}"#, "does not divide"),
            (r#"{"layer_norm_eps":0}"#, "layernorm_epsilon"),
            (r#"{"attention_dropout":1,"hidden_dropout":1}"#, "dropout is 1"),
        ] {
            let text = refused(json);
            assert!(text.contains(said), "{json}: {text}");
        }
        let text = NeoxConfig::read(r#"{"model_type":"llama"}"#).unwrap_err().to_string();
        assert!(text.contains("\"llama\"") && text.contains("gpt_neox"), "{text}");
        assert!(NeoxConfig::read("[").unwrap_err().to_string().starts_with("it is no config.json"));
    }
}
