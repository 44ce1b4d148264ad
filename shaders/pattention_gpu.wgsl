// Pattention's normalisation of scores and its backward, for GPUs; pattention.wgsl has the formulas.
//
// Mapping: one workgroup of 128 lanes a row, vec4s of which each lane holds the first eight: see row_gpu.wgsl. A row of up
// to 4096 scores is read once, in the backward too, where the other schedule goes through memory twice. Measured on an H200,
// the passes of that one took 3.3 ms of a step of 291 ms; what they move takes 2.5 ms.
// Order of summation: row_gpu.wgsl, so appended zero columns change no bit.
// Writes: forward overwrites s and stats; backward replaces ds by da, that of l2_norm_gelu writes s again as well.
// Limits: a row of zeros gives zeros (and, with eps = 0, a zero gradient) instead of 0/0.
#import "row_gpu.wgsl"
#import "gelu_vec4.wgsl"
#import "rows_scalar.wgsl"
#import "pattention_dims.wgsl"

@group(0) @binding(1) var<storage, read> a: array<Unit>; // (rows, n)
@group(0) @binding(2) var<storage, read_write> s: array<Unit>; // (rows, n)
@group(0) @binding(3) var<storage, read_write> stats: array<f32>; // (rows, 2): norm, 0 or maximum, sum of exponentials

@group(0) @binding(2) var<storage, read> saved: array<f32>; // (rows, 2), as stats
@group(0) @binding(3) var<storage, read_write> ds: array<Unit>; // (rows, n), becomes da
@group(0) @binding(4) var<storage, read_write> s_again: array<Unit>; // (rows, n): s

const FIRST_NOT_HELD = HELD_SHARE * HELD;

fn read_a(base: u32, i: u32) -> vec4<f32> {
    let n = dims.n;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units(a[unit_at(base, i, 0u, n)], a[unit_at(base, i, 1u, n)], a[unit_at(base, i, 2u, n)], a[unit_at(base, i, 3u, n)], i, n);
}

fn read_ds(base: u32, i: u32) -> vec4<f32> {
    let n = dims.n;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units(ds[unit_at(base, i, 0u, n)], ds[unit_at(base, i, 1u, n)], ds[unit_at(base, i, 2u, n)], ds[unit_at(base, i, 3u, n)], i, n);
}

