// Generated: matmul-nt-tiles-64x64x8-8x8-vabc. C = op(A) op(B), NT.
// Order of summation: k ascending into one accumulator an output, so zeros appended along k change no bit.
// Writes: overwrites C, or adds to it when dims.accumulate is 1.
struct Dims {
    m: u32,
    n: u32,
    k: u32,
    a_offset: u32,
    b_offset: u32,
    c_offset: u32,
    a_stride: u32, // from row to row of A as stored
    b_stride: u32, // from row to row of B as stored
    accumulate: u32,
    part: u32, // terms of one part of the sum; part p of C lies p m n further on
    batch: u32, // products of one shape
    a_batch: u32, // from matrix to matrix of the batch
    b_batch: u32,
    c_batch: u32,
    sum: u32, // products of the batch that are added up in one C
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>; // (m, k)
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>; // (n, k)
@group(0) @binding(3) var<storage, read_write> c: array<vec4<f32>>; // (m, n)

fn store_quad(row: u32, column: u32, shift: u32, value: vec4<f32>) {
    if ((row < dims.m) & (column < dims.n)) {
        let at = (dims.c_offset + shift + row * dims.n + column) / 4u;
        if (dims.accumulate == 1u) {
            c[at] = vec4<f32>(value + vec4<f32>(c[at]));
        } else {
            c[at] = vec4<f32>(value);
        }
    }
}

fn a_quad(a_base: u32, row: u32, i: u32, end: u32) -> vec4<f32> {
    var quad = vec4<f32>();
    if ((row < dims.m) & (i < end)) {
        quad = a[(a_base + row * dims.a_stride + i) / 4u];
    }
    return quad;
}

fn b_quad(b_base: u32, i: u32, column: u32, end: u32) -> vec4<f32> {
    var quad = vec4<f32>();
    if ((column < dims.n) & (i < end)) {
        quad = b[(b_base + column * dims.b_stride + i) / 4u];
    }
    return quad;
}


var<workgroup> sh_a: array<vec4<f32>, 136>;
var<workgroup> sh_b: array<vec4<f32>, 136>;

@compute @workgroup_size(64)
fn product(
@builtin(workgroup_id) group: vec3<u32>,
@builtin(num_workgroups) groups: vec3<u32>,
@builtin(local_invocation_index) lane: u32,
) {
    let column_tiles = (dims.n + 63u) / 64u;
    let part_tiles = column_tiles * ((dims.m + 63u) / 64u);
    let parts = (dims.k + dims.part - 1u) / dims.part;
    let tiles = part_tiles * parts * dims.batch;
    let tx = lane % 8u;
    let ty = lane / 8u;
    for (var tile = group.x; tile < tiles; tile += groups.x) {
        let z = tile / (part_tiles * parts);
        let part = (tile / part_tiles) % parts;
        let shift = z * dims.c_batch + part * dims.m * dims.n;
        let row0 = ((tile % part_tiles) / column_tiles) * 64u;
        let column0 = (tile % column_tiles) * 64u;
        let first = part * dims.part;
        let end = min(first + dims.part, dims.k);
        var s0_0 = vec4<f32>();
        var s0_1 = vec4<f32>();
        var s1_0 = vec4<f32>();
        var s1_1 = vec4<f32>();
        var s2_0 = vec4<f32>();
        var s2_1 = vec4<f32>();
        var s3_0 = vec4<f32>();
        var s3_1 = vec4<f32>();
        var s4_0 = vec4<f32>();
        var s4_1 = vec4<f32>();
        var s5_0 = vec4<f32>();
        var s5_1 = vec4<f32>();
        var s6_0 = vec4<f32>();
        var s6_1 = vec4<f32>();
        var s7_0 = vec4<f32>();
        var s7_1 = vec4<f32>();
        let a_piece0 = lane;
        let a_quad0 = a_piece0 / 2u;
        let a_term0 = (a_piece0 % 2u) * 4u;
        var next_a0_0 = vec4<f32>();
        var next_a0_1 = vec4<f32>();
        var next_a0_2 = vec4<f32>();
        var next_a0_3 = vec4<f32>();
        let b_piece0 = (lane + 32u) % 64u;
        let b_quad0 = b_piece0 / 2u;
        let b_term0 = (b_piece0 % 2u) * 4u;
        var next_b0_0 = vec4<f32>();
        var next_b0_1 = vec4<f32>();
        var next_b0_2 = vec4<f32>();
        var next_b0_3 = vec4<f32>();
        for (var y = z; y < z + dims.sum; y++) {
            let a_base = dims.a_offset + y * dims.a_batch;
            let b_base = dims.b_offset + y * dims.b_batch;
            if (a_piece0 < 32u) {
                next_a0_0 = a_quad(a_base, row0 + a_quad0 * 4u + 0u, first + a_term0, end);
                next_a0_1 = a_quad(a_base, row0 + a_quad0 * 4u + 1u, first + a_term0, end);
                next_a0_2 = a_quad(a_base, row0 + a_quad0 * 4u + 2u, first + a_term0, end);
                next_a0_3 = a_quad(a_base, row0 + a_quad0 * 4u + 3u, first + a_term0, end);
            }
            if (b_piece0 < 32u) {
                next_b0_0 = b_quad(b_base, first + b_term0, column0 + b_quad0 * 4u + 0u, end);
                next_b0_1 = b_quad(b_base, first + b_term0, column0 + b_quad0 * 4u + 1u, end);
                next_b0_2 = b_quad(b_base, first + b_term0, column0 + b_quad0 * 4u + 2u, end);
                next_b0_3 = b_quad(b_base, first + b_term0, column0 + b_quad0 * 4u + 3u, end);
            }
            for (var i0 = first; i0 < end; i0 += 8u) {
                workgroupBarrier();
                if (a_piece0 < 32u) {
                    sh_a[a_term0 * 17u + a_quad0 + 0u] = vec4<f32>(vec4<f32>(next_a0_0.x, next_a0_1.x, next_a0_2.x, next_a0_3.x));
                    sh_a[a_term0 * 17u + a_quad0 + 17u] = vec4<f32>(vec4<f32>(next_a0_0.y, next_a0_1.y, next_a0_2.y, next_a0_3.y));
                    sh_a[a_term0 * 17u + a_quad0 + 34u] = vec4<f32>(vec4<f32>(next_a0_0.z, next_a0_1.z, next_a0_2.z, next_a0_3.z));
                    sh_a[a_term0 * 17u + a_quad0 + 51u] = vec4<f32>(vec4<f32>(next_a0_0.w, next_a0_1.w, next_a0_2.w, next_a0_3.w));
                }
                if (b_piece0 < 32u) {
                    sh_b[b_term0 * 17u + b_quad0 + 0u] = vec4<f32>(vec4<f32>(next_b0_0.x, next_b0_1.x, next_b0_2.x, next_b0_3.x));
                    sh_b[b_term0 * 17u + b_quad0 + 17u] = vec4<f32>(vec4<f32>(next_b0_0.y, next_b0_1.y, next_b0_2.y, next_b0_3.y));
                    sh_b[b_term0 * 17u + b_quad0 + 34u] = vec4<f32>(vec4<f32>(next_b0_0.z, next_b0_1.z, next_b0_2.z, next_b0_3.z));
                    sh_b[b_term0 * 17u + b_quad0 + 51u] = vec4<f32>(vec4<f32>(next_b0_0.w, next_b0_1.w, next_b0_2.w, next_b0_3.w));
                }
                workgroupBarrier();
                if (a_piece0 < 32u) {
                    next_a0_0 = a_quad(a_base, row0 + a_quad0 * 4u + 0u, i0 + 8u + a_term0, end);
                    next_a0_1 = a_quad(a_base, row0 + a_quad0 * 4u + 1u, i0 + 8u + a_term0, end);
                    next_a0_2 = a_quad(a_base, row0 + a_quad0 * 4u + 2u, i0 + 8u + a_term0, end);
                    next_a0_3 = a_quad(a_base, row0 + a_quad0 * 4u + 3u, i0 + 8u + a_term0, end);
                }
                if (b_piece0 < 32u) {
                    next_b0_0 = b_quad(b_base, i0 + 8u + b_term0, column0 + b_quad0 * 4u + 0u, end);
                    next_b0_1 = b_quad(b_base, i0 + 8u + b_term0, column0 + b_quad0 * 4u + 1u, end);
                    next_b0_2 = b_quad(b_base, i0 + 8u + b_term0, column0 + b_quad0 * 4u + 2u, end);
                    next_b0_3 = b_quad(b_base, i0 + 8u + b_term0, column0 + b_quad0 * 4u + 3u, end);
                }
                {
                    let a0 = sh_a[ty + 0u];
                    let a1 = sh_a[ty + 8u];
                    let b0 = sh_b[tx + 0u];
                    let b1 = sh_b[tx + 8u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s0_1 = fma(vec4<f32>(a0.x), b1, s0_1);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s1_1 = fma(vec4<f32>(a0.y), b1, s1_1);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s2_1 = fma(vec4<f32>(a0.z), b1, s2_1);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                    s3_1 = fma(vec4<f32>(a0.w), b1, s3_1);
                    s4_0 = fma(vec4<f32>(a1.x), b0, s4_0);
                    s4_1 = fma(vec4<f32>(a1.x), b1, s4_1);
                    s5_0 = fma(vec4<f32>(a1.y), b0, s5_0);
                    s5_1 = fma(vec4<f32>(a1.y), b1, s5_1);
                    s6_0 = fma(vec4<f32>(a1.z), b0, s6_0);
                    s6_1 = fma(vec4<f32>(a1.z), b1, s6_1);
                    s7_0 = fma(vec4<f32>(a1.w), b0, s7_0);
                    s7_1 = fma(vec4<f32>(a1.w), b1, s7_1);
                }
                {
                    let a0 = sh_a[ty + 17u];
                    let a1 = sh_a[ty + 25u];
                    let b0 = sh_b[tx + 17u];
                    let b1 = sh_b[tx + 25u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s0_1 = fma(vec4<f32>(a0.x), b1, s0_1);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s1_1 = fma(vec4<f32>(a0.y), b1, s1_1);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s2_1 = fma(vec4<f32>(a0.z), b1, s2_1);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                    s3_1 = fma(vec4<f32>(a0.w), b1, s3_1);
                    s4_0 = fma(vec4<f32>(a1.x), b0, s4_0);
                    s4_1 = fma(vec4<f32>(a1.x), b1, s4_1);
                    s5_0 = fma(vec4<f32>(a1.y), b0, s5_0);
                    s5_1 = fma(vec4<f32>(a1.y), b1, s5_1);
                    s6_0 = fma(vec4<f32>(a1.z), b0, s6_0);
                    s6_1 = fma(vec4<f32>(a1.z), b1, s6_1);
                    s7_0 = fma(vec4<f32>(a1.w), b0, s7_0);
                    s7_1 = fma(vec4<f32>(a1.w), b1, s7_1);
                }
                {
                    let a0 = sh_a[ty + 34u];
                    let a1 = sh_a[ty + 42u];
                    let b0 = sh_b[tx + 34u];
                    let b1 = sh_b[tx + 42u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s0_1 = fma(vec4<f32>(a0.x), b1, s0_1);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s1_1 = fma(vec4<f32>(a0.y), b1, s1_1);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s2_1 = fma(vec4<f32>(a0.z), b1, s2_1);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                    s3_1 = fma(vec4<f32>(a0.w), b1, s3_1);
                    s4_0 = fma(vec4<f32>(a1.x), b0, s4_0);
                    s4_1 = fma(vec4<f32>(a1.x), b1, s4_1);
                    s5_0 = fma(vec4<f32>(a1.y), b0, s5_0);
                    s5_1 = fma(vec4<f32>(a1.y), b1, s5_1);
                    s6_0 = fma(vec4<f32>(a1.z), b0, s6_0);
                    s6_1 = fma(vec4<f32>(a1.z), b1, s6_1);
                    s7_0 = fma(vec4<f32>(a1.w), b0, s7_0);
                    s7_1 = fma(vec4<f32>(a1.w), b1, s7_1);
                }
                {
                    let a0 = sh_a[ty + 51u];
                    let a1 = sh_a[ty + 59u];
                    let b0 = sh_b[tx + 51u];
                    let b1 = sh_b[tx + 59u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s0_1 = fma(vec4<f32>(a0.x), b1, s0_1);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s1_1 = fma(vec4<f32>(a0.y), b1, s1_1);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s2_1 = fma(vec4<f32>(a0.z), b1, s2_1);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                    s3_1 = fma(vec4<f32>(a0.w), b1, s3_1);
                    s4_0 = fma(vec4<f32>(a1.x), b0, s4_0);
                    s4_1 = fma(vec4<f32>(a1.x), b1, s4_1);
                    s5_0 = fma(vec4<f32>(a1.y), b0, s5_0);
                    s5_1 = fma(vec4<f32>(a1.y), b1, s5_1);
                    s6_0 = fma(vec4<f32>(a1.z), b0, s6_0);
                    s6_1 = fma(vec4<f32>(a1.z), b1, s6_1);
                    s7_0 = fma(vec4<f32>(a1.w), b0, s7_0);
                    s7_1 = fma(vec4<f32>(a1.w), b1, s7_1);
                }
                {
                    let a0 = sh_a[ty + 68u];
                    let a1 = sh_a[ty + 76u];
                    let b0 = sh_b[tx + 68u];
                    let b1 = sh_b[tx + 76u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s0_1 = fma(vec4<f32>(a0.x), b1, s0_1);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s1_1 = fma(vec4<f32>(a0.y), b1, s1_1);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s2_1 = fma(vec4<f32>(a0.z), b1, s2_1);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                    s3_1 = fma(vec4<f32>(a0.w), b1, s3_1);
                    s4_0 = fma(vec4<f32>(a1.x), b0, s4_0);
                    s4_1 = fma(vec4<f32>(a1.x), b1, s4_1);
                    s5_0 = fma(vec4<f32>(a1.y), b0, s5_0);
                    s5_1 = fma(vec4<f32>(a1.y), b1, s5_1);
                    s6_0 = fma(vec4<f32>(a1.z), b0, s6_0);
                    s6_1 = fma(vec4<f32>(a1.z), b1, s6_1);
                    s7_0 = fma(vec4<f32>(a1.w), b0, s7_0);
                    s7_1 = fma(vec4<f32>(a1.w), b1, s7_1);
                }
                {
                    let a0 = sh_a[ty + 85u];
                    let a1 = sh_a[ty + 93u];
                    let b0 = sh_b[tx + 85u];
                    let b1 = sh_b[tx + 93u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s0_1 = fma(vec4<f32>(a0.x), b1, s0_1);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s1_1 = fma(vec4<f32>(a0.y), b1, s1_1);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s2_1 = fma(vec4<f32>(a0.z), b1, s2_1);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                    s3_1 = fma(vec4<f32>(a0.w), b1, s3_1);
                    s4_0 = fma(vec4<f32>(a1.x), b0, s4_0);
                    s4_1 = fma(vec4<f32>(a1.x), b1, s4_1);
                    s5_0 = fma(vec4<f32>(a1.y), b0, s5_0);
                    s5_1 = fma(vec4<f32>(a1.y), b1, s5_1);
                    s6_0 = fma(vec4<f32>(a1.z), b0, s6_0);
                    s6_1 = fma(vec4<f32>(a1.z), b1, s6_1);
                    s7_0 = fma(vec4<f32>(a1.w), b0, s7_0);
                    s7_1 = fma(vec4<f32>(a1.w), b1, s7_1);
                }
                {
                    let a0 = sh_a[ty + 102u];
                    let a1 = sh_a[ty + 110u];
                    let b0 = sh_b[tx + 102u];
                    let b1 = sh_b[tx + 110u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s0_1 = fma(vec4<f32>(a0.x), b1, s0_1);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s1_1 = fma(vec4<f32>(a0.y), b1, s1_1);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s2_1 = fma(vec4<f32>(a0.z), b1, s2_1);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                    s3_1 = fma(vec4<f32>(a0.w), b1, s3_1);
                    s4_0 = fma(vec4<f32>(a1.x), b0, s4_0);
                    s4_1 = fma(vec4<f32>(a1.x), b1, s4_1);
                    s5_0 = fma(vec4<f32>(a1.y), b0, s5_0);
                    s5_1 = fma(vec4<f32>(a1.y), b1, s5_1);
                    s6_0 = fma(vec4<f32>(a1.z), b0, s6_0);
                    s6_1 = fma(vec4<f32>(a1.z), b1, s6_1);
                    s7_0 = fma(vec4<f32>(a1.w), b0, s7_0);
                    s7_1 = fma(vec4<f32>(a1.w), b1, s7_1);
                }
                {
                    let a0 = sh_a[ty + 119u];
                    let a1 = sh_a[ty + 127u];
                    let b0 = sh_b[tx + 119u];
                    let b1 = sh_b[tx + 127u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s0_1 = fma(vec4<f32>(a0.x), b1, s0_1);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s1_1 = fma(vec4<f32>(a0.y), b1, s1_1);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s2_1 = fma(vec4<f32>(a0.z), b1, s2_1);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                    s3_1 = fma(vec4<f32>(a0.w), b1, s3_1);
                    s4_0 = fma(vec4<f32>(a1.x), b0, s4_0);
                    s4_1 = fma(vec4<f32>(a1.x), b1, s4_1);
                    s5_0 = fma(vec4<f32>(a1.y), b0, s5_0);
                    s5_1 = fma(vec4<f32>(a1.y), b1, s5_1);
                    s6_0 = fma(vec4<f32>(a1.z), b0, s6_0);
                    s6_1 = fma(vec4<f32>(a1.z), b1, s6_1);
                    s7_0 = fma(vec4<f32>(a1.w), b0, s7_0);
                    s7_1 = fma(vec4<f32>(a1.w), b1, s7_1);
                }
            }
        }
        store_quad(row0 + ty * 4u + 0u, column0 + tx * 4u + 0u, shift, s0_0);
        store_quad(row0 + ty * 4u + 0u, column0 + tx * 4u + 32u, shift, s0_1);
        store_quad(row0 + ty * 4u + 1u, column0 + tx * 4u + 0u, shift, s1_0);
        store_quad(row0 + ty * 4u + 1u, column0 + tx * 4u + 32u, shift, s1_1);
        store_quad(row0 + ty * 4u + 2u, column0 + tx * 4u + 0u, shift, s2_0);
        store_quad(row0 + ty * 4u + 2u, column0 + tx * 4u + 32u, shift, s2_1);
        store_quad(row0 + ty * 4u + 3u, column0 + tx * 4u + 0u, shift, s3_0);
        store_quad(row0 + ty * 4u + 3u, column0 + tx * 4u + 32u, shift, s3_1);
        store_quad(row0 + ty * 4u + 32u, column0 + tx * 4u + 0u, shift, s4_0);
        store_quad(row0 + ty * 4u + 32u, column0 + tx * 4u + 32u, shift, s4_1);
        store_quad(row0 + ty * 4u + 33u, column0 + tx * 4u + 0u, shift, s5_0);
        store_quad(row0 + ty * 4u + 33u, column0 + tx * 4u + 32u, shift, s5_1);
        store_quad(row0 + ty * 4u + 34u, column0 + tx * 4u + 0u, shift, s6_0);
        store_quad(row0 + ty * 4u + 34u, column0 + tx * 4u + 32u, shift, s6_1);
        store_quad(row0 + ty * 4u + 35u, column0 + tx * 4u + 0u, shift, s7_0);
        store_quad(row0 + ty * 4u + 35u, column0 + tx * 4u + 32u, shift, s7_1);
    }
}
