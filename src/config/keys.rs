//! Keys and types of a file held against a template in which every setting is present: a wrong one is named with what it may
//! mean.

use super::{spelled, synonyms};
use toml::{Table, Value};

/// How alike a key must be to be named: less is a guess.
const LIKE: f64 = 0.6;
/// How alike a name of another program must be, whose meaning is told.
const ALIKE: f64 = 0.75;

/// Every key of `given` is in `template`, with a value of its type; otherwise the sentence that says what is wrong.
pub(super) fn check(given: &Table, template: &Table) -> Result<(), String> {
    check_in(given, template, template, "")
}

/// Every key of `given` is in `expected`, with a value of its type. `place` is the table, "" at the top of `whole`.
pub(crate) fn check_in(given: &Table, expected: &Table, whole: &Table, place: &str) -> Result<(), String> {
    for (key, value) in given {
        let name = if place.is_empty() { shortened(key) } else { format!("{place}.{}", shortened(key)) };
        let expected = expected.get(key).ok_or_else(|| unknown(key, expected, whole, place))?;
        match (expected, value) {
            (Value::Table(expected), Value::Table(given)) => check_in(given, expected, whole, &name)?,
            (Value::Array(expected), Value::Array(given)) => {
                let Some(expected) = expected.first() else { continue };
                for entry in given {
                    match (expected, entry) {
                        (Value::Table(expected), Value::Table(given)) => check_in(given, expected, whole, &name)?,
                        (expected, entry) => fits(expected, entry, &format!("an entry of {name}"), &name)?,
                    }
                }
            }
            (expected, value) => fits(expected, value, &name, &name)?,
        }
    }
    Ok(())
}

/// `what` of the setting `name` has a value of the type of `expected`.
fn fits(expected: &Value, value: &Value, what: &str, name: &str) -> Result<(), String> {
    match (expected, value) {
        (Value::Integer(_), Value::Integer(number)) if *number < 0 => {
            Err(format!("{what} is {number}, but must be a whole number of at least 0"))
        }
        (Value::String(_), Value::String(text)) if is_broken_path(name, text) => Err(format!(
            "{what} is \"{}\": in double quotes a backslash begins a line break or a tab; use single quotes for a path with \
             backslashes, such as 'C:\\data\\input.txt'",
            shortened(text)
        )),
        (Value::Float(_), Value::Integer(_)) => Ok(()),
        (expected, value) if expected.same_type(value) => Ok(()),
        (expected, value) => {
            let (found, wanted) = (described(value), kind(expected, name));
            Err(format!("{what} is {found}, but must be {wanted}{}", remedy(expected, value)))
        }
    }
}

/// What a value of another type may be meant as.
fn remedy(expected: &Value, value: &Value) -> String {
    match (expected, value) {
        (Value::Float(_) | Value::Integer(_), Value::String(text)) => {
            spelled::meant(text).map_or_else(String::new, |_| format!(": {}", spelled::remedy(text)))
        }
        (Value::Integer(_), Value::Float(number)) if number.fract() == 0.0 && (0.0..1e15).contains(number) => {
            format!(": write {number:.0}")
        }
        (Value::Array(entries), value) if entries.first().is_some_and(|entry| entry.same_type(value)) => {
            format!(": write [{value}]")
        }
        _ => String::new(),
    }
}

/// Whether a path has become something else: `"C:\new"` has a line break.
fn is_broken_path(name: &str, text: &str) -> bool {
    let is_path = ["path", "val_path", "old_path", "out_dir"].contains(&name.rsplit('.').next().unwrap_or(name));
    let begins = |c: char| matches!(c, '\n' | '\t' | '\r' | '\u{8}' | '\u{c}');
    let has_drive = text.chars().nth(1) == Some(':');
    let mut pairs = text.chars().zip(text.chars().skip(1));
    is_path && text.contains(begins) && (has_drive || text.contains('\\') || pairs.any(|(a, b)| a == '.' && begins(b)))
}

