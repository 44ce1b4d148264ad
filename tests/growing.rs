//! Growths on a plateau and the way back from a growth, in runs on real text: the same files, byte for byte, wherever a
//! run was stopped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{device, tinyshakespeare};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tokenformer::config::{
    GrowthConfig, GrowthPolicy, GrowthWhen, LrSchedule, ModelConfig, PlateauRule, RunConfig, TrainConfig,
};
use tokenformer::data::Dataset;
use tokenformer::train::disk::{Start, dataset};
use tokenformer::train::{self, Checkpoint, Store, Summary};

/// Steps of a run.
const STEPS: usize = 24;
/// Steps between its evaluations.
const INTERVAL: u64 = 2;

/// Runs that all have the same directory, one after the other, so that their files can be the same bytes.
struct Place {
    dir: tempfile::TempDir,
    data: Dataset,
    config: RunConfig,
}

impl Place {
    /// `None`, with a word about it, where the text is not there.
    fn new() -> Option<Self> {
        let text = tinyshakespeare()?;
        let dir = tempfile::tempdir().unwrap();
        let mut config = RunConfig { out_dir: dir.path().join("run"), ..RunConfig::default() };
        config.data.path = Some(text);
        config.model = ModelConfig {
            num_layers: 1,
            hidden_size: 16,
            num_attention_heads: 2,
            seq_length: 16,
            qkv_slot_num: 16,
            proj_slot_num: 16,
            ffn_slot_num: 32,
            ..ModelConfig::default()
        };
        config.train = TrainConfig {
            batch_size: 4,
            max_steps: STEPS,
            lr: 1e-2,
            // The same steps whatever their number.
            lr_schedule: LrSchedule::Constant,
            warmup_fraction: 0.0,
            eval_interval: INTERVAL as usize,
            eval_batches: 4,
            sample_interval: 7,
            sample_tokens: 8,
            checkpoint_interval: 1,
            keep_last: 100,
            // What is compared is step for step.
            keep_best: false,
            ..TrainConfig::default()
        };
        let data = dataset(&config, None).unwrap();
        config.model.resolve_vocab(data.vocab_size).unwrap();
        Some(Self { dir, data, config })
    }

    fn run(&self, config: &RunConfig, start: Start) -> Summary {
        config.validate().unwrap();
        fs::create_dir_all(&config.out_dir).unwrap();
        train::run(device(), config, &self.data, start, &AtomicBool::new(false)).unwrap()
    }

    /// A new run with `growth`; its files afterwards, which are moved away.
    fn fresh(&self, growth: &[GrowthConfig], name: &str) -> (Summary, PathBuf) {
        let config = RunConfig { growth: growth.to_vec(), ..self.config.clone() };
        let summary = self.run(&config, Start::fresh(&config));
        (summary, self.aside(name))
    }

    /// Goes on from `file` with the growths that are still to come, or others; its files, moved away.
    fn resumed(&self, file: &Path, growth: Option<&[GrowthConfig]>, name: &str) -> PathBuf {
        let (mut start, mut config) = Start::resumed(Checkpoint::read(file).unwrap()).unwrap();
        config.train.max_steps = STEPS;
        config.growth = growth.map_or(config.growth, <[_]>::to_vec);
        start.standing.growths_left = config.growth.len();
        self.run(&config, start);
        self.aside(name)
    }

    /// Moves the directory of the runs away, so that the next one has it to itself.
    fn aside(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        fs::rename(&self.config.out_dir, &to).unwrap();
        to
    }

