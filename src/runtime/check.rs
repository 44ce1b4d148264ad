//! Runs a case of the registry on a device and holds it against its f64 reference.
//!
//! Every tensor is allocated with guard words behind it and filled with a large number first, so a
//! write past the end and a read of what was never written both show. Gradients are compared with
//! central differences of the reference, element by element where there are few, along random
//! directions where there are many.

use crate::error::Result;
use crate::gpu::engine::{Block, Engine, Program};
use crate::graph::plan::Plan;
use crate::graph::{Class, Graph, Tensor};
use crate::kernel::{Dtype, KernelTable};
use crate::ops::{Case, Kind};
use crate::rng::{Rng, Stream};
use crate::runtime::memory::Memory;
use half::f16;

/// Largest error of a directional derivative, relative to the gradient's norm.
pub(crate) const GRADIENT_TOLERANCE: f64 = 2e-5;
/// Largest normalised mean square error of outputs where activations are f16: a relative error of 2^-9;
/// one rounding to 11 bits has about 3e-8.
pub(crate) const HALF_NMSE: f64 = 4e-6;
/// Up to this many elements every partial derivative is checked.
const ELEMENTWISE: usize = 48;
/// Random directions per input beyond that.
const DIRECTIONS: u64 = 3;
/// Beyond so many elements the reference takes seconds a direction: each direction gets a thread.
const SIDE_BY_SIDE: usize = 1 << 16;
const STEP: f64 = 1e-4;

/// What a case showed.
#[derive(Debug, Clone)]
pub struct Report {
    /// Normalised mean square error of the worst output.
    pub nmse: f64,
    /// Largest relative error of a derivative; `None` where the op has none.
    pub gradient_error: Option<f64>,
    /// Whether all guard words were intact.
    pub guards_intact: bool,
    /// Whether all of it is within the case's tolerances.
    pub passed: bool,
}

/// A case recorded and allocated; [`Prepared::run`] executes it once.
pub struct Prepared {
    program: Program,
    /// By tensor.
    blocks: Vec<Block>,
    /// Those with guard words behind them.
    guarded: Vec<Block>,
    outputs: Vec<Tensor>,
    /// Input index and its gradient.
    gradients: Vec<(usize, Tensor)>,
    inputs: Vec<(Tensor, Vec<u32>)>,
    cleared: Vec<Tensor>,
    dtypes: Vec<Dtype>,
    values: Vec<Vec<f64>>,
    upstream: Vec<f64>,
    /// Floating-point operations of one run.
    pub flops: u64,
    /// Bytes that its dispatches move, as [`Plan::traffic`].
    pub bytes: u64,
}

impl Prepared {
    /// Records the case, with its backward where `gradient` is wanted and the case has one.
    pub fn new(engine: &Engine, case: &Case, kernels: &KernelTable, gradient: bool) -> Result<Self> {
        Self::in_precision(engine, case, kernels, gradient, Dtype::F32)
    }

