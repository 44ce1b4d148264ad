//! Damage to a checkpoint file is seen before any of it is used, whatever and wherever it is, and the newest file
//! without damage is found.

use crate::checkpoint;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tokenformer::checkpoint::{Keep, Verified, verify};
use tokenformer::train::{Checkpoint, Store};

/// A run with two checkpoints; the newer one's path and bytes.
fn two() -> (tempfile::TempDir, Store, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    let keep = Keep { last: 2, every: 0 };
    store.save(&checkpoint(1), keep).unwrap();
    let path = store.save(&checkpoint(2), keep).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(verify(&path), Ok(Verified::Intact));
    (dir, store, path, bytes)
}

#[track_caller]
fn seen(store: &Store, path: &Path, what: &str) {
    let error = Checkpoint::read(path).map(drop).expect_err(what).to_string();
    assert!(error.contains("step-00000002.safetensors"), "{what}: {error}");
    assert!(verify(path) != Ok(Verified::Intact), "{what}");
    let latest = store.latest().unwrap();
    assert_eq!(latest.found.unwrap().1, checkpoint(1), "{what}");
    assert_eq!(latest.warnings, [error], "{what}");
}

#[test]
fn every_flipped_bit_is_seen() {
    let (_dir, store, path, bytes) = two();
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    let mut put = |at: usize, byte: u8| {
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[byte]).unwrap();
    };
    for bit in 0..bytes.len() * 8 {
        let (at, flipped) = (bit / 8, bytes[bit / 8] ^ 1 << (bit % 8));
        put(at, flipped);
        seen(&store, &path, &format!("bit {bit}"));
        put(at, bytes[at]);
    }
    println!("{} bits", bytes.len() * 8);
    assert_eq!(Checkpoint::read(&path).unwrap(), checkpoint(2));
}

#[test]
fn every_truncation_is_seen() {
    let (_dir, store, path, bytes) = two();
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        seen(&store, &path, &format!("{len} bytes"));
    }
}

#[test]
fn every_zeroed_sector_and_everything_appended_is_seen() {
    let (_dir, store, path, bytes) = two();
    for start in (0..bytes.len()).step_by(512) {
        for zeroed in [start..(start + 512).min(bytes.len()), start..bytes.len()] {
            let mut damaged = bytes.clone();
            damaged[zeroed.clone()].fill(0);
            fs::write(&path, &damaged).unwrap();
            seen(&store, &path, &format!("zeros in {zeroed:?}"));
        }
    }
    for byte in 0..=255 {
        fs::write(&path, [&bytes[..], &[byte]].concat()).unwrap();
        seen(&store, &path, &format!("{byte} at the end"));
    }
    for more in [512, 4096, bytes.len()] {
        fs::write(&path, [&bytes[..], &vec![0; more]].concat()).unwrap();
        seen(&store, &path, &format!("{more} zeros at the end"));
    }
    // Sectors of two checkpoints, as a lost write leaves them.
    let older = fs::read(path.with_file_name("step-00000001.safetensors")).unwrap();
    assert_eq!(older.len(), bytes.len());
    for start in (0..bytes.len()).step_by(512) {
        let end = (start + 512).min(bytes.len());
        let mut mixed = bytes.clone();
        mixed[start..end].copy_from_slice(&older[start..end]);
        if mixed != bytes {
            fs::write(&path, &mixed).unwrap();
            seen(&store, &path, &format!("an old sector at {start}"));
        }
    }
}

#[test]
fn a_checkpoint_opens_in_python_with_its_checksums() {
    let (_dir, _, _, bytes) = two();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    let data = &bytes[bytes.len() - header.data_len()..];
    assert_eq!(metadata["crc32_per_mib"], format!("{:08x}", crc32fast::hash(data)));
    let mut head = bytes[..bytes.len() - data.len()].to_vec();
    // Where README says that the digits are.
    assert_eq!(&head[34..42], metadata["crc32"].as_bytes());
    head[34..42].fill(b'0');
    assert_eq!(metadata["crc32"], format!("{:08x}", crc32fast::hash(&head)));
}
