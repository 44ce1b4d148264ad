//! The run that a newcomer sees first: the built-in default, from start to end.

use crate::common;
use std::sync::atomic::AtomicBool;
use tokenformer::config::RunConfig;
use tokenformer::train::disk::{Start, dataset};
use tokenformer::train::run;

#[test]
fn the_default_run_comes_within_ten_percent_of_the_entropy_of_its_corpus() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = RunConfig::preset("quickstart").unwrap();
    config.out_dir = dir.path().to_path_buf();
    let data = dataset(&config, None).unwrap();
    config.model.resolve_vocab(data.vocab_size).unwrap();
    config.validate().unwrap();
    let start = Start::fresh(&config);
    let summary = run(common::device(), &config, &data, start, &AtomicBool::new(false)).unwrap();

    let floor = summary.entropy_floor.unwrap();
    println!("val loss {:.4}, floor {floor:.4}, {:.1} s", summary.val_loss, summary.seconds);
    assert!(summary.val_loss < 1.10 * floor, "val loss {} against a floor of {floor}", summary.val_loss);
    // Below the floor the validation text would have leaked into training, or the floor be wrong.
    assert!(summary.val_loss > floor, "val loss {} against a floor of {floor}", summary.val_loss);
    let [growth] = summary.growths.as_slice() else { panic!("one growth, not {}", summary.growths.len()) };
    assert!(growth.after.params > growth.before.params);
    assert_eq!(growth.max_logit_change, 0.0);
    assert_eq!(growth.loss_after, growth.loss_before);
    assert!(summary.val_loss < growth.loss_after, "training goes on after the growth");
    assert!(!summary.sample.trim().is_empty());
}
