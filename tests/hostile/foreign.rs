//! Models of other programs: archives with a pickle in them, configurations, indices and tokenizers that were made to run
//! something, to take memory, or to lead elsewhere.

use std::fs;
use std::io::{Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenformer::exchange::{Options, open};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::dice::Dice;
use crate::meter::peak_of;

/// Heap besides some times the size of a small model: buffers, and tables of a tokenizer.
const MAX_EXTRA: usize = 16 << 20;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Imports `path`, and holds what is said and what it takes to what is promised; the refusal, if any.
fn judge(what: &str, path: &Path) -> Option<String> {
    let out = tempfile::tempdir().unwrap();
    let output = out.path().join("out.safetensors");
    let options = Options { heads: path.is_file().then_some(4), seq_length: Some(16), ..Options::default() };
    let import = || open(path, &options).and_then(|imported| imported.write(&output));
    let (result, peak) = peak_of(|| catch_unwind(AssertUnwindSafe(import)));
    let result = result.unwrap_or_else(|_| panic!("{what}: it panicked"));
    assert!(peak <= MAX_EXTRA, "{what}: it took {peak} bytes of heap");
    assert_eq!(output.exists(), result.is_ok(), "{what}");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), usize::from(result.is_ok()), "{what}: something is left");
    let error = result.err()?;
    let said = error.to_string();
    assert!([1, 2].contains(&error.exit_code()), "{what}: {said}");
    assert!(said.len() < 1000 && !said.contains(char::is_control), "{what}: {said:?}");
    Some(said)
}

/// Imports a file of these bytes.
fn judge_bytes(what: &str, bytes: &[u8]) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.pt");
    fs::write(&path, bytes).unwrap();
    judge(what, &path)
}

fn archive(pickle: &[u8], storage: &[u8], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in
        [("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", storage), ("a/version", b"3\n")]
    {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn stored(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    archive(pickle, storage, CompressionMethod::Stored)
}

fn text(of: &str) -> Vec<u8> {
    [b"X", &(of.len() as u32).to_le_bytes()[..], of.as_bytes()].concat()
}

fn int(of: i64) -> Vec<u8> {
    [&b"\x8a\x08"[..], &of.to_le_bytes()].concat()
}

fn tuple(of: &[i64]) -> Vec<u8> {
    let all: Vec<u8> = of.iter().flat_map(|n| int(*n)).collect();
    [b"(", &all[..], b"t"].concat()
}

/// A float32 tensor of storage 0, which says to have `values`.
fn tensor(values: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let storage =
        [b"(", &text("storage")[..], b"ctorch\nFloatStorage\n", &text("0"), &text("cpu"), &int(values), b"tQ"].concat();
    let rest = [&int(offset), &tuple(shape)[..], &tuple(strides), b"\x89ccollections\nOrderedDict\n)RtR"].concat();
    [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage[..], &rest].concat()
}

/// A pickle of a dictionary.
fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let all: Vec<u8> = entries.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"\x80\x02}(", &all[..], b"u."].concat()
}

#[test]
fn nothing_that_a_pickle_asks_for_is_run() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("it_ran");
    let shell = format!("cposix\nsystem\n(S'touch {}'\ntR", trace.display());
    let touch = format!("S'touch {}'\n", trace.display()).into_bytes();
    let whole = |pickle: &[u8]| [b"\x80\x02", pickle, b"."].concat();
    let file = |pickle: &[u8]| stored(pickle, &[0; 64]);
    let calls = [
        whole(shell.as_bytes()),
        dictionary(&[("a", shell.clone().into_bytes()), ("b", tensor(16, 0, &[4, 4], &[4, 1]))]),
        dictionary(&[(
            "sequential.0.word_embeddings.weight",
            [b"cos\nsystem\n(", &tensor(16, 0, &[4, 4], &[4, 1])[..], b"tR"].concat(),
        )]),
        whole(format!("c__builtin__\neval\n(S'open(\"{}\", \"w\")'\ntR", trace.display()).as_bytes()),
        whole(&[b"c__builtin__\nobject\n)\x81}S'__setstate__'\ncos\nsystem\nsb", &touch[..], b"b"].concat()),
    ];
    for (index, pickle) in calls.iter().enumerate() {
        for (form, bytes) in [("archive", file(pickle)), ("bare", pickle.clone())] {
            let said = judge_bytes(&format!("call {index}, {form}"), &bytes).unwrap();
            assert!(!trace.exists(), "{said}");
        }
    }
    // Beside the tensors of a model it is passed over, and not run.
    let plain = fs::read(fixture("golden/official_naming_module_f16.pt")).unwrap();
    assert_eq!(judge_bytes("a whole model", &plain), None);
}

