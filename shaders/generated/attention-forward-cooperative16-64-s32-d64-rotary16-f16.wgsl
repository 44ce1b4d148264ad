enable f16;
enable wgpu_cooperative_matrix;
// Generated: attention-forward-cooperative16-64-s32-d64-rotary16-f16. Causal attention: o_i = sum_j p_ij v_j, p_ij = exp(<q_i, k_j> / sqrt(D) - lse_i) for j <= i.
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
@group(0) @binding(4) var<storage, read> rope: array<vec4<f32>>; // (positions, rotary width): cosines, then sines
@group(0) @binding(5) var<uniform> run: Run; //
@group(0) @binding(6) var<storage, read_write> o: array<vec4<f16>>; // (batch * q_rows, heads * D)
@group(0) @binding(7) var<storage, read_write> exact: array<vec4<f32>>; // o, not rounded
@group(0) @binding(8) var<storage, read_write> stat: array<vec2<f32>>; // (batch * heads, q_rows): log2 of the sum of a row, <do, o>
var<workgroup> sh_x: array<vec4<f16>, 1152>;
var<workgroup> sh_y: array<vec4<f16>, 1152>;
var<workgroup> sh_scores: array<vec4<f32>, 1088>;
var<workgroup> sh_weights: array<vec4<f16>, 1152>;
fn put_x(i: u32, value: vec4<f16>) { sh_x[i] = value; }
fn put_y(i: u32, value: vec4<f16>) { sh_y[i] = value; }
fn put_weights(i: u32, value: vec4<f16>) { sh_weights[i] = value; }
fn staged_x(i: u32) -> vec4<f16> { return sh_x[i]; }
fn scores(i: u32) -> vec4<f32> { return sh_scores[i]; }

