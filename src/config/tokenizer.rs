//! Which tokenizer makes tokens of a text, as settings name it.

use super::require;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Fewest and most tokens of a byte-level BPE: the 256 bytes and the end of a text, and what a model may have.
const BPE_TOKENS: std::ops::RangeInclusive<usize> = 257..=super::MAX_SIZE;

/// What a token is; written `byte`, `char`, `gpt2`, `cl100k`, `o200k`, `bpe:N`, or the path of a `tokenizer.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TokenizerKind {
    /// One of 256 bytes.
    Byte,
    /// One of the characters that occur in the training text.
    Char,
    /// Byte-level BPE of GPT-2: 50,257 tokens.
    Gpt2,
    /// Byte-level BPE of GPT-3.5 and GPT-4, `cl100k_base`: 100,277 tokens.
    Cl100k,
    /// Byte-level BPE of GPT-4o, `o200k_base`: 200,019 tokens.
    O200k,
    /// `bpe:N`: A byte-level BPE of N tokens, trained on the training text.
    Bpe(usize),
    /// `dir/tokenizer.json`: A file of Hugging Face, whatever its name before `.json`.
    File(PathBuf),
}

impl TokenizerKind {
    /// Whether it takes bytes that are not UTF-8.
    pub(crate) fn takes_bytes(&self) -> bool {
        *self == Self::Byte
    }
}

impl FromStr for TokenizerKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "byte" => Self::Byte,
            "char" => Self::Char,
            "gpt2" | "r50k" | "r50k_base" => Self::Gpt2,
            "cl100k" | "cl100k_base" => Self::Cl100k,
            "o200k" | "o200k_base" => Self::O200k,
            _ => match text.strip_prefix("bpe:") {
                Some(tokens) => Self::Bpe(bpe_tokens(tokens)?),
                None if is_file(text) => Self::File(PathBuf::from(text)),
                None => {
                    return Err(Error::usage(format!(
                        "tokenizer is {text:?}, but must be byte, char, gpt2, cl100k, o200k, bpe:N for one of N tokens that \
                         is trained on the text, or a file named *.json{}",
                        nearest(text)
                    )));
                }
            },
        })
    }
}

/// What is likely meant, as the end of a sentence.
fn nearest(text: &str) -> String {
    let likeness = |name: &str| strsim::jaro_winkler(&text.to_ascii_lowercase(), name);
    let names = ["byte", "char", "gpt2", "cl100k", "cl100k_base", "o200k", "o200k_base", "r50k_base", "bpe:4096"];
    let nearest = names.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.filter(|name| likeness(name) > 0.7).map_or_else(String::new, |name| format!("; the nearest is {name}"))
}

fn is_file(text: &str) -> bool {
    text.to_ascii_lowercase().ends_with(".json")
}

fn bpe_tokens(text: &str) -> Result<usize> {
    let (least, most) = (BPE_TOKENS.start(), BPE_TOKENS.end());
    let tokens: Option<usize> = text.replace('_', "").parse().ok();
    let limits =
        || format!("tokenizer is bpe:{text}, but a byte-level BPE has from {least} to {most} tokens: give bpe:4096");
    require(tokens.is_some_and(|tokens| BPE_TOKENS.contains(&tokens)), limits)?;
    Ok(tokens.unwrap_or(*least))
}

impl fmt::Display for TokenizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte => f.write_str("byte"),
            Self::Char => f.write_str("char"),
            Self::Gpt2 => f.write_str("gpt2"),
            Self::Cl100k => f.write_str("cl100k"),
            Self::O200k => f.write_str("o200k"),
            Self::Bpe(tokens) => write!(f, "bpe:{tokens}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl TryFrom<String> for TokenizerKind {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TokenizerKind> for String {
    fn from(kind: TokenizerKind) -> Self {
        kind.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_from_its_name() {
        for name in ["byte", "char", "gpt2", "cl100k", "o200k", "bpe:4096", "dir/tokenizer.json"] {
            assert_eq!(name.parse::<TokenizerKind>().unwrap().to_string(), name);
        }
        assert_eq!("o200k_base".parse(), Ok(TokenizerKind::O200k));
        for (bad, said) in [
            ("word", "bpe:N"),
            ("gtp2", "; the nearest is gpt2"),
            ("bytes", "; the nearest is byte"),
            ("bpe:256", "from 257 to"),
            ("bpe:", "from 257 to"),
            ("bpe:-1", "257"),
        ] {
            let error = bad.parse::<TokenizerKind>().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
