//! Candidates for some products on one device: planned, compiled and verified, in memory that they share.
//!
//! A candidate is verified before it is timed: its result against that of the reference, which is held against f64 sums
//! on the host, and the results of several runs against each other. Products of f16 have a result in f32 or in f16, by two
//! kernels of one candidate: both are verified, and the one with the type that steps ask for is timed.

use super::contest::{Contest, refusal, trial_types};
use super::results::{MOST_RUNS, Output, Results, fill_operand};
use crate::console::warn;
use crate::error::{Error, Result};
use crate::gpu::engine::{Engine, Program};
use crate::graph::plan::Plan;
use crate::graph::view::Strided;
use crate::graph::{Class, Graph, Tensor};
use crate::kernel::{Candidate, Dtype, Kernel, KernelTable, Layout, ProductKind};
use crate::ops::matmul::Product;
use crate::ops::matmul::source::Types;
use crate::runtime::check::HALF_NMSE;
use crate::runtime::memory::Memory;
use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

/// Most outputs of a timed product on a software adapter.
const SOFTWARE_OUTPUTS: usize = 1 << 22;
/// The same on a GPU: three results of that size are held.
const GPU_OUTPUTS: usize = 1 << 25;
/// A GPU's products are cut to multiples of it: whole blocks of every candidate.
const CUT: usize = 256;
/// Outputs of the largest block that is likely.
const BLOCK: usize = 128 * 128;
/// Blocks of that size that a cut product still has: two waves and more on the largest GPUs, ...
const MOST_BLOCKS: usize = 600;
/// ... and on a smaller one, as it is given fewer operations, one for each so many.
const BLOCK_FLOPS: usize = 200_000_000;
const FEWEST_BLOCKS: usize = 4;
/// A sum that is cut keeps so many terms: candidates that compute it in parts have four parts or more.
const TERMS: usize = 32_768;
/// Largest normalised mean square error of a verified candidate: operands are exact in either type, sums are f32.
pub(crate) const NMSE: f64 = 1e-9;
/// Runs of a candidate whose results are equal in all bits; matrix units run in subgroups that a missing barrier lets
/// race, so that one run may be right by chance.
const RUNS: usize = 2;

/// A candidate that computes what it should, ready to run.
pub(super) struct Verified {
    /// Which one.
    pub candidate: Candidate,
    /// One product with a result in f32.
    pub program: Program,
    /// One with the result that steps ask for, where that is f16.
    half: Option<Program>,
}

impl Verified {
    /// What is timed: the result has the type that it has in steps.
    pub(super) fn timed(&self) -> &Program {
        self.half.as_ref().unwrap_or(&self.program)
    }
}

/// A product of the same kind with at most so many floating-point operations, where that tells the same: see
/// [`on_gpu`] and [`on_software`]. What is no multiple of four stays none: it has other kernels.
pub(super) fn shortened(product: ProductKind, most: usize, software: bool) -> ProductKind {
    let mut size = if software { on_software(product, most) } else { on_gpu(product.size, most) };
    // The halves of a pair are of one size.
    let odd = if product.pair { 2 } else { 1 };
    for (n, before) in size.iter_mut().zip(product.size) {
        *n -= if !before.is_multiple_of(4) && n.is_multiple_of(4) { odd } else { 0 };
    }
    ProductKind { size, ..product }
}

/// Fewer rows of what the batch is long in, and fewer rows or columns of a large C.
fn on_software(product: ProductKind, most: usize) -> [usize; 3] {
    let size = product.size;
    let [mut m, mut n, mut k] = size;
    let long = if product.layout == Layout::TN { &mut k } else { &mut m };
    let rest = size.iter().product::<usize>() / (*long).max(1);
    *long = (*long).min((most / 2 / rest.max(1)).next_power_of_two().max(64));
    while m * n > SOFTWARE_OUTPUTS {
        let longer = if m > n { &mut m } else { &mut n };
        *longer = (*longer / 2).next_multiple_of(64);
    }
    [m, n, k]
}

