//! Byte-pair encoding of one piece of a text: the two neighbours of the lowest rank become one, over and over.
//!
//! Short pieces are scanned for the lowest rank; in long ones it is at the top of a heap, so that a piece of n bytes takes
//! n log n steps whatever it is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Parts up to which a scan is faster than a heap.
const SCANNED: usize = 48;
/// No part.
const NONE: u32 = u32::MAX;

/// What two neighbours become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Merged {
    /// Lower ones come first.
    pub(super) rank: u32,
    /// The token that both become.
    pub(super) id: u32,
}

/// A token and the bytes it stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) id: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Buffers of [`Merger::merge`], kept from piece to piece.
#[derive(Debug, Default)]
pub(super) struct Merger {
    parts: Vec<Part>,
    pairs: Vec<Option<Merged>>,
    next: Vec<u32>,
    previous: Vec<u32>,
    heap: BinaryHeap<Reverse<(u32, u32, u32)>>,
}

impl Merger {
    /// Appends to `out` what becomes of the tokens `ids`, one a byte.
    pub(super) fn merge(
        &mut self,
        ids: impl Iterator<Item = u32>,
        merged: impl Fn(Part, Part) -> Option<Merged>,
        out: &mut Vec<u32>,
    ) {
        self.parts.clear();
        self.parts.extend((0..).zip(ids).map(|(at, id)| Part { id, start: at, end: at + 1 }));
        if self.parts.len() <= SCANNED {
            self.scan(merged)
        } else {
            self.heap(merged)
        }
        out.extend(self.parts.iter().map(|part| part.id).filter(|&id| id != NONE));
    }

    fn scan(&mut self, merged: impl Fn(Part, Part) -> Option<Merged>) {
        let (parts, pairs) = (&mut self.parts, &mut self.pairs);
        let pair = |parts: &[Part], at: usize| merged(*parts.get(at)?, *parts.get(at + 1)?);
        pairs.clear();
        pairs.extend((0..parts.len()).map(|at| pair(parts, at)));
        loop {
            let found = pairs.iter().enumerate().filter_map(|(at, pair)| Some((pair.as_ref()?, at)));
            let Some((&Merged { id, .. }, at)) = found.min_by_key(|(pair, _)| pair.rank) else { return };
            let end = parts.remove(at + 1).end;
            pairs.remove(at + 1);
            if let Some(part) = parts.get_mut(at) {
                (part.id, part.end) = (id, end);
            }
            for at in at.saturating_sub(1)..=at {
                let now = pair(parts, at);
                if let Some(slot) = pairs.get_mut(at) {
                    *slot = now;
                }
            }
        }
    }

    /// Leaves parts without an id where there are none any more.
    fn heap(&mut self, merged: impl Fn(Part, Part) -> Option<Merged>) {
        let Self { parts, next, previous, heap, .. } = self;
        let count = u32::try_from(parts.len()).unwrap_or(NONE);
        next.clear();
        next.extend((1..count).chain([NONE]));
        previous.clear();
        previous.extend([NONE].into_iter().chain(0..count.saturating_sub(1)));
        heap.clear();
        let pair = |parts: &[Part], next: &[u32], at: u32| {
            let left = parts.get(at as usize).filter(|part| part.id != NONE)?;
            merged(*left, *parts.get(*next.get(at as usize)? as usize)?)
        };
        let push = |heap: &mut BinaryHeap<_>, parts: &[Part], next: &[u32], at: u32| {
            if let Some(Merged { rank, id }) = pair(parts, next, at) {
                heap.push(Reverse((rank, at, id)));
            }
        };
        (0..count).for_each(|at| push(heap, parts, next, at));
        while let Some(Reverse((rank, at, id))) = heap.pop() {
            // It may have been overtaken: a part only grows, so what it becomes now is another.
            if pair(parts, next, at) != Some(Merged { rank, id }) {
                continue;
            }
            let right = next.get(at as usize).copied().unwrap_or(NONE);
            let after = next.get(right as usize).copied().unwrap_or(NONE);
            let Some(end) = parts.get_mut(right as usize).map(|part| {
                part.id = NONE;
                part.end
            }) else {
                continue;
            };
            if let Some(part) = parts.get_mut(at as usize) {
                (part.id, part.end) = (id, end);
            }
            if let Some(slot) = next.get_mut(at as usize) {
                *slot = after;
            }
            if let Some(slot) = previous.get_mut(after as usize) {
                *slot = at;
            }
            push(heap, parts, next, at);
            if let Some(&before) = previous.get(at as usize).filter(|&&before| before != NONE) {
                push(heap, parts, next, before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_finds_what_a_scan_finds() {
        // Tokens are numbers; two that are alike become the next one, and 0 1 becomes 9 before all.
        let merged = |a: Part, b: Part| match (a.id, b.id) {
            (0, 1) => Some(Merged { rank: 0, id: 9 }),
            (a, b) if a == b && a < 9 => Some(Merged { rank: 5 + a % 3, id: a + 1 }),
            _ => None,
        };
        let mut state = 7_u32;
        for len in 0..200 {
            let ids: Vec<u32> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state >> 31
                })
                .collect();
            let of = |run: &dyn Fn(&mut Merger)| {
                let mut merger = Merger::default();
                merger.parts.extend((0..).zip(&ids).map(|(at, &id)| Part { id, start: at, end: at + 1 }));
                run(&mut merger);
                merger.parts.iter().map(|part| part.id).filter(|&id| id != NONE).collect::<Vec<_>>()
            };
            assert_eq!(of(&|merger| merger.scan(merged)), of(&|merger| merger.heap(merged)), "{ids:?}");
        }
    }
}
