//! Which candidate is the fastest on this device: measured, kept on disk, and never before it was verified.
//!
//! Products are tuned by [`ShapeClass`], the ones with the most work first; `measure` says how. Quick tuning ends
//! when its time is over and goes on in the next run where it stopped; what was not reached uses the default candidate.

mod child;
mod clock;
mod contest;
mod known;
mod measure;
pub mod message;
mod results;
pub mod serve;
pub mod trial;

use crate::console::note;
use crate::error::{Error, Result};
use crate::gpu::engine::Engine;
use crate::kernel::{Candidate, KernelTable, ProductKind, ShapeClass, Target};
use crate::ops::matmul::candidates::candidates;
use child::Process;
use contest::usable;
use known::Known;
pub(crate) use known::kernel_texts;
use measure::{Classed, measure};
#[doc(hidden)]
pub use results::TrialDims;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Quick tuning begins nothing after it on a software adapter.
pub(crate) const SOFTWARE_BUDGET: Duration = Duration::from_millis(4700);
/// The same on a GPU, which has more candidates, and clocks to bring up.
pub(crate) const GPU_BUDGET: Duration = Duration::from_secs(14);
/// Longest wait for a kernel in a process of its own: the slowest that compiled on an H200 took 1.7 s, others had not
/// after 22 s.
const PROBE_LIMIT: Duration = Duration::from_secs(25);
/// Most threads that compile.
const MOST_THREADS: usize = 16;

/// How much to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Effort {
    /// Nothing: the default kernels, also where better ones are known.
    Off,
    /// The likely candidates, for a few seconds, the first time a shape is seen.
    #[default]
    Quick,
    /// All candidates, again.
    Full,
}

/// Where kernels are tried: never on the device that trains.
#[derive(Clone, Copy)]
pub struct Sandbox<'a> {
    /// Opens the adapter of the run once more.
    pub open: &'a dyn Fn() -> Result<Engine>,
    /// The command of a process that serves [`serve`]. Without it, kernels that are new to a driver are compiled in
    /// this process.
    pub process: Option<Process<'a>>,
}

/// What `TOKENFORMER_PROBE` says of processes of their own for kernels that are new to a driver.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Processes {
    /// On GPUs.
    Usual,
    Off,
    /// On every adapter, with so long for each kernel.
    On(Duration),
}

impl Processes {
    fn of(text: &str) -> Result<Self> {
        let seconds = || text.parse().ok().filter(|s| (1..=600).contains(s)).map(Duration::from_secs);
        match text {
            "" => Ok(Self::Usual),
            "off" => Ok(Self::Off),
            "on" => Ok(Self::On(PROBE_LIMIT)),
            _ => seconds().map(Self::On).ok_or_else(|| {
                Error::usage(format!(
                    "TOKENFORMER_PROBE is \"{text}\": give off, on, or 1 to 600 seconds for each kernel"
                ))
            }),
        }
    }
}

impl Sandbox<'_> {
    /// The time that each kernel has in a process of its own, where there are any.
    pub(super) fn limit(&self, target: &Target) -> Result<Option<Duration>> {
        let processes = Processes::of(&std::env::var("TOKENFORMER_PROBE").unwrap_or_default())?;
        Ok(self.process.and(match processes {
            Processes::Usual => (!target.software).then_some(PROBE_LIMIT),
            Processes::Off => None,
            Processes::On(limit) => Some(limit),
        }))
    }
}

/// Threads that compile.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get().min(MOST_THREADS))
}

/// `kernels` with those that earlier runs on this device found to be the fastest; measures nothing.
pub(crate) fn recall(engine: &Engine, kernels: &KernelTable) -> KernelTable {
    if kernels.is_forced() {
        return kernels.clone();
    }
    let known = Known::load(engine);
    let classes: Vec<ShapeClass> = known.fastest.keys().filter_map(|name| name.parse().ok()).collect();
    let table = classes.iter().filter_map(|&class| Some((class, known.of(class, kernels.target())?)));
    let uncut = classes.iter().filter_map(|&class| Some((class, known.uncut(class, kernels.target())?)));
    kernels.with_table(table.collect()).with_uncut(uncut.collect())
}

