//! Reading a checkpoint, or any safetensors file, back from its bytes.
//!
//! Reading trusts nothing: lengths are compared with the file's before anything is allocated by them, the header with
//! its checksum before any of it is believed, and every MiB of the data with its own before a tensor is handed out.
//! Files without checksums (format 1, or another program's) are read too, and then only what contradicts itself is
//! found.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata as Header, TensorInfo};
use serde::Deserialize;

use super::checksum::{self, Checked, DATA_KEY, Flaw, MIB, PREFIX, Seal};
use super::format::{self, FORMAT_KEY, META_KEY, was_saved_again};
use super::size::{ParseBudget, longest_header};
use super::storage::{Source, Storage};
use super::{FORMAT, Metadata};
use crate::array::HostTensor;
use crate::error::{Error, Result};

/// Bytes converted at a time where values are not stored as they are held; a multiple of every element's size.
const CHUNK: usize = 1 << 16;

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

/// What a file's checksums say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// All of the file is as it was written.
    Intact,
    /// Another program read all of the file and saved it again: everything in it is as it was written, in another order.
    SavedAgain,
    /// The file has no checksums: damage to the values of its tensors cannot be seen.
    NoChecksums,
}

/// Whether a file has to match its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// It has to.
    Required,
    /// It may be anything that can be read: another program may have changed it.
    Waived,
}

type Reader = BufReader<Box<dyn Read>>;
/// Appends values that are stored otherwise than they are held.
type Widen = fn(&[u8], &mut Vec<f32>);

/// An open safetensors file whose header has been read and agrees with its checksum and with the file's length.
pub(super) struct TensorFile {
    layout: Layout,
    /// The data section, from its start.
    data: Checked<Reader>,
    checks: Checks,
    /// What the checksums say once all data have passed.
    verified: Verified,
}

/// What the header of a file says.
#[derive(Debug)]
pub(super) struct Layout {
    path: PathBuf,
    header: Header,
    data_start: u64,
    /// For parsing the metadata of the run.
    budget: ParseBudget,
}

impl TensorFile {
    /// Opens a file and reads its header.
    pub(super) fn open(storage: &dyn Storage, path: &Path) -> Result<Self> {
        let source = storage.open(path).map_err(|cause| Error::io("read", path, &cause))?;
        Self::new(source, path, Checks::Required)
    }

