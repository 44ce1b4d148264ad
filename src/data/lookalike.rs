//! What a file is whose name promises something else: told by how its kind begins, or by how its bytes are spread.
//!
//! Tokens of 16 bits may be any bytes, so every rule here is one that no shard meets by chance: a long signature, bytes of
//! which none is a control character, or zeros in every second place and hardly anywhere else.

/// Fewest 16-bit values whose zeros say something.
const FEWEST_VALUES: usize = 64;
/// Fewest different bytes of a text.
const FEWEST_LETTERS: usize = 8;
/// Bytes that are looked at.
const LOOKED_AT: usize = 1 << 17;

/// What a file looks like, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Likeness {
    /// As in "looks like".
    pub what: &'static str,
    /// As after "; ".
    pub remedy: &'static str,
}

const fn of(what: &'static str, remedy: &'static str) -> Likeness {
    Likeness { what, remedy }
}

const UNPACK: &str = "unpack it, and name what was in it";
const WEIGHTS: &str = "it holds a model's weights: name the text or the tokens to train on";
const TABLE: &str = "write its text to a .txt file, or its tokens with numpy's astype('uint16').tofile";
const ARRAY: &str = "write its values alone, with numpy.load(FILE).astype('uint16').tofile('tokens.bin')";
const PICKLE: &str = "write its tokens with numpy.array(TOKENS, 'uint16').tofile('tokens.bin')";
const RENAME: &str = "give it a name that does not end in .bin to train on it as text";
const EXTRACT: &str = "write the text in it to a .txt file and train on that";
const NARROW: &str = "write 16-bit tokens with numpy's astype('uint16').tofile, or 32-bit ones below an llm.c header";

