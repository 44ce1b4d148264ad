//! Matrix products by size, layout and kernel.
//!
//! Each is checked before it is timed: 256 outputs, the corners among them, against sums in f64, and the words behind
//! every matrix must be untouched.

use super::fma::FmaPeak;
use super::probe::Probe;
use super::record::{Pass, Record, Report};
use super::timing::time;
use crate::error::{Error, Result};
use crate::gpu::engine::{Block, Engine, Program};
use crate::gpu::timing::Stopwatch;
use crate::graph::plan::Plan;
use crate::graph::{Class, Graph, Tensor};
use crate::kernel::{Candidate, Dtype, KernelTable};
use crate::ops::matmul::candidates::{candidates, kernel};
use crate::ops::matmul::source::{PAIRED, ProductForm, Types, Vectors};
use crate::ops::matmul::{Layout, Product, ProductKind};
use crate::report::number;
use crate::rng::{Rng, Stream};
use crate::runtime::check::normalised_error;
use crate::runtime::memory::Memory;
use crate::tune::trial::NMSE;
use half::f16;

/// Outputs that are checked.
const CHECKED: usize = 256;
/// Largest extent of a matrix: what a kernel's 32-bit indices are sure to hold is checked by the plan.
const MOST: usize = 1 << 20;
/// Bytes of the matrices of products that are checked together, and then timed together: the host computes while it checks,
/// and clocks fall.
const TOGETHER: u64 = 2 << 30;

/// What to time.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// (m, n, k) of each size.
    pub sizes: Vec<[usize; 3]>,
    /// Which operands are transposed.
    pub layouts: Vec<Layout>,
    /// Whether operands are f16.
    pub halves: Vec<bool>,
    /// Text in the name of a candidate.
    pub filter: String,
    /// Also the candidates that are rarely the best.
    pub all: bool,
    /// Time products of f32 in turn with the multiply-add peak, which is found first.
    pub peaks: bool,
}

/// `512,64x64x4096` as sizes [m, n, k].
///
/// # Errors
/// A usage error naming the part that is no size.
pub(crate) fn parse_sizes(text: &str) -> Result<Vec<[usize; 3]>> {
    text.split(',').map(parse_size).collect()
}

fn parse_size(text: &str) -> Result<[usize; 3]> {
    let number = |part: &str| part.trim().parse::<usize>().ok().filter(|n| (1..=MOST).contains(n));
    let numbers: Option<Vec<usize>> = text.split('x').map(number).collect();
    match numbers.as_deref() {
        Some(&[n]) => Ok([n; 3]),
        Some(&[m, n, k]) => Ok([m, n, k]),
        _ => Err(Error::usage(format!(
            "--sizes has \"{text}\", but a size is a number or MxNxK, each from 1 to {MOST}: for example 512,64x64x4096"
        ))),
    }
}

/// `nn,nt` as layouts.
///
/// # Errors
/// A usage error naming the word that is no layout.
pub(crate) fn parse_layouts(text: &str) -> Result<Vec<Layout>> {
    let layout = |word: &str| match word.trim().to_lowercase().as_str() {
        "nn" => Ok(Layout::NN),
        "nt" => Ok(Layout::NT),
        "tn" => Ok(Layout::TN),
        _ => Err(Error::usage(format!("--layout has \"{word}\", but a layout is nn, nt or tn: for example nn,nt"))),
    };
    text.split(',').map(layout).collect()
}

/// Adds a record for each size, layout, type and candidate that is chosen.
///
/// # Errors
/// A usage error where no candidate has that name; a device error where the device has no f16, a matrix is too large,
/// or a result is wrong.
pub(crate) fn run(stopwatch: &Stopwatch, chosen: &Chosen, seconds: f64, report: &mut Report) -> Result<()> {
    let engine = stopwatch.engine;
    let mut names = Vec::new();
    let mut timed = 0;
    let probe = Probe::new(stopwatch)?;
    let peak = chosen.peaks.then(|| FmaPeak::find(stopwatch, Dtype::F32, seconds)).transpose()?;
    for &size in &chosen.sizes {
        for (&layout, &half) in chosen.layouts.iter().flat_map(|l| chosen.halves.iter().map(move |h| (l, h))) {
            let product = ProductKind { layout, size, half, pair: false };
            check_device(engine, product)?;
            let all = candidates(&engine.gpu.target, product, chosen.all);
            names.extend(all.iter().map(ToString::to_string));
            let wanted = |candidate: &&Candidate| candidate.to_string().contains(&chosen.filter);
            let wanted: Vec<&Candidate> = all.iter().filter(wanted).collect();
            if wanted.is_empty() {
                continue;
            }
            timed += wanted.len();
            let matrices = Matrices::new(product);
            let series = format!("{} {}", case_name(layout, size), matrices.dtype().name());
            let together = if engine.gpu.target.software { 1 } else { (TOGETHER / matrices.bytes()).max(1) as usize };
            probe.around(&series, report, |report| {
                for some in wanted.chunks(together) {
                    let checked = |candidate: &&Candidate| matrices.checked(engine, **candidate);
                    let programs = some.iter().map(checked).collect::<Result<Vec<Program>>>()?;
                    for (&&candidate, program) in some.iter().zip(&programs) {
                        report.add(matrices.time(stopwatch, candidate, program, peak.as_ref(), seconds)?);
                    }
                }
                Ok(())
            })?;
        }
    }
    if timed > 0 {
        peak.into_iter().for_each(|peak| report.add(peak.record));
        return Ok(());
    }
    names.sort();
    names.dedup();
    let (filter, names) = (&chosen.filter, names.join(", "));
    Err(Error::usage(format!("--candidate \"{filter}\" is in the name of no kernel: this adapter has {names}")))
}

