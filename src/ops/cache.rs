//! Key/value cache of the generator: rows of a chunk are appended at the run's position.

use super::{Case, Input};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Uniform, Write};
use crate::kernel::{Kernel, parameter_block, word};

static APPEND: Kernel = Kernel::new("cache.wgsl", "append", &[Read, Uniform, Write]);

parameter_block! {
    /// The parameter block of `shaders/cache.wgsl`.
    pub(crate) struct CacheDims {
        rows: u32,
        columns: u32,
        capacity: u32,
    }
}

/// Copies x (R, C) to the rows of `cache` (capacity, C) from the run's position on.
pub fn append(g: &mut Graph, x: Tensor, run: Tensor, cache: Tensor) -> Result<()> {
    let ((rows, columns), (capacity, _)) = (g.matrix(x)?, g.matrix(cache)?);
    let dims = CacheDims { rows: word(rows), columns: word(columns), capacity: word(capacity) };
    g.call(&APPEND).bind(&[x, run, cache]).parameters(dims).groups((rows * columns).div_ceil(64)).record()
}

pub(super) fn cases() -> Vec<Case> {
    [(1, 1, 1, 0), (3, 17, 9, 4), (5, 8, 7, 4)]
        .into_iter()
        .map(|(rows, columns, capacity, first)| Case {
            op: "cache",
            name: format!("{rows}x{columns} at {first} of {capacity}"),
            inputs: vec![
                Input::normal("x", &[rows, columns], 1.0).without_gradient(),
                Input::words("run", &[4], vec![first as u32, 0, 0, 0]),
                Input::normal("cache", &[capacity, columns], 1.0).without_gradient(),
            ],
            build: Box::new(|g, t| {
                append(g, t[0], t[1], t[2])?;
                Ok(vec![t[2]])
            }),
            reference: Box::new(move |x| {
                let mut cache = x[2].clone();
                let end = cache.len().min((first + rows) * columns);
                cache[first * columns..end].copy_from_slice(&x[0][..end - first * columns]);
                vec![cache]
            }),
            gradient: false,
            ..Case::default()
        })
        .collect()
}

/// None: a cache holds one sequence.
pub(super) fn large_cases() -> Vec<Case> {
    Vec::new()
}
