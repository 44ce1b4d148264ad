//! Initial parameters, as the official configuration (`init_method: normal`, `output_layer_init_method:
//! wang_init`): embedding and keys N(0, 0.02), values N(0, 2 / layers / sqrt(hidden_size)), norms 1 and 0.
//! The Transformer's inner and outer linear weights follow keys and values; biases are 0.

use crate::array::HostTensor;
use crate::config::ModelConfig;
use crate::rng::{Rng, Stream};
use std::collections::BTreeMap;

/// Parameters, gradients or moments on the host, by name.
pub type Tensors = BTreeMap<String, HostTensor>;

/// Standard deviation of embedding and keys.
pub const KEY_STD: f64 = 0.02;

/// Standard deviation of values.
pub fn value_std(config: &ModelConfig) -> f64 {
    2.0 / config.num_layers as f64 / (config.hidden_size as f64).sqrt()
}

/// The parameters of a new model: a pure function of configuration, seed and each parameter's name.
pub fn initial(config: &ModelConfig, seed: u64) -> Tensors {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let data = values(config, &name, shape.iter().product(), Rng::named(seed, Stream::Init, &name));
        (name, HostTensor { shape, data })
    };
    config.param_shapes().into_iter().map(tensor).collect()
}

/// `n` initial values of the parameter `name`, the random ones drawn from `rng`.
pub fn values(config: &ModelConfig, name: &str, n: usize, mut rng: Rng) -> Vec<f32> {
    match name {
        _ if name.ends_with(".bias") => vec![0.0; n],
        _ if !ModelConfig::decays(name) => vec![1.0; n],
        _ if is_output(name) => rng.normals(n, value_std(config)),
        _ => rng.normals(n, KEY_STD),
    }
}

/// Whether a parameter writes to the residual stream (or, as every value token, to a module's output).
fn is_output(name: &str) -> bool {
    name.ends_with("value_param_tokens")
        || name.ends_with("attention.proj.weight")
        || name.ends_with("dense_4h_to_h.weight")
}
