//! Measures candidates: first all are tried in processes of their own where that is asked for, then compiled and verified,
//! then timed back to back.
//!
//! All of it is on a device that is closed before anything else is done: a kernel that a driver cannot compile may cost the
//! whole device, and then the trials go on with another.

use super::clock::{Clock, agree};
use super::contest::{Contest, contest};
use super::known::{Fastest, Known};
use super::message::TrialRequest;
use super::serve;
use super::trial::{Trials, Verified, shortened};
use super::{Effort, Sandbox, threads};
use crate::console::{Parts, warn};
use crate::error::{Error, Result};
use crate::gpu::engine::Engine;
use crate::kernel::{Candidate, ProductKind, ShapeClass, Target};
use std::time::{Duration, Instant};

/// Floating-point operations of one timed product on a software adapter: longer ones are measured on fewer rows.
const SOFTWARE_FLOPS: usize = 60_000_000;
/// The most on a GPU: what an H100 does in f32 in 4 ms.
const GPU_FLOPS: usize = 160_000_000_000;
/// What one product may take on a slower GPU, ...
const PRODUCT_SECONDS: f64 = 4e-3;
/// ... where products reach this share of what multiply-adds alone do.
const PRODUCT_SHARE: f64 = 0.5;
/// Shares of the budget of a GPU after which no product is compiled or verified any more: timing needs the rest.
const COMPILED: f64 = 0.5;
const VERIFIED: f64 = 0.65;
/// What a GPU has for timing after processes of their own took long.
const AFTER_PROBES: f64 = 0.6;
/// A product and its class.
pub(super) type Classed = (ShapeClass, ProductKind);

/// Finds the fastest candidate of each class, and adds it to `known`. A quick search begins nothing after `budget` but the
/// first class, so that each run gets further. A device that a candidate has cost is opened again.
///
/// # Errors
/// A device error that is no candidate's; a device that computes the reference wrongly.
pub(super) fn measure(
    sandbox: &Sandbox,
    todo: &[Classed],
    effort: Effort,
    budget: Duration,
    known: &mut Known,
) -> Result<()> {
    let start = Instant::now();
    let mut engine = (sandbox.open)()?;
    let target = engine.gpu.target;
    let limit = sandbox.limit(&target)?;
    if let Some(limit) = limit {
        serve::run(sandbox, limit, &engine, jobs(&target, todo, effort, known), known);
        known.keep();
    }
    let probed = limit.is_some();
    // Processes of their own may have taken the time; then it is a GPU's first run with this driver.
    let until = (start + budget).max(Instant::now() + budget.mul_f64(if probed { AFTER_PROBES } else { 0.0 }));
    let mut search = Search {
        effort,
        start: Instant::now(),
        until: (effort == Effort::Quick).then_some(until),
        probed,
        flops: if target.software { SOFTWARE_FLOPS } else { most_flops(&engine)? },
        // Software drivers compile when a kernel first runs.
        threads: if target.software { 1 } else { threads() },
    };
    // On a GPU all classes at once: clocks stay up, and compilers busy.
    let together = if target.software { 1 } else { todo.len().max(1) };
    for group in todo.chunks(together) {
        loop {
            let refused = known.refused.len();
            match search.group(&engine, group, known) {
                Ok(()) => break,
                Err(error) if is_out_of_memory(&error) && search.flops > SOFTWARE_FLOPS => search.flops /= 4,
                // Once for each candidate at most, and once because several threads compiled, and nobody knows which
                // kernel it was.
                Err(_) if known.refused.len() > refused || search.threads > 1 => {
                    search.threads = 1;
                    drop(engine);
                    engine = (sandbox.open)()?;
                }
                Err(error) => return Err(error),
            }
        }
        if search.is_over() {
            break;
        }
    }
    Ok(())
}

