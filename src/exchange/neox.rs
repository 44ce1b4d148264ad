//! Parameters of a Transformer as the tensors of Hugging Face's `GPTNeoXForCausalLM`, and back.
//!
//! One tensor at a time, so that a model need never be in memory as a whole. Names and rows change places, values do not:
//! there and back gives the same bits.
//!
//! Query, key and value are one tensor there. Its rows are `[head][query, key, value][channel of the head]`.

use super::piece::Piece;
use crate::config::{Linear, ModelConfig, Norm, Parameter, Role};

/// What the names of all tensors but the head begin with.
const BASE: &str = "gpt_neox.";
/// The projections that are one tensor there, in its order.
const FUSED: [Linear; 3] = [Linear::Query, Linear::Key, Linear::Value];

/// Every tensor of `model`, a Transformer, in the order of its parameters.
pub(crate) fn tensors(model: &ModelConfig) -> Vec<Piece> {
    let tensor = |parameter: Parameter| {
        let Parameter { name, mut shape, role, layer } = parameter;
        let theirs = name_of(role, layer)?;
        let Some(parts) = fused(role, layer) else {
            return Some(Piece { name: theirs, shape, parts: vec![name], runs: 1 });
        };
        if let Some(rows) = shape.first_mut() {
            *rows *= parts.len();
        }
        Some(Piece { name: theirs, shape, parts, runs: model.num_attention_heads })
    };
    model.parameters().into_iter().filter_map(tensor).collect()
}

/// The parameters that are one tensor with the query of this role.
pub(crate) fn fused(role: Role, layer: Option<usize>) -> Option<Vec<String>> {
    let roles = match role {
        Role::Weight(Linear::Query) => FUSED.map(Role::Weight),
        Role::Bias(Linear::Query) => FUSED.map(Role::Bias),
        _ => return None,
    };
    Some(roles.map(|role| role.name_in(layer.unwrap_or(0))).into())
}

/// The name there; nothing for a key or value, which are in the tensor of their query, and for what only a TokenFormer has.
fn name_of(role: Role, layer: Option<usize>) -> Option<String> {
    let (linear, kind) = match role {
        Role::Embedding => return Some(format!("{BASE}embed_in.weight")),
        Role::Head => return Some("embed_out.weight".to_owned()),
        Role::Keys(_) | Role::Values(_) => return None,
        Role::NormWeight(norm) => (norm_name(norm), "weight"),
        Role::NormBias(norm) => (norm_name(norm), "bias"),
        Role::Weight(linear) => (linear_name(linear)?, "weight"),
        Role::Bias(linear) => (linear_name(linear)?, "bias"),
    };
    Some(match layer {
        Some(layer) => format!("{BASE}layers.{layer}.{linear}.{kind}"),
        None => format!("{BASE}{linear}.{kind}"),
    })
}

fn norm_name(norm: Norm) -> &'static str {
    match norm {
        Norm::Input => "input_layernorm",
        Norm::PostAttention => "post_attention_layernorm",
        Norm::Final => "final_layer_norm",
    }
}

fn linear_name(linear: Linear) -> Option<&'static str> {
    match linear {
        Linear::Query => Some("attention.query_key_value"),
        Linear::Key | Linear::Value => None,
        Linear::Proj => Some("attention.dense"),
        Linear::MlpIn => Some("mlp.dense_h_to_4h"),
        Linear::MlpOut => Some("mlp.dense_4h_to_h"),
    }
}

