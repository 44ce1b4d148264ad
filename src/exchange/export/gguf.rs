//! A GGUF for llama.cpp: keys and values, then where each tensor is, then the tensors.
//!
//! Version 3, little-endian. The crate `ggus` was looked at for this: its writer keeps every tensor until the end, and loses
//! errors of the last bytes that it writes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::gguf_value::{Value, text};
use super::gguf_vocab;
use super::output::{Out, Unfinished, check_free};
use super::shards::WRITER;
use super::source::Source;
use super::values::{BLOCK, Stored};
use crate::config::{Arch, Linear, ModelConfig, Norm, Parameter, Role};
use crate::error::{Error, Result};
use crate::exchange::neox;
use crate::exchange::piece::Piece;

const MAGIC: &[u8] = b"GGUF";
const VERSION: u32 = 3;
const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";
/// Every tensor begins at a multiple of it.
const ALIGNMENT: u64 = 32;

/// Writes the file `out`.
pub(super) fn write(source: &mut Source, out: &Path, stored: Stored, overwrite: bool) -> Result<(Vec<PathBuf>, u64)> {
    let model = source.config.model.clone();
    if model.arch == Arch::Tokenformer {
        return Err(Error::usage(
            "a TokenFormer cannot be a GGUF, because llama.cpp has no attention to parameter tokens: export with --to hf or \
             safetensors",
        ));
    }
    check_free(out, overwrite, |out| {
        let mut head = Vec::new();
        let read = File::open(out).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut head));
        if read.is_ok() && head == MAGIC { Ok(()) } else { Err("it is no GGUF".to_owned()) }
    })?;
    let name = out.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut keys = described(&model, &name, stored);
    keys.extend(gguf_vocab::keys(source.tokenizer.as_ref(), model.vocab_size)?);
    let pieces: Vec<(Piece, Stored)> = tensors(&model).into_iter().map(|piece| typed(piece, stored)).collect();
    let made = Unfinished::new(out)?;
    let mut file = Out::create(&made.at)?;
    file.write(&head(&keys, &pieces))?;
    for (piece, stored) in &pieces {
        pad(&mut file)?;
        stored.write(&piece.name, &source.tensor(piece)?, &mut file)?;
    }
    pad(&mut file)?;
    let bytes = file.finish()?;
    made.finish()?;
    Ok((vec![out.to_owned()], bytes))
}

fn pad(file: &mut Out) -> Result<()> {
    let missing = file.written().next_multiple_of(ALIGNMENT) - file.written();
    file.write(&vec![0; missing as usize])
}

/// What the model is, in the words of llama.cpp.
fn described(model: &ModelConfig, name: &str, stored: Stored) -> Vec<(&'static str, Value)> {
    let word = |size: usize| Value::Word(u32::try_from(size).unwrap_or(u32::MAX));
    let file_type = match stored {
        Stored::F32 => 0,
        Stored::F16 => 1,
        Stored::Q8_0 => 7,
        Stored::Bf16 => 32,
    };
    vec![
        ("general.architecture", Value::Text("gptneox".to_owned())),
        ("general.name", Value::Text(name.to_owned())),
        ("general.description", Value::Text(format!("written by {WRITER}"))),
        ("general.file_type", Value::Word(file_type)),
        ("general.quantization_version", Value::Word(2)),
        ("gptneox.context_length", word(model.seq_length)),
        ("gptneox.embedding_length", word(model.hidden_size)),
        ("gptneox.block_count", word(model.num_layers)),
        ("gptneox.feed_forward_length", word(model.mlp_width())),
        ("gptneox.attention.head_count", word(model.num_attention_heads)),
        ("gptneox.attention.layer_norm_epsilon", Value::Float(model.layernorm_epsilon as f32)),
        ("gptneox.rope.dimension_count", word(model.rotary_width())),
        ("gptneox.rope.freq_base", Value::Float(model.rotary_emb_base as f32)),
        ("gptneox.use_parallel_residual", Value::Bool(model.use_parallel_residual)),
        ("gptneox.vocab_size", word(model.vocab_size)),
    ]
}

