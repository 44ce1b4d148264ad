//! The uniform block of a kernel.

/// Builds the uniform block at binding 0: 32-bit words in the order of the shader's struct.
#[derive(Debug, Clone, Default)]
pub struct Dims(Vec<u32>);

impl Dims {
    /// An empty block.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a count, size or offset. Plans refuse tensors of 2^31 bytes or more, so every value
    /// that indexes one fits.
    pub fn u(mut self, value: usize) -> Self {
        self.0.push(u32::try_from(value).unwrap_or(u32::MAX));
        self
    }

    /// Appends a flag as 0 or 1.
    pub fn flag(self, value: bool) -> Self {
        self.u(usize::from(value))
    }

    /// Appends a number.
    pub fn f(mut self, value: f64) -> Self {
        self.0.push((value as f32).to_bits());
        self
    }

    /// The words, padded to the 16 bytes a uniform block is rounded up to.
    pub fn words(&self) -> Vec<u32> {
        let mut words = self.0.clone();
        words.resize(words.len().next_multiple_of(4).max(4), 0);
        words
    }
}
