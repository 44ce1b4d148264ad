enable f16;
// Generated: matmul-nn-tiles-32x32x16-4x4-hhh-vabc. C = op(A) op(B), NN.
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
@group(0) @binding(1) var<storage, read> a: array<vec4<f16>>; // (m, k)
@group(0) @binding(2) var<storage, read> b: array<vec4<f16>>; // (k, n)
@group(0) @binding(3) var<storage, read_write> c: array<vec4<f16>>; // (m, n)

fn store_quad(row: u32, column: u32, shift: u32, value: vec4<f32>) {
    if ((row < dims.m) & (column < dims.n)) {
        let at = (dims.c_offset + shift + row * dims.n + column) / 4u;
        if (dims.accumulate == 1u) {
            c[at] = vec4<f16>(value + vec4<f32>(c[at]));
        } else {
            c[at] = vec4<f16>(value);
        }
    }
}

fn a_quad(a_base: u32, row: u32, i: u32, end: u32) -> vec4<f16> {
    var quad = vec4<f16>();
    if ((row < dims.m) & (i < end)) {
        quad = a[(a_base + row * dims.a_stride + i) / 4u];
    }
    return quad;
}

fn b_quad(b_base: u32, i: u32, column: u32, end: u32) -> vec4<f16> {
    var quad = vec4<f16>();
    if ((i < end) & (column < dims.n)) {
        quad = b[(b_base + i * dims.b_stride + column) / 4u];
    }
    return quad;
}


var<workgroup> sh_a: array<vec4<f32>, 144>;
var<workgroup> sh_b: array<vec4<f32>, 144>;

