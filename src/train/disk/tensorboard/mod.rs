//! The metrics of a run for TensorBoard, in `RUN/tensorboard/`.
//!
//! One event file says what `metrics.jsonl` says, always: a run that resumes, or goes back, writes it anew from the lines
//! that it keeps. So no step is there twice, also for programs that read events as they come. It begins with the start of a
//! session at step 0, by which a TensorBoard that is open forgets what it has read of the file before, which is empty then.

mod format;

use super::lines;
use crate::console::warn;
use crate::error::{Error, Result};
use crate::train::growth::GrowthRecord;
use format::{Event, SessionLog, Summary, Value, What};
use serde_json::{Map, Value as Json};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the folder in a run's directory.
const FOLDER: &str = "tensorboard";
/// How the event files of this program begin and end.
const NAMED: [&str; 2] = ["events.out.tfevents.", ".tokenformer"];

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Writes the event file of a run as its metrics are written. A run does not end because this fails.
pub(crate) struct Events {
    path: PathBuf,
    /// `None` once it could not be written, which is said once.
    file: Option<File>,
    told: Told,
}

impl Events {
    /// For the run in `dir`, with the lines that its metrics have already, in the place of its file before.
    pub(crate) fn open(dir: &Path) -> Self {
        let mut events = Self { path: dir.join(FOLDER), file: None, told: Told::default() };
        if let Err(error) = events.begin(dir) {
            events.fail(&error);
        }
        events
    }

    fn begin(&mut self, dir: &Path) -> Result<()> {
        let folder = dir.join(FOLDER);
        let io = |path: &Path, e| Error::io("write", path, &e);
        fs::create_dir_all(&folder).map_err(|e| io(&folder, e))?;
        let [first, last] = NAMED;
        // By name the newest is the last. Two of one second are told apart.
        let path = |n: u32| folder.join(format!("{first}{:010}.{n:02}{last}", now() as u64));
        for n in 0..100 {
            match File::create_new(path(n)) {
                Ok(file) => {
                    (self.path, self.file) = (path(n), Some(file));
                    break;
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io(&path(n), e)),
            }
        }
        let start = What::SessionLog(SessionLog { status: format::START });
        let (mut of_lines, mut since) = (Vec::new(), None);
        lines::each(dir, &mut |line| {
            let Some(event) = self.told.line(line) else { return };
            since.get_or_insert(event.wall_time);
            of_lines.extend(format::record(&event));
        })?;
        let wall_time = since.unwrap_or_else(now);
        let begun = |what| format::record(&Event { wall_time, step: 0, what: Some(what) });
        let version = begun(What::FileVersion(format::VERSION.to_owned()));
        self.put(&[version, begun(start), of_lines].concat())?;
        retire_before(dir, &self.path).map_err(|e| io(&folder, e))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        // One call for each line, so that a reader finds whole records.
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|e| Error::io("write", &self.path, &e))
    }

    fn fail(&mut self, error: &Error) {
        self.file = None;
        warn(format_args!(
            "TensorBoard gets no more of this run: {error}; the run goes on, and metrics.jsonl has all of it"
        ));
    }

    /// One more line of the metrics.
    pub(crate) fn line(&mut self, line: &Map<String, Json>) {
        if self.file.is_none() {
            return;
        }
        let Some(event) = self.told.line(line) else { return };
        if let Err(error) = self.put(&format::record(&event)) {
            self.fail(&error);
        }
    }
}

/// Removes the event files of the run in `dir`. Those of others stay.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    let all = own_files(dir).and_then(|paths| paths.into_iter().try_for_each(fs::remove_file));
    all.map_err(|e| Error::io("remove", &dir.join(FOLDER), &e))
}

/// Empties the event file before `new`. It is removed only when the next one is there: a TensorBoard that is open and has
/// read it looks for it once more before it goes on to `new`, and would never leave one that is gone.
fn retire_before(dir: &Path, new: &Path) -> std::io::Result<()> {
    for path in own_files(dir)?.into_iter().filter(|path| path != new) {
        match fs::metadata(&path)?.len() {
            0 => fs::remove_file(&path)?,
            _ => File::options().write(true).open(&path)?.set_len(0)?,
        }
    }
    Ok(())
}

