//! What is trained and measured on is what a file contains, not what it is called.

mod told;

use std::fs;

use serde_json::Value;
use tokenformer::train::Checkpoint;

use crate::program::{Folder, TEXT, say};

/// The value that a command printed behind `name`.
fn value(stdout: &str, name: &str) -> f64 {
    let line = stdout.lines().rev().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {stdout}"));
    line[name.len()..].split_whitespace().next().unwrap().parse().unwrap()
}

/// The text with its halves exchanged: as long, and as many of each character.
fn exchanged() -> String {
    let (first, second) = TEXT.split_at(TEXT.len() / 2);
    format!("{second}{first}")
}

/// The objects of a kind in a run's metrics.
fn lines(folder: &Folder, run: &str, kind: &str) -> Vec<Value> {
    let text = folder.text(&format!("{run}/metrics.jsonl"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|line: &Value| line["kind"] == kind).collect()
}

/// A run that stands at step 10 of 20.
fn half_done(folder: &Folder) {
    folder.train("--out r").ok();
    fs::remove_file(folder.path("r/checkpoints/step-00000020.safetensors")).unwrap();
}

const RESUME: &str = "train --resume r --tune off";

#[test]
fn changed_data_are_refused_until_they_are_accepted() {
    let folder = Folder::new();
    half_done(&folder);
    let before = folder.read("r/metrics.jsonl");
    folder.write("in.txt", exchanged());
    let said = folder.run(RESUME).refused();
    assert!(said.contains("still has 18000 tokens") && said.contains("--accept-data-change"), "{said}");
    assert_eq!(folder.read("r/metrics.jsonl"), before);
    say("data-changed-unnoticed", &said);
    // What was measured on the old text is said to be so.
    let evaluated = folder.run("eval r").ok();
    assert!(evaluated.stderr.contains("of other text"), "{}", evaluated.stderr);
    let accepted = folder.run(&format!("{RESUME} --accept-data-change")).ok();
    assert!(accepted.stderr.contains("the losses so far are forgotten"), "{}", accepted.stderr);
    // The next checkpoint is of the new text, which is therefore none that changed.
    folder.run(&format!("{RESUME} --steps 22")).ok();
    let evaluated = folder.run("eval r").ok();
    assert!(!evaluated.stderr.contains("of other text"), "{}", evaluated.stderr);
}

#[test]
fn a_text_that_grew_and_a_split_or_file_that_changed_are_changes() {
    let folder = Folder::new();
    half_done(&folder);
    folder.write("longer.txt", format!("{TEXT}one more line\n"));
    let said = folder.run(&format!("{RESUME} --data longer.txt")).refused();
    assert!(said.contains("had 18000 tokens and has 18012") && said.contains("longer.txt"), "{said}");
    let said = folder.run(&format!("{RESUME} --set data.val_fraction=0.2")).refused();
    assert!(said.contains("data.val_fraction was 0.1 and is 0.2"), "{said}");
    folder.write("val.txt", &TEXT[..3000]);
    let said = folder.run(&format!("{RESUME} --set data.val_path=val.txt")).refused();
    assert!(said.contains("the validation part had 2000 tokens and has 3000"), "{said}");
}

#[test]
fn the_same_text_in_another_place_forgets_nothing() {
    let folder = Folder::new();
    half_done(&folder);
    fs::create_dir(folder.path("moved")).unwrap();
    fs::rename(folder.path("in.txt"), folder.path("moved/text.txt")).unwrap();
    let ran = folder.run(&format!("{RESUME} --data ./moved/../moved/text.txt")).ok();
    assert!(!ran.stderr.contains("trained on"), "{}", ran.stderr);
    // Twenty steps of one run, of which the second half was taken on the file that had moved.
    folder.write("in.txt", TEXT);
    folder.train("--out whole").ok();
    let shown = |run: &str| {
        let text = folder.run(&format!("inspect {run}")).ok().stdout;
        text.lines().find(|line| line.starts_with("best val loss")).unwrap().to_owned()
    };
    assert_eq!(shown("r"), shown("whole"));
    assert_eq!(lines(&folder, "r", "run")[1]["fingerprint"], lines(&folder, "whole", "run")[0]["fingerprint"]);
}

#[test]
fn the_validation_split_is_the_same_where_its_file_moved() {
    let folder = Folder::new();
    folder.train("--out r").ok();
    let before = folder.run("eval r").ok().stdout;
    fs::rename(folder.path("in.txt"), folder.path("moved.txt")).unwrap();
    let after = folder.run("eval r --split val --data moved.txt").ok();
    assert!(!after.stderr.contains("other text"), "{}", after.stderr);
    for name in ["tokens", "loss"] {
        assert_eq!(value(&before, name), value(&after.stdout, name));
    }
    assert_eq!(value(&folder.run("eval r --data moved.txt").ok().stdout, "tokens"), 19_999.0);
    folder.write("other.txt", exchanged());
    let other = folder.run("eval r --split val --data other.txt").ok();
    assert!(other.stderr.contains("of other text"), "{}", other.stderr);
}

/// A checkpoint of a version that knew data by their names only.
#[test]
fn an_older_checkpoint_resumes_and_says_that_its_data_are_not_known() {
    let folder = Folder::new();
    half_done(&folder);
    let file = "r/checkpoints/step-00000010.safetensors";
    forget_fingerprint(&folder, file);
    let ran = folder.run(RESUME);
    assert_eq!(ran.stderr.matches("did not record what its data contain").count(), 1, "{}", ran.stderr);
    ran.ok();
}

fn forget_fingerprint(folder: &Folder, file: &str) {
    let mut checkpoint = Checkpoint::read(&folder.path(file)).unwrap();
    assert!(checkpoint.meta.data.fingerprint.take().is_some());
    fs::remove_file(folder.path(file)).unwrap();
    checkpoint.write(&folder.path(file)).unwrap();
}

#[test]
fn runs_are_compared_by_what_their_data_contain() {
    let folder = Folder::new();
    fs::create_dir(folder.path("d1")).unwrap();
    fs::create_dir(folder.path("d2")).unwrap();
    folder.write("d1/in.txt", TEXT);
    folder.write("d2/in.txt", TEXT.chars().rev().collect::<String>());
    folder.write("copy.txt", TEXT);
    for (run, data) in [("a1", "d1/in.txt"), ("b1", "d2/in.txt"), ("c1", "copy.txt")] {
        folder.train(&format!("--data {data} --steps 4 --out {run}")).ok();
    }
    // One name for two texts, as a run that was started in another directory has it.
    for run in ["a1", "b1"] {
        let config = folder.text(&format!("{run}/config.toml"));
        folder
            .write(&format!("{run}/config.toml"), config.replace("d1/in.txt", "in.txt").replace("d2/in.txt", "in.txt"));
    }
    let said = folder.run("compare x=a1 y=b1 --out rep").refused();
    assert!(said.contains("not the same") && said.contains("other ones"), "{said}");
    say("compare-other-data-same-name", &said);
    folder.run("compare x=a1 y=c1 --out rep2").ok();
    // Without names they are two runs of one arm with one seed: nothing else tells them apart.
    let said = folder.run("compare a1 c1 --out rep3").refused();
    assert!(said.contains("another run with seed 1337 of the same arm"), "{said}");
    folder.train("--data copy.txt --steps 4 --out d1run --set data.val_fraction=0.2").ok();
    assert!(folder.run("compare x=a1 y=d1run --out rep4").refused().contains("not the same"));
}

#[test]
fn a_micro_batch_changes_no_validation() {
    let folder = Folder::new();
    for (run, fit) in [("whole", "100MB"), ("cut", "0.12MB")] {
        folder.train(&format!("--set train.batch_size=16 --fit {fit} --out {run}")).ok();
    }
    // The same update in micro-batches that were asked for; one that is not what an evaluation is a multiple of.
    folder.train("--batch-size 4 --set train.total_batch_tokens=256 --out asked").ok();
    folder.train("--batch-size 16 --set train.eval_rows=37 --out odd16").ok();
    folder.train("--batch-size 2 --set train.total_batch_tokens=256 --set train.eval_rows=37 --out odd2").ok();
    let losses = |run: &str| -> Vec<f64> {
        lines(&folder, run, "eval").iter().map(|line| line["val_loss"].as_f64().unwrap()).collect()
    };
    for (a, b) in [("whole", "cut"), ("whole", "asked"), ("odd16", "odd2")] {
        let (a, b) = (losses(a), losses(b));
        assert!(
            a.len() == b.len() && a.len() > 1 && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 2e-6),
            "{a:?} {b:?}"
        );
    }
    assert_ne!(losses("whole"), losses("odd16"));
    folder.run("compare a=whole b=cut c=asked --out rep").ok();
    let said = folder.run("compare a=whole b=odd16 --out rep2").refused();
    assert!(said.contains("sequences of a validation 64") && said.contains("37"), "{said}");
    say("fit-changes-validation", &format!("val_loss {:?} and {:?}", losses("whole"), losses("cut")));
}

