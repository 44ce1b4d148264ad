//! The ranks of a run: messages between them, and the end of all where one ends.
//!
//! A rank that waits for another must not wait for ever. So every rank tells the others twice a second that it lives, from a
//! thread of its own, however long its main thread computes. Whoever ends says why, and who waits gets that sentence.
//!
//! A fault is never mended: it is remembered, and every later call returns it.

use super::inbox::{ASK, BEAT, BYE, COLLECTIVE, FAIL, HELLO, Inbox, LAST, TICKET};
use super::timing::{Rest, TIMING, Timing};
use super::transport::Transport;
use super::wire::{Hello, Reader};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// All ranks, as one of them sees them. Clones are the same one.
#[derive(Clone)]
pub(crate) struct World(pub(super) Option<Arc<Shared>>);

type Stop = Box<dyn Fn() -> bool + Send + Sync>;

pub(super) struct Shared {
    pub(super) rank: usize,
    pub(super) size: usize,
    local_rank: usize,
    /// None after the end.
    transport: RwLock<Option<Box<dyn Transport>>>,
    inbox: Mutex<Inbox>,
    /// Mail sent to each.
    sent: Vec<AtomicU64>,
    /// Collective operations so far.
    pub(super) collectives: AtomicU32,
    stop: OnceLock<Stop>,
    /// Set where a fault is known.
    on_fault: OnceLock<Arc<AtomicBool>>,
    timing: Timing,
    beats: Mutex<Option<JoinHandle<()>>>,
    over: AtomicBool,
    /// Threads that wait, and so poll.
    waiting: AtomicUsize,
}

impl World {
    /// One rank without others: no thread, no cost.
    pub(crate) fn alone() -> Self {
        Self(None)
    }

    /// One of the ranks that `transport` connects; `identity` is its host and process. Waits until all are there.
    #[cfg_attr(not(any(test, feature = "mpi")), expect(dead_code, reason = "alone without MPI"))]
    pub(super) fn over(transport: Box<dyn Transport>, identity: String) -> Result<Self> {
        Self::with(transport, Hello::of_this(identity), TIMING)
    }

    /// As [`over`](Self::over), for tests also as another version would.
    pub(super) fn with(transport: Box<dyn Transport>, hello: Hello, timing: Timing) -> Result<Self> {
        let (rank, size) = (transport.rank(), transport.size());
        let mut inbox = Inbox::new(rank, size, Instant::now(), timing.beat);
        inbox.introduce(hello.clone());
        let shared = Arc::new(Shared {
            rank,
            size,
            local_rank: transport.local_rank(),
            transport: RwLock::new(Some(transport)),
            inbox: Mutex::new(inbox),
            sent: (0..size).map(|_| AtomicU64::new(0)).collect(),
            collectives: AtomicU32::new(0),
            stop: OnceLock::new(),
            on_fault: OnceLock::new(),
            timing,
            beats: Mutex::new(None),
            over: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        });
        let world = Self(Some(shared.clone()));
        shared.tell_all(HELLO, |_| hello.bytes());
        let greeted = shared.start_beats().and_then(|()| shared.wait(None, |inbox| inbox.all_known().then_some(())));
        if let Err(fault) = greeted {
            world.leave(Err(&fault.to_string()));
            return Err(fault);
        }
        Ok(world)
    }