@compute @workgroup_size(128)
fn forward(
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
        let first = (tiles - 1u - item % tiles) * 64u;
        let batch = item / tiles / dims.heads;
        let column = (item / tiles) % dims.heads * 16u;
        let head_rows = item / tiles * dims.q_rows; // in stat
        let row = first + own;
        let own_row = min(row, dims.q_rows - 1u);
        let own_base = batch * dims.q_rows;
        let at = (own_base + own_row) * pitch + column;
        let base = batch * dims.kv_rows;
        workgroupBarrier();
        for (var e = lane; e < 1024u; e += 128u) {
            let r = e / 16u;
            let there = min(first + r, dims.q_rows - 1u);
            let start = (own_base + there) * pitch + column;
            let to = r * 18u + e % 16u;
            put_x(to, q[start + 0u + e % 16u]);
        }
        workgroupBarrier();
        for (var e = lane; e < 128u; e += 128u) {
            let r = e / 2u;
            let entry = (run.position + min(first + r, dims.q_rows - 1u)) * 4u + e % 2u;
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
        let x1 = coopLoadT<coop_mat16x16<f16, A>>(&sh_x[strip * 18u + 4u], 18u);
        let x2 = coopLoadT<coop_mat16x16<f16, A>>(&sh_x[strip * 18u + 8u], 18u);
        let x3 = coopLoadT<coop_mat16x16<f16, A>>(&sh_x[strip * 18u + 12u], 18u);
        var a0 = vec4<f32>();
        var a1 = vec4<f32>();
        var a2 = vec4<f32>();
        var a3 = vec4<f32>();
        var a4 = vec4<f32>();
        var a5 = vec4<f32>();
        var a6 = vec4<f32>();
        var a7 = vec4<f32>();
        let me = run.position + own_row; // the last key that it sees
        let far_first = 0u;
        let far_end = run.position + min(first + 64u, dims.q_rows);
        var largest = HIDDEN;
        var sum = 0.0;
        for (var block = far_first; block < far_end; block += 64u) {
            workgroupBarrier();
            for (var e = lane; e < 1024u; e += 128u) {
                let vector = e % 16u;
                let there = block + e / 16u;
                // Zeros past the end: what a cache holds there is not read.
                let far = min(there, far_end - 1u);
                let start = (base + far) * pitch + column;
                let to = e / 16u * 18u + vector;
                put_x(to, select(vec4<f16>(), k[start + vector], there < far_end));
                put_y(to, select(vec4<f16>(), v[start + vector], there < far_end));
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
            var now = largest;
            let seen0 = (vec4<u32>(block + part * 32u + 0u) + vec4<u32>(0u, 1u, 2u, 3u)) <= vec4<u32>(me);
            let s0 = select(vec4<f32>(HIDDEN), scores(own * 17u + part * 8u + 0u) * 0.18033688, seen0);
            now = max(now, max(max(s0.x, s0.y), max(s0.z, s0.w)));
            let seen1 = (vec4<u32>(block + part * 32u + 4u) + vec4<u32>(0u, 1u, 2u, 3u)) <= vec4<u32>(me);
            let s1 = select(vec4<f32>(HIDDEN), scores(own * 17u + part * 8u + 1u) * 0.18033688, seen1);
            now = max(now, max(max(s1.x, s1.y), max(s1.z, s1.w)));
            let seen2 = (vec4<u32>(block + part * 32u + 8u) + vec4<u32>(0u, 1u, 2u, 3u)) <= vec4<u32>(me);
            let s2 = select(vec4<f32>(HIDDEN), scores(own * 17u + part * 8u + 2u) * 0.18033688, seen2);
            now = max(now, max(max(s2.x, s2.y), max(s2.z, s2.w)));
            let seen3 = (vec4<u32>(block + part * 32u + 12u) + vec4<u32>(0u, 1u, 2u, 3u)) <= vec4<u32>(me);
            let s3 = select(vec4<f32>(HIDDEN), scores(own * 17u + part * 8u + 3u) * 0.18033688, seen3);
            now = max(now, max(max(s3.x, s3.y), max(s3.z, s3.w)));
            let seen4 = (vec4<u32>(block + part * 32u + 16u) + vec4<u32>(0u, 1u, 2u, 3u)) <= vec4<u32>(me);
            let s4 = select(vec4<f32>(HIDDEN), scores(own * 17u + part * 8u + 4u) * 0.18033688, seen4);
            now = max(now, max(max(s4.x, s4.y), max(s4.z, s4.w)));
            let seen5 = (vec4<u32>(block + part * 32u + 20u) + vec4<u32>(0u, 1u, 2u, 3u)) <= vec4<u32>(me);
            let s5 = select(vec4<f32>(HIDDEN), scores(own * 17u + part * 8u + 5u) * 0.18033688, seen5);
            now = max(now, max(max(s5.x, s5.y), max(s5.z, s5.w)));
            let seen6 = (vec4<u32>(block + part * 32u + 24u) + vec4<u32>(0u, 1u, 2u, 3u)) <= vec4<u32>(me);
            let s6 = select(vec4<f32>(HIDDEN), scores(own * 17u + part * 8u + 6u) * 0.18033688, seen6);
            now = max(now, max(max(s6.x, s6.y), max(s6.z, s6.w)));
            let seen7 = (vec4<u32>(block + part * 32u + 28u) + vec4<u32>(0u, 1u, 2u, 3u)) <= vec4<u32>(me);
            let s7 = select(vec4<f32>(HIDDEN), scores(own * 17u + part * 8u + 7u) * 0.18033688, seen7);
            now = max(now, max(max(s7.x, s7.y), max(s7.z, s7.w)));
            now = max(now, subgroupShuffleXor(now, 1u));
            let shrink = select(1.0, exp2(largest - now), now > largest);
            largest = now;
            sum *= shrink;
            {
                let p = select(vec4<f32>(), exp2(s0 - largest), seen0);
                sum += p.x + p.y + p.z + p.w;
                put_weights(own * 18u + part * 8u + 0u, vec4<f16>(p));
            }
            {
                let p = select(vec4<f32>(), exp2(s1 - largest), seen1);
                sum += p.x + p.y + p.z + p.w;
                put_weights(own * 18u + part * 8u + 1u, vec4<f16>(p));
            }
            {
                let p = select(vec4<f32>(), exp2(s2 - largest), seen2);
                sum += p.x + p.y + p.z + p.w;
                put_weights(own * 18u + part * 8u + 2u, vec4<f16>(p));
            }
            {
                let p = select(vec4<f32>(), exp2(s3 - largest), seen3);
                sum += p.x + p.y + p.z + p.w;
                put_weights(own * 18u + part * 8u + 3u, vec4<f16>(p));
            }
            {
                let p = select(vec4<f32>(), exp2(s4 - largest), seen4);
                sum += p.x + p.y + p.z + p.w;
                put_weights(own * 18u + part * 8u + 4u, vec4<f16>(p));
            }
            {
                let p = select(vec4<f32>(), exp2(s5 - largest), seen5);
                sum += p.x + p.y + p.z + p.w;
                put_weights(own * 18u + part * 8u + 5u, vec4<f16>(p));
            }
            {
                let p = select(vec4<f32>(), exp2(s6 - largest), seen6);
                sum += p.x + p.y + p.z + p.w;
                put_weights(own * 18u + part * 8u + 6u, vec4<f16>(p));
            }
            {
                let p = select(vec4<f32>(), exp2(s7 - largest), seen7);
                sum += p.x + p.y + p.z + p.w;
                put_weights(own * 18u + part * 8u + 7u, vec4<f16>(p));
            }
            subgroupBarrier();
            var o0 = coop_mat16x16<f32, C>();
            var o1 = coop_mat16x16<f32, C>();
            var o2 = coop_mat16x16<f32, C>();
            var o3 = coop_mat16x16<f32, C>();
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 0u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 0u], 18u);
                    o0 = coopMultiplyAdd(f, b, o0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 4u], 18u);
                    o1 = coopMultiplyAdd(f, b, o1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 8u], 18u);
                    o2 = coopMultiplyAdd(f, b, o2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 12u], 18u);
                    o3 = coopMultiplyAdd(f, b, o3);
                }
            }
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 4u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 288u], 18u);
                    o0 = coopMultiplyAdd(f, b, o0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 292u], 18u);
                    o1 = coopMultiplyAdd(f, b, o1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 296u], 18u);
                    o2 = coopMultiplyAdd(f, b, o2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 300u], 18u);
                    o3 = coopMultiplyAdd(f, b, o3);
                }
            }
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 8u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 576u], 18u);
                    o0 = coopMultiplyAdd(f, b, o0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 580u], 18u);
                    o1 = coopMultiplyAdd(f, b, o1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 584u], 18u);
                    o2 = coopMultiplyAdd(f, b, o2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 588u], 18u);
                    o3 = coopMultiplyAdd(f, b, o3);
                }
            }
            {
                let f = coopLoadT<coop_mat16x16<f16, A>>(&sh_weights[strip * 18u + 12u], 18u);
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 864u], 18u);
                    o0 = coopMultiplyAdd(f, b, o0);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 868u], 18u);
                    o1 = coopMultiplyAdd(f, b, o1);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 872u], 18u);
                    o2 = coopMultiplyAdd(f, b, o2);
                }
                {
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&sh_y[0u + 876u], 18u);
                    o3 = coopMultiplyAdd(f, b, o3);
                }
            }
            {
                let to = strip * 17u + 0u;
                let stride = 17u;
                coopStoreT(o0, &sh_scores[to], stride);
            }
            {
                let to = strip * 17u + 4u;
                let stride = 17u;
                coopStoreT(o1, &sh_scores[to], stride);
            }
            {
                let to = strip * 17u + 8u;
                let stride = 17u;
                coopStoreT(o2, &sh_scores[to], stride);
            }
            {
                let to = strip * 17u + 12u;
                let stride = 17u;
                coopStoreT(o3, &sh_scores[to], stride);
            }
            subgroupBarrier();
            a0 = fma(a0, vec4<f32>(shrink), scores(own * 17u + part * 8u + 0u));
            a1 = fma(a1, vec4<f32>(shrink), scores(own * 17u + part * 8u + 1u));
            a2 = fma(a2, vec4<f32>(shrink), scores(own * 17u + part * 8u + 2u));
            a3 = fma(a3, vec4<f32>(shrink), scores(own * 17u + part * 8u + 3u));
            a4 = fma(a4, vec4<f32>(shrink), scores(own * 17u + part * 8u + 4u));
            a5 = fma(a5, vec4<f32>(shrink), scores(own * 17u + part * 8u + 5u));
            a6 = fma(a6, vec4<f32>(shrink), scores(own * 17u + part * 8u + 6u));
            a7 = fma(a7, vec4<f32>(shrink), scores(own * 17u + part * 8u + 7u));
            subgroupBarrier();
        }
        sum += subgroupShuffleXor(sum, 1u);
        let norm = 1.0 / sum;
        if (row < dims.q_rows) {
            exact[at + 0u + part * 8u + 0u] = a0 * norm;
            o[at + 0u + part * 8u + 0u] = vec4<f16>(a0 * norm);
            exact[at + 0u + part * 8u + 1u] = a1 * norm;
            o[at + 0u + part * 8u + 1u] = vec4<f16>(a1 * norm);
            exact[at + 0u + part * 8u + 2u] = a2 * norm;
            o[at + 0u + part * 8u + 2u] = vec4<f16>(a2 * norm);
            exact[at + 0u + part * 8u + 3u] = a3 * norm;
            o[at + 0u + part * 8u + 3u] = vec4<f16>(a3 * norm);
            exact[at + 0u + part * 8u + 4u] = a4 * norm;
            o[at + 0u + part * 8u + 4u] = vec4<f16>(a4 * norm);
            exact[at + 0u + part * 8u + 5u] = a5 * norm;
            o[at + 0u + part * 8u + 5u] = vec4<f16>(a5 * norm);
            exact[at + 0u + part * 8u + 6u] = a6 * norm;
            o[at + 0u + part * 8u + 6u] = vec4<f16>(a6 * norm);
            exact[at + 0u + part * 8u + 7u] = a7 * norm;
            o[at + 0u + part * 8u + 7u] = vec4<f16>(a7 * norm);
            if (part == 0u) { stat[head_rows + own_row] = vec2<f32>(largest + log2(sum), 0.0); }
        }
    }
}
