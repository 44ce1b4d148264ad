enable f16;
enable wgpu_cooperative_matrix;
// Generated: attention-backward_keys_values-cooperative16-64-s32-d64-rotary16-f16. Causal attention: dk_j = sum_i ds_ij q_i, dv_j = sum_i p_ij do_i.
// Mapping: one workgroup per (batch, head, tile of 64 rows); a subgroup to 16 of them, 2 lane(s) to a row.
// Order of summation: ascending, independent of tile and grid; hidden pairs add exact zeros.
// Writes: overwrite.
// Limits: query i of a run stands at position run.position + i (0 + i backward), keys at 0, 1, ...
struct Dims {
    batch: u32,
    heads: u32,
    q_rows: u32,
    kv_rows: u32, // rows per sequence of k and v: q_rows, or the capacity of a cache
}

struct Run { position: u32 }

const HIDDEN = -1.0e30; // the score of a key that must not be seen
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> q: array<vec4<f16>>; // (batch * q_rows, heads * D)
@group(0) @binding(2) var<storage, read> k: array<vec4<f16>>; // (batch * kv_rows, heads * D)
@group(0) @binding(3) var<storage, read> v: array<vec4<f16>>; // (batch * kv_rows, heads * D)
@group(0) @binding(4) var<storage, read> dout: array<vec4<f16>>; // (batch * q_rows, heads * D)
@group(0) @binding(5) var<storage, read> stat: array<vec2<f32>>; // (batch * heads, q_rows): log2 of the sum of a row, <do, o>
@group(0) @binding(6) var<storage, read> rope: array<vec4<f32>>; // (positions, rotary width): cosines, then sines
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f16>>; // (batch * q_rows, heads * D)
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<f16>>; // (batch * q_rows, heads * D)
var<workgroup> sh_x: array<vec4<f16>, 1152>;
var<workgroup> sh_y: array<vec4<f16>, 1152>;
var<workgroup> sh_scores: array<vec4<f32>, 1088>;
var<workgroup> sh_weights: array<vec4<f16>, 1152>;
var<workgroup> sh_stat: array<vec2<f32>, 64>;
fn put_x(i: u32, value: vec4<f16>) { sh_x[i] = value; }
fn put_y(i: u32, value: vec4<f16>) { sh_y[i] = value; }
fn put_weights(i: u32, value: vec4<f16>) { sh_weights[i] = value; }
fn staged_x(i: u32) -> vec4<f16> { return sh_x[i]; }
fn scores(i: u32) -> vec4<f32> { return sh_scores[i]; }

