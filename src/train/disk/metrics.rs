//! `metrics.jsonl`: one JSON object a line, the record of a run that plots and comparisons are made from.
//!
//! Every line has `kind` (`run`, `train`, `eval`, `growth`, `sample`) and, but for `run`, `step`. A resumed run drops
//! the lines of steps it will take again, so the file reads as if the run had never stopped. Each line is handed to the
//! system at once, so that a killed process loses none; [`Metrics::sync`] before each checkpoint makes those before it
//! survive a loss of power as well. What a crash leaves of the line after them is repaired when the run resumes.

use crate::checkpoint::{Files, Sink, Storage, replace};
use crate::error::{Error, Result, tell};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Name of the metrics in a run's directory.
pub const FILE: &str = "metrics.jsonl";

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
pub(crate) enum Told {
    /// There are none, or not a line yet.
    Nothing,
    /// No run did.
    Foreign,
    /// A run that took `steps` steps, or went on from a checkpoint of its own.
    Run { lines: usize, steps: u64, resumed: bool },
}

/// What the metrics in `dir` tell.
///
/// # Errors
/// Metrics that cannot be read.
pub(crate) fn told(dir: &Path) -> Result<Told> {
    let path = dir.join(FILE);
    let mut bytes = Vec::new();
    match Files.open(&path).and_then(|mut source| source.bytes.read_to_end(&mut bytes)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Told::Nothing),
        Err(e) => {
            return Err(Error::input(format!(
                "{}; choose another --out, or move it away",
                Error::io("read", &path, &e)
            )));
        }
        Ok(0) => return Ok(Told::Nothing),
        Ok(_) => {}
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<Map<String, Value>> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |kind: &'static str| lines.iter().filter(move |line| line.get("kind").is_some_and(|is| is == kind));
    let number = |line: &Map<String, Value>, key: &str| line.get(key).and_then(Value::as_u64);
    if of("run").next().is_none() {
        return Ok(Told::Foreign);
    }
    // Before there was a version, the steps of updates were counted from 0.
    let first = u64::from(of("run").all(|line| !line.contains_key("metrics")));
    let steps = of("train").filter_map(|line| number(line, "step")).max().map_or(0, |step| step.saturating_add(first));
    let resumed = of("run").any(|line| number(line, "from_step").is_some_and(|step| step > 0));
    Ok(Told::Run { lines: lines.len(), steps, resumed })
}

/// Appends to the metrics of one run.
pub struct Metrics {
    path: PathBuf,
    file: Box<dyn Sink>,
}

impl Metrics {
    /// Opens `metrics.jsonl` in `dir`, keeping the lines before `step`.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(storage: &dyn Storage, dir: &Path, step: u64) -> Result<Self> {
        let path = dir.join(FILE);
        let kept = if step == 0 { String::new() } else { lines_before(storage, &path, step)? };
        let io = |e| Error::io("write", &path, &e);
        replace(storage, &path, &kept).map_err(io)?;
        let file = storage.append(&path).map_err(io)?;
        Ok(Self { path, file })
    }

    /// Appends one line and hands it to the operating system.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&mut self, line: &Value) -> Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(|e| Error::io("write", &self.path, &e))
    }

    /// Makes everything written so far survive a loss of power.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync().map_err(|e| Error::io("write", &self.path, &e))
    }
}

/// The lines whose step is below `step`, and those without a step. What is no JSON object is dropped: without a word at the
/// end, where a crash cut short or lost what is done again now, and with a warning among the lines that are kept.
fn lines_before(storage: &dyn Storage, path: &Path, step: u64) -> Result<String> {
    let io = |e| Error::io("read", path, &e);
    let mut bytes = Vec::new();
    match storage.open(path) {
        Ok(mut source) => drop(source.bytes.read_to_end(&mut bytes).map_err(io)?),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(io(e)),
    }
    // A line may be cut short within a character.
    let text = String::from_utf8_lossy(&bytes);
    let (mut kept, mut damaged, mut damaged_last) = (String::new(), 0, 0);
    for line in text.lines() {
        // An object, because what a loss of power leaves may contain a line that is a number.
        match serde_json::from_str::<Map<String, Value>>(line) {
            Ok(fields) if fields.get("step").and_then(Value::as_u64).is_none_or(|s| s < step) => {
                kept.extend([line, "\n"]);
                damaged += std::mem::take(&mut damaged_last);
            }
            Ok(_) => {}
            Err(_) => damaged_last += 1,
        }
    }
    if damaged > 0 {
        tell(format_args!("warning: {} has {damaged} damaged lines, which are dropped", path.display()));
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resumed_run_drops_what_it_will_do_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(&Files, dir.path(), 0).unwrap();
        metrics.write(&json!({"kind": "run"})).unwrap();
        for step in 0..4 {
            metrics.write(&json!({"kind": "train", "step": step})).unwrap();
        }
        let path = dir.path().join("metrics.jsonl");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.iter().filter(|&&byte| byte == b'\n').count(), 5, "every line is in the file at once");
        let torn: [&[u8]; 5] =
            [b"", b"{\"kind\": \"tra", b"{\"kind\": \"tra\xc3", b"\0\0\0\0\0", b"\xff\n7\n\"x\"\nnull"];
        for tail in torn {
            std::fs::write(&path, [&whole[..], tail].concat()).unwrap();
            drop(Metrics::open(&Files, dir.path(), 2).unwrap());
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text, "{\"kind\":\"run\"}\n{\"kind\":\"train\",\"step\":0}\n{\"kind\":\"train\",\"step\":1}\n");
        }
    }
}
