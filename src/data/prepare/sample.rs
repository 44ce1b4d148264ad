//! What of the inputs is looked at before tokens are made: text to train a tokenizer on, its characters, and where one text is
//! cut in two.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::batch::{Batch, Position};
use super::documents;
use super::feed::{Feed, ReadRules};
use super::inputs::Source;
use super::unpack;
use crate::console::slowly;
use crate::data::text::split_count;
use crate::error::{Error, Result};

/// Most bytes of text that a tokenizer is trained on: enough for the commonest words, and all of it is held in memory.
pub(super) const SAMPLE: u64 = 32 << 20;

/// Text to train a tokenizer on: of each source its beginning, in proportion to its size; all where that is little.
///
/// # Errors
/// What cannot be read.
pub(super) fn texts(sources: &[Source], rules: &ReadRules, stop: &AtomicBool) -> Result<Vec<String>> {
    let total: u64 = sources.iter().map(|source| source.bytes).sum();
    let mut texts = Vec::new();
    for source in sources {
        let share =
            if total <= SAMPLE { SAMPLE } else { (SAMPLE as f64 * source.bytes as f64 / total as f64).ceil() as u64 };
        let mut taken = 0;
        documents_of(std::slice::from_ref(source), rules, stop, &mut |text| {
            let room = usize::try_from(share.saturating_sub(taken)).unwrap_or(usize::MAX);
            let end = (0..=room.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            texts.extend(text.get(..end).filter(|text| !text.is_empty()).map(str::to_owned));
            taken += text.len() as u64;
            taken < share
        })?;
    }
    Ok(texts)
}

/// The characters of all sources, each once.
///
/// # Errors
/// What cannot be read.
pub(super) fn characters(sources: &[Source], rules: &ReadRules, stop: &AtomicBool) -> Result<String> {
    let mut seen = vec![false; char::MAX as usize + 1];
    let mut mark = |text: &str| {
        text.chars().for_each(|c| seen[c as usize] = true);
        true
    };
    slowly("looking for the characters of the inputs", || documents_of(sources, rules, stop, &mut mark))?;
    Ok(('\0'..=char::MAX).filter(|c| seen[*c as usize]).collect())
}

/// Calls `each` with the text of documents, or pieces of them, until it has enough. What is no document is left out here.
fn documents_of(
    sources: &[Source],
    rules: &ReadRules,
    stop: &AtomicBool,
    each: &mut dyn FnMut(&str) -> bool,
) -> Result<()> {
    let rules = ReadRules { cuts: true, val_from: None, ..rules.clone() };
    let mut feed = Feed::new(Arc::from(sources), rules.clone(), Position::default(), Arc::default());
    let mut goes_on = true;
    while goes_on && let Some(batch) = feed.next()? {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted("interrupted before anything was written".to_owned()));
        }
        visit(&batch, &rules.text_key, &mut |text| goes_on = goes_on && each(text));
    }
    Ok(())
}

fn visit(batch: &Batch, key: &str, each: &mut dyn FnMut(&str)) {
    documents::each(batch, key, false, &mut |found| {
        if let Ok(document) = found
            && let Ok(text) = str::from_utf8(&document.text)
        {
            each(text);
        }
    });
}

/// Where in `source` the last `val_fraction` of its characters begins; nanoGPT's rule, as for a text in memory.
///
/// # Errors
/// What cannot be read.
pub(super) fn val_from(source: &Source, val_fraction: f64) -> Result<u64> {
    if val_fraction == 0.0 {
        return Ok(u64::MAX);
    }
    let counted = slowly(&format!("counting the characters of {}", source.shown()), || {
        let mut count = 0;
        characters_of(source, &mut |_| count += 1).map(|mark| (count, mark))
    });
    let (count, mark) = counted?;
    let before = split_count(count, val_fraction)?;
    let (mut seen, mut from) = (0, mark);
    characters_of(source, &mut |at| {
        from = if seen <= before { at } else { from };
        seen += 1;
    })?;
    Ok(from)
}

/// Calls `each` with the offset of every character, and returns the bytes of a byte order mark before them.
fn characters_of(source: &Source, each: &mut dyn FnMut(u64)) -> Result<u64> {
    let mut stream = unpack::open(source, 0, &Arc::default())?;
    let mut buffer = vec![0; 1 << 18];
    let (mut at, mut filled, mut mark) = (0_u64, 0, 0);
    loop {
        let read = match stream.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|cause| unpack::broken(source, &cause))?,
        };
        filled += read;
        // The first three bytes are looked at together.
        if read > 0 && at == 0 && filled < 3 {
            continue;
        }
        let bytes = buffer.get(..filled).unwrap_or_default();
        let skipped = if at == 0 && bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        mark += skipped as u64;
        for (index, byte) in bytes.iter().enumerate().skip(skipped) {
            if byte & 0xc0 != 0x80 {
                each(at + index as u64);
            }
        }
        at += filled as u64;
        if read == 0 {
            return Ok(mark);
        }
        filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::prepare::kind::Kind;
    use crate::data::text::split_at;

    fn source(dir: &std::path::Path, name: &str, text: &str) -> Source {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        Source { kind: Kind::of_name(name).unwrap(), bytes: text.len() as u64, path, modified: 0 }
    }

    #[test]
    fn a_text_is_cut_where_one_in_memory_is() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["ééééabcd", "a", "", "aé", "日本語の文。\n", "0123456789"] {
            let (plain, marked) =
                (source(dir.path(), "a.txt", text), source(dir.path(), "b.txt", &format!("\u{feff}{text}")));
            for share in [0.1, 0.5, 0.999] {
                let expected = split_at(text, share).unwrap() as u64;
                assert_eq!(val_from(&plain, share).unwrap(), expected, "{text} {share}");
                assert_eq!(val_from(&marked, share).unwrap(), expected + 3, "{text} {share}");
            }
        }
    }

    #[test]
    fn a_tokenizer_sees_the_beginning_of_every_source() {
        let dir = tempfile::tempdir().unwrap();
        let rules = ReadRules { val_fraction: 0.0, val_from: None, cuts: true, text_key: "text".to_owned() };
        let line = format!("{{\"text\": \"{}\"}}\n", "é".repeat(1000));
        let sources = [
            source(dir.path(), "a.jsonl", &line.repeat(20_000)),
            source(dir.path(), "b.txt", "x y"),
            source(dir.path(), "c.jsonl", "broken\n{\"text\": \"c\"}"),
        ];
        let texts = texts(&sources, &rules, &AtomicBool::new(false)).unwrap();
        let bytes: usize = texts.iter().map(String::len).sum();
        assert!(bytes as u64 <= SAMPLE + 3 && bytes as u64 > SAMPLE - 4000, "{bytes}");
        assert!(texts[texts.len() - 2].starts_with('x') && texts.last().unwrap() == "c");
        assert_eq!(characters(&sources, &rules, &AtomicBool::new(false)).unwrap(), " cxyé");
    }
}
