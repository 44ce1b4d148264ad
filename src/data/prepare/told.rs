//! How far it is, how fast, and how long it will take, for whoever waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::console::{clear, draw, draws, note};
use crate::report::number;

/// Where lines stay, one comes no more often.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// What is counted while tokens are made.
pub(super) struct Told {
    started: Instant,
    said: Instant,
    /// Bytes of the input files: all, read, and read by an earlier process.
    all: u64,
    read: Arc<AtomicU64>,
    before: u64,
    /// By this process.
    pub text_bytes: u64,
    pub tokens: u64,
}

impl Told {
    /// Of `all` bytes `read` counts those that were read.
    pub(super) fn new(all: u64, read: Arc<AtomicU64>) -> Self {
        let now = Instant::now();
        let before = read.load(Ordering::Relaxed);
        Self { started: now, said: now, all, read, before, text_bytes: 0, tokens: 0 }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Says how far it is, if that is due.
    pub(super) fn say(&mut self) {
        if draws() {
            draw(|columns| self.line().chars().take(columns).collect());
        } else if self.said.elapsed() >= BETWEEN_LINES {
            self.said = Instant::now();
            note(self.line());
        }
    }

    fn line(&self) -> String {
        let (seconds, read) = (self.seconds().max(1e-3), self.read.load(Ordering::Relaxed).min(self.all));
        let rate = |count: u64| count as f64 / seconds / 1e6;
        let speed = format!("{:.1} MB/s, {:.2} M tokens/s", rate(self.text_bytes), rate(self.tokens));
        // Standard input does not say how much it is.
        let done = match self.all {
            0 => number::bytes(self.text_bytes),
            all => format!("{:.1} %", 100.0 * read as f64 / all as f64),
        };
        let left = match read.saturating_sub(self.before) {
            0 => String::new(),
            new => format!(", {} left", number::seconds(seconds * (self.all - read) as f64 / new as f64)),
        };
        format!("prepare: {done}, {speed}{}", if self.all == 0 { "" } else { &left })
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if draws() {
            clear();
        }
    }
}