    /// As [`Prepared::new`], with activations of type `precision`: the numbers of inputs are rounded to it.
    pub fn in_precision(
        engine: &Engine,
        case: &Case,
        kernels: &KernelTable,
        gradient: bool,
        precision: Dtype,
    ) -> Result<Self> {
        let gradient = gradient && case.gradient;
        let mut g = if gradient { Graph::training(kernels) } else { Graph::forward_only(kernels) };
        g.set_precision(precision);
        let mut inputs = Vec::new();
        let mut values = Vec::new();
        let mut arguments = Vec::new();
        for input in &case.inputs {
            let tensor = g.tensor(input.name, &input.shape, input.class(gradient, precision));
            let (mut words, mut numbers) = input.values(&case.name);
            let activation = input.kind == Kind::Activation;
            if precision == Dtype::F16 && activation {
                numbers.iter_mut().for_each(|x| *x = f16::from_f64(*x).to_f64());
                words = numbers.iter().map(|&x| (x as f32).to_bits()).collect();
            }
            inputs.push((tensor, words));
            values.push(numbers);
            arguments.push(if activation { converted(&mut g, tensor, gradient)? } else { tensor });
        }
        let tensors: Vec<Tensor> = inputs.iter().map(|(t, _)| *t).collect();
        let outputs = (case.build)(&mut g, &arguments)?;
        let mut upstream = Vec::new();
        if gradient {
            if let (true, Some(&first)) = (case.seeded, outputs.first()) {
                let shape = g.shape(first).to_vec();
                let mut seed = Rng::named(8, Stream::Test, &case.name).normals(shape.iter().product(), 1.0);
                let tensor = g.state("upstream", &shape);
                let mut upstream_grad = tensor;
                if precision == Dtype::F16 {
                    seed.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
                    upstream_grad = g.activation("upstream", &shape);
                    g.cast(tensor, upstream_grad)?;
                }
                g.set_grad(first, upstream_grad);
                upstream = seed.iter().map(|&x| f64::from(x)).collect();
                inputs.push((tensor, seed.iter().map(|x| x.to_bits()).collect()));
            }
            g.backward()?;
        }
        let differentiated = case.inputs.iter().enumerate().filter(|(_, i)| i.gradient && gradient);
        let gradients = differentiated.filter_map(|(i, _)| Some((i, g.grad(tensors[i])?))).collect();
        let plan = Plan::new(&g)?;
        let (_, program, blocks) = Memory::allocate_guarded(engine, &plan)?;
        let cleared = (0..plan.tensors.len())
            .filter(|&i| plan.tensors[i].class == Class::Gradient && plan.tensors[i].view.is_none())
            .map(Tensor::from_index)
            .collect();
        let owners = blocks.iter().zip(&plan.tensors).filter(|(_, info)| info.view.is_none());
        let guarded = owners.map(|(block, _)| block.clone()).collect();
        let dtypes = plan.tensors.iter().map(|info| info.dtype).collect();
        let (flops, bytes) = (plan.flops(), plan.traffic());
        Ok(Self {
            program,
            blocks,
            guarded,
            outputs,
            gradients,
            inputs,
            cleared,
            dtypes,
            values,
            upstream,
            flops,
            bytes,
        })
    }

    /// Its dispatches, for whoever times them without the writes of [`Prepared::run`].
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Writes the inputs, clears gradients, runs and waits.
    pub fn run(&self, engine: &Engine) -> Result<()> {
        self.fill(engine);
        engine.run(&self.program)
    }

    fn fill(&self, engine: &Engine) {
        for (tensor, words) in &self.inputs {
            engine.write(&self.blocks[tensor.index()], words);
        }
        for tensor in &self.cleared {
            let block = &self.blocks[tensor.index()];
            engine.write(block, &vec![0_u32; (block.bytes() / 4) as usize]);
        }
    }

    /// The bits of all outputs and gradients of the last run.
    pub fn bits(&self, engine: &Engine) -> Result<Vec<u32>> {
        let mut bits = Vec::new();
        for tensor in self.outputs.iter().chain(self.gradients.iter().map(|(_, grad)| grad)) {
            bits.extend(engine.read(&self.blocks[tensor.index()])?.iter().map(|x| x.to_bits()));
        }
        Ok(bits)
    }

    /// Whether the words behind every tensor are untouched.
    pub fn guards_intact(&self, engine: &Engine) -> Result<bool> {
        self.guarded.iter().try_fold(true, |intact, block| Ok(intact & engine.guard_intact(block)?))
    }

    fn read(&self, engine: &Engine, tensor: Tensor) -> Result<Vec<f64>> {
        let block = &self.blocks[tensor.index()];
        if self.dtypes[tensor.index()] == Dtype::F32 {
            return Ok(engine.read(block)?.into_iter().map(f64::from).collect());
        }
        let halves = engine.read_halves(block)?;
        Ok(halves.into_iter().map(|bits| f16::from_bits(bits).to_f64()).collect())
    }
}

