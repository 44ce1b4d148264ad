//! Kernels for matrix products, as data.
//!
//! Every f32 candidate sums k in ascending order into one accumulator an output, with fused multiply-adds, so
//! the choice changes the time, not the bits; only those that cut the sum ([`Candidate::chunk`]) or multiply in
//! half precision differ.

use super::dtype::Dtype;
use super::fragments::{Fragment, Staging};
use super::product::Layout;
use super::target::Target;

/// Most terms of one part of a cut sum.
pub(crate) const MAX_CHUNK: u32 = 32_768;

/// A kernel for matrix products, as data; `ops::matmul` generates its WGSL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Candidate {
    /// No workgroup memory: each of `lanes` invocations holds `rows` x `columns` outputs in registers, the lanes
    /// side by side along n. For software drivers, where a workgroup is a SIMD unit.
    Lanes {
        /// Invocations of a workgroup.
        lanes: u32,
        /// Rows of C.
        rows: u32,
        /// Columns of C for each lane.
        columns: u32,
        /// Terms of the sum in one turn of the loop.
        unroll: u32,
        /// Each lane loads one row of A, and the others get it by `subgroupBroadcast`; needs subgroups of
        /// exactly `lanes`. Otherwise every lane loads all rows.
        broadcast: bool,
    },
    /// Tiles of A and B staged in workgroup memory, `thread` outputs in the registers of each invocation. For GPUs.
    Tiles {
        /// Rows and columns of C of a workgroup.
        block: [u32; 2],
        /// Terms staged at a time.
        depth: u32,
        /// Rows and columns of C of an invocation: multiples of 4.
        thread: [u32; 2],
        /// Terms of one part of the sum: a multiple of `depth`, or 0 for the whole sum in one part. Parts are computed
        /// side by side and added in order. A length, not a number of parts: a sum that grows keeps its boundaries.
        chunk: u32,
    },
    /// Matrix units, summing in f32, from tiles staged in workgroup memory. For operands that are both f16, or, with
    /// fragments of f32, for others.
    Cooperative {
        /// What the unit multiplies.
        fragment: Fragment,
        /// Rows and columns of C of a workgroup.
        block: [u32; 2],
        /// Terms staged at a time: a multiple of the side of a fragment.
        depth: u32,
        /// Warp tiles down and across the block: each is computed by one subgroup.
        subgroups: [u32; 2],
        /// Invocations for each of them: a power of two. The kernel is right, and its bits are the same, whatever the
        /// size of the subgroups that a driver makes; it is fastest where this is their size.
        lanes: u32,
        /// Fragments of A and B are loaded from storage, without staging, where they lie inside.
        direct: bool,
        /// As in [`Candidate::Tiles`].
        chunk: u32,
    },
}

impl Candidate {
    /// Rows and columns of C that one workgroup computes.
    pub fn block(self) -> [usize; 2] {
        match self {
            Self::Lanes { lanes, rows, columns, .. } => [rows as usize, (lanes * columns) as usize],
            Self::Tiles { block, .. } | Self::Cooperative { block, .. } => block.map(|n| n as usize),
        }
    }

    /// Terms of one part of the sum; 0 where the sum is in one part.
    pub fn chunk(self) -> usize {
        match self {
            Self::Lanes { .. } => 0,
            Self::Tiles { chunk, .. } | Self::Cooperative { chunk, .. } => chunk as usize,
        }
    }

    /// The same with parts of `terms` terms; 0 for the whole sum in one part.
    pub fn chunked(mut self, terms: u32) -> Self {
        if let Self::Tiles { chunk, .. } | Self::Cooperative { chunk, .. } = &mut self {
            *chunk = terms;
        }
        self
    }

    /// The same with the sum in one part.
    pub(crate) fn uncut(self) -> Self {
        self.chunked(0)
    }

    /// The same, able to take two operands B; `None` where there is no such kernel.
    pub fn paired(self) -> Option<Self> {
        match self {
            Self::Lanes { .. } => None,
            Self::Tiles { .. } => Some(self),
            Self::Cooperative { fragment, block, depth, subgroups, lanes, chunk, .. } => {
                Some(Self::Cooperative { fragment, block, depth, subgroups, lanes, chunk, direct: false })
            }
        }
    }

    /// Whether each output is one sum in ascending order of products in f32: all such candidates give the same bits.
    pub fn keeps_order(self) -> bool {
        self.chunk() == 0 && !matches!(self, Self::Cooperative { .. })
    }

    /// What its sums are made of: fragments of matrix units, or single terms. Two candidates of one order that do not cut
    /// sums give the same bits.
    pub fn order(self) -> Option<Fragment> {
        match self {
            Self::Cooperative { fragment, .. } => Some(fragment),
            Self::Lanes { .. } | Self::Tiles { .. } => None,
        }
    }

    /// Whether it can be used for operands that are both f16, or for others.
    pub fn multiplies(self, half: bool) -> bool {
        match self {
            Self::Cooperative { fragment, .. } => half == (fragment.operand == Dtype::F16),
            Self::Lanes { .. } | Self::Tiles { .. } => true,
        }
    }

    /// Invocations of a workgroup.
    pub fn invocations(self) -> u32 {
        match self {
            Self::Lanes { lanes, .. } => lanes,
            Self::Tiles { block, thread, .. } => (block[0] / thread[0]) * (block[1] / thread[1]),
            Self::Cooperative { subgroups: [down, across], lanes, .. } => down * across * lanes,
        }
    }

    /// Bytes of workgroup memory.
    pub fn workgroup_bytes(self) -> u32 {
        match self {
            Self::Lanes { .. } => 0,
            // Two tiles of vectors, a row of each padded by one.
            Self::Tiles { block, depth, .. } => 16 * depth * ((block[0] + block[1]) / 4 + 2),
            Self::Cooperative { fragment, block, depth, subgroups: [down, across], .. } => {
                let bytes = |layout| Staging::new(layout, fragment, block, depth, down * across).bytes();
                Layout::ALL.into_iter().map(bytes).max().unwrap_or(0)
            }
        }
    }

    /// Whether a device can run it.
    pub fn fits(self, target: &Target) -> bool {
        let able = match self {
            Self::Lanes { lanes, broadcast, .. } => !broadcast || target.subgroup_size() == Some(lanes),
            Self::Tiles { .. } => true,
            Self::Cooperative { fragment, lanes, .. } => {
                let [least, most] = target.subgroup_sizes;
                // Matrix operations need whole subgroups, whatever their size.
                let whole = most > 0 && self.invocations().is_multiple_of(most);
                target.fragments.has(fragment) && whole && (least..=most).contains(&lanes)
            }
        };
        able && self.invocations() <= target.invocations && self.workgroup_bytes() <= target.workgroup_bytes
    }
}
