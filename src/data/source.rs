//! The tokens of one split, wherever they are: in memory or in a mapped file.

use std::sync::{Arc, OnceLock};

use super::contents::Contents;
use super::shard::Shard;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// A sequence of tokens, in memory or in a mapped file; cheap to clone.
#[derive(Debug, Clone)]
pub struct TokenSource {
    tokens: Tokens,
    /// First token of the sequence within `tokens`.
    first: usize,
    len: usize,
    /// Once asked for.
    contents: Arc<OnceLock<Contents>>,
}

#[derive(Debug, Clone)]
enum Tokens {
    Narrow(Arc<[u16]>),
    Wide(Arc<[u32]>),
    Shard(Arc<Shard>),
}

impl TokenSource {
    /// A source of tokens in memory.
    pub fn from_tokens(tokens: Vec<u32>) -> Self {
        let len = tokens.len();
        let narrow: Option<Vec<u16>> = tokens.iter().map(|&token| u16::try_from(token).ok()).collect();
        Self::all(narrow.map_or_else(|| Tokens::Wide(tokens.into()), |narrow| Tokens::Narrow(narrow.into())), len)
    }

    /// The tokens of `text`; errors as [`Tokenizer::encode`].
    pub(super) fn from_text(text: &str, tokenizer: &Tokenizer) -> Result<Self> {
        tokenizer.encode(text).map(Self::from_tokens)
    }

    /// The tokens of the byte tokenizer for what need not be text.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self::all(Tokens::Narrow(bytes.iter().map(|&byte| u16::from(byte)).collect()), bytes.len())
    }

    /// The tokens of a shard.
    pub(super) fn from_shard(shard: Shard) -> Self {
        let len = shard.len();
        Self::all(Tokens::Shard(Arc::new(shard)), len)
    }

    fn all(tokens: Tokens, len: usize) -> Self {
        Self { tokens, first: 0, len, contents: Arc::default() }
    }

    /// The first `n` tokens (at most all), and the rest.
    pub(super) fn split_at(self, n: usize) -> (Self, Self) {
        let n = n.min(self.len);
        let part = |first, len| Self { tokens: self.tokens.clone(), first, len, contents: Arc::default() };
        (part(self.first, n), part(self.first + n, self.len - n))
    }

    /// The largest token that was found in the shard that these are of.
    pub(super) fn largest_of_shard(&self) -> Option<u32> {
        match &self.tokens {
            Tokens::Shard(shard) => Some(shard.largest()),
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
            Tokens::Shard(shard) => shard.window(range.start, len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
