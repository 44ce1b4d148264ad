//! `tokenformer study` and `compare`: what is counted, what is refused, and that a study is the same however often it
//! is run, killed and resumed.
//!
//! The runs are of the real binary. A machine without an adapter fails those tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokenformer::config::{Arch, ModelConfig, RunConfig, TrainConfig};
use tokenformer::kernel::{KernelTable, Target};
use tokenformer::study::budget::{Axis, flops_per_step};
use tokenformer::study::file::Study;
use tokenformer::study::plan::StudyPlan;
use tokenformer::train::cohorts::{self, Stage};
use tokenformer::train::trainer::RunPlans;

/// Three arms, two lengths, two seeds, two rates: ten runs and six trials of some dozens of steps.
const TINY: &str = concat!(
    "
out_dir = 'out'
reference = 'whole'
seeds = [1, 2]
lengths = [{ tokens = 640 }, { flops_of = 'whole' }]
[lr]
trials = [1e-3, 1e-2]
share = 0.5
",
    include_str!("common/tiny-model.toml"),
    "[train]
batch_size = 2
eval_interval = 5
eval_batches = 2
checkpoint_interval = 3
[data]
corpus_sentences = 200
[[arm]]
name = 'whole'
[[arm]]
name = 'grown'
model = { ffn_slot_num = 16 }
[[arm.growth]]
at = 0.5
ffn_slot_num = 32
[[arm]]
name = 'transformer, stacked'
model = { arch = 'transformer' }
[[arm.growth]]
at = 0.25
policy = 'stack'
num_layers = 2
"
);

fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("study");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    })
}

fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenformer"));
    // The second keeps Mesa from complaining where nobody is logged in.
    command.env("TOKENFORMER_CACHE_DIR", cache()).env("XDG_RUNTIME_DIR", cache());
    command.current_dir(dir).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    program(dir, args).output().unwrap()
}

#[track_caller]
fn succeed(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refusal(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
    let sentence = said.lines().find_map(|line| line.strip_prefix("error: ")).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    sentence.to_owned()
}

fn folder(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("study.toml"), text).unwrap();
    dir
}

const STUDY: [&str; 4] = ["study", "study.toml", "--tune", "off"];

/// The results, with the only field that may differ taken out.
fn results(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("out/results.jsonl")).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("wall_seconds");
    }
    lines
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

/// A study that ran through without a break.
fn whole() -> &'static [Value] {
    static WHOLE: OnceLock<Vec<Value>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let dir = folder(TINY);
        let said = succeed(dir.path(), &STUDY);
        assert!(said.contains("| whole | 640 tokens | 40 | 640 |"), "{said}");
        assert!(said.contains("10 runs with 2 seeds") && said.contains("and 6 learning-rate trials"), "{said}");
        assert!(said.contains("comparisons with \"whole\" were made"), "{said}");
        compare_the_runs(dir.path());
        changes_are_refused_or_added(dir.path());
        results(dir.path())
    })
}

/// FLOPs of a step by hand, from the shapes alone. R rows of T a sequence, width C, vocabulary V.
///
/// A projection on N parameter tokens (or N x C weights) is a product of 2 R N C forward and two backward; Pattention
/// has two such (scores, output), a linear layer one. Causal attention has two products of R T C forward and seven
/// backward, where scores are computed again for queries and for keys; half of each is masked, which takes away the 2 of
/// a multiply-add. The head is one product with the embedding, forward and two backward.
///
/// Left out, and so the 1 %: norms, GELU, softmax, rotary, biases, additions, embedding rows, clipping and AdamW. They
/// are not counted by the program either.
fn by_hand(model: &ModelConfig, train: &TrainConfig) -> f64 {
    let rows = (train.batch_size * model.seq_length) as f64;
    let [t, c, v] = [model.seq_length, model.hidden_size, model.vocab_size].map(|n| n as f64);
    let projections = match model.arch {
        Arch::Tokenformer => {
            let slots = 3 * model.qkv_slot_num + model.proj_slot_num + model.ffn_slot_num;
            2.0 * 3.0 * 2.0 * rows * slots as f64 * c
        }
        Arch::Transformer => 3.0 * 2.0 * rows * c * (4.0 * c + 2.0 * model.mlp_width() as f64),
    };
    let attention = (2.0 + 7.0) * rows * t * c;
    let head = 3.0 * 2.0 * rows * c * v;
    let micro = model.num_layers as f64 * (projections + attention) + head;
    micro * train.grad_accum(model).unwrap() as f64
}

