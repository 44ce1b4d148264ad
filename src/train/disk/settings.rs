//! `config.toml`: the settings that a run was started with last, and whether anyone has edited them since.
//!
//! A run that goes on takes its settings from its checkpoint, and writes them again. So the file says what it was written
//! with: a checksum of what follows it. Where that does not match, the file is compared with the run key by key, and what
//! disagrees is the user's to decide about.

use crate::checkpoint::{Files, Storage};
use crate::config::{GrowthConfig, ModelConfig, RunConfig};
use crate::error::{Error, Result};
use crate::train::growth::GrowthRecord;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Name of the settings in a run's directory.
pub(crate) const FILE: &str = "config.toml";
/// How the file starts.
const HEAD: &str = "# The settings that this run was started with. It goes on by its checkpoints: give changes with --set KEY=VALUE.\n";
/// What the checksum stands after.
const SUM: &str = "# crc32 of all below: ";
/// Most bytes that are read: more than any settings have.
const MOST_BYTES: u64 = 1 << 17;

/// The file of a run with these settings.
///
/// # Errors
/// As [`RunConfig::to_toml`].
pub fn written(config: &RunConfig) -> Result<String> {
    let settings = config.to_toml()?;
    Ok(format!("{HEAD}{SUM}{:08x}\n{settings}", crc32fast::hash(settings.as_bytes())))
}

/// A setting that was edited.
#[derive(Debug, PartialEq)]
pub(crate) struct Edit {
    /// Its table and key.
    keys: Vec<String>,
    /// What the file says, if anything.
    file: Option<Value>,
    /// Whether it says so by leaving it out.
    by_default: bool,
    /// What the run goes by, if anything.
    run: Option<Value>,
}

/// What was made of a run's settings since it wrote them.
#[derive(Debug)]
pub(crate) struct Edits {
    path: PathBuf,
    /// Whether there is such a file.
    there: bool,
    edits: Vec<Edit>,
    /// Why the file cannot be understood.
    broken: Option<String>,
}

/// What is said of settings that cannot be taken and would be lost.
const WOULD_REPLACE: &str = "the run would replace it: mend it or move it away";

/// Refuses settings in `dir` that cannot be replaced without losing what nobody could read.
///
/// # Errors
/// An input error with the remedy.
pub(crate) fn check(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    match Files.open(&path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(unreadable(&path, &cause)),
        _ => Ok(()),
    }
}

fn unreadable(path: &Path, cause: &io::Error) -> Error {
    Error::input(format!("{}; {WOULD_REPLACE}", Error::io("read", path, cause)))
}