    /// Puts into the directory of the runs what `from` held when its process was killed: with checkpoints up to `step`,
    /// `torn` with what was written from before a growth at that very step as well.
    fn as_of(&self, step: u64, torn: bool, from: &Path) -> PathBuf {
        let to = self.config.out_dir.join("checkpoints");
        fs::create_dir_all(&to).unwrap();
        fs::copy(from.join("metrics.jsonl"), self.config.out_dir.join("metrics.jsonl")).unwrap();
        for name in files(from).into_keys() {
            let (kind, at) = name.trim_end_matches(".safetensors").rsplit_once('-').unwrap();
            let at: u64 = at.parse().unwrap();
            if at < step || at == step && (kind == "step" || torn) {
                fs::copy(from.join("checkpoints").join(&name), to.join(&name)).unwrap();
            }
        }
        to.join(format!("step-{step:08}.safetensors"))
    }
}

/// The checkpoints of a run by name.
fn files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// The metrics of a run that goes on after `step`, without what depends on the clock and on where the run stopped.
fn curve(run: &Path, step: u64) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // It evaluates and grows after that step once more.
    let again = |line: &serde_json::Value| line["kind"] == "eval" || line["kind"] == "growth";
    let later = |line: &serde_json::Value| line["step"].as_u64().unwrap() >= step + u64::from(!again(line));
    lines.retain(|line| line["kind"] != "run" && later(line));
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("seconds")));
    lines
}

#[track_caller]
fn assert_same(a: &Path, b: &Path, what: &str) {
    assert_eq!(curve(a, 0), curve(b, 0), "{what}");
    let (a, b) = (files(a), files(b));
    assert!(a.keys().eq(b.keys()), "{what}: {:?} and {:?}", a.keys(), b.keys());
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{what}: {name} differs");
    }
}

/// Nats per token within two evaluations: the loss falls by more at first, and by less after some steps.
const MIN_DELTA: f64 = 0.36;

/// Where two evaluations in a row are no improvement.
fn on_a_plateau(ffn: usize) -> GrowthConfig {
    let rule = GrowthConfig { patience: Some(2), min_delta: Some(MIN_DELTA), ..GrowthConfig::default() };
    GrowthConfig { when: GrowthWhen::Plateau, ffn_slot_num: Some(ffn), ..rule }
}

/// The step at which a run with [`on_a_plateau`] after `from` grows, by its losses.
fn expected(losses: &[(u64, f64)], from: Option<u64>) -> u64 {
    let mut later = losses.iter().filter(|(step, _)| from.is_none_or(|from| *step > from));
    let (mut best, mut flat) = (later.next().unwrap().1, 0);
    for (step, loss) in later {
        (best, flat) = if *loss < best - MIN_DELTA { (*loss, 0) } else { (best, flat + 1) };
        if flat == 2 {
            return *step;
        }
    }
    panic!("no plateau in {losses:?}");
}

#[test]
fn a_run_grows_on_its_plateaus_at_the_same_steps_wherever_it_was_killed() {
    let Some(place) = Place::new() else { return };
    // In the order of the file: the last one waits for the second, however early its own step.
    let at_step =
        GrowthConfig { at_step: 1, num_layers: Some(2), policy: GrowthPolicy::Identity, ..GrowthConfig::default() };
    let growths = [on_a_plateau(48), on_a_plateau(64), at_step];
    let (summary, straight) = place.fresh(&growths, "straight");
    let evals = curve(&straight, 0).into_iter().filter(|line| line["kind"] == "eval");
    let losses: Vec<(u64, f64)> =
        evals.map(|line| (line["step"].as_u64().unwrap(), line["val_loss"].as_f64().unwrap())).collect();
    let first = expected(&losses, None);
    let second = expected(&losses, Some(first));
    println!("losses {losses:?}");
    let grown: Vec<u64> = summary.growths.iter().map(|record| record.at_step).collect();
    assert_eq!(grown, [first, second, second + 1]);
    assert!(first > 2 * INTERVAL, "the loss of the first steps falls: {losses:?}");
    assert_eq!(summary.growths[0].rules.plateau(), Some(PlateauRule { patience: 2, min_delta: MIN_DELTA }));
    assert!(summary.growths[2].rules.plateau().is_none());
    for step in [1, first - INTERVAL, first - 1, first, first + 1, second, second + 1, STEPS as u64 - 1] {
        for torn in [false, true] {
            let file = place.as_of(step, torn, &straight);
            let again = place.resumed(&file, None, &format!("after-{step}-{torn}"));
            assert_same(&again, &straight, &format!("resumed after {step}"));
        }
    }
}

