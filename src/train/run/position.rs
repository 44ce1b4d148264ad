//! How far a run is in its data: counted on from where it started, so that it keeps its place where the batch changes.

use crate::model::graphs::BatchShape;

/// What a run has had of its data before a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Rows drawn or stepped over, and so the number of the next one.
    pub rows: u64,
    /// Tokens trained on.
    pub tokens: u64,
}

impl Position {
    /// That of batch number `batch`, all batches being of `size` rows.
    pub(crate) fn at_batch(batch: u64, size: usize, tokens: u64) -> Self {
        Self { rows: batch.saturating_mul(size as u64), tokens }
    }

    /// `steps` later, with batches of `shape`.
    pub fn after(self, steps: u64, shape: &BatchShape) -> Self {
        let rows = steps.saturating_mul((shape.grad_accum * shape.batch) as u64);
        let tokens = rows.saturating_mul(shape.seq as u64);
        Self { rows: self.rows.saturating_add(rows), tokens: self.tokens.saturating_add(tokens) }
    }

    /// `steps` earlier, with batches of `shape`.
    pub fn back(self, steps: u64, shape: &BatchShape) -> Self {
        let Self { rows, tokens } = Self::default().after(steps, shape);
        Self { rows: self.rows.saturating_sub(rows), tokens: self.tokens.saturating_sub(tokens) }
    }

    /// The number of the next batch of `size` rows: the first of which no row was drawn.
    pub fn next_batch(self, size: usize) -> u64 {
        self.rows.div_ceil(size.max(1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Dtype;

    #[test]
    fn no_row_is_drawn_twice_and_no_whole_batch_left_out() {
        let shape =
            BatchShape { batch: 3, seq: 10, grad_accum: 2, chunk_rows: 1, recompute: false, precision: Dtype::F32 };
        let position = Position::at_batch(5, 2, 100).after(4, &shape);
        assert_eq!(position, Position { rows: 34, tokens: 340 });
        assert_eq!(position.back(4, &shape), Position::at_batch(5, 2, 100));
        assert_eq!([1, 2, 3, 34, 50].map(|size| position.next_batch(size)), [34, 17, 12, 1, 1]);
        // What a forged file may say is no reason to panic.
        let forged = Position::at_batch(u64::MAX, 2, u64::MAX).after(u64::MAX, &shape);
        assert_eq!(forged, Position { rows: u64::MAX, tokens: u64::MAX });
    }
}
