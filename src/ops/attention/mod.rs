//! Causal attention between tokens, without ever storing a T x T matrix.
//!
//! o_i = sum over j <= i of softmax_j(<q_i, k_j> / sqrt(D)) v_j, by online softmax over blocks of keys.
//! Saved for backward: q, k, v, o and the log-sum of each row, from which probabilities are computed again (Dao,
//! FlashAttention-2, 2023). One op, three schedules: [`software`] for software drivers, [`lanes`] for GPUs,
//! [`cooperative`] for f16 on GPUs with matrix units. Which one depends on the device, the type of the activations and
//! the head width, never on the rows: a row has the same bits in a full pass and in any chunk over a cache.

mod cases;
pub mod cooperative;
pub mod lanes;
pub mod software;
pub mod source;

pub(super) use cases::{cases, large_cases};
pub use cases::{more_cases, reference};

use super::dropout::Dropout;
use super::rotary::{self, Rotary};
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
pub use crate::kernel::AttentionSchedule;
use crate::kernel::{Dtype, Kernel, Target, word, workgroups};
use cooperative::Cooperative;
use lanes::Lanes;
use source::{Dims, Form, Pass};

/// Widest head of any schedule.
pub(crate) const MAX_HEAD_WIDTH: usize = 256;

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

impl Attention {
    /// Tiles of so many rows in all heads and sequences: pieces of work of a kernel.
    fn tiles(self, rows: usize) -> usize {
        self.batch * self.heads * self.q_rows.div_ceil(rows)
    }

    /// Floating-point operations of the forward, about: half of the pairs are hidden.
    fn flops(self, width: usize) -> u64 {
        2 * (self.batch * self.q_rows * self.q_rows) as u64 * width as u64
    }
}

/// Rotary position embedding of q, and of k where `keys` is set: keys of a cache are rotated before they are appended.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// Cosines and sines, (positions, width); see [`rotary::table`].
    pub table: Tensor,
    /// Rotated channels of a head.
    pub width: usize,
    /// Whether k is to be rotated too.
    pub keys: bool,
}

/// The schedule for heads of a form on a device: `forced`, if they can take it, or the fastest that they can.
///
/// # Errors
/// A head width that none of them takes.
pub fn schedule(form: &Form, target: &Target, forced: Option<AttentionSchedule>) -> Result<AttentionSchedule> {
    let fits = |schedule: &AttentionSchedule| match schedule {
        AttentionSchedule::Software => form.head_width as usize <= software::MAX_HEAD_WIDTH,
        AttentionSchedule::Lanes => lanes::takes(form),
        AttentionSchedule::Cooperative => cooperative::takes(form, target),
    };
    let order = match target.software {
        true => [AttentionSchedule::Software, AttentionSchedule::Lanes, AttentionSchedule::Cooperative],
        false => [AttentionSchedule::Cooperative, AttentionSchedule::Lanes, AttentionSchedule::Software],
    };
    forced.into_iter().chain(order).find(fits).ok_or_else(|| {
        Error::usage(format!(
            "attention with heads of {} channels: above {} channels their number must be a multiple of 16; change \
             num_attention_heads",
            form.head_width,
            software::MAX_HEAD_WIDTH
        ))
    })
}

/// Rotates x, q or k of an attention, in place: with the bits that its kernels have where they rotate by themselves.
///
/// # Errors
/// A head width without kernels.
pub fn rotate(g: &mut Graph, x: Tensor, rotation: Rotation, run: Tensor, shape: Attention) -> Result<()> {
    let head_width = g.matrix(x)?.1 / shape.heads;
    let form = Form { head_width: head_width as u32, half: 0, keys: false, dtype: g.dtype(x), dropout: false };
    let fused = schedule(&form, g.kernels().target(), g.kernels().attention())? != AttentionSchedule::Software;
    let rotary = Rotary { heads: shape.heads, head_width, rotary_width: rotation.width, seq: shape.q_rows };
    rotary::rotate_as(g, x, rotation.table, run, rotary, fused)
}

/// o (batch * q_rows, C) from q, k and v. Query i stands at `run`'s position + i and sees the keys up
/// to and including its own. Differentiable where `kv_rows == q_rows` and the position is 0.
pub fn causal_attention(g: &mut Graph, qkv: [Tensor; 3], run: Tensor, shape: Attention) -> Result<Tensor> {
    rotary_attention(g, qkv, run, shape, None)
}

/// As [`causal_attention`], of q and k that are rotated first: by the kernels as they load them where they can, otherwise
/// in place and ahead of them. Both give the same bits in f32.
pub fn rotary_attention(
    g: &mut Graph,
    qkv: [Tensor; 3],
    run: Tensor,
    shape: Attention,
    rotation: Option<Rotation>,
) -> Result<Tensor> {
    attention_with_dropout(g, qkv, run, shape, rotation, None)
}

