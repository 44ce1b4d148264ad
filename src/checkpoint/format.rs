//! A checkpoint as the bytes of one safetensors file, and back.
//!
//! Layout: the header's length as a little-endian `u64`, a JSON header padded with spaces to a multiple of 8 bytes,
//! then every tensor as little-endian `f32` in the order of their names. Parameters go under their own names, moments
//! as `optimizer.m.<name>` and `optimizer.v.<name>`. The header's string metadata holds [`Meta`] as JSON under
//! `tokenformer`, and for Python readers `tokenformer_format`, `step` and `format` = `pt` (Hugging Face's name for this
//! tensor layout). The same checkpoint always gives the same bytes.
//!
//! Reading trusts nothing: lengths are compared with the file's before anything is allocated by them. This file does
//! not decide where checkpoints live or how they replace each other; that is `store`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::{Checkpoint, FORMAT, Meta};
use crate::array::HostTensor;
use crate::error::{Error, Result};

/// Longest header accepted or written, in bytes; the safetensors format's own limit.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes before the header: its length.
const PREFIX: u64 = 8;
/// Bytes converted at a time, so that reading and writing need no second copy of a tensor.
const CHUNK: usize = 1 << 16;
/// Metadata key of the JSON form of [`Meta`].
const META_KEY: &str = "tokenformer";
/// Name prefix of the first moments.
const MOMENT1: &str = "optimizer.m.";
/// Name prefix of the second moments.
const MOMENT2: &str = "optimizer.v.";

/// What a file says about one of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Name in the file.
    pub name: String,
    /// Extent of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// Element type as safetensors spells it, such as `F32`.
    pub dtype: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The tensors of any safetensors file, in file order, without reading their values.
///
/// # Errors
/// An input error if the file cannot be read, is truncated, or is not a safetensors file.
pub fn list_tensors(path: &Path) -> Result<Vec<TensorEntry>> {
    Ok(TensorFile::open(path)?.entries())
}

/// The [`Meta`] of a checkpoint, without reading its tensors.
///
/// # Errors
/// As [`Checkpoint::read`], but damage to tensor values goes unseen.
pub fn read_meta(path: &Path) -> Result<Meta> {
    TensorFile::open(path)?.meta()
}

impl Checkpoint {
    /// Reads a checkpoint and checks it as a whole.
    ///
    /// # Errors
    /// An input error if the file cannot be read, is truncated, is not a safetensors file, is not a checkpoint of this
    /// program, has a newer format, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let (mut params, mut moment1, mut moment2) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let meta = file.meta()?;
        for entry in file.entries() {
            let TensorEntry { name, dtype, .. } = entry;
            if dtype != "F32" {
                let path = path.display();
                return Err(Error::input(format!(
                    "tensor {name:?} of {path} has type {dtype}, but a tokenformer checkpoint holds F32 only"
                )));
            }
            let tensor = file.read(&name)?;
            if let Some(of) = name.strip_prefix(MOMENT1) {
                moment1.insert(of.to_owned(), tensor);
            } else if let Some(of) = name.strip_prefix(MOMENT2) {
                moment2.insert(of.to_owned(), tensor);
            } else {
                params.insert(name, tensor);
            }
        }
        let checkpoint = Self { meta, params, moment1, moment2 };
        match checkpoint.check() {
            Ok(()) => Ok(checkpoint),
            Err(detail) => Err(Error::input(format!("the checkpoint {} contradicts itself: {detail}", path.display()))),
        }
    }

    /// The file's header, made now so that its size is known before anything is written.
    ///
    /// # Errors
    /// An input error if the checkpoint contradicts itself or uses a reserved name.
    pub(super) fn encode(&self) -> Result<Encoded<'_>> {
        let refuse = |detail: String| Error::input(format!("the checkpoint to write contradicts itself: {detail}"));
        self.check().map_err(refuse)?;
        let taken =
            |name: &&String| name.starts_with(MOMENT1) || name.starts_with(MOMENT2) || name.as_str() == "__metadata__";
        if let Some(name) = self.params.keys().find(taken) {
            return Err(refuse(format!("{name:?} is a reserved name and cannot be a parameter's")));
        }
        let named = |prefix: &'static str| move |(name, tensor)| (format!("{prefix}{name}"), tensor);
        let moments = self.moment1.iter().map(named(MOMENT1)).chain(self.moment2.iter().map(named(MOMENT2)));
        let tensors: BTreeMap<String, &HostTensor> = self.params.iter().map(named("")).chain(moments).collect();

        let mut end = 0;
        let mut place = |tensor: &HostTensor| {
            let start = end;
            end += tensor.data.len() * size_of::<f32>();
            TensorInfo { dtype: Dtype::F32, shape: tensor.shape.clone(), data_offsets: (start, end) }
        };
        let infos = tensors.iter().map(|(name, tensor)| (name.as_str(), place(tensor))).collect();
        let json = |cause| Error::input(format!("the checkpoint's metadata cannot be written as JSON: {cause}"));
        let metadata = BTreeMap::from([
            ("format", "pt".to_owned()),
            ("step", self.meta.step.to_string()),
            (META_KEY, serde_json::to_string(&self.meta).map_err(json)?),
            ("tokenformer_format", FORMAT.to_string()),
        ]);
        let mut header = serde_json::to_vec(&Header { metadata, infos }).map_err(json)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        if header.len() as u64 > MAX_HEADER {
            return Err(Error::input(format!(
                "the checkpoint's header (config, tokenizer, history) is {} bytes, a safetensors file allows {MAX_HEADER}",
                header.len()
            )));
        }
        let tensors = tensors.into_values().map(|tensor| tensor.data.as_slice()).collect();
        Ok(Encoded { len: PREFIX + header.len() as u64 + end as u64, header, tensors })
    }
}

