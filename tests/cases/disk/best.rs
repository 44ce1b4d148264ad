//! The checkpoint with the lowest validation loss is kept besides those that are rotated.

use super::{checkpoints, edit, same_tensors, step, with_run};
use crate::program::{Folder, TEXT, say};
use crate::snapshot::refused;
use std::fs;
use tokenformer::train::Checkpoint;

/// Trains on so little that the model knows it by heart soon after step 100.
const OVERFIT: &str = "--data ov.txt --lr 0.02 --set model.hidden_size=32 --set train.eval_interval=50 \
                       --set train.checkpoint_interval=100 --out r";

fn overfit(more: &str) -> (Folder, String) {
    let folder = Folder::new();
    folder.write("ov.txt", &TEXT[..600]);
    let said = folder.train(&format!("{OVERFIT} {more}")).ok().stdout;
    (folder, said)
}

#[test]
fn the_best_model_is_kept_named_and_used() {
    let (folder, said) = overfit("--steps 400");
    let best = said.lines().find(|line| line.starts_with("best val loss")).expect(&said).to_owned();
    say("no-best-checkpoint", &best);
    assert!(said.contains("\nbest checkpoint r/checkpoints/best.safetensors\n"), "{said}");
    let names = ["best.safetensors", "step-00000300.safetensors", "step-00000400.safetensors"];
    assert_eq!(checkpoints(&folder, "r"), names);
    let kept = Checkpoint::read(&folder.path("r/checkpoints/best.safetensors")).unwrap().meta;
    let lowest: f64 = metric(&folder, "val_loss").into_iter().map(|(_, loss)| loss).fold(f64::INFINITY, f64::min);
    assert_eq!((kept.best_val_loss, kept.best_step), (Some(lowest), Some(kept.step)));
    assert!(kept.step < 300 && best.contains(&format!("{lowest:.4} nats/token at step {}", kept.step)), "{best}");
    assert!(folder.run("inspect r").ok().stdout.contains(&best), "inspect says the same");

    // What it is for.
    let loss = |args: &str| {
        let said = folder.run(args).ok().stdout;
        let loss = said.lines().find(|line| line.starts_with("loss")).unwrap().split_whitespace().nth(1).unwrap();
        loss.parse::<f64>().unwrap()
    };
    assert!(loss("eval r --best") < loss("eval r"), "the newest knows its text by heart");
    assert_eq!(loss("eval r --best"), loss("eval r/checkpoints/best.safetensors"));
    let [best, newest] = ["--best", ""].map(|how| folder.run(&format!("generate r {how} --tokens 20")).ok().stdout);
    assert_ne!(best, newest);
    folder.run("grow r --best grown.safetensors --ffn-slots 24").ok();
    assert!(folder.run("inspect r --best").ok().stdout.contains("best.safetensors\n"));
    // A run goes on from its newest, and from its best one elsewhere.
    let ran = folder.run("train --resume r --steps 401 --tune off").ok();
    assert!(ran.stderr.contains("after step 400"), "{}", ran.stderr);
    assert!(
        refused(&folder, "train --resume r/checkpoints/best.safetensors --tune off").contains("choose another --out")
    );
    let ran = folder
        .run(&format!("train --resume r/checkpoints/best.safetensors --steps {} --out b --tune off", kept.step + 1));
    assert!(ran.ok().stderr.contains(&format!("after step {}", kept.step)));
}

/// `key` of every line of metrics that has it, with its step.
fn metric(folder: &Folder, key: &str) -> Vec<(u64, f64)> {
    let text = folder.text("r/metrics.jsonl");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| Some((line["step"].as_u64()?, line[key].as_f64()?))).collect()
}

#[test]
fn keeping_it_changes_no_bit_and_can_be_left() {
    let (with, _) = overfit("--steps 120");
    let (without, said) = overfit("--steps 120 --set train.keep_best=false");
    assert!(same_tensors(&step(&with, "r", 120), &step(&without, "r", 120)));
    assert_eq!(metric(&with, "loss"), metric(&without, "loss"));
    assert_eq!(checkpoints(&without, "r"), ["step-00000100.safetensors", "step-00000120.safetensors"]);
    assert!(said.contains("best val loss") && !said.contains("best checkpoint"), "{said}");
    let said = refused(&without, "eval r --best");
    assert!(said.contains("r has kept no best checkpoint: leave --best out, or train with train.keep_best"), "{said}");
    let said = refused(&with, "generate r/checkpoints/best.safetensors --best");
    assert!(said.contains("--best takes a checkpoint of a run"), "{said}");
}

#[test]
fn a_run_killed_between_its_best_model_and_its_next_checkpoint_goes_on() {
    // Its only checkpoint is the best one: a run that was killed before it saved another.
    let folder = with_run();
    let whole = step(&folder, "r", 20);
    let kept = fs::read(&whole).unwrap();
    for at in [10, 20] {
        fs::remove_file(step(&folder, "r", at)).unwrap();
    }
    let best = Checkpoint::read(&folder.path("r/checkpoints/best.safetensors")).unwrap().meta.step;
    let said = refused(&folder, "train --config run.toml --tune off --out r");
    assert!(said.starts_with(&format!("r already holds a run at step {best}")), "{said}");
    if best < 20 {
        folder.run("train --resume r --tune off").ok();
        fs::write(folder.path("whole.safetensors"), kept).unwrap();
        assert!(same_tensors(&whole, &folder.path("whole.safetensors")));
    }
    // A damaged best checkpoint is nothing that a run goes by.
    let folder = with_run();
    let kept = folder.read("r/checkpoints/best.safetensors");
    folder.write("r/checkpoints/best.safetensors", &kept[..kept.len() / 2]);
    folder.run("train --resume r --steps 21 --tune off").ok();
    assert!(folder.run("eval r --best").code == 2 || same_step(&folder));
    edit(&folder, "run.toml", "max_steps = 20", "max_steps = 1");
}

/// Whether the run has found a better model since, and put it there.
fn same_step(folder: &Folder) -> bool {
    Checkpoint::read(&folder.path("r/checkpoints/best.safetensors")).is_ok()
}
