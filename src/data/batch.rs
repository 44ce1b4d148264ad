//! Which windows of the data make a batch: pure functions of a seed and a number, with no state.
//!
//! A run that resumes, or a step that is replayed, therefore reads the same tokens again.
//!
//! A window is `seq + 1` consecutive tokens: the first `seq` are the inputs, the last `seq` the targets.

use super::TokenSource;
use super::source::Part;
use crate::error::{Error, Result};
use crate::rng::{Rng, Stream};

/// A target that counts for nothing.
pub const IGNORED: u32 = u32::MAX;

/// Inputs and targets of `B` windows, each `[B, T]` row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Input tokens.
    pub tokens: Vec<u32>,
    /// The token that follows each input.
    pub targets: Vec<u32>,
}

impl Batch {
    fn read(source: &TokenSource, starts: impl ExactSizeIterator<Item = usize>, seq: usize) -> Result<Self> {
        let size = starts.len().saturating_mul(seq);
        let mut batch = Self { tokens: Vec::with_capacity(size), targets: Vec::with_capacity(size) };
        for start in starts {
            let window = source.window(start, seq + 1)?;
            batch.tokens.extend(window.iter().take(seq));
            batch.targets.extend(window.iter().skip(1));
        }
        Ok(batch)
    }

    /// What share of the targets counts: 1, but for the last batch of an evaluation.
    pub(crate) fn counted(&self) -> f64 {
        let counted = self.targets.iter().filter(|target| **target != IGNORED).count();
        counted as f64 / self.targets.len().max(1) as f64
    }
}

/// The windows of a source, or of one of several.
#[derive(Debug, Clone, Copy)]
struct Windows {
    /// Start of the first.
    first: usize,
    /// How many there are, at least 1.
    count: usize,
    /// Share of rows that are drawn from these and those before them.
    below: f64,
}

/// The windows of `source`, of each of its parts.
///
/// # Errors
/// A batch or sequence of nothing, or a part shorter than one window.
fn windows(source: &TokenSource, batch: usize, seq: usize) -> Result<Vec<Windows>> {
    if batch == 0 || seq == 0 {
        return Err(Error::usage(format!("a batch of {batch} rows of {seq} tokens is empty; both must be at least 1")));
    }
    let count = |len: usize| match len.checked_sub(seq) {
        Some(count) if count > 0 => Ok(count),
        _ => Err(Error::input(format!(
            "{len} tokens are too few for one sequence of {seq} and the token after it; use a smaller seq_length"
        ))),
    };
    if source.parts().is_empty() {
        return Ok(vec![Windows { first: 0, count: count(source.len())?, below: 1.0 }]);
    }
    let mut below = 0.0;
    let mut of = |part: &Part| {
        below += part.share;
        Ok(Windows { first: part.first, count: count(part.len)?, below })
    };
    source.parts().iter().map(&mut of).collect()
}

/// Micro-batch number `index` (step * grad_accum + micro-step) of the run with this seed.
///
/// Row `r` starts at draw `index * batch + r`, uniform over all windows, with replacement as nanoGPT. Of several sources the
/// draw says first by weight which one, and then which of its windows.
///
/// # Errors
/// A source shorter than a window, or a token outside the vocabulary of a shard.
pub fn train_batch(source: &TokenSource, seed: u64, index: u64, batch: usize, seq: usize) -> Result<Batch> {
    let windows = windows(source, batch, seq)?;
    let first = index.wrapping_mul(batch as u64);
    let start = |row: usize| {
        let mut rng = Rng::new(seed, Stream::Batch, first.wrapping_add(row as u64));
        let mut drawn = windows.first();
        if windows.len() > 1 {
            let at = rng.uniform();
            drawn = windows.iter().find(|of| at < of.below).or(windows.last());
        }
        drawn.map_or(0, |of| of.first + rng.below(of.count as u64) as usize)
    };
    Batch::read(source, (0..batch).map(start), seq)
}

/// The batches of every validation of a run: `rows` windows at even distances over the source, whatever the size of a
/// batch. The last batch is filled up with windows whose targets are [`IGNORED`]. Of several sources each has its share of
/// the rows, as in training.
///
/// # Errors
/// As [`train_batch`].
pub fn validation_batches(source: &TokenSource, rows: usize, batch: usize, seq: usize) -> Result<Vec<Batch>> {
    let windows = windows(source, batch, seq)?;
    let rows = rows.max(1);
    let end = |of: &Windows| ((of.below * rows as f64).round() as usize).min(rows);
    let start = |at: usize| {
        let at = at.min(rows - 1);
        let mut before = 0;
        for of in windows.iter().take(windows.len() - 1) {
            if at < end(of) {
                return of.first + ((at - before) as u128 * of.count as u128 / (end(of) - before) as u128) as usize;
            }
            before = end(of);
        }
        windows.last().map_or(0, |of| {
            of.first + ((at - before) as u128 * of.count as u128 / (rows - before).max(1) as u128) as usize
        })
    };
    let read = |b: usize| {
        let mut read = Batch::read(source, (b * batch..(b + 1) * batch).map(start), seq)?;
        let counted = (rows - b * batch).min(batch) * seq;
        read.targets.iter_mut().skip(counted).for_each(|target| *target = IGNORED);
        Ok(read)
    };
    (0..rows.div_ceil(batch)).map(read).collect()
}

