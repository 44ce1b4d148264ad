// Causal attention without a T x T matrix: online softmax forward, backward from the saved log-sum.
//
// p_ij = exp(scale <q_i, k_j> - lse_i) for j <= i,  o_i = sum_j p_ij v_j
// ds_ij = p_ij (<do_i, v_j> - delta_i) scale,  delta_i = <do_i, o_i>
// dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dv_j = sum_i p_ij do_i
// Mapping: one workgroup per (batch, head, tile of 8 rows held as two vec4), which walks the other side 64
// rows at a time: lanes are those rows for the scores, then channels for the sums over them.
// Order of summation: ascending, independent of tile and grid; hidden keys add exact zeros. So a row has
// the same bits in a full pass and in any chunk over a cache.
// Writes: overwrite (outputs hold partial sums in between).
// Limits: head width <= 128; query i of a run stands at position run.position + i, keys at 0, 1, ...

override LANES: u32 = 64;
const TILE = 8u;
const SPAN = 64u;
const HIDDEN = -1.0e30; // the score of a key that must not be seen

struct Dims {
    batch: u32,
    heads: u32,
    head_width: u32,
    q_rows: u32,
    kv_rows: u32, // rows per sequence of k and v: q_rows, or the capacity of a cache
    scale: f32,
}

struct Run {
    position: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> q: array<f32>; // (batch * q_rows, heads * head_width)
@group(0) @binding(2) var<storage, read> k: array<f32>; // (batch * kv_rows, heads * head_width)
@group(0) @binding(3) var<storage, read> v: array<f32>; // (batch * kv_rows, heads * head_width)

@group(0) @binding(4) var<uniform> run: Run;
@group(0) @binding(5) var<storage, read_write> o: array<f32>; // (batch * q_rows, heads * head_width)
@group(0) @binding(6) var<storage, read_write> lse: array<f32>; // (batch * q_rows, heads)

@group(0) @binding(4) var<storage, read> dout: array<f32>; // (batch * q_rows, heads * head_width)
@group(0) @binding(5) var<storage, read> saved_lse: array<f32>; // (batch * q_rows, heads)
@group(0) @binding(6) var<storage, read> delta: array<f32>; // (batch * q_rows, heads)
@group(0) @binding(7) var<storage, read_write> dq: array<f32>; // as q
@group(0) @binding(7) var<storage, read_write> dk: array<f32>; // as k
@group(0) @binding(8) var<storage, read_write> dv: array<f32>; // as v

@group(0) @binding(1) var<storage, read> out: array<f32>; // (batch * q_rows, heads * head_width)
@group(0) @binding(2) var<storage, read> dout_delta: array<f32>; // as out
@group(0) @binding(3) var<storage, read_write> delta_out: array<f32>; // (batch * q_rows, heads)

// The tile's own rows by channel, and its scores by row of the other side; rows 0-3 and 4-7 of the tile.
var<workgroup> sh_own0: array<vec4<f32>, 128>;
var<workgroup> sh_own1: array<vec4<f32>, 128>;
var<workgroup> sh_also0: array<vec4<f32>, 128>;
var<workgroup> sh_also1: array<vec4<f32>, 128>;
var<workgroup> sh_p0: array<vec4<f32>, 64>;
var<workgroup> sh_p1: array<vec4<f32>, 64>;
var<workgroup> sh_ds0: array<vec4<f32>, 64>;
var<workgroup> sh_ds1: array<vec4<f32>, 64>;
var<workgroup> sh_lane0: array<vec4<f32>, LANES>;
var<workgroup> sh_lane1: array<vec4<f32>, LANES>;

struct Pair {
    low: vec4<f32>, // rows 0-3 of the tile
    high: vec4<f32>, // rows 4-7
}

// Offset of channel 0 of `head` in a row of a (rows, heads * head_width) matrix.
fn channel(row: u32, head: u32) -> u32 {
    return (row * dims.heads + head) * dims.head_width;
}

// Largest of each row over the lanes. Call in uniform control flow.
fn tile_max(lane: u32, mine: Pair) -> Pair {
    workgroupBarrier();
    sh_lane0[lane] = mine.low;
    sh_lane1[lane] = mine.high;
    workgroupBarrier();
    var all = mine;
    for (var i = 0u; i < LANES; i++) {
        all.low = max(all.low, sh_lane0[i]);
        all.high = max(all.high, sh_lane1[i]);
    }
    return all;
}

// Sum of each row over the rows of sh_p0 and sh_p1, ascending; the same in every lane.
fn span_sum(count: u32) -> Pair {
    var sum = Pair(vec4<f32>(), vec4<f32>());
    for (var j = 0u; j < count; j++) {
        sum.low += sh_p0[j];
        sum.high += sh_p1[j];
    }
    return sum;
}

// Rows of the tile, as row numbers of the whole tensor, the last one repeated past the end.
fn tile_rows(base: u32, first: u32) -> array<u32, 8> {
    let last = dims.q_rows - 1u;
    return array<u32, 8>(
        base + min(first, last), base + min(first + 1u, last), base + min(first + 2u, last),
        base + min(first + 3u, last), base + min(first + 4u, last), base + min(first + 5u, last),
        base + min(first + 6u, last), base + min(first + 7u, last),
    );
}

// exp of a difference that is at most 0 up to rounding; far below, 0 without an underflow.
fn weight(x: vec4<f32>) -> vec4<f32> {
    return select(exp(clamp(x, vec4<f32>(-80.0), vec4<f32>(0.0))), vec4<f32>(), x < vec4<f32>(-80.0));
}

@compute @workgroup_size(LANES)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (dims.q_rows + TILE - 1u) / TILE;
    let width = dims.head_width;
    for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {
        let first = (item % tiles) * TILE;
        let head = (item / tiles) % dims.heads;
        let batch = item / (tiles * dims.heads);
        let kv_base = batch * dims.kv_rows;
        let rows = tile_rows(batch * dims.q_rows, first);
        let at = array<u32, 8>(
            channel(rows[0], head), channel(rows[1], head), channel(rows[2], head), channel(rows[3], head),
            channel(rows[4], head), channel(rows[5], head), channel(rows[6], head), channel(rows[7], head),
        );
        let position = vec4<u32>(run.position + first) + vec4<u32>(0u, 1u, 2u, 3u);
        let keys = run.position + min(first + TILE, dims.q_rows);
        workgroupBarrier();
        for (var d = lane; d < width; d += LANES) {
            sh_own0[d] = vec4<f32>(q[at[0] + d], q[at[1] + d], q[at[2] + d], q[at[3] + d]);
            sh_own1[d] = vec4<f32>(q[at[4] + d], q[at[5] + d], q[at[6] + d], q[at[7] + d]);
        }
        workgroupBarrier();
        var largest = Pair(vec4<f32>(HIDDEN), vec4<f32>(HIDDEN));
        var sum = Pair(vec4<f32>(), vec4<f32>());
        for (var j0 = 0u; j0 < keys; j0 += SPAN) {
            let span = min(SPAN, keys - j0);
            var mine = largest;
            for (var j = lane; j < SPAN; j += LANES) {
                let key = j0 + j;
                let k_at = channel(kv_base + min(key, keys - 1u), head);
                var s0 = vec4<f32>();
                var s1 = vec4<f32>();
                for (var d = 0u; d < width; d++) {
                    let k_value = vec4<f32>(k[k_at + d]);
                    s0 = fma(sh_own0[d], k_value, s0);
                    s1 = fma(sh_own1[d], k_value, s1);
                }
                let seen = key < keys;
                s0 = select(vec4<f32>(HIDDEN), s0 * dims.scale, vec4<bool>(seen) & (vec4<u32>(key) <= position));
                s1 = select(vec4<f32>(HIDDEN), s1 * dims.scale, vec4<bool>(seen) & (vec4<u32>(key) <= position + 4u));
                sh_p0[j] = s0;
                sh_p1[j] = s1;
                mine.low = max(mine.low, s0);
                mine.high = max(mine.high, s1);
            }
            let now = tile_max(lane, mine);
            let shrink = Pair(weight(largest.low - now.low), weight(largest.high - now.high));
            largest = now;
            for (var j = lane; j < SPAN; j += LANES) {
                sh_p0[j] = weight(sh_p0[j] - largest.low);
                sh_p1[j] = weight(sh_p1[j] - largest.high);
            }
            workgroupBarrier();
            let added = span_sum(span);
            sum.low = fma(sum.low, shrink.low, added.low);
            sum.high = fma(sum.high, shrink.high, added.high);
            let last = j0 + SPAN >= keys;
            let norm0 = select(vec4<f32>(1.0), 1.0 / sum.low, last);
            let norm1 = select(vec4<f32>(1.0), 1.0 / sum.high, last);
            for (var d = lane; d < width; d += LANES) {
                var o0 = vec4<f32>();
                var o1 = vec4<f32>();
                if (j0 > 0u) {
                    o0 = shrink.low * vec4<f32>(o[at[0] + d], o[at[1] + d], o[at[2] + d], o[at[3] + d]);
                    o1 = shrink.high * vec4<f32>(o[at[4] + d], o[at[5] + d], o[at[6] + d], o[at[7] + d]);
                }
                for (var j = 0u; j < span; j++) {
                    let v_value = vec4<f32>(v[channel(kv_base + j0 + j, head) + d]);
                    o0 = fma(sh_p0[j], v_value, o0);
                    o1 = fma(sh_p1[j], v_value, o1);
                }
                o0 *= norm0;
                o1 *= norm1;
                // Past the end rows repeat; the last real row is written last, by its own value.
                if (first + 7u < dims.q_rows) { o[at[7] + d] = o1.w; }
                if (first + 6u < dims.q_rows) { o[at[6] + d] = o1.z; }
                if (first + 5u < dims.q_rows) { o[at[5] + d] = o1.y; }
                if (first + 4u < dims.q_rows) { o[at[4] + d] = o1.x; }
                if (first + 3u < dims.q_rows) { o[at[3] + d] = o0.w; }
                if (first + 2u < dims.q_rows) { o[at[2] + d] = o0.z; }
                if (first + 1u < dims.q_rows) { o[at[1] + d] = o0.y; }
                o[at[0] + d] = o0.x;
            }
            workgroupBarrier();
        }
        if (lane == 0u) {
            let l0 = largest.low + log(sum.low);
            let l1 = largest.high + log(sum.high);
            if (first + 7u < dims.q_rows) { lse[rows[7] * dims.heads + head] = l1.w; }
            if (first + 6u < dims.q_rows) { lse[rows[6] * dims.heads + head] = l1.z; }
            if (first + 5u < dims.q_rows) { lse[rows[5] * dims.heads + head] = l1.y; }
            if (first + 4u < dims.q_rows) { lse[rows[4] * dims.heads + head] = l1.x; }
            if (first + 3u < dims.q_rows) { lse[rows[3] * dims.heads + head] = l0.w; }
            if (first + 2u < dims.q_rows) { lse[rows[2] * dims.heads + head] = l0.z; }
            if (first + 1u < dims.q_rows) { lse[rows[1] * dims.heads + head] = l0.y; }
            lse[rows[0] * dims.heads + head] = l0.x;
        }
    }
}

