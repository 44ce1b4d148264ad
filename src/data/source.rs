//! The tokens of one split, wherever they are: in memory, in mapped files, or in several sources that rows are drawn from by
//! weight.

use std::sync::{Arc, OnceLock};

use super::contents::Contents;
use super::shards::Shards;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// A sequence of tokens, in memory or in mapped files; cheap to clone.
#[derive(Debug, Clone)]
pub struct TokenSource {
    tokens: Tokens,
    /// First token of the sequence within `tokens`.
    first: usize,
    len: usize,
    /// Where it is of several sources, each of them.
    parts: Arc<[Part]>,
    /// Once asked for.
    contents: Arc<OnceLock<Contents>>,
}

/// One of several sources, which lie one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// What it is called.
    pub name: String,
    /// Its first token.
    pub first: usize,
    /// Its tokens.
    pub len: usize,
    /// Which share of rows are drawn from it.
    pub share: f64,
}

#[derive(Debug, Clone)]
enum Tokens {
    Narrow(Arc<[u16]>),
    Wide(Arc<[u32]>),
    Shards(Arc<Shards>),
    Joined(Arc<[TokenSource]>),
}

impl TokenSource {
    /// A source of tokens in memory.
    pub fn from_tokens(tokens: Vec<u32>) -> Self {
        let len = tokens.len();
        let narrow: Option<Vec<u16>> = tokens.iter().map(|&token| u16::try_from(token).ok()).collect();
        Self::all(narrow.map_or_else(|| Tokens::Wide(tokens.into()), |narrow| Tokens::Narrow(narrow.into())), len)
    }

    /// The tokens of `text`; errors as [`Tokenizer::encode`]. Of bytes and characters, of which a text may be large, only two
    /// bytes each are held.
    pub(super) fn from_text(text: &str, tokenizer: &Tokenizer) -> Result<Self> {
        match tokenizer {
            Tokenizer::Byte => Ok(Self::from_bytes(text.as_bytes())),
            Tokenizer::Char(characters) => {
                // There are no more than fit.
                let narrow = characters.tokens(text).map(|token| token.map(|token| token as u16));
                let narrow: Arc<[u16]> = narrow.collect::<Result<Vec<u16>>>()?.into();
                let len = narrow.len();
                Ok(Self::all(Tokens::Narrow(narrow), len))
            }
            Tokenizer::Tiktoken(_) | Tokenizer::TokenizerJson(_) => tokenizer.encode(text).map(Self::from_tokens),
        }
    }

    /// The tokens of the byte tokenizer for what need not be text.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self::all(Tokens::Narrow(bytes.iter().map(|&byte| u16::from(byte)).collect()), bytes.len())
    }

    /// The tokens of shards.
    pub(super) fn from_shards(shards: Shards) -> Self {
        let len = shards.len();
        Self::all(Tokens::Shards(Arc::new(shards)), len)
    }

    /// Several sources, each with its name and its share of rows.
    pub(super) fn joined(sources: Vec<(String, Self, f64)>) -> Self {
        let mut len = 0_usize;
        let mut part = |(name, source, share): &(String, Self, f64)| {
            let first = len;
            len = len.saturating_add(source.len);
            Part { name: name.clone(), first, len: source.len, share: *share }
        };
        let parts = sources.iter().map(&mut part).collect();
        let sources = sources.into_iter().map(|(_, source, _)| source).collect();
        Self { parts, ..Self::all(Tokens::Joined(sources), len) }
    }

    fn all(tokens: Tokens, len: usize) -> Self {
        Self { tokens, first: 0, len, parts: Arc::default(), contents: Arc::default() }
    }

    /// The first `n` tokens (at most all), and the rest.
    pub(super) fn split_at(self, n: usize) -> (Self, Self) {
        let n = n.min(self.len);
        let part = |first, len| Self { first, len, ..Self::all(self.tokens.clone(), len) };
        (part(self.first, n), part(self.first + n, self.len - n))
    }

    /// The sources that it is of, where those are several.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The largest token that was found in the shards that these are of.
    pub(crate) fn largest_of_shards(&self) -> Option<u32> {
        match &self.tokens {
            Tokens::Shards(shards) => Some(shards.largest()),
            Tokens::Joined(sources) => sources.iter().filter_map(Self::largest_of_shards).max(),
            Tokens::Narrow(_) | Tokens::Wide(_) => None,
        }
    }

    /// What tells these tokens from others.
    ///
    /// # Errors
    /// A token of a shard outside the vocabulary.
    pub fn contents(&self) -> Result<Contents> {
        if let Some(known) = self.contents.get() {
            return Ok(known.clone());
        }
        let found = Contents::of(self.len, |start, len| self.window(start, len))?;
        Ok(self.contents.get_or_init(|| found).clone())
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens `start..start + len`.
    ///
    /// # Errors
    /// A range outside the source, or a token of a shard outside the vocabulary.
    pub fn window(&self, start: usize, len: usize) -> Result<Vec<u32>> {
        let Some(end) = start.checked_add(len).filter(|&end| end <= self.len) else {
            return Err(Error::input(format!("tokens {start}..{start}+{len} were asked for, there are {}", self.len)));
        };
        let range = self.first + start..self.first + end;
        match &self.tokens {
            Tokens::Narrow(tokens) => Ok(tokens.get(range).unwrap_or_default().iter().map(|&t| u32::from(t)).collect()),
            Tokens::Wide(tokens) => Ok(tokens.get(range).unwrap_or_default().to_vec()),
            Tokens::Shards(shards) => shards.window(range.start, len),
            Tokens::Joined(sources) => {
                let mut tokens = Vec::with_capacity(len);
                for (source, part) in sources.iter().zip(self.parts.iter()) {
                    let [first, end] = [range.start, range.end].map(|at| at.clamp(part.first, part.first + part.len));
                    if first < end {
                        tokens.extend(source.window(first - part.first, end - first)?);
                    }
                }
                Ok(tokens)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_sources_lie_one_after_the_other() {
        let of = |range: std::ops::Range<u32>| TokenSource::from_tokens(range.collect());
        let parts =
            vec![("a".to_owned(), of(0..5), 0.5), ("b".to_owned(), of(5..6), 0.2), ("c".to_owned(), of(6..9), 0.3)];
        let joined = TokenSource::joined(parts);
        for start in 0..=9 {
            for len in 0..=9 - start {
                let expected: Vec<u32> = (start as u32..(start + len) as u32).collect();
                assert_eq!(joined.window(start, len).unwrap(), expected);
            }
        }
        assert!(joined.window(8, 2).is_err());
        assert_eq!(joined.contents().unwrap(), of(0..9).contents().unwrap());
        assert_eq!(joined.parts().iter().map(|part| part.first).collect::<Vec<_>>(), [0, 5, 6]);
    }

    #[test]
    fn windows_stay_inside_their_split() {
        for base in [0, 70_000] {
            let (train, val) = TokenSource::from_tokens((base..base + 10).collect()).split_at(7);
            assert_eq!((train.len(), val.len()), (7, 3));
            assert_eq!(train.window(5, 2).unwrap(), [base + 5, base + 6]);
            assert_eq!(val.window(0, 3).unwrap(), [base + 7, base + 8, base + 9]);
            // Whatever holds them.
            let alone = TokenSource::from_tokens((base..base + 7).collect());
            assert_eq!(train.contents().unwrap(), alone.contents().unwrap());
            assert_ne!(train.contents().unwrap(), val.contents().unwrap());
            for (start, len) in [(5, 3), (8, 0), (usize::MAX, 2)] {
                assert!(train.window(start, len).is_err(), "{start}, {len}");
            }
        }
    }
}
