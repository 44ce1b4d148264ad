//! `prepare`: the same bytes however it is done, and nothing lost by what is wrong with the input.

#[cfg(unix)]
use super::program::limited;
use super::program::{Folder, TEXT, done};
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokenformer::data::{Tokenizer, TokenizerKind};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// The text of `in.txt` as lines of JSON, a paragraph each.
fn lines() -> String {
    TEXT.split("\n\n").map(|text| json!({ "id": text.len(), "text": text }).to_string() + "\n").collect()
}

/// Every file of a folder.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entry = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    fs::read_dir(dir).unwrap().map(|found| entry(found.unwrap())).collect()
}

fn manifest(folder: &Folder, dir: &str) -> Value {
    serde_json::from_str(&folder.text(&format!("{dir}/manifest.json"))).unwrap()
}

/// The tokens of a split of a prepared folder, of 16 bits.
fn tokens(folder: &Folder, dir: &str, split: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    for shard in manifest(folder, dir)[split]["shards"].as_array().unwrap() {
        let bytes = folder.read(&format!("{dir}/{}", shard["file"].as_str().unwrap()));
        let (header, body) = bytes.split_at(1024);
        let word = |at: usize| u32::from_le_bytes(header[4 * at..4 * at + 4].try_into().unwrap());
        assert_eq!((word(0), word(1), u64::from(word(2))), (20_240_520, 1, shard["tokens"].as_u64().unwrap()));
        assert_eq!(body.len(), 2 * word(2) as usize);
        tokens.extend(body.as_chunks().0.iter().map(|&two| u32::from(u16::from_le_bytes(two))));
    }
    assert_eq!(tokens.len() as u64, manifest(folder, dir)[split]["tokens"].as_u64().unwrap());
    tokens
}

/// A folder with inputs of every kind.
fn mixed() -> Folder {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("text/notes/deep")).unwrap();
    folder.write("text/a.txt", TEXT);
    folder.write("text/notes/b.md", "# Notes\n\nOne, two.\n");
    folder.write("text/notes/deep/c.txt.gz", gzip(TEXT.as_bytes()));
    folder.write("text/d.jsonl", lines().repeat(8));
    folder.write("text/e.jsonl.gz", gzip(lines().as_bytes()));
    folder.write("text/f.jsonl.zst", [zstd(lines().as_bytes()), zstd(lines().repeat(2).as_bytes())].concat());
    folder
}

const MIXED: &str = "prepare text --tokenizer gpt2 --shard-tokens 1500 --val-fraction 0.2 --out";

