//! The standard Transformer baseline, of the same shape: pre-norm with affine LayerNorms, linear
//! projections with biases, a GELU MLP, the same rotary embedding, attention and head. It is GPT-NeoX, with its options:
//!
//! ```text
//! x = x + attn(ln1(x));  x = x + mlp(ln2(x))
//! x = x + attn(ln1(x)) + mlp(ln2(x))                    use_parallel_residual
//! ```
//! and an attention without biases (`attention_bias`). In training with `dropout`: of the embedding, the weights of the attention,
//! and what attn and mlp give.

use super::{Layer, Residual};
use crate::config::Module;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::dropout::Place;
use crate::ops::gelu::gelu;
use crate::ops::linear;

/// One layer: x (R, C) to x (R, C).
pub fn block(g: &mut Graph, layer: &Layer, x: &mut Residual) -> Result<()> {
    let h = norm(g, layer, "input_layernorm", x)?;
    let biased = layer.config.attention_bias;
    let qkv = project(g, layer, [Module::Query, Module::Key, Module::Value].map(Module::name), biased, h)?;
    let attended = layer.attention(g, qkv)?;
    let [projected] = project(g, layer, [Module::Proj.name()], biased, attended)?;
    let projected = layer.dropped(g, Place::Projection, projected)?;
    let parallel = layer.config.use_parallel_residual;
    if !parallel {
        x.add(g, projected)?;
    }

    let h = norm(g, layer, "post_attention_layernorm", x)?;
    let [inner] = project(g, layer, ["mlp.dense_h_to_4h"], true, h)?;
    let active = gelu(g, inner, layer.config.gelu_tanh)?;
    let [mlp] = project(g, layer, ["mlp.dense_4h_to_h"], true, active)?;
    let mlp = layer.dropped(g, Place::Mlp, mlp)?;
    if parallel {
        x.add(g, projected)?;
    }
    x.add(g, mlp)
}

fn norm(g: &mut Graph, layer: &Layer, name: &str, x: &mut Residual) -> Result<Tensor> {
    let weight = layer.parameter(&format!("{name}.weight"))?;
    let bias = layer.parameter(&format!("{name}.bias"))?;
    x.norm(g, Some((weight, bias)), layer.config.layernorm_epsilon)
}

fn project<const M: usize>(
    g: &mut Graph,
    layer: &Layer,
    names: [&str; M],
    biased: bool,
    x: Tensor,
) -> Result<[Tensor; M]> {
    let all = |kind: &str| -> Result<[Tensor; M]> {
        let mut tensors = [x; M];
        for (tensor, name) in tensors.iter_mut().zip(names) {
            *tensor = layer.parameter(&format!("{name}.{kind}"))?;
        }
        Ok(tensors)
    };
    let biases = if biased { Some(all("bias")?) } else { None };
    linear::several(g, x, all("weight")?, biases)
}
