//! What ranks tell each other with every update, besides gradients.

use super::sums;
use super::tree::Node;
use crate::ops::stats::{STATS, Stats};

/// What a rank tells the others with every update.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Told {
    /// The number of the update.
    pub(crate) step: u64,
    /// Where in its schedule the run is with it.
    pub(crate) place: f64,
    /// Whether it was asked to stop.
    pub(crate) stop: bool,
    /// How long its device took for its leaves, in seconds.
    pub(crate) seconds: f64,
    /// What an update before came to on its device: its number, and the bits of loss and norm.
    pub(crate) before: Option<(u64, [u32; 2])>,
}

/// How long the parts of an exchange took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(crate) struct Parts {
    /// From the device to messages.
    pub(crate) pack: f64,
    /// Waiting, for the network, other ranks or this rank's device.
    pub(crate) transfer: f64,
    /// Adding up.
    pub(crate) sum: f64,
    /// From messages to the device.
    pub(crate) unpack: f64,
}

/// What an exchange came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    /// Of every rank.
    pub(crate) told: Vec<Told>,
    /// Mean loss of the update's tokens.
    pub(crate) loss: f32,
    pub(crate) parts: Parts,
}

impl Told {
    /// What others are sent, with the losses of the sums that this rank brings.
    pub(super) fn bytes(&self, losses: &[f32]) -> Vec<u8> {
        let (before, [loss, norm]) = self.before.map_or((0, [0; 2]), |(step, bits)| (step + 1, bits));
        let mut bytes = Vec::with_capacity(48 + 4 * losses.len());
        for word in [self.step, self.place.to_bits(), u64::from(self.stop), self.seconds.to_bits(), before] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [loss, norm].into_iter().chain(losses.iter().map(|loss| loss.to_bits())) {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    /// What [`Self::bytes`] gave, with so many losses.
    pub(super) fn read(bytes: &[u8], losses: usize) -> Option<(Self, Vec<f32>)> {
        let (long, short) = bytes.split_at_checked(40)?;
        let [step, place, stop, seconds, before] = *bytemuck::pod_read_unaligned::<[[u8; 8]; 5]>(long).as_ref() else {
            return None;
        };
        let [step, place, stop, seconds, before] = [step, place, stop, seconds, before].map(u64::from_le_bytes);
        let words: Vec<u32> = short.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
        let (&[loss, norm], of_losses) = words.split_first_chunk::<2>()?;
        let before = before.checked_sub(1).map(|step| (step, [loss, norm]));
        let [place, seconds] = [place, seconds].map(f64::from_bits);
        let told = Self { step, place, stop: stop != 0, seconds, before };
        (of_losses.len() == losses).then(|| (told, of_losses.iter().map(|&bits| f32::from_bits(bits)).collect()))
    }
}

impl Heard {
    /// With the losses of the sums that all ranks brought, in order.
    pub(super) fn new(told: Vec<Told>, losses: impl Iterator<Item = (Node, f32)>, parts: Parts) -> Self {
        let loss = sums::sum(losses.map(|(node, loss)| (node, vec![loss])));
        Self { told, loss: loss.and_then(|sum| sum.first().copied()).unwrap_or(f32::NAN), parts }
    }

    /// Whether any rank was asked to stop.
    pub(crate) fn stop(&self) -> bool {
        self.told.iter().any(|told| told.stop)
    }

    /// The rank whose device took the longest, and how long.
    pub(crate) fn slowest(&self) -> Option<(usize, f64)> {
        let each = self.told.iter().map(|told| told.seconds).enumerate();
        each.max_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// The statistics that the update starts from.
    pub(crate) fn stats(&self, loss_scale: f32) -> [f32; STATS] {
        Stats { loss: self.loss, ..Stats::fresh(loss_scale) }.words()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        for before in [None, Some((0, [1, 2])), Some((41, [u32::MAX, 7]))] {
            let told = Told { step: 42, place: 41.5, stop: before.is_none(), seconds: 0.25, before };
            let losses = [0.5, f32::NAN];
            let (heard, of_losses) = Told::read(&told.bytes(&losses), 2).unwrap();
            assert_eq!(heard, told);
            assert!(of_losses[0] == 0.5 && of_losses[1].is_nan());
            assert!(Told::read(&told.bytes(&losses), 3).is_none() && Told::read(&[0; 39], 0).is_none());
        }
    }
}
