//! The documents in a batch, or what is wrong with them.

use std::borrow::Cow;

use super::batch::{Batch, Work};
use super::json;
use super::split::Split;
use crate::data::encoding;
use crate::data::lookalike;

/// A document, or a piece of one.
pub(super) struct Document<'a> {
    pub text: Cow<'a, [u8]>,
    /// Number of the line or row, from 1; `None` for a whole file.
    pub record: Option<u64>,
    /// Where it was decided already.
    pub split: Option<Split>,
    /// Whether the document ends with it.
    pub ends: bool,
}

/// A record that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    /// Number of the line or row, from 1; `None` for a whole file.
    pub record: Option<u64>,
    pub why: String,
}

/// Calls `each` with every document of `batch`, in order. `key` is where the text of a line is; `bytes` says whether text that
/// is not UTF-8 will do.
pub(super) fn each(batch: &Batch, key: &str, bytes: bool, each: &mut dyn FnMut(Result<Document<'_>, Bad>)) {
    let record = |index: usize| Some(batch.at.record + index as u64 + 1);
    let whole = |text, record| Document { text, record, split: None, ends: true };
    match &batch.work {
        Work::Bad(why) => {
            let in_lines = batch.after.record > batch.at.record;
            each(Err(Bad { record: record(0).filter(|_| in_lines), why: why.clone() }));
        }
        Work::Piece { bytes: text, split, ends } => match str::from_utf8(text) {
            Err(error) if !bytes => {
                let why = not_utf8(text, error.valid_up_to(), batch.at.offset);
                // The start of it may be written already.
                each(Err(Bad { record: None, why }));
            }
            _ => each(Ok(Document { text: Cow::Borrowed(text), record: None, split: Some(*split), ends: *ends })),
        },
        Work::Lines(lines) => {
            let mut rest = &lines[..];
            for index in 0_usize.. {
                if rest.is_empty() {
                    return;
                }
                let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
                let (line, after) = rest.split_at(end);
                rest = after;
                let first = batch.at.offset == 0 && index == 0;
                let line = if first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let text = match str::from_utf8(line) {
                    Ok(line) => json::text(line, key).map(|text| match text {
                        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                    }),
                    Err(error) => Err(not_utf8(line, error.valid_up_to(), 0)),
                };
                each(text.map(|text| whole(text, record(index))).map_err(|why| Bad { record: record(index), why }));
            }
        }
        Work::Rows(rows) => {
            for (index, row) in rows.iter().enumerate() {
                let why = |why: String| Bad { record: record(index), why };
                let text = match row {
                    Err(reason) => Err(why(reason.clone())),
                    Ok(text) if text.is_empty() => Err(why(format!("its {key:?} is empty"))),
                    Ok(text) => match str::from_utf8(text) {
                        Ok(_) => Ok(whole(Cow::Borrowed(&text[..]), record(index))),
                        Err(error) => Err(why(not_utf8(text, error.valid_up_to(), 0))),
                    },
                };
                each(text);
            }
        }
    }
}

fn not_utf8(bytes: &[u8], at: usize, offset: u64) -> String {
    if offset == 0
        && let Some(encoding) = encoding::wide(bytes)
    {
        return format!("it is {encoding}, not UTF-8: convert it with `iconv -f {encoding} -t UTF-8`");
    }
    if offset == 0
        && let Some(found) = lookalike::binary(bytes)
    {
        return format!("it is not UTF-8, but looks like {}; {}", found.what, found.remedy);
    }
    let byte = bytes.get(at).copied().unwrap_or_default();
    format!("it is not UTF-8 (byte 0x{byte:02x} at offset {})", offset + at as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::prepare::batch::Position;

    fn found(work: Work, bytes: bool) -> Vec<Result<String, Bad>> {
        let at = Position { offset: 0, record: 10, ..Position::default() };
        let mut all = Vec::new();
        let batch = Batch { at, after: Position { record: 11, ..at }, work };
        each(&batch, "text", bytes, &mut |found| {
            all.push(found.map(|found| String::from_utf8_lossy(&found.text).into_owned()))
        });
        all
    }

    #[test]
    fn lines_are_numbered_and_empty_ones_are_none() {
        let lines = b"\xef\xbb\xbf{\"text\": \"a\"}\r\n\r\n  \n{\"text\": \"b\xff\"}\n{\"text\": 1}\n{\"text\": \"c\"}"
            .to_vec();
        let all = found(Work::Lines(lines), false);
        assert_eq!((&all[0], &all[3]), (&Ok("a".to_owned()), &Ok("c".to_owned())));
        assert!(
            matches!(&all[1], Err(Bad { record: Some(14), why }) if why.contains("0xff at offset 11")),
            "{:?}",
            all[1]
        );
        assert!(matches!(&all[2], Err(Bad { record: Some(15), why }) if why.contains("a number")), "{:?}", all[2]);
    }

    #[test]
    fn a_text_of_another_encoding_is_named() {
        let piece = |bytes: &[u8]| Work::Piece { bytes: bytes.to_vec(), split: Split::Train, ends: true };
        let said = |bytes: &[u8]| found(piece(bytes), false).remove(0).unwrap_err().why;
        assert!(said(b"\xff\xfea\0b\0").contains("iconv -f UTF-16 -t UTF-8"), "{}", said(b"\xff\xfea\0b\0"));
        assert!(said(b"\x1f\x8b\x08\0\xff\xff").contains("gzip"));
        assert_eq!(said(b"caf\xe9"), "it is not UTF-8 (byte 0xe9 at offset 3)");
        assert!(found(piece(b"caf\xe9"), true).remove(0).is_ok());
    }
}
