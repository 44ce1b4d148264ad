//! A host-side tensor: a shape and its f32 values, row-major.

/// Values on the host, row-major, last axis contiguous.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Extent of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// A tensor of `shape` filled with zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }

    /// Rows of a matrix (the first axis), or 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }
}