impl Edits {
    /// What the settings in `dir` say otherwise than `run`, which has grown by `lineage`, if they are not as they were written.
    /// Settings of a version that wrote no checksum count as edited where `unsealed` says so.
    ///
    /// # Errors
    /// Settings that cannot be read.
    pub(crate) fn since(dir: &Path, run: &RunConfig, lineage: &[GrowthRecord], unsealed: bool) -> Result<Self> {
        let mut edits = Self { path: dir.join(FILE), there: true, edits: Vec::new(), broken: None };
        let mut bytes = Vec::new();
        match Files.open(&edits.path).and_then(|source| source.bytes.take(MOST_BYTES).read_to_end(&mut bytes)) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Self { there: false, ..edits }),
            Err(cause) => return Err(unreadable(&edits.path, &cause)),
            Ok(_) => {}
        }
        let sealed = str::from_utf8(&bytes).ok().and_then(seal);
        if sealed == Some(true) {
            return Ok(edits);
        }
        match understood(&bytes, &edits.path) {
            Err(error) => {
                let edited = if sealed.is_some() { "the file was edited, and " } else { "" };
                edits.broken = Some(format!("{error}; {edited}{WOULD_REPLACE}"));
            }
            Ok(_) if sealed.is_none() && !unsealed => {}
            // A version that wrote no checksum knew fewer settings.
            Ok((file, given)) => edits.edits = differences(&file, &given, run, lineage, sealed.is_some())?,
        }
        Ok(edits)
    }

    /// That there is nothing to take, where that is so.
    pub(crate) fn nothing(&self) -> Option<String> {
        let path = self.path.display();
        let said = match self.there {
            true => format!("--config-edits take: {path} has no edits"),
            false => format!("--config-edits take: there is no {path}"),
        };
        Some(said).filter(|_| self.edits.is_empty() && self.broken.is_none())
    }

    fn check_whole(&self) -> Result<()> {
        let Some(broken) = &self.broken else { return Ok(()) };
        Err(Error::usage(format!("{broken}, or have it replaced with --config-edits drop")))
    }

    /// Without those of settings that are `given` otherwise: that was asked for by name.
    pub(crate) fn not_given(mut self, stored: &RunConfig, given: &RunConfig) -> Result<Self> {
        let (stored, given) = (table(stored)?, table(given)?);
        self.edits.retain(|edit| lookup(&stored, &edit.keys) == lookup(&given, &edit.keys));
        Ok(self)
    }

    /// Refuses a run that would go on by other settings than the file says, with the ways out: one is the option that takes
    /// them.
    ///
    /// # Errors
    /// A usage error that names every setting, or says what is wrong with the file.
    pub(crate) fn refuse(&self, goes_by: &str, take: &str) -> Result<()> {
        self.check_whole()?;
        if self.edits.is_empty() {
            return Ok(());
        }
        let said: Vec<String> = self.edits.iter().map(Edit::said).collect();
        Err(Error::usage(format!(
            "{} was edited, but the run goes by {goes_by}: {}; take the edits with {take}, or leave them with --config-edits drop",
            self.path.display(),
            said.join(", ")
        )))
    }

    /// The edited settings over those of `run`.
    ///
    /// # Errors
    /// As an override of these settings, and a file that cannot be understood.
    pub(crate) fn over(&self, run: &RunConfig) -> Result<RunConfig> {
        self.check_whole()?;
        let mut edited = run.clone();
        for Edit { keys, file, .. } in &self.edits {
            let absent = || Value::String("none".to_owned());
            let value = keys.iter().rev().fold(file.clone().unwrap_or_else(absent), |inner, key| {
                Value::Table(Table::from_iter([(key.clone(), inner)]))
            });
            let Value::Table(given) = value else { continue };
            edited = edited.overridden(given).map_err(|e| Error::usage(format!("{}: {e}", self.path.display())))?;
        }
        Ok(edited)
    }
}

impl Edit {
    fn said(&self) -> String {
        let Self { keys, file, by_default, run } = self;
        let [file, run] = [file, run].map(|value| value.as_ref().map_or("not set".to_owned(), short));
        let why = if *by_default { ", by default," } else { "" };
        format!("{} is {file} there{why} and {run} in the run", keys.join("."))
    }
}

/// A value in few words.
fn short(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        value => {
            let text = value.to_string();
            if text.chars().count() > 60 { text.chars().take(60).chain("...".chars()).collect() } else { text }
        }
    }
}

/// Whether the file is as it was written; `None` where it does not say.
fn seal(text: &str) -> Option<bool> {
    let (_, rest) = text.split_once(SUM)?;
    let (sum, settings) = rest.split_once('\n')?;
    Some(u32::from_str_radix(sum.trim_end(), 16).is_ok_and(|sum| sum == crc32fast::hash(settings.as_bytes())))
}

/// The settings that a file comes to, and those it gives.
fn understood(bytes: &[u8], path: &Path) -> Result<(RunConfig, Table)> {
    let shown = path.display().to_string();
    let file = RunConfig::from_bytes(bytes, &shown)?;
    let given: Option<Table> = str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    let given = given.ok_or_else(|| Error::defect("settings that were read cannot be read"))?;
    if given.is_empty() { Err(Error::input(format!("{shown} has no settings in it"))) } else { Ok((file, given)) }
}

