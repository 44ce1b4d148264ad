//! A checkpoint as the bytes of one safetensors file: the layout, and writing it.
//!
//! Layout: the header's length as a little-endian `u64`, a JSON header padded with spaces to a multiple of 8 bytes,
//! then every tensor as little-endian `f32` in the order of their names. Parameters go under their own names, moments
//! as `optimizer.m.<name>` and `optimizer.v.<name>`, averages as `optimizer.ema.<name>`. The header's string metadata holds the checksums (see `checksum`),
//! the run's [`Metadata`] as JSON under `tokenformer`, and for Python readers `tokenformer_format`, `step` and `format` =
//! `pt` (Hugging Face's name for this tensor layout). The same checkpoint always gives the same bytes.
//!
//! `read` is the way back; this file does not decide where checkpoints live or how they replace each other, that is
//! `store`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use safetensors::Dtype;
use safetensors::tensor::{self, TensorInfo};
use serde::Serialize;

use super::checksum::{self, BLANK, Checked, DATA_KEY, Flaw, HEADER_KEY, MIB, PREFIX, Seal};
use super::size::{ParseBudget, longest_header};
use super::storage::{Source, differs};
use super::{Checkpoint, FORMAT, Metadata};
use crate::array::HostTensor;
use crate::error::{Error, Result};

/// Metadata key of the JSON form of [`Metadata`].
pub(super) const META_KEY: &str = "tokenformer";
/// Metadata key of the format's version.
pub(super) const FORMAT_KEY: &str = "tokenformer_format";
/// Name prefix of the first moments.
pub(super) const MOMENT1: &str = "optimizer.m.";
/// Name prefix of the second moments.
pub(super) const MOMENT2: &str = "optimizer.v.";
/// Name prefix of the moving averages of parameters.
pub(super) const AVERAGE: &str = "optimizer.ema.";

/// Whether a tensor of this name is no parameter, but belongs to one.
pub(super) fn is_of_parameter(name: &str) -> bool {
    [MOMENT1, MOMENT2, AVERAGE].iter().any(|prefix| name.starts_with(prefix))
}

impl<M: Metadata> Checkpoint<M> {
    /// The file's header, made now so that its size is known before anything is written.
    ///
    /// # Errors
    /// An input error if the checkpoint contradicts itself or uses a reserved name.
    pub(super) fn encode(&self) -> Result<Encoded<'_>> {
        let refuse = |detail: String| Error::input(format!("the checkpoint to write contradicts itself: {detail}"));
        self.check().map_err(refuse)?;
        let taken = |name: &&String| is_of_parameter(name) || name.as_str() == "__metadata__";
        if let Some(name) = self.params.keys().find(taken) {
            return Err(refuse(format!("{name:?} is a reserved name and cannot be a parameter's")));
        }
        let named = |prefix: &'static str| move |(name, tensor)| (format!("{prefix}{name}"), tensor);
        let moments = self.moment1.iter().map(named(MOMENT1)).chain(self.moment2.iter().map(named(MOMENT2)));
        let others = moments.chain(self.averages.iter().map(named(AVERAGE)));
        let tensors: BTreeMap<String, &HostTensor> = self.params.iter().map(named("")).chain(others).collect();
        let shapes = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
        let values: Vec<&[f32]> = tensors.values().map(|tensor| tensor.data.as_slice()).collect();
        Encoded::new(&self.meta, &shapes, Box::new(move |each| values.iter().try_for_each(|values| each(values))))
    }
}

