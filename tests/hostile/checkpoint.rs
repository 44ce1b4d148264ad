//! Checkpoints: a length, a JSON header that names the tensors, JSON inside that header, and the tensors' values.
//!
//! Damage is done to the tree that the two JSON texts are, which serde_json's own values could not hold: keys may come
//! twice. Offsets, lengths and checksums are mostly put right again, so that a strange shape gets past the checks of
//! sizes and of damage. Files are of format 1, without checksums, or 2; they are read from memory.

use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokenformer::checkpoint::{Source, list_tensors, read_meta, verify};
use tokenformer::error::Result;
use tokenformer::exchange::{Options, open};
use tokenformer::train::disk::Start;
use tokenformer::train::{Checkpoint, Meta};

use crate::attack::Target;
use crate::dice::Dice;
use crate::header::{HEADERS, Node};

const SCALARS: [&str; 22] = [
    "null",
    "true",
    "-1",
    "1e999",
    "-0.0",
    "1.5",
    "\"\"",
    "\"NaN\"",
    "\"inf\"",
    "\"F32\"",
    "\"F16\"",
    "\"BF16\"",
    "\"F64\"",
    "\"F4\"",
    "\"BOOL\"",
    "\"\\ud800\"",
    "\"\\u0000\\u001b[31m\"",
    "99999999999999999999",
    "0.1e-400",
    "nan",
    "\"1\"",
    "{}",
];

const KEYS: [&str; 10] =
    ["__metadata__", "tokenformer", "shape", "dtype", "data_offsets", "optimizer.m.a", "a", "", "format", "\u{1b}]0;x"];

fn scalar(dice: &mut Dice) -> String {
    match dice.below(4) {
        0 | 1 => dice.extreme().to_string(),
        2 => dice.pick(&SCALARS).to_owned(),
        _ => {
            let depth = if dice.one_in(8) { dice.below(300) } else { dice.below(8) };
            let (open, close) = [("[", "]"), ("{\"a\":", "}")][dice.below(2)];
            open.repeat(depth) + "0" + &close.repeat(depth)
        }
    }
}

/// Changes one place of the tree; `other` is a tree to take pieces from.
fn mutate(dice: &mut Dice, node: &mut Node, other: &Node) {
    if dice.one_in(12) {
        *node = Node::Scalar(scalar(dice));
        return;
    }
    let deeper = !dice.one_in(4);
    match node {
        Node::Scalar(text) => *text = scalar(dice),
        Node::Text(inside) => mutate(dice, inside, other),
        Node::List(list) if deeper && !list.is_empty() => {
            let at = dice.below(list.len());
            mutate(dice, &mut list[at], other);
        }
        Node::Map(map) if deeper && !map.is_empty() => {
            let at = dice.below(map.len());
            mutate(dice, &mut map[at].1, other);
        }
        Node::List(list) => {
            let numbers = [Node::Scalar("0".to_owned()), Node::Scalar("3".to_owned())];
            dice.shuffle(list, if let Node::List(other) = other { other } else { &numbers });
        }
        Node::Map(map) => match dice.below(3) {
            0 if !map.is_empty() => {
                let at = dice.below(map.len());
                map[at].0 = dice.pick(&KEYS).to_owned();
            }
            _ => dice.shuffle(map, if let Node::Map(other) = other { other } else { &[] }),
        },
    }
}

/// Gives every tensor the offsets that its shape and type ask for; returns the bytes of all values.
fn lay_out(header: &mut Node) -> u64 {
    let Node::Map(entries) = header else { return 0 };
    let mut end = 0_u64;
    for (name, entry) in entries {
        let width = match entry.get("dtype") {
            Some(Node::Scalar(dtype)) if dtype == "\"F32\"" => 4,
            Some(Node::Scalar(dtype)) if dtype == "\"F64\"" => 8,
            _ => 2,
        };
        let shape = entry.get("shape").and_then(Node::numbers).unwrap_or_default();
        let bytes = shape.iter().try_fold(width, |n: u64, axis| n.checked_mul(*axis));
        let (start, Node::Map(fields)) = (end, entry) else { continue };
        if name == "__metadata__" {
            continue;
        }
        end = bytes.and_then(|bytes| end.checked_add(bytes)).unwrap_or(end);
        for (_, offsets) in fields.iter_mut().filter(|(key, _)| key == "data_offsets") {
            *offsets = Node::List([start, end].map(|at| Node::Scalar(at.to_string())).to_vec());
        }
    }
    end
}

/// A whole file.
fn file(dice: &mut Dice) -> Vec<u8> {
    let mut pick = || &HEADERS[[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3][dice.below(16)]];
    let (mut tree, other) = (pick().clone(), pick());
    let mut end = lay_out(&mut tree);
    for _ in 0..dice.few(5) {
        mutate(dice, &mut tree, other);
        if !dice.one_in(4) {
            end = lay_out(&mut tree);
        }
    }
    if dice.one_in(64)
        && let Some(meta) = tree.get_mut("__metadata__").and_then(|metadata| metadata.get_mut("tokenformer"))
        && let Some(format) = meta.get_mut("format")
    {
        *format = Node::Scalar(dice.below(4).to_string());
    }
    let values = vec![dice.bits() as u8; end.min(4096) as usize];
    if !dice.one_in(16) {
        sum_values(&mut tree, &values);
    }
    let mut bytes = assemble(&tree, &values);
    if dice.one_in(32) {
        bytes[..8].copy_from_slice(&(dice.extreme() as u64).to_le_bytes());
    }
    if !dice.one_in(16) {
        seal(&mut bytes);
    }
    bytes
}

