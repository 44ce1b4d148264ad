//! Which candidate is the fastest on this device: measured, kept on disk, and never before it was verified.
//!
//! Products are tuned by [`ShapeClass`], the ones with the most work first. A candidate is timed after its result
//! equals that of the usual one, which is held against f64 sums on the host. Quick tuning ends after
//! [`QUICK_BUDGET`], and goes on in the next run where it stopped; what was not reached uses the usual candidate.

use super::candidates::{candidates, kernel};
use super::source::Types;
use super::{Layout, Product, ProductKind};
use crate::cache;
use crate::error::{Error, Result, tell};
use crate::gpu::choices::{Ability, Candidate, Choices, ShapeClass};
use crate::gpu::engine::{Engine, Program};
use crate::gpu::kernel::Dtype;
use crate::graph::memory::Memory;
use crate::graph::plan::{Limits, Plan};
use crate::graph::{Class, Graph};
use crate::ops::check::normalised_error;
use half::f16;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest quick tuning of one run.
pub const QUICK_BUDGET: Duration = Duration::from_millis(4700);
/// Floating-point operations of one timed product on a software adapter: longer ones are measured on fewer rows.
const SOFTWARE_FLOPS: usize = 60_000_000;
/// The same on a GPU.
const GPU_FLOPS: usize = 40_000_000_000;
/// Dispatches are repeated until a sample takes this long.
const SAMPLE: Duration = Duration::from_millis(2);
/// Largest normalised mean square error of a verified candidate.
const NMSE: f64 = 1e-9;
/// Outputs computed again on the host.
const CHECKED: usize = 64;

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

type Records = BTreeMap<String, Record>;

/// Makes `engine` use the fastest kernels for `products`; a progress line is printed where that takes time.
/// `stored` are the choices of a checkpoint that goes on, by class; they come before anything measured.
///
/// # Errors
/// A device error, or a device that computes the usual product wrongly.
pub fn tune(
    engine: &Engine,
    products: &[ProductKind],
    effort: Effort,
    stored: &BTreeMap<String, String>,
) -> Result<()> {
    let usual = engine.choices();
    if effort == Effort::Off || usual.is_forced() {
        return Ok(());
    }
    let file = file_name(engine);
    let mut records = if effort == Effort::Full { Records::new() } else { load(&file) };
    for (class, name) in stored {
        if name.parse::<Candidate>().is_ok_and(|candidate| usual.ability().fits(candidate)) {
            records.insert(class.clone(), Record { candidate: name.clone(), gflops: 0.0 });
        }
    }
    let known = records.len();
    let todo: Vec<_> =
        classes(products).into_iter().filter(|(class, _)| !records.contains_key(&class.to_string())).collect();
    let start = Instant::now();
    if !todo.is_empty() {
        tell(format_args!("timing matrix products for this adapter: {} shapes, once", todo.len()));
    }
    let deadline = (effort == Effort::Quick).then(|| start + QUICK_BUDGET);
    for (class, product) in &todo {
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            break;
        }
        if let Some((candidate, gflops)) = fastest(engine, *product, effort, deadline)? {
            records.insert(class.to_string(), Record { candidate: candidate.to_string(), gflops });
        }
    }
    if !todo.is_empty() {
        let done = records.len() - known;
        tell(format_args!("timed {done} of {} shapes in {:.1} s", todo.len(), start.elapsed().as_secs_f64()));
        let text = serde_json::to_string_pretty(&records).unwrap_or_default();
        cache::write(&file, &text);
    }
    let parsed = records.iter().filter_map(|(class, r)| Some((class.parse().ok()?, r.candidate.parse().ok()?)));
    let table: BTreeMap<ShapeClass, Candidate> = parsed.filter(|&(_, c)| usual.ability().fits(c)).collect();
    engine.choose(usual.with_table(table));
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
        list.into_iter().filter_map(move |candidate| kernel(candidate, layout, types(half), true).text)
    };
    Layout::ALL.into_iter().flat_map(of_layout).collect()
}

