//! The rooms of the crate, and who may use whom: read from the source, so that no edge appears unseen.
//!
//! A room is a folder or a file directly under `src/`. Tests at the bottom of a file count as that file's
//! room. Comments are skipped; text in string literals is not, so a path there counts as well.

// clippy.toml allows these in tests, but not in the functions that tests share.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms it may use. All but `error` may use the leaves besides.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["cli", "commands", "bench", "study", "train", "model", "ops", "graph", "gpu", "data", "checkpoint"]),
    ("cli", &["commands", "bench", "study", "train", "model", "ops", "graph", "gpu", "data", "checkpoint"]),
    ("commands", &["bench", "study", "train", "model", "ops", "graph", "gpu", "data", "checkpoint"]),
    ("bench", &["train", "model", "ops", "graph", "gpu", "data"]),
    ("study", &["train", "model", "graph", "gpu", "data", "checkpoint"]),
    ("train", &["model", "ops", "graph", "gpu", "data", "checkpoint"]),
    ("model", &["ops", "graph", "gpu"]),
    // data: the index that lets the embedding add its gradients in a fixed order.
    ("ops", &["graph", "gpu", "data"]),
    ("graph", &["gpu"]),
    ("gpu", &[]),
    ("data", &[]),
    ("checkpoint", &[]),
    ("report", &[]),
    ("config", &[]),
    ("rng", &[]),
    ("array", &[]),
    ("cache", &[]),
    ("error", &[]),
];

const LEAVES: &[&str] = &["report", "config", "error", "rng", "array", "cache"];

/// Folders whose files use each other in one direction only.
const WITHOUT_CIRCLES: &[&str] = &["bench", "report", "study", "study/report"];

