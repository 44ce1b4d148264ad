//! The parameters that follow from a model's shape: their names, shapes, and what each is for.
//!
//! Nothing here holds values. TokenFormer names are those of the official checkpoints, without their
//! `sequential.{i}` prefix. Names are made here from roles; nothing reads a role out of a name.

use super::{Arch, ModelConfig, Module};

/// The embedding, which is read row by row and may be larger than a binding.
pub(crate) const EMBEDDING: &str = "word_embeddings.weight";
/// The output head, where it is not the embedding: of the same shape, and read in the same way.
pub(crate) const HEAD: &str = "embed_out.weight";

/// What a parameter is for: what code that treats parameters differently decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The embedding, (vocab_size, C), which is the output head as well where there is no [`Role::Head`].
    Embedding,
    /// The output head, (vocab_size, C).
    Head,
    /// Keys of a Pattention, (N, C): parameter tokens.
    Keys(Module),
    /// Values of a Pattention, (N, C): parameter tokens.
    Values(Module),
    /// Weight of a linear projection, (outputs, inputs).
    Weight(Linear),
    /// Bias of a linear projection, (outputs).
    Bias(Linear),
    /// Factors of a LayerNorm, (C).
    NormWeight(Norm),
    /// Terms of a LayerNorm, (C).
    NormBias(Norm),
}

/// A linear projection of a Transformer's layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Linear {
    /// Queries of the attention.
    Query,
    /// Keys of the attention.
    Key,
    /// Values of the attention.
    Value,
    /// From the heads' output back to the residual stream.
    Proj,
    /// Into the MLP: its rows are the MLP's units.
    MlpIn,
    /// Out of the MLP: its columns are the MLP's units.
    MlpOut,
}

/// A LayerNorm with parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Norm {
    /// Before a layer's attention.
    Input,
    /// Before a layer's MLP.
    PostAttention,
    /// After the last layer.
    Final,
}

/// One parameter of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in checkpoints.
    pub name: String,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// Its layer, from 0, where it belongs to one.
    pub layer: Option<usize>,
}

impl Parameter {
    fn new(role: Role, layer: Option<usize>, shape: Vec<usize>) -> Self {
        let name = layer.map_or_else(|| role.name(), |layer| role.name_in(layer));
        Self { name, shape, role, layer }
    }
}

impl Linear {
    fn name(self) -> &'static str {
        match self {
            Self::Query => Module::Query.name(),
            Self::Key => Module::Key.name(),
            Self::Value => Module::Value.name(),
            Self::Proj => Module::Proj.name(),
            Self::MlpIn => "mlp.dense_h_to_4h",
            Self::MlpOut => "mlp.dense_4h_to_h",
        }
    }
}

impl Norm {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input_layernorm",
            Self::PostAttention => "post_attention_layernorm",
            Self::Final => "norm",
        }
    }
}

impl Role {
    /// The name, without that of the layer.
    fn name(self) -> String {
        match self {
            Self::Embedding => EMBEDDING.to_owned(),
            Self::Head => HEAD.to_owned(),
            Self::Keys(module) => format!("{}.key_param_tokens", module.name()),
            Self::Values(module) => format!("{}.value_param_tokens", module.name()),
            Self::Weight(linear) => format!("{}.weight", linear.name()),
            Self::Bias(linear) => format!("{}.bias", linear.name()),
            Self::NormWeight(norm) => format!("{}.weight", norm.name()),
            Self::NormBias(norm) => format!("{}.bias", norm.name()),
        }
    }

    /// The name of the parameter with this role in a layer.
    pub(crate) fn name_in(self, layer: usize) -> String {
        format!("layers.{layer}.{}", self.name())
    }

    /// What the names of the parameters of a layer have in common; nothing where `name` is of none.
    pub(crate) fn layer_of(name: &str) -> Option<&str> {
        let layer = name.strip_prefix("layers.")?.split('.').next()?;
        name.get(.."layers.".len() + layer.len())
    }

    /// Whether weight decay applies: to all but norms and biases.
    pub fn decays(self) -> bool {
        !matches!(self, Self::Bias(_) | Self::NormWeight(_) | Self::NormBias(_))
    }

