//! Reference and cases of attention.

use super::{Attention, Rotation, attention_with_dropout};
use crate::ops::dropout::{Dropout, DropoutDraw, Place, draw_input};
use crate::ops::rotary::{self, Rotary};
use crate::ops::{Case, Input};

/// Attention in f64 of queries at `first`, `first + 1`, ...
pub fn reference(shape: Attention, head_width: usize, first: usize, x: &[Vec<f64>]) -> Vec<f64> {
    dropped_reference(shape, head_width, first, x, |_, _| 1.0)
}

/// As [`reference`], each weight multiplied by a factor of (sequence, head) and (query, key).
fn dropped_reference(
    shape: Attention,
    head_width: usize,
    first: usize,
    x: &[Vec<f64>],
    factor: impl Fn([usize; 2], [usize; 2]) -> f64,
) -> Vec<f64> {
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
            let weight = (s - largest).exp() / sum * factor([b, h], [first + i, j]);
            for d in 0..head_width {
                o[at(q_rows, i) + d] += weight * x[2][at(kv_rows, j) + d];
            }
        }
    }
    o
}

fn square(batch: usize, heads: usize, rows: usize) -> Attention {
    Attention { batch, heads, q_rows: rows, kv_rows: rows }
}

/// A case of queries from position `first` on, of which `rotary_width` channels rotate; keys of a cache do not.
fn rotated(shape: Attention, head_width: usize, first: usize, rotary_width: usize) -> Case {
    with_dropout(shape, head_width, first, rotary_width, 0.0)
}

/// A case of which a share `p` of all weights is dropped, in a micro-batch that does not begin its update.
fn dropped(shape: Attention, head_width: usize, rotary_width: usize, p: f64) -> Case {
    with_dropout(shape, head_width, 0, rotary_width, p)
}

fn with_dropout(shape: Attention, head_width: usize, first: usize, rotary_width: usize, p: f64) -> Case {
    let Attention { batch, heads, q_rows, kv_rows } = shape;
    let cached = kv_rows != q_rows;
    let input = |name, rows: usize| {
        let input = Input::normal(name, &[batch * rows, heads * head_width], 1.5);
        if cached { input.without_gradient() } else { input }
    };
    let angles = if rotary_width > 0 { rotary::table(kv_rows, rotary_width, 10_000.0) } else { vec![0.0; 2] };
    let rotary = Rotary { heads, head_width, rotary_width, seq: q_rows };
    let suffixes = [
        (cached, ", cached".to_owned()),
        (rotary_width > 0, format!(", rotary {rotary_width}")),
        (p > 0.0, format!(", dropout {p}")),
    ];
    let (place, draw) = (Place::Attention(2), DropoutDraw::new(p, 3, 17, 6));
    let suffix: String = suffixes.into_iter().filter_map(|(has, suffix)| has.then_some(suffix)).collect();
    let mut inputs = vec![
        input("q", q_rows),
        input("k", kv_rows),
        input("v", kv_rows),
        Input::words("run", &[4], vec![first as u32, 0, 0, 0]),
    ];
    if rotary_width > 0 {
        inputs.push(Input::floats("table", &[kv_rows, rotary_width], angles));
    }
    if p > 0.0 {
        inputs.push(draw_input(draw));
    }
    Case {
        op: "attention",
        name: format!("{batch}x{q_rows}x{heads}x{head_width}{suffix}"),
        inputs,
        build: Box::new(move |g, t| {
            let table = t.get(4).filter(|_| rotary_width > 0);
            let rotation = table.map(|&table| Rotation { table, width: rotary_width, keys: !cached });
            let dropout = t.last().filter(|_| p > 0.0).map(|&draw| Dropout { draw, place });
            Ok(vec![attention_with_dropout(g, [t[0], t[1], t[2]], t[3], shape, rotation, dropout)?])
        }),
        reference: Box::new(move |x| {
            let factor = |[sequence, head]: [usize; 2], [query, key]: [usize; 2]| {
                if p > 0.0 { f64::from(draw.factor(place, sequence, head, query, key)) } else { 1.0 }
            };
            let of = |x: &[Vec<f64>]| vec![dropped_reference(shape, head_width, first, x, factor)];
            let Some(table) = x.get(4).filter(|_| rotary_width > 0) else { return of(x) };
            let turned = |x: &[f64]| rotary::reference(rotary, first, table, x);
            let q = turned(&x[0]);
            let k = if cached { x[1].clone() } else { turned(&x[1]) };
            of(&[q, k, x[2].clone()])
        }),
        nmse: 1e-9,
        gradient: !cached,
        ..Case::default()
    }
}

fn case(shape: Attention, head_width: usize, first: usize) -> Case {
    rotated(shape, head_width, first, 0)
}

pub(in crate::ops) fn large_cases() -> Vec<Case> {
    vec![case(Attention { batch: 8193, heads: 8, q_rows: 2, kv_rows: 2 }, 4, 0)]
}

pub(in crate::ops) fn cases() -> Vec<Case> {
    vec![
        case(square(1, 1, 1), 1, 0),
        case(square(2, 3, 17), 16, 0),
        case(square(1, 2, 67), 32, 0),
        case(square(1, 1, 130), 8, 0),
        case(square(2, 1, 16), 65, 0),
        case(square(1, 1, 19), 128, 0),
        case(Attention { batch: 1, heads: 2, q_rows: 5, kv_rows: 80 }, 12, 66),
        case(Attention { batch: 1, heads: 2, q_rows: 1, kv_rows: 9 }, 12, 3),
        rotated(square(2, 2, 67), 64, 0, 16),
        dropped(square(1, 1, 1), 4, 0, 0.5),
        dropped(square(2, 3, 17), 16, 0, 0.2),
        dropped(square(2, 2, 67), 64, 16, 0.1),
        dropped(square(1, 1, 130), 16, 0, 0.7),
    ]
}

/// Cases of every head width that has kernels of its own, of several tiles and at their edges: for tests.
pub fn more_cases() -> Vec<Case> {
    let cached = |q_rows, kv_rows| Attention { batch: 1, heads: 2, q_rows, kv_rows };
    vec![
        rotated(square(2, 2, 17), 16, 0, 4),
        rotated(square(1, 2, 130), 32, 0, 8),
        case(square(1, 1, 1), 64, 0),
        case(square(2, 2, 64), 64, 0),
        rotated(square(1, 2, 200), 64, 0, 16),
        rotated(square(1, 1, 67), 80, 0, 20),
        case(square(1, 1, 67), 96, 0),
        rotated(square(1, 2, 67), 128, 0, 32),
        rotated(square(1, 1, 33), 128, 0, 128),
        case(square(1, 1, 33), 72, 0),
        rotated(square(1, 1, 67), 256, 0, 64),
        rotated(cached(5, 80), 64, 66, 16),
        rotated(cached(70, 200), 64, 100, 16),
        case(cached(1, 40), 128, 39),
        dropped(square(2, 2, 17), 16, 4, 0.2),
        dropped(square(1, 2, 130), 16, 4, 0.5),
        dropped(square(1, 1, 67), 256, 64, 0.2),
    ]
}
