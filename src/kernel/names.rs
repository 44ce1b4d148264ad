//! Names of kernels of matrix products and of classes of them, for files and for people: written, and read with care.

use super::candidate::{Candidate, MAX_CHUNK};
use super::fragments::Fragment;
use super::product::{Layout, ProductKind, ShapeClass};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Lanes { lanes, rows, columns, unroll, broadcast } => {
                let how = if broadcast { "-broadcast" } else { "" };
                write!(f, "lanes{lanes}-{rows}x{columns}-u{unroll}{how}")
            }
            Self::Tiles { block: [m, n], depth, thread: [tm, tn], .. } => {
                write!(f, "tiles-{m}x{n}x{depth}-{tm}x{tn}")
            }
            Self::Cooperative { fragment, block: [m, n], depth, subgroups: [down, across], lanes, direct, .. } => {
                let how = if direct { "-direct" } else { "" };
                write!(f, "cooperative{fragment}-{m}x{n}x{depth}-{down}x{across}-w{lanes}{how}")
            }
        }?;
        if self.chunk() > 0 { write!(f, "-k{}", self.chunk()) } else { Ok(()) }
    }
}

impl FromStr for Candidate {
    type Err = Error;

    /// The inverse of its `Display`.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| {
            Error::usage(format!(
                "\"{text}\" is no matrix-product kernel; `tokenformer bench matmul` lists those of this adapter"
            ))
        })
    }
}

fn parse(text: &str) -> Option<Candidate> {
    let mut parts = text.split('-');
    let kind = parts.next()?;
    let chunk_of = |part: Option<&str>| part.map_or(Some(0), |part| part.strip_prefix('k')?.parse().ok());
    let candidate = if let Some(lanes) = kind.strip_prefix("lanes") {
        let [rows, columns] = sizes(parts.next()?)?;
        let unroll = parts.next()?.strip_prefix('u')?.parse().ok()?;
        let broadcast = parts.next().is_some();
        Candidate::Lanes { lanes: lanes.parse().ok()?, rows, columns, unroll, broadcast }
    } else if let Some(fragment) = kind.strip_prefix("cooperative") {
        let [m, n, depth] = sizes(parts.next()?)?;
        let subgroups = sizes(parts.next()?)?;
        let lanes = parts.next()?.strip_prefix('w')?.parse().ok()?;
        let (fragment, next) = (Fragment::named(fragment)?, parts.next());
        let direct = next == Some("direct");
        let chunk = chunk_of(if direct { parts.next() } else { next })?;
        Candidate::Cooperative { fragment, block: [m, n], depth, subgroups, lanes, direct, chunk }
    } else {
        let [m, n, depth] = sizes(parts.next()?)?;
        let thread = sizes(parts.next()?)?;
        Candidate::Tiles { block: [m, n], depth, thread, chunk: chunk_of(parts.next())? }
    };
    // Names come from files too: what one says must be said exactly, and a kernel must be one that can be generated,
    // its text no longer than a compiler takes.
    let up_to = |most: u32, numbers: &[u32]| numbers.iter().all(|n| (1..=most).contains(n));
    let chunk_fits = |chunk: u32, depth: u32| chunk <= MAX_CHUNK && chunk.is_multiple_of(depth);
    let sound = match candidate {
        Candidate::Lanes { lanes, rows, columns, unroll, .. } => {
            up_to(128, &[lanes, rows]) && up_to(16, &[columns, unroll])
        }
        Candidate::Tiles { block, depth, thread, chunk } => {
            up_to(512, &block)
                && up_to(32, &[depth])
                && up_to(16, &thread)
                && up_to(128, &[thread[0] * thread[1]])
                && depth.is_multiple_of(4)
                && chunk_fits(chunk, depth)
                && (0..2).all(|i| thread[i].is_multiple_of(4) && block[i].is_multiple_of(thread[i]))
        }
        Candidate::Cooperative { fragment: Fragment { side, .. }, block, depth, subgroups, lanes, chunk, .. } => {
            up_to(128, &[lanes, depth])
                && lanes.is_power_of_two()
                && up_to(16, &subgroups)
                && up_to(512, &block)
                && depth.is_multiple_of(side)
                && chunk_fits(chunk, depth)
                && (0..2).all(|i| block[i].is_multiple_of(subgroups[i] * side))
                && up_to(64, &[block[0] / subgroups[0] * (block[1] / subgroups[1]) / side.pow(2)])
        }
    };
    (sound && candidate.to_string() == text).then_some(candidate)
}

/// "64x64x16" as numbers.
fn sizes<const N: usize>(text: &str) -> Option<[u32; N]> {
    let numbers: Vec<u32> = text.split('x').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

impl FromStr for ShapeClass {
    type Err = Error;

    /// The inverse of its `Display`.
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (layout, size) = text.split_once(' ')?;
            let (size, pair) = size.strip_suffix(" pair").map_or((size, false), |size| (size, true));
            let (size, half) = size.strip_suffix(" f16").map_or((size, false), |size| (size, true));
            let layout = Layout::ALL.into_iter().find(|known| format!("{known:?}") == layout)?;
            let size = sizes(size)?.map(|n: u32| n as usize);
            let class = Self::of(ProductKind { layout, size, half, pair });
            (class.to_string() == text).then_some(class)
        };
        parse().ok_or_else(|| Error::input(format!("\"{text}\" is no class of matrix products, such as NT 512x64x64")))
    }
}

impl fmt::Display for ShapeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [m, n, k] = self.size;
        let [half, pair] = [(self.half, " f16"), (self.pair, " pair")].map(|(is, name)| if is { name } else { "" });
        write!(f, "{:?} {m}x{n}x{k}{half}{pair}", self.layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in [
            "lanes8-16x4-u4-broadcast",
            "lanes8-1x8-u4",
            "tiles-64x64x16-4x4",
            "tiles-64x32x8-8x4-k2048",
            "cooperative16-128x64x32-2x2-w32",
            "cooperative8f32-64x64x32-2x2-w8-direct",
            "cooperative8-64x64x32-2x2-w8-direct-k4096",
            "cooperative8-64x64x32-2x2-w8-k4096",
        ] {
            assert_eq!(name.parse::<Candidate>().unwrap().to_string(), name);
        }
        let wrong = ["", "lanes", "lanes8-16-u4", "lanes8-16x4-u4-b", "lanes0-1x1-u1", "tiles-64x64x16-4x4-k0"];
        let huge = [
            "lanes8-4294967295x4294967295-u4",
            "lanes8-16x4-u999999",
            "tiles-4096x4096x16-4x4",
            "tiles-64x64x16-16x16",
        ];
        for name in wrong.into_iter().chain(huge).chain([
            "tiles-64x64x16-3x4",
            "tiles-66x64x16-4x4",
            "tiles-64x64x16-4x4-k24",
            "tiles-64x64x16-4x4-k65536",
            "tiles-64x64x16-4x4-split4",
            "tiles-64x64x6-4x4",
            "cooperative16-128x64x32-2x2-s32",
            "cooperative16-128x64x32-2x2-w24",
            "cooperative4-64x64x32-2x2-w32",
            "cooperative16-128x64x32-2x2-w32-k4096-direct",
            "cooperative8-512x512x32-2x2-w32",
        ]) {
            assert!(name.parse::<Candidate>().is_err(), "{name}");
        }
    }
}