#[test]
fn the_bytes_do_not_depend_on_threads_nor_on_kills() {
    let folder = mixed();
    folder.run(&format!("{MIXED} one --threads 1")).ok();
    let whole = content(&folder.path("one"));
    assert!(
        whole.len() > 20 && !whole.contains_key("lock") && !whole.contains_key("progress.json"),
        "{:?}",
        whole.keys()
    );
    folder.run(&format!("{MIXED} five --threads 5")).ok();
    assert_eq!(content(&folder.path("five")), whole);
    let (mut kills, mut wait) = (0, 0);
    loop {
        let mut child =
            folder.command(&format!("{MIXED} killed")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let ended = child.try_wait().unwrap();
        if let Some(status) = ended {
            assert!(status.success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        (kills, wait) = (kills + 1, wait + 60);
        if kills > 40 {
            folder.run(&format!("{MIXED} killed")).ok();
            break;
        }
    }
    let again = content(&folder.path("killed"));
    assert_eq!(again.keys().filter(|name| *name != "lock").collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    assert!(again.iter().all(|(name, bytes)| name == "lock" || whole[name] == *bytes));
    let ran = folder.run(&format!("{MIXED} one")).ok();
    assert!(ran.stderr.contains("was finished before"), "{}", ran.stderr);
    assert_eq!(content(&folder.path("one")), whole);
}

#[test]
fn every_document_is_there_once_with_its_end() {
    let folder = mixed();
    let ran = folder.run(&format!("{MIXED} out --json")).ok();
    let found: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    let (train, val) = (tokens(&folder, "out", "train"), tokens(&folder, "out", "val"));
    assert_eq!(found["train"]["tokens"], train.len());
    let tokenizer = Tokenizer::of(&TokenizerKind::Gpt2, &[]).unwrap();
    let documents = |tokens: &[u32]| -> Vec<String> {
        let all: Vec<String> = tokens.split(|token| *token == 50_256).map(|tokens| tokenizer.decode(tokens)).collect();
        assert_eq!(all.last().unwrap(), "", "the last one ends as well");
        all[..all.len() - 1].to_vec()
    };
    let paragraphs = TEXT.split("\n\n").count();
    let all = [documents(&train), documents(&val)];
    assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 3 + 12 * paragraphs);
    assert_eq!(found["val"]["documents"], all[1].len());
    for text in TEXT.split("\n\n").chain([TEXT]) {
        let at = usize::from(all[1].iter().any(|document| document == text));
        assert_eq!(
            all[at].iter().filter(|document| *document == text).count(),
            if text == TEXT { 2 } else { 12 },
            "{text}"
        );
        assert!(!all[1 - at].iter().any(|document| document == text), "all copies are on one side");
    }
    // Another file moves no document.
    folder.write("text/0.txt", "A new text.");
    folder.run(&format!("{MIXED} more")).ok();
    let more = documents(&tokens(&folder, "more", "val"));
    assert_eq!(
        more.iter().filter(|text| *text != "A new text.").collect::<Vec<_>>(),
        all[1].iter().collect::<Vec<_>>()
    );
}

#[test]
fn one_text_is_cut_as_nanogpt_does_and_trained_on() {
    let folder = Folder::new();
    folder.run("prepare in.txt --out data --tokenizer bpe:300").ok();
    assert_eq!(manifest(&folder, "data")["split"], "end");
    let tokenizer = Tokenizer::from_file_text(&folder.text("data/tokenizer.json")).unwrap();
    let count = TEXT.chars().count();
    let at = TEXT.char_indices().nth((count as f64 * 0.9) as usize).unwrap().0;
    for (split, text) in [("train", &TEXT[..at]), ("val", &TEXT[at..])] {
        assert_eq!(tokens(&folder, "data", split), tokenizer.encode(text).unwrap());
    }
    let files = "--data data/train_000000.bin --set data.val_path=data/val_000000.bin";
    folder.train(&format!("{files} --set model.vocab_size=300 -n 2")).ok();
}

#[test]
fn a_large_text_is_made_into_tokens_once() {
    let folder = Folder::new();
    folder.write("large.txt", TEXT.repeat(9_000_000 / TEXT.len() + 1));
    let train = |out: &str| {
        let mut command =
            folder.command("train --config run.toml --tune off --data large.txt -n 2 --set data.tokenizer=bpe:300");
        command.args(["--out", out, "--json"]).env("TOKENFORMER_CACHE_DIR", folder.path("cache"));
        let ran = done(&mut command).ok();
        let found: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
        (ran.stderr, found["val_loss"].clone())
    };
    let (first, loss) = train("a");
    assert!(first.contains("are kept in") && first.contains("data in large.txt"), "{first}");
    let (second, again) = train("b");
    assert!(!second.contains("training the tokenizer") && !second.contains("are kept in"), "{second}");
    assert_eq!(loss, again);
    assert!(!folder.path("large.txt.lock").exists());
}

#[test]
fn what_is_no_document_is_named_and_only_left_out_when_asked() {
    let folder = Folder::new();
    let bad = "{\"text\": \"one\"}\n{\"text\": 7}\nno json\n\n{\"text\": \"\"}\n{\"txt\": \"a\"}\n{\"text\": \"\\ud800\"}\n{\"text\": \"two\"}\n";
    folder.write("a.jsonl", [bad.as_bytes(), b"{\"text\": \"\xff\"}\n{\"text\": \"three\"}"].concat());
    let said = folder.run("prepare a.jsonl --out out").refused();
    assert!(said.starts_with("a.jsonl:2: its \"text\" is a number") && said.contains("--skip-bad"), "{said}");
    let ran = folder.run("prepare a.jsonl --out out --skip-bad").ok();
    for place in ["a.jsonl:2", "a.jsonl:3", "a.jsonl:5", "a.jsonl:6", "a.jsonl:7"] {
        assert!(ran.stderr.contains(place), "{place}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("a.jsonl:9"), "the first few will do");
    assert_eq!(manifest(&folder, "out")["skipped"], 6);
    assert_eq!(manifest(&folder, "out")["train"]["documents"], 3);
}

#[test]
fn a_refused_command_leaves_everything_as_it_was() {
    let folder = mixed();
    folder.run(&format!("{MIXED} out")).ok();
    let before = content(&folder.path("out"));
    fs::create_dir(folder.path("mine")).unwrap();
    folder.write("mine/thesis.txt", "A thesis.");
    folder.write("empty.txt", "");
    folder.write("latin.txt", b"caf\xe9");
    folder.write("cut.jsonl.gz", &gzip(lines().as_bytes())[..900]);
    folder.write("bad.jsonl.zst", &zstd(lines().as_bytes())[..300]);
    for (command, said) in [
        (MIXED.replace("0.2", "0.3") + " out", "--val-fraction was 0.2 and is 0.3"),
        (MIXED.replace("gpt2", "cl100k") + " out", "the tokenizer was gpt2 and is cl100k"),
        ("prepare in.txt --tokenizer gpt2 --out out".to_owned(), "--overwrite"),
        (format!("{MIXED} mine --overwrite"), "holds other files, such as thesis.txt"),
        ("prepare none.txt --out new".to_owned(), "cannot read none.txt"),
        ("prepare *.csv --out new".to_owned(), "no file matches"),
        ("prepare run.toml --out new".to_owned(), "--format"),
        ("prepare - --out new".to_owned(), "--format"),
        ("prepare - in.txt --format txt --out new".to_owned(), "cannot be read beside files"),
        ("prepare in.txt text --val-by end --out new".to_owned(), "--val-by documents"),
        ("prepare in.txt --val-fraction 1 --out new".to_owned(), "from 0 to below 1"),
        ("prepare in.txt --tokenizer none.json --out new".to_owned(), "none.json"),
        ("prepare in.txt --tokenizer word --out new".to_owned(), "bpe:N"),
        ("prepare - --format txt --tokenizer bpe:300 --out new".to_owned(), "only once"),
    ] {
        let ran = folder.run(&command);
        let text = ran.stderr.clone();
        assert!(ran.code != 0 && ran.code != 101 && text.contains(said), "{command}: {text}");
        assert!(!folder.path("new").exists(), "{command}");
    }
    for (input, said) in [
        ("empty.txt --val-by documents --overwrite", "it is empty"),
        // The folder that the one before began has no tokens in it.
        ("latin.txt", "byte 0xe9 at offset 3"),
        ("cut.jsonl.gz --overwrite", "it ends in the middle"),
        ("bad.jsonl.zst --overwrite", "cannot unpack bad.jsonl.zst"),
    ] {
        let refused = folder.run(&format!("prepare {input} --out new")).refused();
        assert!(refused.contains(said), "{refused}");
    }
    assert_eq!(content(&folder.path("out")), before);
    assert_eq!(folder.text("mine/thesis.txt"), "A thesis.");
    folder.run(&MIXED.replace("0.2", "0.3").replace("--out", "--overwrite --out out")).ok();
    assert_eq!(manifest(&folder, "out")["val_fraction"], 0.3);
}

#[test]
fn standard_input_is_read_to_its_end() {
    let folder = Folder::new();
    let mut child = folder.command("prepare - --format jsonl --out out").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    folder.write("a.jsonl", lines());
    folder.run("prepare a.jsonl --out same").ok();
    assert_eq!(tokens(&folder, "out", "train"), tokens(&folder, "same", "train"));
}

/// Memory is bounded whatever a file unpacks to: 500 MB of address space for 256 MB without a line's end, nested without end,
/// and bytes of no meaning.
#[cfg(unix)]
#[test]
fn hostile_inputs_end_in_a_sentence_and_in_bounded_memory() {
    let folder = Folder::new();
    let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..256 {
        packer.write_all(&vec![b'{'; 1 << 20]).unwrap();
    }
    packer.write_all(b"\n{\"text\": \"after it\"}\n").unwrap();
    let bomb = packer.finish().unwrap();
    folder.write("bomb.jsonl.gz", &bomb);
    folder.write("bomb.txt.gz", &bomb);
    folder.write("deep.jsonl", "{\"a\":".repeat(200_000) + "\n" + &"[".repeat(300_000) + "\n{\"text\": \"a\"}");
    // A frame that asks for a window of 2 GB.
    folder.write("window.jsonl.zst", b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00");
    let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    folder.write("noise.jsonl", &noise);
    for name in ["noise.jsonl.gz", "noise.jsonl.zst", "noise.txt"] {
        folder.write(name, &noise);
    }
    let run = |args: &str| {
        let mut command = std::process::Command::new("sh");
        let program = env!("CARGO_BIN_EXE_tokenformer");
        let line = format!(
            "ulimit -v 500000; exec {program} prepare {args} --tokenizer gpt2 --threads 2 --overwrite --out out"
        );
        done(command.args(["-c", &line]).current_dir(folder.path(".")).stdin(Stdio::null()))
    };
    let ran = run("bomb.jsonl.gz --skip-bad").ok();
    assert!(ran.stderr.contains("bomb.jsonl.gz:1: it is longer than 16 MB"), "{}", ran.stderr);
    assert_eq!(manifest(&folder, "out")["train"]["documents"], 1);
    let ran = run("deep.jsonl --skip-bad").ok();
    assert!(
        ran.stderr.contains("deep.jsonl:1: it is no JSON") && ran.stderr.contains("deep.jsonl:2: "),
        "{}",
        ran.stderr
    );
    for (args, said) in [
        ("bomb.txt.gz", "so it is no text"),
        ("window.jsonl.zst", "cannot unpack window.jsonl.zst"),
        ("noise.jsonl --skip-bad", "there is no text in the input"),
        ("noise.jsonl.gz", "cannot unpack noise.jsonl.gz"),
        ("noise.jsonl.zst", "cannot unpack noise.jsonl.zst"),
        ("noise.txt", "noise.txt: it is not UTF-8"),
    ] {
        let refused = run(args).refused();
        assert!(refused.contains(said), "{args}: {refused}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_command_goes_on() {
    let folder = Folder::new();
    folder.write("a.jsonl", lines().repeat(400));
    let prepare = "prepare a.jsonl --out out --shard-tokens 20k --threads 1";
    let child = folder.command(prepare).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    while !folder.path("out/progress.json").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if output.status.code() == Some(130) {
        assert!(said.contains("the same command goes on"), "{said}");
        let ran = folder.run(prepare).ok();
        assert!(ran.stderr.contains("going on in out after"), "{}", ran.stderr);
    }
    folder.run(&prepare.replace("--out out", "--out whole")).ok();
    let mut found = content(&folder.path("out"));
    found.remove("lock");
    assert_eq!(found, content(&folder.path("whole")));
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_as_any_other_and_the_same_command_goes_on() {
    let folder = Folder::new();
    folder.write("a.jsonl", lines().repeat(40));
    let prepare = "prepare a.jsonl --tokenizer gpt2 --val-fraction 0.2 --shard-tokens 20k --out";
    let whole = folder.run(&format!("{prepare} whole")).ok();
    assert!(whole.stderr.is_empty() || !whole.stderr.contains("error"), "{}", whole.stderr);
    // Shards of 40 kB do not fit.
    let refused = done(&mut limited(24, &folder.command(&format!("{prepare} out")))).refused();
    assert!(refused.contains("out/train_000000.bin") && refused.to_lowercase().contains("file too large"), "{refused}");
    folder.run(&format!("{prepare} out")).ok();
    let mut found = content(&folder.path("out"));
    found.remove("lock");
    assert_eq!(found, content(&folder.path("whole")));
    let refused = folder.run(&format!("{prepare} in.txt/out")).refused();
    assert!(refused.contains("in.txt"), "{refused}");
}
