//! Which candidates a device can run, and their kernels.

use super::cooperative::Cooperative;
use super::lanes::Lanes;
use super::source::{ProductForm, Types, Vectors};
use super::tiles::Tiles;
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Candidate, Dtype, Kernel, Layout, ProductKind, Target};

/// The kernel of a candidate. `vectors`: which operands it may take in vectors; one that cannot leaves that. Of a pair only a
/// candidate that is [`Candidate::paired`].
pub fn kernel(candidate: Candidate, layout: Layout, types: Types, vectors: Vectors, form: ProductForm) -> &'static Kernel {
    let name = |suffix: &str| {
        let layout = format!("{layout:?}").to_lowercase();
        format!("matmul-{layout}-{}{}{}{suffix}", candidate.uncut(), types.suffix(), form.suffix())
    };
    let bindings: &[_] = if form == ProductForm::Pair { &[Read, Read, Write, Read] } else { &[Read, Read, Write] };
    let kernel = match candidate {
        Candidate::Lanes { lanes, rows, columns, unroll, broadcast } => {
            let a_vectors = vectors.a && broadcast && layout != Layout::TN && unroll.is_multiple_of(4);
            let name = name(if a_vectors { "-vec4" } else { "" });
            let lanes = Lanes { lanes, rows, columns, unroll, broadcast, a_vectors };
            Kernel::generated(&name, bindings, || lanes.generate(&name, layout, types, form))
        }
        Candidate::Tiles { block, depth, thread, .. } => {
            let name = name(&vectors.suffix());
            let tiles = Tiles { block, depth, thread };
            Kernel::generated(&name, bindings, || tiles.generate(&name, layout, types, vectors, form))
        }
        Candidate::Cooperative { fragment, block, depth, subgroups, lanes, direct, .. } => {
            let name = name(&vectors.suffix());
            let kind = Cooperative { fragment, block, depth, subgroups, lanes, direct };
            Kernel::generated(&name, bindings, || kind.generate(&name, layout, types, vectors, form))
        }
    };
    #[cfg(test)]
    let kernel = super::planted::instead(candidate, kernel);
    kernel
}

/// The candidates worth timing for a product, first the default one without matrix units: all others are held against it.
/// `all`: also those that are rarely the best.
pub fn candidates(target: &Target, product: ProductKind, all: bool) -> Vec<Candidate> {
    let ProductKind { size, half, pair, .. } = product;
    let mut list = vec![target.default_scalar(product)];
    // Software drivers emulate matrix units, slowly.
    if !target.software {
        list.extend(with_parts(cooperative(target, half, all), size, all));
    }
    if target.software {
        list.extend(software(target, size, all));
    } else {
        list.extend(with_parts(tiles(all), size, all));
    }
    let mut known: Vec<Candidate> = Vec::new();
    for candidate in list {
        // Where lanes can share what they load, the others have never been the fastest.
        let beaten = matches!(candidate, Candidate::Lanes { broadcast: false, rows: 5.., .. });
        if !all && beaten && target.subgroup_size().is_some() && !known.is_empty() {
            continue;
        }
        let able = candidate.fits(target) && (!pair || candidate.paired() == Some(candidate));
        if able && !known.contains(&candidate) {
            known.push(candidate);
        }
    }
    known
}

fn software(target: &Target, [m, _, _]: [usize; 3], all: bool) -> Vec<Candidate> {
    let lanes = target.subgroup_size().unwrap_or(8);
    let one = |rows, columns, unroll, broadcast| Candidate::Lanes { lanes, rows, columns, unroll, broadcast };
    let mut list = Vec::new();
    if m <= 4 {
        list.extend([one(1, 8, 4, false), one(1, 4, 8, false), one(4, 4, 4, false)]);
    }
    if m > 4 || all {
        list.push(one(8, 4, 4, true));
        list.push(one(8, 4, 4, false));
    }
    if m > 16 || all {
        list.push(one(64, 4, 4, true));
        list.push(one(8, 8, 1, false));
    }
    if all {
        list.extend([
            one(32, 4, 4, true),
            one(64, 4, 8, true),
            one(32, 4, 8, true),
            one(16, 4, 8, true),
            one(16, 4, 4, true),
            one(64, 3, 8, true),
            one(32, 3, 8, true),
            one(16, 2, 8, true),
            one(32, 4, 4, false),
            Candidate::Tiles { block: [64; 2], depth: 16, thread: [4; 2], chunk: 0 },
        ]);
    }
    list
}

