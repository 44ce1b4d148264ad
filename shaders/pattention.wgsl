// Pattention's normalisation: scores A = X K^T, one row per input token, to token weights S.
//
// l2_norm_gelu  q = |a| + eps,       s = gelu(u), u = tau a / q     da = tau/q (du - a <a,du> / (|a| q)), du = ds gelu'(u)
// gelu_l2_norm  q = |gelu(a)| + eps, s = tau gelu(a) / q            da = gelu'(a) tau/q (ds - g <g,ds> / (|g| q)), g = gelu(a)
// softmax       s = tau^2 softmax(a)                                da = tau^2 p (ds - <p,ds>), p = softmax(a)
// Mapping: one workgroup per row. Order of summation: row.wgsl, so appended zero columns change no bit.
// Writes: forward overwrites s and stats; backward replaces ds by da, that of l2_norm_gelu writes s again as well.
// Limits: a row of zeros gives zeros (and, with eps = 0, a zero gradient) instead of 0/0.
#import "row.wgsl"
#import "gelu.wgsl"
#import "real.wgsl"
#import "pattention_dims.wgsl"

@group(0) @binding(1) var<storage, read> a: array<Real>; // (rows, n)
@group(0) @binding(2) var<storage, read_write> s: array<Real>; // (rows, n)
@group(0) @binding(3) var<storage, read_write> stats: array<f32>; // (rows, 2): norm, 0 or maximum, sum of exponentials

@group(0) @binding(2) var<storage, read> saved: array<f32>; // (rows, 2), as stats
@group(0) @binding(3) var<storage, read_write> ds: array<Real>; // (rows, n), becomes da
@group(0) @binding(4) var<storage, read_write> s_again: array<Real>; // (rows, n): s

fn save(row: u32, lane: u32, first: f32, second: f32) {
    if (lane == 0u) {
        stats[row * 2u] = first;
        stats[row * 2u + 1u] = second;
    }
}

fn row_norm(base: u32, lane: u32) -> f32 {
    var squares = 0.0;
    var i = lane;
    for (; i + 3u * LANES < dims.n; i += 4u * LANES) {
        let x = vec4<f32>(f32(a[base + i]), f32(a[base + i + LANES]), f32(a[base + i + 2u * LANES]), f32(a[base + i + 3u * LANES]));
        squares = fma(x.w, x.w, fma(x.z, x.z, fma(x.y, x.y, fma(x.x, x.x, squares))));
    }
    for (; i < dims.n; i += LANES) {
        squares = fma(f32(a[base + i]), f32(a[base + i]), squares);
    }
    return sqrt(row_sum(lane, squares));
}

fn write_weights(base: u32, lane: u32, norm: f32) {
    let factor = quotient(dims.tau, norm + dims.eps);
    let tanh_form = dims.use_tanh == 1u;
    var i = base + lane;
    let end = base + dims.n;
    for (; i + 3u * LANES < end; i += 4u * LANES) {
        s[i] = Real(gelu(f32(a[i]) * factor, tanh_form));
        s[i + LANES] = Real(gelu(f32(a[i + LANES]) * factor, tanh_form));
        s[i + 2u * LANES] = Real(gelu(f32(a[i + 2u * LANES]) * factor, tanh_form));
        s[i + 3u * LANES] = Real(gelu(f32(a[i + 3u * LANES]) * factor, tanh_form));
    }
    for (; i < end; i += LANES) {
        s[i] = Real(gelu(f32(a[i]) * factor, tanh_form));
    }
}

@compute @workgroup_size(LANES)
fn l2_norm_gelu(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let norm = row_norm(row * dims.n, lane);
        write_weights(row * dims.n, lane, norm);
        save(row, lane, norm, 0.0);
    }
}

