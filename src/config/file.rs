//! A run's settings as TOML: read over a preset, overridden key by key, written back complete.
//!
//! Keys and types are compared with a template in which every setting is present, so that an error can name
//! the table, the key and the nearest key there is. Values are judged by [`RunConfig::validate`], after the
//! last override.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use toml::{Table, Value};

use super::{
    DataConfig, GrowthConfig, GrowthPolicy, GrowthWhen, InitKeys, InitValues, ModelConfig, OptimizerRule, RunConfig,
    TauRule, TrainRule, size,
};
use crate::error::{Error, Result};

impl RunConfig {
    /// Reads a configuration file; see [`Self::from_bytes`].
    ///
    /// # Errors
    /// As [`Self::from_bytes`], and a file that cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_or(path, "give another --config")
    }

    /// As [`Self::read`], with the remedy where the file cannot be read.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn read_or(path: &Path, remedy: &str) -> Result<Self> {
        let bytes =
            read_bytes(path).map_err(|cause| Error::input(format!("{}; {remedy}", Error::io("read", path, &cause))))?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// Reads the bytes of a configuration file; see [`Self::from_toml`].
    ///
    /// # Errors
    /// As [`Self::from_toml`], and bytes that are not UTF-8.
    pub fn from_bytes(bytes: &[u8], origin_name: &str) -> Result<Self> {
        Self::from_toml(text_of(bytes, origin_name)?, origin_name)
    }

    /// Reads `text`, whose tables override the preset named by its top-level `preset` key, or the defaults.
    /// A `[[growth]]` list replaces the preset's. Not yet validated: flags may still change it.
    ///
    /// # Errors
    /// An input error, led by `origin_name`, on too much or broken TOML, an unknown key (with the nearest one), a value
    /// of the wrong type, or an unknown name of a preset or choice.
    pub fn from_toml(text: &str, origin_name: &str) -> Result<Self> {
        let led = |sentence: String| Error::input(format!("{origin_name}: {sentence}"));
        let mut given = parse(text, origin_name)?;
        let base = match given.remove("preset") {
            None => Self::default(),
            Some(Value::String(name)) => Self::preset(&name).map_err(|error| led(error.to_string()))?,
            Some(other) => return Err(led(format!("preset is {}, but must be a string", described(&other)))),
        };
        base.overridden(given).map_err(led)
    }

    /// The complete configuration as TOML that [`Self::from_toml`] reads back equal.
    ///
    /// # Errors
    /// A usage error when a path is not UTF-8 or the seed is above `i64::MAX`, as TOML can hold neither, or when it
    /// would be longer than what can be read.
    pub fn to_toml(&self) -> Result<String> {
        let text = toml::to_string(self).map_err(|cause| {
            Error::usage(format!("the configuration cannot be written as TOML: {}", one_line(&cause)))
        })?;
        size::check(&text).map_err(|reason| Error::usage(format!("the configuration as TOML {reason}")))?;
        Ok(text)
    }

    /// Applies `table.key=value`, as given to `--set`. The value is TOML; quotes around text may be left out.
    ///
    /// # Errors
    /// A usage error, and `self` unchanged, when there is no such key or the value does not fit it.
    pub fn apply_override(&mut self, assignment: &str) -> Result<()> {
        let shown = shortened(assignment);
        let led = |sentence: String| Error::usage(format!("--set {shown}: {sentence}"));
        let Some((path, value)) = assignment.split_once('=') else {
            return Err(led("an override is written table.key=value, such as train.lr=3e-4".to_owned()));
        };
        size::check(value).map_err(|reason| led(format!("the value {reason}")))?;
        // No key is this deep, so what is left out changes nothing.
        let keys: Vec<&str> = path.trim().split('.').take(DEEPEST).collect();
        let wants_text = matches!(lookup(template().map_err(led)?, &keys), Some(Value::String(_)));
        let value = value.trim();
        let value = match value.parse::<Value>() {
            Ok(parsed) if parsed.is_str() || !wants_text => parsed,
            Err(_) if !wants_text && value.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
                let value = shortened(value);
                return Err(led(format!(
                    "{value} is not a number, or too large: whole numbers go up to {}, others to {:e}",
                    i64::MAX,
                    f64::MAX
                )));
            }
            _ => Value::String(value.to_owned()),
        };
        let nested =
            keys.iter().rev().fold(value, |inner, key| Value::Table(Table::from_iter([(key.to_string(), inner)])));
        let Value::Table(given) = nested else { return Ok(()) };
        *self = self.overridden(given).map_err(led)?;
        Ok(())
    }

    /// `self` with the keys of `given` over it, or a sentence saying what is wrong with `given`. Not yet validated.
    pub(crate) fn overridden(&self, given: Table) -> Result<Self, String> {
        check_keys(&given, template()?)?;
        let mut merged = Table::try_from(self).map_err(|cause| one_line(&cause))?;
        merge(&mut merged, given);
        merged.try_into().map_err(|cause| one_line(&cause))
    }
}

