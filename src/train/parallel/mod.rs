//! An update whose gradients are computed in *leaves*: groups of micro-batches whose gradients are added up by a fixed binary
//! tree (`tree`), by one process or by several ranks that each compute some of them. Whoever computes a leaf, the sum has the
//! same bits.
//!
//! A rank adds up its own leaves on its device ([`leaves`]). Then ranks exchange what they have, layer by layer while the
//! backward goes on ([`exchange`]): each adds up its share of all gradients ([`sums`]) and gives the sum to the others.

pub(crate) mod exchange;
pub(crate) mod layout;
pub(crate) mod leaves;
pub(crate) mod shard;
mod sums;
#[cfg(test)]
mod tests;
pub(crate) mod told;
mod tree;

/// Which of the ranks that train one model a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Its number, from 0.
    pub(crate) rank: usize,
    /// How many there are.
    pub(crate) ranks: usize,
}

impl Share {
    /// Of a process by itself.
    pub(crate) const ALL: Self = Self { rank: 0, ranks: 1 };
}
