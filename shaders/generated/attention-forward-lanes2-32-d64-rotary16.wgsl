// Generated: attention-forward-lanes2-32-d64-rotary16. Causal attention: o_i = sum_j p_ij v_j, p_ij = exp(<q_i, k_j> / sqrt(D) - lse_i) for j <= i.
// Mapping: one workgroup per (batch, head, tile of 64 rows); 2 lane(s) to a query, holding every 2. vec4.
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
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (batch * q_rows, heads * D)
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>; // (batch * kv_rows, heads * D)
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>; // (batch * kv_rows, heads * D)
@group(0) @binding(4) var<storage, read> rope: array<vec4<f32>>; // (positions, rotary width): cosines, then sines
@group(0) @binding(5) var<uniform> run: Run; //
@group(0) @binding(6) var<storage, read_write> o: array<vec4<f32>>; // (batch * q_rows, heads * D)
@group(0) @binding(7) var<storage, read_write> stat: array<vec2<f32>>; // (batch * heads, q_rows): log2 of the sum of a row, <do, o>

fn q_at(at: u32, v: u32, position: u32) -> vec4<f32> {
    let x = q[at + v];
    if (v >= 4u) { return x; }
    let first = v < 2u;
    let other = vec4<f32>(q[at + select(v - 2u, v + 2u, first)]);
    let entry = position * 4u + select(v - 2u, v, first);
    let by_sine = other * rope[entry + 2u];
    return vec4<f32>(fma(vec4<f32>(x), rope[entry], select(by_sine, -by_sine, first)));
}

fn k_at(at: u32, v: u32, position: u32) -> vec4<f32> {
    let x = k[at + v];
    if (v >= 4u) { return x; }
    let first = v < 2u;
    let other = vec4<f32>(k[at + select(v - 2u, v + 2u, first)]);
    let entry = position * 4u + select(v - 2u, v, first);
    let by_sine = other * rope[entry + 2u];
    return vec4<f32>(fma(vec4<f32>(x), rope[entry], select(by_sine, -by_sine, first)));
}
var<workgroup> sh_k: array<vec4<f32>, 512>;
var<workgroup> sh_v: array<vec4<f32>, 512>;

