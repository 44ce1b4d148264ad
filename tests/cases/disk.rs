//! Runs and checkpoints: nothing is lost, taken for another or passed over in silence.

mod best;
mod edited;
mod fallback;
mod foreign;
mod names;
mod older;
mod record;
mod saved_again;
mod unreadable;

use crate::program::Folder;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tokenformer::train::Checkpoint;

/// A folder with the run `r`: done after 20 steps, with checkpoints of 10 and 20.
fn with_run() -> Folder {
    static RUN: OnceLock<Folder> = OnceLock::new();
    let made = RUN.get_or_init(|| {
        let folder = Folder::new();
        folder.train("--out r").ok();
        folder
    });
    let folder = Folder::new();
    copy(&made.path("r"), &folder.path("r"));
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn step(folder: &Folder, run: &str, step: u64) -> PathBuf {
    folder.path(&format!("{run}/checkpoints/step-{step:08}.safetensors"))
}

/// What is in `run/checkpoints`, sorted.
fn checkpoints(folder: &Folder, run: &str) -> Vec<String> {
    let names = fs::read_dir(folder.path(&format!("{run}/checkpoints"))).unwrap();
    let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Parameters and moments of a checkpoint.
fn same_tensors(a: &Path, b: &Path) -> bool {
    let [a, b] = [a, b].map(|path| Checkpoint::read(path).unwrap());
    (a.params, a.moment1, a.moment2) == (b.params, b.moment1, b.moment2)
}

/// Replaces text in a file, where it is.
fn edit(folder: &Folder, name: &str, from: &str, to: &str) {
    let text = folder.text(name);
    assert!(text.contains(from), "{from} is not in {text}");
    folder.write(name, text.replace(from, to));
}
