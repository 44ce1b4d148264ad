//! The parameters that follow from a model's shape: their names, shapes, number and weight decay.
//!
//! Nothing here holds values. TokenFormer names are those of the official checkpoints, without their
//! `sequential.{i}` prefix.

use super::{Arch, ModelConfig, Module};

impl ModelConfig {
    /// Names and shapes of all parameters, in checkpoint order. The output head is the embedding and has
    /// no tensor of its own. Meant for a validated model: an absurd layer count is a long list.
    pub fn param_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = vec![("word_embeddings.weight".to_owned(), vec![self.vocab_size, self.hidden_size])];
        for layer in 0..self.num_layers {
            shapes
                .extend(self.layer_shapes().into_iter().map(|(name, shape)| (format!("layers.{layer}.{name}"), shape)));
        }
        shapes.extend(norm_shapes("norm", self.hidden_size));
        shapes
    }

    /// Number of trained values, without building the list of parameters.
    pub fn param_count(&self) -> u64 {
        let size = |shape: &[usize]| shape.iter().fold(1_u64, |n, &axis| n.saturating_mul(axis as u64));
        let layer = self.layer_shapes().iter().fold(0_u64, |n, (_, shape)| n.saturating_add(size(shape)));
        let ends = size(&[self.vocab_size, self.hidden_size]).saturating_add(size(&[2, self.hidden_size]));
        layer.saturating_mul(self.num_layers as u64).saturating_add(ends)
    }

    /// Whether weight decay applies to the parameter `name`: to all but norms and biases.
    pub fn decays(name: &str) -> bool {
        let (owner, kind) = name.rsplit_once('.').unwrap_or(("", name));
        kind != "bias" && !owner.ends_with("norm")
    }

    fn layer_shapes(&self) -> Vec<(String, Vec<usize>)> {
        match self.arch {
            Arch::Tokenformer => self.tokenformer_layer(),
            Arch::Transformer => self.transformer_layer(),
        }
    }

    fn tokenformer_layer(&self) -> Vec<(String, Vec<usize>)> {
        let tokens = |module: Module| {
            ["key_param_tokens", "value_param_tokens"]
                .map(|kind| (format!("{}.{kind}", module.name()), vec![self.slots(module), self.hidden_size]))
        };
        Module::ALL.into_iter().flat_map(tokens).collect()
    }

    fn transformer_layer(&self) -> Vec<(String, Vec<usize>)> {
        let (width, inner) = (self.hidden_size, self.mlp_width());
        let linear = |name: &str, out: usize, input: usize| {
            [(format!("{name}.weight"), vec![out, input]), (format!("{name}.bias"), vec![out])]
        };
        let mut shapes = Vec::from(norm_shapes("input_layernorm", width));
        for module in [Module::Query, Module::Key, Module::Value, Module::Proj] {
            shapes.extend(linear(module.name(), width, width));
        }
        shapes.extend(norm_shapes("post_attention_layernorm", width));
        shapes.extend(linear("mlp.dense_h_to_4h", inner, width));
        shapes.extend(linear("mlp.dense_4h_to_h", width, inner));
        shapes
    }
}

fn norm_shapes(name: &str, width: usize) -> [(String, Vec<usize>); 2] {
    [(format!("{name}.weight"), vec![width]), (format!("{name}.bias"), vec![width])]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product_sum(model: &ModelConfig) -> u64 {
        model.param_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
    }

    #[test]
    fn tokenformer_names_are_official_and_in_order() {
        let model = ModelConfig { vocab_size: 65, num_layers: 2, ..ModelConfig::default() };
        let shapes = model.param_shapes();
        assert_eq!(shapes.len(), 1 + 2 * 10 + 2);
        assert_eq!(shapes[0], ("word_embeddings.weight".to_owned(), vec![65, 128]));
        assert_eq!(shapes[11].0, "layers.1.attention.query.key_param_tokens");
        assert_eq!(shapes[18], ("layers.1.attention.proj.value_param_tokens".to_owned(), vec![128, 128]));
        assert_eq!(shapes[20], ("layers.1.mlp.value_param_tokens".to_owned(), vec![512, 128]));
        assert_eq!(shapes[22], ("norm.bias".to_owned(), vec![128]));
        assert_eq!(model.param_count(), product_sum(&model));
    }

    #[test]
    fn transformer_shapes_follow_the_baseline() {
        let model = ModelConfig { arch: Arch::Transformer, vocab_size: 61, hidden_size: 32, ..ModelConfig::default() };
        let shapes = model.param_shapes();
        let of = |name: &str| shapes.iter().find(|(n, _)| n == name).map(|(_, shape)| shape.clone());
        assert_eq!(shapes.len(), 1 + 4 * 16 + 2);
        assert_eq!(of("layers.3.mlp.dense_h_to_4h.weight"), Some(vec![128, 32]));
        assert_eq!(of("layers.3.mlp.dense_4h_to_h.weight"), Some(vec![32, 128]));
        assert_eq!(of("layers.0.post_attention_layernorm.bias"), Some(vec![32]));
        assert_eq!(of("layers.0.attention.proj.bias"), Some(vec![32]));
        // V*C + L*(4*(C*C + C) + 2*4C*C + 4C + C + 4C) + 2C
        let layer = 4 * (32 * 32 + 32) + 2 * 4 * 32 * 32 + 4 * 32 + 32 + 4 * 32;
        assert_eq!(model.param_count(), 61 * 32 + 4 * layer + 64);
        assert_eq!(model.param_count(), product_sum(&model));
    }

    #[test]
    fn only_norms_and_biases_escape_weight_decay() {
        let mut model = ModelConfig { num_layers: 1, ..ModelConfig::default() };
        let undecayed = |model: &ModelConfig| {
            let shapes = model.param_shapes();
            shapes.into_iter().map(|(name, _)| name).filter(|name| !ModelConfig::decays(name)).collect::<Vec<_>>()
        };
        assert_eq!(undecayed(&model), ["norm.weight", "norm.bias"]);
        model.arch = Arch::Transformer;
        // Two norms of two tensors, six biases, and the final norm.
        assert_eq!(undecayed(&model).len(), 4 + 6 + 2);
        assert!(ModelConfig::decays("layers.0.mlp.dense_4h_to_h.weight"));
        assert!(!ModelConfig::decays("layers.0.post_attention_layernorm.weight"));
    }

    #[test]
    fn an_absurd_model_is_counted_without_overflow() {
        let model = ModelConfig { hidden_size: usize::MAX, num_layers: usize::MAX, ..ModelConfig::default() };
        assert_eq!(model.param_count(), u64::MAX);
    }
}
