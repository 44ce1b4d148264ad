//! Text to tokens and back: bytes, or the characters of the training text.
//!
//! Neither needs a file of merges. A tokenizer is stored as JSON inside every checkpoint, so what is
//! read back is checked as input from a stranger. Sub-word tokenizers are not here: text prepared
//! with one comes in as a token shard.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Most characters a character vocabulary may have: its tokens fit 16 bits.
pub const MAX_CHARS: usize = 1 << 16;

pub use crate::config::TokenizerKind;

/// A tokenizer: a map from text to tokens `0..vocab_size()` and back.
///
/// ```
/// use tokenformer::data::{Tokenizer, TokenizerKind};
///
/// let tokenizer = Tokenizer::of(TokenizerKind::Char, &["hello"])?;
/// assert_eq!(tokenizer.vocab_size(), 4);
/// assert_eq!(tokenizer.encode("hole")?, [1, 3, 2, 0]);
/// assert_eq!(tokenizer.decode(&[1, 3, 2, 0]), "hole");
/// # Ok::<(), tokenformer::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// Token = byte of the UTF-8 text.
    Byte,
    /// Token = index of the character in a sorted list.
    Char(CharTokenizer),
}

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

    fn token(&self, c: char) -> Option<u32> {
        self.chars.binary_search(&c).ok().and_then(|at| u32::try_from(at).ok())
    }

    fn char(&self, token: u32) -> Option<char> {
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

impl Tokenizer {
    /// The tokenizer of `kind` for these texts.
    ///
    /// # Errors
    /// See [`CharTokenizer::of`]; a byte tokenizer fits every text.
    pub fn of(kind: TokenizerKind, texts: &[&str]) -> Result<Self> {
        match kind {
            TokenizerKind::Byte => Ok(Self::Byte),
            TokenizerKind::Char => CharTokenizer::of(texts).map(Self::Char),
        }
    }

    /// Which kind it is.
    pub fn kind(&self) -> TokenizerKind {
        match self {
            Self::Byte => TokenizerKind::Byte,
            Self::Char(_) => TokenizerKind::Char,
        }
    }

    /// Number of different tokens.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Byte => 256,
            Self::Char(tokenizer) => tokenizer.chars.len(),
        }
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// A character outside the vocabulary, with its code point and its position in characters from 0.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = Vec::with_capacity(self.count(text));
        self.encode_each(text, |token| tokens.push(token))?;
        Ok(tokens)
    }

    /// What text is begun with where nothing is asked for: a line break, or the first token where there is none.
    pub(crate) fn usual_prompt(&self) -> Vec<u32> {
        self.encode("\n").unwrap_or_else(|_| vec![0])
    }

    /// Gives the tokens of `text` to `sink` one by one; errors as [`encode`](Self::encode).
    pub(super) fn encode_each(&self, text: &str, mut sink: impl FnMut(u32)) -> Result<()> {
        match self {
            Self::Byte => text.bytes().for_each(|byte| sink(u32::from(byte))),
            Self::Char(tokenizer) => {
                for (position, c) in text.chars().enumerate() {
                    sink(tokenizer.token(c).ok_or_else(|| unknown(c, position, tokenizer.chars.len()))?);
                }
            }
        }
        Ok(())
    }

    /// The first character of `text` that is no token, and its position.
    pub(super) fn first_unknown(&self, text: &str) -> Option<(char, usize)> {
        let Self::Char(tokenizer) = self else { return None };
        text.chars().enumerate().find(|&(_, c)| tokenizer.token(c).is_none()).map(|(position, c)| (c, position))
    }

    /// How many tokens `text` makes.
    pub fn count(&self, text: &str) -> usize {
        match self {
            Self::Byte => text.len(),
            Self::Char(_) => text.chars().count(),
        }
    }

    /// The text of `tokens`; broken UTF-8 and tokens outside the vocabulary become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut stream = StreamDecoder::new(self);
        let mut text: String = tokens.iter().map(|&token| stream.push(token)).collect();
        text.push_str(&stream.finish());
        text
    }

    /// Bytes of UTF-8 text one token stands for (0 outside the vocabulary), for bits per byte.
    pub fn bytes_of(&self, token: u32) -> usize {
        match self {
            Self::Byte => usize::from(token < 256),
            Self::Char(tokenizer) => tokenizer.char(token).map_or(0, char::len_utf8),
        }
    }
}

