//! A counter that every submission adds to, and what it must be.
//!
//! Drivers have ended work and reported success (on Metal a command buffer killed by the watchdog looks like a
//! finished one). So each submission ends with one addition to a counter, and the host compares it with the
//! number of submissions when it reads what they computed.

use super::block::Block;
use super::program::{Dispatch, Program};
use crate::error::{Error, Result};
use crate::kernel::{Access, Kernel};

static HEARTBEAT: Kernel = Kernel::new("heartbeat.wgsl", "heartbeat", &[Access::Write]);

/// The counter that every submission adds to.
pub(super) struct Heartbeat {
    pub(super) count: Block,
    pub(super) program: Program,
}

impl Heartbeat {
    /// What adds to `count`.
    pub(super) fn dispatch(count: &Block) -> Dispatch {
        Dispatch { kernel: &HEARTBEAT, dims: vec![0; 4], blocks: vec![count.clone()], groups: 1, cost: 0.0 }
    }

    pub(super) fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let pass = wgpu::ComputePassDescriptor { label: Some("heartbeat"), timestamp_writes: None };
        self.program.encode(&mut encoder.begin_compute_pass(&pass));
    }

    /// Compares the counter with the submissions made.
    pub(super) fn compare(counted: u32, submitted: u32) -> Result<()> {
        match submitted.wrapping_sub(counted) {
            0 => Ok(()),
            missing => Err(Error::lost(format!(
                "the GPU reported work as done that it had not done: of {submitted} submissions {missing} left no mark"
            ))),
        }
    }
}

/// Submissions are made one after the other, so that the heartbeat tells which of them ran.
#[derive(Debug, Default)]
pub(super) struct Submissions {
    /// How many were made.
    pub(super) submitted: u32,
    /// The submission after so many more never runs.
    #[cfg(test)]
    pub(super) drop_after: Option<u32>,
}

#[cfg(test)]
impl Submissions {
    /// Whether the next submission is lost.
    pub(super) fn drops(&mut self) -> bool {
        let more = self.drop_after.take();
        self.drop_after = more.and_then(|more| more.checked_sub(1));
        more == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mark_is_an_error() {
        assert_eq!(Heartbeat::compare(3, 3), Ok(()));
        let said = Heartbeat::compare(u32::MAX, 1).unwrap_err().to_string();
        assert!(said.contains("of 1 submissions 2 left no mark"), "{said}");
    }
}
