enable f16;
enable wgpu_cooperative_matrix;
// Generated: matmul-nn-cooperative16-128x128x32-2x2-w32-hhh-vabc. C = op(A) op(B), NN.
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


var<workgroup> sh_a: array<vec4<f16>, 1280>;
var<workgroup> sh_b: array<vec4<f16>, 1088>;
var<workgroup> sh_c: array<vec4<f32>, 256>; // fragments of C

@compute @workgroup_size(128)
fn product(
@builtin(workgroup_id) group: vec3<u32>,
@builtin(num_workgroups) groups: vec3<u32>,
@builtin(local_invocation_index) lane: u32,
@builtin(subgroup_id) subgroup: u32,
@builtin(num_subgroups) subgroups: u32,
) {
    let column_tiles = (dims.n + 127u) / 128u;
    let part_tiles = column_tiles * ((dims.m + 127u) / 128u);
    let parts = (dims.k + dims.part - 1u) / dims.part;
    let tiles = part_tiles * parts * dims.batch;
    if (lane == 0u) {
        sh_c[0] = vec4<f32>(f32(subgroups));
    }
    // At least 1: a loop over passes that never ended would hang a device without a display for good.
    let present = max(u32(workgroupUniformLoad(&sh_c[0]).x), 1u);
    for (var tile = group.x; tile < tiles; tile += groups.x) {
        let z = tile / (part_tiles * parts);
        let part = (tile / part_tiles) % parts;
        let shift = z * dims.c_batch + part * dims.m * dims.n;
        let row0 = ((tile % part_tiles) / column_tiles) * 128u;
        let column0 = (tile % column_tiles) * 128u;
        let first = part * dims.part;
        let end = min(first + dims.part, dims.k);
        let whole = row0 + 128u <= dims.m && column0 + 128u <= dims.n;
        for (var pass_first = 0u; pass_first < 4u; pass_first += present) {
            let own = min(pass_first + subgroup, 3u);
            let sub_row = (own / 2u) * 64u;
            let sub_column = (own % 2u) * 64u;
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
            for (var y = z; y < z + dims.sum; y++) {
                let a_base = dims.a_offset + y * dims.a_batch;
                let b_base = dims.b_offset + y * dims.b_batch;
                for (var i0 = first; i0 < end; i0 += 32u) {
                    workgroupBarrier();
                    if (whole && i0 + 32u <= end) {
                        let a_tile = (a_base + row0 * dims.a_stride + i0) / 4u;
                        let a_pitch = dims.a_stride / 4u;
                        let b_tile = (b_base + i0 * dims.b_stride + column0) / 4u;
                        let b_pitch = dims.b_stride / 4u;
                        let next_a0 = a[a_tile + (lane / 8u) * a_pitch + lane % 8u];
                        let next_a1 = a[a_tile + (lane / 8u + 16u) * a_pitch + lane % 8u];
                        let next_a2 = a[a_tile + (lane / 8u + 32u) * a_pitch + lane % 8u];
                        let next_a3 = a[a_tile + (lane / 8u + 48u) * a_pitch + lane % 8u];
                        let next_a4 = a[a_tile + (lane / 8u + 64u) * a_pitch + lane % 8u];
                        let next_a5 = a[a_tile + (lane / 8u + 80u) * a_pitch + lane % 8u];
                        let next_a6 = a[a_tile + (lane / 8u + 96u) * a_pitch + lane % 8u];
                        let next_a7 = a[a_tile + (lane / 8u + 112u) * a_pitch + lane % 8u];
                        let next_b0 = b[b_tile + (lane / 32u) * b_pitch + lane % 32u];
                        let next_b1 = b[b_tile + (lane / 32u + 4u) * b_pitch + lane % 32u];
                        let next_b2 = b[b_tile + (lane / 32u + 8u) * b_pitch + lane % 32u];
                        let next_b3 = b[b_tile + (lane / 32u + 12u) * b_pitch + lane % 32u];
                        let next_b4 = b[b_tile + (lane / 32u + 16u) * b_pitch + lane % 32u];
                        let next_b5 = b[b_tile + (lane / 32u + 20u) * b_pitch + lane % 32u];
                        let next_b6 = b[b_tile + (lane / 32u + 24u) * b_pitch + lane % 32u];
                        let next_b7 = b[b_tile + (lane / 32u + 28u) * b_pitch + lane % 32u];
                        sh_a[(lane / 8u) * 10u + lane % 8u] = next_a0;
                        sh_a[(lane / 8u + 16u) * 10u + lane % 8u] = next_a1;
                        sh_a[(lane / 8u + 32u) * 10u + lane % 8u] = next_a2;
                        sh_a[(lane / 8u + 48u) * 10u + lane % 8u] = next_a3;
                        sh_a[(lane / 8u + 64u) * 10u + lane % 8u] = next_a4;
                        sh_a[(lane / 8u + 80u) * 10u + lane % 8u] = next_a5;
                        sh_a[(lane / 8u + 96u) * 10u + lane % 8u] = next_a6;
                        sh_a[(lane / 8u + 112u) * 10u + lane % 8u] = next_a7;
                        sh_b[(lane / 32u) * 34u + lane % 32u] = next_b0;
                        sh_b[(lane / 32u + 4u) * 34u + lane % 32u] = next_b1;
                        sh_b[(lane / 32u + 8u) * 34u + lane % 32u] = next_b2;
                        sh_b[(lane / 32u + 12u) * 34u + lane % 32u] = next_b3;
                        sh_b[(lane / 32u + 16u) * 34u + lane % 32u] = next_b4;
                        sh_b[(lane / 32u + 20u) * 34u + lane % 32u] = next_b5;
                        sh_b[(lane / 32u + 24u) * 34u + lane % 32u] = next_b6;
                        sh_b[(lane / 32u + 28u) * 34u + lane % 32u] = next_b7;
                    } else {
                        let next_a0 = a_quad(a_base, row0 + lane / 8u, i0 + lane % 8u * 4u, end);
                        let next_a1 = a_quad(a_base, row0 + lane / 8u + 16u, i0 + lane % 8u * 4u, end);
                        let next_a2 = a_quad(a_base, row0 + lane / 8u + 32u, i0 + lane % 8u * 4u, end);
                        let next_a3 = a_quad(a_base, row0 + lane / 8u + 48u, i0 + lane % 8u * 4u, end);
                        let next_a4 = a_quad(a_base, row0 + lane / 8u + 64u, i0 + lane % 8u * 4u, end);
                        let next_a5 = a_quad(a_base, row0 + lane / 8u + 80u, i0 + lane % 8u * 4u, end);
                        let next_a6 = a_quad(a_base, row0 + lane / 8u + 96u, i0 + lane % 8u * 4u, end);
                        let next_a7 = a_quad(a_base, row0 + lane / 8u + 112u, i0 + lane % 8u * 4u, end);
                        let next_b0 = b_quad(b_base, i0 + lane / 32u, column0 + lane % 32u * 4u, end);
                        let next_b1 = b_quad(b_base, i0 + lane / 32u + 4u, column0 + lane % 32u * 4u, end);
                        let next_b2 = b_quad(b_base, i0 + lane / 32u + 8u, column0 + lane % 32u * 4u, end);
                        let next_b3 = b_quad(b_base, i0 + lane / 32u + 12u, column0 + lane % 32u * 4u, end);
                        let next_b4 = b_quad(b_base, i0 + lane / 32u + 16u, column0 + lane % 32u * 4u, end);
                        let next_b5 = b_quad(b_base, i0 + lane / 32u + 20u, column0 + lane % 32u * 4u, end);
                        let next_b6 = b_quad(b_base, i0 + lane / 32u + 24u, column0 + lane % 32u * 4u, end);
                        let next_b7 = b_quad(b_base, i0 + lane / 32u + 28u, column0 + lane % 32u * 4u, end);
                        sh_a[(lane / 8u) * 10u + lane % 8u] = next_a0;
                        sh_a[(lane / 8u + 16u) * 10u + lane % 8u] = next_a1;
                        sh_a[(lane / 8u + 32u) * 10u + lane % 8u] = next_a2;
                        sh_a[(lane / 8u + 48u) * 10u + lane % 8u] = next_a3;
                        sh_a[(lane / 8u + 64u) * 10u + lane % 8u] = next_a4;
                        sh_a[(lane / 8u + 80u) * 10u + lane % 8u] = next_a5;
                        sh_a[(lane / 8u + 96u) * 10u + lane % 8u] = next_a6;
                        sh_a[(lane / 8u + 112u) * 10u + lane % 8u] = next_a7;
                        sh_b[(lane / 32u) * 34u + lane % 32u] = next_b0;
                        sh_b[(lane / 32u + 4u) * 34u + lane % 32u] = next_b1;
                        sh_b[(lane / 32u + 8u) * 34u + lane % 32u] = next_b2;
                        sh_b[(lane / 32u + 12u) * 34u + lane % 32u] = next_b3;
                        sh_b[(lane / 32u + 16u) * 34u + lane % 32u] = next_b4;
                        sh_b[(lane / 32u + 20u) * 34u + lane % 32u] = next_b5;
                        sh_b[(lane / 32u + 24u) * 34u + lane % 32u] = next_b6;
                        sh_b[(lane / 32u + 28u) * 34u + lane % 32u] = next_b7;
                    }
                    workgroupBarrier();
                    {
                        let b0 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[(0u) * 34u + (sub_column) / 4u], 34u);
                        let b1 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[(0u) * 34u + (sub_column + 16u) / 4u], 34u);
                        let b2 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[(0u) * 34u + (sub_column + 32u) / 4u], 34u);
                        let b3 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[(0u) * 34u + (sub_column + 48u) / 4u], 34u);
                        let a0 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row) * 10u + (0u) / 4u], 10u);
                        acc0_0 = coopMultiplyAdd(a0, b0, acc0_0);
                        acc0_1 = coopMultiplyAdd(a0, b1, acc0_1);
                        acc0_2 = coopMultiplyAdd(a0, b2, acc0_2);
                        acc0_3 = coopMultiplyAdd(a0, b3, acc0_3);
                        let a1 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 16u) * 10u + (0u) / 4u], 10u);
                        acc1_0 = coopMultiplyAdd(a1, b0, acc1_0);
                        acc1_1 = coopMultiplyAdd(a1, b1, acc1_1);
                        acc1_2 = coopMultiplyAdd(a1, b2, acc1_2);
                        acc1_3 = coopMultiplyAdd(a1, b3, acc1_3);
                        let a2 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 32u) * 10u + (0u) / 4u], 10u);
                        acc2_0 = coopMultiplyAdd(a2, b0, acc2_0);
                        acc2_1 = coopMultiplyAdd(a2, b1, acc2_1);
                        acc2_2 = coopMultiplyAdd(a2, b2, acc2_2);
                        acc2_3 = coopMultiplyAdd(a2, b3, acc2_3);
                        let a3 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 48u) * 10u + (0u) / 4u], 10u);
                        acc3_0 = coopMultiplyAdd(a3, b0, acc3_0);
                        acc3_1 = coopMultiplyAdd(a3, b1, acc3_1);
                        acc3_2 = coopMultiplyAdd(a3, b2, acc3_2);
                        acc3_3 = coopMultiplyAdd(a3, b3, acc3_3);
                    }
                    {
                        let b0 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[(16u) * 34u + (sub_column) / 4u], 34u);
                        let b1 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[(16u) * 34u + (sub_column + 16u) / 4u], 34u);
                        let b2 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[(16u) * 34u + (sub_column + 32u) / 4u], 34u);
                        let b3 = coopLoadT<coop_mat16x16<f16, B>>(&sh_b[(16u) * 34u + (sub_column + 48u) / 4u], 34u);
                        let a0 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row) * 10u + (16u) / 4u], 10u);
                        acc0_0 = coopMultiplyAdd(a0, b0, acc0_0);
                        acc0_1 = coopMultiplyAdd(a0, b1, acc0_1);
                        acc0_2 = coopMultiplyAdd(a0, b2, acc0_2);
                        acc0_3 = coopMultiplyAdd(a0, b3, acc0_3);
                        let a1 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 16u) * 10u + (16u) / 4u], 10u);
                        acc1_0 = coopMultiplyAdd(a1, b0, acc1_0);
                        acc1_1 = coopMultiplyAdd(a1, b1, acc1_1);
                        acc1_2 = coopMultiplyAdd(a1, b2, acc1_2);
                        acc1_3 = coopMultiplyAdd(a1, b3, acc1_3);
                        let a2 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 32u) * 10u + (16u) / 4u], 10u);
                        acc2_0 = coopMultiplyAdd(a2, b0, acc2_0);
                        acc2_1 = coopMultiplyAdd(a2, b1, acc2_1);
                        acc2_2 = coopMultiplyAdd(a2, b2, acc2_2);
                        acc2_3 = coopMultiplyAdd(a2, b3, acc2_3);
                        let a3 = coopLoadT<coop_mat16x16<f16, A>>(&sh_a[(sub_row + 48u) * 10u + (16u) / 4u], 10u);
                        acc3_0 = coopMultiplyAdd(a3, b0, acc3_0);
                        acc3_1 = coopMultiplyAdd(a3, b1, acc3_1);
                        acc3_2 = coopMultiplyAdd(a3, b2, acc3_2);
                        acc3_3 = coopMultiplyAdd(a3, b3, acc3_3);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc0_0, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc0_1, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 16u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 16u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc0_2, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 32u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 32u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc0_3, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 48u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 48u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc1_0, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 16u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 16u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc1_1, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 16u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 16u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 16u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 16u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc1_2, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 16u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 32u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 16u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 32u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc1_3, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 16u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 48u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 16u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 48u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc2_0, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 32u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 32u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc2_1, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 32u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 16u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 32u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 16u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc2_2, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 32u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 32u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 32u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 32u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc2_3, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 32u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 48u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 32u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 48u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc3_0, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 48u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 48u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc3_1, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 48u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 16u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 48u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 16u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc3_2, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 48u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 32u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 48u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 32u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
            {
                let at = own * 64u;
                let pitch = 4u;
                workgroupBarrier();
                coopStoreT(acc3_3, &sh_c[at], pitch);
                workgroupBarrier();
                {
                    let quad = lane;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 48u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 48u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
                {
                    let quad = lane + 128u;
                    let warp_tile = quad / 64u;
                    if (warp_tile - pass_first < present) {
                        let row = row0 + warp_tile / 2u * 64u + quad % 64u / 4u + 48u;
                        let column = column0 + warp_tile % 2u * 64u + quad % 4u * 4u + 48u;
                        store_quad(row, column, shift, sh_c[quad]);
                    }
                }
            }
        }
    }
}
