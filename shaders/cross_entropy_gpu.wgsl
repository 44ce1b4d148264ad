// Cross-entropy of a chunk of rows of logits, with its gradient written over the logits, for GPUs; cross_entropy.wgsl has
// the formulas.
//
// Mapping: one workgroup of 256 lanes a row of the chunk, four vec4s a lane at a time.
// Order of summation: each lane its vec4s ascending, against the largest logit it has met so far (a larger one scales
// what was summed), so a row is read once for its loss and once for its gradient; then a tree over the lanes.
// Writes: losses overwritten; logits replaced by their gradient when dims.gradient is 1.
// Limits: target 0xffffffff is not counted: loss 0, gradient 0.
#import "rows_scalar.wgsl"
#import "stats.wgsl"

struct CrossEntropyDims {
    rows: u32,
    vocab: u32,
    first_row: u32,
    weight: f32,
    gradient: u32,
}

@group(0) @binding(0) var<uniform> dims: CrossEntropyDims;
@group(0) @binding(1) var<storage, read> targets: array<u32>; // (R)
@group(0) @binding(2) var<storage, read_write> logits: array<Unit>; // (rows, vocab): the chunk
@group(0) @binding(3) var<storage, read_write> losses: array<f32>; // (R)
@group(0) @binding(4) var<storage, read> stats: Stats;

// Twice those of row_gpu.wgsl: a row is a vocabulary, 50,304 logits in the 150M model, so 49 vec4s a lane.
const LANES = 256u;
const STEP = 4u * LANES;
// Not -infinity, which WGSL lets a compiler take for impossible.
const NO_LOGIT = -1.0e30;

// Of the lanes: the largest logit, the sum of exponentials against it, the logit of the target.
var<workgroup> sh_row: array<vec3<f32>, LANES>;

fn read_logits(base: u32, i: u32) -> vec4<f32> {
    let n = dims.vocab;
    if (i >= n) {
        return vec4<f32>();
    }
    return from_units(logits[unit_at(base, i, 0u, n)], logits[unit_at(base, i, 1u, n)], logits[unit_at(base, i, 2u, n)], logits[unit_at(base, i, 3u, n)], i, n);
}

fn write_logits(base: u32, i: u32, v: vec4<f32>) {
    let n = dims.vocab;
    if (has_unit(i, 0u, n)) {
        logits[unit_at(base, i, 0u, n)] = to_unit(v.x, v);
    }
    if (has_unit(i, 1u, n)) {
        logits[unit_at(base, i, 1u, n)] = to_unit(v.y, v);
    }
    if (has_unit(i, 2u, n)) {
        logits[unit_at(base, i, 2u, n)] = to_unit(v.z, v);
    }
    if (has_unit(i, 3u, n)) {
        logits[unit_at(base, i, 3u, n)] = to_unit(v.w, v);
    }
}

fn inside(i: u32) -> vec4<bool> {
    return vec4<u32>(i, i + 1u, i + 2u, i + 3u) < vec4<u32>(dims.vocab);
}

fn largest_of(i: u32, x: vec4<f32>) -> f32 {
    let y = select(vec4<f32>(NO_LOGIT), x, inside(i));
    return max(max(y.x, y.y), max(y.z, y.w));
}

fn exponentials(i: u32, x: vec4<f32>, largest: f32) -> vec4<f32> {
    return select(vec4<f32>(), exp(min(x - largest, vec4<f32>())), inside(i));
}

fn is_target(i: u32, target_token: u32) -> vec4<f32> {
    return select(vec4<f32>(), vec4<f32>(1.0), vec4<u32>(i, i + 1u, i + 2u, i + 3u) == vec4<u32>(target_token));
}

fn across(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

// What a sum against one largest logit is worth against a larger one. Exactly 1 against itself: software drivers compute
// exp(0) with an error, which a tree of eight turns would make eight times as large.
fn rescaled(before: f32, after: f32) -> f32 {
    return select(exp(before - after), 1.0, before == after);
}

fn joined(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
    let largest = max(a.x, b.x);
    return vec3<f32>(largest, a.y * rescaled(a.x, largest) + b.y * rescaled(b.x, largest), a.z + b.z);
}

// What a lane knows after one vec4 more.
fn with_vec4(known: vec3<f32>, i: u32, x: vec4<f32>, target_token: u32) -> vec3<f32> {
    let largest = max(known.x, largest_of(i, x));
    let sum = known.y * rescaled(known.x, largest) + across(exponentials(i, x, largest));
    return vec3<f32>(largest, sum, known.z + dot(x, is_target(i, target_token)));
}

@compute @workgroup_size(LANES)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.vocab;
        let target_token = targets[dims.first_row + row];
        let counted = target_token != 0xffffffffu;
        var known = vec3<f32>(NO_LOGIT, 0.0, 0.0);
        var i = 4u * lane;
        for (; i + 3u * STEP < dims.vocab; i += 4u * STEP) {
            // Four loads on their way at once, one rescaling.
            let x = read_logits(base, i);
            let y = read_logits(base, i + STEP);
            let z = read_logits(base, i + 2u * STEP);
            let w = read_logits(base, i + 3u * STEP);
            let low = max(largest_of(i, x), largest_of(i + STEP, y));
            let high = max(largest_of(i + 2u * STEP, z), largest_of(i + 3u * STEP, w));
            let largest = max(known.x, max(low, high));
            let four = exponentials(i, x, largest) + exponentials(i + STEP, y, largest)
                + exponentials(i + 2u * STEP, z, largest) + exponentials(i + 3u * STEP, w, largest);
            let picked = dot(x, is_target(i, target_token)) + dot(y, is_target(i + STEP, target_token))
                + dot(z, is_target(i + 2u * STEP, target_token)) + dot(w, is_target(i + 3u * STEP, target_token));
            known = vec3<f32>(largest, known.y * rescaled(known.x, largest) + across(four), known.z + picked);
        }
        for (; i < dims.vocab; i += STEP) {
            known = with_vec4(known, i, read_logits(base, i), target_token);
        }
        // The row before may still be read.
        workgroupBarrier();
        sh_row[lane] = known;
        workgroupBarrier();
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            if (lane < half) {
                sh_row[lane] = joined(sh_row[lane], sh_row[lane + half]);
            }
            workgroupBarrier();
        }
        let all = sh_row[0];
        if (lane == 0u) {
            losses[dims.first_row + row] = select(0.0, log(all.y) + all.x - all.z, counted);
        }
        if (dims.gradient == 1u) {
            let weight = select(0.0, dims.weight * stats.loss_scale, counted);
            // The second and last read of the row; a maximum, a sum and a gradient one after the other would be three.
            let scale = 1.0 / all.y;
            for (var j = 4u * lane; j < dims.vocab; j += STEP) {
                let p = exponentials(j, read_logits(base, j), all.x) * scale;
                write_logits(base, j, weight * (p - is_target(j, target_token)));
            }
        }
    }
}