// s again, and du in place of ds: GELU and its slope share an exponential, and s need not be kept since the forward.
fn gelu_backward(i: u32, factor: f32) -> f32 {
    let y = gelu_with_slope(f32(a[i]) * factor, dims.use_tanh == 1u);
    s_again[i] = Real(y.x);
    let du = f32(ds[i]) * y.y;
    ds[i] = Real(du);
    return du;
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
        let factor = slope_factor(norm);
        let end = base + dims.n;
        var dot = 0.0;
        var i = base + lane;
        for (; i + 3u * LANES < end; i += 4u * LANES) {
            dot = fma(f32(a[i]), gelu_backward(i, factor), dot);
            dot = fma(f32(a[i + LANES]), gelu_backward(i + LANES, factor), dot);
            dot = fma(f32(a[i + 2u * LANES]), gelu_backward(i + 2u * LANES, factor), dot);
            dot = fma(f32(a[i + 3u * LANES]), gelu_backward(i + 3u * LANES, factor), dot);
        }
        for (; i < end; i += LANES) {
            dot = fma(f32(a[i]), gelu_backward(i, factor), dot);
        }
        let pull = quotient(row_sum(lane, dot), norm * (norm + dims.eps));
        i = base + lane;
        for (; i + 3u * LANES < end; i += 4u * LANES) {
            ds[i] = Real(factor * (f32(ds[i]) - f32(a[i]) * pull));
            ds[i + LANES] = Real(factor * (f32(ds[i + LANES]) - f32(a[i + LANES]) * pull));
            ds[i + 2u * LANES] = Real(factor * (f32(ds[i + 2u * LANES]) - f32(a[i + 2u * LANES]) * pull));
            ds[i + 3u * LANES] = Real(factor * (f32(ds[i + 3u * LANES]) - f32(a[i + 3u * LANES]) * pull));
        }
        for (; i < end; i += LANES) {
            ds[i] = Real(factor * (f32(ds[i]) - f32(a[i]) * pull));
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
            let g = gelu(f32(a[base + i]), dims.use_tanh == 1u);
            squares = fma(g, g, squares);
        }
        let norm = sqrt(row_sum(lane, squares));
        let factor = quotient(dims.tau, norm + dims.eps);
        // Computed again: stored in between, f16 would be rounded twice.
        for (var i = lane; i < dims.n; i += LANES) {
            s[base + i] = Real(gelu(f32(a[base + i]), dims.use_tanh == 1u) * factor);
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
        let factor = slope_factor(norm);
        var dot = 0.0;
        for (var i = lane; i < dims.n; i += LANES) {
            dot = fma(gelu(f32(a[base + i]), dims.use_tanh == 1u), f32(ds[base + i]), dot);
        }
        let pull = quotient(row_sum(lane, dot), norm * (norm + dims.eps));
        for (var i = lane; i < dims.n; i += LANES) {
            let g = gelu(f32(a[base + i]), dims.use_tanh == 1u);
            let slope = gelu_slope(f32(a[base + i]), dims.use_tanh == 1u);
            ds[base + i] = Real(slope * factor * (f32(ds[base + i]) - g * pull));
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
            largest = max(largest, f32(a[base + i]));
        }
        largest = row_max(lane, largest);
        var sum = 0.0;
        for (var i = lane; i < dims.n; i += LANES) {
            sum += exp(f32(a[base + i]) - largest);
        }
        sum = row_sum(lane, sum);
        // Computed again: stored in between, f16 would be rounded twice.
        for (var i = lane; i < dims.n; i += LANES) {
            s[base + i] = Real(exp(f32(a[base + i]) - largest) * (dims.tau * dims.tau / sum));
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
            dot = fma(exp(f32(a[base + i]) - largest) * scale, f32(ds[base + i]), dot);
        }
        dot = row_sum(lane, dot);
        for (var i = lane; i < dims.n; i += LANES) {
            let p = exp(f32(a[base + i]) - largest) * scale;
            ds[base + i] = Real(dims.tau * dims.tau * p * (f32(ds[base + i]) - dot));
        }
    }
}
