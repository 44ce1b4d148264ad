//! How much of a program goes into one submission, by the time that earlier ones took.

use std::ops::Range;
use std::time::Duration;

/// What a chunk is planned to take.
pub(crate) const CHUNK_TIME: Duration = Duration::from_millis(200);
/// The same where somebody works at the display that this GPU draws.
pub(crate) const POLITE_CHUNK_TIME: Duration = Duration::from_millis(20);
/// Units of cost a second until something was measured; see [`Dispatch::cost`].
const FIRST_RATE: [f64; 2] = [1e11, 1e10];

/// How much goes into a chunk.
#[derive(Debug)]
pub(super) struct ChunkBudget {
    /// What a chunk is planned to take.
    pub(super) chunk_time: Duration,
    /// Seconds of a unit of cost.
    unit: f64,
    pub(super) measured: bool,
}

impl ChunkBudget {
    pub(super) fn new(software: bool) -> Self {
        Self { chunk_time: CHUNK_TIME, unit: 1.0 / FIRST_RATE[usize::from(software)], measured: false }
    }

    /// Learns from a chunk: at once from one that was slower than expected, slowly from faster ones.
    pub(super) fn learn(&mut self, cost: f64, took: Duration) {
        let unit = took.as_secs_f64() / cost.max(1.0);
        self.unit = if unit > self.unit || !self.measured { unit } else { 0.9 * self.unit + 0.1 * unit };
        self.measured = true;
    }

    /// Ranges of dispatches of the given costs that are planned to fit a chunk each; at least one dispatch in each.
    pub(super) fn cut(&self, costs: impl Iterator<Item = f64>) -> Vec<Range<usize>> {
        let most = self.chunk_time.as_secs_f64() / self.unit;
        let mut chunks: Vec<Range<usize>> = Vec::new();
        let mut sum = 0.0;
        for (i, cost) in costs.enumerate() {
            sum += cost;
            match chunks.last_mut() {
                Some(last) if sum <= most => last.end = i + 1,
                _ => {
                    chunks.push(i..i + 1);
                    sum = cost;
                }
            }
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_what_was_measured_and_never_split_a_dispatch() {
        let mut budget = ChunkBudget::new(true);
        let costs = [3.9e8, 3.9e8, 3.9e8, 3.9e8, 3.9e8, 9e9, 1.0];
        assert_eq!(budget.cut(costs.into_iter()), [0..5, 5..6, 6..7]);
        budget.learn(1e9, Duration::from_millis(500));
        assert_eq!(budget.cut(costs.into_iter()), [0..1, 1..2, 2..3, 3..4, 4..5, 5..6, 6..7]);
        for _ in 0..100 {
            budget.learn(1e9, Duration::from_millis(10));
        }
        assert_eq!(budget.cut(costs.into_iter()).len(), 1);
        budget.learn(1e9, Duration::from_millis(500));
        assert_eq!(budget.cut(costs.into_iter()).len(), 7, "slower chunks are believed at once");
    }
}
