//! Words of a command that a person can copy into a shell.

use std::path::Path;

/// A path as a word of a command: in quotes where a shell would not take it for one.
pub(crate) fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "_-./\\:+,=@%".contains(c) && (cfg!(windows) || c != '\\');
    match text.chars().all(plain) {
        true => text,
        false if cfg!(windows) => format!("\"{text}\""),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
