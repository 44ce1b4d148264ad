//! Results of matrix products, compared on the device: only a few numbers are read back.
//!
//! C holds poison before each run, another number each time: a kernel that writes nothing, or that reads what it never
//! wrote, shows. The result of the reference is held against f64 sums on the host, at some outputs in every part of C.

use crate::error::{Error, Result};
use crate::gpu::engine::{Block, Dispatch, Engine, Program};
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Dtype, Kernel, Layout, ParameterBlock, ProductKind, parameter_block, word, workgroups};
use crate::runtime::check::normalised_error;
use bytemuck::Zeroable;
use half::f16;
use std::time::Duration;

static OPERAND: Kernel = Kernel::new("trial.wgsl", "operand", &[Write]);
static FILL: Kernel = Kernel::new("trial.wgsl", "fill", &[Write]);
static COPY: Kernel = Kernel::new("trial.wgsl", "copy_words", &[Read, Write]);
static GATHER: Kernel = Kernel::new("trial.wgsl", "gather", &[Read, Read, Write]);
static DIFFERING: Kernel = Kernel::new("trial.wgsl", "differing_words", &[Read, Read, Write]);
static DISTANCE: Kernel = Kernel::new("trial.wgsl", "distance", &[Read, Read, Write]);

parameter_block! {
    /// The parameter block of `shaders/trial.wgsl`.
    pub struct TrialDims {
        /// Elements or words.
        n: u32,
        /// fill: what to write; operand: the seed; differing_words: the bits of the last word that count
        word: u32,
        /// differing_words: where its counts go
        run: u32,
        /// distance: largest difference, and more for large outputs
        absolute: f32,
        /// distance: how much more, as a share of the output.
        relative: f32,
    }
}

/// Invocations of a workgroup of each of them.
const LANES: usize = 64;
/// Most workgroups of a comparison, as in `trial.wgsl`.
const GROUPS: usize = 256;
/// Most runs of one candidate.
pub(super) const MOST_RUNS: usize = 16;
/// What C holds before the first run, in f32 and f16; before run i it is (i + 1) times as much, or 32 i less. No sum
/// comes near it.
const POISON: (f32, f32) = (1e30, 60_000.0);
/// Longest wait for one run of a few milliseconds. Some drivers compile when a kernel first runs; on a processor with ten
/// programs for each core lavapipe took more than 30 s.
const PATIENCE: Duration = Duration::from_secs(120);
/// Largest difference of one output, as a share of the root mean square of all.
const SHARE: f64 = 1e-3;
/// The same as a share of the output itself where C is f16: more than four roundings.
const HALF_SHARE: f64 = 2e-3;
/// Outputs computed again on the host.
const CHECKED: usize = 64;
/// Variance of an element of an operand.
const VARIANCE: f64 = 1.0 / 12.0;

/// C of a candidate: its memory, type and elements.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    /// Where it is.
    pub block: &'a Block,
    /// Of its elements.
    pub dtype: Dtype,
    /// m n.
    pub len: usize,
    /// Terms of each sum.
    pub terms: usize,
}

impl Output<'_> {
    fn words(&self) -> usize {
        (self.len * self.dtype.bytes() as usize).div_ceil(4)
    }

    /// Bits of the last word: half of it is no output where an odd number of them is f16.
    fn last_word(&self) -> u32 {
        if self.dtype == Dtype::F16 && self.len % 2 == 1 { 0xffff } else { u32::MAX }
    }

    /// A word of poison for one run.
    fn poison(&self, run: usize) -> u32 {
        if self.dtype == Dtype::F32 {
            return (POISON.0 * (1.0 + run as f32)).to_bits();
        }
        let half = u32::from(f16::from_f32(POISON.1 - 32.0 * run as f32).to_bits());
        half << 16 | half
    }
}

