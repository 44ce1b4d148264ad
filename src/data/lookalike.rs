//! What a file is whose name promises something else: told by how its kind begins, or by how its bytes are spread.
//!
//! Tokens of 16 bits may be any bytes, so every rule here is one that no shard meets by chance: a long signature, bytes of
//! which none is a control character, or numbers spread as those of no shard are (`spread`).

use super::likeness::{LOOKED_AT, Likeness, of};
use super::spread;

/// Most characters below a byte order mark that may be tokens by chance.
const SHORTEST: usize = 4;
/// Fewest different bytes of a text.
const FEWEST_LETTERS: usize = 8;

const UNPACK: &str = "unpack it, and name what was in it";
const WEIGHTS: &str = "it holds a model's weights: name the text or the tokens to train on";
const TABLE: &str = "write its text to a .txt file, or its tokens with numpy's astype('uint16').tofile";
const ARRAY: &str = "write its values alone, with numpy.load(FILE).astype('uint16').tofile('tokens.bin')";
const PICKLE: &str = "write its tokens with numpy.array(TOKENS, 'uint16').tofile('tokens.bin')";
const RENAME: &str = "give it a name that does not end in .bin to train on it as text";
const RECODE: &str = "convert it to UTF-8 with `iconv`, and give it a name that does not end in .bin";
const EXTRACT: &str = "write the text in it to a .txt file and train on that";
const MEDIA: &str = "train on text, or on tokens made of it";

