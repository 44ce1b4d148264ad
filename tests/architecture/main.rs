//! The modules of the crate and who may use whom, read from the source and from docs/architecture.md, so that no edge
//! appears unseen.

// clippy.toml allows these in tests, but not in the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod circles;
mod source;

use source::{Source, files};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Modules that every other may use, and that use none but each other's errors.
const LEAVES: &str = "Leaves, which every module may use: ";
/// Most lines of a file.
const MAX_LINES: usize = 500;
/// Most modules at the top.
const MOST_MODULES: usize = 21;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let read = |path: &Path| Source::new(path.strip_prefix(&src).unwrap(), &fs::read_to_string(path).unwrap());
    files(&src, "rs").iter().map(|path| read(path)).collect()
}

/// Who may use whom.
struct Rules {
    uses: BTreeMap<String, BTreeSet<String>>,
    leaves: BTreeSet<String>,
}

/// The words in backticks.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

impl Rules {
    fn read() -> Self {
        Self::of(&fs::read_to_string(root().join("docs/architecture.md")).unwrap())
    }

    /// The table with the columns "module" and "may use", and the line of leaves below it.
    fn of(text: &str) -> Self {
        let rows = text.lines().skip_while(|line| !line.starts_with("| module |")).skip(2);
        let cells = rows.take_while(|line| line.starts_with('|')).map(|line| line.split('|').collect::<Vec<_>>());
        let row = |cells: Vec<&str>| (quoted(cells[1]).pop_first().unwrap(), quoted(cells[3]));
        let uses: BTreeMap<_, _> = cells.map(row).collect();
        let leaves = text.lines().find_map(|line| line.strip_prefix(LEAVES)).expect("a line of leaves");
        let leaves = quoted(leaves.split('.').next().unwrap());
        assert!(uses.len() > 5 && leaves.len() > 3, "docs/architecture.md has no table of modules");
        Self { uses, leaves }
    }

    fn knows(&self, module: &str) -> bool {
        self.uses.contains_key(module) || self.leaves.contains(module)
    }

    /// Why `from` may not use `to`, if it may not. Names that are no module (`crate::Result`) are free.
    fn forbidden(&self, from: &str, to: &str) -> Option<String> {
        let free = from == to || !self.knows(to) || (self.leaves.contains(to) && self.may_use_leaf(from, to));
        let listed = self.uses.get(from).is_some_and(|uses| uses.contains(to));
        (!free && !listed).then(|| format!("{from} may not use {to}"))
    }

    /// What is told and what went wrong are told with: the one for the other, and nothing for it.
    fn may_use_leaf(&self, from: &str, to: &str) -> bool {
        from != "console" && (from != "error" || to == "console")
    }

    /// Every edge that a file must not have.
    fn faults(&self, source: &Source) -> BTreeSet<String> {
        let from = source.module();
        let mut found = BTreeSet::new();
        if !self.knows(&from) {
            found.insert(format!("module {from} is not in docs/architecture.md"));
        }
        for path in source.paths_from_root() {
            found.extend(path.first().and_then(|to| self.forbidden(&from, to)));
        }
        if from != "gpu" && source.paths.iter().any(|path| path[0] == "wgpu") {
            found.insert("only gpu may know wgpu".to_owned());
        }
        if source.moves_modules {
            found.insert("#[path] hides where a module is".to_owned());
        }
        found
    }

    /// Each module after all that it may use.
    fn order(&self) -> Vec<String> {
        let mut done: Vec<String> = self.leaves.iter().cloned().collect();
        while let Some(next) =
            self.uses.iter().find(|(name, uses)| !done.contains(name) && uses.iter().all(|used| done.contains(used)))
        {
            done.push(next.0.clone());
        }
        let left: Vec<_> = self.uses.keys().filter(|name| !done.contains(name)).collect();
        assert!(left.is_empty(), "modules use each other in a circle, or one that is not there: {left:?}");
        done
    }
}

/// The library's root declares the modules; it is none.
fn is_a_module(source: &&Source) -> bool {
    source.path != Path::new("lib.rs")
}