#[test]
fn a_resumed_run_with_another_micro_batch_keeps_its_best_loss() {
    let folder = Folder::new();
    folder.train("--steps 12 --set train.eval_interval=5 --set train.checkpoint_interval=11 --out r").ok();
    let best = || {
        let text = folder.run("inspect r").ok().stdout;
        text.lines().find(|line| line.starts_with("best val loss")).unwrap().to_owned()
    };
    let before = best();
    fs::remove_file(folder.path("r/checkpoints/step-00000012.safetensors")).unwrap();
    // One step that makes it worse.
    folder
        .run(&format!("{RESUME} --batch-size 1 --set train.total_batch_tokens=64 --lr 0.3 --set train.min_lr=0.3"))
        .ok();
    assert_eq!(best(), before);
    let last = lines(&folder, "r", "eval").last().unwrap()["val_loss"].as_f64().unwrap();
    assert!(last > value(&before, "best val loss"), "{last}, {before}");
}

#[test]
fn only_what_a_command_needs_is_opened() {
    let folder = Folder::new();
    folder.write("old.txt", &TEXT[..5000]);
    folder.write("val.txt", &TEXT[5000..9000]);
    folder.train("--set data.old_path=old.txt --set data.val_path=val.txt --steps 4 --out r").ok();
    let before = folder.run("eval r").ok().stdout;
    fs::remove_file(folder.path("old.txt")).unwrap();
    folder.run("eval r --data in.txt").ok();
    folder.run("prune r --keep 0.5").ok();
    let said = folder.run(&format!("{RESUME} --steps 8")).refused();
    assert!(said.contains("old.txt") && said.contains("--set data.old_path=none"), "{said}");
    say("old-path-gone", &said);
    // What is evaluated on is there; what was trained on is not, and the other way round.
    fs::rename(folder.path("in.txt"), folder.path("gone.txt")).unwrap();
    assert_eq!(folder.run("eval r").ok().stdout, before);
    for command in [
        "generate r --tokens 5",
        "inspect r",
        "eval r --split val --data val.txt",
        "grow r g.safetensors --ffn-slots 20",
    ] {
        folder.run(command).ok();
    }
    fs::rename(folder.path("gone.txt"), folder.path("in.txt")).unwrap();
    fs::remove_file(folder.path("val.txt")).unwrap();
    folder.run("eval r --split train").ok();
    let config = folder.text("run.toml").replace("[data]", "[data]\nval_path = \"val.txt\"\nold_path = \"old.txt\"");
    folder.write("gone.toml", config);
    folder.run("plan --config gone.toml --target webgpu").ok();
}