/// An input as the op takes it: itself, or an f16 copy through which gradients flow back.
fn converted(g: &mut Graph, tensor: Tensor, gradient: bool) -> Result<Tensor> {
    let copy = g.weight(tensor)?;
    if copy != tensor && gradient {
        g.on_backward(move |g| {
            let dcopy = g.take_grad(copy)?;
            let (dtensor, _) = g.grad_target(tensor)?;
            g.cast_back(dcopy, dtensor)
        });
    }
    Ok(copy)
}

/// Runs `case` forward (and backward, where it has one) and compares.
pub fn check(engine: &Engine, case: &Case, kernels: &KernelTable) -> Result<Report> {
    check_in(engine, case, kernels, Dtype::F32)
}

/// As [`check`], with activations of type `precision`. In f16 the tolerances are [`HALF_NMSE`], where that of the case is
/// smaller, and [`Case::half_gradient`].
pub fn check_in(engine: &Engine, case: &Case, kernels: &KernelTable, precision: Dtype) -> Result<Report> {
    let prepared = Prepared::in_precision(engine, case, kernels, true, precision)?;
    let (most_nmse, most_gradient) = match precision {
        Dtype::F32 => (case.nmse, GRADIENT_TOLERANCE),
        Dtype::F16 => (case.nmse.max(HALF_NMSE), case.half_gradient),
    };
    prepared.run(engine)?;
    let wanted = (case.reference)(&prepared.values);
    let mut nmse: f64 = 0.0;
    for (output, want) in prepared.outputs.iter().zip(&wanted) {
        nmse = nmse.max(normalised_error(&prepared.read(engine, *output)?, want));
    }
    let mut gradient_error = None;
    for (input, grad) in &prepared.gradients {
        let got = prepared.read(engine, *grad)?;
        let error = derivative_error(case, &prepared, *input, &got);
        gradient_error = Some(gradient_error.map_or(error, |worst: f64| worst.max(error)));
    }
    let guards_intact = prepared.guards_intact(engine)?;
    // Written so that NaN fails.
    let passed = nmse <= most_nmse && gradient_error.is_none_or(|e| e <= most_gradient) && guards_intact;
    Ok(Report { nmse, gradient_error, guards_intact, passed })
}

/// Sum of squared errors over sum of squares; infinite for a wrong length or a non-finite value.
pub fn normalised_error(got: &[f64], want: &[f64]) -> f64 {
    if got.len() != want.len() || got.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let error: f64 = got.iter().zip(want).map(|(g, w)| (g - w) * (g - w)).sum();
    let size: f64 = want.iter().map(|w| w * w).sum();
    if error == 0.0 { 0.0 } else { error / size }
}