/// The name that [`tensors`] gives what a file calls `name`; nothing for a buffer, which holds nothing that was learnt.
///
/// A file of the model without its head has no prefix, and newer files have another name for the head.
pub(crate) fn learnt(name: &str) -> Option<String> {
    let buffers = [".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"];
    if buffers.iter().any(|buffer| name.ends_with(buffer)) {
        return None;
    }
    Some(match name {
        "lm_head.weight" => "embed_out.weight".to_owned(),
        _ if name.starts_with(BASE) || name.starts_with("embed_out.") => name.to_owned(),
        _ => format!("{BASE}{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::HostTensor;
    use crate::config::Arch;
    use std::collections::{BTreeMap, BTreeSet};

    fn model() -> ModelConfig {
        ModelConfig {
            arch: Arch::Transformer,
            vocab_size: 7,
            num_layers: 2,
            hidden_size: 12,
            num_attention_heads: 3,
            intermediate_size: 5,
            ..ModelConfig::default()
        }
    }

    /// Every value another one.
    fn parameters(model: &ModelConfig) -> BTreeMap<String, HostTensor> {
        let mut next = 0.0;
        let mut filled = |shape: Vec<usize>| {
            let mut tensor = HostTensor::zeros(&shape);
            tensor.data.iter_mut().for_each(|value| (*value, next) = (next, next + 1.0));
            tensor
        };
        model.param_shapes().into_iter().map(|(name, shape)| (name, filled(shape))).collect()
    }

    #[test]
    fn there_and_back_gives_the_same_bits_tensor_by_tensor() {
        let model = model();
        let before = parameters(&model);
        let (mut after, mut names) = (BTreeMap::new(), BTreeSet::new());
        for tensor in tensors(&model) {
            let parts = tensor.parts.iter().map(|name| before[name].clone()).collect();
            let theirs = tensor.join(parts).unwrap();
            assert_eq!(theirs.shape, tensor.shape);
            assert!(names.insert(tensor.name.clone()), "{} twice", tensor.name);
            after.extend(tensor.split(theirs).unwrap());
        }
        assert_eq!(after, before);
        assert_eq!(names.len(), 1 + 2 * 12 + 2);
        assert!(names.contains("gpt_neox.layers.1.attention.query_key_value.bias"));
    }

    #[test]
    fn rows_of_heads_lie_in_turn() {
        let model = model();
        let all = parameters(&model);
        let bias = tensors(&model).into_iter().find(|tensor| tensor.name.ends_with("0.attention.query_key_value.bias"));
        let bias = bias.unwrap();
        assert_eq!(bias.shape, [36]);
        let theirs = bias.join(bias.parts.iter().map(|name| all[name].clone()).collect()).unwrap();
        // Heads of 4 channels: the key's bias of head 2 are the rows from (2 * 3 + 1) * 4 on.
        let keys = &all["layers.0.attention.key.bias"];
        assert_eq!(theirs.data[28..32], keys.data[8..12]);
        assert_eq!(theirs.data[..4], all["layers.0.attention.query.bias"].data[..4]);
    }

    #[test]
    fn other_parts_are_a_defect() {
        let tensor = &tensors(&model())[0];
        assert_eq!(tensor.join(vec![HostTensor::zeros(&[7, 11])]).unwrap_err().exit_code(), 70);
        assert_eq!(tensor.join(Vec::new()).unwrap_err().exit_code(), 70);
        assert_eq!(tensor.split(HostTensor::zeros(&[12, 7])).unwrap_err().exit_code(), 70);
    }

    #[test]
    fn names_of_other_files_are_those_of_the_whole_model() {
        let known = |name| learnt(name).unwrap();
        assert_eq!(known("layers.0.attention.dense.bias"), "gpt_neox.layers.0.attention.dense.bias");
        assert_eq!(known("gpt_neox.embed_in.weight"), "gpt_neox.embed_in.weight");
        assert_eq!(
            (known("lm_head.weight"), known("embed_out.weight")),
            ("embed_out.weight".into(), "embed_out.weight".into())
        );
        for buffer in ["layers.0.attention.bias", "gpt_neox.layers.3.attention.masked_bias"] {
            assert_eq!(learnt(buffer), None);
        }
        assert_eq!(learnt("gpt_neox.layers.3.attention.rotary_emb.inv_freq"), None);
    }
}