    /// Which one this process is, from 0.
    pub(crate) fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| shared.rank)
    }

    /// How many there are.
    pub(crate) fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |shared| shared.size)
    }

    /// Whether this process is rank 0, which writes what is written once.
    pub(crate) fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// Which one this process is among those of its machine, from 0.
    pub(crate) fn local_rank(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| shared.local_rank)
    }

    /// `rank 2 (node7, process 4711)`, for messages.
    pub(crate) fn host(&self, rank: usize) -> String {
        match &self.0 {
            Some(shared) => shared.inbox().name(rank),
            None => format!("rank {rank}"),
        }
    }

    /// What says whether the user wants to stop: then those who are not heard of are not waited for as long. The first call
    /// counts.
    pub(crate) fn set_stop(&self, stop: impl Fn() -> bool + Send + Sync + 'static) {
        if let Some(shared) = &self.0 {
            let _ = shared.stop.set(Box::new(stop));
        }
    }

    /// `flag` is set as soon as a fault is known. The first call counts.
    pub(crate) fn on_fault(&self, flag: Arc<AtomicBool>) {
        if let Some(shared) = &self.0 {
            let _ = shared.on_fault.set(flag);
        }
    }

    /// The next number of a queue, from 0: no two ranks get the same.
    pub(crate) fn ticket(&self, queue: u32) -> Result<u64> {
        let shared = self.shared(0, ASK)?;
        if self.is_root() {
            let mut inbox = shared.inbox();
            return inbox.check().map(|()| inbox.next_ticket(queue));
        }
        shared.send(0, ASK, queue.to_le_bytes().to_vec())?;
        let told = shared.receive(0, TICKET)?;
        Reader(&told).u64().map_err(|_| Error::rank("rank 0 gave something that is no number of a queue"))
    }

    /// The fault, if one is known. Does not wait.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let mut inbox = shared.inbox();
        shared.pump(&mut inbox);
        inbox.expect(None, shared.patience())
    }

    /// Sends, and returns at once. Tags are below 2^31.
    pub(crate) fn send(&self, to: usize, tag: u32, bytes: Vec<u8>) -> Result<()> {
        self.shared(to, tag)?.send(to, tag, bytes)
    }

    /// The next message of a rank with a tag. Waits for it.
    pub(crate) fn receive(&self, from: usize, tag: u32) -> Result<Vec<u8>> {
        self.shared(from, tag)?.receive(from, tag)
    }

    /// As [`receive`](Self::receive), and nothing where nothing has come yet.
    pub(crate) fn try_receive(&self, from: usize, tag: u32) -> Result<Option<Vec<u8>>> {
        self.shared(from, tag)?.try_receive(from, tag)
    }

    fn shared(&self, rank: usize, tag: u32) -> Result<&Shared> {
        match &self.0 {
            Some(shared) if rank < shared.size && tag < COLLECTIVE => Ok(shared),
            _ => Err(Error::defect(format!("a message with tag {tag} and rank {rank} of {}", self.size()))),
        }
    }

    /// Tells the others that this rank ends, and why: one sentence. Every later call on any rank fails.
    pub(crate) fn fail(&self, why: &str) {
        if let Some(shared) = &self.0 {
            shared.fail(why);
        }
    }

    /// Whether a rank said itself that it ends, and why.
    pub(crate) fn said_its_end(&self, rank: usize) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.inbox().said_its_end(rank))
    }

    /// The end: of this rank in order, or with what went wrong. Waits for the others, and says whether all ended in order.
    ///
    /// In order one waits for as long as the others live: one may be writing the last checkpoint, and launchers kill the rest
    /// where one process ends alone. After a fault one waits 20 s. Must be called by the thread that called
    /// [`from_environment`](Self::from_environment).
    pub(crate) fn leave(&self, outcome: Result<(), &str>) -> bool {
        match &self.0 {
            Some(shared) => shared.leave(outcome),
            None => outcome.is_ok(),
        }
    }
}

impl Shared {
    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transport(&self) -> RwLockReadGuard<'_, Option<Box<dyn Transport>>> {
        self.transport.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn patience(&self) -> Duration {
        let stopping = self.stop.get().is_some_and(|stop| stop());
        if stopping { self.timing.patience_in_stop } else { self.timing.patience }
    }

