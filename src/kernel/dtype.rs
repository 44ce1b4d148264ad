//! The types of the elements of tensors.

/// Type of the elements of a tensor, as stored; kernels compute in f32 whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Dtype {
    /// 32 bits: f32, or u32 token ids.
    #[default]
    F32,
    /// 16 bits: f16.
    F16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// As WGSL and benchmarks write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}
