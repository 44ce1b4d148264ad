//! What came in: mail that waits to be read, when each rank was last heard of, how it ended, and the first fault of all.
//!
//! No clock and no transport here: [`World`](super::World) brings both.

use super::transport::{LOST, Message, SIGN_OF_LIFE};
use super::wire::{Garbled, Hello, PROTOCOL, Reader};
use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Tags of what ranks tell each other about themselves.
pub(super) const HELLO: u32 = u32::MAX - 8;
pub(super) const BEAT: u32 = u32::MAX - 9;
pub(super) const BYE: u32 = u32::MAX - 10;
pub(super) const FAIL: u32 = u32::MAX - 11;
pub(super) const LAST: u32 = u32::MAX - 12;
/// Tags from here on are of collective operations, and far below those above; smaller ones are free.
pub(super) const COLLECTIVE: u32 = 1 << 31;

/// Mail to rank 0 that asks for the next number of a queue, and the answer.
pub(super) const ASK: u32 = COLLECTIVE - 2;
pub(super) const TICKET: u32 = COLLECTIVE - 1;

/// What is known of a rank.
struct Peer {
    hello: Option<Hello>,
    heard: Instant,
    /// How long since then somebody looked for messages: less than what passed where this process itself was halted.
    watched: Duration,
    /// Mail that came from it.
    received: u64,
    end: End,
    /// Nothing comes from it any more.
    is_quiet: bool,
}

/// How a rank ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// In order, after so much mail to this rank. What is said last may come before that.
    Bye(u64),
    Failed,
}

/// What came in.
pub(super) struct Inbox {
    rank: usize,
    mail: HashMap<(usize, u32), VecDeque<Vec<u8>>>,
    peers: Vec<Peer>,
    fault: Option<Error>,
    /// Numbers given out so far, by queue.
    tickets: HashMap<u32, u64>,
    looked: Instant,
    /// Between two signs of life.
    beat: Duration,
}

impl Inbox {
    /// Of rank `rank` of `size`.
    pub(super) fn new(rank: usize, size: usize, now: Instant, beat: Duration) -> Self {
        let peer = |_| Peer {
            hello: None,
            heard: now,
            watched: Duration::ZERO,
            received: 0,
            end: End::NotYet,
            is_quiet: false,
        };
        Self {
            rank,
            mail: HashMap::new(),
            peers: (0..size).map(peer).collect(),
            fault: None,
            tickets: HashMap::new(),
            looked: now,
            beat,
        }
    }

    /// `rank 2 (node7, process 4711)`, as far as it is known.
    pub(super) fn name(&self, rank: usize) -> String {
        match self.peers.get(rank).and_then(|peer| peer.hello.as_ref()) {
            Some(hello) => format!("rank {rank} ({})", hello.identity),
            None => format!("rank {rank}"),
        }
    }

    /// The first thing that went wrong.
    pub(super) fn check(&self) -> Result<()> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// Something went wrong. Only the first counts: the others follow from it.
    pub(super) fn set_fault(&mut self, fault: Error) {
        self.fault.get_or_insert(fault);
    }

    /// Somebody looks for messages.
    pub(super) fn look(&mut self, now: Instant) {
        let watched = now.saturating_duration_since(self.looked).min(self.beat);
        self.peers.iter_mut().for_each(|peer| peer.watched += watched);
        self.looked = now;
    }

    /// A message came.
    pub(super) fn take_in(&mut self, message: Message) {
        let Message { from, tag, bytes } = message;
        if tag == LOST {
            return self.lose(from, &String::from_utf8_lossy(&bytes));
        }
        let Some(peer) = self.peers.get_mut(from) else { return };
        (peer.heard, peer.watched) = (self.looked, Duration::ZERO);
        let read = match tag {
            SIGN_OF_LIFE | BEAT => Ok(()),
            HELLO => self.greeted(from, &bytes),
            BYE => Reader(&bytes).u64().map(|mail| peer.end = End::Bye(mail)),
            LAST => {
                peer.is_quiet = true;
                Ok(())
            }
            FAIL => {
                peer.end = End::Failed;
                // The sentence, of whichever rank it is.
                self.set_fault(Error::rank(String::from_utf8_lossy(&bytes)));
                Ok(())
            }
            _ => {
                peer.received += 1;
                self.mail.entry((from, tag)).or_default().push_back(bytes);
                Ok(())
            }
        };
        if read == Err(Garbled) {
            self.set_fault(Error::rank(format!(
                "{} says what tokenformer {} does not understand: start the same program on all ranks",
                self.name(from),
                env!("CARGO_PKG_VERSION")
            )));
        }
    }

