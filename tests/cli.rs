//! The program as a clumsy or hostile user meets it: whatever is wrong ends in one sentence and the right exit code,
//! before a GPU is opened where that is possible, and nothing that was there is lost.
//!
//! Every case runs the real binary in a fresh directory. A machine without an adapter fails these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tokenformer::train::{Checkpoint, Store};

/// A run of a second: `TRAIN` in a case stands for `train --config tiny.toml`.
const TINY: &str = concat!(
    "
out_dir = 'new'
",
    include_str!("common/tiny-model.toml"),
    "[train]
batch_size = 2
max_steps = 2
eval_batches = 1
sample_tokens = 4
checkpoint_interval = 1
keep_last = 9
log_interval = 1
[data]
corpus_sentences = 200
"
);

/// Arguments, exit code, and what the sentence must contain.
type Case = (&'static str, i32, &'static [&'static str]);

/// Where what all tests share is kept; emptied by the first of them.
fn shared() -> &'static Path {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("cache")).unwrap();
        dir
    })
}

/// The program in `dir`. The self-test of an adapter runs at most once for all of them.
fn program(dir: &Path, args: &str) -> Command {
    with_environment(Command::new(env!("CARGO_BIN_EXE_tokenformer")), dir, &words(args))
}

fn with_environment(mut command: Command, dir: &Path, args: &[String]) -> Command {
    // The second keeps Mesa from complaining where nobody is logged in.
    command.env("TOKENFORMER_CACHE_DIR", shared().join("cache")).env("XDG_RUNTIME_DIR", shared());
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

/// The program, which heeds signals even where these tests are run in the background or under `nohup`.
#[cfg(unix)]
fn heeding(dir: &Path, args: &str) -> Command {
    if !cfg!(target_os = "linux") {
        return program(dir, args);
    }
    let mut env = Command::new("env");
    env.args(["--default-signal=HUP,INT,TERM", env!("CARGO_BIN_EXE_tokenformer")]);
    with_environment(env, dir, &words(args))
}

/// Words separated by spaces; `""` is an empty one, `TRAIN` the start of a tiny run.
fn words(args: &str) -> Vec<String> {
    let args = args.replace("TRAIN", "train --config tiny.toml");
    args.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace("\"\"", "")).collect()
}

