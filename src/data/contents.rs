//! What some tokens are, told by themselves and not by where they lie: a length and a SHA-256.
//!
//! They are hashed as little-endian u32, so a shard is the same in 16 and in 32 bits. Up to [`WHOLE`] tokens all of them
//! are; of more, [`PIECES`] evenly spaced pieces, which include the first and the last tokens, so that shards of many GB
//! start as fast as small ones. There a change between two pieces that keeps the length goes unseen.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::report::number::hexadecimal;

/// Most tokens that are hashed one and all: 256 MiB as u32, some tenths of a second.
const WHOLE: usize = 1 << 26;
/// Pieces that are hashed of longer sources.
const PIECES: usize = 256;
/// Tokens of a piece.
const PIECE: usize = 1 << 16;

/// The tokens of a part of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// How many there are.
    pub tokens: u64,
    /// SHA-256 of them, or of the pieces that stand for them, in hexadecimal.
    pub sha256: String,
}

impl Contents {
    /// What `now` has otherwise, in words that follow the name of what it is of.
    pub(crate) fn difference(&self, now: &Self) -> Option<String> {
        let Contents { tokens, sha256 } = now;
        if self == now {
            None
        } else if self.tokens == *tokens {
            let short = |sha256: &str| sha256.chars().take(12).collect::<String>();
            let (before, now) = (short(&self.sha256), short(sha256));
            Some(format!("still has {tokens} tokens, but other ones (sha256 was {before} and is {now})"))
        } else {
            Some(format!("had {} tokens and has {tokens}", self.tokens))
        }
    }

    /// Of `tokens` tokens, of which `window` reads so many from so many on.
    pub(super) fn of(tokens: usize, window: impl Fn(usize, usize) -> Result<Vec<u32>>) -> Result<Self> {
        let mut hasher = Sha256::new();
        let mut add = |start: usize, len: usize| -> Result<()> {
            let bytes: Vec<u8> = window(start, len)?.into_iter().flat_map(u32::to_le_bytes).collect();
            hasher.update(bytes);
            Ok(())
        };
        if tokens <= WHOLE {
            (0..tokens).step_by(PIECE).try_for_each(|start| add(start, PIECE.min(tokens - start)))?;
        } else {
            let start = |piece: usize| (tokens - PIECE) as u128 * piece as u128 / (PIECES - 1) as u128;
            (0..PIECES).try_for_each(|piece| add(start(piece) as usize, PIECE))?;
        }
        Ok(Self { tokens: tokens as u64, sha256: hexadecimal(&hasher.finalize()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tokens: &[u32]) -> Contents {
        Contents::of(tokens.len(), |start, len| Ok(tokens[start..start + len].to_vec())).unwrap()
    }

    #[test]
    fn contents_are_the_tokens_as_32_bits_whatever_holds_them() {
        let both = of(&[1, 2]);
        // printf '\x01\0\0\0\x02\0\0\0' | sha256sum
        let sha256 = "34fb5c825de7ca4aea6e712f19d439c1da0c92c37b423936c5f618545ca4fa1f".to_owned();
        assert_eq!(both, Contents { tokens: 2, sha256 });
        let said = both.difference(&of(&[1, 3])).unwrap();
        assert!(said.starts_with("still has 2 tokens, but other ones"), "{said}");
        assert_eq!(both.difference(&of(&[1])).unwrap(), "had 2 tokens and has 1");
        assert_eq!(both.difference(&both), None);
    }

    /// Of a source that is too long to be read as a whole the ends and what lies between are seen in pieces.
    #[test]
    fn of_long_sources_pieces_are_read() {
        let read = std::cell::RefCell::new(Vec::new());
        let len = WHOLE + 12_345;
        let window = |start, len| {
            read.borrow_mut().push((start, len));
            Ok(vec![7; len])
        };
        assert_eq!(Contents::of(len, window).unwrap().tokens, len as u64);
        let read = read.into_inner();
        assert_eq!((read.len(), read[0], read[PIECES - 1]), (PIECES, (0, PIECE), (len - PIECE, PIECE)));
    }
}