/// One batch of [`all_windows`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EvalBatch {
    /// Inputs and targets, `[B, T]`; rows past the end of the data repeat the last window.
    pub batch: Batch,
    /// Which targets count, `[B, T]`: over all batches, every token but the first counts once.
    pub counted: Vec<bool>,
}

/// Windows side by side over the whole source, `batch` at a time.
///
/// The last window ends with the data, so it may overlap the one before; what it repeats does not count.
///
/// # Errors
/// As [`train_batch`], here or from the iterator.
pub(crate) fn all_windows(
    source: &TokenSource,
    batch: usize,
    seq: usize,
) -> Result<impl ExactSizeIterator<Item = Result<EvalBatch>>> {
    windows(source, batch, seq)?;
    let last = source.len() - seq - 1;
    let rows = last.div_ceil(seq) + 1;
    Ok((0..rows.div_ceil(batch)).map(move |b| {
        // Row r is to score the targets of r * seq .. (r + 1) * seq; it starts there, or earlier at the end.
        let wanted = (b * batch..(b + 1) * batch).map(move |row| row * seq);
        let counted = wanted.clone().flat_map(|at| {
            let repeated = at - at.min(last);
            (0..seq).map(move |t| t >= repeated)
        });
        let counted = counted.collect();
        Ok(EvalBatch { batch: Batch::read(source, wanted.map(|at| at.min(last)), seq)?, counted })
    }))
}

/// The rows of a batch grouped by token: lets the embedding gradient add them up in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIndex {
    /// Row numbers `0..R`, sorted by token, in rising order within a token.
    pub rows: Vec<u32>,
    /// `[V + 1]`: token `v` owns `rows[starts[v]..starts[v + 1]]`.
    pub starts: Vec<u32>,
}

