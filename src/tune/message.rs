//! What a process that tries kernels is asked and says, one line of JSON each.

use crate::kernel::{Candidate, Layout, ProductKind};
use serde::{Deserialize, Serialize};

/// What a process is asked: does this candidate work?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrialRequest {
    pub(super) layout: String,
    pub(super) half: bool,
    /// Whether there are two operands B.
    #[serde(default)]
    pub(super) pair: bool,
    /// Which of m, n and k are multiples of four: kernels read in vectors where they can.
    pub(super) fours: [bool; 3],
    pub(super) candidate: String,
}

/// What a process says before the first job.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its adapter and driver, as `Gpu::cache_key` names them.
    pub adapter: String,
}

/// What a process says of a job.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// What is wrong with the candidate, if something is.
    pub fault: Option<String>,
    /// Whether the process ends now, because its device is lost.
    pub ends: bool,
}

impl TrialRequest {
    pub(super) fn new(product: ProductKind, candidate: Candidate) -> Self {
        let layout = format!("{:?}", product.layout);
        let fours = product.size.map(|n| n.is_multiple_of(4));
        Self { layout, half: product.half, pair: product.pair, fours, candidate: candidate.to_string() }
    }

    /// How the outcome is kept.
    pub(super) fn key(&self) -> String {
        let odd = ["m", "n", "k"].into_iter().zip(self.fours).filter(|(_, fours)| !fours);
        odd.fold(self.refusal(), |key, (name, _)| format!("{key}, odd {name}"))
    }

    /// How a refusal is kept: for all sizes.
    pub(super) fn refusal(&self) -> String {
        let [half, pair] = [(self.half, " f16"), (self.pair, " pair")].map(|(is, name)| if is { name } else { "" });
        format!("{} {}{half}{pair}", self.layout, self.candidate)
    }

    /// A product of more than one block, with edges.
    pub(super) fn product(&self, candidate: Candidate) -> Option<ProductKind> {
        let layout = Layout::ALL.into_iter().find(|layout| format!("{layout:?}") == self.layout)?;
        let [rows, columns] = candidate.block();
        let mut size = [rows, columns, 140].map(|n| n.next_multiple_of(4) + 4);
        // Two halves of one C, each more than a block.
        let (halves, odd) = if self.pair { (2, 2) } else { (1, 1) };
        size[0] *= halves;
        size.iter_mut().zip(self.fours).for_each(|(n, fours)| *n -= if fours { 0 } else { odd });
        Some(ProductKind { layout, size, half: self.half, pair: self.pair })
    }
}
