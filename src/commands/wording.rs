//! How the arguments of all verbs are shown and found: groups of the help, names that other programs have for them, and which
//! verbs have `--json` and `--adapter`.

use clap::{Arg, ArgAction, Command};

/// Verbs that need no adapter.
pub(super) const WITHOUT_ADAPTER: [&str; 10] =
    ["prepare", "export", "import", "inspect", "compare", "report", "presets", "completions", "man", "help"];

/// Verbs that answer in JSON.
const WITH_JSON: [&str; 14] = [
    "train", "prepare", "grow", "prune", "export", "import", "generate", "eval", "inspect", "plan", "selftest",
    "devices", "report", "lr-find",
];

/// Groups of the help, and the arguments in each; others belong to the run.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Data",
        &[
            "data",
            "split",
            "batches",
            "tokenizer",
            "format",
            "text_key",
            "shard_tokens",
            "val_fraction",
            "val_by",
            "skip_bad",
        ],
    ),
    (
        "Optimisation",
        &[
            "steps",
            "batch_size",
            "lr",
            "seed",
            "precision",
            "recompute",
            "optimizer",
            "lr_scale",
            "train",
            "min_lr",
            "max_lr",
        ],
    ),
    ("Device", &["adapter", "backend", "tune", "fit", "polite", "target"]),
    ("Safety", &["overwrite", "verify_every", "dry_run", "predict"]),
];

/// What other programs call an argument; all spellings with `_` for `-` are understood as well.
const ALIASES: &[(&str, &[&str])] = &[
    ("steps", &["max-iters", "iters", "max-steps", "num-steps", "num-iterations"]),
    ("batch_size", &["per-device-train-batch-size", "train-batch-size", "micro-batch-size"]),
    ("lr", &["learning-rate"]),
    ("data", &["dataset", "train-file", "data-path", "input-bin"]),
    ("tokenizer", &["tokenizer-name", "tokenizer-path", "tokenizer-file"]),
    ("out", &["out-dir", "output-dir", "save-dir"]),
    ("precision", &["dtype"]),
    ("recompute", &["grad-checkpoint", "gradient-checkpointing"]),
    ("resume", &["resume-from-checkpoint"]),
    ("tokens", &["max-new-tokens", "max-tokens", "n-predict"]),
    ("prompt", &["start"]),
    ("temperature", &["temp"]),
    ("num_samples", &["samples"]),
    ("stop", &["stop-sequence", "reverse-prompt"]),
    ("stop_at_eos", &["stop-at-end"]),
    ("adapter", &["device"]),
];

/// `command` and all below it with groups, other names, `--json`, and numbers below 0 as values: what refuses one can name
/// the option and its limit.
pub(super) fn worded(command: Command) -> Command {
    let command = match WITH_JSON.contains(&command.get_name()) {
        true => command.arg(json()),
        false => command,
    };
    command.mut_args(worded_arg).mut_subcommands(worded)
}

fn json() -> Arg {
    let help = "Print the result as one JSON object, on the last line of standard output";
    Arg::new("json").long("json").action(ArgAction::SetTrue).help(help)
}

fn worded_arg(arg: Arg) -> Arg {
    let arg = if arg.get_action().takes_values() { arg.allow_negative_numbers(true) } else { arg };
    let Some(long) = arg.get_long().map(str::to_owned) else { return arg };
    let id = arg.get_id().as_str().to_owned();
    let others = ALIASES.iter().find(|(of, _)| *of == id).map_or(&[][..], |(_, names)| *names);
    let all = [long.as_str()].into_iter().chain(others.iter().copied()).map(str::to_owned);
    let known: Vec<String> = arg.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned).collect();
    let spelled: Vec<String> = all
        .flat_map(|name| [name.replace('-', "_"), name])
        .filter(|name| *name != long && !known.contains(name))
        .collect();
    let mut unique = spelled;
    unique.sort();
    unique.dedup();
    let group = GROUPS.iter().find(|(_, ids)| ids.contains(&id.as_str())).map(|(group, _)| *group);
    let group = group.unwrap_or(if id.starts_with("accept") { "Safety" } else { "Run" });
    arg.aliases(unique).help_heading(group)
}
