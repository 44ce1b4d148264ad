//! Where a text can be cut so that its parts make the tokens of the whole.
//!
//! A pattern first cuts a text into words, and a byte-level BPE makes tokens of each by itself. No word of GPT-2, GPT-4, GPT-4o,
//! Llama 3 or Qwen goes on over a space after something else, nor over a single line break before a letter or digit, and none
//! of their patterns looks behind. So where [`Tokenizer::cuts_at_words`](crate::data::Tokenizer::cuts_at_words) says so, a text
//! is cut
//!
//! | before | after |
//! |---|---|
//! | a letter, digit or sign | a space |
//! | a letter, digit or sign, and a line break | a letter or digit |

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
    use crate::data::Tokenizer;
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
                assert!(tokenizer.cuts_at_words());
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
