//! The statistics of an optimizer step, and the parameter block of the sums that go into them (`shaders/reduce.wgsl`).
//!
//! They stay on the device from the loss to the update: AdamW reads the clip factor and the flag that
//! [`super::grad_norm`] left there, so that the host need not wait in between.

use crate::kernel::parameter_block;
use bytemuck::Zeroable;

parameter_block! {
    /// What one step says of itself; the struct of `shaders/stats.wgsl`, in a tensor of [`STATS`] words.
    pub struct Stats {
        /// Mean loss, nats per token.
        loss: f32,
        /// Norm of all gradients, without the loss scale.
        norm: f32,
        /// What gradients are multiplied by in the update: clips them, and takes the loss scale away.
        clip_factor: f32,
        /// 1 where loss and gradients are finite and the update was made, else 0.
        finite: f32,
        /// All gradients are this many times too large until the update, so that f16 holds small ones; 1 without mixed precision.
        loss_scale: f32,
        /// Nothing.
        spare: [f32; 3],
    }
}

/// Words of the statistics tensor.
pub const STATS: usize = size_of::<Stats>() / size_of::<f32>();

impl Stats {
    /// At the start of a step.
    pub fn fresh(loss_scale: f32) -> Self {
        Self { loss_scale, ..Self::zeroed() }
    }

    /// As read from the device; what is missing is not a number.
    pub(crate) fn from_words(words: &[f32]) -> Self {
        let mut all = [f32::NAN; STATS];
        all.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
        bytemuck::cast(all)
    }

    /// As written to the device.
    pub fn words(self) -> [f32; STATS] {
        bytemuck::cast(self)
    }

    /// Whether the update was made.
    pub fn is_finite(&self) -> bool {
        self.finite == 1.0
    }
}

/// The words of [`Stats::fresh`].
pub fn fresh_stats(loss_scale: f32) -> [f32; STATS] {
    Stats::fresh(loss_scale).words()
}

parameter_block! {
    /// The parameter block of `shaders/reduce.wgsl`.
    pub(crate) struct ReduceDims {
        n: u32,
        first_part: u32,
        /// sum_losses: weight; finish_norm: clipping threshold, 0 for none
        value: f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_names_agree() {
        let stats = Stats::from_words(&[2.5, 3.0, 0.25, 1.0, 64.0, 0.0, 0.0, 0.0]);
        assert_eq!((stats.loss, stats.norm, stats.clip_factor, stats.loss_scale), (2.5, 3.0, 0.25, 64.0));
        assert!(stats.is_finite());
        assert_eq!(Stats::fresh(8.0).words(), [0.0, 0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0]);
        let cut_off = Stats::from_words(&[2.5]);
        assert!(cut_off.loss == 2.5 && cut_off.norm.is_nan() && !cut_off.is_finite());
    }
}
