//! How a device computes its matrix products: which of several kernels for which sizes.
//!
//! Every f32 candidate sums k in ascending order into one accumulator an output, with fused multiply-adds, so
//! the choice changes the time, not the bits; only those that cut the sum ([`Candidate::chunk`]) or multiply in
//! half precision differ. A sum is never cut without a measurement that says so.

use super::device::Gpu;
use super::fragments::{Fragment, Fragments, Staging};
use super::kernel::Dtype;
use super::schedule::Schedule;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which operand of C = op(A) op(B) is transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// A B
    NN,
    /// A B^T
    NT,
    /// A^T B
    TN,
}

impl Layout {
    /// All three.
    pub const ALL: [Self; 3] = [Self::NN, Self::NT, Self::TN];
}

/// Most terms of one part of a cut sum.
pub const MAX_CHUNK: u32 = 32_768;

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
    pub fn unsplit(self) -> Self {
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
}

/// What tuning needs to know of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProductKind {
    /// Which operand is transposed.
    pub layout: Layout,
    /// m, n, k.
    pub size: [usize; 3],
    /// Whether both operands are f16.
    pub half: bool,
    /// Whether the upper and the lower half of C have an operand B each.
    pub pair: bool,
}

/// Products that are alike for the choice of a kernel: the layout, m, n, k rounded up to powers of two,
/// the type of the operands, and whether there are two operands B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeClass {
    /// Which operand is transposed.
    pub layout: Layout,
    /// m, n, k, each a power of two.
    pub size: [usize; 3],
    /// Whether both operands are f16.
    pub half: bool,
    /// Whether the upper and the lower half of C have an operand B each.
    pub pair: bool,
}

impl ShapeClass {
    /// The class of one product.
    pub fn of(product: ProductKind) -> Self {
        let ProductKind { layout, size, half, pair } = product;
        Self { layout, size: size.map(|n| n.max(1).next_power_of_two()), half, pair }
    }
}

/// What decides which candidates a device can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ability {
    /// Runs on the CPU.
    pub software: bool,
    /// Size of every subgroup, where they are there and of one size.
    pub subgroup: Option<u32>,
    /// Fewest and most lanes of a subgroup; 0 where there are none.
    pub subgroup_sizes: [u32; 2],
    /// Whether subgroups have a barrier of their own.
    pub subgroup_barrier: bool,
    /// Most invocations of a workgroup.
    pub invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Bytes of the largest storage binding, and of the buffer that is bound.
    pub binding_bytes: u64,
    /// f16 in storage and arithmetic.
    pub half: bool,
    /// What its matrix units multiply, where they may be used.
    pub fragments: Fragments,
}

impl Ability {
    /// What every WebGPU device can do.
    pub const WEBGPU_DEFAULT: Self = Self {
        software: false,
        subgroup: None,
        subgroup_sizes: [0; 2],
        subgroup_barrier: false,
        invocations: 256,
        workgroup_bytes: 16 * 1024,
        binding_bytes: 128 << 20,
        half: false,
        fragments: Fragments::NONE,
    };

    /// What an open device can do.
    pub fn of(gpu: &Gpu) -> Self {
        let offered = gpu.features.contains(wgpu::Features::SUBGROUP);
        let [least, most] =
            [gpu.info.subgroup_min_size, gpu.info.subgroup_max_size].map(|n| if offered { n } else { 0 });
        let one_size = least == most && least > 0;
        Self {
            software: gpu.software,
            subgroup: one_size.then_some(least),
            subgroup_sizes: [least, most],
            subgroup_barrier: gpu.features.contains(wgpu::Features::SUBGROUP_BARRIER),
            invocations: gpu.limits.max_compute_invocations_per_workgroup,
            workgroup_bytes: gpu.limits.max_compute_workgroup_storage_size,
            binding_bytes: gpu.limits.max_storage_buffer_binding_size.min(gpu.limits.max_buffer_size),
            half: gpu.features.contains(wgpu::Features::SHADER_F16),
            fragments: gpu.fragments,
        }
    }

    /// Sizes that subgroups may have, the likely ones first: where a driver chooses among several, it is mostly 32.
    pub fn lanes(&self) -> Vec<u32> {
        let [least, most] = self.subgroup_sizes;
        let mut lanes: Vec<u32> = (0..8).map(|i| 1 << i).filter(|n| (least..=most).contains(n)).collect();
        lanes.sort_by_key(|n| n.abs_diff(32));
        lanes
    }

    /// Whether a device can run a candidate.
    pub fn fits(&self, candidate: Candidate) -> bool {
        let able = match candidate {
            Candidate::Lanes { lanes, broadcast, .. } => !broadcast || self.subgroup == Some(lanes),
            Candidate::Tiles { .. } => true,
            Candidate::Cooperative { fragment, lanes, .. } => {
                let [least, most] = self.subgroup_sizes;
                // Matrix operations need whole subgroups, whatever their size.
                let whole = most > 0 && candidate.invocations().is_multiple_of(most);
                self.fragments.has(fragment) && whole && (least..=most).contains(&lanes)
            }
        };
        able && candidate.invocations() <= self.invocations && candidate.workgroup_bytes() <= self.workgroup_bytes
    }
}

/// Which candidate computes which product. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Choices(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    ability: Ability,
    forced: Option<Candidate>,
    attention: Option<Schedule>,
    table: BTreeMap<ShapeClass, Candidate>,
    whole: BTreeMap<ShapeClass, Candidate>,
}

impl Choices {
    /// The default candidates of a device.
    pub fn usual(ability: Ability) -> Self {
        Self::nothing_measured(ability, None)
    }