fn numbers(count: u64, below: u64) -> Vec<u64> {
    (0..count).map(|at| ((at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % below).collect()
}

fn bytes(tokens: &[u64], width: usize) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()[..width].to_vec()).collect()
}

#[test]
fn shards_say_what_they_are() {
    let folder = Folder::new();
    let tokens = numbers(3000, 5000);
    let train = |file: &str, vocab: usize| {
        folder.train(&format!("--data {file} --set model.vocab_size={vocab} --steps 1 --overwrite --out r"))
    };
    folder.write("u16.bin", bytes(&tokens, 2));
    let said = train("u16.bin", 50_257).ok().stderr;
    let largest = tokens.iter().max().unwrap();
    assert!(said.contains(&format!("u16.bin: u16 without a header, 3000 tokens, largest id {largest}\n")), "{said}");
    let mut header: Vec<u8> = [20_240_801_i32, 7, 3000].iter().flat_map(|word| word.to_le_bytes()).collect();
    header.resize(1024, 0);
    folder.write("llama.bin", [header, bytes(&tokens, 4)].concat());
    assert!(train("llama.bin", 50_257).ok().stderr.contains("llama.bin: llm.c u32, 3000 tokens"));
    for (name, contents, named) in [
        ("u32.bin", bytes(&tokens, 4), "32-bit tokens"),
        ("i64.bin", bytes(&tokens, 8), "64-bit tokens"),
        ("llama3.bin", bytes(&numbers(3000, 128_256), 4), "32-bit tokens"),
        ("npy.bin", [&b"\x93NUMPY\x01\x00v\x00"[..], &[b' '; 118], &bytes(&tokens, 2)].concat(), "NumPy array"),
        ("gzip.bin", [&b"\x1f\x8b\x08\x00"[..], &bytes(&tokens, 2)].concat(), "gzip"),
        ("text.bin", TEXT.as_bytes().to_vec(), "plain text"),
        ("lines.bin", b"{\"text\": \"To be\"}\n".repeat(50), "JSON"),
        ("model.bin", [&b"GGUF\x03\0\0\0"[..], &bytes(&tokens, 2)].concat(), "GGUF"),
    ] {
        folder.write(name, contents);
        let said = train(name, 50_257).refused();
        assert!(said.starts_with(&format!("{name} looks like ")) && said.contains(named), "{said}");
        say("headerless-shard-of-another-width", &said);
    }
    // Small vocabularies are shards, also that of two tokens and one with a separator in every second place.
    let pairs: Vec<u64> = (0..3000).map(|at| if at % 2 == 0 { 0 } else { at % 50 }).collect();
    for (tokens, vocab) in [(numbers(3000, 2), 2), (numbers(3000, 58), 58), (numbers(3000, 256), 256), (pairs, 58)] {
        folder.write("small.bin", bytes(&tokens, 2));
        train("small.bin", vocab).ok();
    }
    let said = train("u16.bin", 4000).refused();
    assert!(said.contains("u16.bin has token ") && said.contains(" at position ") && said.contains("4000"), "{said}");
}

