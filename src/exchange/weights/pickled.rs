//! Tensors of a file that `torch.save` wrote.
//!
//! The crate `pytorch-reader` reads the pickle in it as data: of all calls that a pickle can ask for, it knows those that put
//! tensors together, and keeps nothing of others but their name. Nothing is run.
//!
//! What it takes of memory is limited here, before it looks at the file: a pickle takes some 110 times its bytes once it is
//! read, so there may be as much pickle as the other bytes of the file make plausible; nothing may be compressed, which
//! `torch.save` never does; and tensors that share values, as a tied head does, may not be much more than the file. Files
//! from before PyTorch 1.6 have no such outline that could be looked at first, so they are refused.

use pytorch_reader::{DType, PytorchReader, Tensor};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

use super::kind::{Kind, Listed, room};
use crate::checkpoint::{Files, Storage};
use crate::error::{Error, Result};

/// Name of the pickle in its folder of the archive.
const PICKLE: &str = "data.pkl";
/// Bytes of pickle of a file without values.
const LEAST_PICKLE: u64 = 64 << 10;
/// One byte of pickle more for so many of values.
const VALUES_OF_A_BYTE: u64 = 64;
/// Most bytes of pickle: 16,000 tensors take 5 MB.
const MOST_PICKLE: u64 = 8 << 20;
/// How often the bytes of a file may be in its tensors.
const MOST_SHARED: u64 = 2;

/// A tensor of such a file.
#[derive(Debug)]
pub(super) struct Pickled(Tensor);

/// Whether the file at `path` is an archive, or says by its name or content that PyTorch wrote it.
///
/// # Errors
/// A file that cannot be read, and a pickle in another container.
pub(super) fn is_archive(path: &Path) -> Result<bool> {
    let source = Files.open(path).map_err(|cause| Error::io("read", path, &cause))?;
    let mut head = Vec::new();
    source.bytes.take(9).read_to_end(&mut head).map_err(|cause| Error::io("read", path, &cause))?;
    if head.starts_with(b"PK") {
        return Ok(true);
    }
    let named = path.extension().is_some_and(|end| ["bin", "pt", "pth", "ckpt"].iter().any(|known| end == *known));
    // A header of safetensors may begin with the same byte, and has its brace after the length.
    let pickle = head.first() == Some(&0x80) && head.get(8) != Some(&b'{');
    if pickle || named && head.get(8) != Some(&b'{') {
        return Err(Error::input(format!(
            "{} is no archive as PyTorch writes them since version 1.6: save it anew in Python with \
             torch.save(torch.load(file, weights_only=True), file)",
            path.display()
        )));
    }
    Ok(false)
}

/// Every tensor of the archive at `path`.
///
/// # Errors
/// An archive that is damaged, asks for more memory than its bytes justify, or has no tensors.
pub(super) fn tensors(path: &Path) -> Result<Vec<Listed<Pickled>>> {
    let refuse = |what: String| Error::input(format!("{} {what}", path.display()));
    let len = check_outline(path).map_err(&refuse)?;
    let reader = PytorchReader::new(path).map_err(|cause| {
        refuse(format!("cannot be read as a file of torch.save: {cause}; store its tensors alone, with state_dict()"))
    })?;
    let tensors = reader.into_tensors();
    if tensors.is_empty() {
        return Err(refuse("has no tensors: give a file of weights".to_owned()));
    }
    let mut bytes = 0_u64;
    for tensor in tensors.values() {
        bytes = bytes.saturating_add(tensor.byte_len() as u64);
    }
    if bytes > len.saturating_mul(MOST_SHARED) {
        return Err(refuse(format!(
            "has {len} bytes and tensors of {bytes}, which lie over each other: store each one with clone()"
        )));
    }
    let listed = |(name, tensor): (String, Tensor)| {
        let kind = match tensor.dtype() {
            DType::F32 => Kind::F32,
            DType::F16 => Kind::F16,
            DType::BF16 => Kind::Bf16,
            other => Kind::Other(format!("{other:?}")),
        };
        let shape = tensor.shape().to_vec();
        Listed { name, shape, kind, source: Pickled(tensor) }
    };
    Ok(tensors.into_iter().map(listed).collect())
}

/// The length of the archive at `path`, of which reading takes no more memory than it justifies.
///
/// # Errors
/// A clause after the file.
fn check_outline(path: &Path) -> Result<u64, String> {
    let broken = |cause: String| format!("is damaged, or no archive of PyTorch: {cause}; fetch it again");
    let file = File::open(path).map_err(|cause| broken(cause.to_string()))?;
    let len = file.metadata().map_err(|cause| broken(cause.to_string()))?.len();
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|cause| broken(cause.to_string()))?;
    let mut pickles = 0_u64;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|cause| broken(cause.to_string()))?;
        if entry.compression() != CompressionMethod::Stored || entry.size() != entry.compressed_size() {
            return Err("is compressed, which torch.save does not do: save it anew in Python with \
                        torch.save(torch.load(file, weights_only=True), file)"
                .to_owned());
        }
        if entry.name().is_ok_and(|name| name.ends_with(PICKLE)) {
            pickles = pickles.max(entry.size());
        }
    }
    let justified = (LEAST_PICKLE + len.saturating_sub(pickles) / VALUES_OF_A_BYTE).min(MOST_PICKLE);
    if pickles > justified {
        return Err(format!(
            "describes its tensors in {pickles} bytes, and {justified} are the most for its size: store its tensors alone, with \
             state_dict()"
        ));
    }
    Ok(len)
}

impl Pickled {
    /// The values.
    ///
    /// # Errors
    /// A clause after the tensor: another type, a file that cannot be read.
    pub(super) fn values(&self, kind: &Kind, elements: usize) -> Result<Vec<f32>, String> {
        kind.width()?;
        let mut values = room(elements)?;
        let mut bytes = self.0.read().map_err(|cause| format!("cannot be read: {cause}"))?;
        if cfg!(target_endian = "big") {
            let width = kind.width()?;
            bytes.chunks_mut(width).for_each(<[u8]>::reverse);
        }
        kind.widen(&bytes, &mut values);
        if values.len() == elements { Ok(values) } else { Err("is not as long as it says: fetch it again".to_owned()) }
    }
}
