//! Shows the numbers of a run: a line that is drawn again on a terminal, lines that stay elsewhere.

use super::line::{self, Numbers};
use crate::console;

/// Shows the progress of one run.
#[derive(Debug)]
pub(super) struct Progress {
    log_interval: u64,
}

impl Progress {
    /// With a line for so many steps, where lines stay.
    pub(super) fn new(log_interval: usize) -> Self {
        Self { log_interval: log_interval.max(1) as u64 }
    }

    /// The numbers changed without a step: where a line is drawn again, it shows them.
    pub(super) fn refresh(&self, n: &Numbers) {
        console::redraw(|columns| line::drawn(n, columns, console::alarming));
    }

    /// One step is done.
    pub(super) fn step(&self, n: &Numbers) {
        if console::draws() {
            console::draw(|columns| line::drawn(n, columns, console::alarming));
        } else if n.step.is_multiple_of(self.log_interval) || n.step == n.steps {
            console::note(line::plain(n, console::columns(), console::alarming));
        }
    }
}