#[test]
fn flops_are_those_of_a_hand_count() {
    for preset in ["quickstart", "shakespeare-char", "bench-small"] {
        for arch in [Arch::Tokenformer, Arch::Transformer] {
            let RunConfig { mut model, mut train, .. } = RunConfig::preset(preset).unwrap();
            (model.vocab_size, model.arch) = (65, arch);
            train.total_batch_tokens = 3 * train.batch_size * model.seq_length;
            // Chunks of the head that do not come out even change nothing.
            train.loss_chunk_rows = 100;
            let cohorts = vec![cohorts::first(&model)];
            let stage = Stage { model: model.clone(), cohorts: cohorts.clone() };
            let (counted, hand) = (flops_per_step(&stage, &train).unwrap() as f64, by_hand(&model, &train));
            assert!((counted / hand - 1.0).abs() < 0.01, "{preset} {arch:?}: {counted} by the plan, {hand} by hand");
            let kernels = KernelTable::defaults(Target::WEBGPU);
            let plans = RunPlans::new(&model, &train, &cohorts, 1, &kernels).unwrap();
            assert_eq!(counted as u64, plans.micro.flops() * 3 + plans.update.flops(), "{preset} {arch:?}");
        }
    }
}

fn with_vocabulary(text: &str) -> Study {
    let mut study = Study::from_toml(text).unwrap();
    study.arms.iter_mut().for_each(|arm| arm.config.model.vocab_size = 65);
    study
}

#[test]
fn lengths_end_at_or_just_below_their_budget() {
    let study = with_vocabulary(TINY);
    let plan = StudyPlan::new(&study).unwrap();
    let names: Vec<(&str, u64)> = plan.cases.iter().map(|c| (study.arms[c.arm].name.as_str(), c.steps)).collect();
    // As many FLOPs as itself is no other length.
    assert_eq!(names.iter().filter(|(name, _)| *name == "whole").collect::<Vec<_>>(), [&("whole", 40)]);
    assert_eq!(plan.cases.len(), 5);
    let budget = plan.cases[0].timeline.flops(40);
    for case in plan.cases.iter().filter(|case| case.length.starts_with("the FLOPs of")) {
        let (flops, step) = (case.timeline.flops(case.steps), case.timeline.last_step(Axis::Flops));
        assert!(flops <= budget && flops + 1.01 * step > budget, "{case:?}");
    }
    let grown = &plan.cases[1];
    assert_eq!((grown.timeline.growth_steps[0], grown.parameters[1] - grown.parameters[0]), (20, 2 * 16 * 16));
    let run = plan.run(grown, 0.01, 7).unwrap().config;
    assert_eq!((run.growth[0].at_step, run.train.lr, run.train.min_lr, run.train.seed), (20, 0.01, 0.001, 7));
    // A trial of half the length grows half-way, too.
    assert_eq!((plan.trials(1).unwrap()[0][0].config.growth[0].at_step, run.train.max_steps), (10, 40));
}

#[test]
fn marginal_lengths_count_from_the_last_growth() {
    let text =
        TINY.replace("{ tokens = 640 }, { flops_of = 'whole' }", "{ tokens = 640 }, { marginal_flops_of = 'grown' }");
    let study = with_vocabulary(&text);
    let plan = StudyPlan::new(&study).unwrap();
    let ends = |arm: usize| -> Vec<u64> { plan.cases.iter().filter(|c| c.arm == arm).map(|c| c.steps).collect() };
    // The grown arm has 20 steps of the final size, which the whole one has from its start.
    assert_eq!((ends(0), ends(1)), (vec![40, 20], vec![40]));
}

