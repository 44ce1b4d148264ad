//! In which settings runs differ.

use super::Shown;
use crate::report::escape::clipped;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// A row for each setting that is not the same in all: its name, and what it is in each.
pub(super) fn of(runs: &[Shown]) -> Vec<Vec<String>> {
    let settings: Vec<BTreeMap<String, String>> = runs.iter().map(flat).collect();
    let names: BTreeSet<&String> = settings.iter().flat_map(BTreeMap::keys).collect();
    let row = |name: &String| {
        let values: Vec<String> = settings.iter().map(|all| all.get(name).cloned().unwrap_or_default()).collect();
        let differ = values.windows(2).any(|pair| pair[0] != pair[1]);
        (differ && name != "out_dir").then(|| [vec![name.clone()], values].concat())
    };
    names.into_iter().filter_map(row).collect()
}

fn flat(run: &Shown) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if let Some(table) = run.config.as_ref().and_then(|config| Table::try_from(config).ok()) {
        enter("", &table, &mut all);
    }
    all
}

fn enter(place: &str, table: &Table, all: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let name = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        match value {
            Value::Table(table) => enter(&name, table, all),
            value => drop(all.insert(name, clipped(&value.to_string(), 120, "\u{2026}"))),
        }
    }
}
