//! Reads inputs in order and hands them out in batches: whole lines, or a piece of a text.
//!
//! What is in a batch depends on the position alone, never on how the system delivers bytes or where an earlier process
//! stopped. It is not parsed here: one thread reads for all.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::batch::{BATCH, Batch, MOST, Position, Work};
use super::cut;
use super::inputs::Source;
use super::kind::Format;
use super::split::{Split, number_of};
use super::unpack::{self, Stream};
use crate::error::{Error, Result};

/// How inputs are read.
#[derive(Debug, Clone)]
pub(super) struct ReadRules {
    /// The share of documents that is validated on.
    pub val_fraction: f64,
    /// Where the part begins that is validated on, if one text is cut in two.
    pub val_from: Option<u64>,
    /// Whether a text may be cut at all.
    pub cuts: bool,
    /// The key or column of the text.
    #[cfg_attr(not(feature = "parquet"), allow(dead_code))]
    pub text_key: String,
}

/// The reader.
pub(super) struct Feed {
    sources: Arc<[Source]>,
    rules: ReadRules,
    position: Position,
    open: Option<Open>,
    /// Bytes read of the files themselves.
    read: Arc<AtomicU64>,
}

enum Open {
    Stream {
        stream: Stream,
        buffer: Vec<u8>,
        ended: bool,
    },
    #[cfg(feature = "parquet")]
    Table(super::table::Table),
}

impl Feed {
    /// Reads `sources` from `position` on, and counts in `read`.
    pub(super) fn new(sources: Arc<[Source]>, rules: ReadRules, position: Position, read: Arc<AtomicU64>) -> Self {
        Self { sources, rules, position, open: None, read }
    }

    /// The next batch; `None` at the end of the last source.
    pub(super) fn next(&mut self) -> Result<Option<Batch>> {
        while let Some(source) = self.sources.get(self.position.source).cloned() {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.opened(&source)?,
            };
            let batch = match (&mut open, source.kind.format) {
                (Open::Stream { stream, buffer, ended }, format) => {
                    let mut reading = Reading { source: &source, stream, buffer, ended };
                    match format {
                        Format::Lines => lines(&mut reading, self.position)?,
                        _ => piece(&mut reading, &self.rules, self.position)?,
                    }
                }
                #[cfg(feature = "parquet")]
                (Open::Table(table), _) => table.rows(self.position)?,
            };
            match batch {
                Some(batch) => {
                    self.position = batch.after;
                    if batch.after.source == batch.at.source {
                        self.open = Some(open);
                    }
                    return Ok(Some(batch));
                }
                None => self.position = Position::start_of(self.position.source + 1),
            }
        }
        Ok(None)
    }

    fn opened(&self, source: &Source) -> Result<Open> {
        #[cfg(feature = "parquet")]
        if source.kind.format == Format::Parquet {
            return super::table::Table::open(source, &self.rules.text_key, &self.read).map(Open::Table);
        }
        let stream = unpack::open(source, self.position.offset, &self.read)?;
        Ok(Open::Stream { stream, buffer: Vec::new(), ended: false })
    }
}

/// A stream, and what was read of it and not handed out.
struct Reading<'a> {
    source: &'a Source,
    stream: &'a mut Stream,
    buffer: &'a mut Vec<u8>,
    ended: &'a mut bool,
}

impl Reading<'_> {
    /// Reads until so many bytes are there, or the end.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        let missing = bytes.saturating_sub(self.buffer.len());
        if missing > 0 && !*self.ended {
            self.buffer.reserve_exact(missing);
            let read = self.stream.take(missing as u64).read_to_end(self.buffer);
            *self.ended = read.map_err(|cause| unpack::broken(self.source, &cause))? < missing;
        }
        Ok(())
    }

    /// The first so many bytes.
    fn cut_off(&mut self, bytes: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(bytes.min(self.buffer.len()));
        std::mem::replace(self.buffer, rest)
    }
}

