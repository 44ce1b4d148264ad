//! What all ranks do together, one operation after the other and in the same order on all.
//!
//! Each has a number, and its messages a tag of their own: those of one cannot be taken for those of the next. Where ranks do
//! different things at the same number, that is a defect of this program, and is noticed.

use super::World;
use super::inbox::COLLECTIVE;
use super::world::Shared;
use crate::error::{Error, Result};
use std::sync::atomic::Ordering;

/// Kinds of operations, and how many there are.
const GATHER: u32 = 0;
const BROADCAST: u32 = 1;
const BARRIER: u32 = 2;
const KINDS: [&str; 3] = ["all-gather", "broadcast", "barrier"];
/// Numbers start again here: far more than are ever under way.
const NUMBERS: u32 = 1 << 28;

/// One operation.
struct Collective<'a> {
    shared: &'a Shared,
    kind: u32,
    number: u32,
}

impl World {
    /// What each rank gives, in the order of ranks. Meant for small things: every rank sends to every other.
    pub(crate) fn all_gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let Some(shared) = &self.0 else { return Ok(vec![bytes]) };
        let gather = Collective::next(shared, GATHER);
        for other in gather.others() {
            gather.send(other, bytes.clone())?;
        }
        let mut all: Vec<Vec<u8>> = Vec::new();
        for rank in 0..shared.size {
            all.push(if rank == shared.rank { Vec::new() } else { gather.receive(rank)? });
        }
        if let Some(own) = all.get_mut(shared.rank) {
            *own = bytes;
        }
        Ok(all)
    }

    /// What rank 0 gives; the others give `None`. Ranks that have it pass it on, so that rank 0 sends log2 of their number.
    pub(crate) fn broadcast(&self, bytes: Option<Vec<u8>>) -> Result<Vec<u8>> {
        if bytes.is_some() != self.is_root() {
            return Err(Error::defect(format!("a broadcast of rank {}", self.rank())));
        }
        let Some(shared) = &self.0 else { return Ok(bytes.unwrap_or_default()) };
        let broadcast = Collective::next(shared, BROADCAST);
        // A binomial tree: rank r gets it from r without its lowest bit, and has all ranks below that bit under it.
        let lowest = if shared.rank == 0 { shared.size.next_power_of_two() } else { 1 << shared.rank.trailing_zeros() };
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => broadcast.receive(shared.rank - lowest)?,
        };
        let steps = std::iter::successors(Some(lowest / 2), |step| Some(step / 2)).take_while(|step| *step > 0);
        for to in steps.map(|step| shared.rank + step).filter(|to| *to < shared.size) {
            broadcast.send(to, bytes.clone())?;
        }
        Ok(bytes)
    }

    /// Returns when all ranks have called it.
    pub(crate) fn barrier(&self) -> Result<()> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let barrier = Collective::next(shared, BARRIER);
        // After the round of distance d, each rank knows of the 2 d before it.
        let mut distance = 1;
        while distance < shared.size {
            barrier.send((shared.rank + distance) % shared.size, Vec::new())?;
            barrier.receive((shared.rank + shared.size - distance) % shared.size)?;
            distance *= 2;
        }
        Ok(())
    }
}

impl<'a> Collective<'a> {
    fn next(shared: &'a Shared, kind: u32) -> Self {
        Self { shared, kind, number: shared.collectives.fetch_add(1, Ordering::Relaxed) % NUMBERS }
    }

    fn tag(&self, kind: u32) -> u32 {
        COLLECTIVE + kind * NUMBERS + self.number
    }

    fn others(&self) -> impl Iterator<Item = usize> {
        let (rank, size) = (self.shared.rank, self.shared.size);
        // Not all to rank 0 first.
        (1..size).map(move |distance| (rank + distance) % size)
    }

    fn send(&self, to: usize, bytes: Vec<u8>) -> Result<()> {
        self.shared.send(to, self.tag(self.kind), bytes)
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let got = self.shared.wait(Some(from), |inbox| {
            if let Some(bytes) = inbox.read(from, self.tag(self.kind)) {
                return Some(Ok(bytes));
            }
            let other = (0..).zip(KINDS).find(|(kind, _)| *kind != self.kind && inbox.has(from, self.tag(*kind)));
            other.map(|(_, other)| Err(other))
        })?;
        let own = KINDS.get(self.kind as usize).copied().unwrap_or_default();
        got.map_err(|other| {
            Error::defect(format!(
                "operation {} is {other} on rank {from}, but {own} on rank {}",
                self.number, self.shared.rank
            ))
        })
    }
}