    /// The default candidates of an open device.
    pub fn of(gpu: &Gpu) -> Self {
        Self::usual(Ability::of(gpu))
    }

    /// One candidate for everything: for tests and benchmarks.
    pub fn forced(ability: Ability, candidate: Candidate) -> Self {
        Self::nothing_measured(ability, Some(candidate))
    }

    fn nothing_measured(ability: Ability, forced: Option<Candidate>) -> Self {
        Self(Arc::new(Inner { ability, forced, attention: None, table: BTreeMap::new(), whole: BTreeMap::new() }))
    }

    /// The same with what was measured; classes not in `table` get the default candidate.
    pub fn with_table(&self, table: BTreeMap<ShapeClass, Candidate>) -> Self {
        Self(Arc::new(Inner { table, ..(*self.0).clone() }))
    }

    /// The same with what was measured for products whose sums must not be cut, of classes for which `table` names a
    /// candidate that cuts them.
    pub fn with_whole(&self, whole: BTreeMap<ShapeClass, Candidate>) -> Self {
        Self(Arc::new(Inner { whole, ..(*self.0).clone() }))
    }

    /// The same with one schedule for every attention that can take it; `None`: the usual ones.
    pub fn with_attention(&self, attention: Option<Schedule>) -> Self {
        Self(Arc::new(Inner { attention, ..(*self.0).clone() }))
    }

    /// The schedule that every attention should have that can take it.
    pub fn attention(&self) -> Option<Schedule> {
        self.0.attention
    }

    /// What the device can do.
    pub fn ability(&self) -> &Ability {
        &self.0.ability
    }

    /// What was measured.
    pub fn table(&self) -> &BTreeMap<ShapeClass, Candidate> {
        &self.0.table
    }

    /// Whether one candidate computes everything.
    pub fn is_forced(&self) -> bool {
        self.0.forced.is_some()
    }

    /// What was measured, as names: for files.
    pub fn names(&self) -> BTreeMap<String, String> {
        self.0.table.iter().map(|(class, candidate)| (class.to_string(), candidate.to_string())).collect()
    }

    /// The candidate for one product.
    pub fn pick(&self, product: ProductKind) -> Candidate {
        let Inner { ability, forced, table, .. } = &*self.0;
        let measured = || table.get(&ShapeClass::of(product)).copied();
        let chosen = forced.or_else(measured).filter(|candidate| candidate.multiplies(product.half));
        chosen.unwrap_or_else(|| ability.default_candidate(product))
    }

    /// The same for a product whose sums must not be cut. Of those that do not cut them all give the same bits.
    pub fn pick_whole(&self, product: ProductKind) -> Candidate {
        let picked = self.pick(product);
        let measured = || self.0.whole.get(&ShapeClass::of(product)).copied().filter(|_| !self.is_forced());
        let same_bits =
            |other: &Candidate| other.multiplies(product.half) && other.chunk() == 0 && other.order() == picked.order();
        if picked.chunk() == 0 { picked } else { measured().filter(same_bits).unwrap_or_else(|| picked.unsplit()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_round_up_and_unknown_classes_get_the_default_candidate() {
        let product = |layout, size| ProductKind { layout, size, half: false, pair: false };
        let class = ShapeClass::of(product(Layout::NT, [1000, 512, 1]));
        assert_eq!(class.to_string(), "NT 1024x512x1");
        assert_eq!("NT 1024x512x1".parse::<ShapeClass>().unwrap(), class);
        assert!("NT 1000x512x1".parse::<ShapeClass>().is_err() && "NT 8x8".parse::<ShapeClass>().is_err());
        let pair = ShapeClass { half: true, pair: true, ..class };
        assert_eq!(pair.to_string(), "NT 1024x512x1 f16 pair");
        assert_eq!(pair.to_string().parse::<ShapeClass>().unwrap(), pair);
        assert!("NT 1024x512x1 pair f16".parse::<ShapeClass>().is_err());
        let choices = Choices::usual(Ability::WEBGPU_DEFAULT);
        let other = Candidate::Tiles { block: [32; 2], depth: 8, thread: [4; 2], chunk: 0 };
        let choices = choices.with_table([(class, other)].into());
        assert_eq!(choices.pick(product(Layout::NT, [600, 300, 1])), other);
        let unknown = product(Layout::NN, [600, 300, 1]);
        assert_eq!(choices.pick(unknown), Ability::WEBGPU_DEFAULT.default_candidate(unknown));
    }

    #[test]
    fn sums_that_must_not_be_cut_have_a_choice_of_their_own() {
        let product = ProductKind { layout: Layout::NN, size: [64, 64, 4096], half: false, pair: false };
        let class = ShapeClass::of(product);
        let small = Candidate::Tiles { block: [32; 2], depth: 8, thread: [4; 2], chunk: 0 };
        let cut = Candidate::Tiles { block: [128, 64], depth: 8, thread: [8; 2], chunk: 512 };
        let choices = Choices::usual(Ability::WEBGPU_DEFAULT).with_table([(class, cut)].into());
        assert_eq!([choices.pick(product), choices.pick_whole(product)], [cut, cut.unsplit()]);
        let choices = choices.with_whole([(class, small)].into());
        assert_eq!([choices.pick(product), choices.pick_whole(product)], [cut, small]);
        // Where the table has no sums that are cut, it is what counts.
        let whole = choices.with_table([(class, cut.unsplit())].into());
        assert_eq!(whole.pick_whole(product), cut.unsplit());
        // Other bits.
        let wrong = choices.with_whole([(class, small.chunked(512))].into());
        assert_eq!(wrong.pick_whole(product), cut.unsplit());
    }
}