/// What `file` says otherwise than `run`: of what it was `given`, or with `complete` of everything, where what is left out is
/// its default.
fn differences(
    file: &RunConfig,
    given: &Table,
    run: &RunConfig,
    lineage: &[GrowthRecord],
    complete: bool,
) -> Result<Vec<Edit>> {
    let (mut file, mut run) = (file.clone(), run.clone());
    // Otherwise it is what the run found out, and its slots as they are.
    if file.model.vocab_size == 0 {
        file.model.vocab_size = run.model.vocab_size;
    }
    run.model.freeze_tau();
    // A run writes what it starts with, and its checkpoints say what became of that.
    let done = growths_done(&file.growth, &run, lineage);
    let before = file.growth.len().saturating_sub(run.growth.len());
    let first = file.growth.get(..before).unwrap_or_default();
    let grown = (0..=file.growth.len()).map(|done| as_grown(&file.model, file.growth.get(..done).unwrap_or_default()));
    let same = grown.into_iter().find(|model| *model == run.model);
    file.model = same.unwrap_or_else(|| as_grown(&file.model, first));
    if done.is_some() {
        file.growth.clone_from(&run.growth);
    }
    if file.train.loss_chunk_rows == 0 {
        file.train.loss_chunk_rows = run.train.loss_chunk_rows;
    }
    let (file, run) = (table(&file)?, table(&run)?);
    let tables = if complete { vec![given, &file, &run] } else { vec![given] };
    let keys: BTreeSet<Vec<String>> = tables.into_iter().flat_map(keys_of).collect();
    let edit = |keys: Vec<String>| {
        let (said, known) = (lookup(&file, &keys).cloned(), lookup(&run, &keys).cloned());
        let by_default = said.is_some() && lookup(given, &keys).is_none();
        (said != known).then_some(Edit { keys, file: said, by_default, run: known })
    };
    Ok(keys.into_iter().filter_map(edit).collect())
}

/// The keys of settings, with those of their tables.
fn keys_of(table: &Table) -> Vec<Vec<String>> {
    let inner = |(key, value): (&String, &Value)| match value.as_table() {
        Some(table) => table.keys().map(|inner| vec![key.clone(), inner.clone()]).collect(),
        None => vec![vec![key.clone()]],
    };
    table.iter().flat_map(inner).collect()
}

/// How many of `growths` the run has behind it: all before those that are still to come, if its last growths were these.
fn growths_done(growths: &[GrowthConfig], run: &RunConfig, lineage: &[GrowthRecord]) -> Option<usize> {
    let done = growths.len().checked_sub(run.growth.len()).filter(|_| growths.ends_with(&run.growth))?;
    let records = lineage.get(lineage.len().checked_sub(done)?..)?;
    let was_done = |(growth, record): (&GrowthConfig, &GrowthRecord)| {
        let [qkv, proj, ffn] = record.after.slots;
        let sizes = [
            (growth.qkv_slot_num, qkv),
            (growth.proj_slot_num, proj),
            (growth.ffn_slot_num, ffn),
            (growth.num_layers, record.after.layers),
            (growth.intermediate_size, record.after.intermediate_size),
        ];
        // Records of older versions have sizes of 0 that they do not know.
        let fits = sizes.iter().all(|(asked, is)| asked.is_none_or(|asked| *is == 0 || asked as u64 == *is));
        fits && (growth.plateau().is_some() || growth.at_step as u64 <= record.at_step)
    };
    growths.iter().zip(records).all(was_done).then_some(done)
}

