//! What a study's directory was made with, and in what that differs from what is asked for now.

use crate::config::RunConfig;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use toml::{Table, Value};

/// The first setting in which two runs differ, in words. Where the data lie does not count: they have a fingerprint. Nor
/// does whether a tau is written down, as a run that was resumed by hand has it.
///
/// # Errors
/// Settings that TOML cannot hold.
pub(crate) fn difference(stored: &RunConfig, wanted: &RunConfig) -> Result<Option<String>> {
    let table = |config: &RunConfig| -> Result<Table> {
        let mut config = config.clone();
        config.data.name(None, None);
        config.model.freeze_tau();
        Table::try_from(&config).map_err(|e| Error::usage(format!("the settings cannot be compared: {e}")))
    };
    Ok(first_difference("", &Value::Table(table(stored)?), &Value::Table(table(wanted)?)))
}

fn first_difference(place: &str, a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Table(a), Value::Table(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let name = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => first_difference(&name, a, b),
                    (Some(a), None) => Some(format!("{name} was {a} and is absent")),
                    (None, Some(b)) => Some(format!("{name} was absent and is {b}")),
                    (None, None) => None,
                }
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).find_map(|(a, b)| first_difference(place, a, b))
        }
        (Value::Array(a), Value::Array(b)) => Some(format!("{place} had {} entries and has {}", a.len(), b.len())),
        (a, b) => (a != b).then(|| format!("{place} was {a} and is {b}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_setting_is_named() {
        let was = RunConfig::default();
        let mut is = was.clone();
        assert_eq!(difference(&was, &is), Ok(None));
        is.data.path = Some("elsewhere".into());
        assert_eq!(difference(&was, &is), Ok(None));
        is.model.freeze_tau();
        assert_eq!(difference(&was, &is), Ok(None));
        is.model.num_layers = 9;
        assert_eq!(difference(&was, &is), Ok(Some("model.num_layers was 4 and is 9".into())));
        is = RunConfig { growth: vec![Default::default()], ..was.clone() };
        assert_eq!(difference(&was, &is), Ok(Some("growth had 0 entries and has 1".into())));
    }
}