/// Whole lines.
fn lines(reading: &mut Reading<'_>, at: Position) -> Result<Option<Batch>> {
    let mut size = BATCH;
    let end = loop {
        reading.fill(size)?;
        let found = memchr::memrchr(b'\n', reading.buffer.get(..size).unwrap_or(reading.buffer));
        match found {
            Some(last) if reading.buffer.len() >= size => break last + 1,
            _ if *reading.ended && reading.buffer.len() <= size => break reading.buffer.len(),
            _ if size >= MOST => return too_long(reading, at).map(Some),
            _ => size *= 4,
        }
    };
    if end == 0 {
        return Ok(None);
    }
    let bytes = reading.cut_off(end);
    let count = memchr::memchr_iter(b'\n', &bytes).count() as u64;
    let after = Position { offset: at.offset + end as u64, record: at.record + count, ..at };
    Ok(Some(Batch { at, after, work: Work::Lines(bytes) }))
}

/// Passes over a line that is too long.
fn too_long(reading: &mut Reading<'_>, at: Position) -> Result<Batch> {
    let mut passed = 0;
    loop {
        let end = memchr::memchr(b'\n', reading.buffer).map(|last| last + 1);
        passed += reading.cut_off(end.unwrap_or(reading.buffer.len())).len() as u64;
        if end.is_some() || *reading.ended {
            break;
        }
        reading.fill(BATCH)?;
    }
    let why = format!("it is longer than {} MB", MOST >> 20);
    let after = Position { offset: at.offset + passed, record: at.record + 1, ..at };
    Ok(Batch { at, after, work: Work::Bad(why) })
}

/// A piece of a text.
fn piece(reading: &mut Reading<'_>, rules: &ReadRules, at: Position) -> Result<Option<Batch>> {
    let starts = at.offset == 0 || rules.val_from == Some(at.offset);
    // Bytes to the place where validation begins.
    let to_val = rules.val_from.and_then(|from| from.checked_sub(at.offset)).filter(|bytes| *bytes > 0);
    let room = to_val.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
    let mut size = if rules.cuts { BATCH } else { MOST };
    let (length, ends) = loop {
        // One more, to see whether it goes on.
        reading.fill(size + 1)?;
        let there = reading.buffer.len().min(room);
        if there <= size && (*reading.ended || there == room) {
            break (there, true);
        }
        let place = if rules.cuts { cut::last(reading.buffer.get(..size + 1).unwrap_or(reading.buffer)) } else { None };
        match place {
            Some(place) => break (place, false),
            None if size >= MOST => return Err(nowhere_to_cut(reading.source, rules, at)),
            None => size *= 4,
        }
    };
    if length == 0 && !starts {
        return Ok(None);
    }
    let marked = if at.offset == 0 && reading.buffer.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let text = reading.buffer.get(marked..length).unwrap_or_default();
    // As of the whole document, however it is cut.
    let of_document = || number_of(reading.buffer.get(marked..).unwrap_or_default());
    let number = (at.within.is_none() && rules.val_from.is_none()).then(of_document);
    let split = match (at.within, rules.val_from) {
        (Some(split), _) => split,
        (None, Some(from)) if at.offset < from => Split::Train,
        (None, Some(_)) => Split::Val,
        (None, None) => Split::of(number.unwrap_or_default(), rules.val_fraction),
    };
    let is_last = ends
        && to_val.is_none_or(|to_val| length as u64 != to_val || (*reading.ended && reading.buffer.len() == length));
    let after = match (ends, is_last) {
        (true, true) => Position::start_of(at.source + 1),
        (true, false) => Position { offset: at.offset + length as u64, within: None, ..at },
        (false, _) => Position { offset: at.offset + length as u64, within: Some(split), ..at },
    };
    if text.is_empty() && starts && rules.val_from.is_none() {
        return Ok(Some(Batch { at, after, work: Work::Bad("it is empty".to_owned()) }));
    }
    let mut bytes = reading.cut_off(length);
    bytes.drain(..marked);
    Ok(Some(Batch { at, after, work: Work::Piece { bytes, split, number, ends } }))
}