fn write_s(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.n;
    if (has_unit(i, 0u, n)) {
        s[unit_at(base, i, 0u, n)] = to_unit(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        s[unit_at(base, i, 1u, n)] = to_unit(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        s[unit_at(base, i, 2u, n)] = to_unit(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        s[unit_at(base, i, 3u, n)] = to_unit(v.w, v);
    }
}

fn write_ds(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.n;
    if (has_unit(i, 0u, n)) {
        ds[unit_at(base, i, 0u, n)] = to_unit(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        ds[unit_at(base, i, 1u, n)] = to_unit(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        ds[unit_at(base, i, 2u, n)] = to_unit(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        ds[unit_at(base, i, 3u, n)] = to_unit(v.w, v);
    }
}

fn write_s_again(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.n;
    if (has_unit(i, 0u, n)) {
        s_again[unit_at(base, i, 0u, n)] = to_unit(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        s_again[unit_at(base, i, 1u, n)] = to_unit(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        s_again[unit_at(base, i, 2u, n)] = to_unit(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        s_again[unit_at(base, i, 3u, n)] = to_unit(v.w, v);
    }
}

fn hold_a(base: u32, i: u32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        read_a(base, i),
        read_a(base, i + STEP),
        read_a(base, i + 2u * STEP),
        read_a(base, i + 3u * STEP),
        read_a(base, i + 4u * STEP),
        read_a(base, i + 5u * STEP),
        read_a(base, i + 6u * STEP),
        read_a(base, i + 7u * STEP),
    );
}

fn hold_ds(base: u32, i: u32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        read_ds(base, i),
        read_ds(base, i + STEP),
        read_ds(base, i + 2u * STEP),
        read_ds(base, i + 3u * STEP),
        read_ds(base, i + 4u * STEP),
        read_ds(base, i + 5u * STEP),
        read_ds(base, i + 6u * STEP),
        read_ds(base, i + 7u * STEP),
    );
}

// Whether any of the vec4 from element i on is of the row: of a row of 768, two of the eight vec4s of a lane are.
fn is_inside(i: u32) -> bool {
    return i < dims.n;
}

// GELU of all eight would be 5.3 times the arithmetic at a width of 768.
fn gelu_inside(i: u32, x: vec4<f32>) -> vec4<f32> {
    if (is_inside(i)) {
        return gelu4(x, dims.use_tanh == 1u);
    }
    return vec4<f32>();
}

fn write_gelu(base: u32, i: u32, x: vec4<f32>) {
    if (is_inside(i)) {
        write_s(base, i, gelu4(x, dims.use_tanh == 1u));
    }
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
        let i = 4u * lane;
        let x = hold_a(base, i);
        var squares = held_dots(x, x);
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            let y = read_a(base, j);
            squares = fma(y, y, squares);
        }
        let norm = sqrt(row_sum(lane, across(squares)));
        let factor = quotient(dims.tau, norm + dims.eps);
        if (HOLDS) {
            write_gelu(base, i, x[0] * factor);
            write_gelu(base, i + STEP, x[1] * factor);
            write_gelu(base, i + 2u * STEP, x[2] * factor);
            write_gelu(base, i + 3u * STEP, x[3] * factor);
            write_gelu(base, i + 4u * STEP, x[4] * factor);
            write_gelu(base, i + 5u * STEP, x[5] * factor);
            write_gelu(base, i + 6u * STEP, x[6] * factor);
            write_gelu(base, i + 7u * STEP, x[7] * factor);
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            write_gelu(base, j, read_a(base, j) * factor);
        }
        save(row, lane, norm, 0.0);
    }
}

// Writes s again and gives du.
fn gelu_backward(base: u32, i: u32, x: vec4<f32>, d: vec4<f32>, factor: f32) -> vec4<f32> {
    if (!is_inside(i)) {
        return vec4<f32>();
    }
    let y = gelu_with_slope4(x * factor, dims.use_tanh == 1u);
    write_s_again(base, i, y.value);
    return d * y.slope;
}

fn hold_gelu_backward(base: u32, i: u32, x: Held, d: Held, factor: f32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        gelu_backward(base, i, x[0], d[0], factor),
        gelu_backward(base, i + STEP, x[1], d[1], factor),
        gelu_backward(base, i + 2u * STEP, x[2], d[2], factor),
        gelu_backward(base, i + 3u * STEP, x[3], d[3], factor),
        gelu_backward(base, i + 4u * STEP, x[4], d[4], factor),
        gelu_backward(base, i + 5u * STEP, x[5], d[5], factor),
        gelu_backward(base, i + 6u * STEP, x[6], d[6], factor),
        gelu_backward(base, i + 7u * STEP, x[7], d[7], factor),
    );
}

@compute @workgroup_size(LANES)
fn l2_norm_gelu_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.n;
        let i = 4u * lane;
        let norm = saved[row * 2u];
        let factor = slope_factor(norm);
        let x = hold_a(base, i);
        // Before the first store: all loads of a lane are under way together.
        let d = hold_ds(base, i);
        let du = hold_gelu_backward(base, i, x, d, factor);
        var dot = held_dots(x, du);
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            let y = read_a(base, j);
            let dy = gelu_backward(base, j, y, read_ds(base, j), factor);
            write_ds(base, j, dy);
            dot = fma(y, dy, dot);
        }
        let pull = quotient(row_sum(lane, across(dot)), norm * (norm + dims.eps));
        if (HOLDS) {
            write_ds(base, i, factor * (du[0] - x[0] * pull));
            write_ds(base, i + STEP, factor * (du[1] - x[1] * pull));
            write_ds(base, i + 2u * STEP, factor * (du[2] - x[2] * pull));
            write_ds(base, i + 3u * STEP, factor * (du[3] - x[3] * pull));
            write_ds(base, i + 4u * STEP, factor * (du[4] - x[4] * pull));
            write_ds(base, i + 5u * STEP, factor * (du[5] - x[5] * pull));
            write_ds(base, i + 6u * STEP, factor * (du[6] - x[6] * pull));
            write_ds(base, i + 7u * STEP, factor * (du[7] - x[7] * pull));
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            write_ds(base, j, factor * (read_ds(base, j) - read_a(base, j) * pull));
        }
    }
}

fn hold_gelu(i: u32, x: Held) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        gelu_inside(i, x[0]),
        gelu_inside(i + STEP, x[1]),
        gelu_inside(i + 2u * STEP, x[2]),
        gelu_inside(i + 3u * STEP, x[3]),
        gelu_inside(i + 4u * STEP, x[4]),
        gelu_inside(i + 5u * STEP, x[5]),
        gelu_inside(i + 6u * STEP, x[6]),
        gelu_inside(i + 7u * STEP, x[7]),
    );
}

