//! From the GPU back to memory: [`Gpu::read`], through a staging buffer, in pieces.
//!
//! Blocks until the values are there; nothing here is meant for the inner loop of a step.

use std::sync::mpsc;

use wgpu::BufferUsages;

use super::device::{Gpu, WAIT_LIMIT};
use super::fault::{lost, plain};
use crate::error::{Error, Result};

/// Largest piece read back at once when the caller brings no staging buffer.
const STAGING_BYTES: u64 = 64 << 20;

impl Gpu {
    /// Reads `count` values of `T` from `buffer` (usage `COPY_SRC`), starting at `byte_offset` (a
    /// multiple of 4), after everything submitted so far. Goes through `staging` (usage `MAP_READ |
    /// COPY_DST`, any size, in pieces) or a buffer of its own.
    ///
    /// # Errors
    /// A range outside the buffer, and those of [`Gpu::wait`].
    pub fn read<T: bytemuck::Pod>(
        &self,
        buffer: &wgpu::Buffer,
        byte_offset: u64,
        count: usize,
        staging: Option<&wgpu::Buffer>,
    ) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); count];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        let length = bytes.len() as u64;
        // Copies move whole words; the last one may hold values nobody asked for.
        let end = byte_offset.saturating_add(length).next_multiple_of(4);
        if !byte_offset.is_multiple_of(4) || end > buffer.size() {
            return Err(Error::device(format!(
                "cannot read {length} bytes at offset {byte_offset} of a buffer of {} bytes",
                buffer.size()
            )));
        }
        if length == 0 {
            return Ok(values);
        }
        let own;
        let staging = match staging {
            Some(staging) => staging,
            None => {
                let size = length.next_multiple_of(4).min(STAGING_BYTES);
                own = self.buffer("read back", size, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
                &own
            }
        };
        let piece = (staging.size() / 4 * 4).max(4);
        let mut at = byte_offset;
        for part in bytes.chunks_mut(usize::try_from(piece).unwrap_or(usize::MAX)) {
            self.read_piece(buffer, at, part, staging)?;
            at += piece;
        }
        Ok(values)
    }

    fn read_piece(&self, buffer: &wgpu::Buffer, at: u64, into: &mut [u8], staging: &wgpu::Buffer) -> Result<()> {
        let size = (into.len() as u64).next_multiple_of(4);
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("read") });
        encoder.copy_buffer_to_buffer(buffer, at, staging, 0, size);
        let submission = self.submit(encoder)?;
        let (sender, receiver) = mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, 0..size, move |outcome| {
            // The receiver is gone only if this function returned an error already.
            let _ = sender.send(outcome.is_ok());
        });
        self.wait(submission)?;
        // Another thread's poll may have taken this completion and be about to call back.
        if receiver.recv_timeout(WAIT_LIMIT) != Ok(true) {
            staging.unmap();
            return self.check().and_then(|()| Err(Error::lost(lost("a buffer could not be mapped"))));
        }
        let copied = match staging.get_mapped_range(0..size) {
            Ok(view) => match view.get(..into.len()) {
                Some(source) => {
                    into.copy_from_slice(source);
                    Ok(())
                }
                None => Err(Error::device("the driver mapped less of a buffer than was asked for")),
            },
            Err(cause) => Err(Error::device(plain(&cause))),
        };
        staging.unmap();
        copied
    }
}

#[cfg(test)]
mod tests {
    use super::super::device::tests::every_adapter;
    use super::*;

    #[test]
    fn reading_in_pieces_gives_the_same_values() {
        for gpu in every_adapter() {
            let values: Vec<u32> = (0..1000).collect();
            let buffer = gpu.buffer("v", 4000, BufferUsages::COPY_SRC | BufferUsages::COPY_DST).unwrap();
            let staging = gpu.buffer("s", 48, BufferUsages::MAP_READ | BufferUsages::COPY_DST).unwrap();
            gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&values));
            assert_eq!(gpu.read::<u32>(&buffer, 8, 998, Some(&staging)).unwrap(), values[2..]);
            assert_eq!(gpu.read::<u16>(&buffer, 3996, 1, None).unwrap(), [999]);
            assert!(gpu.read::<u32>(&buffer, 8, 999, None).is_err(), "past the end");
            assert!(gpu.read::<u32>(&buffer, 2, 1, None).is_err(), "not a whole word");
        }
    }
}
