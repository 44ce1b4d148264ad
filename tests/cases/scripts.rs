//! The program as scripts and batch systems call it.

#[cfg(unix)]
use super::program::limited;
use super::program::{Folder, done};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

/// The last line of standard output.
fn answer(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn going_on_with_a_complete_run_is_no_failure() {
    let folder = Folder::new();
    folder.train("--steps 2 --out r").ok();
    let before = folder.read("r/config.toml");
    for args in ["--json", "--steps 2 --json"] {
        let ran = folder.run(&format!("train --resume r {args}")).ok();
        assert!(ran.stderr.contains("has done 2 of its 2 steps and is complete: give it more with --steps"));
        let found = answer(&ran.stdout);
        assert_eq!((&found["complete"], &found["step"]), (&Value::Bool(true), &Value::from(2)), "{found}");
    }
    assert_eq!(folder.read("r/config.toml"), before);
}

#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_files_is_an_error_as_any_other() {
    let folder = Folder::new();
    folder.train("--steps 2 --out r").ok();
    let ran = done(&mut limited(10, &folder.command("grow r big.safetensors --ffn-slots 64 --json")));
    assert_eq!((ran.code, &answer(&ran.stdout)["kind"]), (2, &Value::from("input")), "{}", ran.stderr);
    assert!(ran.refused().to_lowercase().contains("file too large"));
    let left: Vec<_> = std::fs::read_dir(folder.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("big")), "{left:?}");
    let ran = done(&mut limited(20, &folder.command("train --config run.toml --tune off --steps 2 --out s")));
    assert!(ran.code == 2 && ran.refused().to_lowercase().contains("file too large"));
}

#[cfg(unix)]
#[test]
fn a_run_whose_lock_was_removed_stops_before_it_mixes_with_another() {
    let folder = Folder::new();
    let args = "train --config run.toml --tune off --steps 1000000 --set train.checkpoint_interval=1 --out r";
    let mut child = folder.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("\nstep ") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
    }
    std::fs::remove_file(folder.path("r/lock")).unwrap();
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2), "{said}");
    assert!(said.contains("error: r/lock was removed or replaced during the run"), "{said}");
}

#[test]
fn what_an_unset_variable_leaves_is_refused() {
    let folder = Folder::new();
    for setting in ["data.path=", "data.val_path=", "model.tau_ffn="] {
        let said = folder.train(&format!("--dry-run --set {setting}")).refused();
        assert!(said.contains(" is empty: give it a value, or none to go without"), "{said}");
    }
    let mut command = folder.command("compare");
    assert_eq!(done(command.arg("")).refused(), "\"\" names no run: give the directory of one");
    let ran = folder.run("eval --json");
    assert!(answer(&ran.stdout)["error"].as_str().unwrap().contains("<RUN|FILE>"), "{}", ran.stdout);
}

#[test]
fn a_variable_that_nothing_reads_is_named_with_the_nearest() {
    let folder = Folder::new();
    let mut command = folder.command("presets");
    let said = done(command.env(concat!("TOKENFORMER", "_CACHEDIR"), "x")).ok().stderr;
    assert!(said.contains("warning: ") && said.contains("the nearest variable is TOKENFORMER_CACHE_DIR"), "{said}");
}

#[test]
fn an_evaluation_says_in_json_that_the_text_is_another() {
    let folder = Folder::new();
    folder.train("--steps 2 --out r").ok();
    let changed = || answer(&folder.run("eval r --json").ok().stdout)["data_changed"].clone();
    assert_eq!(changed(), Value::Bool(false));
    let mut text = folder.read("in.txt");
    let last = text.iter_mut().rev().find(|byte| **byte == b'e').unwrap();
    *last = b'a';
    folder.write("in.txt", text);
    assert_eq!(changed(), Value::Bool(true));
    assert_eq!(answer(&folder.run("eval r --data in.txt --json").ok().stdout)["data_changed"], Value::Null);
}

#[test]
fn a_flag_of_another_program_is_not_taken_for_one_that_does_something_else() {
    let folder = Folder::new();
    for (line, tip) in [
        ("train --always_save_checkpoint=False", None),
        ("train --do_train", None),
        ("grow a x --tune off", None),
        ("train -b 4", None),
        ("train --stepz 3", Some("--steps")),
    ] {
        let ran = folder.run(line);
        assert_eq!((ran.code, ran.stderr.contains("tip: ")), (1, tip.is_some()), "{line}: {}", ran.stderr);
        assert!(tip.is_none_or(|tip| ran.stderr.contains(tip)), "{}", ran.stderr);
    }
}
