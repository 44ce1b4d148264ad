//! Text to tokens and back.
//!
//! | file | idea |
//! |---|---|
//! | `chars` | the characters of the training text |
//! | `tiktoken` | byte-level BPE with the ranks of GPT-2, GPT-4 and GPT-4o |
//! | `file` | a `tokenizer.json` of Hugging Face, also one that was trained here |
//! | `outline` | what such a file says, read strictly |
//! | `foreign` | those that only the crate of Hugging Face can apply |
//! | `training` | learns a byte-level BPE |
//! | `level` | a byte-level BPE as a whole |
//! | `added` | special and other added tokens in a text |
//! | `split`, `classes` | cuts a text into pieces, by kinds of characters |
//! | `bpe`, `merge` | merges the bytes of a piece |
//! | `table` | what bytes each token stands for |
//! | `pack` | a file inside a checkpoint |
//! | `stream` | text out of tokens as they come |
//! | `portable` | any tokenizer as other programs read it |
//!
//! A tokenizer is stored as JSON inside every checkpoint, so what is read back is checked as input from a stranger.

mod added;
mod bpe;
mod chars;
mod classes;
mod file;
mod foreign;
mod level;
mod merge;
mod outline;
mod pack;
mod portable;
mod split;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod tiktoken;
mod training;

use serde::{Deserialize, Serialize};
use std::path::Path;

pub use self::chars::{CharTokenizer, MAX_CHARS};
pub use self::file::FileTokenizer;
pub(crate) use self::portable::Words;
pub use self::stream::StreamDecoder;
pub use self::tiktoken::Tiktoken;
pub use crate::config::TokenizerKind;
use crate::data::bounded;
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
            TokenizerKind::File(path) => Self::read_file(path, "name a tokenizer.json"),
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
        self.encode_with(text, false)
    }

    /// The tokens of `text`, where the name of a special token is that token.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, true)
    }

    fn encode_with(&self, text: &str, allow_special: bool) -> Result<Vec<u32>> {
        match self {
            Self::Byte => Ok(text.bytes().map(u32::from).collect()),
            Self::Char(tokenizer) => tokenizer.tokens(text).collect(),
            Self::Tiktoken(tokenizer) => tokenizer.encode(text, allow_special),
            Self::TokenizerJson(tokenizer) => tokenizer.encode(text, allow_special),
        }
    }

    /// Whether `token` is special: it stands for no text, and only its name is shown.
    pub fn is_special(&self, token: u32) -> bool {
        match self {
            Self::Byte | Self::Char(_) => false,
            Self::Tiktoken(tokenizer) => tokenizer.is_special(token),
            Self::TokenizerJson(tokenizer) => tokenizer.is_special(token),
        }
    }

    /// What tells it from others: SHA-256, in hexadecimal, of the file of a `tokenizer.json`, else of the tokenizer as JSON.
    ///
    /// # Errors
    /// None of what a user can give.
    pub fn sha256(&self) -> Result<String> {
        if let Self::TokenizerJson(tokenizer) = self {
            return Ok(tokenizer.sha256().to_owned());
        }
        let json = serde_json::to_string(self);
        json.map(|json| pack::sha256(&json)).map_err(|e| Error::defect(format!("the tokenizer has no hash: {e}")))
    }

    /// The tokenizer in a few words, for people.
    pub fn describe(&self) -> String {
        let size = self.vocab_size();
        match self {
            Self::Byte => "bytes".to_owned(),
            Self::Char(_) => format!("{size} characters"),
            Self::Tiktoken(tokenizer) => {
                format!("{}, {size} tokens, ranks {:.12}", tokenizer.name(), tokenizer.sha256())
            }
            Self::TokenizerJson(tokenizer) => {
                format!("tokenizer.json, {size} tokens, SHA-256 {:.12}", tokenizer.sha256())
            }
        }
    }

    /// What text is begun with where nothing is asked for: the end of the text before, a line break where there is none such,
    /// or else the first token.
    pub(crate) fn usual_prompt(&self) -> Vec<u32> {
        if let Some(end) = self.end_of_text() {
            return vec![end];
        }
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

    /// The tokenizer in such a file. `remedy` says what to do where it cannot be read.
    ///
    /// # Errors
    /// A file that cannot be read, is larger than 64 MiB or no tokenizer, or whose tokens do not give text back.
    pub(super) fn read_file(path: &Path, remedy: &str) -> Result<Self> {
        let within = |e: &dyn std::fmt::Display| Error::input(format!("{}: {e}", path.display()));
        let text = String::from_utf8(bounded::read(path, pack::MAX_BYTES, remedy)?);
        let text = text.map_err(|_| within(&"this is no tokenizer.json: it is not UTF-8"))?;
        Self::from_file_text(&text).map_err(|e| within(&e))
    }

    /// Whether a text may be cut between a word and the space after it, and the parts have the tokens of the whole.
    pub(super) fn cuts_at_words(&self) -> bool {
        match self {
            Self::Byte | Self::Char(_) | Self::Tiktoken(_) => true,
            Self::TokenizerJson(tokenizer) => tokenizer.cuts_at_words(),
        }
    }

    /// The text that begins with `prompt`: that of [`usual_prompt`](Self::usual_prompt) has only ended another one.
    pub(crate) fn decode_prompt(&self, prompt: &[u32]) -> String {
        if prompt.len() == 1 && prompt.first().copied() == self.end_of_text() {
            String::new()
        } else {
            self.decode(prompt)
        }
    }

    /// How many bytes of text one token stands for (0 outside the vocabulary and for special tokens), for bits per byte.
    pub fn bytes_of(&self, token: u32) -> usize {
        if self.is_special(token) {
            return 0;
        }
        self.bytes(token).map_or(0, |bytes| bytes.len())
    }
}

/// Whether `text` is an object whose first key is `key`.
fn begins_with_key(text: &str, key: &str) -> bool {
    let rest = text.trim_start().strip_prefix('{').map(str::trim_start);
    rest.and_then(|rest| rest.strip_prefix('"')?.strip_prefix(key)?.strip_prefix('"')).is_some()
}
