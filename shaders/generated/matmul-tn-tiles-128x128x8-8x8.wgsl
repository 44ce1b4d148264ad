// Generated: matmul-tn-tiles-128x128x8-8x8. C = op(A) op(B), TN.
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
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> a: array<f32>; // (k, m)
@group(0) @binding(2) var<storage, read> b: array<f32>; // (k, n)
@group(0) @binding(3) var<storage, read_write> c: array<f32>; // (m, n)

fn store(row: u32, column: u32, shift: u32, value: f32) {
    if (row < dims.m && column < dims.n) {
        let at = dims.c_offset + shift + row * dims.n + column;
        c[at] = f32(value + select(0.0, f32(c[at]), dims.accumulate == 1u));
    }
}

fn load_a(a_base: u32, row: u32, i: u32, end: u32) -> f32 {
    let value = f32(a[a_base + (min(i, dims.k - 1u)) * dims.a_stride + min(row, dims.m - 1u)]);
    return select(0.0, value, row < dims.m && i < end);
}

fn load_b(b_base: u32, i: u32, column: u32, end: u32) -> f32 {
    let value = f32(b[b_base + (min(i, dims.k - 1u)) * dims.b_stride + min(column, dims.n - 1u)]);
    return select(0.0, value, column < dims.n && i < end);
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
        let a_base = dims.a_offset + z * dims.a_batch;
        let b_base = dims.b_offset + z * dims.b_batch;
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
        var next_a0 = vec4<f32>(load_a(a_base, row0 + ((lane + 0u) % 32u) * 4u + 0u, first + (lane + 0u) / 32u, end), load_a(a_base, row0 + ((lane + 0u) % 32u) * 4u + 1u, first + (lane + 0u) / 32u, end), load_a(a_base, row0 + ((lane + 0u) % 32u) * 4u + 2u, first + (lane + 0u) / 32u, end), load_a(a_base, row0 + ((lane + 0u) % 32u) * 4u + 3u, first + (lane + 0u) / 32u, end));
        var next_b0 = vec4<f32>(load_b(b_base, first + (lane + 0u) / 32u, column0 + ((lane + 0u) % 32u) * 4u + 0u, end), load_b(b_base, first + (lane + 0u) / 32u, column0 + ((lane + 0u) % 32u) * 4u + 1u, end), load_b(b_base, first + (lane + 0u) / 32u, column0 + ((lane + 0u) % 32u) * 4u + 2u, end), load_b(b_base, first + (lane + 0u) / 32u, column0 + ((lane + 0u) % 32u) * 4u + 3u, end));
        for (var i0 = first; i0 < end; i0 += 8u) {
            workgroupBarrier();
            sh_a[((lane + 0u) / 32u) * 33u + (lane + 0u) % 32u] = next_a0;
            sh_b[((lane + 0u) / 32u) * 33u + (lane + 0u) % 32u] = next_b0;
            workgroupBarrier();
            next_a0 = vec4<f32>(load_a(a_base, row0 + ((lane + 0u) % 32u) * 4u + 0u, i0 + 8u + (lane + 0u) / 32u, end), load_a(a_base, row0 + ((lane + 0u) % 32u) * 4u + 1u, i0 + 8u + (lane + 0u) / 32u, end), load_a(a_base, row0 + ((lane + 0u) % 32u) * 4u + 2u, i0 + 8u + (lane + 0u) / 32u, end), load_a(a_base, row0 + ((lane + 0u) % 32u) * 4u + 3u, i0 + 8u + (lane + 0u) / 32u, end));
            next_b0 = vec4<f32>(load_b(b_base, i0 + 8u + (lane + 0u) / 32u, column0 + ((lane + 0u) % 32u) * 4u + 0u, end), load_b(b_base, i0 + 8u + (lane + 0u) / 32u, column0 + ((lane + 0u) % 32u) * 4u + 1u, end), load_b(b_base, i0 + 8u + (lane + 0u) / 32u, column0 + ((lane + 0u) % 32u) * 4u + 2u, end), load_b(b_base, i0 + 8u + (lane + 0u) / 32u, column0 + ((lane + 0u) % 32u) * 4u + 3u, end));
            for (var i = 0u; i < 8u; i++) {
                let a0 = sh_a[i * 33u + ty + 0u];
                let a1 = sh_a[i * 33u + ty + 16u];
                let b0 = sh_b[i * 33u + tx + 0u];
                let b1 = sh_b[i * 33u + tx + 16u];
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
        store(row0 + ty * 4u + 0u, column0 + tx * 4u + 0u, shift, s0_0.x);
        store(row0 + ty * 4u + 0u, column0 + tx * 4u + 1u, shift, s0_0.y);
        store(row0 + ty * 4u + 0u, column0 + tx * 4u + 2u, shift, s0_0.z);
        store(row0 + ty * 4u + 0u, column0 + tx * 4u + 3u, shift, s0_0.w);
        store(row0 + ty * 4u + 0u, column0 + tx * 4u + 64u, shift, s0_1.x);
        store(row0 + ty * 4u + 0u, column0 + tx * 4u + 65u, shift, s0_1.y);
        store(row0 + ty * 4u + 0u, column0 + tx * 4u + 66u, shift, s0_1.z);
        store(row0 + ty * 4u + 0u, column0 + tx * 4u + 67u, shift, s0_1.w);
        store(row0 + ty * 4u + 1u, column0 + tx * 4u + 0u, shift, s1_0.x);
        store(row0 + ty * 4u + 1u, column0 + tx * 4u + 1u, shift, s1_0.y);
        store(row0 + ty * 4u + 1u, column0 + tx * 4u + 2u, shift, s1_0.z);
        store(row0 + ty * 4u + 1u, column0 + tx * 4u + 3u, shift, s1_0.w);
        store(row0 + ty * 4u + 1u, column0 + tx * 4u + 64u, shift, s1_1.x);
        store(row0 + ty * 4u + 1u, column0 + tx * 4u + 65u, shift, s1_1.y);
        store(row0 + ty * 4u + 1u, column0 + tx * 4u + 66u, shift, s1_1.z);
        store(row0 + ty * 4u + 1u, column0 + tx * 4u + 67u, shift, s1_1.w);
        store(row0 + ty * 4u + 2u, column0 + tx * 4u + 0u, shift, s2_0.x);
        store(row0 + ty * 4u + 2u, column0 + tx * 4u + 1u, shift, s2_0.y);
        store(row0 + ty * 4u + 2u, column0 + tx * 4u + 2u, shift, s2_0.z);
        store(row0 + ty * 4u + 2u, column0 + tx * 4u + 3u, shift, s2_0.w);
        store(row0 + ty * 4u + 2u, column0 + tx * 4u + 64u, shift, s2_1.x);
        store(row0 + ty * 4u + 2u, column0 + tx * 4u + 65u, shift, s2_1.y);
        store(row0 + ty * 4u + 2u, column0 + tx * 4u + 66u, shift, s2_1.z);
        store(row0 + ty * 4u + 2u, column0 + tx * 4u + 67u, shift, s2_1.w);
        store(row0 + ty * 4u + 3u, column0 + tx * 4u + 0u, shift, s3_0.x);
        store(row0 + ty * 4u + 3u, column0 + tx * 4u + 1u, shift, s3_0.y);
        store(row0 + ty * 4u + 3u, column0 + tx * 4u + 2u, shift, s3_0.z);
        store(row0 + ty * 4u + 3u, column0 + tx * 4u + 3u, shift, s3_0.w);
        store(row0 + ty * 4u + 3u, column0 + tx * 4u + 64u, shift, s3_1.x);
        store(row0 + ty * 4u + 3u, column0 + tx * 4u + 65u, shift, s3_1.y);
        store(row0 + ty * 4u + 3u, column0 + tx * 4u + 66u, shift, s3_1.z);
        store(row0 + ty * 4u + 3u, column0 + tx * 4u + 67u, shift, s3_1.w);
        store(row0 + ty * 4u + 64u, column0 + tx * 4u + 0u, shift, s4_0.x);
        store(row0 + ty * 4u + 64u, column0 + tx * 4u + 1u, shift, s4_0.y);
        store(row0 + ty * 4u + 64u, column0 + tx * 4u + 2u, shift, s4_0.z);
        store(row0 + ty * 4u + 64u, column0 + tx * 4u + 3u, shift, s4_0.w);
        store(row0 + ty * 4u + 64u, column0 + tx * 4u + 64u, shift, s4_1.x);
        store(row0 + ty * 4u + 64u, column0 + tx * 4u + 65u, shift, s4_1.y);
        store(row0 + ty * 4u + 64u, column0 + tx * 4u + 66u, shift, s4_1.z);
        store(row0 + ty * 4u + 64u, column0 + tx * 4u + 67u, shift, s4_1.w);
        store(row0 + ty * 4u + 65u, column0 + tx * 4u + 0u, shift, s5_0.x);
        store(row0 + ty * 4u + 65u, column0 + tx * 4u + 1u, shift, s5_0.y);
        store(row0 + ty * 4u + 65u, column0 + tx * 4u + 2u, shift, s5_0.z);
        store(row0 + ty * 4u + 65u, column0 + tx * 4u + 3u, shift, s5_0.w);
        store(row0 + ty * 4u + 65u, column0 + tx * 4u + 64u, shift, s5_1.x);
        store(row0 + ty * 4u + 65u, column0 + tx * 4u + 65u, shift, s5_1.y);
        store(row0 + ty * 4u + 65u, column0 + tx * 4u + 66u, shift, s5_1.z);
        store(row0 + ty * 4u + 65u, column0 + tx * 4u + 67u, shift, s5_1.w);
        store(row0 + ty * 4u + 66u, column0 + tx * 4u + 0u, shift, s6_0.x);
        store(row0 + ty * 4u + 66u, column0 + tx * 4u + 1u, shift, s6_0.y);
        store(row0 + ty * 4u + 66u, column0 + tx * 4u + 2u, shift, s6_0.z);
        store(row0 + ty * 4u + 66u, column0 + tx * 4u + 3u, shift, s6_0.w);
        store(row0 + ty * 4u + 66u, column0 + tx * 4u + 64u, shift, s6_1.x);
        store(row0 + ty * 4u + 66u, column0 + tx * 4u + 65u, shift, s6_1.y);
        store(row0 + ty * 4u + 66u, column0 + tx * 4u + 66u, shift, s6_1.z);
        store(row0 + ty * 4u + 66u, column0 + tx * 4u + 67u, shift, s6_1.w);
        store(row0 + ty * 4u + 67u, column0 + tx * 4u + 0u, shift, s7_0.x);
        store(row0 + ty * 4u + 67u, column0 + tx * 4u + 1u, shift, s7_0.y);
        store(row0 + ty * 4u + 67u, column0 + tx * 4u + 2u, shift, s7_0.z);
        store(row0 + ty * 4u + 67u, column0 + tx * 4u + 3u, shift, s7_0.w);
        store(row0 + ty * 4u + 67u, column0 + tx * 4u + 64u, shift, s7_1.x);
        store(row0 + ty * 4u + 67u, column0 + tx * 4u + 65u, shift, s7_1.y);
        store(row0 + ty * 4u + 67u, column0 + tx * 4u + 66u, shift, s7_1.z);
        store(row0 + ty * 4u + 67u, column0 + tx * 4u + 67u, shift, s7_1.w);
    }
}
