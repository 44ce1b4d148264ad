// Sums of the gradients of two leaves, see src/train/parallel/: y <- x + y, with one rule for numbers that are too small.
//
// Devices differ in numbers below 2^-126: some keep them, some take them for zero. A sum that some rank's host makes must be
// that of any device, so they are zero here, before and after the addition, and zero has no sign.
// Mapping: one element per invocation, four 64 apart, striding over the whole grid.
// Writes: overwrites.

struct LeavesDims {
    first: u32, // element, of both
    n: u32,
}

@group(0) @binding(0) var<uniform> dims: LeavesDims;
@group(0) @binding(1) var<storage, read> left: array<f32>;
@group(0) @binding(2) var<storage, read_write> total: array<f32>;

fn flushed(x: f32) -> f32 {
    return select(x, 0.0, abs(x) < 0x1p-126f);
}

fn add_at(i: u32) {
    let at = dims.first + i;
    total[at] = flushed(flushed(left[at]) + flushed(total[at]));
}

@compute @workgroup_size(64)
fn add_leaf(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var first = group.x * 256u; first < dims.n; first += groups.x * 256u) {
        for (var i = first + lane; i < min(first + 256u, dims.n); i += 64u) {
            add_at(i);
        }
    }
}
