//! Every operator, whole models, training runs and growth against values computed in f64 by an independent
//! PyTorch oracle (see `fixtures/golden/README.md` for the kinds and tolerances).
//!
//! `TOKENFORMER_GOLDEN_DIR` names another set made by the same oracle.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod case;
#[path = "../common/mod.rs"]
mod common;
mod mixed;
mod models;
mod ops;
mod optimizers;

use case::Case;
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    std::env::var_os("TOKENFORMER_GOLDEN_DIR")
        .map_or_else(|| common::root().join("tests/fixtures/golden"), PathBuf::from)
}

fn dropout() -> PathBuf {
    common::root().join("tests/fixtures/dropout")
}

fn gpt_neox() -> PathBuf {
    common::root().join("tests/fixtures/neox")
}

/// Whole models and training runs in mixed precision; operators are held against their references in `tests/ops.rs`.
#[test]
fn models_in_mixed_precision() {
    if !common::engine().gpu.target.f16 {
        println!("{} has no f16: nothing to check", common::engine().gpu.describe());
        return;
    }
    let (mut failures, mut checked) = (Vec::new(), 0);
    let cases = |directory: PathBuf| case::index(&directory).into_iter().map(move |name| Case::open(&directory, &name));
    for case in cases(directory()).chain(cases(gpt_neox())).chain(cases(dropout())) {
        let found = match case.kind.as_str() {
            "model" => models::model_in_f16(&case),
            "trajectory" => models::trajectory_in_f16(&case),
            _ => continue,
        };
        failures.extend(found);
        checked += 1;
    }
    assert!(checked >= 5, "only {checked} cases");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Mixed precision loses no more than PyTorch's autocast does.
#[test]
fn gradients_in_mixed_precision_are_as_good_as_those_of_autocast() {
    if !common::engine().gpu.target.f16 {
        println!("{} has no f16: nothing to check", common::engine().gpu.describe());
        return;
    }
    let (mut failures, mut rows) = (Vec::new(), Vec::new());
    for listed in mixed::listed(&common::root().join("tests/fixtures")) {
        let (compared, found) = listed.compare();
        rows.push(mixed::row(&listed.case, &compared));
        println!("{}", rows[rows.len() - 1]);
        failures.extend(found);
    }
    assert!(rows.len() >= 12, "only {} cases", rows.len());
    assert!(failures.is_empty(), "{} of the tensors are further off:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_case_of_the_index() {
    check_all(&directory());
}

/// A Transformer is GPT-NeoX: every option of it, computed by Hugging Face's model.
#[test]
fn models_of_gpt_neox() {
    check_all(&gpt_neox());
}

/// In training with dropout, by the same masks.
#[test]
fn models_with_dropout() {
    check_all(&dropout());
}

/// Sizes of 1 everywhere, and primes.
#[test]
fn models_at_the_edges() {
    check_all(&common::root().join("tests/fixtures/golden_edges"));
}

/// Walks `index.json`, checks every case, and reports all failures at once.
fn check_all(directory: &Path) {
    let cases = case::index(directory);
    assert!(!cases.is_empty(), "{} lists no case", directory.display());
    let mut failures = Vec::new();
    for name in &cases {
        let mut case = Case::open(directory, name);
        check(&mut case);
        println!("{name}: {} tensors checked, worst at {:.0} % of its tolerance", case.checked, case.worst * 100.0);
        failures.append(&mut case.failures);
    }
    assert!(failures.is_empty(), "{} of the tensors differ:\n{}", failures.len(), failures.join("\n"));
}

fn check(case: &mut Case) {
    match case.kind.as_str() {
        "pattention" => ops::pattention(case),
        "layer_norm" => ops::layer_norm(case),
        "rotary_attention" => ops::rotary_attention(case),
        "cross_entropy" => ops::cross_entropy(case),
        "embedding" => ops::embedding(case),
        "gelu" => ops::gelu(case),
        "model" => models::model(case),
        "trajectory" => models::trajectory(case),
        "growth" => models::growth(case),
        "official_naming" => models::official_naming(case),
        unknown => panic!("case {} has the unknown kind \"{unknown}\"", case.name),
    }
    case.finish();
}
