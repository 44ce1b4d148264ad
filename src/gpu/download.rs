//! Ranges of blocks copied to the host while the device goes on: asked for behind the commands that make them, taken as
//! soon as they are there.

use super::device::Gpu;
use super::engine::{Block, Engine, Program};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// Host-visible memory for one [`Downloading`] at a time.
#[derive(Debug)]
pub(crate) struct DownloadBuffer(wgpu::Buffer);

/// Numbers on their way to the host.
#[derive(Debug)]
pub(crate) struct Downloading {
    buffer: wgpu::Buffer,
    bytes: u64,
    submission: wgpu::SubmissionIndex,
    mapped: Receiver<bool>,
    began: Instant,
    patience: Duration,
}

impl Engine {
    /// Memory to copy up to `bytes` to.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn download_buffer(&self, bytes: u64) -> Result<DownloadBuffer> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(DownloadBuffer(self.gpu.buffer("download", bytes.next_multiple_of(4).max(4), usage)?))
    }

    /// Submits some dispatches of programs, followed by copies of `blocks`, one after the other, to `to`, which must not be in
    /// use and holds them all.
    ///
    /// # Errors
    /// Anything wgpu found wrong with the commands, or earlier.
    pub(crate) fn run_and_download<'p>(
        &self,
        first: impl IntoIterator<Item = (&'p Program, Range<usize>)>,
        blocks: &[Block],
        to: &DownloadBuffer,
    ) -> Result<Downloading> {
        let mut encoder = self.encoder();
        for (program, range) in first {
            program.encode_range(&mut encoder, range);
        }
        let (buffer, mut at) = (to.0.clone(), 0);
        for block in blocks {
            let (source, offset) = block.place();
            encoder.copy_buffer_to_buffer(source, offset, &buffer, at, block.bytes());
            at += block.bytes();
        }
        let submission = self.submit(encoder)?;
        let (sender, mapped) = mpsc::channel();
        buffer.map_async(wgpu::MapMode::Read, 0..at, move |outcome| {
            // The receiver is gone only if nobody wants the numbers any more.
            let _ = sender.send(outcome.is_ok());
        });
        Ok(Downloading { buffer, bytes: at, submission, mapped, began: Instant::now(), patience: self.patience() })
    }

    /// Submits copies of blocks to others of the same lengths.
    ///
    /// # Errors
    /// Anything wgpu found wrong with the commands, or earlier.
    pub(crate) fn copy<'b>(&self, pairs: impl IntoIterator<Item = (&'b Block, &'b Block)>) -> Result<()> {
        let mut encoder = self.encoder();
        for (from, to) in pairs {
            let ((source, from_offset), (target, to_offset)) = (from.place(), to.place());
            encoder.copy_buffer_to_buffer(source, from_offset, target, to_offset, from.bytes());
        }
        self.submit(encoder).map(drop)
    }

    /// Lets the driver say what is done.
    ///
    /// # Errors
    /// A lost device.
    pub(crate) fn poll(&self) -> Result<()> {
        let polled = self.gpu.device.poll(wgpu::PollType::Poll);
        self.gpu.check().and_then(|()| polled.map(drop).map_err(|error| Error::lost(error.to_string())))
    }
}

impl Downloading {
    /// Whether the numbers are there; [`Engine::poll`] brings that about.
    ///
    /// # Errors
    /// Those of [`Gpu::wait`] where they do not come, and a buffer that could not be mapped.
    pub(crate) fn is_there(&self, gpu: &Gpu) -> Result<bool> {
        match self.mapped.try_recv() {
            Ok(true) => Ok(true),
            Err(TryRecvError::Empty) if self.began.elapsed() < self.patience => Ok(false),
            Err(TryRecvError::Empty) => {
                let what = || "what was to be sent to other ranks".to_owned();
                gpu.wait_within(self.submission.clone(), self.patience, what).map(|()| false)
            }
            Ok(false) | Err(TryRecvError::Disconnected) => {
                gpu.check().and_then(|()| Err(Error::lost("gradients could not be read back")))
            }
        }
    }

    /// What `read` makes of the numbers, once they are there.
    ///
    /// # Errors
    /// A buffer that is not mapped.
    pub(crate) fn take<T>(self, read: impl FnOnce(&[f32]) -> T) -> Result<T> {
        let view = self.buffer.get_mapped_range(0..self.bytes);
        let made = view.map(|view| read(bytemuck::cast_slice(&view)));
        let made = made.map_err(|_| Error::lost("gradients could not be read back"));
        self.buffer.unmap();
        made
    }
}
