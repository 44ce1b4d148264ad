// AdamW with decoupled weight decay, bias correction and global-norm clipping, for one range of rows.
//
// g <- clip g;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
// p <- p (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps),  c1 = 1 - b1^t,  c2 = 1 - b2^t
// Mapping: a workgroup of LANES takes 1024 elements of one segment at a time, front to back. A segment is a range of
// elements that are updated alike: rows appended by a growth have a cohort, whose t counts from then. Gradients and
// moments exist of what trains only, and are packed for themselves: moments may be of a share of it.
// Writes: p, m and v in place, and the copy of p that products read in mixed precision, which so is never made from all
// of p again; nothing at all when the finite flag is down or the cohort is frozen.
// Limits: 256 segments, by a search of eight steps.

#import "real.wgsl"
#import "segments.wgsl"
#import "stats.wgsl"
#import "update.wgsl"

override LANES: u32 = 64;

@group(0) @binding(1) var<uniform> update: UpdateScalars;
@group(0) @binding(2) var<storage, read> stats: Stats;
@group(0) @binding(3) var<storage, read> grad: array<f32>; // (n of what trains)
@group(0) @binding(4) var<storage, read_write> p: array<f32>; // (n of the whole tensor)
@group(0) @binding(5) var<storage, read_write> m: array<f32>; // (n of what is updated here)
@group(0) @binding(6) var<storage, read_write> v: array<f32>; // as m
@group(0) @binding(7) var<storage, read_write> copy: array<Real>; // as p

struct Scalars {
    clip: f32,
    lr: f32,
    shrink: f32,
    c1: f32,
    c2: f32,
}

// The element `i` of a segment; its new value.
fn step(segment: SegmentDims, i: u32, x: Scalars) -> f32 {
    let at = segment.moment + i;
    let g = grad[segment.state + i] * x.clip;
    let m_new = update.beta1 * m[at] + update.one_minus_beta1 * g;
    let v_new = update.beta2 * v[at] + update.one_minus_beta2 * g * g;
    m[at] = m_new;
    v[at] = v_new;
    let of_p = segment.first + i;
    let p_new = p[of_p] * x.shrink - x.lr * (m_new / x.c1) / (sqrt(v_new / x.c2) + update.eps);
    p[of_p] = p_new;
    return p_new;
}

fn scalars(segment: SegmentDims) -> Scalars {
    let cohort = update.cohorts[min(segment.kind / 2u, 31u)];
    let lr = update.lr * cohort.lr_scale;
    let shrink = select(1.0, 1.0 - lr * update.weight_decay, segment.kind % 2u == 1u);
    return Scalars(stats.clip_factor, lr, shrink, cohort.c1, cohort.c2);
}

// Where the elements of a chunk end; frozen ones end before they begin.
fn end_of(segment: SegmentDims, chunk: u32) -> u32 {
    let count = select(0u, segment.count, update.cohorts[min(segment.kind / 2u, 31u)].trained == 1.0);
    return min((chunk - segment.chunk + 1u) * 1024u, count);
}

@compute @workgroup_size(LANES)
fn adamw(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // The device decides by itself: the host may have submitted the next step before it reads the flag.
    let chunks = select(0u, dims.chunks, stats.finite == 1.0);
    for (var chunk = group.x; chunk < chunks; chunk += groups.x) {
        let segment = segment_of(chunk);
        let x = scalars(segment);
        let end = end_of(segment, chunk);
        var i = (chunk - segment.chunk) * 1024u + lane;
        // Four elements of a lane a turn: 32 ms of a step where lanes of one took 52 (lavapipe, Mesa 26.1.6).
        for (; i + 3u * LANES < end; i += 4u * LANES) {
            _ = step(segment, i, x);
            _ = step(segment, i + LANES, x);
            _ = step(segment, i + 2u * LANES, x);
            _ = step(segment, i + 3u * LANES, x);
        }
        for (; i < end; i += LANES) {
            _ = step(segment, i, x);
        }
    }
}

fn set_copy(segment: SegmentDims, i: u32, p_new: f32) {
    copy[segment.first + i] = Real(p_new);
}

@compute @workgroup_size(LANES)
fn adamw_and_copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunks = select(0u, dims.chunks, stats.finite == 1.0);
    for (var chunk = group.x; chunk < chunks; chunk += groups.x) {
        let segment = segment_of(chunk);
        let x = scalars(segment);
        let end = end_of(segment, chunk);
        var i = (chunk - segment.chunk) * 1024u + lane;
        for (; i + 3u * LANES < end; i += 4u * LANES) {
            set_copy(segment, i, step(segment, i, x));
            set_copy(segment, i + LANES, step(segment, i + LANES, x));
            set_copy(segment, i + 2u * LANES, step(segment, i + 2u * LANES, x));
            set_copy(segment, i + 3u * LANES, step(segment, i + 3u * LANES, x));
        }
        for (; i < end; i += LANES) {
            set_copy(segment, i, step(segment, i, x));
        }
    }
}
