//! The record of a run keeps what is not taken again.

use super::with_run;
use crate::program::{Folder, say};
use crate::snapshot::refused;
use std::fs;

/// The steps of its evaluations.
fn evaluated(folder: &Folder) -> Vec<u64> {
    let text = folder.text("r/metrics.jsonl");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "eval").map(|line| line["step"].as_u64().unwrap()).collect()
}

#[test]
fn an_evaluation_after_the_last_step_stays_where_it_is_not_taken_again() {
    let folder = Folder::new();
    folder.train("--out r --steps 15").ok();
    assert_eq!(evaluated(&folder), [0, 10, 15]);
    folder.run("train --resume r --steps 17 --tune off").ok();
    assert_eq!(evaluated(&folder), [0, 10, 15, 17], "not due at 15");
    folder.run("train --resume r --steps 20 --tune off").ok();
    folder.run("train --resume r --steps 21 --tune off").ok();
    assert_eq!(evaluated(&folder), [0, 10, 15, 17, 20, 21], "due at 20, once");
    folder.run("train --resume r --steps 22 --set train.eval_interval=0 --tune off").ok();
    assert_eq!(evaluated(&folder), [0, 10, 15, 17, 20, 21, 22], "never due");
}

#[test]
fn metrics_that_no_run_wrote_are_not_replaced_by_going_on() {
    for text in ["my notes\n", "{\"loss\": 1.5, \"step\": 3}\n"] {
        let folder = with_run();
        folder.write("r/metrics.jsonl", text);
        let said = refused(&folder, "train --resume r --steps 21 --tune off");
        say("foreign metrics of a run", &said);
        assert!(said.starts_with("r holds a metrics.jsonl that is not a run's"), "{said}");
        refused(&folder, "train --resume r/checkpoints/step-00000020.safetensors --steps 21 --tune off");
    }
    // A folder in its place is no file to go on with either.
    let folder = with_run();
    fs::remove_file(folder.path("r/metrics.jsonl")).unwrap();
    fs::create_dir(folder.path("r/metrics.jsonl")).unwrap();
    assert!(refused(&folder, "train --resume r --steps 21 --tune off").starts_with("cannot read r/metrics.jsonl"));
    // Damage within a record is.
    let folder = with_run();
    let text = folder.text("r/metrics.jsonl").replacen("\n", "\nmy notes\n", 1);
    folder.write("r/metrics.jsonl", text);
    let ran = folder.run("train --resume r --steps 21 --tune off").ok();
    assert!(ran.stderr.contains("r/metrics.jsonl has 1 damaged lines, which are dropped"), "{}", ran.stderr);
}
