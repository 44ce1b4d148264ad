//! Settings of a run that a user edits are taken or refused, and never replaced in silence.

use super::{edit, step, with_run};
use crate::program::{Folder, say};
use crate::snapshot::refused;
use std::fs;

/// The run, stopped at step 10.
fn stopped() -> Folder {
    let folder = with_run();
    fs::remove_file(step(&folder, "r", 20)).unwrap();
    folder
}

#[test]
fn edited_settings_are_named_key_by_key_and_taken_or_dropped() {
    let folder = stopped();
    edit(&folder, "r/config.toml", "\nlr = 0.001\n", "\nlr = 0.5\n");
    edit(&folder, "r/config.toml", "\nmax_steps = 20\n", "\nmax_steps = 22\n");
    let said = refused(&folder, "train --resume r --tune off");
    say("edited-config-ignored", &said);
    assert!(said.starts_with("r/config.toml was edited, but the run goes by its checkpoint: "), "{said}");
    for words in ["train.lr is 0.5 there and 0.001 in the run", "train.max_steps is 22 there and 20 in the run"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(said.contains("--config-edits take") && said.ends_with("--config-edits drop"), "{said}");
    // A checkpoint of the run by name, and going on elsewhere, are no way around it.
    refused(&folder, "train --resume r/checkpoints/step-00000010.safetensors --tune off");
    refused(&folder, "train --resume r --out elsewhere --tune off");
    // What is given by name is asked for; the other edit is still not.
    let said = refused(&folder, "train --resume r --tune off --steps 22");
    assert!(!said.contains("max_steps") && said.contains("train.lr is 0.5"), "{said}");

    folder.run("train --resume r --tune off --config-edits take").ok();
    assert!(step(&folder, "r", 22).exists());
    let text = folder.text("r/config.toml");
    assert!(text.contains("\nlr = 0.5\n") && text.contains("\nmax_steps = 22\n"), "{text}");
    folder.run("train --resume r --tune off --steps 23").ok();
    // Dropout is no part of what a model is.
    folder.run("train --resume r --tune off --steps 24 --set model.dropout=0.1").ok();
    assert!(folder.text("r/config.toml").contains("\ndropout = 0.1\n"));

    let folder = stopped();
    edit(&folder, "r/config.toml", "\nlr = 0.001\n", "\nlr = 0.5\n");
    folder.run("train --resume r --tune off --config-edits drop").ok();
    assert!(folder.text("r/config.toml").contains("\nlr = 0.001\n"));
    // The settings of the run, given by name, are its edits.
    let folder = stopped();
    edit(&folder, "r/config.toml", "\nmax_steps = 20\n", "\nmax_steps = 11\n");
    folder.run("train --resume r --config r/config.toml --tune off").ok();
    assert!(step(&folder, "r", 11).exists());
}

#[test]
fn comments_order_line_ends_and_what_a_killed_resume_wrote_are_no_edits() {
    let folder = stopped();
    let text = folder.text("r/config.toml");
    folder.write("r/config.toml", format!("# my notes\n{}", text.replace('\n', "\r\n")));
    folder.run("train --resume r --tune off --steps 11").ok();
    // As if it had been killed before its next checkpoint: the settings are of the command, the checkpoint is older.
    folder.run("train --resume r --tune off --steps 14 --lr 0.01").ok();
    fs::remove_file(step(&folder, "r", 14)).unwrap();
    fs::remove_file(folder.path("r/checkpoints/best.safetensors")).unwrap();
    assert!(folder.text("r/config.toml").contains("max_steps = 14"));
    folder.run("train --resume r --tune off --steps 12").ok();
}

#[test]
fn settings_that_cannot_be_understood_are_refused_before_anything_is_written() {
    let folder = stopped();
    for (text, why) in [
        ("", "r/config.toml has no settings in it"),
        ("# gone\n", "r/config.toml has no settings in it"),
        ("my thesis\n", "r/config.toml: line 1 (`"),
        ("\0\0\0\0", "r/config.toml: line 1 (`"),
    ] {
        folder.write("r/config.toml", text);
        for how in ["", " --config-edits take"] {
            let said = refused(&folder, &format!("train --resume r --tune off --steps 12{how}"));
            assert!(said.starts_with(why) && said.contains("mend it or move it away"), "{said}");
            say("settings emptied or broken", &said);
        }
    }
    folder.write("r/config.toml", b"\xff\xfe");
    assert!(refused(&folder, "train --resume r --tune off").contains("is not UTF-8 text"));
    folder.run("train --resume r --tune off --steps 12 --config-edits drop").ok();
    assert!(folder.text("r/config.toml").contains("max_steps = 12"));
    // What cannot be read or replaced is not dropped either.
    fs::remove_file(folder.path("r/config.toml")).unwrap();
    fs::create_dir(folder.path("r/config.toml")).unwrap();
    for args in ["train --resume r --tune off --steps 13", "train --config run.toml --out r --overwrite --tune off"] {
        for how in ["", " --config-edits drop"] {
            let said = refused(&folder, &format!("{args}{how}"));
            assert!(said.starts_with("cannot read r/config.toml") && said.ends_with("move it away"), "{said}");
        }
    }
}

#[test]
fn deleted_lines_are_edits_and_nothing_to_take_is_said() {
    let folder = Folder::new();
    folder.train("--out r --lr 0.004").ok();
    edit(&folder, "r/config.toml", "\nlr = 0.004\n", "\n");
    edit(&folder, "r/config.toml", "\neval_batches = 4\n", "\n");
    let said = refused(&folder, "train --resume r --steps 21 --tune off");
    say("deleted settings", &said);
    assert!(said.contains("train.lr is 0.001 there, by default, and 0.004 in the run"), "{said}");
    assert!(said.contains("train.eval_batches is ") && said.contains(" there, by default, and 4 in the run"), "{said}");
    folder.run("train --resume r --steps 21 --tune off --config-edits take").ok();
    assert!(folder.text("r/config.toml").contains("\nlr = 0.001\n"));
    // Its text is of no other place, so that it is needed.
    edit(&folder, "r/config.toml", "\npath = \"in.txt\"\n", "\n");
    let said = refused(&folder, "train --resume r --steps 22 --tune off");
    assert!(said.contains("data.path is not set there and \"in.txt\" in the run"), "{said}");
    refused(&folder, "train --resume r --steps 22 --tune off --config-edits take");
    folder.run("train --resume r --steps 22 --tune off --config-edits drop").ok();

    let ran = folder.run("train --resume r --steps 23 --tune off --config-edits take").ok();
    assert!(ran.stderr.contains("--config-edits take: r/config.toml has no edits"), "{}", ran.stderr);
    fs::remove_file(folder.path("r/config.toml")).unwrap();
    let ran = folder.run("train --resume r --steps 24 --tune off --config-edits take").ok();
    assert!(ran.stderr.contains("--config-edits take: there is no r/config.toml"), "{}", ran.stderr);
}

#[test]
fn a_run_that_grew_has_not_edited_its_settings_and_an_edited_growth_is_named() {
    let folder = Folder::new();
    let growths = "--set growth=[{at_step=5,ffn_slot_num=24},{at_step=15,ffn_slot_num=32}]";
    folder.train(&format!("--out g --steps 18 --set train.checkpoint_interval=6 {growths}")).ok();
    for at in [12, 18] {
        fs::remove_file(step(&folder, "g", at)).unwrap_or_default();
    }
    let file = "g/checkpoints/before-growth-00000015.safetensors";
    // Without its first line nobody knows what it was written with: compared with the run, it is the same.
    let text = folder.text("g/config.toml");
    folder.write("g/config.toml", text.split_once("\nout_dir").map(|(_, rest)| format!("out_dir{rest}")).unwrap());
    folder.run(&format!("train --resume {file} --tune off --out h")).ok();
    edit(&folder, "h/config.toml", "at_step = 15", "at_step = 16");
    edit(&folder, "h/config.toml", "hidden_size = 16", "hidden_size = 8");
    let said = refused(&folder, "train --resume h --steps 20 --tune off");
    assert!(said.contains("model.hidden_size is 8 there and 16 in the run"), "{said}");
    assert!(said.contains("growth is a list of 1 there"), "{said}");
    let said = refused(&folder, "train --resume h --steps 20 --tune off --config-edits take");
    assert!(said.contains("model.hidden_size") && said.contains("keeps the model of its checkpoint"), "{said}");
}

#[test]
fn a_misspelled_edit_and_one_before_the_first_checkpoint_are_refused() {
    let folder = stopped();
    edit(&folder, "r/config.toml", "\nlr = 0.001\n", "\nlearning_speed = 0.5\n");
    let said = refused(&folder, "train --resume r --tune off");
    assert!(said.contains("unknown key \"learning_speed\"") && said.contains("was edited"), "{said}");
    // A run that was killed before it saved anything starts again, and not over what its user wrote meanwhile.
    let folder = with_run();
    fs::remove_dir_all(folder.path("r/checkpoints")).unwrap();
    let header = folder.text("r/metrics.jsonl").lines().next().unwrap().to_owned();
    folder.write("r/metrics.jsonl", header + "\n");
    edit(&folder, "r/config.toml", "\nlr = 0.001\n", "\nlr = 0.5\n");
    let said = refused(&folder, "train --config run.toml --tune off --out r");
    assert!(said.contains("train.lr is 0.5 there and 0.001 in the run"), "{said}");
    assert!(said.contains("take the edits with --config r/config.toml, or"), "{said}");
    refused(&folder, "train --config run.toml --tune off --out r --config-edits take");
    folder.run("train --config r/config.toml --tune off --steps 2 --set train.lr=0.5").ok();
    assert!(folder.text("r/config.toml").contains("\nlr = 0.5\n"));
}