/// The header with the length before it, sealed.
fn head<M: Metadata>(meta: &M, shapes: &Shapes, sums: &[u32]) -> Result<Vec<u8>> {
    let mut end = 0;
    let mut place = |shape: &Vec<usize>| {
        let start = end;
        end += shape.iter().product::<usize>() * size_of::<f32>();
        TensorInfo { dtype: Dtype::F32, shape: shape.clone(), data_offsets: (start, end) }
    };
    let places: Vec<TensorInfo> = shapes.values().map(&mut place).collect();
    let infos = shapes.keys().map(String::as_str).zip(&places).collect();
    let defect = |cause: String| Error::defect(format!("the checkpoint's header cannot be written: {cause}"));
    let versioned = Versioned { format: FORMAT, meta };
    let said = serde_json::to_string(&versioned).map_err(|e| defect(e.to_string()))?;
    let budget = ParseBudget::new(end as u64).after_metadata(said.as_bytes());
    let data_sums: String = sums.iter().map(|&sum| checksum::text(sum)).collect();
    let (step, format) = (meta.step().to_string(), FORMAT.to_string());
    let metadata = BTreeMap::from([
        (HEADER_KEY, BLANK),
        (DATA_KEY, &data_sums),
        ("format", "pt"),
        ("step", &step),
        (META_KEY, &said),
        (FORMAT_KEY, &format),
    ]);
    let mut head = laid_out(&Header { metadata, infos }).map_err(|e| defect(e.to_string()))?;
    let len = (head.len() - PREFIX) as u64;
    let json = head.get(PREFIX..).unwrap_or_default();
    let fits = budget.and_then(|budget| budget.after_header(json)).is_some();
    if len > longest_header(end as u64) || !fits {
        return Err(Error::input(format!(
            "the checkpoint's header (tensor names, config, tokenizer, history) is {len} bytes, too much to read safely \
             for {end} bytes of values: use a larger model, or the byte tokenizer"
        )));
    }
    if checksum::seal(&mut head) { Ok(head) } else { Err(defect("its checksum has no place".into())) }
}

/// The metadata of a run with the version of the format, which a reader looks at first.
#[derive(Serialize)]
pub(super) struct Versioned<'a, M> {
    pub(super) format: u32,
    #[serde(flatten)]
    pub(super) meta: &'a M,
}

/// The JSON header. Ordered maps, because the crate's own writer puts the metadata in hash order, new on every run.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    infos: BTreeMap<&'a str, &'a TensorInfo>,
}

/// The bytes of a header as this program lays it out, its length before it.
fn laid_out(header: &Header) -> serde_json::Result<Vec<u8>> {
    let mut head = vec![0; PREFIX];
    serde_json::to_writer(&mut head, header)?;
    head.resize(head.len().next_multiple_of(8), b' ');
    let len = (head.len() - PREFIX) as u64;
    head.iter_mut().zip(len.to_le_bytes()).for_each(|(to, byte)| *to = byte);
    Ok(head)
}

/// Whether `header` says what this program wrote, to the letter, in another order or spacing: laid out as here it has its
/// checksum. So it is after a program has read all of a checkpoint and saved it again.
pub(super) fn was_saved_again(header: &tensor::Metadata) -> bool {
    let Some(metadata) = header.metadata() else { return false };
    let metadata = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let tensors = header.tensors();
    let infos = tensors.iter().map(|(name, info)| (name.as_str(), *info)).collect();
    laid_out(&Header { metadata, infos }).is_ok_and(|head| checksum::check_seal(&head) == Seal::Intact)
}

/// The keys of the metadata, in the order in which this program writes them.
const KEYS: [&str; 6] = [HEADER_KEY, DATA_KEY, "format", "step", META_KEY, FORMAT_KEY];

/// Whether the header of a checkpoint, `json`, was written by another program: all its metadata are there in another order,
/// or all but the checksums. Damage moves no keys, and takes none away that leaves JSON.
pub(super) fn is_laid_out_anew(header: &tensor::Metadata, json: &[u8]) -> bool {
    let Some(metadata) = header.metadata() else { return false };
    let has = |key: &str| metadata.contains_key(key);
    let Ok(text) = std::str::from_utf8(json) else { return false };
    // In a value a quotation mark has a backslash before it.
    let places = KEYS.map(|key| text.find(&format!("\"{key}\":\"")));
    let left_out = has(META_KEY) && metadata.get(FORMAT_KEY).is_some_and(|format| format == "2");
    KEYS.into_iter().all(has) && !places.is_sorted() || left_out && !has(HEADER_KEY) && !has(DATA_KEY)
}

/// Shapes of tensors by name, in the order of a file.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// Hands over the values of every tensor, in the order of a file. Each time the same.
pub(super) type Values<'a> = Box<dyn Fn(&mut dyn FnMut(&[f32]) -> io::Result<()>) -> io::Result<()> + 'a>;