#[test]
fn archives_that_take_memory_are_refused() {
    let said = |what: &str, bytes: &[u8], expected: &str| {
        let refusal = judge_bytes(what, bytes).unwrap();
        assert!(refusal.contains(expected), "{what}: {refusal}");
    };
    let lists = [&b"\x80\x02"[..], &vec![b']'; 8 << 20], b"."].concat();
    let bomb = archive(&lists, &[], CompressionMethod::Deflated);
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    said("a bomb", &bomb, "is compressed");
    said("lists", &stored(&lists[..300 << 10], &[]), "describes its tensors in 307200 bytes, and 65");
    let one = |tensor| stored(&dictionary(&[("a", tensor)]), &[0; 64]);
    said("stride 0", &one(tensor(1, 0, &[50_000, 50_000], &[0, 0])), "which lie over each other");
    said("too large", &one(tensor(1, 0, &[1 << 40, 1 << 40], &[0, 0])), "cannot be read as a file of torch.save");
    said("past the end", &one(tensor(16, 0, &[17], &[1])), "cannot be read as a file of torch.save");
    said("negative", &one(tensor(16, -1, &[4], &[1])), "cannot be read as a file of torch.save");
    said("negative stride", &one(tensor(16, 0, &[4], &[-1])), "cannot be read as a file of torch.save");
    let names: Vec<String> = (0..200).map(|i| format!("t{i}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), tensor(4000, 0, &[4000], &[1]))).collect();
    said("two hundred views", &stored(&dictionary(&all), &vec![0; 16_000]), "which lie over each other");
    said("empty", &stored(b"\x80\x02}.", &[]), "has no tensors");
    said(
        "old",
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
        "no archive as PyTorch writes them since",
    );
    said("no archive", b"PK\x03\x04 and then text", "is damaged, or no archive of PyTorch");
    said("nothing", b"", "no archive as PyTorch writes them");
    // It says to hold more than it does, which shows when it is read.
    let lie =
        stored(&dictionary(&[("sequential.0.word_embeddings.weight", tensor(1 << 20, 0, &[4, 4], &[4, 1]))]), &[0; 8]);
    assert!(judge_bytes("a lie", &lie).is_some());
}

#[test]
fn damaged_archives_are_refused_or_read() {
    let whole = fs::read(fixture("golden/official_naming_module_f16.pt")).unwrap();
    let other = stored(&dictionary(&[("a", tensor(16, 0, &[4, 4], &[4, 1]))]), &[0; 64]);
    let (mut accepted, mut refused) = (0, 0);
    for number in 0..150 {
        let mut dice = Dice::new(3, number);
        let mut bytes = whole.clone();
        for _ in 0..=dice.few(3) {
            dice.damage(&mut bytes, &other);
        }
        match judge_bytes(&format!("case {number}"), &bytes) {
            None => accepted += 1,
            Some(_) => refused += 1,
        }
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(refused > 20, "{accepted} accepted, {refused} refused");
    for cut in (0..whole.len()).step_by(whole.len() / 40) {
        assert!(judge_bytes("cut", &whole[..cut]).is_some(), "{cut}");
    }
}

/// A copy of the small Pythia with what `change` makes of it.
fn changed(change: &dyn Fn(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture("import/pythia").join(file), dir.path().join(file)).unwrap();
    }
    change(dir.path());
    dir
}

#[test]
fn configurations_with_any_field_are_refused_or_read() {
    let whole: Value = serde_json::from_slice(&fs::read(fixture("import/pythia/config.json")).unwrap()).unwrap();
    let strange = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(2.5),
        json!(1e308),
        json!(u64::MAX),
        json!(1_u64 << 32),
        json!("\u{1b}[31m"),
        json!([]),
        json!({"rope_type": "yarn", "factor": 1e9}),
    ];
    let keys: Vec<String> = whole.as_object().unwrap().keys().cloned().chain(["rope_scaling".to_owned()]).collect();
    let mut refused = 0;
    for key in &keys {
        let taken = changed(&|dir| {
            let mut config = whole.clone();
            config.as_object_mut().unwrap().remove(key);
            fs::write(dir.join("config.json"), config.to_string()).unwrap();
        });
        judge(&format!("without {key}"), taken.path());
        for value in &strange {
            let dir = changed(&|dir| {
                let mut config = whole.clone();
                config[key] = value.clone();
                fs::write(dir.join("config.json"), config.to_string()).unwrap();
            });
            refused += usize::from(judge(&format!("{key} = {value}"), dir.path()).is_some());
        }
    }
    assert!(refused > 100, "{refused}");
    for (what, text) in [
        ("nothing", String::new()),
        ("deep", "[".repeat(100_000)),
        ("a list", "[]".to_owned()),
        ("large", format!("{{\"a\": \"{}\"}}", "x".repeat(2 << 20))),
        ("no text", "\u{0}".to_owned()),
    ] {
        let dir = changed(&|dir| fs::write(dir.join("config.json"), &text).unwrap());
        assert!(judge(what, dir.path()).is_some(), "{what}");
    }
}

#[test]
fn an_index_leads_nowhere_else() {
    let indexed = |index: &Value| {
        changed(&|dir| {
            fs::rename(dir.join("model.safetensors"), dir.join("part.safetensors")).unwrap();
            fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
        })
    };
    let map = |file: &str| json!({"weight_map": {"gpt_neox.embed_in.weight": file}});
    assert_eq!(judge("right", indexed(&map("part.safetensors")).path()), None);
    for elsewhere in ["../part.safetensors", "/etc/passwd", "a/part.safetensors", "", ".", "..", "./part.safetensors"] {
        let said = judge(elsewhere, indexed(&map(elsewhere)).path()).unwrap();
        // A dot before it changes nothing.
        assert!(said.contains("is not a file beside it"), "{elsewhere}: {said}");
    }
    for (what, index, expected) in [
        ("gone", map("gone.safetensors"), "gone.safetensors: no such file"),
        (
            "another tensor",
            json!({"weight_map": {"nothing": "part.safetensors"}}),
            "says that tensor \"nothing\" is in",
        ),
        ("no files", json!({"weight_map": {}}), "names no files"),
        ("no map", json!({"weight_map": 3}), "is no index of weights"),
        ("the directory", map("config.json"), "config.json"),
    ] {
        let said = judge(what, indexed(&index).path()).unwrap();
        assert!(said.contains(expected), "{what}: {said}");
    }
}

#[test]
fn shards_that_were_cut_are_refused() {
    for (model, file) in [("pythia", "model.safetensors"), ("tied", "pytorch_model-00002-of-00002.bin")] {
        let whole = fs::read(fixture("import").join(model).join(file)).unwrap();
        for part in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(fixture("import").join(model)).unwrap().map(Result::unwrap) {
                fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
            fs::write(dir.path().join(file), &whole[..whole.len() * part / 10]).unwrap();
            let said = judge(&format!("{file} cut to {part}0 %"), dir.path()).unwrap();
            assert!(said.contains(file), "{said}");
        }
    }
}

#[test]
fn tokenizers_that_are_none_are_refused() {
    for (what, text, expected) in [
        ("text", "no JSON".to_owned(), "tokenizer.json"),
        ("another form", "{\"model\": 3}".to_owned(), "tokenizer.json"),
        ("deep", "{\"a\":".repeat(10_000), "tokenizer.json"),
    ] {
        let dir = changed(&|dir| fs::write(dir.join("tokenizer.json"), &text).unwrap());
        let said = judge(what, dir.path()).unwrap();
        assert!(said.contains(expected), "{what}: {said}");
    }
    let dir = changed(&|dir| {
        let mut tokenizer: Value =
            serde_json::from_slice(&fs::read(fixture("import/pythia/tokenizer.json")).unwrap()).unwrap();
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        for id in 280..300 {
            let mut token = added[0].clone();
            (token["id"], token["content"]) = (id.into(), format!("<{id}>").into());
            added.push(token);
        }
        fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    });
    let said = judge("more tokens than rows", dir.path()).unwrap();
    assert!(said.contains("has 288 rows of vocabulary, but its tokenizer 300 tokens"), "{said}");
}
