//! docs/configuration.md: its tables of settings are written from the doc comments in src/config, between the lines
//! `<!-- generated: NAME -->` and `<!-- end -->`. What is between other lines is written by hand.

use crate::{files, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use tokenformer::config::{GrowthConfig, PRESETS, RunConfig};
use tokenformer::data;
use toml::{Table, Value};

const PAGE: &str = "docs/configuration.md";

/// Characters of tinyshakespeare, whose text is not here.
const SHAKESPEARE_CHARACTERS: usize = 65;

/// A struct or an enum of src/config.
#[derive(Default)]
struct Item {
    is_enum: bool,
    /// Name, type (empty in an enum) and documentation of each field or variant.
    members: Vec<[String; 3]>,
}

/// Every public struct and enum of the settings, by name.
fn items() -> BTreeMap<String, Item> {
    let mut items = BTreeMap::new();
    for path in files(&root().join("src/config"), "rs") {
        let text = fs::read_to_string(path).unwrap();
        let (mut open, mut docs): (Option<(String, Item)>, String) = (None, String::new());
        let mut opened_at = 0;
        for line in text.lines() {
            let code = line.trim();
            if let Some(doc) = code.strip_prefix("///") {
                docs = format!("{docs} {}", doc.trim());
                continue;
            }
            if code.starts_with("#[") {
                continue;
            }
            // An item may stand in a macro, one step further in.
            let indent = line.len() - line.trim_start().len();
            let item = code.strip_prefix("pub ").and_then(|rest| rest.strip_suffix(" {")?.split_once(' '));
            if code == "}" && open.as_ref().is_some_and(|_| indent == opened_at) {
                items.extend(open.take());
            } else if let (None, Some((kind @ ("struct" | "enum"), name))) = (&open, item) {
                if !name.starts_with('$') {
                    open = Some((name.to_owned(), Item { is_enum: kind == "enum", ..Item::default() }));
                    opened_at = indent;
                }
            } else if let Some((_, item)) = open.as_mut().filter(|(_, item)| item.is_enum || code.starts_with("pub ")) {
                let member = code.trim_start_matches("pub ").trim_end_matches(',');
                let (name, kind) = member.split_once(": ").unwrap_or((member, ""));
                // A growth policy names its file.
                let name = name.split(" = ").next().unwrap();
                item.members.push([name.to_owned(), kind.to_owned(), plain(&docs)]);
            }
            docs.clear();
        }
    }
    items
}

/// Documentation as Markdown has it: links to items lead nowhere there, and a table ends at a bar.
fn plain(docs: &str) -> String {
    let words: Vec<&str> = docs.split_whitespace().collect();
    words.join(" ").replace("[`", "`").replace("`]", "`").replace("Self::", "").replace('|', "\\|")
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// A table of the fields of a struct with their defaults, and one of the values of each enum among them.
fn settings(items: &BTreeMap<String, Item>, name: &str, defaults: &Table) -> String {
    let mut text = "| key | default | meaning |\n|---|---|---|\n".to_owned();
    let mut choices = Vec::new();
    for [key, kind, meaning] in &items[name].members {
        let default = defaults.get(key).map_or("absent".to_owned(), |value| match value {
            Value::Float(x) if *x != 0.0 && x.abs() < 1e-2 => format!("`{x:e}`"),
            value => format!("`{value}`"),
        });
        let kind = kind.trim_start_matches("Option<").trim_end_matches('>');
        let is_choice = items.get(kind).is_some_and(|item| item.is_enum);
        choices.extend(is_choice.then_some((key, kind)));
        let below = if is_choice { " Values below." } else { "" };
        writeln!(text, "| `{key}` | {default} | {meaning}{below} |").unwrap();
    }
    for (key, kind) in choices {
        write!(text, "\n`{key}` is one of:\n\n| value | meaning |\n|---|---|\n").unwrap();
        for [variant, _, meaning] in &items[kind].members {
            // A variant that holds something says first how it is written.
            let (value, meaning) = match variant.contains('(') {
                true => meaning.split_once(": ").map(|(value, meaning)| (value.replace('`', ""), meaning)).unwrap(),
                false => (snake(variant), meaning.as_str()),
            };
            writeln!(text, "| `\"{value}\"` | {meaning} |").unwrap();
        }
    }
    text
}

fn with_thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap()).collect();
    groups.join(",")
}

