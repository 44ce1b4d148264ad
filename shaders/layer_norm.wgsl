// LayerNorm over the columns of each row, without or with weight and bias.
//
// y = (x - mean) rstd w + b,  rstd = 1 / sqrt(var + eps), biased variance.
// dx = rstd (g - <g> - xhat <g xhat>),  g = dy w,  xhat = (x - mean) rstd,  <.> the mean over columns.
// dweight = sum over rows of dy xhat,  dbias = sum over rows of dy.
// Mapping: one workgroup per row; parameter gradients: one workgroup per 8 columns, 8 lanes each.
// Order of summation: row.wgsl; over rows: 8 interleaved partial sums, then ascending.
// Writes: forward overwrites; dx adds when dims.accumulate is 1; so do parameter gradients.
#import "row.wgsl"
#import "real.wgsl"

struct LayerNormDims {
    rows: u32,
    columns: u32,
    eps: f32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> dims: LayerNormDims;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, columns): the residual stream, f32 in every precision

@group(0) @binding(2) var<storage, read_write> y_plain: array<Real>; // (rows, columns)
@group(0) @binding(3) var<storage, read_write> stats_plain: array<f32>; // (rows, 2): mean, rstd

@group(0) @binding(2) var<storage, read> weight: array<f32>; // (columns)
@group(0) @binding(3) var<storage, read> bias: array<f32>; // (columns)
@group(0) @binding(4) var<storage, read_write> y_affine: array<Real>; // (rows, columns)
@group(0) @binding(5) var<storage, read_write> stats_affine: array<f32>; // (rows, 2)

@group(0) @binding(2) var<storage, read> stats: array<f32>; // (rows, 2)
@group(0) @binding(3) var<storage, read> dy: array<Real>; // (rows, columns)
@group(0) @binding(4) var<storage, read_write> dx_plain: array<Real>; // (rows, columns)
@group(0) @binding(4) var<storage, read> weight_backward: array<f32>; // (columns)
@group(0) @binding(5) var<storage, read_write> dx_affine: array<Real>; // (rows, columns)

@group(0) @binding(4) var<storage, read_write> dweight: array<f32>; // (columns)
@group(0) @binding(5) var<storage, read_write> dbias: array<f32>; // (columns)

fn row_stats(base: u32, lane: u32) -> vec2<f32> {
    let end = base + dims.columns;
    var sum = 0.0;
    var i = base + lane;
    for (; i + 3u * LANES < end; i += 4u * LANES) {
        sum += f32(x[i]);
        sum += f32(x[i + LANES]);
        sum += f32(x[i + 2u * LANES]);
        sum += f32(x[i + 3u * LANES]);
    }
    for (; i < end; i += LANES) {
        sum += f32(x[i]);
    }
    let mean = row_sum(lane, sum) / f32(dims.columns);
    // From the mean, in a second pass: the difference of <x^2> and <x>^2 would lose what a small variance has.
    var squares = 0.0;
    i = base + lane;
    for (; i + 3u * LANES < end; i += 4u * LANES) {
        let d = vec4<f32>(f32(x[i]), f32(x[i + LANES]), f32(x[i + 2u * LANES]), f32(x[i + 3u * LANES])) - mean;
        // One after the other, as one in a turn would add them.
        let dd = d * d;
        squares += dd.x;
        squares += dd.y;
        squares += dd.z;
        squares += dd.w;
    }
    for (; i < end; i += LANES) {
        let d = f32(x[i]) - mean;
        squares += d * d;
    }
    let variance = row_sum(lane, squares) / f32(dims.columns);
    return vec2<f32>(mean, 1.0 / sqrt(variance + dims.eps));
}

@compute @workgroup_size(LANES)
fn forward_plain(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.columns;
        let s = row_stats(base, lane);
        let end = base + dims.columns;
        var i = base + lane;
        for (; i + 3u * LANES < end; i += 4u * LANES) {
            y_plain[i] = Real((f32(x[i]) - s.x) * s.y);
            y_plain[i + LANES] = Real((f32(x[i + LANES]) - s.x) * s.y);
            y_plain[i + 2u * LANES] = Real((f32(x[i + 2u * LANES]) - s.x) * s.y);
            y_plain[i + 3u * LANES] = Real((f32(x[i + 3u * LANES]) - s.x) * s.y);
        }
        for (; i < end; i += LANES) {
            y_plain[i] = Real((f32(x[i]) - s.x) * s.y);
        }
        if (lane == 0u) {
            stats_plain[row * 2u] = s.x;
            stats_plain[row * 2u + 1u] = s.y;
        }
    }
}

