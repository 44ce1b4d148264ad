//! The settings of a run: TOML text, and `--set` assignments.
//!
//! The parser is the toml crate's, between our own checks of size, keys, types and values; the crate sets the speed.

use std::sync::LazyLock;
use std::time::Duration;

use tokenformer::config::{PRESETS, RunConfig};
use tokenformer::error::{Error, Result};

use crate::attack::Target;
use crate::dice::Dice;

/// What a user may hand over.
#[derive(Debug)]
struct Input {
    text: Text,
    /// An assignment as of `--set`, not a file.
    assignment: bool,
}

impl AsRef<[u8]> for Input {
    fn as_ref(&self) -> &[u8] {
        &self.text.0
    }
}

/// Bytes that print as text.
struct Text(Vec<u8>);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// The lines of every preset, with every key there is, and some that only growths have.
static LINES: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
    let text = |name: &str| {
        let mut run = RunConfig::preset(name).unwrap();
        run.model.freeze_tau();
        (run.data.path, run.data.val_path) = (Some("a.txt".into()), Some("b.txt".into()));
        run.train.sample_prompt = "a \"quoted\"\nline".to_owned();
        run.to_toml().unwrap()
    };
    let growth = "[[growth]]\nat_step = 7\nffn_slot_num = 640\npolicy = \"official\"\ninit_keys = \"zero\"\n\
                  init_values = \"random\"\ntau = \"keep\"\noptimizer = \"carry_step\"\nlr_scale = 0.5\ntrain = \"new\"";
    let waiting = "[[growth]]\nwhen = \"plateau\"\nat_step = 7\npatience = 3\nmin_delta = 0.5\nffn_slot_num = 640";
    let deeper = "[[growth]]\nat_step = 9\nnum_layers = 8\nintermediate_size = 1024\npolicy = \"stack\"";
    let lines = |text: String| text.lines().map(str::to_owned).collect();
    PRESETS
        .iter()
        .map(|preset| lines(text(preset.name)))
        .chain([growth, waiting, deeper].map(|text| lines(text.to_owned())))
        .collect()
});

/// Values of every type, most of them not meant for any key.
const VALUES: [&str; 36] = [
    "0",
    "1",
    "-1",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "-0.0",
    "5e-324",
    "1e-45",
    "1e-38",
    "1e39",
    "1.7976931348623157e308",
    "1e309",
    "0.5",
    "0x7fffffffffffffff",
    "0o7",
    "0b1",
    "1_000",
    "99999999999999999999",
    "true",
    "\"\"",
    "''",
    "\"\\u0000\\n\"",
    "\"\\ud800\"",
    "'''\n'''",
    "\"\"\"a\nb\"\"\"",
    "\"keep\"",
    "\"l2_norm_gelu\"",
    "\"150m\"",
    "1979-05-27T07:32:00Z",
    "07:32:00",
    "[]",
    "{}",
    "[{}]",
    "=",
];

/// Headers and keys that are not in the files as written.
const PLACES: [&str; 20] = [
    "[model]",
    "[[model]]",
    "[train]",
    "[[growth]]",
    "[growth]",
    "[data.x]",
    "[a.b.c]",
    "[]",
    "[[]]",
    "preset = \"150m\"",
    "preset = 3",
    "model.num_layers = 3",
    "train = {lr = 1e-2}",
    "growth = [{at_step = 3, ffn_slot_num = 1024}]",
    "preset = \"15m\"",
    "[train]\nlr_schedule = \"wsd\"\nwarmup_fraction = 0.9",
    "\"model\".'num_layers' = 2",
    "lr = 1",
    "bach_size = 3",
    "# comment \u{7}",
];

fn value(dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => format!("{}", dice.extreme()),
        1 => format!("{:?}", f64::from_bits(dice.bits())),
        2 => nested(dice),
        3 => format!("\"{}\"", "x\u{e9}\\n".repeat(dice.below(40))),
        _ => dice.pick(&VALUES).to_owned(),
    }
}

/// Brackets inside each other, mostly closed again.
fn nested(dice: &mut Dice) -> String {
    let depth = if dice.one_in(8) { dice.below(300) } else { dice.below(4) };
    let (open, close) = [("[", "]"), ("{a = ", "}"), ("[[[{a.b = ", "}]]]"), ("[[], {}, ", "]")][dice.below(4)];
    open.repeat(depth) + "1" + &close.repeat(depth.saturating_sub(dice.below(8) / 7))
}