    /// Whether it is a matrix of a layer, which Muon updates: all but embedding, head, norms and biases.
    pub fn is_hidden_matrix(self) -> bool {
        matches!(self, Self::Keys(_) | Self::Values(_) | Self::Weight(_))
    }

    /// Whether its rows are parameter tokens, which can train apart from each other.
    pub(crate) fn is_tokens(self) -> bool {
        matches!(self, Self::Keys(_) | Self::Values(_))
    }

    /// Whether a layer writes to the residual stream through it: with zeros here it adds exactly 0.
    pub(crate) fn writes_to_residual(self) -> bool {
        match self {
            Self::Values(module) => matches!(module, Module::Proj | Module::Mlp),
            Self::Weight(linear) | Self::Bias(linear) => matches!(linear, Linear::Proj | Linear::MlpOut),
            Self::Embedding | Self::Head | Self::Keys(_) | Self::NormWeight(_) | Self::NormBias(_) => false,
        }
    }

    /// The parameter of the layer whose gradient one dispatch makes together with this one's: query, key and value have
    /// one input.
    pub(crate) fn trained_with(self) -> Self {
        let module = |module| if matches!(module, Module::Query | Module::Key) { Module::Value } else { module };
        let linear = |linear| if matches!(linear, Linear::Query | Linear::Key) { Linear::Value } else { linear };
        match self {
            Self::Keys(of) => Self::Keys(module(of)),
            Self::Values(of) => Self::Values(module(of)),
            Self::Weight(of) => Self::Weight(linear(of)),
            Self::Bias(of) => Self::Bias(linear(of)),
            Self::Embedding | Self::Head | Self::NormWeight(_) | Self::NormBias(_) => self,
        }
    }
}

impl ModelConfig {
    /// All parameters, in checkpoint order. Meant for a validated model: an absurd layer count is a long list.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut all = vec![Parameter::new(Role::Embedding, None, vec![self.vocab_size, self.hidden_size])];
        for layer in 0..self.num_layers {
            let of_layer = self.layer_parameters().into_iter();
            all.extend(of_layer.map(|(role, shape)| Parameter::new(role, Some(layer), shape)));
        }
        all.extend(norm(Norm::Final, self.hidden_size).map(|(role, shape)| Parameter::new(role, None, shape)));
        if !self.tie_word_embeddings {
            all.push(Parameter::new(Role::Head, None, vec![self.vocab_size, self.hidden_size]));
        }
        all
    }

    /// The name of the parameter that makes the logits.
    pub(crate) fn head(&self) -> &'static str {
        if self.tie_word_embeddings { EMBEDDING } else { HEAD }
    }

    /// Names and shapes of [`ModelConfig::parameters`].
    pub fn param_shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.parameters().into_iter().map(|parameter| (parameter.name, parameter.shape)).collect()
    }

    /// Number of trained values, without building the list of parameters.
    pub fn param_count(&self) -> u64 {
        let size = |shape: &[usize]| shape.iter().fold(1_u64, |n, &axis| n.saturating_mul(axis as u64));
        let layer = self.layer_parameters().iter().fold(0_u64, |n, (_, shape)| n.saturating_add(size(shape)));
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        let ends = size(&[tables, self.vocab_size, self.hidden_size]).saturating_add(size(&[2, self.hidden_size]));
        layer.saturating_mul(self.num_layers as u64).saturating_add(ends)
    }

    fn layer_parameters(&self) -> Vec<(Role, Vec<usize>)> {
        match self.arch {
            Arch::Tokenformer => self.tokenformer_layer(),
            Arch::Transformer => self.transformer_layer(),
        }
    }

    fn tokenformer_layer(&self) -> Vec<(Role, Vec<usize>)> {
        let tokens = |module: Module| {
            [Role::Keys(module), Role::Values(module)].map(|role| (role, vec![self.slots(module), self.hidden_size]))
        };
        Module::ALL.into_iter().flat_map(tokens).collect()
    }

    fn transformer_layer(&self) -> Vec<(Role, Vec<usize>)> {
        let (width, inner) = (self.hidden_size, self.mlp_width());
        let linear = |linear, out: usize, input: usize| {
            [(Role::Weight(linear), vec![out, input]), (Role::Bias(linear), vec![out])]
        };
        let tensors = if self.attention_bias { 2 } else { 1 };
        let mut all = Vec::from(norm(Norm::Input, width));
        for projection in [Linear::Query, Linear::Key, Linear::Value, Linear::Proj] {
            all.extend(linear(projection, width, width).into_iter().take(tensors));
        }
        all.extend(norm(Norm::PostAttention, width));
        all.extend(linear(Linear::MlpIn, inner, width));
        all.extend(linear(Linear::MlpOut, width, inner));
        all
    }
}

