//! A run as a process among others: killed at any instant, started a hundred times at once, interrupted,
//! and the same bits as any other.
//!
//! Every case runs the real binary. `TOKENFORMER_TEST_FULL=1` kills 200 times instead of 5, and compares 10 processes of 200
//! steps instead of 3 of 40. A machine without an adapter
//! fails these tests.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokenformer::rng::{Rng, Stream};
use tokenformer::train::{Checkpoint, Store};

/// A run of about a second that evaluates, samples, grows and saves all the time.
const TINY: &str = concat!(
    "
out_dir = 'run'
",
    include_str!("common/tiny-model.toml"),
    "[train]
batch_size = 2
max_steps = 100
eval_interval = 7
eval_batches = 1
sample_interval = 11
sample_tokens = 4
checkpoint_interval = 2
log_interval = 10
[data]
corpus_sentences = 200
[[growth]]
at_step = 31
ffn_slot_num = 48
"
);
/// Steps of it.
const STEPS: u64 = 100;
/// Steps between its checkpoints.
const INTERVAL: u64 = 2;

/// Where the verdict on the adapter is kept, so that no run has to find it again.
fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("processes");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("first")).unwrap();
        fs::write(dir.join("first/tiny.toml"), TINY).unwrap();
        finish(environment(Command::new(env!("CARGO_BIN_EXE_tokenformer")), &dir, &dir.join("first"), TRAIN));
        dir
    })
}

/// Arguments of a new run.
const TRAIN: &str = "train --config tiny.toml --tune off";

fn environment(mut command: Command, cache: &Path, dir: &Path, args: &str) -> Command {
    // The second keeps Mesa from complaining where nobody is logged in.
    command.env("TOKENFORMER_CACHE_DIR", cache).env("XDG_RUNTIME_DIR", cache);
    command.current_dir(dir).args(args.split(' ')).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn program(dir: &Path, args: &str) -> Command {
    environment(Command::new(env!("CARGO_BIN_EXE_tokenformer")), cache(), dir, args)
}

/// The program, which heeds a hang-up even where these tests run under `nohup`.
fn heeding(dir: &Path, args: &str) -> Command {
    if !cfg!(target_os = "linux") {
        return program(dir, args);
    }
    let mut env = Command::new("env");
    env.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_tokenformer")]);
    environment(env, cache(), dir, args)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn finish(mut command: Command) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// A fresh directory with the settings of [`TINY`].
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tiny.toml"), TINY).unwrap();
    dir
}

/// The lines of metrics that a resumed run must repeat.
fn curve(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("run/metrics.jsonl")).unwrap_or_default();
    // A killed process loses no line and tears none.
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.retain(|line| line["kind"] != "run");
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("seconds")));
    lines
}

fn last_checkpoint(dir: &Path) -> Option<(u64, Vec<u8>)> {
    let (step, path) = Store::new(dir.join("run")).list().unwrap().pop()?;
    Some((step, fs::read(path).unwrap()))
}

/// How much of a run a kill cost, and what it left behind.
#[derive(Debug, Default)]
struct Tally {
    before_the_first_checkpoint: u32,
    within_a_save: u32,
    after_the_last_save: u32,
    most_steps_lost: u64,
}

/// The lowest validation loss that a run wrote down and the step it was measured after, where that was no first look.
fn lowest(dir: &Path) -> Option<(u64, f64)> {
    let lines = curve(dir).into_iter().filter(|line| line["kind"] == "eval" && line["step"] != 0);
    let measured = lines.map(|line| (line["step"].as_u64().unwrap(), line["val_loss"].as_f64().unwrap()));
    measured.reduce(|best, next| if next.1 < best.1 { next } else { best })
}

/// The best model that is kept, by the step it is of and the loss in it.
fn best(dir: &Path) -> Option<(u64, f64)> {
    let file = Store::new(dir.join("run")).best();
    file.exists().then(|| Checkpoint::read(&file).unwrap().meta).map(|meta| (meta.step, meta.best_val_loss.unwrap()))
}

/// Notes what a kill left, and checks that no more than an interval is lost.
fn examine(dir: &Path, tally: &mut Tally) -> Option<u64> {
    let step = last_checkpoint(dir).map(|(step, _)| step);
    let trained = curve(dir).iter().filter(|line| line["kind"] == "train").count() as u64;
    let lost = trained - step.unwrap_or(0).min(trained);
    assert!(lost <= INTERVAL, "{lost} steps are lost");
    tally.most_steps_lost = tally.most_steps_lost.max(lost);
    tally.before_the_first_checkpoint += u32::from(step.is_none());
    tally.after_the_last_save += u32::from(step == Some(STEPS));
    let unfinished = |entry: fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".unfinished");
    let mut files = fs::read_dir(dir.join("run/checkpoints")).into_iter().flatten();
    tally.within_a_save += u32::from(files.any(|entry| unfinished(entry.unwrap())));
    step
}

