// Pattention's normalisation: scores A = X K^T, one row per input token, to token weights S.
//
// l2_norm_gelu  q = |a| + eps,       s = gelu(u), u = tau a / q     da = tau/q (du - a <a,du> / (|a| q)), du = ds gelu'(u)
// gelu_l2_norm  q = |gelu(a)| + eps, s = tau gelu(a) / q            da = gelu'(a) tau/q (ds - g <g,ds> / (|g| q)), g = gelu(a)
// softmax       s = tau^2 softmax(a)                                da = tau^2 p (ds - <p,ds>), p = softmax(a)
// Mapping: one workgroup per row. Order of summation: row.wgsl, so appended zero columns change no bit.
// Writes: forward overwrites s and stats; backward replaces ds by da.
// Limits: a row of zeros gives zeros (and, with eps = 0, a zero gradient) instead of 0/0.
#import "row.wgsl"
#import "gelu.wgsl"

struct Dims {
    rows: u32,
    n: u32,
    tau: f32,
    eps: f32,
    use_tanh: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> a: array<f32>; // (rows, n)
@group(0) @binding(2) var<storage, read_write> s: array<f32>; // (rows, n)
@group(0) @binding(3) var<storage, read_write> stats: array<f32>; // (rows, 2): norm, 0 or maximum, sum of exponentials

@group(0) @binding(2) var<storage, read> saved: array<f32>; // (rows, 2), as stats
@group(0) @binding(3) var<storage, read_write> ds: array<f32>; // (rows, n), becomes da

fn quotient(numerator: f32, denominator: f32) -> f32 {
    return select(0.0, numerator / denominator, denominator > 0.0);
}

fn save(row: u32, lane: u32, first: f32, second: f32) {
    if (lane == 0u) {
        stats[row * 2u] = first;
        stats[row * 2u + 1u] = second;
    }
}

@compute @workgroup_size(LANES)
fn l2_norm_gelu(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.n;
        var squares = 0.0;
        for (var i = lane; i < dims.n; i += LANES) {
            squares = fma(a[base + i], a[base + i], squares);
        }
        let norm = sqrt(row_sum(lane, squares));
        let factor = quotient(dims.tau, norm + dims.eps);
        for (var i = lane; i < dims.n; i += LANES) {
            s[base + i] = gelu(a[base + i] * factor, dims.use_tanh == 1u);
        }
        save(row, lane, norm, 0.0);
    }
}

@compute @workgroup_size(LANES)
fn l2_norm_gelu_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.n;
        let norm = saved[row * 2u];
        let factor = quotient(dims.tau, norm + dims.eps);
        var dot = 0.0;
        for (var i = lane; i < dims.n; i += LANES) {
            let du = ds[base + i] * gelu_slope(a[base + i] * factor, dims.use_tanh == 1u);
            ds[base + i] = du;
            dot = fma(a[base + i], du, dot);
        }
        let pull = quotient(row_sum(lane, dot), norm * (norm + dims.eps));
        for (var i = lane; i < dims.n; i += LANES) {
            ds[base + i] = factor * (ds[base + i] - a[base + i] * pull);
        }
    }
}

@compute @workgroup_size(LANES)
fn gelu_l2_norm(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.n;
        var squares = 0.0;
        for (var i = lane; i < dims.n; i += LANES) {
            let g = gelu(a[base + i], dims.use_tanh == 1u);
            s[base + i] = g;
            squares = fma(g, g, squares);
        }
        let norm = sqrt(row_sum(lane, squares));
        let factor = quotient(dims.tau, norm + dims.eps);
        for (var i = lane; i < dims.n; i += LANES) {
            s[base + i] *= factor;
        }
        save(row, lane, norm, 0.0);
    }
}

@compute @workgroup_size(LANES)
fn gelu_l2_norm_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.n;
        let norm = saved[row * 2u];
        let factor = quotient(dims.tau, norm + dims.eps);
        var dot = 0.0;
        for (var i = lane; i < dims.n; i += LANES) {
            dot = fma(gelu(a[base + i], dims.use_tanh == 1u), ds[base + i], dot);
        }
        let pull = quotient(row_sum(lane, dot), norm * (norm + dims.eps));
        for (var i = lane; i < dims.n; i += LANES) {
            let g = gelu(a[base + i], dims.use_tanh == 1u);
            let slope = gelu_slope(a[base + i], dims.use_tanh == 1u);
            ds[base + i] = slope * factor * (ds[base + i] - g * pull);
        }
    }
}

@compute @workgroup_size(LANES)
fn softmax(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.n;
        var largest = -1.0e30;
        for (var i = lane; i < dims.n; i += LANES) {
            largest = max(largest, a[base + i]);
        }
        largest = row_max(lane, largest);
        var sum = 0.0;
        for (var i = lane; i < dims.n; i += LANES) {
            let e = exp(a[base + i] - largest);
            s[base + i] = e;
            sum += e;
        }
        sum = row_sum(lane, sum);
        for (var i = lane; i < dims.n; i += LANES) {
            s[base + i] *= dims.tau * dims.tau / sum;
        }
        save(row, lane, largest, sum);
    }
}

@compute @workgroup_size(LANES)
fn softmax_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.n;
        let largest = saved[row * 2u];
        let scale = 1.0 / saved[row * 2u + 1u];
        var dot = 0.0;
        for (var i = lane; i < dims.n; i += LANES) {
            dot = fma(exp(a[base + i] - largest) * scale, ds[base + i], dot);
        }
        dot = row_sum(lane, dot);
        for (var i = lane; i < dims.n; i += LANES) {
            let p = exp(a[base + i] - largest) * scale;
            ds[base + i] = dims.tau * dims.tau * p * (ds[base + i] - dot);
        }
    }
}