fn cooperative(target: &Target, half: bool, all: bool) -> Vec<Candidate> {
    let Some(fragment) = target.fragments.best(if half { Dtype::F16 } else { Dtype::F32 }) else { return Vec::new() };
    let one = |block, subgroups, direct| (block, subgroups, direct);
    let mut shapes = if fragment.side == 8 {
        vec![one([64, 64], [2, 2], false), one([64, 32], [2, 2], false), one([64, 64], [2, 2], true)]
    } else {
        // Four subgroups of 64 x 64 are the fastest where C has blocks enough: 203 TFLOP/s on an H200, the others 170 to 172.
        vec![one([128, 128], [2, 2], false), one([64, 128], [2, 2], false), one([128, 256], [2, 4], false)]
    };
    if all && fragment.side == 8 {
        shapes.extend([one([32, 32], [2, 2], false), one([64, 64], [2, 4], false), one([32, 32], [1, 1], true)]);
    } else if all {
        shapes.extend([one([64, 64], [2, 2], false), one([128, 64], [2, 2], false), one([64, 64], [1, 1], true)]);
    }
    let laid_out = target.lanes().into_iter().flat_map(|lanes| {
        let kind = move |(block, subgroups, direct)| Candidate::Cooperative {
            fragment,
            block,
            // Of 16 or 64 terms an H200 did 140 or 133 to 164 TFLOP/s in place of 203.
            depth: 32,
            subgroups,
            lanes,
            direct,
            chunk: 0,
        };
        shapes.iter().copied().map(kind).collect::<Vec<_>>()
    });
    laid_out.filter(|&candidate| candidate.fits(target)).collect()
}

fn tiles(all: bool) -> Vec<Candidate> {
    let one = |block, depth, thread| Candidate::Tiles { block, depth, thread, chunk: 0 };
    let mut list = vec![
        one([64, 64], 8, [8, 8]),
        one([128, 64], 8, [8, 8]),
        // 8 x 16 outputs do 43 (A B) and 45 (A^T B) TFLOP/s on an H200, 8 x 8 do 41 and 40. 64 x 64 blocks win where C is small.
        one([128, 128], 8, [8, 16]),
        one([64, 64], 16, [8, 8]),
        one([128, 64], 16, [8, 8]),
        one([128, 128], 16, [8, 16]),
        one([128, 128], 8, [8, 8]),
        one([32, 32], 16, [4, 4]),
    ];
    if all {
        list.extend([
            one([128, 128], 8, [16, 8]),
            one([64, 128], 8, [8, 8]),
            one([128, 128], 16, [8, 8]),
            one([64, 64], 16, [8, 4]),
            one([64, 64], 16, [4, 4]),
            one([32, 32], 8, [4, 4]),
        ]);
    }
    list
}

/// Blocks of C that keep a large GPU busy: two for each of some 130 multiprocessors.
const ENOUGH_BLOCKS: usize = 256;
/// Lengths of the parts of a sum, and how many parts there are at least.
const CHUNKS: [u32; 5] = [512, 1024, 2048, 4096, 8192];
const FEWEST_PARTS: usize = 4;

/// `list`, and behind it those of its members that leave a GPU idle, with their sums cut. `all`: in several lengths.
fn with_parts(mut list: Vec<Candidate>, [m, n, k]: [usize; 3], all: bool) -> Vec<Candidate> {
    let few = |candidate: &Candidate| {
        let [rows, columns] = candidate.block();
        m.div_ceil(rows) * n.div_ceil(columns) < ENOUGH_BLOCKS
    };
    let (lengths, members) = if all { (2, 4) } else { (1, 2) };
    let parted = |chunk: &u32| k >= FEWEST_PARTS * *chunk as usize;
    let chunks: Vec<u32> = CHUNKS.into_iter().rev().filter(parted).take(lengths).collect();
    let idle: Vec<Candidate> = list.iter().copied().filter(few).take(members).collect();
    list.extend(idle.into_iter().flat_map(|one| chunks.iter().map(move |&chunk| one.chunked(chunk))));
    list
}
