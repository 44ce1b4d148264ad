//! How much TOML a configuration may be, counted before the parser allocates anything by it.
//!
//! The parser takes up to 600 bytes of memory for one of text (`a.a.a = 1` makes a table a dot), so the number of
//! bytes alone bounds little. What takes memory are tokens and, much more, what opens a table or a list. The limits
//! leave room for every setting, long texts and dozens of growths.

use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// Most bytes of a configuration.
pub(super) const MAX_BYTES: usize = 64 << 10;
/// Most tokens: keys, values, signs, spaces and line ends.
const MAX_TOKENS: usize = 4096;
/// Most `[`, `{` and `.` outside texts and comments.
const MAX_OPENERS: usize = 320;

/// Whether a text of `len` bytes may be looked at, or a sentence that reads on from its name.
pub(super) fn check_bytes(len: usize) -> Result<(), String> {
    if len > MAX_BYTES { refuse("bytes", MAX_BYTES) } else { Ok(()) }
}

/// Whether `text` may be parsed, or a sentence that reads on from its name.
pub(super) fn check(text: &str) -> Result<(), String> {
    check_bytes(text.len())?;
    let (mut tokens, mut openers) = (0, 0);
    for token in Source::new(text).lex() {
        tokens += 1;
        let opens = matches!(token.kind(), TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket | TokenKind::Dot);
        openers += usize::from(opens);
    }
    if tokens > MAX_TOKENS {
        return refuse("words, signs and line ends", MAX_TOKENS);
    }
    if openers > MAX_OPENERS {
        return refuse("brackets and dots", MAX_OPENERS);
    }
    Ok(())
}

fn refuse(what: &str, limit: usize) -> Result<(), String> {
    Err(format!("has more than {limit} {what}, far more than there are settings: shorten its texts or drop growths"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_outside_texts_counts() {
        let text = format!("a = \"{}\" # {0}", "[.{ ".repeat(MAX_TOKENS));
        assert_eq!(check(&text), Ok(()));
        assert_eq!(check(&"\n".repeat(MAX_TOKENS - 1)), Ok(()), "and the end counts as one");
        for (text, said) in [
            ("\n".repeat(MAX_TOKENS), "4096 words, signs and line ends"),
            ("[".repeat(MAX_OPENERS + 1), "320 brackets and dots"),
            (" ".repeat(MAX_BYTES + 1), "65536 bytes"),
        ] {
            assert!(check(&text).unwrap_err().starts_with(&format!("has more than {said}, ")), "{said}");
        }
    }
}
