//! One product with one candidate after another on a device: is it right, and how fast is it.
//!
//! A candidate is timed after its result equals that of the usual one, which is held against f64 sums on the host. The
//! result starts as poison each time, so that a kernel that writes nothing does not pass with what the one before it left.
//! Products of f16 have a result in f32 or in f16, by two kernels of one candidate: the first is timed, both are verified.

use super::candidates::candidates;
use super::source::Types;
use super::tune::{Effort, trial_types};
use super::{Layout, Product, ProductKind};
use crate::error::{Error, Result, tell};
use crate::gpu::choices::{Candidate, Choices};
use crate::gpu::engine::{Engine, Program};
use crate::graph::memory::Memory;
use crate::graph::plan::{Limits, Plan};
use crate::graph::{Class, Graph};
use crate::ops::check::{HALF_NMSE, normalised_error};
use half::f16;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Floating-point operations of one timed product on a software adapter: longer ones are measured on fewer rows.
const SOFTWARE_FLOPS: usize = 60_000_000;
/// The same on a GPU.
const GPU_FLOPS: usize = 40_000_000_000;
/// Dispatches are repeated until a sample takes this long.
const SAMPLE: Duration = Duration::from_millis(2);
/// Most outputs of a timed product: the host compares each of them for every candidate.
const MOST_OUTPUTS: usize = 1 << 22;
/// Largest normalised mean square error of a verified candidate: operands are exact in either type, sums are f32.
pub const NMSE: f64 = 1e-9;
/// Outputs computed again on the host.
const CHECKED: usize = 64;
/// What C holds before a candidate runs: no sum comes near it.
const POISON: f32 = 1e30;

/// How a refusal is kept: kernels of one candidate differ by layout and type.
pub(super) fn refusal(product: ProductKind, candidate: Candidate) -> String {
    format!("{:?} {candidate}{}", product.layout, if product.half { " f16" } else { "" })
}

/// A product of the same kind that takes a few milliseconds, and whose result is soon compared: fewer rows of what the
/// batch is long in, and fewer rows or columns of a large C.
fn shortened(product: ProductKind, most: usize) -> ProductKind {
    let size = product.size;
    let [mut m, mut n, mut k] = size;
    let long = if product.layout == Layout::TN { &mut k } else { &mut m };
    let rest = size.iter().product::<usize>() / (*long).max(1);
    *long = (*long).min((most / 2 / rest.max(1)).next_power_of_two().max(64));
    while m * n > MOST_OUTPUTS {
        let longer = if m > n { &mut m } else { &mut n };
        *longer = (*longer / 2).next_multiple_of(64);
    }
    ProductKind { size: [m, n, k], ..product }
}

