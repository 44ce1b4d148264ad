//! The WGSL files, compiled into the program, with `#import "file"` lines replaced by that file.
//!
//! `#import` is the only directive, so every file but for that line is plain WGSL.

use super::kernel::Dtype;
use crate::error::{Error, Result};

macro_rules! shader_files {
    ($($name:literal),* $(,)?) => {
        /// Name and text of every file in `shaders/`.
        pub const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../shaders/", $name)))),*];
    };
}

shader_files!(
    "adamw.wgsl",
    "attention_backward.wgsl",
    "attention_forward.wgsl",
    "attention_tile.wgsl",
    "cache.wgsl",
    "cross_entropy.wgsl",
    "elementwise.wgsl",
    "embedding.wgsl",
    "gelu.wgsl",
    "row.wgsl",
    "linear.wgsl",
    "layer_norm.wgsl",
    "pattention.wgsl",
    "pulse.wgsl",
    "real.wgsl",
    "reduce.wgsl",
    "roofline.wgsl",
    "rotary.wgsl",
);

/// The line that makes a file generic.
const REAL_IMPORT: &str = "#import \"real.wgsl\"";

fn file(name: &str) -> Result<&'static str> {
    FILES
        .iter()
        .find(|(file, _)| *file == name)
        .map(|&(_, text)| text)
        .ok_or_else(|| Error::usage(format!("no shader file \"{name}\"; this is a defect")))
}

/// Whether a file is written for activations of any type: it imports the alias `Real`.
pub fn is_generic(name: &str) -> bool {
    file(name).is_ok_and(|text| text.contains(REAL_IMPORT))
}

/// The complete WGSL of a file, with `Real` as `real`. A file imported twice, as by a file that is imported too, is there
/// once.
///
/// # Errors
/// A file that does not exist, or that imports one that does not.
pub fn source(name: &str, real: Dtype) -> Result<String> {
    let mut text = String::new();
    if real == Dtype::F16 {
        text.push_str("enable f16;\n");
    }
    append(&mut text, name, real, &mut Vec::new())?;
    Ok(text)
}

fn append(text: &mut String, name: &str, real: Dtype, imported: &mut Vec<String>) -> Result<()> {
    for line in file(name)?.lines() {
        match line.strip_prefix("#import ").map(|import| import.trim().trim_matches('"').to_owned()) {
            Some(import) if imported.contains(&import) => {}
            Some(import) => {
                imported.push(import.clone());
                if line == REAL_IMPORT && real == Dtype::F16 {
                    text.push_str("alias Real = f16;\n");
                } else {
                    append(text, &import, real, imported)?;
                }
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    Ok(())
}
