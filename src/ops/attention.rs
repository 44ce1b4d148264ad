//! Causal attention between tokens, without ever storing a T x T matrix.
//!
//! o_i = sum over j <= i of softmax_j(<q_i, k_j> / sqrt(D)) v_j, by online softmax over blocks of keys.
//! Saved for backward: q, k, v, o in f32 and the log-sum of each row (R, H), from which probabilities are
//! computed again (Dao, FlashAttention-2, 2023). See `shaders/attention.wgsl` for the derivatives.

use super::{Case, Input};
use crate::error::{Error, Result};
use crate::gpu::kernel::Access::{Read, Uniform, Write};
use crate::gpu::kernel::{Dims, Dtype, Kernel, workgroups};
use crate::graph::{Graph, Tensor};

static FORWARD: Kernel = Kernel::new("attention.wgsl", "forward", &[Read, Read, Read, Uniform, Write, Write]);
static DELTA: Kernel = Kernel::new("elementwise.wgsl", "row_dots", &[Read, Read, Write]);
static BACKWARD_QUERIES: Kernel =
    Kernel::new("attention.wgsl", "backward_queries", &[Read, Read, Read, Read, Write, Read, Read]);
static BACKWARD_KEYS_VALUES: Kernel =
    Kernel::new("attention.wgsl", "backward_keys_values", &[Read, Read, Read, Read, Write, Read, Read, Write]);

/// Widest head the kernels hold in registers.
pub const MAX_HEAD_WIDTH: usize = 128;

/// Mesa's llvmpipe (22.3.6) ends every loop of an invocation after 65 535 iterations in all, silently.
const MAX_ITERATIONS: usize = 60_000;

/// Shape of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Sequences.
    pub batch: usize,
    /// Heads; the width of a row is `heads * head_width`.
    pub heads: usize,
    /// Queries of one sequence in this run.
    pub q_rows: usize,
    /// Rows of k and v of one sequence: `q_rows`, or the capacity of a key/value cache.
    pub kv_rows: usize,
}

/// Tiles of 8 rows in all heads and sequences: pieces of work of a kernel.
fn tiles(shape: Attention) -> usize {
    shape.batch * shape.heads * shape.q_rows.div_ceil(8)
}

/// Most loop iterations of one invocation on a software adapter (8 lanes), by the loops of
/// `backward_keys_values`, the longest kernel, with the maximum that only `forward` takes; a loop is counted once
/// more than it turns, and a workgroup walks several tiles where there are more of them than workgroups.
fn iterations(shape: Attention, head_width: usize) -> usize {
    let dots = (head_width / 2 + 1) + (head_width % 2 + 1);
    // A wide and a narrow loop, of which one turns; channels from 64 on take them again.
    let sums = (64 / 2 + 2) * head_width.div_ceil(64);
    let block = 2 * dots + 2 * sums + (8 + 1) + 1;
    let tile = shape.kv_rows.div_ceil(64) * block + 2 * (head_width.div_ceil(8) + 1) + (8 + 1) + 1;
    tiles(shape).div_ceil(workgroups(tiles(shape)) as usize).saturating_mul(tile)
}

/// o (batch * q_rows, C) from q, k and v. Query i stands at `run`'s position + i and sees the keys up
/// to and including its own. Differentiable where `kv_rows == q_rows` and the position is 0.
pub fn causal_attention(g: &mut Graph, [q, k, v]: [Tensor; 3], run: Tensor, shape: Attention) -> Result<Tensor> {
    let (rows, width) = g.matrix(q)?;
    let head_width = width / shape.heads;
    if head_width > MAX_HEAD_WIDTH || head_width * shape.heads != width {
        return Err(Error::usage(format!(
            "attention with {} heads over width {width}: a head must have a whole width of at most {MAX_HEAD_WIDTH}; \
             change num_attention_heads",
            shape.heads
        )));
    }
    let iterations = iterations(shape, head_width);
    if g.choices().ability().software && iterations > MAX_ITERATIONS {
        return Err(Error::device(format!(
            "attention over seq_length {} with heads of width {head_width} takes {iterations} loop iterations a kernel, \
             software adapters are trusted with {MAX_ITERATIONS}; use a shorter seq_length, more heads, a smaller \
             batch_size, or a GPU",
            shape.kv_rows
        )));
    }
    // f32 in every precision. Backward subtracts delta, <do, o>, from <do, v>; where attention is even the two are nearly
    // equal, and an o rounded to f16 made the gradients of q and k up to seven times as inexact.
    let exact = g.statistic("attention", &[rows, width]);
    let lse = g.statistic("log-sum", &[rows, shape.heads]);
    let dims = move || {
        let Attention { batch, heads, q_rows, kv_rows } = shape;
        Dims::new().u(batch).u(heads).u(head_width).u(q_rows).u(kv_rows).f(1.0 / (head_width as f64).sqrt())
    };
    let groups = workgroups(tiles(shape));
    let flops = 2 * (rows * shape.q_rows) as u64 * width as u64;
    g.call(&FORWARD, &[q, k, v, run, exact, lse], dims(), groups, flops)?;
    let mut o = exact;
    if g.dtype(q) != Dtype::F32 {
        o = g.activation("attention", &[rows, width]);
        g.cast(exact, o)?;
    }
    g.on_backward(move |g| {
        let dout = g.take_grad(o)?;
        let delta = g.statistic("delta", &[rows, shape.heads]);
        let delta_dims = Dims::new().u(rows * shape.heads).u(0).u(0).u(head_width);
        g.call(&DELTA, &[exact, dout, delta], delta_dims, workgroups((rows * shape.heads).div_ceil(64)), 0)?;
        let (dq, add_q) = g.grad_target(q)?;
        let (dk, add_k) = g.grad_target(k)?;
        let (dv, add_v) = g.grad_target(v)?;
        if [q, k, v].into_iter().zip([add_q, add_k, add_v]).any(|(t, add)| add && !g.is_parameter(t)) {
            return Err(Error::usage("q, k and v may feed one attention only; this is a defect"));
        }
        g.call(&BACKWARD_QUERIES, &[q, k, v, dout, dq, lse, delta], dims(), groups, flops * 3 / 2)?;
        g.call(&BACKWARD_KEYS_VALUES, &[k, q, dout, v, dk, lse, delta, dv], dims(), groups, flops * 2)
    });
    Ok(o)
}

