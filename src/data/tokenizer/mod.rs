//! Text to tokens and back.
//!
//! | file | idea |
//! |---|---|
//! | `chars` | the characters of the training text |
//! | `tiktoken` | byte-level BPE with the ranks of GPT-2, GPT-4 and GPT-4o |
//! | `file` | a `tokenizer.json` of Hugging Face, also one that was trained here |
//! | `stream` | text out of tokens as they come |
//!
//! A tokenizer is stored as JSON inside every checkpoint, so what is read back is checked as input from a stranger.

mod chars;
mod file;
mod stream;
mod tiktoken;

use serde::{Deserialize, Serialize};

pub use self::chars::{CharTokenizer, MAX_CHARS};
pub use self::file::FileTokenizer;
pub use self::stream::StreamDecoder;
pub use self::tiktoken::Tiktoken;
pub use crate::config::TokenizerKind;
use crate::error::{Error, Result};

/// A tokenizer: a map from text to tokens `0..vocab_size()` and back.
///
/// ```
/// use tokenformer::data::{Tokenizer, TokenizerKind};
///
/// let tokenizer = Tokenizer::of(&TokenizerKind::Char, &["hello"])?;
/// assert_eq!(tokenizer.vocab_size(), 4);
/// assert_eq!(tokenizer.encode("hole")?, [1, 3, 2, 0]);
/// assert_eq!(tokenizer.decode(&[1, 3, 2, 0]), "hole");
///
/// let gpt2 = Tokenizer::of(&TokenizerKind::Gpt2, &[])?;
/// assert_eq!(gpt2.encode("Hello world")?, [15496, 995]);
/// # Ok::<(), tokenformer::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// Token = byte of the UTF-8 text.
    Byte,
    /// Token = index of the character in a sorted list.
    Char(CharTokenizer),
    /// One whose ranks are part of the program.
    Tiktoken(Tiktoken),
    /// One of a `tokenizer.json`.
    TokenizerJson(FileTokenizer),
}

impl Tokenizer {
    /// The tokenizer of `kind` for these texts.
    ///
    /// # Errors
    /// See [`CharTokenizer::of`]; a file that cannot be read or is no tokenizer.
    pub fn of(kind: &TokenizerKind, texts: &[&str]) -> Result<Self> {
        match kind {
            TokenizerKind::Byte => Ok(Self::Byte),
            TokenizerKind::Char => CharTokenizer::of(texts).map(Self::Char),
            TokenizerKind::Gpt2 => Ok(Self::Tiktoken(Tiktoken::Gpt2)),
            TokenizerKind::Cl100k => Ok(Self::Tiktoken(Tiktoken::Cl100k)),
            TokenizerKind::O200k => Ok(Self::Tiktoken(Tiktoken::O200k)),
            TokenizerKind::Bpe(tokens) => {
                let texts = texts.iter().map(|&text| text.to_owned());
                FileTokenizer::trained_on(*tokens, texts).map(Self::TokenizerJson)
            }
            TokenizerKind::File(path) => FileTokenizer::open(path).map(Self::TokenizerJson),
        }
    }

