//! Token shards: files of ready-made tokens, memory-mapped, in nanoGPT's, llm.c's and Megatron's `.bin` formats.
//!
//! | format | header | tokens |
//! |---|---|---|
//! | nanoGPT | none | u16 |
//! | llm.c, GPT-2 | 256 i32: magic 20240520, version 1, count | u16 |
//! | llm.c, Llama 3 | 256 i32: magic 20240801, version 7, count | u32 |
//! | Megatron | none; an `.idx` beside it (`megatron`) | u8, u16 or i32 |
//!
//! All little-endian. A file that begins with one of the magics is llm.c's, any other is nanoGPT's: the
//! magics read as u16 are tokens above 55 000, which GPT-2's vocabulary does not have. Sizes are checked
//! when a file is found, tokens when they are read. A file without a header may be anything, so what looks
//! like something else (`lookalike`) is refused when it is first mapped.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memmap2::Mmap;

use super::missing::unreadable;
use super::{lookalike, megatron};
use crate::error::{Error, Result};

/// Bytes of an llm.c header.
pub(super) const HEADER_BYTES: usize = 256 * 4;
const MAGIC_U16: i32 = 20_240_520;
const MAGIC_U32: i32 = 20_240_801;
/// Tokens looked at when data are opened: all of a few, else this many in evenly spaced pieces.
pub(super) const SAMPLED: usize = 1 << 22;
/// Tokens of one such piece.
const PIECE: usize = 1 << 14;

/// A token shard that was found, and is not mapped yet.
#[derive(Debug, Clone)]
pub(super) struct ShardFile {
    path: Box<Path>,
    layout: Layout,
}

/// A mapped token shard.
#[derive(Debug)]
pub(super) struct Shard {
    path: Box<Path>,
    map: Mmap,
    layout: Layout,
    vocab: usize,
}

/// The tokens in the bytes of a token shard.
#[derive(Debug, Clone, Copy)]
pub struct ShardView<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    layout: Layout,
    vocab: usize,
}

/// Where the tokens are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    format: Format,
    /// Bytes of a token, 1, 2 or 4.
    width: usize,
    /// Number of tokens.
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    NoHeader,
    LlmC,
    Megatron,
}

impl Layout {
    /// Bytes before the first token.
    fn offset(&self) -> usize {
        if self.format == Format::LlmC { HEADER_BYTES } else { 0 }
    }
}

impl ShardFile {
    /// The shard at `path`, of which no more is read than says how many tokens it has.
    ///
    /// # Errors
    /// Missing, not a file or empty, and a size that does not fit what the file or the index beside it says.
    pub(super) fn find(path: &Path) -> Result<Self> {
        let size = size_of(path)?;
        let layout = match megatron::width_beside(path, size)? {
            Some(width) => Layout { format: Format::Megatron, width, len: size / width },
            None => {
                let mut head = Vec::new();
                let file = File::open(path).map_err(|cause| missing(path, &cause))?;
                (&file).take(12).read_to_end(&mut head).map_err(|cause| Error::io("read", path, &cause))?;
                let layout = stated(&head, size).map_err(|reason| wrong(path, &reason))?;
                // What the file is instead comes before half a token at its end.
                if layout.format == Format::NoHeader && !size.is_multiple_of(2) {
                    let map = map(&file).map_err(|cause| Error::io("map", path, &cause))?;
                    whole(&map).map_err(|reason| wrong(path, &reason))?;
                }
                layout
            }
        };
        if layout.len == 0 { Err(empty(path)) } else { Ok(Self { path: path.into(), layout }) }
    }

