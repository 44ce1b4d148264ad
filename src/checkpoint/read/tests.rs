//! What reading makes of whole, damaged, old, foreign and hostile files.

use super::super::checksum;
use super::super::format::Versioned;
use super::super::tests::{Said, sample};
use super::super::{Checkpoint, Opened, read_meta, verify};
use super::*;

fn bytes_of(checkpoint: &Checkpoint<Said>) -> Vec<u8> {
    let (encoded, mut bytes) = (checkpoint.encode().unwrap(), Vec::new());
    encoded.write_to(&mut bytes).unwrap();
    assert_eq!(encoded.len(), bytes.len() as u64);
    bytes
}

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

/// Reads a checkpoint file; the error without its path.
fn read(file: &tempfile::NamedTempFile) -> Result<Checkpoint<Said>, String> {
    let without_path = |error: Error| error.to_string().replace(file.path().to_str().unwrap(), "FILE");
    Checkpoint::read(file.path()).map_err(without_path)
}

fn with_header(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
}

#[test]
fn a_checkpoint_survives_to_the_bit_and_other_readers_can_open_it() {
    let mut checkpoint = sample(100);
    // Longer than a MiB, so that its seams are crossed.
    let long = HostTensor { shape: vec![700_000], data: (0..700_000).map(|i| f32::from_bits(i * 5_001)).collect() };
    checkpoint.params = [("long".to_owned(), long)].into();
    (checkpoint.moment1, checkpoint.moment2) = (checkpoint.params.clone(), checkpoint.params.clone());
    checkpoint.averages = checkpoint.params.clone();
    checkpoint.meta.rows.clear();
    for checkpoint in [checkpoint, sample(100)] {
        let bytes = bytes_of(&checkpoint);
        let back = read(&file_of(&bytes)).unwrap();
        assert_eq!(bytes_of(&back), bytes);
        assert_eq!(back.meta, checkpoint.meta);
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(theirs.len(), 4 * checkpoint.params.len());
        for (name, tensor) in &checkpoint.params {
            assert_eq!(theirs.tensor(name).unwrap().data(), bytemuck::cast_slice::<f32, u8>(&tensor.data));
        }
    }
}

#[test]
fn every_truncation_is_refused_as_one() {
    let bytes = bytes_of(&sample(100));
    let file = file_of(&[&bytes[..], b"!"].concat());
    assert!(read(&file).unwrap_err().starts_with("FILE is damaged: 1 bytes follow its last tensor"));
    for len in (9..bytes.len()).rev() {
        file.as_file().set_len(len as u64).unwrap();
        let error = read(&file).unwrap_err();
        assert!(error.starts_with(&format!("FILE is truncated: it is {len} bytes long")), "{error}");
    }
    file.as_file().set_len(8).unwrap();
    assert!(read(&file).unwrap_err().starts_with("FILE is not a safetensors file"));
    assert_eq!(read(&file_of(b"")).unwrap_err(), "FILE is empty");
}