/// Files that begin in a way of their own.
const SIGNATURES: &[(&[u8], Likeness)] = &[
    (b"\x93NUMPY", of("a NumPy array (.npy)", ARRAY)),
    (b"PK\x03\x04", of("a zip archive, such as .npz or .pt", UNPACK)),
    (b"\x1f\x8b\x08", of("a file packed with gzip", UNPACK)),
    (b"\x28\xb5\x2f\xfd", of("a file packed with zstd", UNPACK)),
    (b"\xfd7zXZ\0", of("a file packed with xz", UNPACK)),
    (b"BZh91AY&SY", of("a file packed with bzip2", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", of("a 7z archive", UNPACK)),
    (b"\x04\x22\x4d\x18", of("a file packed with lz4", UNPACK)),
    (b"Rar!\x1a\x07", of("a RAR archive", UNPACK)),
    (b"PK\x05\x06", of("an empty zip archive", UNPACK)),
    (b"\x7fELF\x01\x01\x01", of("a program (ELF)", MEDIA)),
    (b"\x7fELF\x02\x01\x01", of("a program (ELF)", MEDIA)),
    (b"\xcf\xfa\xed\xfe", of("a program (Mach-O)", MEDIA)),
    (b"\0asm\x01\0\0\0", of("a WebAssembly program", MEDIA)),
    (b"\x89PNG\r\n\x1a\n", of("a PNG picture", MEDIA)),
    (b"\xff\xd8\xff\xe0\0\x10JFIF", of("a JPEG picture", MEDIA)),
    (b"GIF87a", of("a GIF picture", MEDIA)),
    (b"GIF89a", of("a GIF picture", MEDIA)),
    (b"OggS\0", of("an Ogg recording", MEDIA)),
    (b"fLaC\0\0\0", of("a FLAC recording", MEDIA)),
    (b"MMIDIDX\0\0", of("an index of Megatron (.idx)", "name the .bin file beside it")),
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
    let holds = |at: usize, bytes: &[u8]| file.get(at..).is_some_and(|rest| rest.starts_with(bytes));
    let exif = file.starts_with(b"\xff\xd8\xff\xe1") && holds(6, b"Exif\0");
    let riff = file.starts_with(b"RIFF") && [b"WAVE", b"AVI ", b"WEBP"].iter().any(|kind| holds(8, *kind));
    let program = file.starts_with(b"MZ") && {
        let at = file.get(0x3c..0x40).and_then(|at| at.try_into().ok()).map(u32::from_le_bytes);
        at.is_some_and(|at| holds(at as usize, b"PE\0\0"))
    };
    signed
        .or_else(|| holds(257, b"ustar").then_some(of("a tar archive", UNPACK)))
        .or_else(|| exif.then_some(of("a JPEG picture", MEDIA)))
        .or_else(|| riff.then_some(of("a recording or picture (RIFF)", MEDIA)))
        .or_else(|| holds(4, b"ftyp").then_some(of("a film or recording (MP4)", MEDIA)))
        .or_else(|| program.then_some(of("a program (PE)", MEDIA)))
        .or_else(|| is_safetensors(file).then_some(of("a safetensors file", WEIGHTS)))
        .or_else(|| is_arrow_stream(file).then_some(of("an Arrow stream", TABLE)))
        .or_else(|| is_pickle(file).then_some(of("a Python pickle", PICKLE)))
}

/// What a file is that is read as 16-bit tokens without a header, if it is something else.
pub(super) fn not_a_shard(file: &[u8]) -> Option<Likeness> {
    // Numbers before text: those below zero have no control characters.
    let numbers = || spread::other_numbers(file);
    binary(file).or_else(|| marked_text(file)).or_else(numbers).or_else(|| text(file))
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

/// Text of 16 or 32 bits a character below a byte order mark, all of which are characters that are printed.
fn marked_text(file: &[u8]) -> Option<Likeness> {
    let bytes = file.get(..LOOKED_AT).unwrap_or(file);
    let printed = |c: char| !c.is_control() || c.is_ascii_whitespace();
    let wide = |number: fn([u8; 4]) -> u32| {
        let all = bytes.as_chunks().0;
        all.len() > 1 && all.iter().all(|&four| char::from_u32(number(four)).is_some_and(printed))
    };
    let narrow = |number: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks().0.iter().map(|&two| number(two)).collect();
        // A pair may be cut at the end of what is looked at.
        let bad = |decoded: &Result<char, _>| !decoded.as_ref().is_ok_and(|&c| printed(c));
        let broken = char::decode_utf16(units.iter().copied()).filter(bad).count();
        units.len() > SHORTEST && broken <= usize::from(file.len() > bytes.len())
    };
    let is_utf32 = bytes.starts_with(b"\xff\xfe\0\0") && wide(u32::from_le_bytes)
        || bytes.starts_with(b"\0\0\xfe\xff") && wide(u32::from_be_bytes);
    let is_utf16 = bytes.starts_with(b"\xff\xfe") && narrow(u16::from_le_bytes)
        || bytes.starts_with(b"\xfe\xff") && narrow(u16::from_be_bytes);
    match (is_utf32, is_utf16) {
        (true, _) => Some(of("UTF-32 text", RECODE)),
        (_, true) => Some(of("UTF-16 text", RECODE)),
        _ => None,
    }
}

/// A token that stands over and over is no text, whatever its bytes.
fn is_varied(bytes: &[u8]) -> bool {
    let mut seen = [false; 256];
    bytes.iter().for_each(|&byte| seen[usize::from(byte)] = true);
    seen.iter().filter(|seen| **seen).count() >= FEWEST_LETTERS
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
        // Few above 2^16, some or all below zero.
        let few =
            || tokens(2000, 50_257).enumerate().map(|(at, token)| if at % 50 == 7 { 100_000 + token } else { token });
        let ignored =
            || tokens(2000, 5000).enumerate().map(|(at, token)| if at % 3 == 0 { u64::MAX - 99 } else { token });
        let negative = || tokens(2000, 100).map(|token| u64::MAX - token);
        for (four, eight) in [
            (bytes::<4>(few()), bytes::<8>(few())),
            (bytes::<4>(ignored()), bytes::<8>(ignored())),
            (bytes::<4>(negative()), bytes::<8>(negative())),
        ] {
            assert!(named(&four).starts_with("32-bit tokens"), "{}", named(&four));
            assert!(named(&eight).starts_with("64-bit tokens"), "{}", named(&eight));
        }
        for below in [58, 300, 5000] {
            let swapped: Vec<u8> = tokens(2000, below).flat_map(|token| (token as u16).to_be_bytes()).collect();
            assert!(named(&swapped).starts_with("big-endian"), "{below}: {}", named(&swapped));
        }
        // Bytes can be told from no shard: one that is padded has two bytes that are spread alike.
        let padded = tokens(2000, 50_257).enumerate().map(|(at, token)| if at % 20 == 0 { token } else { 0 });
        assert_eq!(named(&bytes::<2>(padded)), "");
    }

    #[test]
    fn floating_point_numbers_are_named() {
        let named = |file: Vec<u8>| not_a_shard(&file).map_or("", |likeness| likeness.what).to_owned();
        let weights = || tokens(4000, 20_000).map(|token| (token as f64 - 9_999.5) / 70_000.3);
        for numbers in [weights().collect(), tokens(4000, 58).map(|t| t as f64).collect::<Vec<f64>>()] {
            let f32s = numbers.iter().flat_map(|&number| (number as f32).to_le_bytes()).collect();
            let f64s = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            let bf16s = numbers.iter().flat_map(|&number| (((number as f32).to_bits() >> 16) as u16).to_le_bytes());
            assert!(named(f32s).starts_with("32-bit floating"));
            assert!(named(f64s).starts_with("64-bit floating"));
            if numbers.iter().any(|number| *number < 0.0) {
                assert!(named(bf16s.collect()).starts_with("16-bit floating"));
            }
        }
        // 1 to 16 in half precision.
        let halves = [0x3c00_u16, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800, 0x4880, 0x4900, 0x4c00];
        assert!(
            named(halves.into_iter().cycle().take(900).flat_map(u16::to_le_bytes).collect()).starts_with("16-bit f")
        );
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
            // All of 16 bits, a few common ones of them, tokens in pairs, and a long text by its most common words.
            bytes::<2>(tokens(40_000, 65_536)),
            bytes::<2>(tokens(4000, 60_000).enumerate().map(|(at, token)| if at % 3 > 0 { 0x2005 } else { token })),
            bytes::<2>(tokens(4000, 1024).enumerate().map(|(at, token)| token + 1024 * (at as u64 % 2))),
            bytes::<2>(tokens(4000, 1024).enumerate().map(|(at, token)| token + 16_000 * (at as u64 % 2))),
            bytes::<2>(tokens(60_000, 50_257).map(|token| token * token / 50_257 * token / 50_257)),
            bytes::<2>(tokens(4000, 5000).enumerate().map(|(at, token)| if at % 2 == 0 { token } else { 65_535 })),
            bytes::<2>(tokens(4000, 9000).map(|token| if token % 9 == 0 { 65_279 } else { token })),
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
        let utf16 = |text: &str, two: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(two).collect::<Vec<u8>>();
        for (file, named) in [
            (after(b"\x93NUMPY\x01\x00v\x00"), "NumPy"),
            (after(b"PK\x03\x04"), "zip"),
            (after(b"\x1f\x8b\x08\x00"), "gzip"),
            (after(b"\x28\xb5\x2f\xfd"), "zstd"),
            (after(b"GGUF\x03\0\0\0"), "GGUF"),
            (after(b"\x40\0\0\0\0\0\0\0{\"a\":{}}"), "safetensors"),
            (after(b"PAR1"), "Parquet"),
            (after(b"\x7fELF\x02\x01\x01\0"), "ELF"),
            (after(b"\x89PNG\r\n\x1a\n"), "PNG"),
            (after(b"\xff\xd8\xff\xe0\0\x10JFIF\0"), "JPEG"),
            (after(b"RIFF\x10\0\0\0WAVEfmt "), "RIFF"),
            (after(&[&[7; 257][..], b"ustar\x0000"].concat()), "tar"),
            (utf16("\u{feff}To be, or not", u16::to_le_bytes), "UTF-16"),
            (utf16("\u{feff}To be, or not", u16::to_be_bytes), "UTF-16"),
            ("\u{feff}To be".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(), "UTF-32"),
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