@compute @workgroup_size(LANES)
fn forward_affine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.columns;
        let s = row_stats(base, lane);
        for (var i = lane; i < dims.columns; i += LANES) {
            y_affine[base + i] = Real((f32(x[base + i]) - s.x) * s.y * weight[i] + bias[i]);
        }
        if (lane == 0u) {
            stats_affine[row * 2u] = s.x;
            stats_affine[row * 2u + 1u] = s.y;
        }
    }
}

@compute @workgroup_size(LANES)
fn backward_plain(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.columns;
        let mean = stats[row * 2u];
        let rstd = stats[row * 2u + 1u];
        var sum = 0.0;
        var dot = 0.0;
        for (var i = lane; i < dims.columns; i += LANES) {
            let g = f32(dy[base + i]);
            sum += g;
            dot += g * (f32(x[base + i]) - mean) * rstd;
        }
        // One in a turn: four, as in the forward, took 4.3 ms in place of 3.2 at 128 columns (lavapipe, Mesa 26.1.6).
        let g_mean = row_sum(lane, sum) / f32(dims.columns);
        let gx_mean = row_sum(lane, dot) / f32(dims.columns);
        for (var i = lane; i < dims.columns; i += LANES) {
            let d = rstd * (f32(dy[base + i]) - g_mean - (f32(x[base + i]) - mean) * rstd * gx_mean);
            dx_plain[base + i] = Real(d + select(0.0, f32(dx_plain[base + i]), dims.accumulate == 1u));
        }
    }
}

@compute @workgroup_size(LANES)
fn backward_affine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.columns;
        let mean = stats[row * 2u];
        let rstd = stats[row * 2u + 1u];
        var sum = 0.0;
        var dot = 0.0;
        for (var i = lane; i < dims.columns; i += LANES) {
            let g = f32(dy[base + i]) * weight_backward[i];
            sum += g;
            dot += g * (f32(x[base + i]) - mean) * rstd;
        }
        let g_mean = row_sum(lane, sum) / f32(dims.columns);
        let gx_mean = row_sum(lane, dot) / f32(dims.columns);
        for (var i = lane; i < dims.columns; i += LANES) {
            let g = f32(dy[base + i]) * weight_backward[i];
            let d = rstd * (g - g_mean - (f32(x[base + i]) - mean) * rstd * gx_mean);
            dx_affine[base + i] = Real(d + select(0.0, f32(dx_affine[base + i]), dims.accumulate == 1u));
        }
    }
}

var<workgroup> sh_weight: array<f32, 64>;
var<workgroup> sh_bias: array<f32, 64>;

@compute @workgroup_size(64)
fn backward_parameters(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var column0 = group.x * 8u; column0 < dims.columns; column0 += groups.x * 8u) {
        let column = column0 + lane % 8u;
        // Lanes past the last column repeat it: they must meet the barriers.
        let at = min(column, dims.columns - 1u);
        var w_sum = 0.0;
        var b_sum = 0.0;
        for (var row = lane / 8u; row < dims.rows; row += 8u) {
            let g = f32(dy[row * dims.columns + at]);
            b_sum += g;
            w_sum += g * (f32(x[row * dims.columns + at]) - stats[row * 2u]) * stats[row * 2u + 1u];
        }
        workgroupBarrier();
        sh_weight[lane] = w_sum;
        sh_bias[lane] = b_sum;
        workgroupBarrier();
        if (lane < 8u && column < dims.columns) {
            for (var part = 1u; part < 8u; part++) {
                w_sum += sh_weight[part * 8u + lane];
                b_sum += sh_bias[part * 8u + lane];
            }
            dweight[column] = select(0.0, dweight[column], dims.accumulate == 1u) + w_sum;
            dbias[column] = select(0.0, dbias[column], dims.accumulate == 1u) + b_sum;
        }
    }
}
