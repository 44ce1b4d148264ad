//! `--json`: what a command found, or why it failed, as one object on the last line of standard output.

use crate::error::{Error, Result};
use serde_json::{Value, json};

/// What a verb found; numbers that are not finite are null.
pub(super) type Answer = Result<Value>;

/// Prints what `verb` found.
///
/// # Errors
/// Standard output that cannot be written to.
pub(super) fn print(verb: &str, mut found: Value) -> Result<()> {
    if let Some(fields) = found.as_object_mut() {
        fields.insert("command".to_owned(), verb.into());
    }
    super::write(&format!("{found}\n"))
}

/// Prints why a command failed. Where nobody reads it, its exit code says it.
pub(super) fn print_failure(sentence: &str, kind: &str, exit_code: u8) {
    let _ = super::write(&format!("{}\n", json!({ "error": sentence, "kind": kind, "exit_code": exit_code })));
}

/// The kind of an error, in a word that stays.
pub(super) fn kind(error: &Error) -> &'static str {
    match error {
        Error::Usage(_) => "usage",
        Error::Input(_) => "input",
        Error::Damaged(_) => "damaged",
        Error::Foreign(_) => "foreign",
        Error::Device(_) => "device",
        Error::Lost(_) => "device_lost",
        Error::OutOfMemory { .. } => "out_of_memory",
        Error::Rank(_) => "rank",
        Error::Diverged(_) => "diverged",
        Error::Defect(_) => "defect",
        Error::Interrupted(_) => "interrupted",
    }
}

/// Any value of this program as JSON.
///
/// # Errors
/// A defect: none of them is one that JSON cannot hold.
pub(super) fn value(of: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(of).map_err(|e| Error::defect(format!("an answer is no JSON: {e}")))
}