/// What no process of its own has tried yet.
fn jobs(target: &Target, todo: &[Classed], effort: Effort, known: &Known) -> Vec<TrialRequest> {
    let mut jobs: Vec<TrialRequest> = Vec::new();
    for &(_, product) in todo {
        for candidate in contest(target, product, effort == Effort::Full).into_iter().skip(1) {
            let job = TrialRequest::new(product, candidate);
            if !known.refuses(product, candidate) && !known.works.contains(&job.key()) && !jobs.contains(&job) {
                jobs.push(job);
            }
        }
    }
    jobs
}

/// A search for the fastest candidates.
struct Search {
    effort: Effort,
    start: Instant,
    /// Nothing begins after it.
    until: Option<Instant>,
    /// Only what worked in a process of its own is tried.
    probed: bool,
    /// Most operations of a product.
    flops: usize,
    /// That compile.
    threads: usize,
}

impl Search {
    /// Adds the fastest candidates of some classes to `known`.
    fn group(&self, engine: &Engine, group: &[Classed], known: &mut Known) -> Result<()> {
        let target = engine.gpu.target;
        let mut classes: Vec<(String, Contest)> = Vec::new();
        for &(class, product) in group {
            let name = class.to_string();
            // Timed before the device was lost.
            if known.fastest.contains_key(&name) {
                continue;
            }
            let mut list = contest(&target, product, self.effort == Effort::Full).into_iter();
            let Some(reference) = list.next() else { continue };
            let may = |candidate: &Candidate| {
                let tried = !self.probed || known.works.contains(&TrialRequest::new(product, *candidate).key());
                tried && !known.refuses(product, *candidate)
            };
            let candidates = std::iter::once(reference).chain(list.filter(may)).collect();
            let product = shortened(product, self.flops, target.software);
            classes.push((name, Contest { product, candidates }));
        }
        let contests: Vec<Contest> = classes.iter().map(|(_, contest)| contest.clone()).collect();
        let trials = Trials::new(engine, contests)?;
        if self.threads > 1 {
            trials.compile_ahead(self.threads, self.after(COMPILED))?;
        }
        let mut verified = Vec::new();
        let mut parts = Parts::new("verifying kernels, shapes", classes.len());
        for (at, (_, contest)) in classes.iter().enumerate() {
            parts.done(at);
            if at > 0 && self.after(VERIFIED).is_some_and(|end| Instant::now() >= end) {
                break;
            }
            let mut right = trials.verify(at, &mut known.refused)?;
            // The reference may have another order of summation; then it is chosen only where there is nothing else.
            let order = target.default_order(contest.product.half);
            if right.iter().any(|it| it.candidate.order() == order) {
                right.retain(|it| it.candidate.order() == order);
            }
            verified.push(right);
        }
        let clock = Clock::new(engine)?;
        let first = verified.first().and_then(|verified| verified.first());
        let before = if target.software { None } else { first.map(|it| clock.warm_up(&it.program)).transpose()? };
        let mut parts = Parts::new("timing kernels, shapes", classes.len());
        for (at, (verified, (name, contest))) in verified.iter().zip(&classes).enumerate() {
            parts.done(at);
            if at > 0 && self.is_over() {
                break;
            }
            let flops = 2.0 * contest.product.size.iter().map(|&n| n as f64).product::<f64>();
            let fastest = |among: &[&Verified]| -> Result<Option<(Candidate, Fastest)>> {
                let programs: Vec<_> = among.iter().map(|it| it.timed()).collect();
                let (winner, seconds) = clock.fastest(&programs)?;
                let record = |candidate: Candidate| {
                    (candidate, Fastest { candidate: candidate.to_string(), gflops: flops / seconds / 1e9 })
                };
                Ok(among.get(winner).map(|winner| record(winner.candidate)))
            };
            let Some((winner, record)) = fastest(&verified.iter().collect::<Vec<_>>())? else { continue };
            // Products whose sums must not be cut run no winner that cuts them.
            if winner.chunk() > 0 {
                let whole: Vec<&Verified> = verified.iter().filter(|it| it.candidate.chunk() == 0).collect();
                if let Some((_, record)) = fastest(&whole)? {
                    known.fastest_uncut.insert(name.clone(), record);
                }
            }
            known.fastest.insert(name.clone(), record);
        }
        if let (Some(before), Some(first)) = (before, first) {
            report_drift(before, clock.warm_up(&first.program)?);
        }
        Ok(())
    }

