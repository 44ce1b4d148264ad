// Generated: matmul-tn-tiles-128x128x8-8x8-vabc. C = op(A) op(B), TN.
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
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>; // (k, m)
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>; // (k, n)
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
    if ((i < end) & (row < dims.m)) {
        quad = a[(a_base + i * dims.a_stride + row) / 4u];
    }
    return quad;
}

fn b_quad(b_base: u32, i: u32, column: u32, end: u32) -> vec4<f32> {
    var quad = vec4<f32>();
    if ((i < end) & (column < dims.n)) {
        quad = b[(b_base + i * dims.b_stride + column) / 4u];
    }
    return quad;
}


var<workgroup> sh_a: array<vec4<f32>, 264>;
var<workgroup> sh_b: array<vec4<f32>, 264>;

@compute @workgroup_size(256)
fn product(
@builtin(workgroup_id) group: vec3<u32>,
@builtin(num_workgroups) groups: vec3<u32>,
@builtin(local_invocation_index) lane: u32,
) {
    let column_tiles = (dims.n + 127u) / 128u;
    let part_tiles = column_tiles * ((dims.m + 127u) / 128u);
    let parts = (dims.k + dims.part - 1u) / dims.part;
    let tiles = part_tiles * parts * dims.batch;
    let tx = lane % 16u;
    let ty = lane / 16u;
    for (var tile = group.x; tile < tiles; tile += groups.x) {
        let z = tile / (part_tiles * parts);
        let part = (tile / part_tiles) % parts;
        let shift = z * dims.c_batch + part * dims.m * dims.n;
        let row0 = ((tile % part_tiles) / column_tiles) * 128u;
        let column0 = (tile % column_tiles) * 128u;
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
        let a_quad0 = a_piece0 % 32u;
        let a_term0 = a_piece0 / 32u;
        var next_a0_0 = vec4<f32>();
        let b_piece0 = lane;
        let b_quad0 = b_piece0 % 32u;
        let b_term0 = b_piece0 / 32u;
        var next_b0_0 = vec4<f32>();
        for (var y = z; y < z + dims.sum; y++) {
            let a_base = dims.a_offset + y * dims.a_batch;
            let b_base = dims.b_offset + y * dims.b_batch;
            next_a0_0 = a_quad(a_base, row0 + a_quad0 * 4u + 0u, first + a_term0, end);
            next_b0_0 = b_quad(b_base, first + b_term0, column0 + b_quad0 * 4u + 0u, end);
            for (var i0 = first; i0 < end; i0 += 8u) {
                workgroupBarrier();
                sh_a[a_term0 * 33u + a_quad0] = vec4<f32>(next_a0_0);
                sh_b[b_term0 * 33u + b_quad0] = vec4<f32>(next_b0_0);
                workgroupBarrier();
                next_a0_0 = a_quad(a_base, row0 + a_quad0 * 4u + 0u, i0 + 8u + a_term0, end);
                next_b0_0 = b_quad(b_base, i0 + 8u + b_term0, column0 + b_quad0 * 4u + 0u, end);
                {
                    let a0 = sh_a[ty + 0u];
                    let a1 = sh_a[ty + 16u];
                    let b0 = sh_b[tx + 0u];
                    let b1 = sh_b[tx + 16u];
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
                    let a0 = sh_a[ty + 33u];
                    let a1 = sh_a[ty + 49u];
                    let b0 = sh_b[tx + 33u];
                    let b1 = sh_b[tx + 49u];
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
                    let a0 = sh_a[ty + 66u];
                    let a1 = sh_a[ty + 82u];
                    let b0 = sh_b[tx + 66u];
                    let b1 = sh_b[tx + 82u];
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
                    let a0 = sh_a[ty + 99u];
                    let a1 = sh_a[ty + 115u];
                    let b0 = sh_b[tx + 99u];
                    let b1 = sh_b[tx + 115u];
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
                    let a0 = sh_a[ty + 132u];
                    let a1 = sh_a[ty + 148u];
                    let b0 = sh_b[tx + 132u];
                    let b1 = sh_b[tx + 148u];
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
                    let a0 = sh_a[ty + 165u];
                    let a1 = sh_a[ty + 181u];
                    let b0 = sh_b[tx + 165u];
                    let b1 = sh_b[tx + 181u];
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
                    let a0 = sh_a[ty + 198u];
                    let a1 = sh_a[ty + 214u];
                    let b0 = sh_b[tx + 198u];
                    let b1 = sh_b[tx + 214u];
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
                    let a0 = sh_a[ty + 231u];
                    let a1 = sh_a[ty + 247u];
                    let b0 = sh_b[tx + 231u];
                    let b1 = sh_b[tx + 247u];
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
        store_quad(row0 + ty * 4u + 0u, column0 + tx * 4u + 64u, shift, s0_1);
        store_quad(row0 + ty * 4u + 1u, column0 + tx * 4u + 0u, shift, s1_0);
        store_quad(row0 + ty * 4u + 1u, column0 + tx * 4u + 64u, shift, s1_1);
        store_quad(row0 + ty * 4u + 2u, column0 + tx * 4u + 0u, shift, s2_0);
        store_quad(row0 + ty * 4u + 2u, column0 + tx * 4u + 64u, shift, s2_1);
        store_quad(row0 + ty * 4u + 3u, column0 + tx * 4u + 0u, shift, s3_0);
        store_quad(row0 + ty * 4u + 3u, column0 + tx * 4u + 64u, shift, s3_1);
        store_quad(row0 + ty * 4u + 64u, column0 + tx * 4u + 0u, shift, s4_0);
        store_quad(row0 + ty * 4u + 64u, column0 + tx * 4u + 64u, shift, s4_1);
        store_quad(row0 + ty * 4u + 65u, column0 + tx * 4u + 0u, shift, s5_0);
        store_quad(row0 + ty * 4u + 65u, column0 + tx * 4u + 64u, shift, s5_1);
        store_quad(row0 + ty * 4u + 66u, column0 + tx * 4u + 0u, shift, s6_0);
        store_quad(row0 + ty * 4u + 66u, column0 + tx * 4u + 64u, shift, s6_1);
        store_quad(row0 + ty * 4u + 67u, column0 + tx * 4u + 0u, shift, s7_0);
        store_quad(row0 + ty * 4u + 67u, column0 + tx * 4u + 64u, shift, s7_1);
    }
}
