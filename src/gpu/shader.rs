//! The WGSL files, compiled into the program, with `#import "file"` lines replaced by that file.
//!
//! `#import` is the only directive, so every file but for that line is plain WGSL.

use crate::error::{Error, Result};

macro_rules! shader_files {
    ($($name:literal),* $(,)?) => {
        /// Name and text of every file in `shaders/`.
        pub const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../shaders/", $name)))),*];
    };
}

shader_files!(
    "adamw.wgsl",
    "attention.wgsl",
    "cache.wgsl",
    "cross_entropy.wgsl",
    "elementwise.wgsl",
    "embedding.wgsl",
    "gelu.wgsl",
    "row.wgsl",
    "linear.wgsl",
    "layer_norm.wgsl",
    "pattention.wgsl",
    "reduce.wgsl",
    "rotary.wgsl",
);

fn file(name: &str) -> Result<&'static str> {
    FILES
        .iter()
        .find(|(file, _)| *file == name)
        .map(|&(_, text)| text)
        .ok_or_else(|| Error::usage(format!("no shader file \"{name}\"; this is a defect")))
}

/// The complete WGSL of a file.
///
/// # Errors
/// A file that does not exist, or that imports one that does not.
pub fn source(name: &str) -> Result<String> {
    let mut text = String::new();
    for line in file(name)?.lines() {
        match line.strip_prefix("#import ") {
            Some(import) => text.push_str(file(import.trim().trim_matches('"'))?),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    Ok(text)
}
