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

/// `text` in NFC, of the tables of Hugging Face's tokenizers, which are of another version of Unicode than others.
///
/// Nothing composes with ASCII after it, so what is between is composed by itself: most of a text is left as it is.
pub(super) fn composed(text: &str) -> Cow<'_, str> {
    let next = |from: usize, ascii: bool| {
        let rest = text.as_bytes().get(from..).unwrap_or_default();
        rest.iter().position(|byte| byte.is_ascii() == ascii).map(|at| from + at)
    };
    let (mut whole, mut done, mut at) = (String::new(), 0, 0);
    while let Some(other) = next(at, false) {
        let (start, end) = (other.saturating_sub(1).max(at), next(other, true).unwrap_or(text.len()));
        let part = text.get(start..end).unwrap_or_default();
        if is_nfc_quick(part.chars()) != IsNormalized::Yes {
            whole.push_str(text.get(done..start).unwrap_or_default());
            whole.extend(part.nfc().map(|(c, _)| c));
            done = end;
        }
        at = end;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    whole.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_compose_as_the_whole_does() {
        let parts = ["e", "\u{301}", "\u{323}", "é", "中", "\u{1100}\u{1161}", "ab", " ", "\u{212b}", "\u{f900}", "\n"];
        let mut state = 1_usize;
        for _ in 0..2000 {
            let text: String = (0..8)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    parts[(state >> 33) % parts.len()]
                })
                .collect();
            assert_eq!(composed(&text), text.nfc().map(|(c, _)| c).collect::<String>(), "{text:?}");
        }
        assert!(matches!(composed("naïve ASCII"), Cow::Borrowed(_)));
    }
}