/// Per adapter, driver, program version and text of the kernels.
fn file_name(engine: &Engine) -> String {
    let hash = cache::fingerprint(kernel_texts(engine.choices().ability()));
    format!("matmul-{}-{}-{hash:016x}.json", engine.gpu.cache_key(), env!("CARGO_PKG_VERSION"))
}

/// What is timed: operands of one type, a result that is f32.
fn types(half: bool) -> Types {
    let operand = if half { Dtype::F16 } else { Dtype::F32 };
    Types { a: operand, b: operand, c: Dtype::F32 }
}

fn load(file: &str) -> Records {
    cache::read(file).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// A product of the same kind that takes a few milliseconds: fewer rows of what the batch is long in.
fn shortened(product: ProductKind, most: usize) -> ProductKind {
    let size = product.size;
    let [mut m, n, mut k] = size;
    let long = if product.layout == Layout::TN { &mut k } else { &mut m };
    let rest = size.iter().product::<usize>() / (*long).max(1);
    *long = (*long).min((most / 2 / rest.max(1)).next_power_of_two().max(64));
    ProductKind { size: [m, n, k], ..product }
}

/// The fastest candidate and its GFLOP/s; `None` where the time was up.
fn fastest(
    engine: &Engine,
    product: ProductKind,
    effort: Effort,
    deadline: Option<Instant>,
) -> Result<Option<(Candidate, f64)>> {
    let choices = engine.choices();
    let most = if choices.ability().software { SOFTWARE_FLOPS } else { GPU_FLOPS };
    let product = shortened(product, most);
    let list = candidates(choices.ability(), product, effort == Effort::Full);
    let trial = Trial::new(engine, &choices, product, &list)?;
    let flops = 2.0 * product.size.iter().map(|&n| n as f64).product::<f64>();
    let mut best: Option<(Candidate, f64)> = None;
    let mut expected: Option<Vec<f64>> = None;
    let mut winner = 0;
    for (at, (candidate, program)) in list.iter().zip(&trial.programs).enumerate() {
        if best.is_some() && deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Ok(None);
        }
        engine.run(program)?;
        let found: Vec<f64> = trial.output(engine)?;
        let correct = match &expected {
            None => trial.sampled_error(&found) <= NMSE,
            Some(expected) => normalised_error(&found, expected) <= NMSE,
        };
        if !correct {
            let name = engine.gpu.describe();
            if expected.is_none() {
                return Err(Error::device(format!(
                    "{name} computes a {:?} product of {:?} wrongly with {candidate}; update its driver, or choose \
                     another adapter with --adapter or --backend",
                    product.layout, product.size
                )));
            }
            tell(format_args!("warning: {candidate} is wrong on {name}, so it is not used"));
            continue;
        }
        expected.get_or_insert(found);
        let seconds = time(engine, program, best.map(|(_, gflops)| flops / gflops / 1e9))?;
        let gflops = flops / seconds / 1e9;
        if best.is_none_or(|(_, most)| gflops > most) {
            best = Some((*candidate, gflops));
            winner = at;
        }
    }
    if let (1.., Some((_, gflops))) = (winner, best) {
        // Once more in turn with the usual one: on a busy machine a candidate may only have had the quieter moment.
        let count = repeats(flops / gflops / 1e9);
        let [mut usual, mut other] = [f64::INFINITY; 2];
        for _ in 0..2 {
            usual = usual.min(sample(engine, &trial.programs[0], count)?);
            other = other.min(sample(engine, &trial.programs[winner], count)?);
        }
        let (at, seconds) = if other < usual { (winner, other) } else { (0, usual) };
        best = Some((list[at], flops / seconds / 1e9));
    }
    Ok(best)
}

/// Normalised mean square error of one candidate in one product, over some outputs in every part of C.
///
/// # Errors
/// Device errors; a candidate that this device cannot run.
pub fn error_of(engine: &Engine, product: ProductKind, candidate: Candidate) -> Result<f64> {
    let trial = Trial::new(engine, &engine.choices(), product, &[candidate])?;
    trial.programs.iter().try_for_each(|program| engine.run(program))?;
    Ok(trial.sampled_error(&trial.output(engine)?))
}

