//! Token shards: files of ready-made tokens, memory-mapped, in nanoGPT's and llm.c's `.bin` formats.
//!
//! | format | header | tokens |
//! |---|---|---|
//! | nanoGPT | none | u16 |
//! | llm.c, GPT-2 | 256 i32: magic 20240520, version 1, count | u16 |
//! | llm.c, Llama 3 | 256 i32: magic 20240801, version 7, count | u32 |
//!
//! All little-endian. A file that begins with one of the magics is llm.c's, any other is nanoGPT's: the
//! magics read as u16 are tokens above 55 000, which GPT-2's vocabulary does not have. Sizes are checked
//! when the file is opened, tokens when they are read; a sample of them when the file is opened, so that a
//! wrong vocabulary is not first noticed in the middle of a run. A file without a header may be anything, so what looks
//! like something else (`lookalike`) is refused.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::lookalike;
use super::missing::unreadable;
use crate::error::{Error, Result};

/// Bytes of an llm.c header.
pub(super) const HEADER_BYTES: usize = 256 * 4;
const MAGIC_U16: i32 = 20_240_520;
const MAGIC_U32: i32 = 20_240_801;
/// Tokens looked at when a shard is opened: all of a small one, else this many in evenly spaced pieces.
const SAMPLED: usize = 1 << 24;
/// Tokens of one such piece.
const PIECE: usize = 1 << 16;

/// An open token shard.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    map: Mmap,
    layout: Layout,
    vocab: usize,
    largest: u32,
}

/// The tokens in the bytes of a token shard.
#[derive(Debug, Clone, Copy)]
pub struct ShardView<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    layout: Layout,
    vocab: usize,
    /// The largest token of the sample.
    largest: u32,
}

/// Where the tokens are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Bytes before the first token.
    offset: usize,
    /// Bytes of a token, 2 or 4.
    width: usize,
    /// Number of tokens.
    len: usize,
}

impl Shard {
    /// Opens the shard at `path`, whose tokens are to be below `vocab`.
    ///
    /// # Errors
    /// Missing or not a file, and as [`ShardView::new`].
    pub(super) fn open(path: &Path, vocab: usize) -> Result<Self> {
        let missing = |cause| unreadable("open", path, &cause, "name a token shard with --data");
        // Asked of the path first, because opening a pipe would wait for its writer.
        let metadata = std::fs::metadata(path).map_err(missing)?;
        if !metadata.is_file() {
            let path = path.display();
            return Err(Error::input(format!("{path} is not a regular file; a token shard is mapped into memory")));
        }
        // No system maps a file of no bytes.
        if metadata.len() == 0 {
            return Err(empty(path));
        }
        let file = File::open(path).map_err(missing)?;
        let map = map(&file).map_err(|cause| Error::io("map", path, &cause))?;
        let ShardView { layout, largest, .. } = ShardView::new(path, &map, vocab)?;
        Ok(Self { path: path.to_owned(), map, layout, vocab, largest })
    }

    /// What the file was taken for, for people.
    pub(super) fn describe(&self) -> String {
        let Layout { offset, width, len } = self.layout;
        let format = match (offset, width) {
            (0, _) => "u16 without a header",
            (_, 2) => "llm.c u16",
            _ => "llm.c u32",
        };
        let sample = if len > SAMPLED { " in a sample" } else { "" };
        format!("{format}, {len} tokens, largest id {}{sample}", self.largest)
    }

    /// The largest token of the sample.
    pub(super) fn largest(&self) -> u32 {
        self.largest
    }

    /// The token that all of them are, if it is only one.
    pub(super) fn only(&self) -> Result<Option<u32>> {
        let Self { path, map, layout, vocab, largest } = self;
        let view = ShardView { path, bytes: map, layout: *layout, vocab: *vocab, largest: *largest };
        let same = view.tokens(view.bytes_of(0, self.len())?).all(|token| token == self.largest);
        Ok(same.then_some(self.largest))
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.layout.len
    }

    /// Tokens `start..start + len`; errors as [`ShardView::window`].
    pub(super) fn window(&self, start: usize, len: usize) -> Result<Vec<u32>> {
        let Self { path, map, layout, vocab, largest } = self;
        let view = ShardView { path, bytes: map, layout: *layout, vocab: *vocab, largest: *largest };
        view.window(start, len)
    }
}

impl<'a> ShardView<'a> {
    /// The tokens in `bytes`, the contents of the shard at `path`; they are to be below `vocab`.
    ///
    /// # Errors
    /// No tokens, an unknown version, a size that does not fit the header, what looks like another kind of file, or a token
    /// in a sample that is not below the vocabulary.
    pub fn new(path: &'a Path, bytes: &'a [u8], vocab: usize) -> Result<Self> {
        let layout = layout(bytes).map_err(|reason| Error::input(format!("{} {reason}", path.display())))?;
        if layout.len == 0 {
            return Err(empty(path));
        }
        let view = Self { path, bytes, layout, vocab, largest: 0 };
        Ok(Self { largest: view.check_sample()?, ..view })
    }