/// The length of the header, the header and the values.
fn assemble(tree: &Node, values: &[u8]) -> Vec<u8> {
    let mut header = String::new();
    tree.write(&mut header);
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), values].concat()
}

/// Puts the checksum of each MiB of the values into the header, where it has a place.
fn sum_values(tree: &mut Node, values: &[u8]) {
    if let Some(sums) = tree.get_mut("__metadata__").and_then(|metadata| metadata.get_mut("crc32_per_mib")) {
        let digits: String = values.chunks(1 << 20).map(|mib| format!("{:08x}", crc32fast::hash(mib))).collect();
        *sums = Node::Scalar(format!("\"{digits}\""));
    }
}

/// Puts the checksum of the header into it, where it has a place.
fn seal(file: &mut [u8]) {
    const START: &[u8] = br#"{"__metadata__":{"crc32":""#;
    let Some(len) = file.first_chunk().map(|len| u64::from_le_bytes(*len)) else { return };
    let end = usize::try_from(len).ok().and_then(|len| len.checked_add(8));
    let Some(head) = end.and_then(|end| file.get_mut(..end)) else { return };
    let at = 8 + START.len();
    if head.get(8..at) != Some(START) || head.len() < at + 8 {
        return;
    }
    head[at..at + 8].fill(b'0');
    let sum = crc32fast::hash(head);
    head[at..at + 8].copy_from_slice(format!("{sum:08x}").as_bytes());
}

/// The bytes of a file, printed as text.
struct Input(Arc<[u8]>);

impl AsRef<[u8]> for Input {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

fn make(dice: &mut Dice) -> Input {
    let mut bytes = file(dice);
    if dice.one_in(4) {
        let other = file(dice);
        for _ in 0..=dice.few(4) {
            dice.damage(&mut bytes, &other);
        }
        if dice.one_in(2) {
            seal(&mut bytes);
        }
    }
    Input(bytes.into())
}

/// Runs `read` on a file that holds `bytes`; it is in memory where the system has such a folder.
fn with_file<T>(bytes: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static FOLDER: tempfile::TempDir = {
            let memory = Path::new("/dev/shm");
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
        };
    }
    FOLDER.with(|folder| {
        let path = folder.path().join("hostile.safetensors");
        std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).unwrap();
        read(&path)
    })
}

fn parse(input: &Input) -> Result<Checkpoint> {
    let source = Source { len: input.0.len() as u64, bytes: Box::new(Cursor::new(input.0.clone())) };
    Checkpoint::read_source(source, Path::new("hostile.safetensors"))
}

fn check(input: &Input, parsed: Option<Checkpoint>) -> Result<(), String> {
    let said = |error: tokenformer::error::Error| error.to_string();
    // A few of all files, by their content.
    let sum = input.0.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if sum < 4 {
        // What the rest of the program asks of any file.
        with_file(&input.0, |path| {
            let ok = (list_tensors(path).is_ok(), read_meta::<Meta>(path).is_ok(), verify(path).is_ok());
            (ok, open(path, &Options::default()).is_ok())
        });
    }
    let Some(checkpoint) = parsed else { return Ok(()) };
    let tensors = checkpoint.params.iter().chain(&checkpoint.moment1).chain(&checkpoint.moment2);
    let tensors = tensors.chain(&checkpoint.averages);
    for (name, tensor) in tensors {
        if tensor.shape.iter().product::<usize>() != tensor.data.len() || tensor.data.is_empty() {
            return Err(format!("{name:?} of shape {:?} has {} values", tensor.shape, tensor.data.len()));
        }
    }
    if sum < 4 {
        let back = with_file(&[], |path| checkpoint.write(path).and_then(|()| Checkpoint::read(path)));
        same(&back.map_err(said)?, &checkpoint)?;
    }
    if let Ok(Some(tokenizer)) = checkpoint.meta.tokenizer() {
        let all: Vec<u32> = (0..tokenizer.vocab_size() as u32).collect();
        tokenizer.decode(&all);
    }
    let Ok((start, config)) = Start::resumed(checkpoint) else { return Ok(()) };
    let model = &start.host.model;
    let shapes: Vec<_> = start.host.params.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
    let mut expected = model.param_shapes();
    expected.sort();
    if shapes != expected {
        return Err(format!("resumed with {shapes:?}, the configuration says {expected:?}"));
    }
    config.train.validate(model).map_err(said)
}