#[test]
fn a_byte_order_mark_is_no_text() {
    let folder = Folder::new();
    folder.write("bom.txt", format!("\u{feff}{TEXT}"));
    folder.train("--steps 4 --out r").ok();
    let [with, without] = ["bom.txt", "in.txt"].map(|file| folder.run(&format!("eval r --data {file}")).ok().stdout);
    for name in ["tokens", "loss"] {
        assert_eq!(value(&with, name), value(&without, name));
    }
    // The same model, by either text.
    folder.train("--data bom.txt --steps 4 --out b").ok();
    let inspected = folder.run("inspect b").ok().stdout;
    assert!(inspected.contains("parameters      2496\n"), "{inspected}");
    let drawn = folder.run("generate b --tokens 200 --temperature 5").ok().stdout;
    assert!(!drawn.contains('\u{feff}'), "{drawn}");
    folder.run("compare x=r y=b").ok();
    // In a prompt, too.
    let mut prompted = folder.command("generate r --tokens 5 --seed 3 --prompt");
    let prompted = crate::program::done(prompted.arg("\u{feff}a")).ok().stdout;
    assert_eq!(prompted, folder.run("generate r --tokens 5 --seed 3 --prompt a").ok().stdout);
    folder.train("--steps 1 --overwrite --out r --set data.tokenizer=byte --data bom.txt").ok();
    assert_eq!(value(&folder.run("eval r --data bom.txt").ok().stdout, "tokens"), 19_999.0);
    say("bom-kept-as-character", "bom.txt and in.txt make the same tokens");
}

