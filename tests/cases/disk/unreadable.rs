//! Damage is not the same as "cannot be read": only a checkpoint that fails its checks is passed over.
#![cfg(unix)]

use super::{checkpoints, step, with_run};
use crate::program::{Folder, done, say};
use crate::snapshot::{left_alone, refused};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

fn mode(folder: &Folder, name: &str, bits: u32) {
    fs::set_permissions(folder.path(name), fs::Permissions::from_mode(bits)).unwrap();
}

fn is_root(folder: &Folder) -> bool {
    fs::metadata("/proc/self").or_else(|_| fs::metadata(folder.path("r"))).unwrap().uid() == 0
}

/// The program as somebody who may write to the run, but may not do all that root may; `None` where nobody cannot be had.
fn as_nobody(folder: &Folder, args: &[&str]) -> Option<Command> {
    if !is_root(folder) {
        return Some(folder.command(&args.join(" ")));
    }
    for (name, bits) in [("", 0o777), ("r", 0o777), ("r/checkpoints", 0o777), ("r/lock", 0o666)] {
        mode(folder, name, bits);
    }
    let there = Command::new("setpriv").args(["--reuid=65534", "--clear-groups", "true"]).status();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_tokenformer")]);
    command.current_dir(folder.path("")).args(args);
    there.is_ok_and(|status| status.success()).then_some(command)
}

#[test]
fn checkpoints_that_cannot_be_written_are_noticed_before_anything_is() {
    let folder = with_run();
    let Some(mut command) = as_nobody(&folder, &["train", "--resume", "r", "--steps", "30", "--tune", "off"]) else {
        return;
    };
    for name in ["r/config.toml", "r/metrics.jsonl"] {
        mode(&folder, name, 0o666);
    }
    mode(&folder, "r/checkpoints", 0o555);
    let said = left_alone(&folder, || done(&mut command).refused());
    mode(&folder, "r/checkpoints", 0o755);
    say("unwritable checkpoints", &said);
    assert!(said.starts_with("cannot write to r/checkpoints: permission denied"), "{said}");
    assert!(!said.contains("free some space"), "{said}");
}

#[test]
fn a_newest_checkpoint_that_may_not_be_read_is_not_passed_over() {
    let folder = with_run();
    let newest = "r/checkpoints/step-00000020.safetensors";
    let args = ["train", "--resume", "r", "--steps", "30", "--tune", "off"];
    let root = is_root(&folder);
    mode(&folder, newest, if root { 0o600 } else { 0o000 });
    // Where nobody cannot be had, tests/store plants the same error.
    let Some(mut command) = as_nobody(&folder, &args) else { return };
    let said = left_alone(&folder, || done(&mut command).refused());
    say("unreadable-newest-passed-over", &said);
    assert!(said.starts_with(&format!("cannot read {newest}: permission denied")), "{said}");
    assert!(said.contains("an older checkpoint is not taken in its place: make it readable"), "{said}");
    mode(&folder, newest, 0o644);
    folder.run("train --resume r --steps 21 --tune off").ok();
}

#[test]
fn a_folder_a_pipe_or_a_link_to_nowhere_in_its_place_is_not_passed_over() {
    type Plant = fn(&std::path::Path);
    let plant: [(&str, Plant); 3] = [
        ("it is not a regular file", |path| fs::create_dir(path).unwrap()),
        ("it is not a regular file", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("no such file", |path| symlink("nowhere.safetensors", path).unwrap()),
    ];
    for (reason, plant) in plant {
        let folder = with_run();
        plant(&step(&folder, "r", 30));
        for args in
            ["train --resume r --steps 40 --tune off", "eval r", "inspect r", "grow r out.safetensors --ffn-slots 24"]
        {
            let said = refused(&folder, args);
            let start = "cannot read r/checkpoints/step-00000030.safetensors: ";
            assert!(said.starts_with(start) && said.contains(reason), "{args}: {said}");
            assert!(said.contains("an older checkpoint is not taken"), "{args}: {said}");
        }
    }
}

#[test]
fn a_damaged_one_is_passed_over_with_a_warning() {
    let folder = with_run();
    let newest = step(&folder, "r", 20);
    let whole = fs::read(&newest).unwrap();
    for damaged in [&whole[..whole.len() / 2], &[0; 4096], b"", &[&whole[..whole.len() - 1], b"\xff"].concat()] {
        fs::write(&newest, damaged).unwrap();
        let said = folder.run("inspect r").ok();
        assert!(said.stderr.contains("warning: r/checkpoints/step-00000020.safetensors"), "{}", said.stderr);
        // The best one is of step 20 as well.
        assert!(said.stdout.contains("r/checkpoints/best.safetensors"), "{}", said.stdout);
    }
    fs::remove_file(folder.path("r/checkpoints/best.safetensors")).unwrap();
    let said = folder.run("inspect r").ok();
    assert!(said.stdout.contains("r/checkpoints/step-00000010.safetensors"), "{}", said.stdout);
    // A checkpoint of a newer version, or another program's file, is not damaged.
    let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  "#;
    fs::write(&newest, [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat()).unwrap();
    let said = refused(&folder, "train --resume r --steps 30 --tune off");
    assert!(
        said.contains("not a tokenformer checkpoint") && said.contains("an older checkpoint is not taken"),
        "{said}"
    );
    assert_eq!(checkpoints(&folder, "r").len(), 2);
}
