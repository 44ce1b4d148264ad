//! The real program in a fresh directory: bad input, a full disk, an interrupt. Every failure is one sentence
//! and an exit code, and loses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tokenformer");
/// A model whose steps take a moment on a software adapter.
const TINY: &str = "--set model.num_layers=1 --set model.hidden_size=16 --set model.num_attention_heads=2 \
    --set model.seq_length=16 --set train.batch_size=2 --set growth=[] --set data.corpus_sentences=200";

fn tokenformer(dir: &Path, args: &str) -> Output {
    // Single quotes keep words with spaces together, as in a shell.
    let words = args.split('\'').enumerate().flat_map(|(i, part)| {
        if i % 2 == 1 { vec![part.to_string()] } else { part.split_whitespace().map(str::to_string).collect() }
    });
    Command::new(PROGRAM).args(words).current_dir(dir).envs(environment()).output().unwrap()
}

/// The self-test of an adapter runs once for all tests here.
fn environment() -> [(&'static str, std::path::PathBuf); 1] {
    [("TOKENFORMER_CACHE_DIR", std::env::temp_dir().join("tokenformer-test-cache"))]
}

fn sentence(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().filter(|line| line.starts_with("error: ")).collect::<Vec<_>>().join("\n")
}

fn refused(dir: &Path, args: &str, code: i32, words: &[&str]) {
    let output = tokenformer(dir, args);
    let said = sentence(&output);
    assert_eq!(output.status.code(), Some(code), "{args}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().count(), 1, "{args}: {said}");
    for word in words {
        assert!(said.contains(word), "{args}: \"{word}\" is not in: {said}");
    }
}

fn done(dir: &Path, args: &str) -> String {
    let output = tokenformer(dir, args);
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn train(dir: &Path, out: &str, more: &str) -> String {
    let steps = if more.contains("--steps") { "" } else { "--steps 2" };
    done(dir, &format!("train {TINY} --out {out} {steps} {more}"))
}

#[test]
fn bad_settings_and_data_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
    write("empty.txt", b"");
    write("short.txt", b"hi there");
    write("latin1.txt", b"abc\xe9\xff def");
    write("unknown.toml", b"[model]\nhiden_size = 3\n");
    write("broken.toml", b"[model\n");
    write("odd.bin", b"abc");
    write("tokens.bin", &[7, 0, 9, 0].repeat(100));
    let none = std::collections::BTreeSet::from(
        ["empty.txt", "short.txt", "latin1.txt", "unknown.toml", "broken.toml", "odd.bin", "tokens.bin"]
            .map(str::to_string),
    );
    for (args, code, words) in [
        ("train --data missing.txt", 2, vec!["missing.txt", "no such file"]),
        ("train --data empty.txt", 2, vec!["empty.txt", "empty"]),
        ("train --data short.txt", 2, vec!["short.txt", "seq_length 64"]),
        ("train --data latin1.txt", 2, vec!["latin1.txt", "UTF-8", "offset 3"]),
        ("train --data .", 2, vec!["directory"]),
        ("train --data odd.bin --set model.vocab_size=9", 2, vec!["odd.bin"]),
        ("train --data tokens.bin", 1, vec!["vocab_size"]),
        ("train --config unknown.toml", 2, vec!["hiden_size", "\"hidden_size\""]),
        ("train --config broken.toml", 2, vec!["broken.toml"]),
        ("train --preset nope", 1, vec!["nope", "quickstart"]),
        ("train --set train.lr=abc", 1, vec!["train.lr", "abc", "number"]),
        ("train --set train.lr=nan", 1, vec!["lr"]),
        ("train --set train.lrr=1", 1, vec!["lrr", "\"lr\""]),
        ("train --set model.num_attention_heads=5", 1, vec!["5", "hidden_size 64", "4 or 8"]),
        ("train --set model.num_attention_heads=16 --set model.rotary_pct=0.3", 1, vec!["pairs"]),
        ("train --set train.batch_size=0", 1, vec!["batch_size"]),
        ("train --set model.num_layers=99999999999", 1, vec!["num_layers"]),
        ("train --set 'growth=[{at_step = 9, ffn_slot_num = 5}]'", 1, vec!["growth to 5", "128"]),
        ("train --set 'growth=[{at_step = 9, ffn_slot_num = 256, init_values = \"zero\"}]'", 1, vec!["zero"]),
        ("train --set model.norm_activation_type=softmax", 1, vec!["exp(0) = 1"]),
        ("train --set model.arch=transformer", 1, vec!["transformer", "grow"]),
        ("train --resume nowhere", 2, vec!["nowhere"]),
        ("train --adapter nosuchgpu", 3, vec!["nosuchgpu"]),
        ("train --backend foo", 1, vec!["foo", "vulkan"]),
        ("generate short.txt", 2, vec!["short.txt", "safetensors"]),
        ("eval nowhere.safetensors", 2, vec!["nowhere.safetensors"]),
        ("inspect .", 2, vec!["checkpoint"]),
    ] {
        refused(dir, args, code, &words);
        let left = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.collect::<std::collections::BTreeSet<_>>(), none, "{args} left something behind");
    }
    assert_eq!(tokenformer(dir, "--help").status.code(), Some(0));
    assert_eq!(tokenformer(dir, "--version").status.code(), Some(0));
    assert_eq!(tokenformer(dir, "trian").status.code(), Some(1));
}

#[test]
fn a_checkpoint_is_used_grown_and_protected() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let summary = train(dir, "run", "");
    assert!(summary.contains("entropy floor") && summary.contains("val loss"), "{summary}");
    let file = "run/checkpoints/step-00000002.safetensors";
    let original = std::fs::read(dir.join(file)).unwrap();

    assert!(done(dir, "inspect run").contains("hidden_size = 16"));
    assert!(done(dir, "eval run").contains("bits per byte"));
    let text = done(dir, "generate run --prompt tom --tokens 30 --seed 4");
    assert!(text.starts_with("tom") && text.chars().count() >= 33, "{text}");
    assert_eq!(done(dir, "generate run --prompt tom --tokens 30 --seed 4"), text);
    assert!(done(dir, "grow run grown.safetensors --ffn-slots 300").contains("max |logit change| 0.0e0"));
    assert!(done(dir, "inspect grown.safetensors").contains("ffn 128 -> 300"));
    assert!(done(dir, "train --resume grown.safetensors --out more --steps 3").contains("growth"));
    assert_eq!(std::fs::read(dir.join(file)).unwrap(), original, "the input of grow was written");

    for (args, code, words) in [
        (format!("train {TINY} --out run"), 1, vec!["run", "--resume", "--overwrite"]),
        ("train --resume run --set model.num_layers=2 --steps 3".to_string(), 1, vec!["num_layers"]),
        ("grow run grown.safetensors --ffn-slots 300".to_string(), 1, vec!["exists"]),
        ("grow run new.safetensors --ffn-slots 64".to_string(), 1, vec!["growth to 64", "128"]),
        ("grow run new.safetensors".to_string(), 1, vec!["grow"]),
        ("grow run new.safetensors --ffn-slots 300 --init-values zero".to_string(), 1, vec!["zero"]),
        ("generate run --prompt '#'".to_string(), 2, vec!["#"]),
        ("generate run --prompt ''".to_string(), 1, vec!["empty"]),
        ("generate run --top-p 0".to_string(), 1, vec!["top-p 0"]),
        ("generate run --temperature=-1".to_string(), 1, vec!["temperature -1"]),
    ] {
        refused(dir, &args, code, &words);
    }
    assert!(!dir.join("new.safetensors").exists());

    std::fs::write(dir.join("cut.safetensors"), &original[..original.len() - 100]).unwrap();
    refused(dir, "generate cut.safetensors", 2, &["cut.safetensors", "truncated"]);
    // Another model's weights under this model's settings.
    let mut other = tokenformer::checkpoint::Checkpoint::read(&dir.join(file)).unwrap();
    other.meta.config["model"]["hidden_size"] = 32.into();
    other.write(&dir.join("other.safetensors")).unwrap();
    refused(dir, "generate other.safetensors", 2, &["word_embeddings.weight"]);
}

