//! Writes to standard error: lines that stay, above one that is drawn again.
//!
//! The drawn line ends without a line break. It is erased before anything else is written and drawn again below it, in one
//! write, so that nothing of another thread or process comes between.

use super::screen::{self, Screen};
use super::text;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// To the first column, and nothing on the line.
const ERASE: &str = "\r\u{1b}[K";
/// What is too long is cut off at the edge instead of wrapped, for when the window became narrower just now.
const WRAP_OFF: &str = "\u{1b}[?7l";
/// As terminals usually are.
const WRAP_ON: &str = "\u{1b}[?7h";
/// Columns that stay free: a terminal echoes Ctrl-C as two characters, and terminals differ in where the cursor is once the
/// last column is written.
const MARGIN: usize = 3;
/// A line is drawn again no sooner.
const PAUSE: Duration = Duration::from_millis(60);

/// The line that is drawn.
struct StatusLine {
    line: Option<String>,
    /// For how many columns.
    columns: usize,
    drawn: Option<Instant>,
    /// Whether no line is to be drawn any more.
    closed: bool,
}

static STATUS_LINE: Mutex<StatusLine> = Mutex::new(StatusLine { line: None, columns: 0, drawn: None, closed: false });

fn lock() -> MutexGuard<'static, StatusLine> {
    STATUS_LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Writes lines that stay, the first of which starts with `head`.
pub(super) fn print(head: &str, lines: &str) {
    let mut status = lock();
    let mut out = String::new();
    if status.line.is_some() {
        out.push_str(ERASE);
    }
    out.push_str(head);
    for line in lines.lines() {
        out.push_str(&text::line(line));
        out.push('\n');
    }
    // One that was made for a wider window would not fit any more; the next one will.
    let made_for = status.columns;
    status.line.take_if(|_| Screen::of_stderr().columns.is_none_or(|columns| columns < made_for));
    if let Some(line) = &status.line {
        out.push_str(&on_one_line(line));
    }
    write(&out);
}

/// Draws the line that `line` makes for so many columns, unless one was drawn just now.
pub(super) fn draw(line: impl FnOnce(usize) -> String) {
    let mut status = lock();
    if status.closed {
        return;
    }
    let now = Instant::now();
    let soon = status.drawn.is_some_and(|drawn| now.duration_since(drawn) < PAUSE);
    let Some(columns) = Screen::of_stderr().columns.filter(|_| !soon || status.line.is_none()) else { return };
    screen::prepare();
    let line = line(columns.saturating_sub(MARGIN));
    write(&format!("{ERASE}{}", on_one_line(&line)));
    *status = StatusLine { line: Some(line), columns, drawn: Some(now), closed: false };
}

/// The next line is drawn however soon it comes.
pub(super) fn draw_next_at_once() {
    lock().drawn = None;
}

/// Removes the line, for good.
pub(super) fn close() {
    clear();
    lock().closed = true;
}

/// Removes the line.
pub(super) fn clear() {
    if lock().line.take().is_some() {
        write(ERASE);
    }
}

fn on_one_line(line: &str) -> String {
    format!("{WRAP_OFF}{line}{WRAP_ON}")
}