/// The tables of a file that is no run's configuration but is held to its limits of size, such as a study.
pub(crate) fn read_table(path: &Path) -> Result<Table> {
    let name = path.display().to_string();
    let bytes = read_bytes(path)
        .map_err(|cause| Error::input(format!("{}; give another file", Error::io("read", path, &cause))))?;
    parse(text_of(&bytes, &name)?, &name)
}

/// At most one byte more than is allowed: that shows that there are more, also where there is no end, as in /dev/zero.
fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(size::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text_of<'a>(bytes: &'a [u8], origin_name: &str) -> Result<&'a str> {
    size::check_bytes(bytes.len()).map_err(|reason| Error::input(format!("{origin_name} {reason}")))?;
    str::from_utf8(bytes).map_err(|_| {
        Error::input(format!("{origin_name} is not UTF-8 text, as a TOML file must be: give another file"))
    })
}

fn parse(text: &str, origin_name: &str) -> Result<Table> {
    size::check(text).map_err(|reason| Error::input(format!("{origin_name} {reason}")))?;
    text.parse().map_err(|cause| Error::input(format!("{origin_name}: {}", syntax(text, &cause))))
}

/// Every key of `given` is in `template`, with a value of its type; otherwise the sentence that says what is wrong.
pub(crate) fn check_keys(given: &Table, template: &Table) -> Result<(), String> {
    check(given, template, template, "")
}

/// More keys than any setting has tables above it.
const DEEPEST: usize = 8;

/// A configuration in which every setting is present: what the keys are, and the type of each.
fn template() -> Result<&'static Table, String> {
    static TEMPLATE: LazyLock<Result<Table, String>> = LazyLock::new(complete);
    TEMPLATE.as_ref().map_err(Clone::clone)
}

fn complete() -> Result<Table, String> {
    let growth = GrowthConfig {
        when: GrowthWhen::Plateau,
        at_step: 1,
        patience: Some(1),
        min_delta: Some(0.01),
        qkv_slot_num: Some(1),
        proj_slot_num: Some(1),
        ffn_slot_num: Some(1),
        num_layers: Some(1),
        intermediate_size: Some(1),
        policy: GrowthPolicy::Preserving,
        init_keys: Some(InitKeys::Zero),
        init_values: Some(InitValues::Random),
        tau: Some(TauRule::Keep),
        optimizer: Some(OptimizerRule::Carry),
        lr_scale: Some(1.0),
        train: Some(TrainRule::All),
    };
    let mut model = ModelConfig::default();
    model.freeze_tau();
    let data = DataConfig {
        path: Some("train.txt".into()),
        val_path: Some("val.txt".into()),
        old_path: Some("old.txt".into()),
        corpus_seed: Some(1),
        ..DataConfig::default()
    };
    let complete = RunConfig { model, data, growth: vec![growth], ..RunConfig::default() };
    Table::try_from(&complete).map_err(|cause| one_line(&cause))
}

/// Every key of `given` is in `expected`, with a value of its type. `place` is the table, "" at the top.
fn check(given: &Table, expected: &Table, whole: &Table, place: &str) -> Result<(), String> {
    for (key, value) in given {
        let name = if place.is_empty() { shortened(key) } else { format!("{place}.{}", shortened(key)) };
        match (expected.get(key), value) {
            (None, _) => return Err(unknown(key, expected, whole, place)),
            (Some(Value::Table(expected)), Value::Table(given)) => check(given, expected, whole, &name)?,
            (Some(Value::Array(expected)), Value::Array(given)) => {
                for entry in given {
                    match (expected.first(), entry) {
                        (Some(Value::Table(expected)), Value::Table(given)) => check(given, expected, whole, &name)?,
                        (Some(Value::Float(_)), Value::Integer(_)) => {}
                        (Some(expected), entry) if expected.same_type(entry) => {}
                        (Some(expected), entry) => {
                            let (found, wanted) = (described(entry), kind(expected));
                            return Err(format!("an entry of {name} is {found}, but must be {wanted}"));
                        }
                        (None, _) => {}
                    }
                }
            }
            (Some(Value::Integer(_)), Value::Integer(number)) if *number < 0 => {
                return Err(format!("{name} is {number}, but must be a whole number of at least 0"));
            }
            (Some(Value::Float(_)), Value::Integer(_)) => {}
            (Some(expected), value) if expected.same_type(value) => {}
            (Some(expected), value) => {
                return Err(format!("{name} is {}, but must be {}", described(value), kind(expected)));
            }
        }
    }
    Ok(())
}