@compute @workgroup_size(LANES)
fn gelu_l2_norm(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.n;
        let i = 4u * lane;
        let tanh_form = dims.use_tanh == 1u;
        let g = hold_gelu(i, hold_a(base, i));
        var squares = held_dots(g, g);
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            let y = gelu4(read_a(base, j), tanh_form);
            squares = fma(y, y, squares);
        }
        let norm = sqrt(row_sum(lane, across(squares)));
        let factor = quotient(dims.tau, norm + dims.eps);
        if (HOLDS) {
            write_s(base, i, g[0] * factor);
            write_s(base, i + STEP, g[1] * factor);
            write_s(base, i + 2u * STEP, g[2] * factor);
            write_s(base, i + 3u * STEP, g[3] * factor);
            write_s(base, i + 4u * STEP, g[4] * factor);
            write_s(base, i + 5u * STEP, g[5] * factor);
            write_s(base, i + 6u * STEP, g[6] * factor);
            write_s(base, i + 7u * STEP, g[7] * factor);
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            write_s(base, j, gelu4(read_a(base, j), tanh_form) * factor);
        }
        save(row, lane, norm, 0.0);
    }
}

fn gelu_norm_backward(x: vec4<f32>, d: vec4<f32>, factor: f32, pull: f32) -> vec4<f32> {
    let y = gelu_with_slope4(x, dims.use_tanh == 1u);
    return y.slope * factor * (d - y.value * pull);
}

fn write_gelu_norm_backward(base: u32, i: u32, x: vec4<f32>, d: vec4<f32>, factor: f32, pull: f32) {
    if (is_inside(i)) {
        write_ds(base, i, gelu_norm_backward(x, d, factor, pull));
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
        let i = 4u * lane;
        let norm = saved[row * 2u];
        let factor = slope_factor(norm);
        let tanh_form = dims.use_tanh == 1u;
        let x = hold_a(base, i);
        let d = hold_ds(base, i);
        // Registers are short: GELU is computed again below.
        var dot = held_dots(hold_gelu(i, x), d);
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            dot = fma(gelu4(read_a(base, j), tanh_form), read_ds(base, j), dot);
        }
        let pull = quotient(row_sum(lane, across(dot)), norm * (norm + dims.eps));
        if (HOLDS) {
            write_gelu_norm_backward(base, i, x[0], d[0], factor, pull);
            write_gelu_norm_backward(base, i + STEP, x[1], d[1], factor, pull);
            write_gelu_norm_backward(base, i + 2u * STEP, x[2], d[2], factor, pull);
            write_gelu_norm_backward(base, i + 3u * STEP, x[3], d[3], factor, pull);
            write_gelu_norm_backward(base, i + 4u * STEP, x[4], d[4], factor, pull);
            write_gelu_norm_backward(base, i + 5u * STEP, x[5], d[5], factor, pull);
            write_gelu_norm_backward(base, i + 6u * STEP, x[6], d[6], factor, pull);
            write_gelu_norm_backward(base, i + 7u * STEP, x[7], d[7], factor, pull);
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            write_ds(base, j, gelu_norm_backward(read_a(base, j), read_ds(base, j), factor, pull));
        }
    }
}

const NO_SCORE = vec4<f32>(-1.0e30);

// Which components of a vec4 are elements of the row.
fn inside(i: u32) -> vec4<bool> {
    return vec4<u32>(i, i + 1u, i + 2u, i + 3u) < vec4<u32>(dims.n);
}

