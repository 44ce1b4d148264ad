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

use super::keys::{described, shortened};
use super::{
    DataConfig, DataSource, GrowthConfig, GrowthPolicy, GrowthWhen, InitKeys, InitValues, ModelConfig, OptimizerRule,
    RunConfig, TauRule, TokenizerKind, TrainRule, keys, size, spelled,
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
    /// An input error, led by `origin_name`, on too much or broken TOML, an unknown key (with what it may mean), a value
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
        let is_numeric = value.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
        let value = match value.parse::<Value>() {
            Ok(parsed) if parsed.is_str() || !wants_text => parsed,
            // What is spelled in another way is told with its type.
            Err(_) if !wants_text && is_numeric && spelled::meant(value).is_none() => {
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
    /// `none` unsets a setting that may be absent.
    pub(crate) fn overridden(&self, mut given: Table) -> Result<Self, String> {
        let unset = unset(&mut given)?;
        keys::check(&given, template()?)?;
        let mut merged = Table::try_from(self).map_err(|cause| one_line(&cause))?;
        merge(&mut merged, given);
        for (table, key) in unset {
            merged.get_mut(&table).and_then(Value::as_table_mut).map(|table| table.remove(&key));
        }
        merged.try_into().map_err(|cause| one_line(&cause))
    }
}

/// What is said to who takes a setting for a flag: `--n_layer`, `--eval_interval`.
pub(crate) fn flag_of(flag: &str) -> Option<String> {
    let name = flag.trim_start_matches('-').to_lowercase().replace('-', "_");
    let template = template().ok()?;
    if let Some((owner, key)) = name.split_once('.') {
        let known = template.get(owner).and_then(|table| table.as_table()?.get(key)).is_some();
        return known.then(|| format!("it is a setting: --set {name}=VALUE"));
    }
    let owner = template.iter().find(|(_, table)| table.as_table().is_some_and(|table| table.contains_key(&name)));
    match owner {
        Some((owner, _)) => Some(format!("it is a setting: --set {owner}.{name}=VALUE")),
        None => super::synonyms::exact(&name).map(|synonym| {
            let key = synonym.answer.strip_prefix("it is ").and_then(|rest| rest.strip_suffix(" here"));
            key.map_or_else(|| synonym.answer.to_owned(), |key| format!("it is {key} here: --set {key}=VALUE"))
        }),
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

/// More keys than any setting has tables above it.
const DEEPEST: usize = 8;

/// A configuration in which every setting is present: what the keys are, and the type of each.
fn template() -> Result<&'static Table, String> {
    static TEMPLATE: LazyLock<Result<Table, String>> = LazyLock::new(complete);
    TEMPLATE.as_ref().map_err(Clone::clone)
}

/// Takes out what `given` says is to be absent, where that may be: its table and key. A file with such a name is `./none`.
fn unset(given: &mut Table) -> Result<Vec<(String, String)>, String> {
    static PRESENT: LazyLock<Result<Table, String>> =
        LazyLock::new(|| Table::try_from(RunConfig::default()).map_err(|cause| one_line(&cause)));
    let (all, present) = (template()?, PRESENT.as_ref().map_err(Clone::clone)?);
    let mut found = Vec::new();
    for (table, settings) in given.iter_mut() {
        let Value::Table(settings) = settings else { continue };
        let optional = |key: &str| lookup(all, &[table, key]).is_some() && lookup(present, &[table, key]).is_none();
        // As an unset variable of a shell leaves it.
        let empty = settings.iter().find(|(key, value)| optional(key) && value.as_str() == Some(""));
        if let Some((key, _)) = empty {
            return Err(format!("{table}.{key} is empty: give it a value, or none to go without"));
        }
        let absent = |value: &Value| {
            value.as_str().is_some_and(|text| ["none", "null"].iter().any(|no| text.eq_ignore_ascii_case(no)))
        };
        let named = settings.iter().filter(|(key, value)| optional(key) && absent(value));
        let named: Vec<String> = named.map(|(key, _)| key.clone()).collect();
        named.iter().for_each(|key| drop(settings.remove(key)));
        found.extend(named.into_iter().map(|key| (table.clone(), key)));
    }
    Ok(found)
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
        sources: vec![DataSource { path: "a.bin".into(), weight: 0.5 }],
        tokenizer: Some(TokenizerKind::Char),
        corpus_seed: Some(1),
        ..DataConfig::default()
    };
    let complete = RunConfig { model, data, growth: vec![growth], ..RunConfig::default() };
    Table::try_from(&complete).map_err(|cause| one_line(&cause))
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

/// The parser's complaint and its line, without the excerpt.
fn syntax(text: &str, cause: &toml::de::Error) -> String {
    let before = cause.span().and_then(|span| text.get(..span.start)).unwrap_or("");
    let line = before.matches('\n').count();
    let told = text.lines().nth(line).unwrap_or("");
    let is_windows_path = told.split_once('"').is_some_and(|(_, rest)| rest.contains('\\'));
    let remedy = match told.split_once('=') {
        _ if is_windows_path => ": use single quotes for a path with backslashes, such as 'C:\\data\\input.txt'",
        Some((_, value)) if spelled::meant(value.split('#').next().unwrap_or(value)).is_some() => {
            return format!(
                "line {} is not TOML: {}",
                line + 1,
                spelled::remedy(value.split('#').next().unwrap_or(value))
            );
        }
        _ => "",
    };
    let told = shortened(told.trim());
    format!("line {} (`{told}`) is not TOML: {}{remedy}", line + 1, shortened(cause.message()))
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
        for (key, said) in [
            ("train.LR", "the nearest key is \"lr\""),
            ("train.learning_rate", "it is train.lr here"),
            ("train.learning_rat", "if \"learning_rate\" is meant, it is train.lr here"),
            ("model.n_heads", "it is model.num_attention_heads here"),
            ("train.num-train-epochs", "it is --epochs N here"),
            ("model.lr", "it belongs in [train], as train.lr"),
            ("train.out_dir", "it belongs at the top level"),
            ("policy", "under [[growth]]"),
            ("train.qzx", "nor one like it"),
        ] {
            let said_of = RunConfig::default().apply_override(&format!("{key}=1")).unwrap_err().to_string();
            assert!(said_of.contains(said), "{said_of}");
        }
        assert!(refusal("preset = \"quikstart\"").contains("there is no preset \"quikstart\""));
        assert!(refusal(&format!("{} = 1", "x".repeat(100_000))).len() < 200);
    }

    #[test]
    fn a_wrong_value_is_named_with_what_was_expected() {
        assert_eq!(
            refusal("[train]\nlr = \"fast\""),
            "run.toml: train.lr is the string \"fast\", but must be a number such as 0.8"
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
    fn what_is_meant_is_said() {
        for (text, said) in [
            ("[train]\nlr = \"0,8\"", "write 0.8 for 0,8"),
            ("[train]\nlr = 0,8", "line 2 is not TOML: write 0.8 for 0,8"),
            ("[train]\nwarmup_fraction = 5% # a bit", "write 0.05 for 5%"),
            ("[train]\nmax_steps = 2e3", "train.max_steps is 2000.0, but must be a whole number: write 2000"),
            ("[data]\npath = \"C:\\data\\a.txt\"", "use single quotes for a path with backslashes"),
            ("[data]\npath = \"C:\\new\\train.txt\"", "use single quotes for a path with backslashes"),
            ("out_dir = \".\\runs\\b\"", "use single quotes for a path with backslashes"),
        ] {
            assert!(refusal(text).contains(said), "{}", refusal(text));
        }
    }

    #[test]
    fn what_may_be_absent_is_unset() {
        let mut run = RunConfig::preset("150m").unwrap();
        run.model.freeze_tau();
        for key in [
            "data.path",
            "data.sources",
            "data.val_path",
            "data.old_path",
            "data.tokenizer",
            "data.corpus_seed",
            "model.tau_qkv",
            "model.tau_ffn",
        ] {
            for empty in ["", "\"\"", "''"] {
                let said = run.clone().apply_override(&format!("{key}={empty}")).unwrap_err().to_string();
                assert!(said.ends_with("is empty: give it a value, or none to go without"), "{said}");
            }
            for none in ["none", "None", "\"none\"", "null"] {
                let mut unset = run.clone();
                unset.apply_override(&format!("{key}={none}")).unwrap();
                let (table, name) = key.split_once('.').unwrap();
                let all = Table::try_from(&unset).unwrap();
                assert!(!all[table].as_table().unwrap().contains_key(name), "{key}={none}");
            }
        }
        run = RunConfig::from_toml("preset = \"shakespeare-char\"\n[data]\npath = \"none\"", "run.toml").unwrap();
        assert_eq!(run.data.path, None);
        run.apply_override("data.path=./none").unwrap();
        assert_eq!(run.data.path.as_deref(), Some(Path::new("./none")));
        assert!(run.apply_override("train.lr=none").unwrap_err().to_string().contains("must be a number"));
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
