//! Averaged weights and learning rates through the program: which weights a command takes, and that it says so.

use crate::program::Folder;
use serde_json::Value;
use std::collections::BTreeMap;
use tokenformer::array::HostTensor;
use tokenformer::train::Checkpoint;

fn found(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn averaged_weights_are_what_is_used_and_raw_ones_on_request() {
    let folder = Folder::new();
    let ran = folder.train("--out r --set train.ema_decay=0.99 --json").ok();
    let best = found(&ran.stdout)["val_loss"].as_f64().unwrap();
    let eval = |flag: &str| folder.run(&format!("eval r --json {flag}")).ok();
    let (averaged, raw) = (eval(""), eval("--raw-weights"));
    assert!(averaged.stdout.starts_with("weights         averaged (ema_decay 0.99)\n"), "{}", averaged.stdout);
    assert!(raw.stdout.starts_with("weights         raw, not averaged\n"), "{}", raw.stdout);
    let loss = |stdout: &str| found(stdout)["loss"].as_f64().unwrap();
    assert_ne!(loss(&averaged.stdout), loss(&raw.stdout));
    assert_eq!(found(&averaged.stdout)["weights"], "averaged");
    // The run evaluated the average as well, on the first of the same windows.
    assert!((loss(&averaged.stdout) - best).abs() < (loss(&raw.stdout) - best).abs(), "{best}");

    let text = |flag: &str| folder.run(&format!("generate r -p the -n 40 --temperature 0 --json {flag}")).ok();
    assert!(text("").stderr.contains("weights: averaged (ema_decay 0.99)"));
    assert!(text("--raw-weights").stderr.contains("weights: raw, not averaged"));

    let export = |name: &str, flag: &str| {
        let said = folder.run(&format!("export r {name} --to safetensors {flag}")).ok().stdout;
        let bytes = folder.read(name);
        let written = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        (said, written.tensor("layers.0.mlp.value_param_tokens").unwrap().data().to_vec())
    };
    let checkpoint = Checkpoint::read(&folder.path("r/checkpoints/step-00000020.safetensors")).unwrap();
    let values = |of: &BTreeMap<String, HostTensor>| -> Vec<u8> {
        of["layers.0.mlp.value_param_tokens"].data.iter().flat_map(|x| x.to_le_bytes()).collect()
    };
    let (said, exported) = export("a.safetensors", "");
    assert!(said.contains("averaged (ema_decay 0.99)") && exported == values(&checkpoint.averages), "{said}");
    let (said, exported) = export("b.safetensors", "--raw-weights");
    assert!(said.contains("raw, not averaged") && exported == values(&checkpoint.params), "{said}");
    assert_ne!(checkpoint.params, checkpoint.averages);
    let of_run = |flag: &str| loss(&folder.run(&format!("eval r -d in.txt --json {flag}")).ok().stdout);

    let inspected = folder.run("inspect r").ok().stdout;
    assert!(inspected.contains(" averages of parameters"), "{inspected}");
    let grown = folder.run("grow r grown.safetensors --ffn-slots 40 --json").ok();
    assert_eq!(found(&grown.stdout)["growth"]["max_logit_change"], 0.0);
    assert_eq!(
        loss(&folder.run("eval grown.safetensors -d in.txt --json").ok().stdout),
        of_run(""),
        "growth keeps what the average computes"
    );
    let planned = folder.run("plan --config run.toml --set train.ema_decay=0.99 --json").ok();
    let bytes = &found(&planned.stdout)["stages"][0]["bytes"];
    assert!(planned.stdout.contains("averages") && bytes["averages"] == bytes["parameters"], "{}", planned.stdout);
}

#[test]
fn runs_without_an_average_say_nothing_of_one() {
    let folder = Folder::new();
    folder.train("--out r").ok();
    let ran = folder.run("eval r --json --raw-weights").ok();
    assert!(ran.stdout.starts_with("data ") && found(&ran.stdout)["weights"].is_null(), "{}", ran.stdout);
    let planned = folder.run("plan --config run.toml").ok().stdout;
    assert!(!planned.contains("averages"), "{planned}");
}

#[test]
fn muon_trains_and_is_refused_in_one_sentence_where_it_cannot() {
    let folder = Folder::new();
    let ran = folder.train("--out r --set train.optimizer=muon --json").ok();
    assert!(found(&ran.stdout)["val_loss"].as_f64().unwrap() < 5.0, "{}", ran.stdout);
    let said = folder.train("--out q --set train.optimizer=muon --set train.shard_optimizer=true").refused();
    assert!(said.contains("\"muon\" updates whole matrices") && !folder.path("q").exists(), "{said}");
    let said = folder.train("--out q --set train.optimizer=lion").refused();
    assert!(said.contains("lion") && said.contains("muon"), "{said}");
    let ran = folder.run("train --resume r -n 25 --tune off --set train.optimizer=adamw").ok();
    assert!(ran.stderr.contains("the moments in the checkpoint are dropped"), "{}", ran.stderr);
}

#[test]
fn a_range_test_prints_one_number_and_draws_a_picture() {
    let folder = Folder::new();
    let ran = folder.run("lr-find --config run.toml --picture rates.svg --steps 60 --json").ok();
    let (lines, found) = (ran.stdout.lines().collect::<Vec<_>>(), found(&ran.stdout));
    let printed: f64 = lines[0].parse().unwrap();
    let suggested = found["suggested_lr"].as_f64().unwrap();
    assert!(lines.len() == 2 && (printed / suggested - 1.0).abs() < 0.06, "{}", ran.stdout);
    // AdamW on so small a model: between what changes nothing and what diverges.
    assert!((1e-5..0.5).contains(&suggested) && suggested < found["lowest_loss_lr"].as_f64().unwrap(), "{found}");
    let picture = folder.text("rates.svg");
    assert!(picture.starts_with("<svg ") && picture.contains("smoothed") && picture.contains(lines[0]), "{picture}");
    // Again over its own picture, to the same number; not over somebody else's file, and not into a run.
    assert_eq!(folder.run("lr-find --config run.toml --picture rates.svg --steps 60").ok().stdout.trim(), lines[0]);
    folder.write("mine.svg", "<svg/>");
    assert!(folder.run("lr-find --config run.toml --picture mine.svg").refused().contains("mine.svg"));
    assert_eq!(folder.text("mine.svg"), "<svg/>");
    for (flags, part) in [
        ("--steps 3", "3 steps are no range test"),
        ("--min-lr 0.1 --max-lr 0.01", "--min-lr is 0.1, --max-lr 0.01"),
        ("--min-lr 0", "two numbers above 0"),
    ] {
        let said = folder.run(&format!("lr-find --config run.toml {flags}")).refused();
        assert!(said.contains(part), "{said}");
    }
    // Rates at which nothing changes: batches differ, and that is all.
    let said = folder.run("lr-find --config run.toml --min-lr 1e-20 --max-lr 1e-19 --steps 100").refused();
    assert!(said.contains("--min-lr"), "{said}");
    let names: Vec<String> = std::fs::read_dir(folder.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["in.txt", "run.toml", "rates.svg", "mine.svg", "lr-find.svg"].contains(&name.as_str()))
        .collect();
    assert!(names.is_empty(), "no run was made: {names:?}");
}
