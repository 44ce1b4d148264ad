//! What is not ours is not touched.

use super::{checkpoints, copy, step, with_run};
use crate::program::{Folder, say};
use crate::snapshot::refused;
use std::fs;

const TRAIN: &str = "train --config run.toml --tune off --steps 2 --out";

#[test]
fn a_file_named_lock_that_no_run_wrote_stays_as_it_is() {
    let folder = Folder::new();
    fs::create_dir(folder.path("project")).unwrap();
    folder.write("project/lock", "my notes\n");
    let said = refused(&folder, &format!("{TRAIN} project"));
    say("own-lock-file-emptied", &said);
    assert_eq!(
        said,
        "project/lock is not a run's lock, and a run would write over it: choose another --out, or move it away"
    );
    refused(&folder, &format!("{TRAIN} project --overwrite"));
    // Beside settings of someone's own, whichever is found first.
    folder.write("project/config.toml", "x = 1\n");
    refused(&folder, &format!("{TRAIN} project"));
    let whole = with_run();
    copy(&whole.path("r"), &folder.path("r"));
    folder.write("r/lock", "Cargo.lock of something\n");
    let said = refused(&folder, "train --resume r --steps 30 --tune off");
    assert!(said.starts_with("r/lock is not a run's lock"), "{said}");
    // What a killed run left is ours.
    folder.write("r/lock", "4711\n");
    refused(&folder, "train --resume r --steps 30 --tune off --adapter nosuch");
    folder.run("train --resume r --steps 21 --tune off").ok();
    #[cfg(unix)]
    for plant in [0, 1, 2] {
        fs::remove_file(folder.path("r/lock")).unwrap_or_else(|_| fs::remove_dir(folder.path("r/lock")).unwrap());
        match plant {
            0 => std::os::unix::fs::symlink("../in.txt", folder.path("r/lock")).unwrap(),
            1 => fs::create_dir(folder.path("r/lock")).unwrap(),
            _ => assert!(std::process::Command::new("mkfifo").arg(folder.path("r/lock")).status().unwrap().success()),
        }
        let said = refused(&folder, "train --resume r --steps 30 --tune off");
        assert!(said.starts_with("r/lock is not a run's lock"), "{said}");
    }
}

#[test]
fn a_run_whose_checkpoints_have_other_names_or_are_elsewhere_is_not_replaced() {
    let folder = with_run();
    fs::rename(step(&folder, "r", 20), folder.path("r/checkpoints/best.safetensors")).unwrap();
    fs::remove_file(step(&folder, "r", 10)).unwrap();
    let said = refused(&folder, &format!("{TRAIN} r"));
    say("run-without-step-files-is-replaced", &said);
    assert!(said.starts_with("r already holds a run at step 20: continue it with --resume r"), "{said}");
    // It is whole, whatever it is called: going on from it is going on with the run.
    folder.run("train --resume r --steps 21 --tune off").ok();

    let folder = with_run();
    for (at, name) in [(10, "STEP-00000010.SAFETENSORS"), (20, "final.safetensors")] {
        fs::rename(step(&folder, "r", at), folder.path(&format!("r/checkpoints/{name}"))).unwrap();
    }
    fs::remove_file(folder.path("r/checkpoints/best.safetensors")).unwrap();
    let said = refused(&folder, &format!("{TRAIN} r"));
    assert!(said.contains("SAFETENSORS, which has no name that a run gives its checkpoints"), "{said}");
    let said = refused(&folder, "train --resume r --steps 30 --tune off");
    assert!(said.contains("holds no checkpoint under a name that a run gives, but r/checkpoints/"), "{said}");
    folder.run("inspect r/checkpoints/final.safetensors").ok();

    let folder = with_run();
    fs::rename(folder.path("r/checkpoints"), folder.path("archive")).unwrap();
    let said = refused(&folder, &format!("{TRAIN} r"));
    assert!(said.contains("the metrics of a run of 20 steps and none of its checkpoints"), "{said}");
    assert!(said.ends_with("with --overwrite"), "{said}");
    // With settings or metrics only, it is somebody's own.
    fs::remove_file(folder.path("r/config.toml")).unwrap();
    assert!(refused(&folder, &format!("{TRAIN} r")).contains("metrics.jsonl that is not a run's"));
}

