//! Says what takes long, and how far it is.

use super::{clear, draw, draws, note};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Nobody wonders before.
const PATIENCE: Duration = Duration::from_secs(2);

/// Does `work`, and says `what` that is where it takes longer than two seconds.
pub(crate) fn slowly<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (done, finished) = channel::<()>();
    let wait = move || {
        let waited_for = finished.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if waited_for {
            say(what);
        }
        waited_for
    };
    thread::scope(|scope| {
        // Where there is no thread to be had, nothing is said.
        let watcher = thread::Builder::new().name("patience".to_owned()).spawn_scoped(scope, wait);
        let result = work();
        drop(done);
        let said = watcher.is_ok_and(|watcher| watcher.join().unwrap_or(false));
        if said && draws() {
            clear();
        }
        result
    })
}

/// Where lines stay, one says how far a work is no more often.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// A work of many parts.
#[derive(Debug)]
pub(crate) struct Parts {
    what: String,
    all: usize,
    said: Instant,
}

impl Parts {
    /// Of so many parts, none of which is done.
    pub(crate) fn new(what: &str, all: usize) -> Self {
        Self { what: what.to_owned(), all, said: Instant::now() }
    }

    /// So many are done.
    pub(crate) fn done(&mut self, done: usize) {
        let line = format!("{}: {done} of {}", self.what, self.all);
        if draws() {
            draw(|columns| line.chars().take(columns).collect());
        } else if self.said.elapsed() >= BETWEEN_LINES {
            self.said = Instant::now();
            note(line);
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if draws() {
            clear();
        }
    }
}

fn say(what: &str) {
    if draws() {
        draw(|columns| what.chars().take(columns).collect());
    } else {
        note(what);
    }
}