/// The WGSL of the kernel called `name`, a candidate's or that with `-pair` for two operands B: operands of type `dtype`, C in
/// f32, rows of A at multiples of four elements.
///
/// # Errors
/// A usage error where no kernel has that name.
pub(crate) fn text(name: &str, layout: Layout, dtype: Dtype) -> Result<&'static str> {
    let (candidate, pair) = name.strip_suffix(PAIRED).map_or((name, false), |candidate| (candidate, true));
    let candidate: Candidate = candidate.parse()?;
    if pair && candidate.paired() != Some(candidate) {
        return Err(Error::usage(format!("{candidate} takes no second operand B: leave out {PAIRED}")));
    }
    let half = dtype == Dtype::F16;
    if !candidate.multiplies(half) {
        let other = if half { Dtype::F32 } else { Dtype::F16 }.name();
        return Err(Error::usage(format!("{candidate} multiplies {other}: use --dtype {other}")));
    }
    let types = Types { a: dtype, b: dtype, c: Dtype::F32 };
    let form = if pair { ProductForm::Pair } else { ProductForm::Whole };
    let kernel = kernel(candidate, layout, types, Vectors::ALL, form);
    kernel.text.ok_or_else(|| Error::defect(format!("{candidate} is not generated")))
}

fn case_name(layout: Layout, [m, n, k]: [usize; 3]) -> String {
    format!("{layout:?} {m}x{n}x{k}")
}

/// Before anything is made on the host: a matrix may be larger than all memory.
fn check_device(engine: &Engine, product: ProductKind) -> Result<()> {
    let ProductKind { layout, size, half, .. } = product;
    if half && !engine.gpu.target.f16 {
        return Err(Error::device(format!(
            "\"{}\" has no 16-bit floats in shaders; use --dtype f32, or another adapter",
            engine.gpu.info.name
        )));
    }
    let [m, n, k] = size.map(|d| d as u64);
    let bytes = 4 * (m * k).max(k * n).max(m * n);
    let most = engine.gpu.target.max_tensor();
    if bytes <= most {
        return Ok(());
    }
    Err(Error::device(format!(
        "matmul {}: its largest matrix is {}, this device allows {} in one binding; use a smaller size",
        case_name(layout, size),
        number::bytes(bytes),
        number::bytes(most)
    )))
}