#[test]
fn the_evaluation_at_the_end_of_a_run_that_goes_on_counts_once() {
    let Some(place) = Place::new() else { return };
    let growths = [on_a_plateau(48)];
    let (summary, straight) = place.fresh(&growths, "straight");
    let grown = summary.growths[0].at_step;
    // At the end, one evaluation before the plateau is seen.
    let end = grown - INTERVAL;
    let mut short = RunConfig { growth: growths.to_vec(), ..place.config.clone() };
    short.train.max_steps = end as usize;
    assert!(place.run(&short, Start::fresh(&short)).growths.is_empty());
    let file = place.config.out_dir.join(format!("checkpoints/step-{end:08}.safetensors"));
    let longer = place.resumed(&file, None, "longer");
    let last = format!("step-{STEPS:08}.safetensors");
    assert!(files(&longer)[&last] == files(&straight)[&last]);
}

#[test]
fn a_plateau_that_comes_too_early_or_never_makes_nothing_grow() {
    let Some(place) = Place::new() else { return };
    let (_, plain) = place.fresh(&[], "plain");
    let late = [GrowthConfig { at_step: STEPS - 1, ..on_a_plateau(48) }];
    let patient = [GrowthConfig { patience: Some(50), ..on_a_plateau(48) }];
    for (name, growth) in [("late", &late), ("patient", &patient)] {
        let (summary, run) = place.fresh(growth, name);
        assert!(summary.growths.is_empty());
        assert_eq!(curve(&run, 0), curve(&plain, 0));
        let meta = Store::new(&run).latest().unwrap().found.unwrap().1.meta;
        assert_eq!(meta.config["growth"].as_array().unwrap().len(), 1, "it is still to come");
    }
    let soon = [GrowthConfig { at_step: 17, ..on_a_plateau(48) }];
    let (summary, _) = place.fresh(&soon, "soon");
    assert_eq!(summary.growths[0].at_step, 18, "the first evaluation from step 17 on");
}

#[test]
fn a_growth_can_be_undone_and_done_again() {
    let Some(place) = Place::new() else { return };
    let (_, never) = place.fresh(&[], "never");
    let at_step = GrowthConfig { at_step: 9, ffn_slot_num: Some(48), ..GrowthConfig::default() };
    for (name, growth) in [("plateau", on_a_plateau(48)), ("step", at_step)] {
        let (summary, grown) = place.fresh(std::slice::from_ref(&growth), name);
        let record = &summary.growths[0];
        let (step, before) = (record.at_step, record.file_before.clone().unwrap());
        assert_eq!(before.name, format!("before-growth-{step:08}.safetensors"));
        let file = grown.join("checkpoints").join(&before.name);
        let bytes = fs::read(&file).unwrap();
        let digits: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(before.sha256, digits);
        assert!(bytes == files(&grown)[&format!("step-{step:08}.safetensors")], "the checkpoint of that step");
        let stored = Store::new(&grown).latest().unwrap().found.unwrap().1.meta.lineage;
        assert_eq!(stored[0].file_before.as_ref(), Some(&before));

        let undone = place.resumed(&file, Some(&[]), &format!("{name}-undone"));
        assert_eq!(curve(&undone, 0), curve(&never, step), "{name}");
        for (name, bytes) in files(&undone) {
            assert!(bytes == files(&never)[&name], "{name} differs");
        }
        let again = place.resumed(&file, None, &format!("{name}-again"));
        assert_eq!(curve(&again, 0), curve(&grown, step), "{name}");
        for (name, bytes) in files(&again) {
            assert!(bytes == files(&grown)[&name], "{name} differs");
        }
        assert!(again.join("checkpoints").join(&before.name).exists());
    }
}
