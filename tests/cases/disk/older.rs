//! A run that version 0.1.0 at commit f913558 began, and was interrupted in: it is read, and goes on to the same bits.

use super::{checkpoints, copy, edit, step};
use crate::program::{Folder, say};
use crate::snapshot::refused;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use tokenformer::train::Checkpoint;

/// Of the tensors after its last step, as that program computed them on the adapter of the fixture.
const TENSORS: &str = "c46544ff83129e4ec4491f61465245931a706d8c289153897f2af583acb08c68";
/// Its validation loss at the end.
const LOSS: f64 = 3.3843;

fn interrupted() -> Folder {
    let folder = Folder::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/run-of-0.1"), &folder.path("old"));
    folder
}

/// SHA-256 of the values in a checkpoint.
fn values(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let start = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    Sha256::digest(&bytes[start..]).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_interrupted_run_of_an_older_version_goes_on_to_the_same_bits() {
    let folder = interrupted();
    let said = folder.run("inspect old").ok().stdout;
    for words in ["step            81 (", "grown at step 30", "best val loss", "all of the file matches its checksums"]
    {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    let before = Checkpoint::read(&step(&folder, "old", 81)).unwrap().meta;
    folder.run("train --resume old --tune off").ok();
    let last = step(&folder, "old", 160);
    let after = Checkpoint::read(&last).unwrap().meta;
    let text = folder.text("old/metrics.jsonl");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line["kind"] == "train").count(), 160, "every step once");
    assert_eq!(after.lineage.len(), 2);
    let found = values(&last);
    let loss = lines.iter().rev().find_map(|line| line["val_loss"].as_f64()).unwrap();
    say("a run of f913558", &format!("val loss {loss:.4}, tensors {}", &found[..16]));
    if before.adapter == after.adapter {
        assert_eq!(found, TENSORS);
    }
    assert!((loss - LOSS).abs() < 1e-3, "{loss}");
    assert_eq!(checkpoints(&folder, "old").len(), 4, "the best, that from before a growth, and two");
}

#[test]
fn edits_to_settings_of_an_older_version_are_found_without_a_checksum() {
    let folder = interrupted();
    edit(&folder, "old/config.toml", "\nmax_steps = 160\n", "\nmax_steps = 200\n");
    let said = refused(&folder, "train --resume old --tune off");
    assert!(said.contains("train.max_steps is 200 there and 160 in the run") && !said.contains(", train."), "{said}");
}