/// Every tensor of `model` under its name there. Query, key and value are one, one after the other. llama.cpp does not load
/// this architecture without a head, which may be a copy of the embedding, and without biases, which may be zeros.
fn tensors(model: &ModelConfig) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = model.parameters().into_iter().filter_map(named).collect();
    if model.tie_word_embeddings {
        let embedding = pieces.iter().find(|piece| piece.name == EMBEDDING).cloned();
        pieces.extend(embedding.map(|embedding| Piece { name: HEAD.to_owned(), ..embedding }));
    }
    if !model.attention_bias {
        let width = model.hidden_size;
        let zeros = |name, width| Piece { name, shape: vec![width], parts: Vec::new(), runs: 1 };
        pieces.extend((0..model.num_layers).flat_map(|layer| {
            [
                zeros(format!("blk.{layer}.attn_qkv.bias"), 3 * width),
                zeros(format!("blk.{layer}.attn_output.bias"), width),
            ]
        }));
    }
    pieces
}

fn named(parameter: Parameter) -> Option<Piece> {
    let (role, layer) = (parameter.role, parameter.layer);
    let (name, kind) = match role {
        Role::Embedding => return Some(Piece { name: EMBEDDING.to_owned(), ..Piece::from(parameter) }),
        Role::Head => return Some(Piece { name: HEAD.to_owned(), ..Piece::from(parameter) }),
        Role::Keys(_) | Role::Values(_) => return None,
        Role::NormWeight(norm) => (norm_name(norm), "weight"),
        Role::NormBias(norm) => (norm_name(norm), "bias"),
        Role::Weight(linear) => (linear_name(linear)?, "weight"),
        Role::Bias(linear) => (linear_name(linear)?, "bias"),
    };
    let name = layer.map_or_else(|| format!("{name}.{kind}"), |layer| format!("blk.{layer}.{name}.{kind}"));
    let mut piece = Piece { name, ..Piece::from(parameter) };
    if let Some(parts) = neox::fused(role, layer) {
        piece.shape.iter_mut().take(1).for_each(|rows| *rows *= parts.len());
        piece.parts = parts;
    }
    Some(piece)
}

fn norm_name(norm: Norm) -> &'static str {
    match norm {
        Norm::Input => "attn_norm",
        Norm::PostAttention => "ffn_norm",
        Norm::Final => "output_norm",
    }
}

fn linear_name(linear: Linear) -> Option<&'static str> {
    match linear {
        Linear::Query => Some("attn_qkv"),
        Linear::Key | Linear::Value => None,
        Linear::Proj => Some("attn_output"),
        Linear::MlpIn => Some("ffn_up"),
        Linear::MlpOut => Some("ffn_down"),
    }
}

/// The type that a tensor gets: norms and biases stay f32, and rows that are no whole blocks are halves.
fn typed(piece: Piece, stored: Stored) -> (Piece, Stored) {
    let stored = match piece.shape.as_slice() {
        [_, columns] if stored == Stored::Q8_0 && !columns.is_multiple_of(BLOCK) => Stored::F16,
        [_, _] => stored,
        _ => Stored::F32,
    };
    (piece, stored)
}

/// All that precedes the tensors.
fn head(keys: &[(&str, Value)], pieces: &[(Piece, Stored)]) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend((pieces.len() as u64).to_le_bytes());
    head.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        text(key, &mut head);
        value.write(&mut head);
    }
    let mut offset = 0_u64;
    for (piece, stored) in pieces {
        text(&piece.name, &mut head);
        head.extend((piece.shape.len() as u32).to_le_bytes());
        // The last axis, which is contiguous, comes first there.
        piece.shape.iter().rev().for_each(|&axis| head.extend((axis as u64).to_le_bytes()));
        let kind: u32 = match stored {
            Stored::F32 => 0,
            Stored::F16 => 1,
            Stored::Q8_0 => 8,
            Stored::Bf16 => 30,
        };
        head.extend(kind.to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset = (offset + stored.bytes(piece.values())).next_multiple_of(ALIGNMENT);
    }
    head
}