/// The operands of a product, their numbers as the device holds them.
struct Matrices {
    product: ProductKind,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Matrices {
    fn new(product: ProductKind) -> Self {
        let [m, n, k] = product.size;
        let normals = |name: &str, n: usize| {
            let mut values = Rng::named(11, Stream::Test, name).normals(n, 1.0);
            if product.half {
                values.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
            }
            values
        };
        Self { product, a: normals("a", m * k), b: normals("b", k * n) }
    }

    /// Type of the operands; C is f32.
    fn dtype(&self) -> Dtype {
        if self.product.half { Dtype::F16 } else { Dtype::F32 }
    }

    /// Of A, B and C.
    fn bytes(&self) -> u64 {
        let [m, n, k] = self.product.size;
        self.dtype().bytes() * (m * k + k * n) as u64 + 4 * (m * n) as u64
    }

    fn case(&self) -> String {
        case_name(self.product.layout, self.product.size)
    }

    fn time(
        &self,
        stopwatch: &Stopwatch,
        candidate: Candidate,
        program: &Program,
        peak: Option<&FmaPeak>,
        seconds: f64,
    ) -> Result<Record> {
        let [m, n, k] = self.product.size;
        let record = Record {
            op: "matmul".to_owned(),
            case: self.case(),
            pass: Pass::Forward,
            layout: Some(format!("{:?}", self.product.layout)),
            m: Some(m),
            n: Some(n),
            k: Some(k),
            dtype: self.dtype().name().to_owned(),
            candidate: candidate.to_string(),
            flops: 2 * (m * n) as u64 * k as u64,
            bytes: self.bytes(),
            ..Record::default()
        };
        match peak.filter(|_| !self.product.half) {
            Some(peak) => peak.beside(stopwatch, record, program, seconds),
            None => Ok(record.timed(time(stopwatch, program, seconds)?)),
        }
    }

    /// The product, run once and found right.
    fn checked(&self, engine: &Engine, candidate: Candidate) -> Result<Program> {
        let [m, n, k] = self.product.size;
        let ProductKind { layout, size, half, .. } = self.product;
        let mut g = Graph::forward_only(&KernelTable::forced(engine.gpu.target, candidate));
        let shape = |transposed: bool, rows, columns| if transposed { [columns, rows] } else { [rows, columns] };
        let a = g.typed("a", &shape(layout == Layout::TN, m, k), self.dtype(), Class::State);
        let b = g.typed("b", &shape(layout == Layout::NT, k, n), self.dtype(), Class::State);
        let c = g.state("c", &[m, n]);
        Product::new(layout, size).record(&mut g, a, b, c)?;
        let plan = Plan::new(&g)?;
        let (_, program, blocks) = Memory::allocate_guarded(engine, &plan)?;
        let block = |tensor: Tensor| &blocks[tensor.index()];
        for (tensor, values) in [(a, &self.a), (b, &self.b)] {
            if half {
                let mut halves: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
                // Copies move whole words.
                halves.resize(values.len().next_multiple_of(2), f16::ZERO);
                engine.write_all(block(tensor), &halves)?;
            } else {
                engine.write_all(block(tensor), values)?;
            }
        }
        engine.run(&program)?;
        self.compare(engine, candidate, block(c))?;
        for block in &blocks {
            if !engine.guard_intact(block)? {
                return Err(self.wrong(engine, candidate, "it wrote outside a matrix"));
            }
        }
        Ok(program)
    }

    fn compare(&self, engine: &Engine, candidate: Candidate, c: &Block) -> Result<()> {
        let [m, n, _] = self.product.size;
        let got = engine.read(c)?;
        let mut rng = Rng::named(12, Stream::Test, &self.case());
        let corners = [0, n - 1, (m - 1) * n, m * n - 1];
        let random = (corners.len()..CHECKED).map(|_| rng.below((m * n) as u64) as usize);
        let checked: Vec<usize> = corners.into_iter().chain(random).collect();
        let wanted: Vec<f64> = checked.iter().map(|&e| self.output(e / n, e % n)).collect();
        let values: Vec<f64> = checked.iter().map(|&e| got.get(e).map_or(f64::NAN, |&x| f64::from(x))).collect();
        let nmse = normalised_error(&values, &wanted);
        if nmse <= NMSE {
            return Ok(());
        }
        let what = format!(
            "its normalised mean square error over {CHECKED} outputs is {nmse:.1e}, at most {NMSE:.0e} is right"
        );
        Err(self.wrong(engine, candidate, &what))
    }

    /// One output in f64.
    fn output(&self, row: usize, column: usize) -> f64 {
        let [m, n, k] = self.product.size;
        let a = |i: usize| if self.product.layout == Layout::TN { i * m + row } else { row * k + i };
        let b = |i: usize| if self.product.layout == Layout::NT { column * k + i } else { i * n + column };
        (0..k).map(|i| f64::from(self.a[a(i)]) * f64::from(self.b[b(i)])).sum()
    }

    fn wrong(&self, engine: &Engine, candidate: Candidate, what: &str) -> Error {
        Error::device(format!(
            "matmul {} with {candidate} is wrong on {}: {what}; nothing was timed: update the driver, or choose another adapter \
             with --adapter or --backend",
            self.case(),
            engine.gpu.describe()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::adapter::AdapterRequest;
    use crate::gpu::device::Gpu;
    use crate::ops::matmul::reference;

    #[test]
    fn sizes_and_layouts_are_read() {
        assert_eq!(parse_sizes("512, 1x2x3").unwrap(), [[512; 3], [1, 2, 3]]);
        for text in ["", "0", "4x4", "1x2x3x4", "64,", "x", "-1", "99999999", "1.5"] {
            let error = parse_sizes(text).unwrap_err();
            assert!(error.exit_code() == 1 && error.to_string().contains("MxNxK"), "{text}: {error}");
        }
        assert_eq!(parse_layouts("nn,TN").unwrap(), [Layout::NN, Layout::TN]);
        assert!(parse_layouts("tt").unwrap_err().to_string().contains("\"tt\""));
    }

    #[test]
    fn a_wrong_product_is_not_timed() {
        let engine = Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap();
        let product = ProductKind { layout: Layout::NT, size: [9, 65, 17], half: false, pair: false };
        let mut matrices = Matrices::new(product);
        let all = candidates(&engine.gpu.target, product, false);
        for &candidate in &all {
            matrices.checked(&engine, candidate).unwrap();
        }
        matrices.a[3] = f32::NAN;
        for &candidate in &all {
            let error = matrices.checked(&engine, candidate).err().unwrap();
            assert!(error.exit_code() == 3 && error.to_string().contains("nothing was timed"), "{error}");
        }
    }

    #[test]
    fn single_outputs_are_those_of_the_reference() {
        for layout in [Layout::NN, Layout::NT, Layout::TN] {
            let matrices = Matrices::new(ProductKind { layout, size: [3, 5, 7], half: false, pair: false });
            let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&x| f64::from(x)).collect() };
            let all = reference(layout, [3, 5, 7], &wide(&matrices.a), &wide(&matrices.b));
            for (e, want) in all.iter().enumerate() {
                assert!((matrices.output(e / 5, e % 5) - want).abs() < 1e-12);
            }
        }
    }
}