/// `kernels` with the fastest on this device for `products`; a line is printed before and after where that takes time.
///
/// `stored` are the kernels of a checkpoint that goes on, by class. They come before anything measured, and where they are
/// silent, the run so far used the default kernel: only kernels that give the same bits replace it.
///
/// # Errors
/// A device error, or a device that computes the reference wrongly.
pub fn tune(
    engine: &Engine,
    kernels: &KernelTable,
    sandbox: &Sandbox,
    products: &[ProductKind],
    effort: Effort,
    stored: &BTreeMap<String, String>,
) -> Result<KernelTable> {
    if effort == Effort::Off || kernels.is_forced() {
        return Ok(kernels.clone());
    }
    let classes = classes(products);
    let mut known = Known::load(engine);
    if effort == Effort::Full {
        known.forget(&classes);
    }
    let new = |&(class, _): &Classed| {
        begun(class, kernels.target(), stored).is_none() && !known.fastest.contains_key(&class.to_string())
    };
    let todo: Vec<_> = classes.iter().copied().filter(new).collect();
    if !todo.is_empty() {
        note(format_args!("timing matrix products for this adapter: {} shapes, once", todo.len()));
        let start = Instant::now();
        let budget = if kernels.target().software { SOFTWARE_BUDGET } else { GPU_BUDGET };
        let measured = measure(sandbox, &todo, effort, budget, &mut known);
        // Also what was found before an error.
        known.keep();
        measured?;
        let done = todo.iter().filter(|(class, _)| known.fastest.contains_key(&class.to_string())).count();
        note(format_args!("timed {done} of {} shapes in {:.1} s", todo.len(), start.elapsed().as_secs_f64()));
    }
    let uncut = classes.iter().filter_map(|&(class, _)| Some((class, known.uncut(class, kernels.target())?)));
    let table = chosen(kernels.target(), &classes, &known, stored);
    Ok(kernels.with_table(table).with_uncut(uncut.collect()))
}

/// The candidates of `classes`, stored or measured; nothing for a class that is to have the default one.
fn chosen(
    target: &Target,
    classes: &[Classed],
    known: &Known,
    stored: &BTreeMap<String, String>,
) -> BTreeMap<ShapeClass, Candidate> {
    let is_wrong = |product: ProductKind| known.refuses(product, target.default_candidate(product));
    // One order of summation for all products of a type, that of the default candidates unless one of those is wrong here
    // or was not taken by the driver. A pair has others of that order in its place.
    let order = |half: bool| {
        let order = target.default_order(half);
        let wrong = |product: ProductKind| {
            let mut right =
                candidates(target, product, false).into_iter().filter(|c| c.order() == order && c.chunk() == 0);
            is_wrong(product) && !(product.pair && right.any(|candidate| !known.refuses(product, candidate)))
        };
        if classes.iter().any(|&(_, product)| product.half == half && wrong(product)) { None } else { order }
    };
    let orders = [order(false), order(true)];
    let keeps = |product: ProductKind, candidate: Candidate| candidate.order() == orders[usize::from(product.half)];
    let measured = |class, product| {
        let keeps_bits = |c: &Candidate| keeps(product, *c) && (stored.is_empty() || c.chunk() == 0);
        known.of(class, target).filter(keeps_bits)
    };
    let instead = |product| {
        (is_wrong(product) || !keeps(product, target.default_candidate(product))).then_some(())?;
        let right = |&other: &Candidate| keeps(product, other) && other.chunk() == 0 && !known.refuses(product, other);
        candidates(target, product, false).into_iter().find(right)
    };
    let choice = |&(class, product): &Classed| {
        begun(class, target, stored).or_else(|| measured(class, product)).or_else(|| instead(product))
    };
    classes.iter().filter_map(|classed| Some((classed.0, choice(classed)?))).collect()
}

/// What a checkpoint that goes on was begun with.
fn begun(class: ShapeClass, target: &Target, stored: &BTreeMap<String, String>) -> Option<Candidate> {
    usable(target, stored.get(&class.to_string())?)
}

/// One size of each class, the class with the most work in all first.
pub(super) fn classes(products: &[ProductKind]) -> Vec<Classed> {
    let mut work: BTreeMap<ShapeClass, (f64, ProductKind)> = BTreeMap::new();
    for &product in products {
        let entry = work.entry(ShapeClass::of(product)).or_insert((0.0, product));
        entry.0 += product.size.iter().map(|&n| n as f64).product::<f64>();
    }
    let mut classes: Vec<_> = work.into_iter().collect();
    classes.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    classes.into_iter().map(|(class, (_, product))| (class, product)).collect()
}

#[cfg(test)]
mod tests {
    use super::contest::refusal;
    use super::known::Fastest;
    use super::*;
    use crate::kernel::{Fragments, Layout};
    use std::collections::BTreeSet;