    /// Number of different tokens.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Byte => 256,
            Self::Char(tokenizer) => tokenizer.chars().len(),
            Self::Tiktoken(tokenizer) => tokenizer.vocab_size(),
            Self::TokenizerJson(tokenizer) => tokenizer.vocab_size(),
        }
    }

    /// Whether it takes bytes that are not UTF-8.
    pub(super) fn takes_bytes(&self) -> bool {
        *self == Self::Byte
    }

    /// The token between two documents, which no text makes.
    pub fn end_of_text(&self) -> Option<u32> {
        match self {
            Self::Byte | Self::Char(_) => None,
            Self::Tiktoken(tokenizer) => Some(tokenizer.end_of_text()),
            Self::TokenizerJson(tokenizer) => tokenizer.end_of_text(),
        }
    }

    /// The tokens of `text`; the name of a special token in it is text as any other.
    ///
    /// # Errors
    /// A character outside the vocabulary, with its code point and its position in characters from 0.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Byte => Ok(text.bytes().map(u32::from).collect()),
            Self::Char(tokenizer) => tokenizer.encode(text),
            Self::Tiktoken(tokenizer) => tokenizer.encode(text),
            Self::TokenizerJson(tokenizer) => tokenizer.encode(text),
        }
    }

    /// What text is begun with where nothing is asked for: a line break, or the first token where there is none.
    pub(crate) fn usual_prompt(&self) -> Vec<u32> {
        self.encode("\n").ok().filter(|tokens| !tokens.is_empty()).unwrap_or_else(|| vec![0])
    }

    /// The first character of `text` that is no token, and its position.
    pub(super) fn first_unknown(&self, text: &str) -> Option<(char, usize)> {
        match self {
            Self::Char(tokenizer) => tokenizer.first_unknown(text),
            Self::Byte | Self::Tiktoken(_) | Self::TokenizerJson(_) => None,
        }
    }

    /// The text of `tokens`; broken UTF-8 and tokens outside the vocabulary become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut stream = StreamDecoder::new(self);
        let mut text: String = tokens.iter().map(|&token| stream.push(token)).collect();
        text.push_str(&stream.finish());
        text
    }

    /// The bytes of UTF-8 text one token stands for, which may be a part of a character; `None` outside the vocabulary.
    pub fn bytes(&self, token: u32) -> Option<Vec<u8>> {
        match self {
            Self::Byte => u8::try_from(token).ok().map(|byte| vec![byte]),
            Self::Char(tokenizer) => tokenizer.char(token).map(|c| c.to_string().into_bytes()),
            Self::Tiktoken(tokenizer) => tokenizer.bytes(token),
            Self::TokenizerJson(tokenizer) => tokenizer.bytes(token),
        }
    }

    /// The tokenizer as a file beside shards: a `tokenizer.json` as it was read, or a JSON of this program.
    ///
    /// # Errors
    /// None of what a user can give.
    pub fn to_file_text(&self) -> Result<String> {
        match self {
            Self::TokenizerJson(tokenizer) => Ok(tokenizer.text().to_owned()),
            _ => serde_json::to_string(self)
                .map(|json| json + "\n")
                .map_err(|e| Error::defect(format!("the tokenizer cannot be written: {e}"))),
        }
    }

    /// The tokenizer of such a file, also of one that another program wrote.
    ///
    /// # Errors
    /// A text that is no tokenizer.
    pub fn from_file_text(text: &str) -> Result<Self> {
        // What this program writes is a word, or an object of one key that no tokenizer.json begins with.
        let is_own =
            text.trim_start().starts_with('"') || ["char", "tiktoken"].iter().any(|kind| begins_with_key(text, kind));
        if !is_own {
            return FileTokenizer::parse(text.to_owned()).map(Self::TokenizerJson);
        }
        serde_json::from_str(text).map_err(|e| Error::input(format!("this is no tokenizer: {e}")))
    }

    /// How many bytes of text one token stands for (0 outside the vocabulary), for bits per byte.
    pub fn bytes_of(&self, token: u32) -> usize {
        self.bytes(token).map_or(0, |bytes| bytes.len())
    }
}

/// Whether `text` is an object whose first key is `key`.
fn begins_with_key(text: &str, key: &str) -> bool {
    let rest = text.trim_start().strip_prefix('{').map(str::trim_start);
    rest.and_then(|rest| rest.strip_prefix('"')?.strip_prefix(key)?.strip_prefix('"')).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_sorted_distinct_and_come_back() {
        let tokenizer = Tokenizer::of(&TokenizerKind::Char, &["bé\na", "ab"]).unwrap();
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
        for tokenizer in [Tokenizer::Byte, Tokenizer::of(&TokenizerKind::Char, &["\"\\\u{0}é"]).unwrap()] {
            let json = serde_json::to_string(&tokenizer).unwrap();
            assert_eq!(serde_json::from_str::<Tokenizer>(&json).unwrap(), tokenizer);
            assert_eq!(Tokenizer::from_file_text(&tokenizer.to_file_text().unwrap()).unwrap(), tokenizer);
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