#[test]
fn shipped_studies_can_be_run() {
    for name in ["quick", "tinyshakespeare"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("studies/{name}.toml"));
        let mut study = Study::read(&path, None).unwrap();
        study.arms.iter_mut().for_each(|arm| arm.config.model.vocab_size = 65);
        let plan = StudyPlan::new(&study).unwrap();
        let reference = &plan.cases[0];
        for arm in 0..study.arms.len() {
            let of = |axis: Axis| {
                plan.cases.iter().filter(move |c| c.arm == arm).map(move |c| c.timeline.at(axis, c.steps).unwrap())
            };
            let near = |axis: Axis| {
                let wanted = reference.timeline.at(axis, reference.steps).unwrap();
                of(axis).any(|end| (end / wanted - 1.0).abs() < 0.01)
            };
            assert!(
                near(Axis::Tokens) && near(Axis::Flops),
                "{name}: arm {arm} has no end at equal tokens and at equal FLOPs"
            );
        }
    }
}

/// What is changed in [`TINY`], to what, and what the sentence about it must contain.
const REFUSED: &[(&str, &str, &[&str])] = &[
    ("seeds = [1, 2]", "seeds = []", &["seeds has 0 entries", "needs 1 to"]),
    ("seeds = [1, 2]", "seeds = [1, 1]", &["seeds has 1 twice"]),
    ("reference = 'whole'", "reference = 'hole'", &["reference is \"hole\"", "use one of \"whole\", \"grown\""]),
    ("name = 'grown'", "name = 'Whole!'", &["arm \"Whole!\" has the name of another one", "rename"]),
    ("name = 'grown'", "name = ''", &["an arm has the name \"\"", "1 to 60"]),
    ("trials = [1e-3, 1e-2]", "trials = []", &["lr.trials has 0 entries", "learning rates"]),
    ("trials = [1e-3, 1e-2]", "trials = [1e-3, -1.0]", &["arm \"whole\": a trial of", "lr is -1", "above 0"]),
    ("share = 0.5", "share = 1.5", &["lr.share is 1.5"]),
    ("tokens = 640", "tokens = 7", &["arm \"whole\": 7 tokens is less than a step of 16 tokens"]),
    ("tokens = 640", "tokens = 640, flops = 1e9", &["lengths has an entry with two keys"]),
    ("flops_of = 'whole'", "flops_of = 'all'", &["arm \"whole\": flops_of is \"all\", but no arm has that name"]),
    ("flops_of = 'whole'", "flops = 1e3", &["1.000 kFLOP is less than a step of", "change the length"]),
    ("lengths = [{ tokens = 640 }, ", "lengths = [", &["the first length of that arm is measured by another one too"]),
    ("at = 0.5", "at_step = 40", &["arm \"grown\": growth 1 is at step 40, but 640 tokens is only 40 steps"]),
    ("at = 0.5", "at = 1.5", &["arm \"grown\": growth.at is 1.5"]),
    ("at = 0.5", "at = 0.5\nat_step = 3", &["both at and at_step"]),
    ("at = 0.5\nffn", "ffn", &["neither at nor at_step"]),
    ("at = 0.5\nffn", "when = 'plateau'\nffn", &["when = \"plateau\"", "must be known before it is trained"]),
    ("at = 0.5\nffn", "at = 0.5\npatience = 3\nffn", &["arm \"grown\": growth 1 has patience 3", "leave patience out"]),
    (
        "at = 0.5\nffn_slot_num = 32",
        "at = 0.5\nffn_slot_num = 8",
        &["arm \"grown\": growth 1: growth to 8 ffn slots from 16"],
    ),
    ("at = 0.5\nffn_slot_num = 32", "at = 0.5\nffn_slots = 32", &["arm \"grown\"", "nearest key is \"ffn_slot_num\""]),
    ("policy = 'stack'", "policy = 'copy'", &["arm \"transformer, stacked\": growth 1", "no parameter tokens"]),
    (
        "num_layers = 2",
        "num_layers = 1",
        &["growth 1: the growth adds no layers: ask for num_layers (--layers) above 1"],
    ),
    ("model = { ffn_slot_num = 16 }", "train = { batch_size = 4 }", &["arm \"grown\": train.batch_size is set"]),
    ("model = { ffn_slot_num = 16 }", "train = { lr = 4 }", &["arm \"grown\": train.lr is set", "[lr]"]),
    ("model = { ffn_slot_num = 16 }", "train = { lr_schedule = 'constant' }", &["never decays"]),
    ("batch_size = 2", "batch_size = 2\nseed = 4", &["train.seed is set", "see [lr] and seeds", "data.corpus_seed"]),
    ("batch_size = 2", "batch_size = 2\nmax_steps = 4", &["train.max_steps is set, but follows from the lengths"]),
    ("batch_size = 2", "batch_size = 2\nlr = 4.0", &["train.lr is set", "see [lr]", "beside train.min_lr"]),
    ("[model]", "[modle]", &["unknown key \"modle\"", "nearest key"]),
    ("share = 0.5", "share = 'half'", &["lr.share is the string \"half\", but must be a number"]),
    ("name = 'grown'", "nam = 'grown'", &["unknown key \"nam\" in [arm]: the nearest key is \"name\""]),
];