/// Half of the longer side of C again and again, in whole blocks, as long as all of a GPU stays busy; then fewer terms of a
/// very long sum. With few blocks, or with sums in fewer parts, other kernels would win than those of the whole product:
/// at 128 of 4096 rows of the logits 64 x 128 did, at 94 TFLOP/s in a step where 128 x 128 reaches 170.
fn on_gpu([mut m, mut n, mut k]: [usize; 3], most: usize) -> [usize; 3] {
    let fewest = (most / BLOCK_FLOPS).clamp(FEWEST_BLOCKS, MOST_BLOCKS);
    let is_long = |m: usize, n: usize, k: usize| 2 * m * n > most / k.max(1);
    while m * n > GPU_OUTPUTS || is_long(m, n, k) {
        let (longer, other) = if m > n { (&mut m, n) } else { (&mut n, m) };
        let half = (*longer / 2).next_multiple_of(CUT);
        if half >= *longer || half * other < fewest * BLOCK {
            break;
        }
        *longer = half;
    }
    while k > TERMS && is_long(m, n, k) {
        k = (k / 2).next_multiple_of(CUT).max(TERMS);
    }
    [m, n, k]
}

/// Normalised mean square error of one candidate in one product, over some outputs in every part of C.
///
/// # Errors
/// Device errors; a candidate that this device cannot run.
pub fn error_of(engine: &Engine, product: ProductKind, candidate: Candidate) -> Result<f64> {
    let trials = Trials::new(engine, vec![Contest { product, candidates: vec![candidate] }])?;
    trials.reference_error(0).map(|(_, error)| error)
}

/// Plans of one product, by candidate.
struct Planned {
    contest: Contest,
    /// For each type of C; one that cannot be planned is refused when its turn comes.
    plans: Vec<Vec<Result<Plan>>>,
}

/// Some products on one device.
pub(super) struct Trials<'e> {
    engine: &'e Engine,
    memory: Memory,
    /// Compares the results.
    pub results: Results<'e>,
    planned: Vec<Planned>,
}

/// Elements of A, B and C.
type Lengths = [usize; 3];

impl<'e> Trials<'e> {
    /// Plans all candidates and fills the operands.
    ///
    /// # Errors
    /// Those of the device; its memory may not do.
    pub(super) fn new(engine: &'e Engine, contests: Vec<Contest>) -> Result<Self> {
        // All products use the same three tensors, as long as the longest needs.
        let longest = |half: bool| {
            let sizes = contests.iter().filter(|contest| contest.product.half == half).map(|c| c.product.size);
            sizes.fold([0; 3], |[a, b, c]: Lengths, [m, n, k]| [a.max(m * k), b.max(k * n), c.max(m * n)])
        };
        let lengths = [longest(false), longest(true)];
        let outputs = lengths[0][2].max(lengths[1][2]);
        let plan = |contest: Contest| {
            let of = |candidate: &Candidate| {
                let [a, b, c] = lengths[usize::from(contest.product.half)];
                let lengths = |types: &Types| [a, b, if types.c == Dtype::F32 { outputs } else { c }];
                let types = trial_types(contest.product.half);
                types.iter().map(|types| plan(engine, contest.product, *candidate, *types, lengths(types))).collect()
            };
            let plans = contest.candidates.iter().map(of).collect();
            Planned { contest, plans }
        };
        let planned: Vec<Planned> = contests.into_iter().map(plan).collect();
        let plans: Vec<&Plan> = planned.iter().flat_map(|p| p.plans.iter().flatten().flatten()).collect();
        let memory = Memory::of(engine, &plans)?;
        for (dtype, [a, b, _]) in [Dtype::F32, Dtype::F16].into_iter().zip(lengths) {
            for (letter, len, seed) in [("a", a, 1), ("b", b, 2)] {
                // Nothing of this type, or no plan for it.
                if let Ok(block) = memory.named(&name(letter, dtype)) {
                    fill_operand(engine, block, len, dtype, seed)?;
                }
            }
        }
        Ok(Self { engine, memory, results: Results::new(engine, outputs)?, planned })
    }

    /// Compiles all kernels in so many threads, those of the first product first; none is begun after `until`.
    ///
    /// # Errors
    /// A device that was lost: by which kernel is not known where there are several threads.
    pub(crate) fn compile_ahead(&self, threads: usize, until: Option<Instant>) -> Result<()> {
        let mut seen = HashSet::new();
        let plans = self.planned.iter().flat_map(|planned| planned.plans.iter().flatten().flatten());
        let kernels = plans.flat_map(|plan| plan.calls.iter().map(|call| call.kernel));
        let kernels: Vec<&'static Kernel> = kernels.filter(|kernel| seen.insert(*kernel)).collect();
        self.engine.compile_ahead(&kernels, threads, until);
        self.engine.gpu.check()
    }

