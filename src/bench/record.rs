//! One timed case, and the report it belongs to: plain data, the same in every format.

use super::timing::{Clock, Timed};
use crate::console::note;
use crate::error::{Error, Result};
use crate::gpu::device::Gpu;
use crate::gpu::facts::AdapterFacts;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Version of the form of a report; a reader refuses any other.
pub(crate) const SCHEMA: u32 = 1;

/// What of a case ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pass {
    /// The forward pass.
    #[default]
    Forward,
    /// The backward pass.
    Backward,
    /// Both, one after the other.
    #[serde(rename = "forward+backward")]
    ForwardBackward,
    /// An optimizer step, or one kernel's part of it.
    Step,
    /// What the device can do at most, and not what a kernel of this program does.
    Peak,
}

impl Pass {
    /// As it is written in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::ForwardBackward => "forward+backward",
            Self::Step => "step",
            Self::Peak => "peak",
        }
    }
}

/// One timed case. Times are of one run of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What ran: `matmul`, `attention`, `fma`, `copy`, ...
    pub op: String,
    /// Which inputs.
    pub case: String,
    /// What of it ran.
    pub pass: Pass,
    /// `NN`, `NT` or `TN`, of a matrix product.
    pub layout: Option<String>,
    /// Rows of a product.
    pub m: Option<usize>,
    /// Columns of a product.
    pub n: Option<usize>,
    /// Terms of each sum of a product.
    pub k: Option<usize>,
    /// Type of the numbers.
    pub dtype: String,
    /// Which of several kernels for the same thing.
    pub candidate: String,
    /// What a sweep over configurations settled on.
    pub config: Option<String>,
    /// Floating-point operations of one run; 0 where they are not counted.
    pub flops: u64,
    /// Bytes of all tensors that the dispatches of one run bind: the least traffic without caches between them.
    pub bytes: u64,
    /// GFLOP/s of the median.
    pub gflops_median: Option<f64>,
    /// GFLOP/s of the shortest sample.
    pub gflops_best: Option<f64>,
    /// 10^9 bytes a second of the median; only where bandwidth is what is measured.
    pub gbytes_median: Option<f64>,
    /// The same of the shortest sample.
    pub gbytes_best: Option<f64>,
    /// Tokens a second of the median, of an optimizer step.
    pub tokens_per_second: Option<f64>,
    /// Dispatches, of one kernel's part of a step.
    pub calls: Option<usize>,
    /// Share of the time of all kernels of a step, percent.
    pub share_percent: Option<f64>,
    /// Share of the f32 multiply-add peak, percent: the median over pairs of samples, one of each taken in turn.
    pub peak_percent: Option<f64>,
    /// Milliseconds of one run, one value a sample.
    pub samples_ms: Vec<f64>,
    /// Their median.
    pub median_ms: f64,
    /// Their least.
    pub best_ms: f64,
    /// Their interquartile range as percent of the median.
    pub spread_percent: f64,
    /// Runs in one sample.
    pub repeats: u32,
    /// What told the time.
    pub clock: Clock,
    /// Whether the device's speed changed by more than [`super::probe::MOST_DRIFT`] percent while the series it belongs to
    /// was timed.
    #[serde(default)]
    pub unsteady: bool,
    /// Anything a reader has to know.
    pub note: Option<String>,
}

impl Record {
    /// Puts in what was measured, with rates from `flops` and `bytes` of this record.
    pub(crate) fn timed(mut self, timed: Timed) -> Self {
        (self.median_ms, self.best_ms) = (timed.median_ms(), timed.best_ms());
        self.spread_percent = timed.spread_percent();
        let rate = |amount: u64, ms: f64| (amount > 0 && ms > 0.0).then(|| amount as f64 / ms * 1e-6);
        self.gflops_median = rate(self.flops, self.median_ms);
        self.gflops_best = rate(self.flops, self.best_ms);
        (self.repeats, self.clock, self.note) = (timed.repeats, timed.clock, timed.note);
        self.samples_ms = timed.samples_ms;
        self
    }

    /// As [`Record::timed`], for what moves bytes.
    pub(crate) fn moved(self, timed: Timed) -> Self {
        let mut record = self.timed(timed);
        let rate = |ms: f64| (ms > 0.0).then(|| record.bytes as f64 / ms * 1e-6);
        (record.gbytes_median, record.gbytes_best) = (rate(record.median_ms), rate(record.best_ms));
        record
    }

