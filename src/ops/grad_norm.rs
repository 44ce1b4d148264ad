//! Global gradient norm with a finite flag, computed and kept on the device.
//!
//! norm = sqrt(sum over all gradients of g^2), clip factor = min(1, clip / (norm + 1e-6)) as PyTorch's
//! `clip_grad_norm_`. The flag is down if any gradient, the sum or the loss is not finite; AdamW then
//! writes nothing.

use super::stats::{ReduceDims, STATS, fresh_stats};
use super::{Case, Input};
use crate::error::Result;
use crate::graph::pack::Stretch;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Kernel, parameter_block, word};

static SQUARE_SUMS: Kernel = Kernel::new("reduce.wgsl", "square_sums", &[Read, Write]);
static SQUARE_SUMS_OF_BLOCKS: Kernel = Kernel::new("reduce.wgsl", "square_sums_of_blocks", &[Read, Write, Write]);
static FINISH: Kernel = Kernel::new("reduce.wgsl", "finish_norm", &[Read, Write]);

/// Most workgroups that share one sum.
const MAX_PARTS: usize = 2048;
/// Words that a workgroup leaves behind for the next one: two for each of at most 64 lanes.
const CARRIED: usize = 128;

parameter_block! {
    /// The parameter block of `square_sums_of_blocks` in `shaders/reduce.wgsl`.
    pub(crate) struct BlocksDims {
        /// the first element of the first block here
        first: u32,
        /// elements of a block
        length: u32,
        blocks: u32,
        /// where the last block here ends, at the latest
        end: u32,
        first_part: u32,
        /// elements of the block that lie elsewhere, before these
        before: u32,
        /// whether the block goes on elsewhere
        goes_on: u32,
    }
}

/// Writes norm, clip factor and finite flag of gradients to `stats` (see [`super::stats::Stats`]), whose loss scale they
/// carry: the norm is without it, and the clip factor takes it away. `clip` of 0 means no clipping.
///
/// Each of `sums` is cut into blocks of one length, and what a block adds up depends on neither the other sums nor on which
/// storages hold it.
pub fn grad_norm(g: &mut Graph, sums: &[Vec<Stretch>], stats: Tensor, clip: f64) -> Result<()> {
    let parts = g.statistic("squares", &[parts_of(sums), 2]);
    square_sums(g, sums, parts)?;
    finish_norm(g, parts, stats, clip)
}

/// How many blocks there are.
pub(crate) fn parts_of(sums: &[Vec<Stretch>]) -> usize {
    sums.iter().map(|sum| blocks_of(length(sum))).sum()
}

/// The first half of [`grad_norm`]: of each block the sum of squares, and whether a value was not finite.
pub(crate) fn square_sums(g: &mut Graph, sums: &[Vec<Stretch>], parts: Tensor) -> Result<()> {
    let counts: Vec<usize> = sums.iter().map(|sum| blocks_of(length(sum))).collect();
    let mut first_part = 0;
    for (sum, &count) in sums.iter().zip(&counts) {
        match sum[..] {
            [Stretch { storage, first: 0, n }] => {
                let dims = ReduceDims { n: word(n), first_part: word(first_part), value: 0.0 };
                g.call(&SQUARE_SUMS).bind(&[storage, parts]).parameters(dims).groups(count).record()?;
            }
            _ => {
                let carried = g.statistic("squares of lanes", &[CARRIED]);
                for (storage, dims) in blocks(sum, count) {
                    let dims = BlocksDims { first_part: dims.first_part + word(first_part), ..dims };
                    let call = g.call(&SQUARE_SUMS_OF_BLOCKS).bind(&[storage, parts, carried]);
                    call.parameters(dims).groups(dims.blocks as usize).record()?;
                }
            }
        }
        first_part += count;
    }
    Ok(())
}

/// The second half of [`grad_norm`].
pub(crate) fn finish_norm(g: &mut Graph, parts: Tensor, stats: Tensor, clip: f64) -> Result<()> {
    let total = g.shape(parts).first().copied().unwrap_or(0);
    let dims = ReduceDims { n: word(total), first_part: 0, value: clip as f32 };
    g.call(&FINISH).bind(&[parts, stats]).parameters(dims).record()
}

fn length(sum: &[Stretch]) -> usize {
    sum.iter().map(|stretch| stretch.n).sum()
}

/// How many blocks so many elements are cut into.
fn blocks_of(elements: usize) -> usize {
    elements.div_ceil(4096).clamp(1, MAX_PARTS)
}

/// Where each block begins, with all sums in a line, and at last where that ends: a block for each part of the norm. The
/// last blocks of a sum may be empty.
pub(crate) fn block_starts(sums: &[Vec<Stretch>]) -> Vec<usize> {
    let (mut starts, mut before) = (Vec::new(), 0);
    for n in sums.iter().map(|sum| length(sum)) {
        let count = blocks_of(n);
        starts.extend((0..count).map(|block| before + (block * n.div_ceil(count)).min(n)));
        before += n;
    }
    starts.push(before);
    starts
}

