// Trials of matrix products: operands, poison, and comparisons of results, so that nothing large crosses the bus.
//
// operand: x_i = hash(i, seed) / 1024 - 1/2, exact in f16.   fill: every word is dims.word.   copy_words: to = from.
// differing_words: how many words of found and first differ.   gather: picked_i = reference[places_i].
// distance: sums of (found - reference)^2 and of reference^2, and how many outputs are further apart than the bound.
// Mapping: one element an invocation, striding over the grid; differing_words and distance: 64 lanes, then lane 0.
// Order of summation: a lane ascending, lanes ascending; one sum a workgroup, added up by the host.
// Writes: overwrite. `parts` and `counts` have room for `GROUPS` workgroups of each run.
#import "real.wgsl"

struct TrialDims {
    n: u32,
    word: u32, // fill: what to write; operand: the seed; differing_words: the bits of the last word that count
    run: u32, // differing_words: where its counts go
    absolute: f32, // distance: largest difference, and more for large outputs
    relative: f32,
}

@group(0) @binding(0) var<uniform> dims: TrialDims;
@group(0) @binding(1) var<storage, read_write> operand_out: array<Real>; // (n)
@group(0) @binding(1) var<storage, read_write> words: array<u32>; // (n)
@group(0) @binding(1) var<storage, read> found_words: array<u32>; // (n)
@group(0) @binding(1) var<storage, read> found: array<Real>; // (n)
@group(0) @binding(2) var<storage, read> first_words: array<u32>; // (n)
@group(0) @binding(2) var<storage, read_write> copied: array<u32>; // (n)
@group(0) @binding(1) var<storage, read> reference: array<f32>; // gather
@group(0) @binding(2) var<storage, read> expected: array<f32>; // (n)
@group(0) @binding(2) var<storage, read> places: array<u32>; // (n)
@group(0) @binding(3) var<storage, read_write> counts: array<u32>; // (runs, GROUPS)
@group(0) @binding(3) var<storage, read_write> parts: array<f32>; // (GROUPS, 3)
@group(0) @binding(3) var<storage, read_write> picked: array<f32>; // (n)

// Most workgroups of a comparison: ops/matmul/results.rs has the same number.
const GROUPS = 256u;

var<workgroup> sh_count: array<u32, 64>;
var<workgroup> sh_error: array<f32, 64>;
var<workgroup> sh_size: array<f32, 64>;

// As ops/matmul/results.rs computes it on the host.
fn value(i: u32) -> f32 {
    var x = (i * 0x9e3779b9u) ^ (dims.word * 0x85ebca6bu);
    x = (x ^ (x >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    return f32(x >> 22u) / 1024.0 - 0.5;
}

@compute @workgroup_size(64)
fn operand(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 64u) {
        operand_out[i] = Real(value(i));
    }
}

@compute @workgroup_size(64)
fn fill(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 64u) {
        words[i] = dims.word;
    }
}

@compute @workgroup_size(64)
fn copy_words(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 64u) {
        copied[i] = found_words[i];
    }
}

@compute @workgroup_size(64)
fn gather(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.n; i += groups.x * 64u) {
        picked[i] = reference[places[i]];
    }
}

@compute @workgroup_size(64)
fn differing_words(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var count = 0u;
    for (var i = group.x * 64u + lane; i < dims.n; i += groups.x * 64u) {
        let counted = select(0xffffffffu, dims.word, i + 1u == dims.n);
        count += select(0u, 1u, ((found_words[i] ^ first_words[i]) & counted) != 0u);
    }
    sh_count[lane] = count;
    workgroupBarrier();
    if (lane == 0u) {
        for (var other = 1u; other < 64u; other++) {
            count += sh_count[other];
        }
        counts[dims.run * GROUPS + group.x] = count;
    }
}

@compute @workgroup_size(64)
fn distance(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var count = 0u;
    var error = 0.0;
    var size = 0.0;
    for (var i = group.x * 64u + lane; i < dims.n; i += groups.x * 64u) {
        let is = f32(found[i]);
        let should = expected[i];
        let apart = abs(is - should);
        // By its bits: a driver may assume that nothing is NaN, and then no comparison tells.
        let finite = (bitcast<u32>(is) & 0x7f800000u) != 0x7f800000u;
        count += select(1u, 0u, finite && apart <= dims.absolute + dims.relative * abs(should));
        error = fma(apart, apart, error);
        size = fma(should, should, size);
    }
    sh_count[lane] = count;
    sh_error[lane] = error;
    sh_size[lane] = size;
    workgroupBarrier();
    if (lane == 0u) {
        for (var other = 1u; other < 64u; other++) {
            count += sh_count[other];
            error += sh_error[other];
            size += sh_size[other];
        }
        parts[group.x * 3u] = error;
        parts[group.x * 3u + 1u] = size;
        parts[group.x * 3u + 2u] = f32(count);
    }
}
