//! What a file of numbers holds that is read as 16-bit tokens, told by how its bytes are spread.
//!
//! A shard gives its small numbers to common tokens, uses the low byte of a token as evenly as its tokens allow, and has no
//! period of two or four. Every rule is about a spread that goes against this in nearly all of the file.

use super::likeness::{LOOKED_AT, Likeness, of};

/// Fewest 16-bit values whose spread says something.
const FEWEST_VALUES: usize = 64;
/// Fewest different values that are no matter of a few tokens.
const SEVERAL: usize = 8;

const NARROW: &str = "write 16-bit tokens with numpy's astype('uint16').tofile, or 32-bit ones below an llm.c header";
const SWAP: &str = "write them little-endian, with numpy's astype('<u2').tofile";

/// The beginning of a file as 16-bit values.
fn halves(file: &[u8]) -> Vec<u16> {
    file.get(..LOOKED_AT).unwrap_or(file).as_chunks().0.iter().map(|&two| u16::from_le_bytes(two)).collect()
}

/// Tokens of another width or byte order, or numbers that are no tokens.
pub(super) fn other_numbers(file: &[u8]) -> Option<Likeness> {
    let values = halves(file);
    if values.len() < FEWEST_VALUES {
        return None;
    }
    let by_width = file.len().is_multiple_of(4).then(|| wider(&values).or_else(|| floats(&values))).flatten();
    // The halves of two numbers of 16 bits would make one of 32.
    half_floats(&values).or(by_width).or_else(|| big_endian(&values))
}

/// Whether `holds` is true of at least `share` of `values`, of which there are some.
fn most<T>(values: &[T], share: f64, holds: impl Fn(&T) -> bool) -> bool {
    let count = values.iter().filter(|value| holds(value)).count();
    !values.is_empty() && count as f64 >= share * values.len() as f64
}

/// How many different ones there are.
fn different(values: &[u16]) -> Vec<u16> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

/// Tokens of 32 or 64 bits: what is above their low half only says the sign, or next to it.
fn wider(values: &[u16]) -> Option<Likeness> {
    let (quads, pairs) = (values.as_chunks::<4>().0, values.as_chunks::<2>().0);
    let extends = |low: u16, high: u16| high == 0 || high == u16::MAX && low >= 1 << 15;
    // A number below 2^22, or one next to zero.
    let is_id = |low: u16, high: u16| high < 64 || extends(low, high);
    // Runs of one number are no sign of a sign.
    let lows = different(&pairs.iter().map(|pair| pair[0]).collect::<Vec<_>>()).len();
    if pairs.iter().any(|pair| pair[1] == u16::MAX) && lows < 2 * SEVERAL {
        return None;
    }
    let is_long = |&[low, high, rest @ ..]: &[u16; 4]| {
        let sign = if extends(low, high) && high > 0 { high } else { 0 };
        is_id(low, high) && rest == [sign; 2]
    };
    if most(quads, 0.5, |quad| quad[0] > 0)
        && most(quads, 0.9, |quad| extends(quad[0], quad[1]))
        && quads.iter().all(is_long)
    {
        return Some(of(
            "64-bit tokens without a header (of every four 16-bit values the last three only say the sign)",
            NARROW,
        ));
    }
    let large = most(pairs, 0.5, |pair| pair[0] >= 256);
    let signs = |share| most(pairs, share, |pair| extends(pair[0], pair[1]));
    if most(pairs, 0.5, |pair| pair[0] > 0) && signs(1.0) {
        return Some(of("32-bit tokens without a header (every second 16-bit value only says the sign)", NARROW));
    }
    if large && signs(0.9) && pairs.iter().all(|pair| is_id(pair[0], pair[1])) {
        return Some(of("32-bit tokens without a header (nearly every second 16-bit value is zero)", NARROW));
    }
    // A vocabulary of more than 2^16 tokens, as Llama's.
    if large && pairs.iter().all(|pair| pair[1] < 8 || extends(pair[0], pair[1])) {
        return Some(of("32-bit tokens without a header (every second 16-bit value is below 8)", NARROW));
    }
    None
}

