//! Where a text can be cut so that its parts make the tokens of the whole.
//!
//! A pattern first cuts a text into words, and a byte-level BPE makes tokens of each by itself. No word of GPT-2, GPT-4, GPT-4o,
//! Llama 3 or Qwen goes on over a space after something else, nor over a single line break before a letter or digit, and none
//! of their patterns looks behind. So a text is cut
//!
//! | before | after |
//! |---|---|
//! | a letter, digit or sign | a space |
//! | a letter, digit or sign, and a line break | a letter or digit |

use serde_json::Value;

use crate::data::Tokenizer;

/// Patterns in the `tokenizer.json` of models that the rule was made for: Llama 3, Qwen 2 and 3, GPT-4o, GPT-4.
const PATTERNS: [&str; 3] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// Whether the rule holds for `tokenizer`.
pub(super) fn can_cut(tokenizer: &Tokenizer) -> bool {
    match tokenizer {
        Tokenizer::Byte | Tokenizer::Char(_) | Tokenizer::Tiktoken(_) => true,
        Tokenizer::TokenizerJson(file) => {
            let parsed: Option<Value> = serde_json::from_str(file.text()).ok();
            parsed.is_some_and(|file| is_known(&file))
        }
    }
}

/// Whether a `tokenizer.json` makes words by a pattern that is known, and does nothing before.
fn is_known(file: &Value) -> bool {
    let normal = file.get("normalizer").is_none_or(|rule| rule.is_null() || rule["type"] == "NFC");
    // Those with a space in them would be found over a cut.
    let spaced = |token: &Value| token["content"].as_str().is_none_or(|content| content.contains(char::is_whitespace));
    let added = file["added_tokens"].as_array().is_some_and(|tokens| tokens.iter().any(spaced));
    let bytes = |rule: &Value, splits: bool| {
        rule["type"] == "ByteLevel"
            && rule["add_prefix_space"] == false
            && rule["use_regex"].as_bool().unwrap_or(true) == splits
    };
    let split = |rule: &Value| {
        let pattern = rule["pattern"]["Regex"].as_str().unwrap_or_default();
        rule["type"] == "Split"
            && rule["behavior"] == "Isolated"
            && rule["invert"] == false
            && PATTERNS.contains(&pattern)
    };
    let rule = &file["pre_tokenizer"];
    let words = match rule["pretokenizers"].as_array().map(Vec::as_slice) {
        Some([first, second]) => rule["type"] == "Sequence" && split(first) && bytes(second, false),
        Some(_) => false,
        None => bytes(rule, true),
    };
    normal && words && !added
}

/// The last place to cut `text`, which goes on behind it or is known to end there; `None` where there is none.
///
/// `text` may end in the middle of a character, and need not be UTF-8.
pub(super) fn last(text: &[u8]) -> Option<usize> {
    (1..text.len()).rev().find(|&at| can(text, at))
}

fn can(text: &[u8], at: usize) -> bool {
    match (text.get(at - 1), text.get(at)) {
        (Some(_), Some(b' ')) => is_word(before(text, at)),
        (Some(b'\n'), Some(_)) => is_word(before(text, at - 1)) && after(text, at).is_some_and(char::is_alphanumeric),
        _ => false,
    }
}

/// Something to see: no space of any kind, which the next word might begin with.
fn is_word(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || c.is_ascii_graphic())
}

/// The character that ends before `at`.
fn before(text: &[u8], at: usize) -> Option<char> {
    let start = (at.saturating_sub(4)..at).rev().find(|&start| text[start] & 0xc0 != 0x80)?;
    str::from_utf8(&text[start..at]).ok()?.chars().next_back()
}

/// The character that begins at `at`.
fn after(text: &[u8], at: usize) -> Option<char> {
    let first = *text.get(at)?;
    let length = if first < 0x80 { 1 } else { first.leading_ones() as usize };
    str::from_utf8(text.get(at..at + length)?).ok()?.chars().next()
}

/// The pieces of `text` of at most `size` bytes where it can be cut so, which are larger where it cannot.
pub(super) fn pieces(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = size;
        let at = loop {
            if end >= rest.len() {
                break rest.len();
            }
            if let Some(at) = last(&rest.as_bytes()[..end]) {
                break at;
            }
            end = end.saturating_mul(2);
        };
        let (piece, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TokenizerKind;
    use crate::rng::{Rng, Stream};

    /// Letters of many kinds, marks, digits, signs, and every kind of space.
    const ATOMS: [&str; 40] = [
        "a",
        "B",
        "don't",
        "'s",
        "'",
        "\u{2019}",
        "é",
        "e\u{301}",
        "\u{301}",
        "ß",
        "Ж",
        "日本",
        "。",
        "\u{0939}\u{093f}",
        "1",
        "2345",
        "½",
        "Ⅷ",
        "!",
        "//",
        "/",
        "-",
        "\"",
        "😀",
        "\u{200d}",
        " ",
        "  ",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\u{a0}",
        "\u{3000}",
        "\u{2028}",
        "\u{85}",
        "\u{b}",
        "\u{1c}",
        "\u{0}",
        "<|endoftext|>",
    ];

    fn text(rng: &mut Rng, atoms: usize) -> String {
        (0..atoms).map(|_| ATOMS[rng.below(ATOMS.len() as u64) as usize]).collect()
    }

    #[test]
    fn a_cut_changes_no_token_of_any_known_tokenizer() {
        let bpe = Tokenizer::of(&TokenizerKind::Bpe(300), &["the words of a text and the words of another"]).unwrap();
        let mut known = vec![bpe];
        for kind in [TokenizerKind::Gpt2, TokenizerKind::Cl100k, TokenizerKind::O200k] {
            known.push(Tokenizer::of(&kind, &[]).unwrap());
        }
        let (mut rng, mut cuts) = (Rng::new(7, Stream::Test, 0), 0);
        for _ in 0..300 {
            let text = text(&mut rng, 30);
            for tokenizer in &known {
                assert!(can_cut(tokenizer));
                let whole = tokenizer.encode(&text).unwrap();
                for at in (1..text.len()).filter(|&at| can(text.as_bytes(), at)) {
                    let (head, tail) = text.split_at(at);
                    let parts = [tokenizer.encode(head).unwrap(), tokenizer.encode(tail).unwrap()].concat();
                    assert_eq!(parts, whole, "{head:?} | {tail:?}");
                    cuts += 1;
                }
            }
        }
        assert!(cuts > 500, "{cuts}");
    }

    #[test]
    fn pieces_are_all_of_a_text() {
        let mut rng = Rng::new(3, Stream::Test, 0);
        for size in [1, 7, 50, 400] {
            let text = text(&mut rng, 200);
            assert_eq!(pieces(&text, size).collect::<String>(), text);
        }
        assert_eq!(pieces("日本語日本語", 4).count(), 1, "nowhere to cut");
        assert_eq!(pieces("one two three", 8).collect::<Vec<_>>(), ["one two", " three"]);
        assert_eq!(last(b"caf\xc3\xa9 au lait"), Some(8));
        for never in [&b"a\t b"[..], b"  b", b"a\n\nb", b"a\n /", b"\xff b", b"", b" ", b"a"] {
            assert_eq!(last(never), None, "{never:?}");
        }
    }
}