fn presets() -> String {
    let mut text =
        "| preset | what it is | layers x width | tokens a sequence | vocabulary | parameters |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for preset in &PRESETS {
        let (name, what) = (preset.name, preset.what);
        let mut config = RunConfig::preset(name).unwrap();
        let characters = match config.data.path {
            Some(_) => SHAKESPEARE_CHARACTERS,
            None => data::builtin(1, 100, &data::TokenizerKind::Char, 0.1).unwrap().vocab_size,
        };
        if config.model.vocab_size == 0 {
            config.model.resolve_vocab(characters).unwrap();
        }
        let stages = config.stages().unwrap();
        let counts: Vec<String> = stages.iter().map(|model| with_thousands(model.param_count())).collect();
        let model = &config.model;
        writeln!(
            text,
            "| `{name}` | {what} | {} x {} | {} | {} | {} |",
            model.num_layers,
            model.hidden_size,
            model.seq_length,
            model.vocab_size,
            counts.join(", then ")
        )
        .unwrap();
    }
    text
}

/// The text that belongs between the lines of that name.
fn generated(name: &str, items: &BTreeMap<String, Item>) -> String {
    let run = Table::try_from(RunConfig::default()).unwrap();
    let of = |key: &str| run[key].as_table().unwrap().clone();
    match name {
        "model" => settings(items, "ModelConfig", &of("model")),
        "train" => settings(items, "TrainConfig", &of("train")),
        "data" => settings(items, "DataConfig", &of("data")),
        "growth" => settings(items, "GrowthConfig", &Table::try_from(GrowthConfig::default()).unwrap()),
        "presets" => presets(),
        _ => panic!("{PAGE}: nothing is generated under the name {name:?}"),
    }
}

#[test]
fn the_tables_of_settings_are_those_of_the_program() {
    let (path, items) = (root().join(PAGE), items());
    let text = fs::read_to_string(&path).unwrap();
    let (mut wanted, mut rest, mut names) = (String::new(), text.as_str(), BTreeSet::new());
    while let Some((before, after)) = rest.split_once("<!-- generated: ") {
        let (name, after) = after.split_once(" -->\n").expect("<!-- generated: NAME -->");
        let (_, after) = after.split_once("<!-- end -->").expect("<!-- end -->");
        write!(wanted, "{before}<!-- generated: {name} -->\n{}<!-- end -->", generated(name, &items)).unwrap();
        names.insert(name.to_owned());
        rest = after;
    }
    wanted.push_str(rest);
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["data", "growth", "model", "presets", "train"]);
    if std::env::var_os("TOKENFORMER_BLESS").is_some() {
        // In one go: other tests read the page meanwhile.
        let beside = path.with_extension("md.new");
        fs::write(&beside, wanted).unwrap();
        fs::rename(beside, path).unwrap();
        return;
    }
    let changed = text.lines().zip(wanted.lines()).find(|(is, wanted)| is != wanted);
    assert!(
        text == wanted,
        "{PAGE} is not what src/config says ({changed:?}): TOKENFORMER_BLESS=1 cargo test --test docs writes it"
    );
}

#[test]
fn every_setting_is_documented() {
    let items = items();
    for name in ["ModelConfig", "TrainConfig", "DataConfig", "GrowthConfig"] {
        assert!(items[name].members.len() > 5, "{name} was not read");
    }
    for (name, item) in &items {
        for [member, _, meaning] in &item.members {
            assert!(!meaning.is_empty(), "{name}::{member} has no documentation");
        }
    }
}

#[test]
fn every_environment_variable_is_listed() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let mut missing = BTreeSet::new();
    let sources = ["src", "tests", "scripts"].map(|folder| root().join(folder));
    let all = sources.iter().flat_map(|folder| [files(folder, "rs"), files(folder, "sh")].concat());
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        for prefix in ["TOKENFORMER_", "HOSTILE_", "WGPU_"] {
            for (at, _) in text.match_indices(prefix) {
                let name: String =
                    text[at..].chars().take_while(|c| c.is_ascii_uppercase() || matches!(c, '_' | '0'..='9')).collect();
                if name.len() > prefix.len() && !page.contains(&format!("`{name}`")) {
                    missing.insert(format!("{name} ({})", path.strip_prefix(root()).unwrap().display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{PAGE} does not list {missing:?}");
}
