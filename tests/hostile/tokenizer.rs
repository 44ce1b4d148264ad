//! The tokenizer inside a checkpoint: JSON that names the byte tokenizer, or lists the characters of the other.
//!
//! It is read straight from the text, and must be the same by way of a [`serde_json::Value`], as a checkpoint's reader
//! does it.

use std::collections::BTreeSet;

use tokenformer::data::{MAX_CHARS, StreamDecoder, Tokenizer};
use tokenformer::error::{Error, Result};

use crate::attack::Target;
use crate::dice::Dice;

/// A stored tokenizer, and tokens that a model may have drawn.
#[derive(Debug)]
struct Input {
    json: Vec<u8>,
    tokens: [u32; 6],
}

impl AsRef<[u8]> for Input {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// What is not a tokenizer, or only nearly.
const OTHERS: [&str; 16] = [
    "\"byte\"",
    "\"char\"",
    "{\"char\":\"\"}",
    "{\"byte\":null}",
    "{\"byte\":\"a\"}",
    "{\"char\":null}",
    "{\"char\":1e999}",
    "{\"char\":{\"chars\":\"ab\"}}",
    "{\"char\":[\"a\",\"b\"]}",
    "{\"char\":\"a\",\"char\":\"b\"}",
    "{\"char\":\"a\",\"byte\":null}",
    "null",
    "{}",
    "[]",
    "18446744073709551616",
    "{\"char\":\"\\ud800\"}",
];

fn character(dice: &mut Dice) -> char {
    let most = [0x80, 0x250, 0x1_0000, 0x11_0000][dice.below(4)];
    char::from_u32(dice.below(most) as u32).unwrap_or('\u{e000}')
}

/// A list of characters as JSON, each written raw or escaped.
fn list(dice: &mut Dice, chars: &[char]) -> String {
    let mut json = "{\"char\":\"".to_owned();
    for &c in chars {
        if c < ' ' || c == '"' || c == '\\' || dice.one_in(8) {
            let units = &mut [0; 2];
            for unit in c.encode_utf16(units) {
                json += &format!("\\u{unit:04x}");
            }
        } else {
            json.push(c);
        }
    }
    json + "\"}"
}

fn json(dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => dice.pick(&OTHERS).to_owned(),
        1 => {
            let depth = if dice.one_in(8) { dice.below(400) } else { dice.below(4) };
            let (open, close) = [("[", "]"), ("{\"char\":", "}"), ("{\"a\":[", "]}")][dice.below(3)];
            open.repeat(depth) + "\"ab\"" + &close.repeat(depth)
        }
        _ => {
            let count = if dice.one_in(32) { dice.below(600) } else { 1 + dice.below(12) };
            let sorted: BTreeSet<char> = (0..count).map(|_| character(dice)).collect();
            let mut chars: Vec<char> = sorted.into_iter().collect();
            for _ in 0..dice.few(2) {
                let other = character(dice);
                dice.shuffle(&mut chars, &[other]);
            }
            list(dice, &chars)
        }
    }
}

fn make(dice: &mut Dice) -> Input {
    let mut bytes = json(dice).into_bytes();
    if dice.one_in(3) {
        let other = json(dice);
        for _ in 0..=dice.few(4) {
            dice.damage(&mut bytes, other.as_bytes());
        }
    }
    let tokens = std::array::from_fn(|_| if dice.one_in(4) { dice.bits() as u32 } else { dice.below(300) as u32 });
    Input { json: bytes, tokens }
}

fn parse(input: &Input) -> Result<Tokenizer> {
    serde_json::from_slice(&input.json)
        .map_err(|cause| Error::input(format!("the tokenizer in the checkpoint is damaged: {cause}")))
}

fn check(input: &Input, parsed: Option<Tokenizer>) -> Result<(), String> {
    let value: Option<serde_json::Value> = serde_json::from_slice(&input.json).ok();
    // A value keeps the last of two equal keys, where the text is refused.
    let by_value = value.and_then(|value| serde_json::from_value::<Tokenizer>(value).ok());
    let Some(tokenizer) = parsed else { return by_value.map_or(Ok(()), |it| sound(&it)) };
    if by_value.as_ref() != Some(&tokenizer) {
        return Err(format!("as a value it is {by_value:?}"));
    }
    let written = serde_json::to_string(&tokenizer).map_err(|error| error.to_string())?;
    if serde_json::from_str::<Tokenizer>(&written).ok().as_ref() != Some(&tokenizer) {
        return Err(format!("written and read again it is another: {written}"));
    }
    sound(&tokenizer)?;
    decodes(&tokenizer, &input.tokens)
}

