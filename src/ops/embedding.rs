//! Embedding lookup: `y_r = E[token_r]`.
//!
//! y is the residual stream: f32 in every precision.
//! `dE[v]` adds up dy over the rows that hold token v, in ascending order: the host sorts row numbers by
//! token, so the sum needs no atomics and has the same bits in every run. Of an embedding in parts each part is looked up,
//! and gets its gradient, by a dispatch of its own.

use super::layer_norm::{self, LayerNormGpuDims, layer_norm};
use super::{Case, Input};
use crate::error::Result;
use crate::graph::table::Part;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Kernel, parameter_block, word};

static FORWARD: Kernel = Kernel::new("embedding.wgsl", "forward", &[Read, Read, Write]);
static BACKWARD: Kernel = Kernel::new("embedding.wgsl", "backward", &[Read, Read, Read, Write]);
static WITH_NORM_GPU: Kernel = Kernel::new("layer_norm_gpu.wgsl", "embed_plain", &[Read, Read, Write, Write, Write]);

parameter_block! {
    /// The parameter block of `shaders/embedding.wgsl`.
    pub(crate) struct EmbeddingDims {
        rows: u32,
        vocab: u32,
        columns: u32,
        accumulate: u32,
        /// the token of the first row
        first: u32,
        /// the last token that there is
        last: u32,
    }
}

impl EmbeddingDims {
    fn of([rows, vocab, columns]: [usize; 3], part: Part, accumulate: bool) -> Self {
        Self {
            rows: word(rows),
            vocab: word(part.rows),
            columns: word(columns),
            accumulate: u32::from(accumulate),
            first: word(part.first),
            last: word(vocab.saturating_sub(1)),
        }
    }
}

/// Row numbers sorted by token (R), and where each token's rows start (V + 1); see
/// [`crate::data::token_index`].
#[derive(Debug, Clone, Copy)]
pub struct TokenRows {
    /// Row numbers, by token.
    pub sorted_rows: Tensor,
    /// First entry of each token, and the end.
    pub starts: Tensor,
}

/// What is looked up where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookup {
    /// Token ids (R).
    pub tokens: Tensor,
    /// The embedding (V, C).
    pub embed: Tensor,
    /// Needed for the backward.
    pub index: Option<TokenRows>,
}

impl Lookup {
    /// Rows looked up, rows of the table, and their width.
    pub(super) fn sizes(&self, g: &Graph) -> Result<[usize; 3]> {
        let (vocab, columns) = g.matrix(self.embed)?;
        Ok([g.shape(self.tokens).iter().product(), vocab, columns])
    }

    /// Records the gradient of the embedding from that of `y`, what was looked up.
    pub(super) fn backward(&self, g: &mut Graph, y: Tensor) -> Result<()> {
        let Some(TokenRows { sorted_rows, starts }) = self.index else { return Ok(()) };
        let sizes = self.sizes(g)?;
        let [_, vocab, columns] = sizes;
        let dy = g.take_grad(y)?;
        for part in g.parts(self.embed) {
            let (dembed, add) = g.grad_target(part.tensor)?;
            let starts = match part.rows {
                rows if rows == vocab => starts,
                rows => g.view(starts, part.first, format!("starts from {}", part.first), &[rows + 1])?,
            };
            let call = g.call(&BACKWARD).bind(&[sorted_rows, starts, dy, dembed]);
            let groups = part.rows * columns.div_ceil(64);
            call.parameters(EmbeddingDims::of(sizes, part, add)).groups(groups).record()?;
        }
        Ok(())
    }
}

/// y (R, C) from tokens (R) and the embedding (V, C). `index` is needed for the backward.
pub fn embedding(g: &mut Graph, tokens: Tensor, embed: Tensor, index: Option<TokenRows>) -> Result<Tensor> {
    let lookup = Lookup { tokens, embed, index };
    let sizes = lookup.sizes(g)?;
    let [rows, _, columns] = sizes;
    let y = g.residual("embedding", &[rows, columns]);
    for part in g.parts(embed) {
        let call = g.call(&FORWARD).bind(&[tokens, part.tensor, y]);
        call.parameters(EmbeddingDims::of(sizes, part, false)).groups((rows * columns).div_ceil(64)).record()?;
    }
    if index.is_some() {
        g.on_backward(move |g| lookup.backward(g, y));
    }
    Ok(y)
}