    /// Reads the header of the file at `path`, opened.
    pub(super) fn new(source: Source, path: &Path, checks: Checks) -> Result<Self> {
        let io = |cause: std::io::Error| Error::io("read", path, &cause);
        let refuse = |what: String| Error::damaged(format!("{} {what}", path.display()));
        // Small tensors are many; large ones go past the buffer.
        let len = source.len;
        let mut bytes = BufReader::with_capacity(CHUNK.min(len as usize), source.bytes);
        let mut head = vec![0; PREFIX];
        if len > PREFIX as u64 {
            bytes.read_exact(&mut head).map_err(io)?;
        }
        let header_len = u64::from_le_bytes(*head.first_chunk().unwrap_or(&[0; PREFIX]));
        let values = len.saturating_sub(PREFIX as u64).saturating_sub(header_len);
        let longest = longest_header(values);
        head.reserve_exact(header_len.min(longest).min(len) as usize);
        bytes.by_ref().take(header_len.min(longest)).read_to_end(&mut head).map_err(io)?;
        let (prefix, json) = head.split_at(PREFIX);
        if json.first() != Some(&b'{') {
            return Err(not_safetensors(path, len, prefix));
        }
        let truncated = |needed| {
            refuse(format!("is truncated: it is {len} bytes long and should be {needed}; use an earlier or whole copy"))
        };
        let missing = (json.len() as u64) < header_len.min(longest);
        if missing || len.saturating_sub(PREFIX as u64) < header_len {
            return Err(truncated(format!("more than {}", header_len.saturating_add(PREFIX as u64))));
        }
        let seal = checksum::check_seal(&head);
        let broken = || {
            refuse(format!(
                "is damaged: its header (bytes 0 to {}) does not match its checksum; {OTHER_COPY}",
                head.len()
            ))
        };
        // Another program may have put the checksum into its own header where this one looks for it.
        let before_parsing = |error: Error| if seal == Seal::Broken { broken() } else { error };
        let budget =
            ParseBudget::new(values).after_header(json).filter(|_| header_len <= longest).ok_or_else(|| {
                before_parsing(refuse(format!(
                    "is damaged: a header of {header_len} bytes is too much for {values} bytes of values; {OTHER_COPY}"
                )))
            })?;
        let header: Header = serde_json::from_slice(json).map_err(|cause| {
            before_parsing(refuse(format!("is damaged, or not a safetensors file: its header is wrong: {cause}")))
        })?;
        let saved_again = seal != Seal::Intact && was_saved_again(&header);
        let seal = if saved_again { Seal::Intact } else { seal };
        let is_whole = head.len() as u64 + header.data_len() as u64 == len;
        let sums = match (checks, seal) {
            (Checks::Waived, _) => None,
            (Checks::Required, Seal::Broken | Seal::Absent) if is_whole && format::is_laid_out_anew(&header, json) => {
                return Err(Error::foreign(format!(
                    "the header of {} has not the checksum that it was written with: another program changed the file",
                    path.display()
                )));
            }
            (Checks::Required, Seal::Broken) => return Err(broken()),
            (Checks::Required, seal) => {
                data_sums(&header, seal).map_err(|what| refuse(format!("is damaged: {what}; {OTHER_COPY}")))?
            }
        };
        let verified = match &sums {
            None => Verified::NoChecksums,
            Some(_) if saved_again => Verified::SavedAgain,
            Some(_) => Verified::Intact,
        };
        let data_start = head.len() as u64;
        match data_start.saturating_add(header.data_len() as u64) {
            needed if needed > len => Err(truncated(needed.to_string())),
            needed if needed < len => {
                Err(refuse(format!("is damaged: {} bytes follow its last tensor, at byte {needed}", len - needed)))
            }
            _ => {
                let data = Checked::new(bytes, header.data_len() as u64, sums);
                let layout = Layout { path: path.to_owned(), header, data_start, budget };
                Ok(Self { layout, data, checks, verified })
            }
        }
    }

    /// Every tensor, in file order.
    pub(super) fn entries(&self) -> Vec<TensorEntry> {
        let entry = |(name, info): (String, &TensorInfo)| {
            let bytes = (info.data_offsets.1 - info.data_offsets.0) as u64;
            TensorEntry { name, shape: info.shape.clone(), dtype: info.dtype.to_string(), bytes }
        };
        self.layout.in_order().into_iter().map(entry).collect()
    }

    /// Where the values of the first tensor begin.
    pub(super) fn data_start(&self) -> u64 {
        self.layout.data_start
    }

    /// Reads every tensor, F16 and BF16 widened to f32.
    pub(super) fn read(self) -> Result<BTreeMap<String, HostTensor>> {
        let Self { layout, mut data, .. } = self;
        let tensor = |(name, info): (String, &TensorInfo)| {
            let tensor = layout.tensor(&name, info, &mut data)?;
            Ok((name, tensor))
        };
        layout.in_order().into_iter().map(tensor).collect()
    }

    /// The text metadata of the file.
    pub(super) fn strings(&self) -> HashMap<String, String> {
        self.layout.header.metadata().clone().unwrap_or_default()
    }

    /// What the checksums say where reading all data fails at none of them.
    pub(super) fn verified(&self) -> Verified {
        self.verified
    }

    /// Reads all of the data and drops it.
    pub(super) fn verify(self) -> Result<Verified> {
        Ok(self.into_layout()?.1)
    }

