//! Dropout (Srivastava et al., 2014), scaled in training: y = x f with f = 1 / (1 - p) where an element is kept, else 0.
//!
//! A mask is a pure function of seed, step, place in the model, number of the sequence in the update, head, row and column; see
//! `shaders/dropout_mask.wgsl` for the hash and why it is that one. So nothing is saved for the backward: dx = dy f computes f
//! again, as do a recomputed layer, a resumed run, and every way to cut an update into micro-batches, leaves and ranks. What
//! changes from micro-batch to micro-batch, [`DropoutDraw`], is a uniform block that the host writes: no plan knows p.

use super::{Case, Input};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Uniform, Write};
use crate::kernel::{Dtype, Kernel, parameter_block, word};
use crate::rng::{Rng, Stream};
use bytemuck::Zeroable;

static DROPOUT: Kernel = Kernel::new("dropout.wgsl", "dropout", &[Read, Write, Uniform]);
static DROPOUT_RESIDUAL: Kernel = Kernel::new("dropout.wgsl", "dropout_residual", &[Read, Write, Uniform]);

parameter_block! {
    /// The parameter block of `shaders/dropout.wgsl`.
    pub(crate) struct DropoutDims {
        rows: u32,
        columns: u32,
        /// rows of a sequence
        seq: u32,
        place: u32,
        accumulate: u32,
    }
}

parameter_block! {
    /// What draws the masks of one micro-batch; the struct of `shaders/dropout_mask.wgsl`, in a tensor of [`DRAW_WORDS`].
    pub struct DropoutDraw {
        /// Of seed and step.
        key0: u32,
        /// Of seed and step.
        key1: u32,
        /// The number within the update of the first sequence of the micro-batch.
        sequence: u32,
        /// Words below it drop their element: p 2^32.
        threshold: u32,
        /// 1 / (1 - p).
        scale: f32,
        /// Nothing.
        spare_a: u32,
        /// Nothing.
        spare_b: u32,
        /// Nothing.
        spare_c: u32,
    }
}

/// Words of [`DropoutDraw`].
pub const DRAW_WORDS: usize = size_of::<DropoutDraw>() / size_of::<u32>();

/// What is dropped; each place of a model has masks of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The rows of the embedding.
    Embedding,
    /// The weights of the attention of a layer, after their softmax.
    Attention(usize),
    /// What the attention of a layer adds to the residual stream.
    Projection(usize),
    /// What the feed-forward part of a layer adds to it.
    Mlp(usize),
}

impl Place {
    /// As kernels count places.
    pub fn number(self) -> u32 {
        match self {
            Self::Embedding => 0,
            Self::Attention(layer) => 4 * word(layer) + 1,
            Self::Projection(layer) => 4 * word(layer) + 2,
            Self::Mlp(layer) => 4 * word(layer) + 3,
        }
    }
}

/// A dropout of a recorded computation.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// The words of a [`DropoutDraw`], which the host writes before each run.
    pub draw: Tensor,
    /// What is dropped.
    pub place: Place,
}

