//! Data sets of many files: manifests of prepared directories, and indices of Megatron.
//!
//! Both name other files, so each case is a directory: the shards are always the same, and what says what they are is not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokenformer::data::open;
use tokenformer::error::Result;

use crate::attack::Target;
use crate::dice::Dice;

/// The tokens of `a.bin`, `b.bin` and `c.bin`.
const SHARDS: [(&str, &[u8]); 3] = [("a.bin", &[1, 2, 3, 4, 5]), ("b.bin", &[6, 7]), ("c.bin", &[8, 9, 10])];
/// `sha256sum` of the file `"byte"`.
const BYTE: &str = "1e8812989173ac0bdd3f3ff3cde6f313e537ebe0884dc794f2dac7873b63794c";

#[derive(Debug)]
struct Input(Vec<u8>);

impl AsRef<[u8]> for Input {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn llmc(tokens: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = [20_240_520, 1, tokens.len() as i32].iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(1024, 0);
    bytes.extend(tokens.iter().flat_map(|&token| u16::from(token).to_le_bytes()));
    bytes
}

/// A directory with all that a manifest may name.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), "\"byte\"").unwrap();
    for (name, tokens) in SHARDS {
        fs::write(dir.path().join(name), llmc(tokens)).unwrap();
    }
    fs::write(dir.path().join("cut.bin"), &llmc(&[1, 2, 3])[..1027]).unwrap();
    fs::write(dir.path().join("empty.bin"), "").unwrap();
    fs::write(dir.path().join("plain.bin"), vec![1; 1030]).unwrap();
    fs::create_dir(dir.path().join("dir.bin")).unwrap();
    #[cfg(unix)]
    for (link, to) in
        [("zero.bin", "/dev/zero"), ("loop.bin", "loop.bin"), ("linked.bin", "c.bin"), ("out.bin", "/etc/passwd")]
    {
        std::os::unix::fs::symlink(to, dir.path().join(link)).unwrap();
    }
    dir
}

const NAMES: &[&str] = &[
    "a.bin",
    "b.bin",
    "c.bin",
    "cut.bin",
    "empty.bin",
    "plain.bin",
    "dir.bin",
    "zero.bin",
    "loop.bin",
    "out.bin",
    "none.bin",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a.bin/",
    "./a.bin",
    "dir.bin/../a.bin",
    "a\0.bin",
    "\u{feff}a.bin",
    "manifest.json",
    "tokenizer.json",
    "C:\\a.bin",
];

fn value(dice: &mut Dice) -> Value {
    match dice.below(8) {
        0 => Value::Null,
        1 => json!([]),
        2 => json!({}),
        3 => json!(dice.pick(NAMES)),
        4 => json!(1.5e300),
        5 => json!("x".repeat(dice.below(10_000))),
        _ => json!(i64::try_from(dice.extreme()).unwrap_or(i64::MAX)),
    }
}

fn manifest(dice: &mut Dice) -> Vec<u8> {
    let shard = |(file, tokens): (&str, &[u8])| json!({"file": file, "tokens": tokens.len(), "sha256": ""});
    let split = |shards: Vec<Value>| {
        let tokens: u64 = shards.iter().filter_map(|shard| shard["tokens"].as_u64()).fold(0, u64::wrapping_add);
        json!({"tokens": tokens, "documents": 1, "bytes": 1, "shards": shards})
    };
    let mut parts: [Vec<Value>; 2] = [vec![shard(SHARDS[0]), shard(SHARDS[1])], vec![shard(SHARDS[2])]];
    for _ in 0..dice.few(3) {
        let other = parts[1].clone();
        let part = &mut parts[dice.below(2)];
        match dice.below(5) {
            0 => dice.shuffle(part, &other),
            4 => part.clear(),
            1 => part.iter_mut().for_each(|shard| shard["file"] = json!(dice.pick(NAMES))),
            2 => part.iter_mut().for_each(|shard| shard["tokens"] = json!(dice.extreme() as u64)),
            _ => part.iter_mut().for_each(|shard| shard["sha256"] = value(dice)),
        }
    }
    let [train, val] = parts.map(split);
    let mut whole = json!({
        "version": 1, "tokenizer": "byte", "tokenizer_sha256": BYTE, "vocab_size": 256, "end_of_text": null, "split": "end",
        "val_fraction": 0.1, "train": train, "val": val, "sources": [], "skipped": 0, "created_by": "",
    });
    for _ in 0..dice.few(2) {
        let fields = whole.as_object_mut().unwrap();
        if fields.is_empty() {
            break;
        }
        let keys: Vec<String> = fields.keys().cloned().collect();
        let key = &keys[dice.below(keys.len())];
        match dice.below(6) {
            0 => drop(fields.remove(key)),
            3 => drop(fields.insert("version".into(), json!(dice.below(4)))),
            1 => drop(fields.insert("vocab_size".into(), json!(i64::try_from(dice.extreme()).unwrap_or(1 << 40)))),
            2 => fields.get_mut("train").filter(|train| train.is_object()).into_iter().for_each(|train| {
                train["tokens"] = value(dice);
            }),
            _ => drop(fields.insert(key.clone(), value(dice))),
        }
    }
    whole.to_string().into_bytes()
}

