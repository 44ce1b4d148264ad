//! Tensors of a safetensors file, read at their place.

use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::kind::{Kind, Listed, room};
use crate::checkpoint::{Outline, TensorEntry, outline};
use crate::error::{Error, Result};
use crate::train::Meta;

/// Bytes that are widened at a time; a multiple of every value's size.
const CHUNK: usize = 1 << 20;

/// Key of the metadata of what this program exported, and of the configuration in it.
const MARK: &str = "exported_by";
const SETTINGS: &str = "model";

/// Where the values of a tensor begin.
#[derive(Debug)]
pub(super) struct Plain {
    at: u64,
}

/// What is in a file.
pub(super) struct Contents {
    pub(super) tensors: Vec<Listed<Plain>>,
    /// What a checkpoint of this program says of its run.
    pub(super) own: Option<Meta>,
    /// The configuration of a model that this program exported.
    pub(super) settings: Option<Value>,
}

/// What is in the file at `path`.
///
/// # Errors
/// A file that cannot be read, is truncated, or is no safetensors file; a checkpoint of a newer version.
pub(super) fn contents(path: &Path) -> Result<Contents> {
    let Outline { tensors, data_start, strings, meta } = outline::<Meta>(path)?;
    let own = match meta {
        Ok(meta) => Some(meta),
        Err(Error::Foreign(_)) => None,
        Err(other) => return Err(other),
    };
    let settings = strings.get(SETTINGS).filter(|_| strings.contains_key(MARK));
    let mut at = data_start;
    let listed = |tensor: TensorEntry| {
        let source = Plain { at };
        at += tensor.bytes;
        Listed { name: tensor.name, shape: tensor.shape, kind: Kind::named(&tensor.dtype), source }
    };
    let settings = settings.and_then(|json| serde_json::from_str(json).ok());
    Ok(Contents { tensors: tensors.into_iter().map(listed).collect(), own, settings })
}

impl Plain {
    /// The values.
    ///
    /// # Errors
    /// A clause after the tensor: another type, a file that cannot be read.
    pub(super) fn values(&self, path: &Path, kind: &Kind, elements: usize) -> Result<Vec<f32>, String> {
        let mut left = elements.saturating_mul(kind.width()?);
        let mut values = room(elements)?;
        let failed = |cause: std::io::Error| format!("cannot be read: {cause}");
        let mut file = File::open(path).map_err(failed)?;
        file.seek(SeekFrom::Start(self.at)).map_err(failed)?;
        let mut bytes = vec![0; CHUNK.min(left)];
        while left > 0 {
            bytes.truncate(left);
            file.read_exact(&mut bytes).map_err(failed)?;
            kind.widen(&bytes, &mut values);
            left -= bytes.len();
        }
        Ok(values)
    }
}