/// What is looked up, (R, C), and the [`layer_norm()`] of it, without parameters: on a GPU one dispatch, where the
/// embedding is in one piece.
pub(crate) fn embed_norm(g: &mut Graph, lookup: Lookup, eps: f64) -> Result<(Tensor, Tensor)> {
    let Lookup { tokens, embed, index } = lookup;
    if !g.on_gpu() || g.parts(embed).len() > 1 {
        let x = embedding(g, tokens, embed, index)?;
        return Ok((x, layer_norm(g, x, None, eps)?));
    }
    let [rows, vocab, columns] = lookup.sizes(g)?;
    let x = g.residual("embedding", &[rows, columns]);
    let (norm, y) = layer_norm::begin(g, x, None, eps)?;
    let dims = LayerNormGpuDims { rows: word(rows), columns: word(columns), eps: eps as f32, vocab: word(vocab) };
    let call = g.call(WITH_NORM_GPU.for_width(columns)).bind(&[embed, tokens, x, y, norm.stats]);
    call.parameters(dims).groups(rows).record()?;
    g.on_backward(move |g| {
        norm.backward(g, x, y)?;
        lookup.backward(g, x)
    });
    Ok((x, y))
}

/// Of the norm in test cases.
const NORM_EPS: f64 = 1e-5;

fn reference(columns: usize, tokens: &[f64], embed: &[f64]) -> Vec<f64> {
    let row = |token: &f64| *token as usize * columns..(*token as usize + 1) * columns;
    tokens.iter().flat_map(|t| embed[row(t)].to_vec()).collect()
}

/// Names of inputs that are parts of the embedding.
const PARTS: [&str; 3] = ["embed", "embed from part 1", "embed from part 2"];

/// `parts`: how many rows of the embedding each of its parts has.
fn case(rows: usize, parts: &'static [usize], columns: usize, normed: bool) -> Case {
    let vocab: usize = parts.iter().sum();
    let tokens: Vec<u32> = (0..rows).map(|r| (r * r + r / 3) as u32 % vocab as u32).collect();
    let mut sorted: Vec<u32> = (0..rows as u32).collect();
    sorted.sort_by_key(|&r| tokens[r as usize]);
    let starts = (0..=vocab as u32).map(|v| tokens.iter().filter(|&&t| t < v).count() as u32).collect();
    let in_parts = if parts.len() > 1 { format!(" in parts {parts:?}") } else { String::new() };
    let known = [
        Input::words("tokens", &[rows], tokens),
        Input::words("sorted_rows", &[rows], sorted),
        Input::words("starts", &[vocab + 1], starts),
    ];
    let of_part = |(&name, &rows): (&&'static str, &usize)| Input::parameter(name, &[rows, columns], 1.0);
    Case {
        op: "embedding",
        name: format!("{rows} of {vocab}x{columns}{in_parts}{}", if normed { ", and its norm" } else { "" }),
        inputs: known.into_iter().chain(PARTS.iter().zip(parts).map(of_part)).collect(),
        build: Box::new(move |g, t| {
            let embed = if let [one] = t[3..] { one } else { g.in_parts("embed", &t[3..])? };
            let index = Some(TokenRows { sorted_rows: t[1], starts: t[2] });
            if !normed {
                return Ok(vec![embedding(g, t[0], embed, index)?]);
            }
            let (rows, norm) = embed_norm(g, Lookup { tokens: t[0], embed, index }, NORM_EPS)?;
            Ok(vec![norm, rows])
        }),
        reference: Box::new(move |x| {
            let rows = reference(columns, &x[0], &x[3..].concat());
            if !normed {
                return vec![rows];
            }
            vec![layer_norm::reference(columns, NORM_EPS, &rows, None), rows]
        }),
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    let looked_up = [(1, &[1][..], 1), (50, &[19], 24), (33, &[7], 130), (90, &[128, 256, 19], 24)]
        .map(|(rows, parts, columns)| case(rows, parts, columns, false));
    // Past what a workgroup holds, and element by element.
    let normed = [(50, &[19][..], 24), (33, &[7], 131), (5, &[3], 4612), (90, &[128, 19], 24)]
        .map(|(rows, parts, columns)| case(rows, parts, columns, true));
    looked_up.into_iter().chain(normed).collect()
}

pub(super) fn large_cases() -> Vec<Case> {
    // Many rows of tokens, and many rows of the table.
    vec![case(65_539, &[31], 65, false), case(50, &[65_539], 3, false), case(65_539, &[31], 8, true)]
}