    /// The largest token of the sample.
    fn check_sample(&self) -> Result<u32> {
        let pieces = self.count().min(SAMPLED).div_ceil(PIECE);
        let piece = PIECE.min(self.count());
        // The first piece begins the file, the last one ends it.
        let start = |i: usize| (self.count() - piece) as u128 * i as u128 / (pieces - 1).max(1) as u128;
        let largest = |i: usize| self.check(start(i) as usize, self.bytes_of(start(i) as usize, piece)?);
        (0..pieces).try_fold(0, |most: u32, i| Ok(most.max(largest(i)?)))
    }

    /// Number of tokens, at least 1.
    pub fn count(&self) -> usize {
        self.layout.len
    }

    /// Tokens `start..start + len`.
    ///
    /// # Errors
    /// A range outside the shard, or a token that is not below the vocabulary.
    pub fn window(&self, start: usize, len: usize) -> Result<Vec<u32>> {
        let bytes = self.bytes_of(start, len)?;
        self.check(start, bytes)?;
        Ok(self.tokens(bytes).collect())
    }

    /// The bytes of tokens `start..start + len`.
    fn bytes_of(&self, start: usize, len: usize) -> Result<&'a [u8]> {
        let Layout { offset, width, len: total } = self.layout;
        start
            .checked_add(len)
            .filter(|&end| end <= total)
            .and_then(|end| self.bytes.get(offset + start * width..offset + end * width))
            .ok_or_else(|| {
                let name = self.path.display();
                Error::input(format!("{name} has {total} tokens, tokens {start}..{start}+{len} were asked for"))
            })
    }

    fn tokens(&self, bytes: &'a [u8]) -> impl Iterator<Item = u32> + use<'a> {
        let narrow = if self.layout.width == 2 { bytes } else { &[] };
        let wide = if self.layout.width == 2 { &[] } else { bytes };
        let narrow = narrow.as_chunks().0.iter().map(|&two| u32::from(u16::from_le_bytes(two)));
        narrow.chain(wide.as_chunks().0.iter().map(|&four| u32::from_le_bytes(four)))
    }

    /// The largest token in `bytes`, which are those from `start` on, where all are in the vocabulary.
    fn check(&self, start: usize, bytes: &'a [u8]) -> Result<u32> {
        let outside = |token: u32| token as usize >= self.vocab;
        // Apart, because this is all that opening a large shard takes.
        let largest = match self.layout.width {
            2 => bytes.as_chunks().0.iter().fold(0, |most, &two| u16::from_le_bytes(two).max(most)).into(),
            _ => bytes.as_chunks().0.iter().fold(0, |most, &four| u32::from_le_bytes(four).max(most)),
        };
        match self.tokens(bytes).enumerate().find(|&(_, token)| outside(largest) && outside(token)) {
            None => Ok(largest),
            Some((at, token)) => {
                let (name, vocab, position) = (self.path.display(), self.vocab, start + at);
                let sentence = format!("{name} has token {token} at position {position}, but vocab_size is {vocab}");
                Err(Error::input(sentence + "; set vocab_size to that of the tokenizer which made the file"))
            }
        }
    }
}

/// The llm.c header of a shard of so many tokens of 2 or 4 bytes.
pub(super) fn header(width: usize, tokens: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (magic, version) = if width == 2 { (MAGIC_U16, 1) } else { (MAGIC_U32, 7) };
    let words = [magic, version, i32::try_from(tokens).unwrap_or(i32::MAX)];
    header.iter_mut().zip(words.into_iter().flat_map(i32::to_le_bytes)).for_each(|(to, byte)| *to = byte);
    header
}

fn empty(path: &Path) -> Error {
    Error::input(format!("{} is empty; a token shard needs at least one token", path.display()))
}

/// Maps a file for reading.
#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is private and read-only, and is only ever read as bytes, for which every
    // value is valid. As with any mapping, another process that truncates the file during the run can
    // end this one with SIGBUS; nothing here writes shards, and a data set is not edited in training.
    unsafe { Mmap::map(file) }
}