/// As [`rotary_attention`], with dropout of the weights after their softmax: of query i and key j of a head as row i and column
/// j of its mask. o_i = sum over j of p_ij f_ij v_j; backward, dp_ij = f_ij <do_i, v_j>, and what is subtracted of it is still
/// <do_i, o_i>. Every schedule has it, and computes the mask again in each of its kernels.
pub fn attention_with_dropout(
    g: &mut Graph,
    [q, k, v]: [Tensor; 3],
    run: Tensor,
    shape: Attention,
    rotation: Option<Rotation>,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let (_, width) = g.matrix(q)?;
    let head_width = width / shape.heads;
    if head_width == 0 || head_width > MAX_HEAD_WIDTH || head_width * shape.heads != width {
        return Err(Error::usage(format!(
            "attention with {} heads over width {width}: a head must have a whole width of at most {MAX_HEAD_WIDTH}; \
             change num_attention_heads",
            shape.heads
        )));
    }
    let rotation = rotation.filter(|rotation| rotation.width >= 2);
    let mut form = Form {
        head_width: head_width as u32,
        half: rotation.map_or(0, |rotation| rotation.width as u32 / 2),
        keys: rotation.is_some_and(|rotation| rotation.keys),
        dtype: g.dtype(q),
        dropout: dropout.is_some(),
    };
    let target = *g.kernels().target();
    let schedule = schedule(&form, &target, g.kernels().attention())?;
    let folds = match schedule {
        AttentionSchedule::Software => false,
        AttentionSchedule::Lanes => lanes::rotates(&form),
        AttentionSchedule::Cooperative => cooperative::rotates(&form),
    };
    if let Some(rotation) = rotation.filter(|_| !folds) {
        rotate(g, q, rotation, run, shape)?;
        if rotation.keys {
            rotate(g, k, rotation, run, shape)?;
        }
        form = Form { half: 0, keys: false, ..form };
    }
    if schedule == AttentionSchedule::Software {
        within_iterations(&target, shape, head_width, software::iterations(shape, head_width))?;
        return software::record(g, [q, k, v], run, shape, head_width, dropout);
    }
    let [forward, queries, keys_values] = Pass::ALL.map(|pass| Generated::new(schedule, form, pass, &target));
    let (forward, queries, keys_values) = (forward?, queries?, keys_values?);
    let most = [forward, queries, keys_values].map(|kernel| kernel.iterations(shape)).into_iter().max();
    within_iterations(&target, shape, head_width, most.unwrap_or(0))?;
    let table = rotation.filter(|_| folds).map(|rotation| rotation.table);
    let extra = Extra { table, dropout, form };
    record(g, [q, k, v], run, extra, shape, [forward, queries, keys_values])
}

/// Refuses what a software driver would end in the middle.
fn within_iterations(target: &Target, shape: Attention, head_width: usize, iterations: usize) -> Result<()> {
    if target.software && iterations > MAX_ITERATIONS {
        return Err(Error::device(format!(
            "attention over seq_length {} with heads of width {head_width} takes {iterations} loop iterations a kernel, \
             software adapters are trusted with {MAX_ITERATIONS}; use a shorter seq_length, more heads, a smaller \
             batch_size, or a GPU",
            shape.kv_rows
        )));
    }
    Ok(())
}

/// What some forms bind and others do not.
#[derive(Clone, Copy)]
struct Extra {
    /// Cosines and sines, where kernels rotate.
    table: Option<Tensor>,
    dropout: Option<Dropout>,
    form: Form,
}

/// Records generated kernels.
fn record(
    g: &mut Graph,
    [q, k, v]: [Tensor; 3],
    run: Tensor,
    Extra { table, dropout, form }: Extra,
    shape: Attention,
    [forward, queries, keys_values]: [Generated; 3],
) -> Result<Tensor> {
    let (rows, width) = g.matrix(q)?;
    let o = g.activation("attention", &[rows, width]);
    let exact = (g.dtype(q) != Dtype::F32).then(|| g.statistic("attention", &[rows, width]));
    // The log-sum of each row; the backward adds <do, o>.
    let stat = g.statistic("log-sum", &[shape.batch * shape.heads, shape.q_rows, 2]);
    let dims = Dims {
        batch: word(shape.batch),
        heads: word(shape.heads),
        q_rows: word(shape.q_rows),
        kv_rows: word(shape.kv_rows),
        place: dropout.map_or(0, |dropout| dropout.place.number()),
    };
    let dispatch = move |g: &mut Graph, generated: Generated, tensors: &[Tensor], flops: u64| {
        let tensors: Vec<Tensor> = tensors.iter().copied().chain(dropout.map(|dropout| dropout.draw)).collect();
        let call = g.call(generated.kernel()).bind(&tensors).parameters(dims.of_form(&form));
        call.groups(shape.tiles(generated.rows())).flops(flops).record()
    };
    let with_table = move |inputs: &[Tensor], rest: &[Tensor]| -> Vec<Tensor> {
        inputs.iter().copied().chain(table).chain(rest.iter().copied()).collect()
    };
    let flops = shape.flops(width);
    let outputs: Vec<Tensor> = [run, o].into_iter().chain(exact).chain([stat]).collect();
    let tensors = with_table(&[q, k, v], &outputs);
    dispatch(g, forward, &tensors, flops)?;
    g.on_backward(move |g| {
        let dout = g.take_grad(o)?;
        let [dq, dk, dv] = software::targets(g, [q, k, v])?;
        let tensors = with_table(&[q, k, v, exact.unwrap_or(o), dout], &[stat, dq]);
        dispatch(g, queries, &tensors, flops * 3 / 2)?;
        let tensors = with_table(&[q, k, v, dout, stat], &[dk, dv]);
        dispatch(g, keys_values, &tensors, flops * 2)
    });
    Ok(o)
}

