//! Which candidate is the fastest on this device: measured, kept on disk, and never before it was verified.
//!
//! Products are tuned by [`ShapeClass`], the ones with the most work first. How one is measured is [`super::trial`]'s.
//! Quick tuning begins no class after [`QUICK_BUDGET`], and goes on in the next run where it stopped; what was not reached
//! uses the usual candidate. Trials run on a device of their own, which is closed before anything else is done: a kernel that
//! a driver cannot compile may cost the whole device.

use super::ProductKind;
use super::candidates::{candidates, kernel};
use super::source::{Types, Vectors};
use super::trial::fastest;
use crate::cache;
use crate::error::{Result, tell};
use crate::gpu::choices::{Ability, Candidate, Layout, ShapeClass};
use crate::gpu::engine::Engine;
use crate::gpu::kernel::Dtype;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Quick tuning begins no more classes after it.
pub const QUICK_BUDGET: Duration = Duration::from_millis(4700);

/// How much to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Effort {
    /// Nothing: the usual kernels, also where better ones are known.
    Off,
    /// The likely candidates, for a few seconds, the first time a shape is seen.
    #[default]
    Quick,
    /// All candidates, again.
    Full,
}

/// What is kept of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    candidate: String,
    gflops: f64,
}

/// What is known of the candidates of an adapter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    /// The fastest, by class.
    fastest: BTreeMap<String, Record>,
    /// Wrong on this adapter, or not taken by its driver: never tried again. By layout and type of the operands.
    refused: BTreeSet<String>,
}

impl Known {
    fn load(file: &str) -> Self {
        cache::read(file).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn keep(&self, file: &str) {
        cache::write(file, &serde_json::to_string_pretty(self).unwrap_or_default());
    }

    /// The fastest of a class.
    fn of(&self, class: ShapeClass, ability: &Ability) -> Option<Candidate> {
        usable(ability, &self.fastest.get(&class.to_string())?.candidate)
    }

    /// As if these classes had never been met: also what was refused is tried again.
    fn forget(&mut self, classes: &[(ShapeClass, ProductKind)]) {
        for (class, _) in classes {
            self.fastest.remove(&class.to_string());
        }
        self.refused.clear();
    }
}

/// The candidate that a file names, where this device can run it.
fn usable(ability: &Ability, name: &str) -> Option<Candidate> {
    name.parse().ok().filter(|&candidate| ability.fits(candidate))
}

/// Makes `engine` use the kernels that earlier runs found to be the fastest; measures nothing.
pub fn recall(engine: &Engine) {
    let usual = engine.choices();
    if usual.is_forced() {
        return;
    }
    let known = Known::load(&file_name(engine));
    let parsed = known.fastest.keys().filter_map(|name| name.parse().ok());
    let table = parsed.filter_map(|class| Some((class, known.of(class, usual.ability())?)));
    engine.choose(usual.with_table(table.collect()));
}

/// Makes `engine` use the fastest kernels for `products`; a progress line is printed where that takes time. What is tried
/// runs on the device that `another` opens, of the same adapter.
///
/// `stored` are the choices of a checkpoint that goes on, by class. They come before anything measured, and where they are
/// silent, the run so far used the usual kernel: only kernels that give the same bits replace it.
///
/// # Errors
/// A device error, or a device that computes the usual product wrongly.
pub fn tune(
    engine: &Engine,
    another: &dyn Fn() -> Result<Engine>,
    products: &[ProductKind],
    effort: Effort,
    stored: &BTreeMap<String, String>,
) -> Result<()> {
    let usual = engine.choices();
    if effort == Effort::Off || usual.is_forced() {
        return Ok(());
    }
    let classes = classes(products);
    let file = file_name(engine);
    let mut known = Known::load(&file);
    if effort == Effort::Full {
        known.forget(&classes);
    }
    let new = |&(class, _): &(ShapeClass, ProductKind)| {
        begun(class, usual.ability(), stored).is_none() && !known.fastest.contains_key(&class.to_string())
    };
    let todo: Vec<_> = classes.iter().copied().filter(new).collect();
    if !todo.is_empty() {
        tell(format_args!("timing matrix products for this adapter: {} shapes, once", todo.len()));
        let (before, start) = (known.fastest.len(), Instant::now());
        let measured = measure(another, &todo, effort, QUICK_BUDGET, &mut known);
        // Also what was found before an error.
        known.keep(&file);
        measured?;
        let done = known.fastest.len() - before;
        tell(format_args!("timed {done} of {} shapes in {:.1} s", todo.len(), start.elapsed().as_secs_f64()));
    }
    let classes = classes.into_iter().map(|(class, _)| class);
    engine.choose(usual.with_table(chosen(usual.ability(), classes, &known, stored)));
    Ok(())
}

/// The candidates of `classes`, stored or measured; nothing for a class that is to have the usual one.
fn chosen(
    ability: &Ability,
    classes: impl Iterator<Item = ShapeClass>,
    known: &Known,
    stored: &BTreeMap<String, String>,
) -> BTreeMap<ShapeClass, Candidate> {
    let measured = |class| known.of(class, ability).filter(|c| stored.is_empty() || c.keeps_order());
    let choice = |class| begun(class, ability, stored).or_else(|| measured(class));
    classes.filter_map(|class| Some((class, choice(class)?))).collect()
}

/// What a checkpoint that goes on was begun with.
fn begun(class: ShapeClass, ability: &Ability, stored: &BTreeMap<String, String>) -> Option<Candidate> {
    usable(ability, stored.get(&class.to_string())?)
}

/// Finds the fastest candidate of each class; a quick one ends after the first class at which `budget` was spent, so that
/// each run gets further. A device that a candidate has cost is opened again.
fn measure(
    another: &dyn Fn() -> Result<Engine>,
    todo: &[(ShapeClass, ProductKind)],
    effort: Effort,
    budget: Duration,
    known: &mut Known,
) -> Result<()> {
    let start = Instant::now();
    let mut engine = another()?;
    for (class, product) in todo {
        let best = loop {
            let refused = known.refused.len();
            match fastest(&engine, *product, effort, &mut known.refused) {
                Ok(best) => break best,
                // Once for each candidate at most.
                Err(_) if known.refused.len() > refused => {
                    drop(engine);
                    engine = another()?;
                }
                Err(error) => return Err(error),
            }
        };
        if let Some((candidate, gflops)) = best {
            known.fastest.insert(class.to_string(), Record { candidate: candidate.to_string(), gflops });
        }
        if effort == Effort::Quick && start.elapsed() >= budget {
            break;
        }
    }
    Ok(())
}

/// One size of each class, the class with the most work in all first.
fn classes(products: &[ProductKind]) -> Vec<(ShapeClass, ProductKind)> {
    let mut work: BTreeMap<ShapeClass, (f64, ProductKind)> = BTreeMap::new();
    for &product in products {
        let entry = work.entry(ShapeClass::of(product)).or_insert((0.0, product));
        entry.0 += product.size.iter().map(|&n| n as f64).product::<f64>();
    }
    let mut classes: Vec<_> = work.into_iter().collect();
    classes.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    classes.into_iter().map(|(class, (_, product))| (class, product)).collect()
}

/// The WGSL of every candidate of a device: what is known of its kernels holds for these texts.
pub fn kernel_texts(ability: &Ability) -> Vec<&'static str> {
    let half = ability.half;
    let of_layout = |layout| {
        let list = candidates(ability, ProductKind { layout, size: [256; 3], half }, true);
        let kernels = move |candidate| {
            trial_types(half).into_iter().map(move |types| kernel(candidate, layout, types, Vectors::ALL))
        };
        list.into_iter().flat_map(kernels).filter_map(|kernel| kernel.text)
    };
    Layout::ALL.into_iter().flat_map(of_layout).collect()
}