/// Groups the rows of a batch by token (a counting sort).
///
/// # Errors
/// A token that is not below `vocab`, or more rows than a u32 counts.
pub fn token_index(tokens: &[u32], vocab: usize) -> Result<TokenIndex> {
    let count = u32::try_from(tokens.len())
        .map_err(|_| Error::usage(format!("a batch of {} tokens is too large; use a smaller batch", tokens.len())))?;
    let mut starts = vec![0_u32; vocab + 1];
    for &token in tokens {
        match starts.get_mut(token as usize + 1) {
            Some(n) => *n += 1,
            None => return Err(Error::input(format!("token {token} is not below vocab_size {vocab}"))),
        }
    }
    let mut total = 0;
    for start in &mut starts {
        total += *start;
        *start = total;
    }
    let mut next = starts.clone();
    let mut rows = vec![0; tokens.len()];
    for (row, &token) in (0..count).zip(tokens) {
        // Both indices hold: the token was checked above, and `next` stays below the number of rows.
        let slot = &mut next[token as usize];
        rows[*slot as usize] = row;
        *slot += 1;
    }
    Ok(TokenIndex { rows, starts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(n: u32) -> TokenSource {
        TokenSource::from_tokens((0..n).collect())
    }

    #[test]
    fn training_batches_repeat_shift_by_one_and_reach_both_ends() {
        let source = counting(20);
        let batch = train_batch(&source, 7, 3, 4, 5).unwrap();
        assert_eq!(batch, train_batch(&source, 7, 3, 4, 5).unwrap());
        assert_ne!(batch, train_batch(&source, 7, 4, 4, 5).unwrap());
        assert_ne!(batch, train_batch(&source, 8, 3, 4, 5).unwrap());
        assert!(batch.tokens.iter().zip(&batch.targets).all(|(a, b)| a + 1 == *b));
        // Rows are numbered through the run: two batches of two are one of four.
        let halves = [6, 7].map(|index| train_batch(&source, 7, index, 2, 5).unwrap().tokens).concat();
        assert_eq!(halves, batch.tokens);
        let starts: Vec<u32> = (0..500).map(|i| train_batch(&source, 7, i, 1, 5).unwrap().tokens[0]).collect();
        assert_eq!((starts.iter().min(), starts.iter().max()), (Some(&0), Some(&14)));
    }

    #[test]
    fn a_source_of_one_window_works_and_one_token_less_is_refused() {
        assert_eq!(train_batch(&counting(6), 1, 0, 1, 5).unwrap().targets, [1, 2, 3, 4, 5]);
        assert_eq!(train_batch(&counting(5), 1, 0, 1, 5).unwrap_err().exit_code(), 2);
        assert_eq!(train_batch(&counting(5), 1, 0, 0, 5).unwrap_err().exit_code(), 1);
    }

    #[test]
    fn of_several_sources_rows_are_drawn_by_weight() {
        let of = |range: std::ops::Range<u32>| TokenSource::from_tokens(range.collect());
        let shares = [0.6, 0.3, 0.1];
        let sources = [of(0..20), of(100..1100), of(2000..2007)];
        let parts = sources.into_iter().zip(shares).map(|(source, share)| (String::new(), source, share)).collect();
        let mixed = TokenSource::joined(parts);
        let which = |token: u32| if token < 100 { 0 } else { usize::from(token >= 2000) + 1 };
        let mut counts = [0; 3];
        for index in 0..1000 {
            let batch = train_batch(&mixed, 3, index, 4, 5).unwrap();
            assert_eq!(batch, train_batch(&mixed, 3, index, 4, 5).unwrap());
            assert!(batch.tokens.iter().zip(&batch.targets).all(|(a, b)| a + 1 == *b), "no row crosses sources");
            batch.tokens.iter().step_by(5).for_each(|&token| counts[which(token)] += 1);
        }
        for (count, share) in counts.iter().zip(shares) {
            assert!((f64::from(*count) / 4000.0 - share).abs() < 0.03, "{counts:?}");
        }
        let starts: Vec<u32> =
            validation_batches(&mixed, 10, 10, 5).unwrap()[0].tokens.iter().step_by(5).copied().collect();
        assert_eq!(starts, [0, 2, 5, 7, 10, 12, 100, 431, 763, 2000]);
        let counted: usize =
            all_windows(&mixed, 2, 5).unwrap().map(|part| part.unwrap().counted.iter().filter(|c| **c).count()).sum();
        assert_eq!(counted, mixed.len() - 1);
        // One source alone is drawn from as ever.
        let alone = TokenSource::joined(vec![(String::new(), of(0..20), 1.0)]);
        assert_eq!(train_batch(&alone, 7, 3, 4, 5).unwrap(), train_batch(&of(0..20), 7, 3, 4, 5).unwrap());
        let short = TokenSource::joined(vec![(String::new(), of(0..20), 0.5), (String::new(), of(0..5), 0.5)]);
        assert!(train_batch(&short, 1, 0, 1, 5).unwrap_err().to_string().starts_with("5 tokens are too few"));
    }

    #[test]
    fn validation_windows_are_evenly_spaced() {
        let batches = validation_batches(&counting(104), 4, 2, 4).unwrap();
        let starts: Vec<u32> = batches.iter().flat_map(|b| [b.tokens[0], b.tokens[4]]).collect();
        assert_eq!(starts, [0, 25, 50, 75]);
    }

    #[test]
    fn a_validation_counts_the_same_targets_in_batches_of_any_size() {
        let counted = |batch| {
            let batches = validation_batches(&counting(104), 6, batch, 4).unwrap();
            assert!(batches.iter().all(|b| b.tokens.len() == batch * 4 && b.targets.len() == batch * 4));
            let shares: f64 = batches.iter().map(Batch::counted).sum();
            assert!((shares * batch as f64 - 6.0).abs() < 1e-12);
            let targets = batches.into_iter().flat_map(|b| b.targets);
            targets.filter(|&target| target != IGNORED).collect::<Vec<_>>()
        };
        for batch in 1..9 {
            assert_eq!(counted(batch), counted(6), "batches of {batch}");
        }
    }

    #[test]
    fn all_windows_count_every_target_once() {
        for n in 5..40 {
            for batch in 1..4 {
                let mut counted = Vec::new();
                for part in all_windows(&counting(n), batch, 4).unwrap() {
                    let part = part.unwrap();
                    assert_eq!(part.batch.targets.len(), batch * 4);
                    let kept = part.batch.targets.iter().zip(&part.counted).filter(|(_, counted)| **counted);
                    counted.extend(kept.map(|(target, _)| *target));
                }
                assert_eq!(counted, (1..n).collect::<Vec<_>>(), "n {n}, batch {batch}");
            }
        }
    }

    #[test]
    fn the_index_groups_rows_by_token_in_order() {
        let index = token_index(&[3, 0, 3, 1, 0, 3], 5).unwrap();
        assert_eq!(index.rows, [1, 4, 3, 0, 2, 5]);
        assert_eq!(index.starts, [0, 2, 3, 3, 6, 6]);
        assert!(token_index(&[5], 5).is_err());
        assert_eq!(token_index(&[], 2).unwrap().starts, [0, 0, 0]);
    }
}