/// Equal to the bit, and NaN equal to itself.
fn same(a: &Checkpoint, b: &Checkpoint) -> Result<(), String> {
    let bits = |checkpoint: &Checkpoint| {
        let tensors = [&checkpoint.params, &checkpoint.moment1, &checkpoint.moment2, &checkpoint.averages];
        let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let all = tensors.map(|map| {
            map.iter()
                .map(|(name, tensor)| (name.clone(), tensor.shape.clone(), bits(&tensor.data)))
                .collect::<Vec<_>>()
        });
        (serde_json::to_value(&checkpoint.meta).map_err(|error| error.to_string()), all)
    };
    if bits(a) == bits(b) { Ok(()) } else { Err(format!("written and read again it is another: {a:?}, {b:?}")) }
}

const REFUSALS: &[&str] = &[
    "is not a safetensors file",
    "is empty",
    "is truncated",
    "bytes follow its last tensor",
    "its header is wrong",
    "has type",
    "but not a tokenformer checkpoint",
    "metadata is wrong",
    "has checkpoint format",
    "contradicts itself",
    "is not a parameter",
    "moments",
    "an axis of 0",
    "recursion limit",
    "duplicate",
    "missing field",
    "does not match its checksum",
    "the checksum of its header is missing",
    "too few or too many",
    "its checksums are missing",
];

#[test]
fn checkpoint() {
    Target { name: "checkpoint", cases: 40_000, make, parse, check, refusals: REFUSALS }.attack();
}

/// What is repeated as often as fits, and where: in the header, its metadata or the run's metadata.
const REPEATED: [(&[&str], &str, &str, &str); 17] = [
    (&[], "{", "\"#\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},", "\"z\":0}"),
    (&[], "{", "\"#\":{\"dtype\":\"F32\",\"shape\":[0,0,0,0,0,0,0,0],\"data_offsets\":[0,0]},", "\"z\":0}"),
    (&[], "{", "\"a\":0,", "\"z\":0}"),
    (&[], "", "{\"a\":", "0"),
    (&["a", "shape"], "[", "0,", "0]"),
    (&["a", "dtype"], "\"", "x", "\""),
    (&["a", "dtype"], "\"", "\\u0000", "\""),
    (&["a"], "[", "[],", "0]"),
    (&["__metadata__"], "{", "\"#\":\"\",", "\"z\":\"\"}"),
    (&["__metadata__", "tokenformer"], "\"", "x", "\""),
    (&["__metadata__", "tokenformer", "config"], "[", "[],", "0]"),
    (&["__metadata__", "tokenformer", "config"], "[", "{\"\":0},", "0]"),
    (&["__metadata__", "tokenformer", "config"], "{", "\"#\":0,", "\"z\":0}"),
    (&["__metadata__", "tokenformer", "tokenizer", "char"], "\"", "a", "\""),
    (&["__metadata__", "tokenformer", "kernels"], "{", "\"#\":\"\",", "\"z\":\"\"}"),
    (
        &["__metadata__", "tokenformer", "cohorts"],
        "[",
        "{\"born_step\":7,\"lr_scale\":1,\"frozen\":false,\"rows\":{}},",
        "0]",
    ),
    (&["__metadata__", "tokenformer", "created_by"], "\"", "\\n", "\""),
];

/// Around the limits of size, for files of few and of many values: what passes them must stay within the heap.
#[test]
fn checkpoint_of_any_size() {
    let target = Target { name: "checkpoint", cases: 0, make, parse, check, refusals: &[] };
    let mut most = (0, std::time::Duration::ZERO);
    for values in [0, 1 << 16, 1 << 20] {
        for (place, before, unit, after) in REPEATED {
            for count in (4..24).flat_map(|power| [2 << power, 3 << power]).take_while(|n| n * unit.len() < 1 << 19) {
                let units = (0..count).map(|i: usize| unit.replace('#', &i.to_string())).collect::<String>();
                let input = large(values, place, format!("{before}{units}{after}"));
                let verdict = target.judge(&input);
                let verdict = verdict.unwrap_or_else(|what| panic!("{count} of {unit} in {place:?}, {values}: {what}"));
                most = (most.0.max(verdict.extra), most.1.max(verdict.time));
            }
        }
    }
    println!("most heap beyond 2 x input {} bytes, slowest {:?}", most.0, most.1);
}

/// A file with a tensor of `values` bytes, and `text` at a place of its header.
fn large(values: usize, place: &[&str], text: String) -> Input {
    let mut tree = HEADERS[1].clone();
    if let Node::Map(map) = &mut tree {
        let shape = json!({"dtype": "F32", "shape": [values / 4], "data_offsets": [0, 0]});
        map.push(("values".to_owned(), Node::of(&shape)));
    }
    let mut end = lay_out(&mut tree);
    let node = place.iter().try_fold(&mut tree, |node, key| node.get_mut(key)).unwrap();
    *node = Node::Scalar(text);
    if place.first() == Some(&"__metadata__") {
        end = lay_out(&mut tree);
    }
    let values = vec![0; end as usize];
    sum_values(&mut tree, &values);
    let mut bytes = assemble(&tree, &values);
    seal(&mut bytes);
    Input(bytes.into())
}
