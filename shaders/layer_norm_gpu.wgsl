// LayerNorm over the columns of each row, for GPUs, also of the sum of a residual addition or of rows of the embedding;
// layer_norm.wgsl has the formulas.
//
// Mapping: one workgroup of 128 lanes a row, vec4s of which each lane holds the first eight: a row of up to 4096 is read
// once. The add_ forms write the sum x + d and the norm of it, which saves a dispatch and reading the sum again; so does
// embed_plain with the rows that it looks up.
// Order of summation: row_gpu.wgsl.
// Writes: all outputs are overwritten.
// Limits: the host checks that tokens are below the vocabulary size; larger ones are taken for the last.
#import "row_gpu.wgsl"
#import "rows_scalar.wgsl"

struct LayerNormGpuDims {
    rows: u32,
    columns: u32,
    eps: f32,
    vocab: u32, // embed_plain: rows of x
}

@group(0) @binding(0) var<uniform> dims: LayerNormGpuDims;
@group(0) @binding(1) var<storage, read> x: array<Unit32>; // (rows, columns): the residual stream, f32 in every precision; or the embedding

@group(0) @binding(2) var<storage, read_write> y_2: array<Unit>; // (rows, columns): forward_plain
@group(0) @binding(3) var<storage, read_write> stats_3: array<f32>; // (rows, 2): mean, rstd

@group(0) @binding(2) var<storage, read> weight: array<Unit32>; // (columns): both affine forms
@group(0) @binding(3) var<storage, read> bias: array<Unit32>; // (columns)
@group(0) @binding(4) var<storage, read_write> y_4: array<Unit>; // (rows, columns): forward_affine, add_plain, embed_plain
@group(0) @binding(5) var<storage, read_write> stats_5: array<f32>; // (rows, 2)

@group(0) @binding(2) var<storage, read> d_2: array<Unit>; // (rows, columns): add_plain
@group(0) @binding(2) var<storage, read> tokens: array<u32>; // (rows): embed_plain
@group(0) @binding(3) var<storage, read_write> sum_3: array<Unit32>; // (rows, columns): x + d, or the rows of tokens

@group(0) @binding(4) var<storage, read> d_4: array<Unit>; // (rows, columns): add_affine
@group(0) @binding(5) var<storage, read_write> sum_5: array<Unit32>; // (rows, columns): x + d
@group(0) @binding(6) var<storage, read_write> y_6: array<Unit>; // (rows, columns)
@group(0) @binding(7) var<storage, read_write> stats_7: array<f32>; // (rows, 2)

const FIRST_NOT_HELD = HELD_SHARE * HELD;

fn read_d_2(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units(d_2[unit_at(base, i, 0u, n)], d_2[unit_at(base, i, 1u, n)], d_2[unit_at(base, i, 2u, n)], d_2[unit_at(base, i, 3u, n)], i, n);
}

fn read_d_4(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units(d_4[unit_at(base, i, 0u, n)], d_4[unit_at(base, i, 1u, n)], d_4[unit_at(base, i, 2u, n)], d_4[unit_at(base, i, 3u, n)], i, n);
}

fn read_x(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units32(x[unit_at(base, i, 0u, n)], x[unit_at(base, i, 1u, n)], x[unit_at(base, i, 2u, n)], x[unit_at(base, i, 3u, n)], i, n);
}

fn read_sum_3(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units32(sum_3[unit_at(base, i, 0u, n)], sum_3[unit_at(base, i, 1u, n)], sum_3[unit_at(base, i, 2u, n)], sum_3[unit_at(base, i, 3u, n)], i, n);
}

fn read_sum_5(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units32(sum_5[unit_at(base, i, 0u, n)], sum_5[unit_at(base, i, 1u, n)], sum_5[unit_at(base, i, 2u, n)], sum_5[unit_at(base, i, 3u, n)], i, n);
}

fn read_weight(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units32(weight[unit_at(base, i, 0u, n)], weight[unit_at(base, i, 1u, n)], weight[unit_at(base, i, 2u, n)], weight[unit_at(base, i, 3u, n)], i, n);
}