// out = o, one (row, head) per invocation.
@compute @workgroup_size(64)
fn backward_delta(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.batch * dims.q_rows * dims.heads; i += groups.x * 64u) {
        var sum = 0.0;
        for (var d = 0u; d < dims.head_width; d++) {
            sum = fma(out[i * dims.head_width + d], dout_delta[i * dims.head_width + d], sum);
        }
        delta_out[i] = sum;
    }
}

@compute @workgroup_size(LANES)
fn backward_queries(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (dims.q_rows + TILE - 1u) / TILE;
    let width = dims.head_width;
    let heads = dims.heads;
    for (var item = group.x; item < dims.batch * heads * tiles; item += groups.x) {
        let first = (item % tiles) * TILE;
        let head = (item / tiles) % heads;
        let base = (item / (tiles * heads)) * dims.q_rows;
        let rows = tile_rows(base, first);
        let at = array<u32, 8>(
            channel(rows[0], head), channel(rows[1], head), channel(rows[2], head), channel(rows[3], head),
            channel(rows[4], head), channel(rows[5], head), channel(rows[6], head), channel(rows[7], head),
        );
        let stat = array<u32, 8>(
            rows[0] * heads + head, rows[1] * heads + head, rows[2] * heads + head, rows[3] * heads + head,
            rows[4] * heads + head, rows[5] * heads + head, rows[6] * heads + head, rows[7] * heads + head,
        );
        let lse0 = vec4<f32>(saved_lse[stat[0]], saved_lse[stat[1]], saved_lse[stat[2]], saved_lse[stat[3]]);
        let lse1 = vec4<f32>(saved_lse[stat[4]], saved_lse[stat[5]], saved_lse[stat[6]], saved_lse[stat[7]]);
        let delta0 = vec4<f32>(delta[stat[0]], delta[stat[1]], delta[stat[2]], delta[stat[3]]);
        let delta1 = vec4<f32>(delta[stat[4]], delta[stat[5]], delta[stat[6]], delta[stat[7]]);
        let position = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
        let keys = min(first + TILE, dims.q_rows);
        workgroupBarrier();
        for (var d = lane; d < width; d += LANES) {
            sh_own0[d] = vec4<f32>(q[at[0] + d], q[at[1] + d], q[at[2] + d], q[at[3] + d]);
            sh_own1[d] = vec4<f32>(q[at[4] + d], q[at[5] + d], q[at[6] + d], q[at[7] + d]);
            sh_also0[d] = vec4<f32>(dout[at[0] + d], dout[at[1] + d], dout[at[2] + d], dout[at[3] + d]);
            sh_also1[d] = vec4<f32>(dout[at[4] + d], dout[at[5] + d], dout[at[6] + d], dout[at[7] + d]);
        }
        workgroupBarrier();
        for (var j0 = 0u; j0 < keys; j0 += SPAN) {
            for (var j = lane; j < SPAN; j += LANES) {
                let key = j0 + j;
                let k_at = channel(base + min(key, keys - 1u), head);
                var s0 = vec4<f32>();
                var s1 = vec4<f32>();
                var dp0 = vec4<f32>();
                var dp1 = vec4<f32>();
                for (var d = 0u; d < width; d++) {
                    let k_value = vec4<f32>(k[k_at + d]);
                    let v_value = vec4<f32>(v[k_at + d]);
                    s0 = fma(sh_own0[d], k_value, s0);
                    s1 = fma(sh_own1[d], k_value, s1);
                    dp0 = fma(sh_also0[d], v_value, dp0);
                    dp1 = fma(sh_also1[d], v_value, dp1);
                }
                let seen = key < keys;
                let ds0 = weight(s0 * dims.scale - lse0) * (dp0 - delta0) * dims.scale;
                let ds1 = weight(s1 * dims.scale - lse1) * (dp1 - delta1) * dims.scale;
                sh_ds0[j] = select(vec4<f32>(), ds0, vec4<bool>(seen) & (vec4<u32>(key) <= position));
                sh_ds1[j] = select(vec4<f32>(), ds1, vec4<bool>(seen) & (vec4<u32>(key) <= position + 4u));
            }
            workgroupBarrier();
            let span = min(SPAN, keys - j0);
            for (var d = lane; d < width; d += LANES) {
                var dq0 = vec4<f32>();
                var dq1 = vec4<f32>();
                if (j0 > 0u) {
                    dq0 = vec4<f32>(dq[at[0] + d], dq[at[1] + d], dq[at[2] + d], dq[at[3] + d]);
                    dq1 = vec4<f32>(dq[at[4] + d], dq[at[5] + d], dq[at[6] + d], dq[at[7] + d]);
                }
                for (var j = 0u; j < span; j++) {
                    let k_value = vec4<f32>(k[channel(base + j0 + j, head) + d]);
                    dq0 = fma(sh_ds0[j], k_value, dq0);
                    dq1 = fma(sh_ds1[j], k_value, dq1);
                }
                if (first + 7u < dims.q_rows) { dq[at[7] + d] = dq1.w; }
                if (first + 6u < dims.q_rows) { dq[at[6] + d] = dq1.z; }
                if (first + 5u < dims.q_rows) { dq[at[5] + d] = dq1.y; }
                if (first + 4u < dims.q_rows) { dq[at[4] + d] = dq1.x; }
                if (first + 3u < dims.q_rows) { dq[at[3] + d] = dq0.w; }
                if (first + 2u < dims.q_rows) { dq[at[2] + d] = dq0.z; }
                if (first + 1u < dims.q_rows) { dq[at[1] + d] = dq0.y; }
                dq[at[0] + d] = dq0.x;
            }
            workgroupBarrier();
        }
    }
}

