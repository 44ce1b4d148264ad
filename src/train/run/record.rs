//! What a run writes down of itself on the way: its metrics, and what people look at that is made of them.

use super::super::disk::metrics::Metrics;
use super::super::disk::tensorboard::{self, Events};
use super::super::disk::{directory, lines};
use super::super::report::{self, Shown, history::History};
use super::standing::Standing;
use crate::checkpoint::Storage;
use crate::config::RunConfig;
use crate::console::warn;
use crate::error::{Error, Result};
use serde_json::Value;
use std::sync::Arc;

/// The metrics of a run, its page and its event file.
pub(crate) struct Record {
    metrics: Metrics,
    /// `None` where another process writes.
    shown: Option<Page>,
    events: Option<Events>,
}

struct Page {
    config: RunConfig,
    history: History,
    /// Whether it could not be written, which is said once.
    failed: bool,
}

impl Record {
    /// Of a run that goes on after `step`, whose directory it makes its own.
    ///
    /// # Errors
    /// As [`directory::claim`].
    pub(crate) fn claim(storage: &Arc<dyn Storage>, config: &RunConfig, step: u64) -> Result<Self> {
        let dir = &config.out_dir;
        let metrics = directory::claim(storage, config, step)?;
        let mut history = History::default();
        // What cannot be read now was written just before: the page is not worth the run.
        let read = lines::each(dir, &mut |line| history.add(line)).map(drop);
        let events = config.train.tensorboard.then(|| Events::open(dir));
        let read = read.and(if events.is_none() && step == 0 { tensorboard::remove(dir) } else { Ok(()) });
        let mut record = Self { metrics, shown: Some(Page { config: config.clone(), history, failed: false }), events };
        record.unless_failed(read);
        Ok(record)
    }

    /// Of a process that leaves it to another one.
    pub(crate) fn of_another() -> Self {
        Self { metrics: Metrics::of_another(), shown: None, events: None }
    }

    /// Writes one line of the metrics.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn write(&mut self, line: &Value) -> Result<()> {
        self.metrics.write(line)?;
        let Some(fields) = line.as_object() else { return Ok(()) };
        if let Some(page) = &mut self.shown {
            page.history.add(fields);
        }
        if let Some(events) = &mut self.events {
            events.line(fields);
        }
        Ok(())
    }

    /// As [`Metrics::sync`].
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.metrics.sync()
    }

    /// Writes the page of the run as it stands. No run ends for want of it.
    pub(super) fn show(&mut self, standing: &Standing) {
        let Some(Page { config, history, .. }) = &self.shown else { return };
        let (dir, imported) = (&config.out_dir, standing.imported.as_ref());
        let name = report::named(dir);
        let shown = Shown::new(name, history.clone(), Some(config.clone()), &standing.lineage, imported);
        let written = report::write(&dir.join(report::FILE), &report::page(&[shown]));
        self.unless_failed(written);
    }

    fn unless_failed(&mut self, done: Result<()>) {
        let Some(page) = &mut self.shown else { return };
        if let Err(error) = done
            && !std::mem::replace(&mut page.failed, true)
        {
            said(&error);
        }
    }
}

fn said(error: &Error) {
    warn(format_args!("the page of the run is not written: {error}; the run goes on, and metrics.jsonl has all of it"));
}
