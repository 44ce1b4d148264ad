//! How long a run is, by tokens, epochs and the clock; and its best model.

use crate::program::Folder;
use serde_json::Value;
use std::fs;
use tokenformer::train::{Checkpoint, Store};

#[test]
fn a_run_has_a_budget() {
    let folder = Folder::new();
    let steps = |args: &str| {
        let shown = folder.run(&format!("train --config run.toml {args} --dry-run")).ok().stdout;
        shown.lines().find_map(|line| line.strip_prefix("max_steps = ").map(|n| n.parse::<u64>().unwrap())).unwrap()
    };
    // Updates of 4 x 16 tokens.
    assert_eq!([steps("--tokens 640"), steps("--tokens 641"), steps("--tokens 1.5k")], [10, 11, 24]);
    let tokens = |path: &str| folder.run(&format!("inspect {path} --json")).ok().stdout;
    folder.train("--epochs 0.05 --out r").ok();
    let found: Value = serde_json::from_str(tokens("r").lines().last().unwrap()).unwrap();
    assert_eq!(found["step"], steps("--epochs 0.05"), "{found}");
    let said = folder.run("train --resume r --epochs 0.05").ok().stderr;
    assert!(said.contains("and is complete"), "{said}");
    folder.run("train --resume r --tune off --epochs 0.06").ok();
    for (args, said) in [
        ("--epochs 0", "--epochs is 0, but must be above 0"),
        ("--epochs 2 --steps 3", "cannot be used with"),
        ("--tokens 0", "is no number of tokens from 1 to"),
        ("--set train.patience=2 --set train.eval_interval=0", "patience is 2, but eval_interval is 0"),
    ] {
        let refused = folder.run(&format!("train --config run.toml --out s {args}"));
        assert!(refused.code != 0 && refused.stderr.contains(said), "{args}: {}", refused.stderr);
    }
    // A rate at which nothing is learnt.
    let idle = "--lr 1e-30 --set train.min_lr=0 --set train.patience=2 --set train.eval_interval=5 --steps 100";
    let said = folder.train(&format!("{idle} --out p")).ok().stderr;
    assert!(
        said.contains("no lower validation loss in 2 evaluations") && said.contains("after step 10 of 100"),
        "{said}"
    );
    assert!(folder.path("p/checkpoints/step-00000010.safetensors").exists());
}

/// The lines of a run's metrics of a kind.
fn lines(folder: &Folder, run: &str, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.path(&format!("{run}/metrics.jsonl"))).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|line| line["kind"] == kind).collect()
}

#[test]
fn a_run_ends_by_the_clock_at_the_end_of_its_schedule() {
    let folder = Folder::new();
    let number = |line: &Value, name: &str| line[name].as_f64().unwrap();
    // Ends of first and last step, and the longest step or pause between, in seconds.
    let course = |run: &str| {
        let ends: Vec<f64> = lines(&folder, run, "train").iter().map(|line| number(line, "seconds")).collect();
        let longest = ends.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
        (ends[0], *ends.last().unwrap(), longest)
    };
    // A software driver compiles for longer than that the first time.
    folder.train("--steps 1 --set train.eval_interval=1 --out warm").ok();
    let said = folder.train("--max-time 3s --set train.min_lr=1e-4 --set train.eval_interval=5 --out r").ok().stderr;
    assert!(said.contains("run: 3 s, each of"), "{said}");
    let (first, last, longest) = course("r");
    assert!(last - first > 2.0 - longest && last - first < 3.0 + 2.0 * longest, "{first} to {last}, at most {longest}");
    let train = lines(&folder, "r", "train");
    let rates: Vec<f64> = train.iter().map(|line| number(line, "lr")).collect();
    assert_eq!(rates.last(), Some(&1e-4), "{rates:?}");
    assert_eq!(rates.iter().filter(|rate| **rate == 1e-4).count(), 1, "{rates:?}");
    let (step, file) = Store::new(folder.path("r")).list().unwrap().pop().unwrap();
    assert_eq!(Some(step), train.last().unwrap()["step"].as_u64());
    assert!(Checkpoint::read(&file).unwrap().meta.seconds >= 3.0);

    let said = folder.run("train --resume r --tune off").ok().stderr;
    assert!(said.contains("has trained 3 s, all of its time, and is complete: give it more with --max-time"), "{said}");
    folder.run("train --resume r --tune off --max-time 4s").ok();
    let more = lines(&folder, "r", "train");
    assert!(more.len() > train.len() && more.last().unwrap()["lr"] == 1e-4);
    assert_eq!(more[..train.len()], train);

    // Whichever comes first.
    folder.train("--max-time 1h --steps 4 --out s").ok();
    assert_eq!(lines(&folder, "s", "train").len(), 4);
    for (args, said) in [
        ("--max-time 5", "\"5\" is no length of time: give a number and a unit, such as 300s, 5m or 1h30m"),
        ("--max-time=-5m", "no length of time"),
        ("--set train.max_seconds=-1", "max_seconds is -1, but"),
    ] {
        let refused = folder.run(&format!("train --config run.toml --out t {args}"));
        assert!(refused.code != 0 && refused.stderr.contains(said), "{args}: {}", refused.stderr);
    }
}