    /// When so much of the time is over.
    fn after(&self, share: f64) -> Option<Instant> {
        self.until.map(|until| self.start + until.saturating_duration_since(self.start).mul_f64(share))
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Tells that one kernel was not equally fast before and after all others were timed.
fn report_drift(before: f64, after: f64) {
    if !agree(before, after) && (after / before - 1.0).abs() > 0.1 {
        warn(format_args!(
            "the GPU's speed changed by {:+.0} % while kernels were timed; `--tune full` times them again",
            100.0 * (before / after - 1.0)
        ));
    }
}

/// Operations of a product that takes a GPU a few milliseconds: kernels run dozens of times. How fast it is shows only once
/// its clocks are up: at a sixth of them products were cut to so few rows that other kernels won.
fn most_flops(engine: &Engine) -> Result<usize> {
    let rate = Clock::new(engine)?.raise()?.unwrap_or_default();
    Ok(((rate * PRODUCT_SHARE * PRODUCT_SECONDS) as usize).clamp(SOFTWARE_FLOPS, GPU_FLOPS))
}

fn is_out_of_memory(error: &Error) -> bool {
    matches!(error, Error::OutOfMemory { .. })
}

#[cfg(test)]
mod tests {
    use super::super::classes;
    use super::super::contest::refusal;
    use super::*;
    use crate::gpu::adapter::AdapterRequest;
    use crate::gpu::device::Gpu;
    use crate::kernel::Layout;
    use crate::ops::matmul::candidates::candidates;
    use crate::ops::matmul::planted::{PlantedFault, plant};
    use std::cell::Cell;
    use std::collections::{BTreeMap, BTreeSet};

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
        let target = engine.gpu.target;
        let (mut tunings, mut refused) = (0, 0);
        for layout in Layout::ALL {
            let product = ProductKind { layout, size: [96, 64, 80], half: false, pair: false };
            let rivals = candidates(&target, product, true);
            let faults = PlantedFault::ALL.len().min(rivals.len() - 1);
            assert!(faults > 2, "{rivals:?}");
            // Each candidate but the default one in turn, with each fault in turn; a few of them in the short form.
            let step = if std::env::var_os("TOKENFORMER_TEST_FULL").is_some() { 1 } else { 6 };
            for turn in (0..rivals.len() - 1).step_by(step) {
                let planted: BTreeMap<Candidate, PlantedFault> = (0..faults)
                    .map(|i| {
                        (
                            rivals[1 + (turn + i) % (rivals.len() - 1)],
                            PlantedFault::ALL[(turn + i) % PlantedFault::ALL.len()],
                        )
                    })
                    .collect();
                let guard = plant(planted.clone());
                let (mut known, before) = (Known::default(), opened.get());
                let class = ShapeClass::of(product);
                let sandbox = Sandbox { open: &open, process: None };
                measure(&sandbox, &[(class, product)], Effort::Full, Duration::ZERO, &mut known).unwrap();
                drop(guard);
                let expected: BTreeSet<String> = planted.keys().map(|rival| refusal(product, *rival)).collect();
                assert_eq!(known.refused, expected, "{layout:?}");
                let chosen = known.fastest[&class.to_string()].candidate.parse().unwrap();
                assert!(!planted.contains_key(&chosen), "{layout:?}: {chosen} was chosen");
                // The first device, and one more after each that was lost.
                let lost = planted.values().filter(|fault| **fault == PlantedFault::CostsDevice).count();
                assert_eq!(opened.get() - before, 1 + lost);
                (tunings, refused) = (tunings + 1, refused + expected.len());
            }
        }
        println!("{refused} planted kernels refused in {tunings} tunings");
        // Nothing of it reached the device that trains.
        engine.gpu.check().unwrap();
    }

    fn open() -> Result<Engine> {
        Engine::new(Gpu::open(&AdapterRequest::default())?)
    }

    #[test]
    fn what_was_refused_is_not_tried_again() {
        let target = open().unwrap().gpu.target;
        let product = ProductKind { layout: Layout::NN, size: [64; 3], half: false, pair: false };
        let rivals = contest(&target, product, true);
        let refused: BTreeSet<String> = rivals[1..].iter().map(|rival| refusal(product, *rival)).collect();
        let mut known = Known { refused, ..Known::default() };
        let sandbox = Sandbox { open: &open, process: None };
        let class = ShapeClass::of(product);
        measure(&sandbox, &[(class, product)], Effort::Full, Duration::ZERO, &mut known).unwrap();
        assert_eq!(known.of(class, &target), Some(rivals[0]));
    }

    /// With no time at all, each run finds the kernel of one more class.
    #[test]
    fn quick_tuning_goes_on_where_it_stopped() {
        let products =
            [64, 128, 256].map(|m| ProductKind { layout: Layout::NN, size: [m, 64, 64], half: false, pair: false });
        let (classes, mut known) = (classes(&products), Known::default());
        for done in 1..=products.len() {
            let new = |(class, _): &(ShapeClass, ProductKind)| !known.fastest.contains_key(&class.to_string());
            let todo: Vec<_> = classes.iter().copied().filter(new).collect();
            let sandbox = Sandbox { open: &open, process: None };
            measure(&sandbox, &todo, Effort::Quick, Duration::ZERO, &mut known).unwrap();
            assert_eq!(known.fastest.len(), done);
        }
    }

    #[test]
    fn a_device_that_computes_the_reference_wrongly_is_refused() {
        let product = ProductKind { layout: Layout::NT, size: [64; 3], half: false, pair: false };
        let reference = contest(&open().unwrap().gpu.target, product, false)[0];
        let _guard = plant([(reference, PlantedFault::LastTile)].into());
        let sandbox = Sandbox { open: &open, process: None };
        let todo = [(ShapeClass::of(product), product)];
        let error = measure(&sandbox, &todo, Effort::Quick, Duration::ZERO, &mut Known::default()).unwrap_err();
        assert!(error.to_string().contains("computes a NT product of [64, 64, 64] wrongly"), "{error}");
    }

    /// As on a GPU: all classes at once, compiled in several threads, one of which costs the device.
    #[test]
    fn a_gpu_is_measured_all_at_once() {
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            let mut gpu = Gpu::open(&AdapterRequest::default())?;
            gpu.target.software = false;
            Engine::new(gpu)
        };
        let target = open().unwrap().gpu.target;
        let half = target.f16 && !target.fragments.is_empty();
        let products = Layout::ALL.map(|layout| ProductKind { layout, size: [96, 64, 80], half, pair: false });
        let todo = products.map(|product| (ShapeClass::of(product), product));
        let rivals = contest(&target, products[0], false);
        let faults = [PlantedFault::CostsDevice, PlantedFault::DiffersBetweenRuns, PlantedFault::LastTile];
        let planted: BTreeMap<Candidate, PlantedFault> = rivals[1..].iter().copied().zip(faults).collect();
        let _guard = plant(planted.clone());
        let sandbox = Sandbox { open: &open, process: None };
        let (mut known, before) = (Known::default(), opened.get());
        measure(&sandbox, &todo, Effort::Quick, Duration::from_secs(300), &mut known).unwrap();
        let expected = products.iter().flat_map(|p| planted.keys().map(|rival| refusal(*p, *rival)));
        assert_eq!(known.refused, expected.collect());
        for (class, _) in todo {
            let chosen = known.of(class, &target).unwrap();
            assert!(!planted.contains_key(&chosen), "{class}: {chosen} was chosen");
        }
        // Lost while several threads compiled, and then by each of the three, one by one.
        assert!((4..=5).contains(&(opened.get() - before)), "{}", opened.get() - before);
    }
}
