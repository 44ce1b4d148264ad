// Backward of LayerNorm, for GPUs; layer_norm.wgsl has the formulas.
//
// Mapping of dx: one workgroup of 128 lanes a row, as in layer_norm_gpu.wgsl.
// Mapping of the gradients of weight and bias: a workgroup of 64 lanes adds up 64 rows of 64 columns, each lane every
// fourth row of 4 columns; backward_affine then adds up the parts of a column, one lane a column.
// Order of summation: row_gpu.wgsl; over rows: 64 at a time, in 4 interleaved sums, then ascending.
// Writes: dx adds when dims.accumulate is 1, the gradients of weight and bias when accumulate_parameters is; parts are
// overwritten.
#import "row_gpu.wgsl"
#import "rows_scalar.wgsl"

struct LayerNormBackwardDims {
    rows: u32,
    columns: u32,
    eps: f32,
    accumulate: u32, // dx
    accumulate_parameters: u32,
}

@group(0) @binding(0) var<uniform> dims: LayerNormBackwardDims;
@group(0) @binding(1) var<storage, read> x: array<Unit32>; // (rows, columns): the residual stream, f32 in every precision
@group(0) @binding(2) var<storage, read> stats: array<f32>; // (rows, 2): mean, rstd
@group(0) @binding(3) var<storage, read> dy: array<Unit>; // (rows, columns)
@group(0) @binding(4) var<storage, read_write> dx_plain: array<Unit>; // (rows, columns)
@group(0) @binding(4) var<storage, read> weight: array<Unit32>; // (columns)
@group(0) @binding(5) var<storage, read_write> dx_affine: array<Unit>; // (rows, columns)
@group(0) @binding(4) var<storage, read_write> parts: array<f32>; // (rows / 64, 2, columns): of weight, of bias
@group(0) @binding(6) var<storage, read> all_parts: array<f32>; // (rows / 64, 2, columns)
@group(0) @binding(7) var<storage, read_write> dweight: array<f32>; // (columns)
@group(0) @binding(8) var<storage, read_write> dbias: array<f32>; // (columns)

const FIRST_NOT_HELD = HELD_SHARE * HELD;
// Rows of a part of the gradients of weight and bias.
const CHUNK = 64u;

fn read_dy(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units(dy[unit_at(base, i, 0u, n)], dy[unit_at(base, i, 1u, n)], dy[unit_at(base, i, 2u, n)], dy[unit_at(base, i, 3u, n)], i, n);
}

fn read_dx_plain(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units(dx_plain[unit_at(base, i, 0u, n)], dx_plain[unit_at(base, i, 1u, n)], dx_plain[unit_at(base, i, 2u, n)], dx_plain[unit_at(base, i, 3u, n)], i, n);
}

fn read_dx_affine(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units(dx_affine[unit_at(base, i, 0u, n)], dx_affine[unit_at(base, i, 1u, n)], dx_affine[unit_at(base, i, 2u, n)], dx_affine[unit_at(base, i, 3u, n)], i, n);
}

fn read_x(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units32(x[unit_at(base, i, 0u, n)], x[unit_at(base, i, 1u, n)], x[unit_at(base, i, 2u, n)], x[unit_at(base, i, 3u, n)], i, n);
}

fn read_weight(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units32(weight[unit_at(base, i, 0u, n)], weight[unit_at(base, i, 1u, n)], weight[unit_at(base, i, 2u, n)], weight[unit_at(base, i, 3u, n)], i, n);
}