@compute @workgroup_size(128)
fn forward(
@builtin(workgroup_id) group: vec3<u32>,
@builtin(num_workgroups) groups: vec3<u32>,
@builtin(subgroup_id) subgroup: u32,
@builtin(subgroup_size) subgroup_size: u32,
@builtin(subgroup_invocation_id) inner: u32,
) {
    let lane = subgroup * subgroup_size + inner;
    let part = lane % 2u;
    let own = lane / 2u;
    let tiles = (dims.q_rows + 63u) / 64u;
    let pitch = dims.heads * 16u; // vectors from row to row
    for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {
        let first = (tiles - 1u - item % tiles) * 64u;
        let batch = item / tiles / dims.heads;
        let column = (item / tiles) % dims.heads * 16u;
        let head_rows = item / tiles * dims.q_rows; // in stat
        let base = batch * dims.kv_rows;
        let row = first + own;
        // Rows past the end compute the last one again and are not written.
        let query = min(row, dims.q_rows - 1u);
        let seen = run.position + query; // the last key that it sees
        let at = (batch * dims.q_rows + query) * pitch + column;
        let far_first = 0u;
        let far_end = run.position + min(first + 64u, dims.q_rows);
        let x0 = vec4<f32>(q_at(at, 0u + part, seen)) * 0.18033688;
        var a0 = vec4<f32>();
        let x1 = vec4<f32>(q_at(at, 2u + part, seen)) * 0.18033688;
        var a1 = vec4<f32>();
        let x2 = vec4<f32>(q_at(at, 4u + part, seen)) * 0.18033688;
        var a2 = vec4<f32>();
        let x3 = vec4<f32>(q_at(at, 6u + part, seen)) * 0.18033688;
        var a3 = vec4<f32>();
        let x4 = vec4<f32>(q_at(at, 8u + part, seen)) * 0.18033688;
        var a4 = vec4<f32>();
        let x5 = vec4<f32>(q_at(at, 10u + part, seen)) * 0.18033688;
        var a5 = vec4<f32>();
        let x6 = vec4<f32>(q_at(at, 12u + part, seen)) * 0.18033688;
        var a6 = vec4<f32>();
        let x7 = vec4<f32>(q_at(at, 14u + part, seen)) * 0.18033688;
        var a7 = vec4<f32>();
        var largest = HIDDEN;
        var sum = 0.0;
        for (var block = far_first; block < far_end; block += 32u) {
            workgroupBarrier();
            for (var e = lane; e < 512u; e += 128u) {
                let there = block + e / 16u;
                // Zeros past the end: what a cache holds there is not read.
                let far = min(there, far_end - 1u);
                let start = (base + far) * pitch + column;
                sh_k[e] = select(vec4<f32>(), vec4<f32>(k_at(start, e % 16u, far)), there < far_end);
                sh_v[e] = select(vec4<f32>(), vec4<f32>(v[start + e % 16u]), there < far_end);
            }
            workgroupBarrier();
            let span = min(32u, far_end - block);
            for (var j = 0u; j < span; j += 8u) {
                var s0 = 0.0;
                var s1 = 0.0;
                var s2 = 0.0;
                var s3 = 0.0;
                var s4 = 0.0;
                var s5 = 0.0;
                var s6 = 0.0;
                var s7 = 0.0;
                {
                    let x_0 = sh_k[(j + 0u) * 16u + 0u + part];
                    let x_1 = sh_k[(j + 1u) * 16u + 0u + part];
                    let x_2 = sh_k[(j + 2u) * 16u + 0u + part];
                    let x_3 = sh_k[(j + 3u) * 16u + 0u + part];
                    let x_4 = sh_k[(j + 4u) * 16u + 0u + part];
                    let x_5 = sh_k[(j + 5u) * 16u + 0u + part];
                    let x_6 = sh_k[(j + 6u) * 16u + 0u + part];
                    let x_7 = sh_k[(j + 7u) * 16u + 0u + part];
                    s0 = fma(x0.x, x_0.x, s0);
                    s0 = fma(x0.y, x_0.y, s0);
                    s0 = fma(x0.z, x_0.z, s0);
                    s0 = fma(x0.w, x_0.w, s0);
                    s1 = fma(x0.x, x_1.x, s1);
                    s1 = fma(x0.y, x_1.y, s1);
                    s1 = fma(x0.z, x_1.z, s1);
                    s1 = fma(x0.w, x_1.w, s1);
                    s2 = fma(x0.x, x_2.x, s2);
                    s2 = fma(x0.y, x_2.y, s2);
                    s2 = fma(x0.z, x_2.z, s2);
                    s2 = fma(x0.w, x_2.w, s2);
                    s3 = fma(x0.x, x_3.x, s3);
                    s3 = fma(x0.y, x_3.y, s3);
                    s3 = fma(x0.z, x_3.z, s3);
                    s3 = fma(x0.w, x_3.w, s3);
                    s4 = fma(x0.x, x_4.x, s4);
                    s4 = fma(x0.y, x_4.y, s4);
                    s4 = fma(x0.z, x_4.z, s4);
                    s4 = fma(x0.w, x_4.w, s4);
                    s5 = fma(x0.x, x_5.x, s5);
                    s5 = fma(x0.y, x_5.y, s5);
                    s5 = fma(x0.z, x_5.z, s5);
                    s5 = fma(x0.w, x_5.w, s5);
                    s6 = fma(x0.x, x_6.x, s6);
                    s6 = fma(x0.y, x_6.y, s6);
                    s6 = fma(x0.z, x_6.z, s6);
                    s6 = fma(x0.w, x_6.w, s6);
                    s7 = fma(x0.x, x_7.x, s7);
                    s7 = fma(x0.y, x_7.y, s7);
                    s7 = fma(x0.z, x_7.z, s7);
                    s7 = fma(x0.w, x_7.w, s7);
                }
                {
                    let x_0 = sh_k[(j + 0u) * 16u + 2u + part];
                    let x_1 = sh_k[(j + 1u) * 16u + 2u + part];
                    let x_2 = sh_k[(j + 2u) * 16u + 2u + part];
                    let x_3 = sh_k[(j + 3u) * 16u + 2u + part];
                    let x_4 = sh_k[(j + 4u) * 16u + 2u + part];
                    let x_5 = sh_k[(j + 5u) * 16u + 2u + part];
                    let x_6 = sh_k[(j + 6u) * 16u + 2u + part];
                    let x_7 = sh_k[(j + 7u) * 16u + 2u + part];
                    s0 = fma(x1.x, x_0.x, s0);
                    s0 = fma(x1.y, x_0.y, s0);
                    s0 = fma(x1.z, x_0.z, s0);
                    s0 = fma(x1.w, x_0.w, s0);
                    s1 = fma(x1.x, x_1.x, s1);
                    s1 = fma(x1.y, x_1.y, s1);
                    s1 = fma(x1.z, x_1.z, s1);
                    s1 = fma(x1.w, x_1.w, s1);
                    s2 = fma(x1.x, x_2.x, s2);
                    s2 = fma(x1.y, x_2.y, s2);
                    s2 = fma(x1.z, x_2.z, s2);
                    s2 = fma(x1.w, x_2.w, s2);
                    s3 = fma(x1.x, x_3.x, s3);
                    s3 = fma(x1.y, x_3.y, s3);
                    s3 = fma(x1.z, x_3.z, s3);
                    s3 = fma(x1.w, x_3.w, s3);
                    s4 = fma(x1.x, x_4.x, s4);
                    s4 = fma(x1.y, x_4.y, s4);
                    s4 = fma(x1.z, x_4.z, s4);
                    s4 = fma(x1.w, x_4.w, s4);
                    s5 = fma(x1.x, x_5.x, s5);
                    s5 = fma(x1.y, x_5.y, s5);
                    s5 = fma(x1.z, x_5.z, s5);
                    s5 = fma(x1.w, x_5.w, s5);
                    s6 = fma(x1.x, x_6.x, s6);
                    s6 = fma(x1.y, x_6.y, s6);
                    s6 = fma(x1.z, x_6.z, s6);
                    s6 = fma(x1.w, x_6.w, s6);
                    s7 = fma(x1.x, x_7.x, s7);
                    s7 = fma(x1.y, x_7.y, s7);
                    s7 = fma(x1.z, x_7.z, s7);
                    s7 = fma(x1.w, x_7.w, s7);
                }
                {
                    let x_0 = sh_k[(j + 0u) * 16u + 4u + part];
                    let x_1 = sh_k[(j + 1u) * 16u + 4u + part];
                    let x_2 = sh_k[(j + 2u) * 16u + 4u + part];
                    let x_3 = sh_k[(j + 3u) * 16u + 4u + part];
                    let x_4 = sh_k[(j + 4u) * 16u + 4u + part];
                    let x_5 = sh_k[(j + 5u) * 16u + 4u + part];
                    let x_6 = sh_k[(j + 6u) * 16u + 4u + part];
                    let x_7 = sh_k[(j + 7u) * 16u + 4u + part];
                    s0 = fma(x2.x, x_0.x, s0);
                    s0 = fma(x2.y, x_0.y, s0);
                    s0 = fma(x2.z, x_0.z, s0);
                    s0 = fma(x2.w, x_0.w, s0);
                    s1 = fma(x2.x, x_1.x, s1);
                    s1 = fma(x2.y, x_1.y, s1);
                    s1 = fma(x2.z, x_1.z, s1);
                    s1 = fma(x2.w, x_1.w, s1);
                    s2 = fma(x2.x, x_2.x, s2);
                    s2 = fma(x2.y, x_2.y, s2);
                    s2 = fma(x2.z, x_2.z, s2);
                    s2 = fma(x2.w, x_2.w, s2);
                    s3 = fma(x2.x, x_3.x, s3);
                    s3 = fma(x2.y, x_3.y, s3);
                    s3 = fma(x2.z, x_3.z, s3);
                    s3 = fma(x2.w, x_3.w, s3);
                    s4 = fma(x2.x, x_4.x, s4);
                    s4 = fma(x2.y, x_4.y, s4);
                    s4 = fma(x2.z, x_4.z, s4);
                    s4 = fma(x2.w, x_4.w, s4);
                    s5 = fma(x2.x, x_5.x, s5);
                    s5 = fma(x2.y, x_5.y, s5);
                    s5 = fma(x2.z, x_5.z, s5);
                    s5 = fma(x2.w, x_5.w, s5);
                    s6 = fma(x2.x, x_6.x, s6);
                    s6 = fma(x2.y, x_6.y, s6);
                    s6 = fma(x2.z, x_6.z, s6);
                    s6 = fma(x2.w, x_6.w, s6);
                    s7 = fma(x2.x, x_7.x, s7);
                    s7 = fma(x2.y, x_7.y, s7);
                    s7 = fma(x2.z, x_7.z, s7);
                    s7 = fma(x2.w, x_7.w, s7);
                }
                {
                    let x_0 = sh_k[(j + 0u) * 16u + 6u + part];
                    let x_1 = sh_k[(j + 1u) * 16u + 6u + part];
                    let x_2 = sh_k[(j + 2u) * 16u + 6u + part];
                    let x_3 = sh_k[(j + 3u) * 16u + 6u + part];
                    let x_4 = sh_k[(j + 4u) * 16u + 6u + part];
                    let x_5 = sh_k[(j + 5u) * 16u + 6u + part];
                    let x_6 = sh_k[(j + 6u) * 16u + 6u + part];
                    let x_7 = sh_k[(j + 7u) * 16u + 6u + part];
                    s0 = fma(x3.x, x_0.x, s0);
                    s0 = fma(x3.y, x_0.y, s0);
                    s0 = fma(x3.z, x_0.z, s0);
                    s0 = fma(x3.w, x_0.w, s0);
                    s1 = fma(x3.x, x_1.x, s1);
                    s1 = fma(x3.y, x_1.y, s1);
                    s1 = fma(x3.z, x_1.z, s1);
                    s1 = fma(x3.w, x_1.w, s1);
                    s2 = fma(x3.x, x_2.x, s2);
                    s2 = fma(x3.y, x_2.y, s2);
                    s2 = fma(x3.z, x_2.z, s2);
                    s2 = fma(x3.w, x_2.w, s2);
                    s3 = fma(x3.x, x_3.x, s3);
                    s3 = fma(x3.y, x_3.y, s3);
                    s3 = fma(x3.z, x_3.z, s3);
                    s3 = fma(x3.w, x_3.w, s3);
                    s4 = fma(x3.x, x_4.x, s4);
                    s4 = fma(x3.y, x_4.y, s4);
                    s4 = fma(x3.z, x_4.z, s4);
                    s4 = fma(x3.w, x_4.w, s4);
                    s5 = fma(x3.x, x_5.x, s5);
                    s5 = fma(x3.y, x_5.y, s5);
                    s5 = fma(x3.z, x_5.z, s5);
                    s5 = fma(x3.w, x_5.w, s5);
                    s6 = fma(x3.x, x_6.x, s6);
                    s6 = fma(x3.y, x_6.y, s6);
                    s6 = fma(x3.z, x_6.z, s6);
                    s6 = fma(x3.w, x_6.w, s6);
                    s7 = fma(x3.x, x_7.x, s7);
                    s7 = fma(x3.y, x_7.y, s7);
                    s7 = fma(x3.z, x_7.z, s7);
                    s7 = fma(x3.w, x_7.w, s7);
                }
                {
                    let x_0 = sh_k[(j + 0u) * 16u + 8u + part];
                    let x_1 = sh_k[(j + 1u) * 16u + 8u + part];
                    let x_2 = sh_k[(j + 2u) * 16u + 8u + part];
                    let x_3 = sh_k[(j + 3u) * 16u + 8u + part];
                    let x_4 = sh_k[(j + 4u) * 16u + 8u + part];
                    let x_5 = sh_k[(j + 5u) * 16u + 8u + part];
                    let x_6 = sh_k[(j + 6u) * 16u + 8u + part];
                    let x_7 = sh_k[(j + 7u) * 16u + 8u + part];
                    s0 = fma(x4.x, x_0.x, s0);
                    s0 = fma(x4.y, x_0.y, s0);
                    s0 = fma(x4.z, x_0.z, s0);
                    s0 = fma(x4.w, x_0.w, s0);
                    s1 = fma(x4.x, x_1.x, s1);
                    s1 = fma(x4.y, x_1.y, s1);
                    s1 = fma(x4.z, x_1.z, s1);
                    s1 = fma(x4.w, x_1.w, s1);
                    s2 = fma(x4.x, x_2.x, s2);
                    s2 = fma(x4.y, x_2.y, s2);
                    s2 = fma(x4.z, x_2.z, s2);
                    s2 = fma(x4.w, x_2.w, s2);
                    s3 = fma(x4.x, x_3.x, s3);
                    s3 = fma(x4.y, x_3.y, s3);
                    s3 = fma(x4.z, x_3.z, s3);
                    s3 = fma(x4.w, x_3.w, s3);
                    s4 = fma(x4.x, x_4.x, s4);
                    s4 = fma(x4.y, x_4.y, s4);
                    s4 = fma(x4.z, x_4.z, s4);
                    s4 = fma(x4.w, x_4.w, s4);
                    s5 = fma(x4.x, x_5.x, s5);
                    s5 = fma(x4.y, x_5.y, s5);
                    s5 = fma(x4.z, x_5.z, s5);
                    s5 = fma(x4.w, x_5.w, s5);
                    s6 = fma(x4.x, x_6.x, s6);
                    s6 = fma(x4.y, x_6.y, s6);
                    s6 = fma(x4.z, x_6.z, s6);
                    s6 = fma(x4.w, x_6.w, s6);
                    s7 = fma(x4.x, x_7.x, s7);
                    s7 = fma(x4.y, x_7.y, s7);
                    s7 = fma(x4.z, x_7.z, s7);
                    s7 = fma(x4.w, x_7.w, s7);
                }
                {
                    let x_0 = sh_k[(j + 0u) * 16u + 10u + part];
                    let x_1 = sh_k[(j + 1u) * 16u + 10u + part];
                    let x_2 = sh_k[(j + 2u) * 16u + 10u + part];
                    let x_3 = sh_k[(j + 3u) * 16u + 10u + part];
                    let x_4 = sh_k[(j + 4u) * 16u + 10u + part];
                    let x_5 = sh_k[(j + 5u) * 16u + 10u + part];
                    let x_6 = sh_k[(j + 6u) * 16u + 10u + part];
                    let x_7 = sh_k[(j + 7u) * 16u + 10u + part];
                    s0 = fma(x5.x, x_0.x, s0);
                    s0 = fma(x5.y, x_0.y, s0);
                    s0 = fma(x5.z, x_0.z, s0);
                    s0 = fma(x5.w, x_0.w, s0);
                    s1 = fma(x5.x, x_1.x, s1);
                    s1 = fma(x5.y, x_1.y, s1);
                    s1 = fma(x5.z, x_1.z, s1);
                    s1 = fma(x5.w, x_1.w, s1);
                    s2 = fma(x5.x, x_2.x, s2);
                    s2 = fma(x5.y, x_2.y, s2);
                    s2 = fma(x5.z, x_2.z, s2);
                    s2 = fma(x5.w, x_2.w, s2);
                    s3 = fma(x5.x, x_3.x, s3);
                    s3 = fma(x5.y, x_3.y, s3);
                    s3 = fma(x5.z, x_3.z, s3);
                    s3 = fma(x5.w, x_3.w, s3);
                    s4 = fma(x5.x, x_4.x, s4);
                    s4 = fma(x5.y, x_4.y, s4);
                    s4 = fma(x5.z, x_4.z, s4);
                    s4 = fma(x5.w, x_4.w, s4);
                    s5 = fma(x5.x, x_5.x, s5);
                    s5 = fma(x5.y, x_5.y, s5);
                    s5 = fma(x5.z, x_5.z, s5);
                    s5 = fma(x5.w, x_5.w, s5);
                    s6 = fma(x5.x, x_6.x, s6);
                    s6 = fma(x5.y, x_6.y, s6);
                    s6 = fma(x5.z, x_6.z, s6);
                    s6 = fma(x5.w, x_6.w, s6);
                    s7 = fma(x5.x, x_7.x, s7);
                    s7 = fma(x5.y, x_7.y, s7);
                    s7 = fma(x5.z, x_7.z, s7);
                    s7 = fma(x5.w, x_7.w, s7);
                }
                {
                    let x_0 = sh_k[(j + 0u) * 16u + 12u + part];
                    let x_1 = sh_k[(j + 1u) * 16u + 12u + part];
                    let x_2 = sh_k[(j + 2u) * 16u + 12u + part];
                    let x_3 = sh_k[(j + 3u) * 16u + 12u + part];
                    let x_4 = sh_k[(j + 4u) * 16u + 12u + part];
                    let x_5 = sh_k[(j + 5u) * 16u + 12u + part];
                    let x_6 = sh_k[(j + 6u) * 16u + 12u + part];
                    let x_7 = sh_k[(j + 7u) * 16u + 12u + part];
                    s0 = fma(x6.x, x_0.x, s0);
                    s0 = fma(x6.y, x_0.y, s0);
                    s0 = fma(x6.z, x_0.z, s0);
                    s0 = fma(x6.w, x_0.w, s0);
                    s1 = fma(x6.x, x_1.x, s1);
                    s1 = fma(x6.y, x_1.y, s1);
                    s1 = fma(x6.z, x_1.z, s1);
                    s1 = fma(x6.w, x_1.w, s1);
                    s2 = fma(x6.x, x_2.x, s2);
                    s2 = fma(x6.y, x_2.y, s2);
                    s2 = fma(x6.z, x_2.z, s2);
                    s2 = fma(x6.w, x_2.w, s2);
                    s3 = fma(x6.x, x_3.x, s3);
                    s3 = fma(x6.y, x_3.y, s3);
                    s3 = fma(x6.z, x_3.z, s3);
                    s3 = fma(x6.w, x_3.w, s3);
                    s4 = fma(x6.x, x_4.x, s4);
                    s4 = fma(x6.y, x_4.y, s4);
                    s4 = fma(x6.z, x_4.z, s4);
                    s4 = fma(x6.w, x_4.w, s4);
                    s5 = fma(x6.x, x_5.x, s5);
                    s5 = fma(x6.y, x_5.y, s5);
                    s5 = fma(x6.z, x_5.z, s5);
                    s5 = fma(x6.w, x_5.w, s5);
                    s6 = fma(x6.x, x_6.x, s6);
                    s6 = fma(x6.y, x_6.y, s6);
                    s6 = fma(x6.z, x_6.z, s6);
                    s6 = fma(x6.w, x_6.w, s6);
                    s7 = fma(x6.x, x_7.x, s7);
                    s7 = fma(x6.y, x_7.y, s7);
                    s7 = fma(x6.z, x_7.z, s7);
                    s7 = fma(x6.w, x_7.w, s7);
                }
                {
                    let x_0 = sh_k[(j + 0u) * 16u + 14u + part];
                    let x_1 = sh_k[(j + 1u) * 16u + 14u + part];
                    let x_2 = sh_k[(j + 2u) * 16u + 14u + part];
                    let x_3 = sh_k[(j + 3u) * 16u + 14u + part];
                    let x_4 = sh_k[(j + 4u) * 16u + 14u + part];
                    let x_5 = sh_k[(j + 5u) * 16u + 14u + part];
                    let x_6 = sh_k[(j + 6u) * 16u + 14u + part];
                    let x_7 = sh_k[(j + 7u) * 16u + 14u + part];
                    s0 = fma(x7.x, x_0.x, s0);
                    s0 = fma(x7.y, x_0.y, s0);
                    s0 = fma(x7.z, x_0.z, s0);
                    s0 = fma(x7.w, x_0.w, s0);
                    s1 = fma(x7.x, x_1.x, s1);
                    s1 = fma(x7.y, x_1.y, s1);
                    s1 = fma(x7.z, x_1.z, s1);
                    s1 = fma(x7.w, x_1.w, s1);
                    s2 = fma(x7.x, x_2.x, s2);
                    s2 = fma(x7.y, x_2.y, s2);
                    s2 = fma(x7.z, x_2.z, s2);
                    s2 = fma(x7.w, x_2.w, s2);
                    s3 = fma(x7.x, x_3.x, s3);
                    s3 = fma(x7.y, x_3.y, s3);
                    s3 = fma(x7.z, x_3.z, s3);
                    s3 = fma(x7.w, x_3.w, s3);
                    s4 = fma(x7.x, x_4.x, s4);
                    s4 = fma(x7.y, x_4.y, s4);
                    s4 = fma(x7.z, x_4.z, s4);
                    s4 = fma(x7.w, x_4.w, s4);
                    s5 = fma(x7.x, x_5.x, s5);
                    s5 = fma(x7.y, x_5.y, s5);
                    s5 = fma(x7.z, x_5.z, s5);
                    s5 = fma(x7.w, x_5.w, s5);
                    s6 = fma(x7.x, x_6.x, s6);
                    s6 = fma(x7.y, x_6.y, s6);
                    s6 = fma(x7.z, x_6.z, s6);
                    s6 = fma(x7.w, x_6.w, s6);
                    s7 = fma(x7.x, x_7.x, s7);
                    s7 = fma(x7.y, x_7.y, s7);
                    s7 = fma(x7.z, x_7.z, s7);
                    s7 = fma(x7.w, x_7.w, s7);
                }
                s0 += subgroupShuffleXor(s0, 1u);
                s1 += subgroupShuffleXor(s1, 1u);
                s2 += subgroupShuffleXor(s2, 1u);
                s3 += subgroupShuffleXor(s3, 1u);
                s4 += subgroupShuffleXor(s4, 1u);
                s5 += subgroupShuffleXor(s5, 1u);
                s6 += subgroupShuffleXor(s6, 1u);
                s7 += subgroupShuffleXor(s7, 1u);
                let seen0 = block + j + 0u <= seen;
                s0 = select(HIDDEN, s0, seen0);
                let seen1 = block + j + 1u <= seen;
                s1 = select(HIDDEN, s1, seen1);
                let seen2 = block + j + 2u <= seen;
                s2 = select(HIDDEN, s2, seen2);
                let seen3 = block + j + 3u <= seen;
                s3 = select(HIDDEN, s3, seen3);
                let seen4 = block + j + 4u <= seen;
                s4 = select(HIDDEN, s4, seen4);
                let seen5 = block + j + 5u <= seen;
                s5 = select(HIDDEN, s5, seen5);
                let seen6 = block + j + 6u <= seen;
                s6 = select(HIDDEN, s6, seen6);
                let seen7 = block + j + 7u <= seen;
                s7 = select(HIDDEN, s7, seen7);
                let now = max(max(max(s0, s1), max(s2, s3)), max(max(s4, s5), max(s6, s7)));
                // Rarely taken: the largest score of a row is soon met.
                if (now > largest) {
                    let shrink = exp2(largest - now);
                    largest = now;
                    sum *= shrink;
                    a0 *= shrink;
                    a1 *= shrink;
                    a2 *= shrink;
                    a3 *= shrink;
                    a4 *= shrink;
                    a5 *= shrink;
                    a6 *= shrink;
                    a7 *= shrink;
                }
                let p0 = select(0.0, exp2(s0 - largest), seen0);
                sum += p0;
                let p1 = select(0.0, exp2(s1 - largest), seen1);
                sum += p1;
                let p2 = select(0.0, exp2(s2 - largest), seen2);
                sum += p2;
                let p3 = select(0.0, exp2(s3 - largest), seen3);
                sum += p3;
                let p4 = select(0.0, exp2(s4 - largest), seen4);
                sum += p4;
                let p5 = select(0.0, exp2(s5 - largest), seen5);
                sum += p5;
                let p6 = select(0.0, exp2(s6 - largest), seen6);
                sum += p6;
                let p7 = select(0.0, exp2(s7 - largest), seen7);
                sum += p7;
                a0 = fma(vec4<f32>(p0), sh_v[(j + 0u) * 16u + 0u + part], a0);
                a0 = fma(vec4<f32>(p1), sh_v[(j + 1u) * 16u + 0u + part], a0);
                a0 = fma(vec4<f32>(p2), sh_v[(j + 2u) * 16u + 0u + part], a0);
                a0 = fma(vec4<f32>(p3), sh_v[(j + 3u) * 16u + 0u + part], a0);
                a0 = fma(vec4<f32>(p4), sh_v[(j + 4u) * 16u + 0u + part], a0);
                a0 = fma(vec4<f32>(p5), sh_v[(j + 5u) * 16u + 0u + part], a0);
                a0 = fma(vec4<f32>(p6), sh_v[(j + 6u) * 16u + 0u + part], a0);
                a0 = fma(vec4<f32>(p7), sh_v[(j + 7u) * 16u + 0u + part], a0);
                a1 = fma(vec4<f32>(p0), sh_v[(j + 0u) * 16u + 2u + part], a1);
                a1 = fma(vec4<f32>(p1), sh_v[(j + 1u) * 16u + 2u + part], a1);
                a1 = fma(vec4<f32>(p2), sh_v[(j + 2u) * 16u + 2u + part], a1);
                a1 = fma(vec4<f32>(p3), sh_v[(j + 3u) * 16u + 2u + part], a1);
                a1 = fma(vec4<f32>(p4), sh_v[(j + 4u) * 16u + 2u + part], a1);
                a1 = fma(vec4<f32>(p5), sh_v[(j + 5u) * 16u + 2u + part], a1);
                a1 = fma(vec4<f32>(p6), sh_v[(j + 6u) * 16u + 2u + part], a1);
                a1 = fma(vec4<f32>(p7), sh_v[(j + 7u) * 16u + 2u + part], a1);
                a2 = fma(vec4<f32>(p0), sh_v[(j + 0u) * 16u + 4u + part], a2);
                a2 = fma(vec4<f32>(p1), sh_v[(j + 1u) * 16u + 4u + part], a2);
                a2 = fma(vec4<f32>(p2), sh_v[(j + 2u) * 16u + 4u + part], a2);
                a2 = fma(vec4<f32>(p3), sh_v[(j + 3u) * 16u + 4u + part], a2);
                a2 = fma(vec4<f32>(p4), sh_v[(j + 4u) * 16u + 4u + part], a2);
                a2 = fma(vec4<f32>(p5), sh_v[(j + 5u) * 16u + 4u + part], a2);
                a2 = fma(vec4<f32>(p6), sh_v[(j + 6u) * 16u + 4u + part], a2);
                a2 = fma(vec4<f32>(p7), sh_v[(j + 7u) * 16u + 4u + part], a2);
                a3 = fma(vec4<f32>(p0), sh_v[(j + 0u) * 16u + 6u + part], a3);
                a3 = fma(vec4<f32>(p1), sh_v[(j + 1u) * 16u + 6u + part], a3);
                a3 = fma(vec4<f32>(p2), sh_v[(j + 2u) * 16u + 6u + part], a3);
                a3 = fma(vec4<f32>(p3), sh_v[(j + 3u) * 16u + 6u + part], a3);
                a3 = fma(vec4<f32>(p4), sh_v[(j + 4u) * 16u + 6u + part], a3);
                a3 = fma(vec4<f32>(p5), sh_v[(j + 5u) * 16u + 6u + part], a3);
                a3 = fma(vec4<f32>(p6), sh_v[(j + 6u) * 16u + 6u + part], a3);
                a3 = fma(vec4<f32>(p7), sh_v[(j + 7u) * 16u + 6u + part], a3);
                a4 = fma(vec4<f32>(p0), sh_v[(j + 0u) * 16u + 8u + part], a4);
                a4 = fma(vec4<f32>(p1), sh_v[(j + 1u) * 16u + 8u + part], a4);
                a4 = fma(vec4<f32>(p2), sh_v[(j + 2u) * 16u + 8u + part], a4);
                a4 = fma(vec4<f32>(p3), sh_v[(j + 3u) * 16u + 8u + part], a4);
                a4 = fma(vec4<f32>(p4), sh_v[(j + 4u) * 16u + 8u + part], a4);
                a4 = fma(vec4<f32>(p5), sh_v[(j + 5u) * 16u + 8u + part], a4);
                a4 = fma(vec4<f32>(p6), sh_v[(j + 6u) * 16u + 8u + part], a4);
                a4 = fma(vec4<f32>(p7), sh_v[(j + 7u) * 16u + 8u + part], a4);
                a5 = fma(vec4<f32>(p0), sh_v[(j + 0u) * 16u + 10u + part], a5);
                a5 = fma(vec4<f32>(p1), sh_v[(j + 1u) * 16u + 10u + part], a5);
                a5 = fma(vec4<f32>(p2), sh_v[(j + 2u) * 16u + 10u + part], a5);
                a5 = fma(vec4<f32>(p3), sh_v[(j + 3u) * 16u + 10u + part], a5);
                a5 = fma(vec4<f32>(p4), sh_v[(j + 4u) * 16u + 10u + part], a5);
                a5 = fma(vec4<f32>(p5), sh_v[(j + 5u) * 16u + 10u + part], a5);
                a5 = fma(vec4<f32>(p6), sh_v[(j + 6u) * 16u + 10u + part], a5);
                a5 = fma(vec4<f32>(p7), sh_v[(j + 7u) * 16u + 10u + part], a5);
                a6 = fma(vec4<f32>(p0), sh_v[(j + 0u) * 16u + 12u + part], a6);
                a6 = fma(vec4<f32>(p1), sh_v[(j + 1u) * 16u + 12u + part], a6);
                a6 = fma(vec4<f32>(p2), sh_v[(j + 2u) * 16u + 12u + part], a6);
                a6 = fma(vec4<f32>(p3), sh_v[(j + 3u) * 16u + 12u + part], a6);
                a6 = fma(vec4<f32>(p4), sh_v[(j + 4u) * 16u + 12u + part], a6);
                a6 = fma(vec4<f32>(p5), sh_v[(j + 5u) * 16u + 12u + part], a6);
                a6 = fma(vec4<f32>(p6), sh_v[(j + 6u) * 16u + 12u + part], a6);
                a6 = fma(vec4<f32>(p7), sh_v[(j + 7u) * 16u + 12u + part], a6);
                a7 = fma(vec4<f32>(p0), sh_v[(j + 0u) * 16u + 14u + part], a7);
                a7 = fma(vec4<f32>(p1), sh_v[(j + 1u) * 16u + 14u + part], a7);
                a7 = fma(vec4<f32>(p2), sh_v[(j + 2u) * 16u + 14u + part], a7);
                a7 = fma(vec4<f32>(p3), sh_v[(j + 3u) * 16u + 14u + part], a7);
                a7 = fma(vec4<f32>(p4), sh_v[(j + 4u) * 16u + 14u + part], a7);
                a7 = fma(vec4<f32>(p5), sh_v[(j + 5u) * 16u + 14u + part], a7);
                a7 = fma(vec4<f32>(p6), sh_v[(j + 6u) * 16u + 14u + part], a7);
                a7 = fma(vec4<f32>(p7), sh_v[(j + 7u) * 16u + 14u + part], a7);
            }
        }
        let norm = 1.0 / sum;
        if (row < dims.q_rows) {
            o[at + 0u + part] = a0 * norm;
            o[at + 2u + part] = a1 * norm;
            o[at + 4u + part] = a2 * norm;
            o[at + 6u + part] = a3 * norm;
            o[at + 8u + part] = a4 * norm;
            o[at + 10u + part] = a5 * norm;
            o[at + 12u + part] = a6 * norm;
            o[at + 14u + part] = a7 * norm;
            if (part == 0u) { stat[head_rows + query] = vec2<f32>(largest + log2(sum), 0.0); }
        }
    }
}
