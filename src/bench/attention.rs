//! Causal attention at the shape of a model, each kernel by itself, with the rotation of q and k where that is asked for.
//!
//! The rate counts the products of the causal half, T^2 / 2 scores a head: 4 D operations a score forward, 6 D for dq, 8 D
//! for dk and dv. Some rows of every result are held against sums in f64 before anything is timed.

use super::probe::Probe;
use super::record::{Pass, Record, Report};
use super::timing::time;
use crate::error::{Error, Result};
use crate::gpu::engine::{Engine, Program};
use crate::gpu::timing::Stopwatch;
use crate::graph::plan::Plan;
use crate::graph::{Class, Graph};
use crate::kernel::{Dtype, KernelTable};
use crate::ops::HALF_GRADIENT_TOLERANCE;
use crate::ops::attention::{Attention, Rotation, rotary_attention};
use crate::ops::rotary;
use crate::rng::{Rng, Stream};
use crate::runtime::check::{GRADIENT_TOLERANCE, HALF_NMSE, normalised_error};
use crate::runtime::memory::Memory;
use half::f16;

/// Rows of each result that are checked.
const CHECKED: usize = 6;
/// Largest normalised mean square error of checked rows in f32, as that of the operator's own cases.
const NMSE: f64 = 1e-9;
/// Largest extent of a shape: what 32-bit indices hold is checked by the plan.
const MOST: usize = 1 << 20;
/// Inputs and results, as they are called in the graph.
const INPUTS: [&str; 4] = ["q", "k", "v", "dout"];
const RESULTS: [&str; 4] = ["o", "dq", "dk", "dv"];
/// Cosines and sines of the rotation.
const TABLE: &str = "table";
/// Base of its angles, as models have it.
const BASE: f64 = 10_000.0;

/// What to time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Sequences B, heads H, tokens T, channels of a head D.
    pub shape: [usize; 4],
    /// Channels of a head that rotate with their position.
    pub rotary: usize,
    /// Types of the activations.
    pub dtypes: Vec<Dtype>,
}

/// Adds a record for each kernel of the forward and the backward, and one for each whole pass.
///
/// # Errors
/// A usage error where an extent is none; a device error where the device has no f16, a tensor is too large, or a result
/// is wrong.
pub(crate) fn run(
    stopwatch: &Stopwatch,
    kernels: &KernelTable,
    chosen: &Chosen,
    seconds: f64,
    report: &mut Report,
) -> Result<()> {
    if !chosen.shape.iter().all(|n| (1..=MOST).contains(n)) {
        let [batch, heads, rows, width] = chosen.shape;
        return Err(Error::usage(format!(
            "attention with --batch {batch} --heads {heads} --seq {rows} --head-width {width}: each is a number from 1 to {MOST}"
        )));
    }
    let (rotary, width) = (chosen.rotary, chosen.shape[3]);
    if rotary > width || !rotary.is_multiple_of(2) {
        return Err(Error::usage(format!(
            "--rotary {rotary}: channels rotate in pairs, so it is an even number from 0 to the {width} of --head-width"
        )));
    }
    let probe = Probe::new(stopwatch)?;
    for &dtype in &chosen.dtypes {
        if dtype == Dtype::F16 && !stopwatch.engine.gpu.target.f16 {
            return Err(Error::device(format!(
                "\"{}\" has no 16-bit floats in shaders; use --dtype f32, or another adapter",
                stopwatch.engine.gpu.info.name
            )));
        }
        let timed = Timing::new(stopwatch.engine, kernels, Sample::new(chosen.shape, chosen.rotary, dtype))?;
        probe.around(&format!("attention {}", dtype.name()), report, |report| timed.add(stopwatch, seconds, report))?;
    }
    Ok(())
}

/// One run of calls in a row: a kernel, or a whole pass.
struct Part {
    pass: Pass,
    kernel: String,
    plan: Plan,
}

/// Everything of one type, computed once and found right.
struct Timing {
    case: String,
    dtype: Dtype,
    parts: Vec<(Part, Program)>,
    // Keeps the memory that the programs bind.
    _memory: Memory,
}