    /// What two records must share to be compared.
    pub(crate) fn key(&self) -> String {
        let size = [self.m, self.n, self.k].map(|d| d.map(|d| d.to_string()).unwrap_or_default()).join("x");
        let layout = self.layout.as_deref().unwrap_or_default();
        [&self.op, layout, &size, &self.dtype, &self.candidate, self.pass.name(), &self.case]
            .map(str::to_owned)
            .join("|")
    }

    /// The case in a few words, for lists.
    pub(crate) fn label(&self) -> String {
        let words = [self.op.as_str(), &self.case, &self.dtype, &self.candidate, self.pass.name()];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// Whether it says what the device can do at most, and not what a kernel of this program does.
    pub(crate) fn is_peak(&self) -> bool {
        self.pass == Pass::Peak
    }

    /// What a reader has to know, in one cell of a table.
    pub(crate) fn remark(&self) -> String {
        let unsteady = self.unsteady.then_some("unsteady");
        unsteady.into_iter().chain(self.note.as_deref()).collect::<Vec<_>>().join("; ")
    }

    fn progress(&self) -> String {
        let rate = match (self.gflops_median, self.gbytes_median, self.tokens_per_second) {
            (_, _, Some(tokens)) => format!(", {tokens:.0} tokens/s"),
            (Some(gflops), ..) => format!(", {gflops:.2} GFLOP/s"),
            (_, Some(gbytes), _) => format!(", {gbytes:.2} GB/s"),
            _ => String::new(),
        };
        let note = self.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
        format!("{}: {:.4} ms{rate}{note}", self.label(), self.median_ms)
    }
}

/// The machine around the adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// Cores this process may use.
    pub cores: usize,
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
}

/// A number about the whole run that no single record holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fact {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
}

/// What the speed of the device did while a series was timed: a fixed kernel of multiply-adds, before and after it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drift {
    /// Which cases.
    pub series: String,
    /// GFLOP/s before the first.
    pub gflops_before: f64,
    /// GFLOP/s after the last.
    pub gflops_after: f64,
    /// Time after over time before, less one, percent: positive where the device became slower.
    pub drift: f64,
}

/// All that one `bench` measured, and where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of this program.
    pub version: String,
    /// When it was started, UTC, `2026-01-31T12:00:00Z`.
    pub date: String,
    /// The command line.
    pub command: String,
    /// The device.
    pub adapter: AdapterFacts,
    /// The machine.
    pub host: Host,
    /// Numbers about the whole run.
    pub facts: Vec<Fact>,
    /// What the numbers say, in sentences.
    pub summary: Vec<String>,
    /// Of each series, on GPUs.
    #[serde(default)]
    pub drifts: Vec<Drift>,
    /// Whether the run was cut before its last case.
    #[serde(default)]
    pub unfinished: bool,
    /// The cases, in the order they were timed.
    pub records: Vec<Record>,
    /// Where it is written after each case, so that a run that is cut loses nothing.
    #[serde(skip)]
    pub path: Option<PathBuf>,
}

impl Report {
    /// An empty report of this moment on this machine.
    pub(crate) fn new(gpu: &Gpu) -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            date: utc(seconds),
            command: std::iter::once("tokenformer".to_owned()).chain(words).collect::<Vec<_>>().join(" "),
            adapter: AdapterFacts::of(gpu),
            host: Host {
                cores: std::thread::available_parallelism().map_or(0, usize::from),
                os: std::env::consts::OS.to_owned(),
                arch: std::env::consts::ARCH.to_owned(),
            },
            facts: Vec::new(),
            summary: Vec::new(),
            drifts: Vec::new(),
            unfinished: false,
            records: Vec::new(),
            path: None,
        }
    }

    /// Adds a case, tells the person at the terminal, and writes what there is so far where the report will be.
    pub(crate) fn add(&mut self, record: Record) {
        note(record.progress());
        self.records.push(record);
        self.unfinished = true;
        // What is wrong with the file is told at the end, with the results on standard output by then.
        let _ = self.path.as_deref().map(|path| self.replace(path));
        self.unfinished = false;
    }

    /// Writes the report in one piece, over what is there; special files are left alone.
    fn replace(&self, path: &Path) -> Result<()> {
        if path.metadata().is_ok_and(|file| !file.is_file()) {
            return Ok(());
        }
        let part = path.with_extension("part");
        self.write(&part)?;
        std::fs::rename(&part, path).map_err(|cause| Error::io("write", path, &cause))
    }

    /// Adds a number about the whole run.
    pub(crate) fn fact(&mut self, name: &str, value: f64, unit: &str) {
        self.facts.push(Fact { name: name.to_owned(), value, unit: unit.to_owned() });
    }

    /// The record of the multiply-add peak in a type, where it was measured.
    pub(crate) fn fma_peak(&self, dtype: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.op == "fma" && record.dtype == dtype)
    }

    /// Reads what [`Report::write`] wrote.
    ///
    /// # Errors
    /// An input error: no file, no report, or one of another [`SCHEMA`].
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|cause| Error::io("read", path, &cause))?;
        let wrong = |why: String| Error::input(format!("{} is no report of `bench --out`: {why}", path.display()));
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|cause| wrong(cause.to_string()))?;
        match value.get("schema").and_then(serde_json::Value::as_u64) {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            Some(schema) => {
                return Err(Error::input(format!(
                    "{} has schema {schema}, this program reads {SCHEMA}: measure it again with this version",
                    path.display()
                )));
            }
            None => return Err(wrong("it has no \"schema\"".to_owned())),
        }
        serde_json::from_value(value).map_err(|cause| wrong(cause.to_string()))
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// An input error naming the file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.json()?).map_err(|cause| Error::io("write", path, &cause))
    }

    /// The report as JSON, indented, with a line break at its end.
    ///
    /// # Errors
    /// None that can be met: there is nothing in it that JSON cannot hold.
    pub(crate) fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|cause| Error::defect(format!("the report is no JSON: {cause}")))
    }
}

