//! An operator of one's own: a WGSL kernel with its backward, held against a reference in f64. Seconds on any adapter:
//!
//! ```sh
//! cargo run --release --example custom_op
//! ```

use tokenformer::error::{Error, Result};
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::graph::{Graph, Tensor};
use tokenformer::kernel::Access::{Read, Write};
use tokenformer::kernel::{Kernel, word};
use tokenformer::ops::{Case, Input};
use tokenformer::runtime::check::check;
use tokenformer::runtime::device::Device;

/// y = x^2 and dx = 2 x dy. On GPUs wgpu adds no checks of indices, so the kernels guard each of theirs.
const SQUARE: &str = "
struct Dims { n: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn square(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 64u) { y[i] = x[i] * x[i]; }
}";
const SQUARE_BACKWARD: &str = "
struct Dims { n: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
@compute @workgroup_size(64)
fn square_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 64u) {
        dx[i] = 2.0 * x[i] * dy[i] + select(0.0, dx[i], dims.accumulate == 1u);
    }
}";

tokenformer::parameter_block! {
    /// What both kernels read at binding 0.
    struct Dims {
        /// Elements.
        n: u32,
        /// Whether the gradient is added to what is there.
        accumulate: u32,
    }
}

/// Records y = x^2, and its gradient where the graph is differentiated.
fn square(g: &mut Graph, x: Tensor) -> Result<Tensor> {
    let shape = g.shape(x).to_vec();
    let n: usize = shape.iter().product();
    let y = g.activation("square", &shape);
    let forward = Kernel::generated_as("square", "square", &[Read, Write], || SQUARE.to_owned());
    let dims = Dims { n: word(n), accumulate: 0 };
    g.call(forward).bind(&[x, y]).parameters(dims).groups(n.div_ceil(64)).flops(n as u64).record()?;
    g.on_backward(move |g| {
        let dy = g.take_grad(y)?;
        // Where to put the gradient, and whether another operator has put one there already.
        let (dx, add) = g.grad_target(x)?;
        let text = || SQUARE_BACKWARD.to_owned();
        let backward = Kernel::generated_as("square backward", "square_backward", &[Read, Read, Write], text);
        let dims = Dims { accumulate: u32::from(add), ..dims };
        g.call(backward).bind(&[x, dy, dx]).parameters(dims).groups(n.div_ceil(64)).flops(3 * n as u64).record()
    });
    Ok(y)
}

fn main() -> Result<()> {
    let Device { engine, kernels, .. } = Device::open(&AdapterRequest::default())?;
    println!("adapter: {}", engine.gpu.describe());
    for n in [1, 64, 1001] {
        // Outputs against the reference, gradients against its differences, and no write past the end of a tensor.
        let case = Case {
            op: "square",
            inputs: vec![Input::normal("x", &[n], 1.0)],
            build: Box::new(|g, t| Ok(vec![square(g, t[0])?])),
            reference: Box::new(|x| vec![x[0].iter().map(|v| v * v).collect()]),
            ..Case::default()
        };
        let report = check(&engine, &case, &kernels)?;
        println!("{n} elements: {report:?}");
        if !report.passed {
            return Err(Error::device(format!("square of {n} elements is not right: {report:?}")));
        }
    }
    Ok(())
}
