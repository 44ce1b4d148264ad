//! A run that goes on from an older checkpoint, and one that cannot keep its best: nothing better is lost.

use super::{same_tensors, step, with_run};
use crate::program::{Folder, say};
use crate::snapshot::refused;
use std::fs;

const BEST: &str = "r/checkpoints/best.safetensors";

fn damage(folder: &Folder, at: u64) {
    let mut bytes = fs::read(step(folder, "r", at)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(step(folder, "r", at), bytes).unwrap();
}

#[test]
fn where_the_newest_is_damaged_the_best_one_counts_too() {
    let whole = with_run();
    whole.run("train --resume r --steps 21 --tune off").ok();
    let folder = with_run();
    damage(&folder, 20);
    let best = folder.read(BEST);
    // It is of step 20, and nothing is left to do.
    let said = refused(&folder, "train --resume r --steps 11 --tune off");
    assert!(said.starts_with("r/checkpoints/best.safetensors has done 20 steps, and max_steps is 11"), "{said}");
    let ran = folder.run("train --resume r --steps 21 --tune off").ok();
    assert!(ran.stderr.contains("warning: r/checkpoints/step-00000020.safetensors is damaged"), "{}", ran.stderr);
    let said = "resuming from r/checkpoints/best.safetensors after step 20";
    say("damaged newest", said);
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert!(same_tensors(&step(&folder, "r", 21), &step(&whole, "r", 21)));
    // One older than the newest whole one is left alone.
    let folder = with_run();
    folder.run("train --resume r --steps 40 --tune off").ok();
    fs::write(folder.path(BEST), &best).unwrap();
    damage(&folder, 40);
    assert!(folder.run("inspect r").ok().stdout.contains("step-00000030.safetensors"));
    damage(&folder, 30);
    assert!(folder.run("inspect r").ok().stdout.contains("best.safetensors"));
}

#[test]
fn going_on_from_an_older_checkpoint_replaces_no_better_one() {
    let folder = with_run();
    fs::remove_file(step(&folder, "r", 20)).unwrap();
    let best = folder.read(BEST);
    let ran = folder.run("train --resume r --steps 11 --tune off").ok();
    assert!(ran.stderr.contains("after step 10"), "{}", ran.stderr);
    let said = ran.stdout.lines().find(|line| line.starts_with("best val loss")).unwrap_or_default();
    say("older than the best", said);
    assert!(
        said.ends_with("at step 20") && ran.stdout.contains("\nbest checkpoint r/checkpoints/best.safetensors"),
        "{said}"
    );
    assert!(folder.read(BEST) == best, "the better one stays");
    // A better one that is damaged is none.
    let folder = with_run();
    fs::remove_file(step(&folder, "r", 20)).unwrap();
    folder.write(BEST, [&best[..best.len() - 1], b"\xff"].concat());
    let ran = folder.run("train --resume r --steps 11 --tune off").ok();
    assert!(ran.stdout.contains("at step 11\nbest checkpoint"), "{}", ran.stdout);
}

#[test]
fn a_later_checkpoint_under_another_name_is_named() {
    for name in ["final.safetensors", "step-20.bak"] {
        let folder = with_run();
        let renamed = format!("r/checkpoints/{name}");
        fs::rename(step(&folder, "r", 20), folder.path(&renamed)).unwrap();
        let said = refused(&folder, "train --resume r --steps 30 --tune off");
        say("renamed newest", &said);
        let remedy = format!("give it its name with `mv {renamed} r/checkpoints/step-00000020.safetensors`");
        assert!(said.starts_with(&format!("{renamed} holds step 20 under a name that no run gives")), "{said}");
        assert!(said.contains("go on from step 10") && said.ends_with(&remedy), "{said}");
        fs::rename(folder.path(&renamed), step(&folder, "r", 20)).unwrap();
        // One that is no later, and what is no checkpoint, is nobody's business.
        fs::copy(step(&folder, "r", 10), folder.path(&renamed)).unwrap();
        folder.write("r/checkpoints/notes.txt", "mine");
        folder.run("train --resume r --steps 21 --tune off").ok();
    }
}

#[test]
fn a_folder_in_the_place_of_the_best_checkpoint_is_named() {
    let folder = with_run();
    fs::remove_file(folder.path(BEST)).unwrap();
    fs::create_dir(folder.path(BEST)).unwrap();
    let said = refused(&folder, "train --resume r --steps 40 --tune off");
    assert!(said.starts_with(&format!("cannot read {BEST}: it is not a regular file")), "{said}");
}

/// `keep_last` is of checkpoints that a run can go on from.
#[test]
fn a_damaged_checkpoint_takes_no_whole_one_with_it() {
    let folder = with_run();
    damage(&folder, 20);
    fs::remove_file(folder.path(BEST)).unwrap();
    folder.run("train --resume r --steps 15 --tune off --set train.keep_last=2 --set train.keep_best=false").ok();
    assert!(step(&folder, "r", 10).exists() && step(&folder, "r", 15).exists());
    damage(&folder, 15);
    folder.run("train --resume r --steps 20 --tune off --set train.keep_last=2 --set train.keep_best=false").ok();
    assert!(step(&folder, "r", 10).exists() && step(&folder, "r", 20).exists(), "two that are whole");
    folder.run("train --resume r --steps 25 --tune off --set train.keep_last=2 --set train.keep_best=false").ok();
    assert!([10, 15].iter().all(|at| !step(&folder, "r", *at).exists()));
}
