//! A tokenizer of byte-level BPE as a whole: added tokens, normalization, merges, and what every token stands for.

use std::borrow::Cow;
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::added::{Added, Cut};
use super::bpe::ByteBpe;
use crate::error::Result;

/// Byte-level BPE with its added tokens.
#[derive(Debug)]
pub(super) struct ByteLevel {
    pub(super) bpe: ByteBpe,
    /// Whether a text is composed (NFC) first.
    pub(super) composes: bool,
}

impl ByteLevel {
    pub(super) fn encode(&self, text: &str, added: &Added, allow_special: bool) -> Result<Vec<u32>> {
        let mut tokens = Vec::with_capacity(text.len() / 3);
        added.cut(text, false, allow_special, |cut| {
            match cut {
                Cut::Token(id) => tokens.push(id),
                Cut::Text(text) => {
                    let text = if self.composes { composed(text) } else { Cow::Borrowed(text) };
                    added.cut(&text, true, allow_special, |cut| {
                        match cut {
                            Cut::Token(id) => tokens.push(id),
                            Cut::Text(text) => self.bpe.encode(text, &mut tokens),
                        }
                        Ok(())
                    })?;
                }
            }
            Ok(())
        })?;
        Ok(tokens)
    }
}

/// Of the tables of Hugging Face's tokenizers, which are of another version of Unicode than those of the standard library.
pub(super) fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfc().map(|(c, _)| c).collect())
}
