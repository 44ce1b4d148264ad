//! How the characters of a file are written: UTF-8 is what is read, what else it looks like is said.

/// The byte order mark, which is no text, as a character.
pub(super) const MARK: char = '\u{feff}';

/// `text` without a byte order mark before it.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// An encoding of 16 or 32 bits a character that `bytes` look like, by the name that `iconv` knows.
pub(super) fn wide(bytes: &[u8]) -> Option<&'static str> {
    let marks: [(&[u8], &str); 4] =
        [(b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")];
    if let Some((_, name)) = marks.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return Some(name);
    }
    // Without a mark: most characters of most texts are below 256, and no text has as many NULs.
    let looked_at = bytes.get(..1 << 16).unwrap_or(bytes);
    let zeros = |at: usize, width: usize| {
        let values = looked_at.iter().skip(at).step_by(width);
        let (all, zero) =
            values.fold((0_usize, 0_usize), |(all, zero), &byte| (all + 1, zero + usize::from(byte == 0)));
        zero as f64 / all.max(1) as f64
    };
    let (few, most) = (0.02, 0.7);
    if looked_at.len() < 8 || !bytes.len().is_multiple_of(2) {
        None
    } else if bytes.len().is_multiple_of(4) && zeros(0, 4) < few && (2..4).all(|at| zeros(at, 4) > 0.98) {
        Some("UTF-32LE")
    } else if bytes.len().is_multiple_of(4) && zeros(3, 4) < few && (0..2).all(|at| zeros(at, 4) > 0.98) {
        Some("UTF-32BE")
    } else if zeros(0, 2) < few && zeros(1, 2) > most {
        Some("UTF-16LE")
    } else if zeros(1, 2) < few && zeros(0, 2) > most {
        Some("UTF-16BE")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_encodings_are_told_with_and_without_a_mark() {
        let text = "To be, or not to be: être où ne pas être.\r\n";
        let units: Vec<u16> = text.encode_utf16().collect();
        let wide16 = |bytes: fn(u16) -> [u8; 2]| units.iter().flat_map(|&unit| bytes(unit)).collect::<Vec<u8>>();
        let wide32 = |bytes: fn(u32) -> [u8; 4]| text.chars().flat_map(|c| bytes(c.into())).collect::<Vec<u8>>();
        let cases = [
            (wide16(u16::to_le_bytes), "UTF-16LE"),
            (wide16(u16::to_be_bytes), "UTF-16BE"),
            (wide32(u32::to_le_bytes), "UTF-32LE"),
            (wide32(u32::to_be_bytes), "UTF-32BE"),
        ];
        for (bytes, name) in &cases {
            assert_eq!(wide(bytes), Some(*name));
        }
        for (mark, bytes, name) in [
            (&b"\xff\xfe"[..], &cases[0].0, "UTF-16"),
            (b"\xfe\xff", &cases[1].0, "UTF-16"),
            (b"\xff\xfe\0\0", &cases[2].0, "UTF-32"),
            (b"\0\0\xfe\xff", &cases[3].0, "UTF-32"),
        ] {
            assert_eq!(wide(&[mark, bytes].concat()), Some(name));
        }
        for other in [text.as_bytes(), b"", b"ab", &[0; 100], b"a\0b and one NUL in it", "日本語の文".as_bytes()] {
            assert_eq!(wide(other), None, "{other:?}");
        }
    }

    #[test]
    fn only_a_mark_at_the_beginning_goes() {
        assert_eq!(without_mark("\u{feff}a\u{feff}"), "a\u{feff}");
        assert_eq!(without_mark("\u{feff}\u{feff}a"), "\u{feff}a");
    }
}
