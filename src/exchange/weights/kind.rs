//! What is known of a tensor before it is read, and its values as f32.

use half::{bf16, f16};
use std::fmt::{self, Display, Formatter};

/// The type of a tensor's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    /// One that no weights of a model here are of.
    Other(String),
}

impl Kind {
    /// By the name that safetensors has for it.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Refuses a type that is not read.
    ///
    /// # Errors
    /// As a clause after the tensor.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.width().map(drop)
    }

    /// Bytes of a value.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(super) fn width(&self) -> Result<usize, String> {
        match self {
            Self::F32 => Ok(4),
            Self::F16 | Self::Bf16 => Ok(2),
            Self::Other(name) => {
                Err(format!("has type {name}; F32, F16 and BF16 can be read: store it as one of these"))
            }
        }
    }

    /// Appends little-endian values, of whole ones.
    pub(super) fn widen(&self, bytes: &[u8], into: &mut Vec<f32>) {
        match self {
            Self::F32 => into.extend(bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value))),
            Self::F16 => into.extend(bytes.as_chunks().0.iter().map(|&value| f16::from_le_bytes(value).to_f32())),
            Self::Bf16 => into.extend(bytes.as_chunks().0.iter().map(|&value| bf16::from_le_bytes(value).to_f32())),
            Self::Other(_) => {}
        }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Other(name) => name,
        })
    }
}

/// A tensor of a file.
#[derive(Debug)]
pub(super) struct Listed<S> {
    pub(super) name: String,
    /// Extent of each axis. Their product is no overflow.
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
    /// Where its values are.
    pub(super) source: S,
}

/// Room for the values of a tensor.
///
/// # Errors
/// More than there is, as a clause after the tensor.
pub(super) fn room(elements: usize) -> Result<Vec<f32>, String> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(elements)
        .map_err(|_| format!("has {elements} values, more than fit in memory: use a machine with more"))?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_widened_exactly() {
        let values = [0.0_f32, -1.5, 65504.0, 6.103_515_6e-5, 5.960_464_5e-8];
        let check = |kind: Kind, bytes: Vec<u8>| {
            let mut widened = Vec::new();
            kind.widen(&bytes, &mut widened);
            assert_eq!(widened, values, "{kind}");
            assert_eq!(bytes.len(), values.len() * kind.width().unwrap());
        };
        check(Kind::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect());
        check(Kind::F16, values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect());
        let bf = [0.0_f32, -1.5, 3.0].map(bf16::from_f32);
        let mut widened = Vec::new();
        Kind::Bf16.widen(&bf.map(bf16::to_le_bytes).concat(), &mut widened);
        assert_eq!(widened, [0.0, -1.5, 3.0]);
        assert!(Kind::named("I64").width().unwrap_err().contains("has type I64"));
    }
}
