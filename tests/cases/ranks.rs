//! Several ranks: the same file as of one, faults, and what is refused. With the feature `mpi` and Open MPI's `mpirun`.

use crate::program::{Folder, Ran, done};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A run that grows between two checkpoints, whose updates four ranks can share out; its gradients travel in two buckets.
const SETTINGS: &str = r#"
[model]
num_layers = 2
hidden_size = 64
num_attention_heads = 2
seq_length = 16
qkv_slot_num = 64
proj_slot_num = 64
ffn_slot_num = 128
[data]
path = "in.txt"
[train]
batch_size = 2
total_batch_tokens = 128
gradient_leaves = 4
max_steps = 12
warmup_fraction = 0.0
eval_interval = 6
eval_batches = 2
checkpoint_interval = 4
sample_tokens = 0
[[growth]]
at_step = 6
ffn_slot_num = 160
"#;
const LAST: &str = "run/checkpoints/step-00000012.safetensors";

/// A folder with a text and such a run.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("ranks.toml", SETTINGS);
    folder
}

const TRAIN: &str = "train --config ranks.toml --tune=off --out run";

/// The program on so many ranks, each with its arguments.
fn ranks(folder: &Folder, each: &[(usize, &str)]) -> Command {
    let mut command = Command::new("mpirun");
    for (variable, value) in folder.command("").get_envs() {
        command.env(variable, value.unwrap_or_default());
    }
    // Four ranks on two cores, in a container, as root.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none").arg("--oversubscribe");
    for (i, (count, args)) in each.iter().enumerate() {
        command.args((i > 0).then_some(":")).args(["-n", &count.to_string()]);
        command.arg(env!("CARGO_BIN_EXE_tokenformer")).args(args.split_whitespace());
    }
    command.current_dir(folder.path(".")).stdin(Stdio::null());
    command
}

/// The same arguments on all of them.
fn on(folder: &Folder, count: usize, args: &str) -> Ran {
    if count == 1 { folder.run(args) } else { done(&mut ranks(folder, &[(count, args)])) }
}

/// The one sentence that all ranks end with.
fn refusal(ran: &Ran) -> String {
    assert!(ran.code != 0, "{}{}", ran.stdout, ran.stderr);
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{}", ran.stderr);
    errors[0].to_owned()
}

/// Leaves of the run what it was before its growth.
fn undo(folder: &Folder) {
    for file in ["best", "step-00000008", "step-00000012"] {
        let _ = std::fs::remove_file(folder.path(&format!("run/checkpoints/{file}.safetensors")));
    }
    assert!(folder.path("run/checkpoints/before-growth-00000006.safetensors").exists());
}

#[test]
fn any_number_of_ranks_writes_the_same_file() {
    for options in ["", " --recompute", " --set train.shard_optimizer=true"] {
        let args = format!("{TRAIN}{options}");
        let alone = folder();
        alone.run(&args).ok();
        let expected = alone.read(LAST);
        for count in if options.is_empty() { &[2, 4][..] } else { &[2] } {
            let several = folder();
            on(&several, *count, &args).ok();
            assert!(several.read(LAST) == expected, "{count} ranks{options}");
            assert_eq!(several.text("run/config.toml"), alone.text("run/config.toml"));
        }
        // From before the growth on, with another number.
        undo(&alone);
        on(&alone, if options.is_empty() { 4 } else { 2 }, "train --resume run --tune=off").ok();
        assert!(alone.read(LAST) == expected, "resumed{options}");
    }
}

#[test]
fn moments_that_were_shared_out_are_resumed_by_one() {
    let sharded = folder();
    on(&sharded, 4, &format!("{TRAIN} --set train.shard_optimizer=true")).ok();
    let expected = sharded.read(LAST);
    undo(&sharded);
    on(&sharded, 1, "train --resume run --tune=off").ok();
    assert!(sharded.read(LAST) == expected);
}

#[test]
fn gradients_in_half_precision_train_alike() {
    let (exact, half) = (folder(), folder());
    on(&exact, 2, TRAIN).ok();
    on(&half, 2, &format!("{TRAIN} --set train.transfer_precision=f16")).ok();
    let losses = |folder: &Folder| last_loss(&folder.text("run/metrics.jsonl"));
    assert!((losses(&exact) - losses(&half)).abs() < 1e-3);
    assert!(exact.read(LAST) != half.read(LAST), "it is said to change bits");
}

