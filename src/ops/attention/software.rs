//! The schedule for software drivers: `shaders/attention_forward.wgsl` and `shaders/attention_backward.wgsl`.
//!
//! It takes every head width up to [`MAX_HEAD_WIDTH`], so it is also what a GPU runs where the others cannot.

use super::Attention;
use crate::ops::dropout::Dropout;
use crate::error::{Error, Result};
use crate::graph::{ElementwiseDims, Graph, Tensor};
use crate::kernel::Access::{self, Read, Uniform, Write};
use crate::kernel::{Dtype, Kernel, parameter_block, shader, word, workgroups};

static DELTA: Kernel = Kernel::new("elementwise.wgsl", "row_dots", &[Read, Read, Write]);

/// A kernel without dropout, and what it binds with it.
struct Both {
    plain: Kernel,
    with_draw: &'static [Access],
}

/// Of an entry point that binds so.
macro_rules! both {
    ($file:literal, $entry:literal, $($access:ident),*) => {
        Both { plain: Kernel::new($file, $entry, &[$($access),*]), with_draw: &[$($access,)* Uniform] }
    };
}

static FORWARD: Both = both!("attention_forward.wgsl", "forward", Read, Read, Read, Uniform, Write, Write);
static BACKWARD_QUERIES: Both =
    both!("attention_backward.wgsl", "backward_queries", Read, Read, Read, Read, Write, Read, Read);
static BACKWARD_KEYS_VALUES: Both =
    both!("attention_backward.wgsl", "backward_keys_values", Read, Read, Read, Read, Write, Read, Read, Write);

impl Both {
    /// The kernel of activations of a type, without or with dropout.
    fn kernel(&'static self, dtype: Dtype, dropout: bool) -> Result<&'static Kernel> {
        let Self { plain, with_draw } = self;
        if !dropout {
            return Ok(plain);
        }
        let text = shader::with_dropout(plain.file, dtype)?;
        let name = format!("{}-dropout-{}", plain.name(), dtype.name());
        Ok(Kernel::generated_as(&name, plain.entry, with_draw, || text))
    }
}

parameter_block! {
    /// The parameter block of `shaders/attention_tile.wgsl`, which both files import.
    pub(crate) struct AttentionDims {
        batch: u32,
        heads: u32,
        head_width: u32,
        q_rows: u32,
        /// rows per sequence of k and v: q_rows, or the capacity of a cache
        kv_rows: u32,
        scale: f32,
        /// of dropout
        place: u32,
    }
}

/// Widest head the kernels hold in registers.
pub(crate) const MAX_HEAD_WIDTH: usize = 128;

/// Own rows of a workgroup.
const ROWS: usize = 8;

/// Most loop iterations of one invocation, by the loops of `backward_keys_values`, the longest kernel, with the maximum
/// that only `forward` takes; a loop is counted once more than it turns, and a workgroup walks several tiles where there
/// are more of them than workgroups.
pub(crate) fn iterations(shape: Attention, head_width: usize) -> usize {
    let dots = (head_width / 2 + 1) + (head_width % 2 + 1);
    // A wide and a narrow loop, of which one turns; channels from 64 on take them again.
    let sums = (64 / 2 + 2) * head_width.div_ceil(64);
    let block = 2 * dots + 2 * sums + (8 + 1) + 1;
    let tile = shape.kv_rows.div_ceil(64) * block + 2 * (head_width.div_ceil(8) + 1) + (8 + 1) + 1;
    let tiles = shape.tiles(ROWS);
    tiles.div_ceil(workgroups(tiles) as usize).saturating_mul(tile)
}

/// Records the forward and, on the tape, the backward; o is (batch * q_rows, heads * head_width).
pub fn record(
    g: &mut Graph,
    [q, k, v]: [Tensor; 3],
    run: Tensor,
    shape: Attention,
    head_width: usize,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let (rows, width) = g.matrix(q)?;
    // f32 in every precision. Backward subtracts delta, <do, o>, from <do, v>; where attention is even the two are nearly
    // equal, and an o rounded to f16 made the gradients of q and k up to seven times as inexact.
    let exact = g.statistic("attention", &[rows, width]);
    let lse = g.statistic("log-sum", &[rows, shape.heads]);
    let dims = AttentionDims {
        batch: word(shape.batch),
        heads: word(shape.heads),
        head_width: word(head_width),
        q_rows: word(shape.q_rows),
        kv_rows: word(shape.kv_rows),
        scale: (1.0 / (head_width as f64).sqrt()) as f32,
        place: dropout.map_or(0, |dropout| dropout.place.number()),
    };
    let dispatch = move |g: &mut Graph, both: &'static Both, tensors: &[Tensor], flops: u64| {
        let kernel = both.kernel(g.dtype(q), dropout.is_some())?;
        let draw = dropout.map(|dropout| dropout.draw);
        let tensors: Vec<Tensor> = tensors.iter().copied().chain(draw).collect();
        g.call(kernel).bind(&tensors).parameters(dims).groups(shape.tiles(ROWS)).flops(flops).record()
    };
    let flops = shape.flops(width);
    dispatch(g, &FORWARD, &[q, k, v, run, exact, lse], flops)?;
    let mut o = exact;
    if g.dtype(q) != Dtype::F32 {
        o = g.activation("attention", &[rows, width]);
        g.cast(exact, o)?;
    }
    g.on_backward(move |g| {
        let dout = g.take_grad(o)?;
        let delta = g.statistic("delta", &[rows, shape.heads]);
        let of_heads = ElementwiseDims { columns: word(head_width), ..ElementwiseDims::of(rows * shape.heads) };
        let call = g.call(&DELTA).bind(&[exact, dout, delta]).parameters(of_heads);
        call.groups((rows * shape.heads).div_ceil(64)).record()?;
        let [dq, dk, dv] = targets(g, [q, k, v])?;
        dispatch(g, &BACKWARD_QUERIES, &[q, k, v, dout, dq, lse, delta], flops * 3 / 2)?;
        dispatch(g, &BACKWARD_KEYS_VALUES, &[k, q, dout, v, dk, lse, delta, dv], flops * 2)
    });
    Ok(o)
}

/// Where the gradients go, which are overwritten.
pub fn targets(g: &mut Graph, tensors: [Tensor; 3]) -> Result<[Tensor; 3]> {
    let mut targets = tensors;
    for (target, tensor) in targets.iter_mut().zip(tensors) {
        let (grad, add) = g.grad_target(tensor)?;
        if add && !g.is_parameter(tensor) {
            return Err(Error::defect("q, k and v may feed one attention only"));
        }
        *target = grad;
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::super::MAX_ITERATIONS;
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
