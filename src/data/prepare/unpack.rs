//! An input as a stream of bytes, unpacked, from any place on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::inputs::Source;
use super::kind::Packing;
use crate::error::{Error, Result};

/// Bytes that are read of a packed file at a time.
const BUFFER: usize = 1 << 17;

/// What a source holds.
pub(super) type Stream = Box<dyn Read + Send>;

/// What `source` holds from `offset` on. `read` counts the bytes of the file itself.
///
/// # Errors
/// A file that is gone, is no longer the one that was found, or ends before `offset`.
pub(super) fn open(source: &Source, offset: u64, read: &Arc<AtomicU64>) -> Result<Stream> {
    let io = |cause: io::Error| Error::io("read", &source.path, &cause);
    if source.is_stdin() {
        return Ok(unpacked(Counted { inner: io::stdin(), read: read.clone() }, source.kind.packing));
    }
    let mut file = File::open(&source.path).map_err(io)?;
    let stat = file.metadata().map_err(io)?;
    if !stat.is_file() || stat.len() != source.bytes {
        return Err(Error::input(format!(
            "{} had {} bytes when this began and has {} now: leave inputs alone meanwhile, and begin again with --overwrite",
            source.shown(),
            source.bytes,
            stat.len()
        )));
    }
    if source.kind.packing == Packing::Plain {
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        read.fetch_add(offset.min(source.bytes), Ordering::Relaxed);
        return Ok(Box::new(Counted { inner: file, read: read.clone() }));
    }
    let mut stream = unpacked(Counted { inner: file, read: read.clone() }, source.kind.packing);
    let passed = io::copy(&mut (&mut stream).take(offset), &mut io::sink()).map_err(|cause| broken(source, &cause))?;
    if passed < offset {
        return Err(Error::input(format!(
            "{} ends before byte {offset}, where this stopped: begin again with --overwrite",
            source.shown()
        )));
    }
    Ok(stream)
}

/// What is said of a source that cannot be read or unpacked.
pub(super) fn broken(source: &Source, cause: &io::Error) -> Error {
    let shown = source.shown();
    let packing = match source.kind.packing {
        Packing::Plain => return Error::io("read", &source.path, cause),
        Packing::Gzip => "gzip",
        Packing::Zstd => "zstd",
    };
    let why = match cause.kind() {
        io::ErrorKind::UnexpectedEof => "it ends in the middle".to_owned(),
        _ => cause.to_string(),
    };
    Error::input(format!("cannot unpack {shown} as {packing}: {why}; fetch it again, or leave it out"))
}

fn unpacked(packed: impl Read + Send + 'static, packing: Packing) -> Stream {
    match packing {
        Packing::Plain => Box::new(packed),
        Packing::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, packed))),
        Packing::Zstd => Box::new(Frames::new(BufReader::with_capacity(BUFFER, packed))),
    }
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A frame of zstd with nothing in it.
const EMPTY: &[u8] = b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00";

/// The frames of a zstd file, one after the other: parallel packers and appending write many.
struct Frames<R> {
    packed: R,
    decoder: FrameDecoder,
    is_open: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(packed: R) -> Self {
        Self { packed, decoder: FrameDecoder::new(), is_open: false }
    }

    /// What is said of blocks that cannot be read.
    fn explained(&mut self, error: FrameDecoderError) -> io::Error {
        match self.packed.fill_buf() {
            Ok([]) => io::ErrorKind::UnexpectedEof.into(),
            _ => io::Error::other(error),
        }
    }

    /// Goes to the next frame; `false` at the end of the file.
    fn open(&mut self) -> io::Result<bool> {
        // The decoder limits memory only where it has had a frame before.
        self.decoder.init(EMPTY).map_err(io::Error::other)?;
        while !self.packed.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.packed) {
                Ok(()) => {
                    self.is_open = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.packed).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { requested }) => {
                    let megabytes = requested / 1_000_000;
                    return Err(io::Error::other(format!(
                        "it takes {megabytes} MB of memory, and 100 MB are allowed: pack it again without --ultra and --long"
                    )));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }

    fn check_sum(&self) -> io::Result<()> {
        let stated = self.decoder.get_checksum_from_data();
        if stated.is_some() && stated != self.decoder.get_calculated_checksum() {
            return Err(io::Error::other("its checksum does not match"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() && (self.is_open || self.open()?) {
            while self.decoder.can_collect() < buffer.len() && !self.decoder.is_finished() {
                let wanted = BlockDecodingStrategy::UptoBytes(buffer.len() - self.decoder.can_collect());
                self.decoder.decode_blocks(&mut self.packed, wanted).map_err(|error| self.explained(error))?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.check_sum()?;
            self.is_open = false;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::Write;

    fn read(bytes: &[u8], packing: Packing) -> io::Result<Vec<u8>> {
        let mut found = Vec::new();
        unpacked(io::Cursor::new(bytes.to_vec()), packing).read_to_end(&mut found).map(|_| found)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn every_part_of_a_file_is_unpacked_and_a_cut_one_is_no_end() {
        let text = "all the words of a text ".repeat(20_000).into_bytes();
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let zstd = |bytes: &[u8]| compress_to_vec(bytes, CompressionLevel::Fastest);
        let two_of_zstd = [zstd(&text), skipped, zstd(b"end"), zstd(b"")].concat();
        for (packed, packing) in [([gzip(&text), gzip(b"end")].concat(), Packing::Gzip), (two_of_zstd, Packing::Zstd)] {
            assert_eq!(read(&packed, packing).unwrap(), [&text[..], b"end"].concat());
            for cut in [1, 3, 9, 40, packed.len() / 2, packed.len() - 1] {
                assert!(read(&packed[..cut], packing).is_err(), "{packing:?} cut at {cut}");
            }
            assert!(read(&[&packed[..], b"more"].concat(), packing).is_err());
            assert_eq!(read(b"", Packing::Zstd).unwrap(), b"");
        }
    }
}