fn sound(tokenizer: &Tokenizer) -> Result<(), String> {
    let size = tokenizer.vocab_size();
    let Tokenizer::Char(list) = tokenizer else {
        return if size == 256 { Ok(()) } else { Err(format!("{size} bytes")) };
    };
    let chars = list.chars();
    if chars.len() != size || !(1..=MAX_CHARS).contains(&size) || !chars.is_sorted_by(|a, b| a < b) {
        return Err(format!("{size} characters, or they are not sorted: {chars:?}"));
    }
    let (text, all): (String, Vec<u32>) = (chars.iter().collect(), (0..size as u32).collect());
    if tokenizer.encode(&text).as_ref() != Ok(&all) || tokenizer.decode(&all) != text {
        return Err("its characters do not come back".to_owned());
    }
    let unknown = [char::MAX, '\0'].into_iter().find(|c| !chars.contains(c));
    match unknown.map(|c| tokenizer.encode(&c.to_string())) {
        Some(Ok(tokens)) => Err(format!("an unknown character became {tokens:?}")),
        _ => Ok(()),
    }
}

/// Tokens decode at once as they do one by one, and those outside the vocabulary show.
fn decodes(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<(), String> {
    let mut stream = StreamDecoder::new(tokenizer);
    let mut text: String = tokens.iter().map(|&token| stream.push(token)).collect();
    text += &stream.finish();
    let outside = tokens.iter().filter(|&&token| token as usize >= tokenizer.vocab_size());
    let shown = text.matches(char::REPLACEMENT_CHARACTER).count();
    if tokenizer.decode(tokens) != text || shown < outside.clone().count() {
        return Err(format!("{tokens:?} decodes to {text:?}"));
    }
    if outside.map(|&token| tokenizer.bytes_of(token)).sum::<usize>() > 0 {
        return Err("a token outside the vocabulary stands for bytes".to_owned());
    }
    Ok(())
}

const REFUSALS: &[&str] = &[
    "vocabulary lists",
    "vocabulary is empty",
    "unknown variant",
    "expected",
    "invalid type",
    "surrogate",
    "EOF",
    "trailing characters",
    "invalid unicode",
    "out of range",
    "control character",
];

#[test]
fn tokenizer() {
    Target { name: "tokenizer", cases: 500_000, make, parse, check, refusals: REFUSALS }.attack();
}

/// Long lists, whose fault comes early, late or never.
#[test]
fn tokenizer_of_any_size() {
    let target = Target { name: "tokenizer", cases: 0, make, parse, check, refusals: &[] };
    let ascending = |n: usize| ('\0'..=char::MAX).take(n).collect::<Vec<char>>();
    let mut lists = Vec::new();
    for n in [MAX_CHARS - 1, MAX_CHARS, MAX_CHARS + 1, 1 << 20] {
        lists.push((ascending(n), n <= MAX_CHARS));
        let mut swapped = ascending(n);
        swapped.swap(n - 2, n - 1);
        lists.push((swapped, false));
        lists.push((vec!['a'; n], false));
        lists.push((vec!['\n'; n], false));
    }
    let mut most = (0, std::time::Duration::ZERO);
    let mut judge = |what: &str, json: String| {
        let input = Input { json: json.into_bytes(), tokens: [0; 6] };
        let verdict = target.judge(&input).unwrap_or_else(|fault| panic!("{what}: {fault}"));
        most = (most.0.max(verdict.extra), most.1.max(verdict.time));
        verdict.refusal.is_none()
    };
    for (chars, sound) in lists {
        let json = list(&mut Dice::new(1, 0), &chars);
        assert_eq!(judge(&format!("{} of {:?}...", chars.len(), &chars[..2]), json), sound);
    }
    for unit in ["[", "{\"char\":", "\\u0061", "\\ud83d\\ude00", "\"", "1", "[],", " "] {
        judge(unit, unit.repeat(1 << 20));
        judge(unit, format!("{{\"char\":\"{}\"}}", unit.repeat(1 << 20)));
        judge(unit, format!("[{}]", unit.repeat(1 << 20)));
    }
    println!("most heap beyond 2 x input {} bytes, slowest {:?}", most.0, most.1);
}
