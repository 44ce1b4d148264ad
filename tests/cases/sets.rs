//! Data sets of many files: the same tokens give the same run however they are cut, and what is no data set is said.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::program::{Folder, TEXT, done, say};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The bytes of the text as tokens.
fn tokens() -> Vec<u16> {
    TEXT.bytes().map(u16::from).collect()
}

fn u16s(tokens: &[u16]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

fn llmc(tokens: &[u16]) -> Vec<u8> {
    let mut bytes: Vec<u8> = [20_240_520, 1, tokens.len() as i32].iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(1024, 0);
    bytes.extend(u16s(tokens));
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A directory as `prepare` writes it, of bytes, in shards of `size` tokens.
fn prepared(folder: &Folder, name: &str, train: &[u16], val: &[u16], size: usize) {
    fs::create_dir(folder.path(name)).unwrap();
    folder.write(&format!("{name}/tokenizer.json"), "\"byte\"");
    let split = |part: &str, tokens: &[u16]| {
        let shards: Vec<Value> = tokens
            .chunks(size)
            .enumerate()
            .map(|(at, shard)| {
                let (file, bytes) = (format!("{part}_{at:06}.bin"), llmc(shard));
                folder.write(&format!("{name}/{file}"), &bytes);
                json!({"file": file, "tokens": shard.len(), "sha256": sha256(&bytes)})
            })
            .collect();
        json!({"tokens": tokens.len(), "documents": 1, "bytes": tokens.len(), "shards": shards})
    };
    let manifest = json!({
        "version": 1, "tokenizer": "byte", "tokenizer_sha256": sha256(b"\"byte\""), "vocab_size": 256, "end_of_text": null,
        "split": "end", "val_fraction": 0.1, "train": split("train", train), "val": split("val", val), "sources": [],
        "skipped": 0, "created_by": "tokenformer",
    });
    folder.write(&format!("{name}/manifest.json"), manifest.to_string());
}

/// The losses of a run, as they are written.
fn losses(folder: &Folder, run: &str) -> Vec<String> {
    let text = folder.text(&format!("{run}/metrics.jsonl"));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = |line: Value| ["loss", "val_loss"].into_iter().find_map(|key| Some(line.get(key)?.to_string()));
    let losses: Vec<String> = lines.filter_map(of).collect();
    assert!(losses.len() > 3, "{text}");
    losses
}

#[test]
fn the_same_tokens_are_the_same_run_however_they_are_cut() {
    let folder = Folder::new();
    let all = tokens();
    let (train, val) = all.split_at(all.len() * 9 / 10);
    fs::create_dir(folder.path("one")).unwrap();
    folder.write("one/train.bin", u16s(train));
    folder.write("one/val.bin", u16s(val));
    folder.write("one/meta.pkl", b"\x80\x04\x95");
    fs::create_dir(folder.path("llmc")).unwrap();
    for (at, shard) in train.chunks(1000).enumerate() {
        folder.write(&format!("llmc/text_train_{at:06}.bin"), llmc(shard));
    }
    folder.write("llmc/text_val_000000.bin", llmc(val));
    prepared(&folder, "made", train, val, 777);
    // Constant, so that a run may be told later how far it goes.
    let settings = folder.text("run.toml");
    folder.write("run.toml", settings + "lr_schedule = \"constant\"\n");
    let bytes = "--set model.vocab_size=256";
    let said = folder.train(&format!("--data one --out a {bytes}")).ok().stderr;
    assert!(said.contains("u16 without a header, ") && !said.contains("shards"), "{said}");
    folder.train(&format!("--data llmc/*.bin --out b {bytes}")).ok();
    // It has a tokenizer of its own.
    let said = folder.train("--data made --out c --steps 10").ok().stderr;
    assert!(said.contains("data in made: tokens of byte, ") && said.contains(" shards, llm.c u16, "), "{said}");
    // Resumed in the middle of its data, and from another cut of the same tokens.
    folder.run("train --resume a --data llmc --out a2 --steps 22 --tune off").ok();
    let said = folder.run("train --resume c --steps 20 --tune off").ok().stderr;
    assert!(!said.contains("has changed"), "{said}");
    let one = losses(&folder, "a");
    assert_eq!((&losses(&folder, "b"), &losses(&folder, "c")), (&one, &one));
    // A prepared directory has a tokenizer, which is kept with the model.
    let said = folder.run("generate c --prompt To --tokens 5").ok().stdout;
    assert!(said.starts_with("To"), "{said}");
    let said = folder.run("eval c").ok().stdout;
    assert!(said.contains("the validation split of the data in made") && said.contains("bits per byte"), "{said}");
    let whole = folder.run("eval c --data made").ok().stdout;
    assert_eq!(said, whole);
    let tokens = |said: &str| said.lines().find_map(|line| line.strip_prefix("tokens")?.trim().parse::<usize>().ok());
    assert_eq!(tokens(&said), Some(val.len() - 1));
    let said = folder.run("eval c --data made --split train").ok().stdout;
    assert_eq!(tokens(&said), Some(train.len() - 1));
    folder.run("compare x=a y=b --out rep").ok();
    // A damaged shard is found by its sum.
    assert!(folder.run("inspect made").ok().stdout.contains("all shards are what was written"));
    let mut shard = folder.read("made/train_000003.bin");
    shard[1100] ^= 1;
    folder.write("made/train_000003.bin", shard);
    assert!(folder.run("inspect made").refused().contains("train_000003.bin is not what was written"));
    let said = folder.run("train --resume c --steps 22 --tune off").refused();
    assert!(said.contains("the training part still has"), "{said}");
}

#[test]
fn many_shards_need_few_descriptors() {
    if !cfg!(unix) {
        return;
    }
    let folder = Folder::new();
    fs::create_dir(folder.path("many")).unwrap();
    for (at, shard) in tokens().chunks(20).enumerate() {
        folder.write(&format!("many/{at:06}.bin"), u16s(shard));
    }
    let train =
        folder.command("train --config run.toml --tune off --steps 2 --out r --set model.vocab_size=256 --data many");
    let words = train.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let mut limited = Command::new("sh");
    let program = train.get_program().to_str().unwrap();
    // The GPU's driver has some open as well.
    limited.args(["-c", &format!("ulimit -n 64; exec {program} {words}")]).current_dir(folder.path("."));
    limited.envs(train.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let said = done(&mut limited).ok().stderr;
    assert!(said.contains(" shards, u16 without a header, "), "{said}");
}

#[test]
fn sources_are_drawn_by_weight_and_resumed() {
    let folder = Folder::new();
    let all = tokens();
    let (train, val) = all.split_at(all.len() * 9 / 10);
    prepared(&folder, "one", train, val, 1000);
    let mut reversed = all.clone();
    reversed.reverse();
    folder.write("two.bin", llmc(&reversed));
    let sources = |first: &str, second: &str| {
        format!(
            "[data]\nsources = [{{ path = \"one\", weight = {first} }}, {{ path = \"two.bin\", weight = {second} }}]\n"
        )
    };
    let settings = folder.text("run.toml") + "lr_schedule = \"constant\"\n";
    let with = |name: &str, first: &str, second: &str| {
        folder.write(name, settings.replace("[data]\npath = \"in.txt\"\n", &sources(first, second)));
    };
    with("mix.toml", "3", "1.0");
    with("other.toml", "1", "1");
    let run = |args: &str| folder.run(&format!("train --tune off {args}"));
    let said = run("--config mix.toml --out a").ok().stderr;
    assert!(said.contains("data in one (75 %), two.bin (25 %)"), "{said}");
    run("--config mix.toml --out b --steps 10").ok();
    run("--resume b --steps 20").ok();
    assert_eq!(losses(&folder, "a"), losses(&folder, "b"));
    let checkpoint = folder.run("inspect a --json").ok().stdout;
    assert!(checkpoint.contains("\"weight\":3.0"), "{checkpoint}");
    run("--config other.toml --out c").ok();
    let said = folder.run("compare x=a y=c --out rep").refused();
    assert!(
        said.contains("rows were drawn from sources of 75 %, 25 % and are drawn from sources of 50 %, 50 %"),
        "{said}"
    );
    let mut again = folder.command("train --resume a --steps 21 --tune off --set");
    let said = done(again.arg("data.sources=[{path=\"one\", weight=1}, {path=\"two.bin\"}]")).refused();
    assert!(said.contains("--accept-data-change"), "{said}");
    assert!(folder.run("eval a").ok().stdout.contains("bits per byte"));
    folder.run("eval a --data one --split train").ok();
    folder.run("plan --config mix.toml --target webgpu").ok();
    let said = run("--config mix.toml --set data.path=two.bin --out d").refused();
    assert!(said.contains("data.path and data.sources are both set"), "{said}");
    assert!(!folder.path("d").exists());
    // A file given by name stands in for all of them.
    run("--config mix.toml --data in.txt --steps 1 --out d").ok();
}

#[test]
fn data_of_megatron_are_read_where_they_lie() {
    let folder = Folder::new();
    let all = tokens();
    let index = |kind: u8, width: i64, last: i64| {
        let ends: Vec<i64> = (0..).map(|at| at * 500).take_while(|end| *end < all.len() as i64).chain([last]).collect();
        let count = ends.len() as u64 - 1;
        let mut bytes = b"MMIDIDX\0\0".to_vec();
        bytes.extend(1_u64.to_le_bytes());
        bytes.push(kind);
        bytes.extend([count, count + 1].iter().flat_map(|count| count.to_le_bytes()));
        bytes.extend(ends.windows(2).flat_map(|two| ((two[1] - two[0]) as i32).to_le_bytes()));
        bytes.extend(ends.iter().take(count as usize).flat_map(|end| (end * width).to_le_bytes()));
        bytes.extend((0..=count as i64).flat_map(i64::to_le_bytes));
        bytes
    };
    folder.write("a_text_document.bin", u16s(&all));
    folder.write("a_text_document.idx", index(8, 2, all.len() as i64));
    folder.write("b.bin", all.iter().flat_map(|&token| i32::from(token).to_le_bytes()).collect::<Vec<u8>>());
    folder.write("b.idx", index(4, 4, all.len() as i64));
    let train = |data: &str, out: &str| {
        folder.train(&format!("--data {data} --out {out} --set model.vocab_size=256 --steps 10"))
    };
    folder.write("plain.bin", u16s(&all));
    train("plain.bin", "plain").ok();
    assert!(train("a_text_document", "a").ok().stderr.contains("Megatron u16, "));
    assert!(train("b.idx", "b").ok().stderr.contains("Megatron i32, "));
    let plain = losses(&folder, "plain");
    assert_eq!((&losses(&folder, "a"), &losses(&folder, "b")), (&plain, &plain));
    folder.write("b.idx", index(4, 4, all.len() as i64 + 1));
    let said = train("b.bin", "c").refused();
    assert!(said.starts_with("b.idx says that sequence "), "{said}");
    say("megatron-index-past-the-end", &said);
}

#[test]
fn what_is_no_data_set_is_said() {
    let folder = Folder::new();
    for dir in ["texts", "empty", "mixed"] {
        fs::create_dir(folder.path(dir)).unwrap();
    }
    folder.write("texts/a.md", TEXT);
    folder.write("texts/b.md", TEXT);
    folder.write("mixed/train.bin", llmc(&tokens()));
    folder.write("mixed/val.bin", llmc(&tokens()));
    folder.write("mixed/gpt2_tokenizer.bin", llmc(&tokens()));
    // Where nothing was set apart, the end is validated on.
    prepared(&folder, "made", &tokens(), &[], 5000);
    let said = folder.train("--data made --out t --steps 1").ok().stderr;
    assert!(said.contains("data in made: tokens of byte, 4 shards, llm.c u16, "), "{said}");
    for (data, said_of_it) in [
        ("texts", "`tokenformer prepare texts --out TOKENS`"),
        ("texts/*.md", "`tokenformer prepare texts/*.md --out TOKENS`"),
        ("empty", "empty is a directory without data"),
        ("mixed", "mixed/gpt2_tokenizer.bin, which is neither"),
        ("no*.bin", "no*.bin matches no file"),
        ("mixed/train.bin,in.txt", "in.txt, which is no token shard, beside mixed/train.bin"),
        ("mixed/train.bin,no.bin", "cannot open no.bin"),
    ] {
        let said = folder.train(&format!("--data {data} --out r --set model.vocab_size=256")).refused();
        assert!(said.contains(said_of_it), "{said}");
        say("no-data-set", &said);
        assert!(!folder.path("r").exists());
    }
    let said = folder.train("--data mixed/train.bin,mixed/val.bin --out r").refused();
    assert!(said.contains("has token shards, which do not say their vocabulary; their largest id is 1"), "{said}");
    // Of two ways to read it, a name that is there comes first.
    folder.write("a,b.txt", TEXT);
    folder.train("--data a,b.txt --steps 1 --out s").ok();
    // Another tokenizer's tokens are not those of the model.
    folder.train("--steps 4 --out chars").ok();
    let said = folder.run("eval chars --data made").refused();
    assert!(said.contains("made holds tokens of another tokenizer (byte, sha256 "), "{said}");
    say("another-tokenizer", &said);
}
