//! Ranks that are threads of one process, for tests: messages come late and overtake each other as much as they may, and a
//! rank can vanish without a word.

use super::transport::{Message, Transport};
use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What all ranks share.
pub(super) struct Hub {
    inboxes: Vec<Mutex<Waiting>>,
    gone: Vec<AtomicBool>,
    refused: Vec<AtomicBool>,
    /// The longest that a message takes.
    delay: Duration,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<(Instant, Message)>,
    /// When the last of each rank and tag is due: the next one is not before.
    last: HashMap<(usize, u32), Instant>,
    random: u64,
}

/// One rank.
pub(super) struct Threads {
    rank: usize,
    hub: Arc<Hub>,
}

impl Hub {
    /// `size` ranks whose messages take up to `delay`.
    pub(super) fn new(size: usize, delay: Duration) -> Arc<Self> {
        let inbox = |rank| Mutex::new(Waiting { random: 0x9e37_79b9_7f4a_7c15 ^ rank as u64, ..Waiting::default() });
        let none = || (0..size).map(|_| AtomicBool::new(false)).collect();
        Arc::new(Self { inboxes: (0..size).map(inbox).collect(), gone: none(), refused: none(), delay })
    }

    /// The rank `rank`.
    pub(super) fn transport(self: &Arc<Self>, rank: usize) -> Box<Threads> {
        Box::new(Threads { rank, hub: self.clone() })
    }

    /// From now on sending to it is an error.
    pub(super) fn refuse(&self, rank: usize) {
        self.refused[rank].store(true, Ordering::Relaxed);
    }

    /// From now on nothing comes from it, and nothing gets to it.
    pub(super) fn vanish(&self, rank: usize) {
        self.gone[rank].store(true, Ordering::Relaxed);
    }
}

impl Waiting {
    fn put(&mut self, message: Message, delay: Duration) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let now = Instant::now();
        let due = now + delay.mul_f64((self.random >> 40) as f64 / (1u64 << 24) as f64);
        let last = self.last.entry((message.from, message.tag)).or_insert(now);
        *last = due.max(*last);
        self.messages.push_back((*last, message));
    }

    fn next(&mut self) -> Option<Message> {
        let now = Instant::now();
        let at = self.messages.iter().position(|(due, _)| *due <= now)?;
        Some(self.messages.remove(at)?.1)
    }
}

impl Transport for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hub.inboxes.len()
    }

    fn local_rank(&self) -> usize {
        self.rank
    }

    fn send(&self, to: usize, tag: u32, bytes: Vec<u8>) -> Result<()> {
        if self.hub.refused[to].load(Ordering::Relaxed) {
            return Err(Error::rank("a broken pipe"));
        }
        let is_gone = |rank: usize| self.hub.gone[rank].load(Ordering::Relaxed);
        if !is_gone(self.rank) && !is_gone(to) {
            let message = Message { from: self.rank, tag, bytes };
            self.hub.inboxes[to].lock().unwrap().put(message, self.hub.delay);
        }
        Ok(())
    }

    fn poll(&self) -> Result<Option<Message>> {
        if self.hub.gone[self.rank].load(Ordering::Relaxed) {
            return Ok(None);
        }
        Ok(self.hub.inboxes[self.rank].lock().unwrap().next())
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn end(self: Box<Self>, _clean: bool) {}
}

/// What `act` gives on each of so many ranks, each a thread, with a network that does not lose anything.
pub(crate) fn on_threads<T: Send>(size: usize, act: impl Fn(&super::World) -> T + Sync) -> Vec<T> {
    let hub = Hub::new(size, Duration::ZERO);
    std::thread::scope(|scope| {
        let start = |rank: usize| {
            let (transport, act) = (hub.transport(rank), &act);
            scope.spawn(move || {
                let world = super::World::over(transport, format!("thread {rank}")).unwrap();
                let made = act(&world);
                world.leave(Ok(()));
                made
            })
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
