//! Checksums of a checkpoint file: one of its header, one for every MiB of its data.
//!
//! CRC-32 as in zlib, so that Python's `zlib.crc32` finds the same numbers: it sees every single flipped bit and every
//! burst of up to 32 bits, and anything else with a chance of 1 in 4 billion to miss it. It finds accidents, not
//! forgeries. The checksum of the header covers the length before it and everything in it, with its own eight digits
//! taken as zeros. It is the first thing in the header, at a fixed place, so that it is compared before any of the
//! header is believed.

use std::io::{self, Read};

/// Bytes of the data section that share a checksum.
pub(super) const MIB: usize = 1 << 20;
/// Bytes before the header: its length.
pub(super) const PREFIX: usize = 8;
/// Metadata key of the header's checksum; sorts before every other key.
pub(super) const HEADER_KEY: &str = "crc32";
/// Metadata key of the checksums of the data: eight digits for each MiB.
pub(super) const DATA_KEY: &str = "crc32_per_mib";
/// How the header starts, up to the digits of its checksum.
pub(super) const START: &[u8] = br#"{"__metadata__":{"crc32":""#;
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 8;
/// The digits before they are known.
pub(super) const BLANK: &str = "00000000";

/// What the start of a file says about its header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seal {
    /// It has a checksum, and it is right.
    Intact,
    /// It has a checksum, and it is wrong.
    Broken,
    /// It has none where this crate puts it.
    Absent,
}

/// Splits what precedes the data at its checksum: before, digits, after.
fn around_digits(head: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (before, rest) = head.split_at_checked(PREFIX + START.len())?;
    let (digits, after) = rest.split_at_checked(DIGITS)?;
    before.ends_with(START).then_some((before, digits, after))
}

fn header_sum(before: &[u8], after: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    [before, BLANK.as_bytes(), after].into_iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Puts the checksum into `head`, the length and the header of a file; `false` where there is no place for it.
pub(super) fn seal(head: &mut [u8]) -> bool {
    let Some((before, _, after)) = around_digits(head) else { return false };
    let (at, digits) = (before.len(), text(header_sum(before, after)));
    head.iter_mut().skip(at).zip(digits.bytes()).for_each(|(byte, digit)| *byte = digit);
    true
}

/// Compares the checksum in `head`, the length and the header of a file.
pub(super) fn check_seal(head: &[u8]) -> Seal {
    match around_digits(head) {
        None => Seal::Absent,
        // Compared as text: a flipped bit can make a letter a capital.
        Some((before, digits, after)) if text(header_sum(before, after)).as_bytes() == digits => Seal::Intact,
        Some(_) => Seal::Broken,
    }
}

/// A checksum as it is written.
pub(super) fn text(sum: u32) -> String {
    format!("{sum:08x}")
}

/// The checksums of `len` bytes of data from their text; `None` if it is not that.
pub(super) fn parse(digits: &str, len: u64) -> Option<Vec<u32>> {
    let (eights, rest) = digits.as_bytes().as_chunks::<DIGITS>();
    if !rest.is_empty() || eights.len() as u64 != len.div_ceil(MIB as u64) {
        return None;
    }
    let number = |eight: &[u8; DIGITS]| u32::from_str_radix(std::str::from_utf8(eight).ok()?, 16).ok();
    eights.iter().map(number).collect()
}

/// Why data could not be read.
pub(super) enum Flaw {
    /// The system says so.
    Io(io::Error),
    /// The MiB of this index is not what its checksum says.
    Mib(usize),
}

/// Reads the data section of a file and compares each MiB once all of it has passed.
pub(super) struct Checked<R> {
    inner: R,
    /// `None` for a file without checksums.
    sums: Option<Vec<u32>>,
    len: u64,
    at: u64,
    hasher: crc32fast::Hasher,
}

impl<R: Read> Checked<R> {
    /// `inner` stands at the start of `len` bytes of data.
    pub(super) fn new(inner: R, len: u64, sums: Option<Vec<u32>>) -> Self {
        Self { inner, sums, len, at: 0, hasher: crc32fast::Hasher::new() }
    }

    /// Whether damage can be seen at all.
    pub(super) fn has_sums(&self) -> bool {
        self.sums.is_some()
    }

    /// Fills `bytes` with what is next. What it holds may be believed once the end of its MiB has been read as well.
    pub(super) fn read(&mut self, mut bytes: &mut [u8]) -> Result<(), Flaw> {
        while !bytes.is_empty() {
            let room = MIB - (self.at % MIB as u64) as usize;
            let (now, later) = bytes.split_at_mut(room.min(bytes.len()));
            self.inner.read_exact(now).map_err(Flaw::Io)?;
            self.at += now.len() as u64;
            if let Some(sums) = &self.sums {
                self.hasher.update(now);
                if self.at.is_multiple_of(MIB as u64) || self.at == self.len {
                    let index = ((self.at - 1) / MIB as u64) as usize;
                    let found = std::mem::take(&mut self.hasher).finalize();
                    if sums.get(index) != Some(&found) {
                        return Err(Flaw::Mib(index));
                    }
                }
            }
            bytes = later;
        }
        Ok(())
    }

    /// Reads all that is left and compares it.
    pub(super) fn finish(&mut self) -> Result<(), Flaw> {
        let mut piece = vec![0; MIB.min((self.len - self.at) as usize)];
        while self.at < self.len {
            piece.truncate((self.len - self.at).min(MIB as u64) as usize);
            self.read(&mut piece)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_zlib() {
        // The check value that the standard gives, and Python's zlib.crc32(b"123456789").
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(text(0xa), "0000000a");
        assert_eq!(parse("0000000affffffff", MIB as u64 + 1), Some(vec![10, u32::MAX]));
        assert_eq!((parse("0000000a", 0), parse("0000000", 1), parse("0000000g", 1)), (None, None, None));
        assert_eq!(parse("", 0), Some(Vec::new()));
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_header_breaks_it_or_takes_its_place_away() {
        let mut head = [&50_u64.to_le_bytes(), START, BLANK.as_bytes(), br#"","step":"7"}}   "#].concat();
        assert_eq!(check_seal(&head), Seal::Broken);
        assert!(seal(&mut head));
        assert_eq!(check_seal(&head), Seal::Intact);
        for bit in 0..head.len() * 8 {
            head[bit / 8] ^= 1 << (bit % 8);
            let in_start = (PREFIX..PREFIX + START.len()).contains(&(bit / 8));
            assert_eq!(check_seal(&head), if in_start { Seal::Absent } else { Seal::Broken }, "bit {bit}");
            head[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(!seal(&mut head[..20]));
    }
}
