//! `metrics.jsonl`: one JSON object a line, the record of a run that plots and comparisons are made from.
//!
//! Every line has `kind` (`run`, `train`, `eval`, `growth`, `sample`, `rollback`); all but `run` and `rollback` have `step`,
//! the steps done. A resumed run drops the lines of steps it will take again, so the file reads as if the run had never
//! stopped. Each line is handed to the system at once, so that a killed process loses none; [`Metrics::sync`] before each
//! checkpoint makes those before it survive a loss of power as well. What a crash leaves of the line after them is repaired
//! when the run resumes.
//!
//! Version 1 counted the `step` of some lines from 0. A run that resumes writes the lines before in today's version: so a
//! file has one, which its `run` lines say.

use crate::checkpoint::{Files, Sink, Storage, replace};
use crate::console::warn;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Name of the metrics in a run's directory.
pub const FILE: &str = "metrics.jsonl";
/// Version of its lines, `metrics` of a `run` line: `step` is the steps done in all of them. In version 1, which no line says,
/// that of `train` and `sample` and the `from_step` of `rollback` is one less.
pub const VERSION: u64 = 2;

/// Losses on the validation data and on those of what the model knew before, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct BothLosses {
    /// Updates done.
    pub step: u64,
    /// On the data it trains on.
    pub val_loss: f64,
    /// On the old data.
    pub old_val_loss: f64,
}

/// The first evaluation of the run in `dir` on old data as well, if there was one.
///
/// # Errors
/// Metrics that cannot be read.
pub(crate) fn first_of_both(dir: &Path) -> Result<Option<BothLosses>> {
    let path = dir.join(FILE);
    let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
    Ok(String::from_utf8_lossy(&bytes).lines().find_map(|line| serde_json::from_str(line).ok()))
}

/// What the metrics in a directory tell of what wrote them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// There are none, or not a line yet.
    Nothing,
    /// No run did.
    Foreign,
    /// A run that took `steps` steps, or went on from a checkpoint of its own. All that it says of itself is of steps up to
    /// `reached`.
    Run { lines: usize, steps: u64, reached: u64, resumed: bool },
}

/// What the metrics in `dir` tell.
///
/// # Errors
/// Metrics that cannot be read.
pub(crate) fn origin(dir: &Path) -> Result<Origin> {
    let path = dir.join(FILE);
    let mut bytes = Vec::new();
    match Files.open(&path).and_then(|mut source| source.bytes.read_to_end(&mut bytes)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Origin::Nothing),
        Err(e) => {
            return Err(Error::input(format!(
                "{}; choose another --out, or move it away",
                Error::io("read", &path, &e)
            )));
        }
        Ok(0) => return Ok(Origin::Nothing),
        Ok(_) => {}
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<Map<String, Value>> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |kind: &'static str| lines.iter().filter(move |line| line.get("kind").is_some_and(|is| is == kind));
    let number = |line: &Map<String, Value>, key: &str| line.get(key).and_then(Value::as_u64);
    if of("run").next().is_none() {
        return Ok(Origin::Foreign);
    }
    // Before there was a version, the steps of updates were counted from 0.
    let first = u64::from(of("run").all(|line| !line.contains_key("metrics")));
    let steps = of("train").filter_map(|line| number(line, "step")).max().map_or(0, |step| step.saturating_add(first));
    let begun = of("run").filter_map(|line| number(line, "from_step")).max().unwrap_or(0);
    Ok(Origin::Run { lines: lines.len(), steps, reached: steps.max(begun), resumed: begun > 0 })
}

/// Appends to the metrics of one run.
pub struct Metrics {
    path: PathBuf,
    /// `None` where another process writes them.
    file: Option<Box<dyn Sink>>,
}

impl Metrics {
    /// Opens `metrics.jsonl` in `dir`, keeping the lines before `step`, after which the run evaluates `again` or not.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(storage: &dyn Storage, dir: &Path, step: u64, again: bool) -> Result<Self> {
        let path = dir.join(FILE);
        let kept = if step == 0 { String::new() } else { lines_before(storage, &path, step, again)? };
        let io = |e| Error::io("write", &path, &e);
        replace(storage, &path, &kept).map_err(io)?;
        let file = storage.append(&path).map_err(io)?;
        Ok(Self { path, file: Some(file) })
    }

    /// Of a process that leaves them to another one.
    pub(crate) fn of_another() -> Self {
        Self { path: PathBuf::new(), file: None }
    }

    /// Appends one line and hands it to the operating system.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&mut self, line: &Value) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(format!("{line}\n").as_bytes()).map_err(|e| Error::io("write", &self.path, &e))
    }

    /// Makes everything written so far survive a loss of power.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn sync(&mut self) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.sync()).map_err(|e| Error::io("write", &self.path, &e))
    }
}