/// The sentence about a key that does not exist: where it belongs, what it is called here, or the nearest key.
fn unknown(key: &str, expected: &Table, whole: &Table, place: &str) -> String {
    let here = if place.is_empty() { "at the top level".to_owned() } else { format!("in [{place}]") };
    let said = format!("unknown key \"{}\" {here}", shortened(key));
    let name = shortened(key).to_lowercase().replace('-', "_");
    if place == "growth" && ["at", "step", "steps"].contains(&name.as_str()) {
        return format!("{said}: it is at_step here");
    }
    if !expected.contains_key(&name) {
        if let Some(home) = home(&name, whole) {
            return format!("{said}: it belongs {home}");
        }
        if let Some(synonym) = synonyms::exact(&name) {
            return format!("{said}: {}", synonym.answer);
        }
    }
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&name, known);
    let near = expected.keys().map(|key| (likeness(key), key)).max_by(|a, b| a.0.total_cmp(&b.0));
    let near = near.filter(|(like, _)| *like > LIKE);
    let foreign = synonyms::nearest(likeness);
    match (near, foreign.filter(|(_, like, _)| *like > ALIKE)) {
        (Some((like, nearest)), foreign) if foreign.as_ref().is_none_or(|(_, other, _)| *other <= like) => {
            format!("{said}: the nearest key is \"{nearest}\"")
        }
        (_, Some((other, _, synonym))) => format!("{said}: if \"{other}\" is meant, {}", synonym.answer),
        _ => match elsewhere(whole, likeness) {
            Some(other) => format!("{said}: the nearest key is {other}"),
            None => {
                format!("{said}, nor one like it: docs/configuration.md and `tokenformer train --dry-run` have all")
            }
        },
    }
}

/// Where the setting of this very name belongs.
fn home(name: &str, whole: &Table) -> Option<String> {
    let table = whole.iter().find(|(_, table)| table.as_table().is_some_and(|table| table.contains_key(name)));
    if let Some((owner, _)) = table {
        return Some(format!("in [{owner}], as {owner}.{name}"));
    }
    if whole.contains_key(name) {
        return Some(format!("at the top level, above the first table, as {name}"));
    }
    let has =
        |list: &Value| list.as_array().and_then(|list| list.first()?.as_table()).is_some_and(|t| t.contains_key(name));
    whole.iter().find(|(_, list)| has(list)).map(|(owner, _)| format!("in an entry of {owner}, under [[{owner}]]"))
}

/// The nearest key of another table, if one is very like it.
fn elsewhere(whole: &Table, likeness: impl Fn(&str) -> f64) -> Option<String> {
    let tables = whole.iter().filter_map(|(owner, table)| Some((owner, table.as_table()?)));
    let all = tables.flat_map(|(owner, table)| table.keys().map(move |key| (owner, key)));
    let like = all.map(|(owner, key)| (likeness(key), owner, key)).filter(|(like, ..)| *like > ALIKE);
    like.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, owner, key)| format!("{owner}.{key}"))
}

fn kind(expected: &Value, name: &str) -> String {
    match expected {
        Value::String(_) => "a string".to_owned(),
        Value::Integer(_) => "a whole number".to_owned(),
        Value::Float(_) => "a number such as 0.8".to_owned(),
        Value::Boolean(_) => "true or false".to_owned(),
        Value::Array(entries) => match entries.first() {
            Some(Value::Table(_)) if ["growth", "arm"].contains(&name) => {
                format!("a list of tables, each under [[{name}]]")
            }
            Some(Value::Table(entry)) => match entry.iter().next() {
                Some((key, value)) => {
                    format!("a list of tables, such as {name} = [{{ {key} = {} }}]", example(value))
                }
                None => "a list of tables".to_owned(),
            },
            Some(entry) => format!("a list, such as [{}]", example(entry)),
            None => "a list".to_owned(),
        },
        Value::Table(_) => "a table".to_owned(),
        Value::Datetime(_) => "a date".to_owned(),
    }
}

/// A value of the type of one in a template, as a file may have it.
fn example(value: &Value) -> String {
    match value {
        Value::Float(number) if *number >= 1.0 => "1e6".to_owned(),
        other => other.to_string(),
    }
}

pub(super) fn described(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the string \"{}\"", shortened(text)),
        Value::Integer(number) => format!("{number}"),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(flag) => format!("{flag}"),
        Value::Datetime(date) => format!("the date {date}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// What a file says, short enough for a sentence and without control characters.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 100;
    let head: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() { format!("{head}...") } else { head }
}
