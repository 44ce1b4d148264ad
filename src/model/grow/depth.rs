//! More layers, of either architecture. The old ones keep their numbers, names and moments; the new ones are on top.
//!
//! **Identity** (arXiv 2308.06103): new layers as at creation, but with output projections of zero, so that each adds
//! exactly 0 to the residual stream and changes no bit. On top, because there nothing old is renamed, and the
//! gradient of the output projections comes from the head without passing another new layer. The rest of such a layer
//! learns from the second step on.
//!
//! **Stack** (`G_stack`, Du et al., 2024, arXiv 2405.15319): the whole stack again, in order, so layer i is a copy of
//! layer i mod L. The function changes; layers on another input are no copies for long.

use super::Part;
use crate::array::HostTensor;
use crate::config::ModelConfig;
use crate::model::init::Tensors;

/// Parameters through which a layer writes to the residual stream.
const OUTPUTS: [&str; 6] = [
    "attention.proj.value_param_tokens",
    "mlp.value_param_tokens",
    "attention.proj.weight",
    "attention.proj.bias",
    "mlp.dense_4h_to_h.weight",
    "mlp.dense_4h_to_h.bias",
];

/// The old layers, then ones that add nothing yet.
pub(super) fn identity(part: Part) -> HostTensor {
    let zero = layer_of(part.name).is_some_and(|(_, name)| OUTPUTS.contains(&name));
    part.appended(|part, n| if zero { vec![0.0; n] } else { part.initial(n) })
}

/// The old layers again and again.
pub(super) fn stack(part: Part, params: &Tensors, before: &ModelConfig) -> HostTensor {
    let copied = layer_of(part.name).and_then(|(layer, name)| {
        let original = layer.checked_rem(before.num_layers)?;
        params.get(&format!("layers.{original}.{name}")).cloned()
    });
    copied.unwrap_or_else(|| part.padded())
}

/// Number of a parameter's layer, and its name in there.
fn layer_of(name: &str) -> Option<(usize, &str)> {
    let (layer, name) = name.strip_prefix("layers.")?.split_once('.')?;
    Some((layer.parse().ok()?, name))
}
