//! `metrics.jsonl` read a line at a time, whatever its length, as a run that resumes understands it.

use super::metrics::{self, FILE, is, renew, version_said};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Most bytes of a line that is read: far more than any sample has.
const MOST_BYTES: u64 = 1 << 24;

/// Gives every line of the metrics in `dir` to `take`, in today's version. What is no JSON object is passed over: the last
/// line may be half written. Whether there was a `run` line.
///
/// # Errors
/// Metrics that cannot be read, or are of a newer version.
pub(crate) fn each(dir: &Path, take: &mut dyn FnMut(&Map<String, Value>)) -> Result<bool> {
    let path = dir.join(FILE);
    let (mut version, mut is_run) = (version_at_start(&path)?, false);
    walk(&path, &mut |mut fields| {
        if is(&fields, "run") {
            (version, is_run) = (version_said(&fields), true);
            metrics::check_version(&path, version)?;
        }
        if version < metrics::VERSION {
            renew(&mut fields);
        }
        take(&fields);
        Ok(true)
    })?;
    Ok(is_run)
}

/// The version of the lines before any that says one.
fn version_at_start(path: &Path) -> Result<u64> {
    let (mut said, mut from_0) = (None, false);
    walk(path, &mut |fields| {
        said = is(&fields, "run").then(|| version_said(&fields));
        from_0 |= is(&fields, "train") && fields.get("step").and_then(Value::as_u64) == Some(0);
        Ok(said.is_none())
    })?;
    Ok(said.unwrap_or(if from_0 { 1 } else { metrics::VERSION }))
}

/// Every line that is an object, until `take` has enough.
fn walk(path: &Path, take: &mut dyn FnMut(Map<String, Value>) -> Result<bool>) -> Result<()> {
    let io = |e| Error::io("read", path, &e);
    // Asked first, because opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Error::input(format!("{} is not a regular file: give a run of this program", path.display())));
    }
    let mut source = BufReader::new(File::open(path).map_err(io)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = source.by_ref().take(MOST_BYTES).read_until(b'\n', &mut line).map_err(io)?;
        if read == 0 {
            return Ok(());
        }
        // The rest of what is too long is no object either.
        if let Ok(fields) = serde_json::from_slice(&line)
            && !take(fields)?
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn steps(text: &[u8]) -> Vec<u64> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let mut steps = Vec::new();
        each(dir.path(), &mut |line| steps.extend(line.get("step").and_then(Value::as_u64))).unwrap();
        steps
    }

    #[test]
    fn lines_of_any_version_are_read_and_damaged_ones_passed_over() {
        let run = json!({"kind": "run", "metrics": 2});
        let old = "{\"kind\":\"train\",\"step\":0}\n{\"kind\":\"train\",\"step\":1}\n";
        assert_eq!(steps(old.as_bytes()), [1, 2]);
        assert_eq!(steps(format!("{run}\n{old}").as_bytes()), [0, 1]);
        assert_eq!(steps(format!("{{\"kind\":\"run\"}}\n{old}{run}\n{old}").as_bytes()), [1, 2, 0, 1]);
        let torn = [old.as_bytes(), b"\xff\n7\n\"x\"\n[]\n{\"kind\":\"train\",\"ste"].concat();
        assert_eq!(steps(&torn), [1, 2]);
        assert_eq!(steps(b""), [0; 0]);
    }

    #[test]
    fn a_newer_version_is_not_guessed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"kind\":\"run\",\"metrics\":3}\n").unwrap();
        let said = each(dir.path(), &mut |_| {}).unwrap_err().to_string();
        assert!(said.contains("is of version 3"), "{said}");
    }
}
