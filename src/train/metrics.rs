//! `metrics.jsonl`: one JSON object a line, the record of a run that plots and comparisons are made from.
//!
//! Every line has `kind` (`run`, `train`, `eval`, `growth`, `sample`) and, but for `run`, `step`. A resumed run drops
//! the lines of steps it will take again, so the file reads as if the run had never stopped.

use super::directory;
use crate::error::{Error, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Name of the metrics in a run's directory.
pub const FILE: &str = "metrics.jsonl";

/// Appends to the metrics of one run.
pub struct Metrics {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Metrics {
    /// Opens `metrics.jsonl` in `dir`, keeping the lines before `step`.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(dir: &Path, step: u64) -> Result<Self> {
        let path = dir.join(FILE);
        let kept = if step == 0 { String::new() } else { lines_before(&path, step)? };
        directory::write(&path, &kept)?;
        let file = File::options().append(true).open(&path).map_err(|e| Error::io("write", &path, &e))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    /// Appends one line.
    pub fn write(&mut self, line: &Value) -> Result<()> {
        writeln!(self.file, "{line}").map_err(|e| Error::io("write", &self.path, &e))
    }

    /// Hands everything written so far to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|e| Error::io("write", &self.path, &e))
    }
}

/// The lines whose step is below `step`, and those without a step. A last line cut short by a crash, or
/// anything else that is not JSON, is dropped.
fn lines_before(path: &Path, step: u64) -> Result<String> {
    let text = match std::fs::read(path) {
        // A line may be cut short within a character.
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io("read", path, &e)),
    };
    let keep = |line: &&str| {
        let parsed = serde_json::from_str::<Value>(line).ok();
        parsed.is_some_and(|v| v.get("step").and_then(Value::as_u64).is_none_or(|s| s < step))
    };
    Ok(text.lines().filter(keep).flat_map(|line| [line, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resumed_run_drops_what_it_will_do_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(dir.path(), 0).unwrap();
        metrics.write(&json!({"kind": "run"})).unwrap();
        for step in 0..4 {
            metrics.write(&json!({"kind": "train", "step": step})).unwrap();
        }
        metrics.flush().unwrap();
        drop(metrics);
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"kind\": \"tra").unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"\xc3").unwrap();
        drop(Metrics::open(dir.path(), 2).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"kind\":\"run\"}\n{\"kind\":\"train\",\"step\":0}\n{\"kind\":\"train\",\"step\":1}\n");
    }
}