fn last_loss(metrics: &str) -> f64 {
    let line = metrics.lines().rfind(|line| line.contains("val_loss")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["val_loss"].as_f64().unwrap()
}

#[test]
fn adapters_of_other_bits_train_together_only_where_that_is_wanted() {
    let folder = folder();
    let [vulkan, gl] = ["vulkan", "gl"].map(|backend| format!("{TRAIN} --backend {backend}"));
    let said = refusal(&done(&mut ranks(&folder, &[(1, &vulkan), (1, &gl)])));
    assert!(said.starts_with("error: adapter: rank 1 has") && said.ends_with("with --mixed"), "{said}");
    assert!(!folder.path("run").exists(), "nothing was written");
    let [vulkan, gl] = [vulkan, gl].map(|args| format!("{args} --mixed"));
    done(&mut ranks(&folder, &[(1, &vulkan), (1, &gl)])).ok();
    let alone = self::folder();
    alone.run(TRAIN).ok();
    let losses = [&folder, &alone].map(|folder| last_loss(&folder.text("run/metrics.jsonl")));
    assert!((losses[0] - losses[1]).abs() < 1e-3, "{losses:?}");
}

#[test]
fn ranks_that_differ_are_named_before_anything_is_written() {
    let folder = folder();
    let other = format!("{TRAIN} --lr 0.123");
    let said = refusal(&done(&mut ranks(&folder, &[(1, TRAIN), (1, &other)])));
    assert!(said.starts_with("error: settings: rank 1 has") && said.contains("lr = 0.123"), "{said}");
    folder.write("other.txt", folder.text("in.txt").replace("the", "teh"));
    let other = format!("{TRAIN} --data other.txt");
    let said = refusal(&done(&mut ranks(&folder, &[(1, TRAIN), (1, &other)])));
    assert!(said.contains("data: rank 1 has"), "{said}");
    let said = refusal(&on(&folder, 3, TRAIN));
    assert!(said.contains("train.gradient_leaves is 4, which 3 ranks cannot share out evenly"), "{said}");
    assert!(!folder.path("run").exists(), "nothing was written");
}

/// A run of several ranks in the background.
struct Running {
    mpirun: Child,
    /// The processes of its ranks.
    ranks: Vec<u32>,
}

impl Running {
    fn start(folder: &Folder, count: usize, args: &str) -> Self {
        let mut command = ranks(folder, &[(count, args)]);
        let mpirun = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Self { mpirun, ranks: Vec::new() };
        let began = Instant::now();
        while running.ranks.len() < count {
            assert!(began.elapsed() < Duration::from_secs(60), "the ranks did not start");
            std::thread::sleep(Duration::from_millis(20));
            running.ranks = children(running.mpirun.id());
        }
        running
    }

    /// Waits until this file is there.
    fn until(&mut self, file: PathBuf) {
        let began = Instant::now();
        while !file.exists() {
            assert!(began.elapsed() < Duration::from_secs(120), "{} did not come", file.display());
            assert!(self.mpirun.try_wait().unwrap().is_none(), "the run ended before {}", file.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, rank: usize, signal: &str) {
        let process = self.ranks[rank].to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    /// How long it takes until all processes are gone, and what they said.
    fn ended(self) -> (Duration, Ran) {
        let began = Instant::now();
        let output = self.mpirun.wait_with_output().unwrap();
        for process in self.ranks {
            while !is_over(process) {
                assert!(began.elapsed() < Duration::from_secs(30), "a rank is still there");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        (began.elapsed(), Ran { code, stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }
}

/// Whether a process has closed its files: it is gone, or nobody has asked yet how it ended.
fn is_over(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|after_name| after_name.is_empty() || after_name.starts_with('Z'))
}

/// The processes that a process has started, in the order of their numbers.
fn children(parent: u32) -> Vec<u32> {
    let own = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        after_name.split(' ').nth(1) == Some(&parent.to_string())
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<u32> = all.filter(own).collect();
    found.sort_unstable();
    found
}

/// What a checkpoint holds behind its header.
fn tensors(checkpoint: &[u8]) -> &[u8] {
    let (length, rest) = checkpoint.split_first_chunk::<8>().unwrap();
    &rest[u64::from_le_bytes(*length) as usize..]
}

const LONG: &str = "train --config ranks.toml --tune=off --out run --steps 32";
const LONG_LAST: &str = "run/checkpoints/step-00000032.safetensors";

/// How many instants are tried for each rank.
fn times() -> usize {
    if std::env::var_os("TOKENFORMER_TEST_FULL").is_some() { 30 } else { 1 }
}

#[test]
fn a_rank_that_is_killed_ends_all_and_the_run_goes_on_to_the_same_bits() {
    let unbroken = folder();
    unbroken.run(LONG).ok();
    let expected = unbroken.read(LONG_LAST);
    for attempt in 0..2 * times() {
        let rank = attempt % 2;
        let folder = folder();
        let mut running = Running::start(&folder, 2, LONG);
        running.until(folder.path("run/checkpoints/step-00000004.safetensors"));
        // At some instant of a step, an evaluation, the growth or a checkpoint.
        std::thread::sleep(Duration::from_millis(
            u64::from(std::process::id()) * 37 % 89 * (attempt as u64 + 1) % 1700,
        ));
        running.signal(rank, "-9");
        let (took, ran) = running.ended();
        assert!(took < Duration::from_secs(30), "{took:?}");
        println!("rank {rank} killed: all ended after {took:.2?}, exit code {}", ran.code);
        if ran.code == 0 {
            continue;
        }
        assert!(
            ran.stderr.contains(&format!("rank {rank}")) || ran.stdout.contains(&format!("rank {rank}")),
            "{}",
            ran.stderr
        );
        on(&folder, [1, 4][rank], "train --resume run --tune=off").ok();
        // Its lineage may name another file: one from before the growth that was saved again knows of the evaluation after it.
        assert!(tensors(&folder.read(LONG_LAST)) == tensors(&expected), "rank {rank} killed");
    }
}

#[test]
fn a_signal_to_one_rank_stops_all_after_a_step() {
    let folder = folder();
    let mut running = Running::start(&folder, 2, LONG);
    running.until(folder.path("run/checkpoints/step-00000004.safetensors"));
    running.signal(1, "-TERM");
    let (_, ran) = running.ended();
    assert_eq!(ran.code, 130, "{}", ran.stderr);
    let said = ran.stderr.lines().find(|line| line.contains("stopped after step")).unwrap();
    assert!(said.contains("go on with tokenformer train --resume run"), "{said}");
}

/// Every run of a study is that of one process, whichever rank took it.
#[test]
fn the_runs_of_a_study_are_shared_out() {
    const STUDY: &str = r#"
out_dir = "study"
reference = "small"
seeds = [1, 2]
lengths = [{ tokens = 1_280 }]
[lr]
trials = [1e-3, 1e-2]
share = 0.5
[model]
num_layers = 1
hidden_size = 16
num_attention_heads = 2
seq_length = 16
qkv_slot_num = 8
proj_slot_num = 8
[data]
path = "in.txt"
[train]
batch_size = 4
eval_interval = 5
eval_batches = 2
[[arm]]
name = "small"
model = { ffn_slot_num = 8 }
[[arm]]
name = "large"
model = { ffn_slot_num = 32 }
"#;
    let losses = |count: usize| {
        let folder = Folder::new();
        folder.write("study.toml", STUDY);
        let ran = on(&folder, count, "study study.toml --tune=off").ok();
        let results = folder.text("study/results.jsonl");
        let numbers = results.lines().flat_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            ["val_loss", "loss", "rate", "seed", "arm", "step"].map(|key| line[key].to_string())
        });
        assert_eq!(ran.stdout.matches("runs with 2 seeds").count(), 1, "{}", ran.stdout);
        numbers.collect::<Vec<_>>()
    };
    let alone = losses(1);
    assert!(alone.len() > 24 && losses(3) == alone);
}
