//! Cuts a text into the pieces that byte-level BPE works on, as the patterns of known tokenizers do.
//!
//! By hand, because the pattern takes most of the time, and because a backtracking engine gives up on a million spaces. Each of
//! these reads every character a few times at most, whatever the text.

use super::classes::{Kind, Kinds};

/// A known pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Of GPT-2.
    Gpt2,
    /// Of GPT-4 (`cl100k_base`) as tiktoken has it: white space at the end of a text is one piece, whatever is in it.
    Cl100k,
    /// The same without that, with at most so many digits in a piece: Llama 3 (3), Qwen (1).
    Gpt4 {
        /// Most digits of a piece.
        digits: usize,
    },
    /// Of GPT-4o.
    O200k,
}

impl Pattern {
    /// The pattern that is written so in a `tokenizer.json`.
    pub(super) fn named(regex: &str) -> Option<Self> {
        let gpt4 = |digits: &str| {
            let rest = regex.strip_prefix(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|");
            let signs = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
            rest.and_then(|rest| rest.strip_prefix(digits)) == Some(signs)
        };
        match regex {
            GPT2 => Some(Self::Gpt2),
            O200K => Some(Self::O200k),
            _ if gpt4(r"\p{N}{1,3}") => Some(Self::Gpt4 { digits: 3 }),
            _ if gpt4(r"\p{N}") => Some(Self::Gpt4 { digits: 1 }),
            _ => None,
        }
    }

    /// The end of the piece of `text` that starts at `at`, where there is a character.
    pub(super) fn next(self, kinds: Kinds, text: &str, at: usize) -> usize {
        let rest = Rest { kinds, text: text.get(at..).unwrap_or_default() };
        let len = match self {
            Self::Gpt2 => rest.gpt2(),
            Self::Cl100k => rest.gpt4(3, true),
            Self::Gpt4 { digits } => rest.gpt4(digits, false),
            Self::O200k => rest.o200k(),
        };
        at + len
    }
}

/// The pattern of GPT-2 as a `tokenizer.json` has it, where it is written out.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// The pattern of GPT-4o as a `tokenizer.json` has it.
pub(super) const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// What is left of a text; every position is one in bytes.
#[derive(Clone, Copy)]
struct Rest<'a> {
    kinds: Kinds,
    text: &'a str,
}