/// The lines of what the run has done before `step`, in this version. What is no JSON object is dropped: without a word at the
/// end, where a crash cut short or lost what is done again now, and with a warning among the lines that are kept.
fn lines_before(storage: &dyn Storage, path: &Path, step: u64, evaluates: bool) -> Result<String> {
    let io = |e| Error::io("read", path, &e);
    let mut bytes = Vec::new();
    match storage.open(path) {
        Ok(mut source) => drop(source.bytes.read_to_end(&mut bytes).map_err(io)?),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(io(e)),
    }
    // A line may be cut short within a character.
    let text = String::from_utf8_lossy(&bytes);
    // An object, because what a loss of power leaves may contain a line that is a number.
    let lines: Vec<Option<Map<String, Value>>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
    let mut version = version_of_the_first(lines.iter().flatten());
    let (mut kept, mut damaged, mut damaged_last) = (String::new(), 0, 0);
    for fields in lines {
        let Some(mut fields) = fields else {
            damaged_last += 1;
            continue;
        };
        if is(&fields, "run") {
            version = version_said(&fields);
            check_version(path, version)?;
        }
        if version < VERSION {
            renew(&mut fields);
        }
        if is_before(&fields, step, evaluates) {
            kept.push_str(&format!("{}\n", Value::Object(fields)));
            damaged += std::mem::take(&mut damaged_last);
        }
    }
    if damaged > 0 {
        warn(format_args!("{} has {damaged} damaged lines, which are dropped", path.display()));
    }
    Ok(kept)
}

pub(super) fn is(fields: &Map<String, Value>, kind: &str) -> bool {
    fields.get("kind").and_then(Value::as_str) == Some(kind)
}

pub(super) fn version_said(run: &Map<String, Value>) -> u64 {
    run.get("metrics").and_then(Value::as_u64).unwrap_or(1)
}

/// Refuses lines of a version that is to come.
pub(super) fn check_version(path: &Path, version: u64) -> Result<()> {
    if version <= VERSION {
        return Ok(());
    }
    Err(Error::input(format!(
        "{} is of version {version}, and this program knows versions up to {VERSION}: go on with a newer tokenformer",
        path.display()
    )))
}

/// The version of the lines before any that says one: that is damaged, or gone. Then a step 0 tells version 1.
fn version_of_the_first<'a>(mut lines: impl Iterator<Item = &'a Map<String, Value>> + Clone) -> u64 {
    let mut of_train = lines.clone().filter(|fields| is(fields, "train"));
    let from_0 = of_train.any(|fields| fields.get("step").and_then(Value::as_u64) == Some(0));
    lines.find(|fields| is(fields, "run")).map_or(if from_0 { 1 } else { VERSION }, version_said)
}

/// A line of version 1 in this one.
pub(super) fn renew(fields: &mut Map<String, Value>) {
    let counted_from_0 = match fields.get("kind").and_then(Value::as_str) {
        Some("train" | "sample") => "step",
        Some("rollback") => "from_step",
        Some("run") => return drop(fields.insert("metrics".to_owned(), VERSION.into())),
        _ => return,
    };
    if let Some(step) = fields.get(counted_from_0).and_then(Value::as_u64) {
        fields.insert(counted_from_0.to_owned(), step.saturating_add(1).into());
    }
}