/// Per adapter, driver, program version and text of the kernels.
fn file_name(engine: &Engine) -> String {
    let hash = cache::fingerprint(kernel_texts(engine.choices().ability()));
    format!("matmul-{}-{}-{hash:016x}.json", engine.gpu.cache_key(), env!("CARGO_PKG_VERSION"))
}

/// What is tried: operands of one type, a result that is f32, which is timed, and for f16 one that is f16.
pub(super) fn trial_types(half: bool) -> Vec<Types> {
    let operand = if half { Dtype::F16 } else { Dtype::F32 };
    let results: &[Dtype] = if half { &[Dtype::F32, Dtype::F16] } else { &[Dtype::F32] };
    results.iter().map(|&c| Types::of([operand, operand, c])).collect()
}

#[cfg(test)]
mod tests {
    use super::super::planted::{Fault, plant};
    use super::super::trial::refusal;
    use super::*;
    use crate::gpu::adapter::AdapterRequest;
    use crate::gpu::device::Gpu;
    use std::cell::Cell;

    /// A product with candidates that are wrong and fast, that do not compile and that cost the device: none is chosen,
    /// and a right one is.
    #[test]
    fn planted_kernels_are_refused_every_time() {
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            Engine::new(Gpu::open(&AdapterRequest::default())?)
        };
        let engine = open().unwrap();
        let ability = *engine.choices().ability();
        let (mut tunings, mut refused) = (0, 0);
        for layout in Layout::ALL {
            let product = ProductKind { layout, size: [96, 64, 80], half: false };
            let rivals = candidates(&ability, product, true);
            let faults = Fault::ALL.len().min(rivals.len() - 1);
            assert!(faults > 2, "{rivals:?}");
            // Each candidate but the usual one in turn, with each fault in turn; a few of them in the short form.
            let step = if std::env::var_os("TOKENFORMER_TEST_FULL").is_some() { 1 } else { 6 };
            for turn in (0..rivals.len() - 1).step_by(step) {
                let planted: BTreeMap<Candidate, Fault> = (0..faults)
                    .map(|i| (rivals[1 + (turn + i) % (rivals.len() - 1)], Fault::ALL[(turn + i) % Fault::ALL.len()]))
                    .collect();
                let guard = plant(planted.clone());
                let (mut known, before) = (Known::default(), opened.get());
                let class = ShapeClass::of(product);
                measure(&open, &[(class, product)], Effort::Full, Duration::ZERO, &mut known).unwrap();
                drop(guard);
                let expected: BTreeSet<String> = planted.keys().map(|rival| refusal(product, *rival)).collect();
                assert_eq!(known.refused, expected, "{layout:?}");
                let chosen = known.fastest[&class.to_string()].candidate.parse().unwrap();
                assert!(!planted.contains_key(&chosen), "{layout:?}: {chosen} was chosen");
                // The first device, and one more after each that was lost.
                let lost = planted.values().filter(|fault| **fault == Fault::CostsDevice).count();
                assert_eq!(opened.get() - before, 1 + lost);
                (tunings, refused) = (tunings + 1, refused + expected.len());
            }
        }
        println!("{refused} planted kernels refused in {tunings} tunings");
        // Nothing of it reached the device that trains.
        engine.gpu.check().unwrap();
    }

    /// A run has the kernels of its own shapes, and one that goes on none that would change its bits.
    #[test]
    fn choices_are_the_runs_own() {
        let ability = Ability::WEBGPU_DEFAULT;
        let [a, b, c] = [64, 128, 256]
            .map(|m| ShapeClass::of(ProductKind { layout: Layout::TN, size: [m, 64, 4096], half: false }));
        let [whole, split, other] = ["tiles-32x32x16-4x4", "tiles-64x64x16-4x4-k1024", "tiles-64x64x8-4x4"];
        let record = |name: &str| Record { candidate: name.to_owned(), gflops: 1.0 };
        let fastest = [(a, whole), (b, split), (c, whole)].map(|(class, name)| (class.to_string(), record(name)));
        let known = Known { fastest: fastest.into(), refused: BTreeSet::new() };
        let named = |stored: &[(ShapeClass, &str)]| {
            let stored = stored.iter().map(|&(class, name)| (class.to_string(), name.to_owned())).collect();
            let table = chosen(&ability, [a, b].into_iter(), &known, &stored);
            table.into_iter().map(|(class, candidate)| (class, candidate.to_string())).collect::<Vec<_>>()
        };
        let owned = |name: &str| name.to_owned();
        assert_eq!(named(&[]), [(a, owned(whole)), (b, owned(split))]);
        // b is not among what was stored: it had the usual kernel.
        assert_eq!(named(&[(a, other)]), [(a, owned(other))]);
        assert_eq!(named(&[(b, split)]), [(a, owned(whole)), (b, owned(split))]);
    }

    #[test]
    fn what_was_refused_is_not_tried_again() {
        let engine = Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap();
        let product = ProductKind { layout: Layout::NN, size: [64; 3], half: false };
        let rivals = candidates(engine.choices().ability(), product, true);
        let mut refused: BTreeSet<String> = rivals[1..].iter().map(|rival| refusal(product, *rival)).collect();
        let (best, _) = fastest(&engine, product, Effort::Full, &mut refused).unwrap().unwrap();
        assert_eq!(best, rivals[0]);
    }

    /// With no time at all, each run finds the kernel of one more class.
    #[test]
    fn quick_tuning_goes_on_where_it_stopped() {
        let open = || Engine::new(Gpu::open(&AdapterRequest::default())?);
        let products = [64, 128, 256].map(|m| ProductKind { layout: Layout::NN, size: [m, 64, 64], half: false });
        let (classes, mut known) = (classes(&products), Known::default());
        for done in 1..=products.len() {
            let new = |(class, _): &(ShapeClass, ProductKind)| !known.fastest.contains_key(&class.to_string());
            let todo: Vec<_> = classes.iter().copied().filter(new).collect();
            measure(&open, &todo, Effort::Quick, Duration::ZERO, &mut known).unwrap();
            assert_eq!(known.fastest.len(), done);
        }
    }

    /// What is wrong in one layout or type may be right in the others.
    #[test]
    fn refusals_are_of_one_layout_and_type() {
        let of = |layout, half| ProductKind { layout, size: [64; 3], half };
        let candidate = Ability::WEBGPU_DEFAULT.default_candidate(of(Layout::NN, false));
        let names = Layout::ALL.map(|layout| [true, false].map(|half| refusal(of(layout, half), candidate)));
        assert_eq!(names.as_flattened().iter().collect::<BTreeSet<_>>().len(), 6);
    }

    #[test]
    fn a_device_that_computes_the_usual_product_wrongly_is_refused() {
        let engine = Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap();
        let product = ProductKind { layout: Layout::NT, size: [64; 3], half: false };
        let usual = engine.choices().ability().default_candidate(product);
        let _guard = plant([(usual, Fault::LastTile)].into());
        let error = fastest(&engine, product, Effort::Quick, &mut BTreeSet::new()).unwrap_err();
        assert!(error.to_string().contains("computes a NT product of [64, 64, 64] wrongly"), "{error}");
    }
}