    /// Those of the candidates for a product that compute it, the reference first. Others are added to `refused`.
    ///
    /// # Errors
    /// A device error, which may be of a candidate that was just refused; a device that computes the reference wrongly.
    pub(super) fn verify(&self, at: usize, refused: &mut BTreeSet<String>) -> Result<Vec<Verified>> {
        let Contest { product, candidates } = self.contest(at)?;
        let mut verified = vec![self.reference(at)?];
        for (i, &candidate) in candidates.iter().enumerate().skip(1) {
            match self.check(at, i) {
                Ok((program, half)) => {
                    let half = half.filter(|_| gives_half(*product));
                    verified.push(Verified { candidate, program, half });
                }
                Err(cause) => {
                    let refusal = refusal(*product, candidate);
                    warn(format_args!("{refusal} is not used: {cause}"));
                    refused.insert(refusal);
                    // It may have cost the device, and then the next one is not to blame.
                    self.expect(at, &verified)?;
                }
            }
        }
        Ok(verified)
    }

    /// The reference for a product, once it has computed it.
    ///
    /// # Errors
    /// A device error; a device that computes it wrongly.
    pub(super) fn reference(&self, at: usize) -> Result<Verified> {
        let (reference, error) = self.reference_error(at)?;
        let ProductKind { layout, size, .. } = self.contest(at)?.product;
        // Not a number is wrong as well.
        if error <= NMSE {
            return Ok(reference);
        }
        Err(Error::device(format!(
            "{} computes a {layout:?} product of {size:?} wrongly with {}; update its driver, or choose another adapter \
             with --adapter or --backend",
            self.engine.gpu.describe(),
            reference.candidate,
        )))
    }

    /// A candidate for a product whose reference was computed last, once it has computed the same.
    ///
    /// # Errors
    /// It does not compile, its result is wrong or differs from run to run; a device error.
    pub(super) fn check(&self, at: usize, candidate: usize) -> Result<(Program, Option<Program>)> {
        let contest = self.contest(at)?;
        let cooperative = matches!(contest.candidates.get(candidate), Some(Candidate::Cooperative { .. }));
        let runs = if cooperative { MOST_RUNS } else { RUNS };
        let program = self.program(at, candidate, 0)?;
        self.results.check(&program, self.output(contest.product, Dtype::F32)?, runs, NMSE)?;
        let half = contest.product.half.then(|| self.program(at, candidate, 1)).transpose()?;
        if let Some(half) = &half {
            self.results.check(half, self.output(contest.product, Dtype::F16)?, runs, HALF_NMSE)?;
        }
        Ok((program, half))
    }

    /// Runs the reference once more.
    fn expect(&self, at: usize, verified: &[Verified]) -> Result<()> {
        let output = self.output(self.contest(at)?.product, Dtype::F32)?;
        verified.first().map_or(Ok(()), |reference| self.results.expect(&reference.program, output))
    }

    fn reference_error(&self, at: usize) -> Result<(Verified, f64)> {
        let contest = self.contest(at)?;
        let program = self.program(at, 0, 0)?;
        self.results.expect(&program, self.output(contest.product, Dtype::F32)?)?;
        let candidate = contest.candidates.first().copied().ok_or_else(missing)?;
        // The one with a result in f16 is not verified; it is the default kernel, whatever comes of it.
        let half = if gives_half(contest.product) { self.program(at, 0, 1).ok() } else { None };
        Ok((Verified { candidate, program, half }, self.results.sampled_error(contest.product)?))
    }

    /// Compiles a candidate for one type of C.
    fn program(&self, at: usize, candidate: usize, result: usize) -> Result<Program> {
        let plans = self.planned.get(at).and_then(|planned| planned.plans.get(candidate));
        let plan = plans.and_then(|plans| plans.get(result)).ok_or_else(missing)?;
        self.memory.program(self.engine, plan.as_ref().map_err(Clone::clone)?)
    }

