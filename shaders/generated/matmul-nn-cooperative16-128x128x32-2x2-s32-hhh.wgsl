enable f16;
enable wgpu_cooperative_matrix;
// Generated: matmul-nn-cooperative16-128x128x32-2x2-s32-hhh. C = op(A) op(B), NN.
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
@group(0) @binding(1) var<storage, read> a: array<f16>; // (m, k)
@group(0) @binding(2) var<storage, read> b: array<f16>; // (k, n)
@group(0) @binding(3) var<storage, read_write> c: array<f16>; // (m, n)

fn store(row: u32, column: u32, shift: u32, value: f32) {
    if (row < dims.m && column < dims.n) {
        let at = dims.c_offset + shift + row * dims.n + column;
        c[at] = f16(value + select(0.0, f32(c[at]), dims.accumulate == 1u));
    }
}

var<workgroup> sh_a: array<f16, 5120>;
var<workgroup> sh_b: array<f16, 4352>;
var<workgroup> sh_c: array<f32, 1024>; // one fragment a subgroup

@compute @workgroup_size(128)
fn product(
@builtin(workgroup_id) group: vec3<u32>,
@builtin(num_workgroups) groups: vec3<u32>,
@builtin(local_invocation_index) lane: u32,
@builtin(subgroup_id) subgroup: u32,
@builtin(subgroup_invocation_id) inner: u32,
) {
    let column_tiles = (dims.n + 127u) / 128u;
    let part_tiles = column_tiles * ((dims.m + 127u) / 128u);
    let parts = (dims.k + dims.part - 1u) / dims.part;
    let tiles = part_tiles * parts * dims.batch;
    let sub_row = (subgroup / 2u) * 64u;
    let sub_column = (subgroup % 2u) * 64u;
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
        var acc0_0 = coop_mat16x16<f32, C>();
        var acc0_1 = coop_mat16x16<f32, C>();
        var acc0_2 = coop_mat16x16<f32, C>();
        var acc0_3 = coop_mat16x16<f32, C>();
        var acc1_0 = coop_mat16x16<f32, C>();
        var acc1_1 = coop_mat16x16<f32, C>();
        var acc1_2 = coop_mat16x16<f32, C>();
        var acc1_3 = coop_mat16x16<f32, C>();
        var acc2_0 = coop_mat16x16<f32, C>();
        var acc2_1 = coop_mat16x16<f32, C>();
        var acc2_2 = coop_mat16x16<f32, C>();
        var acc2_3 = coop_mat16x16<f32, C>();
        var acc3_0 = coop_mat16x16<f32, C>();
        var acc3_1 = coop_mat16x16<f32, C>();
        var acc3_2 = coop_mat16x16<f32, C>();
        var acc3_3 = coop_mat16x16<f32, C>();
        for (var i0 = first; i0 < end; i0 += 32u) {
            workgroupBarrier();
            for (var e = lane; e < 4096u; e += 128u) {
                let y = row0 + e / 32u;
                let x = i0 + e % 32u;
                let inside = y < dims.m && x < end;
                let value = a[a_base + select(0u, y * dims.a_stride + x, inside)];
                sh_a[(e / 32u) * 40u + e % 32u] = select(f16(0.0), value, inside);
            }
            for (var e = lane; e < 4096u; e += 128u) {
                let y = i0 + e / 128u;
                let x = column0 + e % 128u;
                let inside = y < end && x < dims.n;
                let value = b[b_base + select(0u, y * dims.b_stride + x, inside)];
                sh_b[(e / 128u) * 136u + e % 128u] = select(f16(0.0), value, inside);
            }
            workgroupBarrier();
            {
                let a0 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 0u) * 40u + 0u], 40u);
                let a1 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 16u) * 40u + 0u], 40u);
                let a2 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 32u) * 40u + 0u], 40u);
                let a3 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 48u) * 40u + 0u], 40u);
                let b0 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[0u + sub_column + 0u], 136u);
                let b1 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[0u + sub_column + 16u], 136u);
                let b2 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[0u + sub_column + 32u], 136u);
                let b3 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[0u + sub_column + 48u], 136u);
                acc0_0 = coopMultiplyAdd(a0, b0, acc0_0);
                acc0_1 = coopMultiplyAdd(a0, b1, acc0_1);
                acc0_2 = coopMultiplyAdd(a0, b2, acc0_2);
                acc0_3 = coopMultiplyAdd(a0, b3, acc0_3);
                acc1_0 = coopMultiplyAdd(a1, b0, acc1_0);
                acc1_1 = coopMultiplyAdd(a1, b1, acc1_1);
                acc1_2 = coopMultiplyAdd(a1, b2, acc1_2);
                acc1_3 = coopMultiplyAdd(a1, b3, acc1_3);
                acc2_0 = coopMultiplyAdd(a2, b0, acc2_0);
                acc2_1 = coopMultiplyAdd(a2, b1, acc2_1);
                acc2_2 = coopMultiplyAdd(a2, b2, acc2_2);
                acc2_3 = coopMultiplyAdd(a2, b3, acc2_3);
                acc3_0 = coopMultiplyAdd(a3, b0, acc3_0);
                acc3_1 = coopMultiplyAdd(a3, b1, acc3_1);
                acc3_2 = coopMultiplyAdd(a3, b2, acc3_2);
                acc3_3 = coopMultiplyAdd(a3, b3, acc3_3);
            }
            {
                let a0 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 0u) * 40u + 16u], 40u);
                let a1 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 16u) * 40u + 16u], 40u);
                let a2 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 32u) * 40u + 16u], 40u);
                let a3 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 48u) * 40u + 16u], 40u);
                let b0 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[2176u + sub_column + 0u], 136u);
                let b1 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[2176u + sub_column + 16u], 136u);
                let b2 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[2176u + sub_column + 32u], 136u);
                let b3 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[2176u + sub_column + 48u], 136u);
                acc0_0 = coopMultiplyAdd(a0, b0, acc0_0);
                acc0_1 = coopMultiplyAdd(a0, b1, acc0_1);
                acc0_2 = coopMultiplyAdd(a0, b2, acc0_2);
                acc0_3 = coopMultiplyAdd(a0, b3, acc0_3);
                acc1_0 = coopMultiplyAdd(a1, b0, acc1_0);
                acc1_1 = coopMultiplyAdd(a1, b1, acc1_1);
                acc1_2 = coopMultiplyAdd(a1, b2, acc1_2);
                acc1_3 = coopMultiplyAdd(a1, b3, acc1_3);
                acc2_0 = coopMultiplyAdd(a2, b0, acc2_0);
                acc2_1 = coopMultiplyAdd(a2, b1, acc2_1);
                acc2_2 = coopMultiplyAdd(a2, b2, acc2_2);
                acc2_3 = coopMultiplyAdd(a2, b3, acc2_3);
                acc3_0 = coopMultiplyAdd(a3, b0, acc3_0);
                acc3_1 = coopMultiplyAdd(a3, b1, acc3_1);
                acc3_2 = coopMultiplyAdd(a3, b2, acc3_2);
                acc3_3 = coopMultiplyAdd(a3, b3, acc3_3);
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc0_0, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 0u + e / 16u,
                column0 + sub_column + 0u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc0_1, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 0u + e / 16u,
                column0 + sub_column + 16u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc0_2, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 0u + e / 16u,
                column0 + sub_column + 32u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc0_3, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 0u + e / 16u,
                column0 + sub_column + 48u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc1_0, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 16u + e / 16u,
                column0 + sub_column + 0u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc1_1, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 16u + e / 16u,
                column0 + sub_column + 16u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc1_2, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 16u + e / 16u,
                column0 + sub_column + 32u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc1_3, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 16u + e / 16u,
                column0 + sub_column + 48u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc2_0, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 32u + e / 16u,
                column0 + sub_column + 0u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc2_1, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 32u + e / 16u,
                column0 + sub_column + 16u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc2_2, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 32u + e / 16u,
                column0 + sub_column + 32u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc2_3, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 32u + e / 16u,
                column0 + sub_column + 48u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc3_0, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 48u + e / 16u,
                column0 + sub_column + 0u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc3_1, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 48u + e / 16u,
                column0 + sub_column + 16u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc3_2, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 48u + e / 16u,
                column0 + sub_column + 32u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
        {
            let at = subgroup * 256u;
            let stride = 16u;
            workgroupBarrier();
            coopStoreT(acc3_3, &sh_c[at], stride);
            workgroupBarrier();
            for (var e = inner; e < 256u; e += 32u) {
                store(
                row0 + sub_row + 48u + e / 16u,
                column0 + sub_column + 48u + e % 16u,
                shift,
                sh_c[at + e],
                );
            }
        }
    }
}
