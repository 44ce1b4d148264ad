//! What a person reads while the program works: lines that stay, and below them one that is drawn again and again. All of it
//! goes to standard error, so that standard output has results only.
//!
//! Every line goes through here, from any thread: so none is overwritten by the one that is drawn, and what `-q`, `-v` and
//! `--color` ask for holds for all verbs. What there is to say is computed elsewhere.
//!
//! | function | for | with `-q` | with `-v` |
//! |---|---|---|---|
//! | [`tell`], [`fail`], [`warn`] | what nobody may miss: answers to a signal, errors, warnings | told | told |
//! | [`note`] | what the program does | | told |
//! | [`detail`] | why it does so | | told |

mod screen;
mod slow;
mod status_line;
mod text;

pub use screen::Color;
pub(crate) use screen::Screen;
pub(crate) use slow::{Parts, slowly};
pub(crate) use text::{TerminalText, legible};

use std::fmt::Display;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// How much is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// Errors, warnings and results.
    Quiet,
    /// Also what the program does.
    #[default]
    Usual,
    /// Also why.
    Verbose,
}

/// What the command line asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Options {
    level: Level,
    color: Color,
}

static OPTIONS: OnceLock<Options> = OnceLock::new();
/// Whether another process tells everything.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Tells nothing at all, where another process tells the same.
pub(crate) fn silence(silent: bool) {
    SILENT.store(silent, Ordering::Relaxed);
}

/// How much is told, and in what colours. The first call counts.
pub fn set(level: Level, color: Color) {
    let _ = OPTIONS.set(Options { level, color });
}

fn options() -> Options {
    OPTIONS.get().copied().unwrap_or_default()
}

fn is_told(from: Level) -> bool {
    options().level as u8 >= from as u8
}

/// Whether `-v` was given.
pub(crate) fn is_verbose() -> bool {
    is_told(Level::Verbose)
}

/// Tells a line, whatever was asked for. Where nobody reads it (a closed pipe), nobody is told: unlike with `eprintln!`, the
/// program goes on.
pub fn tell(line: impl Display) {
    print("", line);
}

fn print(head: &str, lines: impl Display) {
    if !SILENT.load(Ordering::Relaxed) {
        status_line::print(head, &lines.to_string());
    }
}

/// Tells the last line of a process that ends at once: none is drawn below it.
pub(crate) fn tell_last(line: impl Display) {
    status_line::close();
    tell(line);
}

/// Says why the program ends.
pub fn fail(error: impl Display) {
    print(&styled("error: ", ERROR), error);
}

/// Warns.
pub(crate) fn warn(what: impl Display) {
    print(&styled("warning: ", WARNING), what);
}

/// Says what the program does.
pub(crate) fn note(line: impl Display) {
    if is_told(Level::Usual) {
        tell(line);
    }
}

/// Says why the program does what it does.
pub(crate) fn detail(line: impl Display) {
    if is_told(Level::Verbose) {
        tell(line);
    }
}

/// Draws `line`, which is given the columns it has, below all lines that stay. Only where [`draws`] says so.
pub(crate) fn draw(line: impl FnOnce(usize) -> String) {
    if draws() {
        status_line::draw(line);
    }
}

/// As [`draw`], also where one was drawn just now: what it shows has changed for longer.
pub(crate) fn redraw(line: impl FnOnce(usize) -> String) {
    if draws() {
        status_line::draw_next_at_once();
        status_line::draw(line);
    }
}

/// Removes the line that was drawn.
pub(crate) fn clear() {
    status_line::clear();
}

/// Whether a line can be drawn again, and is wanted; elsewhere lines stay.
pub(crate) fn draws() -> bool {
    is_told(Level::Usual) && !SILENT.load(Ordering::Relaxed) && Screen::of_stderr().draws()
}

/// The columns that a line has which should not wrap; `None` where that is unknown, or nobody looks.
pub(crate) fn columns() -> Option<usize> {
    Screen::of_stderr().columns
}

/// Bold red.
const ERROR: &str = "1;31";
/// Bold yellow.
const WARNING: &str = "1;33";

/// `text` as something that went wrong.
pub(crate) fn alarming(text: &str) -> String {
    styled(text, ERROR)
}

fn styled(text: &str, style: &str) -> String {
    static COLORED: OnceLock<bool> = OnceLock::new();
    let is_colored =
        || screen::is_colored(options().color, std::io::stderr().is_terminal(), |name| std::env::var_os(name));
    if *COLORED.get_or_init(is_colored) { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
}