/// Seconds since 1970 as date and time.
fn utc(seconds: u64) -> String {
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(case: &str, ms: f64) -> Record {
        let record = Record {
            op: "matmul".into(),
            case: case.into(),
            layout: Some("NN".into()),
            m: Some(8),
            n: Some(8),
            k: Some(8),
            dtype: "f32".into(),
            candidate: "registers".into(),
            flops: 1024,
            bytes: 768,
            ..Record::default()
        };
        record.timed(Timed { samples_ms: vec![ms, ms * 1.1, ms * 0.9], repeats: 4, ..Timed::default() })
    }

    pub(crate) fn report(records: Vec<Record>) -> Report {
        Report { schema: SCHEMA, records, ..Report::default() }
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(utc(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn rates_follow_from_the_median_and_the_best() {
        let record = record("a", 2.0);
        assert_eq!((record.median_ms, record.best_ms), (2.0, 1.8));
        assert_eq!(record.gflops_median, Some(1024.0 / 2.0 * 1e-6));
        assert_eq!(record.gbytes_median, None);
        assert_eq!(Record { bytes: 4, ..Record::default() }.moved(Timed::default()).gbytes_median, None);
    }

    #[test]
    fn reports_come_back_from_json_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let mut written = report(vec![record("a", 1.0 / 3.0), Record::default()]);
        written.fact("tokens", 1.5, "1/s");
        written.write(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), written);

        std::fs::write(&path, written.json().unwrap().replace("\"schema\": 1", "\"schema\": 7")).unwrap();
        let error = Report::read(&path).unwrap_err();
        assert!(error.to_string().contains("has schema 7, this program reads 1"), "{error}");
        assert_eq!(error.exit_code(), 2);
        for text in ["{}", "no", "[1]", "{\"schema\": 1}"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Report::read(&path).unwrap_err().exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn every_case_is_written_when_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let mut growing = Report { path: Some(path.clone()), ..report(Vec::new()) };
        for count in 1..3 {
            growing.add(record("a", 1.0));
            let read = Report::read(&path).unwrap();
            assert!(read.unfinished && read.records.len() == count);
        }
        growing.write(&path).unwrap();
        assert!(!Report::read(&path).unwrap().unfinished);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
        // A report of an earlier version.
        let mut old: serde_json::Value = serde_json::from_str(&growing.json().unwrap()).unwrap();
        for field in ["unfinished", "drifts"] {
            old.as_object_mut().unwrap().remove(field).unwrap();
        }
        old["records"][0].as_object_mut().unwrap().remove("unsteady").unwrap();
        std::fs::write(&path, old.to_string()).unwrap();
        assert_eq!(Report::read(&path).unwrap().records, growing.records);
    }

    #[test]
    fn keys_tell_cases_apart() {
        let (a, b) = (record("a", 1.0), record("b", 1.0));
        assert_ne!(a.key(), b.key());
        assert_ne!(a.key(), Record { candidate: "tiles".into(), ..a.clone() }.key());
        assert_eq!(a.key(), record("a", 9.0).key());
    }
}