fn write_dx_plain(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.columns;
    if (has_unit(i, 0u, n)) {
        dx_plain[unit_at(base, i, 0u, n)] = to_unit(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        dx_plain[unit_at(base, i, 1u, n)] = to_unit(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        dx_plain[unit_at(base, i, 2u, n)] = to_unit(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        dx_plain[unit_at(base, i, 3u, n)] = to_unit(v.w, v);
    }
}

fn write_dx_affine(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.columns;
    if (has_unit(i, 0u, n)) {
        dx_affine[unit_at(base, i, 0u, n)] = to_unit(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        dx_affine[unit_at(base, i, 1u, n)] = to_unit(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        dx_affine[unit_at(base, i, 2u, n)] = to_unit(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        dx_affine[unit_at(base, i, 3u, n)] = to_unit(v.w, v);
    }
}

fn hold_dy(base: u32, i: u32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        read_dy(base, i),
        read_dy(base, i + STEP),
        read_dy(base, i + 2u * STEP),
        read_dy(base, i + 3u * STEP),
        read_dy(base, i + 4u * STEP),
        read_dy(base, i + 5u * STEP),
        read_dy(base, i + 6u * STEP),
        read_dy(base, i + 7u * STEP),
    );
}

fn xhat(base: u32, i: u32, mean: f32, rstd: f32) -> vec4<f32> {
    return (read_x(base, i) - mean) * rstd;
}

fn hold_xhat(base: u32, i: u32, mean: f32, rstd: f32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        xhat(base, i, mean, rstd),
        xhat(base, i + STEP, mean, rstd),
        xhat(base, i + 2u * STEP, mean, rstd),
        xhat(base, i + 3u * STEP, mean, rstd),
        xhat(base, i + 4u * STEP, mean, rstd),
        xhat(base, i + 5u * STEP, mean, rstd),
        xhat(base, i + 6u * STEP, mean, rstd),
        xhat(base, i + 7u * STEP, mean, rstd),
    );
}

fn weighted(base: u32, i: u32) -> vec4<f32> {
    return read_dy(base, i) * read_weight(0u, i);
}

fn hold_weighted(base: u32, i: u32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        weighted(base, i),
        weighted(base, i + STEP),
        weighted(base, i + 2u * STEP),
        weighted(base, i + 3u * STEP),
        weighted(base, i + 4u * STEP),
        weighted(base, i + 5u * STEP),
        weighted(base, i + 6u * STEP),
        weighted(base, i + 7u * STEP),
    );
}

fn finish_plain(base: u32, i: u32, d: vec4<f32>) {
    var dx = d;
    if (dims.accumulate == 1u) {
        dx += read_dx_plain(base, i);
    }
    write_dx_plain(base, i, dx);
}

fn finish_affine(base: u32, i: u32, d: vec4<f32>) {
    var dx = d;
    if (dims.accumulate == 1u) {
        dx += read_dx_affine(base, i);
    }
    write_dx_affine(base, i, dx);
}

@compute @workgroup_size(LANES)
fn backward_plain(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.columns;
        let i = 4u * lane;
        let mean = stats[row * 2u];
        let rstd = stats[row * 2u + 1u];
        let g = hold_dy(base, i);
        let h = hold_xhat(base, i, mean, rstd);
        var sums = held_sums(g);
        var dots = held_dots(g, h);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            let more = read_dy(base, j);
            sums += more;
            dots = fma(more, xhat(base, j, mean, rstd), dots);
        }
        // Both means for the barriers of one.
        let means = row_sums(lane, vec2<f32>(across(sums), across(dots))) / f32(dims.columns);
        if (HOLDS) {
            finish_plain(base, i, rstd * (g[0] - means.x - h[0] * means.y));
            finish_plain(base, i + STEP, rstd * (g[1] - means.x - h[1] * means.y));
            finish_plain(base, i + 2u * STEP, rstd * (g[2] - means.x - h[2] * means.y));
            finish_plain(base, i + 3u * STEP, rstd * (g[3] - means.x - h[3] * means.y));
            finish_plain(base, i + 4u * STEP, rstd * (g[4] - means.x - h[4] * means.y));
            finish_plain(base, i + 5u * STEP, rstd * (g[5] - means.x - h[5] * means.y));
            finish_plain(base, i + 6u * STEP, rstd * (g[6] - means.x - h[6] * means.y));
            finish_plain(base, i + 7u * STEP, rstd * (g[7] - means.x - h[7] * means.y));
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            finish_plain(base, j, rstd * (read_dy(base, j) - means.x - xhat(base, j, mean, rstd) * means.y));
        }
    }
}

// Adds up the parts of every column, one lane a column.
fn parameter_sums(first: u32, step: u32) {
    for (var column = first; column < dims.columns; column += step) {
        let end = (dims.rows + CHUNK - 1u) / CHUNK * 2u * dims.columns;
        let next = 2u * dims.columns;
        let adds = dims.accumulate_parameters == 1u;
        var w = select(0.0, dweight[column], adds);
        var b = select(0.0, dbias[column], adds);
        for (var at = column; at < end; at += next) {
            w += all_parts[at];
            b += all_parts[at + dims.columns];
        }
        dweight[column] = w;
        dbias[column] = b;
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
        let i = 4u * lane;
        let mean = stats[row * 2u];
        let rstd = stats[row * 2u + 1u];
        let g = hold_weighted(base, i);
        let h = hold_xhat(base, i, mean, rstd);
        var sums = held_sums(g);
        var dots = held_dots(g, h);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            let more = weighted(base, j);
            sums += more;
            dots = fma(more, xhat(base, j, mean, rstd), dots);
        }
        let means = row_sums(lane, vec2<f32>(across(sums), across(dots))) / f32(dims.columns);
        if (HOLDS) {
            finish_affine(base, i, rstd * (g[0] - means.x - h[0] * means.y));
            finish_affine(base, i + STEP, rstd * (g[1] - means.x - h[1] * means.y));
            finish_affine(base, i + 2u * STEP, rstd * (g[2] - means.x - h[2] * means.y));
            finish_affine(base, i + 3u * STEP, rstd * (g[3] - means.x - h[3] * means.y));
            finish_affine(base, i + 4u * STEP, rstd * (g[4] - means.x - h[4] * means.y));
            finish_affine(base, i + 5u * STEP, rstd * (g[5] - means.x - h[5] * means.y));
            finish_affine(base, i + 6u * STEP, rstd * (g[6] - means.x - h[6] * means.y));
            finish_affine(base, i + 7u * STEP, rstd * (g[7] - means.x - h[7] * means.y));
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            finish_affine(base, j, rstd * (weighted(base, j) - means.x - xhat(base, j, mean, rstd) * means.y));
        }
    }
    // Along with dx, which spares a dispatch.
    parameter_sums(group.x * LANES + lane, groups.x * LANES);
}