const MAX_LINES: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files under a folder with an extension, in order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// `src/ops/add.rs` is in room `ops`, `src/rng.rs` is room `rng`.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    Path::new(inside.components().next().unwrap().as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The text with line comments blanked out, so that offsets still tell lines.
fn without_comments(text: &str) -> String {
    let code = |line: &str| match line.find("//") {
        // "https://" is no comment.
        Some(at) if !line[..at].ends_with(':') => line[..at].to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Line number and name of whatever follows each `prefix` in the code, groups in braces taken apart.
fn names_after(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let start = at + prefix.len();
        let mut add = |at: usize| {
            let rest = code[at..].trim_start();
            let before = &code[..code.len() - rest.len()];
            let name = identifier(rest);
            if !name.is_empty() {
                names.push((before.matches('\n').count() + 1, name.to_owned()));
            }
        };
        if !code[start..].starts_with('{') {
            add(start);
            continue;
        }
        let mut depth = 0;
        for (offset, c) in code[start..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && (c == '{' || c == ',') {
                add(start + offset + 1);
            }
        }
    }
    names
}

/// Why `from` may not use `to`, if it may not. Names that are no room (`crate::Result`) are free.
fn forbidden(from: &str, to: &str) -> Option<String> {
    let known = |room: &str| ROOMS.iter().find(|(name, _)| *name == room);
    known(to)?;
    let Some((_, uses)) = known(from) else {
        return Some(format!("room {from} is not in the list of tests/architecture.rs"));
    };
    let leaf = LEAVES.contains(&to) && from != "error";
    (from != to && !leaf && !uses.contains(&to)).then(|| format!("{from} may not use {to}"))
}

/// Every edge that a file in a room must not have, as `line: reason`.
fn faults(from: &str, text: &str) -> Vec<String> {
    let code = without_comments(text);
    let mut found = Vec::new();
    for (line, to) in [names_after(&code, "crate::"), names_after(&code, "tokenformer::")].concat() {
        found.extend(forbidden(from, &to).map(|reason| format!("{line}: {reason}")));
    }
    // Out of a file and its room. A single `super::` in a room's mod.rs would get out as well: not read.
    for (line, to) in names_after(&code, "super::super::") {
        found.extend(forbidden(from, &to).map(|reason| format!("{line}: {reason}")));
    }
    if from != "gpu" {
        let mentions = |line: &str| {
            let uses = ["use wgpu", "wgpu::"].iter().flat_map(|word| line.match_indices(word));
            uses.into_iter().any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        for (line, number) in code.lines().zip(1..) {
            if mentions(line) {
                found.push(format!("{number}: only gpu may know wgpu"));
            }
        }
    }
    found
}

#[test]
fn rooms_only_use_what_they_may() {
    let mut found = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let from = room(&path);
        // The library's root declares the rooms; it is none.
        if from == "lib" {
            continue;
        }
        if !ROOMS.iter().any(|(name, _)| *name == from) {
            found.push(format!("{}: room {from} is not in the list of tests/architecture.rs", path.display()));
        }
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(root()).unwrap().display();
        found.extend(faults(&from, &text).into_iter().map(|fault| format!("{shown}:{fault}")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The files and folders of a folder of `src/`, and which of the others each uses.
fn uses_inside(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let path = root().join("src").join(folder);
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files(&path, "rs").into_iter().filter(|file| *file != path.join("mod.rs")) {
        let inside = file.strip_prefix(&path).unwrap();
        let node = stem(Path::new(inside.components().next().unwrap().as_os_str()));
        let code = without_comments(&fs::read_to_string(&file).unwrap());
        let whole = format!("crate::{}::", folder.replace('/', "::"));
        // Out of a subfolder it takes one more.
        let beside = "super::".repeat(inside.components().count());
        let names = [names_after(&code, &whole), names_after(&code, &beside)].concat();
        uses.entry(node).or_default().extend(names.into_iter().map(|(_, name)| name));
    }
    uses
}

/// A way from a file over others back to itself, if there is one.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(uses: &BTreeMap<String, BTreeSet<String>>, way: &mut Vec<String>) -> bool {
        for next in uses.get(way.last().unwrap()).into_iter().flatten() {
            if way.len() > 1 && way[0] == *next {
                return true;
            }
            if !way.contains(next) {
                way.push(next.clone());
                if walk(uses, way) {
                    return true;
                }
                way.pop();
            }
        }
        false
    }
    uses.keys().find_map(|start| {
        let mut way = vec![start.clone()];
        walk(uses, &mut way).then_some(way)
    })
}

#[test]
fn files_of_a_room_use_each_other_in_one_direction() {
    for folder in WITHOUT_CIRCLES {
        let uses = uses_inside(folder);
        assert!(
            uses.values().any(|names| names.iter().any(|name| uses.contains_key(name))),
            "{folder}: no use is seen"
        );
        assert_eq!(circle(&uses), None, "{folder}");
    }
}

#[test]
fn planted_circles_are_found() {
    let uses = |edges: &[(&str, &str)]| {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        edges.iter().for_each(|(from, to)| {
            uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        });
        uses
    };
    assert_eq!(circle(&uses(&[("a", "b"), ("b", "c"), ("a", "c"), ("a", "a")])), None);
    let found = circle(&uses(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")]));
    assert_eq!(found, Some(["b", "c", "d"].map(str::to_owned).into()));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let sources = files(&root().join("src"), "rs");
    let mut found = Vec::new();
    // What is generated is as long as its loops are, written out.
    let mut shaders = files(&root().join("shaders"), "wgsl");
    shaders.retain(|path| !path.starts_with(root().join("shaders/generated")));
    for path in sources.iter().chain(&shaders) {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().count();
        if lines > MAX_LINES {
            found.push(format!("{}: {lines} lines, at most {MAX_LINES}", path.display()));
        }
        if path.extension().is_some_and(|e| e == "rs") && !text.starts_with("//!") {
            found.push(format!("{}: does not start with //!", path.display()));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_readme_names_every_room() {
    let Ok(readme) = fs::read_to_string(root().join("README.md")) else {
        return;
    };
    let rooms: BTreeSet<String> = files(&root().join("src"), "rs").iter().map(|path| room(path)).collect();
    for room in rooms {
        let name = if root().join("src").join(&room).is_dir() { format!("{room}/") } else { format!("{room}.rs") };
        assert!(readme.contains(&name), "README.md does not name {name}");
    }
}

#[test]
fn planted_edges_are_found() {
    assert_eq!(faults("ops", "use crate::error::Result;\nuse crate::data::batch;\nuse crate::ops::add;"), [""; 0]);
    assert_eq!(faults("gpu", "use crate::error::Error;\nlet x = crate::ops::add();"), ["2: gpu may not use ops"]);
    assert_eq!(
        faults("graph", "use crate::{\n    config::{ops, model},\n    train::Loop,\n};"),
        ["3: graph may not use train"]
    );
    assert_eq!(faults("data", "use crate::{gpu, rng};"), ["1: data may not use gpu"]);
    assert_eq!(faults("checkpoint", "use super::super::model;"), ["1: checkpoint may not use model"]);
    assert_eq!(faults("error", "use crate::config::Model;"), ["1: error may not use config"]);
    assert_eq!(faults("commands", "use crate::cli::Args;"), ["1: commands may not use cli"]);
    assert_eq!(faults("model", "//! [`crate::train`]\nx(); // crate::train\n/// wgpu::Device"), [""; 0]);
    assert_eq!(faults("model", "\nfn f(e: &mut wgpu::CommandEncoder) {}"), ["2: only gpu may know wgpu"]);
    assert_eq!(faults("kitchen", "use crate::gpu;"), ["1: room kitchen is not in the list of tests/architecture.rs"]);
}