impl Timing {
    fn new(engine: &Engine, kernels: &KernelTable, sample: Sample) -> Result<Self> {
        let Sample { shape: [batch, heads, rows, width], rotary, dtype, .. } = sample;
        let mut g = Graph::training(kernels);
        g.set_precision(dtype);
        let extents = [batch * rows, heads * width];
        let [q, k, v, dout] = INPUTS.map(|name| g.typed(name, &extents, dtype, Class::State));
        let position = g.state("run", &[4]);
        let shape = Attention { batch, heads, q_rows: rows, kv_rows: rows };
        let table = g.state(TABLE, &[rows, rotary.max(1)]);
        let rotation = (rotary > 0).then_some(Rotation { table, width: rotary, keys: true });
        let o = rotary_attention(&mut g, [q, k, v], position, shape, rotation)?;
        g.set_grad(o, dout);
        let forward = g.calls().len();
        g.backward()?;
        g.keep(o, RESULTS[0]);
        for (tensor, name) in [q, k, v].into_iter().zip(&RESULTS[1..]) {
            let gradient = g.grad(tensor).ok_or_else(|| Error::defect(format!("no {name} was recorded")))?;
            g.keep(gradient, name);
        }
        let plan = Plan::new(&g)?;
        let parts = parts(&plan, forward);
        let plans: Vec<&Plan> = std::iter::once(&plan).chain(parts.iter().map(|part| &part.plan)).collect();
        let (memory, programs) = Memory::allocate(engine, &plans)?;
        let mut programs = programs.into_iter();
        if rotary > 0 {
            engine.write_all(memory.named(TABLE)?, &sample.table)?;
        }
        for (name, values) in INPUTS.iter().zip(&sample.inputs) {
            write(engine, &memory, name, values, dtype)?;
        }
        for program in programs.by_ref().take(1) {
            engine.run(&program)?;
        }
        sample.compare(engine, &memory)?;
        let parts = parts.into_iter().zip(programs).collect();
        let rotates = if rotary > 0 { format!(", rotary {rotary}") } else { String::new() };
        Ok(Self { case: format!("{batch}x{heads}x{rows}x{width}{rotates}"), dtype, parts, _memory: memory })
    }

    fn add(&self, stopwatch: &Stopwatch, seconds: f64, report: &mut Report) -> Result<()> {
        for (part, program) in &self.parts {
            let record = Record {
                op: "attention".to_owned(),
                case: self.case.clone(),
                pass: part.pass,
                dtype: self.dtype.name().to_owned(),
                candidate: part.kernel.clone(),
                flops: part.plan.flops(),
                bytes: part.plan.traffic(),
                calls: Some(part.plan.calls.len()),
                ..Record::default()
            };
            report.add(record.timed(time(stopwatch, program, seconds)?));
        }
        Ok(())
    }
}

/// The calls of each pass together, then each by itself where there are several.
fn parts(plan: &Plan, forward: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut calls = plan.calls.clone();
    let backward = calls.split_off(forward);
    for (pass, calls) in [(Pass::Forward, calls), (Pass::Backward, backward)] {
        let part = |kernel: &str, calls| {
            let plan = Plan { calls, ..plan.clone() };
            Part { pass, kernel: kernel.to_owned(), plan }
        };
        parts.push(part("all kernels", calls.clone()));
        parts
            .extend(calls.iter().filter(|_| calls.len() > 1).map(|call| part(&call.kernel.name(), vec![call.clone()])));
    }
    parts
}

fn write(engine: &Engine, memory: &Memory, name: &str, values: &[f32], dtype: Dtype) -> Result<()> {
    let block = memory.named(name)?;
    if dtype == Dtype::F32 {
        return engine.write_all(block, values);
    }
    let mut halves: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
    // Copies move whole words.
    halves.resize(values.len().next_multiple_of(2), f16::ZERO);
    engine.write_all(block, &halves)
}

/// Inputs, and rows of the results that they must give.
struct Sample {
    shape: [usize; 4],
    rotary: usize,
    dtype: Dtype,
    /// By [`INPUTS`].
    inputs: [Vec<f32>; 4],
    /// The same, q and k rotated.
    rotated: [Vec<f32>; 4],
    /// See [`rotary::table`].
    table: Vec<f32>,
}