/// Floating-point numbers of 32 or 64 bits: whole ones, or ones of the sizes that are computed with.
fn floats(values: &[u16]) -> Option<Likeness> {
    let joined = |halves: &[u16]| halves.iter().rev().fold(0_u64, |bits, &half| bits << 16 | u64::from(half));
    let pairs: Vec<f64> =
        values.as_chunks::<2>().0.iter().map(|pair| f64::from(f32::from_bits(joined(pair) as u32))).collect();
    let quads: Vec<f64> = values.as_chunks::<4>().0.iter().map(|quad| f64::from_bits(joined(quad))).collect();
    for (numbers, width, what) in
        [(&quads, 4, "64-bit floating-point numbers"), (&pairs, 2, "32-bit floating-point numbers")]
    {
        let tops: Vec<u16> = values.iter().skip(width - 1).step_by(width).copied().collect();
        let bottoms: Vec<u16> = values.iter().step_by(width).copied().collect();
        let whole =
            |number: &f64| *number == 0.0 || number.fract() == 0.0 && (1.0..4_194_304.0).contains(&number.abs());
        let usual = |number: &f64| *number == 0.0 || (1e-6..1e4).contains(&number.abs());
        // What is below the exponent is spread over all of its bits.
        let spread = different(&bottoms).len() >= SEVERAL * SEVERAL && most(&bottoms, 0.3, |&low| low >= 1 << 15);
        let several = different(&tops).len() >= SEVERAL && most(numbers, 0.5, |number| *number != 0.0);
        if several && (most(numbers, 1.0, whole) || spread && most(numbers, 0.99, usual)) {
            return Some(of(what, NARROW));
        }
    }
    None
}

/// Tokens whose bytes are exchanged: the low byte as read is small, the high one is not. Zeros are neither way round.
fn big_endian(values: &[u16]) -> Option<Likeness> {
    let values: Vec<u16> = values.iter().copied().filter(|&value| value != 0).collect();
    let different = different(&values);
    let (low, high) = (|value: &u16| value & 0xff, |value: &u16| value >> 8);
    let multiples =
        values.len() * 4 >= FEWEST_VALUES && different.len() >= SEVERAL && values.iter().all(|v| low(v) == 0);
    let small_low = most(&values, 0.6, |value| low(value) < 16) && most(&different, 0.25, |value| low(value) < 16);
    let large_high = most(&values, 0.7, |value| high(value) >= 16);
    let exchanged = different.len() >= SEVERAL * SEVERAL && small_low && large_high;
    (multiples || exchanged).then_some(of("big-endian tokens (the high byte of each value comes first)", SWAP))
}

/// Floating-point numbers of 16 bits: whole ones, or ones on both sides of zero and hardly any next to it.
fn half_floats(values: &[u16]) -> Option<Likeness> {
    // Below 2048; of each exponent, so many of the ten bits are below the point.
    let whole = |&value: &u16| match value >> 10 {
        0 => value == 0,
        exponent @ 15..=25 => value.trailing_zeros() >= u32::from(25 - exponent),
        _ => false,
    };
    let kinds = different(values).len();
    let usual = |&value: &u16| (0x0400..0x4400).contains(&(value & 0x7fff));
    let negative = |&value: &u16| value >= 1 << 15;
    let symmetric = most(values, 0.35, negative) && most(values, 0.35, |value| !negative(value));
    let sizes = kinds >= SEVERAL * SEVERAL && symmetric && most(values, 0.99, usual);
    let counted = kinds >= SEVERAL && most(values, 0.5, |&value| value != 0) && values.iter().all(whole);
    (sizes || counted).then_some(of("16-bit floating-point numbers", NARROW))
}
