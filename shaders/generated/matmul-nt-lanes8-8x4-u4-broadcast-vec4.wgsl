// Generated: matmul-nt-lanes8-8x4-u4-broadcast-vec4. C = op(A) op(B), NT.
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
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>; // (m, k)
@group(0) @binding(2) var<storage, read> b: array<f32>; // (n, k)
@group(0) @binding(3) var<storage, read_write> c: array<f32>; // (m, n)

fn store(row: u32, column: u32, shift: u32, value: f32) {
    if ((row < dims.m) & (column < dims.n)) {
        let at = dims.c_offset + shift + row * dims.n + column;
        c[at] = f32(value + select(0.0, f32(c[at]), dims.accumulate == 1u));
    }
}

@compute @workgroup_size(8)
fn product(
@builtin(workgroup_id) group: vec3<u32>,
@builtin(num_workgroups) groups: vec3<u32>,
@builtin(subgroup_invocation_id) lane: u32,
) {
    let column_tiles = (dims.n + 31u) / 32u;
    let matrix_tiles = column_tiles * ((dims.m + 7u) / 8u);
    let tiles = matrix_tiles * dims.batch;
    
    for (var tile = group.x; tile < tiles; tile += groups.x) {
        let z = tile / matrix_tiles;
        let a_base = dims.a_offset + z * dims.a_batch;
        let b_base = dims.b_offset + z * dims.b_batch;
        let row = ((tile % matrix_tiles) / column_tiles) * 8u;
        let column = (tile % column_tiles) * 32u + lane;
        var a0 = a_base + (min(row + 0u + lane, dims.m - 1u)) * dims.a_stride + 0u;
        var b0 = b_base + (min(column + 0u, dims.n - 1u)) * dims.b_stride + 0u;
        var b1 = b_base + (min(column + 8u, dims.n - 1u)) * dims.b_stride + 0u;
        var b2 = b_base + (min(column + 16u, dims.n - 1u)) * dims.b_stride + 0u;
        var b3 = b_base + (min(column + 24u, dims.n - 1u)) * dims.b_stride + 0u;
        var s0_0 = 0.0;
        var s0_1 = 0.0;
        var s0_2 = 0.0;
        var s0_3 = 0.0;
        var s1_0 = 0.0;
        var s1_1 = 0.0;
        var s1_2 = 0.0;
        var s1_3 = 0.0;
        var s2_0 = 0.0;
        var s2_1 = 0.0;
        var s2_2 = 0.0;
        var s2_3 = 0.0;
        var s3_0 = 0.0;
        var s3_1 = 0.0;
        var s3_2 = 0.0;
        var s3_3 = 0.0;
        var s4_0 = 0.0;
        var s4_1 = 0.0;
        var s4_2 = 0.0;
        var s4_3 = 0.0;
        var s5_0 = 0.0;
        var s5_1 = 0.0;
        var s5_2 = 0.0;
        var s5_3 = 0.0;
        var s6_0 = 0.0;
        var s6_1 = 0.0;
        var s6_2 = 0.0;
        var s6_3 = 0.0;
        var s7_0 = 0.0;
        var s7_1 = 0.0;
        var s7_2 = 0.0;
        var s7_3 = 0.0;
        let turns = dims.k / 4u;
        for (var turn = 0u; turn < turns; turn++) {
            let b0_0 = f32(b[b0]);
            let b0_1 = f32(b[b1]);
            let b0_2 = f32(b[b2]);
            let b0_3 = f32(b[b3]);
            let v0_0 = a[a0 / 4u + 0u];
            let a0_0 = f32(v0_0.x);
            let b1_0 = f32(b[b0 + 1u]);
            let b1_1 = f32(b[b1 + 1u]);
            let b1_2 = f32(b[b2 + 1u]);
            let b1_3 = f32(b[b3 + 1u]);
            let a1_0 = f32(v0_0.y);
            let b2_0 = f32(b[b0 + 2u]);
            let b2_1 = f32(b[b1 + 2u]);
            let b2_2 = f32(b[b2 + 2u]);
            let b2_3 = f32(b[b3 + 2u]);
            let a2_0 = f32(v0_0.z);
            let b3_0 = f32(b[b0 + 3u]);
            let b3_1 = f32(b[b1 + 3u]);
            let b3_2 = f32(b[b2 + 3u]);
            let b3_3 = f32(b[b3 + 3u]);
            let a3_0 = f32(v0_0.w);
            let r0_0 = subgroupBroadcast(a0_0, 0u);
            s0_0 = fma(r0_0, b0_0, s0_0);
            s0_1 = fma(r0_0, b0_1, s0_1);
            s0_2 = fma(r0_0, b0_2, s0_2);
            s0_3 = fma(r0_0, b0_3, s0_3);
            let r1_0 = subgroupBroadcast(a1_0, 0u);
            s0_0 = fma(r1_0, b1_0, s0_0);
            s0_1 = fma(r1_0, b1_1, s0_1);
            s0_2 = fma(r1_0, b1_2, s0_2);
            s0_3 = fma(r1_0, b1_3, s0_3);
            let r2_0 = subgroupBroadcast(a2_0, 0u);
            s0_0 = fma(r2_0, b2_0, s0_0);
            s0_1 = fma(r2_0, b2_1, s0_1);
            s0_2 = fma(r2_0, b2_2, s0_2);
            s0_3 = fma(r2_0, b2_3, s0_3);
            let r3_0 = subgroupBroadcast(a3_0, 0u);
            s0_0 = fma(r3_0, b3_0, s0_0);
            s0_1 = fma(r3_0, b3_1, s0_1);
            s0_2 = fma(r3_0, b3_2, s0_2);
            s0_3 = fma(r3_0, b3_3, s0_3);
            let r0_1 = subgroupBroadcast(a0_0, 1u);
            s1_0 = fma(r0_1, b0_0, s1_0);
            s1_1 = fma(r0_1, b0_1, s1_1);
            s1_2 = fma(r0_1, b0_2, s1_2);
            s1_3 = fma(r0_1, b0_3, s1_3);
            let r1_1 = subgroupBroadcast(a1_0, 1u);
            s1_0 = fma(r1_1, b1_0, s1_0);
            s1_1 = fma(r1_1, b1_1, s1_1);
            s1_2 = fma(r1_1, b1_2, s1_2);
            s1_3 = fma(r1_1, b1_3, s1_3);
            let r2_1 = subgroupBroadcast(a2_0, 1u);
            s1_0 = fma(r2_1, b2_0, s1_0);
            s1_1 = fma(r2_1, b2_1, s1_1);
            s1_2 = fma(r2_1, b2_2, s1_2);
            s1_3 = fma(r2_1, b2_3, s1_3);
            let r3_1 = subgroupBroadcast(a3_0, 1u);
            s1_0 = fma(r3_1, b3_0, s1_0);
            s1_1 = fma(r3_1, b3_1, s1_1);
            s1_2 = fma(r3_1, b3_2, s1_2);
            s1_3 = fma(r3_1, b3_3, s1_3);
            let r0_2 = subgroupBroadcast(a0_0, 2u);
            s2_0 = fma(r0_2, b0_0, s2_0);
            s2_1 = fma(r0_2, b0_1, s2_1);
            s2_2 = fma(r0_2, b0_2, s2_2);
            s2_3 = fma(r0_2, b0_3, s2_3);
            let r1_2 = subgroupBroadcast(a1_0, 2u);
            s2_0 = fma(r1_2, b1_0, s2_0);
            s2_1 = fma(r1_2, b1_1, s2_1);
            s2_2 = fma(r1_2, b1_2, s2_2);
            s2_3 = fma(r1_2, b1_3, s2_3);
            let r2_2 = subgroupBroadcast(a2_0, 2u);
            s2_0 = fma(r2_2, b2_0, s2_0);
            s2_1 = fma(r2_2, b2_1, s2_1);
            s2_2 = fma(r2_2, b2_2, s2_2);
            s2_3 = fma(r2_2, b2_3, s2_3);
            let r3_2 = subgroupBroadcast(a3_0, 2u);
            s2_0 = fma(r3_2, b3_0, s2_0);
            s2_1 = fma(r3_2, b3_1, s2_1);
            s2_2 = fma(r3_2, b3_2, s2_2);
            s2_3 = fma(r3_2, b3_3, s2_3);
            let r0_3 = subgroupBroadcast(a0_0, 3u);
            s3_0 = fma(r0_3, b0_0, s3_0);
            s3_1 = fma(r0_3, b0_1, s3_1);
            s3_2 = fma(r0_3, b0_2, s3_2);
            s3_3 = fma(r0_3, b0_3, s3_3);
            let r1_3 = subgroupBroadcast(a1_0, 3u);
            s3_0 = fma(r1_3, b1_0, s3_0);
            s3_1 = fma(r1_3, b1_1, s3_1);
            s3_2 = fma(r1_3, b1_2, s3_2);
            s3_3 = fma(r1_3, b1_3, s3_3);
            let r2_3 = subgroupBroadcast(a2_0, 3u);
            s3_0 = fma(r2_3, b2_0, s3_0);
            s3_1 = fma(r2_3, b2_1, s3_1);
            s3_2 = fma(r2_3, b2_2, s3_2);
            s3_3 = fma(r2_3, b2_3, s3_3);
            let r3_3 = subgroupBroadcast(a3_0, 3u);
            s3_0 = fma(r3_3, b3_0, s3_0);
            s3_1 = fma(r3_3, b3_1, s3_1);
            s3_2 = fma(r3_3, b3_2, s3_2);
            s3_3 = fma(r3_3, b3_3, s3_3);
            let r0_4 = subgroupBroadcast(a0_0, 4u);
            s4_0 = fma(r0_4, b0_0, s4_0);
            s4_1 = fma(r0_4, b0_1, s4_1);
            s4_2 = fma(r0_4, b0_2, s4_2);
            s4_3 = fma(r0_4, b0_3, s4_3);
            let r1_4 = subgroupBroadcast(a1_0, 4u);
            s4_0 = fma(r1_4, b1_0, s4_0);
            s4_1 = fma(r1_4, b1_1, s4_1);
            s4_2 = fma(r1_4, b1_2, s4_2);
            s4_3 = fma(r1_4, b1_3, s4_3);
            let r2_4 = subgroupBroadcast(a2_0, 4u);
            s4_0 = fma(r2_4, b2_0, s4_0);
            s4_1 = fma(r2_4, b2_1, s4_1);
            s4_2 = fma(r2_4, b2_2, s4_2);
            s4_3 = fma(r2_4, b2_3, s4_3);
            let r3_4 = subgroupBroadcast(a3_0, 4u);
            s4_0 = fma(r3_4, b3_0, s4_0);
            s4_1 = fma(r3_4, b3_1, s4_1);
            s4_2 = fma(r3_4, b3_2, s4_2);
            s4_3 = fma(r3_4, b3_3, s4_3);
            let r0_5 = subgroupBroadcast(a0_0, 5u);
            s5_0 = fma(r0_5, b0_0, s5_0);
            s5_1 = fma(r0_5, b0_1, s5_1);
            s5_2 = fma(r0_5, b0_2, s5_2);
            s5_3 = fma(r0_5, b0_3, s5_3);
            let r1_5 = subgroupBroadcast(a1_0, 5u);
            s5_0 = fma(r1_5, b1_0, s5_0);
            s5_1 = fma(r1_5, b1_1, s5_1);
            s5_2 = fma(r1_5, b1_2, s5_2);
            s5_3 = fma(r1_5, b1_3, s5_3);
            let r2_5 = subgroupBroadcast(a2_0, 5u);
            s5_0 = fma(r2_5, b2_0, s5_0);
            s5_1 = fma(r2_5, b2_1, s5_1);
            s5_2 = fma(r2_5, b2_2, s5_2);
            s5_3 = fma(r2_5, b2_3, s5_3);
            let r3_5 = subgroupBroadcast(a3_0, 5u);
            s5_0 = fma(r3_5, b3_0, s5_0);
            s5_1 = fma(r3_5, b3_1, s5_1);
            s5_2 = fma(r3_5, b3_2, s5_2);
            s5_3 = fma(r3_5, b3_3, s5_3);
            let r0_6 = subgroupBroadcast(a0_0, 6u);
            s6_0 = fma(r0_6, b0_0, s6_0);
            s6_1 = fma(r0_6, b0_1, s6_1);
            s6_2 = fma(r0_6, b0_2, s6_2);
            s6_3 = fma(r0_6, b0_3, s6_3);
            let r1_6 = subgroupBroadcast(a1_0, 6u);
            s6_0 = fma(r1_6, b1_0, s6_0);
            s6_1 = fma(r1_6, b1_1, s6_1);
            s6_2 = fma(r1_6, b1_2, s6_2);
            s6_3 = fma(r1_6, b1_3, s6_3);
            let r2_6 = subgroupBroadcast(a2_0, 6u);
            s6_0 = fma(r2_6, b2_0, s6_0);
            s6_1 = fma(r2_6, b2_1, s6_1);
            s6_2 = fma(r2_6, b2_2, s6_2);
            s6_3 = fma(r2_6, b2_3, s6_3);
            let r3_6 = subgroupBroadcast(a3_0, 6u);
            s6_0 = fma(r3_6, b3_0, s6_0);
            s6_1 = fma(r3_6, b3_1, s6_1);
            s6_2 = fma(r3_6, b3_2, s6_2);
            s6_3 = fma(r3_6, b3_3, s6_3);
            let r0_7 = subgroupBroadcast(a0_0, 7u);
            s7_0 = fma(r0_7, b0_0, s7_0);
            s7_1 = fma(r0_7, b0_1, s7_1);
            s7_2 = fma(r0_7, b0_2, s7_2);
            s7_3 = fma(r0_7, b0_3, s7_3);
            let r1_7 = subgroupBroadcast(a1_0, 7u);
            s7_0 = fma(r1_7, b1_0, s7_0);
            s7_1 = fma(r1_7, b1_1, s7_1);
            s7_2 = fma(r1_7, b1_2, s7_2);
            s7_3 = fma(r1_7, b1_3, s7_3);
            let r2_7 = subgroupBroadcast(a2_0, 7u);
            s7_0 = fma(r2_7, b2_0, s7_0);
            s7_1 = fma(r2_7, b2_1, s7_1);
            s7_2 = fma(r2_7, b2_2, s7_2);
            s7_3 = fma(r2_7, b2_3, s7_3);
            let r3_7 = subgroupBroadcast(a3_0, 7u);
            s7_0 = fma(r3_7, b3_0, s7_0);
            s7_1 = fma(r3_7, b3_1, s7_1);
            s7_2 = fma(r3_7, b3_2, s7_2);
            s7_3 = fma(r3_7, b3_3, s7_3);
            a0 += 4u;
            b0 += 4u;
            b1 += 4u;
            b2 += 4u;
            b3 += 4u;
        }
        for (var i = turns * 4u; i < dims.k; i++) {
            let b0_0 = f32(b[b0]);
            let b0_1 = f32(b[b1]);
            let b0_2 = f32(b[b2]);
            let b0_3 = f32(b[b3]);
            let a0_0 = f32(a[a0 / 4u][a0 % 4u]);
            let r0_0 = subgroupBroadcast(a0_0, 0u);
            s0_0 = fma(r0_0, b0_0, s0_0);
            s0_1 = fma(r0_0, b0_1, s0_1);
            s0_2 = fma(r0_0, b0_2, s0_2);
            s0_3 = fma(r0_0, b0_3, s0_3);
            let r0_1 = subgroupBroadcast(a0_0, 1u);
            s1_0 = fma(r0_1, b0_0, s1_0);
            s1_1 = fma(r0_1, b0_1, s1_1);
            s1_2 = fma(r0_1, b0_2, s1_2);
            s1_3 = fma(r0_1, b0_3, s1_3);
            let r0_2 = subgroupBroadcast(a0_0, 2u);
            s2_0 = fma(r0_2, b0_0, s2_0);
            s2_1 = fma(r0_2, b0_1, s2_1);
            s2_2 = fma(r0_2, b0_2, s2_2);
            s2_3 = fma(r0_2, b0_3, s2_3);
            let r0_3 = subgroupBroadcast(a0_0, 3u);
            s3_0 = fma(r0_3, b0_0, s3_0);
            s3_1 = fma(r0_3, b0_1, s3_1);
            s3_2 = fma(r0_3, b0_2, s3_2);
            s3_3 = fma(r0_3, b0_3, s3_3);
            let r0_4 = subgroupBroadcast(a0_0, 4u);
            s4_0 = fma(r0_4, b0_0, s4_0);
            s4_1 = fma(r0_4, b0_1, s4_1);
            s4_2 = fma(r0_4, b0_2, s4_2);
            s4_3 = fma(r0_4, b0_3, s4_3);
            let r0_5 = subgroupBroadcast(a0_0, 5u);
            s5_0 = fma(r0_5, b0_0, s5_0);
            s5_1 = fma(r0_5, b0_1, s5_1);
            s5_2 = fma(r0_5, b0_2, s5_2);
            s5_3 = fma(r0_5, b0_3, s5_3);
            let r0_6 = subgroupBroadcast(a0_0, 6u);
            s6_0 = fma(r0_6, b0_0, s6_0);
            s6_1 = fma(r0_6, b0_1, s6_1);
            s6_2 = fma(r0_6, b0_2, s6_2);
            s6_3 = fma(r0_6, b0_3, s6_3);
            let r0_7 = subgroupBroadcast(a0_0, 7u);
            s7_0 = fma(r0_7, b0_0, s7_0);
            s7_1 = fma(r0_7, b0_1, s7_1);
            s7_2 = fma(r0_7, b0_2, s7_2);
            s7_3 = fma(r0_7, b0_3, s7_3);
            a0 += 1u;
            b0 += 1u;
            b1 += 1u;
            b2 += 1u;
            b3 += 1u;
        }
        if (row + 0u < dims.m) {
            store(row + 0u, column + 0u, z * dims.c_batch, s0_0);
            store(row + 0u, column + 8u, z * dims.c_batch, s0_1);
            store(row + 0u, column + 16u, z * dims.c_batch, s0_2);
            store(row + 0u, column + 24u, z * dims.c_batch, s0_3);
            store(row + 1u, column + 0u, z * dims.c_batch, s1_0);
            store(row + 1u, column + 8u, z * dims.c_batch, s1_1);
            store(row + 1u, column + 16u, z * dims.c_batch, s1_2);
            store(row + 1u, column + 24u, z * dims.c_batch, s1_3);
            store(row + 2u, column + 0u, z * dims.c_batch, s2_0);
            store(row + 2u, column + 8u, z * dims.c_batch, s2_1);
            store(row + 2u, column + 16u, z * dims.c_batch, s2_2);
            store(row + 2u, column + 24u, z * dims.c_batch, s2_3);
            store(row + 3u, column + 0u, z * dims.c_batch, s3_0);
            store(row + 3u, column + 8u, z * dims.c_batch, s3_1);
            store(row + 3u, column + 16u, z * dims.c_batch, s3_2);
            store(row + 3u, column + 24u, z * dims.c_batch, s3_3);
        }
        if (row + 4u < dims.m) {
            store(row + 4u, column + 0u, z * dims.c_batch, s4_0);
            store(row + 4u, column + 8u, z * dims.c_batch, s4_1);
            store(row + 4u, column + 16u, z * dims.c_batch, s4_2);
            store(row + 4u, column + 24u, z * dims.c_batch, s4_3);
            store(row + 5u, column + 0u, z * dims.c_batch, s5_0);
            store(row + 5u, column + 8u, z * dims.c_batch, s5_1);
            store(row + 5u, column + 16u, z * dims.c_batch, s5_2);
            store(row + 5u, column + 24u, z * dims.c_batch, s5_3);
            store(row + 6u, column + 0u, z * dims.c_batch, s6_0);
            store(row + 6u, column + 8u, z * dims.c_batch, s6_1);
            store(row + 6u, column + 16u, z * dims.c_batch, s6_2);
            store(row + 6u, column + 24u, z * dims.c_batch, s6_3);
            store(row + 7u, column + 0u, z * dims.c_batch, s7_0);
            store(row + 7u, column + 8u, z * dims.c_batch, s7_1);
            store(row + 7u, column + 16u, z * dims.c_batch, s7_2);
            store(row + 7u, column + 24u, z * dims.c_batch, s7_3);
        }
    }
}
