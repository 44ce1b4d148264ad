//! What a source file names: the paths in its code, as `syn` reads them. Tests at the bottom of a file are no part of it.

use proc_macro2::{TokenStream, TokenTree};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Macro, UseTree};

/// A file under `src/`.
pub struct Source {
    /// Its path under `src/`.
    pub path: PathBuf,
    /// Every path in it.
    pub paths: Vec<Vec<String>>,
    /// Whether it has a `#[path = "..."]`.
    pub moves_modules: bool,
}

impl Source {
    /// Reads `text` as the file at `path` under `src/`.
    pub fn new(path: &Path, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut found = Found::default();
        found.visit_file(&file);
        Self { path: path.to_owned(), paths: found.paths, moves_modules: found.moves_modules }
    }

    /// The module at the top that it belongs to: `ops` for `ops/add.rs`, `rng` for `rng.rs`.
    pub fn module(&self) -> String {
        Path::new(self.path.components().next().unwrap().as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
    }

    /// The names on the way to it: `ops`, `add` for `ops/add.rs`; `ops` for `ops/mod.rs`.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.path.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        if names.last().is_some_and(|name| name == "mod") {
            names.pop();
        }
        names
    }

    /// Every path in it from the root of the crate; those of other crates are left out.
    pub fn paths_from_root(&self) -> Vec<Vec<String>> {
        self.paths.iter().filter_map(|path| absolute(&self.names(), path)).collect()
    }
}

/// `crate::a::b` and `super::b` as `a`, `b`; `None` for what is not written from the root or from where it stands.
fn absolute(names: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut rest = path;
    let mut at = match rest.first()?.as_str() {
        "crate" | "tokenformer" => Vec::new(),
        "self" | "super" => names.to_vec(),
        _ => return None,
    };
    if ["crate", "tokenformer", "self"].contains(&rest[0].as_str()) {
        rest = &rest[1..];
    }
    while rest.first().is_some_and(|name| name == "super") {
        at.pop();
        rest = &rest[1..];
    }
    at.extend(rest.iter().cloned());
    Some(at)
}

#[derive(Default)]
struct Found {
    paths: Vec<Vec<String>>,
    moves_modules: bool,
}

impl Found {
    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Name(name) => self.paths.push(with(name.ident.to_string())),
            UseTree::Rename(name) => self.paths.push(with(name.ident.to_string())),
            UseTree::Glob(_) => self.paths.push(before.to_vec()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }

    /// Paths in what a macro is given, which is no syntax yet.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.paths.push(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(point) if point.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.paths.push(std::mem::take(&mut path));
                    self.tokens(group.stream());
                }
                _ => self.paths.push(std::mem::take(&mut path)),
            }
        }
        self.paths.push(path);
        self.paths.retain(|path| !path.is_empty());
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|it| it.path().is_ident("cfg") && it.parse_args::<syn::Path>().is_ok_and(|p| p.is_ident("test")))
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.moves_modules |= item.attrs.iter().any(|attribute| attribute.path().is_ident("path"));
        visit::visit_item_mod(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// All files under a folder with an extension, in order.
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
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
