//! TokenFormer (arXiv 2410.23168): a Transformer in which every linear projection is attention to
//! learnable parameter tokens. This is the page to read first.
//!
//! ```text
//! x = embed[tokens]                                     no position embedding, no scaling
//! x = x + Proj(CausalAttention(RoPE(Q(ln x)), RoPE(K(ln x)), V(ln x)))
//! x = x + FFN(ln x)                                     ln: LayerNorm without parameters, eps 1e-5
//! logits = LayerNorm(x; weight, bias) embed^T           or a head of its own (tie_word_embeddings)
//! ```
//! Q, K, V, Proj and FFN are each one [`pattention`] with its own tokens: `qkv_slot_num`,
//! `proj_slot_num`, `ffn_slot_num` of them (official code: `megatron/model/tokenformer.py`). There is no
//! matrix whose size depends on the slots in both directions, which is why the model can grow.
//!
//! In training with `dropout`, at the places of GPT-2: `embed[tokens]`, the weights of CausalAttention, and what Proj and FFN give
//! before it is added to x.

use super::{Layer, Residual};
use crate::config::Module;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::dropout::Place;
use crate::ops::pattention::{self, Settings, Tokens};

/// One layer: x (R, C) to x (R, C).
pub fn block(g: &mut Graph, layer: &Layer, x: &mut Residual) -> Result<()> {
    let eps = layer.config.layernorm_epsilon;

    let h = x.norm(g, None, eps)?;
    let qkv = attend_to_tokens(g, layer, [Module::Query, Module::Key, Module::Value], h)?;
    let attended = layer.attention(g, qkv)?;
    let [projected] = attend_to_tokens(g, layer, [Module::Proj], attended)?;
    let projected = layer.dropped(g, Place::Projection, projected)?;
    x.add(g, projected)?;

    let h = x.norm(g, None, eps)?;
    let [mlp] = attend_to_tokens(g, layer, [Module::Mlp], h)?;
    let mlp = layer.dropped(g, Place::Mlp, mlp)?;
    x.add(g, mlp)
}

/// Attention of the rows of `x` to the parameter tokens of each module; they have as many and one tau.
fn attend_to_tokens<const M: usize>(
    g: &mut Graph,
    layer: &Layer,
    modules: [Module; M],
    x: Tensor,
) -> Result<[Tensor; M]> {
    let config = layer.config;
    let mut tokens = [Tokens { keys: x, values: x }; M];
    for (tokens, module) in tokens.iter_mut().zip(modules) {
        tokens.keys = layer.parameter(&format!("{}.key_param_tokens", module.name()))?;
        tokens.values = layer.parameter(&format!("{}.value_param_tokens", module.name()))?;
    }
    let tau = config.tau(modules[0]);
    let settings = Settings {
        norm: config.norm_activation_type,
        tau,
        eps: config.pattention_eps * tau,
        gelu_tanh: config.gelu_tanh,
        zeros_rest: layer.inputs.dropout.is_some(),
    };
    pattention::several(g, x, tokens, settings)
}