/// `pcg4d`, as in `shaders/dropout_mask.wgsl`.
fn hash(x: [u32; 4]) -> [u32; 4] {
    let [mut a, mut b, mut c, mut d] = x.map(|x| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    for round in 0..2 {
        a = a.wrapping_add(b.wrapping_mul(d));
        b = b.wrapping_add(c.wrapping_mul(a));
        c = c.wrapping_add(a.wrapping_mul(b));
        d = d.wrapping_add(b.wrapping_mul(c));
        if round == 0 {
            [a, b, c, d] = [a, b, c, d].map(|x| x ^ (x >> 16));
        }
    }
    [a, b, c, d]
}

impl DropoutDraw {
    /// Drops a share `p`, in 0..1, of everything, in the micro-batch that begins with this sequence of the update of `step`,
    /// from 0.
    pub fn new(p: f64, seed: u64, step: u64, sequence: u64) -> Self {
        let key = Rng::new(seed, Stream::Dropout, step).next_u64();
        Self {
            key0: key as u32,
            key1: (key >> 32) as u32,
            sequence: sequence as u32,
            // A cast of a number that is too large gives the largest.
            threshold: (p * 2_f64.powi(32)).round() as u32,
            scale: (1.0 / (1.0 - p)) as f32,
            ..Self::zeroed()
        }
    }

    /// As written to the device.
    pub fn words(self) -> [u32; DRAW_WORDS] {
        bytemuck::cast(self)
    }

    /// What the element at (row, column) of a head of a sequence of the micro-batch is multiplied by. Rows and columns are the
    /// tokens of the sequence and their channels, of head 0; of [`Place::Attention`] queries and keys.
    pub fn factor(&self, place: Place, sequence: usize, head: usize, row: usize, column: usize) -> f32 {
        let stream = hash([self.key0, self.key1, place.number(), self.sequence.wrapping_add(word(sequence))]);
        let at = [word(row / 2), word(column / 2), word(head), 0];
        let words = hash([0, 1, 2, 3].map(|i| stream[i] ^ at[i]));
        if words[row % 2 * 2 + column % 2] >= self.threshold { self.scale } else { 0.0 }
    }
}

/// y (R, C) from x (R, C), sequences of `seq` rows one after the other. x is an activation, or of the residual stream, and y is as
/// x is.
pub fn dropout(g: &mut Graph, x: Tensor, seq: usize, by: Dropout) -> Result<Tensor> {
    let (rows, columns) = g.matrix(x)?;
    let groups = (rows * columns.div_ceil(2)).div_ceil(64);
    let dims = DropoutDims {
        rows: word(rows),
        columns: word(columns),
        seq: word(seq),
        place: by.place.number(),
        accumulate: 0,
    };
    let (kernel, y) = match g.dtype(x) {
        Dtype::F32 => (&DROPOUT_RESIDUAL, g.residual("dropout", &[rows, columns])),
        Dtype::F16 => (&DROPOUT, g.activation("dropout", &[rows, columns])),
    };
    g.call(kernel).bind(&[x, y, by.draw]).parameters(dims).groups(groups).record()?;
    g.on_backward(move |g| {
        let dy = g.take_grad(y)?;
        let (dx, add) = g.grad_target(x)?;
        let dims = DropoutDims { accumulate: u32::from(add), ..dims };
        g.call(&DROPOUT).bind(&[dy, dx, by.draw]).parameters(dims).groups(groups).record()
    });
    Ok(y)
}

/// The words of `draw` as an input of a case.
pub(super) fn draw_input(draw: DropoutDraw) -> Input {
    Input::words("draw", &[DRAW_WORDS], draw.words().to_vec())
}

/// Shares that are dropped in cases: a usual one and a large one, in sequences that do not begin the update.
fn case([rows, seq, columns]: [usize; 3], p: f64, residual: bool) -> Case {
    let place = if residual { Place::Embedding } else { Place::Mlp(3) };
    let draw = DropoutDraw::new(p, 11, 7, 5);
    let make = if residual { Input::residual } else { Input::normal };
    Case {
        op: "dropout",
        name: format!("{p} of {rows}x{columns} in {seq}{}", if residual { ", residual" } else { "" }),
        inputs: vec![make("x", &[rows, columns], 1.0), draw_input(draw)],
        build: Box::new(move |g, t| Ok(vec![dropout(g, t[0], seq, Dropout { draw: t[1], place })?])),
        reference: Box::new(move |x| {
            let of = |(i, x): (usize, &f64)| {
                let row = i / columns;
                x * f64::from(draw.factor(place, row / seq, 0, row % seq, i % columns))
            };
            vec![x[0].iter().enumerate().map(of).collect()]
        }),
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    let sizes = [[1, 1, 1], [6, 3, 7], [34, 17, 64], [33, 11, 130]];
    let shares = sizes.into_iter().flat_map(|size| [0.2, 0.7].map(|p| (size, p)));
    shares.flat_map(|(size, p)| [false, true].map(|residual| case(size, p, residual))).collect()
}

pub(super) fn large_cases() -> Vec<Case> {
    vec![case([65_539, 65_539, 130], 0.1, false), case([131_080, 20, 66], 0.1, true)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which elements of a head are kept, less the share that is, in units of their standard deviation.
    fn mask(draw: &DropoutDraw, place: Place, sequence: usize, head: usize, size: usize) -> Vec<f64> {
        let p = f64::from(draw.threshold) / 2_f64.powi(32);
        let of = |i: usize| f64::from(draw.factor(place, sequence, head, i / size, i % size) != 0.0);
        (0..size * size).map(|i| (of(i) - (1.0 - p)) / (p * (1.0 - p)).sqrt()).collect()
    }

    /// A sum of n products of independent numbers of variance 1 has a standard deviation of sqrt(n).
    fn within_4_sigma(what: &str, products: impl Iterator<Item = f64>) {
        let (mut sum, mut n) = (0.0, 0.0_f64);
        products.for_each(|product| (sum, n) = (sum + product, n + 1.0));
        assert!((sum / n.sqrt()).abs() < 4.0, "{what}: {} standard deviations", sum / n.sqrt());
    }

    #[test]
    fn masks_have_their_mean_and_are_independent_of_each_other() {
        const SIZE: usize = 256;
        for p in [0.01, 0.1, 0.2, 0.5, 0.9] {
            let draw = DropoutDraw::new(p, 1337, 41, 0);
            let of = |place, sequence, head| mask(&draw, place, sequence, head, SIZE);
            let a = of(Place::Attention(2), 3, 1);
            within_4_sigma("mean", a.iter().copied());
            for (row, values) in a.chunks(SIZE).enumerate().step_by(32) {
                within_4_sigma(&format!("row {row}"), values.iter().copied());
                within_4_sigma(&format!("column {row}"), a.iter().skip(row).step_by(SIZE).copied());
            }
            // The element to the right, that below, both, and those of the next block.
            for (down, right) in [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 2), (0, 64), (64, 0)] {
                let inside = (0..SIZE - down).flat_map(|row| (0..SIZE - right).map(move |column| row * SIZE + column));
                let pairs = inside.map(|i| a[i] * a[i + down * SIZE + right]);
                within_4_sigma(&format!("p {p}, {down} down and {right} right"), pairs);
            }
            let later = DropoutDraw::new(p, 1337, 42, 0);
            let reseeded = DropoutDraw::new(p, 1338, 41, 0);
            for (what, b) in [
                ("another head", of(Place::Attention(2), 3, 0)),
                ("another sequence", of(Place::Attention(2), 4, 1)),
                ("another layer", of(Place::Attention(3), 3, 1)),
                ("another place", of(Place::Projection(2), 3, 1)),
                ("another step", mask(&later, Place::Attention(2), 3, 1, SIZE)),
                ("another seed", mask(&reseeded, Place::Attention(2), 3, 1, SIZE)),
            ] {
                within_4_sigma(&format!("p {p}, {what}"), a.iter().zip(&b).map(|(a, b)| a * b));
            }
        }
    }

    #[test]
    fn a_mask_is_of_the_sequence_in_the_update() {
        let of = |first: u64, sequence: usize| {
            let draw = DropoutDraw::new(0.5, 3, 9, first);
            mask(&draw, Place::Mlp(0), sequence, 0, 16)
        };
        assert_eq!(of(0, 6), of(4, 2));
        assert_ne!(of(0, 6), of(4, 3));
        let places = [Place::Embedding, Place::Attention(0), Place::Projection(0), Place::Mlp(0), Place::Attention(1)];
        assert_eq!(places.map(Place::number), [0, 1, 2, 3, 5]);
    }

    #[test]
    fn the_ends_of_the_shares() {
        let none = DropoutDraw::new(0.0, 1, 2, 0);
        assert_eq!((none.threshold, none.scale), (0, 1.0));
        let most = DropoutDraw::new(1.0 - 1e-12, 1, 2, 0);
        assert_eq!(most.threshold, u32::MAX);
        assert!(most.scale.is_finite());
    }
}