/// A file: some lines of a preset, in order, with lines changed, moved and spliced with another's.
fn lines(dice: &mut Dice) -> Vec<String> {
    let of = |dice: &mut Dice| &LINES[dice.below(LINES.len())];
    let preset = of(dice);
    let keep = 1 + dice.below(12);
    let mut lines: Vec<String> =
        preset.iter().filter(|line| line.starts_with('[') || dice.one_in(keep)).cloned().collect();
    for _ in 0..dice.few(6) {
        match dice.below(4) {
            0 => {
                let at = dice.below(lines.len() + 1);
                lines.insert(at, dice.pick(&PLACES).to_owned());
            }
            1 | 2 if !lines.is_empty() => {
                let at = dice.below(lines.len());
                let line = &mut lines[at];
                match line.split_once(" = ") {
                    Some((key, _)) if !dice.one_in(16) => *line = format!("{key} = {}", value(dice)),
                    _ => *line = format!("{} = {}", "a.".repeat(dice.few(400)) + "a", value(dice)),
                }
            }
            _ => {
                let other = of(dice);
                dice.shuffle(&mut lines, other);
            }
        }
    }
    lines
}

/// An assignment to a key of a preset, or nearly.
fn assignment(dice: &mut Dice) -> String {
    let lines = &LINES[dice.below(LINES.len())];
    let (mut table, mut at) = ("", dice.below(lines.len()));
    while at > 0 && !lines[at].contains(" = ") {
        at -= 1;
    }
    if let Some(header) = lines[..at].iter().rfind(|line| line.starts_with('[')) {
        table = header.trim_matches(['[', ']']);
    }
    let line = match dice.below(4) {
        0 => return format!("{}={}", lines[at].split(" = ").next().unwrap_or(""), value(dice)),
        1 => lines[at].clone(),
        _ => format!("{}={}", lines[at].split(" = ").next().unwrap_or(""), value(dice)),
    };
    format!("{table}.{line}")
}

fn make(dice: &mut Dice) -> Input {
    let assignment_only = dice.one_in(4);
    let mut make = || if assignment_only { assignment(dice) } else { lines(dice).join("\n") };
    let (text, other) = (make(), make());
    let mut bytes = text.into_bytes();
    if dice.one_in(4) {
        for _ in 0..=dice.few(6) {
            dice.damage(&mut bytes, other.as_bytes());
        }
    }
    Input { text: Text(bytes), assignment: assignment_only }
}

fn parse(input: &Input) -> Result<RunConfig> {
    let run = if input.assignment {
        let mut run = RunConfig::default();
        let text = str::from_utf8(&input.text.0).map_err(|_| Error::usage("not UTF-8"))?;
        run.apply_override(text).map(|()| run)
    } else {
        RunConfig::from_bytes(&input.text.0, "run.toml")
    }?;
    run.validate().map(|()| run)
}

/// What a valid configuration lets the rest of the program rely on.
fn check(input: &Input, run: Option<RunConfig>) -> Result<(), String> {
    let Some(run) = run else { return Ok(()) };
    // Some of all files, by their content: writing and reading again takes several times as long as the rest.
    if input.text.0.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) < 32 {
        comes_back(&run)?;
    }
    let stages = run.stages().map_err(|error| error.to_string())?;
    run.train.grad_accum(&run.model).map_err(|error| error.to_string())?;
    for model in &stages {
        if model.param_count() == u64::MAX || model.head_width() * model.num_attention_heads != model.hidden_size {
            return Err(format!("no model has the shape {model:?}"));
        }
    }
    device_numbers(&run)
}

/// Written and read again, as TOML and as the JSON of checkpoints, it is the same.
fn comes_back(run: &RunConfig) -> Result<(), String> {
    let text = run.to_toml().map_err(|error| error.to_string())?;
    let back = RunConfig::from_toml(&text, "run.toml").map_err(|error| error.to_string())?;
    if back != *run {
        return Err(format!("written and read again it is another: {text}"));
    }
    let json = serde_json::to_value(run).map_err(|error| error.to_string())?;
    if serde_json::from_value::<RunConfig>(json).ok().as_ref() != Some(run) {
        return Err("as JSON, and read again, it is another".to_owned());
    }
    Ok(())
}