    /// A rank cannot be reached. One that ended need not be.
    pub(super) fn lose(&mut self, rank: usize, why: &str) {
        if let Some(peer) = self.peers.get_mut(rank).filter(|peer| peer.end == End::NotYet) {
            peer.end = End::Failed;
            self.set_fault(Error::rank(format!("{} is lost: {why}", self.name(rank))));
        }
    }

    fn greeted(&mut self, from: usize, bytes: &[u8]) -> Result<(), Garbled> {
        let hello = Hello::read(bytes)?;
        let (version, protocol) = (hello.version.clone(), hello.protocol);
        if let Some(peer) = self.peers.get_mut(from) {
            peer.hello = Some(hello);
        }
        if (version.as_str(), protocol) != (env!("CARGO_PKG_VERSION"), PROTOCOL) {
            self.set_fault(Error::rank(format!(
                "{} is tokenformer {version} (protocol {protocol}), but {} is tokenformer {} (protocol {PROTOCOL}): start the same program on all ranks",
                self.name(from),
                self.name(self.rank),
                env!("CARGO_PKG_VERSION")
            )));
        }
        Ok(())
    }

    /// This process' own words, which are sent to others only.
    pub(super) fn introduce(&mut self, hello: Hello) {
        if let Some(this) = self.peers.get_mut(self.rank) {
            this.hello = Some(hello);
        }
    }

    /// Whether all introduced themselves.
    pub(super) fn all_known(&self) -> bool {
        self.peers.iter().all(|peer| peer.hello.is_some())
    }

    /// The next number of a queue.
    pub(super) fn next_ticket(&mut self, queue: u32) -> u64 {
        let next = self.tickets.entry(queue).or_default();
        *next += 1;
        *next - 1
    }

    /// Who asked for the next number of a queue, and which one it is.
    pub(super) fn tickets(&mut self) -> Vec<(usize, u64)> {
        let asked = (0..self.peers.len()).filter_map(|from| Some((from, self.read(from, ASK)?))).collect::<Vec<_>>();
        let queues = asked.into_iter().filter_map(|(from, bytes)| Some((from, Reader(&bytes).u32().ok()?)));
        queues.collect::<Vec<_>>().into_iter().map(|(from, queue)| (from, self.next_ticket(queue))).collect()
    }

    /// The oldest mail of a rank with a tag.
    pub(super) fn read(&mut self, from: usize, tag: u32) -> Option<Vec<u8>> {
        let waiting = self.mail.get_mut(&(from, tag))?;
        let bytes = waiting.pop_front();
        // Each collective has a tag of its own.
        if waiting.is_empty() {
            self.mail.remove(&(from, tag));
        }
        bytes
    }

    /// Whether there is mail of a rank with a tag.
    pub(super) fn has(&self, from: usize, tag: u32) -> bool {
        self.mail.contains_key(&(from, tag))
    }

    /// Waiting for a rank is in vain where it ended, and for any where one is not heard of.
    ///
    /// Time is that of the last [`look`](Self::look): this process may have been halted since.
    pub(super) fn expect(&mut self, from: Option<usize>, patience: Duration) -> Result<()> {
        if let Some(from) = from.filter(|from| self.ended_in_order(*from)) {
            self.set_fault(Error::rank(format!("{} ended before {}", self.name(from), self.name(self.rank))));
        }
        if let Some(silent) = (0..self.peers.len()).find(|rank| self.is_silent(*rank, patience)) {
            self.set_fault(Error::rank(format!(
                "{} has not been heard of for {} s: its process or its machine is gone",
                self.name(silent),
                patience.as_secs_f64()
            )));
        }
        self.check()
    }

