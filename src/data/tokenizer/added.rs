//! Tokens that are no part of the merges: set apart in a text by their names before anything else.

use aho_corasick::{AhoCorasick, MatchKind};
use rustc_hash::FxHashSet;

use crate::error::{Error, Result};

/// Names that tokenizers give to the end of a text, the commonest first.
const ENDS: [&str; 9] = [
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "<｜end▁of▁sentence｜>",
    "[EOS]",
    "<|end_of_document|>",
    "<eod>",
];

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) name: String,
    /// Whether its name in a text is text, unless special tokens are allowed.
    pub(super) special: bool,
    /// Whether it is looked for in the text as it is and not in what the normalizer makes of it.
    pub(super) raw: bool,
}

/// A list of added tokens, ready to look for.
#[derive(Debug)]
pub(super) struct Added {
    tokens: Vec<AddedToken>,
    special: FxHashSet<u32>,
    raw: Finder,
    normalized: Finder,
}

#[derive(Debug)]
struct Finder {
    /// Index into the tokens by pattern.
    which: Vec<usize>,
    /// `None` where there is nothing to look for.
    names: Option<AhoCorasick>,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut<'a> {
    Text(&'a str),
    Token(u32),
}

impl Finder {
    fn of(tokens: &[AddedToken], raw: bool) -> Result<Self> {
        let which: Vec<usize> =
            tokens.iter().enumerate().filter(|(_, token)| token.raw == raw).map(|(at, _)| at).collect();
        if which.is_empty() {
            return Ok(Self { which, names: None });
        }
        let names = tokens.iter().filter(|token| token.raw == raw).map(|token| &token.name);
        let names = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(names);
        let names = names.map_err(|e| Error::input(format!("its added tokens are too many to look for: {e}")))?;
        Ok(Self { which, names: Some(names) })
    }
}

impl Added {
    pub(super) fn new(tokens: Vec<AddedToken>) -> Result<Self> {
        let special = tokens.iter().filter(|token| token.special).map(|token| token.id).collect();
        Ok(Self { special, raw: Finder::of(&tokens, true)?, normalized: Finder::of(&tokens, false)?, tokens })
    }

    pub(super) fn is_special(&self, token: u32) -> bool {
        self.special.contains(&token)
    }

    /// Whether a name has white space in it.
    pub(super) fn has_spaces(&self) -> bool {
        self.tokens.iter().any(|token| token.name.contains(char::is_whitespace))
    }

    /// The special token that ends a text.
    pub(super) fn end_of_text(&self) -> Option<u32> {
        ENDS.into_iter()
            .find_map(|end| self.tokens.iter().find(|token| token.special && token.name == end).map(|token| token.id))
    }

    /// Hands on the parts of `text`, which is normalized or not, in order; special tokens only with `allow_special`.
    pub(super) fn cut<'a>(
        &self,
        text: &'a str,
        normalized: bool,
        allow_special: bool,
        mut part: impl FnMut(Cut<'a>) -> Result<()>,
    ) -> Result<()> {
        let finder = if normalized { &self.normalized } else { &self.raw };
        let mut done = 0;
        let rest = |from: usize, to: usize, part: &mut dyn FnMut(Cut<'a>) -> Result<()>| {
            text.get(from..to).filter(|text| !text.is_empty()).map_or(Ok(()), |text| part(Cut::Text(text)))
        };
        if let Some(names) = &finder.names {
            for found in names.find_iter(text) {
                let token = finder.which.get(found.pattern().as_usize()).and_then(|&at| self.tokens.get(at));
                let Some(token) = token.filter(|token| allow_special || !token.special) else { continue };
                rest(done, found.start(), &mut part)?;
                part(Cut::Token(token.id))?;
                done = found.end();
            }
        }
        rest(done, text.len(), &mut part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, name: &str, special: bool) -> AddedToken {
        AddedToken { id, name: name.to_owned(), special, raw: true }
    }

    #[test]
    fn special_names_are_text_unless_allowed() {
        let added = Added::new(vec![token(7, "<|endoftext|>", true), token(8, "<think>", false)]).unwrap();
        let cut = |allow| {
            let mut parts = Vec::new();
            added
                .cut("a<think><|endoftext|>", false, allow, |cut| {
                    parts.push(cut);
                    Ok(())
                })
                .unwrap();
            parts
        };
        assert_eq!(cut(false), [Cut::Text("a"), Cut::Token(8), Cut::Text("<|endoftext|>")]);
        assert_eq!(cut(true), [Cut::Text("a"), Cut::Token(8), Cut::Token(7)]);
        assert_eq!(added.end_of_text(), Some(7));
        assert_eq!(Added::new(vec![token(0, "</s>", false)]).unwrap().end_of_text(), None);
    }
}