    /// Takes in what came, and says whether anything did.
    fn pump(&self, inbox: &mut Inbox) -> bool {
        inbox.look(Instant::now());
        let transport = self.transport();
        let Some(transport) = transport.as_ref() else {
            inbox.set_fault(Error::defect("a message of a rank that has left"));
            return false;
        };
        let mut came = false;
        loop {
            match transport.poll() {
                Ok(Some(message)) => inbox.take_in(message),
                Ok(None) => return came,
                Err(fault) => {
                    inbox.set_fault(fault);
                    return came;
                }
            }
            came = true;
        }
    }

    fn is_busy(&self) -> bool {
        self.transport().as_ref().is_some_and(|transport| transport.is_busy())
    }

    /// Sends anything. Where a rank cannot be reached, that is a fault unless it ended.
    fn put(&self, to: usize, tag: u32, bytes: Vec<u8>) {
        let sent = self.transport().as_ref().map(|transport| transport.send(to, tag, bytes));
        if let Some(Err(why)) = sent {
            self.inbox().lose(to, &why.to_string());
        }
    }

    /// Sends mail, of collective operations too.
    pub(super) fn send(&self, to: usize, tag: u32, bytes: Vec<u8>) -> Result<()> {
        self.inbox().check()?;
        if self.transport().is_none() {
            return Err(Error::defect("a message of a rank that has left"));
        }
        if to == self.rank {
            self.inbox().take_in(super::transport::Message { from: to, tag, bytes });
            return Ok(());
        }
        if let Some(sent) = self.sent.get(to) {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        self.put(to, tag, bytes);
        self.inbox().check()
    }

    /// Receives mail, of collective operations too.
    pub(super) fn receive(&self, from: usize, tag: u32) -> Result<Vec<u8>> {
        self.wait(Some(from), |inbox| inbox.read(from, tag))
    }

    fn try_receive(&self, from: usize, tag: u32) -> Result<Option<Vec<u8>>> {
        let mut inbox = self.inbox();
        self.pump(&mut inbox);
        inbox.check()?;
        if let Some(bytes) = inbox.read(from, tag) {
            return Ok(Some(bytes));
        }
        inbox.expect(Some(from), self.patience()).map(|()| None)
    }

    /// Waits until `ready` gives something, of rank `from` or of any.
    pub(super) fn wait<T>(&self, from: Option<usize>, mut ready: impl FnMut(&mut Inbox) -> Option<T>) -> Result<T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut rest = Rest::default();
        let got = loop {
            let mut inbox = self.inbox();
            let came = self.pump(&mut inbox);
            if let Err(fault) = inbox.check() {
                break Err(fault);
            }
            if let Some(got) = ready(&mut inbox) {
                break Ok(got);
            }
            if let Err(fault) = inbox.expect(from, self.patience()) {
                break Err(fault);
            }
            drop(inbox);
            rest.after(came);
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        got
    }

    /// Tells all others something about this rank. Those who ended too: they wait for its last word.
    fn tell_all(&self, tag: u32, what: impl Fn(usize) -> Vec<u8>) {
        (0..self.size).filter(|rank| *rank != self.rank).for_each(|rank| self.put(rank, tag, what(rank)));
    }

    /// Says whether it is this rank's fault. Where another was first, its sentence is what there is to say.
    fn fail(&self, why: &str) -> bool {
        let mut inbox = self.inbox();
        let own = Error::rank(format!("{} ended: {why}", inbox.name(self.rank)));
        inbox.set_fault(own.clone());
        let first = inbox.check().err().unwrap_or_else(|| own.clone());
        drop(inbox);
        self.tell_all(FAIL, |_| first.to_string().into_bytes());
        first == own
    }

    fn leave(&self, outcome: Result<(), &str>) -> bool {
        let is_cause = outcome.is_err_and(|why| self.fail(why));
        if outcome.is_ok() {
            let mail = |rank: usize| self.sent.get(rank).map_or(0, |sent| sent.load(Ordering::Relaxed));
            self.tell_all(BYE, |rank| mail(rank).to_le_bytes().to_vec());
        }
        let (mut rest, mut fault_since) = (Rest::default(), None);
        let in_order = loop {
            let mut inbox = self.inbox();
            let came = self.pump(&mut inbox);
            let (now, patience) = (Instant::now(), self.patience());
            let fault = inbox.expect(None, patience);
            if inbox.all_ended(patience) {
                break inbox.all_in_order();
            }
            if fault.is_err() && now - *fault_since.get_or_insert(now) > self.timing.leave {
                break false;
            }
            drop(inbox);
            rest.after(came);
        };
        // A rank of which nothing will be heard, because the first says it all, lets that be said: launchers kill the rest at once.
        let is_silent = self.rank != 0 && self.inbox().said_its_end(0);
        if !in_order && (!is_cause || is_silent) {
            std::thread::sleep(self.timing.give_way);
        }
        self.over.store(true, Ordering::Relaxed);
        if let Some(beats) = self.beats.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = beats.join();
        }
        let is_quiet = in_order && self.last_words();
        let transport = self.transport.write().unwrap_or_else(PoisonError::into_inner).take();
        transport.is_some_and(|transport| end(transport, is_quiet))
    }

