//! Tuning through the real binary, with kernels in processes of their own that hang, lose their device, end, or give
//! another result in their second run: each is refused by name, and training goes on.
//!
//! A machine without an adapter fails these tests.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A run of a few steps.
const TINY: &str = concat!(
    "
out_dir = 'run'
",
    include_str!("common/tiny-model.toml"),
    "[train]
batch_size = 4
max_steps = 3
eval_interval = 0
sample_interval = 0
[data]
corpus_sentences = 200
"
);
/// Seconds that a kernel has where one of them never answers; a busy machine may need more for good ones.
const LIMIT: &str = "20";

fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenformer"));
    // The second keeps Mesa from complaining where nobody is logged in.
    command.env("TOKENFORMER_CACHE_DIR", dir).env("XDG_RUNTIME_DIR", dir).env("TOKENFORMER_PROBE", "600");
    command.current_dir(dir).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What is kept of the kernels of the adapter.
fn known(dir: &Path) -> Value {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let is_known = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with("matmul-");
    let file = files.into_iter().find(|path| is_known(path)).expect("what was measured is kept");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn names(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// Trains, and returns what was told.
#[track_caller]
fn train(dir: &Path, plants: &str, limit: &str) -> String {
    let output = program(dir, &["train", "--config", "tiny.toml", "--overwrite"])
        .env("TOKENFORMER_TEST_PLANT", plants)
        .env("TOKENFORMER_PROBE", limit)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(fs::read_dir(dir.join("run")).unwrap().count() > 0);
    told
}

#[test]
fn planted_kernels_are_refused_and_training_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("tiny.toml"), TINY).unwrap();
    let told = train(dir, "", "600");
    assert!(!told.contains("warning"), "{told}");
    let works: Vec<String> = names(&known(dir)["works"]).into_iter().filter(|name| !name.contains(',')).collect();
    assert!(works.len() >= 4 && names(&known(dir)["refused"]).is_empty(), "{works:?}");

    for path in fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()) {
        if path.file_name().unwrap().to_str().unwrap().starts_with("matmul-") {
            fs::remove_file(path).unwrap();
        }
    }
    let plants = ["hang", "lose", "die", "differ"];
    let planted: Vec<String> = plants.iter().zip(&works).map(|(plant, name)| format!("{plant}:{name}")).collect();
    let told = train(dir, &planted.join(","), LIMIT);
    let causes = ["no answer within 20 s", "is not used: ", "ended (exit status: 9)", "differs from run to run"];
    for (name, cause) in works.iter().zip(causes) {
        let line = told.lines().find(|line| line.starts_with(&format!("warning: {name} is not used: ")));
        assert!(line.is_some_and(|line| line.contains(cause)), "{name}, {cause}: {told}");
    }
    let others = told.lines().filter(|line| line.starts_with("warning") && !line.contains("no answer within"));
    assert_eq!(others.count(), 3, "{told}");
    let known = known(dir);
    assert!(names(&known["refused"]).is_superset(&works.iter().take(4).cloned().collect()));
    for (class, record) in known["fastest"].as_object().unwrap() {
        let layout = class.split(' ').next().unwrap();
        let chosen = format!("{layout} {}", record["candidate"].as_str().unwrap());
        assert!(!works.iter().take(4).any(|name| *name == chosen), "{chosen} was chosen for {class}");
    }
    // What is known is not tried again.
    let told = train(dir, &planted.join(","), LIMIT);
    assert!(!told.contains("warning"), "{told}");
}

/// Nothing but messages goes to standard output, and it ends with its input.
#[test]
fn a_process_that_tries_kernels_ends_with_its_input() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = program(dir.path(), &["probe-kernels"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut hello = String::new();
    output.read_line(&mut hello).unwrap();
    let hello: Value = serde_json::from_str(&hello).unwrap();
    assert!(hello["adapter"].as_str().is_some_and(|adapter| !adapter.is_empty()));
    drop(child.stdin.take());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert_eq!(child.wait().unwrap().code(), Some(0));

    // What is no job ends it with a sentence.
    let mut child = program(dir.path(), &["probe-kernels"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("names no kernel"));
}

/// The process of a compiler that hangs is not left behind by a run that was killed.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_run_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tiny.toml"), TINY).unwrap();
    let hang: Vec<String> = ["NN", "NT", "TN"]
        .iter()
        .flat_map(|layout| ["lanes8-8x4-u4-broadcast", "lanes8-8x4-u4"].map(|name| format!("hang:{layout} {name}")))
        .collect();
    let mut run = program(dir.path(), &["train", "--config", "tiny.toml"]);
    let mut run = run.env("TOKENFORMER_TEST_PLANT", hang.join(",")).env("TOKENFORMER_PROBE", "600").spawn().unwrap();
    let children = |parent: u32| -> Vec<u32> {
        let of = |entry: fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let after_name: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            (after_name.get(1)?.parse() == Ok(parent)).then_some(pid)
        };
        fs::read_dir("/proc").unwrap().filter_map(|entry| of(entry.unwrap())).collect()
    };
    let within = |seconds, what: &str, done: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(seconds), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    within(240, "no process was started", &|| !children(run.id()).is_empty());
    let child = children(run.id())[0];
    // It has taken the job that hangs.
    std::thread::sleep(Duration::from_secs(5));
    assert!(Path::new(&format!("/proc/{child}")).exists());
    run.kill().unwrap();
    run.wait().unwrap();
    let gone = || fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "));
    within(60, "the process is left", &gone);
}