/// The JSON header. Ordered maps, because the crate's own writer puts the metadata in hash order, new on every run.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    infos: BTreeMap<&'a str, TensorInfo>,
}

/// A checkpoint ready to be written.
pub(super) struct Encoded<'a> {
    /// Size of the file, in bytes.
    pub(super) len: u64,
    header: Vec<u8>,
    tensors: Vec<&'a [f32]>,
}

impl Encoded<'_> {
    /// Writes the whole file, front to back.
    pub(super) fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&(self.header.len() as u64).to_le_bytes())?;
        out.write_all(&self.header)?;
        let mut bytes = Vec::with_capacity(CHUNK);
        for values in self.tensors.iter().flat_map(|tensor| tensor.chunks(CHUNK / size_of::<f32>())) {
            bytes.resize(size_of_val(values), 0);
            for (four, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *four = value.to_le_bytes();
            }
            out.write_all(&bytes)?;
        }
        Ok(())
    }
}

/// An open safetensors file whose header has been read and agrees with the file's length.
pub(super) struct TensorFile {
    path: PathBuf,
    file: File,
    header: Metadata,
    data_start: u64,
}

impl TensorFile {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let io = |cause: std::io::Error| Error::io("read", path, &cause);
        let refuse = |what: String| Error::input(format!("{} {what}", path.display()));
        // Asked of the path and not of the open file, because opening a pipe would wait for its writer.
        let stat = std::fs::metadata(path).map_err(io)?;
        if !stat.is_file() {
            return Err(refuse("is not a file; give the path of a .safetensors file".to_owned()));
        }
        let len = stat.len();
        let mut file = File::open(path).map_err(io)?;
        let mut head = [0; PREFIX as usize];
        if len > PREFIX {
            file.read_exact(&mut head).map_err(io)?;
        }
        let header_len = u64::from_le_bytes(head);
        let mut bytes = Vec::new();
        if header_len <= MAX_HEADER {
            (&file).take(header_len).read_to_end(&mut bytes).map_err(io)?;
        }
        if bytes.first() != Some(&b'{') {
            return Err(refuse(not_safetensors(len, &head)));
        }
        let truncated = |needed| {
            refuse(format!("is truncated: it is {len} bytes long and should be {needed}; use an earlier or whole copy"))
        };
        if (bytes.len() as u64) < header_len {
            return Err(truncated(format!("more than {}", PREFIX + header_len)));
        }
        let header: Metadata = serde_json::from_slice(&bytes)
            .map_err(|cause| refuse(format!("is damaged, or not a safetensors file: its header is wrong: {cause}")))?;
        let data_start = PREFIX + header_len;
        match data_start.saturating_add(header.data_len() as u64) {
            needed if needed > len => Err(truncated(needed.to_string())),
            needed if needed < len => {
                Err(refuse(format!("is damaged: {} bytes follow its last tensor, at byte {needed}", len - needed)))
            }
            _ => Ok(Self { path: path.to_owned(), file, header, data_start }),
        }
    }

    /// Every tensor, in file order.
    pub(super) fn entries(&self) -> Vec<TensorEntry> {
        let entry = |(name, info): (String, &TensorInfo)| {
            let bytes = (info.data_offsets.1 - info.data_offsets.0) as u64;
            (info.data_offsets, TensorEntry { name, shape: info.shape.clone(), dtype: info.dtype.to_string(), bytes })
        };
        let mut entries: Vec<_> = self.header.tensors().into_iter().map(entry).collect();
        // Empty tensors share their offset with the next one: the name makes the order definite.
        entries.sort_by(|(at, a), (bt, b)| (at, &a.name).cmp(&(bt, &b.name)));
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Reads one tensor, F16 and BF16 widened to f32.
    pub(super) fn read(&self, name: &str) -> Result<HostTensor> {
        let refuse = |what: String| Error::input(format!("tensor {name:?} of {} {what}", self.path.display()));
        let info = self.header.info(name).ok_or_else(|| refuse("does not exist".to_owned()))?;
        let widen: fn(&[u8], &mut Vec<f32>) = match info.dtype {
            Dtype::F32 => |bytes, out| out.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Dtype::F16 => |bytes, out| out.extend(bytes.as_chunks().0.iter().map(|&b| f16(u16::from_le_bytes(b)))),
            Dtype::BF16 => |bytes, out| out.extend(bytes.as_chunks().0.iter().map(|&b| bf16(u16::from_le_bytes(b)))),
            other => return Err(refuse(format!("has type {other}; F32, F16 and BF16 can be read"))),
        };
        if info.shape.contains(&0) {
            return Err(refuse(format!("has shape {:?}; an axis of 0 is not allowed", info.shape)));
        }
        let mut data = Vec::new();
        // The header's bounds were compared with the file's length, but a sparse file may still exceed the memory.
        data.try_reserve_exact(info.shape.iter().product())
            .map_err(|_| refuse(format!("has shape {:?}, more than fits in memory", info.shape)))?;
        let io = |cause| Error::io("read", &self.path, &cause);
        let (start, end) = info.data_offsets;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(io)?;
        let mut bytes = vec![0; CHUNK.min(end - start)];
        for at in (start..end).step_by(CHUNK) {
            bytes.truncate(end - at);
            file.read_exact(&mut bytes).map_err(io)?;
            widen(&bytes, &mut data);
        }
        Ok(HostTensor { shape: info.shape.clone(), data })
    }

    /// The checkpoint metadata.
    fn meta(&self) -> Result<Meta> {
        /// Read first, because the rest of a newer format may not parse.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let path = self.path.display();
        let Some(json) = self.header.metadata().as_ref().and_then(|metadata| metadata.get(META_KEY)) else {
            return Err(Error::input(format!(
                "{path} is a safetensors file but not a tokenformer checkpoint: its metadata has no {META_KEY:?} entry"
            )));
        };
        let damaged = |cause| Error::input(format!("{path} is damaged: its {META_KEY:?} metadata is wrong: {cause}"));
        let Version { format } = serde_json::from_str(json).map_err(damaged)?;
        if format != FORMAT {
            return Err(Error::input(format!(
                "{path} has checkpoint format {format} and this version reads format {FORMAT}; use the tokenformer that wrote it"
            )));
        }
        serde_json::from_str(json).map_err(damaged)
    }
}