/// Numbers that the device computes with in 32 bits: none may become infinite there, or 0 where it divides.
fn device_numbers(run: &RunConfig) -> Result<(), String> {
    let (model, train) = (&run.model, &run.train);
    let taus = [model.tau_qkv, model.tau_proj, model.tau_ffn].into_iter().flatten();
    let scales = run.growth.iter().map(|growth| growth.resolve().lr_scale);
    let divisors = [model.layernorm_epsilon, model.rotary_emb_base, train.adam_eps, train.lr];
    for number in taus.chain(scales).chain(divisors) {
        if !(number as f32).is_normal() {
            return Err(format!("{number:e} is {} in 32 bits", number as f32));
        }
    }
    let others = [model.pattention_eps, train.min_lr, train.weight_decay, train.grad_clip, train.sample_temperature];
    for number in others {
        if !(number == 0.0 || (number as f32).is_normal()) {
            return Err(format!("{number:e} is {} in 32 bits", number as f32));
        }
    }
    if train.beta1 as f32 >= 1.0 || train.beta2 as f32 >= 1.0 {
        return Err("a decay of 1 in 32 bits divides by 0".to_owned());
    }
    Ok(())
}

const REFUSALS: &[&str] = &[
    "is not TOML",
    "is not UTF-8",
    "unknown key",
    "the nearest key is",
    "it belongs in",
    "must be a whole number",
    "must be a number",
    "must be a table",
    "must be a list of tables",
    "must be true or false",
    "unknown variant",
    "there is no preset",
    "preset is",
    "but must be between",
    "does not divide",
    "at least 0",
    "is a fraction",
    "add up to more",
    "adds no parameter tokens",
    "only adds parameter tokens",
    "would remove parameter tokens",
    "--set",
    "written table.key=value",
];

#[test]
fn config() {
    Target { name: "config", cases: 60_000, make, parse, check, refusals: REFUSALS }.attack();
}

/// What is repeated as often as fits: each is the worst of its kind for memory, time or stack.
const REPEATED: [(&str, &str, &str); 16] = [
    ("", "\n", ""),
    ("", "[", ""),
    ("", "[[a]]\n", ""),
    ("", "[[a]]\na=1\n", ""),
    ("", "[[a.a]]\n", ""),
    ("", "a.", "a=1"),
    ("", "#.\n", ""),
    ("a=[", "1,", "]"),
    ("a=[", "[],", "]"),
    ("a=[", "[1],", "]"),
    ("a=[", "{a=1},", "]"),
    ("a=[", "{a.a.a.a.a.a.a=1},", "]"),
    ("growth=[", "{at_step=1,lr_scale=0.5},", "]"),
    ("[train]\nlr_schedule=\"", "x", "\""),
    ("[train]\nlr=\"", "\\n", "\""),
    ("[train]\nsample_prompt=\"", "\\u0000", "\""),
];

/// Around each of the limits of size, and far beyond: what passes them must stay within the heap.
#[test]
fn config_of_any_size() {
    let target = Target { name: "config", cases: 0, make, parse, check, refusals: &[] };
    let mut most = (0, Duration::ZERO);
    let mut try_text = |text: String, assignment| {
        let input = Input { text: Text(text.into_bytes()), assignment };
        let verdict = target.judge(&input).unwrap_or_else(|what| panic!("{what}\n{:.300}", format!("{input:?}")));
        most = (most.0.max(verdict.extra), most.1.max(verdict.time));
        verdict
    };
    for (before, unit, after) in REPEATED {
        for count in (0..26).flat_map(|power| [1 << power, 3 << power]).take_while(|count| count * unit.len() < 1 << 23)
        {
            let repeated = unit.repeat(count);
            try_text(format!("{before}{repeated}{after}"), false);
            try_text(format!("{repeated}={repeated}"), true);
            try_text(format!("growth={before}{repeated}{after}"), true);
        }
        // Every number of tables that may pass, a line or an entry each.
        for count in 0..340 {
            try_text(format!("{before}{}{after}", unit.repeat(count)), false);
        }
    }
    // Tables with names of their own take most memory, 70 levels the deepest nesting that the parser takes.
    for (tables, depth) in [(320, 1), (160, 2), (64, 5), (4, 70), (5, 60), (1, 320)] {
        let text = (0..tables).map(|i| format!("a{i}{}=1\n", ".a".repeat(depth))).collect();
        try_text(text, false);
    }
    assert_eq!(try_text(format!("[train]\nsample_prompt=\"{}\"", "x".repeat(60_000)), false).refusal, None);
    println!("most heap beyond 2 x input {} bytes, slowest {:?}", most.0, most.1);
}