/// Memory for comparing results of up to so many outputs.
pub(super) struct Results<'e> {
    engine: &'e Engine,
    /// C of the reference, f32.
    expected: Block,
    /// C of the first run of a candidate.
    first: Block,
    /// What comparisons found.
    found: Block,
    /// Spoils all runs of a candidate but the first: for showing that it is noticed.
    pub spoil: bool,
}

impl<'e> Results<'e> {
    /// # Errors
    /// Out of device memory.
    pub(super) fn new(engine: &'e Engine, outputs: usize) -> Result<Self> {
        let block = |label, words: usize| engine.allocate(label, 4 * words as u64);
        let [expected, first] = ["expected", "first result"].map(|label| block(label, outputs));
        Ok(Self {
            engine,
            expected: expected?,
            first: first?,
            found: block("found", MOST_RUNS * GROUPS)?,
            spoil: false,
        })
    }

    /// Runs the reference and keeps its C.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn expect(&self, program: &Program, c: Output) -> Result<()> {
        let poison = self.fill(c, 0, c.words())?;
        let keep = self.copy(c, &self.expected)?;
        self.submit(&[&poison, program, &keep])
    }

    /// Normalised mean square error of the reference at some outputs, spread over rows and columns.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn sampled_error(&self, product: ProductKind) -> Result<f64> {
        let ProductKind { layout, size: [m, n, k], .. } = product;
        let places = (0..CHECKED).map(|i| (i * 7919 % m, (i * 104_729 + 5) % n));
        let places: Vec<_> = places.chain([(m - 1, n - 1)]).collect();
        let indices: Vec<u32> = places.iter().map(|(row, column)| (row * n + column) as u32).collect();
        let at = self.engine.allocate("places", 4 * indices.len() as u64)?;
        self.engine.write(&at, &indices);
        let picked = self.found.sized(at.bytes());
        let dims = dims(indices.len());
        let gather = prepare(self.engine, &GATHER, dims, &[&self.expected, &at, &picked], 2)?;
        self.submit(&[&gather])?;
        let got: Vec<f64> = self.engine.read(&picked)?.into_iter().map(f64::from).collect();
        let sum = |&(row, column): &(usize, usize)| -> f64 {
            let a = |i| if layout == Layout::TN { i * m + row } else { row * k + i };
            let b = |i| if layout == Layout::NT { column * k + i } else { i * n + column };
            (0..k).map(|i| f64::from(value(1, a(i))) * f64::from(value(2, b(i)))).sum()
        };
        Ok(normalised_error(&got, &places.iter().map(sum).collect::<Vec<_>>()))
    }

    /// Runs a candidate so many times: each C is within `nmse` of what is expected, and all are equal in all bits.
    ///
    /// # Errors
    /// A result that is wrong or differs; those of the device.
    pub(super) fn check(&self, program: &Program, c: Output, runs: usize, nmse: f64) -> Result<()> {
        let (words, what) = (c.words(), if c.dtype == Dtype::F16 { "result in f16" } else { "result" });
        let keep = self.copy(c, &self.first)?;
        let compare = self.distance(c)?;
        let poison = self.fill(c, 0, words)?;
        self.submit(&[&poison, program, &compare, &keep])?;
        let parts = self.engine.read(&self.found.sized(12 * u64::from(groups(c.len))))?;
        let sum = |i: usize| parts.iter().skip(i).step_by(3).copied().map(f64::from).sum::<f64>();
        let [error, size, apart] = [0, 1, 2].map(sum);
        // Not a number is wrong as well.
        let right = apart == 0.0 && (error == 0.0 || error / size <= nmse);
        if !right {
            return Err(Error::device(format!(
                "its {what} is wrong on {}: {apart} of {} numbers are off, normalised error {:.1e}",
                self.engine.gpu.describe(),
                c.len,
                error / size
            )));
        }
        for run in 1..runs {
            let poison = self.fill(c, run, words)?;
            let spoil = if self.spoil { Some(self.fill(c, run, 1)?) } else { None };
            let dims = TrialDims { word: c.last_word(), run: word(run - 1), ..dims(words) };
            let differing =
                prepare(self.engine, &DIFFERING, dims, &[c.block, &self.first, &self.found], groups(words))?;
            let programs: Vec<_> = [&poison, program].into_iter().chain(&spoil).chain([&differing]).collect();
            self.submit(&programs)?;
        }
        let counts: Vec<f32> = self.engine.read(&self.found.sized(4 * ((runs - 1) * GROUPS) as u64))?;
        let counts = counts.chunks(GROUPS).flat_map(|run| run.iter().take(groups(words) as usize));
        let differing: u64 = counts.map(|count| u64::from(count.to_bits())).sum();
        // Work that was dropped would have left the counts of another candidate.
        self.engine.check_heartbeat()?;
        if differing > 0 {
            return Err(Error::device(format!(
                "its {what} differs from run to run on {}: {differing} words in {runs} runs",
                self.engine.gpu.describe()
            )));
        }
        Ok(())
    }

    fn distance(&self, c: Output) -> Result<Program> {
        let share = if c.dtype == Dtype::F16 { HALF_SHARE } else { 0.0 };
        let typical = VARIANCE * (c.terms as f64).sqrt();
        let dims = TrialDims { absolute: (SHARE * typical) as f32, relative: share as f32, ..dims(c.len) };
        let kernel = DISTANCE.in_precision(c.dtype);
        prepare(self.engine, kernel, dims, &[c.block, &self.expected, &self.found], groups(c.len))
    }

    fn fill(&self, c: Output, run: usize, words: usize) -> Result<Program> {
        let dims = TrialDims { word: c.poison(run), ..dims(words) };
        prepare(self.engine, &FILL, dims, &[c.block], workgroups(words.div_ceil(LANES)))
    }

    fn copy(&self, c: Output, to: &Block) -> Result<Program> {
        let words = c.words();
        prepare(self.engine, &COPY, dims(words), &[c.block, to], workgroups(words.div_ceil(LANES)))
    }

    /// Runs programs one after the other and waits.
    fn submit(&self, programs: &[&Program]) -> Result<()> {
        let mut encoder = self.engine.encoder();
        programs.iter().for_each(|program| self.engine.record(&mut encoder, program));
        let submission = self.engine.submit(encoder)?;
        self.engine.gpu.wait_within(submission, PATIENCE, || "one matrix product".to_owned())
    }
}