    fn contest(&self, at: usize) -> Result<&Contest> {
        self.planned.get(at).map(|planned| &planned.contest).ok_or_else(missing)
    }

    fn output(&self, product: ProductKind, dtype: Dtype) -> Result<Output<'_>> {
        let [m, n, terms] = product.size;
        Ok(Output { block: self.memory.named(&name("c", dtype))?, dtype, len: m * n, terms })
    }
}

/// Whether steps ask for a result in f16: activations and their gradients are, gradients of parameters are f32.
fn gives_half(product: ProductKind) -> bool {
    product.half && product.layout != Layout::TN
}

/// Of a tensor that all products share.
fn name(letter: &str, dtype: Dtype) -> String {
    format!("{letter} {}", dtype.name())
}

fn missing() -> Error {
    Error::defect("a candidate without a plan")
}

fn plan(engine: &Engine, product: ProductKind, candidate: Candidate, types: Types, [a, b, c]: Lengths) -> Result<Plan> {
    let mut g = Graph::forward_only(&KernelTable::forced(engine.gpu.target, candidate));
    let tensors = [("a", a, types.a), ("b", b, types.b), ("c", c, types.c)];
    let [a, b, c] = tensors.map(|(letter, len, dtype)| g.typed(name(letter, dtype), &[len], dtype, Class::State));
    if product.pair {
        record_halves(&mut g, product, [a, b, c])?;
    } else {
        Product::new(product.layout, product.size).record(&mut g, a, b, c)?;
    }
    Plan::new(&g)
}