    /// The shard of llm.c at `path` that is to have `tokens` tokens.
    ///
    /// # Errors
    /// Missing, not a file, or another size.
    pub(super) fn listed(path: &Path, tokens: u64) -> Result<Self> {
        let size = size_of(path)?;
        let bytes = size.saturating_sub(HEADER_BYTES);
        let len = usize::try_from(tokens).ok().filter(|&tokens| tokens > 0);
        let width = [2, 4].into_iter().find(|&width| len.and_then(|len| len.checked_mul(width)) == Some(bytes));
        match (len, width) {
            (Some(len), Some(width)) => {
                Ok(Self { path: path.into(), layout: Layout { format: Format::LlmC, width, len } })
            }
            _ => Err(wrong(
                path,
                &format!(
                    "has {size} bytes, which do not fit the {tokens} tokens that it is listed with; it was cut or replaced"
                ),
            )),
        }
    }

    /// Number of tokens, at least 1.
    pub(super) fn len(&self) -> usize {
        self.layout.len
    }

    /// What the file was taken for, for people.
    pub(super) fn format(&self) -> &'static str {
        match (self.layout.format, self.layout.width) {
            (Format::NoHeader, _) => "u16 without a header",
            (Format::LlmC, 2) => "llm.c u16",
            (Format::LlmC, _) => "llm.c u32",
            (Format::Megatron, 1) => "Megatron u8",
            (Format::Megatron, 2) => "Megatron u16",
            (Format::Megatron, _) => "Megatron i32",
        }
    }

    /// Maps it; its tokens are to be below `vocab`. What it looks like is asked the `first` time.
    ///
    /// # Errors
    /// A file that cannot be mapped, has changed, or looks like something else.
    pub(super) fn map(&self, vocab: usize, first: bool) -> Result<Shard> {
        let Self { path, layout } = self;
        let file = File::open(path).map_err(|cause| missing(path, &cause))?;
        let map = map(&file).map_err(|cause| Error::io("map", path, &cause))?;
        let found = match layout.format {
            Format::Megatron => Ok(Layout { len: map.len() / layout.width, ..*layout }),
            Format::LlmC | Format::NoHeader if first => whole(&map),
            Format::LlmC | Format::NoHeader => stated(&map, map.len()),
        };
        let found = found.map_err(|reason| wrong(path, &reason))?;
        if found != *layout {
            let (had, has) = (layout.len, found.len);
            let reason = format!(
                "has {has} tokens of {} bytes, but is known to have {had} of {}: it was replaced, so open the data again",
                found.width, layout.width
            );
            return Err(wrong(path, &reason));
        }
        Ok(Shard { path: path.clone(), map, layout: *layout, vocab })
    }
}

impl Shard {
    /// Its tokens.
    pub(super) fn view(&self) -> ShardView<'_> {
        ShardView { path: &self.path, bytes: &self.map, layout: self.layout, vocab: self.vocab }
    }
}

/// Which of `count` tokens are looked at when data are opened, as starts and lengths. The first piece begins with them, the
/// last one ends with them.
pub(super) fn sampled(count: usize) -> impl Iterator<Item = (usize, usize)> {
    let pieces = count.min(SAMPLED).div_ceil(PIECE);
    let piece = PIECE.min(count);
    let start = move |i: usize| (count - piece) as u128 * i as u128 / (pieces - 1).max(1) as u128;
    (0..pieces).map(move |i| (start(i) as usize, piece))
}

impl<'a> ShardView<'a> {
    /// The tokens in `bytes`, the contents of the shard at `path`; they are to be below `vocab`.
    ///
    /// # Errors
    /// No tokens, an unknown version, a size that does not fit the header, what looks like another kind of file, or a token
    /// in a sample that is not below the vocabulary.
    pub fn new(path: &'a Path, bytes: &'a [u8], vocab: usize) -> Result<Self> {
        let layout = whole(bytes).map_err(|reason| wrong(path, &reason))?;
        if layout.len == 0 {
            return Err(empty(path));
        }
        let view = Self { path, bytes, layout, vocab };
        sampled(layout.len).try_for_each(|(start, len)| view.largest(start, len).map(drop))?;
        Ok(view)
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

    /// The largest of tokens `start..start + len`; errors as [`Self::window`].
    pub(super) fn largest(&self, start: usize, len: usize) -> Result<u32> {
        self.check(start, self.bytes_of(start, len)?)
    }

    /// The bytes of tokens `start..start + len`.
    fn bytes_of(&self, start: usize, len: usize) -> Result<&'a [u8]> {
        let Layout { width, len: total, .. } = self.layout;
        let offset = self.layout.offset();
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
        let of = |width| if self.layout.width == width { bytes } else { &[] };
        let two = of(2).as_chunks().0.iter().map(|&two| u32::from(u16::from_le_bytes(two)));
        let four = of(4).as_chunks().0.iter().map(|&four| u32::from_le_bytes(four));
        two.chain(four).chain(of(1).iter().map(|&one| u32::from(one)))
    }