/// Largest error of the derivative along a direction, over the norms of gradient and direction.
fn derivative_error(case: &Case, prepared: &Prepared, input: usize, grad: &[f64]) -> f64 {
    let n = grad.len();
    let norm = grad.iter().map(|x| x * x).sum::<f64>().sqrt();
    let directions: Vec<Vec<f64>> = if n <= ELEMENTWISE {
        (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect()
    } else {
        let direction = |k| {
            let mut rng = Rng::new(k, Stream::Test, input as u64);
            (0..n).map(|_| rng.normal()).collect()
        };
        (0..DIRECTIONS).map(direction).collect()
    };
    let error = |direction: &[f64]| {
        let value = |sign: f64| -> f64 {
            let mut values = prepared.values.clone();
            for (x, d) in values[input].iter_mut().zip(direction) {
                *x += sign * STEP * d;
            }
            let outputs = (case.reference)(&values);
            let first = outputs.first().map_or(&[][..], |o| o.as_slice());
            if prepared.upstream.is_empty() {
                return first.iter().sum();
            }
            first.iter().zip(&prepared.upstream).map(|(y, dy)| y * dy).sum()
        };
        let numeric = (value(1.0) - value(-1.0)) / (2.0 * STEP);
        let analytic: f64 = grad.iter().zip(direction).map(|(g, d)| g * d).sum();
        (numeric - analytic).abs() / norm.max(1e-3)
    };
    let errors: Vec<f64> = if n <= SIDE_BY_SIDE {
        directions.iter().map(|direction| error(direction)).collect()
    } else {
        std::thread::scope(|threads| {
            let error = &error;
            let started: Vec<_> = directions.iter().map(|direction| threads.spawn(move || error(direction))).collect();
            started.into_iter().map(|thread| thread.join().unwrap_or(f64::INFINITY)).collect()
        })
    };
    // Written so that NaN counts as infinite.
    let finite = |e: f64| if e.is_finite() { e } else { f64::INFINITY };
    errors.into_iter().map(finite).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::adapter::AdapterRequest;
    use crate::gpu::device::{Gpu, webgpu_limits};
    use crate::gpu::recording::record;
    use crate::kernel::Fragments;
    use crate::ops::{mixed_registry, registry};
    use crate::runtime::device::Device;
    use serde_json::json;
    use std::path::PathBuf;

    /// Holds a case against its reference here, and records it.
    fn recorded(Device { engine, kernels, .. }: &Device, case: &Case, precision: Dtype) -> serde_json::Value {
        let name = format!("{}/{}", case.op, case.name);
        assert!(check_in(engine, case, kernels, precision).unwrap().passed, "{name}");
        let prepared = Prepared::in_precision(engine, case, kernels, true, precision).unwrap();
        prepared.fill(engine);
        let gradients: Vec<Tensor> = prepared.gradients.iter().map(|&(_, gradient)| gradient).collect();
        let tensors: Vec<Tensor> = prepared.outputs.iter().chain(&gradients).copied().collect();
        let blocks: Vec<&Block> = tensors.iter().map(|tensor| &prepared.blocks[tensor.index()]).collect();
        let (program, places) = record(engine, prepared.program(), &blocks).unwrap();
        let half = precision == Dtype::F16;
        let nmse = if half { case.nmse.max(HALF_NMSE) } else { case.nmse };
        let mut wanted: Vec<_> = (case.reference)(&prepared.values).into_iter().map(|wanted| (wanted, nmse)).collect();
        // Gradients have no reference of their own: those of this device, which held against finite differences.
        engine.run(prepared.program()).unwrap();
        let derivative = if half { case.half_gradient } else { GRADIENT_TOLERANCE };
        wanted.extend(gradients.iter().map(|&it| (prepared.read(engine, it).unwrap(), derivative * derivative)));
        let results = tensors.iter().zip(places).zip(wanted).map(|((tensor, place), (wanted, nmse))| {
            json!({ "place": place, "type": prepared.dtypes[tensor.index()].name(), "wanted": wanted, "nmse": nmse })
        });
        json!({ "name": name, "program": program, "results": results.collect::<Vec<_>>() })
    }

    /// The kernels of this adapter, or with `KERNELS=gpu` those of a GPU within the limits of every WebGPU device.
    #[test]
    #[ignore = "writes files for scripts/compilers/dawn.mjs"]
    fn recordings() {
        let out = PathBuf::from(std::env::var_os("OUT").expect("OUT is the folder to write to"));
        std::fs::create_dir_all(&out).unwrap();
        let as_gpu = std::env::var("KERNELS").is_ok_and(|kernels| kernels == "gpu");
        let mut gpu = Gpu::open_with_limits(&AdapterRequest::default(), webgpu_limits).unwrap();
        gpu.target.software &= !as_gpu;
        // WGSL has no matrix units but in naga.
        gpu.target.fragments = Fragments::NONE;
        let device = Device::new(gpu).unwrap();
        let mut cases: Vec<_> = registry().into_iter().map(|case| (case, Dtype::F32)).collect();
        if device.kernels.target().f16 {
            cases.extend(mixed_registry().into_iter().map(|case| (case, Dtype::F16)));
        }
        for (i, (case, precision)) in cases.iter().enumerate() {
            std::fs::write(out.join(format!("{i:03}.json")), recorded(&device, case, *precision).to_string()).unwrap();
        }
        println!("{} cases", cases.len());
    }
}
