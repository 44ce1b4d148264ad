//! The standard Transformer baseline, of the same shape: pre-norm with affine LayerNorms, linear
//! projections with biases, a GELU MLP, the same rotary embedding, attention and tied head.

use super::{Layer, Residual};
use crate::config::Module;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::gelu::gelu;
use crate::ops::linear::{self, Affine};

/// One layer: x (R, C) to x (R, C).
pub fn block(g: &mut Graph, layer: &Layer, x: &mut Residual) -> Result<()> {
    let h = norm(g, layer, "input_layernorm", x)?;
    let qkv = project(g, layer, [Module::Query, Module::Key, Module::Value].map(Module::name), h)?;
    let attended = layer.attention(g, qkv)?;
    let [projected] = project(g, layer, [Module::Proj.name()], attended)?;
    x.add(g, projected)?;

    let h = norm(g, layer, "post_attention_layernorm", x)?;
    let [inner] = project(g, layer, ["mlp.dense_h_to_4h"], h)?;
    let active = gelu(g, inner, layer.config.gelu_tanh)?;
    let [mlp] = project(g, layer, ["mlp.dense_4h_to_h"], active)?;
    x.add(g, mlp)
}

fn norm(g: &mut Graph, layer: &Layer, name: &str, x: &mut Residual) -> Result<Tensor> {
    let weight = layer.parameter(&format!("{name}.weight"))?;
    let bias = layer.parameter(&format!("{name}.bias"))?;
    x.norm(g, Some((weight, bias)), layer.config.layernorm_epsilon)
}

fn project<const M: usize>(g: &mut Graph, layer: &Layer, names: [&str; M], x: Tensor) -> Result<[Tensor; M]> {
    let mut layers = [Affine { weight: x, bias: x }; M];
    for (affine, name) in layers.iter_mut().zip(names) {
        affine.weight = layer.parameter(&format!("{name}.weight"))?;
        affine.bias = layer.parameter(&format!("{name}.bias"))?;
    }
    linear::several(g, x, layers)
}