@compute @workgroup_size(LANES)
fn backward_keys_values(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (dims.q_rows + TILE - 1u) / TILE;
    let width = dims.head_width;
    for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {
        let first = (item % tiles) * TILE;
        let head = (item / tiles) % dims.heads;
        let base = (item / (tiles * dims.heads)) * dims.q_rows;
        let rows = tile_rows(base, first);
        let at = array<u32, 8>(
            channel(rows[0], head), channel(rows[1], head), channel(rows[2], head), channel(rows[3], head),
            channel(rows[4], head), channel(rows[5], head), channel(rows[6], head), channel(rows[7], head),
        );
        let key = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
        workgroupBarrier();
        for (var d = lane; d < width; d += LANES) {
            sh_own0[d] = vec4<f32>(k[at[0] + d], k[at[1] + d], k[at[2] + d], k[at[3] + d]);
            sh_own1[d] = vec4<f32>(k[at[4] + d], k[at[5] + d], k[at[6] + d], k[at[7] + d]);
            sh_also0[d] = vec4<f32>(v[at[0] + d], v[at[1] + d], v[at[2] + d], v[at[3] + d]);
            sh_also1[d] = vec4<f32>(v[at[4] + d], v[at[5] + d], v[at[6] + d], v[at[7] + d]);
        }
        workgroupBarrier();
        // Queries before this tile of keys do not see it.
        for (var i0 = first; i0 < dims.q_rows; i0 += SPAN) {
            for (var i = lane; i < SPAN; i += LANES) {
                let query = i0 + i;
                let row = base + min(query, dims.q_rows - 1u);
                let q_at = channel(row, head);
                var s0 = vec4<f32>();
                var s1 = vec4<f32>();
                var dp0 = vec4<f32>();
                var dp1 = vec4<f32>();
                for (var d = 0u; d < width; d++) {
                    let q_value = vec4<f32>(q[q_at + d]);
                    let do_value = vec4<f32>(dout[q_at + d]);
                    s0 = fma(sh_own0[d], q_value, s0);
                    s1 = fma(sh_own1[d], q_value, s1);
                    dp0 = fma(sh_also0[d], do_value, dp0);
                    dp1 = fma(sh_also1[d], do_value, dp1);
                }
                let row_lse = vec4<f32>(saved_lse[row * dims.heads + head]);
                let row_delta = vec4<f32>(delta[row * dims.heads + head]);
                let exists = vec4<bool>(query < dims.q_rows);
                let p0 = select(vec4<f32>(), weight(s0 * dims.scale - row_lse), exists & (key <= vec4<u32>(query)));
                let p1 = select(vec4<f32>(), weight(s1 * dims.scale - row_lse), exists & (key + 4u <= vec4<u32>(query)));
                sh_p0[i] = p0;
                sh_p1[i] = p1;
                sh_ds0[i] = p0 * (dp0 - row_delta) * dims.scale;
                sh_ds1[i] = p1 * (dp1 - row_delta) * dims.scale;
            }
            workgroupBarrier();
            let span = min(SPAN, dims.q_rows - i0);
            for (var d = lane; d < width; d += LANES) {
                var dk0 = vec4<f32>();
                var dk1 = vec4<f32>();
                var dv0 = vec4<f32>();
                var dv1 = vec4<f32>();
                if (i0 > first) {
                    dk0 = vec4<f32>(dk[at[0] + d], dk[at[1] + d], dk[at[2] + d], dk[at[3] + d]);
                    dk1 = vec4<f32>(dk[at[4] + d], dk[at[5] + d], dk[at[6] + d], dk[at[7] + d]);
                    dv0 = vec4<f32>(dv[at[0] + d], dv[at[1] + d], dv[at[2] + d], dv[at[3] + d]);
                    dv1 = vec4<f32>(dv[at[4] + d], dv[at[5] + d], dv[at[6] + d], dv[at[7] + d]);
                }
                for (var i = 0u; i < span; i++) {
                    let q_at = channel(base + i0 + i, head) + d;
                    let q_value = vec4<f32>(q[q_at]);
                    let do_value = vec4<f32>(dout[q_at]);
                    dk0 = fma(sh_ds0[i], q_value, dk0);
                    dk1 = fma(sh_ds1[i], q_value, dk1);
                    dv0 = fma(sh_p0[i], do_value, dv0);
                    dv1 = fma(sh_p1[i], do_value, dv1);
                }
                if (first + 7u < dims.q_rows) { dk[at[7] + d] = dk1.w; dv[at[7] + d] = dv1.w; }
                if (first + 6u < dims.q_rows) { dk[at[6] + d] = dk1.z; dv[at[6] + d] = dv1.z; }
                if (first + 5u < dims.q_rows) { dk[at[5] + d] = dk1.y; dv[at[5] + d] = dv1.y; }
                if (first + 4u < dims.q_rows) { dk[at[4] + d] = dk1.x; dv[at[4] + d] = dv1.x; }
                if (first + 3u < dims.q_rows) { dk[at[3] + d] = dk0.w; dv[at[3] + d] = dv0.w; }
                if (first + 2u < dims.q_rows) { dk[at[2] + d] = dk0.z; dv[at[2] + d] = dv0.z; }
                if (first + 1u < dims.q_rows) { dk[at[1] + d] = dk0.y; dv[at[1] + d] = dv0.y; }
                dk[at[0] + d] = dk0.x;
                dv[at[0] + d] = dv0.x;
            }
            workgroupBarrier();
        }
    }
}