    /// The largest token in `bytes`, which are those from `start` on, where all are in the vocabulary.
    fn check(&self, start: usize, bytes: &'a [u8]) -> Result<u32> {
        let outside = |token: u32| token as usize >= self.vocab;
        // Apart, because this is all that opening a large shard takes.
        let largest = match self.layout.width {
            1 => bytes.iter().fold(0, |most, &one| one.max(most)).into(),
            2 => bytes.as_chunks().0.iter().fold(0, |most, &two| u16::from_le_bytes(two).max(most)).into(),
            _ => bytes.as_chunks().0.iter().fold(0, |most, &four| u32::from_le_bytes(four).max(most)),
        };
        match self.tokens(bytes).enumerate().find(|&(_, token)| outside(largest) && outside(token)) {
            None => Ok(largest),
            Some((at, token)) => {
                let (name, vocab, position) = (self.path.display(), self.vocab, start + at);
                let sentence = format!("{name} has token {token} at position {position}, but vocab_size is {vocab}");
                Err(Error::input(
                    sentence
                        + "; set vocab_size to that of the tokenizer which made the file, or name that with --tokenizer",
                ))
            }
        }
    }
}

fn missing(path: &Path, cause: &std::io::Error) -> Error {
    unreadable("open", path, cause, "name a token shard with --data")
}

/// Bytes of a token of llm.c where all are below `vocab`.
pub(super) fn width_for(vocab: usize) -> usize {
    if vocab <= 1 << 16 { 2 } else { 4 }
}

/// Bytes of a shard of llm.c of so many tokens of 2 or 4 bytes.
pub(super) fn bytes_of(width: usize, tokens: u64) -> u64 {
    (HEADER_BYTES as u64).saturating_add(tokens.saturating_mul(width as u64))
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

fn wrong(path: &Path, reason: &str) -> Error {
    Error::input(format!("{} {reason}", path.display()))
}

/// Bytes of the file at `path`, at least one. Asked of the path, because opening a pipe would wait for its writer.
fn size_of(path: &Path) -> Result<usize> {
    let metadata = std::fs::metadata(path).map_err(|cause| missing(path, &cause))?;
    if !metadata.is_file() {
        return Err(wrong(path, "is not a regular file; a token shard is mapped into memory"));
    }
    match usize::try_from(metadata.len()) {
        // No system maps a file of no bytes.
        Ok(0) => Err(empty(path)),
        Ok(size) => Ok(size),
        Err(_) => Err(wrong(path, "is larger than what this machine can map; cut it into shards")),
    }
}

/// Maps a file for reading.
#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is private and read-only, and is only ever read as bytes, for which every
    // value is valid. As with any mapping, another process that truncates the file during the run can
    // end this one with SIGBUS; nothing here writes shards, and a data set is not edited in training.
    unsafe { Mmap::map(file) }
}

/// The layout that all bytes of a file say, or what contradicts it.
fn whole(file: &[u8]) -> Result<Layout, String> {
    let layout = stated(file, file.len())?;
    if layout.format != Format::NoHeader {
        return Ok(layout);
    }
    match lookalike::not_a_shard(file) {
        Some(found) => Err(format!("looks like {}, not like a token shard; {}", found.what, found.remedy)),
        None if file.len().is_multiple_of(2) => Ok(layout),
        None => {
            Err(format!("has {} bytes, but a shard of 16-bit tokens has an even number; it is damaged", file.len()))
        }
    }
}

