//! What is asked of checkpoint files: one as a whole, its metadata, its tensors, whether it is whole. Each opens the file
//! once and works on that, whatever gets its name meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::checksum::{PREFIX, START};
use super::digest::ReadDigest;
use super::format::{AVERAGE, META_KEY, MOMENT1, MOMENT2};
use super::read::{Checks, TensorEntry, TensorFile, Verified};
use super::storage::{Files, Source, Storage};
use super::{Checkpoint, FileDigest, Metadata};
use crate::error::{Error, Result};

/// The tensors of any safetensors file, in file order, without reading their values.
///
/// # Errors
/// An input error if the file cannot be read, is truncated, or is not a safetensors file.
pub fn list_tensors(path: &Path) -> Result<Vec<TensorEntry>> {
    Ok(TensorFile::open(&Files, path)?.entries())
}

/// The text metadata of any safetensors file.
///
/// # Errors
/// As [`list_tensors`].
pub(crate) fn read_strings(path: &Path) -> Result<HashMap<String, String>> {
    Ok(TensorFile::open(&Files, path)?.strings())
}

/// What is in a safetensors file of any program, without its values.
#[derive(Debug)]
pub(crate) struct Outline<M> {
    /// Every tensor, in file order.
    pub(crate) tensors: Vec<TensorEntry>,
    /// Where the values of the first one begin; those of the others follow one after the other.
    pub(crate) data_start: u64,
    /// Its text metadata.
    pub(crate) strings: HashMap<String, String>,
    /// What a checkpoint of this program says of its run, if it is one.
    pub(crate) meta: Result<M>,
}

/// The outline of a safetensors file, which need not match its checksums.
///
/// # Errors
/// An input error if the file cannot be read, is truncated, or is not a safetensors file.
pub(crate) fn outline<M: Metadata>(path: &Path) -> Result<Outline<M>> {
    let source = Files.open(path).map_err(|cause| Error::io("read", path, &cause))?;
    let file = TensorFile::new(source, path, Checks::Waived)?;
    Ok(Outline { tensors: file.entries(), data_start: file.data_start(), strings: file.strings(), meta: file.meta() })
}

/// The metadata of a checkpoint, without reading its tensors.
///
/// # Errors
/// As [`Checkpoint::read`], but damage to tensor values goes unseen.
pub fn read_meta<M: Metadata>(path: &Path) -> Result<M> {
    read_meta_from(&Files, path)
}

/// As [`read_meta`], from any storage.
pub(super) fn read_meta_from<M: Metadata>(storage: &dyn Storage, path: &Path) -> Result<M> {
    TensorFile::open(storage, path)?.meta()
}

/// Most bytes of a file that are looked at to tell whose it is.
const HEAD: u64 = 1 << 16;

/// Whether the file at `path` is another program's or a newer version's: damage to what this one wrote does not make it so.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn is_foreign<M: Metadata>(storage: &dyn Storage, path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    match storage.open(path).and_then(|source| source.bytes.take(HEAD).read_to_end(&mut head)) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(false),
        Err(cause) => return Err(Error::io("read", path, &cause)),
        Ok(_) => {}
    }
    match read_meta_from::<M>(storage, path) {
        Ok(_) => Ok(false),
        Err(Error::Foreign(_)) => Ok(true),
        Err(Error::Damaged(_)) => Ok(!may_be_own(&head)),
        Err(unreadable) => Err(unreadable),
    }
}

/// Whether a damaged file that starts with `head` may be what is left of a checkpoint. Where a disk lost its start, that is
/// zeros, or nothing.
fn may_be_own(head: &[u8]) -> bool {
    let (len, json) = head.split_at(head.len().min(PREFIX));
    let lost = len.iter().all(|&byte| byte == 0);
    // A header is far from 4 GiB long.
    let cut = len.get(4..).is_some_and(|high| !high.is_empty() && high.iter().all(|&byte| byte == 0));
    let starts = cut && json.iter().zip(START).all(|(is, own)| is == own);
    let key = format!("\"{META_KEY}");
    lost || starts || head.windows(key.len()).any(|part| part == key.as_bytes())
}

