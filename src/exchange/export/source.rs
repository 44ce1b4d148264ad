//! A checkpoint that is read one parameter at a time.

use std::collections::BTreeMap;
use std::path::Path;

use crate::array::HostTensor;
use crate::checkpoint::{Checks, Verified, Weights};
use crate::config::RunConfig;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::exchange::piece::Piece;
use crate::train::Meta;
use crate::train::disk::described;

/// A trained model on disk.
#[derive(Debug)]
pub(crate) struct Source {
    /// What its run was told.
    pub(crate) config: RunConfig,
    /// `None` for a model trained on token shards.
    pub(crate) tokenizer: Option<Tokenizer>,
    weights: Weights<Meta>,
    /// Whether the moving averages of the parameters are read in their place.
    is_averaged: bool,
}

impl Source {
    /// Opens the checkpoint at `path` and checks all of it.
    ///
    /// # Errors
    /// As [`Weights::open`]; parameters or a tokenizer of another model.
    pub(crate) fn open(path: &Path, checks: Checks) -> Result<Self> {
        let weights = Weights::<Meta>::open(path, checks)?;
        let shapes = weights.shapes();
        let shapes: BTreeMap<&str, &[usize]> =
            shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        let found = described(&weights.meta, &shapes);
        let (config, tokenizer) = found.map_err(|e| Error::input(format!("{}: {e}", path.display())))?;
        Ok(Self { config, tokenizer, weights, is_averaged: false })
    }

    /// What the run says of itself.
    pub(crate) fn meta(&self) -> &Meta {
        &self.weights.meta
    }

    /// Whether it has moving averages of the parameters.
    pub(crate) fn has_averages(&self) -> bool {
        self.weights.has_averages()
    }

    /// From here on reads the averages in the place of the parameters, or not.
    pub(crate) fn take_averages(&mut self, averages: bool) {
        self.is_averaged = averages;
    }

    /// Whether it does.
    pub(super) fn is_averaged(&self) -> bool {
        self.is_averaged
    }

    /// What its checksums said.
    pub(crate) fn verified(&self) -> Verified {
        self.weights.verified
    }

    /// The tensor `piece`, out of its parts.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn tensor(&mut self, piece: &Piece) -> Result<HostTensor> {
        let read = |name: &String| match self.is_averaged {
            true => self.weights.read_average(name),
            false => self.weights.read(name),
        };
        let parts: Result<Vec<HostTensor>> = piece.parts.iter().map(read).collect();
        piece.join(parts?)
    }
}
