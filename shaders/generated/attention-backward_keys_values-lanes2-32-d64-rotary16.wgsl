// Generated: attention-backward_keys_values-lanes2-32-d64-rotary16. Causal attention: dk_j = sum_i ds_ij q_i, dv_j = sum_i p_ij do_i.
// Mapping: one workgroup per (batch, head, tile of 64 rows); 2 lane(s) to a key, holding every 2. vec4.
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
@group(0) @binding(4) var<storage, read> dout: array<vec4<f32>>; // (batch * q_rows, heads * D)
@group(0) @binding(5) var<storage, read> stat: array<vec2<f32>>; // (batch * heads, q_rows): log2 of the sum of a row, <do, o>
@group(0) @binding(6) var<storage, read> rope: array<vec4<f32>>; // (positions, rotary width): cosines, then sines
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f32>>; // (batch * q_rows, heads * D)
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<f32>>; // (batch * q_rows, heads * D)

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
var<workgroup> sh_q: array<vec4<f32>, 512>;
var<workgroup> sh_dout: array<vec4<f32>, 512>;
var<workgroup> sh_stat: array<vec2<f32>, 32>;

@compute @workgroup_size(128)
fn backward_keys_values(
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
        let first = (item % tiles) * 64u;
        let batch = item / tiles / dims.heads;
        let column = (item / tiles) % dims.heads * 16u;
        let head_rows = item / tiles * dims.q_rows; // in stat
        let base = batch * dims.q_rows;
        let row = first + own;
        let key = min(row, dims.q_rows - 1u);
        let at = (base + key) * pitch + column;
        // Queries before this tile of keys do not see it.
        let far_first = first;
        let far_end = dims.q_rows;
        let x0 = vec4<f32>(k_at(at, 0u + part, key)) * 0.18033688;
        let y0 = vec4<f32>(v[at + 0u + part]);
        var a0 = vec4<f32>();
        var c0 = vec4<f32>();
        let x1 = vec4<f32>(k_at(at, 2u + part, key)) * 0.18033688;
        let y1 = vec4<f32>(v[at + 2u + part]);
        var a1 = vec4<f32>();
        var c1 = vec4<f32>();
        let x2 = vec4<f32>(k_at(at, 4u + part, key)) * 0.18033688;
        let y2 = vec4<f32>(v[at + 4u + part]);
        var a2 = vec4<f32>();
        var c2 = vec4<f32>();
        let x3 = vec4<f32>(k_at(at, 6u + part, key)) * 0.18033688;
        let y3 = vec4<f32>(v[at + 6u + part]);
        var a3 = vec4<f32>();
        var c3 = vec4<f32>();
        let x4 = vec4<f32>(k_at(at, 8u + part, key)) * 0.18033688;
        let y4 = vec4<f32>(v[at + 8u + part]);
        var a4 = vec4<f32>();
        var c4 = vec4<f32>();
        let x5 = vec4<f32>(k_at(at, 10u + part, key)) * 0.18033688;
        let y5 = vec4<f32>(v[at + 10u + part]);
        var a5 = vec4<f32>();
        var c5 = vec4<f32>();
        let x6 = vec4<f32>(k_at(at, 12u + part, key)) * 0.18033688;
        let y6 = vec4<f32>(v[at + 12u + part]);
        var a6 = vec4<f32>();
        var c6 = vec4<f32>();
        let x7 = vec4<f32>(k_at(at, 14u + part, key)) * 0.18033688;
        let y7 = vec4<f32>(v[at + 14u + part]);
        var a7 = vec4<f32>();
        var c7 = vec4<f32>();
        for (var block = far_first; block < far_end; block += 32u) {
            workgroupBarrier();
            for (var e = lane; e < 512u; e += 128u) {
                let there = block + e / 16u;
                // Zeros past the end: what a cache holds there is not read.
                let far = min(there, far_end - 1u);
                let start = (base + far) * pitch + column;
                sh_q[e] = select(vec4<f32>(), vec4<f32>(q_at(start, e % 16u, far)), there < far_end);
                sh_dout[e] = select(vec4<f32>(), vec4<f32>(dout[start + e % 16u]), there < far_end);
            }
            if (lane < 32u) {
                let there = block + lane;
                let known = stat[head_rows + min(there, far_end - 1u)];
                sh_stat[lane] = select(vec2<f32>(), known, there < far_end);
            }
            workgroupBarrier();
            let span = min(32u, far_end - block);
            for (var j = 0u; j < span; j += 4u) {
                var s0 = 0.0;
                var t0 = 0.0;
                var s1 = 0.0;
                var t1 = 0.0;
                var s2 = 0.0;
                var t2 = 0.0;
                var s3 = 0.0;
                var t3 = 0.0;
                {
                    let x_0 = sh_q[(j + 0u) * 16u + 0u + part];
                    let y_0 = sh_dout[(j + 0u) * 16u + 0u + part];
                    let x_1 = sh_q[(j + 1u) * 16u + 0u + part];
                    let y_1 = sh_dout[(j + 1u) * 16u + 0u + part];
                    let x_2 = sh_q[(j + 2u) * 16u + 0u + part];
                    let y_2 = sh_dout[(j + 2u) * 16u + 0u + part];
                    let x_3 = sh_q[(j + 3u) * 16u + 0u + part];
                    let y_3 = sh_dout[(j + 3u) * 16u + 0u + part];
                    s0 = fma(x0.x, x_0.x, s0);
                    s0 = fma(x0.y, x_0.y, s0);
                    s0 = fma(x0.z, x_0.z, s0);
                    s0 = fma(x0.w, x_0.w, s0);
                    t0 = fma(y0.x, y_0.x, t0);
                    t0 = fma(y0.y, y_0.y, t0);
                    t0 = fma(y0.z, y_0.z, t0);
                    t0 = fma(y0.w, y_0.w, t0);
                    s1 = fma(x0.x, x_1.x, s1);
                    s1 = fma(x0.y, x_1.y, s1);
                    s1 = fma(x0.z, x_1.z, s1);
                    s1 = fma(x0.w, x_1.w, s1);
                    t1 = fma(y0.x, y_1.x, t1);
                    t1 = fma(y0.y, y_1.y, t1);
                    t1 = fma(y0.z, y_1.z, t1);
                    t1 = fma(y0.w, y_1.w, t1);
                    s2 = fma(x0.x, x_2.x, s2);
                    s2 = fma(x0.y, x_2.y, s2);
                    s2 = fma(x0.z, x_2.z, s2);
                    s2 = fma(x0.w, x_2.w, s2);
                    t2 = fma(y0.x, y_2.x, t2);
                    t2 = fma(y0.y, y_2.y, t2);
                    t2 = fma(y0.z, y_2.z, t2);
                    t2 = fma(y0.w, y_2.w, t2);
                    s3 = fma(x0.x, x_3.x, s3);
                    s3 = fma(x0.y, x_3.y, s3);
                    s3 = fma(x0.z, x_3.z, s3);
                    s3 = fma(x0.w, x_3.w, s3);
                    t3 = fma(y0.x, y_3.x, t3);
                    t3 = fma(y0.y, y_3.y, t3);
                    t3 = fma(y0.z, y_3.z, t3);
                    t3 = fma(y0.w, y_3.w, t3);
                }
                {
                    let x_0 = sh_q[(j + 0u) * 16u + 2u + part];
                    let y_0 = sh_dout[(j + 0u) * 16u + 2u + part];
                    let x_1 = sh_q[(j + 1u) * 16u + 2u + part];
                    let y_1 = sh_dout[(j + 1u) * 16u + 2u + part];
                    let x_2 = sh_q[(j + 2u) * 16u + 2u + part];
                    let y_2 = sh_dout[(j + 2u) * 16u + 2u + part];
                    let x_3 = sh_q[(j + 3u) * 16u + 2u + part];
                    let y_3 = sh_dout[(j + 3u) * 16u + 2u + part];
                    s0 = fma(x1.x, x_0.x, s0);
                    s0 = fma(x1.y, x_0.y, s0);
                    s0 = fma(x1.z, x_0.z, s0);
                    s0 = fma(x1.w, x_0.w, s0);
                    t0 = fma(y1.x, y_0.x, t0);
                    t0 = fma(y1.y, y_0.y, t0);
                    t0 = fma(y1.z, y_0.z, t0);
                    t0 = fma(y1.w, y_0.w, t0);
                    s1 = fma(x1.x, x_1.x, s1);
                    s1 = fma(x1.y, x_1.y, s1);
                    s1 = fma(x1.z, x_1.z, s1);
                    s1 = fma(x1.w, x_1.w, s1);
                    t1 = fma(y1.x, y_1.x, t1);
                    t1 = fma(y1.y, y_1.y, t1);
                    t1 = fma(y1.z, y_1.z, t1);
                    t1 = fma(y1.w, y_1.w, t1);
                    s2 = fma(x1.x, x_2.x, s2);
                    s2 = fma(x1.y, x_2.y, s2);
                    s2 = fma(x1.z, x_2.z, s2);
                    s2 = fma(x1.w, x_2.w, s2);
                    t2 = fma(y1.x, y_2.x, t2);
                    t2 = fma(y1.y, y_2.y, t2);
                    t2 = fma(y1.z, y_2.z, t2);
                    t2 = fma(y1.w, y_2.w, t2);
                    s3 = fma(x1.x, x_3.x, s3);
                    s3 = fma(x1.y, x_3.y, s3);
                    s3 = fma(x1.z, x_3.z, s3);
                    s3 = fma(x1.w, x_3.w, s3);
                    t3 = fma(y1.x, y_3.x, t3);
                    t3 = fma(y1.y, y_3.y, t3);
                    t3 = fma(y1.z, y_3.z, t3);
                    t3 = fma(y1.w, y_3.w, t3);
                }
                {
                    let x_0 = sh_q[(j + 0u) * 16u + 4u + part];
                    let y_0 = sh_dout[(j + 0u) * 16u + 4u + part];
                    let x_1 = sh_q[(j + 1u) * 16u + 4u + part];
                    let y_1 = sh_dout[(j + 1u) * 16u + 4u + part];
                    let x_2 = sh_q[(j + 2u) * 16u + 4u + part];
                    let y_2 = sh_dout[(j + 2u) * 16u + 4u + part];
                    let x_3 = sh_q[(j + 3u) * 16u + 4u + part];
                    let y_3 = sh_dout[(j + 3u) * 16u + 4u + part];
                    s0 = fma(x2.x, x_0.x, s0);
                    s0 = fma(x2.y, x_0.y, s0);
                    s0 = fma(x2.z, x_0.z, s0);
                    s0 = fma(x2.w, x_0.w, s0);
                    t0 = fma(y2.x, y_0.x, t0);
                    t0 = fma(y2.y, y_0.y, t0);
                    t0 = fma(y2.z, y_0.z, t0);
                    t0 = fma(y2.w, y_0.w, t0);
                    s1 = fma(x2.x, x_1.x, s1);
                    s1 = fma(x2.y, x_1.y, s1);
                    s1 = fma(x2.z, x_1.z, s1);
                    s1 = fma(x2.w, x_1.w, s1);
                    t1 = fma(y2.x, y_1.x, t1);
                    t1 = fma(y2.y, y_1.y, t1);
                    t1 = fma(y2.z, y_1.z, t1);
                    t1 = fma(y2.w, y_1.w, t1);
                    s2 = fma(x2.x, x_2.x, s2);
                    s2 = fma(x2.y, x_2.y, s2);
                    s2 = fma(x2.z, x_2.z, s2);
                    s2 = fma(x2.w, x_2.w, s2);
                    t2 = fma(y2.x, y_2.x, t2);
                    t2 = fma(y2.y, y_2.y, t2);
                    t2 = fma(y2.z, y_2.z, t2);
                    t2 = fma(y2.w, y_2.w, t2);
                    s3 = fma(x2.x, x_3.x, s3);
                    s3 = fma(x2.y, x_3.y, s3);
                    s3 = fma(x2.z, x_3.z, s3);
                    s3 = fma(x2.w, x_3.w, s3);
                    t3 = fma(y2.x, y_3.x, t3);
                    t3 = fma(y2.y, y_3.y, t3);
                    t3 = fma(y2.z, y_3.z, t3);
                    t3 = fma(y2.w, y_3.w, t3);
                }
                {
                    let x_0 = sh_q[(j + 0u) * 16u + 6u + part];
                    let y_0 = sh_dout[(j + 0u) * 16u + 6u + part];
                    let x_1 = sh_q[(j + 1u) * 16u + 6u + part];
                    let y_1 = sh_dout[(j + 1u) * 16u + 6u + part];
                    let x_2 = sh_q[(j + 2u) * 16u + 6u + part];
                    let y_2 = sh_dout[(j + 2u) * 16u + 6u + part];
                    let x_3 = sh_q[(j + 3u) * 16u + 6u + part];
                    let y_3 = sh_dout[(j + 3u) * 16u + 6u + part];
                    s0 = fma(x3.x, x_0.x, s0);
                    s0 = fma(x3.y, x_0.y, s0);
                    s0 = fma(x3.z, x_0.z, s0);
                    s0 = fma(x3.w, x_0.w, s0);
                    t0 = fma(y3.x, y_0.x, t0);
                    t0 = fma(y3.y, y_0.y, t0);
                    t0 = fma(y3.z, y_0.z, t0);
                    t0 = fma(y3.w, y_0.w, t0);
                    s1 = fma(x3.x, x_1.x, s1);
                    s1 = fma(x3.y, x_1.y, s1);
                    s1 = fma(x3.z, x_1.z, s1);
                    s1 = fma(x3.w, x_1.w, s1);
                    t1 = fma(y3.x, y_1.x, t1);
                    t1 = fma(y3.y, y_1.y, t1);
                    t1 = fma(y3.z, y_1.z, t1);
                    t1 = fma(y3.w, y_1.w, t1);
                    s2 = fma(x3.x, x_2.x, s2);
                    s2 = fma(x3.y, x_2.y, s2);
                    s2 = fma(x3.z, x_2.z, s2);
                    s2 = fma(x3.w, x_2.w, s2);
                    t2 = fma(y3.x, y_2.x, t2);
                    t2 = fma(y3.y, y_2.y, t2);
                    t2 = fma(y3.z, y_2.z, t2);
                    t2 = fma(y3.w, y_2.w, t2);
                    s3 = fma(x3.x, x_3.x, s3);
                    s3 = fma(x3.y, x_3.y, s3);
                    s3 = fma(x3.z, x_3.z, s3);
                    s3 = fma(x3.w, x_3.w, s3);
                    t3 = fma(y3.x, y_3.x, t3);
                    t3 = fma(y3.y, y_3.y, t3);
                    t3 = fma(y3.z, y_3.z, t3);
                    t3 = fma(y3.w, y_3.w, t3);
                }
                {
                    let x_0 = sh_q[(j + 0u) * 16u + 8u + part];
                    let y_0 = sh_dout[(j + 0u) * 16u + 8u + part];
                    let x_1 = sh_q[(j + 1u) * 16u + 8u + part];
                    let y_1 = sh_dout[(j + 1u) * 16u + 8u + part];
                    let x_2 = sh_q[(j + 2u) * 16u + 8u + part];
                    let y_2 = sh_dout[(j + 2u) * 16u + 8u + part];
                    let x_3 = sh_q[(j + 3u) * 16u + 8u + part];
                    let y_3 = sh_dout[(j + 3u) * 16u + 8u + part];
                    s0 = fma(x4.x, x_0.x, s0);
                    s0 = fma(x4.y, x_0.y, s0);
                    s0 = fma(x4.z, x_0.z, s0);
                    s0 = fma(x4.w, x_0.w, s0);
                    t0 = fma(y4.x, y_0.x, t0);
                    t0 = fma(y4.y, y_0.y, t0);
                    t0 = fma(y4.z, y_0.z, t0);
                    t0 = fma(y4.w, y_0.w, t0);
                    s1 = fma(x4.x, x_1.x, s1);
                    s1 = fma(x4.y, x_1.y, s1);
                    s1 = fma(x4.z, x_1.z, s1);
                    s1 = fma(x4.w, x_1.w, s1);
                    t1 = fma(y4.x, y_1.x, t1);
                    t1 = fma(y4.y, y_1.y, t1);
                    t1 = fma(y4.z, y_1.z, t1);
                    t1 = fma(y4.w, y_1.w, t1);
                    s2 = fma(x4.x, x_2.x, s2);
                    s2 = fma(x4.y, x_2.y, s2);
                    s2 = fma(x4.z, x_2.z, s2);
                    s2 = fma(x4.w, x_2.w, s2);
                    t2 = fma(y4.x, y_2.x, t2);
                    t2 = fma(y4.y, y_2.y, t2);
                    t2 = fma(y4.z, y_2.z, t2);
                    t2 = fma(y4.w, y_2.w, t2);
                    s3 = fma(x4.x, x_3.x, s3);
                    s3 = fma(x4.y, x_3.y, s3);
                    s3 = fma(x4.z, x_3.z, s3);
                    s3 = fma(x4.w, x_3.w, s3);
                    t3 = fma(y4.x, y_3.x, t3);
                    t3 = fma(y4.y, y_3.y, t3);
                    t3 = fma(y4.z, y_3.z, t3);
                    t3 = fma(y4.w, y_3.w, t3);
                }
                {
                    let x_0 = sh_q[(j + 0u) * 16u + 10u + part];
                    let y_0 = sh_dout[(j + 0u) * 16u + 10u + part];
                    let x_1 = sh_q[(j + 1u) * 16u + 10u + part];
                    let y_1 = sh_dout[(j + 1u) * 16u + 10u + part];
                    let x_2 = sh_q[(j + 2u) * 16u + 10u + part];
                    let y_2 = sh_dout[(j + 2u) * 16u + 10u + part];
                    let x_3 = sh_q[(j + 3u) * 16u + 10u + part];
                    let y_3 = sh_dout[(j + 3u) * 16u + 10u + part];
                    s0 = fma(x5.x, x_0.x, s0);
                    s0 = fma(x5.y, x_0.y, s0);
                    s0 = fma(x5.z, x_0.z, s0);
                    s0 = fma(x5.w, x_0.w, s0);
                    t0 = fma(y5.x, y_0.x, t0);
                    t0 = fma(y5.y, y_0.y, t0);
                    t0 = fma(y5.z, y_0.z, t0);
                    t0 = fma(y5.w, y_0.w, t0);
                    s1 = fma(x5.x, x_1.x, s1);
                    s1 = fma(x5.y, x_1.y, s1);
                    s1 = fma(x5.z, x_1.z, s1);
                    s1 = fma(x5.w, x_1.w, s1);
                    t1 = fma(y5.x, y_1.x, t1);
                    t1 = fma(y5.y, y_1.y, t1);
                    t1 = fma(y5.z, y_1.z, t1);
                    t1 = fma(y5.w, y_1.w, t1);
                    s2 = fma(x5.x, x_2.x, s2);
                    s2 = fma(x5.y, x_2.y, s2);
                    s2 = fma(x5.z, x_2.z, s2);
                    s2 = fma(x5.w, x_2.w, s2);
                    t2 = fma(y5.x, y_2.x, t2);
                    t2 = fma(y5.y, y_2.y, t2);
                    t2 = fma(y5.z, y_2.z, t2);
                    t2 = fma(y5.w, y_2.w, t2);
                    s3 = fma(x5.x, x_3.x, s3);
                    s3 = fma(x5.y, x_3.y, s3);
                    s3 = fma(x5.z, x_3.z, s3);
                    s3 = fma(x5.w, x_3.w, s3);
                    t3 = fma(y5.x, y_3.x, t3);
                    t3 = fma(y5.y, y_3.y, t3);
                    t3 = fma(y5.z, y_3.z, t3);
                    t3 = fma(y5.w, y_3.w, t3);
                }
                {
                    let x_0 = sh_q[(j + 0u) * 16u + 12u + part];
                    let y_0 = sh_dout[(j + 0u) * 16u + 12u + part];
                    let x_1 = sh_q[(j + 1u) * 16u + 12u + part];
                    let y_1 = sh_dout[(j + 1u) * 16u + 12u + part];
                    let x_2 = sh_q[(j + 2u) * 16u + 12u + part];
                    let y_2 = sh_dout[(j + 2u) * 16u + 12u + part];
                    let x_3 = sh_q[(j + 3u) * 16u + 12u + part];
                    let y_3 = sh_dout[(j + 3u) * 16u + 12u + part];
                    s0 = fma(x6.x, x_0.x, s0);
                    s0 = fma(x6.y, x_0.y, s0);
                    s0 = fma(x6.z, x_0.z, s0);
                    s0 = fma(x6.w, x_0.w, s0);
                    t0 = fma(y6.x, y_0.x, t0);
                    t0 = fma(y6.y, y_0.y, t0);
                    t0 = fma(y6.z, y_0.z, t0);
                    t0 = fma(y6.w, y_0.w, t0);
                    s1 = fma(x6.x, x_1.x, s1);
                    s1 = fma(x6.y, x_1.y, s1);
                    s1 = fma(x6.z, x_1.z, s1);
                    s1 = fma(x6.w, x_1.w, s1);
                    t1 = fma(y6.x, y_1.x, t1);
                    t1 = fma(y6.y, y_1.y, t1);
                    t1 = fma(y6.z, y_1.z, t1);
                    t1 = fma(y6.w, y_1.w, t1);
                    s2 = fma(x6.x, x_2.x, s2);
                    s2 = fma(x6.y, x_2.y, s2);
                    s2 = fma(x6.z, x_2.z, s2);
                    s2 = fma(x6.w, x_2.w, s2);
                    t2 = fma(y6.x, y_2.x, t2);
                    t2 = fma(y6.y, y_2.y, t2);
                    t2 = fma(y6.z, y_2.z, t2);
                    t2 = fma(y6.w, y_2.w, t2);
                    s3 = fma(x6.x, x_3.x, s3);
                    s3 = fma(x6.y, x_3.y, s3);
                    s3 = fma(x6.z, x_3.z, s3);
                    s3 = fma(x6.w, x_3.w, s3);
                    t3 = fma(y6.x, y_3.x, t3);
                    t3 = fma(y6.y, y_3.y, t3);
                    t3 = fma(y6.z, y_3.z, t3);
                    t3 = fma(y6.w, y_3.w, t3);
                }
                {
                    let x_0 = sh_q[(j + 0u) * 16u + 14u + part];
                    let y_0 = sh_dout[(j + 0u) * 16u + 14u + part];
                    let x_1 = sh_q[(j + 1u) * 16u + 14u + part];
                    let y_1 = sh_dout[(j + 1u) * 16u + 14u + part];
                    let x_2 = sh_q[(j + 2u) * 16u + 14u + part];
                    let y_2 = sh_dout[(j + 2u) * 16u + 14u + part];
                    let x_3 = sh_q[(j + 3u) * 16u + 14u + part];
                    let y_3 = sh_dout[(j + 3u) * 16u + 14u + part];
                    s0 = fma(x7.x, x_0.x, s0);
                    s0 = fma(x7.y, x_0.y, s0);
                    s0 = fma(x7.z, x_0.z, s0);
                    s0 = fma(x7.w, x_0.w, s0);
                    t0 = fma(y7.x, y_0.x, t0);
                    t0 = fma(y7.y, y_0.y, t0);
                    t0 = fma(y7.z, y_0.z, t0);
                    t0 = fma(y7.w, y_0.w, t0);
                    s1 = fma(x7.x, x_1.x, s1);
                    s1 = fma(x7.y, x_1.y, s1);
                    s1 = fma(x7.z, x_1.z, s1);
                    s1 = fma(x7.w, x_1.w, s1);
                    t1 = fma(y7.x, y_1.x, t1);
                    t1 = fma(y7.y, y_1.y, t1);
                    t1 = fma(y7.z, y_1.z, t1);
                    t1 = fma(y7.w, y_1.w, t1);
                    s2 = fma(x7.x, x_2.x, s2);
                    s2 = fma(x7.y, x_2.y, s2);
                    s2 = fma(x7.z, x_2.z, s2);
                    s2 = fma(x7.w, x_2.w, s2);
                    t2 = fma(y7.x, y_2.x, t2);
                    t2 = fma(y7.y, y_2.y, t2);
                    t2 = fma(y7.z, y_2.z, t2);
                    t2 = fma(y7.w, y_2.w, t2);
                    s3 = fma(x7.x, x_3.x, s3);
                    s3 = fma(x7.y, x_3.y, s3);
                    s3 = fma(x7.z, x_3.z, s3);
                    s3 = fma(x7.w, x_3.w, s3);
                    t3 = fma(y7.x, y_3.x, t3);
                    t3 = fma(y7.y, y_3.y, t3);
                    t3 = fma(y7.z, y_3.z, t3);
                    t3 = fma(y7.w, y_3.w, t3);
                }
                s0 += subgroupShuffleXor(s0, 1u);
                s1 += subgroupShuffleXor(s1, 1u);
                s2 += subgroupShuffleXor(s2, 1u);
                s3 += subgroupShuffleXor(s3, 1u);
                t0 += subgroupShuffleXor(t0, 1u);
                t1 += subgroupShuffleXor(t1, 1u);
                t2 += subgroupShuffleXor(t2, 1u);
                t3 += subgroupShuffleXor(t3, 1u);
                let stat0 = sh_stat[j + 0u];
                let p0 = select(0.0, exp2(min(s0 - stat0.x, 0.0)), block + j + 0u >= key);
                let e0 = p0 * (t0 - stat0.y);
                let stat1 = sh_stat[j + 1u];
                let p1 = select(0.0, exp2(min(s1 - stat1.x, 0.0)), block + j + 1u >= key);
                let e1 = p1 * (t1 - stat1.y);
                let stat2 = sh_stat[j + 2u];
                let p2 = select(0.0, exp2(min(s2 - stat2.x, 0.0)), block + j + 2u >= key);
                let e2 = p2 * (t2 - stat2.y);
                let stat3 = sh_stat[j + 3u];
                let p3 = select(0.0, exp2(min(s3 - stat3.x, 0.0)), block + j + 3u >= key);
                let e3 = p3 * (t3 - stat3.y);
                a0 = fma(vec4<f32>(e0), sh_q[(j + 0u) * 16u + 0u + part], a0);
                c0 = fma(vec4<f32>(p0), sh_dout[(j + 0u) * 16u + 0u + part], c0);
                a0 = fma(vec4<f32>(e1), sh_q[(j + 1u) * 16u + 0u + part], a0);
                c0 = fma(vec4<f32>(p1), sh_dout[(j + 1u) * 16u + 0u + part], c0);
                a0 = fma(vec4<f32>(e2), sh_q[(j + 2u) * 16u + 0u + part], a0);
                c0 = fma(vec4<f32>(p2), sh_dout[(j + 2u) * 16u + 0u + part], c0);
                a0 = fma(vec4<f32>(e3), sh_q[(j + 3u) * 16u + 0u + part], a0);
                c0 = fma(vec4<f32>(p3), sh_dout[(j + 3u) * 16u + 0u + part], c0);
                a1 = fma(vec4<f32>(e0), sh_q[(j + 0u) * 16u + 2u + part], a1);
                c1 = fma(vec4<f32>(p0), sh_dout[(j + 0u) * 16u + 2u + part], c1);
                a1 = fma(vec4<f32>(e1), sh_q[(j + 1u) * 16u + 2u + part], a1);
                c1 = fma(vec4<f32>(p1), sh_dout[(j + 1u) * 16u + 2u + part], c1);
                a1 = fma(vec4<f32>(e2), sh_q[(j + 2u) * 16u + 2u + part], a1);
                c1 = fma(vec4<f32>(p2), sh_dout[(j + 2u) * 16u + 2u + part], c1);
                a1 = fma(vec4<f32>(e3), sh_q[(j + 3u) * 16u + 2u + part], a1);
                c1 = fma(vec4<f32>(p3), sh_dout[(j + 3u) * 16u + 2u + part], c1);
                a2 = fma(vec4<f32>(e0), sh_q[(j + 0u) * 16u + 4u + part], a2);
                c2 = fma(vec4<f32>(p0), sh_dout[(j + 0u) * 16u + 4u + part], c2);
                a2 = fma(vec4<f32>(e1), sh_q[(j + 1u) * 16u + 4u + part], a2);
                c2 = fma(vec4<f32>(p1), sh_dout[(j + 1u) * 16u + 4u + part], c2);
                a2 = fma(vec4<f32>(e2), sh_q[(j + 2u) * 16u + 4u + part], a2);
                c2 = fma(vec4<f32>(p2), sh_dout[(j + 2u) * 16u + 4u + part], c2);
                a2 = fma(vec4<f32>(e3), sh_q[(j + 3u) * 16u + 4u + part], a2);
                c2 = fma(vec4<f32>(p3), sh_dout[(j + 3u) * 16u + 4u + part], c2);
                a3 = fma(vec4<f32>(e0), sh_q[(j + 0u) * 16u + 6u + part], a3);
                c3 = fma(vec4<f32>(p0), sh_dout[(j + 0u) * 16u + 6u + part], c3);
                a3 = fma(vec4<f32>(e1), sh_q[(j + 1u) * 16u + 6u + part], a3);
                c3 = fma(vec4<f32>(p1), sh_dout[(j + 1u) * 16u + 6u + part], c3);
                a3 = fma(vec4<f32>(e2), sh_q[(j + 2u) * 16u + 6u + part], a3);
                c3 = fma(vec4<f32>(p2), sh_dout[(j + 2u) * 16u + 6u + part], c3);
                a3 = fma(vec4<f32>(e3), sh_q[(j + 3u) * 16u + 6u + part], a3);
                c3 = fma(vec4<f32>(p3), sh_dout[(j + 3u) * 16u + 6u + part], c3);
                a4 = fma(vec4<f32>(e0), sh_q[(j + 0u) * 16u + 8u + part], a4);
                c4 = fma(vec4<f32>(p0), sh_dout[(j + 0u) * 16u + 8u + part], c4);
                a4 = fma(vec4<f32>(e1), sh_q[(j + 1u) * 16u + 8u + part], a4);
                c4 = fma(vec4<f32>(p1), sh_dout[(j + 1u) * 16u + 8u + part], c4);
                a4 = fma(vec4<f32>(e2), sh_q[(j + 2u) * 16u + 8u + part], a4);
                c4 = fma(vec4<f32>(p2), sh_dout[(j + 2u) * 16u + 8u + part], c4);
                a4 = fma(vec4<f32>(e3), sh_q[(j + 3u) * 16u + 8u + part], a4);
                c4 = fma(vec4<f32>(p3), sh_dout[(j + 3u) * 16u + 8u + part], c4);
                a5 = fma(vec4<f32>(e0), sh_q[(j + 0u) * 16u + 10u + part], a5);
                c5 = fma(vec4<f32>(p0), sh_dout[(j + 0u) * 16u + 10u + part], c5);
                a5 = fma(vec4<f32>(e1), sh_q[(j + 1u) * 16u + 10u + part], a5);
                c5 = fma(vec4<f32>(p1), sh_dout[(j + 1u) * 16u + 10u + part], c5);
                a5 = fma(vec4<f32>(e2), sh_q[(j + 2u) * 16u + 10u + part], a5);
                c5 = fma(vec4<f32>(p2), sh_dout[(j + 2u) * 16u + 10u + part], c5);
                a5 = fma(vec4<f32>(e3), sh_q[(j + 3u) * 16u + 10u + part], a5);
                c5 = fma(vec4<f32>(p3), sh_dout[(j + 3u) * 16u + 10u + part], c5);
                a6 = fma(vec4<f32>(e0), sh_q[(j + 0u) * 16u + 12u + part], a6);
                c6 = fma(vec4<f32>(p0), sh_dout[(j + 0u) * 16u + 12u + part], c6);
                a6 = fma(vec4<f32>(e1), sh_q[(j + 1u) * 16u + 12u + part], a6);
                c6 = fma(vec4<f32>(p1), sh_dout[(j + 1u) * 16u + 12u + part], c6);
                a6 = fma(vec4<f32>(e2), sh_q[(j + 2u) * 16u + 12u + part], a6);
                c6 = fma(vec4<f32>(p2), sh_dout[(j + 2u) * 16u + 12u + part], c6);
                a6 = fma(vec4<f32>(e3), sh_q[(j + 3u) * 16u + 12u + part], a6);
                c6 = fma(vec4<f32>(p3), sh_dout[(j + 3u) * 16u + 12u + part], c6);
                a7 = fma(vec4<f32>(e0), sh_q[(j + 0u) * 16u + 14u + part], a7);
                c7 = fma(vec4<f32>(p0), sh_dout[(j + 0u) * 16u + 14u + part], c7);
                a7 = fma(vec4<f32>(e1), sh_q[(j + 1u) * 16u + 14u + part], a7);
                c7 = fma(vec4<f32>(p1), sh_dout[(j + 1u) * 16u + 14u + part], c7);
                a7 = fma(vec4<f32>(e2), sh_q[(j + 2u) * 16u + 14u + part], a7);
                c7 = fma(vec4<f32>(p2), sh_dout[(j + 2u) * 16u + 14u + part], c7);
                a7 = fma(vec4<f32>(e3), sh_q[(j + 3u) * 16u + 14u + part], a7);
                c7 = fma(vec4<f32>(p3), sh_dout[(j + 3u) * 16u + 14u + part], c7);
            }
        }
        if (row < dims.q_rows) {
            {
                let entry = key * 4u + 0u + part;
                let x = a0 * 0.125;
                let y = a1 * 0.125;
                dk[at + 0u + part] = fma(x, rope[entry], y * rope[entry + 2u]);
                dk[at + 2u + part] = fma(y, rope[entry], -(x * rope[entry + 2u]));
            }
            dk[at + 4u + part] = a2 * 0.125;
            dk[at + 6u + part] = a3 * 0.125;
            dk[at + 8u + part] = a4 * 0.125;
            dk[at + 10u + part] = a5 * 0.125;
            dk[at + 12u + part] = a6 * 0.125;
            dk[at + 14u + part] = a7 * 0.125;
            dv[at + 0u + part] = c0;
            dv[at + 2u + part] = c1;
            dv[at + 4u + part] = c2;
            dv[at + 6u + part] = c3;
            dv[at + 8u + part] = c4;
            dv[at + 10u + part] = c5;
            dv[at + 12u + part] = c6;
            dv[at + 14u + part] = c7;
        }
    }
}