fn nowhere_to_cut(source: &Source, rules: &ReadRules, at: Position) -> Error {
    let (shown, limit) = (source.shown(), MOST >> 20);
    if rules.cuts {
        return Error::input(format!(
            "{shown} has no word or line that ends within {limit} MB from byte {} on, so it is no text: leave it out",
            at.offset
        ));
    }
    Error::input(format!(
        "{shown} is one document of more than {limit} MB, and for this tokenizer it is not known where a text can be cut: make \
         several documents of it, or use gpt2, cl100k, o200k or bpe:N"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::prepare::kind::Kind;
    use std::path::Path;

    fn source(path: &Path, format: &str) -> Arc<[Source]> {
        let bytes = std::fs::metadata(path).unwrap().len();
        Arc::new([Source { path: path.to_owned(), kind: format.parse::<Kind>().unwrap(), bytes, modified: 0 }])
    }

    fn rules(val_from: Option<u64>) -> ReadRules {
        ReadRules { val_fraction: 0.5, val_from, cuts: true, text_key: "text".to_owned() }
    }

    fn batches(sources: &Arc<[Source]>, rules: &ReadRules, from: Position) -> Result<Vec<Batch>> {
        let mut feed = Feed::new(sources.clone(), rules.clone(), from, Arc::default());
        std::iter::from_fn(|| feed.next().transpose()).collect()
    }

    fn text_of(batches: &[Batch], of: Split) -> Vec<u8> {
        let pieces = batches.iter().filter_map(|batch| match &batch.work {
            Work::Piece { bytes, split, .. } if *split == of => Some(bytes.clone()),
            _ => None,
        });
        pieces.collect::<Vec<_>>().concat()
    }

    #[test]
    fn a_long_text_comes_in_pieces_that_any_position_goes_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let text = "\u{feff}".to_owned() + &"the words of a long text, again and again.\n".repeat(80_000);
        std::fs::write(&path, &text).unwrap();
        let sources = source(&path, "txt");
        for val_from in [None, Some(3), Some(4), Some(2_000_003), Some(BATCH as u64), Some(text.len() as u64 - 1)] {
            let rules = rules(val_from);
            let all = batches(&sources, &rules, Position::default()).unwrap();
            let parts = [text_of(&all, Split::Train), text_of(&all, Split::Val)];
            assert_eq!(parts.concat(), &text.as_bytes()[3..], "{val_from:?}");
            if let Some(from) = val_from {
                assert_eq!(parts[0].len() as u64, from - 3);
            }
            let ends = all.iter().filter(|batch| matches!(batch.work, Work::Piece { ends: true, .. })).count();
            assert_eq!(ends, if val_from.is_some() { 2 } else { 1 }, "{val_from:?}");
            for at in 1..all.len() {
                let rest = batches(&sources, &rules, all[at].at).unwrap();
                assert_eq!(format!("{rest:?}"), format!("{:?}", &all[at..]), "from {at}");
            }
        }
    }

    #[test]
    fn lines_are_never_cut_and_one_without_end_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let line = |letter: &str, bytes: usize| letter.repeat(bytes) + "\n";
        let text = line("a", 10) + &line("b", MOST + 5) + &line("c", 3 * BATCH) + "\n" + &line("d", 7) + "no end";
        std::fs::write(&path, &text).unwrap();
        let sources = source(&path, "jsonl");
        let all = batches(&sources, &rules(None), Position::default()).unwrap();
        let mut seen = Vec::new();
        for batch in &all {
            match &batch.work {
                Work::Lines(bytes) => seen.extend_from_slice(bytes),
                Work::Bad(why) => assert!(why.contains("longer than 16 MB") && batch.at.record == 1, "{batch:?}"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen.len(), text.len() - MOST - 6);
        assert_eq!(all.last().unwrap().after.record, 5);
        for at in 1..all.len() {
            assert_eq!(batches(&sources, &rules(None), all[at].at).unwrap().len(), all.len() - at);
        }
    }

    #[test]
    fn what_is_no_text_is_refused_before_it_fills_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        std::fs::write(&path, vec![b'x'; MOST + 2]).unwrap();
        let error = batches(&source(&path, "txt"), &rules(None), Position::default()).unwrap_err().to_string();
        assert!(error.contains("so it is no text"), "{error}");
        let whole = ReadRules { cuts: false, ..rules(None) };
        let error = batches(&source(&path, "txt"), &whole, Position::default()).unwrap_err().to_string();
        assert!(error.contains("make several documents"), "{error}");
        std::fs::write(&path, "").unwrap();
        let all = batches(&source(&path, "txt"), &rules(None), Position::default()).unwrap();
        assert!(matches!(&all[..], [Batch { work: Work::Bad(_), .. }]));
    }
}