#[test]
fn text_that_is_none_is_named() {
    let folder = Folder::new();
    let utf16: Vec<u8> = TEXT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf32: Vec<u8> = TEXT.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
    for (name, contents, parts) in [
        ("zeros.txt", vec![0; 20_000], &["'\\0' 20000 times", "two different ones"][..]),
        ("a.txt", b"a".to_vec(), &["a.txt: the text is the character 'a' once"]),
        ("empty.txt", Vec::new(), &["empty.txt is empty"]),
        ("mark.txt", b"\xef\xbb\xbf".to_vec(), &["is a byte order mark and no text"]),
        ("utf16.txt", [&b"\xff\xfe"[..], &utf16].concat(), &["UTF-16", "iconv -f UTF-16 -t UTF-8 utf16.txt"]),
        ("bare16.txt", utf16, &["UTF-16LE", "iconv -f UTF-16LE"]),
        ("bare32.txt", utf32, &["UTF-32BE", "iconv -f UTF-32BE"]),
        ("latin1.txt", b"un caf\xe9 au lait, ".repeat(99), &["is not UTF-8", "0xe9 at offset 6", "Latin-1", "iconv"]),
        ("packed.txt", b"\x1f\x8b\x08\x00\xff\xfe\x00".repeat(99), &["packed with gzip"]),
    ] {
        folder.write(name, contents);
        let said = folder.train(&format!("--data {name} --steps 1 --out r")).refused();
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        say("one-symbol-text-message", &said);
    }
}

#[test]
fn the_byte_tokenizer_takes_any_bytes_and_line_ends_stay() {
    let folder = Folder::new();
    let train = |more: &str| folder.train(&format!("--steps 1 --overwrite --out r {more}")).ok();
    folder.write("any.dat", numbers(5000, 256).iter().map(|&byte| byte as u8).collect::<Vec<_>>());
    let said = train("--data any.dat --set data.tokenizer=byte").stderr;
    assert!(said.contains("any.dat has ") && said.contains(" NULs, the first at offset "), "{said}");
    assert_eq!(value(&folder.run("eval r").ok().stdout, "tokens"), 499.0);
    assert_eq!(value(&folder.run("eval r --data any.dat").ok().stdout, "tokens"), 4999.0);
    let lines = TEXT.replace('\n', "\r\n");
    folder.write("crlf.txt", &lines);
    train("--data crlf.txt");
    assert_eq!(value(&folder.run("eval r --data crlf.txt").ok().stdout, "tokens"), lines.chars().count() as f64 - 1.0);
}

/// Where an update is one micro-batch, another batch is another update: the validation stays that of the run all the same.
#[test]
fn a_run_that_goes_on_with_another_batch_keeps_its_validation_or_says_that_it_does_not() {
    let folder = Folder::new();
    folder.train("--out r").ok();
    let best = |run: &str| {
        let text = folder.run(&format!("inspect {run}")).ok().stdout;
        text.lines().find(|line| line.starts_with("best val loss")).unwrap().to_owned()
    };
    let before = best("r");
    folder.run("train --resume r --tune off --steps 24 --batch-size 8 --lr 20 --set train.min_lr=10").ok();
    assert_eq!(best("r"), before);
    let rows: Vec<u64> =
        lines(&folder, "r", "run").iter().map(|line| line["validation_rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, [16, 16]);
    let ran = folder.run("train --resume r --tune off --steps 26 --set train.eval_rows=8").ok();
    assert!(ran.stderr.contains("a validation is of 8 sequences now and was of 16"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--set train.eval_rows=16 keeps them"), "{}", ran.stderr);
}
