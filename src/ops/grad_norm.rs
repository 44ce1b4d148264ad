//! Global gradient norm with a finite flag, computed and kept on the device.
//!
//! norm = sqrt(sum over all gradients of g^2), clip factor = min(1, clip / (norm + 1e-6)) as PyTorch's
//! `clip_grad_norm_`. The flag is down if any gradient, the sum or the loss is not finite; AdamW then
//! writes nothing.

use super::stats::{ReduceDims, STATS, fresh_stats};
use super::{Case, Input};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Kernel, word};

static SQUARE_SUMS: Kernel = Kernel::new("reduce.wgsl", "square_sums", &[Read, Write]);
static FINISH: Kernel = Kernel::new("reduce.wgsl", "finish_norm", &[Read, Write]);

/// Most workgroups that share one tensor.
const MAX_PARTS: usize = 2048;

/// Writes norm, clip factor and finite flag of `grads` to `stats` (see [`super::stats::Stats`]), whose loss scale they carry: the norm is without it, and the clip factor takes it away.
/// `clip` of 0 means no clipping.
pub fn grad_norm(g: &mut Graph, grads: &[Tensor], stats: Tensor, clip: f64) -> Result<()> {
    let sizes: Vec<usize> = grads.iter().map(|&t| g.shape(t).iter().product()).collect();
    let shares: Vec<usize> = sizes.iter().map(|n| n.div_ceil(4096).clamp(1, MAX_PARTS)).collect();
    let total: usize = shares.iter().sum();
    let parts = g.statistic("squares", &[total, 2]);
    let mut first = 0;
    for ((&grad, n), share) in grads.iter().zip(sizes).zip(shares) {
        let dims = ReduceDims { n: word(n), first_part: word(first), value: 0.0 };
        g.call(&SQUARE_SUMS).bind(&[grad, parts]).parameters(dims).groups(share).record()?;
        first += share;
    }
    let dims = ReduceDims { n: word(total), first_part: 0, value: clip as f32 };
    g.call(&FINISH).bind(&[parts, stats]).parameters(dims).record()
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
                grad_norm(g, &[t[0], t[1]], t[2], clip)?;
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
    vec![
        case("1 and 1", [1, 1], 0.0, None),
        case("70 and 5000, clipped", [70, 5000], 1.0, None),
        case("65 and 3, unclipped", [65, 3], 1e9, None),
        case("a NaN", [65, 100], 1.0, Some(f32::NAN)),
        case("an infinity", [65, 100], 1.0, Some(f32::NEG_INFINITY)),
        case("a square that overflows", [65, 100], 1.0, Some(3e30)),
    ]
}

/// None: the workgroups are as many whatever the size.
pub(super) fn large_cases() -> Vec<Case> {
    Vec::new()
}
