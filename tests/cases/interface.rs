//! Arguments and settings: what is wrong is named with its remedy.

use crate::program::{Folder, Ran, done, say};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

/// A command, and what its one sentence says.
type Refused = (&'static str, &'static [&'static str]);

/// Each is refused before a GPU is opened, and nothing is written.
fn refused(folder: &Folder, cases: &[Refused]) -> Vec<String> {
    let said = |(args, parts): &Refused| {
        let sentence = folder.run(args).refused();
        let missing = parts.iter().find(|part| !sentence.contains(**part));
        assert!(missing.is_none(), "{args}\n  {missing:?} is not in\n  {sentence}");
        sentence
    };
    cases.iter().map(said).collect()
}

/// The object on the last line of standard output.
fn answer(ran: &Ran) -> Value {
    let last = ran.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {}\n{}", ran.stdout, ran.stderr))
}

#[test]
fn keys_of_other_programs_are_answered() {
    let folder = Folder::new();
    let said = refused(
        &folder,
        &[
            ("train --dry-run --set train.learning_rate=1", &["it is train.lr here"]),
            ("train --dry-run --set train.LR=1", &["the nearest key is \"lr\""]),
            ("train --dry-run --set train.epochs=1", &["it is --epochs N here", "train.max_steps"]),
            ("train --dry-run --set train.dropout=1", &["it belongs in [model], as model.dropout"]),
            (
                "train --dry-run --set train.gradient_accumulation_steps=1",
                &["train.total_batch_tokens", "train.batch_size x model.seq_length"],
            ),
            ("train --dry-run --set model.n_embd=1", &["it is model.hidden_size here"]),
            ("train --dry-run --set dropout=0.2", &["it belongs in [model], as model.dropout"]),
            ("train --dry-run --set model.attn_pdrop=0.1", &["it is model.dropout here"]),
            ("train --dry-run --set model.dropout=1", &["dropout is 1", "from 0 to below 1"]),
            ("train --dry-run --set model.dropout=-0.1", &["dropout is -0.1", "from 0 to below 1"]),
            (
                "train --dry-run --set model.bias=1",
                &["model.attention_bias is for the attention of model.arch = \"transformer\""],
            ),
            ("train --dry-run --set max_iters=1", &["it is train.max_steps here", "--steps"]),
            ("train --dry-run --set n_embd=1", &["it is model.hidden_size here"]),
        ],
    );
    say("nearest-key", &said[0]);
    // Of other programs, in other spellings, as flags, in other sections; and keys that are like nothing.
    refused(
        &folder,
        &[
            ("train --set train.num_train_epochs=3", &["it is --epochs N here"]),
            ("train --set train.per_device_train_batch_size=3", &["it is train.batch_size here"]),
            ("train --set model.num_hidden_layers=3", &["it is model.num_layers here"]),
            ("train --set train.warmup_iters=100", &["train.warmup_fraction", "a share of train.max_steps"]),
            ("train --set train.lr_decay_iters=100", &["reaches train.min_lr at train.max_steps"]),
            ("train --set train.grad_checkpoint=true", &["it is train.recompute here"]),
            ("train --set train.eval-iters=3", &["it is train.eval_batches here"]),
            ("train --set train.learnin_rate=1", &["if \"learning_rate\" is meant, it is train.lr here"]),
            ("train --set model.batch_size=3", &["it belongs in [train], as train.batch_size"]),
            ("train --set train.out_dir=x", &["it belongs at the top level", "as out_dir"]),
            ("train --set train.policy=copy", &["it belongs in an entry of growth, under [[growth]]"]),
            ("train --set train.qqqqqq=3", &["nor one like it", "docs/configuration.md"]),
            (
                "train --n_layer=3",
                &["there is no flag --n_layer", "it is model.num_layers here: --set model.num_layers=VALUE"],
            ),
            ("train --model.num_layers=3", &["it is a setting: --set model.num_layers=VALUE"]),
            ("train --init_from=resume", &["a run goes on with --resume RUN"]),
            (
                "sample --out_dir=runs/x --start=a",
                &["there is no flag --out_dir", "the run or checkpoint is given without a flag"],
            ),
            ("train --dry-run --set growth=[{step=3,ffn_slot_num=99}]", &["it is at_step here"]),
            ("train --eval_interval=20", &["there is no flag --eval_interval", "--set train.eval_interval=VALUE"]),
            ("train --dropout 0.1", &["there is no flag --dropout", "--set model.dropout=VALUE"]),
            ("plan --block-size 64", &["there is no flag --block-size", "it is model.seq_length here"]),
        ],
    );
    folder.write("hf.toml", "[train]\nlearning_rate = 1e-3\n");
    folder.write("late.toml", "[train]\nlr = 1e-3\nout_dir = \"x\"\n");
    refused(
        &folder,
        &[
            ("train -c hf.toml", &["hf.toml: unknown key \"learning_rate\" in [train]: it is train.lr here"]),
            ("train -c late.toml", &["late.toml: unknown key \"out_dir\" in [train]", "above the first table"]),
        ],
    );
}

#[test]
fn numbers_of_other_places_are_answered() {
    let folder = Folder::new();
    let said = refused(
        &folder,
        &[
            ("train --dry-run --lr 0,001", &["'0,001' for '--lr <LR>': write 0.001"]),
            ("train --dry-run --lr 1e-3f", &["'1e-3f' for '--lr <LR>': write 0.001"]),
            ("prune x --keep 50%", &["'50%' for '--keep <SHARE>': write 0.5"]),
            ("generate x --temperature 0,8", &["'0,8' for '--temperature <TEMPERATURE>': write 0.8"]),
        ],
    );
    say("float-jargon", &said[0]);
    refused(
        &folder,
        &[
            ("train --dry-run --lr fast", &["give a number such as 0.8"]),
            ("train --dry-run --lr nan", &["lr is NaN, but must be a finite number above 0"]),
            ("train --dry-run --lr inf", &["lr is inf"]),
            ("train --dry-run --steps 1e3", &["write 1000"]),
            ("train --dry-run --steps 10k", &["write 10000"]),
            ("train --dry-run --batch-size 1,000", &["write 1000"]),
            ("train --dry-run --set train.min_lr=0,1", &["train.min_lr", "0,1"]),
            ("train --dry-run --set train.weight_decay=10%", &["train.weight_decay", "write 0.1 for 10%"]),
            ("train --dry-run --set train.grad_clip=nan", &["grad_clip is NaN"]),
            ("train --dry-run --set train.max_steps=2e3", &["train.max_steps is 2000.0", "write 2000"]),
            ("generate x --top-p 90%", &["write 0.9"]),
            ("generate x --min-p 1.5", &["min-p 1.5 is outside [0, 1]"]),
            ("generate x --min-p nan", &["min-p NaN"]),
            ("generate x --top-p inf", &["top-p inf"]),
            ("grow x y --lr-scale 0,5", &["write 0.5"]),
            ("bench roofline --seconds 0,5", &["write 0.5"]),
            ("bench step --regress 0,5% --baseline x", &["write 0.5 for 0,5"]),
        ],
    );
}

#[test]
fn windows_paths_and_none_are_understood() {
    let folder = Folder::new();
    folder.write("escape.toml", "[data]\npath = \"C:\\data\\in.txt\"\n");
    folder.write("silent.toml", "[data]\npath = \"C:\\new\\train.txt\"\n");
    folder.write("out.toml", "out_dir = \"D:\\runs\\b\"\n");
    folder.write("comma.toml", "[train]\nlr = 0,001\n");
    let quotes: &[&str] = &["use single quotes for a path with backslashes"];
    refused(
        &folder,
        &[
            ("train -c escape.toml", quotes),
            ("train -c silent.toml", quotes),
            ("train -c out.toml", quotes),
            ("train -c comma.toml", &["line 2 is not TOML: write 0.001 for 0,001"]),
        ],
    );
    folder.write("single.toml", "out_dir = 'D:\\runs\\b'\n");
    assert!(folder.run("train -c single.toml --dry-run").ok().stdout.contains("D:\\"));
    for unset in
        ["data.path=none", "data.val_path=null", "data.old_path=None", "data.corpus_seed=none", "model.tau_ffn=none"]
    {
        let more = if unset.starts_with("data.path") { "" } else { "--set data.val_path=in.txt" };
        let said = folder.run(&format!("train --dry-run --data in.txt {more} --set {unset}")).ok();
        let key = unset.split(['.', '=']).nth(1).unwrap();
        assert!(!said.stdout.lines().any(|line| line.starts_with(&format!("{key} ="))), "{unset}: {}", said.stdout);
    }
}

#[test]
fn old_data_that_are_gone_are_unset() {
    let folder = Folder::new();
    folder.write("old.txt", folder.read("in.txt"));
    folder.train("--data in.txt --set data.old_path=old.txt --steps 2 --out r").ok();
    std::fs::remove_file(folder.path("old.txt")).unwrap();
    let ran = folder.run("train --resume r --tune off --steps 4 --set data.old_path=none --json").ok();
    assert_eq!((answer(&ran)["step"].as_u64(), answer(&ran)["old_val_loss"].is_null()), (Some(4), true));
    say("old-path-gone", "--set data.old_path=none: the run went on to step 4");
}

#[test]
fn studies_name_key_and_arm() {
    const STUDY: &str = "\
out_dir = \"study\"
seeds = [1]
lengths = [{ tokens = 640 }]
[lr]
trials = [1e-3]
[model]
num_layers = 1
hidden_size = 16
num_attention_heads = 2
seq_length = 16
qkv_slot_num = 8
proj_slot_num = 8
ffn_slot_num = 16
[data]
path = \"in.txt\"
[train]
batch_size = 4
[[arm]]
name = \"a\"
[[arm]]
name = \"b\"
model = { ffn_slot_num = 24 }
";
    let folder = Folder::new();
    let change = |was: &str, is: &str| {
        assert!(STUDY.contains(was), "{was}");
        folder.write("s.toml", STUDY.replacen(was, is, 1));
        folder.run("study s.toml --dry-run")
    };
    assert!(change("name = \"b\"", "name = \"基线\"").ok().stdout.contains("基线"));
    let cases = [
        (
            "lengths = [{ tokens = 640 }]",
            "lengths = 640",
            "lengths is 640, but must be a list of tables, such as lengths = [{",
        ),
        ("seeds = [1]", "seeds = [-1]", "an entry of seeds is -1, but must be a whole number of at least 0"),
        ("seeds = [1]", "seeds = [1.5]", "an entry of seeds is 1.5, but must be a whole number"),
        ("seeds = [1]", "seeds = 3", "seeds is 3, but must be a list, such as [1]: write [3]"),
        ("tokens = 640", "tokens = -640", "arm \"a\": lengths has tokens = -640"),
        ("tokens = 640", "tokens = \"1,000\"", "lengths.tokens is the string \"1,000\""),
        ("name = \"b\"", "name = \"b\"\nlengths = [640]", "arm \"b\": an entry of arm.lengths is 640"),
        ("name = \"b\"", "name = \"b\"\nlenghts = []", "arm \"b\": unknown key \"lenghts\" in [arm]: the nearest key"),
        ("name = \"b\"", "name = \"b\"\ntrain = { learning_rate = 1.0 }", "arm \"b\": unknown key \"learning_rate\""),
        ("name = \"b\"", "", "arm 2 has no name"),
        ("name = \"b\"", "name = \"--\"", "an arm has the name \"--\""),
        ("name = \"b\"", "name = \"A\"", "arm \"A\" has the name of another one"),
        ("path = \"in.txt\"", "path = \"C:\\new.txt\"", "data.path is \"C:\\new.txt\": in double quotes"),
        ("trials = [1e-3]", "trials = [0]\n[compare]\ntokens = [-1]", "compare.tokens has -1"),
    ];
    for (was, is, said) in cases {
        let sentence = change(was, is).refused();
        assert!(sentence.contains(said), "{is}: {sentence}");
        if is.contains("[-1]") && was.starts_with("seeds") {
            say("study-messages", &sentence);
        }
    }
    assert!(!folder.path("study").exists());
}

#[test]
fn the_folder_of_checkpoints_stands_for_its_run() {
    let folder = Folder::new();
    folder.train("in.txt --steps 2 -o r").ok();
    let text = folder.run("generate r/checkpoints -n 8").ok().stdout;
    assert_eq!(text, folder.run("generate r -n 8").ok().stdout);
    say("checkpoints-directory-message", "generate r/checkpoints: the same text as generate r");
    folder.run("inspect r/checkpoints/").ok();
    let mut inside = folder.command("inspect .");
    assert_eq!(done(inside.current_dir(folder.path("r/checkpoints"))).code, 0);
    let ran = folder.run("train --resume r/checkpoints --tune off --steps 3 --json").ok();
    assert_eq!(answer(&ran)["run"], "r");
    let mut inside = folder.command("train --resume . --tune off --steps 4 --data ../../in.txt");
    let ran = done(inside.current_dir(folder.path("r/checkpoints")));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(folder.path("r/checkpoints/step-00000004.safetensors").exists());
    std::fs::create_dir(folder.path("checkpoints")).unwrap();
    refused(&folder, &[("generate checkpoints", &["holds no checkpoint"])]);
}

#[test]
fn what_is_said_to_be_next_works() {
    let folder = Folder::new();
    let tokens: Vec<u8> = (0..20_000_u32).flat_map(|i| ((i * i % 499) as u16).to_le_bytes()).collect();
    folder.write("t.bin", tokens);
    let next = |ran: &Ran| {
        let line = ran.stdout.lines().find(|line| line.starts_with("next ")).unwrap();
        line.split_once("tokenformer ").unwrap().1.to_owned()
    };
    let shards = next(&folder.train("--data t.bin --set model.vocab_size=500 --steps 2 --out s").ok());
    folder.run(&shards).ok();
    say("shards-next-generate", &format!("next            tokenformer {shards}"));
    let text = next(&folder.train("--steps 2 --out t").ok());
    assert_eq!(text, "generate t");
    folder.run(&text).ok();
}

#[test]
fn a_prompt_comes_from_anywhere_and_texts_end_where_asked() {
    let folder = Folder::new();
    folder.train("--steps 2 --out r").ok();
    let plain = folder.run("generate r --prompt the --tokens 40 --seed 3").ok();
    assert!(plain.stderr.contains("seed 3: 40 tokens in ") && plain.stderr.contains(" tokens/s"), "{}", plain.stderr);
    let piped = |text: &[u8], args: &str| {
        let mut command = folder.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(piped(b"the", "generate r -p - -n 40 --seed 3").1, plain.stdout);
    folder.write("start.txt", "\u{feff}the");
    assert_eq!(folder.run("generate r --prompt-file start.txt -n 40 --seed 3").ok().stdout, plain.stdout);
    let (code, _, said) = piped(b"caf\xe9", "generate r -p -");
    assert!(code == Some(2) && said.contains("standard input is not UTF-8"), "{said}");
    let (code, _, said) = piped(b"", "generate r -p -");
    assert!(code == Some(1) && said.contains("--prompt - is empty"), "{said}");
    let long = piped("the ".repeat(30).as_bytes(), "generate r -p - -n 2");
    assert!(long.0 == Some(0) && long.2.contains("the model reads the last 16 of them"), "{}", long.2);
    refused(
        &folder,
        &[
            ("generate r --prompt-file nosuch.txt", &["cannot read nosuch.txt: no such file"]),
            ("generate r --prompt a --prompt-file start.txt", &["cannot be used with"]),
            ("generate r --num-samples 0", &["give a whole number from 1"]),
        ],
    );

    // Several texts have seeds that follow each other.
    let several = folder.run("sample r -p the -n 40 --seed 2 --num-samples 2 --json").ok();
    let found = answer(&several);
    let texts: Vec<&str> = found["samples"].as_array().unwrap().iter().map(|s| s["text"].as_str().unwrap()).collect();
    assert_eq!(format!("the{}\n", texts[1]), plain.stdout);
    let json = several.stdout.lines().last().unwrap();
    assert_eq!(several.stdout, format!("the{}\n---\nthe{}\n{json}\n", texts[0], texts[1]));
    assert_eq!((found["command"].as_str(), found["tokens"].as_u64()), (Some("generate"), Some(80)));
    // A stop is not printed, nor what comes after it.
    let stop: String = texts[1].chars().skip(10).take(2).filter(|c| !c.is_whitespace()).collect();
    let mut command = folder.command("generate r -p the -n 40 --seed 3 --json --stop");
    let stopped = done(command.arg(&stop));
    let found = answer(&stopped);
    assert_eq!(found["samples"][0]["text"].as_str().unwrap(), texts[1].split(&stop).next().unwrap());
    assert_eq!(found["samples"][0]["stopped"], true);
}

#[test]
fn every_verb_answers_in_json() {
    let folder = Folder::new();
    let ran = folder.train("in.txt -n 2 -o r --json").ok();
    let found = answer(&ran);
    assert_eq!(
        (found["command"].as_str(), found["step"].as_u64(), found["run"].as_str()),
        (Some("train"), Some(2), Some("r"))
    );
    assert!(found["val_loss"].as_f64().unwrap() > 0.0 && found["entropy_floor"].is_null(), "{found}");
    for (args, command, keys) in [
        ("eval r", "eval", &["loss", "perplexity", "bits_per_byte", "tokens"][..]),
        ("inspect r", "inspect", &["step", "parameters", "config", "lineage", "checked"]),
        ("plan -c run.toml --target webgpu", "plan", &["adapter", "stages"]),
        ("devices", "devices", &["adapters", "chosen", "why"]),
        ("grow r g.safetensors --ffn-slots 24", "grow", &["output", "growth", "step"]),
        ("prune r --keep 0.5 --batches 1", "prune", &["loss_before", "loss_after_by_score", "pruning"]),
        ("train -c run.toml --dry-run", "train", &["config"]),
    ] {
        let ran = folder.run(&format!("{args} --json")).ok();
        let found = answer(&ran);
        assert_eq!(found["command"], command, "{args}");
        let missing = keys.iter().find(|key| found[**key].is_null());
        assert!(missing.is_none(), "{args}: {missing:?} in {found}");
        // Without it, the same words and no object.
        let words = if args.starts_with("grow") { continue } else { folder.run(args).ok().stdout };
        let all = ran.stdout.lines().count() - 1;
        assert_eq!(words.lines().count(), all, "{args}");
    }
    for (args, kind, code) in [
        ("eval nosuch --json", "input", 2),
        ("train -c run.toml --lr nan --json", "usage", 1),
        ("train --stpes 3 --json", "usage", 1),
        ("train --lr fast --json", "usage", 1),
        ("plan -c run.toml --target webgpu --set model.ffn_slot_num=16777216 --json", "device", 3),
    ] {
        let ran = folder.run(args);
        let found = answer(&ran);
        assert_eq!(
            (found["kind"].as_str(), found["exit_code"].as_i64(), ran.code),
            (Some(kind), Some(code), code as i32)
        );
        let sentence = found["error"].as_str().unwrap();
        assert!(ran.stderr.contains(sentence), "{args}: {sentence}\n{}", ran.stderr);
    }
}

#[test]
fn a_plan_that_does_not_fit_shows_where() {
    let folder = Folder::new();
    let ran = folder.run("plan -c run.toml --target webgpu --set model.ffn_slot_num=16777216");
    let marked: Vec<&str> = ran.stdout.lines().filter(|line| line.contains("<- ")).collect();
    assert!(ran.code == 3 && marked[0].starts_with("parameters"), "{}", ran.stdout);
    assert!(marked[0].contains("layers.0.mlp.key_param_tokens is 1.1 GB, at most 134.2 MB"), "{marked:?}");
    assert!(ran.stdout.contains("\ntotal ") && ran.refused().contains("layers.0.mlp.key_param_tokens"));
    // Activations, and only after the growth.
    let rows = "--set train.loss_chunk_rows=99999 --set model.vocab_size=50000 --batch-size 512";
    let ran = folder.run(&format!("plan -c run.toml --target webgpu {rows}"));
    assert!(ran.code == 3 && ran.stdout.contains("<- logits is"), "{}", ran.stdout);
    let ran = folder.run("plan -c run.toml --target webgpu --set growth=[{at_step=1,ffn_slot_num=16777216}]");
    let (before, after) = ran.stdout.split_once("after growth 1: ").unwrap();
    assert!(ran.code == 3 && !before.contains("<- ") && after.contains("<- "), "{}", ran.stdout);
}

#[test]
fn files_are_taken_for_what_they_are() {
    let folder = Folder::new();
    folder.train("--steps 2 --out r").ok();
    refused(
        &folder,
        &[
            ("train run.toml", &["run.toml is a file of settings", "--config run.toml"]),
            ("train r", &["r is a run and no data", "--resume r"]),
            ("train --data r/checkpoints/step-00000002.safetensors", &["is a checkpoint", "--resume"]),
            ("train in.txt --data in.txt", &["cannot be used with"]),
            ("inspect r --adapter 0", &["--adapter"]),
            ("--adapter 0 inspect r", &["inspect uses no adapter"]),
        ],
    );
    // A file may be called as what unsets a setting.
    folder.write("none", folder.read("in.txt"));
    assert!(folder.run("train -c run.toml none --dry-run").ok().stdout.contains("path = \"./none\""));
    assert!(
        folder.run("train -c run.toml --arch transformer --dry-run").ok().stdout.contains("arch = \"transformer\"")
    );
}

#[test]
fn help_is_grouped_with_examples_and_shells_complete() {
    let folder = Folder::new();
    let help = folder.run("train --help").ok().stdout;
    for part in ["\nData:", "\nOptimisation:", "\nDevice:", "\nSafety:", "\nRun:", "\nExamples:\n  tokenformer train "]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(!help.contains("max-iters"), "aliases are hidden");
    assert!(!folder.run("inspect --help").ok().stdout.contains("--adapter"));
    let presets = folder.run("presets").ok().stdout;
    // What it prints of one is a file of settings.
    folder.write("run.toml", &folder.run("presets quickstart").ok().stdout);
    let shown = |settings: &str| folder.run(&format!("train {settings} --dry-run")).ok().stdout;
    assert_eq!(shown("-c run.toml"), shown("--preset quickstart"));
    assert!(folder.run("presets 150m").ok().stdout.contains("num_layers = 12"));
    assert!(folder.run("presets quikstart").refused().contains("quickstart"));
    assert!(presets.contains("quickstart") && presets.contains("151,881,216"), "{presets}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(folder.run(&format!("completions {shell}")).ok().stdout.contains("generate"), "{shell}");
    }
    folder.run("man pages").ok();
    assert!(folder.text("pages/tokenformer-train.1").contains("resume"));
}

/// As long as so many tokens, so many times the data, or while the validation loss falls.
/// Each would train alone, and all would write the same files.
#[cfg(not(feature = "mpi"))]
#[test]
fn one_of_several_ranks_needs_a_build_with_mpi() {
    let folder = Folder::new();
    for (variable, launcher) in [("OMPI_COMM_WORLD_SIZE", "mpirun"), ("PMI_SIZE", "mpiexec")] {
        let mut command = folder.command("train --config run.toml");
        let said = done(command.env(variable, "4")).refused();
        assert!(
            said.contains(&format!("one of 4 that {launcher} started")) && said.contains("--features mpi"),
            "{said}"
        );
        say("a launcher without MPI", &said);
    }
    assert!(!folder.path("runs").exists());
}
