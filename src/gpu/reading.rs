//! A few numbers read back without stopping the device: asked for with the commands that make them, taken later.

use super::device::{Gpu, WAIT_LIMIT};
use super::engine::{Block, Engine};
use crate::error::{Error, Result};
use std::sync::mpsc::{self, Receiver};

/// Host-visible memory for one [`Reading`] at a time.
#[derive(Debug)]
pub struct Staging(wgpu::Buffer);

/// Numbers on their way from the device.
#[derive(Debug)]
pub struct Reading {
    buffer: wgpu::Buffer,
    bytes: u64,
    submission: wgpu::SubmissionIndex,
    mapped: Receiver<bool>,
}

impl Engine {
    /// Memory to read up to `bytes` through.
    ///
    /// # Errors
    /// Out of memory.
    pub fn staging(&self, bytes: u64) -> Result<Staging> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Staging(self.gpu.buffer("staging", bytes.next_multiple_of(4), usage)?))
    }

    /// Submits `encoder`, followed by a copy of `block` into `staging`, which must not be in use.
    ///
    /// # Errors
    /// Anything wgpu found wrong with the commands, or earlier.
    pub fn submit_and_read(
        &self,
        mut encoder: wgpu::CommandEncoder,
        block: &Block,
        staging: &Staging,
    ) -> Result<Reading> {
        let (buffer, bytes) = (staging.0.clone(), block.bytes().min(staging.0.size()));
        let (source, offset) = block.place();
        encoder.copy_buffer_to_buffer(source, offset, &buffer, 0, bytes);
        let submission = self.gpu.submit(encoder)?;
        let (sender, mapped) = mpsc::channel();
        buffer.map_async(wgpu::MapMode::Read, 0..bytes, move |outcome| {
            // The receiver is gone only if nobody wants the numbers any more.
            let _ = sender.send(outcome.is_ok());
        });
        Ok(Reading { buffer, bytes, submission, mapped })
    }
}

impl Reading {
    /// The numbers, after waiting for the submission that made them; later ones go on.
    ///
    /// # Errors
    /// Those of [`Gpu::wait`], and a buffer that could not be mapped.
    pub fn wait(self, gpu: &Gpu) -> Result<Vec<f32>> {
        gpu.wait(self.submission.clone())?;
        let unmapped = || Error::device("the numbers of a step could not be read back: the GPU was lost");
        if self.mapped.recv_timeout(WAIT_LIMIT) != Ok(true) {
            return gpu.check().and_then(|()| Err(unmapped()));
        }
        let view = self.buffer.get_mapped_range(0..self.bytes);
        let numbers = view.map(|view| bytemuck::cast_slice(&view).to_vec()).map_err(|_| unmapped());
        self.buffer.unmap();
        numbers
    }
}
