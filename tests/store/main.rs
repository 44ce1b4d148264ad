//! What is left of a run when its disk fails, loses power or rots: the checkpoint store, the settings and the metrics
//! against a disk in memory that does each of these at every operation, and against damaged files.
//!
//! `TOKENFORMER_TEST_FULL=1` draws twenty times as many damages for each loss of power.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod corruption;
mod disk;
mod faults;
mod plan;
mod power;
mod run;
mod unreadable;

use std::collections::BTreeMap;
use tokenformer::array::HostTensor;
use tokenformer::train::cohorts::Cohort;
use tokenformer::train::{Checkpoint, DataPosition, Meta};

/// A small checkpoint that no other step has.
fn checkpoint(step: u64) -> Checkpoint {
    let tensor = |shape: &[usize], salt: u64| {
        let mut tensor = HostTensor::zeros(shape);
        tensor.data.iter_mut().enumerate().for_each(|(i, x)| *x = (step * 1000 + salt * 100 + i as u64) as f32 / 7.0);
        tensor
    };
    let tensors = |salt| {
        BTreeMap::from([
            ("layers.0.mlp.key_param_tokens".to_owned(), tensor(&[8, 6], salt)),
            ("norm.bias".to_owned(), tensor(&[6], salt + 1)),
        ])
    };
    let rows = BTreeMap::from([("layers.0.mlp.key_param_tokens".to_owned(), [4, 8])]);
    let meta = Meta {
        imported: None,
        step,
        tokens_seen: step * 1024,
        seed: 1337,
        config: serde_json::json!({"train": {"lr": 0.001}}),
        tokenizer: None,
        data: DataPosition { description: "corpus".into(), next_batch: step, fingerprint: None },
        cohorts: vec![Cohort { born_step: 0, lr_scale: 1.0, frozen: false, rows }],
        lineage: Vec::new(),
        adapter: "none".into(),
        kernels: BTreeMap::new(),
        loss_scale: None,
        losses: Default::default(),
        plateau: Default::default(),
        best_val_loss: Some(1.25),
        seconds: 0.0,
        best_step: Some(step),
        created_by: "tokenformer tests".into(),
    };
    Checkpoint { meta, params: tensors(1), moment1: tensors(3), moment2: tensors(5), averages: tensors(7) }
}

/// Damages drawn for each loss of power.
fn damages() -> u64 {
    if std::env::var_os("TOKENFORMER_TEST_FULL").is_some_and(|full| full == "1") { 1000 } else { 50 }
}
