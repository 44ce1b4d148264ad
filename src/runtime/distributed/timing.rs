//! How long ranks wait for each other, and how they do it.

use std::time::{Duration, Instant};

/// How long what takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// Between two signs of life.
    pub(super) beat: Duration,
    /// Without one of them, a rank is gone. Machines that swap, or that write a checkpoint, may be mute for seconds.
    pub(super) patience: Duration,
    /// The same where the user wants to stop.
    pub(super) patience_in_stop: Duration,
    /// After a fault, others are waited for so long: whoever ends first may take the others' last words with it.
    pub(super) leave: Duration,
    /// Whoever has not caused the fault ends so much later: the exit code of the run is that of who ends first.
    pub(super) give_way: Duration,
}

pub(super) const TIMING: Timing = Timing {
    beat: Duration::from_millis(500),
    patience: Duration::from_secs(15),
    patience_in_stop: Duration::from_secs(2),
    leave: Duration::from_secs(20),
    give_way: Duration::from_millis(200),
};

/// The pause of somebody who waits: none at first, since most answers come at once, then longer and longer.
pub(super) struct Rest {
    since: Instant,
    pause: Duration,
}

impl Default for Rest {
    fn default() -> Self {
        Self { since: Instant::now(), pause: Self::SHORTEST }
    }
}

impl Rest {
    const SHORTEST: Duration = Duration::from_micros(20);
    const LONGEST: Duration = Duration::from_millis(1);
    /// Before the first pause. An operating system takes 50 us for the shortest.
    const AT_ONCE: Duration = Duration::from_micros(200);

    /// Waits once more, after something `came` or nothing did.
    pub(super) fn after(&mut self, came: bool) {
        if came {
            *self = Self::default();
        }
        if self.since.elapsed() < Self::AT_ONCE {
            // With more ranks than cores, the one that is waited for needs this one's.
            std::thread::yield_now();
        } else {
            std::thread::sleep(self.pause);
            self.pause = (self.pause * 5 / 4).min(Self::LONGEST);
        }
    }
}
