// Elementwise kernels: copy, conversion, residual addition, GELU and its backward; and dot products of short rows.
//
// copy: y = x.   add: y = x + b, x and y the residual stream, f32 in every precision.
// gelu: y = gelu(x).   gelu_backward: dx = dy gelu'(x).
// convert: y = x, from f32.   convert_back: y += x, to f32.
// row_dots: y_r = sum over the columns of row r of x b, ascending; x is f32 in every precision.
// Mapping: one element (copy, add: four, 64 apart; row_dots: one row) per invocation, striding over the whole grid.
// Writes: overwrite; convert_back adds; gelu_backward adds when dims.accumulate is 1.
#import "gelu.wgsl"
#import "real.wgsl"

struct ElementwiseDims {
    n: u32,
    use_tanh: u32,
    accumulate: u32,
    columns: u32,
}

@group(0) @binding(0) var<uniform> dims: ElementwiseDims;
@group(0) @binding(1) var<storage, read> a: array<Real>; // (n)
@group(0) @binding(2) var<storage, read_write> out: array<Real>; // (n) with one input
@group(0) @binding(2) var<storage, read> b: array<Real>; // (n) with two inputs
@group(0) @binding(3) var<storage, read_write> out2: array<Real>; // (n) with two inputs
@group(0) @binding(3) var<storage, read_write> dots: array<f32>; // (n): row_dots
@group(0) @binding(1) var<storage, read> master: array<f32>; // (n): convert
@group(0) @binding(1) var<storage, read> exact: array<f32>; // (n): add, row_dots
@group(0) @binding(3) var<storage, read_write> residual_out: array<f32>; // (n): add
@group(0) @binding(2) var<storage, read_write> total: array<f32>; // (n): convert_back

@compute @workgroup_size(64)
fn copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var first = group.x * 256u; first < dims.n; first += groups.x * 256u) {
        var i = first + lane;
        if (first + 256u <= dims.n) {
            out[i] = Real(f32(a[i]));
            out[i + 64u] = Real(f32(a[i + 64u]));
            out[i + 128u] = Real(f32(a[i + 128u]));
            out[i + 192u] = Real(f32(a[i + 192u]));
        } else {
            for (; i < dims.n; i += 64u) {
                out[i] = Real(f32(a[i]));
            }
        }
    }
}

@compute @workgroup_size(64)
fn add(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // 64 lanes of four elements: 8 ms of a step where 256 lanes of one took 12 (lavapipe, Mesa 26.1.6).
    for (var first = group.x * 256u; first < dims.n; first += groups.x * 256u) {
        var i = first + lane;
        if (first + 256u <= dims.n) {
            residual_out[i] = exact[i] + f32(b[i]);
            residual_out[i + 64u] = exact[i + 64u] + f32(b[i + 64u]);
            residual_out[i + 128u] = exact[i + 128u] + f32(b[i + 128u]);
            residual_out[i + 192u] = exact[i + 192u] + f32(b[i + 192u]);
        } else {
            for (; i < dims.n; i += 64u) {
                residual_out[i] = exact[i] + f32(b[i]);
            }
        }
    }
}

@compute @workgroup_size(256)
fn gelu_forward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 256u) {
        out[i] = Real(gelu(f32(a[i]), dims.use_tanh == 1u));
    }
}

// a = x, b = dy, out2 = dx: buffers have names by their place, for entry points share them.
@compute @workgroup_size(256)
fn gelu_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 256u) {
        let dx = f32(b[i]) * gelu_slope(f32(a[i]), dims.use_tanh == 1u);
        out2[i] = Real(dx + select(0.0, f32(out2[i]), dims.accumulate == 1u));
    }
}

// n rows of dims.columns.
@compute @workgroup_size(64)
fn row_dots(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 64u) {
        var sum = 0.0;
        for (var d = i * dims.columns; d < (i + 1u) * dims.columns; d++) {
            sum = fma(exact[d], f32(b[d]), sum);
        }
        dots[i] = sum;
    }
}

@compute @workgroup_size(256)
fn convert(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 256u) {
        out[i] = Real(master[i]);
    }
}

@compute @workgroup_size(256)
fn convert_back(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 256u) {
        total[i] += f32(a[i]);
    }
}
