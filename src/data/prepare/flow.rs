//! One thread reads, several make tokens, and one takes what they made in the order in which it was read.
//!
//! So what is written depends on neither the number of threads nor their speed. The bytes on their way are bounded, and with
//! them the memory, however far one batch is behind.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::batch::{Batch, Position};
use super::encode::Encoded;
use super::feed::Feed;
use crate::error::{Error, Result};

/// How often it is looked whether to stop.
const POLL: Duration = Duration::from_millis(50);
/// Bytes on their way for each thread, and at least and at most in all.
const FLIGHT: (usize, usize, usize) = (4 << 20, 16 << 20, 64 << 20);

/// A batch as tokens.
pub(super) struct Made {
    pub at: Position,
    pub after: Position,
    pub encoded: Encoded,
}

/// What comes to the one that writes.
enum Arrival {
    Made(Made, usize),
    Failed(Error),
    /// There is nothing more to read.
    End,
}

/// Takes each batch of `feed` through `encode` to `write`, in order. `idle` is called now and then. `false` where `stop` ended
/// it before the last.
///
/// # Errors
/// Those of reading, of `encode` and of `write`; all before them is written.
pub(super) fn run(
    feed: Feed,
    threads: usize,
    stop: &AtomicBool,
    encode: &(dyn Fn(&Batch) -> Result<Encoded> + Sync),
    write: &mut dyn FnMut(Made) -> Result<()>,
    idle: &mut dyn FnMut(),
) -> Result<bool> {
    let (per_thread, least, most) = FLIGHT;
    let room = Arc::new(Room::new(per_thread.saturating_mul(threads).clamp(least, most)));
    let (give, take) = channel::<(u64, Batch)>();
    let (send, receive) = channel::<(u64, Arrival)>();
    let take = Mutex::new(take);
    // By itself: it may wait for standard input for ever.
    let reader = {
        let (room, send) = (room.clone(), send.clone());
        move || read(feed, &room, &give, &send)
    };
    let no_thread =
        |cause: std::io::Error| Error::input(format!("cannot start a thread: {cause}; give fewer with --threads"));
    thread::Builder::new().name("reader".to_owned()).spawn(reader).map_err(no_thread)?;
    thread::scope(|scope| {
        // However this ends, the others do.
        let ended = Ended(&room);
        for _ in 0..threads {
            let (send, take, room) = (send.clone(), &take, &room);
            let worker = move || work(take, &send, room, encode);
            thread::Builder::new().name("tokens".to_owned()).spawn_scoped(scope, worker).map_err(no_thread)?;
        }
        drop(send);
        let whole = write_in_order(&receive, &room, stop, write, idle);
        drop(ended);
        whole
    })
}

fn read(mut feed: Feed, room: &Room, give: &Sender<(u64, Batch)>, send: &Sender<(u64, Arrival)>) {
    for number in 0.. {
        let last = match catch_unwind(AssertUnwindSafe(|| feed.next())) {
            Ok(Ok(Some(batch))) => {
                if room.take(batch.size()) && give.send((number, batch)).is_ok() {
                    continue;
                }
                return;
            }
            Ok(Ok(None)) => Arrival::End,
            Ok(Err(error)) => Arrival::Failed(error),
            Err(_) => Arrival::Failed(Error::defect("the reader of a data set panicked")),
        };
        // Where nobody takes it, it was stopped.
        let _ = send.send((number, last));
        return;
    }
}

fn work(
    take: &Mutex<Receiver<(u64, Batch)>>,
    send: &Sender<(u64, Arrival)>,
    room: &Room,
    encode: &(dyn Fn(&Batch) -> Result<Encoded> + Sync),
) {
    loop {
        let next = take.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(POLL);
        let (number, batch) = match next {
            Ok(next) => next,
            Err(RecvTimeoutError::Timeout) if !room.is_closed() => continue,
            Err(_) => return,
        };
        let size = batch.size();
        let arrival = match catch_unwind(AssertUnwindSafe(|| encode(&batch))) {
            Ok(Ok(encoded)) => Arrival::Made(Made { at: batch.at, after: batch.after, encoded }, size),
            Ok(Err(error)) => Arrival::Failed(error),
            Err(_) => Arrival::Failed(Error::defect("a tokenizer panicked")),
        };
        if room.is_closed() || send.send((number, arrival)).is_err() {
            return;
        }
    }
}

fn write_in_order(
    receive: &Receiver<(u64, Arrival)>,
    room: &Room,
    stop: &AtomicBool,
    write: &mut dyn FnMut(Made) -> Result<()>,
    idle: &mut dyn FnMut(),
) -> Result<bool> {
    let (mut waiting, mut next) = (BTreeMap::new(), 0_u64);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match receive.recv_timeout(POLL) {
            Ok((number, arrival)) => drop(waiting.insert(number, arrival)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::defect("a data set ended without its end")),
        }
        while let Some(arrival) = waiting.remove(&next) {
            match arrival {
                Arrival::End => return Ok(true),
                Arrival::Failed(error) => return Err(error),
                Arrival::Made(made, size) => {
                    write(made)?;
                    room.give_back(size);
                }
            }
            next += 1;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        idle();
    }
}

/// Room for bytes on their way.
struct Room {
    most: usize,
    /// `None` once nothing more is wanted.
    taken: Mutex<Option<usize>>,
    freed: Condvar,
}

impl Room {
    fn new(most: usize) -> Self {
        Self { most, taken: Mutex::new(Some(0)), freed: Condvar::new() }
    }

    /// Waits for room; `false` where nothing more is wanted. What is larger than all of it comes alone.
    fn take(&self, size: usize) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match *taken {
                None => return false,
                Some(held) if held == 0 || held + size <= self.most => {
                    *taken = Some(held + size);
                    return true;
                }
                Some(_) => taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn give_back(&self, size: usize) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *taken = taken.map(|held| held.saturating_sub(size));
        self.freed.notify_all();
    }

    fn close(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.freed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// Closes the room when it is dropped.
struct Ended<'a>(&'a Room);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