/// The layout that the first bytes of a file of `size` bytes state, or what contradicts it.
fn stated(head: &[u8], size: usize) -> Result<Layout, String> {
    let word = |at: usize| Some(i32::from_le_bytes(head.get(at * 4..at * 4 + 4)?.try_into().ok()?));
    let (width, version) = match word(0) {
        Some(MAGIC_U16) => (2, 1),
        Some(MAGIC_U32) => (4, 7),
        _ => return Ok(Layout { format: Format::NoHeader, width: 2, len: size / 2 }),
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
        (Ok(len), Some(expected)) if expected == size => Ok(Layout { format: Format::LlmC, width, len }),
        _ => Err(format!(
            "declares {count} tokens of {width} bytes, which does not fit its size of {size} bytes \
             ({HEADER_BYTES} of them header); it is truncated or damaged"
        )),
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

    fn write(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shard.bin");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn open(bytes: &[u8], vocab: usize) -> Result<Shard> {
        let (_dir, path) = write(bytes);
        ShardView::new(&path, bytes, vocab)?;
        ShardFile::find(&path)?.map(vocab, true)
    }

    #[test]
    fn the_three_formats_are_told_apart() {
        let u16s: Vec<u8> = [7_u16, 50_256, 1].iter().flat_map(|token| token.to_le_bytes()).collect();
        let u32s: Vec<u8> = [7_u32, 128_000, 1].iter().flat_map(|token| token.to_le_bytes()).collect();
        assert_eq!(open(&u16s, 50_257).unwrap().view().window(0, 3).unwrap(), [7, 50_256, 1]);
        let shard = open(&llmc(MAGIC_U16, 1, 3, &u16s), 50_257).unwrap();
        assert_eq!((shard.layout.len, shard.view().window(1, 2).unwrap()), (3, vec![50_256, 1]));
        let shard = open(&llmc(MAGIC_U32, 7, 3, &u32s), 128_256).unwrap();
        assert_eq!((shard.layout.len, shard.view().window(1, 1).unwrap()), (3, vec![128_000]));
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
            let (_dir, path) = write(&file);
            let both = [ShardView::new(&path, &file, 10).unwrap_err(), ShardFile::find(&path).unwrap_err()];
            assert!(both.iter().all(|error| error.to_string().contains(said)), "{both:?}");
        }
    }

    #[test]
    fn a_listed_shard_has_the_tokens_it_is_listed_with() {
        for (width, magic, version) in [(2, MAGIC_U16, 1), (4, MAGIC_U32, 7)] {
            let (_dir, path) = write(&llmc(magic, version, 3, &vec![0; 3 * width]));
            let listed = ShardFile::listed(&path, 3).unwrap();
            assert_eq!(listed.map(5, true).unwrap().view().window(0, 3).unwrap(), [0; 3]);
            for tokens in [0, 2, 4, u64::MAX] {
                assert!(ShardFile::listed(&path, tokens).is_err(), "{tokens}");
            }
            std::fs::write(&path, llmc(magic, version, 4, &vec![0; 4 * width])).unwrap();
            let said = listed.map(5, false).unwrap_err().to_string();
            assert!(said.contains("has 4 tokens") && said.contains("known to have 3"), "{said}");
        }
    }

    #[test]
    fn a_token_outside_the_vocabulary_is_found_when_read() {
        let mut shard = open(&[1, 0, 2, 0, 99, 0], 100).unwrap();
        assert!(shard.view().window(2, 2).is_err() && shard.view().window(usize::MAX, 2).is_err());
        shard.vocab = 50;
        assert_eq!(shard.view().window(0, 2).unwrap(), [1, 2]);
        let error = shard.view().window(1, 2).unwrap_err().to_string();
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