@compute @workgroup_size(128)
fn backward_keys_values(
@builtin(workgroup_id) group: vec3<u32>,
@builtin(num_workgroups) groups: vec3<u32>,
@builtin(local_invocation_index) lane: u32,
@builtin(subgroup_id) subgroup: u32,
@builtin(subgroup_invocation_id) inner: u32,
) {
    let part = inner % 2u;
    let strip = subgroup * 16u;
    let own = strip + inner / 2u;
    let tiles = (dims.q_rows + 63u) / 64u;
    let pitch = dims.heads * 16u; // vectors from row to row
    for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {
        let first = (item % tiles) * 64u;
        let batch = item / tiles / dims.heads;
        let column = (item / tiles) % dims.heads * 16u;
        let head_rows = item / tiles * dims.q_rows; // in stat
        let row = first + own;
        let own_row = min(row, dims.q_rows - 1u);
        let own_base = batch * dims.q_rows;
        let at = (own_base + own_row) * pitch + column;
        let base = batch * dims.q_rows;
        workgroupBarrier();
        for (var e = lane; e < 1024u; e += 128u) {
            let r = e / 16u;
            let there = min(first + r, dims.q_rows - 1u);
            let start = (own_base + there) * pitch + column;
            let to = r * 18u + e % 16u;
            put_x(to, k[start + 0u + e % 16u]);
            put_y(to, v[start + 0u + e % 16u]);
        }
        workgroupBarrier();
        for (var e = lane; e < 128u; e += 128u) {
            let r = e / 2u;
            let entry = (0u + min(first + r, dims.q_rows - 1u)) * 4u + e % 2u;
            let cosine = rope[entry];
            let sine = rope[entry + 2u];
            let at = r * 18u + e % 2u;
            let x = vec4<f32>(staged_x(at));
            let y = vec4<f32>(staged_x(at + 2u));
            put_x(at, vec4<f16>(fma(x, cosine, -(y * sine))));
            put_x(at + 2u, vec4<f16>(fma(y, cosine, x * sine)));
        }
        workgroupBarrier();
        let x0 = coopLoadT<coop_mat16x16<f16, A>>(&sh_x[strip * 18u + 0u], 18u);
        let y0 = coopLoadT<coop_mat16x16<f16, A>>(&sh_y[strip * 18u + 0u], 18u);
        let x1 = coopLoadT<coop_mat16x16<f16, A>>(&sh_x[strip * 18u + 4u], 18u);
        let y1 = coopLoadT<coop_mat16x16<f16, A>>(&sh_y[strip * 18u + 4u], 18u);
        let x2 = coopLoadT<coop_mat16x16<f16, A>>(&sh_x[strip * 18u + 8u], 18u);
        let y2 = coopLoadT<coop_mat16x16<f16, A>>(&sh_y[strip * 18u + 8u], 18u);
        let x3 = coopLoadT<coop_mat16x16<f16, A>>(&sh_x[strip * 18u + 12u], 18u);
        let y3 = coopLoadT<coop_mat16x16<f16, A>>(&sh_y[strip * 18u + 12u], 18u);
        var a0 = coop_mat16x16<f32, C>();
        var c0 = coop_mat16x16<f32, C>();
        var a1 = coop_mat16x16<f32, C>();
        var c1 = coop_mat16x16<f32, C>();
        var a2 = coop_mat16x16<f32, C>();
        var c2 = coop_mat16x16<f32, C>();
        var a3 = coop_mat16x16<f32, C>();
        var c3 = coop_mat16x16<f32, C>();
        let me = own_row;
        // Queries before this tile of keys do not see it.
        let far_first = first;
        let far_end = dims.q_rows;
        for (var block = far_first; block < far_end; block += 64u) {
            workgroupBarrier();
            for (var e = lane; e < 1024u; e += 128u) {
                let vector = e % 16u;
                let there = block + e / 16u;
                // Zeros past the end: what a cache holds there is not read.
                let far = min(there, far_end - 1u);
                let start = (base + far) * pitch + column;
                let to = e / 16u * 18u + vector;
                put_x(to, select(vec4<f16>(), q[start + vector], there < far_end));
                put_y(to, select(vec4<f16>(), dout[start + vector], there < far_end));
            }
            workgroupBarrier();
            for (var e = lane; e < 128u; e += 128u) {
                let r = e / 2u;
                let entry = (min(block + r, far_end - 1u)) * 4u + e % 2u;
                let cosine = rope[entry];
                let sine = rope[entry + 2u];
                let at = r * 18u + e % 2u;
                let x = vec4<f32>(staged_x(at));
                let y = vec4<f32>(staged_x(at + 2u));
                put_x(at, vec4<f16>(fma(x, cosine, -(y * sine))));
                put_x(at + 2u, vec4<f16>(fma(y, cosine, x * sine)));
            }
            for (var e = lane; e < 64u; e += 128u) {
                let there = block + e;
                let known = stat[head_rows + min(there, far_end - 1u)];
                sh_stat[e] = select(vec2<f32>(), known, there < far_end);
            }
            workgroupBarrier();
            {
                var z = coop_mat16x16<f32, C>();
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 0u], 18u);
                    z = coopMultiplyAdd(x0, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 4u], 18u);
                    z = coopMultiplyAdd(x1, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 8u], 18u);
                    z = coopMultiplyAdd(x2, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 12u], 18u);
                    z = coopMultiplyAdd(x3, b, z);
                }
                let to = strip * 17u + 0u;
                let stride = 17u;
                coopStoreT(z, &sh_scores[to], stride);
            }
            {
                var z = coop_mat16x16<f32, C>();
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 288u], 18u);
                    z = coopMultiplyAdd(x0, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 292u], 18u);
                    z = coopMultiplyAdd(x1, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 296u], 18u);
                    z = coopMultiplyAdd(x2, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 300u], 18u);
                    z = coopMultiplyAdd(x3, b, z);
                }
                let to = strip * 17u + 4u;
                let stride = 17u;
                coopStoreT(z, &sh_scores[to], stride);
            }
            {
                var z = coop_mat16x16<f32, C>();
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 576u], 18u);
                    z = coopMultiplyAdd(x0, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 580u], 18u);
                    z = coopMultiplyAdd(x1, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 584u], 18u);
                    z = coopMultiplyAdd(x2, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 588u], 18u);
                    z = coopMultiplyAdd(x3, b, z);
                }
                let to = strip * 17u + 8u;
                let stride = 17u;
                coopStoreT(z, &sh_scores[to], stride);
            }
            {
                var z = coop_mat16x16<f32, C>();
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 864u], 18u);
                    z = coopMultiplyAdd(x0, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 868u], 18u);
                    z = coopMultiplyAdd(x1, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 872u], 18u);
                    z = coopMultiplyAdd(x2, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_x[0u + 876u], 18u);
                    z = coopMultiplyAdd(x3, b, z);
                }
                let to = strip * 17u + 12u;
                let stride = 17u;
                coopStoreT(z, &sh_scores[to], stride);
            }
            subgroupBarrier();
            let p0 = select(vec4<f32>(), exp2(min(scores(own * 17u + part * 8u + 0u) * 0.18033688 - vec4<f32>(sh_stat[part * 32u + 0u + 0u].x, sh_stat[part * 32u + 0u + 1u].x, sh_stat[part * 32u + 0u + 2u].x, sh_stat[part * 32u + 0u + 3u].x), vec4<f32>())), (vec4<u32>(block + part * 32u + 0u) + vec4<u32>(0u, 1u, 2u, 3u)) >= vec4<u32>(me));
            put_weights(own * 18u + part * 8u + 0u, vec4<f16>(p0));
            let p1 = select(vec4<f32>(), exp2(min(scores(own * 17u + part * 8u + 1u) * 0.18033688 - vec4<f32>(sh_stat[part * 32u + 4u + 0u].x, sh_stat[part * 32u + 4u + 1u].x, sh_stat[part * 32u + 4u + 2u].x, sh_stat[part * 32u + 4u + 3u].x), vec4<f32>())), (vec4<u32>(block + part * 32u + 4u) + vec4<u32>(0u, 1u, 2u, 3u)) >= vec4<u32>(me));
            put_weights(own * 18u + part * 8u + 1u, vec4<f16>(p1));
            let p2 = select(vec4<f32>(), exp2(min(scores(own * 17u + part * 8u + 2u) * 0.18033688 - vec4<f32>(sh_stat[part * 32u + 8u + 0u].x, sh_stat[part * 32u + 8u + 1u].x, sh_stat[part * 32u + 8u + 2u].x, sh_stat[part * 32u + 8u + 3u].x), vec4<f32>())), (vec4<u32>(block + part * 32u + 8u) + vec4<u32>(0u, 1u, 2u, 3u)) >= vec4<u32>(me));
            put_weights(own * 18u + part * 8u + 2u, vec4<f16>(p2));
            let p3 = select(vec4<f32>(), exp2(min(scores(own * 17u + part * 8u + 3u) * 0.18033688 - vec4<f32>(sh_stat[part * 32u + 12u + 0u].x, sh_stat[part * 32u + 12u + 1u].x, sh_stat[part * 32u + 12u + 2u].x, sh_stat[part * 32u + 12u + 3u].x), vec4<f32>())), (vec4<u32>(block + part * 32u + 12u) + vec4<u32>(0u, 1u, 2u, 3u)) >= vec4<u32>(me));
            put_weights(own * 18u + part * 8u + 3u, vec4<f16>(p3));
            let p4 = select(vec4<f32>(), exp2(min(scores(own * 17u + part * 8u + 4u) * 0.18033688 - vec4<f32>(sh_stat[part * 32u + 16u + 0u].x, sh_stat[part * 32u + 16u + 1u].x, sh_stat[part * 32u + 16u + 2u].x, sh_stat[part * 32u + 16u + 3u].x), vec4<f32>())), (vec4<u32>(block + part * 32u + 16u) + vec4<u32>(0u, 1u, 2u, 3u)) >= vec4<u32>(me));
            put_weights(own * 18u + part * 8u + 4u, vec4<f16>(p4));
            let p5 = select(vec4<f32>(), exp2(min(scores(own * 17u + part * 8u + 5u) * 0.18033688 - vec4<f32>(sh_stat[part * 32u + 20u + 0u].x, sh_stat[part * 32u + 20u + 1u].x, sh_stat[part * 32u + 20u + 2u].x, sh_stat[part * 32u + 20u + 3u].x), vec4<f32>())), (vec4<u32>(block + part * 32u + 20u) + vec4<u32>(0u, 1u, 2u, 3u)) >= vec4<u32>(me));
            put_weights(own * 18u + part * 8u + 5u, vec4<f16>(p5));
            let p6 = select(vec4<f32>(), exp2(min(scores(own * 17u + part * 8u + 6u) * 0.18033688 - vec4<f32>(sh_stat[part * 32u + 24u + 0u].x, sh_stat[part * 32u + 24u + 1u].x, sh_stat[part * 32u + 24u + 2u].x, sh_stat[part * 32u + 24u + 3u].x), vec4<f32>())), (vec4<u32>(block + part * 32u + 24u) + vec4<u32>(0u, 1u, 2u, 3u)) >= vec4<u32>(me));
            put_weights(own * 18u + part * 8u + 6u, vec4<f16>(p6));
            let p7 = select(vec4<f32>(), exp2(min(scores(own * 17u + part * 8u + 7u) * 0.18033688 - vec4<f32>(sh_stat[part * 32u + 28u + 0u].x, sh_stat[part * 32u + 28u + 1u].x, sh_stat[part * 32u + 28u + 2u].x, sh_stat[part * 32u + 28u + 3u].x), vec4<f32>())), (vec4<u32>(block + part * 32u + 28u) + vec4<u32>(0u, 1u, 2u, 3u)) >= vec4<u32>(me));
            put_weights(own * 18u + part * 8u + 7u, vec4<f16>(p7));
            subgroupBarrier();
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 0u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 0u], 18u);
                    c0 = coopMultiplyAdd(f, b, c0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 4u], 18u);
                    c1 = coopMultiplyAdd(f, b, c1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 8u], 18u);
                    c2 = coopMultiplyAdd(f, b, c2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 12u], 18u);
                    c3 = coopMultiplyAdd(f, b, c3);
                }
            }
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 4u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 288u], 18u);
                    c0 = coopMultiplyAdd(f, b, c0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 292u], 18u);
                    c1 = coopMultiplyAdd(f, b, c1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 296u], 18u);
                    c2 = coopMultiplyAdd(f, b, c2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 300u], 18u);
                    c3 = coopMultiplyAdd(f, b, c3);
                }
            }
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 8u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 576u], 18u);
                    c0 = coopMultiplyAdd(f, b, c0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 580u], 18u);
                    c1 = coopMultiplyAdd(f, b, c1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 584u], 18u);
                    c2 = coopMultiplyAdd(f, b, c2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 588u], 18u);
                    c3 = coopMultiplyAdd(f, b, c3);
                }
            }
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 12u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 864u], 18u);
                    c0 = coopMultiplyAdd(f, b, c0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 868u], 18u);
                    c1 = coopMultiplyAdd(f, b, c1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 872u], 18u);
                    c2 = coopMultiplyAdd(f, b, c2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 876u], 18u);
                    c3 = coopMultiplyAdd(f, b, c3);
                }
            }
            {
                var z = coop_mat16x16<f32, C>();
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 0u], 18u);
                    z = coopMultiplyAdd(y0, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 4u], 18u);
                    z = coopMultiplyAdd(y1, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 8u], 18u);
                    z = coopMultiplyAdd(y2, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 12u], 18u);
                    z = coopMultiplyAdd(y3, b, z);
                }
                let to = strip * 17u + 0u;
                let stride = 17u;
                coopStoreT(z, &sh_scores[to], stride);
            }
            {
                var z = coop_mat16x16<f32, C>();
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 288u], 18u);
                    z = coopMultiplyAdd(y0, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 292u], 18u);
                    z = coopMultiplyAdd(y1, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 296u], 18u);
                    z = coopMultiplyAdd(y2, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 300u], 18u);
                    z = coopMultiplyAdd(y3, b, z);
                }
                let to = strip * 17u + 4u;
                let stride = 17u;
                coopStoreT(z, &sh_scores[to], stride);
            }
            {
                var z = coop_mat16x16<f32, C>();
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 576u], 18u);
                    z = coopMultiplyAdd(y0, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 580u], 18u);
                    z = coopMultiplyAdd(y1, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 584u], 18u);
                    z = coopMultiplyAdd(y2, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 588u], 18u);
                    z = coopMultiplyAdd(y3, b, z);
                }
                let to = strip * 17u + 8u;
                let stride = 17u;
                coopStoreT(z, &sh_scores[to], stride);
            }
            {
                var z = coop_mat16x16<f32, C>();
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 864u], 18u);
                    z = coopMultiplyAdd(y0, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 868u], 18u);
                    z = coopMultiplyAdd(y1, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 872u], 18u);
                    z = coopMultiplyAdd(y2, b, z);
                }
                {
                    let b = coopLoad<coop_mat16x16<f16, B>>(&sh_y[0u + 876u], 18u);
                    z = coopMultiplyAdd(y3, b, z);
                }
                let to = strip * 17u + 12u;
                let stride = 17u;
                coopStoreT(z, &sh_scores[to], stride);
            }
            subgroupBarrier();
            put_weights(own * 18u + part * 8u + 0u, vec4<f16>(p0 * (scores(own * 17u + part * 8u + 0u) - vec4<f32>(sh_stat[part * 32u + 0u + 0u].y, sh_stat[part * 32u + 0u + 1u].y, sh_stat[part * 32u + 0u + 2u].y, sh_stat[part * 32u + 0u + 3u].y)) * 0.125));
            put_weights(own * 18u + part * 8u + 1u, vec4<f16>(p1 * (scores(own * 17u + part * 8u + 1u) - vec4<f32>(sh_stat[part * 32u + 4u + 0u].y, sh_stat[part * 32u + 4u + 1u].y, sh_stat[part * 32u + 4u + 2u].y, sh_stat[part * 32u + 4u + 3u].y)) * 0.125));
            put_weights(own * 18u + part * 8u + 2u, vec4<f16>(p2 * (scores(own * 17u + part * 8u + 2u) - vec4<f32>(sh_stat[part * 32u + 8u + 0u].y, sh_stat[part * 32u + 8u + 1u].y, sh_stat[part * 32u + 8u + 2u].y, sh_stat[part * 32u + 8u + 3u].y)) * 0.125));
            put_weights(own * 18u + part * 8u + 3u, vec4<f16>(p3 * (scores(own * 17u + part * 8u + 3u) - vec4<f32>(sh_stat[part * 32u + 12u + 0u].y, sh_stat[part * 32u + 12u + 1u].y, sh_stat[part * 32u + 12u + 2u].y, sh_stat[part * 32u + 12u + 3u].y)) * 0.125));
            put_weights(own * 18u + part * 8u + 4u, vec4<f16>(p4 * (scores(own * 17u + part * 8u + 4u) - vec4<f32>(sh_stat[part * 32u + 16u + 0u].y, sh_stat[part * 32u + 16u + 1u].y, sh_stat[part * 32u + 16u + 2u].y, sh_stat[part * 32u + 16u + 3u].y)) * 0.125));
            put_weights(own * 18u + part * 8u + 5u, vec4<f16>(p5 * (scores(own * 17u + part * 8u + 5u) - vec4<f32>(sh_stat[part * 32u + 20u + 0u].y, sh_stat[part * 32u + 20u + 1u].y, sh_stat[part * 32u + 20u + 2u].y, sh_stat[part * 32u + 20u + 3u].y)) * 0.125));
            put_weights(own * 18u + part * 8u + 6u, vec4<f16>(p6 * (scores(own * 17u + part * 8u + 6u) - vec4<f32>(sh_stat[part * 32u + 24u + 0u].y, sh_stat[part * 32u + 24u + 1u].y, sh_stat[part * 32u + 24u + 2u].y, sh_stat[part * 32u + 24u + 3u].y)) * 0.125));
            put_weights(own * 18u + part * 8u + 7u, vec4<f16>(p7 * (scores(own * 17u + part * 8u + 7u) - vec4<f32>(sh_stat[part * 32u + 28u + 0u].y, sh_stat[part * 32u + 28u + 1u].y, sh_stat[part * 32u + 28u + 2u].y, sh_stat[part * 32u + 28u + 3u].y)) * 0.125));
            subgroupBarrier();
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 0u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 0u], 18u);
                    a0 = coopMultiplyAdd(f, b, a0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 4u], 18u);
                    a1 = coopMultiplyAdd(f, b, a1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 8u], 18u);
                    a2 = coopMultiplyAdd(f, b, a2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 12u], 18u);
                    a3 = coopMultiplyAdd(f, b, a3);
                }
            }
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 4u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 288u], 18u);
                    a0 = coopMultiplyAdd(f, b, a0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 292u], 18u);
                    a1 = coopMultiplyAdd(f, b, a1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 296u], 18u);
                    a2 = coopMultiplyAdd(f, b, a2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 300u], 18u);
                    a3 = coopMultiplyAdd(f, b, a3);
                }
            }
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 8u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 576u], 18u);
                    a0 = coopMultiplyAdd(f, b, a0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 580u], 18u);
                    a1 = coopMultiplyAdd(f, b, a1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 584u], 18u);
                    a2 = coopMultiplyAdd(f, b, a2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 588u], 18u);
                    a3 = coopMultiplyAdd(f, b, a3);
                }
            }
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 12u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 864u], 18u);
                    a0 = coopMultiplyAdd(f, b, a0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 868u], 18u);
                    a1 = coopMultiplyAdd(f, b, a1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 872u], 18u);
                    a2 = coopMultiplyAdd(f, b, a2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_x[0u + 876u], 18u);
                    a3 = coopMultiplyAdd(f, b, a3);
                }
            }
        }
        subgroupBarrier();
        {
            let to = strip * 17u + 0u;
            let stride = 17u;
            coopStoreT(a0, &sh_scores[to], stride);
        }
        {
            let to = strip * 17u + 4u;
            let stride = 17u;
            coopStoreT(a1, &sh_scores[to], stride);
        }
        {
            let to = strip * 17u + 8u;
            let stride = 17u;
            coopStoreT(a2, &sh_scores[to], stride);
        }
        {
            let to = strip * 17u + 12u;
            let stride = 17u;
            coopStoreT(a3, &sh_scores[to], stride);
        }
        subgroupBarrier();
        if (row < dims.q_rows) {
            {
                let vector = 0u + part * 8u + 0u;
                var x = scores(own * 17u + part * 8u + 0u);
                if (vector < 4u) {
                    let first_half = vector < 2u;
                    let other = scores(own * 17u + select(vector - 2u, vector + 2u, first_half));
                    let entry = own_row * 4u + select(vector - 2u, vector, first_half);
                    let by_sine = other * rope[entry + 2u];
                    x = fma(x, rope[entry], select(-by_sine, by_sine, first_half));
                }
                dk[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 1u;
                var x = scores(own * 17u + part * 8u + 1u);
                if (vector < 4u) {
                    let first_half = vector < 2u;
                    let other = scores(own * 17u + select(vector - 2u, vector + 2u, first_half));
                    let entry = own_row * 4u + select(vector - 2u, vector, first_half);
                    let by_sine = other * rope[entry + 2u];
                    x = fma(x, rope[entry], select(-by_sine, by_sine, first_half));
                }
                dk[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 2u;
                var x = scores(own * 17u + part * 8u + 2u);
                if (vector < 4u) {
                    let first_half = vector < 2u;
                    let other = scores(own * 17u + select(vector - 2u, vector + 2u, first_half));
                    let entry = own_row * 4u + select(vector - 2u, vector, first_half);
                    let by_sine = other * rope[entry + 2u];
                    x = fma(x, rope[entry], select(-by_sine, by_sine, first_half));
                }
                dk[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 3u;
                var x = scores(own * 17u + part * 8u + 3u);
                if (vector < 4u) {
                    let first_half = vector < 2u;
                    let other = scores(own * 17u + select(vector - 2u, vector + 2u, first_half));
                    let entry = own_row * 4u + select(vector - 2u, vector, first_half);
                    let by_sine = other * rope[entry + 2u];
                    x = fma(x, rope[entry], select(-by_sine, by_sine, first_half));
                }
                dk[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 4u;
                var x = scores(own * 17u + part * 8u + 4u);
                dk[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 5u;
                var x = scores(own * 17u + part * 8u + 5u);
                dk[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 6u;
                var x = scores(own * 17u + part * 8u + 6u);
                dk[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 7u;
                var x = scores(own * 17u + part * 8u + 7u);
                dk[at + vector] = vec4<f16>(x);
            }
        }
        subgroupBarrier();
        {
            let to = strip * 17u + 0u;
            let stride = 17u;
            coopStoreT(c0, &sh_scores[to], stride);
        }
        {
            let to = strip * 17u + 4u;
            let stride = 17u;
            coopStoreT(c1, &sh_scores[to], stride);
        }
        {
            let to = strip * 17u + 8u;
            let stride = 17u;
            coopStoreT(c2, &sh_scores[to], stride);
        }
        {
            let to = strip * 17u + 12u;
            let stride = 17u;
            coopStoreT(c3, &sh_scores[to], stride);
        }
        subgroupBarrier();
        if (row < dims.q_rows) {
            {
                let vector = 0u + part * 8u + 0u;
                var x = scores(own * 17u + part * 8u + 0u);
                dv[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 1u;
                var x = scores(own * 17u + part * 8u + 1u);
                dv[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 2u;
                var x = scores(own * 17u + part * 8u + 2u);
                dv[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 3u;
                var x = scores(own * 17u + part * 8u + 3u);
                dv[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 4u;
                var x = scores(own * 17u + part * 8u + 4u);
                dv[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 5u;
                var x = scores(own * 17u + part * 8u + 5u);
                dv[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 6u;
                var x = scores(own * 17u + part * 8u + 6u);
                dv[at + vector] = vec4<f16>(x);
            }
            {
                let vector = 0u + part * 8u + 7u;
                var x = scores(own * 17u + part * 8u + 7u);
                dv[at + vector] = vec4<f16>(x);
            }
        }
    }
}