    /// Reads all of the data, drops it, and keeps where each tensor is.
    pub(super) fn into_layout(mut self) -> Result<(Layout, Verified)> {
        if self.data.has_sums() {
            self.data.finish().map_err(|flaw| self.layout.say(flaw))?;
        }
        Ok((self.layout, self.verified))
    }

    /// What the run says of itself.
    pub(super) fn meta<M: Metadata>(&self) -> Result<M> {
        /// Read first, because the rest of a newer format may not parse.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let path = self.layout.path.display();
        let Some(json) = self.layout.header.metadata().as_ref().and_then(|metadata| metadata.get(META_KEY)) else {
            return Err(Error::foreign(format!(
                "{path} is a safetensors file but not a tokenformer checkpoint: its metadata has no {META_KEY:?} entry; a \
                 program that copies a checkpoint keeps it with the metadata, in Python \
                 save_file(tensors, file, metadata=safe_open(original, \"np\").metadata())"
            )));
        };
        if self.layout.budget.after_metadata(json.as_bytes()).is_none() {
            let len = json.len();
            return Err(Error::damaged(format!(
                "{path} is damaged: {len} bytes of {META_KEY:?} metadata are too much for its values; {OTHER_COPY}"
            )));
        }
        let damaged = |cause| Error::damaged(format!("{path} is damaged: its {META_KEY:?} metadata is wrong: {cause}"));
        let Version { format } = serde_json::from_str(json).map_err(damaged)?;
        if !(1..=FORMAT).contains(&format) {
            return Err(Error::foreign(format!(
                "{path} has checkpoint format {format} and this version reads formats 1 to {FORMAT}; use the tokenformer \
                 that wrote it"
            )));
        }
        if format >= 2 && !self.data.has_sums() && self.checks == Checks::Required {
            return Err(Error::damaged(format!("{path} is damaged: its checksums are missing; {OTHER_COPY}")));
        }
        // Format 1 has no checksums, and is otherwise the same.
        serde_json::from_str(json).map_err(damaged)
    }
}

impl Layout {
    fn in_order(&self) -> Vec<(String, &TensorInfo)> {
        let mut tensors: Vec<_> = self.header.tensors().into_iter().collect();
        // Empty tensors share their offset with the next one: the name makes the order definite.
        tensors.sort_by(|(a, at), (b, bt)| (at.data_offsets, a).cmp(&(bt.data_offsets, b)));
        tensors
    }

