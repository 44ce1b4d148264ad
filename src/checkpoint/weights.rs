//! One parameter at a time out of a checkpoint, in any order: for models that may be larger than the memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::Metadata;
use super::format::{AVERAGE, is_of_parameter};
use super::read::{Checks, Layout, TensorFile, Verified};
use super::storage::Source;
use crate::array::HostTensor;
use crate::error::{Error, Result};

/// An open checkpoint, all of which was compared with its checksums.
#[derive(Debug)]
pub struct Weights<M> {
    /// What the run says of itself.
    pub meta: M,
    /// What the checksums said.
    pub verified: Verified,
    file: File,
    layout: Layout,
}

impl<M: Metadata> Weights<M> {
    /// Opens the checkpoint at `path` and compares all of it with its checksums, a piece at a time.
    ///
    /// # Errors
    /// As [`Checkpoint::read`](super::Checkpoint::read); what the parameters have to be is not looked at.
    pub fn open(path: &Path, checks: Checks) -> Result<Self> {
        let io = |cause: std::io::Error| Error::io("read", path, &cause);
        if !path.metadata().map_err(io)?.is_file() {
            return Err(Error::input(format!("cannot read {}: it is not a regular file", path.display())));
        }
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let whole = TensorFile::new(Source { len, bytes: Box::new(file.try_clone().map_err(io)?) }, path, checks)?;
        let meta = whole.meta()?;
        let (layout, verified) = whole.into_layout()?;
        Ok(Self { meta, verified, file, layout })
    }

    /// Shape of every parameter, by its name.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let all = self.layout.shapes().into_iter();
        all.filter(|(name, _)| !is_of_parameter(name)).collect()
    }

    /// Whether there are moving averages of the parameters.
    pub fn has_averages(&self) -> bool {
        self.layout.shapes().keys().any(|name| name.starts_with(AVERAGE))
    }

    /// Reads the moving average of one parameter.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_average(&mut self, name: &str) -> Result<HostTensor> {
        self.read(&format!("{AVERAGE}{name}"))
    }

    /// Reads one parameter.
    ///
    /// # Errors
    /// A name that is none of them; a file that cannot be read.
    pub fn read(&mut self, name: &str) -> Result<HostTensor> {
        self.layout.read_at(name, &mut self.file)
    }
}
