//! The WGSL files, compiled into the program, with `#import "file"` lines replaced by that file.
//!
//! `#import` is the only directive, so every file but for that line is plain WGSL.

use super::dtype::Dtype;
use crate::error::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// The line that makes a file generic in the type of activations.
const REAL_IMPORT: &str = "#import \"real.wgsl\"";
/// The line that makes a file generic in how it reads and writes rows; that file imports the other.
const ROWS_IMPORT: &str = "#import \"rows_scalar.wgsl\"";
/// What takes its place where rows are whole vec4s.
const VEC4_ROWS: &str = "rows_vec4.wgsl";

/// The line of the kernels of attention that may have dropout, and what takes its place where they do.
const UNDROPPED_IMPORT: &str = "#import \"attention_undropped.wgsl\"";
const DROPPED: &str = "attention_dropped.wgsl";

/// How a kernel reads and writes the rows of its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Rows {
    /// One element at a time, so of any width.
    #[default]
    Scalar,
    /// As vec4s: the width is a multiple of 4.
    Vec4,
}

impl Rows {
    /// The faster form for rows of `width` elements.
    pub(crate) fn of_width(width: usize) -> Self {
        if width.is_multiple_of(4) { Self::Vec4 } else { Self::Scalar }
    }
}

fn file(name: &str) -> Result<&'static str> {
    FILES
        .iter()
        .find(|(file, _)| *file == name)
        .map(|&(_, text)| text)
        .ok_or_else(|| Error::defect(format!("no shader file \"{name}\"")))
}

/// Whether a file is written for activations of any type: it imports the alias `Real`.
pub fn is_generic(name: &str) -> bool {
    file(name).is_ok_and(|text| text.contains(REAL_IMPORT) || text.contains(ROWS_IMPORT))
}

/// The complete WGSL of a file, with `Real` as `real`, for rows of any width. A file imported twice, as by a file that is
/// imported too, is there once.
///
/// # Errors
/// A file that does not exist, or that imports one that does not.
pub fn source(name: &str, real: Dtype) -> Result<String> {
    source_for(name, real, Rows::Scalar)
}

/// As [`source`], for rows that are read and written as `rows` says.
///
/// # Errors
/// As there.
pub fn source_for(name: &str, real: Dtype, rows: Rows) -> Result<String> {
    complete(name, Form { real, rows, dropout: false })
}

/// As [`source`] of a kernel of attention, with dropout.
///
/// # Errors
/// As there.
pub(crate) fn with_dropout(name: &str, real: Dtype) -> Result<String> {
    complete(name, Form { real, rows: Rows::Scalar, dropout: true })
}

/// What files leave open.
#[derive(Debug, Clone, Copy)]
struct Form {
    real: Dtype,
    rows: Rows,
    dropout: bool,
}

fn complete(name: &str, form: Form) -> Result<String> {
    let mut text = String::new();
    if form.real == Dtype::F16 {
        text.push_str("enable f16;\n");
    }
    append(&mut text, name, form, &mut Vec::new())?;
    Ok(text)
}

fn append(text: &mut String, name: &str, form: Form, imported: &mut Vec<String>) -> Result<()> {
    for line in file(name)?.lines() {
        match line.strip_prefix("#import ").map(|import| import.trim().trim_matches('"').to_owned()) {
            Some(import) if imported.contains(&import) => {}
            Some(import) => {
                imported.push(import.clone());
                match line {
                    REAL_IMPORT if form.real == Dtype::F16 => text.push_str("alias Real = f16;\n"),
                    ROWS_IMPORT if form.rows == Rows::Vec4 => append(text, VEC4_ROWS, form, imported)?,
                    UNDROPPED_IMPORT if form.dropout => append(text, DROPPED, form, imported)?,
                    _ => append(text, &import, form, imported)?,
                }
            }
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Ok(())
}