#[test]
fn foreign_and_hostile_files_are_refused_in_their_own_words() {
    let cases: [(Vec<u8>, &str); 11] = [
        (b"just some text, no tensors at all".to_vec(), "FILE is not a safetensors file"),
        (b"PK\x03\x04 and the rest of a zip".to_vec(), "FILE is a zip archive such as torch.save writes"),
        (with_header("{}", b""), "FILE is a safetensors file but not a tokenformer checkpoint"),
        (with_header(&"{".repeat(1000), b""), "FILE is damaged, or not a safetensors file"),
        (with_header(&"{".repeat(10_000), b""), "FILE is damaged: a header of 10000 bytes is too much for 0 bytes"),
        (
            with_header(&format!("{{{}}}", " ".repeat(100_000)), b""),
            "FILE is damaged: a header of 100002 bytes is too much for 0 bytes of values; use another copy",
        ),
        (
            with_header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, b""),
            "FILE is damaged, or not a safetensors file: its header is wrong: invalid offset for tensor `a`",
        ),
        (
            with_header(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#, b""),
            "FILE is damaged, or not a safetensors file: its header is wrong: overflow",
        ),
        (
            with_header(r#"{"__metadata__":{"tokenformer":"{\"format\":3}"}}"#, b""),
            "FILE has checkpoint format 3 and this version reads formats 1 to 2",
        ),
        (
            with_header(r#"{"__metadata__":{"tokenformer":"{\"format\":2}"}}"#, b""),
            "FILE is damaged: its checksums are missing",
        ),
        (
            with_header(r#"{"__metadata__":{"tokenformer":"{\"format\":1}"}}"#, b""),
            "FILE is damaged: its \"tokenformer\" metadata is wrong: missing field `step`",
        ),
    ];
    for (bytes, start) in cases {
        let error = read(&file_of(&bytes)).unwrap_err();
        assert!(error.starts_with(start), "{error}");
    }
}

/// What version 0.1.0 wrote before there were checksums: the same layout without them.
fn format_1(checkpoint: &Checkpoint<Said>) -> Vec<u8> {
    let bytes = bytes_of(checkpoint);
    let header_len = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let (header, data) = bytes[PREFIX..].split_at(header_len);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let metadata = header["__metadata__"].as_object_mut().unwrap();
    metadata.retain(|key, _| !key.starts_with("crc32"));
    let meta = serde_json::to_string(&Versioned { format: 1, meta: &checkpoint.meta }).unwrap();
    metadata.insert("tokenformer".into(), meta.into());
    metadata.insert("tokenformer_format".into(), "1".into());
    with_header(&header.to_string(), data)
}

#[test]
fn a_file_from_before_checksums_is_read_and_rewritten_with_them() {
    let file = file_of(&format_1(&sample(100)));
    assert_eq!(verify(file.path()), Ok(Verified::NoChecksums));
    let back = read(&file).unwrap();
    assert_eq!(back, sample(100));
    let file = file_of(&bytes_of(&back));
    assert_eq!(verify(file.path()), Ok(Verified::Intact));
}

/// As Python's `save_file` with the metadata of the original writes it: keys in any order, other spacing.
fn saved_again(bytes: &[u8], first: &str) -> Vec<u8> {
    let header_len = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let (header, data) = bytes[PREFIX..].split_at(header_len);
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let text = |value: &serde_json::Value| serde_json::to_string(value).unwrap();
    let metadata = header["__metadata__"].as_object().unwrap();
    let mut pairs: Vec<String> = metadata.iter().map(|(key, value)| format!("{key:?}:{}", text(value))).collect();
    pairs.sort_by_key(|pair| !pair.starts_with(&format!("{first:?}")));
    let tensors = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__").rev();
    let tensors: String = tensors.map(|(name, info)| format!(",{name:?}:{}", text(info))).collect();
    with_header(&format!("{{\"__metadata__\":{{{}}}{tensors}}}", pairs.join(",")), data)
}

#[test]
fn what_was_saved_again_with_all_it_had_is_whole_and_any_loss_is_seen() {
    let bytes = bytes_of(&sample(100));
    for first in ["step", "crc32", "tokenformer"] {
        let again = saved_again(&bytes, first);
        let file = file_of(&again);
        assert_eq!(verify(file.path()), Ok(Verified::SavedAgain), "{first}");
        assert_eq!(read(&file).unwrap(), sample(100));
        // Another step, another value: not what was written.
        let said = br#""step":"100""#;
        let at = again.windows(said.len()).position(|window| window == said).unwrap();
        let mut other = again.clone();
        other[at + said.len() - 2] = b'1';
        assert!(read(&file_of(&other)).unwrap_err().contains("checksum"), "{first}");
        let mut flipped = again.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let file = file_of(&flipped);
        assert!(read(&file).unwrap_err().contains("does not match its checksum"), "{first}");
        let opened = Opened::<Said>::read(file.path(), Checks::Waived).unwrap();
        assert_eq!((opened.verified, opened.checkpoint.meta), (Verified::NoChecksums, sample(100).meta));
        assert_ne!(opened.checkpoint.moment2, sample(100).moment2);
    }
    let file = file_of(&bytes);
    let opened = Opened::<Said>::read(file.path(), Checks::Required).unwrap();
    assert_eq!(
        (opened.verified, opened.digest),
        (Verified::Intact, super::super::FileDigest::read(file.path()).unwrap())
    );
}

#[test]
fn damage_to_data_is_named_by_its_mib_and_its_tensors() {
    let mut checkpoint = sample(100);
    let values = |count: usize| HostTensor { shape: vec![count], data: vec![1.5; count] };
    checkpoint.params = [("a", 10), ("b", 300_000), ("c", 20)].map(|(name, n)| (name.to_owned(), values(n))).into();
    (checkpoint.moment1, checkpoint.moment2, checkpoint.averages) = Default::default();
    checkpoint.meta.rows.clear();
    let bytes = bytes_of(&checkpoint);
    let data_start = bytes.len() - 4 * 300_030;
    for (offset, mib, tensors) in [(45, 1, "tensors \"a\" to \"b\""), (4 * 300_020, 2, "tensors \"b\" to \"c\"")] {
        let mut bytes = bytes.clone();
        bytes[data_start + offset] ^= 4;
        let file = file_of(&bytes);
        let error = read(&file).unwrap_err();
        assert!(error.starts_with(&format!("FILE is damaged: MiB {mib} of 2 of its data (bytes ")), "{error}");
        assert!(error.contains(tensors) && error.ends_with("or an earlier checkpoint"), "{error}");
        assert_eq!(verify(file.path()).unwrap_err(), Checkpoint::<Said>::read(file.path()).unwrap_err());
        assert_eq!(read_meta(file.path()), Ok(checkpoint.meta.clone()), "the header is whole");
    }
}

/// A checksum over the whole file cannot be cut out of it together with its key: the format says that there is one.
#[test]
fn a_checksum_that_is_missing_is_missed() {
    let bytes = bytes_of(&sample(100));
    for key in ["\"crc32\"", "\"crc32_per_mib\""] {
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
        let mut renamed = bytes.clone();
        renamed[at + 1] = b'b';
        let error = read(&file_of(&renamed)).unwrap_err();
        assert!(error.starts_with("FILE is damaged: "), "{error}");
    }
    let mut resealed = bytes;
    let at = resealed.windows(15).position(|window| window == b"\"crc32_per_mib\"").unwrap();
    resealed[at + 1] = b'b';
    let header_len = u64::from_le_bytes(*resealed.first_chunk().unwrap()) as usize;
    assert!(checksum::seal(&mut resealed[..PREFIX + header_len]));
    assert!(read(&file_of(&resealed)).unwrap_err().contains("the checksums of its data are missing"));
}

#[test]
fn halves_widen_exactly() {
    for bits in 0..=u16::MAX {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
        let size = match exponent {
            0 => fraction * 2f64.powi(-14),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
        };
        let want = size.copysign(if bits >> 15 == 1 { -1.0 } else { 1.0 });
        let got = f64::from(f16(bits));
        assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#x}: {got} {want}");
    }
    assert_eq!((f16(0x7bff), bf16(0x3fc0), bf16(0xff80)), (65504.0, 1.5, f32::NEG_INFINITY));
}