/// The fastest candidate and its GFLOP/s; `None` where none fits the device. What is wrong, does not compile or cannot be
/// planned is added to `refused`, and what is there already is not tried.
///
/// # Errors
/// A device error, which may be of a candidate that was just refused; a device that computes the usual product wrongly.
pub(super) fn fastest(
    engine: &Engine,
    product: ProductKind,
    effort: Effort,
    refused: &mut BTreeSet<String>,
) -> Result<Option<(Candidate, f64)>> {
    let choices = engine.choices();
    let most = if choices.ability().software { SOFTWARE_FLOPS } else { GPU_FLOPS };
    let product = shortened(product, most);
    let mut rivals = candidates(choices.ability(), product, effort == Effort::Full).into_iter();
    let Some(usual) = rivals.next() else { return Ok(None) };
    let rivals: Vec<Candidate> = rivals.filter(|rival| !refused.contains(&refusal(product, *rival))).collect();
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
        match trial.timed(engine, at + 1, &expected, best.1) {
            Ok((program, seconds)) if seconds < best.1 => {
                best = (rival, seconds);
                winner = Some(program);
            }
            Ok(_) => {}
            Err(cause) => {
                tell(format_args!("warning: {rival} is not used: {cause}"));
                refused.insert(refusal(product, rival));
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
    plans: Vec<Result<Plan>>,
    /// The same with a C of f16; none where the operands are f32.
    half_plans: Vec<Result<Plan>>,
    product: ProductKind,
}

/// Names of the results of f32 and f16.
const RESULTS: [&str; 2] = ["c", "half c"];

impl Trial {
    fn new(engine: &Engine, choices: &Choices, product: ProductKind, candidates: &[Candidate]) -> Result<Self> {
        let ProductKind { layout, size, half } = product;
        let [m, n, k] = size;
        let plan = |candidate: Candidate, types: Types, result: &str| {
            let mut g = Graph::forward_only(&Choices::forced(*choices.ability(), candidate));
            let operands = [("a", m * k, types.a), ("b", k * n, types.b), (result, m * n, types.c)];
            let [a, b, c] = operands.map(|(name, len, dtype)| g.typed(name, &[len], dtype, Class::State));
            Product::new(layout, size).record(&mut g, a, b, c)?;
            Plan::new(&g, &Limits::of(&engine.gpu))
        };
        // For each type of C, the plans of all candidates; one that cannot be planned is refused when its turn comes.
        let mut plans = trial_types(half).into_iter().zip(RESULTS).map(|(types, result)| {
            candidates.iter().map(|&candidate| plan(candidate, types, result)).collect::<Vec<_>>()
        });
        let (plans, half_plans) = (plans.next().unwrap_or_default(), plans.next().unwrap_or_default());
        let memory = Memory::of(engine, &plans.iter().chain(&half_plans).flatten().collect::<Vec<_>>())?;
        let trial = Self { memory, plans, half_plans, product };
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
        self.compile(engine, self.plans.get(at))
    }

    fn compile(&self, engine: &Engine, plan: Option<&Result<Plan>>) -> Result<Program> {
        let plan = plan.ok_or_else(|| Error::usage("a candidate without a plan; this is a defect"))?;
        self.memory.program(engine, plan.as_ref().map_err(Clone::clone)?)
    }

    /// C.
    fn run(&self, engine: &Engine, program: &Program) -> Result<Vec<f64>> {
        let [m, n, _] = self.product.size;
        let c = self.memory.named(RESULTS[0])?;
        engine.write_all(c, &vec![POISON; m * n])?;
        engine.run(program)?;
        Ok(engine.read(c)?.into_iter().map(f64::from).collect())
    }

    /// C in f16.
    fn run_half(&self, engine: &Engine, program: &Program) -> Result<Vec<f64>> {
        let [m, n, _] = self.product.size;
        let c = self.memory.named(RESULTS[1])?;
        // Copies move whole words.
        engine.write_all(c, &vec![f16::MAX; (m * n).next_multiple_of(2)])?;
        engine.run(program)?;
        let bits = engine.read_halves(c)?;
        Ok(bits.into_iter().take(m * n).map(|bits| f16::from_bits(bits).to_f64()).collect())
    }

    /// One of the candidates and its seconds, once it has computed what is expected. Where it is faster than `best`, its
    /// C of f16 was right as well.
    fn timed(&self, engine: &Engine, at: usize, expected: &[f64], best: f64) -> Result<(Program, f64)> {
        let right = |found: Vec<f64>, most: f64, what: &str| {
            // Not a number is wrong as well.
            if normalised_error(&found, expected) <= most {
                return Ok(());
            }
            Err(Error::device(format!("its {what} is wrong on {}", engine.gpu.describe())))
        };
        let program = self.prepare(engine, at)?;
        right(self.run(engine, &program)?, NMSE, "result")?;
        let seconds = time(engine, &program, Some(best))?;
        if self.product.half && seconds < best {
            let half = self.compile(engine, self.half_plans.get(at))?;
            right(self.run_half(engine, &half)?, HALF_NMSE, "result in f16")?;
        }
        Ok((program, seconds))
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

#[cfg(test)]
mod tests {
    use super::super::planted::{Fault, plant};
    use super::*;
    use crate::gpu::adapter::AdapterRequest;
    use crate::gpu::choices::ShapeClass;
    use crate::gpu::device::Gpu;

    #[test]
    fn a_large_result_is_tried_in_part() {
        let product = |layout, size| ProductKind { layout, size, half: false };
        for (layout, size) in [
            (Layout::NT, [1024, 50_304, 768]),
            (Layout::TN, [50_304, 768, 1024]),
            (Layout::NN, [65_536, 65_536, 64]),
            (Layout::TN, [5120, 1280, 4096]),
        ] {
            let [m, n, k] = shortened(product(layout, size), GPU_FLOPS).size;
            assert!(m * n <= MOST_OUTPUTS && m * n > MOST_OUTPUTS / 4, "{m} x {n}");
            assert!(m >= 768 && n >= 768 && k == size[2], "{m} x {n} x {k}");
        }
        let small = product(Layout::NT, [2048, 2048, 512]);
        assert_eq!(ShapeClass::of(shortened(small, GPU_FLOPS)), ShapeClass::of(small));
    }

    /// The kernel that is timed is right, and the one with a result of f16 is not.
    #[test]
    fn a_candidate_that_is_wrong_in_f16_is_refused() {
        let engine = Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap();
        let choices = engine.choices();
        if !choices.ability().half {
            println!("{} has no f16: nothing to check", engine.gpu.describe());
            return;
        }
        let product = ProductKind { layout: Layout::NN, size: [96, 64, 80], half: true };
        let usual = choices.ability().default_candidate(product);
        let timed = || {
            let trial = Trial::new(&engine, &choices, product, &[usual]).unwrap();
            let expected = trial.run(&engine, &trial.prepare(&engine, 0).unwrap()).unwrap();
            trial.timed(&engine, 0, &expected, f64::INFINITY).map(|(_, seconds)| seconds)
        };
        assert!(timed().unwrap() > 0.0);
        let _guard = plant([(usual, Fault::HalfResult)].into());
        let said = timed().unwrap_err().to_string();
        assert!(said.contains("its result in f16 is wrong"), "{said}");
    }
}
