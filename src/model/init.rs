//! Initial parameters, as the official configuration (`init_method: normal`, `output_layer_init_method:
//! wang_init`): embedding, head and keys N(0, 0.02), values N(0, 2 / layers / sqrt(hidden_size)), norms 1 and 0.
//! The Transformer's inner and outer linear weights follow keys and values; biases are 0.

use crate::array::HostTensor;
use crate::config::{Linear, ModelConfig, Parameter, Role};
use crate::rng::{Rng, Stream};
use std::collections::BTreeMap;

/// Parameters, gradients or moments on the host, by name.
pub type Tensors = BTreeMap<String, HostTensor>;

/// Standard deviation of embedding, head and keys.
pub(crate) const KEY_STD: f64 = 0.02;

/// Standard deviation of values.
pub(crate) fn value_std(config: &ModelConfig) -> f64 {
    2.0 / config.num_layers as f64 / (config.hidden_size as f64).sqrt()
}

/// The parameters of a new model: a pure function of configuration, seed and each parameter's name.
pub fn initial(config: &ModelConfig, seed: u64) -> Tensors {
    let tensor = |Parameter { name, shape, role, .. }: Parameter| {
        let data = values(config, role, shape.iter().product(), Rng::named(seed, Stream::Init, &name));
        (name, HostTensor { shape, data })
    };
    config.parameters().into_iter().map(tensor).collect()
}

/// `n` initial values of a parameter, the random ones drawn from `rng`. Smaller than the others are those through which a
/// layer writes to the residual stream and, as every value token, to a module's output.
pub fn values(config: &ModelConfig, role: Role, n: usize, mut rng: Rng) -> Vec<f32> {
    match role {
        Role::Bias(_) | Role::NormBias(_) => vec![0.0; n],
        Role::NormWeight(_) => vec![1.0; n],
        Role::Values(_) | Role::Weight(Linear::Proj | Linear::MlpOut) => rng.normals(n, value_std(config)),
        Role::Embedding | Role::Head | Role::Keys(_) | Role::Weight(_) => rng.normals(n, KEY_STD),
    }
}