fn norm(norm: Norm, width: usize) -> [(Role, Vec<usize>); 2] {
    [Role::NormWeight(norm), Role::NormBias(norm)].map(|role| (role, vec![width]))
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
    fn options_of_gpt_neox_add_a_head_and_leave_out_biases() {
        let model = ModelConfig { arch: Arch::Transformer, vocab_size: 61, num_layers: 2, ..ModelConfig::default() };
        let untied = ModelConfig { tie_word_embeddings: false, ..model.clone() };
        let last = untied.parameters().pop().unwrap();
        assert_eq!((last.name.as_str(), last.shape), ("embed_out.weight", vec![61, 128]));
        assert!(last.role.decays() && last.layer.is_none());
        assert_eq!(untied.param_count(), model.param_count() + 61 * 128);
        let plain = ModelConfig { attention_bias: false, ..model.clone() };
        assert_eq!(plain.param_count(), model.param_count() - 2 * 4 * 128);
        let biases =
            |model: &ModelConfig| model.parameters().iter().filter(|p| matches!(p.role, Role::Bias(_))).count();
        assert_eq!((biases(&model), biases(&plain)), (2 * 6, 2 * 2));
        for model in [untied, plain] {
            assert_eq!(model.param_count(), product_sum(&model));
        }
    }

    #[test]
    fn only_norms_and_biases_escape_weight_decay() {
        let mut model = ModelConfig { num_layers: 1, ..ModelConfig::default() };
        let undecayed = |model: &ModelConfig| {
            let undecayed = model.parameters().into_iter().filter(|parameter| !parameter.role.decays());
            undecayed.map(|parameter| parameter.name).collect::<Vec<_>>()
        };
        assert_eq!(undecayed(&model), ["norm.weight", "norm.bias"]);
        model.arch = Arch::Transformer;
        // Two norms of two tensors, six biases, and the final norm.
        let names = undecayed(&model);
        assert_eq!(names.len(), 4 + 6 + 2);
        assert!(!names.contains(&"layers.0.mlp.dense_4h_to_h.weight".to_owned()));
        assert!(names.contains(&"layers.0.post_attention_layernorm.weight".to_owned()));
    }

    #[test]
    fn a_layer_writes_through_its_output_projections() {
        for (arch, written) in [
            (Arch::Tokenformer, &["attention.proj.value_param_tokens", "mlp.value_param_tokens"][..]),
            (
                Arch::Transformer,
                &["attention.proj.weight", "attention.proj.bias", "mlp.dense_4h_to_h.weight", "mlp.dense_4h_to_h.bias"],
            ),
        ] {
            let model = ModelConfig { arch, num_layers: 1, ..ModelConfig::default() };
            let all = model.parameters().into_iter().filter(|parameter| parameter.role.writes_to_residual());
            let names: Vec<String> = all.map(|parameter| parameter.name).collect();
            assert_eq!(names, written.iter().map(|name| format!("layers.0.{name}")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_two_parameters_have_a_layer_and_a_role() {
        for arch in [Arch::Tokenformer, Arch::Transformer] {
            let model = ModelConfig { arch, num_layers: 2, tie_word_embeddings: false, ..ModelConfig::default() };
            let mut all: Vec<_> = model.parameters().into_iter().map(|p| (p.layer, p.role)).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }

    #[test]
    fn an_absurd_model_is_counted_without_overflow() {
        let model = ModelConfig { hidden_size: usize::MAX, num_layers: usize::MAX, ..ModelConfig::default() };
        assert_eq!(model.param_count(), u64::MAX);
    }
}