#[test]
fn the_impossible_is_refused_before_anything_runs() {
    for (was, is, said) in REFUSED {
        assert!(TINY.contains(was), "{was}");
        let dir = folder(&TINY.replacen(was, is, 1));
        let sentence = refusal(dir.path(), &STUDY);
        assert!(said.iter().all(|part| sentence.contains(part)), "{is}: {sentence}");
        assert!(!dir.path().join("out").exists(), "{is}");
    }
    let dir = folder(TINY);
    assert!(refusal(dir.path(), &["study", "nowhere.toml"]).contains("cannot read nowhere.toml"));
    assert!(refusal(dir.path(), &["study", "study.toml", "--data", "no.txt"]).contains("no.txt"));
    fs::write(dir.path().join("latin1.toml"), b"caf\xe9").unwrap();
    let said = refusal(dir.path(), &["study", "latin1.toml"]);
    assert!(said.contains("latin1.toml is not UTF-8") && said.ends_with("give another file"), "{said}");
}

#[test]
fn a_dry_run_shows_the_budgets_and_touches_nothing() {
    let dir = folder(TINY);
    let mut command = program(dir.path(), &["study", "study.toml", "--dry-run"]);
    // No adapter is looked for.
    let output = command.env("WGPU_ADAPTER_NAME", "none of this name").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for part in ["| grown |", "| FLOPs after growth |", " \u{2192} ", "the FLOPs of \"whole\"", "10 runs with 2 seeds"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_study_is_complete_and_the_same_twice() {
    let first = whole();
    assert_eq!(of_kind(first, "trial").len(), 6);
    assert_eq!(of_kind(first, "trial").iter().filter(|line| line["chosen"] == true).count(), 3);
    let runs = of_kind(first, "run");
    assert_eq!(runs.len(), 10);
    for run in &runs {
        let (steps, curve) = (run["steps"].as_u64().unwrap(), run["curve"].as_array().unwrap());
        assert_eq!((curve[0]["step"].as_u64(), curve.last().unwrap()["step"].as_u64()), (Some(0), Some(steps)));
        assert_eq!(curve.last().unwrap()["val_loss"], run["val_loss"]);
        let grown = run["growths"].as_array().unwrap().len();
        assert_eq!(grown, usize::from(run["arm"] != "whole"));
    }
    // The same seed is the same initial model where two arms start alike, and another seed is another one.
    let start = |arm: &str, seed: u64| {
        let mut all = runs.iter().filter(|run| run["arm"] == arm && run["seed"] == seed);
        all.next().unwrap()["curve"][0]["val_loss"].clone()
    };
    assert_ne!(start("whole", 1), start("whole", 2));
    let grown = runs.iter().find(|run| run["arm"] == "grown").unwrap();
    assert_eq!(grown["growths"][0]["record"]["max_logit_change"], 0.0);
    // A digest of a file that names its directory would differ from study to study.
    assert_eq!(grown["growths"][0]["record"]["before"], Value::Null);
    assert_eq!(
        (&grown["growths"][0]["spike"], &grown["growths"][0]["recovery_tokens"]),
        (&Value::from(0.0), &Value::from(0.0))
    );
    assert!(of_kind(first, "comparison").iter().any(|line| line["interval_95"].is_array()));

    let dir = folder(TINY);
    succeed(dir.path(), &STUDY);
    assert_eq!(results(dir.path()), first);
}

#[test]
fn a_report_replaces_no_other_file() {
    let dir = folder(TINY);
    for name in ["report.md", "report.html", "results.jsonl"] {
        let (mine, path) = ("{\"kind\": \"mine\"}\n", dir.path().join("out").join(name));
        fs::create_dir_all(dir.path().join("out")).unwrap();
        fs::write(&path, mine).unwrap();
        for args in [&STUDY[..], &["compare", "a", "b", "--out", "out"]] {
            let said = refusal(dir.path(), args);
            assert!(said.contains(name) && said.contains("choose another --out"), "{said}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), mine);
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
}

#[test]
fn a_killed_study_goes_on_to_the_same_results() {
    let whole = whole();
    let dir = folder(TINY);
    let mut kills = 0;
    // Each time a little later, so that trials, runs and what lies between them are hit.
    for finished_runs in [1, 4, 7, 11, 14] {
        let mut child = program(dir.path(), &STUDY).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = || count(&dir.path().join("out/runs"));
        let patience = Instant::now();
        while begun() < finished_runs && child.try_wait().unwrap().is_none() {
            assert!(patience.elapsed() < Duration::from_secs(300), "nothing happens");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(30));
        kills += u32::from(child.try_wait().unwrap().is_none());
        // SIGKILL on Unix.
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!dir.path().join("out/results.jsonl").exists());
    }
    assert_eq!(kills, 5);
    let before = fs::read(dir.path().join("out/runs/whole/steps-20-lr-1e-3-seed-1/metrics.jsonl")).unwrap();
    succeed(dir.path(), &STUDY);
    assert_eq!(results(dir.path()), whole);
    let after = fs::read(dir.path().join("out/runs/whole/steps-20-lr-1e-3-seed-1/metrics.jsonl")).unwrap();
    assert_eq!(before, after, "a finished run is not run again");
}

/// Directories of runs that were begun.
fn count(runs: &Path) -> usize {
    let entries =
        |dir: &Path| fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    entries(runs).iter().flat_map(|arm| entries(arm)).filter(|run| run.join("config.toml").exists()).count()
}

/// `compare` on runs of a study, which are runs like others.
fn compare_the_runs(dir: &Path) {
    let runs = |arm: &str| -> Vec<String> {
        let mut found: Vec<String> = fs::read_dir(dir.join("out/runs").join(arm))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("steps-40-"))
            .map(|name| format!("out/runs/{arm}/{name}"))
            .collect();
        found.sort();
        found
    };
    let (whole, grown) = (runs("whole"), runs("grown"));
    let mut args = vec!["compare".to_owned()];
    args.extend(whole.iter().map(|run| format!("base={run}")));
    args.extend(grown.clone());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let said = succeed(dir, &args);
    assert!(said.contains("comparisons with \"base\" were made, over up to 2 paired seeds"), "{said}");
    let page = fs::read_to_string(dir.join("comparison/report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("TokenFormer, width 16") && !page.contains("<script"));
    let report = fs::read_to_string(dir.join("comparison/report.md")).unwrap();
    assert!(report.contains("\u{2192} 1 layers of 16/16/32 tokens") && report.contains("## Growths"), "{report}");
    // FLOPs are put together again from metrics and settings.
    let text = fs::read_to_string(dir.join("comparison/results.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let study = results(dir);
    let flops = |lines: &[Value], arm: &str| {
        let all = of_kind(lines, "budget").into_iter().find(|line| line["arm"] == arm && line["steps"] == 40).unwrap();
        all["flops"].clone()
    };
    assert_eq!(flops(&lines, "base"), flops(&study, "whole"));
    let name = grown[0].rsplit('/').next().unwrap();
    assert_eq!(flops(&lines, name), flops(&study, "grown"));

    let twice = refusal(dir, &["compare", &whole[0], &whole[0]]);
    assert!(twice.contains("another run with seed 1 of the same arm"), "{twice}");
    let none = refusal(dir, &["compare", &whole[0], "--reference", "x"]);
    assert!(none.contains("--reference is \"x\""), "{none}");
    assert!(refusal(dir, &["compare", "out"]).contains("config.toml"));
    let inside = refusal(dir, &["compare", &whole[0], "--out", &whole[0]]);
    assert!(inside.contains("is the directory of a run"), "{inside}");
    let inside = refusal(dir, &["compare", &whole[0], "--out", "out"]);
    assert!(inside.contains("is the directory of a study"), "{inside}");
    succeed(dir, &args);
}

/// A growth costs the same whether the run made it or `grow`, in a file that another run goes on with; and a pruned run is
/// not compared, as nothing tells what it cost before.
#[test]
fn a_growth_in_a_file_costs_what_one_in_a_run_does() {
    let model = concat!(
        include_str!("common/tiny-model.toml"),
        "[train]\nbatch_size = 2\nmax_steps = 12\neval_interval = 3\neval_batches = 2\n[data]\ncorpus_sentences = 200\n"
    );
    let dir = folder("");
    let dir = dir.path();
    fs::write(dir.join("run.toml"), model).unwrap();
    let train = ["train", "--config", "run.toml", "--tune", "off", "--out"];
    let also = |more: &[&'static str]| [&train[..], more].concat();
    succeed(dir, &also(&["inside", "--set", "growth=[{at_step=6,ffn_slot_num=64}]"]));
    succeed(dir, &also(&["start", "--steps", "6"]));
    succeed(dir, &["grow", "start", "grown.safetensors", "--ffn-slots", "64"]);
    succeed(dir, &["train", "--resume", "grown.safetensors", "--steps", "12", "--out", "file", "--tune", "off"]);
    succeed(dir, &["compare", "inside=inside", "file=file"]);
    let text = fs::read_to_string(dir.join("comparison/results.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |arm: &str, key: &str| {
        let budget = of_kind(&lines, "budget").into_iter().find(|line| line["arm"] == arm).unwrap();
        budget[key].clone()
    };
    for key in ["growth_steps", "flops", "tokens", "flops_after_growth", "tokens_after_growth", "flops_per_step"] {
        assert_eq!(of("file", key), of("inside", key), "{key}");
    }
    succeed(dir, &["prune", "inside", "small.safetensors", "--ffn-slots", "32"]);
    succeed(dir, &["train", "--resume", "small.safetensors", "--steps", "15", "--out", "pruned", "--tune", "off"]);
    let refused = refusal(dir, &["compare", "inside=inside", "pruned=pruned"]);
    assert!(refused.starts_with("pruned was pruned at step 12"), "{refused}");
}

/// A study that changed is refused, one with more seeds goes on.
fn changes_are_refused_or_added(dir: &Path) {
    let before = results(dir);
    let study = |text: &str| fs::write(dir.join("study.toml"), text).unwrap();
    study(&TINY.replace("eval_batches = 2", "eval_batches = 1"));
    let said = refusal(dir, &STUDY);
    assert!(said.contains("was run with other settings (train.eval_batches was 2 and is 1)"), "{said}");
    assert!(said.contains("--overwrite"), "{said}");
    study(&TINY.replace("corpus_sentences = 200", "corpus_sentences = 300"));
    assert!(refusal(dir, &STUDY).contains("data.corpus_sentences was 200 and is 300"));
    fs::write(dir.join("a.txt"), "ab ".repeat(300)).unwrap();
    assert!(refusal(dir, &[&STUDY[..], &["--data", "a.txt"]].concat()).contains("other"));
    study(&TINY.replace("seeds = [1, 2]", "seeds = [1, 2, 3]"));
    succeed(dir, &STUDY);
    let more = results(dir);
    assert_eq!(of_kind(&more, "run").len(), 15);
    let old: Vec<&Value> = of_kind(&more, "run").into_iter().filter(|run| run["seed"] != 3).collect();
    assert_eq!(old, of_kind(&before, "run"));
    study(TINY);
    succeed(dir, &STUDY);
    assert_eq!(results(dir), before);
}
