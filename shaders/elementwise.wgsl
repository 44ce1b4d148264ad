// Elementwise kernels: copy, residual addition, GELU, and its backward.
//
// copy: y = x.   add: y = a + b.   gelu: y = gelu(x).   gelu_backward: dx = dy gelu'(x).
// Mapping: one element per invocation, striding over the whole grid.
// Writes: overwrite; gelu_backward adds when dims.accumulate is 1.
#import "gelu.wgsl"

struct Dims {
    n: u32,
    use_tanh: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> a: array<f32>; // (n)
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // (n) with one input
@group(0) @binding(2) var<storage, read> b: array<f32>; // (n) with two inputs
@group(0) @binding(3) var<storage, read_write> out2: array<f32>; // (n) with two inputs

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 256u) {
        out[i] = a[i];
    }
}

@compute @workgroup_size(256)
fn add(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 256u) {
        out2[i] = a[i] + b[i];
    }
}

@compute @workgroup_size(256)
fn gelu_forward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 256u) {
        out[i] = gelu(a[i], dims.use_tanh == 1u);
    }
}

// a = x, b = dy, out2 = dx
@compute @workgroup_size(256)
fn gelu_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 256u) {
        let dx = b[i] * gelu_slope(a[i], dims.use_tanh == 1u);
        out2[i] = dx + select(0.0, out2[i], dims.accumulate == 1u);
    }
}
