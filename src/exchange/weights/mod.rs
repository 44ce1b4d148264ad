//! Weights as other programs store them: which tensors there are, of what shape and type, and one of them at a time.
//!
//! | file | idea |
//! |---|---|
//! | `place` | which files a path stands for, and what an index says of them |
//! | `kind` | types of values, and those as f32 |
//! | `plain` | tensors of a safetensors file |
//! | `pickled` | tensors of a file that `torch.save` wrote; none of its code runs |
//!
//! Nothing is read of values before it is known that they belong to a model. So all that opening takes is memory for names.

mod kind;
mod pickled;
mod place;
mod plain;

pub(crate) use kind::Kind;
pub(crate) use place::Place;

use kind::Listed;
use pickled::Pickled;
use plain::Plain;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::array::HostTensor;
use crate::checkpoint::FileDigest;
use crate::error::{Error, Result};
use crate::train::Meta;

/// Tensors in one or more files.
#[derive(Debug)]
pub(crate) struct Weights {
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Entry>,
    /// What a checkpoint of this program says of its run.
    own: Option<Meta>,
    /// The configuration of the model in a file that this program exported.
    settings: Option<Value>,
}

/// A tensor of a file.
#[derive(Debug)]
struct Entry {
    shape: Vec<usize>,
    kind: Kind,
    /// Index of its file.
    file: usize,
    source: Source,
}

/// Where its values are.
#[derive(Debug)]
enum Source {
    Plain(Plain),
    Pickled(Pickled),
}

impl Entry {
    fn of<S>(listed: Listed<S>, file: usize, source: impl Fn(S) -> Source) -> (String, Self) {
        let Listed { name, shape, kind, source: place } = listed;
        (name, Self { shape, kind, file, source: source(place) })
    }
}

impl Weights {
    /// The tensors in the files of `place`.
    ///
    /// # Errors
    /// A file that cannot be read or contradicts itself, a tensor in two files, and one that an index looks for in vain.
    pub(crate) fn open(place: &Place) -> Result<Self> {
        let mut weights = Self { files: place.files.clone(), tensors: BTreeMap::new(), own: None, settings: None };
        for (index, path) in place.files.iter().enumerate() {
            weights.add(index, path)?;
        }
        for (name, file) in &place.index {
            if weights.tensors.get(name).is_none_or(|entry| entry.file != *file) {
                let file = weights.files.get(*file).map(|path| path.display().to_string()).unwrap_or_default();
                return Err(Error::input(format!(
                    "{} says that tensor {name:?} is in {file}, and it is not: fetch the model again",
                    place.given.display()
                )));
            }
        }
        Ok(weights)
    }

    fn add(&mut self, index: usize, path: &Path) -> Result<()> {
        let entries: Vec<_> = if pickled::is_archive(path)? {
            pickled::tensors(path)?.into_iter().map(|listed| Entry::of(listed, index, Source::Pickled)).collect()
        } else {
            let plain::Contents { tensors, own, settings } = plain::contents(path)?;
            self.own = own.or(self.own.take());
            self.settings = settings.or(self.settings.take());
            tensors.into_iter().map(|listed| Entry::of(listed, index, Source::Plain)).collect()
        };
        for (name, entry) in entries {
            if let Some(other) = self.tensors.get(&name) {
                let other = self.files.get(other.file).map(|path| path.display().to_string()).unwrap_or_default();
                return Err(Error::input(format!(
                    "tensor {name:?} is in {} and in {other}: fetch the model again",
                    path.display()
                )));
            }
            self.tensors.insert(name, entry);
        }
        Ok(())
    }

    /// What a checkpoint of this program says of its run, if it is one.
    pub(crate) fn own(&self) -> Option<&Meta> {
        self.own.as_ref()
    }

    /// The configuration of the model in a file that this program exported.
    pub(crate) fn settings(&self) -> Option<&Value> {
        self.settings.as_ref()
    }

    /// Shape of every tensor, by name.
    pub(crate) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.tensors.iter().map(|(name, entry)| (name.clone(), entry.shape.clone())).collect()
    }

    /// The type of a tensor.
    pub(crate) fn kind(&self, name: &str) -> Option<&Kind> {
        self.tensors.get(name).map(|entry| &entry.kind)
    }

    /// The files by their content, all of which is read.
    ///
    /// # Errors
    /// One that cannot be read.
    pub(crate) fn digests(&self) -> Result<Vec<FileDigest>> {
        self.files.iter().map(|path| FileDigest::read(path)).collect()
    }

    /// A tensor as f32. Besides it at most as much memory is used.
    ///
    /// # Errors
    /// A tensor that is not there or of another type than f32, f16 and bf16, values that cannot be read, and ones that are
    /// no numbers.
    pub(crate) fn read(&self, name: &str) -> Result<HostTensor> {
        let entry = self.tensors.get(name).ok_or_else(|| Error::defect(format!("there is no tensor {name:?}")))?;
        let path = self.files.get(entry.file).ok_or_else(|| Error::defect("a file of a model is not known"))?;
        let refuse = |what: String| Error::input(format!("tensor {name:?} of {} {what}", path.display()));
        let elements = entry.shape.iter().product();
        let data = match &entry.source {
            Source::Plain(plain) => plain.values(path, &entry.kind, elements),
            Source::Pickled(pickled) => pickled.values(&entry.kind, elements),
        };
        let data = data.map_err(&refuse)?;
        match data.iter().filter(|value| !value.is_finite()).count() {
            0 => Ok(HostTensor { shape: entry.shape.clone(), data }),
            count => Err(refuse(format!(
                "has {count} values that are infinite or no numbers: take a model that was stored whole"
            ))),
        }
    }
}
