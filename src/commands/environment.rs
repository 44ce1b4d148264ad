//! Which variables of the environment are the program's own: a name with a slip of the pen does nothing, and is said.

use crate::console::warn;
use std::ffi::OsString;

/// What all of them begin with.
const OURS: &str = "TOKENFORMER_";

/// All that the program and its tests read, without [`OURS`].
const KNOWN: [&str; 15] = [
    "ATTENTION",
    "BLESS",
    "CACHE_DIR",
    "CHECKS",
    "DEVICE",
    "FAULTS",
    "GOLDEN_DIR",
    "MATMUL",
    "PROBE",
    "SOFTWARE",
    "TEST_FULL",
    "TEST_MODELS",
    "TEST_PLANT",
    "TEST_PYTHON",
    "VERBOSE",
];

/// Warns of variables that are named as if they were the program's, and are not.
pub(super) fn warn_of_unknown(names: impl Iterator<Item = OsString>) {
    for name in names.filter_map(|name| name.into_string().ok()) {
        if let Some(sentence) = unknown(&name) {
            warn(sentence);
        }
    }
}

fn unknown(name: &str) -> Option<String> {
    let own = name.strip_prefix(OURS).filter(|own| !KNOWN.contains(own))?.to_uppercase();
    let likeness = |known: &&str| strsim::jaro_winkler(known, &own);
    let nearest = KNOWN.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    Some(format!("the environment has {name}, which nothing reads: the nearest variable is {OURS}{nearest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_slip_is_named_with_the_nearest_variable() {
        let said = unknown(&format!("{OURS}CACHEDIR")).unwrap();
        assert!(said.ends_with("the nearest variable is TOKENFORMER_CACHE_DIR"), "{said}");
        assert!(unknown(&format!("{OURS}cache_dir")).unwrap().ends_with("TOKENFORMER_CACHE_DIR"));
        assert_eq!((unknown("TOKENFORMER_CACHE_DIR"), unknown("CACHEDIR")), (None, None));
    }

    /// Names of variables in the sources and tests.
    fn named(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                named(&entry, found);
            } else if entry.extension().is_some_and(|extension| extension == "rs" || extension == "sh") {
                let text = std::fs::read_to_string(&entry).unwrap();
                let names = text.split(OURS).skip(1);
                found.extend(
                    names.map(|rest| rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect()),
                );
            }
        }
    }

    #[test]
    fn every_variable_that_is_read_is_known() {
        let mut found = Vec::new();
        for dir in ["src", "tests", "scripts"] {
            named(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut found);
        }
        found.retain(|name| !name.is_empty());
        for name in &found {
            assert!(KNOWN.contains(&name.as_str()), "{OURS}{name} is not among the known variables");
        }
        for known in KNOWN {
            assert!(found.iter().any(|name| name == known), "nothing reads {OURS}{known}");
        }
    }
}
