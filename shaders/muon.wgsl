// Muon: the momentum of matrices and its norm, the polynomial of a Newton-Schulz step, and the update.
//
// momentum:    g <- clip g;  m <- mu m + (1 - mu) g;  x <- (1 - mu) g + mu m (Nesterov)
// inverse_norms, normalize:  x <- x / max(|x|, eps), |x| the Frobenius norm of a matrix
// polynomial:  s <- a I + b A + c s, where s is A A on entry
// update:      p <- p (1 - lr wd) - lr adjust o
// Mapping: a workgroup of LANES takes 1024 elements of a matrix or of a segment at a time, front to back; inverse_norms: a
// workgroup a matrix. The matrices of a batch have one shape and lie one after the other in x, s and o.
// Order of summation: row.wgsl, of each 1024 elements, then of those sums.
// Writes: m, x, s and p in place, and the copy of p that products read in mixed precision; parts, scales overwrite. With the
// finite flag down neither m nor p changes, and what is in x is of no use.
// Limits: 64 matrices, 256 segments.
#import "real.wgsl"
#import "row.wgsl"
#import "segments.wgsl"
#import "stats.wgsl"
#import "update.wgsl"

struct MatrixPlace {
    state: u32, // first element of the gradient
    moment: u32, // first element of the momentum
    spare_a: u32,
    spare_b: u32,
}

struct MuonMomentumDims {
    elements: u32, // of a matrix
    parts: u32, // of a matrix
    matrices: u32,
    spare: u32,
    momentum: f32,
    one_minus_momentum: f32,
    spare_a: f32,
    spare_b: f32,
    table: array<MatrixPlace, 64>,
}

struct MuonMatrixDims {
    elements: u32, // of a matrix
    parts: u32, // of a matrix
    matrices: u32,
    side: u32, // rows and columns of A
    a: f32,
    b: f32,
    c: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> places: MuonMomentumDims;
@group(0) @binding(1) var<storage, read> stats: Stats;
@group(0) @binding(2) var<storage, read> grad: array<f32>; // (n of what trains)
@group(0) @binding(3) var<storage, read_write> m: array<f32>; // (n of all matrices)
@group(0) @binding(4) var<storage, read_write> x: array<f32>; // (matrices, elements)
@group(0) @binding(5) var<storage, read_write> parts: array<f32>; // (matrices, parts)

@group(0) @binding(0) var<uniform> matrix: MuonMatrixDims;
@group(0) @binding(1) var<storage, read> sums: array<f32>; // (matrices, parts)
@group(0) @binding(2) var<storage, read_write> scales: array<f32>; // (matrices)

@group(0) @binding(1) var<storage, read> scale: array<f32>; // (matrices)
@group(0) @binding(2) var<storage, read_write> scaled: array<f32>; // (matrices, elements)

@group(0) @binding(1) var<storage, read> gram: array<f32>; // (matrices, side, side)
@group(0) @binding(2) var<storage, read_write> square: array<f32>; // (matrices, side, side)

@group(0) @binding(1) var<uniform> update: UpdateScalars;
@group(0) @binding(2) var<storage, read> stats_of_step: Stats;
@group(0) @binding(3) var<storage, read> o: array<f32>; // (matrices, elements)
@group(0) @binding(4) var<storage, read_write> p: array<f32>; // (n of the whole tensor)
@group(0) @binding(5) var<storage, read_write> copy: array<Real>; // as p

@compute @workgroup_size(LANES)
fn momentum(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunks = select(0u, places.matrices * places.parts, stats.finite == 1.0);
    for (var chunk = group.x; chunk < chunks; chunk += groups.x) {
        let number = chunk / places.parts;
        let place = places.table[min(number, 63u)];
        let first = (chunk - number * places.parts) * 1024u;
        let end = min(first + 1024u, places.elements);
        var sum = 0.0;
        for (var i = first + lane; i < end; i += LANES) {
            let g = grad[place.state + i] * stats.clip_factor;
            let m_new = places.momentum * m[place.moment + i] + places.one_minus_momentum * g;
            m[place.moment + i] = m_new;
            let x_new = places.one_minus_momentum * g + places.momentum * m_new;
            x[number * places.elements + i] = x_new;
            sum += x_new * x_new;
        }
        let all = row_sum(lane, sum);
        if (lane == 0u) {
            parts[chunk] = all;
        }
    }
}

@compute @workgroup_size(LANES)
fn inverse_norms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var number = group.x; number < matrix.matrices; number += groups.x) {
        var sum = 0.0;
        for (var i = lane; i < matrix.parts; i += LANES) {
            sum += sums[number * matrix.parts + i];
        }
        let all = row_sum(lane, sum);
        if (lane == 0u) {
            scales[number] = 1.0 / max(sqrt(all), matrix.eps);
        }
    }
}

@compute @workgroup_size(256)
fn normalize(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < matrix.matrices * matrix.elements; i += groups.x * 256u) {
        scaled[i] *= scale[i / matrix.elements];
    }
}

@compute @workgroup_size(256)
fn polynomial(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let size = matrix.side * matrix.side;
    for (var i = id.x; i < matrix.matrices * size; i += groups.x * 256u) {
        let at = i % size;
        let one = select(0.0, matrix.a, at / matrix.side == at % matrix.side);
        square[i] = one + (matrix.b * gram[i] + matrix.c * square[i]);
    }
}

struct Rates {
    shrink: f32,
    step: f32,
}

fn rates(segment: SegmentDims) -> Rates {
    let lr = update.lr * dims.rate * update.cohorts[min(segment.kind / 2u, 31u)].lr_scale;
    return Rates(select(1.0, 1.0 - lr * update.weight_decay, segment.kind % 2u == 1u), lr * dims.adjust);
}

// The element `i` of a segment; its new value.
fn step(segment: SegmentDims, i: u32, rate: Rates) -> f32 {
    let at = segment.first + i;
    let p_new = p[at] * rate.shrink - rate.step * o[segment.state + i];
    p[at] = p_new;
    return p_new;
}

@compute @workgroup_size(LANES)
fn update_parameters(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunks = select(0u, dims.chunks, stats_of_step.finite == 1.0);
    for (var chunk = group.x; chunk < chunks; chunk += groups.x) {
        let segment = segment_of(chunk);
        let rate = rates(segment);
        let first = (chunk - segment.chunk) * 1024u;
        for (var i = first + lane; i < min(first + 1024u, segment.count); i += LANES) {
            _ = step(segment, i, rate);
        }
    }
}

@compute @workgroup_size(LANES)
fn update_parameters_and_copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunks = select(0u, dims.chunks, stats_of_step.finite == 1.0);
    for (var chunk = group.x; chunk < chunks; chunk += groups.x) {
        let segment = segment_of(chunk);
        let rate = rates(segment);
        let first = (chunk - segment.chunk) * 1024u;
        for (var i = first + lane; i < min(first + 1024u, segment.count); i += LANES) {
            copy[segment.first + i] = Real(step(segment, i, rate));
        }
    }
}