/// Why a file of `len` bytes starting with `head` is no safetensors file; reads on from its path.
fn not_safetensors(len: u64, head: &[u8]) -> String {
    if len == 0 {
        "is empty".to_owned()
    } else if head.starts_with(b"PK") {
        "is a zip archive such as torch.save writes, not a safetensors file; convert it with \
         safetensors.torch.save_file in Python"
            .to_owned()
    } else {
        "is not a safetensors file; give a checkpoint that tokenformer wrote".to_owned()
    }
}

/// An IEEE half as f32, exactly.
fn f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    f32::from_bits(match exponent {
        0 => sign | (fraction as f32 / 16_777_216.0).to_bits(), // subnormal: fraction * 2^-24
        31 => sign | 0x7f80_0000 | fraction << 13,              // infinity or NaN
        _ => sign | (exponent + 127 - 15) << 23 | fraction << 13,
    })
}

/// A bfloat16 as f32: its upper half.
fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    fn bytes_of(checkpoint: &Checkpoint) -> Vec<u8> {
        let (encoded, mut bytes) = (checkpoint.encode().unwrap(), Vec::new());
        encoded.write_to(&mut bytes).unwrap();
        assert_eq!(encoded.len, bytes.len() as u64);
        bytes
    }

    fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    /// Reads a checkpoint file; the error without its path.
    fn read(file: &tempfile::NamedTempFile) -> Result<Checkpoint, String> {
        let without_path = |error: Error| error.to_string().replace(file.path().to_str().unwrap(), "FILE");
        Checkpoint::read(file.path()).map_err(without_path)
    }

    fn with_header(json: &str, data: &[u8]) -> Vec<u8> {
        [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
    }

    #[test]
    fn a_checkpoint_survives_to_the_bit_and_other_readers_can_open_it() {
        let mut checkpoint = sample(100);
        // Longer than a chunk, so that its seams are crossed.
        let long = HostTensor { shape: vec![40_000], data: (0..40_000).map(|i| f32::from_bits(i * 90_001)).collect() };
        checkpoint.params = [("long".to_owned(), long)].into();
        (checkpoint.moment1, checkpoint.moment2) = (checkpoint.params.clone(), checkpoint.params.clone());
        checkpoint.meta.cohorts.clear();
        for checkpoint in [checkpoint, sample(100)] {
            let bytes = bytes_of(&checkpoint);
            let back = read(&file_of(&bytes)).unwrap();
            assert_eq!(bytes_of(&back), bytes);
            assert_eq!(back.meta, checkpoint.meta);
            let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(theirs.len(), 3 * checkpoint.params.len());
            for (name, tensor) in &checkpoint.params {
                assert_eq!(theirs.tensor(name).unwrap().data(), bytemuck::cast_slice::<f32, u8>(&tensor.data));
            }
        }
    }

    #[test]
    fn every_truncation_is_refused_as_one() {
        let bytes = bytes_of(&sample(100));
        let file = file_of(&[&bytes[..], b"!"].concat());
        assert!(read(&file).unwrap_err().starts_with("FILE is damaged: 1 bytes follow its last tensor"));
        for len in (9..bytes.len()).rev() {
            file.as_file().set_len(len as u64).unwrap();
            let error = read(&file).unwrap_err();
            assert!(error.starts_with(&format!("FILE is truncated: it is {len} bytes long")), "{error}");
        }
        file.as_file().set_len(8).unwrap();
        assert!(read(&file).unwrap_err().starts_with("FILE is not a safetensors file"));
        assert_eq!(read(&file_of(b"")).unwrap_err(), "FILE is empty");
    }

    #[test]
    fn foreign_and_hostile_files_are_refused_in_their_own_words() {
        let cases: [(Vec<u8>, &str); 8] = [
            (b"just some text, no tensors at all".to_vec(), "FILE is not a safetensors file"),
            (b"PK\x03\x04 and the rest of a zip".to_vec(), "FILE is a zip archive such as torch.save writes"),
            (with_header("{}", b""), "FILE is a safetensors file but not a tokenformer checkpoint"),
            (with_header(&"{".repeat(100_000), b""), "FILE is damaged, or not a safetensors file"),
            (
                with_header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, b""),
                "FILE is damaged, or not a safetensors file: its header is wrong: invalid offset for tensor `a`",
            ),
            (
                with_header(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#, b""),
                "FILE is damaged, or not a safetensors file: its header is wrong: overflow",
            ),
            (
                with_header(r#"{"__metadata__":{"tokenformer":"{\"format\":2}"}}"#, b""),
                "FILE has checkpoint format 2 and this version reads format 1",
            ),
            (
                with_header(r#"{"__metadata__":{"tokenformer":"{\"format\":1}"}}"#, b""),
                "FILE is damaged: its \"tokenformer\" metadata is wrong: missing field `step`",
            ),
        ];
        for (bytes, start) in cases {
            let error = read(&file_of(&bytes)).unwrap_err();
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn a_parameter_cannot_pass_for_a_moment() {
        let mut checkpoint = sample(1);
        checkpoint.params.insert("optimizer.m.norm.bias".into(), HostTensor::zeros(&[3]));
        (checkpoint.moment1, checkpoint.moment2) = Default::default();
        assert!(checkpoint.encode().is_err());
    }

    #[test]
    fn halves_widen_exactly() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
            let size = match exponent {
                0 => fraction * 2f64.powi(-14),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
            };
            let want = size.copysign(if bits >> 15 == 1 { -1.0 } else { 1.0 });
            let got = f64::from(f16(bits));
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#x}: {got} {want}");
        }
        assert_eq!((f16(0x7bff), bf16(0x3fc0), bf16(0xff80)), (65504.0, 1.5, f32::NEG_INFINITY));
    }
}