/// Seconds of one run of `program`, the best of a few. One clearly slower than `best` is timed once.
fn time(engine: &Engine, program: &Program, best: Option<f64>) -> Result<f64> {
    let first = sample(engine, program, 1)?;
    if best.is_some_and(|best| first > 2.0 * best + 1e-3) {
        return Ok(first);
    }
    (0..3).try_fold(first, |least, _| Ok(least.min(sample(engine, program, repeats(first))?)))
}

/// Runs that fill a sample, where one takes `seconds`.
fn repeats(seconds: f64) -> u32 {
    (SAMPLE.as_secs_f64() / seconds).ceil().clamp(1.0, 64.0) as u32
}

/// Seconds of one run among `count` in a row.
fn sample(engine: &Engine, program: &Program, count: u32) -> Result<f64> {
    let start = Instant::now();
    let mut encoder = engine.encoder();
    (0..count).for_each(|_| engine.record(&mut encoder, program));
    let submission = engine.gpu.submit(encoder)?;
    engine.gpu.wait(submission)?;
    Ok(start.elapsed().as_secs_f64() / f64::from(count))
}

/// One product on the device, ready to run with every candidate.
struct Trial {
    memory: Memory,
    programs: Vec<Program>,
    product: ProductKind,
}

impl Trial {
    fn new(engine: &Engine, choices: &Choices, product: ProductKind, candidates: &[Candidate]) -> Result<Self> {
        let ProductKind { layout, size, half } = product;
        let [m, n, k] = size;
        let plan = |candidate: &Candidate| {
            let mut g = Graph::forward_only(&Choices::forced(*choices.ability(), *candidate));
            let types = types(half);
            let operands = [("a", m * k, types.a), ("b", k * n, types.b), ("c", m * n, types.c)];
            let [a, b, c] = operands.map(|(name, len, dtype)| g.typed(name, &[len], dtype, Class::State));
            Product::new(layout, size).record(&mut g, a, b, c)?;
            Plan::new(&g, &Limits::of(&engine.gpu))
        };
        let plans: Vec<Plan> = candidates.iter().map(plan).collect::<Result<_>>()?;
        let (memory, programs) = Memory::allocate(engine, &plans.iter().collect::<Vec<_>>())?;
        let trial = Self { memory, programs, product };
        for (name, len, seed) in [("a", m * k, 1), ("b", k * n, 2)] {
            let block = trial.memory.named(name)?;
            if half {
                let mut values: Vec<f16> = (0..len).map(|i| f16::from_f32(value(seed, i))).collect();
                // Copies move whole words.
                values.resize(len.next_multiple_of(2), f16::ZERO);
                engine.write_all(block, &values)?;
            } else {
                engine.write_all(block, &(0..len).map(|i| value(seed, i)).collect::<Vec<f32>>())?;
            }
        }
        Ok(trial)
    }

    fn output(&self, engine: &Engine) -> Result<Vec<f64>> {
        Ok(engine.read(self.memory.named("c")?)?.into_iter().map(f64::from).collect())
    }

    /// Error of some outputs, spread over rows and columns, against sums in f64.
    fn sampled_error(&self, found: &[f64]) -> f64 {
        let ProductKind { layout, size: [m, n, k], .. } = self.product;
        let places = (0..CHECKED).map(|i| (i * 7919 % m, (i * 104_729 + 5) % n)).chain([(m - 1, n - 1)]);
        let (got, want): (Vec<f64>, Vec<f64>) = places
            .map(|(row, column)| {
                let a = |i| if layout == Layout::TN { i * m + row } else { row * k + i };
                let b = |i| if layout == Layout::NT { column * k + i } else { i * n + column };
                let sum: f64 = (0..k).map(|i| f64::from(value(1, a(i))) * f64::from(value(2, b(i)))).sum();
                (found.get(row * n + column).copied().unwrap_or(f64::NAN), sum)
            })
            .unzip();
        normalised_error(&got, &want)
    }
}

/// Element `i` of an operand: between -0.5 and 0.5, exact in f16, without a pattern that sums could hide.
fn value(seed: u32, i: usize) -> f32 {
    let mut x = (i as u32).wrapping_mul(0x9e37_79b9) ^ seed.wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    (x >> 22) as f32 / (1 << 10) as f32 - 0.5
}