/// The layout that the first bytes and the size of a file state, or what contradicts it.
fn layout(file: &[u8]) -> Result<Layout, String> {
    let word = |at: usize| Some(i32::from_le_bytes(file.get(at * 4..at * 4 + 4)?.try_into().ok()?));
    let size = file.len();
    let (width, version) = match word(0) {
        Some(MAGIC_U16) => (2, 1),
        Some(MAGIC_U32) => (4, 7),
        _ => return without_header(file),
    };
    if size < HEADER_BYTES {
        return Err(format!("has {size} bytes, but an llm.c header takes {HEADER_BYTES}; the file is truncated"));
    }
    match word(1) {
        Some(found) if found == version => {}
        found => {
            let found = found.unwrap_or_default();
            return Err(format!("is an llm.c shard of version {found}, only version {version} is known"));
        }
    }
    let count = word(2).unwrap_or_default();
    let expected = usize::try_from(count).ok().and_then(|n| n.checked_mul(width)?.checked_add(HEADER_BYTES));
    match (usize::try_from(count), expected) {
        (Ok(len), Some(expected)) if expected == size => Ok(Layout { offset: HEADER_BYTES, width, len }),
        _ => Err(format!(
            "declares {count} tokens of {width} bytes, which does not fit its size of {size} bytes \
             ({HEADER_BYTES} of them header); it is truncated or damaged"
        )),
    }
}

/// A file of nothing but 16-bit tokens.
fn without_header(file: &[u8]) -> Result<Layout, String> {
    let size = file.len();
    match lookalike::not_a_shard(file) {
        Some(found) => Err(format!("looks like {}, not like a token shard; {}", found.what, found.remedy)),
        None if size.is_multiple_of(2) => Ok(Layout { offset: 0, width: 2, len: size / 2 }),
        None => Err(format!("has {size} bytes, but a shard of 16-bit tokens has an even number; it is damaged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llmc(magic: i32, version: i32, count: i32, body: &[u8]) -> Vec<u8> {
        let mut file: Vec<u8> = [magic, version, count].iter().flat_map(|word| word.to_le_bytes()).collect();
        file.resize(HEADER_BYTES, 0);
        file.extend_from_slice(body);
        file
    }

    fn open(bytes: &[u8], vocab: usize) -> Result<Shard> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shard.bin");
        std::fs::write(&path, bytes).unwrap();
        Shard::open(&path, vocab)
    }

    #[test]
    fn the_three_formats_are_told_apart() {
        let u16s: Vec<u8> = [7_u16, 50_256, 1].iter().flat_map(|token| token.to_le_bytes()).collect();
        let u32s: Vec<u8> = [7_u32, 128_000, 1].iter().flat_map(|token| token.to_le_bytes()).collect();
        assert_eq!(open(&u16s, 50_257).unwrap().window(0, 3).unwrap(), [7, 50_256, 1]);
        let shard = open(&llmc(MAGIC_U16, 1, 3, &u16s), 50_257).unwrap();
        assert_eq!((shard.len(), shard.window(1, 2).unwrap()), (3, vec![50_256, 1]));
        let shard = open(&llmc(MAGIC_U32, 7, 3, &u32s), 128_256).unwrap();
        assert_eq!((shard.len(), shard.window(1, 1).unwrap()), (3, vec![128_000]));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let body = [0_u8; 6];
        for (file, said) in [
            (vec![], "is empty"),
            (llmc(MAGIC_U16, 1, 0, &[]), "is empty"),
            (vec![1, 2, 3], "has 3 bytes"),
            (MAGIC_U16.to_le_bytes().to_vec(), "header takes 1024"),
            (llmc(MAGIC_U16, 2, 3, &body), "version 2"),
            (llmc(MAGIC_U16, 1, 4, &body), "declares 4 tokens"),
            (llmc(MAGIC_U16, 1, 2, &body), "declares 2 tokens"),
            (llmc(MAGIC_U16, 1, -1, &body), "declares -1 tokens"),
            (llmc(MAGIC_U32, 7, i32::MAX, &body), "declares 2147483647 tokens"),
        ] {
            let error = open(&file, 10).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_token_outside_the_vocabulary_is_found_when_read() {
        let mut shard = open(&[1, 0, 2, 0, 99, 0], 100).unwrap();
        assert!(shard.window(2, 2).is_err() && shard.window(usize::MAX, 2).is_err());
        shard.vocab = 50;
        assert_eq!(shard.window(0, 2).unwrap(), [1, 2]);
        let error = shard.window(1, 2).unwrap_err().to_string();
        assert!(error.contains("shard.bin has token 99 at position 2, but vocab_size is 50"), "{error}");
    }

    #[test]
    fn every_token_of_a_small_shard_is_seen_when_it_is_opened() {
        for len in [1, 2, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7] {
            for wrong in [0, len / 2, len - 1] {
                let tokens: Vec<u8> =
                    (0..len).flat_map(|at| u16::to_le_bytes(if at == wrong { 99 } else { 7 })).collect();
                let error = open(&tokens, 50).unwrap_err().to_string();
                assert!(error.contains(&format!("token 99 at position {wrong},")), "{len}: {error}");
            }
        }
    }
}