/// One product as a pair: the upper half of C is the first of it, the lower half the second, and B the same for both.
fn record_halves(g: &mut Graph, product: ProductKind, [a, b, c]: [Tensor; 3]) -> Result<()> {
    let ProductKind { layout, size: [m, n, k], .. } = product;
    let upper = m / 2;
    let from = |storage, offset| Strided { storage, offset, stride: 0 };
    let (a_width, below) = if layout == Layout::TN { (m, upper) } else { (k, upper * k) };
    let half = Product::new(layout, [upper, n, k]).of_columns(a_width);
    half.record_pair(g, [a.into(), b.into(), c.into()], [from(a, below), b.into(), from(c, upper * n)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::adapter::AdapterRequest;
    use crate::gpu::device::Gpu;
    use crate::kernel::ShapeClass;
    use crate::ops::matmul::planted::{PlantedFault, plant};

    fn engine() -> Engine {
        Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap()
    }

    fn product(layout: Layout, size: [usize; 3]) -> ProductKind {
        ProductKind { layout, size, half: false, pair: false }
    }

    #[test]
    fn software_adapters_try_fewer_rows() {
        for (layout, size) in [
            (Layout::NT, [1024, 50_304, 768]),
            (Layout::TN, [50_304, 768, 1024]),
            (Layout::NN, [65_536, 65_536, 64]),
            (Layout::TN, [5120, 1280, 4096]),
        ] {
            let [m, n, k] = shortened(product(layout, size), 40_000_000_000, true).size;
            assert!(m * n <= SOFTWARE_OUTPUTS && m * n > SOFTWARE_OUTPUTS / 4, "{m} x {n}");
            assert!(m >= 768 && n >= 768 && k == size[2], "{m} x {n} x {k}");
        }
        assert_eq!(shortened(product(Layout::NT, [4097, 768, 768]), 400_000_000, true).size, [511, 768, 768]);
    }

    /// Those of a step of the 150M model on a GPU that does 65 TFLOP/s: all but the largest as they are.
    #[test]
    fn a_fast_gpu_tries_what_steps_have() {
        const FLOPS: usize = 130_000_000_000;
        let of = |layout, size| shortened(product(layout, size), FLOPS, false).size;
        for (layout, size) in [
            (Layout::NN, [4096, 768, 3072]),
            (Layout::NT, [4096, 3072, 768]),
            (Layout::NT, [12_288, 768, 768]),
            (Layout::TN, [768, 768, 4096]),
            (Layout::TN, [3072, 768, 4096]),
            // Few blocks and a long sum: parts are what is tried.
            (Layout::NN, [128, 128, 32_768]),
        ] {
            assert_eq!(of(layout, size), size);
            let whole = product(layout, size);
            assert_eq!(ShapeClass::of(shortened(whole, FLOPS, false)), ShapeClass::of(whole));
        }
        for (layout, size) in [
            (Layout::NT, [4096, 50_304, 768]),
            (Layout::TN, [50_304, 768, 4096]),
            (Layout::NN, [4096, 768, 50_304]),
            (Layout::NN, [65_536, 65_536, 64]),
        ] {
            let [m, n, k] = of(layout, size);
            assert!(m * n <= GPU_OUTPUTS && 2 * m * n * k <= FLOPS.max(2 * 4096 * 768 * TERMS), "{m} x {n} x {k}");
            // Whole blocks in the dimension that was cut, at least two waves of them, and parts as in the whole product.
            for (cut, before) in [m, n, k].into_iter().zip(size) {
                assert!(cut == before || cut.is_multiple_of(CUT), "{m} x {n} x {k}");
            }
            let blocks = m.div_ceil(128) * n.div_ceil(128);
            let before = size[0].div_ceil(128) * size[1].div_ceil(128);
            assert!(blocks >= MOST_BLOCKS.min(before) && k >= TERMS.min(size[2]), "{m} x {n} x {k}");
        }
    }

    #[test]
    fn a_slow_gpu_tries_less_and_never_nothing() {
        // 0.4 TFLOP/s, and what is left when memory was short again and again.
        for most in [800_000_000, 60_000_000, 1000] {
            let [m, n, k] = shortened(product(Layout::NT, [4096, 50_304, 768]), most, false).size;
            let short = 2 * m * n * k <= most || m * n < 2 * FEWEST_BLOCKS * BLOCK;
            assert!(short && m * n >= FEWEST_BLOCKS * BLOCK && k == 768, "{m} x {n} x {k}");
        }
        assert_eq!(shortened(product(Layout::NT, [1, 1, 1]), 1, false).size, [1, 1, 1]);
        assert_eq!(shortened(product(Layout::NN, [4097, 2000, 4095]), 60_000_000, false).size, [255, 256, 4095]);
    }

    /// The kernel that is timed is right, and the one with a result of f16 is not.
    #[test]
    fn a_candidate_that_is_wrong_in_f16_is_refused() {
        let engine = engine();
        let target = engine.gpu.target;
        if !target.f16 {
            println!("{} has no f16: nothing to check", engine.gpu.describe());
            return;
        }
        // An odd number of outputs: the last word holds one.
        for size in [[96, 64, 80], [9, 7, 5]] {
            let product = ProductKind { layout: Layout::NN, size, half: true, pair: false };
            let default = target.default_candidate(product);
            let check = || {
                let trials = Trials::new(&engine, vec![Contest { product, candidates: vec![default; 2] }]).unwrap();
                trials.reference(0).unwrap();
                trials.check(0, 1).map(drop)
            };
            check().unwrap();
            let _guard = plant([(default, PlantedFault::HalfResult)].into());
            let said = check().unwrap_err().to_string();
            assert!(said.contains("its result in f16 is wrong"), "{said}");
        }
    }

    /// Products of several sizes and types share operands and results.
    #[test]
    fn products_are_tried_side_by_side() {
        let engine = engine();
        let target = engine.gpu.target;
        let mut contests = Vec::new();
        for layout in Layout::ALL {
            for size in [[96, 64, 80], [1, 1, 1], [13, 17, 300], [65, 131, 33]] {
                for half in [false, true].into_iter().take(1 + usize::from(target.f16)) {
                    let product = ProductKind { layout, size, half, pair: false };
                    contests.push(Contest { product, candidates: vec![target.default_candidate(product); 2] });
                    // The reference computes both halves as this device does, a pair is for GPUs.
                    let product = ProductKind { pair: true, size: [2 * size[0], size[1], size[2]], ..product };
                    let tiles = Candidate::Tiles { block: [32; 2], depth: 8, thread: [4; 2], chunk: 0 };
                    contests.push(Contest { product, candidates: vec![tiles; 2] });
                }
            }
        }
        let count = contests.len();
        let trials = Trials::new(&engine, contests).unwrap();
        trials.compile_ahead(2, None).unwrap();
        let mut refused = BTreeSet::new();
        for at in 0..count {
            assert_eq!(trials.verify(at, &mut refused).unwrap().len(), 2, "{refused:?}");
        }
    }
}
