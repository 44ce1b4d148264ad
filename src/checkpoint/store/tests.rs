//! What a store keeps, finds and leaves alone.

use super::super::tests::{Said, sample};
use super::*;

const ALL: Keep = Keep { last: 0, every: 0 };

/// Names in the checkpoint directory, sorted.
fn names(store: &Store<Said>) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<_> = store.files().unwrap().into_iter().map(name).collect();
    names.sort();
    names
}

fn store_with(steps: &[u64]) -> (tempfile::TempDir, Store<Said>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("run"));
    steps.iter().for_each(|&step| drop(store.save(&sample(step), ALL).unwrap()));
    (dir, store)
}

#[test]
fn the_error_names_the_path_and_the_bytes_needed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone/model.safetensors");
    let error = sample(1).write(&path).unwrap_err().to_string();
    let len = sample(1).encode().unwrap().len();
    assert!(error.starts_with(&format!("cannot write {}: no such file", path.display())), "{error}");
    assert!(error.contains(&format!("needs {len} bytes")), "{error}");
}

#[test]
fn saving_keeps_the_newest_and_what_is_not_its_own() {
    let (_dir, store) = store_with(&[100, 200, 300, 123_456_789]);
    let folder = store.dir.join(FOLDER);
    std::fs::write(folder.join("step-7.safetensors"), "a user's own").unwrap();
    std::fs::write(folder.join(".x9.unfinished"), "a download of theirs").unwrap();
    std::fs::write(folder.join(".step-00000009.safetensors.unfinished"), "from a killed run").unwrap();
    let path = store.save(&sample(400), Keep { last: 2, every: 0 }).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), {
        let mut bytes = Vec::new();
        sample(400).encode().unwrap().write_to(&mut bytes).unwrap();
        bytes
    });
    let kept = ["step-00000300.safetensors", "step-00000400.safetensors"];
    assert_eq!(names(&store), [".x9.unfinished", kept[0], kept[1], "step-123456789.safetensors", "step-7.safetensors"]);
}

#[test]
fn every_so_many_steps_a_checkpoint_is_kept_for_good() {
    let (_dir, store) = store_with(&[]);
    for step in (100..=700).step_by(100) {
        store.save(&sample(step), Keep { last: 2, every: 300 }).unwrap();
    }
    let steps: Vec<u64> = store.list().unwrap().into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [300, 600, 700]);
    store.clear().unwrap();
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn what_was_before_a_growth_stays_until_the_run_is_replaced_and_counts_where_nothing_else_is() {
    let (_dir, store) = store_with(&[100]);
    let digest = store.save_before_growth(&sample(150)).unwrap();
    let path = store.dir.join(FOLDER).join(&digest.name);
    assert_eq!(digest.name, "before-growth-00000150.safetensors");
    assert_eq!(FileDigest::read(&path).unwrap(), digest);
    assert_eq!(Checkpoint::<Said>::read(&path).unwrap(), sample(150));
    assert_eq!(store.latest().unwrap().found.unwrap().1, sample(100));
    // Once more: the same bytes in its place.
    assert_eq!(store.save_before_growth(&sample(150)).unwrap(), digest);
    store.save(&sample(200), Keep { last: 1, every: 0 }).unwrap();
    assert_eq!(names(&store), ["before-growth-00000150.safetensors", "step-00000200.safetensors"]);
    store.clear().unwrap();
    assert_eq!(names(&store), [""; 0]);
    // A run that was killed before its first checkpoint goes on from there.
    store.save_before_growth(&sample(150)).unwrap();
    assert_eq!(store.latest().unwrap().found.unwrap().1, sample(150));
    store.clear().unwrap();
    assert_eq!(names(&store), [""; 0]);
}

#[test]
fn the_newest_readable_one_is_found_and_damage_is_named() {
    let (_dir, store) = store_with(&[]);
    assert!(store.latest().unwrap().found.is_none());
    let (_dir, store) = store_with(&[100, 200]);
    let damage = |index: usize| {
        let path = &store.list().unwrap()[index].1;
        std::fs::File::options().write(true).open(path).unwrap().set_len(500).unwrap();
    };
    damage(1);
    let latest = store.latest().unwrap();
    assert_eq!(latest.found.unwrap().1, sample(100));
    assert_eq!(latest.warnings.len(), 1);
    assert!(latest.warnings[0].contains("step-00000200.safetensors is truncated"), "{}", latest.warnings[0]);
    damage(0);
    assert!(store.latest().unwrap_err().to_string().starts_with("none of the 2 checkpoints in "));
}