/// Whether a line tells of what a run has done that goes on after `step`. It grows after that step once more, and evaluates where
/// that is due: the evaluation after its last step was not.
fn is_before(fields: &Map<String, Value>, step: u64, evaluates: bool) -> bool {
    let again = is(fields, "eval") && evaluates || is(fields, "growth");
    let at = fields.get("step").and_then(Value::as_u64);
    at.is_none_or(|at| if again { at < step } else { at <= step })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resumed(dir: &Path, step: u64, lines: &[Value]) -> Vec<Value> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(dir.join(FILE), text).unwrap();
        drop(Metrics::open(&Files, dir, step, true).unwrap());
        let text = std::fs::read_to_string(dir.join(FILE)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_resumed_run_drops_what_it_will_do_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(&Files, dir.path(), 0, false).unwrap();
        metrics.write(&json!({"kind": "run", "metrics": 2})).unwrap();
        for step in 1..=4 {
            metrics.write(&json!({"kind": "train", "step": step})).unwrap();
        }
        let path = dir.path().join("metrics.jsonl");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.iter().filter(|&&byte| byte == b'\n').count(), 5, "every line is in the file at once");
        let torn: [&[u8]; 5] =
            [b"", b"{\"kind\": \"tra", b"{\"kind\": \"tra\xc3", b"\0\0\0\0\0", b"\xff\n7\n\"x\"\nnull"];
        for tail in torn {
            std::fs::write(&path, [&whole[..], tail].concat()).unwrap();
            drop(Metrics::open(&Files, dir.path(), 2, true).unwrap());
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = "{\"kind\":\"train\",\"step\":1}\n{\"kind\":\"train\",\"step\":2}\n";
            assert_eq!(text, format!("{{\"kind\":\"run\",\"metrics\":2}}\n{lines}"));
        }
    }

    #[test]
    fn a_run_evaluates_and_grows_after_its_step_once_more_and_has_its_sample() {
        let dir = tempfile::tempdir().unwrap();
        let line = |kind: &str, step: u64| json!({"kind": kind, "step": step});
        let run = json!({"kind": "run", "metrics": VERSION});
        let before = [run, line("eval", 1), line("train", 2), line("sample", 2)];
        let later = [line("eval", 2), line("growth", 2), line("train", 3), line("sample", 3)];
        assert_eq!(resumed(dir.path(), 2, &[&before[..], &later[..]].concat()), before);
        // The evaluation after its last step was not due, and is not taken again.
        let last = [&before[..], &later[..1]].concat();
        let text: String = last.iter().chain(&later[1..]).map(|line| format!("{line}\n")).collect();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        drop(Metrics::open(&Files, dir.path(), 2, false).unwrap());
        let kept: String = last.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), kept);
    }

    #[test]
    fn lines_of_version_1_become_those_of_today() {
        let dir = tempfile::tempdir().unwrap();
        let old = [
            json!({"kind": "run", "from_step": 0}),
            json!({"kind": "eval", "step": 0, "val_loss": 0.1}),
            json!({"kind": "train", "step": 0}),
            json!({"kind": "train", "step": 1}),
            json!({"kind": "sample", "step": 1}),
            json!({"kind": "rollback", "from_step": 4, "to_step": 1}),
            json!({"kind": "growth", "step": 1}),
            json!({"kind": "eval", "step": 2}),
            json!({"kind": "train", "step": 2}),
        ];
        let new = [
            json!({"kind": "run", "from_step": 0, "metrics": 2}),
            json!({"kind": "eval", "step": 0, "val_loss": 0.1}),
            json!({"kind": "train", "step": 1}),
            json!({"kind": "train", "step": 2}),
            json!({"kind": "sample", "step": 2}),
            json!({"kind": "rollback", "from_step": 5, "to_step": 1}),
            json!({"kind": "growth", "step": 1}),
        ];
        assert_eq!(resumed(dir.path(), 2, &old), new);
        assert_eq!(resumed(dir.path(), 2, &new), new, "once");
        // Without its first line, which was damaged.
        assert_eq!(resumed(dir.path(), 2, &old[1..])[..], new[1..]);
        assert_eq!(resumed(dir.path(), 2, &new[1..])[..], new[1..]);
        // An older program went on with a file of this version.
        let mixed =
            [&new[..3], &[json!({"kind": "run", "from_step": 1}), json!({"kind": "train", "step": 1})]].concat();
        let run = json!({"kind": "run", "from_step": 1, "metrics": 2});
        assert_eq!(resumed(dir.path(), 2, &mixed), [&new[..3], &[run, new[3].clone()]].concat());
    }

    #[test]
    fn lines_of_a_newer_version_are_not_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let newer = "{\"kind\":\"run\",\"metrics\":3}\n";
        std::fs::write(dir.path().join(FILE), newer).unwrap();
        let refused = Metrics::open(&Files, dir.path(), 2, true).err().unwrap().to_string();
        assert!(refused.contains("is of version 3") && refused.ends_with("with a newer tokenformer"), "{refused}");
        assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), newer);
    }
}
