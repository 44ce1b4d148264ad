//! Tensors as safetensors files, one tensor in memory at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Serialize;
use serde_json::json;

use super::output::{Out, Unfinished, check_free};
use super::source::Source;
use super::values::Stored;
use crate::checkpoint::read_strings;
use crate::error::{Error, Result};
use crate::exchange::piece::Piece;

/// Key of the metadata by which an export is known again.
pub(super) const MARK: &str = "exported_by";
/// What wrote it.
pub(super) const WRITER: &str = concat!("tokenformer ", env!("CARGO_PKG_VERSION"));

/// Metadata of a file.
pub(super) type Strings<'a> = BTreeMap<&'a str, String>;

/// The JSON header of a file.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: &'a Strings<'a>,
    #[serde(flatten)]
    tensors: BTreeMap<&'a str, TensorInfo>,
}

/// Every parameter under its own name, in one file with the model's configuration in its metadata.
pub(super) fn write_one(
    source: &mut Source,
    out: &Path,
    stored: Stored,
    overwrite: bool,
) -> Result<(Vec<PathBuf>, u64)> {
    check_free(out, overwrite, |out| match read_strings(out) {
        Ok(metadata) if metadata.contains_key(MARK) => Ok(()),
        Ok(_) => Err(format!("its metadata has no {MARK:?}")),
        Err(_) => Err("it is no safetensors file".to_owned()),
    })?;
    let pieces: Vec<Piece> = source.config.model.parameters().into_iter().map(Piece::from).collect();
    let config = serde_json::to_string(&source.config.model);
    let config = config.map_err(|e| Error::defect(format!("the model's configuration is no JSON: {e}")))?;
    let metadata = Strings::from([("format", "pt".to_owned()), (MARK, WRITER.to_owned()), ("model", config)]);
    let made = Unfinished::new(out)?;
    let bytes = write(source, &pieces, stored, &metadata, &made.at)?;
    made.finish()?;
    Ok((vec![out.to_owned()], bytes))
}

/// `model.safetensors` in `dir`, or several files of at most `most` bytes of tensors each (more where one tensor has more)
/// and their index. Their names, and their bytes together.
pub(super) fn write_all(
    source: &mut Source,
    pieces: &[Piece],
    stored: Stored,
    most: u64,
    dir: &Path,
) -> Result<(Vec<PathBuf>, u64)> {
    let metadata = Strings::from([("format", "pt".to_owned())]);
    let shards = cut(pieces, stored, most);
    if let [_] = shards.as_slice() {
        let name = PathBuf::from("model.safetensors");
        let bytes = write(source, pieces, stored, &metadata, &dir.join(&name))?;
        return Ok((vec![name], bytes));
    }
    let (mut names, mut places, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
    for (number, shard) in (1..).zip(&shards) {
        let name = format!("model-{number:05}-of-{:05}.safetensors", shards.len());
        bytes += write(source, shard, stored, &metadata, &dir.join(&name))?;
        places.extend(shard.iter().map(|piece| (piece.name.clone(), name.clone())));
        names.push(PathBuf::from(name));
    }
    let total: u64 = pieces.iter().map(|piece| stored.bytes(piece.values())).sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
    let name = PathBuf::from("model.safetensors.index.json");
    let mut out = Out::create(&dir.join(&name))?;
    out.write(format!("{index:#}\n").as_bytes())?;
    bytes += out.finish()?;
    names.push(name);
    Ok((names, bytes))
}

/// Runs of `pieces` of at most `most` bytes, in order.
fn cut(pieces: &[Piece], stored: Stored, most: u64) -> Vec<&[Piece]> {
    let (mut shards, mut rest, mut taken, mut bytes) = (Vec::new(), pieces, 0, 0_u64);
    for piece in pieces {
        let more = stored.bytes(piece.values());
        if taken > 0 && bytes.saturating_add(more) > most {
            let (shard, after) = rest.split_at(taken);
            shards.push(shard);
            (rest, taken, bytes) = (after, 0, 0);
        }
        (taken, bytes) = (taken + 1, bytes.saturating_add(more));
    }
    shards.push(rest);
    shards
}

/// Writes one file; its bytes.
fn write(source: &mut Source, pieces: &[Piece], stored: Stored, metadata: &Strings, path: &Path) -> Result<u64> {
    let dtype = match stored {
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
        Stored::Bf16 => Dtype::BF16,
        Stored::Q8_0 => return Err(Error::defect("safetensors has no q8_0")),
    };
    let mut end = 0;
    let place = |piece| {
        let Piece { name, shape, .. }: &Piece = piece;
        let start = end;
        end += stored.bytes(piece.values()) as usize;
        (name.as_str(), TensorInfo { dtype, shape: shape.clone(), data_offsets: (start, end) })
    };
    let header = Header { metadata, tensors: pieces.iter().map(place).collect() };
    let header = serde_json::to_vec(&header);
    let mut header = header.map_err(|e| Error::defect(format!("a header cannot be written as JSON: {e}")))?;
    // Values begin at a multiple of 8, as the crate of this format has it.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = Out::create(path)?;
    out.write(&(header.len() as u64).to_le_bytes())?;
    out.write(&header)?;
    for piece in pieces {
        stored.write(&piece.name, &source.tensor(piece)?, &mut out)?;
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_full_and_hold_everything() {
        let piece = |values: usize| Piece { name: values.to_string(), shape: vec![values], parts: Vec::new(), runs: 1 };
        let pieces: Vec<Piece> = [10, 20, 30, 200, 1].map(piece).into();
        let sizes = |most| {
            let shards = cut(&pieces, Stored::F16, most);
            shards.iter().map(|shard| shard.iter().map(Piece::values).collect()).collect::<Vec<Vec<usize>>>()
        };
        assert_eq!(sizes(60), [vec![10, 20], vec![30], vec![200], vec![1]]);
        assert_eq!(sizes(522), [[10, 20, 30, 200, 1]]);
        assert_eq!(sizes(0).len(), 5);
    }
}
