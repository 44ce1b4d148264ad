//! What a run looks like: one page that stands alone, made of its metrics and settings.
//!
//! | file | idea |
//! |---|---|
//! | [`series`] | any number of values as few marks |
//! | [`history`] | the course of a run, line by line |
//! | [`costs`] | FLOPs of its steps |
//! | [`pictures`] | curves against steps, tokens, time and FLOPs |
//! | [`differences`] | settings in which runs differ |
//! | [`page`] | the page of a run, or of several |
//!
//! The page that a run keeps and the one that is made of its files later are the same.

mod costs;
mod differences;
pub(crate) mod history;
mod page;
mod pictures;
mod series;

use super::disk::meta::{Meta, Store};
use super::disk::{lines, metrics, settings};
use super::growth::{GrowthRecord, Import};
use crate::checkpoint::{Files, read_meta, replace};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::report::chart::standalone;
use crate::report::page::MARK;
use costs::Costs;
use history::History;
use pictures::{Axis, legend, losses};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Name of the page in a run's directory.
pub(crate) const FILE: &str = "report.html";

/// A run with all that a page shows of it.
pub(crate) struct Shown {
    name: String,
    history: History,
    config: Option<RunConfig>,
    /// As they are written.
    settings: Option<String>,
    costs: Option<Costs>,
    /// Growths and prunings of the model, also from before the run.
    lineage: Vec<String>,
    imported: Option<String>,
}

impl Shown {
    /// A run in progress or on disk. `lineage` is of its model, also from before the run.
    pub(crate) fn new(
        name: String,
        history: History,
        config: Option<RunConfig>,
        lineage: &[GrowthRecord],
        imported: Option<&Import>,
    ) -> Self {
        let costs = config.as_ref().and_then(|config| Costs::of(config, history.begun_after(), &history.growths));
        let settings = config.as_ref().and_then(|config| config.to_toml().ok());
        let lineage = lineage.iter().map(GrowthRecord::describe).collect();
        let imported = imported.map(Import::describe);
        Self { name, history, config, settings, costs, lineage, imported }
    }

    /// The run in `dir`, from its files alone.
    ///
    /// # Errors
    /// Metrics that cannot be read, or are none of a run.
    pub(crate) fn read(dir: &Path, name: Option<String>) -> Result<Self> {
        let mut history = History::default();
        if !dir.is_dir() {
            let shown = dir.display();
            return Err(Error::input(format!("{shown} is not a directory: give the directory of a run")));
        }
        if !lines::each(dir, &mut |line| history.add(line))? {
            let path = dir.join(metrics::FILE);
            return Err(Error::input(format!(
                "{} has no line of a run: give the directory of a run of this program",
                path.display()
            )));
        }
        let config = RunConfig::read(&dir.join(settings::FILE)).ok();
        let newest = Store::new(dir).list().ok().and_then(|known| known.last().map(|(_, path)| path.clone()));
        let meta = newest.and_then(|path| read_meta::<Meta>(&path).ok());
        let lineage = meta.as_ref().map_or(&[][..], |meta| &meta.lineage);
        let imported = meta.as_ref().and_then(|meta| meta.imported.as_ref());
        Ok(Self::new(name.unwrap_or_else(|| named(dir)), history, config, lineage, imported))
    }

    /// Lines of its metrics.
    pub(crate) fn lines(&self) -> u64 {
        self.history.lines
    }
}

/// What a run is called: by its directory.
pub(crate) fn named(dir: &Path) -> String {
    let real = || dir.canonicalize().ok().and_then(|path| path.file_name().map(std::ffi::OsStr::to_owned));
    let name = dir.file_name().map(std::ffi::OsStr::to_owned).or_else(real);
    name.map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The page of `runs`.
pub(crate) fn page(runs: &[Shown]) -> String {
    page::render(runs)
}

/// The picture of losses against steps as a file of its own; `None` where there is nothing to draw yet.
pub(crate) fn picture(runs: &[Shown]) -> Option<String> {
    losses(runs, Axis::Steps).map(|figure| standalone(&figure.picture, &legend(runs)))
}

/// Writes a page or picture to `path`, whole or not at all. What was no page of this program is not written over.
///
/// # Errors
/// What the system says; somebody else's file.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    check_own(path)?;
    replace(&Files, path, text).map_err(|e| Error::io("write", path, &e))
}

/// Refuses a file that this program did not write.
///
/// # Errors
/// An input error with the remedy.
pub(crate) fn check_own(path: &Path) -> Result<()> {
    let other = || Error::input(format!("{} is no report of this program: move it away", path.display()));
    match std::fs::metadata(path) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.is_file() => {}
        _ => return Err(other()),
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
    read.map_err(|e| Error::io("read", path, &e))?;
    let start = String::from_utf8_lossy(&start);
    if start.contains(MARK) || start.contains("class=\"plot\"") { Ok(()) } else { Err(other()) }
}
