//! Where the gradients of all that trains lie, as one line of elements, and how that line is cut for a transfer.
//!
//! A *bucket* is what travels at once: the gradients of a layer, or of several small ones, which are complete at one point of
//! the backward. Every rank owns a *chunk* of each bucket: it adds up what the ranks computed of it, and gives the sum to all.
//! Both end where a block of the gradient norm ends, so that whoever owns a chunk can make its part of the norm.

use crate::error::Result;
use crate::graph::plan::Plan;
use crate::graph::{Class, Graph, grad_name};
use crate::kernel::{Access, KernelTable};
use crate::ops::grad_norm;
use std::ops::Range;

/// Elements of a bucket, at least, but for the last one: 128 KiB. Every bucket costs a message to and from every rank.
const FEWEST: usize = 1 << 15;
/// Buckets, at most: each has a tag of its own.
const MOST_BUCKETS: usize = 1024;

/// A range of elements of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The number of the storage.
    pub(crate) storage: usize,
    pub(crate) range: Range<usize>,
}

/// The gradient of a parameter, or of a part of it.
#[derive(Debug, Clone)]
struct Piece {
    /// Of the gradient.
    name: String,
    /// The parameter that it belongs to, and its first element among those that train.
    of: String,
    first: usize,
    elements: usize,
    layer: Option<usize>,
    /// On the line, with what fills it up to where the next one may start.
    range: Range<usize>,
}

/// The gradients of all that trains, one storage after the other.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Their names without what says that they hold gradients, and elements.
    pub(crate) storages: Vec<(String, usize)>,
    pieces: Vec<Piece>,
    /// Where blocks of the norm begin, and the end of the line.
    pub(crate) blocks: Vec<usize>,
}

