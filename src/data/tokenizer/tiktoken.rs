//! Byte-level BPE with the ranks of OpenAI, which are part of the program.
//!
//! Source: the tables and patterns of `tiktoken_ext/openai_public.py` of tiktoken.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use tiktoken_rs::{CoreBPE, cl100k_base_singleton, o200k_base_singleton, r50k_base_singleton};

use crate::error::{Error, Result};

/// Which ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tiktoken {
    /// `r50k_base`, of GPT-2.
    Gpt2,
    /// `cl100k_base`, of GPT-3.5 and GPT-4.
    Cl100k,
    /// `o200k_base`, of GPT-4o.
    O200k,
}

impl Tiktoken {
    fn ranks(self) -> &'static CoreBPE {
        match self {
            Self::Gpt2 => r50k_base_singleton(),
            Self::Cl100k => cl100k_base_singleton(),
            Self::O200k => o200k_base_singleton(),
        }
    }

    /// One above its largest token, `n_vocab` of tiktoken.
    pub fn vocab_size(self) -> usize {
        match self {
            Self::Gpt2 => 50_257,
            Self::Cl100k => 100_277,
            Self::O200k => 200_019,
        }
    }

    /// `<|endoftext|>`.
    pub fn end_of_text(self) -> u32 {
        match self {
            Self::Gpt2 => 50_256,
            Self::Cl100k => 100_257,
            Self::O200k => 199_999,
        }
    }

    /// The tokens of `text`, `encode_ordinary` of tiktoken.
    pub(super) fn encode(self, text: &str) -> Result<Vec<u32>> {
        // Not `encode_ordinary`, which panics where the pattern gives up.
        let encoded = self.ranks().encode(text, &HashSet::new());
        encoded.map(|(tokens, _)| tokens).map_err(|e| Error::input(format!("the text cannot be made into tokens: {e}")))
    }

    pub(super) fn bytes(self, token: u32) -> Option<Vec<u8>> {
        self.ranks().decode_bytes(&[token]).ok()
    }
}