/// Compares all of a file with its checksums.
///
/// # Errors
/// [`Error::Damaged`] that says what is damaged, and where; an input error if the file cannot be read.
pub fn verify(path: &Path) -> Result<Verified> {
    TensorFile::open(&Files, path)?.verify()
}

/// What is in a checkpoint file, apart from values.
#[derive(Debug)]
pub struct Examined<M> {
    /// What the run says of itself.
    pub meta: M,
    /// Every tensor, in file order.
    pub tensors: Vec<TensorEntry>,
    /// What its checksums say, or what is damaged.
    pub verified: Result<Verified>,
}

/// Examines a checkpoint file.
///
/// # Errors
/// As [`read_meta`].
pub fn examine<M: Metadata>(path: &Path) -> Result<Examined<M>> {
    let file = TensorFile::open(&Files, path)?;
    let (meta, tensors) = (file.meta()?, file.entries());
    Ok(Examined { meta, tensors, verified: file.verify() })
}

/// A checkpoint with what is known of its file.
#[derive(Debug)]
pub struct Opened<M> {
    /// All of it.
    pub checkpoint: Checkpoint<M>,
    /// What its checksums said.
    pub verified: Verified,
    /// The file by its content.
    pub digest: FileDigest,
}

impl<M: Metadata> Opened<M> {
    /// Reads a checkpoint and takes the digest of what was read.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; without `checks`, damage that contradicts nothing goes unseen.
    pub fn read(path: &Path, checks: Checks) -> Result<Self> {
        let source = Files.open(path).map_err(|cause| Error::io("read", path, &cause))?;
        let (digest, source) = ReadDigest::over(source);
        let file = TensorFile::new(source, path, checks)?;
        let verified = file.verified();
        let checkpoint = Checkpoint::of(file, path, checks)?;
        Ok(Self { checkpoint, verified, digest: digest.digest(path) })
    }
}

impl<M: Metadata> Checkpoint<M> {
    /// Reads a checkpoint and checks it as a whole.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the file is truncated, does not match its checksums, or contradicts itself; an input error if it
    /// cannot be read, is not a checkpoint of this program, or has a newer format.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_from(&Files, path)
    }

    /// As [`Checkpoint::read`], from any storage.
    pub(super) fn read_from(storage: &dyn Storage, path: &Path) -> Result<Self> {
        Self::of(TensorFile::open(storage, path)?, path, Checks::Required)
    }

    /// As [`Checkpoint::read`], of bytes from anywhere, which messages call `path`.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn read_source(source: Source, path: &Path) -> Result<Self> {
        Self::of(TensorFile::new(source, path, Checks::Required)?, path, Checks::Required)
    }

    fn of(file: TensorFile, path: &Path, checks: Checks) -> Result<Self> {
        let meta = file.meta()?;
        let narrow = |entry: &TensorEntry| entry.dtype != "F32" && checks == Checks::Required;
        if let Some(TensorEntry { name, dtype, .. }) = file.entries().into_iter().find(narrow) {
            let path = path.display();
            return Err(Error::input(format!(
                "tensor {name:?} of {path} has type {dtype}, but a tokenformer checkpoint holds F32 only"
            )));
        }
        let (mut params, mut moment1, mut moment2) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut averages = BTreeMap::new();
        for (name, tensor) in file.read()? {
            if let Some(of) = name.strip_prefix(MOMENT1) {
                moment1.insert(of.to_owned(), tensor);
            } else if let Some(of) = name.strip_prefix(MOMENT2) {
                moment2.insert(of.to_owned(), tensor);
            } else if let Some(of) = name.strip_prefix(AVERAGE) {
                averages.insert(of.to_owned(), tensor);
            } else {
                params.insert(name, tensor);
            }
        }
        let checkpoint = Self { meta, params, moment1, moment2, averages };
        checkpoint.check().map_err(|detail| {
            Error::damaged(format!("the checkpoint {} contradicts itself: {detail}", path.display()))
        })?;
        Ok(checkpoint)
    }
}