fn run(dir: &Path, args: &str) -> Output {
    program(dir, args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeed(dir: &Path, args: &str) -> String {
    let output = run(dir, args);
    assert_eq!(output.status.code(), Some(0), "{args}:\n{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Every file below `dir` with its bytes, every directory with none.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
            found.insert(path, Vec::new());
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Inputs good and bad, and finished runs. Made once, copied for each case.
fn inputs() -> &'static Path {
    static INPUTS: OnceLock<PathBuf> = OnceLock::new();
    INPUTS.get_or_init(|| {
        let dir = shared().join("inputs");
        fs::create_dir_all(dir.join("folder")).unwrap();
        fs::create_dir_all(dir.join("folder.bin")).unwrap();
        fs::create_dir_all(dir.join("project")).unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
        write("tiny.toml", TINY.as_bytes());
        write("text.txt", "tom fed his cat.\n".repeat(50).as_bytes());
        write("empty.txt", b"");
        write("short.txt", b"tom");
        write("latin1.txt", &b"caf\xe9 au lait, ".repeat(30));
        write("foreign.txt", "zoë\n".repeat(50).as_bytes());
        write("project/config.toml", b"# a file of the user's own\n");
        write("unknown-key.toml", b"[train]\nlearning_rat = 1.0\n");
        write("broken.toml", b"[train\n");
        write("huge.toml", b"[train]\nlr = 1e400\n");
        let tokens = |top: u16| (0..400).map(move |i| if i == 399 { top } else { i % 50 }).flat_map(u16::to_le_bytes);
        write("good.bin", &tokens(49).collect::<Vec<u8>>());
        write("over.bin", &tokens(50).collect::<Vec<u8>>());
        write("odd.bin", b"abc");
        write("empty.bin", b"");
        for (name, how) in [
            ("run", ""),
            ("shards", "--data good.bin --set model.vocab_size=50"),
            ("softmax", "--set model.norm_activation_type=softmax"),
            ("transformer", "--set model.arch=transformer"),
        ] {
            succeed(&dir, &format!("TRAIN --out {name} {how}"));
        }
        let whole = fs::read(dir.join("run/checkpoints/step-00000002.safetensors")).unwrap();
        write("cut-header.safetensors", &whole[..300]);
        write("cut-tensors.safetensors", &whole[..whole.len() - 1]);
        // The configuration of a wider model over the tensors of this one.
        let mut mixed = Checkpoint::read(&dir.join("run/checkpoints/step-00000002.safetensors")).unwrap();
        mixed.meta.config["model"]["hidden_size"] = 32.into();
        mixed.write(&dir.join("mixed.safetensors")).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        write("flipped.safetensors", &flipped);
        let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  "#;
        write("weights.safetensors", &[&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat());
        write("torch.pt", b"PK\x03\x04 and so on");
        dir
    })
}

/// Runs each case in a copy of [`inputs`]: the exit code, the words, one line that starts `error: `, and after it the
/// directory as it was. `alone` asks for no other line, as where a fault is found before a GPU is opened.
fn refuse(cases: &[Case], alone: bool) {
    let mut faults = String::new();
    let dir = tempfile::tempdir().unwrap();
    copy(inputs(), dir.path());
    let before = snapshot(dir.path());
    for (args, code, said) in cases {
        let output = run(dir.path(), args);
        let text = stderr(&output);
        let sentence = text.trim_end_matches('\n').rsplit('\n').next().unwrap_or_default();
        let mut fault = |what: String| faults += &format!("{args}\n    {what}\n    {text}\n");
        if output.status.code() != Some(*code) {
            fault(format!("exits {:?}, not {code}", output.status.code()));
        }
        if !sentence.starts_with("error: ") || (alone && text.lines().count() != 1) {
            fault("does not say one sentence".to_owned());
        }
        if let Some(missing) = said.iter().find(|word| !sentence.contains(**word)) {
            fault(format!("does not say {missing:?}"));
        }
        if snapshot(dir.path()) != before {
            fault("changed files".to_owned());
            let _ = fs::remove_dir_all(dir.path());
            copy(inputs(), dir.path());
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn bad_data_are_refused() {
    let cases: &[Case] = &[
        ("TRAIN --data nosuch.txt", 2, &["cannot read nosuch.txt: no such file", "--data"]),
        ("TRAIN --data empty.txt", 2, &["empty.txt is empty", "name a file"]),
        ("TRAIN --data short.txt", 2, &["short.txt has 2 tokens", "seq_length 8 needs at least 9", "use more text"]),
        ("TRAIN --data latin1.txt", 2, &["latin1.txt is not UTF-8", "byte 0xe9 at offset 3", "convert"]),
        ("TRAIN --data folder", 2, &["folder is a directory", "name a text file"]),
        ("TRAIN --data folder.bin --set model.vocab_size=50", 2, &["folder.bin is a directory without data"]),
        ("TRAIN --data a\nb", 2, &["cannot read a\\nb: no such file"]),
        ("TRAIN --data good.bin", 1, &["good.bin is a token shard", "--set model.vocab_size="]),
        ("TRAIN --data over.bin --set model.vocab_size=50", 2, &["over.bin has token 50 at position 399", "is 50"]),
        ("TRAIN --data odd.bin --set model.vocab_size=50", 2, &["odd.bin has 3 bytes", "damaged"]),
        ("TRAIN --data empty.bin --set model.vocab_size=50", 2, &["empty.bin is empty"]),
        ("TRAIN --data nosuch.bin --set model.vocab_size=50", 2, &["cannot open nosuch.bin", "--data"]),
        ("TRAIN --data text.txt --set data.val_path=short.txt", 2, &["validation split", "short.txt has 3 tokens"]),
        (
            "TRAIN --data text.txt --set data.val_path=good.bin",
            1,
            &["val_path good.bin is a token shard", "drop val_path"],
        ),
        (
            "TRAIN --data good.bin --set data.val_path=text.txt --set model.vocab_size=50",
            1,
            &["val_path text.txt is text", "path good.bin is a token shard"],
        ),
        (
            "TRAIN --data good.bin --set data.old_path=text.txt --set model.vocab_size=50",
            2,
            &["data.old_path: text.txt is text", "name a token shard"],
        ),
        ("TRAIN --data nosuch.bin", 2, &["cannot open nosuch.bin: no such file"]),
        ("plan --config tiny.toml --data nosuch.txt", 2, &["cannot read nosuch.txt: no such file"]),
        ("TRAIN --set data.val_path=text.txt", 1, &["val_path is set but path is not", "drop val_path"]),
        ("TRAIN --set data.corpus_sentences=1", 2, &["validation split", "needs at least 9"]),
        ("TRAIN --set data.val_fraction=0", 1, &["val_fraction is 0", "use 0.1"]),
        ("TRAIN --set model.vocab_size=10", 1, &["vocab_size is 10", "38 tokens", "raise it to 38"]),
        ("TRAIN --set train.sample_prompt=Ü", 2, &["sample_prompt", "'Ü' (U+00DC) at position 0", "remove it"]),
        #[cfg(target_os = "linux")]
        ("TRAIN --data /proc/self/mem", 2, &["cannot read /proc/self/mem: input/output error"]),
        #[cfg(unix)]
        ("TRAIN --data /dev/zero", 2, &["/dev/zero is no regular file"]),
    ];
    refuse(cases, true);
}

#[test]
fn bad_settings_are_refused() {
    let cases: &[Case] = &[
        ("train --preset nope", 1, &["no preset \"nope\"", "quickstart", "150m"]),
        ("train --config nosuch.toml", 2, &["cannot read nosuch.toml: no such file", "--config"]),
        ("train --config folder", 2, &["cannot read folder: is a directory"]),
        ("train --config latin1.txt", 2, &["latin1.txt is not UTF-8"]),
        ("train --config broken.toml", 2, &["broken.toml: line 1 (`", "is not TOML"]),
        ("train --config huge.toml", 2, &["huge.toml"]),
        ("train --config unknown-key.toml", 2, &["unknown key \"learning_rat\" in [train]", "it is train.lr here"]),
        ("TRAIN --set train.bach_size=3", 1, &["unknown key \"bach_size\"", "the nearest key is \"batch_size\""]),
        ("TRAIN --set lr=1", 1, &["it belongs in [train], as train.lr"]),
        ("TRAIN --set train.lr", 1, &["written table.key=value"]),
        ("TRAIN --set train.lr=abc", 1, &["train.lr is the string \"abc\", but must be a number"]),
        ("TRAIN --set train.lr=1e400", 1, &["1e400 is not a number, or too large"]),
        ("TRAIN --set train.lr=nan", 1, &["lr is NaN", "finite number above 0"]),
        ("TRAIN --set train.lr=inf", 1, &["lr is inf"]),
        ("TRAIN --lr 1e400", 1, &["lr is inf"]),
        ("TRAIN --lr 1e39", 1, &["lr is 1e39, but must be between 1.1754944e-38 and 3.4028235e38"]),
        ("TRAIN --lr -1", 1, &["lr is -1, but must be"]),
        ("TRAIN --batch-size 0", 1, &["batch_size 0 x seq_length 8", "change batch_size"]),
        ("TRAIN --batch-size 18446744073709551615", 1, &["batch_size 18446744073709551615"]),
        ("TRAIN --steps 0", 1, &["max_steps is 0, but must be between 1 and"]),
        ("TRAIN --steps 18446744073709551615", 1, &["max_steps is 18446744073709551615"]),
        ("TRAIN --set model.seq_length=0", 1, &["seq_length is 0, but must be between 1 and"]),
        ("TRAIN --set model.num_layers=9223372036854775807", 1, &["num_layers is 9223372036854775807", "1024"]),
        ("TRAIN --set model.num_layers=18446744073709551615", 1, &["18446744073709551615", "too large"]),
        ("TRAIN --set model.num_layers=-1", 1, &["model.num_layers is -1", "at least 0"]),
        ("TRAIN --set model.num_attention_heads=3", 1, &["3 does not divide hidden_size 16", "num_attention_heads 2"]),
        ("TRAIN --set model.rotary_pct=0.4", 1, &["rotates 3 of them", "in pairs", "num_attention_heads"]),
        ("TRAIN --set model.norm_activation_type=soft", 1, &["`soft`", "`softmax`", "norm_activation_type"]),
        ("TRAIN --set train.total_batch_tokens=17", 1, &["total_batch_tokens 17 is not a multiple", "use 16"]),
        ("TRAIN --set train.total_batch_tokens=9223372036854775792", 1, &["total_batch_tokens is 9223372036854775792"]),
        ("TRAIN --set train.eval_batches=9223372036854775807", 1, &["eval_batches is 9223372036854775807"]),
        ("TRAIN --set out_dir=", 1, &["out_dir is empty", "such as runs/default"]),
        ("plan --set model.hidden_size=9223372036854775807", 1, &["hidden_size is 9223372036854775807"]),
        ("plan --target webgpu --preset 1-5b --set model.ffn_slot_num=16777216", 3, &["needs", "this device allows"]),
        ("TRAIN --adapter \"\"", 1, &["--adapter is empty", "leave it out"]),
        ("TRAIN --backend cuda", 1, &["--backend \"cuda\" is not one of vulkan, metal, dx12, gl"]),
        ("devices --backend cuda", 1, &["--backend \"cuda\""]),
    ];
    refuse(cases, true);
}

#[test]
fn bad_growths_are_refused() {
    let cases: &[Case] = &[
        ("TRAIN --set growth=[{at_step=1,ffn_slot_num=16}]", 1, &["growth to 16 ffn slots from 32", "more than 32"]),
        (
            "TRAIN --set growth=[{at_step=1,ffn_slot_num=32}]",
            1,
            &["adds no parameter tokens", "ffn_slot_num (--ffn-slots) above 32"],
        ),
        ("TRAIN --set growth=[{at_step=2,ffn_slot_num=64}]", 1, &["at_step 2", "max_steps 2", "lower at_step"]),
        ("TRAIN --set growth=[{at_step=0,ffn_slot_num=64}]", 1, &["at_step 0", "when = \"plateau\""]),
        (
            "TRAIN --set growth=[{when=\"plateau\",ffn_slot_num=64}] --set train.eval_interval=0",
            1,
            &["growth 1 waits for a plateau", "train.eval_interval is 0", "set eval_interval, or use at_step"],
        ),
        (
            "TRAIN --set growth=[{when=\"plateau\",patience=0,ffn_slot_num=64}]",
            1,
            &["patience is 0, but must be between 1 and", "change it"],
        ),
        (
            "TRAIN --set growth=[{when=\"plateau\",patience=-1,ffn_slot_num=64}]",
            1,
            &["growth.patience is -1, but must be a whole number of at least 0"],
        ),
        (
            "TRAIN --set growth=[{when=\"plateau\",min_delta=-0.1,ffn_slot_num=64}]",
            1,
            &["min_delta is -0.1, but must be a finite number of at least 0", "leave it out"],
        ),
        ("TRAIN --set growth=[{when=\"plateau\",min_delta=nan,ffn_slot_num=64}]", 1, &["min_delta is NaN"]),
        ("TRAIN --set growth=[{when=\"plateau\",min_delta=inf,ffn_slot_num=64}]", 1, &["min_delta is inf"]),
        (
            "TRAIN --set growth=[{at_step=1,patience=3,ffn_slot_num=64}]",
            1,
            &["growth 1 has patience 3, but happens at a step", "leave patience out", "when = \"plateau\""],
        ),
        (
            "TRAIN --set growth=[{at_step=1,min_delta=0.1,ffn_slot_num=64}]",
            1,
            &["growth 1 has min_delta 0.1, but happens at a step", "leave min_delta out"],
        ),
        (
            "TRAIN --set growth=[{when=\"plateau\",at_step=2,ffn_slot_num=64}]",
            1,
            &["at_step 2", "max_steps 2", "lower at_step"],
        ),
        ("TRAIN --set growth=[{when=\"plateau\",ffn_slot_num=16}]", 1, &["growth to 16 ffn slots from 32"]),
        ("TRAIN --set growth=[{when=\"flat\",ffn_slot_num=64}]", 1, &["unknown variant `flat`", "`plateau`"]),
        (
            "TRAIN --set growth=[{at_step=1,ffn_slot_num=64,init_values=\"zero\"}]",
            1,
            &["zero keys and zero values", "dead start", "init_values = \"random\""],
        ),
        (
            "TRAIN --set model.norm_activation_type=softmax --set growth=[{at_step=1,ffn_slot_num=64}]",
            1,
            &["softmax", "exp(0) = 1", "policy = \"official\""],
        ),
        (
            "TRAIN --set model.arch=transformer --set growth=[{at_step=1,ffn_slot_num=64}]",
            1,
            &["a transformer has no parameter tokens", "drop the growth"],
        ),
        (
            "TRAIN --set growth=[{at_step=1,num_layers=2}]",
            1,
            &["num_layers is 2", "policy \"preserving\" only adds parameter tokens", "\"identity\" or \"stack\""],
        ),
        (
            "TRAIN --set growth=[{at_step=1,policy=\"double\",ffn_slot_num=64}]",
            1,
            &["unknown variant `double`", "`copy`", "`net2net`"],
        ),
        ("grow run new.safetensors --policy copy --ffn-slots 48", 1, &["ffn_slot_num is 48", "doubles", "use 64"]),
        ("grow run new.safetensors --policy copy --ffn-slots 64 --tau keep", 1, &["tau is \"keep\"", "no such rule"]),
        ("grow run new.safetensors --policy stack --layers 1", 1, &["adds no layers", "num_layers (--layers) above 1"]),
        (
            "grow run new.safetensors --policy identity --layers 0",
            1,
            &["growth to 0 layers from 1 would remove layers"],
        ),
        ("grow run new.safetensors --policy identity --layers 2000", 1, &["num_layers is 2000", "1024"]),
        ("grow run new.safetensors --policy net2net --intermediate-size 99", 1, &["a tokenformer has no MLP units"]),
        (
            "grow transformer new.safetensors --policy copy --ffn-slots 64",
            1,
            &["a transformer has no parameter tokens"],
        ),
        (
            "grow transformer new.safetensors --policy zero-units --intermediate-size 99 --train new",
            1,
            &["train is \"new\"", "columns"],
        ),
        ("grow run new.safetensors --ffn-slots 64 --lr-scale 0", 1, &["lr_scale is 0"]),
        ("grow run new.safetensors --ffn-slots 16", 1, &["growth to 16 ffn slots from 32", "tokenformer prune"]),
        ("grow run new.safetensors --ffn-slots 64 --lr-scale -1", 1, &["lr_scale is -1"]),
        ("grow run new.safetensors", 1, &["adds no parameter tokens", "--qkv-slots", "--proj-slots", "--ffn-slots"]),
        (
            "grow run new.safetensors --layers 2",
            1,
            &["num_layers is 2", "(--layers) out", "policy (--policy) \"identity\""],
        ),
        ("grow run new.safetensors --ffn-slots 18446744073709551615", 1, &["ffn_slot_num is 18446744073709551615"]),
        ("grow run new.safetensors --ffn-slots 64 --init-values zero", 1, &["dead start"]),
        ("grow softmax new.safetensors --ffn-slots 64", 1, &["exp(0) = 1"]),
        ("grow transformer new.safetensors --ffn-slots 64", 1, &["a transformer has no parameter tokens"]),
        ("grow run text.txt --ffn-slots 64", 1, &["text.txt exists", "does not overwrite", "another output"]),
        ("grow run folder --ffn-slots 64", 1, &["folder exists"]),
        ("grow run gone/new.safetensors --ffn-slots 64", 2, &["gone is not a directory", "create it"]),
        ("grow run text.txt/new.safetensors --ffn-slots 64", 2, &["text.txt is not a directory"]),
        ("grow folder new.safetensors --ffn-slots 64", 2, &["folder holds no checkpoint"]),
        ("train --resume run --steps 4 --set growth=[{at_step=1,ffn_slot_num=64}]", 1, &["at_step 1", "behind it"]),
        #[cfg(target_os = "linux")]
        ("grow run /proc/new.safetensors --ffn-slots 64", 2, &["cannot write to /proc"]),
    ];
    refuse(cases, true);
}

#[test]
fn bad_prunings_are_refused() {
    let cases: &[Case] = &[
        ("prune run new.safetensors", 1, &["nothing would be dropped", "--keep below 1", "--ffn-slots below 32"]),
        ("prune run --keep 1", 1, &["keep is 1", "nothing would be dropped of 16 qkv", "smaller share"]),
        ("prune run --keep 0", 1, &["keep is 0", "above 0 and below 1"]),
        ("prune run --keep -0.5", 1, &["keep is -0.5", "above 0"]),
        ("prune run --keep 1.5", 1, &["keep is 1.5", "below 1"]),
        ("prune run --keep nan", 1, &["keep is NaN"]),
        ("prune run new.safetensors --ffn-slots 0", 1, &["pruning to 0 ffn slots", "between 1 and 32"]),
        ("prune run new.safetensors --ffn-slots 33", 1, &["pruning to 33 ffn slots, but there are 32", "grow"]),
        ("prune run --qkv-slots 16 --proj-slots 16 --ffn-slots 32", 1, &["nothing would be dropped"]),
        ("prune transformer new.safetensors --keep 0.5", 1, &["a transformer has no parameter tokens", "tokenformer"]),
        ("prune run text.txt --keep 0.5", 1, &["text.txt exists", "prune does not overwrite", "another output"]),
        ("prune run folder --keep 0.5", 1, &["folder exists"]),
        ("prune run gone/new.safetensors --keep 0.5", 2, &["gone is not a directory", "create it"]),
        ("prune folder --keep 0.5", 2, &["folder holds no checkpoint"]),
        ("prune cut-tensors.safetensors --keep 0.5", 2, &["truncated"]),
        ("prune run --keep 0.5 --data nosuch.txt", 2, &["cannot read nosuch.txt"]),
        ("prune run --keep 0.5 --data foreign.txt", 2, &["foreign.txt: character 'ë'"]),
        ("prune run --keep 0.5 --data short.txt", 2, &["short.txt has 2 tokens", "needs at least 9"]),
        ("prune shards --keep 0.5 --data text.txt", 2, &["text.txt is text", "token shards"]),
    ];
    refuse(cases, true);
}

#[test]
fn bad_checkpoints_are_refused() {
    const NO_RUN: &[&str] = &["folder holds no checkpoint", "give a run directory"];
    let cases: &[Case] = &[
        ("train --resume nosuch", 2, &["cannot read nosuch: no such file", "give a run directory"]),
        ("train --resume folder", 2, NO_RUN),
        ("generate folder", 2, NO_RUN),
        ("eval folder", 2, NO_RUN),
        ("inspect folder", 2, NO_RUN),
        ("train --resume text.txt", 2, &["text.txt is not a safetensors file"]),
        ("inspect empty.txt", 2, &["empty.txt is empty"]),
        ("inspect torch.pt", 2, &["torch.pt is a zip archive", "safetensors.torch.save_file"]),
        ("generate weights.safetensors", 2, &["not a tokenformer checkpoint"]),
        ("train --resume cut-header.safetensors", 2, &["cut-header.safetensors is truncated", "300 bytes"]),
        ("generate cut-tensors.safetensors", 2, &["cut-tensors.safetensors is truncated"]),
        ("eval cut-tensors.safetensors", 2, &["truncated"]),
        ("inspect cut-tensors.safetensors", 2, &["truncated"]),
        ("grow cut-tensors.safetensors new.safetensors --ffn-slots 64", 2, &["truncated"]),
        (
            "generate flipped.safetensors",
            2,
            &["flipped.safetensors is damaged: MiB 1 of 1", "word_embeddings", "another"],
        ),
        ("inspect flipped.safetensors", 2, &["flipped.safetensors is damaged: MiB 1 of 1"]),
        ("train --resume flipped.safetensors --steps 4", 2, &["does not match its checksum"]),
        ("train --resume mixed.safetensors", 2, &["mixed.safetensors", "has shape [38, 16]", "says [38, 32]"]),
        ("generate mixed.safetensors", 2, &["has shape [38, 16]", "two models"]),
        ("generate run --prompt Ü", 2, &["--prompt", "'Ü' (U+00DC) at position 0", "the 38 characters", "remove it"]),
        ("generate run --prompt \"\"", 1, &["--prompt is empty", "give at least one character"]),
        ("generate run --top-p 0", 1, &["top-p 0 is outside (0, 1]", "use 1"]),
        ("generate run --top-p nan", 1, &["top-p NaN"]),
        ("generate run --temperature -1", 1, &["temperature -1 is not a number from 0 up", "use 0"]),
        ("generate run --temperature nan", 1, &["temperature NaN"]),
        ("generate shards", 2, &["trained on token shards", "no tokenizer"]),
        ("eval run --data nosuch.txt", 2, &["cannot read nosuch.txt"]),
        ("eval run --data foreign.txt", 2, &["foreign.txt: character 'ë'", "at position 2", "38 characters"]),
        ("eval run --data short.txt", 2, &["all of short.txt is 3 tokens", "needs at least 9"]),
        ("eval shards --data text.txt", 2, &["text.txt is text", "token shards", "give a token shard"]),
        ("eval shards --data over.bin", 2, &["token 50 at position 399", "vocab_size is 50"]),
    ];
    refuse(cases, true);
}

#[test]
fn a_run_is_never_overwritten_unasked() {
    let cases: &[Case] = &[
        ("TRAIN --out run", 1, &["run already holds a run at step 2", "--resume run", "--out", "--overwrite"]),
        ("TRAIN --out project", 1, &["config.toml that is not a run's", "--out"]),
        ("TRAIN --out text.txt", 2, &["text.txt is a file, not a directory"]),
        ("TRAIN --out text.txt/deeper", 2, &["text.txt is a file, not a directory"]),
        ("TRAIN --out run --overwrite --set model.num_attention_heads=3", 1, &["does not divide"]),
        ("TRAIN --out run --overwrite --data nosuch.txt", 2, &["nosuch.txt"]),
        ("train --resume run --steps 4 --out project", 1, &["config.toml that is not a run's", "move it away"]),
        ("train --resume run --steps 4 --out shards", 1, &["shards already holds a run at step 2", "another --out"]),
        (
            "train --resume run/checkpoints/step-00000001.safetensors --steps 4",
            1,
            &["run already holds step 2 of this run", "--resume run", "--out"],
        ),
        ("train --resume run --steps 4 --set model.num_layers=2", 1, &["model.num_layers is 2", "where it is 1"]),
        ("train --resume run --steps 4 --set data.tokenizer=byte", 1, &["data.tokenizer is byte", "where it is char"]),
        ("train --resume run --steps 4 --preset quickstart", 1, &["drop --preset"]),
        ("train --resume run --steps 4 --data foreign.txt", 2, &["foreign.txt: character 'ë'"]),
        ("train --resume shards --steps 4 --data text.txt", 2, &["text.txt is text", "token shards"]),
        #[cfg(target_os = "linux")]
        ("TRAIN --out /proc/run", 2, &["cannot write to /proc/run", "another directory"]),
    ];
    refuse(cases, true);
    // Found out only with the adapter at hand; the old run is not touched before the new one is ready to start.
    let cases: &[Case] = &[
        ("TRAIN --adapter nosuch", 3, &["no adapter matches --adapter nosuch; this machine has 0: "]),
        ("TRAIN --adapter 99", 3, &["no adapter matches --adapter 99"]),
        ("TRAIN --out run --overwrite --adapter nosuch", 3, &["no adapter matches"]),
        ("train --resume run --steps 4 --adapter nosuch", 3, &["no adapter matches"]),
        (
            "TRAIN --out run --overwrite --set model.hidden_size=128 --set model.ffn_slot_num=16777216",
            3,
            &["layers.0.mlp.key_param_tokens", "needs 8.6 GB", "this device allows", "smaller ffn_slot_num"],
        ),
        (
            "TRAIN --set model.hidden_size=128 --set growth=[{at_step=1,ffn_slot_num=16777216}]",
            3,
            &["needs 8.6 GB", "smaller ffn_slot_num"],
        ),
    ];
    refuse(cases, false);
}

#[test]
fn usage_is_exit_code_1_and_help_is_0() {
    let dir = tempfile::tempdir().unwrap();
    for (args, said) in [("--version", "tokenformer 0."), ("--help", "generate"), ("train --help", "--resume")] {
        assert!(succeed(dir.path(), args).contains(said), "{args}");
    }
    for (args, said) in [
        ("", "Usage: tokenformer"),
        ("tarin", "train"),
        ("train --stpes 3", "--steps"),
        ("train --steps many", "many"),
        ("train --seed 18446744073709551615", "18446744073709551615"),
        ("train --steps -1", "'-1' for '--steps <STEPS>': give a whole number from 0 to"),
        ("train --seed -1", "'-1' for '--seed <SEED>': give a whole number from 0 to 9223372036854775807"),
        ("train --verify-every 18446744073709551615", "9223372036854775807"),
        ("generate x --tokens -5", "'-5' for '--tokens <TOKENS>': give a whole number"),
        ("generate x --seed -5", "'-5' for '--seed <SEED>': give a whole number"),
        ("grow x y --ffn-slots -5", "'-5' for '--ffn-slots <FFN_SLOTS>': give a whole number"),
        ("train --fit 1MB --dry-run", "cannot be used with"),
        ("train --preset quickstart --config x.toml", "cannot be used with"),
        ("train --resume x --overwrite", "cannot be used with"),
        ("generate", "<RUN|FILE>"),
        ("grow run", "<OUT>"),
        ("prune run --keep 0.5 --ffn-slots 4", "cannot be used with"),
        ("prune run --keep 0.5 --score best", "weight, contribution, random"),
        ("prune run --keep 0.5 --batches 0", "1..=100000"),
        ("eval run --split test", "train, val"),
    ] {
        let output = run(dir.path(), args);
        let text = stderr(&output);
        assert!(output.status.code() == Some(1) && text.contains(said), "{args}: {:?}\n{text}", output.status.code());
    }
}

#[test]
fn odd_but_legal_runs_work() {
    let dir = tempfile::tempdir().unwrap();
    copy(inputs(), dir.path());
    // One token a sequence: nothing to attend to, nothing after it to compare a growth on.
    succeed(dir.path(), "TRAIN --set model.seq_length=1 --set growth=[{at_step=1,ffn_slot_num=64}]");
    assert!(succeed(dir.path(), "generate new --tokens 3").len() > 3);
    assert!(succeed(dir.path(), "eval run --data text.txt").contains("all of text.txt"));
    assert!(succeed(dir.path(), "eval shards --data good.bin").contains("tokens          399"));
    assert!(succeed(dir.path(), "eval run").contains("bits per byte"));
    let text = succeed(dir.path(), "generate run --prompt tom --tokens 30 --seed 4");
    assert!(text.starts_with("tom") && text.chars().count() >= 33, "{text}");
    assert_eq!(succeed(dir.path(), "generate run --prompt tom --tokens 30 --seed 4"), text);
    // Colours in a name stay what they are: characters.
    #[cfg(unix)]
    {
        fs::copy(dir.path().join("text.txt"), dir.path().join("\u{1b}[31m.txt")).unwrap();
        let output = run(dir.path(), "TRAIN --data \u{1b}[31m.txt --out red");
        assert!(output.status.success() && !stderr(&output).contains('\u{1b}'), "{}", stderr(&output));
        let said = succeed(dir.path(), "eval red");
        assert!(said.contains("data in \\u{1b}[31m.txt\n") && !said.contains('\u{1b}'), "{said}");
        let said = succeed(dir.path(), "inspect red");
        assert!(said.contains("data in \\u{1b}[31m.txt, next batch") && !said.contains('\u{1b}'), "{said}");
    }
    // A text without line breaks, and a directory whose name is two words to a shell: what is said to be next works.
    fs::write(dir.path().join("unbroken.txt"), "tom fed his cat. ".repeat(50)).unwrap();
    let mut spaced = program(dir.path(), "TRAIN --data unbroken.txt --out");
    let said = String::from_utf8(spaced.arg("two words").output().unwrap().stdout).unwrap();
    let quoted = if cfg!(windows) { "\"two words\"" } else { "'two words'" };
    assert!(said.contains(&format!("next            tokenformer generate {quoted}\n")), "{said}");
    let output = program(dir.path(), "generate --tokens 3").arg("two words").output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b" "), "{}", stderr(&output));
    // A plan is for the vocabulary of the data, as the run.
    let chars: String = (0..3000_u32).filter_map(|i| char::from_u32(0x4e00 + i)).collect();
    fs::write(dir.path().join("zh.txt"), chars).unwrap();
    let said = succeed(dir.path(), "plan --config tiny.toml --data zh.txt --target webgpu");
    assert!(said.contains("vocabulary 3000, "), "{said}");
    assert!(succeed(dir.path(), "plan --config tiny.toml --target webgpu").contains("vocabulary 38, "));
    let output = run(dir.path(), "plan --preset shakespeare-char --target webgpu");
    assert!(output.status.success() && stderr(&output).contains("vocabulary 256 is assumed"), "{}", stderr(&output));
    // A variable that is set to nothing is not set.
    let mut unset = program(dir.path(), "eval run");
    unset.env("TOKENFORMER_MATMUL", "").env("TOKENFORMER_DEVICE", "");
    if std::env::var_os("WGPU_BACKEND").is_none() {
        unset.env("WGPU_BACKEND", "");
    }
    assert!(unset.output().unwrap().status.success());
    // A grown file continues, but not over the run it came from.
    let before = snapshot(&dir.path().join("run"));
    assert!(succeed(dir.path(), "grow run grown.safetensors --ffn-slots 64").contains("max |logit change| 0.0e0"));
    assert_eq!(snapshot(&dir.path().join("run")), before, "the input of grow was written");
    let output = run(dir.path(), "train --resume grown.safetensors --steps 4");
    assert!(output.status.code() == Some(1) && stderr(&output).contains("--out"), "{}", stderr(&output));
    succeed(dir.path(), "train --resume grown.safetensors --steps 4 --out grown");
    assert!(succeed(dir.path(), "inspect grown").contains("ffn 32 -> 64"));
    // Other ways to grow, one file from the other.
    let frozen =
        succeed(dir.path(), "grow run deep.safetensors --policy identity --layers 2 --train new --lr-scale 0.5");
    assert!(frozen.contains("layers 1 -> 2;") && frozen.contains("max |logit change| 0.0e0"), "{frozen}");
    succeed(dir.path(), "grow deep.safetensors twice.safetensors --policy copy --qkv-slots 32 --ffn-slots 64");
    succeed(dir.path(), "train --resume twice.safetensors --steps 4 --out twice");
    let said = succeed(dir.path(), "inspect twice");
    assert!(said.contains("layers 1 -> 2") && said.contains("qkv 16 -> 32, proj 16 -> 16, ffn 32 -> 64"), "{said}");
    let wide = succeed(dir.path(), "grow transformer wide.safetensors --policy net2net --intermediate-size 100");
    assert!(wide.contains("grown at step 2: intermediate_size 64 -> 100;"), "{wide}");
    // Names of policies as configurations and messages write them.
    succeed(dir.path(), "grow transformer units.safetensors --policy zero_units --intermediate-size 100");
    succeed(dir.path(), "grow wide.safetensors tall.safetensors --policy stack --layers 3");
    succeed(dir.path(), "train --resume tall.safetensors --steps 4 --out tall");
    // Another run in its place, once that is asked for.
    succeed(dir.path(), "TRAIN --out run --overwrite --steps 1");
    let names: Vec<_> = fs::read_dir(dir.path().join("run/checkpoints")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    // A damaged newest checkpoint is passed over, and replaced in the end. The best one, of the same step, would take its place.
    fs::remove_file(dir.path().join("shards/checkpoints/best.safetensors")).unwrap();
    let newest = dir.path().join("shards/checkpoints/step-00000002.safetensors");
    fs::write(&newest, b"").unwrap();
    let output = run(dir.path(), "train --resume shards");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: ") && stderr(&output).contains("after step 1"), "{}", stderr(&output));
    assert!(fs::metadata(&newest).unwrap().len() > 1000);
}

/// As `sha256sum` prints it.
fn sha256(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_growth_is_undone_from_the_file_it_names() {
    let dir = tempfile::tempdir().unwrap();
    copy(inputs(), dir.path());
    let sum = |path: &str| sha256(&dir.path().join(path));
    let tensors = |run: &str| {
        let checkpoint = Checkpoint::read(&dir.path().join(run).join("checkpoints/step-00000004.safetensors")).unwrap();
        (checkpoint.params, checkpoint.moment1, checkpoint.moment2)
    };
    let growth = "--set growth=[{at_step=2,ffn_slot_num=64}]";
    succeed(dir.path(), "TRAIN --steps 4 --out never");
    succeed(dir.path(), &format!("TRAIN --steps 4 --out grown --set train.keep_last=1 {growth}"));
    let before = "grown/checkpoints/before-growth-00000002.safetensors";
    let said = succeed(dir.path(), "inspect grown");
    assert!(said.contains(&format!("before-growth-00000002.safetensors, sha256 {}\n", sum(before))), "{said}");

    // In place of what came after it: not unasked.
    let files = snapshot(&dir.path().join("grown"));
    let output = run(dir.path(), &format!("train --resume {before} --set growth=[]"));
    let said = stderr(&output);
    assert!(output.status.code() == Some(1) && said.contains("grown already holds step 4 of this run"), "{said}");
    assert!(said.contains("choose another --out"), "{said}");
    assert_eq!(snapshot(&dir.path().join("grown")), files);
    succeed(dir.path(), &format!("train --resume {before} --out undone --set growth=[]"));
    assert!(tensors("undone") == tensors("never"));
    succeed(dir.path(), &format!("train --resume {before} --out again"));
    assert!(tensors("again") == tensors("grown") && tensors("grown") != tensors("never"));

    // A file that was grown names the one it came from.
    succeed(dir.path(), "grow run wide.safetensors --ffn-slots 64");
    let said = succeed(dir.path(), "inspect wide.safetensors");
    let from = sum("run/checkpoints/step-00000002.safetensors");
    assert!(said.contains(&format!("step-00000002.safetensors, sha256 {from}\n")), "{said}");
    // A run that is replaced takes what was before its growths along.
    succeed(dir.path(), "TRAIN --out grown --overwrite");
    assert!(!dir.path().join(before).exists());
}

#[test]
fn a_plateau_is_told_and_so_is_one_that_did_not_come() {
    let dir = tempfile::tempdir().unwrap();
    copy(inputs(), dir.path());
    let train = |rest: &str| {
        let args = "TRAIN --steps 6 --set train.eval_interval=1 --set growth=[{when=\"plateau\",ffn_slot_num=64,";
        let output = run(dir.path(), &format!("{args}{rest}"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    };
    let said = train("patience=2,min_delta=9}] --out plateau");
    assert!(said.contains("grown at step 2 on a plateau of 2 evaluations (min_delta 9): slots"), "{said}");
    let said = train("at_step=1,patience=50}] --out patient");
    let left = "growth 1 of 1 was not done: there was no plateau of 50 evaluations (min_delta 0.01) from step 1 on\n";
    assert!(said.contains(left), "{said}");
    // One that waits for it is done after it, also where the run goes on from later than its own step.
    let said = train("patience=2,min_delta=9},{at_step=1,policy=\"identity\",num_layers=2}] --out both");
    assert!(said.contains("grown at step 2 on a plateau") && said.contains("grown at step 3: layers 1 -> 2"), "{said}");
    let output = run(dir.path(), "train --resume both/checkpoints/step-00000002.safetensors --out rest");
    let said = stderr(&output);
    assert!(said.contains("grown at step 2 on a plateau") && said.contains("grown at step 3: layers 1 -> 2"), "{said}");
    // Also from where it is the next to be done, and only as that run has it.
    let late = "train --resume both/checkpoints/step-00000003.safetensors --out late";
    let output = run(dir.path(), &format!("{late} --set growth=[{{at_step=1,ffn_slot_num=99}}]"));
    assert!(output.status.code() == Some(1) && stderr(&output).contains("at_step 1, which"), "{}", stderr(&output));
    let said = stderr(&run(dir.path(), late));
    assert!(said.contains("grown at step 3: layers 1 -> 2"), "{said}");
    // The memory of a run is planned for the model that it may grow to.
    for command in ["plan --config tiny.toml --target webgpu", "TRAIN --dry-run"] {
        let said = succeed(dir.path(), &format!("{command} --set growth=[{{when=\"plateau\",ffn_slot_num=64}}]"));
        assert!(said.contains("after growth 1: ") || said.contains("when = \"plateau\""), "{said}");
    }
}

#[test]
fn a_pruned_file_is_a_checkpoint_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    copy(inputs(), dir.path());
    let before = snapshot(dir.path());
    // Only the report.
    let said = succeed(dir.path(), "prune run --keep 0.5 --batches 2");
    for words in
        ["| 100 % | 16 | 16 | 32 |", "| 50 % | 8 | 8 | 16 |", "| weight | contribution | random |", "2 batches"]
    {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    assert!(said.contains("nothing was written") && snapshot(dir.path()) == before, "{said}");
    // What a growth without effect added is taken away again, and nothing else.
    succeed(dir.path(), "grow run grown.safetensors --ffn-slots 64 --qkv-slots 20");
    let back =
        succeed(dir.path(), "prune grown.safetensors back.safetensors --score weight --ffn-slots 32 --qkv-slots 16");
    assert!(back.contains("max |logit change| 0.0e0") && back.contains("pruned at step 2"), "{back}");
    let [old, new] = ["run/checkpoints/step-00000002.safetensors", "back.safetensors"]
        .map(|name| Checkpoint::read(&dir.path().join(name)).unwrap());
    assert_eq!((&old.params, &old.moment1, &old.moment2), (&new.params, &new.moment1, &new.moment2));
    assert_eq!(old.meta.cohorts, new.meta.cohorts);
    assert_eq!(new.meta.lineage[1].rules.json()["policy"], "prune");
    let from = new.meta.lineage[1].file_before.clone().unwrap();
    let grown = sha256(&dir.path().join("grown.safetensors"));
    assert_eq!((from.name.as_str(), from.sha256), ("grown.safetensors", grown));
    // Softmax, shards, another text; then every use of a checkpoint.
    succeed(dir.path(), "prune softmax soft.safetensors --keep 0.25 --score random --seed 3");
    succeed(dir.path(), "prune shards --keep 0.5");
    succeed(dir.path(), "prune run small.safetensors --ffn-slots 5 --data text.txt");
    assert!(succeed(dir.path(), "inspect small.safetensors").contains("qkv 16 -> 16, proj 16 -> 16, ffn 32 -> 5"));
    assert!(succeed(dir.path(), "generate small.safetensors --tokens 3").len() > 3);
    assert!(succeed(dir.path(), "eval small.safetensors").contains("bits per byte"));
    let output = run(dir.path(), "train --resume small.safetensors --steps 4");
    assert!(output.status.code() == Some(1) && stderr(&output).contains("--out"), "{}", stderr(&output));
    succeed(dir.path(), "train --resume small.safetensors --steps 4 --out small");
    succeed(dir.path(), "grow small again.safetensors --ffn-slots 12 --policy preserving");
    succeed(dir.path(), "train --resume again.safetensors --steps 6 --out again");
    let said = succeed(dir.path(), "inspect again");
    assert!(said.contains("ffn 32 -> 5") && said.contains("ffn 5 -> 12"), "{said}");
}

#[test]
fn growths_still_ahead_of_a_pruned_model_are_made_or_left_out_with_a_word() {
    let dir = tempfile::tempdir().unwrap();
    copy(inputs(), dir.path());
    succeed(
        dir.path(),
        "TRAIN --steps 4 --set growth=[{at_step=2,ffn_slot_num=40},{at_step=3,policy=\"copy\",ffn_slot_num=80}]",
    );
    // At step 1 both are ahead, and a model of 20 can grow to 40; at step 2 the first is due, so to 80 is not twice as many.
    let first = run(dir.path(), "prune new/checkpoints/step-00000001.safetensors one.safetensors --ffn-slots 20");
    assert!(first.status.success() && !stderr(&first).contains("growth at step"), "{}", stderr(&first));
    let second = run(dir.path(), "prune new/checkpoints/step-00000002.safetensors two.safetensors --ffn-slots 20");
    let said = stderr(&second);
    assert!(said.contains("growth at step 2 is not in two.safetensors: the pruning is at step 2"), "{said}");
    assert!(said.contains("growth at step 3 is not in two.safetensors: ffn_slot_num is 80"), "{said}");
    succeed(dir.path(), "train --resume one.safetensors --out one");
    succeed(dir.path(), "train --resume two.safetensors --out two");
    assert!(succeed(dir.path(), "inspect one").contains("ffn 40 -> 80"));
    assert!(succeed(dir.path(), "inspect two").contains("ffn_slot_num = 20"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    copy(inputs(), dir.path());
    for args in ["--help", "TRAIN", "generate run --tokens 500", "inspect run --tensors", "devices", "eval run"] {
        let mut child = program(dir.path(), args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args}");
    }
    assert!(dir.path().join("new/checkpoints/step-00000002.safetensors").exists(), "training goes on unseen");
}

#[test]
fn divergence_is_exit_code_4_and_stores_nothing_broken() {
    let dir = tempfile::tempdir().unwrap();
    copy(inputs(), dir.path());
    let output = run(dir.path(), "TRAIN --steps 20 --lr 1e38 --set train.warmup_fraction=0.0");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(
        text.lines().last().is_some_and(|line| line.starts_with("error: ") && line.contains("lower train.lr")),
        "{text}"
    );
    let saved = Store::new(dir.path().join("new")).list().unwrap();
    for (step, path) in saved {
        let checkpoint = Checkpoint::read(&path).unwrap();
        assert!(checkpoint.params.values().flat_map(|tensor| &tensor.data).all(|x| x.is_finite()), "step {step}");
    }
    // Too late for three bad steps in a row, and for any at all: the model has no validation loss.
    for (steps, rule) in [(2, "rollback"), (2, "skip"), (1, "stop")] {
        let set = format!("--set train.warmup_fraction=0.0 --set train.on_bad_steps={rule} --out late-{rule}");
        let output = run(dir.path(), &format!("TRAIN --steps {steps} --lr 1e30 {set}"));
        let text = stderr(&output);
        assert!(output.status.code() == Some(4) && text.contains("validation loss after the last step, "), "{text}");
        let saved = Store::new(dir.path().join(format!("late-{rule}"))).list().unwrap();
        assert!(saved.iter().all(|(step, _)| *step < steps), "{saved:?}");
    }
}

#[cfg(unix)]
mod unix {
    use super::*;
    use serde_json::Value;
    use std::io::{BufRead, BufReader, Read};

    /// A full disk at the checkpoint of a later step: one sentence, exit 2, all that was there still there.
    fn fails_to_save(dir: &Path, output: &Output, kept: &Path, before: &[u8]) {
        let text = stderr(output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let sentence = text.lines().last().unwrap();
        for said in
            ["error: cannot write ", "step-0000000", "needs", "bytes", "earlier ones are intact", "free some space"]
        {
            assert!(sentence.contains(said), "{said:?} is not in {sentence:?}");
        }
        assert_eq!(fs::read(kept).unwrap(), before, "the previous checkpoint is intact");
        let names: Vec<_> = fs::read_dir(kept.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 1, "nothing half-written is left: {names:?}");
        let _ = succeed(dir, &format!("inspect {}", kept.display()));
    }

    /// The limit on the size of a file stands in for a full disk: it takes no privilege.
    #[test]
    fn a_file_that_cannot_grow_keeps_the_previous_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        copy(inputs(), dir.path());
        succeed(dir.path(), "TRAIN --out kept --steps 1");
        let kept = dir.path().join("kept/checkpoints/step-00000001.safetensors");
        let before = fs::read(&kept).unwrap();
        assert!(before.len() > 40_000, "the limit below must be smaller: {} bytes", before.len());
        let mut limited = Command::new("bash");
        limited.args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tokenformer")]);
        let output = with_environment(limited, dir.path(), &words("train --resume kept --steps 3")).output().unwrap();
        fails_to_save(dir.path(), &output, &kept, &before);
        succeed(dir.path(), "train --resume kept --steps 3");
        assert!(dir.path().join("kept/checkpoints/step-00000003.safetensors").exists());
    }

    /// A real full disk, where this process may mount one; the test above covers machines where it may not.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_keeps_the_previous_checkpoint() {
        struct Mounted(PathBuf);
        impl Mounted {
            fn mount(&self, options: &str) -> bool {
                let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&self.0).output();
                status.is_ok_and(|output| output.status.success())
            }
        }
        impl Drop for Mounted {
            fn drop(&mut self) {
                let _ = Command::new("umount").arg(&self.0).output();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        copy(inputs(), dir.path());
        let disk = Mounted(dir.path().join("disk"));
        fs::create_dir(&disk.0).unwrap();
        // Room for one checkpoint of 52 kB and the small files, not for a second one beside it.
        if !disk.mount("size=80k") {
            println!("no right to mount: a full disk was only tried as a limit on the size of files");
            return;
        }
        let output = run(dir.path(), "TRAIN --out disk/run --steps 4");
        let kept = disk.0.join("run/checkpoints/step-00000001.safetensors");
        let before = fs::read(&kept).unwrap();
        fails_to_save(dir.path(), &output, &kept, &before);
        assert!(disk.mount("remount,size=4m"), "more space");
        succeed(dir.path(), "train --resume disk/run");
        assert!(disk.0.join("run/checkpoints/step-00000004.safetensors").exists());
    }

    /// Everything in the metrics of a run that a resumed run must repeat.
    fn curve(run: &Path) -> Vec<Value> {
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.retain(|line| line["kind"] != "run");
        lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("seconds")));
        lines
    }

    #[test]
    fn an_interrupted_run_is_saved_and_continues_as_if_it_had_not_been() {
        let dir = tempfile::tempdir().unwrap();
        copy(inputs(), dir.path());
        let args = "TRAIN --steps 600 --set train.checkpoint_interval=0 --set train.eval_interval=50";
        succeed(dir.path(), &format!("{args} --out straight"));
        for signal in ["INT", "TERM", "HUP"] {
            let mut child =
                heeding(dir.path(), &format!("{args} --out {signal}")).stderr(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(child.stderr.take().unwrap());
            let mut line = String::new();
            while !line.starts_with("step ") {
                line.clear();
                assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the run ended before its first step");
            }
            assert!(
                Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success()
            );
            let mut rest = String::new();
            lines.read_to_string(&mut rest).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}: {rest}");
            let sentence = rest.lines().last().unwrap();
            for said in ["stopped after step ", "; saved; go on with tokenformer train ", &format!("--resume {signal}")]
            {
                assert!(sentence.contains(said), "{said:?} is not in {sentence:?}");
            }
            succeed(dir.path(), &format!("train --resume {signal}"));
            assert_eq!(curve(&dir.path().join(signal)), curve(&dir.path().join("straight")), "{signal}");
        }
    }
}