#[test]
fn modules_use_only_what_they_may() {
    let rules = Rules::read();
    let mut found = Vec::new();
    let (mut modules, mut edges) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for source in sources().iter().filter(is_a_module) {
        found.extend(rules.faults(source).into_iter().map(|fault| format!("src/{}: {fault}", source.path.display())));
        let from = source.module();
        let used = source.paths_from_root().into_iter().filter_map(|path| path.into_iter().next());
        let used = used.filter(|to| rules.knows(to) && *to != from && !rules.leaves.contains(to));
        edges.entry(from.clone()).or_default().extend(used);
        modules.insert(from);
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    let listed: BTreeSet<String> = rules.uses.keys().chain(&rules.leaves).cloned().collect();
    assert_eq!(listed, modules, "docs/architecture.md lists other modules than there are");
    modules.remove("main"); // The program, not a module of the library.
    assert!(modules.len() <= MOST_MODULES, "{} modules at the top", modules.len());
    for module in rules.order() {
        println!("{module} -> {}", edges[&module].iter().cloned().collect::<Vec<_>>().join(", "));
    }
}

#[test]
fn no_files_of_a_module_use_each_other_in_a_circle() {
    let circles = circles::circles(&circles::graph(&sources()));
    let shown = |way: &Vec<std::path::PathBuf>| {
        way.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" -> ")
    };
    assert!(circles.is_empty(), "\n{}", circles.iter().map(shown).collect::<Vec<_>>().join("\n"));
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

/// Every edge that must not be, planted in files of the modules that must not have it.
#[test]
fn planted_edges_are_found() {
    let rules = Rules::read();
    let faults =
        |path: &str, text: &str| rules.faults(&Source::new(Path::new(path), text)).into_iter().collect::<Vec<_>>();
    let none: [&str; 0] = [];
    assert_eq!(faults("ops/add.rs", "use crate::error::Result; use crate::data::batch; use crate::ops::gelu;"), none);
    assert_eq!(faults("gpu/a.rs", "fn f() { let x = crate::ops::add(); }"), ["gpu may not use ops"]);
    assert_eq!(faults("graph/a.rs", "use crate::{config::{ops, model}, train::Loop};"), ["graph may not use train"]);
    assert_eq!(faults("graph/a.rs", "fn f() { format!(\"{}\", crate::gpu::wait(1)); }"), ["graph may not use gpu"]);
    assert_eq!(faults("model/a.rs", "use crate::gpu::engine::Engine;"), ["model may not use gpu"]);
    assert_eq!(faults("ops/matmul/a.rs", "use super::super::super::gpu::engine;"), ["ops may not use gpu"]);
    assert_eq!(faults("checkpoint/a.rs", "use super::super::train::State;"), ["checkpoint may not use train"]);
    assert_eq!(faults("gpu/engine.rs", "use crate::ops::matmul::Product;"), ["gpu may not use ops"]);
    assert_eq!(faults("error.rs", "use crate::config::Model;"), ["error may not use config"]);
    assert_eq!(faults("error.rs", "use crate::console::legible;"), none);
    assert_eq!(faults("console/a.rs", "use crate::error::Result;"), ["console may not use error"]);
    assert_eq!(faults("model/a.rs", "//! [`crate::train`]\nfn f() { /* wgpu::Device */ }"), none);
    assert_eq!(faults("model/a.rs", "fn f(e: &mut wgpu::CommandEncoder) {}"), ["only gpu may know wgpu"]);
    assert_eq!(
        faults("kitchen.rs", "use crate::gpu;"),
        ["kitchen may not use gpu", "module kitchen is not in docs/architecture.md"]
    );
    assert_eq!(faults("gpu/a.rs", "#[path = \"b.rs\"] mod b;"), ["#[path] hides where a module is"]);
    assert_eq!(faults("gpu/a.rs", "#[cfg(test)] mod tests { use crate::train; }"), none);
}

#[test]
fn planted_circles_are_found() {
    let circles = |files: &[(&str, &str)]| {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(Path::new(path), text)).collect();
        circles::circles(&circles::graph(&sources)).len()
    };
    let [a, b, c] = ["gpu/a.rs", "gpu/b.rs", "gpu/c.rs"];
    assert_eq!(circles(&[(a, "use super::b::B;"), (b, "use crate::gpu::c;"), (c, "fn f() {}")]), 0);
    assert_eq!(circles(&[(a, "use super::b::B;"), (b, "use crate::gpu::a::A;")]), 1);
    assert_eq!(circles(&[(a, "use super::b::B;"), (b, "use super::c::C;"), (c, "fn f() { super::a::g() }")]), 1);
    // Tests may look back, and files share their front page.
    assert_eq!(circles(&[(a, "use super::b::B;"), (b, "#[cfg(test)] mod tests { use super::super::a; }")]), 0);
    assert_eq!(circles(&[("gpu/mod.rs", "use self::a::A;"), (a, "use super::Shared;")]), 0);
}