#[test]
fn a_run_killed_at_any_instant_ends_in_the_same_bits() {
    let full = std::env::var_os("TOKENFORMER_TEST_FULL").is_some_and(|full| full == "1");
    let kills = if full { 200 } else { 5 };
    let straight = folder();
    cache();
    let started = Instant::now();
    finish(program(straight.path(), TRAIN));
    let whole = started.elapsed();
    let (wanted, wanted_curve) = (last_checkpoint(straight.path()).unwrap(), curve(straight.path()));
    assert_eq!(wanted.0, STEPS);
    let mut tally = Tally::default();
    let (mut kill, mut draw) = (0, 0);
    while kill < kills {
        let dir = folder();
        let mut child = program(dir.path(), TRAIN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(Rng::new(draw, Stream::Test, 0).uniform()));
        draw += 1;
        if child.try_wait().unwrap().is_some() {
            // Too late: the run was faster than the first one.
            continue;
        }
        kill += 1;
        child.kill().unwrap();
        child.wait().unwrap();
        let found = examine(dir.path(), &mut tally);
        // It is kept before its line is written.
        if let (Some(kept), lowest) = (best(dir.path()), lowest(dir.path())) {
            assert!(
                lowest.is_none_or(|lowest| kept.1 <= lowest.1),
                "kill {kill}: {kept:?} is kept, and {lowest:?} is lower"
            );
        }
        match found {
            None => finish(program(dir.path(), TRAIN)),
            // It has its best model kept, if it had no time for that.
            Some(_) => finish(program(dir.path(), "train --resume run --tune off")),
        }
        assert_eq!(curve(dir.path()), wanted_curve, "kill {kill}");
        assert_eq!(best(dir.path()), lowest(dir.path()), "kill {kill}");
        assert!(last_checkpoint(dir.path()).unwrap() == wanted, "kill {kill} ends in another checkpoint");
        // The last two, the best, and that from before the growth.
        let names = fs::read_dir(dir.path().join("run/checkpoints")).unwrap().count();
        // A run that had saved its last checkpoint, and not removed an older one, has no reason to go on.
        assert!(names == 4 || found == Some(STEPS), "kill {kill} left something behind");
    }
    println!("{kills} kills of a run of {whole:.2?}: {tally:?}");
}