@compute @workgroup_size(64)
fn product(
@builtin(workgroup_id) group: vec3<u32>,
@builtin(num_workgroups) groups: vec3<u32>,
@builtin(local_invocation_index) lane: u32,
) {
    let column_tiles = (dims.n + 31u) / 32u;
    let part_tiles = column_tiles * ((dims.m + 31u) / 32u);
    let parts = (dims.k + dims.part - 1u) / dims.part;
    let tiles = part_tiles * parts * dims.batch;
    let tx = lane % 8u;
    let ty = lane / 8u;
    for (var tile = group.x; tile < tiles; tile += groups.x) {
        let z = tile / (part_tiles * parts);
        let part = (tile / part_tiles) % parts;
        let shift = z * dims.c_batch + part * dims.m * dims.n;
        let row0 = ((tile % part_tiles) / column_tiles) * 32u;
        let column0 = (tile % column_tiles) * 32u;
        let first = part * dims.part;
        let end = min(first + dims.part, dims.k);
        var s0_0 = vec4<f32>();
        var s1_0 = vec4<f32>();
        var s2_0 = vec4<f32>();
        var s3_0 = vec4<f32>();
        let a_piece0 = lane;
        let a_quad0 = a_piece0 / 4u;
        let a_term0 = (a_piece0 % 4u) * 4u;
        var next_a0_0 = vec4<f16>();
        var next_a0_1 = vec4<f16>();
        var next_a0_2 = vec4<f16>();
        var next_a0_3 = vec4<f16>();
        let b_piece0 = lane;
        let b_quad0 = b_piece0 % 8u;
        let b_term0 = b_piece0 / 8u;
        var next_b0_0 = vec4<f16>();
        let b_piece1 = b_piece0 + 64u;
        let b_quad1 = b_piece1 % 8u;
        let b_term1 = b_piece1 / 8u;
        var next_b1_0 = vec4<f16>();
        for (var y = z; y < z + dims.sum; y++) {
            let a_base = dims.a_offset + y * dims.a_batch;
            let b_base = dims.b_offset + y * dims.b_batch;
            if (a_piece0 < 32u) {
                next_a0_0 = a_quad(a_base, row0 + a_quad0 * 4u + 0u, first + a_term0, end);
                next_a0_1 = a_quad(a_base, row0 + a_quad0 * 4u + 1u, first + a_term0, end);
                next_a0_2 = a_quad(a_base, row0 + a_quad0 * 4u + 2u, first + a_term0, end);
                next_a0_3 = a_quad(a_base, row0 + a_quad0 * 4u + 3u, first + a_term0, end);
            }
            next_b0_0 = b_quad(b_base, first + b_term0, column0 + b_quad0 * 4u + 0u, end);
            next_b1_0 = b_quad(b_base, first + b_term1, column0 + b_quad1 * 4u + 0u, end);
            for (var i0 = first; i0 < end; i0 += 16u) {
                workgroupBarrier();
                if (a_piece0 < 32u) {
                    sh_a[a_term0 * 9u + a_quad0 + 0u] = vec4<f32>(vec4<f16>(next_a0_0.x, next_a0_1.x, next_a0_2.x, next_a0_3.x));
                    sh_a[a_term0 * 9u + a_quad0 + 9u] = vec4<f32>(vec4<f16>(next_a0_0.y, next_a0_1.y, next_a0_2.y, next_a0_3.y));
                    sh_a[a_term0 * 9u + a_quad0 + 18u] = vec4<f32>(vec4<f16>(next_a0_0.z, next_a0_1.z, next_a0_2.z, next_a0_3.z));
                    sh_a[a_term0 * 9u + a_quad0 + 27u] = vec4<f32>(vec4<f16>(next_a0_0.w, next_a0_1.w, next_a0_2.w, next_a0_3.w));
                }
                sh_b[b_term0 * 9u + b_quad0] = vec4<f32>(next_b0_0);
                sh_b[b_term1 * 9u + b_quad1] = vec4<f32>(next_b1_0);
                workgroupBarrier();
                if (a_piece0 < 32u) {
                    next_a0_0 = a_quad(a_base, row0 + a_quad0 * 4u + 0u, i0 + 16u + a_term0, end);
                    next_a0_1 = a_quad(a_base, row0 + a_quad0 * 4u + 1u, i0 + 16u + a_term0, end);
                    next_a0_2 = a_quad(a_base, row0 + a_quad0 * 4u + 2u, i0 + 16u + a_term0, end);
                    next_a0_3 = a_quad(a_base, row0 + a_quad0 * 4u + 3u, i0 + 16u + a_term0, end);
                }
                next_b0_0 = b_quad(b_base, i0 + 16u + b_term0, column0 + b_quad0 * 4u + 0u, end);
                next_b1_0 = b_quad(b_base, i0 + 16u + b_term1, column0 + b_quad1 * 4u + 0u, end);
                {
                    let a0 = sh_a[ty + 0u];
                    let b0 = sh_b[tx + 0u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 9u];
                    let b0 = sh_b[tx + 9u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 18u];
                    let b0 = sh_b[tx + 18u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 27u];
                    let b0 = sh_b[tx + 27u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 36u];
                    let b0 = sh_b[tx + 36u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 45u];
                    let b0 = sh_b[tx + 45u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 54u];
                    let b0 = sh_b[tx + 54u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 63u];
                    let b0 = sh_b[tx + 63u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 72u];
                    let b0 = sh_b[tx + 72u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 81u];
                    let b0 = sh_b[tx + 81u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 90u];
                    let b0 = sh_b[tx + 90u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 99u];
                    let b0 = sh_b[tx + 99u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 108u];
                    let b0 = sh_b[tx + 108u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 117u];
                    let b0 = sh_b[tx + 117u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 126u];
                    let b0 = sh_b[tx + 126u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
                {
                    let a0 = sh_a[ty + 135u];
                    let b0 = sh_b[tx + 135u];
                    s0_0 = fma(vec4<f32>(a0.x), b0, s0_0);
                    s1_0 = fma(vec4<f32>(a0.y), b0, s1_0);
                    s2_0 = fma(vec4<f32>(a0.z), b0, s2_0);
                    s3_0 = fma(vec4<f32>(a0.w), b0, s3_0);
                }
            }
        }
        store_quad(row0 + ty * 4u + 0u, column0 + tx * 4u + 0u, shift, s0_0);
        store_quad(row0 + ty * 4u + 1u, column0 + tx * 4u + 0u, shift, s1_0);
        store_quad(row0 + ty * 4u + 2u, column0 + tx * 4u + 0u, shift, s2_0);
        store_quad(row0 + ty * 4u + 3u, column0 + tx * 4u + 0u, shift, s3_0);
    }
}