#[test]
fn a_run_goes_on_from_its_best_model() {
    let folder = Folder::new();
    folder.train("--steps 12 --set train.eval_interval=4 --out r").ok();
    let best = Checkpoint::read(&Store::new(folder.path("r")).best()).unwrap().meta.step;
    let named =
        |args: &str| folder.run(args).ok().stdout.lines().last().map(|line| serde_json::from_str(line).unwrap());
    let found: Value = named("inspect r@best --json").unwrap();
    assert_eq!(found["step"], best);
    folder.run("eval r@best").ok();
    folder.run("generate r@best --tokens 3").ok();
    folder.run("train --resume r@best --tune off --steps 20 --out s").ok();
    assert_eq!(lines(&folder, "s", "train")[0]["step"], best + 1);
    // Steps of the run after it are not thrown away.
    if best < 12 {
        let said = folder.run("train --resume r@best --tune off --steps 20").refused();
        assert!(said.contains("later than step") && said.contains("--out"), "{said}");
    }
    fs::remove_file(Store::new(folder.path("r")).best()).unwrap();
    for args in ["eval r@best", "train --resume r@best"] {
        let said = folder.run(args).refused();
        assert!(said.contains("r has kept no best checkpoint: leave @best out"), "{args}: {said}");
    }
}

/// As one that was killed right after its last checkpoint.
#[test]
fn a_complete_run_makes_up_for_what_it_had_no_time_for() {
    let folder = Folder::new();
    folder.train("--steps 12 --set train.eval_interval=4 --out r").ok();
    let last = Store::new(folder.path("r")).list().unwrap().pop().unwrap().1;
    assert_eq!(Checkpoint::read(&last).unwrap().meta.best_step, Some(12), "the last model is the best here");
    let [best, page] =
        ["r/checkpoints/best.safetensors", "r/report.html"].map(|file| (folder.path(file), folder.read(file)));
    let resume = || folder.run("train --resume r --tune off").ok();
    resume();
    let is_as_it_was = || [&best, &page].map(|(path, bytes)| fs::read(path).is_ok_and(|found| found == *bytes));
    assert_eq!(is_as_it_was(), [true; 2]);
    fs::remove_file(&best.0).unwrap();
    fs::write(&page.0, folder.text("r/report.html").replace("Step 12", "Step 8")).unwrap();
    assert_eq!(is_as_it_was(), [false; 2]);
    resume();
    assert_eq!(is_as_it_was(), [true; 2]);
    // Neither somebody's own page nor a run that keeps no best model is touched.
    fs::write(&page.0, "mine").unwrap();
    assert!(resume().stderr.contains("report.html is no report of this program"));
    assert_eq!(fs::read_to_string(&page.0).unwrap(), "mine");
}
