// What the device can do at most: multiply-adds, copying, reading, and starting dispatches.
//
// multiply_add: every invocation keeps ACCUMULATORS numbers, each its own chain of UNROLLED * dims.rounds fma.
//   Multiplier and addend come from the uniform block, so nothing can be folded. With both 1 an accumulator
//   counts its own fma exactly (below 2^11 in f16), so a loop that was cut short shows in the sum.
// copy_all, read_all: contiguous vec4, grid-strided. Sums are stored only where dims.store is 1.
// tick: one word, one more at each dispatch.
// Order of summation: written out. Writes: overwrite, but tick adds.
// Limits: 248 rounds; loops count against llvmpipe's 65535 iterations of an invocation.
#import "real.wgsl"

override ACCUMULATORS: u32 = 32u; // 8, 16, 24 or 32
override UNROLLED: u32 = 8u; // fma on each accumulator in a turn of the loop: 8 or 32
override WORKGROUP: u32 = 64u;

alias Lanes = vec4<Real>;

struct RooflineDims {
    rounds: u32, // of UNROLLED fma on every accumulator
    count: u32, // vec4 to copy or read
    store: u32,
    multiplier: f32,
    addend: f32,
}

@group(0) @binding(0) var<uniform> dims: RooflineDims;
@group(0) @binding(1) var<storage, read> origin: array<vec4<f32>>; // (count)
@group(0) @binding(2) var<storage, read_write> copied: array<vec4<f32>>; // (count)
@group(0) @binding(3) var<storage, read_write> sums: array<f32>; // one an invocation

struct Accumulators {
    a: Lanes,
    b: Lanes,
    c: Lanes,
    d: Lanes,
    e: Lanes,
    f: Lanes,
    g: Lanes,
    h: Lanes,
}

// One fma on each. The conditions are constants: what is not asked for is not compiled.
fn step(old: Accumulators, multiplier: Lanes, addend: Lanes) -> Accumulators {
    var x = old;
    x.a = fma(old.a, multiplier, addend);
    x.b = fma(old.b, multiplier, addend);
    if (ACCUMULATORS > 8u) {
        x.c = fma(old.c, multiplier, addend);
        x.d = fma(old.d, multiplier, addend);
    }
    if (ACCUMULATORS > 16u) {
        x.e = fma(old.e, multiplier, addend);
        x.f = fma(old.f, multiplier, addend);
    }
    if (ACCUMULATORS > 24u) {
        x.g = fma(old.g, multiplier, addend);
        x.h = fma(old.h, multiplier, addend);
    }
    return x;
}

fn eight_steps(old: Accumulators, multiplier: Lanes, addend: Lanes) -> Accumulators {
    var x = step(old, multiplier, addend);
    x = step(x, multiplier, addend);
    x = step(x, multiplier, addend);
    x = step(x, multiplier, addend);
    x = step(x, multiplier, addend);
    x = step(x, multiplier, addend);
    x = step(x, multiplier, addend);
    x = step(x, multiplier, addend);
    return x;
}

fn total(x: Lanes) -> f32 {
    return f32(x.x) + f32(x.y) + f32(x.z) + f32(x.w);
}

// The second condition is never met, but only the sum can tell: the work cannot be skipped.
fn store(at: u32, sum: f32) {
    if (dims.store == 1u || sum < 0.0) {
        sums[at] = sum;
    }
}

@compute @workgroup_size(WORKGROUP)
fn multiply_add(@builtin(global_invocation_id) id: vec3<u32>) {
    let multiplier = Lanes(Real(dims.multiplier));
    let addend = Lanes(Real(dims.addend));
    // Start values differ by lane and by accumulator, so that no two chains are the same computation.
    let first = Lanes(Real(id.x % 8u)) + Lanes(0, 1, 2, 3);
    var x = Accumulators(
        first,
        first + Lanes(4),
        first + Lanes(8),
        first + Lanes(12),
        first + Lanes(16),
        first + Lanes(20),
        first + Lanes(24),
        first + Lanes(28),
    );
    for (var round = 0u; round < dims.rounds; round++) {
        x = eight_steps(x, multiplier, addend);
        if (UNROLLED > 8u) {
            x = eight_steps(x, multiplier, addend);
            x = eight_steps(x, multiplier, addend);
            x = eight_steps(x, multiplier, addend);
        }
    }
    var sum = total(x.a) + total(x.b);
    if (ACCUMULATORS > 8u) {
        sum += total(x.c) + total(x.d);
    }
    if (ACCUMULATORS > 16u) {
        sum += total(x.e) + total(x.f);
    }
    if (ACCUMULATORS > 24u) {
        sum += total(x.g) + total(x.h);
    }
    store(id.x, sum);
}

@compute @workgroup_size(WORKGROUP)
fn copy_all(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.count; i += groups.x * WORKGROUP) {
        copied[i] = origin[i];
    }
}

@compute @workgroup_size(WORKGROUP)
fn read_all(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    var sum = vec4<f32>();
    for (var i = id.x; i < dims.count; i += groups.x * WORKGROUP) {
        sum += origin[i];
    }
    store(id.x, sum.x + sum.y + sum.z + sum.w);
}

@compute @workgroup_size(1)
fn tick() {
    sums[0] += 1.0;
}