/// Fills an operand, from the same hash as [`value`].
///
/// # Errors
/// Those of the device.
pub(super) fn fill_operand(engine: &Engine, block: &Block, len: usize, dtype: Dtype, seed: u32) -> Result<()> {
    let dims = TrialDims { word: seed, ..dims(len) };
    engine.run(&prepare(engine, OPERAND.in_precision(dtype), dims, &[block], workgroups(len.div_ceil(LANES)))?)
}

/// Element `i` of an operand: between -0.5 and 0.5, exact in f16, without a pattern that sums could hide.
fn value(seed: u32, i: usize) -> f32 {
    let mut x = (i as u32).wrapping_mul(0x9e37_79b9) ^ seed.wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    (x >> 22) as f32 / (1 << 10) as f32 - 0.5
}

/// Of kernels that take nothing but a number of elements.
fn dims(n: usize) -> TrialDims {
    TrialDims { n: word(n), ..TrialDims::zeroed() }
}

/// Workgroups of a comparison of `n` numbers.
fn groups(n: usize) -> u32 {
    workgroups(n.div_ceil(LANES)).min(GROUPS as u32)
}

fn prepare(
    engine: &Engine,
    kernel: &'static Kernel,
    dims: TrialDims,
    blocks: &[&Block],
    groups: u32,
) -> Result<Program> {
    let blocks = blocks.iter().map(|&block| block.clone()).collect();
    engine.prepare(&[Dispatch { kernel, dims: ParameterBlock::from(dims).words(), blocks, groups, cost: 0.0 }])
}