/// Copies the run in `from` as it was after `step`: an unbroken one that kept every checkpoint.
fn as_of(step: u64, from: &Path, to: &Path) {
    let (old, new) = (from.join("run"), to.join("run"));
    fs::create_dir_all(new.join("checkpoints")).unwrap();
    for file in ["metrics.jsonl", "config.toml"] {
        fs::copy(old.join(file), new.join(file)).unwrap();
    }
    for (at, path) in Store::new(&old).list().unwrap() {
        if at <= step {
            fs::copy(&path, new.join("checkpoints").join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Processes with one and with two threads of the software driver, and ones that go on after any step. `polite` cuts
/// submissions elsewhere.
#[test]
fn every_process_computes_the_same_bits() {
    let full = std::env::var_os("TOKENFORMER_TEST_FULL").is_some_and(|full| full == "1");
    let (processes, steps, resumed) = if full { (10, 200, 1) } else { (3, 40, 13) };
    let keep = format!("--steps {steps} --set train.checkpoint_interval=1 --set train.keep_every=1");
    let run = |at: u64| {
        let dir = folder();
        let polite = if at % 3 == 2 { " --polite" } else { "" };
        let mut command = program(dir.path(), &format!("{TRAIN} {keep}{polite}"));
        command.env("LP_NUM_THREADS", (1 + at % 2).to_string());
        finish(command);
        dir
    };
    let first = run(0);
    let (wanted, wanted_curve) = (last_checkpoint(first.path()).unwrap(), curve(first.path()));
    assert_eq!(wanted.0, steps);
    for at in 1..processes {
        let dir = run(at);
        assert!(last_checkpoint(dir.path()).unwrap() == wanted, "process {at} ends in another checkpoint");
        assert_eq!(curve(dir.path()), wanted_curve, "process {at}");
    }
    let mut count = 0;
    for step in (1..steps).step_by(resumed) {
        let dir = folder();
        as_of(step, first.path(), dir.path());
        let mut command = program(dir.path(), "train --resume run --tune off");
        command.env("LP_NUM_THREADS", (1 + step % 2).to_string());
        finish(command);
        assert!(last_checkpoint(dir.path()).unwrap() == wanted, "resumed after {step}: another checkpoint");
        assert_eq!(curve(dir.path()), wanted_curve, "resumed after {step}");
        count += 1;
    }
    println!("{processes} processes of {steps} steps and {count} resumed ones: the same losses and checkpoints");
}

/// A run that does not end by itself, past its first step.
fn endless(dir: &Path, args: &str) -> (Child, BufReader<ChildStderr>) {
    let mut child = heeding(dir, &format!("{TRAIN} {args}")).stdout(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap());
    (child, lines)
}

fn wait_for(lines: &mut BufReader<ChildStderr>, start: &str) {
    let (mut line, mut all) = (String::new(), String::new());
    while !line.starts_with(start) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "no line starts with {start:?}:\n{all}");
        all += &line;
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn of_a_hundred_starts_in_one_directory_one_writes() {
    let dir = folder();
    let endless = format!("{TRAIN} --steps 100000000 --set train.checkpoint_interval=0 --set train.eval_interval=0");
    let start = |_| program(dir.path(), &endless).stdout(Stdio::null()).spawn().unwrap();
    let mut running: Vec<Child> = (0..100).map(start).collect();
    let mut refused = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(300);
    while running.len() > 1 {
        assert!(Instant::now() < deadline, "{} processes are still running", running.len());
        std::thread::sleep(Duration::from_millis(20));
        let mut left = Vec::new();
        for mut child in running {
            match child.try_wait().unwrap() {
                Some(_) => refused.push(child.wait_with_output().unwrap()),
                None => left.push(child),
            }
        }
        running = left;
    }
    let mut writer = running.pop().expect("one writes");
    assert_eq!(refused.len(), 99);
    let owner = format!("error: another tokenformer (process {}) is writing to run: ", writer.id());
    for output in &refused {
        let text = stderr(output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.starts_with(&owner) && text.contains("--out") && text.lines().count() == 1, "{text}");
    }
    // Its lock goes with it, however it ends.
    assert_eq!(writer.try_wait().unwrap(), None, "the writer still runs");
    writer.kill().unwrap();
    writer.wait().unwrap();
    finish(program(dir.path(), TRAIN));
    assert_eq!(last_checkpoint(dir.path()).unwrap().0, STEPS);
}

#[test]
fn a_second_writer_of_any_kind_is_refused_and_changes_nothing() {
    let dir = folder();
    finish(program(dir.path(), TRAIN));
    let (mut child, mut lines) = endless(dir.path(), "--overwrite --steps 100000000 --set train.checkpoint_interval=1");
    wait_for(&mut lines, "step ");
    for args in [TRAIN, "train --config tiny.toml --overwrite", "train --resume run --steps 100000001"] {
        let output = program(dir.path(), args).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args}: {text}");
        assert!(text.contains(&format!("(process {}) is writing to run", child.id())), "{args}: {text}");
    }
    // Those who only read may.
    finish(program(dir.path(), "inspect run"));
    finish(program(dir.path(), "train --config tiny.toml --dry-run"));
    signal(&child, "TERM");
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A step that takes long enough for a second signal to come within it.
const SLOW: &str = "--steps 1000 --batch-size 2048 --set train.eval_interval=0 --set train.checkpoint_interval=1 \
                    --set train.log_interval=1 --set growth=[]";

#[test]
fn a_second_interrupt_stops_at_once_and_loses_nothing_that_was_saved() {
    for (first, second) in [("INT", "INT"), ("TERM", "INT"), ("HUP", "TERM")] {
        let dir = folder();
        let (mut child, mut lines) = endless(dir.path(), SLOW);
        wait_for(&mut lines, "step 2/");
        signal(&child, first);
        wait_for(&mut lines, "stopping after this step");
        let started = Instant::now();
        signal(&child, second);
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert!(!rest.contains("stopped after step"), "the first interrupt was faster than the second: {rest}");
        let latest = Store::new(dir.path().join("run")).latest().unwrap();
        let step = latest.found.unwrap().1.meta.step;
        assert!(latest.warnings.is_empty() && step >= 1);
        finish(program(dir.path(), &format!("train --resume run --tune off --steps {}", step + 1)));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_hang_up_is_ignored_by_a_run_that_was_told_to() {
    let dir = folder();
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tokenformer")]);
    let mut child = environment(shell, cache(), dir.path(), TRAIN).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut lines, "step 10/");
    signal(&child, "HUP");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    assert_eq!(last_checkpoint(dir.path()).unwrap().0, STEPS);
}