    #[test]
    fn processes_of_their_own_are_asked_for_by_name_or_seconds() {
        let said = ["", "off", "on", "3"].map(|text| Processes::of(text).unwrap());
        assert_eq!(
            said,
            [Processes::Usual, Processes::Off, Processes::On(PROBE_LIMIT), Processes::On(Duration::from_secs(3))]
        );
        for wrong in ["0", "601", "-1", "1.5", "yes"] {
            assert!(Processes::of(wrong).unwrap_err().to_string().contains("1 to 600 seconds"), "{wrong}");
        }
    }

    /// A run has the kernels of its own shapes, and one that goes on none that would change its bits.
    #[test]
    fn choices_are_the_runs_own() {
        let target = Target::WEBGPU;
        let products =
            [64, 128, 256].map(|m| ProductKind { layout: Layout::TN, size: [m, 64, 4096], half: false, pair: false });
        let [a, b, c] = products.map(ShapeClass::of);
        let [whole, split, other] = ["tiles-32x32x16-4x4", "tiles-64x64x16-4x4-k1024", "tiles-64x64x8-4x4"];
        let record = |name: &str| Fastest { candidate: name.to_owned(), gflops: 1.0 };
        let fastest = [(a, whole), (b, split), (c, whole)].map(|(class, name)| (class.to_string(), record(name)));
        let known = Known { fastest: fastest.into(), ..Known::default() };
        let named = |stored: &[(ShapeClass, &str)]| {
            let stored = stored.iter().map(|&(class, name)| (class.to_string(), name.to_owned())).collect();
            let table = chosen(&target, &[(a, products[0]), (b, products[1])], &known, &stored);
            table.into_iter().map(|(class, candidate)| (class, candidate.to_string())).collect::<Vec<_>>()
        };
        let owned = |name: &str| name.to_owned();
        assert_eq!(named(&[]), [(a, owned(whole)), (b, owned(split))]);
        // b is not among what was stored: it had the default kernel.
        assert_eq!(named(&[(a, other)]), [(a, owned(other))]);
        assert_eq!(named(&[(b, split)]), [(a, owned(whole)), (b, owned(split))]);
    }

    /// Time was over before its class was measured, but the default candidate is known not to work.
    #[test]
    fn a_default_candidate_that_was_refused_is_replaced() {
        let target = Target::WEBGPU;
        let product = ProductKind { layout: Layout::NN, size: [256; 3], half: false, pair: false };
        let default = target.default_candidate(product);
        let table = |refused: BTreeSet<String>| {
            let known = Known { refused, ..Known::default() };
            chosen(&target, &[(ShapeClass::of(product), product)], &known, &BTreeMap::new())
        };
        assert!(table(BTreeSet::new()).is_empty());
        let chosen: Vec<Candidate> = table([refusal(product, default)].into()).into_values().collect();
        assert!(chosen.len() == 1 && chosen[0] != default && chosen[0].keeps_order());
    }

    /// A kernel of a pair is one more text for a driver to fail at: that alone takes no other product off its matrix units.
    #[test]
    fn a_refused_pair_costs_the_others_nothing() {
        let target = Target {
            subgroup_sizes: [32; 2],
            f16: true,
            fragments: Fragments::of(|fragment| fragment.side == 16),
            workgroup_bytes: 48 << 10,
            ..Target::WEBGPU
        };
        let single = ProductKind { layout: Layout::NN, size: [512; 3], half: true, pair: false };
        let pair = ProductKind { layout: Layout::TN, pair: true, ..single };
        let classes = [single, pair].map(|product| (ShapeClass::of(product), product));
        let of_pair: Vec<Candidate> = candidates(&target, pair, false);
        let table = |refused: &[Candidate]| {
            let refused = refused.iter().map(|&candidate| refusal(pair, candidate)).collect();
            chosen(&target, &classes, &Known { refused, ..Known::default() }, &BTreeMap::new())
        };
        let default = target.default_candidate(pair);
        let replaced = table(&[default]);
        let instead = replaced[&classes[1].0];
        assert!(replaced.len() == 1 && instead != default && instead.order() == default.order(), "{instead}");
        let units: Vec<Candidate> = of_pair.into_iter().filter(|c| c.order() == default.order()).collect();
        let orders: Vec<_> = table(&units).into_values().map(|candidate| candidate.order()).collect();
        assert_eq!(orders, [None, None]);
    }
}
