//! The one error type of the library: a sentence a user can act on, and the exit code it ends in.
//!
//! Every message names the thing, its value, the limit and the remedy, in one sentence. It does not
//! carry a chain of causes: the cause, where there is one, is part of the sentence.

use crate::console;
use std::path::Path;

/// What went wrong, by who has to act.
///
/// ```
/// use tokenformer::error::Error;
///
/// let error = Error::usage("lr is 0, but must be a finite number above 0: change it");
/// assert_eq!(error.exit_code(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The command line or a combination of settings is wrong (exit code 1).
    #[error("{0}")]
    Usage(String),
    /// A file, its contents, or a value in it is wrong (exit code 2).
    #[error("{0}")]
    Input(String),
    /// A file that was read fails its checks: it is not what was written (exit code 2).
    #[error("{0}")]
    Damaged(String),
    /// A file that was read is of another program, or of a newer version of this one (exit code 2).
    #[error("{0}")]
    Foreign(String),
    /// The GPU, its driver or its limits stand in the way (exit code 3).
    #[error("{0}")]
    Device(String),
    /// The GPU was lost or dropped work; opened again, it may do (exit code 3).
    #[error("{0}")]
    Lost(String),
    /// Device memory does not suffice (exit code 3).
    #[error("{detail}")]
    OutOfMemory {
        /// Bytes that were asked for; 0 where the driver does not say.
        wanted: u64,
        /// The sentence: what was to be allocated, and the remedy.
        detail: String,
    },
    /// Another rank of a distributed run ended, or is not heard of any more (exit code 5).
    #[error("{0}")]
    Rank(String),
    /// Training diverged (exit code 4).
    #[error("{0}")]
    Diverged(String),
    /// The user interrupted the run; everything was saved (exit code 130).
    #[error("{0}")]
    Interrupted(String),
    /// This program contradicts itself (exit code 70, `EX_SOFTWARE` of sysexits.h); nothing the user did.
    #[error("{0}")]
    Defect(String),
}

/// Result of everything in this library that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A usage error (exit code 1).
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::Usage(one_line(sentence))
    }

    /// An input error (exit code 2).
    pub fn input(sentence: impl Into<String>) -> Self {
        Self::Input(one_line(sentence))
    }

    /// Damage to a file that could be read (exit code 2). Where it could not, that is [`Error::io`].
    pub fn damaged(sentence: impl Into<String>) -> Self {
        Self::Damaged(one_line(sentence))
    }

    /// A file that this version did not write (exit code 2).
    pub fn foreign(sentence: impl Into<String>) -> Self {
        Self::Foreign(one_line(sentence))
    }

    /// A device error (exit code 3).
    pub fn device(sentence: impl Into<String>) -> Self {
        Self::Device(sentence.into())
    }

    /// A lost device, or work that it dropped (exit code 3).
    pub fn lost(sentence: impl Into<String>) -> Self {
        Self::Lost(sentence.into())
    }

    /// Device memory that does not suffice (exit code 3): `wanted` bytes, or 0 where nobody says how many.
    pub(crate) fn out_of_memory(wanted: u64, sentence: impl Into<String>) -> Self {
        Self::OutOfMemory { wanted, detail: sentence.into() }
    }

    /// Another rank that ended, or is gone (exit code 5).
    pub(crate) fn rank(sentence: impl Into<String>) -> Self {
        Self::Rank(one_line(sentence))
    }

    /// What must not happen whatever the user does (exit code 70), with the line of the source that noticed.
    #[track_caller]
    pub fn defect(contradiction: impl Into<String>) -> Self {
        let at = std::panic::Location::caller();
        let found = format!("{}:{}", at.file().replace('\\', "/"), at.line());
        Self::Defect(one_line(format!(
            "{}; this is a defect of tokenformer {} (at {found}), please report it",
            contradiction.into(),
            env!("CARGO_PKG_VERSION")
        )))
    }

    /// An input error about an operation on a file: `cannot read corpus.txt: no such file or directory`.
    pub fn io(verb: &str, path: &Path, cause: &std::io::Error) -> Self {
        Self::input(format!("cannot {verb} {}: {}", path.display(), plain(cause)))
    }

    /// The process exit code this error ends in.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 1,
            Self::Input(_) | Self::Damaged(_) | Self::Foreign(_) => 2,
            Self::Device(_) | Self::Lost(_) | Self::OutOfMemory { .. } => 3,
            Self::Diverged(_) => 4,
            Self::Rank(_) => 5,
            Self::Defect(_) => 70,
            Self::Interrupted(_) => 130,
        }
    }
}

/// What a file says, or its name, may hold line breaks, commands to the terminal and any length; a message is one line
/// all the same. The middle of a long one is left out: the thing comes first, the remedy last.
fn one_line(sentence: impl Into<String>) -> String {
    const HALF: usize = 480;
    let sentence = sentence.into();
    if sentence.len() <= 2 * HALF && !sentence.contains(char::is_control) {
        return sentence;
    }
    let mut rest = sentence.chars();
    let (mut head, mut tail) = (String::new(), Vec::new());
    while head.len() < HALF
        && let Some(c) = rest.next()
    {
        head.push_str(&console::legible(c.encode_utf8(&mut [0; 4])));
    }
    let mut len = 0;
    while len < HALF
        && let Some(c) = rest.next_back()
    {
        tail.push(console::legible(c.encode_utf8(&mut [0; 4])));
        len += tail.last().map_or(0, String::len);
    }
    if rest.next().is_some() {
        head.push_str("...");
    }
    head.extend(tail.into_iter().rev());
    head
}

/// The operating system's own words, without Rust's "(os error 2)".
fn plain(cause: &std::io::Error) -> String {
    let text = cause.to_string();
    match text.find(" (os error") {
        Some(end) => text.get(..end).unwrap_or(&text).to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_read_as_one_sentence() {
        let cause = std::io::Error::from_raw_os_error(2);
        let error = Error::io("read", Path::new("corpus.txt"), &cause);
        assert_eq!(error.to_string(), "cannot read corpus.txt: no such file or directory");
        assert_eq!(error.exit_code(), 2);
        let hostile = Error::io("read", Path::new("a\nb"), &cause).to_string();
        assert_eq!(hostile, "cannot read a\\nb: no such file or directory");
        assert_eq!(Error::usage("a\u{1b}[31m\tb").to_string(), "a\\u{1b}[31m\\tb");
    }

    #[test]
    fn a_defect_names_its_line_and_asks_for_a_report() {
        let defect = Error::defect("an arm has no length");
        let (said, line) = (defect.to_string(), line!() - 1);
        assert!(said.starts_with("an arm has no length; this is a defect of tokenformer "), "{said}");
        assert!(said.contains(&format!("(at src/error.rs:{line})")) && said.ends_with("please report it"), "{said}");
        assert_eq!(defect.exit_code(), 70);
    }

    #[test]
    fn the_middle_of_a_flood_is_left_out() {
        let kept = |text: &str| Error::input(text).to_string();
        for n in 1..3000 {
            let (long, wide) = ("x".repeat(n), "\u{7}\u{20ac}".repeat(n));
            assert_eq!(kept(&long) == long, n <= 960, "{n}");
            let text = kept(&format!("first {wide} last"));
            assert!(
                text.starts_with("first \\u{7}\u{20ac}") && text.ends_with("\u{20ac} last") && text.len() < 1000,
                "{n}"
            );
        }
    }

    #[test]
    fn nothing_is_lost_of_what_fits() {
        assert_eq!(Error::input("\n".repeat(480)).to_string(), "\\n".repeat(480));
    }
}