/// The sentence about a key that does not exist: where it belongs, or the nearest key of its table.
fn unknown(key: &str, expected: &Table, whole: &Table, place: &str) -> String {
    let short = shortened(key);
    let here = if place.is_empty() { "at the top level".to_owned() } else { format!("in [{place}]") };
    let owner = whole.iter().find(|(_, table)| table.as_table().is_some_and(|table| table.contains_key(key)));
    if let Some((owner, _)) = owner {
        return format!("unknown key \"{short}\" {here}: it belongs in [{owner}], as {owner}.{short}");
    }
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&short, known);
    match expected.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(nearest) => format!("unknown key \"{short}\" {here}: the nearest key is \"{nearest}\""),
        None => format!("unknown key \"{short}\" {here}"),
    }
}

/// Lays `over` on `base`: tables key by key, everything else replaced.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

fn lookup<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (key, rest) = keys.split_first()?;
    let value = table.get(*key)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

fn kind(expected: &Value) -> &'static str {
    match expected {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(entries) if entries.first().is_some_and(|entry| !entry.is_table()) => "a list",
        Value::Array(_) => "a list of tables, each under [[growth]]",
        Value::Table(_) => "a table",
        Value::Datetime(_) => "a date",
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the string \"{}\"", shortened(text)),
        Value::Integer(number) => format!("{number}"),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(flag) => format!("{flag}"),
        Value::Datetime(date) => format!("the date {date}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// What a file says, short enough for a sentence and without control characters.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 100;
    let head: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() { format!("{head}...") } else { head }
}

/// The parser's complaint and its line, without the excerpt.
fn syntax(text: &str, cause: &toml::de::Error) -> String {
    let before = cause.span().and_then(|span| text.get(..span.start)).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    format!("line {line} is not TOML: {}", shortened(cause.message()))
}

