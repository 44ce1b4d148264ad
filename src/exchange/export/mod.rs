//! A model as files of other programs. No more than the largest tensor is in memory, twice where it is put together.
//!
//! | file | idea |
//! |---|---|
//! | `source` | a checkpoint that is read one parameter at a time |
//! | `values` | numbers as the bytes of a type |
//! | `output` | a file or a directory that is whole or not there |
//! | `shards` | tensors as safetensors files |
//! | `hf` | a directory for transformers |
//! | `card` | its README |
//! | `gguf`, `gguf_value`, `gguf_vocab` | a file for llama.cpp, values in its head, and the tokenizer in it |

mod card;
mod gguf;
mod gguf_value;
mod gguf_vocab;
mod hf;
mod output;
mod shards;
mod source;
mod values;

pub(crate) use source::Source;
pub(crate) use values::Stored;

use serde::Serialize;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// A directory for Hugging Face's transformers.
    Hf,
    /// A file for llama.cpp; a Transformer only.
    Gguf,
    /// One file of parameters under this program's names.
    Safetensors,
}

/// What is wanted of an export.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Its form.
    pub(crate) form: Form,
    /// The type of its numbers.
    pub(crate) stored: Stored,
    /// Most bytes of a file of tensors in a directory.
    pub(crate) shard_bytes: u64,
    /// Whether it may take the place of an earlier export.
    pub(crate) overwrite: bool,
}

/// Writes `source` to `out`, which is then whole or as it was; the files, and their bytes together.
///
/// # Errors
/// A form that cannot hold the model, an output that is there and no export, files that cannot be read or written.
pub(crate) fn export(source: &mut Source, out: &Path, wanted: Wanted) -> Result<(Vec<PathBuf>, u64)> {
    let Wanted { form, stored, shard_bytes, overwrite } = wanted;
    if stored == Stored::Q8_0 && form != Form::Gguf {
        return Err(Error::usage(
            "--dtype q8_0 is a type of GGUF only: take f32, f16 or bf16 here, or export with --to gguf",
        ));
    }
    match form {
        Form::Hf => hf::write(source, out, stored, shard_bytes, overwrite),
        Form::Gguf => gguf::write(source, out, stored, overwrite),
        Form::Safetensors => shards::write_one(source, out, stored, overwrite),
    }
}
