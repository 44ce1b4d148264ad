//! Token shards: nanoGPT's and llm.c's `.bin` files.
//!
//! What must be accepted, and with which tokens, is told here a second time from the table of formats alone.

use std::path::Path;

use tokenformer::data::ShardView;
use tokenformer::error::Result;

use crate::attack::Target;
use crate::dice::Dice;

const HEADER_WORDS: usize = 256;
/// Magic, version and bytes of a token of llm.c's formats.
const FORMATS: [(i32, i32, usize); 2] = [(20_240_520, 1, 2), (20_240_801, 7, 4)];

/// A file, and what its tokens are to be below.
#[derive(Debug)]
struct Input {
    bytes: Vec<u8>,
    vocab: usize,
    /// Tokens `.0..+.1` are asked for besides all of them.
    window: (usize, usize),
}

impl AsRef<[u8]> for Input {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn file(dice: &mut Dice, vocab: usize) -> Vec<u8> {
    let count = if dice.one_in(16) { dice.below(2000) } else { dice.below(20) };
    let token = |dice: &mut Dice| if dice.one_in(64) { dice.bits() } else { dice.below(vocab) as u64 };
    let Some(&(magic, version, width)) = FORMATS.get(dice.below(3)) else {
        return (0..count).flat_map(|_| (token(dice) as u16).to_le_bytes()).collect();
    };
    let mut header = vec![0_i32; HEADER_WORDS];
    (header[0], header[1], header[2]) = (magic, version, count as i32);
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend((0..count).flat_map(|_| token(dice).to_le_bytes()[..width].to_vec()));
    for _ in 0..dice.few(3) {
        match dice.below(4) {
            0 => set_word(&mut bytes, dice.below(3), dice.extreme() as i32),
            1 => set_word(&mut bytes, 0, FORMATS[dice.below(2)].0),
            2 => set_word(&mut bytes, 1, FORMATS[dice.below(2)].1),
            // The count that fits the size again, or one beside it.
            _ => {
                let words = (bytes.len() as i32 - 4 * HEADER_WORDS as i32) / FORMATS[dice.below(2)].2 as i32;
                set_word(&mut bytes, 2, words + dice.few(2) as i32);
            }
        }
    }
    bytes
}

fn set_word(bytes: &mut [u8], at: usize, value: i32) {
    if let Some(word) = bytes.get_mut(at * 4..at * 4 + 4) {
        word.copy_from_slice(&value.to_le_bytes());
    }
}

fn make(dice: &mut Dice) -> Input {
    let vocab = match dice.below(8) {
        0 => dice.below(8),
        1 => usize::MAX,
        2 => 1 << 16,
        _ => [257, 50_257, 128_256][dice.below(3)],
    };
    let mut bytes = file(dice, vocab.clamp(1, 1 << 32));
    if dice.one_in(3) {
        let other = file(dice, 50_257);
        for _ in 0..=dice.few(4) {
            dice.damage(&mut bytes, &other);
        }
    }
    let number = |dice: &mut Dice| if dice.one_in(4) { dice.extreme() as usize } else { dice.below(40) };
    Input { bytes, vocab, window: (number(dice), number(dice)) }
}

/// All tokens, and those of the window that was asked for.
fn parse(input: &Input) -> Result<(Vec<u32>, Result<Vec<u32>>)> {
    let view = ShardView::new(Path::new("shard.bin"), &input.bytes, input.vocab)?;
    let (start, len) = input.window;
    Ok((view.window(0, view.count())?, view.window(start, len)))
}

/// The tokens of a file whose form is right.
fn expected(file: &[u8]) -> Option<Vec<u32>> {
    let word = |at: usize| Some(i32::from_le_bytes(file.get(at * 4..at * 4 + 4)?.try_into().unwrap()));
    let (body, width) = match FORMATS.iter().find(|format| Some(format.0) == word(0)) {
        None => (file, 2),
        Some(&(_, version, width)) => {
            let body = file.get(4 * HEADER_WORDS..)?;
            (word(1) == Some(version) && i64::from(word(2)?) * width as i64 == body.len() as i64)
                .then_some((body, width))?
        }
    };
    let without_header = body.len() == file.len();
    if without_header && (looks_wider(file) || looks_like_text(file)) {
        return None;
    }
    let whole = !body.is_empty() && body.len().is_multiple_of(width);
    let token = |bytes: &[u8]| bytes.iter().rev().fold(0, |token, &byte| token << 8 | u32::from(byte));
    whole.then(|| body.chunks(width).map(token).collect())
}

/// Whether at least 64 tokens of 16 bits, or the first 2^16 of them, are what wider ones are read as: the others zero in all of
/// the places of high halves, or below 8 where the low halves are large, and at least half of the low halves not zero.
fn looks_wider(file: &[u8]) -> bool {
    let values: Vec<u16> = file.chunks_exact(2).take(1 << 16).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
    let quads: Vec<&[u16]> = values.chunks_exact(4).collect();
    if quads.len() < 16 || !file.len().is_multiple_of(4) {
        return false;
    }
    let pairs: Vec<&[u16]> = values[..quads.len() * 4].chunks_exact(2).collect();
    let half = |holding: usize, of: usize| holding * 2 >= of;
    let of_64 = quads.iter().all(|quad| quad[1..] == [0; 3])
        && half(quads.iter().filter(|quad| quad[0] > 0).count(), quads.len());
    let of_32 =
        pairs.iter().all(|pair| pair[1] == 0) && half(pairs.iter().filter(|pair| pair[0] > 0).count(), pairs.len());
    let large = pairs.iter().filter(|pair| pair[0] >= 256).count();
    of_64 || of_32 || pairs.iter().all(|pair| pair[1] < 8) && half(large, pairs.len())
}

/// Whether the first 2^17 bytes are text: at least 32 of ASCII or 256 of any encoding, no control character, 8 different ones.
fn looks_like_text(file: &[u8]) -> bool {
    let looked_at = &file[..file.len().min(1 << 17)];
    let control = |byte: &u8| *byte < 0x20 && !b"\t\n\x0c\r".contains(byte) || *byte == 0x7f;
    let different: std::collections::BTreeSet<&u8> = looked_at.iter().collect();
    let enough = looked_at.len() >= if looked_at.is_ascii() { 32 } else { 256 };
    enough && !looked_at.iter().any(control) && different.len() >= 8
}

fn check(input: &Input, parsed: Option<(Vec<u32>, Result<Vec<u32>>)>) -> Result<(), String> {
    let sound = expected(&input.bytes).filter(|tokens| tokens.iter().all(|&token| (token as usize) < input.vocab));
    if parsed.as_ref().map(|(tokens, _)| tokens) != sound.as_ref() {
        return Err(format!("the parser says {parsed:?}, the format {sound:?}"));
    }
    let Some((tokens, window)) = parsed else { return Ok(()) };
    let (start, len) = input.window;
    let asked = start.checked_add(len).and_then(|end| tokens.get(start..end));
    if window.as_deref().ok() != asked {
        return Err(format!("tokens {start}..{start}+{len} are {window:?}, not {asked:?}"));
    }
    Ok(())
}

const REFUSALS: &[&str] =
    &["is empty", "an even number", "is truncated", "of version", "tokens of", "but vocab_size is", "32-bit tokens"];

#[test]
fn shard() {
    Target { name: "shard", cases: 1_000_000, make, parse, check, refusals: REFUSALS }.attack();
}

/// The largest files that there are take no longer: only a sample is looked at when they are opened.
#[test]
fn shard_of_any_size() {
    let open =
        |input: &Input| ShardView::new(Path::new("shard.bin"), &input.bytes, input.vocab).map(|view| view.count());
    let check = |input: &Input, count: Option<usize>| match count {
        Some(count) if count != input.bytes.len() / 2 => Err(format!("{count} tokens")),
        _ => Ok(()),
    };
    let target = Target { name: "shard", cases: 0, make, parse: open, check, refusals: &[] };
    for len in [1 << 17, 1 << 20, (1 << 25) + 2, 3 << 27] {
        let mut input = Input { bytes: vec![1; len], vocab: 258, window: (0, 0) };
        let verdict = target.judge(&input).unwrap();
        assert_eq!(verdict.refusal, None);
        println!("{len} bytes opened in {:?}", verdict.time);
        input.bytes.push(0);
        assert!(target.judge(&input).unwrap().refusal.is_some());
    }
}
