//! README.md, CONTRIBUTING.md and docs/ against the program: links lead somewhere, commands parse, settings are the
//! program's own, and what is generated is up to date. `TOKENFORMER_BLESS=1 cargo test --test docs` writes the generated
//! parts of docs/configuration.md again.

// clippy.toml allows these in tests, but not in the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commands;
mod configuration;
mod markdown;

use markdown::Page;
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines that the front page may have: what is longer belongs into docs/.
const MAX_README_LINES: usize = 150;

/// What a fresh machine runs, and nothing before it.
const FIRST_COMMANDS: [&str; 2] = ["bash scripts/demo.sh", "bash scripts/test.sh"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page that is written for people, but the log of kernels.
fn pages() -> Vec<Page> {
    let mut paths = vec![root().join("README.md"), root().join("CONTRIBUTING.md"), root().join("CHANGELOG.md")];
    paths.extend(files(&root().join("docs"), "md"));
    paths.iter().map(|path| Page::read(path)).collect()
}

/// All files under a folder with an extension, in order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let all = entries.into_iter().flat_map(|path| if path.is_dir() { files(&path, extension) } else { vec![path] });
    all.filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

#[test]
fn the_front_page_is_short_and_opens_with_the_two_commands() {
    let page = Page::read(&root().join("README.md"));
    let lines = page.text.lines().count();
    assert!(lines <= MAX_README_LINES, "README.md has {lines} lines, at most {MAX_README_LINES}: move some into docs/");
    let first = page.blocks().into_iter().next().expect("a code block");
    assert_eq!(first.language, "sh");
    let commands: Vec<&str> = first.lines.iter().map(|(_, line)| line.split(" #").next().unwrap().trim()).collect();
    assert_eq!(commands, FIRST_COMMANDS);
    let heading = page.headings().get(1).map_or(usize::MAX, |heading| heading.0);
    assert!(first.lines[0].0 < heading, "a heading stands before the two commands");
}

#[test]
fn every_link_leads_somewhere() {
    let mut faults = Vec::new();
    for page in pages().into_iter().chain([Page::read(&root().join("benches/NOTES.md"))]) {
        for (line, target) in page.links() {
            if let Some(fault) = page.broken(&target) {
                faults.push(format!("{}:{line}: {fault}", page.name()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_page_is_reached_from_the_front_page() {
    let front = Page::read(&root().join("README.md"));
    let linked: Vec<String> = front.links().into_iter().map(|(_, target)| target).collect();
    for page in files(&root().join("docs"), "md") {
        let name = page.strip_prefix(root()).unwrap().to_str().unwrap();
        let is_linked = linked.iter().any(|target| target.split('#').next() == Some(name));
        assert!(is_linked, "README.md does not link {name}");
    }
}

#[test]
fn planted_links_are_found() {
    let page = Page {
        path: root().join("docs/planted.md"),
        text:
            "# One\n\n## The same *bits*, `f16`\n[a](../README.md) ![b](none.svg)\n```\n[c](no.md)\n```\n`[d](no.md)`\n"
                .to_owned(),
    };
    let links: Vec<String> = page.links().into_iter().map(|(_, target)| target).collect();
    assert_eq!(links, ["../README.md", "none.svg"]);
    assert_eq!(page.broken("../README.md"), None);
    assert_eq!(page.broken("https://example.org/none"), None);
    assert_eq!(page.broken("#the-same-bits-f16"), None);
    for broken in ["none.svg", "#two", "../README.md#no-such-heading", "../src/nowhere.rs"] {
        assert!(page.broken(broken).is_some(), "{broken}");
    }
}

/// Files and folders of the repository that a page may name.
const FOLDERS: [&str; 8] = ["src/", "shaders/", "tests/", "scripts/", "benches/", "examples/", "studies/", "docs/"];

#[test]
fn what_pages_name_of_the_source_is_there() {
    let mut faults = Vec::new();
    for page in pages() {
        for (line, text) in page.prose() {
            let spans: Vec<&str> = text.split('`').collect();
            for (i, span) in spans.iter().enumerate().skip(1).step_by(2) {
                let path = root().join(span);
                let is_path = FOLDERS.iter().any(|folder| span.starts_with(folder)) && !span.contains([' ', '*', '{']);
                // A recipe makes new ones.
                if is_path && !path.exists() && !spans[i - 1].ends_with("new file ") {
                    faults.push(format!("{}:{line}: there is no {span}", page.name()));
                }
                // `file`: `name` stands for a name in that file.
                if let (true, Some(&": "), Some(name)) = (is_path && path.is_file(), spans.get(i + 1), spans.get(i + 2))
                {
                    let known = fs::read_to_string(&path).unwrap().contains(name);
                    faults.extend((!known).then(|| format!("{}:{line}: {span} has no {name}", page.name())));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
