//! Numbers as the bytes of a type, some at a time.

use half::{bf16, f16};
use serde::Serialize;

use super::output::Out;
use crate::array::HostTensor;
use crate::error::{Error, Result};

/// Values that are made into bytes at a time; a multiple of [`BLOCK`].
const CHUNK: usize = 1 << 16;
/// Values of a block of `q8_0`, which have a scale together.
pub(super) const BLOCK: usize = 32;
/// Bytes of such a block: its scale as f16, and a byte for each value.
const BLOCK_BYTES: usize = 2 + BLOCK;

/// The type of the numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stored {
    /// 32 bits: as trained.
    F32,
    /// IEEE half, 16 bits.
    F16,
    /// The upper half of f32, 16 bits.
    Bf16,
    /// A byte each, with a scale for 32 of them; GGUF only.
    #[value(name = "q8_0")]
    Q8_0,
}

impl Stored {
    /// As it is written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Bytes of so many values.
    pub(super) fn bytes(self, values: usize) -> u64 {
        let values = values as u64;
        match self {
            Self::F32 => 4 * values,
            Self::F16 | Self::Bf16 => 2 * values,
            Self::Q8_0 => values / BLOCK as u64 * BLOCK_BYTES as u64,
        }
    }

    /// Writes the values of the tensor `name`.
    ///
    /// # Errors
    /// A value that the type cannot hold; a file that cannot be written.
    pub(super) fn write(self, name: &str, tensor: &HostTensor, out: &mut Out) -> Result<()> {
        let mut bytes = Vec::with_capacity(CHUNK * size_of::<f32>());
        for values in tensor.data.chunks(CHUNK) {
            bytes.clear();
            match self {
                Self::F32 => values.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
                Self::F16 => {
                    let largest = f32::from(f16::MAX);
                    if let Some(value) = values.iter().find(|value| value.is_finite() && value.abs() > largest) {
                        return Err(Error::input(format!(
                            "{name:?} has the value {value}, but f16 ends at {largest}: export with --dtype bf16 or f32"
                        )));
                    }
                    values.iter().for_each(|&value| bytes.extend(f16::from_f32(value).to_le_bytes()));
                }
                Self::Bf16 => values.iter().for_each(|&value| bytes.extend(bf16::from_f32(value).to_le_bytes())),
                Self::Q8_0 => values.chunks(BLOCK).for_each(|block| bytes.extend(quantized(block))),
            }
            out.write(&bytes)?;
        }
        Ok(())
    }
}

/// A block as llama.cpp makes it: the value farthest from 0 becomes 127.
fn quantized(block: &[f32]) -> impl Iterator<Item = u8> {
    let scale = block.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0;
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    let quants = block.iter().map(move |value| ((value * inverse).round() as i8).cast_unsigned());
    f16::from_f32(scale).to_le_bytes().into_iter().chain(quants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_a_scale_and_its_multiples() {
        let mut block = [0.0_f32; BLOCK];
        (block[0], block[1], block[2], block[3]) = (-12.7, 6.35, 0.06, 0.04);
        let bytes: Vec<u8> = quantized(&block).collect();
        assert_eq!(bytes.len(), BLOCK_BYTES);
        assert_eq!(f16::from_le_bytes([bytes[0], bytes[1]]), f16::from_f32(0.1));
        let quants: Vec<i8> = bytes[2..6].iter().map(|byte| byte.cast_signed()).collect();
        assert!(quants[..1] == [-127] && (63..=64).contains(&quants[1]) && quants[2..] == [1, 0], "{quants:?}");
        assert!(quantized(&[0.0; BLOCK]).all(|byte| byte == 0));
        assert_eq!(Stored::Q8_0.bytes(64), 68);
    }
}
