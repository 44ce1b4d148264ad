//! Circles of files inside a module: files that need each other cannot be read one after the other.
//!
//! The front page of a module (`mod.rs`, or `matmul.rs` beside `matmul/`) is left out: it declares its files, and they
//! share what it defines.

use crate::source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which file names which others of its module.
pub type Graph = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

fn is_front_page(path: &Path, all: &BTreeSet<PathBuf>) -> bool {
    let folder = path.with_extension("");
    path.ends_with("mod.rs") || all.iter().any(|other| other.starts_with(&folder))
}

/// The file in which a path from the root ends, the longest there is.
fn file_of(path: &[String], all: &BTreeSet<PathBuf>) -> Option<PathBuf> {
    let at = |n: usize| path[..n].iter().collect::<PathBuf>();
    (1..=path.len()).rev().find_map(|n| {
        let own = at(n).with_extension("rs");
        let front = at(n).join("mod.rs");
        [own, front].into_iter().find(|file| all.contains(file))
    })
}

/// Edges between files of one module at the top.
pub fn graph(sources: &[Source]) -> Graph {
    let all: BTreeSet<PathBuf> = sources.iter().map(|source| source.path.clone()).collect();
    let edges = sources.iter().filter(|source| !is_front_page(&source.path, &all)).map(|source| {
        let targets = source.paths_from_root().into_iter().filter_map(|path| file_of(&path, &all));
        let inside = targets.filter(|to| {
            *to != source.path && to.iter().next() == source.path.iter().next() && !is_front_page(to, &all)
        });
        (source.path.clone(), inside.collect())
    });
    edges.collect()
}

/// Each circle once, from its first file back to it.
pub fn circles(graph: &Graph) -> Vec<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for start in graph.keys() {
        if let Some(way) = way_back(graph, start) {
            // The same circle from another of its files.
            let mut files = way.clone();
            files.sort();
            if found.iter().all(|(known, _)| *known != files) {
                found.insert((files, way));
            }
        }
    }
    found.into_iter().map(|(_, way)| way).collect()
}

/// The shortest way from a file to itself.
fn way_back(graph: &Graph, start: &PathBuf) -> Option<Vec<PathBuf>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in graph.get(way.last()?).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push([&way[..], std::slice::from_ref(next)].concat());
                }
            }
        }
        ways = longer;
    }
    None
}
