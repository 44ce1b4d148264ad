//! Kernels that must never be chosen, in place of good ones: for the tests of tuning.

use crate::kernel::{COSTS_DEVICE, Candidate, Kernel};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What is wrong with a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedFault {
    /// Does nothing, which is fast.
    Idle,
    /// Leaves out the last tile.
    LastTile,
    /// Is not WGSL.
    NotWgsl,
    /// Has no such entry point.
    NoEntry,
    /// Costs the device when it is compiled.
    CostsDevice,
    /// Adds a millionth of what C held before, which is another number in each run, where C is f32: in f16 it would be lost.
    DiffersBetweenRuns,
    /// Does nothing where C is f16.
    HalfResult,
}

impl PlantedFault {
    /// Each that a product of f32 can have.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::LastTile, Self::NotWgsl, Self::NoEntry, Self::CostsDevice, Self::DiffersBetweenRuns];
}

thread_local! {
    static PLANTED: RefCell<BTreeMap<Candidate, PlantedFault>> = const { RefCell::new(BTreeMap::new()) };
}

/// Takes what was planted out again.
pub(crate) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        PLANTED.take();
    }
}

/// Plants faults in kernels that this thread records, until the guard is dropped.
pub(crate) fn plant(faults: BTreeMap<Candidate, PlantedFault>) -> Guard {
    PLANTED.replace(faults);
    Guard
}

/// The kernel of a candidate with its fault, if it has one.
pub fn instead(candidate: Candidate, good: &'static Kernel) -> &'static Kernel {
    let Some(fault) = PLANTED.with_borrow(|planted| planted.get(&candidate).copied()) else { return good };
    let half = good.file.contains("-hhh");
    if fault == PlantedFault::HalfResult && !half || fault == PlantedFault::DiffersBetweenRuns && half {
        return good;
    }
    let text = good.text.unwrap();
    let replaced = |from: &str, to: &str| {
        assert!(text.contains(from), "{} has no {from:?}", good.file);
        text.replace(from, to)
    };
    let tiles = ["_tiles * dims.batch;", "parts * dims.batch;"].into_iter().find(|end| text.contains(end)).unwrap();
    let (suffix, text) = match fault {
        PlantedFault::Idle | PlantedFault::HalfResult => ("-idle".to_owned(), replaced(tiles, &tiles.replace(';', " * 0u;"))),
        PlantedFault::LastTile => ("-last-tile".to_owned(), replaced(tiles, &tiles.replace(';', " - 1u;"))),
        PlantedFault::NotWgsl => ("-not-wgsl".to_owned(), replaced("fn product(", "fn product((")),
        PlantedFault::NoEntry => ("-no-entry".to_owned(), replaced("fn product(", "fn other(")),
        PlantedFault::DiffersBetweenRuns => {
            // One of them: C is written in vectors, by elements, or in one expression.
            let of = |c: &str| (format!("c[at] = {c}(value);"), format!("c[at] = {c}(value + 1e-36 * {c}(c[at]));"));
            let sum = ("select(0.0, f32(c[at])".to_owned(), "select(1e-36 * f32(c[at]), f32(c[at])".to_owned());
            let stores = [of("vec4<f32>"), of("f32"), sum];
            let (from, to) = stores.iter().find(|(from, _)| text.contains(from)).unwrap();
            ("-differs".to_owned(), replaced(from, to))
        }
        PlantedFault::CostsDevice => (COSTS_DEVICE.to_owned(), text.to_owned()),
    };
    Kernel::generated(&format!("{}{suffix}", good.file), good.bindings, || text)
}