/// The losses of a run, without what depends on the clock.
fn losses(dir: &Path, run: &str) -> Vec<(u64, String)> {
    let text = std::fs::read_to_string(dir.join(run).join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let train = lines.filter(|v| v["kind"] == "train");
    train.map(|v| (v["step"].as_u64().unwrap(), format!("{} {}", v["loss"], v["grad_norm"]))).collect()
}

/// `ulimit -f` makes writes fail beyond a size, as a full disk does; SIGXFSZ is ignored, so they return an error.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_previous_checkpoint_and_the_run_goes_on_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    train(dir, "straight", "--steps 4");
    train(dir, "run", "--steps 2");
    let first = dir.join("run/checkpoints/step-00000002.safetensors");
    let before = std::fs::read(&first).unwrap();
    let kilobytes = before.len() / 1024 / 2;
    let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec {PROGRAM} train --resume run --steps 4");
    let output = Command::new("bash").args(["-c", &script]).current_dir(dir).envs(environment()).output().unwrap();
    let said = sentence(&output);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("step-00000004") && said.contains("bytes"), "{said}");
    assert_eq!(std::fs::read(&first).unwrap(), before);
    let names: Vec<_> =
        std::fs::read_dir(dir.join("run/checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    done(dir, "train --resume run --steps 4");
    // The schedule of two steps differs from that of four, so the runs share no later losses; they must end.
    assert_eq!(losses(dir, "run").len(), losses(dir, "straight").len());
}

#[cfg(unix)]
#[test]
fn an_interrupt_finishes_the_step_saves_and_resumes_to_the_same_end() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let steps = "--steps 400 --set train.eval_interval=0 --set train.sample_interval=0";
    train(dir, "straight", steps);
    for (run, signal) in [("int", "INT"), ("term", "TERM")] {
        let args = format!("train {TINY} --out {run} {steps}");
        let child = Command::new(PROGRAM)
            .args(args.split_whitespace())
            .current_dir(dir)
            .envs(environment())
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Once it is stepping: the first lines of the log are out.
        let metrics = dir.join(run).join("metrics.jsonl");
        let started = std::time::Instant::now();
        while !metrics.exists() && started.elapsed().as_secs() < 60 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{signal}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(sentence(&output).contains("--resume"), "{}", sentence(&output));
        done(dir, &format!("train --resume {run}"));
        assert_eq!(losses(dir, run), losses(dir, "straight"), "{signal}");
    }
}
