//! Tables: parameters that ops read in ranges of rows, such as the embedding and the head of a large vocabulary, and that
//! therefore may be larger than a binding of the device.
//!
//! A table that is too large is *in parts*: a tensor of the whole shape, which has no memory and is never bound, and
//! tensors of its rows, one after the other. Ops record a dispatch for each of [`Graph::parts`]; a table in one piece is its
//! own only part, and then these are the dispatches of any parameter.
//!
//! Parts change no bit. All that an op makes of a row it makes of that row alone, but for the sums over all rows: those are
//! made of sums of [`rows_of_a_sum`] rows, added up in order. How many follows from the shape alone, whether or not the
//! table is in parts, and parts end where these do.

use super::{Class, Graph, Tensor, TensorInfo};
use crate::config::{EMBEDDING, HEAD};
use crate::error::{Error, Result};
use crate::kernel::{MAX_SUM, Target};

/// Parts of fewer rows would start where no binding may start: their rows, or one number for each of them.
const FEWEST_ROWS: usize = 128;

/// Neighbouring rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// They alone.
    pub tensor: Tensor,
    /// The first of them.
    pub first: usize,
    /// How many they are.
    pub rows: usize,
}

/// Most rows of a table (rows, columns) that one sum adds up: what loops may take; of a table that not every device can
/// bind, also what every device can.
pub(crate) fn rows_of_a_sum(shape: [usize; 2]) -> usize {
    let [_, columns] = shape;
    if !is_large(&shape) {
        return MAX_SUM;
    }
    let fitting = Target::WEBGPU.max_binding as usize / bytes(&[columns]).max(1) as usize;
    let power = fitting.checked_ilog2().map_or(1, |log| 1 << log);
    power.min(MAX_SUM)
}

/// Whether there are devices that cannot bind a parameter of this shape as a whole.
pub(super) fn is_large(shape: &[usize]) -> bool {
    bytes(shape) > Target::WEBGPU.max_binding
}

fn bytes(shape: &[usize]) -> u64 {
    let elements = shape.iter().fold(1_u64, |n, &axis| n.saturating_mul(axis as u64));
    elements.saturating_mul(size_of::<f32>() as u64)
}

/// Whether ops read the parameter of this name as a table.
pub(super) fn is_table(name: &str) -> bool {
    name == EMBEDDING || name == HEAD
}

/// The first row and the number of rows of each part that the parameter `name` has where bindings hold `most` bytes. One
/// where it fits, or where nothing can be done, for the plan to refuse.
pub(super) fn cut(name: &str, shape: &[usize], most: u64) -> Vec<(usize, usize)> {
    let rows = shape.first().copied().unwrap_or(1);
    let of_a_part = match *shape {
        [rows, columns] if is_table(name) && bytes(shape) > most => {
            let of_a_sum = rows_of_a_sum([rows, columns]);
            let sums = most / bytes(&[of_a_sum, columns]).max(1);
            if of_a_sum < FEWEST_ROWS { 0 } else { of_a_sum * sums as usize }
        }
        _ => 0,
    };
    if of_a_part == 0 {
        return vec![(0, rows)];
    }
    (0..rows).step_by(of_a_part).map(|first| (first, of_a_part.min(rows - first))).collect()
}

/// Name of a part.
pub(super) fn part_name(table: &str, first: usize, rows: usize) -> String {
    format!("{table}[{first}..{}]", first + rows)
}

impl Graph {
    /// The tensors that hold the rows of a table, in order.
    pub fn parts(&self, table: Tensor) -> Vec<Part> {
        let info = &self.tensors[table.0];
        let rows = |tensor: Tensor| self.shape(tensor).first().copied().unwrap_or(1);
        if info.parts.is_empty() {
            return vec![Part { tensor: table, first: 0, rows: rows(table) }];
        }
        let mut first = 0;
        let part = |&tensor: &Tensor| {
            let part = Part { tensor, first, rows: rows(tensor) };
            first += part.rows;
            part
        };
        info.parts.iter().map(part).collect()
    }

    /// A table of the rows of `parts`, one after the other.
    ///
    /// # Errors
    /// Parts that are not matrices of one width are a defect.
    pub fn in_parts(&mut self, name: impl Into<String>, parts: &[Tensor]) -> Result<Tensor> {
        let name = name.into();
        let mut shape = [0, 0];
        for (i, &part) in parts.iter().enumerate() {
            let (rows, columns) = self.matrix(part)?;
            if i > 0 && columns != shape[1] {
                return Err(Error::defect(format!("\"{name}\" cannot have rows of {} and of {columns}", shape[1])));
            }
            shape = [shape[0] + rows, columns];
        }
        let (dtype, class) = parts.first().map_or((Default::default(), Class::State), |&t| {
            let TensorInfo { dtype, class, .. } = self.tensors[t.0];
            (dtype, class)
        });
        self.tensors.push(TensorInfo { name, shape: shape.to_vec(), dtype, class, view: None, parts: parts.to_vec() });
        Ok(Tensor(self.tensors.len() - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_where_sums_do_and_fit_the_device() {
        // GPT-2's, GPT-2 XL's, Qwen3's of 0.6B and 8B, and one that every device can bind.
        for (shape, sum, webgpu) in [
            ([50_257, 768], 32_768, vec![(0, 32_768), (32_768, 17_489)]),
            ([50_257, 1600], 16_384, (0..4).map(|i| (i * 16_384, 16_384.min(50_257 - i * 16_384))).collect()),
            ([151_936, 1024], 32_768, (0..5).map(|i| (i * 32_768, 32_768.min(151_936 - i * 32_768))).collect()),
            ([151_936, 4096], 8192, (0..19).map(|i| (i * 8192, 8192.min(151_936 - i * 8192))).collect()),
            ([50_257, 64], 32_768, vec![(0, 50_257)]),
        ] {
            assert_eq!(rows_of_a_sum(shape), sum, "{shape:?}");
            assert_eq!(cut(EMBEDDING, &shape, 128 << 20), webgpu, "{shape:?}");
            assert_eq!(cut(HEAD, &shape, 128 << 20), webgpu, "{shape:?}");
            assert_eq!(cut(EMBEDDING, &shape, 4 << 30), [(0, shape[0])], "{shape:?}");
        }
        // Several sums a part, where they fit.
        assert_eq!(cut(EMBEDDING, &[151_936, 1024], 512 << 20), [(0, 131_072), (131_072, 20_864)]);
        // Other parameters, and rows of which not even those of one sum fit, are for the plan to refuse.
        assert_eq!(cut("layers.0.mlp.key_param_tokens", &[50_257, 768], 128 << 20), [(0, 50_257)]);
        assert_eq!(cut(EMBEDDING, &[50_257, 8], 1 << 19), [(0, 50_257)]);
    }
}