impl Rest<'_> {
    /// The character at `at`, its kind and its end.
    fn at(&self, at: usize) -> Option<(char, Kind, usize)> {
        let c = self.text.get(at..)?.chars().next()?;
        Some((c, self.kinds.of(c), at + c.len_utf8()))
    }

    fn kind(&self, at: usize) -> Option<Kind> {
        self.at(at).map(|(_, kind, _)| kind)
    }

    /// The end of the characters from `at` on that are `wanted`, at most `most`.
    fn run(&self, at: usize, most: usize, wanted: impl Fn(char, Kind) -> bool) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        let end = rest.char_indices().take(most).find(|&(_, c)| !wanted(c, self.kinds.of(c)));
        match end {
            Some((len, _)) => at + len,
            None if most == usize::MAX => self.text.len(),
            None => at + rest.char_indices().nth(most).map_or(rest.len(), |(len, _)| len),
        }
    }

    fn gpt2(&self) -> usize {
        if let Some(end) = self.contraction(0, false) {
            return end;
        }
        let after_blank = if self.text.starts_with(' ') { 1 } else { 0 };
        match self.kind(after_blank) {
            Some(kind) if kind.is_letter() => self.run(after_blank, usize::MAX, |_, kind| kind.is_letter()),
            Some(Kind::Number) => self.run(after_blank, usize::MAX, |_, kind| kind == Kind::Number),
            Some(kind) if kind.is_sign() => self.run(after_blank, usize::MAX, |_, kind| kind.is_sign()),
            _ => self.white_space(false, false),
        }
    }

    fn gpt4(&self, digits: usize, whole_end: bool) -> usize {
        if let Some(end) = self.contraction(0, true) {
            return end;
        }
        let Some((_, kind, second)) = self.at(0) else { return 0 };
        let letters = |from| self.run(from, usize::MAX, |_, kind| kind.is_letter());
        if kind.is_letter() {
            return letters(0);
        }
        let leads = matches!(kind, Kind::Space | Kind::Other | Kind::Mark);
        if leads && self.kind(second).is_some_and(Kind::is_letter) {
            return letters(second);
        }
        self.numbers_and_signs(digits, false, whole_end)
    }

    fn o200k(&self) -> usize {
        let upper = |kind| matches!(kind, Kind::Upper | Kind::Letter | Kind::Mark);
        let lower = |kind| matches!(kind, Kind::Lower | Kind::Letter | Kind::Mark);
        let Some((_, kind, second)) = self.at(0) else { return 0 };
        let leads = matches!(kind, Kind::Space | Kind::Other | Kind::Mark);
        // `lead? upper* lower+`, as many as there are, then back to the last that is both.
        let word = |from: usize| {
            let end = self.run(from, usize::MAX, |_, kind| upper(kind));
            if self.kind(end).is_some_and(lower) {
                return Some(self.run(end, usize::MAX, |_, kind| lower(kind)));
            }
            let run = self.text.get(from..end).unwrap_or_default();
            let last = run.char_indices().rev().find(|&(_, c)| lower(self.kinds.of(c)));
            last.map(|(at, c)| from + at + c.len_utf8())
        };
        let with_ending = |end| self.contraction(end, true).unwrap_or(end);
        let found = if leads { word(second).or_else(|| word(0)) } else { word(0) };
        if let Some(end) = found {
            return with_ending(end);
        }
        // `lead? upper+`: no lower one follows.
        let from = if leads { second } else { 0 };
        let end = self.run(from, usize::MAX, |_, kind| upper(kind));
        if end > from {
            return with_ending(end);
        }
        self.numbers_and_signs(3, true, false)
    }

    /// What comes after words in the patterns since GPT-4.
    fn numbers_and_signs(&self, digits: usize, slashes: bool, whole_end: bool) -> usize {
        if self.kind(0) == Some(Kind::Number) {
            return self.run(0, digits, |_, kind| kind == Kind::Number);
        }
        let after_blank = if self.text.starts_with(' ') { 1 } else { 0 };
        if self.kind(after_blank).is_some_and(Kind::is_sign) {
            let signs = self.run(after_blank, usize::MAX, |_, kind| kind.is_sign());
            return self.run(signs, usize::MAX, |c, kind| kind == Kind::Newline || slashes && c == '/');
        }
        self.white_space(true, whole_end)
    }

    /// `\s+$|\s*[\r\n]+|\s+(?!\S)|\s+`, the first only with `whole_end`, the second with `lines`.
    fn white_space(&self, lines: bool, whole_end: bool) -> usize {
        let run = self.text.get(..self.run(0, usize::MAX, |_, kind| kind.is_space())).unwrap_or_default();
        let is_end = run.len() == self.text.len();
        if is_end && (whole_end || !lines) {
            return run.len();
        }
        if let Some(last) = run.rfind(['\r', '\n']).filter(|_| lines) {
            return last + 1;
        }
        let last = run.char_indices().next_back().map_or(0, |(at, _)| at);
        // The last one goes with what follows it.
        if is_end || last == 0 { run.len() } else { last }
    }

    /// The end of `'s` and its like at `at`.
    fn contraction(&self, at: usize, any_case: bool) -> Option<usize> {
        let rest = self.text.get(at..)?.strip_prefix('\'')?;
        let mut chars = rest.chars().map(|c| match c {
            // As `(?i)` has it: the long s is an s.
            'ſ' if any_case => 's',
            c if any_case => c.to_ascii_lowercase(),
            c => c,
        });
        let (first, second) = (chars.next()?, chars.next());
        match (first, second) {
            ('s' | 't' | 'm' | 'd', _) => Some(at + 1 + rest.chars().next()?.len_utf8()),
            ('r' | 'v', Some('e')) | ('l', Some('l')) => Some(at + 3),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pattern: Pattern, text: &str) -> Vec<&str> {
        let (mut found, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let end = pattern.next(Kinds::get(), text, at);
            assert!(end > at, "{text:?} at {at}");
            found.push(&text[at..end]);
            at = end;
        }
        found
    }

    #[test]
    fn pieces_are_those_of_the_patterns() {
        let text = "It's  we'LL\r\n\n 12345 x,y!!\n/ \t";
        assert_eq!(
            pieces(Pattern::Gpt2, text),
            ["It", "'s", " ", " we", "'", "LL", "\r\n\n", " 12345", " x", ",", "y", "!!", "\n", "/", " \t"]
        );
        assert_eq!(
            pieces(Pattern::Cl100k, text),
            ["It", "'s", " ", " we", "'LL", "\r\n\n", " ", "123", "45", " x", ",y", "!!\n", "/", " \t"]
        );
        assert_eq!(
            pieces(Pattern::O200k, text),
            ["It's", " ", " we'LL", "\r\n\n", " ", "123", "45", " x", ",y", "!!\n/", " \t"]
        );
        assert_eq!(pieces(Pattern::Gpt4 { digits: 1 }, "12\u{17f}'\u{17f}a")[..3], ["1", "2", "\u{17f}"]);
        assert_eq!(pieces(Pattern::Cl100k, "a \n  "), ["a", " \n  "]);
        assert_eq!(pieces(Pattern::Gpt4 { digits: 3 }, "a \n  "), ["a", " \n", "  "]);
        assert_eq!(pieces(Pattern::O200k, "中ABc HTTPServer ΑΒ中Γ"), ["中ABc", " HTTPServer", " ΑΒ中", "Γ"]);
    }
}