/// The model after these growths; of one that it cannot do, the sizes.
fn as_grown(model: &ModelConfig, growths: &[GrowthConfig]) -> ModelConfig {
    let mut model = model.clone();
    model.freeze_tau();
    for growth in growths {
        model = growth.check(&model).unwrap_or_else(|_| ModelConfig {
            qkv_slot_num: growth.qkv_slot_num.unwrap_or(model.qkv_slot_num),
            proj_slot_num: growth.proj_slot_num.unwrap_or(model.proj_slot_num),
            ffn_slot_num: growth.ffn_slot_num.unwrap_or(model.ffn_slot_num),
            num_layers: growth.num_layers.unwrap_or(model.num_layers),
            intermediate_size: growth.intermediate_size.unwrap_or(model.intermediate_size),
            ..model.clone()
        });
    }
    model
}

fn table(config: &RunConfig) -> Result<Table> {
    Table::try_from(config).map_err(|e| Error::defect(format!("the settings cannot be compared: {e}")))
}

fn lookup<'a>(table: &'a Table, keys: &[String]) -> Option<&'a Value> {
    let (key, rest) = keys.split_first()?;
    let value = table.get(key)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::growth::{Change, Rules};

    fn run() -> RunConfig {
        let mut config = RunConfig::default();
        config.model.vocab_size = 9;
        config.growth = [(5, 600), (9, 700)]
            .map(|(at_step, ffn)| GrowthConfig { at_step, ffn_slot_num: Some(ffn), ..GrowthConfig::default() })
            .to_vec();
        config
    }

    /// As a checkpoint after the first growth has it.
    fn later() -> RunConfig {
        let mut later = run();
        later.model = as_grown(&later.model, &later.growth[..1]);
        later.growth.remove(0);
        later.train.loss_chunk_rows = 1024;
        later
    }

    /// Of that growth.
    fn lineage() -> Vec<GrowthRecord> {
        let (before, after) = (run().model, later().model);
        let change = Change { max_logit_change: 0.0, loss_before: 1.0, loss_after: 1.0 };
        vec![GrowthRecord::new(Rules::of(serde_json::json!({})), 5, [&before, &after], change)]
    }

    fn edits(text: &str, run: &RunConfig, unsealed: bool) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let done = if run.growth.len() < 2 { lineage() } else { Vec::new() };
        let edits = Edits::since(dir.path(), run, &done, unsealed)?;
        edits.check_whole()?;
        Ok(edits.edits.iter().map(Edit::said).collect())
    }

    #[test]
    fn what_a_run_wrote_is_no_edit_whatever_became_of_the_run() {
        let text = written(&run()).unwrap();
        assert_eq!(RunConfig::from_toml(&text, "config.toml"), Ok(run()));
        let mut other = run();
        (other.train.lr, other.out_dir) = (0.5, "elsewhere".into());
        assert_eq!(
            edits(&text, &other, true).unwrap(),
            [""; 0],
            "as a start that was killed before its first checkpoint"
        );
        for text in [text.replace('\n', "\r\n"), format!("{text}# mine\n"), run().to_toml().unwrap()] {
            assert_eq!(edits(&text, &run(), true).unwrap(), [""; 0]);
            assert_eq!(edits(&text, &later(), true).unwrap(), [""; 0], "{text}");
        }
        let older: String =
            text.lines().skip(2).filter(|line| !line.starts_with("spike")).map(|l| format!("{l}\n")).collect();
        assert_eq!(edits(&older, &later(), true).unwrap(), [""; 0]);
        for broken in ["no TOML = = at all", "", "# nothing\n", "\0\0\0"] {
            let error = edits(broken, &later(), false).unwrap_err().to_string();
            assert!(
                error.ends_with("mend it or move it away, or have it replaced with --config-edits drop"),
                "{error}"
            );
        }
    }

    #[test]
    fn every_edit_is_named_with_both_values() {
        let text = written(&run()).unwrap();
        let edited = text.replace("\nlr = 0.001", "\nlr = 1").replace("at_step = 9", "at_step = 8");
        assert_ne!(edited, text);
        let said =
            ["growth is a list of 2 there and a list of 1 in the run", "train.lr is 1.0 there and 0.001 in the run"];
        assert_eq!(edits(&edited, &later(), false).unwrap(), said);
        let edited = text.replace("hidden_size = ", "hidden_size = 1");
        let said = edits(&edited, &later(), false).unwrap();
        assert!(said.len() == 1 && said[0].starts_with("model.hidden_size is 1"), "{said:?}");
        let error = edits(&text.replace("lr = ", "learning_rat = "), &later(), false).unwrap_err().to_string();
        assert!(error.contains("unknown key") && error.contains("mend it or move it away"), "{error}");
        // One that is behind, and one more at the end of what is done.
        let edited = text.replace("at_step = 5", "at_step = 6");
        assert_eq!(
            edits(&edited, &later(), false).unwrap(),
            ["growth is a list of 2 there and a list of 1 in the run"]
        );
        let all_done = RunConfig { growth: Vec::new(), ..later() };
        let said = edits(&format!("{text}# edited"), &all_done, false).unwrap();
        assert_eq!(said, ["growth is a list of 2 there and a list of 0 in the run"], "not done as often as that");
        // Where there is no checksum, settings of another start are not told from edits.
        let unsealed: String =
            text.lines().skip(2).map(|line| format!("{}\n", line.replace("lr = 0.001", "lr = 2.0"))).collect();
        assert_eq!(edits(&unsealed, &later(), false).unwrap(), [""; 0]);
        assert_eq!(edits(&unsealed, &later(), true).unwrap().len(), 1);
    }

    #[test]
    fn what_was_deleted_is_an_edit_to_its_default_or_to_nothing() {
        let mut trained = later();
        (trained.train.lr, trained.data.val_path) = (0.004, Some("val.txt".into()));
        let text = written(&RunConfig { train: trained.train.clone(), data: trained.data.clone(), ..run() }).unwrap();
        let without = |start: &str| -> String {
            text.lines().filter(|line| !line.starts_with(start)).map(|line| format!("{line}\n")).collect()
        };
        let said = edits(&without("lr = "), &trained, true).unwrap();
        assert_eq!(said, ["train.lr is 0.001 there, by default, and 0.004 in the run"]);
        let said = edits(&without("val_path"), &trained, true).unwrap();
        assert_eq!(said, ["data.val_path is not set there and \"val.txt\" in the run"]);
        let no = [""; 0];
        assert_eq!(edits(&without("eval_batches"), &trained, true).unwrap(), no, "the default is what the run has");
        assert_eq!(edits(&without("vocab_size"), &trained, true).unwrap(), no, "found out from the data");
        assert_eq!(
            edits(&without("# crc32").replace("lr = 0.004\n", ""), &trained, true).unwrap(),
            no,
            "an older file"
        );

        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), without("val_path").replace("\nlr = 0.004", "")).unwrap();
        let taken = Edits::since(dir.path(), &trained, &lineage(), false).unwrap().over(&trained).unwrap();
        assert_eq!((taken.train.lr, taken.data.val_path), (0.001, None));
    }

    #[test]
    fn edits_are_taken_over_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let text = written(&run()).unwrap().replace("\nlr = 0.001", "\nlr = 0.5").replace("seed = 1337", "seed = 7");
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let edits = || Edits::since(dir.path(), &later(), &lineage(), false).unwrap();
        let taken = edits().over(&later()).unwrap();
        assert_eq!((taken.train.lr, taken.train.seed, &taken.growth), (0.5, 7, &later().growth));
        let said = edits().refuse("its checkpoint", "--config-edits take").unwrap_err().to_string();
        assert!(said.contains("train.lr is 0.5 there and 0.001 in the run, train.seed is 7"), "{said}");
        // What is given by name is asked for.
        let given = RunConfig { train: crate::config::TrainConfig { lr: 0.1, seed: 7, ..later().train }, ..later() };
        edits().not_given(&later(), &given).unwrap().refuse("", "").unwrap();
    }
}