/// Files that begin in a way of their own.
const SIGNATURES: &[(&[u8], Likeness)] = &[
    (b"\x93NUMPY", of("a NumPy array (.npy)", ARRAY)),
    (b"PK\x03\x04", of("a zip archive, such as .npz or .pt", UNPACK)),
    (b"\x1f\x8b\x08", of("a file packed with gzip", UNPACK)),
    (b"\x28\xb5\x2f\xfd", of("a file packed with zstd", UNPACK)),
    (b"\xfd7zXZ\0", of("a file packed with xz", UNPACK)),
    (b"BZh91AY&SY", of("a file packed with bzip2", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", of("a 7z archive", UNPACK)),
    (b"GGUF", of("a GGUF file", WEIGHTS)),
    (b"PAR1", of("a Parquet file", TABLE)),
    (b"ARROW1\0\0", of("an Arrow file", TABLE)),
    (b"\x89HDF\r\n\x1a\n", of("an HDF5 file", TABLE)),
    (b"SQLite format 3\0", of("an SQLite database", TABLE)),
    (b"%PDF-1.", of("a PDF file", EXTRACT)),
    // torch.save before version 1.6.
    (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", of("a file of torch.save", PICKLE)),
];

/// A kind of binary file that is neither text nor tokens.
pub(super) fn binary(file: &[u8]) -> Option<Likeness> {
    let signed = SIGNATURES.iter().find(|(signature, _)| file.starts_with(signature)).map(|(_, likeness)| *likeness);
    signed
        .or_else(|| is_safetensors(file).then_some(of("a safetensors file", WEIGHTS)))
        .or_else(|| is_arrow_stream(file).then_some(of("an Arrow stream", TABLE)))
        .or_else(|| is_pickle(file).then_some(of("a Python pickle", PICKLE)))
}

/// What a file is that is read as 16-bit tokens without a header, if it is something else.
pub(super) fn not_a_shard(file: &[u8]) -> Option<Likeness> {
    binary(file).or_else(|| text(file)).or_else(|| wider(file))
}

/// A header of JSON, below its length.
fn is_safetensors(file: &[u8]) -> bool {
    let Some((length, rest)) = file.split_first_chunk() else { return false };
    let length = u64::from_le_bytes(*length);
    rest.starts_with(b"{\"") && (2..rest.len() as u64 + 1).contains(&length)
}

/// A continuation mark, the length of the schema, and where its table is.
fn is_arrow_stream(file: &[u8]) -> bool {
    let length = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
    let rest = file.strip_prefix(b"\xff\xff\xff\xff").and_then(|rest| rest.split_first_chunk());
    rest.is_some_and(|(size, rest)| {
        length(size) >= 8 && length(size).is_multiple_of(8) && rest.starts_with(&[0x10, 0, 0, 0])
    })
}

/// Protocol 4 or 5 with a frame that fits the file, or an earlier one that begins and ends as they do.
fn is_pickle(file: &[u8]) -> bool {
    match file {
        [0x80, 4 | 5, 0x95, rest @ ..] => {
            let Some((frame, rest)) = rest.split_first_chunk() else { return false };
            let frame = u64::from_le_bytes(*frame);
            (1..=rest.len() as u64).contains(&frame)
        }
        [0x80, 2 | 3, b']' | b'}', b'q', 0, .., b'.'] => true,
        _ => false,
    }
}

/// Text of any encoding that keeps ASCII: no token below 8192 but for a handful has bytes that are none of them control
/// characters.
fn text(file: &[u8]) -> Option<Likeness> {
    let looked_at = file.get(..LOOKED_AT).unwrap_or(file);
    let printed = |byte: &u8| matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | 0x20..=0x7e | 0x80..);
    let ascii = looked_at.is_ascii();
    if looked_at.len() < if ascii { 32 } else { 256 } || !looked_at.iter().all(printed) || !is_varied(looked_at) {
        return None;
    }
    let first = looked_at.trim_ascii_start();
    let json = (first.starts_with(b"{") || first.starts_with(b"[")) && looked_at.contains(&b'"');
    Some(if json { of("JSON text", EXTRACT) } else { of("plain text", RENAME) })
}

/// A token that stands over and over is no text, whatever its bytes.
fn is_varied(bytes: &[u8]) -> bool {
    let mut seen = [false; 256];
    bytes.iter().for_each(|&byte| seen[usize::from(byte)] = true);
    seen.iter().filter(|seen| **seen).count() >= FEWEST_LETTERS
}

/// Tokens of 32 or 64 bits: their high halves are zero, or next to it.
fn wider(file: &[u8]) -> Option<Likeness> {
    let values: Vec<u16> =
        file.get(..LOOKED_AT).unwrap_or(file).as_chunks().0.iter().map(|&two| u16::from_le_bytes(two)).collect();
    // The values in place `at` of every `width`, of which there are as many in every place.
    let whole = values.len() / 4 * 4;
    if whole < FEWEST_VALUES || !file.len().is_multiple_of(4) {
        return None;
    }
    let values = values.get(..whole).unwrap_or_default();
    let in_place = |at: usize, width: usize| values.iter().skip(at).step_by(width).copied();
    let mostly = |at: usize, width: usize, holds: fn(u16) -> bool| {
        in_place(at, width).filter(|&value| holds(value)).count() * 2 * width >= whole
    };
    let zero = |at: usize, width: usize| in_place(at, width).all(|value| value == 0);
    let some = |value: u16| value > 0;
    if mostly(0, 4, some) && (1..4).all(|at| zero(at, 4)) {
        return Some(of(
            "64-bit tokens without a header (of every four 16-bit values the last three are zero)",
            NARROW,
        ));
    }
    if mostly(0, 2, some) && zero(1, 2) {
        return Some(of("32-bit tokens without a header (every second 16-bit value is zero)", NARROW));
    }
    // A vocabulary of more than 2^16 tokens, as Llama's.
    if mostly(0, 2, |value| value >= 256) && in_place(1, 2).all(|value| value < 8) {
        return Some(of("32-bit tokens without a header (every second 16-bit value is below 8)", NARROW));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(tokens: impl Iterator<Item = u64>) -> Vec<u8> {
        tokens.flat_map(|token| token.to_le_bytes()[..N].to_vec()).collect()
    }

    /// Numbers below `below` in no order.
    fn tokens(count: u64, below: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |at| (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33).map(move |token| token % below)
    }

    #[test]
    fn tokens_of_another_width_are_named() {
        let named = |file: &[u8]| not_a_shard(file).map_or("", |likeness| likeness.what).to_owned();
        for below in [2, 58, 256, 5000, 50_257] {
            assert_eq!(named(&bytes::<2>(tokens(2000, below))), "", "{below}");
            assert!(named(&bytes::<4>(tokens(2000, below))).starts_with("32-bit tokens"), "{below}");
            assert!(named(&bytes::<8>(tokens(2000, below))).starts_with("64-bit tokens"), "{below}");
        }
        assert!(named(&bytes::<4>(tokens(2000, 128_256))).contains("below 8"));
    }

    #[test]
    fn no_shard_is_taken_for_something_else() {
        // One token over and over, zeros with few others, every other token a separator, a few tokens only.
        let separated = (0..2000).map(|at| if at % 2 == 0 { 0 } else { at % 50 });
        let rare = (0..2000).map(|at| u64::from(at % 400 == 0));
        let cases = [
            bytes::<2>(tokens(4000, 1)),
            bytes::<2>((0..2000).map(|_| 640)),
            bytes::<2>((0..2000).map(|at| 0x2020 + at % 3)),
            bytes::<2>(separated),
            bytes::<2>(rare),
            bytes::<2>(tokens(30, 2)),
        ];
        for case in cases {
            assert_eq!(not_a_shard(&case), None);
        }
        // The byte tokens of an ASCII text are UTF-16 as well.
        assert_eq!(not_a_shard(&bytes::<2>("To be, or not to be.\n".bytes().cycle().take(900).map(u64::from))), None);
    }

    #[test]
    fn files_of_other_kinds_are_named() {
        let after = |head: &[u8]| [head, &[7; 300]].concat();
        for (file, named) in [
            (after(b"\x93NUMPY\x01\x00v\x00"), "NumPy"),
            (after(b"PK\x03\x04"), "zip"),
            (after(b"\x1f\x8b\x08\x00"), "gzip"),
            (after(b"\x28\xb5\x2f\xfd"), "zstd"),
            (after(b"GGUF\x03\0\0\0"), "GGUF"),
            (after(b"\x40\0\0\0\0\0\0\0{\"a\":{}}"), "safetensors"),
            (after(b"PAR1"), "Parquet"),
            (after(b"ARROW1\0\0"), "Arrow file"),
            (after(b"\xff\xff\xff\xff\xf0\0\0\0\x10\0\0\0"), "Arrow stream"),
            (after(b"\x80\x04\x95\x20\0\0\0\0\0\0\0]"), "pickle"),
            (b"{\"text\": \"one\"}\n".repeat(9), "JSON"),
            (b"[\"one\", \"two\", \"three\", \"four\", 5]".to_vec(), "JSON"),
            (b"To be, or not to be, that is the question.\r\n".to_vec(), "plain text"),
            ("Être ou ne pas être, c'est la question. ".repeat(9).into_bytes(), "plain text"),
            (b"caf\xe9 au lait, ".repeat(40), "plain text"),
        ] {
            let found = not_a_shard(&file).map_or("nothing", |likeness| likeness.what);
            assert!(found.contains(named), "{named}: {found}");
        }
    }
}
