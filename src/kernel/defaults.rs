//! Which kernel computes a matrix product of which nothing was measured.
//!
//! By the number of blocks alone, never by the length of the sum: what is chosen stays the same where k grows, and f32
//! candidates give the same bits whichever is chosen.

use super::candidate::Candidate;
use super::dtype::Dtype;
use super::fragments::Fragment;
use super::product::{Layout, ProductKind};
use super::target::Target;

impl Target {
    /// The candidate used where nothing was measured.
    pub fn default_candidate(&self, product: ProductKind) -> Candidate {
        let units = if product.half && !self.software { self.default_cooperative(product.size) } else { None };
        units.unwrap_or_else(|| self.default_scalar(product))
    }

    /// The order of all sums of products of f16 operands, or of others: one for all sizes, so that a model that grows into
    /// other sizes, and other kernels, keeps the bits of its sums.
    pub(crate) fn default_order(&self, half: bool) -> Option<Fragment> {
        self.default_candidate(ProductKind { layout: Layout::NN, size: [1; 3], half, pair: false }).order()
    }

    /// The same without matrix units, which some drivers have and compute wrongly.
    pub(crate) fn default_scalar(&self, product: ProductKind) -> Candidate {
        let size = product.size;
        if self.software { self.default_lanes(size) } else { default_tiles(product.layout, size) }
    }

    /// Matrix units: where blocks are few, smaller ones, of which an H200 computes 4096 x 768 x 3072 at 164 instead of
    /// 144 TFLOP/s.
    fn default_cooperative(&self, size: [usize; 3]) -> Option<Candidate> {
        let fragment = self.fragments.best(Dtype::F16)?;
        let blocks: &[[u32; 2]] = match fragment.side {
            8 => &[[64, 64]],
            _ if are_many(size) => &[[128, 128], [64, 128]],
            _ => &[[64, 128]],
        };
        let of = |block, lanes| Candidate::Cooperative {
            fragment,
            block,
            depth: 32,
            subgroups: [2, 2],
            lanes,
            direct: false,
            chunk: 0,
        };
        let mut all = blocks.iter().flat_map(|&block| self.lanes().into_iter().map(move |lanes| of(block, lanes)));
        all.find(|candidate| candidate.fits(self))
    }

    fn default_lanes(&self, [m, _, _]: [usize; 3]) -> Candidate {
        let lanes = self.subgroup_size().unwrap_or(8);
        let broadcast = self.subgroup_size().is_some();
        match (m, broadcast) {
            (0..=4, _) => Candidate::Lanes { lanes, rows: 1, columns: 8, unroll: 4, broadcast: false },
            (5..=16, true) => Candidate::Lanes { lanes, rows: 16, columns: 4, unroll: 4, broadcast },
            (_, true) => Candidate::Lanes { lanes, rows: 32, columns: 4, unroll: 4, broadcast },
            (_, false) => Candidate::Lanes { lanes, rows: 16, columns: 4, unroll: 4, broadcast },
        }
    }
}

/// Whether C has enough blocks of 128 x 128 for large blocks to be the faster ones; on an H200, five for each of its 132
/// multiprocessors.
fn are_many([m, n, _]: [usize; 3]) -> bool {
    m.div_ceil(128) * n.div_ceil(128) >= 640
}

/// What won on an H200, in TFLOP/s: 128x128x8-8x16 42 to 46 where blocks are many, 64x64x8-8x8 32 to 42 against 22 to 35
/// where they are few, and there 128x64x8-8x8 36 against 33 in A B^T.
fn default_tiles(layout: Layout, size: [usize; 3]) -> Candidate {
    let [m, n, _] = size;
    let one = |block, depth, thread| Candidate::Tiles { block, depth, thread, chunk: 0 };
    match layout {
        _ if m.min(n) < 64 => one([32, 32], 16, [4, 4]),
        _ if are_many(size) => one([128, 128], 8, [8, 16]),
        Layout::NT if m.div_ceil(128) * n.div_ceil(64) >= 256 => one([128, 64], 8, [8, 8]),
        _ => one([64, 64], 8, [8, 8]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fragments::Fragments;
    use super::*;

    /// By the number of blocks, and matrix units only where they fit.
    #[test]
    fn defaults_follow_the_size() {
        let nvidia = Target {
            f16: true,
            subgroup_sizes: [32; 2],
            fragments: Fragments::of(|fragment| fragment.side == 16),
            workgroup_bytes: 48 << 10,
            ..Target::WEBGPU
        };
        let of = |target: Target, layout, size, half| {
            target.default_candidate(ProductKind { layout, size, half, pair: false }).to_string()
        };
        for (layout, size, f32_name, f16_name) in [
            (Layout::NN, [4096, 768, 3072], "tiles-64x64x8-8x8", "cooperative16-64x128x32-2x2-w32"),
            (Layout::NT, [4096, 768, 768], "tiles-128x64x8-8x8", "cooperative16-64x128x32-2x2-w32"),
            (Layout::TN, [50_304, 768, 1024], "tiles-128x128x8-8x16", "cooperative16-128x128x32-2x2-w32"),
            (Layout::NT, [1, 50_304, 768], "tiles-32x32x16-4x4", "cooperative16-64x128x32-2x2-w32"),
        ] {
            assert_eq!(of(nvidia, layout, size, false), f32_name);
            assert_eq!(of(nvidia, layout, size, true), f16_name);
            let small = Target { workgroup_bytes: 16 << 10, ..nvidia };
            assert_eq!(of(small, layout, size, true), f32_name);
            // Sizes that vary, as RADV's and Intel's: whole subgroups of any of them.
            for (sizes, lanes) in [([32, 64], "w32"), ([8, 32], "w32"), ([64, 64], "w64")] {
                let varying = Target { subgroup_sizes: sizes, ..nvidia };
                assert_eq!(of(varying, layout, size, true), f16_name.replace("w32", lanes));
            }
            let lanes = of(Target { software: true, ..nvidia }, layout, size, true);
            assert!(lanes.starts_with("lanes32-"), "{lanes}");
        }
    }
}
