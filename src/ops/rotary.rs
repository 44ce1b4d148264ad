//! Partial rotary position embedding, in place (NeoX half-rotation, as the official configuration).
//!
//! Channels (j, j + half) of each head turn by the angle position * base^(-j / half); the rest pass.
//! The derivative is the rotation back.

use super::{Case, Input};
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Uniform, Write};
use crate::kernel::{Kernel, parameter_block, word};

static ROTATE: Kernel = Kernel::new("rotary.wgsl", "rotate", &[Read, Uniform, Write]).with(&[("FUSED", false)]);
/// As attention kernels rotate; not on software drivers, where training must go on with the bits that it has.
static ROTATE_FUSED: Kernel = Kernel::new("rotary.wgsl", "rotate", &[Read, Uniform, Write]).with(&[("FUSED", true)]);

parameter_block! {
    /// The parameter block of `shaders/rotary.wgsl`.
    pub(crate) struct RotaryDims {
        rows: u32,
        heads: u32,
        head_width: u32,
        half: u32,
        seq: u32,
        inverse: u32,
    }
}

/// Shape of what is rotated.
#[derive(Debug, Clone, Copy)]
pub struct Rotary {
    /// Attention heads; the width of a row is `heads * head_width`.
    pub heads: usize,
    /// Channels of a head.
    pub head_width: usize,
    /// Rotated channels of a head, even; the first ones.
    pub rotary_width: usize,
    /// Rows of one sequence: row r stands at position `r % seq` after the run's first position.
    pub seq: usize,
}

/// Cosines then sines of each position, (positions, rotary_width), computed in f64.
pub fn table(positions: usize, rotary_width: usize, base: f64) -> Vec<f32> {
    let half = rotary_width / 2;
    let angle = |p: usize, j: usize| p as f64 * base.powf(-(j as f64) / half as f64);
    (0..positions)
        .flat_map(|p| {
            let cosines = (0..half).map(move |j| angle(p, j).cos() as f32);
            cosines.chain((0..half).map(move |j| angle(p, j).sin() as f32))
        })
        .collect()
}

/// Rotates `x` (R, heads * head_width) in place; `table` (positions, rotary_width), `run` the uniform
/// block whose first word is the position of each sequence's first row.
pub fn rotate(g: &mut Graph, x: Tensor, table: Tensor, run: Tensor, shape: Rotary) -> Result<()> {
    rotate_as(g, x, table, run, shape, !g.kernels().target().software)
}

/// As [`rotate`]; `fused`: with the bits of attention kernels that rotate by themselves.
pub(super) fn rotate_as(
    g: &mut Graph,
    x: Tensor,
    table: Tensor,
    run: Tensor,
    shape: Rotary,
    fused: bool,
) -> Result<()> {
    let kernel = if fused { &ROTATE_FUSED } else { &ROTATE };
    let (rows, _) = g.matrix(x)?;
    let half = shape.rotary_width / 2;
    if half == 0 {
        return Ok(());
    }
    let positions = g.shape(table).first().copied().unwrap_or(0);
    if shape.seq > positions || g.shape(table).iter().product::<usize>() < 2 * half * positions {
        return Err(Error::defect(format!(
            "rows of {} positions are rotated by a table of {:?}",
            shape.seq,
            g.shape(table)
        )));
    }
    let dims = RotaryDims {
        rows: word(rows),
        heads: word(shape.heads),
        head_width: word(shape.head_width),
        half: word(half),
        seq: word(shape.seq),
        inverse: 0,
    };
    let groups = (rows * shape.heads * half).div_ceil(64);
    g.call(kernel).bind(&[table, run, x]).parameters(dims).groups(groups).record()?;
    g.on_backward(move |g| {
        let dx = g.take_grad_owned(x)?;
        let dims = RotaryDims { inverse: 1, ..dims };
        g.call(kernel).bind(&[table, run, dx]).parameters(dims).groups(groups).record()?;
        g.set_grad(x, dx);
        Ok(())
    });
    Ok(())
}

pub(super) fn reference(shape: Rotary, first: usize, table: &[f64], x: &[f64]) -> Vec<f64> {
    let (width, half) = (shape.heads * shape.head_width, shape.rotary_width / 2);
    let rotated = |i: usize| {
        let (position, channel) = (first + (i / width) % shape.seq, i % width % shape.head_width);
        let turn = |j: usize| (table[position * 2 * half + j], table[position * 2 * half + half + j]);
        match channel {
            j if j < half => x[i] * turn(j).0 - x[i + half] * turn(j).1,
            j if j < 2 * half => x[i] * turn(j - half).0 + x[i - half] * turn(j - half).1,
            _ => x[i],
        }
    };
    (0..x.len()).map(rotated).collect()
}

fn case((batch, heads, head_width, rotary_width, seq, first): (usize, usize, usize, usize, usize, usize)) -> Case {
    let shape = Rotary { heads, head_width, rotary_width, seq };
    let angles = table(seq + first, rotary_width, 10_000.0);
    Case {
        op: "rotary",
        name: format!("{batch}x{seq}x{heads}x{head_width}, {rotary_width} from {first}"),
        inputs: vec![
            Input::normal("x", &[batch * seq, heads * head_width], 1.0),
            Input::floats("table", &[seq + first, rotary_width], angles),
            Input::words("run", &[4], vec![first as u32, 0, 0, 0]),
        ],
        build: Box::new(move |g, t| {
            rotate(g, t[0], t[1], t[2], shape)?;
            Ok(vec![t[0]])
        }),
        reference: Box::new(move |x| vec![reference(shape, first, &x[1], &x[0])]),
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    [(1, 1, 2, 2, 1, 0), (2, 3, 16, 4, 17, 0), (1, 2, 10, 10, 5, 3)].into_iter().map(case).collect()
}

pub(super) fn large_cases() -> Vec<Case> {
    vec![case((65_539, 5, 28, 26, 1, 0))]
}