/// A kernel whose text is made for a head width and a device.
#[derive(Debug, Clone, Copy)]
pub enum Generated {
    /// See [`lanes`].
    Lanes(Lanes),
    /// See [`cooperative`].
    Cooperative(Cooperative),
}

impl Generated {
    /// The kernel of a pass in a schedule that takes the form.
    ///
    /// # Errors
    /// A schedule that does not.
    pub fn new(schedule: AttentionSchedule, form: Form, pass: Pass, target: &Target) -> Result<Self> {
        let kernel = match schedule {
            AttentionSchedule::Software => None,
            AttentionSchedule::Lanes => Some(Self::Lanes(Lanes::new(form, pass, target))),
            AttentionSchedule::Cooperative => Cooperative::new(form, pass, target).map(Self::Cooperative),
        };
        kernel.ok_or_else(|| Error::defect(format!("no kernel of attention in {schedule}")))
    }

    /// The kernel, its text generated the first time.
    pub fn kernel(self) -> &'static Kernel {
        match self {
            Self::Lanes(lanes) => lanes.kernel(),
            Self::Cooperative(cooperative) => cooperative.kernel(),
        }
    }

    /// Own rows of a workgroup.
    fn rows(self) -> usize {
        match self {
            Self::Lanes(lanes) => lanes.rows() as usize,
            Self::Cooperative(cooperative) => cooperative.rows() as usize,
        }
    }

    /// Bytes of workgroup memory.
    pub fn workgroup_bytes(self) -> u32 {
        match self {
            Self::Lanes(lanes) => lanes.workgroup_bytes(),
            Self::Cooperative(cooperative) => cooperative.workgroup_bytes(),
        }
    }

    /// Most loop iterations of an invocation.
    fn iterations(self, shape: Attention) -> usize {
        let tile = match self {
            Self::Lanes(lanes) => lanes.iterations(shape.kv_rows),
            Self::Cooperative(cooperative) => cooperative.iterations(shape.kv_rows),
        };
        let tiles = shape.tiles(self.rows());
        tiles.div_ceil(workgroups(tiles) as usize).saturating_mul(tile)
    }
}

/// Every kernel that a device may run, of usual head widths: for checks of their text.
pub fn kernels(target: &Target) -> Vec<Generated> {
    let widths = [8, 12, 16, 32, 64, 72, 80, 96, 128, 256];
    widths.into_iter().flat_map(|head_width| kernels_of(target, head_width)).collect()
}

/// Texts of the kernels of one head width, of which the others differ in numbers only: any change of a schedule shows.
pub(crate) fn kernel_texts(target: &Target) -> Vec<&'static str> {
    kernels_of(target, 64).into_iter().filter_map(|generated| generated.kernel().text).collect()
}

fn kernels_of(target: &Target, head_width: u32) -> Vec<Generated> {
    let mut kernels = Vec::new();
    let precisions = [Dtype::F32, Dtype::F16].into_iter().filter(|&dtype| dtype == Dtype::F32 || target.f16);
    let rotaries = [(0, false, false), (head_width / 8, false, false), (head_width / 8, true, false)];
    // Dropout is for training, where all rotate or nothing does.
    let kinds = rotaries.into_iter().chain([(0, false, true), (head_width / 8, true, true)]);
    for (dtype, (half, keys, dropout)) in precisions.flat_map(|dtype| kinds.clone().map(move |kind| (dtype, kind))) {
        let form = Form { head_width, half, keys, dtype, dropout };
        let mut add = |schedule| {
            kernels.extend(Pass::ALL.into_iter().flat_map(|pass| Generated::new(schedule, form, pass, target)));
        };
        if lanes::takes(&form) && lanes::rotates(&form) {
            add(AttentionSchedule::Lanes);
        }
        if cooperative::takes(&form, target) && cooperative::rotates(&form) {
            add(AttentionSchedule::Cooperative);
        }
    }
    kernels
}
