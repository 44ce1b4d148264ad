//! The index beside a data file of Megatron: `NAME.idx` says how wide the tokens of `NAME.bin` are and where each sequence
//! lies.
//!
//! Little-endian: magic `MMIDIDX\0\0`, u64 version 1, u8 type, u64 sequences S, u64 documents D, i32 lengths in tokens (S),
//! i64 places in bytes (S), i64 first sequences of documents (D), and in some i8 modes (S).
//!
//! Only an index whose sequences lie side by side from the first byte to the last is taken, as all writers make them, so the
//! tokens are read in order, with whatever ends their documents. It is read once, a block at a time.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
/// Bytes before the lengths.
const HEADER: u64 = 34;

/// Bytes of a token in the data file at `path`, which has `size` bytes, if an index is beside it.
///
/// # Errors
/// An index that does not fit the file, or tokens of a type that is no whole number of 8 to 32 bits.
pub(super) fn width_beside(path: &Path, size: usize) -> Result<Option<usize>> {
    let beside = path.with_extension("idx");
    let failed = |cause: &std::io::Error| Error::io("read", &beside, cause);
    // A pipe would wait for its writer.
    match std::fs::metadata(&beside) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(failed(&cause)),
    }
    let wrong = |reason: String| {
        Error::input(format!("{} {reason}; write it again with Megatron, or remove it", beside.display()))
    };
    let mut index = BufReader::new(File::open(&beside).map_err(|cause| failed(&cause))?);
    let mut magic = [0; MAGIC.len()];
    // A file of another kind has nothing to say of this one.
    if index.read_exact(&mut magic).is_err() || magic != *MAGIC {
        return Ok(None);
    }
    let mut header = [0; HEADER as usize - MAGIC.len()];
    index.read_exact(&mut header).map_err(|_| wrong("ends in its header".to_owned()))?;
    let number =
        |at: usize| header.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes);
    let (version, kind, sequences, documents) = (number(0), header[8], number(9), number(17));
    if version != 1 {
        return Err(wrong(format!("is an index of version {version}, only version 1 is known")));
    }
    let width = match kind {
        1 | 2 => 1,
        3 | 8 => 2,
        4 => 4,
        _ => {
            return Err(wrong(format!(
                "says that its tokens are of type {kind}, only types 1 to 4 and 8 are token numbers"
            )));
        }
    };
    let length = index.get_ref().metadata().map_err(|cause| failed(&cause))?.len();
    let arrays = sequences.checked_mul(12).and_then(|bytes| bytes.checked_add(documents.checked_mul(8)?));
    let expected = arrays.and_then(|bytes| bytes.checked_add(HEADER));
    if expected.is_none_or(|bytes| bytes != length && bytes.checked_add(sequences) != Some(length)) {
        return Err(wrong(format!(
            "lists {sequences} sequences and {documents} documents, which does not fit its size of {length} bytes"
        )));
    }
    let mut places = BufReader::new(File::open(&beside).map_err(|cause| failed(&cause))?);
    places.seek(SeekFrom::Start(HEADER + 4 * sequences)).map_err(|cause| failed(&cause))?;
    let mut end = 0_u64;
    for sequence in 0..sequences {
        let (mut tokens, mut place) = ([0; 4], [0; 8]);
        index.read_exact(&mut tokens).and_then(|()| places.read_exact(&mut place)).map_err(|cause| failed(&cause))?;
        let (tokens, place) = (i32::from_le_bytes(tokens), i64::from_le_bytes(place));
        let next = u64::try_from(tokens).ok().and_then(|tokens| end.checked_add(tokens * width));
        match next.filter(|&next| u64::try_from(place) == Ok(end) && next <= size as u64) {
            Some(next) => end = next,
            None => {
                return Err(wrong(format!(
                    "says that sequence {sequence} has {tokens} tokens at byte {place}, but the one before it ends at {end} \
                     and the data at {size}"
                )));
            }
        }
    }
    if end != size as u64 {
        return Err(wrong(format!("lists {end} bytes of tokens, but {} has {size}", path.display())));
    }
    Ok(Some(width as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(kind: u8, lengths: &[i32], places: &[i64]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(1_u64.to_le_bytes());
        bytes.push(kind);
        bytes.extend((lengths.len() as u64).to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(lengths.iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend(places.iter().flat_map(|place| place.to_le_bytes()));
        bytes.extend(0_i64.to_le_bytes());
        bytes
    }

    #[test]
    fn an_index_fits_its_data_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("x.bin");
        let width = |bytes: &[u8]| {
            std::fs::write(dir.path().join("x.idx"), bytes).unwrap();
            width_beside(&data, 12)
        };
        assert_eq!(width_beside(&data, 12), Ok(None));
        assert_eq!(width(b"something else"), Ok(None));
        for (kind, lengths, places) in
            [(8, [2, 4], [0, 4]), (4, [1, 2], [0, 4]), (1, [5, 7], [0, 5]), (3, [0, 6], [0, 0])]
        {
            let found = [1, 1, 1, 2, 4, 0, 0, 0, 2][kind as usize];
            assert_eq!(width(&index(kind, &lengths, &places)), Ok(Some(found)), "{kind}");
        }
        let sound = index(8, &[2, 4], &[0, 4]);
        assert_eq!(width(&[&sound[..], &[0, 0]].concat()), Ok(Some(2)), "with modes");
        let changed = |at: usize, bytes: &[u8]| {
            let mut changed = sound.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            changed
        };
        for (bytes, said) in [
            (sound[..20].to_vec(), "ends in its header"),
            (sound[..50].to_vec(), "does not fit its size"),
            (changed(9, &[2]), "version 2"),
            (changed(17, &[7]), "type 7"),
            (changed(18, &u64::MAX.to_le_bytes()), "does not fit its size"),
            (index(8, &[2, 4], &[0, 6]), "sequence 1 has 4 tokens at byte 6"),
            (index(8, &[2, 5], &[0, 4]), "sequence 1 has 5 tokens"),
            (index(8, &[-2, 4], &[0, 4]), "sequence 0 has -2 tokens"),
            (index(8, &[2, 4], &[0, i64::MIN]), "sequence 1"),
            (index(8, &[2, 3], &[0, 4]), "lists 10 bytes"),
        ] {
            let error = width(&bytes).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
