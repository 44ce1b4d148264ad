//! One product with one candidate after another on a device: is it right, and how fast is it.
//!
//! A candidate is timed after its result equals that of the usual one, which is held against f64 sums on the host. The
//! result starts as poison each time, so that a kernel that writes nothing does not pass with what the one before it left.

use super::candidates::candidates;
use super::tune::{Effort, timed_types};
use super::{Layout, Product, ProductKind};
use crate::error::{Error, Result, tell};
use crate::gpu::choices::{Candidate, Choices};
use crate::gpu::engine::{Engine, Program};
use crate::graph::memory::Memory;
use crate::graph::plan::{Limits, Plan};
use crate::graph::{Class, Graph};
use crate::ops::check::normalised_error;
use half::f16;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

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
/// What C holds before a candidate runs: no sum comes near it.
const POISON: f32 = 1e30;

/// A product of the same kind that takes a few milliseconds: fewer rows of what the batch is long in.
fn shortened(product: ProductKind, most: usize) -> ProductKind {
    let size = product.size;
    let [mut m, n, mut k] = size;
    let long = if product.layout == Layout::TN { &mut k } else { &mut m };
    let rest = size.iter().product::<usize>() / (*long).max(1);
    *long = (*long).min((most / 2 / rest.max(1)).next_power_of_two().max(64));
    ProductKind { size: [m, n, k], ..product }
}

/// The fastest candidate and its GFLOP/s; `None` where the time was up. What is wrong or does not compile is added to
/// `refused`, and what is there already is not tried.
///
/// # Errors
/// A device error, which may be of a candidate that was just refused; a device that computes the usual product wrongly.
pub(super) fn fastest(
    engine: &Engine,
    product: ProductKind,
    effort: Effort,
    deadline: Option<Instant>,
    refused: &mut BTreeSet<String>,
) -> Result<Option<(Candidate, f64)>> {
    let choices = engine.choices();
    let most = if choices.ability().software { SOFTWARE_FLOPS } else { GPU_FLOPS };
    let product = shortened(product, most);
    let mut rivals = candidates(choices.ability(), product, effort == Effort::Full).into_iter();
    let Some(usual) = rivals.next() else { return Ok(None) };
    let rivals: Vec<Candidate> = rivals.filter(|rival| !refused.contains(&rival.to_string())).collect();
    let trial = Trial::new(engine, &choices, product, &[&[usual], &rivals[..]].concat())?;
    let flops = 2.0 * product.size.iter().map(|&n| n as f64).product::<f64>();
    let gflops = |seconds: f64| flops / seconds / 1e9;

    let program = trial.prepare(engine, 0)?;
    let expected = trial.run(engine, &program)?;
    if trial.sampled_error(&expected) > NMSE {
        return Err(Error::device(format!(
            "{} computes a {:?} product of {:?} wrongly with {usual}; update its driver, or choose another adapter with \
             --adapter or --backend",
            engine.gpu.describe(),
            product.layout,
            product.size
        )));
    }
    let mut best = (usual, time(engine, &program, None)?);
    let mut winner: Option<Program> = None;
    for (at, &rival) in rivals.iter().enumerate() {
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Ok(None);
        }
        match trial.timed(engine, at + 1, &expected, best.1) {
            Ok((program, seconds)) if seconds < best.1 => {
                best = (rival, seconds);
                winner = Some(program);
            }
            Ok(_) => {}
            Err(cause) => {
                tell(format_args!("warning: {rival} is not used: {cause}"));
                refused.insert(rival.to_string());
                // It may have cost the device, and then the next one is not to blame.
                trial.run(engine, &program)?;
            }
        }
    }
    if let Some(winner) = winner {
        // Once more in turn with the usual one: on a busy machine a candidate may only have had the quieter moment.
        let count = repeats(best.1);
        let [mut of_usual, mut of_winner] = [f64::INFINITY; 2];
        for _ in 0..2 {
            of_usual = of_usual.min(sample(engine, &program, count)?);
            of_winner = of_winner.min(sample(engine, &winner, count)?);
        }
        best = if of_winner < of_usual { (best.0, of_winner) } else { (usual, of_usual) };
    }
    Ok(Some((best.0, gflops(best.1))))
}

/// Normalised mean square error of one candidate in one product, over some outputs in every part of C.
///
/// # Errors
/// Device errors; a candidate that this device cannot run.
pub fn error_of(engine: &Engine, product: ProductKind, candidate: Candidate) -> Result<f64> {
    let trial = Trial::new(engine, &engine.choices(), product, &[candidate])?;
    let program = trial.prepare(engine, 0)?;
    Ok(trial.sampled_error(&trial.run(engine, &program)?))
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

/// One product on the device, with the plans of its candidates.
struct Trial {
    memory: Memory,
    plans: Vec<Plan>,
    product: ProductKind,
}

impl Trial {
    fn new(engine: &Engine, choices: &Choices, product: ProductKind, candidates: &[Candidate]) -> Result<Self> {
        let ProductKind { layout, size, half } = product;
        let [m, n, k] = size;
        let plan = |candidate: &Candidate| {
            let mut g = Graph::forward_only(&Choices::forced(*choices.ability(), *candidate));
            let types = timed_types(half);
            let operands = [("a", m * k, types.a), ("b", k * n, types.b), ("c", m * n, types.c)];
            let [a, b, c] = operands.map(|(name, len, dtype)| g.typed(name, &[len], dtype, Class::State));
            Product::new(layout, size).record(&mut g, a, b, c)?;
            Plan::new(&g, &Limits::of(&engine.gpu))
        };
        let plans: Vec<Plan> = candidates.iter().map(plan).collect::<Result<_>>()?;
        let memory = Memory::of(engine, &plans.iter().collect::<Vec<_>>())?;
        let trial = Self { memory, plans, product };
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

    /// Compiles one of the candidates.
    fn prepare(&self, engine: &Engine, at: usize) -> Result<Program> {
        let plan = self.plans.get(at).ok_or_else(|| Error::usage("a candidate without a plan; this is a defect"))?;
        self.memory.program(engine, plan)
    }

    /// C.
    fn run(&self, engine: &Engine, program: &Program) -> Result<Vec<f64>> {
        let [m, n, _] = self.product.size;
        let c = self.memory.named("c")?;
        engine.write_all(c, &vec![POISON; m * n])?;
        engine.run(program)?;
        Ok(engine.read(c)?.into_iter().map(f64::from).collect())
    }

    /// One of the candidates and its seconds, once it has computed what is expected.
    fn timed(&self, engine: &Engine, at: usize, expected: &[f64], best: f64) -> Result<(Program, f64)> {
        let program = self.prepare(engine, at)?;
        let error = normalised_error(&self.run(engine, &program)?, expected);
        // Not a number is wrong as well.
        if error <= NMSE {
            let seconds = time(engine, &program, Some(best))?;
            return Ok((program, seconds));
        }
        Err(Error::device(format!("its result is wrong on {}", engine.gpu.describe())))
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
