//! Rows of a parquet file: one column of text, a few rows at a time.
//!
//! A page of the column is unpacked at a time, which writers keep near 1 MB.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::ByteArrayType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::batch::{BATCH, Batch, MOST, Position, Work};
use super::inputs::Source;
use crate::error::{Error, Result};

/// Most rows that are read at once.
const ROWS: usize = 1024;

/// An open file.
pub(super) struct Table {
    shown: String,
    file: SerializedFileReader<File>,
    column: usize,
    /// Whether rows may have none.
    optional: bool,
    /// The first row of each group, and one more for the end.
    starts: Vec<u64>,
    /// The row that comes next from the group that is open.
    open: Option<(u64, ColumnReaderImpl<ByteArrayType>)>,
    read: Arc<AtomicU64>,
    bytes: u64,
}

impl Table {
    /// The column `name` of the file.
    ///
    /// # Errors
    /// A file that is none, or has no such column of text.
    pub(super) fn open(source: &Source, name: &str, read: &Arc<AtomicU64>) -> Result<Self> {
        let shown = source.shown();
        guarded(&shown, || Self::opened(source, name, read))
    }

    fn opened(source: &Source, name: &str, read: &Arc<AtomicU64>) -> Result<Self> {
        let shown = source.shown();
        let file = File::open(&source.path).map_err(|cause| Error::io("read", &source.path, &cause))?;
        let file = SerializedFileReader::new(file).map_err(|error| broken(&shown, &error))?;
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let names = || schema.columns().iter().map(|column| column.path().string());
        let Some(column) = names().position(|path| path == name) else {
            let names: Vec<String> = names().take(8).collect();
            return Err(Error::input(format!(
                "{shown} has no column {name:?}, but {}: name it with --text-key",
                names.join(", ")
            )));
        };
        let of_text = schema.column(column);
        if of_text.physical_type() != parquet::basic::Type::BYTE_ARRAY
            || of_text.max_rep_level() > 0
            || of_text.max_def_level() > 1
        {
            return Err(Error::input(format!("{shown}: its column {name:?} is no text: name another with --text-key")));
        }
        let mut starts = vec![0_u64];
        for group in file.metadata().row_groups() {
            let rows = u64::try_from(group.num_rows())
                .map_err(|_| Error::input(format!("{shown} is damaged: fetch it again")))?;
            starts.push(starts.last().copied().unwrap_or(0).saturating_add(rows));
        }
        Ok(Self {
            shown,
            column,
            optional: of_text.max_def_level() == 1,
            starts,
            open: None,
            read: read.clone(),
            bytes: source.bytes,
            file,
        })
    }

    /// The rows from `at` on; `None` behind the last.
    ///
    /// # Errors
    /// Pages that cannot be read.
    pub(super) fn rows(&mut self, at: Position) -> Result<Option<Batch>> {
        let shown = self.shown.clone();
        guarded(&shown, || self.next(at))
    }

    fn next(&mut self, at: Position) -> Result<Option<Batch>> {
        let end = self.starts.last().copied().unwrap_or(0);
        if at.offset >= end {
            return Ok(None);
        }
        let group = self.starts.iter().rposition(|start| *start <= at.offset).unwrap_or(0);
        let group_end = self.starts.get(group + 1).copied().unwrap_or(end);
        let mut reader = match self.open.take() {
            Some((next, reader)) if next == at.offset => reader,
            _ => self.group(group, at.offset - self.starts.get(group).copied().unwrap_or(0))?,
        };
        let (mut rows, mut bytes, mut wanted) = (Vec::new(), 0, 1);
        let mut row = at.offset;
        while row < group_end && bytes < BATCH && rows.len() < ROWS {
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            let read = reader.read_records(wanted, self.optional.then_some(&mut levels), None, &mut values);
            let (count, _, _) = read.map_err(|error| broken(&self.shown, &error))?;
            if count == 0 {
                return Err(Error::input(format!(
                    "{} ends before row {row}: fetch it again, or leave it out",
                    self.shown
                )));
            }
            let mut values = values.into_iter();
            for index in 0..count {
                let is_there = !self.optional || levels.get(index) == Some(&1);
                let value = if is_there { values.next() } else { None };
                rows.push(match value {
                    None => Err("it is null".to_owned()),
                    Some(value) if value.len() > MOST => Err(format!("it is longer than {} MB", MOST >> 20)),
                    Some(value) => Ok(value.data().to_vec()),
                });
                bytes += rows.last().and_then(|row| row.as_ref().ok()).map_or(0, Vec::len);
            }
            row += count as u64;
            // As many as are likely to fill the batch.
            wanted = ((BATCH.saturating_sub(bytes)) * rows.len() / bytes.max(1)).clamp(1, 2 * wanted);
        }
        let share = |row: u64| (u128::from(self.bytes) * u128::from(row) / u128::from(end.max(1))) as u64;
        self.read.fetch_add(share(row) - share(at.offset), Ordering::Relaxed);
        self.open = (row < group_end).then_some((row, reader));
        let after = Position { offset: row, record: row, ..at };
        Ok(Some(Batch { at, after, work: Work::Rows(rows) }))
    }

    /// The column in a group, behind its first rows.
    fn group(&self, group: usize, passed: u64) -> Result<ColumnReaderImpl<ByteArrayType>> {
        let fail = |error: ParquetError| broken(&self.shown, &error);
        let reader =
            self.file.get_row_group(group).and_then(|group| group.get_column_reader(self.column)).map_err(fail)?;
        let ColumnReader::ByteArrayColumnReader(mut reader) = reader else {
            return Err(Error::input(format!("{} is damaged: its column is no text", self.shown)));
        };
        let passed = usize::try_from(passed).unwrap_or(usize::MAX);
        let skipped = if passed > 0 { reader.skip_records(passed).map_err(fail)? } else { 0 };
        match skipped == passed {
            true => Ok(reader),
            false => Err(Error::input(format!("{} is shorter than it was: begin again with --overwrite", self.shown))),
        }
    }
}

/// The crate panics at some damage.
fn guarded<T>(shown: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let damaged = |_| Err(Error::input(format!("{shown} is damaged: fetch it again, or leave it out")));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(damaged)
}

fn broken(shown: &str, error: &ParquetError) -> Error {
    Error::input(format!("cannot read {shown} as parquet: {error}; fetch it again, or leave it out"))
}