fn read_bias(base: u32, i: u32) -> vec4<f32> {
    let n = dims.columns;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units32(bias[unit_at(base, i, 0u, n)], bias[unit_at(base, i, 1u, n)], bias[unit_at(base, i, 2u, n)], bias[unit_at(base, i, 3u, n)], i, n);
}

fn write_y_2(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.columns;
    if (has_unit(i, 0u, n)) {
        y_2[unit_at(base, i, 0u, n)] = to_unit(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        y_2[unit_at(base, i, 1u, n)] = to_unit(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        y_2[unit_at(base, i, 2u, n)] = to_unit(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        y_2[unit_at(base, i, 3u, n)] = to_unit(v.w, v);
    }
}

fn write_y_4(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.columns;
    if (has_unit(i, 0u, n)) {
        y_4[unit_at(base, i, 0u, n)] = to_unit(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        y_4[unit_at(base, i, 1u, n)] = to_unit(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        y_4[unit_at(base, i, 2u, n)] = to_unit(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        y_4[unit_at(base, i, 3u, n)] = to_unit(v.w, v);
    }
}

fn write_y_6(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.columns;
    if (has_unit(i, 0u, n)) {
        y_6[unit_at(base, i, 0u, n)] = to_unit(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        y_6[unit_at(base, i, 1u, n)] = to_unit(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        y_6[unit_at(base, i, 2u, n)] = to_unit(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        y_6[unit_at(base, i, 3u, n)] = to_unit(v.w, v);
    }
}

fn write_sum_3(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.columns;
    if (has_unit(i, 0u, n)) {
        sum_3[unit_at(base, i, 0u, n)] = to_unit32(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        sum_3[unit_at(base, i, 1u, n)] = to_unit32(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        sum_3[unit_at(base, i, 2u, n)] = to_unit32(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        sum_3[unit_at(base, i, 3u, n)] = to_unit32(v.w, v);
    }
}

fn write_sum_5(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.columns;
    if (has_unit(i, 0u, n)) {
        sum_5[unit_at(base, i, 0u, n)] = to_unit32(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        sum_5[unit_at(base, i, 1u, n)] = to_unit32(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        sum_5[unit_at(base, i, 2u, n)] = to_unit32(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        sum_5[unit_at(base, i, 3u, n)] = to_unit32(v.w, v);
    }
}

fn hold_x(base: u32, i: u32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        read_x(base, i),
        read_x(base, i + STEP),
        read_x(base, i + 2u * STEP),
        read_x(base, i + 3u * STEP),
        read_x(base, i + 4u * STEP),
        read_x(base, i + 5u * STEP),
        read_x(base, i + 6u * STEP),
        read_x(base, i + 7u * STEP),
    );
}

// Elements less their mean; nothing where the row has ended.
fn centred(i: u32, v: vec4<f32>, mean: f32) -> vec4<f32> {
    return select(vec4<f32>(), v - mean, vec4<u32>(i, i + 1u, i + 2u, i + 3u) < vec4<u32>(dims.columns));
}

// Once for both uses: squares are summed from the mean, for <x^2> - <x>^2 would cancel.
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

fn affine(i: u32, xhat: vec4<f32>) -> vec4<f32> {
    return xhat * read_weight(0u, i) + read_bias(0u, i);
}

// Writes x + d, and gives it.
fn add_2(base: u32, i: u32) -> vec4<f32> {
    let sum = read_x(base, i) + read_d_2(base, i);
    write_sum_3(base, i, sum);
    return sum;
}

fn hold_sum_2(base: u32, i: u32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        add_2(base, i),
        add_2(base, i + STEP),
        add_2(base, i + 2u * STEP),
        add_2(base, i + 3u * STEP),
        add_2(base, i + 4u * STEP),
        add_2(base, i + 5u * STEP),
        add_2(base, i + 6u * STEP),
        add_2(base, i + 7u * STEP),
    );
}

// Writes what is looked up in the row of the table that starts at `first`, and gives it.
fn look_up(first: u32, base: u32, i: u32) -> vec4<f32> {
    let found = read_x(first, i);
    write_sum_3(base, i, found);
    return found;
}

fn hold_looked_up(first: u32, base: u32, i: u32) -> Held {
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

// Writes x + d, and gives it.
fn add_4(base: u32, i: u32) -> vec4<f32> {
    let sum = read_x(base, i) + read_d_4(base, i);
    write_sum_5(base, i, sum);
    return sum;
}

fn hold_sum_4(base: u32, i: u32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        add_4(base, i),
        add_4(base, i + STEP),
        add_4(base, i + 2u * STEP),
        add_4(base, i + 3u * STEP),
        add_4(base, i + 4u * STEP),
        add_4(base, i + 5u * STEP),
        add_4(base, i + 6u * STEP),
        add_4(base, i + 7u * STEP),
    );
}

@compute @workgroup_size(LANES)
fn forward_plain(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.columns;
        let i = 4u * lane;
        let v = hold_x(base, i);
        var sums = held_sums(v);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            sums += read_x(base, j);
        }
        let mean = row_sum(lane, across(sums)) / f32(dims.columns);
        let c = hold_centred(i, v, mean);
        var squares = held_dots(c, c);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            let more = centred(j, read_x(base, j), mean);
            squares = fma(more, more, squares);
        }
        let variance = row_sum(lane, across(squares)) / f32(dims.columns);
        let rstd = 1.0 / sqrt(variance + dims.eps);
        if (HOLDS) {
            write_y_2(base, i, c[0] * rstd);
            write_y_2(base, i + STEP, c[1] * rstd);
            write_y_2(base, i + 2u * STEP, c[2] * rstd);
            write_y_2(base, i + 3u * STEP, c[3] * rstd);
            write_y_2(base, i + 4u * STEP, c[4] * rstd);
            write_y_2(base, i + 5u * STEP, c[5] * rstd);
            write_y_2(base, i + 6u * STEP, c[6] * rstd);
            write_y_2(base, i + 7u * STEP, c[7] * rstd);
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            write_y_2(base, j, centred(j, read_x(base, j), mean) * rstd);
        }
        if (lane == 0u) {
            stats_3[row * 2u] = mean;
            stats_3[row * 2u + 1u] = rstd;
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
        let i = 4u * lane;
        let v = hold_x(base, i);
        var sums = held_sums(v);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            sums += read_x(base, j);
        }
        let mean = row_sum(lane, across(sums)) / f32(dims.columns);
        let c = hold_centred(i, v, mean);
        var squares = held_dots(c, c);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            let more = centred(j, read_x(base, j), mean);
            squares = fma(more, more, squares);
        }
        let variance = row_sum(lane, across(squares)) / f32(dims.columns);
        let rstd = 1.0 / sqrt(variance + dims.eps);
        if (HOLDS) {
            write_y_4(base, i, affine(i, c[0] * rstd));
            write_y_4(base, i + STEP, affine(i + STEP, c[1] * rstd));
            write_y_4(base, i + 2u * STEP, affine(i + 2u * STEP, c[2] * rstd));
            write_y_4(base, i + 3u * STEP, affine(i + 3u * STEP, c[3] * rstd));
            write_y_4(base, i + 4u * STEP, affine(i + 4u * STEP, c[4] * rstd));
            write_y_4(base, i + 5u * STEP, affine(i + 5u * STEP, c[5] * rstd));
            write_y_4(base, i + 6u * STEP, affine(i + 6u * STEP, c[6] * rstd));
            write_y_4(base, i + 7u * STEP, affine(i + 7u * STEP, c[7] * rstd));
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            write_y_4(base, j, affine(j, centred(j, read_x(base, j), mean) * rstd));
        }
        if (lane == 0u) {
            stats_5[row * 2u] = mean;
            stats_5[row * 2u + 1u] = rstd;
        }
    }
}

// Writes the norm of a row of sum_3: `v` of it is held, `sums` is what the lane's elements add up to.
fn norm_sum_3(row: u32, lane: u32, v: Held, sums: vec4<f32>) {
    let base = row * dims.columns;
    let i = 4u * lane;
    let mean = row_sum(lane, across(sums)) / f32(dims.columns);
    let c = hold_centred(i, v, mean);
    var squares = held_dots(c, c);
    for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
        let more = centred(j, read_sum_3(base, j), mean);
        squares = fma(more, more, squares);
    }
    let variance = row_sum(lane, across(squares)) / f32(dims.columns);
    let rstd = 1.0 / sqrt(variance + dims.eps);
    if (HOLDS) {
        write_y_4(base, i, c[0] * rstd);
        write_y_4(base, i + STEP, c[1] * rstd);
        write_y_4(base, i + 2u * STEP, c[2] * rstd);
        write_y_4(base, i + 3u * STEP, c[3] * rstd);
        write_y_4(base, i + 4u * STEP, c[4] * rstd);
        write_y_4(base, i + 5u * STEP, c[5] * rstd);
        write_y_4(base, i + 6u * STEP, c[6] * rstd);
        write_y_4(base, i + 7u * STEP, c[7] * rstd);
    }
    for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
        write_y_4(base, j, centred(j, read_sum_3(base, j), mean) * rstd);
    }
    if (lane == 0u) {
        stats_5[row * 2u] = mean;
        stats_5[row * 2u + 1u] = rstd;
    }
}

@compute @workgroup_size(LANES)
fn add_plain(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.columns;
        let i = 4u * lane;
        let v = hold_sum_2(base, i);
        var sums = held_sums(v);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            sums += add_2(base, j);
        }
        norm_sum_3(row, lane, v, sums);
    }
}

@compute @workgroup_size(LANES)
fn embed_plain(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.columns;
        let i = 4u * lane;
        let first = min(tokens[row], dims.vocab - 1u) * dims.columns;
        let v = hold_looked_up(first, base, i);
        var sums = held_sums(v);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            sums += look_up(first, base, j);
        }
        norm_sum_3(row, lane, v, sums);
    }
}

@compute @workgroup_size(LANES)
fn add_affine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.columns;
        let i = 4u * lane;
        let v = hold_sum_4(base, i);
        var sums = held_sums(v);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            sums += add_4(base, j);
        }
        let mean = row_sum(lane, across(sums)) / f32(dims.columns);
        let c = hold_centred(i, v, mean);
        var squares = held_dots(c, c);
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            let more = centred(j, read_sum_5(base, j), mean);
            squares = fma(more, more, squares);
        }
        let variance = row_sum(lane, across(squares)) / f32(dims.columns);
        let rstd = 1.0 / sqrt(variance + dims.eps);
        if (HOLDS) {
            write_y_6(base, i, affine(i, c[0] * rstd));
            write_y_6(base, i + STEP, affine(i + STEP, c[1] * rstd));
            write_y_6(base, i + 2u * STEP, affine(i + 2u * STEP, c[2] * rstd));
            write_y_6(base, i + 3u * STEP, affine(i + 3u * STEP, c[3] * rstd));
            write_y_6(base, i + 4u * STEP, affine(i + 4u * STEP, c[4] * rstd));
            write_y_6(base, i + 5u * STEP, affine(i + 5u * STEP, c[5] * rstd));
            write_y_6(base, i + 6u * STEP, affine(i + 6u * STEP, c[6] * rstd));
            write_y_6(base, i + 7u * STEP, affine(i + 7u * STEP, c[7] * rstd));
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.columns; j += STEP) {
            write_y_6(base, j, affine(j, centred(j, read_sum_5(base, j), mean) * rstd));
        }
        if (lane == 0u) {
            stats_7[row * 2u] = mean;
            stats_7[row * 2u + 1u] = rstd;
        }
    }
}