fn largest_of(i: u32, x: vec4<f32>) -> vec4<f32> {
    return select(NO_SCORE, x, inside(i));
}

fn exponential(i: u32, x: vec4<f32>, largest: f32) -> vec4<f32> {
    return select(vec4<f32>(), exp(min(x - largest, vec4<f32>())), inside(i));
}

fn hold_exponentials(i: u32, x: Held, largest: f32) -> Held {
    if (!HOLDS) {
        return Held();
    }
    return Held(
        exponential(i, x[0], largest),
        exponential(i + STEP, x[1], largest),
        exponential(i + 2u * STEP, x[2], largest),
        exponential(i + 3u * STEP, x[3], largest),
        exponential(i + 4u * STEP, x[4], largest),
        exponential(i + 5u * STEP, x[5], largest),
        exponential(i + 6u * STEP, x[6], largest),
        exponential(i + 7u * STEP, x[7], largest),
    );
}

@compute @workgroup_size(LANES)
fn softmax(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.n;
        let i = 4u * lane;
        let x = hold_a(base, i);
        var most = NO_SCORE;
        if (HOLDS) {
            most = max(most, largest_of(i, x[0]));
            most = max(most, largest_of(i + STEP, x[1]));
            most = max(most, largest_of(i + 2u * STEP, x[2]));
            most = max(most, largest_of(i + 3u * STEP, x[3]));
            most = max(most, largest_of(i + 4u * STEP, x[4]));
            most = max(most, largest_of(i + 5u * STEP, x[5]));
            most = max(most, largest_of(i + 6u * STEP, x[6]));
            most = max(most, largest_of(i + 7u * STEP, x[7]));
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            most = max(most, largest_of(j, read_a(base, j)));
        }
        let largest = row_max(lane, max(max(most.x, most.y), max(most.z, most.w)));
        let e = hold_exponentials(i, x, largest);
        var sums = held_sums(e);
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            sums += exponential(j, read_a(base, j), largest);
        }
        let sum = row_sum(lane, across(sums));
        let factor = dims.tau * dims.tau / sum;
        if (HOLDS) {
            write_s(base, i, e[0] * factor);
            write_s(base, i + STEP, e[1] * factor);
            write_s(base, i + 2u * STEP, e[2] * factor);
            write_s(base, i + 3u * STEP, e[3] * factor);
            write_s(base, i + 4u * STEP, e[4] * factor);
            write_s(base, i + 5u * STEP, e[5] * factor);
            write_s(base, i + 6u * STEP, e[6] * factor);
            write_s(base, i + 7u * STEP, e[7] * factor);
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            write_s(base, j, exponential(j, read_a(base, j), largest) * factor);
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
        let i = 4u * lane;
        let largest = saved[row * 2u];
        let scale = 1.0 / saved[row * 2u + 1u];
        let e = hold_exponentials(i, hold_a(base, i), largest);
        let d = hold_ds(base, i);
        var dots = held_dots(e, d);
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            dots = fma(exponential(j, read_a(base, j), largest), read_ds(base, j), dots);
        }
        let dot = row_sum(lane, across(dots)) * scale;
        let factor = dims.tau * dims.tau * scale;
        if (HOLDS) {
            write_ds(base, i, factor * e[0] * (d[0] - dot));
            write_ds(base, i + STEP, factor * e[1] * (d[1] - dot));
            write_ds(base, i + 2u * STEP, factor * e[2] * (d[2] - dot));
            write_ds(base, i + 3u * STEP, factor * e[3] * (d[3] - dot));
            write_ds(base, i + 4u * STEP, factor * e[4] * (d[4] - dot));
            write_ds(base, i + 5u * STEP, factor * e[5] * (d[5] - dot));
            write_ds(base, i + 6u * STEP, factor * e[6] * (d[6] - dot));
            write_ds(base, i + 7u * STEP, factor * e[7] * (d[7] - dot));
        }
        for (var j = i + FIRST_NOT_HELD; j < dims.n; j += STEP) {
            write_ds(base, j, factor * exponential(j, read_a(base, j), largest) * (read_ds(base, j) - dot));
        }
    }
}