fn own_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir.join(FOLDER)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let is_own = |path: &PathBuf| name(path).starts_with(NAMED[0]) && name(path).ends_with(NAMED[1]);
    Ok(paths.into_iter().filter(is_own).collect())
}

/// What was told so far: events are placed by it in time.
#[derive(Debug, Default)]
struct Told {
    /// When the process started that wrote the lines, seconds since 1970.
    started: Option<f64>,
    /// Seconds since then.
    seconds: f64,
    /// Steps, tokens and seconds of the step before, in the same process.
    before: Option<(u64, f64, f64)>,
}

impl Told {
    fn event(&self, step: u64, what: Option<What>) -> Event {
        let wall_time = self.started.map_or_else(now, |started| started + self.seconds);
        Event { wall_time, step: i64::try_from(step).unwrap_or(i64::MAX), what }
    }

    /// What a line of the metrics is to TensorBoard.
    fn line(&mut self, line: &Map<String, Json>) -> Option<Event> {
        let kind = line.get("kind").and_then(Json::as_str)?;
        let whole = |key: &str| line.get(key).and_then(Json::as_u64).unwrap_or(0);
        let text = |key: &str| line.get(key).and_then(Json::as_str).unwrap_or_default();
        let mut step = whole("step");
        let values = match kind {
            "run" => {
                self.started = line.get("started").and_then(Json::as_f64);
                (self.seconds, self.before, step) = (0.0, None, whole("from_step"));
                let said = format!("data: {}  \nadapter: {}", fenced(text("data")), fenced(text("adapter")));
                vec![Value::text("run".to_owned(), said)]
            }
            "train" => {
                self.seconds = line.get("seconds").and_then(Json::as_f64).unwrap_or(self.seconds);
                let mut values = scalars(kind, line);
                values.extend(self.speed(step, line).map(|v| Value::scalar("train/tokens_per_second".to_owned(), v)));
                values
            }
            "eval" => scalars(kind, line),
            "growth" => {
                let record: GrowthRecord = serde_json::from_value(line.get("record")?.clone()).ok()?;
                vec![
                    Value::text("growth".to_owned(), fenced(&record.describe())),
                    Value::scalar("growth/max_logit_change".to_owned(), record.max_logit_change),
                    Value::scalar("growth/parameters".to_owned(), record.after.params as f64),
                ]
            }
            "sample" => vec![Value::text("sample".to_owned(), fenced(text("text")))],
            "rollback" => {
                step = whole("to_step");
                let said = format!("from step {} back to step {step}: {}", whole("from_step"), text("why"));
                vec![Value::text("rollback".to_owned(), fenced(&said))]
            }
            _ => return None,
        };
        (!values.is_empty()).then(|| self.event(step, Some(What::Summary(Summary { value: values }))))
    }

    /// Tokens a second since the step before.
    fn speed(&mut self, step: u64, line: &Map<String, Json>) -> Option<f64> {
        let tokens = line.get("tokens").and_then(Json::as_f64)?;
        let (before, then, since) = self.before.replace((step, tokens, self.seconds))?;
        let rate = (tokens - then) / (self.seconds - since);
        (before < step && rate.is_finite()).then_some(rate)
    }
}

/// The numbers of a line, each under its kind and name.
fn scalars(kind: &str, line: &Map<String, Json>) -> Vec<Value> {
    let but = ["step", "seconds"];
    let values = line.iter().filter(|(name, _)| !but.contains(&name.as_str()));
    values.filter_map(|(name, value)| Some(Value::scalar(format!("{kind}/{name}"), value.as_f64()?))).collect()
}

/// Text that TensorBoard takes for Markdown, as it stands: indented, it is code.
fn fenced(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