fn make(dice: &mut Dice) -> Input {
    let mut bytes = manifest(dice);
    if dice.one_in(3) {
        let other = manifest(dice);
        for _ in 0..=dice.few(3) {
            dice.damage(&mut bytes, &other);
        }
    }
    Input(bytes)
}

/// All tokens of both splits.
fn tokens(path: &Path) -> Result<[Vec<u32>; 2]> {
    let data = open(path, None, None, 0.5, Some(256))?;
    Ok([data.train.window(0, data.train.len())?, data.val.window(0, data.val.len())?])
}

/// What is accepted is the tokens of shards that are there, each named once, in the order in which they are listed.
fn check(input: &Input, parsed: Option<[Vec<u32>; 2]>) -> Result<(), String> {
    let Some(found) = parsed else { return Ok(()) };
    let manifest: Value = serde_json::from_slice(&input.0).map_err(|e| e.to_string())?;
    let mut seen = BTreeSet::new();
    let mut expected: Vec<Vec<u32>> = Vec::new();
    for split in ["train", "val"] {
        let mut tokens = Vec::new();
        for shard in manifest[split]["shards"].as_array().into_iter().flatten() {
            let known = SHARDS.iter().find(|(name, _)| shard["file"] == *name);
            let Some((name, known)) = known.filter(|(name, _)| seen.insert(*name)) else {
                return Err(format!("the shard {shard} was taken"));
            };
            if shard["tokens"] != known.len() {
                return Err(format!("{name} was taken with another count"));
            }
            tokens.extend(known.iter().map(|&token| u32::from(token)));
        }
        if manifest[split]["tokens"] != tokens.len() {
            return Err(format!("{split} was taken with another sum"));
        }
        expected.push(tokens);
    }
    // Where nothing was set apart, the end is validated on.
    if expected[1].is_empty() {
        let end = expected[0].len() / 2;
        expected[1] = expected[0].split_off(end);
    }
    if found[..] == expected[..] { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
}

const REFUSALS: &[&str] = &[
    "cannot be read: ",
    "is of version ",
    "says that its vocabulary is ",
    "is not the tokenizer that the shards beside it were made with",
    "which its shards do not add up to",
    "is no name of a file beside it",
    "twice",
    "do not fit the ",
    "is not a regular file",
    "is empty",
    "cannot open ",
    "no tokens to train on",
];

#[test]
fn manifests() {
    let dir = directory();
    let parse = |input: &Input| {
        fs::write(dir.path().join("manifest.json"), &input.0).unwrap();
        tokens(dir.path())
    };
    Target { name: "manifests", cases: 1000, make, parse, check, refusals: REFUSALS }.attack();
}

/// A shard of another kind, and one that links out of the directory, are refused for what they are.
#[test]
#[cfg(unix)]
fn what_a_manifest_names_is_a_shard() {
    let dir = directory();
    let said = |name: &str, count: u64| {
        let shard = json!({"file": name, "tokens": count, "sha256": ""});
        let split = |shards: Value| json!({"tokens": count, "documents": 1, "bytes": 1, "shards": shards});
        let val =
            json!({"tokens": 3, "documents": 1, "bytes": 1, "shards": [{"file": "c.bin", "tokens": 3, "sha256": ""}]});
        let manifest = json!({
            "version": 1, "tokenizer": "byte", "tokenizer_sha256": BYTE, "vocab_size": 256, "end_of_text": null,
            "split": "end", "val_fraction": 0.1, "train": split(json!([shard])), "val": val, "sources": [], "skipped": 0,
            "created_by": "",
        });
        fs::write(dir.path().join("manifest.json"), manifest.to_string()).unwrap();
        tokens(dir.path()).unwrap_err().to_string()
    };
    let length = fs::metadata("/etc/passwd").unwrap().len();
    assert!(said("plain.bin", 3).contains("but is known to have") || said("plain.bin", 3).contains("looks like"));
    assert!(said("cut.bin", 3).contains("do not fit the 3 tokens"));
    assert!(said("out.bin", length).contains("do not fit"));
    assert!(said("zero.bin", 3).contains("is not a regular file"));
    assert!(said("loop.bin", 3).contains("cannot open"));
    assert!(said("a.bin", u64::MAX).contains("do not fit"));
}

/// An index of Megatron over twelve bytes.
fn index(dice: &mut Dice) -> Vec<u8> {
    let kind = [1, 2, 3, 4, 8, dice.bits() as u8][dice.below(6)];
    let width = [1, 1, 1, 2, 4, 1, 1, 1, 2].get(usize::from(kind)).copied().unwrap_or(1);
    let (mut lengths, mut places, mut at) = (Vec::new(), Vec::new(), 0_i64);
    while at < 12 / width {
        let length = (dice.below(5) as i64).min(12 / width - at);
        lengths.push(length as i32);
        places.push(at * width);
        at += length;
    }
    for _ in 0..dice.few(2) {
        let (one, other) = (dice.below(lengths.len()), dice.extreme());
        if dice.one_in(2) {
            lengths[one] = other as i32;
        } else {
            places[one] = other as i64;
        }
    }
    let mut bytes = b"MMIDIDX\0\0".to_vec();
    bytes.extend(1_u64.to_le_bytes());
    bytes.push(kind);
    bytes.extend((lengths.len() as u64).to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(lengths.iter().flat_map(|length| length.to_le_bytes()));
    bytes.extend(places.iter().flat_map(|place| place.to_le_bytes()));
    bytes.extend(0_i64.to_le_bytes());
    for _ in 0..dice.few(2) {
        let at = [9, 18, 26][dice.below(3)];
        bytes[at..at + 8].copy_from_slice(&(dice.extreme() as u64).to_le_bytes());
    }
    bytes
}

#[test]
fn indices() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (1..13).collect();
    fs::write(dir.path().join("x.bin"), &data).unwrap();
    let make = |dice: &mut Dice| {
        let mut bytes = index(dice);
        if dice.one_in(3) {
            let other = index(dice);
            for _ in 0..=dice.few(3) {
                dice.damage(&mut bytes, &other);
            }
        }
        Input(bytes)
    };
    let parse = |input: &Input| {
        fs::write(dir.path().join("x.idx"), &input.0).unwrap();
        let data = open(&dir.path().join("x.bin"), None, None, 0.5, Some(usize::MAX))?;
        Ok([data.train.window(0, data.train.len())?, data.val.window(0, data.val.len())?].concat())
    };
    // Whatever the index says, the tokens are those of the data in one of the widths.
    let check = |input: &Input, parsed: Option<Vec<u32>>| {
        let Some(found) = parsed else { return Ok(()) };
        let is_index = input.0.starts_with(b"MMIDIDX\0\0");
        let width =
            if is_index { [0, 1, 1, 2, 4, 0, 0, 0, 2].get(usize::from(input.0[17])).copied().unwrap_or(0) } else { 2 };
        if width == 0 || is_index && input.0[9..17] != 1_u64.to_le_bytes() {
            return Err("tokens of no known width".to_owned());
        }
        let token = |bytes: &[u8]| bytes.iter().rev().fold(0, |token, &byte| token << 8 | u32::from(byte));
        let expected: Vec<u32> = data.chunks(width).map(token).collect();
        if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
    };
    let refusals = &["ends in its header", "of version", "are of type", "does not fit its size", "says that sequence"];
    Target { name: "indices", cases: 1000, make, parse, check, refusals }.attack();
}
