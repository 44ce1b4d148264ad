//! Whether a file has the tensors of a model, each by name and shape.

use std::collections::BTreeMap;
use std::fmt::Write;

/// What is named of all that does not fit.
const NAMED: usize = 5;

/// Names and shapes of the tensors that a model has.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// Refuses `found` unless it has exactly the tensors `expected`.
///
/// # Errors
/// What is missing, has another shape or no place, tensor by tensor: the first few, and how many more.
pub(super) fn check(expected: &Shapes, found: &Shapes) -> Result<(), String> {
    let missing_or_other = expected.iter().filter_map(|(name, shape)| match found.get(name) {
        None => Some(format!("{name:?} {shape:?} is missing")),
        Some(other) if other != shape => Some(format!("{name:?} has shape {other:?} and not {shape:?}")),
        Some(_) => None,
    });
    let extra =
        found.keys().filter(|name| !expected.contains_key(*name)).map(|name| format!("{name:?} has no place in it"));
    let mut misfits = missing_or_other.chain(extra);
    let mut said = String::new();
    for misfit in misfits.by_ref().take(NAMED) {
        let _ = write!(said, "{}{misfit}", if said.is_empty() { "" } else { ", " });
    }
    if said.is_empty() {
        return Ok(());
    }
    match misfits.count() {
        0 => Err(said),
        more => Err(format!("{said}, and {more} more do not fit")),
    }
}

/// Refuses a claim of layers that would only list names that cannot be there: each has nine tensors at least.
///
/// # Errors
/// How many are claimed, and how many tensors there are.
pub(super) fn check_layers(layers: usize, found: &Shapes) -> Result<(), String> {
    let tensors = found.len();
    if layers <= tensors / 9 + 1 {
        Ok(())
    } else {
        Err(format!("it says {layers} layers and has {tensors} tensors in all"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_does_not_fit_is_named_up_to_a_few() {
        let shapes =
            |all: &[(&str, usize)]| -> Shapes { all.iter().map(|(name, n)| (name.to_string(), vec![*n])).collect() };
        let expected = shapes(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(check(&expected, &expected), Ok(()));
        let found = shapes(&[("a", 2), ("c", 3), ("d", 4)]);
        let said = r#""a" has shape [2] and not [1], "b" [2] is missing, "d" has no place in it"#;
        assert_eq!(check(&expected, &found), Err(said.to_owned()));
        let many: Shapes = (0..9).map(|i| (format!("x{i}"), vec![i])).collect();
        let error = check(&many, &expected).unwrap_err();
        assert!(error.starts_with("\"x0\" [0] is missing, ") && error.ends_with(", and 7 more do not fit"), "{error}");
    }
}
