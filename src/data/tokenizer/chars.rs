//! The characters of a text as tokens.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Most characters a character vocabulary may have: its tokens fit 16 bits.
pub const MAX_CHARS: usize = 1 << 16;

/// The characters of a text, sorted and distinct; in JSON, one string of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CharTokenizer {
    chars: Vec<char>,
}

impl CharTokenizer {
    /// The vocabulary of `texts` together: their distinct characters in order of code point, as nanoGPT.
    ///
    /// # Errors
    /// No characters at all, or more than [`MAX_CHARS`] distinct ones.
    pub fn of(texts: &[&str]) -> Result<Self> {
        let distinct: std::collections::BTreeSet<char> = texts.iter().flat_map(|text| text.chars()).collect();
        Self::checked(distinct.into_iter())
    }

    /// The characters; a token is an index into them.
    pub fn chars(&self) -> &[char] {
        &self.chars
    }

    /// Takes no more of `list` than a vocabulary may have, so that a list of any length costs nothing.
    fn checked(list: impl Iterator<Item = char>) -> Result<Self> {
        let mut chars: Vec<char> = Vec::new();
        for b in list {
            if let Some(a) = chars.last().copied().filter(|&a| a >= b) {
                let (a, b) = (a.escape_debug(), b.escape_debug());
                let sentence = format!("a character vocabulary lists '{b}' after '{a}'");
                return Err(Error::input(
                    sentence + ", but it must be sorted and without repeats; the file is damaged",
                ));
            }
            if chars.len() == MAX_CHARS {
                let sentence = format!("a character vocabulary has more than {MAX_CHARS} characters");
                return Err(Error::input(sentence + ", but its tokens must fit 16 bits; use the byte tokenizer"));
            }
            chars.push(b);
        }
        if chars.is_empty() {
            return Err(Error::input("a character vocabulary is empty; it needs at least one character"));
        }
        Ok(Self { chars })
    }

    /// The tokens of `text`, one by one.
    ///
    /// # Errors
    /// A character that is none of them.
    pub(in crate::data) fn tokens<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Result<u32>> + 'a {
        let token = |(position, c)| self.token(c).ok_or_else(|| unknown(c, position, self.chars.len()));
        text.chars().enumerate().map(token)
    }

    /// The first character of `text` that is none of them, and its position.
    pub(super) fn first_unknown(&self, text: &str) -> Option<(char, usize)> {
        text.chars().enumerate().find(|&(_, c)| self.token(c).is_none()).map(|(position, c)| (c, position))
    }

    fn token(&self, c: char) -> Option<u32> {
        self.chars.binary_search(&c).ok().and_then(|at| u32::try_from(at).ok())
    }

    pub(super) fn char(&self, token: u32) -> Option<char> {
        self.chars.get(usize::try_from(token).ok()?).copied()
    }
}

impl TryFrom<String> for CharTokenizer {
    type Error = Error;

    fn try_from(list: String) -> Result<Self> {
        Self::checked(list.chars())
    }
}

impl From<CharTokenizer> for String {
    fn from(tokenizer: CharTokenizer) -> Self {
        tokenizer.chars.into_iter().collect()
    }
}

fn unknown(c: char, position: usize, vocab: usize) -> Error {
    let (shown, code) = (c.escape_debug(), u32::from(c));
    let sentence = format!("character '{shown}' (U+{code:04X}) at position {position} is not among the {vocab}");
    Error::input(sentence + " characters of the tokenizer; remove it, or train with the byte tokenizer")
}
