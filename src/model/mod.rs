//! The models: what a forward pass is, written once and recorded into a [`Graph`].
//!
//! Read [`tokenformer`] first: it is the paper on one page. [`transformer`] is the baseline of the same
//! shape. [`graphs`] records the computations a run needs (training, evaluation), [`update`] the optimizer's,
//! [`grow`] makes a model larger, [`prune`] smaller. Nothing here knows the GPU.

pub mod graphs;
pub mod grow;
pub mod init;
mod muon;
pub mod prune;
pub mod sample;
pub mod tokenformer;
pub mod transformer;
pub mod update;

use crate::config::{Arch, EMBEDDING, ModelConfig};
use crate::error::Result;
use crate::graph::{Class, Graph, Tensor};
use crate::ops::add::add;
use crate::ops::attention::{self, Attention, Rotation, attention_with_dropout};
use crate::ops::cache;
use crate::ops::dropout::{Dropout, Place, dropout};
use crate::ops::embedding::{Lookup, TokenRows, embed_norm, embedding};
use crate::ops::layer_norm::{Affine, add_norm, layer_norm};

/// What a forward pass reads besides the parameters, and its shape.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each sequence in this run.
    pub seq: usize,
    /// Token ids, (batch * seq).
    pub tokens: Tensor,
    /// Rows sorted by token, needed in training.
    pub index: Option<TokenRows>,
    /// Uniform block whose first word is the position of the first token.
    pub run: Tensor,
    /// Cosines and sines, (positions, rotary width); see [`crate::ops::rotary::table`].
    pub rope: Tensor,
    /// Rows of the key/value caches, where generating; `batch` is 1 then.
    pub cache: Option<usize>,
    /// What draws the masks of dropout (see [`crate::ops::dropout`]), in training where there is dropout.
    pub dropout: Option<Tensor>,
    /// Whether each layer makes its output itself, for it to be kept; otherwise the next norm may make it.
    pub separate_layers: bool,
}

/// The residual stream x of a block: a sum whose last term may still wait, because it is added by the norm that follows.
#[derive(Debug, Clone, Copy)]
pub struct Residual {
    sum: Sum,
    waiting: Option<Tensor>,
}

#[derive(Debug, Clone, Copy)]
enum Sum {
    Made(Tensor),
    /// Rows of the embedding, which the first norm looks up.
    LookedUp(Lookup),
}

impl Residual {
    /// x = x + `term`.
    pub fn add(&mut self, g: &mut Graph, term: Tensor) -> Result<()> {
        self.settle(g)?;
        self.waiting = Some(term);
        Ok(())
    }

    /// LayerNorm of x.
    pub fn norm(&mut self, g: &mut Graph, affine: Option<Affine>, eps: f64) -> Result<Tensor> {
        let (sum, normed) = match (self.sum, self.waiting.take(), affine) {
            (Sum::LookedUp(lookup), None, None) => embed_norm(g, lookup, eps)?,
            (_, None, _) => {
                let sum = self.made(g)?;
                (sum, layer_norm(g, sum, affine, eps)?)
            }
            (_, Some(term), _) => {
                let sum = self.made(g)?;
                add_norm(g, [sum, term], affine, eps)?
            }
        };
        self.sum = Sum::Made(sum);
        Ok(normed)
    }

    fn made(&mut self, g: &mut Graph) -> Result<Tensor> {
        let made = match self.sum {
            Sum::Made(sum) => sum,
            Sum::LookedUp(Lookup { tokens, embed, index }) => embedding(g, tokens, embed, index)?,
        };
        self.sum = Sum::Made(made);
        Ok(made)
    }

    /// Adds what waits.
    fn settle(&mut self, g: &mut Graph) -> Result<()> {
        if let Some(term) = self.waiting.take() {
            let sum = self.made(g)?;
            self.sum = Sum::Made(add(g, sum, term)?);
        }
        Ok(())
    }
}