impl Sample {
    fn new(shape: [usize; 4], rotary: usize, dtype: Dtype) -> Self {
        let inputs = INPUTS.map(|name| {
            let mut values = Rng::named(17, Stream::Test, name).normals(shape.iter().product(), 1.0);
            if dtype == Dtype::F16 {
                values.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
            }
            values
        });
        let table = rotary::table(shape[2], rotary, BASE);
        let mut sample = Self { shape, rotary, dtype, rotated: inputs.clone(), inputs, table };
        for place in sample.all() {
            let at = sample.at(place);
            for input in 0..2 {
                let mut row: Vec<f64> = sample.inputs[input][at..at + shape[3]].iter().map(|&x| f64::from(x)).collect();
                sample.turn(&mut row, place[2], 1.0);
                sample.rotated[input][at..].iter_mut().zip(row).for_each(|(x, turned)| *x = turned as f32);
            }
        }
        sample
    }

    /// Every row of every head: sequence, head, row.
    fn all(&self) -> Vec<[usize; 3]> {
        let [batch, heads, rows, _] = self.shape;
        let of_head = move |b, h| (0..rows).map(move |row| [b, h, row]);
        (0..batch).flat_map(|b| (0..heads).flat_map(move |h| of_head(b, h))).collect()
    }

    /// Rotates a row of a head as of `position`, or back where `sign` is -1.
    fn turn(&self, row: &mut [f64], position: usize, sign: f64) {
        let half = self.rotary / 2;
        let of_row = &self.table[position * self.rotary..];
        for i in 0..half {
            let (cosine, sine) = (f64::from(of_row[i]), sign * f64::from(of_row[half + i]));
            let (x, y) = (row[i], row[half + i]);
            (row[i], row[half + i]) = (x * cosine - y * sine, y * cosine + x * sine);
        }
    }

    /// Where row `row` of head `head` of a sequence starts.
    fn at(&self, [sequence, head, row]: [usize; 3]) -> usize {
        let [_, heads, rows, width] = self.shape;
        ((sequence * rows + row) * heads + head) * width
    }

    fn row(&self, input: usize, place: [usize; 3]) -> &[f32] {
        let at = self.at(place);
        &self.rotated[input][at..at + self.shape[3]]
    }

    fn scale(&self) -> f64 {
        1.0 / (self.shape[3] as f64).sqrt()
    }