/// Attention in f64 of queries at `first`, `first + 1`, ...
pub fn reference(shape: Attention, head_width: usize, first: usize, x: &[Vec<f64>]) -> Vec<f64> {
    let Attention { batch, heads, q_rows, kv_rows } = shape;
    let width = heads * head_width;
    let mut o = vec![0.0; batch * q_rows * width];
    for (b, h, i) in (0..batch * heads * q_rows).map(|e| (e / heads / q_rows, e / q_rows % heads, e % q_rows)) {
        let at = |rows: usize, row: usize| (b * rows + row) * width + h * head_width;
        let dot =
            |j: usize| -> f64 { (0..head_width).map(|d| x[0][at(q_rows, i) + d] * x[1][at(kv_rows, j) + d]).sum() };
        let scores: Vec<f64> = (0..=first + i).map(|j| dot(j) / (head_width as f64).sqrt()).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
        for (j, s) in scores.iter().enumerate() {
            for d in 0..head_width {
                o[at(q_rows, i) + d] += (s - largest).exp() / sum * x[2][at(kv_rows, j) + d];
            }
        }
    }
    o
}

fn case(shape: Attention, head_width: usize, first: usize) -> Case {
    let Attention { batch, heads, q_rows, kv_rows } = shape;
    let cached = kv_rows != q_rows;
    let input = |name, rows: usize| {
        let input = Input::normal(name, &[batch * rows, heads * head_width], 1.5);
        if cached { input.without_gradient() } else { input }
    };
    Case {
        op: "attention",
        name: format!("{batch}x{q_rows}x{heads}x{head_width}{}", if cached { ", cached" } else { "" }),
        inputs: vec![
            input("q", q_rows),
            input("k", kv_rows),
            input("v", kv_rows),
            Input::words("run", &[4], vec![first as u32, 0, 0, 0]),
        ],
        build: Box::new(move |g, t| Ok(vec![causal_attention(g, [t[0], t[1], t[2]], t[3], shape)?])),
        reference: Box::new(move |x| vec![reference(shape, head_width, first, x)]),
        nmse: 1e-9,
        gradient: !cached,
        ..Case::default()
    }
}

pub(super) fn large_cases() -> Vec<Case> {
    vec![case(Attention { batch: 8193, heads: 8, q_rows: 2, kv_rows: 2 }, 4, 0)]
}

pub(super) fn cases() -> Vec<Case> {
    let square = |batch, heads, rows| Attention { batch, heads, q_rows: rows, kv_rows: rows };
    vec![
        case(square(1, 1, 1), 1, 0),
        case(square(2, 3, 17), 16, 0),
        case(square(1, 2, 67), 32, 0),
        case(square(1, 1, 130), 8, 0),
        case(square(2, 1, 16), 65, 0),
        case(square(1, 1, 19), 128, 0),
        case(Attention { batch: 1, heads: 2, q_rows: 5, kv_rows: 80 }, 12, 66),
        case(Attention { batch: 1, heads: 2, q_rows: 1, kv_rows: 9 }, 12, 3),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    // The two ways to pass llvmpipe's limit unseen: lanes without a channel, and several tiles a workgroup.
    #[test]
    fn iterations_count_idle_lanes_and_every_tile_of_a_workgroup() {
        let rows = |batch, rows| Attention { batch, heads: 1, q_rows: rows, kv_rows: rows };
        for (head_width, long) in [(1, 46_000), (7, 42_800), (9, 42_000), (17, 38_500), (128, 13_900)] {
            assert!(iterations(rows(1, long), head_width) > MAX_ITERATIONS, "width {head_width}, {long} rows");
        }
        let one = iterations(rows(1, 1024), 32);
        assert!(one <= MAX_ITERATIONS);
        assert_eq!(iterations(rows(511, 1024), 32), one);
        assert_eq!(iterations(rows(512, 1024), 32), 2 * one);
    }
}