/// Final hidden states (batch * seq, hidden_size), after the final norm, and the outputs of the layers that make them
/// themselves, see [`Inputs::separate_layers`].
pub(crate) fn hidden(g: &mut Graph, config: &ModelConfig, inputs: &Inputs) -> Result<(Tensor, Vec<Tensor>)> {
    let packed = g.pack(&config.param_shapes(), Class::Parameter, str::to_owned)?;
    let parameters = Parameters { all: packed.tensors };
    // Where two dispatches cost what one does, an output that the next layer makes would only be kept the longer.
    let separate = inputs.separate_layers || !g.on_gpu();
    let lookup = Lookup { tokens: inputs.tokens, embed: parameters.get(EMBEDDING)?, index: inputs.index };
    let mut x = Residual { sum: Sum::LookedUp(lookup), waiting: None };
    if let Some(draw) = inputs.dropout {
        let made = x.made(g)?;
        x.sum = Sum::Made(dropout(g, made, inputs.seq, Dropout { draw, place: Place::Embedding })?);
    } else if separate {
        x.made(g)?;
    }
    let mut layers = Vec::with_capacity(config.num_layers);
    for i in 0..config.num_layers {
        g.begin_layer();
        let layer = Layer { index: i, config, inputs, parameters: &parameters };
        match config.arch {
            Arch::Tokenformer => tokenformer::block(g, &layer, &mut x)?,
            Arch::Transformer => transformer::block(g, &layer, &mut x)?,
        }
        if separate {
            x.settle(g)?;
            layers.push(x.made(g)?);
        }
    }
    g.end_layers();
    let norm = (parameters.get("norm.weight")?, parameters.get("norm.bias")?);
    Ok((x.norm(g, Some(norm), config.layernorm_epsilon)?, layers))
}

/// The parameters of one recording, by name.
pub struct Parameters {
    all: Vec<(String, Tensor)>,
}

impl Parameters {
    /// The parameter called `name`.
    ///
    /// # Errors
    /// A name that the configuration does not have is a defect.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let found = self.all.iter().find(|(n, _)| n == name);
        found.map(|(_, tensor)| *tensor).ok_or_else(|| crate::error::Error::defect(format!("no parameter \"{name}\"")))
    }
}

/// What a block needs to know of its place.
pub struct Layer<'a> {
    /// From 0.
    pub index: usize,
    /// The model.
    pub config: &'a ModelConfig,
    /// The run.
    pub inputs: &'a Inputs,
    parameters: &'a Parameters,
}

impl Layer<'_> {
    /// The parameter `layers.{index}.{name}`.
    pub fn parameter(&self, name: &str) -> Result<Tensor> {
        self.parameters.get(&format!("layers.{}.{name}", self.index))
    }

    /// What the layer adds to the residual stream at `place`: `term`, dropped in training where there is dropout.
    pub fn dropped(&self, g: &mut Graph, place: fn(usize) -> Place, term: Tensor) -> Result<Tensor> {
        match self.drop_at(place) {
            Some(by) => dropout(g, term, self.inputs.seq, by),
            None => Ok(term),
        }
    }

    fn drop_at(&self, place: fn(usize) -> Place) -> Option<Dropout> {
        self.inputs.dropout.map(|draw| Dropout { draw, place: place(self.index) })
    }

    /// Rotary embedding of q and k, then causal attention, over the cache where there is one.
    pub fn attention(&self, g: &mut Graph, [q, k, v]: [Tensor; 3]) -> Result<Tensor> {
        let Self { config, inputs, .. } = self;
        let kv_rows = inputs.cache.unwrap_or(inputs.seq);
        let shape = Attention { batch: inputs.batch, heads: config.num_attention_heads, q_rows: inputs.seq, kv_rows };
        let keys = inputs.cache.is_none();
        let rotation = Rotation { table: inputs.rope, width: config.rotary_width(), keys };
        let (k, v) = match inputs.cache {
            None => (k, v),
            Some(capacity) => {
                let cached = [capacity, config.hidden_size];
                let keys = g.state(&format!("cache:{}.key", self.index), &cached);
                let values = g.state(&format!("cache:{}.value", self.index), &cached);
                // Keys are cached as they will be looked up: rotated.
                attention::rotate(g, k, rotation, inputs.run, shape)?;
                cache::append(g, k, inputs.run, keys)?;
                cache::append(g, v, inputs.run, values)?;
                (keys, values)
            }
        };
        attention_with_dropout(g, [q, k, v], inputs.run, shape, Some(rotation), self.drop_at(Place::Attention))
    }
}