/// A checkpoint ready to be written.
pub(super) struct Encoded<'a> {
    /// What precedes the data: length and header.
    head: Vec<u8>,
    /// Bytes of the data.
    data_len: u64,
    values: Values<'a>,
    /// Of each MiB of the data.
    sums: Vec<u32>,
}

impl<'a> Encoded<'a> {
    /// Of tensors of these shapes, whose values are gone through for their checksums.
    ///
    /// # Errors
    /// An input error where the header is too long for the values; what goes wrong with the values.
    pub(super) fn new<M: Metadata>(meta: &M, shapes: &Shapes, values: Values<'a>) -> Result<Self> {
        let values_of = |shape: &Vec<usize>| shape.iter().product::<usize>() * size_of::<f32>();
        let data_len = shapes.values().map(|shape| values_of(shape) as u64).sum();
        let mut encoded = Self { head: Vec::new(), data_len, values, sums: Vec::new() };
        encoded.sums = encoded.checksums().map_err(|cause| within(&cause))?;
        encoded.head = head(meta, shapes, &encoded.sums)?;
        Ok(encoded)
    }

    /// Size of the file, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.head.len() as u64 + self.data_len
    }

    fn checksums(&self) -> io::Result<Vec<u32>> {
        let mut sums = Vec::new();
        self.for_each_mib(&mut |mib| {
            sums.push(crc32fast::hash(mib));
            Ok(())
        })?;
        Ok(sums)
    }

    /// Hands over the data section, a MiB at a time, so that no second copy of a tensor is needed.
    fn for_each_mib(&self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut mib = Vec::with_capacity(MIB);
        (self.values)(&mut |values| {
            let mut rest = values;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min((MIB - mib.len()) / size_of::<f32>()));
                if cfg!(target_endian = "little") {
                    mib.extend_from_slice(bytemuck::cast_slice(now));
                } else {
                    mib.extend(now.iter().flat_map(|value| value.to_le_bytes()));
                }
                if mib.len() == MIB {
                    each(&mib)?;
                    mib.clear();
                }
                rest = later;
            }
            Ok(())
        })?;
        if mib.is_empty() { Ok(()) } else { each(&mib) }
    }

    /// Writes the whole file, front to back.
    pub(super) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.head)?;
        self.for_each_mib(&mut |mib| out.write_all(mib))
    }

    /// Refuses a file that holds anything but this.
    pub(super) fn check_written(&self, mut source: Source) -> io::Result<()> {
        let mut head = vec![0; self.head.len()];
        source.bytes.read_exact(&mut head)?;
        let mut data = Checked::new(source.bytes, self.data_len, Some(self.sums.clone()));
        match data.finish() {
            Err(Flaw::Io(cause)) => Err(cause),
            Ok(()) if head == self.head && source.len == self.len() => Ok(()),
            _ => Err(differs()),
        }
    }
}

/// What went wrong with the values of a tensor, which says itself what it is.
pub(super) fn within(cause: &io::Error) -> Error {
    let own = cause.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    own.cloned().unwrap_or_else(|| Error::defect(format!("the values of a checkpoint are gone: {cause}")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn a_parameter_cannot_pass_for_a_moment() {
        let mut checkpoint = sample(1);
        checkpoint.params.insert("optimizer.m.norm.bias".into(), HostTensor::zeros(&[3]));
        (checkpoint.moment1, checkpoint.moment2, checkpoint.averages) = Default::default();
        assert!(checkpoint.encode().is_err());
    }

    #[test]
    fn a_file_that_holds_anything_else_is_noticed() {
        let checkpoint = sample(1);
        let encoded = checkpoint.encode().unwrap();
        let mut bytes = Vec::new();
        encoded.write_to(&mut bytes).unwrap();
        let check = |bytes: &[u8]| {
            let source = Source { len: bytes.len() as u64, bytes: Box::new(io::Cursor::new(bytes.to_vec())) };
            encoded.check_written(source)
        };
        check(&bytes).unwrap();
        for at in [0, 40, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(check(&other).unwrap_err().to_string(), differs().to_string());
        }
        assert!(check(&bytes[..bytes.len() - 1]).is_err());
        assert!(check(&[&bytes[..], b"!"].concat()).is_err());
    }
}
