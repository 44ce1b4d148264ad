// Embedding lookup and the LayerNorm, without weight and bias, of what was looked up, for GPUs: one dispatch.
//
// embedding.wgsl and layer_norm.wgsl have the formulas.
// Mapping: one workgroup of 128 lanes a row, as in layer_norm_gpu.wgsl, with whose norm this one agrees in all bits.
// Order of summation: row_gpu.wgsl.
// Writes: all outputs are overwritten.
// Limits: the host checks that tokens are below the vocabulary size.
#import "row_gpu.wgsl"
#import "rows_scalar.wgsl"

struct Dims {
    rows: u32,
    columns: u32,
    eps: f32,
    vocab: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> tokens: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> embed: array<Unit32>; // (vocab, columns)
@group(0) @binding(3) var<storage, read_write> sum: array<Unit32>; // (rows, columns): the residual stream, f32 in every precision
@group(0) @binding(4) var<storage, read_write> y: array<Unit>; // (rows, columns)
@group(0) @binding(5) var<storage, read_write> stats: array<f32>; // (rows, 2): mean, rstd

const FIRST_NOT_HELD = HELD_SHARE * HELD;

fn read_embed(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units32(embed[unit_at(base, i, 0u, n)], embed[unit_at(base, i, 1u, n)], embed[unit_at(base, i, 2u, n)], embed[unit_at(base, i, 3u, n)], i, n);
}

fn read_sum(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units32(sum[unit_at(base, i, 0u, n)], sum[unit_at(base, i, 1u, n)], sum[unit_at(base, i, 2u, n)], sum[unit_at(base, i, 3u, n)], i, n);
}

fn write_sum(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.columns;
    if (has_unit(i, 0u, n)) {
        sum[unit_at(base, i, 0u, n)] = to_unit32(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        sum[unit_at(base, i, 1u, n)] = to_unit32(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        sum[unit_at(base, i, 2u, n)] = to_unit32(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        sum[unit_at(base, i, 3u, n)] = to_unit32(v.w, v);
    }
}

fn write_y(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.columns;
    if (has_unit(i, 0u, n)) {
        y[unit_at(base, i, 0u, n)] = to_unit(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        y[unit_at(base, i, 1u, n)] = to_unit(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        y[unit_at(base, i, 2u, n)] = to_unit(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        y[unit_at(base, i, 3u, n)] = to_unit(v.w, v);
    }
}

// Copies from a row of the table that starts at `first`, and gives it.
fn look_up(first: u32, base: u32, i: u32) -> vec4<f32> {
    let found = read_embed(first, i);
    write_sum(base, i, found);
    return found;
}

fn hold_rows(first: u32, base: u32, i: u32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        look_up(first, base, i),
        look_up(first, base, i + STEP),
        look_up(first, base, i + 2u * STEP),
        look_up(first, base, i + 3u * STEP),
        look_up(first, base, i + 4u * STEP),
        look_up(first, base, i + 5u * STEP),
        look_up(first, base, i + 6u * STEP),
        look_up(first, base, i + 7u * STEP),
    );
}

// Elements less their mean; nothing where the row has ended.
fn centred(i: u32, v: vec4<f32>, mean: f32) -> vec4<f32> {
    return select(vec4<f32>(), v - mean, vec4<u32>(i, i + 1u, i + 2u, i + 3u) < vec4<u32>(dims.columns));
}

fn hold_centred(i: u32, v: Held, mean: f32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        centred(i, v[0], mean),
        centred(i + STEP, v[1], mean),
        centred(i + 2u * STEP, v[2], mean),
        centred(i + 3u * STEP, v[3], mean),
        centred(i + 4u * STEP, v[4], mean),
        centred(i + 5u * STEP, v[5], mean),
        centred(i + 6u * STEP, v[6], mean),
        centred(i + 7u * STEP, v[7], mean),
    );
}

@compute @workgroup_size(LANES)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.columns;
        let i = 4u * lane;
        let table = min(tokens[row], dims.vocab - 1u) * dims.columns;
        let v = hold_rows(table, base, i);
        var sums = held_sums(v);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            sums += look_up(table, base, j);
        }
        let mean = row_sum(lane, across(sums)) / f32(dims.columns);
        let c = hold_centred(i, v, mean);
        var squares = held_dots(c, c);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            let more = centred(j, read_sum(base, j), mean);
            squares = fma(more, more, squares);
        }
        let variance = row_sum(lane, across(squares)) / f32(dims.columns);
        let rstd = 1.0 / sqrt(variance + dims.eps);
        if (HOLDS) {
            write_y(base, i, c[0] * rstd);
            write_y(base, i + STEP, c[1] * rstd);
            write_y(base, i + 2u * STEP, c[2] * rstd);
            write_y(base, i + 3u * STEP, c[3] * rstd);
            write_y(base, i + 4u * STEP, c[4] * rstd);
            write_y(base, i + 5u * STEP, c[5] * rstd);
            write_y(base, i + 6u * STEP, c[6] * rstd);
            write_y(base, i + 7u * STEP, c[7] * rstd);
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            write_y(base, j, centred(j, read_sum(base, j), mean) * rstd);
        }
        if (lane == 0u) {
            stats[row * 2u] = mean;
            stats[row * 2u + 1u] = rstd;
        }
    }
}