    /// Probabilities of a query, and their derivatives: p_j and p_j (dout . v_j - delta).
    fn query(&self, [sequence, head, row]: [usize; 3]) -> [Vec<f64>; 2] {
        let dots = |own: usize, other: usize| -> Vec<f64> {
            let own = self.row(own, [sequence, head, row]);
            (0..=row).map(|j| dot(own, self.row(other, [sequence, head, j]))).collect()
        };
        let mut p: Vec<f64> = dots(0, 1).iter().map(|score| score * self.scale()).collect();
        let largest = p.iter().copied().fold(f64::MIN, f64::max);
        p.iter_mut().for_each(|score| *score = (*score - largest).exp());
        let sum: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= sum);
        let dp = dots(3, 2);
        let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        let ds = p.iter().zip(&dp).map(|(p, dp)| p * (dp - delta)).collect();
        [p, ds]
    }

    /// Row `place` of each of [`RESULTS`].
    fn expected(&self, place: [usize; 3]) -> [Vec<f64>; 4] {
        let ([sequence, head, row], rows, scale) = (place, self.shape[2], self.scale());
        let mut results: [Vec<f64>; 4] = std::array::from_fn(|_| vec![0.0; self.shape[3]]);
        let mut add = |result: usize, weight: f64, values: &[f32]| {
            results[result].iter_mut().zip(values).for_each(|(sum, &x)| *sum += weight * f64::from(x));
        };
        let [p, ds] = self.query(place);
        for (j, (p, ds)) in p.iter().zip(&ds).enumerate() {
            add(0, *p, self.row(2, [sequence, head, j]));
            add(1, ds * scale, self.row(1, [sequence, head, j]));
        }
        for i in row..rows {
            let [p, ds] = self.query([sequence, head, i]);
            add(2, ds[row] * scale, self.row(0, [sequence, head, i]));
            add(3, p[row], self.row(3, [sequence, head, i]));
        }
        results[1..3].iter_mut().for_each(|gradient| self.turn(gradient, row, -1.0));
        results
    }

    /// The first and the last row, and some between.
    fn places(&self) -> Vec<[usize; 3]> {
        let [batch, heads, rows, _] = self.shape;
        let mut rng = Rng::named(18, Stream::Test, "attention");
        let random = (2..CHECKED).map(|_| [batch, heads, rows].map(|n| rng.below(n as u64) as usize));
        [[0; 3], [batch - 1, heads - 1, rows - 1]].into_iter().chain(random).collect()
    }

    fn compare(&self, engine: &Engine, memory: &Memory) -> Result<()> {
        let (places, width) = (self.places(), self.shape[3]);
        let expected: Vec<[Vec<f64>; 4]> = places.iter().map(|&place| self.expected(place)).collect();
        for (result, name) in RESULTS.iter().enumerate() {
            let values = read(engine, memory, name, self.dtype)?;
            let rows =
                places.iter().flat_map(|&place| values.get(self.at(place)..).unwrap_or_default().iter().take(width));
            let got: Vec<f64> = rows.copied().collect();
            let want: Vec<f64> = expected.iter().flat_map(|row| row[result].iter().copied()).collect();
            let nmse = normalised_error(&got, &want);
            let most = match (result, self.dtype) {
                (0, Dtype::F32) => NMSE,
                (0, Dtype::F16) => HALF_NMSE,
                (_, Dtype::F32) => GRADIENT_TOLERANCE.powi(2),
                (_, Dtype::F16) => HALF_GRADIENT_TOLERANCE.powi(2),
            };
            // Not a number is wrong as well; `normalised_error` gives infinity for it.
            if nmse > most {
                return Err(Error::device(format!(
                    "attention's {name} in {} is wrong on {}: its normalised mean square error over {CHECKED} rows is \
                     {nmse:.1e}, at most {most:.0e} is right; nothing was timed: update the driver, or choose another adapter \
                     with --adapter or --backend",
                    self.dtype.name(),
                    engine.gpu.describe()
                )));
            }
        }
        Ok(())
    }
}

fn read(engine: &Engine, memory: &Memory, name: &str, dtype: Dtype) -> Result<Vec<f64>> {
    let block = memory.named(name)?;
    if dtype == Dtype::F32 {
        return Ok(engine.read(block)?.into_iter().map(f64::from).collect());
    }
    Ok(engine.read_halves(block)?.into_iter().map(|bits| f16::from_bits(bits).to_f64()).collect())
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::attention::reference;

    #[test]
    fn rows_are_those_of_the_reference() {
        let sample = Sample::new([2, 3, 7, 4], 4, Dtype::F32);
        let wide = |i: usize| -> Vec<f64> { sample.inputs[i].iter().map(|&x| f64::from(x)).collect() };
        let mut x: Vec<Vec<f64>> = (0..3).map(wide).collect();
        let attention = Attention { batch: 2, heads: 3, q_rows: 7, kv_rows: 7 };
        let whole = |x: &[Vec<f64>]| {
            let mut x = x.to_vec();
            for (place, input) in sample.all().into_iter().flat_map(|place| [(place, 0), (place, 1)]) {
                let at = sample.at(place);
                sample.turn(&mut x[input][at..at + 4], place[2], 1.0);
            }
            reference(attention, 4, 0, &x)
        };
        let o = whole(&x);
        let loss = |x: &[Vec<f64>]| -> f64 { whole(x).iter().zip(wide(3)).map(|(o, d)| o * d).sum() };
        for place in [[0, 0, 0], [1, 2, 6], [0, 1, 3]] {
            let (expected, at) = (sample.expected(place), sample.at(place));
            for d in 0..4 {
                // q and k are rounded to f32 once they are rotated.
                assert!((expected[0][d] - o[at + d]).abs() < 1e-6);
                for input in 0..3 {
                    let kept = x[input][at + d];
                    let mut value = |step: f64| {
                        x[input][at + d] = kept + step;
                        let loss = loss(&x);
                        x[input][at + d] = kept;
                        loss
                    };
                    let derivative = (value(1e-5) - value(-1e-5)) / 2e-5;
                    assert!((derivative - expected[1 + input][d]).abs() < 3e-6, "{place:?} {input} {d}");
                }
            }
        }
    }
}
