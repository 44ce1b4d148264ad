//! Device memory of one tensor: a buffer or a range of one, counted while it lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A buffer that is counted while it lives.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) buffer: wgpu::Buffer,
    pub(super) bytes: u64,
    pub(super) counter: Arc<AtomicU64>,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A piece of device memory bound as one tensor; freed with its last clone.
#[derive(Debug, Clone)]
pub struct Block {
    pub(super) allocation: Arc<Allocation>,
    /// Where it starts in the buffer.
    pub(super) offset: u64,
    /// Of the tensor.
    pub(super) bytes: u64,
    /// Of the binding: whole words, and in tests the guard words behind the tensor.
    pub(super) bound: u64,
}

impl Block {
    /// Size of the tensor in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The buffer it is in, and where it starts there.
    pub(super) fn place(&self) -> (&wgpu::Buffer, u64) {
        (&self.allocation.buffer, self.offset)
    }

    /// The same memory holding a smaller tensor.
    pub fn sized(&self, bytes: u64) -> Self {
        self.part(0, bytes)
    }

    /// A range of this memory as a tensor of its own; `offset` in bytes, a multiple of 256 where it is bound.
    pub fn part(&self, offset: u64, bytes: u64) -> Self {
        let bound = bytes.max(4).next_multiple_of(4);
        Self { allocation: self.allocation.clone(), offset: self.offset + offset, bytes, bound }
    }
}
