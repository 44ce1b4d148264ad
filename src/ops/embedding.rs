//! Embedding lookup: `y_r = E[token_r]`.
//!
//! y is the residual stream: f32 in every precision.
//! `dE[v]` adds up dy over the rows that hold token v, in ascending order: the host sorts row numbers by
//! token, so the sum needs no atomics and has the same bits in every run.

use super::{Case, Input};
use crate::error::Result;
use crate::gpu::kernel::Access::{Read, Write};
use crate::gpu::kernel::{Dims, Kernel, workgroups};
use crate::graph::{Graph, Tensor};

static FORWARD: Kernel = Kernel::new("embedding.wgsl", "forward", &[Read, Read, Write]);
static BACKWARD: Kernel = Kernel::new("embedding.wgsl", "backward", &[Read, Read, Read, Write]);

/// Row numbers sorted by token (R), and where each token's rows start (V + 1); see
/// [`crate::data::token_index`].
#[derive(Debug, Clone, Copy)]
pub struct TokenRows {
    /// Row numbers, by token.
    pub sorted_rows: Tensor,
    /// First entry of each token, and the end.
    pub starts: Tensor,
}

/// y (R, C) from tokens (R) and the embedding (V, C). `index` is needed for the backward.
pub fn embedding(g: &mut Graph, tokens: Tensor, embed: Tensor, index: Option<TokenRows>) -> Result<Tensor> {
    let (vocab, columns) = g.matrix(embed)?;
    let rows: usize = g.shape(tokens).iter().product();
    let y = g.residual("embedding", &[rows, columns]);
    let dims = move |add| Dims::new().u(rows).u(vocab).u(columns).flag(add);
    g.call(&FORWARD, &[tokens, embed, y], dims(false), workgroups((rows * columns).div_ceil(64)), 0)?;
    if let Some(TokenRows { sorted_rows, starts }) = index {
        g.on_backward(move |g| {
            let dy = g.take_grad(y)?;
            let (dembed, add) = g.grad_target(embed)?;
            let groups = workgroups(vocab * columns.div_ceil(64));
            g.call(&BACKWARD, &[sorted_rows, starts, dy, dembed], dims(add), groups, 0)
        });
    }
    Ok(y)
}

fn reference(columns: usize, tokens: &[f64], embed: &[f64]) -> Vec<f64> {
    let row = |token: &f64| *token as usize * columns..(*token as usize + 1) * columns;
    tokens.iter().flat_map(|t| embed[row(t)].to_vec()).collect()
}

fn case((rows, vocab, columns): (usize, usize, usize)) -> Case {
    let tokens: Vec<u32> = (0..rows).map(|r| (r * r + r / 3) as u32 % vocab as u32).collect();
    let mut sorted: Vec<u32> = (0..rows as u32).collect();
    sorted.sort_by_key(|&r| tokens[r as usize]);
    let starts = (0..=vocab as u32).map(|v| tokens.iter().filter(|&&t| t < v).count() as u32).collect();
    Case {
        op: "embedding",
        name: format!("{rows} of {vocab}x{columns}"),
        inputs: vec![
            Input::words("tokens", &[rows], tokens),
            Input::parameter("embed", &[vocab, columns], 1.0),
            Input::words("sorted_rows", &[rows], sorted),
            Input::words("starts", &[vocab + 1], starts),
        ],
        build: Box::new(|g, t| {
            let index = TokenRows { sorted_rows: t[2], starts: t[3] };
            Ok(vec![embedding(g, t[0], t[1], Some(index))?])
        }),
        reference: Box::new(move |x| vec![reference(columns, &x[0], &x[1])]),
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    [(1, 1, 1), (50, 19, 24), (33, 7, 130)].into_iter().map(case).collect()
}

pub(super) fn large_cases() -> Vec<Case> {
    // Many rows of tokens, and many rows of the table.
    vec![case((65_539, 31, 65)), case((50, 65_539, 3))]
}