fn one_line(cause: &impl std::fmt::Display) -> String {
    cause.to_string().trim().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LrSchedule, PRESETS};

    fn refusal(text: &str) -> String {
        RunConfig::from_toml(text, "run.toml").unwrap_err().to_string()
    }

    #[test]
    fn the_template_has_every_key() {
        let template: RunConfig = template().unwrap().clone().try_into().unwrap();
        let json = serde_json::to_string(&template).unwrap();
        assert!(!json.contains("null"), "a setting without a value has no type to check: {json}");
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        for name in PRESETS.iter().map(|preset| preset.name) {
            let mut run = RunConfig::preset(name).unwrap();
            run.model.freeze_tau();
            run.train.sample_prompt = "a \"quoted\"\nline = [x]".to_owned();
            run.data.path = Some(r"C:\data\a.txt".into());
            let text = run.to_toml().unwrap();
            assert_eq!(RunConfig::from_toml(&text, "run.toml"), Ok(run), "{text}");
        }
    }

    #[test]
    fn tables_override_the_preset_key_by_key() {
        let text = "preset = \"quickstart\"\n[model]\nnum_layers = 3\n[train]\nlr = 1\nlr_schedule = \"wsd\"";
        let run = RunConfig::from_toml(text, "run.toml").unwrap();
        let mut expected = RunConfig::preset("quickstart").unwrap();
        (expected.model.num_layers, expected.train.lr, expected.train.lr_schedule) = (3, 1.0, LrSchedule::Wsd);
        assert_eq!(run, expected);
        assert_eq!(RunConfig::from_toml("", "run.toml"), Ok(RunConfig::default()));
        let one = RunConfig::from_toml("preset = \"quickstart\"\n[[growth]]\nat_step = 7", "run.toml").unwrap();
        assert_eq!(one.growth, [GrowthConfig { at_step: 7, ..GrowthConfig::default() }]);
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest() {
        let text = refusal("[train]\nbach_size = 3");
        assert_eq!(text, "run.toml: unknown key \"bach_size\" in [train]: the nearest key is \"batch_size\"");
        assert!(refusal("[trian]").contains("at the top level: the nearest key is \"train\""));
        assert!(refusal("lr = 1.0").contains("it belongs in [train], as train.lr"));
        assert!(refusal("[[growth]]\nffn_slots = 3").contains("in [growth]: the nearest key is \"ffn_slot_num\""));
        assert!(refusal("preset = \"quikstart\"").contains("there is no preset \"quikstart\""));
        assert!(refusal(&format!("{} = 1", "x".repeat(100_000))).len() < 200);
    }

    #[test]
    fn a_wrong_value_is_named_with_what_was_expected() {
        assert_eq!(
            refusal("[train]\nlr = \"fast\""),
            "run.toml: train.lr is the string \"fast\", but must be a number"
        );
        assert!(refusal("[model]\nnum_layers = 2.5").contains("model.num_layers is 2.5, but must be a whole number"));
        assert!(refusal("[model]\nnum_layers = -1").contains("model.num_layers is -1, but must be a whole number of"));
        assert!(refusal("model = 3").contains("model is 3, but must be a table"));
        assert!(refusal("growth = [3]").contains("an entry of growth is 3"));
        assert!(refusal("[growth]\nat_step = 3").contains("must be a list of tables, each under [[growth]]"));
        let text = refusal("[train]\nlr_schedule = \"cosin\"");
        assert!(text.contains("`cosin`") && text.contains("`wsd`") && text.contains("train.lr_schedule"), "{text}");
    }

    #[test]
    fn broken_toml_is_one_sentence_with_its_line() {
        for text in ["[train]\nlr = = 3", "[train]\nlr = 99999999999999999999x", "a = \"", &"[".repeat(300)] {
            let sentence = refusal(text);
            assert!(sentence.contains("is not TOML") && !sentence.contains('\n'), "{sentence}");
        }
        assert!(refusal("[train]\nlr = = 3").starts_with("run.toml: line 2 "));
    }

    #[test]
    fn too_much_is_refused_before_it_is_parsed() {
        let limit = "has more than 65536 bytes";
        assert!(refusal(&" ".repeat(70_000)).starts_with(&format!("run.toml {limit}")));
        // 65537 bytes end inside a character, which is not what is wrong with them.
        let cut = RunConfig::from_bytes(&"\u{e9}".repeat(70_000).as_bytes()[..size::MAX_BYTES + 1], "run.toml");
        assert!(cut.unwrap_err().to_string().contains(limit));
        if cfg!(unix) {
            let endless = RunConfig::read(Path::new("/dev/zero")).unwrap_err().to_string();
            assert!(endless.starts_with(&format!("/dev/zero {limit}")), "{endless}");
        }
        let mut run = RunConfig::default();
        run.train.sample_prompt = "x".repeat(size::MAX_BYTES);
        assert!(run.validate().unwrap_err().to_string().contains(limit));
        // As nested tables, these would be too deep for the stack.
        let deep = run.apply_override(&("a.".repeat(1_000_000) + "a=1")).unwrap_err().to_string();
        assert!(deep.contains("unknown key \"a\" at the top level"), "{deep}");
    }

    #[test]
    fn overrides_reach_every_type() {
        let mut run = RunConfig::default();
        for assignment in [
            "train.lr=3e-4",
            "train.lr_schedule = constant",
            "train.sample_prompt=true",
            "data.path=a b.txt",
            "model.tau_ffn=4",
            "growth=[{at_step = 10, ffn_slot_num = 640, policy = \"official\"}]",
            "out_dir=\"quoted\"",
        ] {
            run.apply_override(assignment).unwrap();
        }
        assert_eq!((run.train.lr, run.train.lr_schedule), (3e-4, LrSchedule::Constant));
        assert_eq!((run.train.sample_prompt.as_str(), run.data.path.as_deref()), ("true", Some(Path::new("a b.txt"))));
        assert_eq!((run.model.tau_ffn, run.out_dir.as_path()), (Some(4.0), Path::new("quoted")));
        assert_eq!((run.growth.len(), run.growth[0].policy), (1, GrowthPolicy::Official));
    }

    #[test]
    fn a_refused_override_changes_nothing() {
        let mut run = RunConfig::default();
        for (assignment, reason) in [
            ("train.lr", "written table.key=value"),
            ("lr=1", "as train.lr"),
            ("train.lr=fast", "must be a number"),
            ("train.lr.x=1", "must be a number"),
            ("train.lr=1e400", "1e400 is not a number, or too large"),
            ("model.num_layers=18446744073709551615", "whole numbers go up to 9223372036854775807"),
            ("train=3", "must be a table"),
            ("=", "unknown key"),
            ("train..lr=1", "unknown key"),
            ("train.lr=1\ntrain.seed=2", "is not a number"),
        ] {
            let error = run.apply_override(assignment).unwrap_err();
            assert!(error.to_string().contains(reason) && error.exit_code() == 1, "{error}");
        }
        assert_eq!(run, RunConfig::default());
    }
}