    /// Whether it should have been heard of. Where this process was halted for long, and so missed much, what the others said
    /// meanwhile is still on its way: it looks for a few beats before it says so.
    fn is_silent(&self, rank: usize, patience: Duration) -> bool {
        let silent = |peer: &Peer| {
            let is_late = self.looked.saturating_duration_since(peer.heard) > patience;
            peer.end == End::NotYet && is_late && peer.watched >= self.beat * 4
        };
        rank != self.rank && self.peers.get(rank).is_some_and(silent)
    }

    /// Whether a rank said that it ends.
    pub(super) fn said_its_end(&self, rank: usize) -> bool {
        self.peers.get(rank).is_some_and(|peer| peer.end != End::NotYet)
    }

    fn ended_in_order(&self, rank: usize) -> bool {
        self.peers.get(rank).is_some_and(|peer| matches!(peer.end, End::Bye(mail) if peer.received >= mail))
    }

    /// Whether nobody is left to wait for.
    pub(super) fn all_ended(&self, patience: Duration) -> bool {
        (0..self.peers.len()).all(|rank| {
            let failed = self.peers.get(rank).is_some_and(|peer| peer.end == End::Failed);
            rank == self.rank || failed || self.ended_in_order(rank) || self.is_silent(rank, patience)
        })
    }

    /// Whether nothing is on its way to this rank.
    pub(super) fn all_quiet(&self) -> bool {
        (0..).zip(&self.peers).all(|(rank, peer)| rank == self.rank || peer.is_quiet)
    }

    /// Whether all others ended in order.
    pub(super) fn all_in_order(&self) -> bool {
        self.fault.is_none() && (0..self.peers.len()).all(|rank| rank == self.rank || self.ended_in_order(rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT_EVERY: Duration = Duration::from_millis(500);
    const PATIENCE: Duration = Duration::from_secs(15);

    fn seconds(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    #[test]
    fn who_was_halted_itself_listens_before_it_calls_others_silent() {
        let start = Instant::now();
        let mut inbox = Inbox::new(0, 2, start, BEAT_EVERY);
        inbox.look(start + seconds(0.1));
        inbox.look(start + seconds(100.0));
        assert_eq!(inbox.expect(None, PATIENCE), Ok(()));
        for n in 0..10 {
            inbox.look(start + seconds(100.0 + 0.1 * f64::from(n)));
            assert_eq!(inbox.expect(None, PATIENCE), Ok(()));
        }
        inbox.take_in(Message { from: 1, tag: BEAT, bytes: Vec::new() });
        for n in 10..150 {
            inbox.look(start + seconds(100.0 + 0.1 * f64::from(n)));
            assert_eq!(inbox.expect(None, PATIENCE), Ok(()), "{n}");
        }
        inbox.look(start + seconds(116.0));
        let gone = "rank 1 has not been heard of for 15 s: its process or its machine is gone";
        assert_eq!(inbox.expect(None, PATIENCE), Err(Error::rank(gone)));
    }

    #[test]
    fn slow_looks_do_not_hide_silence() {
        let start = Instant::now();
        let mut inbox = Inbox::new(0, 2, start, BEAT_EVERY);
        let silent_at = (1..).find(|n| {
            inbox.look(start + seconds(3.0 * f64::from(*n)));
            inbox.expect(None, PATIENCE).is_err()
        });
        assert_eq!(silent_at, Some(6));
    }

    #[test]
    fn the_first_fault_counts_and_who_ended_cannot_be_lost() {
        let mut inbox = Inbox::new(0, 3, Instant::now(), BEAT_EVERY);
        inbox.take_in(Message { from: 1, tag: BYE, bytes: 0u64.to_le_bytes().to_vec() });
        inbox.lose(1, "a broken pipe");
        assert_eq!(inbox.check(), Ok(()));
        inbox.lose(2, "a broken pipe");
        inbox.take_in(Message { from: 1, tag: FAIL, bytes: b"another".to_vec() });
        assert_eq!(inbox.check(), Err(Error::rank("rank 2 is lost: a broken pipe")));
        assert!(inbox.all_ended(PATIENCE) && !inbox.all_in_order());
        // No rank of this run: nothing to do.
        inbox.take_in(Message { from: 9, tag: 1, bytes: Vec::new() });
    }
}