impl Layout {
    /// Of what is `trained`: parameters by name, with the shape of their last rows that are.
    ///
    /// # Errors
    /// Those of [`Graph::pack`].
    pub(crate) fn of(trained: &[(String, Vec<usize>)], kernels: &KernelTable) -> Result<Self> {
        let mut g = Graph::forward_only(kernels);
        let packed = g.pack(trained, Class::Gradient, grad_name)?;
        let lengths: Vec<usize> = packed.storages.iter().map(|&storage| g.shape(storage).iter().product()).collect();
        let storages = (0..lengths.len()).map(|i| format!("parameters {i}")).zip(lengths.iter().copied()).collect();
        let before = |storage: usize| lengths[..storage].iter().sum::<usize>();
        let end = before(lengths.len());
        let mut pieces = Vec::with_capacity(packed.pieces.len());
        for piece in &packed.pieces {
            let Some(view) = g.view_of(piece.tensor) else { continue };
            let storage = packed.storages.iter().position(|&storage| storage == view.storage).unwrap_or(0);
            let start = before(storage) + view.offset;
            let layer = piece.of.strip_prefix("layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
            let elements = g.shape(piece.tensor).iter().product();
            let (name, of, first) = (grad_name(&piece.name), piece.of.clone(), piece.first);
            pieces.push(Piece { name, of, first, elements, layer, range: start..start });
        }
        let ends: Vec<usize> = pieces.iter().skip(1).map(|next| next.range.start).chain([end]).collect();
        pieces.iter_mut().zip(ends).for_each(|(piece, end)| piece.range.end = end);
        Ok(Self { storages, pieces, blocks: grad_norm::block_starts(&packed.sums) })
    }

    /// Elements in all.
    pub(crate) fn elements(&self) -> usize {
        self.blocks.last().copied().unwrap_or(0)
    }

    /// Where the gradients of parameters lie on the line: name, first element, range.
    pub(super) fn places(&self) -> impl Iterator<Item = (&str, usize, Range<usize>)> {
        self.pieces.iter().map(|piece| {
            let start = piece.range.start;
            (piece.of.as_str(), piece.first, start..start + piece.elements)
        })
    }

    /// Elements of a parameter that train.
    pub(super) fn trained_elements(&self, parameter: &str) -> usize {
        self.pieces.iter().filter(|piece| piece.of == parameter).map(|piece| piece.elements).sum()
    }

    /// Where a range of the line lies.
    pub(crate) fn stretches(&self, range: &Range<usize>) -> Vec<Stretch> {
        let mut start = 0;
        let mut found = Vec::new();
        for (storage, &(_, length)) in self.storages.iter().enumerate() {
            let (first, end) = (range.start.max(start), range.end.min(start + length));
            if first < end {
                found.push(Stretch { storage, range: first - start..end - start });
            }
            start += length;
        }
        found
    }

    /// Where the first block begins that does not begin before `at`.
    fn block_from(&self, at: usize) -> usize {
        self.blocks.get(self.blocks.partition_point(|&start| start < at)).copied().unwrap_or(at)
    }

    /// What travels at once, by the place on the line.
    pub(crate) fn buckets(&self) -> Vec<Range<usize>> {
        let fewest = FEWEST.max(self.elements().div_ceil(MOST_BUCKETS));
        let mut ends: Vec<usize> = Vec::new();
        for layer in self.pieces.chunk_by(|a, b| a.layer == b.layer) {
            let end = self.block_from(layer.last().map_or(0, |piece| piece.range.end));
            if end - ends.last().copied().unwrap_or(0) >= fewest {
                ends.push(end);
            }
        }
        let end = self.elements();
        match ends.last_mut() {
            // What is left is not worth a bucket of its own.
            Some(last) if end - *last < fewest => *last = end,
            _ => ends.push(end),
        }
        let starts = [0].into_iter().chain(ends.clone());
        starts.zip(ends).map(|(start, end)| start..end).filter(|bucket| !bucket.is_empty()).collect()
    }

    /// What each rank owns of a bucket.
    pub(crate) fn chunks(&self, bucket: &Range<usize>, ranks: usize) -> Vec<Range<usize>> {
        let cut = |i: usize| match i {
            0 => bucket.start,
            i if i >= ranks => bucket.end,
            i => self.block_from(bucket.start + bucket.len() * i / ranks).min(bucket.end),
        };
        (0..ranks).map(|rank| cut(rank)..cut(rank + 1)).collect()
    }

    /// After how many dispatches of `backward` the gradients of a bucket are complete.
    pub(crate) fn complete_after(&self, bucket: &Range<usize>, backward: &Plan) -> usize {
        let inside: Vec<&Piece> = self
            .pieces
            .iter()
            .filter(|piece| piece.range.start < bucket.end && piece.range.end > bucket.start)
            .collect();
        let storages: Vec<String> = self.storages.iter().map(|(name, _)| grad_name(name)).collect();
        let writes = |call: &crate::graph::Call| {
            let written = call.tensors.iter().zip(call.kernel.bindings).filter(|(_, access)| **access == Access::Write);
            written.map(|(tensor, _)| backward.tensors[tensor.index()].name.as_str()).any(|name| {
                // Gradients of several parameters of a layer are written as one batch, through their storage.
                let whole = storages.iter().any(|storage| storage == name);
                inside.iter().any(|piece| piece.name == name || (whole && (piece.layer == call.layer)))
            })
        };
        backward.calls.iter().rposition(writes).map_or(backward.calls.len(), |last| last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;
    use crate::kernel::Target;
    use crate::train::cohorts;
    use crate::train::trainer::RunPlans;

    fn layout(preset: &str) -> (Layout, RunPlans) {
        let config = RunConfig::preset(preset).unwrap();
        let kernels = KernelTable::defaults(Target::WEBGPU);
        let cohorts = [cohorts::first(&config.model)];
        let plans = RunPlans::new(&config.model, &config.train, &cohorts, 1, &kernels).unwrap();
        (Layout::of(&plans.trained, &kernels).unwrap(), plans)
    }

    #[test]
    fn buckets_and_chunks_cover_all_gradients_once_and_end_with_blocks() {
        for preset in ["bench-tiny", "bench-small"] {
            let (layout, _) = layout(preset);
            let all: usize = layout.storages.iter().map(|(_, elements)| elements).sum();
            assert_eq!(layout.elements(), all);
            let mut next = 0;
            for bucket in layout.buckets() {
                assert_eq!(bucket.start, next);
                for ranks in [1, 2, 3, 8] {
                    let chunks = layout.chunks(&bucket, ranks);
                    assert!(chunks.windows(2).all(|pair| pair[0].end == pair[1].start), "{chunks:?}");
                    assert_eq!((chunks[0].start, chunks[ranks - 1].end), (bucket.start, bucket.end));
                    assert!(chunks.iter().all(|chunk| layout.blocks.contains(&chunk.start)));
                }
                let stretches = layout.stretches(&bucket);
                assert_eq!(stretches.iter().map(|stretch| stretch.range.len()).sum::<usize>(), bucket.len());
                next = bucket.end;
            }
            assert_eq!(next, all);
        }
    }

    /// The last layer comes first, and what is before the layers is complete only at the end.
    #[test]
    fn the_last_layer_is_complete_first() {
        let (layout, plans) = layout("bench-tiny");
        let buckets = layout.buckets();
        let complete: Vec<usize> = buckets.iter().map(|bucket| layout.complete_after(bucket, &plans.micro)).collect();
        assert!(buckets.len() > 2 && complete[1..].is_sorted_by(|a, b| a >= b), "{complete:?} of {buckets:?}");
        assert_eq!(complete[0], plans.micro.calls.len());
        assert!(complete[buckets.len() - 1] < plans.micro.calls.len() * 3 / 4, "{complete:?}");
    }
}
