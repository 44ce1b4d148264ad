//! A folder as it is, to the byte: what a refused command leaves.

use crate::program::Folder;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// What a name in a folder stands for.
#[derive(PartialEq, Eq)]
pub struct Entry {
    /// `file`, `folder`, `link` or `other`.
    kind: &'static str,
    /// Content of a file, target of a link.
    bytes: Vec<u8>,
    /// When a file was last written.
    written: Option<SystemTime>,
}

/// Every entry below `folder`, by its path.
pub fn of(folder: &Folder) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    walk(&folder.path(""), "", &mut found);
    found
}

fn walk(dir: &Path, under: &str, found: &mut BTreeMap<String, Entry>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{under}{}", path.file_name().unwrap().to_string_lossy());
        let stat = fs::symlink_metadata(&path).unwrap();
        let kind = match stat.file_type() {
            kind if kind.is_file() => "file",
            kind if kind.is_dir() => "folder",
            kind if kind.is_symlink() => "link",
            _ => "other",
        };
        let bytes = match kind {
            "file" => fs::read(&path).unwrap_or_default(),
            "link" => fs::read_link(&path).unwrap().to_string_lossy().into_owned().into_bytes(),
            _ => Vec::new(),
        };
        let written = if kind == "file" { stat.modified().ok() } else { None };
        if kind == "folder" {
            walk(&path, &format!("{name}/"), found);
        }
        found.insert(name, Entry { kind, bytes, written });
    }
}

/// `args` are refused in one sentence, which is returned, and the folder is as it was.
#[track_caller]
pub fn refused(folder: &Folder, args: &str) -> String {
    left_alone(folder, || folder.run(args).refused())
}

/// What `ask` returns, which leaves the folder as it was.
#[track_caller]
pub fn left_alone<T>(folder: &Folder, ask: impl FnOnce() -> T) -> T {
    let before = of(folder);
    let said = ask();
    let after = of(folder);
    let names: Vec<&String> = before.keys().chain(after.keys()).collect();
    let changed: Vec<&&String> = names.iter().filter(|name| before.get(**name) != after.get(**name)).collect();
    assert!(changed.is_empty(), "a refused command changed {changed:?}");
    said
}
