//! Several processes that train together: who they are, messages between them, and what becomes of all where one ends.
//!
//! | file | what it does |
//! |---|---|
//! | `start.rs` | reads from the environment whether a launcher started this process as one of several |
//! | `world.rs` | [`World`]: send, receive, leave; a thread that tells the others that this rank lives |
//! | `timing.rs` | how long is waited for what |
//! | `inbox.rs` | what came in: mail, signs of life, ends, the first fault |
//! | `collectives.rs` | all-gather, broadcast, barrier |
//! | `agree.rs` | that all ranks run the same program on the same data with the same settings |
//! | `wire.rs` | how what ranks tell each other is written, and read with distrust |
//! | `transport.rs` | what a [`World`] needs of whatever carries its messages: |
//! | `mpi.rs` | MPI, with the feature `mpi` |
//! | `threads.rs` | threads of one process that lose and delay messages, for tests |

mod agree;
mod collectives;
mod inbox;
#[cfg(feature = "mpi")]
mod mpi;
mod start;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod threads;
mod timing;
mod transport;
mod wire;
mod world;

#[cfg(test)]
pub(crate) use threads::on_threads;

pub(crate) use agree::agree;
pub(crate) use world::World;