#[test]
fn files_of_other_programs_are_never_replaced_and_overwriting_says_what_is() {
    for (name, text) in [("metrics.jsonl", "{\"loss\": 1.5, \"step\": 3}\n"), ("config.toml", "[tool]\nx = 1\n")] {
        let folder = Folder::new();
        fs::create_dir(folder.path("mine")).unwrap();
        folder.write(&format!("mine/{name}"), text);
        for how in ["", " --overwrite"] {
            let said = refused(&folder, &format!("{TRAIN} mine{how}"));
            assert!(said.contains(&format!("mine holds a {name} that is not a run's")), "{said}");
        }
    }
    let folder = Folder::new();
    fs::create_dir_all(folder.path("mine/checkpoints")).unwrap();
    folder.write("mine/checkpoints/model.pt", "weights of another program");
    let said = refused(&folder, &format!("{TRAIN} mine"));
    assert!(said.contains("mine/checkpoints/model.pt, which has no name that a run gives"), "{said}");

    let folder = with_run();
    folder.write("r/checkpoints/model.pt", "weights of another program");
    folder.write("r/checkpoints/.download.unfinished", "theirs");
    folder.write("r/notes.txt", "theirs");
    let ran = folder.run(&format!("{TRAIN} r --overwrite")).ok();
    let said = "--overwrite replaces the run in r at step 20: 3 checkpoints and ";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    let left = [".download.unfinished", "best.safetensors", "model.pt", "step-00000002.safetensors"];
    assert_eq!(checkpoints(&folder, "r"), left);
    assert_eq!(folder.text("r/notes.txt"), "theirs");
    // Another program's file under a name of ours.
    let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  "#;
    let file = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    folder.write("r/checkpoints/step-00000001.safetensors", file);
    let said = refused(&folder, &format!("{TRAIN} r --overwrite"));
    assert!(
        said.contains("step-00000001.safetensors is a safetensors file but not a tokenformer checkpoint"),
        "{said}"
    );
    assert!(said.contains("move it away"), "{said}");
    folder.run("train --resume r --steps 30 --set train.keep_last=1 --tune off").ok();
    assert!(step(&folder, "r", 1).exists(), "rotation removes its own");
}

#[test]
fn a_file_of_others_under_the_name_of_a_checkpoint_stays() {
    let resume = "train --resume r --steps 24 --tune off";
    let grow = format!("{resume} --set growth=[{{at_step=22,ffn_slot_num=24}}]");
    for (name, args) in [
        ("before-growth-00000022.safetensors", grow.as_str()),
        ("step-00000024.safetensors", resume),
        ("best.safetensors", resume),
    ] {
        let folder = with_run();
        for text in ["thesis\n", "mine", "a tokenformer thesis of some length that is no checkpoint\n"] {
            folder.write(&format!("r/checkpoints/{name}"), text);
            let said = refused(&folder, args);
            assert!(said.starts_with(&format!("r/checkpoints/{name} is not a checkpoint of this program")), "{said}");
            assert!(said.ends_with(": move it away"), "{said}");
            say("foreign file under the name of a checkpoint", &said);
        }
        // What is left of a checkpoint is its own, and nobody's loss.
        let whole = fs::read(step(&folder, "r", 20)).unwrap();
        let lefts = [100, 0, 5, whole.len() - 1];
        for &left in lefts.iter().take(if name.starts_with("step") { lefts.len() } else { 1 }) {
            folder.write(&format!("r/checkpoints/{name}"), &whole[..left]);
            folder.run(&format!("{args} --set train.checkpoint_interval=0")).ok();
            fs::remove_file(step(&folder, "r", 24)).unwrap();
            // Or it would be gone on from, in the place of a damaged one.
            fs::remove_file(folder.path("r/checkpoints/best.safetensors")).unwrap();
        }
    }
    let folder = Folder::new();
    fs::create_dir_all(folder.path("mine/checkpoints")).unwrap();
    folder.write("mine/checkpoints/step-00000004.safetensors", "mine");
    for how in ["", " --overwrite"] {
        let said = refused(&folder, &format!("{TRAIN} mine{how}"));
        let start = "mine/checkpoints/step-00000004.safetensors is not a checkpoint of this program";
        assert!(said.starts_with(start) && said.contains("choose another --out"), "{said}");
    }
    // Nor is it rotated away.
    let folder = with_run();
    folder.write("r/checkpoints/step-00000004.safetensors", "mine");
    folder.run(&format!("{resume} --set train.keep_last=1")).ok();
    assert_eq!(fs::read(step(&folder, "r", 4)).unwrap(), b"mine");
}

#[test]
fn a_checkpoint_of_another_run_is_not_taken_for_the_newest_of_this_one() {
    let folder = with_run();
    folder.run("train --config run.toml --tune off --steps 50 --out other").ok();
    fs::copy(step(&folder, "other", 50), folder.path("r/checkpoints/step-00000050.safetensors")).unwrap();
    for run in ["r", "r/checkpoints/step-00000050.safetensors"] {
        let said = refused(&folder, &format!("train --resume {run} --steps 60 --tune off"));
        say("step file of another run", &said);
        assert!(said.contains("is of step 50, and r/metrics.jsonl ends at step 20, so they are of two runs"), "{said}");
    }
    // On its own it is a checkpoint as any other.
    folder.run("train --resume r/checkpoints/step-00000050.safetensors --steps 51 --tune off --out third").ok();
}