/// The dispatches that add up `count` blocks of `sum`: the whole blocks of each stretch side by side, and those that lie in
/// several stretches piece by piece.
fn blocks(sum: &[Stretch], count: usize) -> Vec<(Tensor, BlocksDims)> {
    let total: usize = sum.iter().map(|stretch| stretch.n).sum();
    let length = total.div_ceil(count);
    let mut dispatches = Vec::new();
    let mut at = 0;
    for &Stretch { storage, first, n } in sum {
        let (start, end) = (at, at + n);
        at = end;
        let mut next = start;
        while next < end {
            let (block, before) = (next / length, next % length);
            let whole = if end == total { count - block } else { end / length - block };
            // One that began elsewhere, or that goes on elsewhere, is alone.
            let blocks = if before > 0 || whole == 0 { 1 } else { whole };
            let until = ((block + blocks) * length).min(end);
            let dims = BlocksDims {
                first: word(first + next - start),
                length: word(length - before),
                blocks: word(blocks),
                end: word(first + until - start),
                first_part: word(block),
                before: word(before),
                goes_on: u32::from(until < total && until % length != 0),
            };
            dispatches.push((storage, dims));
            next = until;
        }
    }
    dispatches
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, sizes: [usize; 2], clip: f64, spoil: Option<f32>| {
        // Not a number that could be left out unseen.
        let scale = if clip == 1.0 { 64.0 } else { 1.0 };
        let mut second = crate::rng::Rng::named(0, crate::rng::Stream::Test, name).normals(sizes[1], 1.0);
        if let (Some(bad), Some(last)) = (spoil, second.last_mut()) {
            *last = bad;
        }
        Case {
            op: "grad_norm",
            name: name.to_string(),
            inputs: vec![
                Input::normal("first", &[sizes[0]], 1.0).without_gradient(),
                Input::floats("second", &[sizes[1]], second),
                Input::floats("stats", &[STATS], fresh_stats(scale).to_vec()),
            ],
            build: Box::new(move |g, t| {
                let whole = |tensor| vec![Stretch { storage: tensor, first: 0, n: g.shape(tensor)[0] }];
                let sums = [whole(t[0]), whole(t[1])];
                grad_norm(g, &sums, t[2], clip)?;
                Ok(vec![t[2]])
            }),
            reference: Box::new(move |x| {
                let squares: f64 = x[0].iter().chain(&x[1]).map(|v| v * v).sum();
                let (norm, finite) =
                    if spoil.is_some() { (0.0, 0.0) } else { (squares.sqrt() / f64::from(scale), 1.0) };
                let factor = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
                let factor = factor as f32;
                let scale = f64::from(scale);
                vec![vec![0.0, norm, f64::from(factor) / scale, finite, scale, 0.0, 0.0, 0.0]]
            }),
            gradient: false,
            ..Case::default()
        }
    };
    // The same sums with all elements of the first, and the last of the second before those before them.
    let cut = |name: &str, sizes: [usize; 2], first: usize| {
        let case = case(name, sizes, 0.0, None);
        Case {
            build: Box::new(move |g, t| {
                let stretch = |storage, first, n| Stretch { storage, first, n };
                let sum = vec![
                    stretch(t[0], 0, sizes[0]),
                    stretch(t[1], first, sizes[1] - first),
                    stretch(t[1], 0, first),
                ];
                grad_norm(g, &[sum], t[2], 0.0)?;
                Ok(vec![t[2]])
            }),
            ..case
        }
    };
    vec![
        case("1 and 1", [1, 1], 0.0, None),
        case("70 and 5000, clipped", [70, 5000], 1.0, None),
        case("65 and 3, unclipped", [65, 3], 1e9, None),
        cut("one sum of 5 and 1 and 7", [5, 8], 7),
        cut("one sum of 9000 and 20 and 13000", [9000, 13_020], 13_000),
        case("a NaN", [65, 100], 1.0, Some(f32::NAN)),
        case("an infinity", [65, 100], 1.0, Some(f32::NEG_INFINITY)),
        case("a square that overflows", [65, 100], 1.0, Some(3e30)),
    ]
}

/// None: the workgroups are as many whatever the size.
pub(super) fn large_cases() -> Vec<Case> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{KernelTable, Target};

    /// Which elements of which storage make which block, and with what of it before them.
    #[test]
    fn blocks_are_the_same_however_a_sum_is_cut() {
        let mut g = Graph::forward_only(&KernelTable::defaults(Target::WEBGPU));
        let storage = [0, 1, 2].map(|i| g.state(&format!("{i}"), &[4096]));
        let sum = [(0, 20, 1030), (1, 0, 3), (2, 7, 2000)].map(|(i, first, n)| Stretch { storage: storage[i], first, n });
        // 3033 elements in 7 blocks of 434: the third lies in all three.
        let found: Vec<_> = blocks(&sum, 7)
            .into_iter()
            .map(|(of, d)| (of, [d.first, d.end, d.blocks, d.first_part, d.before, d.goes_on]))
            .collect();
        assert_eq!(
            found,
            [
                (storage[0], [20, 888, 2, 0, 0, 0]),
                (storage[0], [888, 1050, 1, 2, 0, 1]),
                (storage[1], [0, 3, 1, 2, 162, 1]),
                (storage[2], [7, 276, 1, 2, 165, 0]),
                (storage[2], [276, 2007, 4, 3, 0, 0]),
            ]
        );
        // The last block may be short, or have nothing at all.
        let whole = [Stretch { storage: storage[0], first: 5, n: 4 }];
        let (_, dims) = blocks(&whole, 3)[0];
        assert_eq!([dims.first, dims.length, dims.blocks, dims.end], [5, 2, 3, 9]);
    }
}