    /// Shape of every tensor, by its name.
    pub(super) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.header.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect()
    }

    /// Reads one tensor of `file`, whose data were compared with their checksums before.
    pub(super) fn read_at(&self, name: &str, file: &mut File) -> Result<HostTensor> {
        let io = |cause: std::io::Error| Error::io("read", &self.path, &cause);
        let info = self.header.info(name).ok_or_else(|| Error::defect(format!("there is no tensor {name:?}")))?;
        let (start, end) = info.data_offsets;
        file.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(io)?;
        let bytes: Box<dyn Read> = Box::new(file.try_clone().map_err(io)?);
        let bytes = BufReader::with_capacity(CHUNK.min(end - start), bytes);
        self.tensor(name, info, &mut Checked::new(bytes, (end - start) as u64, None))
    }

    /// Reads the tensor that is next.
    fn tensor(&self, name: &str, info: &TensorInfo, data: &mut Checked<Reader>) -> Result<HostTensor> {
        let refuse = |what: String| Error::damaged(format!("tensor {name:?} of {} {what}", self.path.display()));
        let widen: Option<Widen> = match info.dtype {
            Dtype::F32 if cfg!(target_endian = "little") => None,
            Dtype::F32 => Some(|bytes, out| out.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)))),
            Dtype::F16 => {
                Some(|bytes, out| out.extend(bytes.as_chunks().0.iter().map(|&b| f16(u16::from_le_bytes(b)))))
            }
            Dtype::BF16 => {
                Some(|bytes, out| out.extend(bytes.as_chunks().0.iter().map(|&b| bf16(u16::from_le_bytes(b)))))
            }
            other => return Err(refuse(format!("has type {other}; F32, F16 and BF16 can be read"))),
        };
        if info.shape.contains(&0) {
            return Err(refuse(format!("has shape {:?}; an axis of 0 is not allowed", info.shape)));
        }
        let (elements, len) = (info.shape.iter().product(), info.data_offsets.1 - info.data_offsets.0);
        let mut values = Vec::new();
        // The header's bounds were compared with the file's length, but a sparse file may still exceed the memory.
        values
            .try_reserve_exact(elements)
            .map_err(|_| refuse(format!("has shape {:?}, more than fits in memory", info.shape)))?;
        let Some(widen) = widen else {
            values.resize(elements, 0.0);
            data.read(bytemuck::cast_slice_mut(&mut values)).map_err(|flaw| self.say(flaw))?;
            return Ok(HostTensor { shape: info.shape.clone(), data: values });
        };
        let mut bytes = vec![0; CHUNK.min(len)];
        for at in (0..len).step_by(CHUNK) {
            bytes.truncate(len - at);
            data.read(&mut bytes).map_err(|flaw| self.say(flaw))?;
            widen(&bytes, &mut values);
        }
        Ok(HostTensor { shape: info.shape.clone(), data: values })
    }

    /// What is wrong with the data, and where.
    fn say(&self, flaw: Flaw) -> Error {
        let index = match flaw {
            Flaw::Io(cause) => return Error::io("read", &self.path, &cause),
            Flaw::Mib(index) => index,
        };
        let data_len = self.header.data_len();
        let (start, end) = (index * MIB, data_len.min((index + 1) * MIB));
        let tensors = self.in_order();
        let mut touched = tensors.iter().filter(|(_, info)| info.data_offsets.0 < end && info.data_offsets.1 > start);
        let tensors = match (touched.next(), touched.next_back()) {
            (Some((first, _)), Some((last, _))) => format!("tensors {first:?} to {last:?}"),
            (Some((only, _)), None) => format!("tensor {only:?}"),
            (None, _) => "no tensor".to_owned(),
        };
        let at = |offset: usize| self.data_start + offset as u64;
        Error::damaged(format!(
            "{} is damaged: MiB {} of {} of its data (bytes {} to {}, {tensors}) does not match its checksum; \
             {OTHER_COPY}",
            self.path.display(),
            index + 1,
            data_len.div_ceil(MIB),
            at(start),
            at(end)
        ))
    }
}

/// What to do about a damaged file.
const OTHER_COPY: &str = "use another copy of it, or an earlier checkpoint";

/// The checksums of the data. A file that should have some and does not is damaged where it says so.
fn data_sums(header: &Header, seal: Seal) -> Result<Option<Vec<u32>>, &'static str> {
    let entry = |key: &str| header.metadata().as_ref().and_then(|metadata| metadata.get(key));
    if seal != Seal::Intact {
        let expected = entry(DATA_KEY).is_some() || entry(FORMAT_KEY).is_some_and(|format| format == "2");
        return if expected { Err("the checksum of its header is missing") } else { Ok(None) };
    }
    let sums = entry(DATA_KEY).and_then(|digits| checksum::parse(digits, header.data_len() as u64));
    sums.map(Some).ok_or("the checksums of its data are missing, or too few or too many")
}

/// Why a file of `len` bytes starting with `head` is no safetensors file: what another program wrote is not damage.
fn not_safetensors(path: &Path, len: u64, head: &[u8]) -> Error {
    let path = path.display();
    if head.starts_with(b"PK") {
        Error::foreign(format!(
            "{path} is a zip archive such as torch.save writes, not a safetensors file; convert it with \
             safetensors.torch.save_file in Python"
        ))
    } else if len == 0 {
        Error::damaged(format!("{path} is empty"))
    } else {
        Error::damaged(format!("{path} is not a safetensors file; give a checkpoint that tokenformer wrote"))
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
mod tests;
