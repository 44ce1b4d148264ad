//! Which kind of character each one is, as the patterns of tokenizers ask for it.

use regex_syntax::hir::{Class, HirKind};
use std::sync::LazyLock;

/// Kinds that exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// `[^\s\p{L}\p{N}\p{M}]`
    Other,
    /// `[\p{Lu}\p{Lt}]`
    Upper,
    /// `\p{Ll}`
    Lower,
    /// `[\p{Lm}\p{Lo}]`
    Letter,
    /// `\p{M}`
    Mark,
    /// `\p{N}`
    Number,
    /// `\s` but the next one
    Space,
    /// `[\r\n]`
    Newline,
}

impl Kind {
    /// `\p{L}`
    pub(super) fn is_letter(self) -> bool {
        matches!(self, Self::Upper | Self::Lower | Self::Letter)
    }

    /// `\s`
    pub(super) fn is_space(self) -> bool {
        matches!(self, Self::Space | Self::Newline)
    }

    /// `[^\s\p{L}\p{N}]`
    pub(super) fn is_sign(self) -> bool {
        matches!(self, Self::Other | Self::Mark)
    }
}

/// By code point. Of the tables of `regex`, so that a character is what it is to tiktoken.
static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let mut kinds = vec![Kind::Other; u32::from(char::MAX) as usize + 1];
    let all = [
        (r"[\p{Lu}\p{Lt}]", Kind::Upper),
        (r"\p{Ll}", Kind::Lower),
        (r"[\p{Lm}\p{Lo}]", Kind::Letter),
        (r"\p{M}", Kind::Mark),
        (r"\p{N}", Kind::Number),
        (r"\s", Kind::Space),
        (r"[\r\n]", Kind::Newline),
    ];
    for (pattern, kind) in all {
        let Ok(parsed) = regex_syntax::parse(pattern) else { continue };
        let HirKind::Class(Class::Unicode(class)) = parsed.kind() else { continue };
        for range in class.ranges() {
            let range = range.start() as usize..=range.end() as usize;
            kinds.get_mut(range).into_iter().flatten().for_each(|slot| *slot = kind);
        }
    }
    kinds
});

/// Looks kinds up; got once for a text, as it is asked for every character.
#[derive(Clone, Copy)]
pub(super) struct Kinds(&'static [Kind]);

impl Kinds {
    pub(super) fn get() -> Self {
        Self(&KINDS)
    }

    pub(super) fn of(self, c: char) -> Kind {
        self.0.get(c as usize).copied().unwrap_or(Kind::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_what_they_are() {
        let of = |c| Kinds::get().of(c);
        for (c, kind) in [
            ('A', Kind::Upper),
            ('ǅ', Kind::Upper),
            ('z', Kind::Lower),
            ('ʰ', Kind::Letter),
            ('中', Kind::Letter),
            ('\u{301}', Kind::Mark),
            ('²', Kind::Number),
            ('\u{a0}', Kind::Space),
            ('\t', Kind::Space),
            ('\r', Kind::Newline),
            ('\u{2028}', Kind::Space),
            ('!', Kind::Other),
            ('\0', Kind::Other),
            ('😀', Kind::Other),
            (char::MAX, Kind::Other),
        ] {
            assert_eq!(of(c), kind, "{c:?}");
        }
    }
}