fn unknown(c: char, position: usize, vocab: usize) -> Error {
    let (shown, code) = (c.escape_debug(), u32::from(c));
    let sentence = format!("character '{shown}' (U+{code:04X}) at position {position} is not among the {vocab}");
    Error::input(sentence + " characters of the tokenizer; remove it, or train with the byte tokenizer")
}

/// Decodes tokens as they are sampled, holding back bytes until they complete a character.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    pending: Vec<u8>,
}

impl<'a> StreamDecoder<'a> {
    /// A decoder at the start of a text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, pending: Vec::new() }
    }

    /// The text that `token` completes; empty in the middle of a character.
    pub fn push(&mut self, token: u32) -> String {
        match self.tokenizer {
            Tokenizer::Char(tokenizer) => tokenizer.char(token).unwrap_or(char::REPLACEMENT_CHARACTER).to_string(),
            Tokenizer::Byte => match u8::try_from(token) {
                Ok(byte) => {
                    self.pending.push(byte);
                    self.complete()
                }
                Err(_) => self.finish() + "\u{fffd}",
            },
        }
    }

    /// What is left at the end: U+FFFD for an unfinished character, else nothing.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    /// Takes every finished character out of `pending`, replacing bytes that can no longer become one.
    fn complete(&mut self) -> String {
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(rest) => {
                    text.push_str(rest);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let valid: Vec<u8> = self.pending.drain(..error.valid_up_to()).collect();
                    text.push_str(&String::from_utf8_lossy(&valid));
                    let Some(broken) = error.error_len() else { return text };
                    self.pending.drain(..broken);
                    text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_sorted_distinct_and_come_back() {
        let tokenizer = Tokenizer::of(TokenizerKind::Char, &["bé\na", "ab"]).unwrap();
        assert_eq!(tokenizer.vocab_size(), 4);
        let tokens = tokenizer.encode("a\nbé").unwrap();
        assert_eq!(tokens, [1, 0, 2, 3]);
        assert_eq!(tokenizer.decode(&tokens), "a\nbé");
        assert_eq!(tokens.iter().map(|&t| tokenizer.bytes_of(t)).sum::<usize>(), "a\nbé".len());
        let error = tokenizer.encode("ab€").unwrap_err().to_string();
        assert!(error.contains("'€' (U+20AC) at position 2 is not among the 4"), "{error}");
    }

    #[test]
    fn json_comes_back_and_hostile_json_is_refused() {
        for tokenizer in [Tokenizer::Byte, Tokenizer::of(TokenizerKind::Char, &["\"\\\u{0}é"]).unwrap()] {
            let json = serde_json::to_string(&tokenizer).unwrap();
            assert_eq!(serde_json::from_str::<Tokenizer>(&json).unwrap(), tokenizer);
        }
        assert_eq!(serde_json::to_string(&TokenizerKind::Char).unwrap(), "\"char\"");
        for bad in [r#"{"char":""}"#, r#"{"char":"aa"}"#, r#"{"char":"ba"}"#, r#"{"char":["a"]}"#, r#""word""#] {
            assert!(serde_json::from_str::<Tokenizer>(bad).is_err(), "{bad}");
        }
        let huge: String = ('\u{0}'..=char::MAX).take(MAX_CHARS + 1).collect();
        assert!(CharTokenizer::try_from(huge).is_err());
    }

    #[test]
    fn a_stream_never_prints_half_a_character() {
        let mut stream = StreamDecoder::new(&Tokenizer::Byte);
        let shown: Vec<String> = "aé€".bytes().map(|byte| stream.push(u32::from(byte))).collect();
        assert_eq!(shown, ["a", "", "é", "", "", "€"]);
        // Every prefix of every byte string ends as Rust's own lossy decoder would have it.
        for bytes in [&b"\xe2\x82a"[..], b"\xff\xf0\x9f\x98", b"\xf0\x9f\xc3\xa9", b"\xed\xa0\x80z"] {
            let tokens: Vec<u32> = bytes.iter().map(|&byte| u32::from(byte)).collect();
            assert_eq!(Tokenizer::Byte.decode(&tokens), String::from_utf8_lossy(bytes));
        }
        assert_eq!(Tokenizer::Byte.decode(&[0xc3, 256, 97]), "\u{fffd}\u{fffd}a");
    }
}