var<workgroup> sh_weight: array<vec4<f32>, 64>;
var<workgroup> sh_bias: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn parameter_parts(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column_blocks = (dims.columns + 63u) / 64u;
    let blocks = (dims.rows + CHUNK - 1u) / CHUNK * column_blocks;
    for (var block = group.x; block < blocks; block += groups.x) {
        let chunk = block / column_blocks;
        let i = block % column_blocks * 64u + 4u * (lane % 16u);
        let end = min((chunk + 1u) * CHUNK, dims.rows);
        var w_sum = vec4<f32>();
        var b_sum = vec4<f32>();
        for (var row = chunk * CHUNK + lane / 16u; row < end; row += 4u) {
            let g = read_dy(row * dims.columns, i);
            b_sum += g;
            w_sum = fma(g, xhat(row * dims.columns, i, stats[row * 2u], stats[row * 2u + 1u]), w_sum);
        }
        // The block before may still be read.
        workgroupBarrier();
        sh_weight[lane] = w_sum;
        sh_bias[lane] = b_sum;
        workgroupBarrier();
        // One lane a column.
        let column = block % column_blocks * 64u + lane;
        if (column < dims.columns) {
            let at = lane / 4u;
            let c = lane % 4u;
            var w = sh_weight[at][c];
            var b = sh_bias[at][c];
            for (var part = 16u; part < 64u; part += 16u) {
                w += sh_weight[at + part][c];
                b += sh_bias[at + part][c];
            }
            parts[2u * chunk * dims.columns + column] = w;
            parts[(2u * chunk + 1u) * dims.columns + column] = b;
        }
    }
}