    /// MPI may be ended where all that was sent was received: also the last signs of life.
    fn last_words(&self) -> bool {
        self.tell_all(LAST, |_| Vec::new());
        let (mut rest, began) = (Rest::default(), Instant::now());
        while began.elapsed() < self.timing.leave {
            let mut inbox = self.inbox();
            let came = self.pump(&mut inbox);
            if inbox.all_quiet() {
                return true;
            }
            drop(inbox);
            rest.after(came);
        }
        false
    }

    fn start_beats(self: &Arc<Self>) -> Result<()> {
        let shared = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("signs of life".to_owned()).spawn(move || beat(&shared));
        let thread = thread.map_err(|e| {
            Error::device(format!("cannot start the thread that tells the other ranks that this one lives: {e}"))
        })?;
        *self.beats.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }
}

/// Flushes and ends. What was sent last is what others wait for.
fn end(transport: Box<dyn Transport>, in_order: bool) -> bool {
    let clean = transport.flush(Duration::from_secs(1)) && in_order;
    transport.end(clean);
    clean
}

/// Where a rank returns without a word, its threads say so.
impl Drop for Shared {
    fn drop(&mut self) {
        if self.transport().is_some() {
            self.fail("it says nothing more");
        }
        let transport = self.transport.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        transport.map(|transport| end(transport, false));
    }
}

/// Tells the others that this rank lives, and takes in what comes: MPI gets on only while it is called, and the main thread
/// may be waiting for its GPU.
fn beat(shared: &Weak<Shared>) {
    // While nothing is on its way. Whatever comes first is noticed that late.
    const IDLE: Duration = Duration::from_millis(5);
    let (mut next, mut rest) = (Instant::now(), Rest::default());
    while let Some(shared) = shared.upgrade().filter(|shared| !shared.over.load(Ordering::Relaxed)) {
        let now = Instant::now();
        if now >= next {
            next = now + shared.timing.beat;
            shared.tell_all(BEAT, |_| Vec::new());
        }
        if shared.inbox().check().is_err() {
            shared.on_fault.get().into_iter().for_each(|flag| flag.store(true, Ordering::Relaxed));
        }
        let tickets = shared.inbox().tickets();
        for (to, ticket) in tickets {
            // Where it fails, that is known by then.
            let _ = shared.send(to, TICKET, ticket.to_le_bytes().to_vec());
        }
        let is_polled = shared.waiting.load(Ordering::Relaxed) > 0;
        let came = !is_polled && shared.pump(&mut shared.inbox());
        let busy = !is_polled && shared.is_busy();
        drop(shared);
        if came || busy {
            rest.after(came);
        } else {
            std::thread::sleep(IDLE);
        }
    }
}
