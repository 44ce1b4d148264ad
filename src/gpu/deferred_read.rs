//! A few numbers read back without stopping the device: asked for with the commands that make them, taken later.

use super::device::{Gpu, WAIT_LIMIT};
use super::engine::{Block, Engine};
use super::heartbeat::Heartbeat;
use crate::error::{Error, Result};
use std::sync::mpsc::{self, Receiver};

/// Host-visible memory for one [`DeferredRead`] at a time.
#[derive(Debug)]
pub(crate) struct Staging(wgpu::Buffer);

/// Numbers on their way from the device.
#[derive(Debug)]
pub(crate) struct DeferredRead {
    buffer: wgpu::Buffer,
    bytes: u64,
    submission: wgpu::SubmissionIndex,
    /// Marks of the heartbeat that must be there by then.
    marks: u32,
    mapped: Receiver<bool>,
}

/// Room for the heartbeat behind the numbers.
const COUNT_BYTES: u64 = 4;

impl Engine {
    /// Memory to read up to `bytes` through.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn staging(&self, bytes: u64) -> Result<Staging> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Staging(self.gpu.buffer("staging", bytes.next_multiple_of(4) + COUNT_BYTES, usage)?))
    }

    /// Submits `encoder`, followed by a copy of `block` into `staging`, which must not be in use.
    ///
    /// # Errors
    /// Anything wgpu found wrong with the commands, or earlier.
    pub(crate) fn submit_and_read(
        &self,
        encoder: wgpu::CommandEncoder,
        block: &Block,
        staging: &Staging,
    ) -> Result<DeferredRead> {
        let (buffer, bytes) = (staging.0.clone(), block.bytes().min(staging.0.size() - COUNT_BYTES));
        let (submission, marks) = self.submit_with(encoder, |encoder, count| {
            for (block, at, bytes) in [(Some(block), 0, bytes), (count, bytes, COUNT_BYTES)] {
                if let Some((source, offset)) = block.map(Block::place) {
                    encoder.copy_buffer_to_buffer(source, offset, &buffer, at, bytes);
                }
            }
        })?;
        let (sender, mapped) = mpsc::channel();
        buffer.map_async(wgpu::MapMode::Read, 0..bytes + COUNT_BYTES, move |outcome| {
            // The receiver is gone only if nobody wants the numbers any more.
            let _ = sender.send(outcome.is_ok());
        });
        Ok(DeferredRead { buffer, bytes, submission, marks, mapped })
    }
}

impl DeferredRead {
    /// The numbers, after waiting for the submission that made them; later ones go on.
    ///
    /// # Errors
    /// Those of [`Gpu::wait`], a buffer that could not be mapped, and [`Error::Lost`] where a submission before it left no
    /// mark.
    pub(crate) fn wait(self, gpu: &Gpu) -> Result<Vec<f32>> {
        gpu.wait(self.submission.clone())?;
        let unmapped = || Error::lost("the numbers of a step could not be read back");
        if self.mapped.recv_timeout(WAIT_LIMIT) != Ok(true) {
            return gpu.check().and_then(|()| Err(unmapped()));
        }
        let view = self.buffer.get_mapped_range(0..self.bytes + COUNT_BYTES);
        let words = view.map(|view| bytemuck::cast_slice::<u8, u32>(&view).to_vec()).map_err(|_| unmapped());
        self.buffer.unmap();
        let words = words?;
        let (count, numbers) = words.split_last().ok_or_else(unmapped)?;
        Heartbeat::compare(*count, self.marks)?;
        Ok(numbers.iter().map(|&word| f32::from_bits(word)).collect())
    }
}
