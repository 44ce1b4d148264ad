//! What is handed from the one that reads to those that make tokens, and where it is from.

use serde::{Deserialize, Serialize};

use super::split::Split;

/// Bytes of a batch where nothing asks for more.
pub(super) const BATCH: usize = 1 << 20;
/// Most bytes of a batch: of a line, and of a text with nowhere to cut it.
pub(super) const MOST: usize = 16 << 20;

/// Where reading goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Number of the source.
    pub source: usize,
    /// In what it holds, unpacked; in rows for a table.
    pub offset: u64,
    /// Lines, or rows, before it.
    pub record: u64,
    /// The part that the document is in whose middle this is.
    pub within: Option<Split>,
}

impl Position {
    pub(super) fn start_of(source: usize) -> Self {
        Self { source, ..Self::default() }
    }
}

/// What is to be made into tokens at a time.
#[derive(Debug)]
pub(super) struct Batch {
    /// Where it is from.
    pub at: Position,
    /// What comes after it.
    pub after: Position,
    pub work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    /// Lines, of which the last may have no line break.
    Lines(Vec<u8>),
    /// A piece of a text.
    Piece {
        bytes: Vec<u8>,
        split: Split,
        /// Whether the document ends with it.
        ends: bool,
    },
    /// Rows of a table, or why one is no document.
    #[cfg_attr(not(feature = "parquet"), allow(dead_code))]
    Rows(Vec<Result<Vec<u8>, String>>),
    /// What cannot be a document, and why.
    Bad(String),
}

impl Batch {
    /// Bytes it takes.
    pub(super) fn size(&self) -> usize {
        match &self.work {
            Work::Lines(bytes) | Work::Piece { bytes, .. } => bytes.len(),
            Work::Rows(rows) => rows.iter().flatten().map(Vec::len).sum(),
            Work::Bad(_) => 0,
        }
    }
}
