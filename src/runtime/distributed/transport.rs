//! What carries messages between ranks. Nothing in it waits: who waits is [`World`](super::World), which looks after the
//! living meanwhile.

use crate::error::Result;
use std::time::{Duration, Instant};

/// The tag of no message: a part of a longer message has come, so whoever sends it lives.
pub(super) const SIGN_OF_LIFE: u32 = u32::MAX;

/// The tag of no message: the rank cannot be reached any more; why is what the bytes say, of it.
pub(super) const LOST: u32 = u32::MAX - 1;

/// What came in.
#[derive(Debug)]
pub(super) struct Message {
    /// The rank that sent it.
    pub(super) from: usize,
    /// What it is about.
    pub(super) tag: u32,
    /// What it says.
    pub(super) bytes: Vec<u8>,
}

/// Messages between the ranks of one run.
pub(super) trait Transport: Send + Sync {
    /// Which one this process is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Which one this process is among those of the same machine, from 0.
    fn local_rank(&self) -> usize;

    /// Sends, and returns at once. The bytes are kept until they are gone. An error says of the rank why it cannot be reached.
    fn send(&self, to: usize, tag: u32, bytes: Vec<u8>) -> Result<()>;

    /// What came in, if anything did. Those of one rank with one tag come in the order they were sent in; others may overtake.
    fn poll(&self) -> Result<Option<Message>>;

    /// Whether something is on its way that only goes on while someone polls.
    fn is_busy(&self) -> bool;

    /// Waits until all that was sent is gone, and says whether it is.
    fn flush(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.is_busy() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        !self.is_busy()
    }

    /// The end. `clean` says that all ranks end like this, with nothing on its way; else nothing may be waited for.
    fn end(self: Box<Self>, clean: bool);
}
