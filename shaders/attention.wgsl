// Causal attention without a T x T matrix: online softmax forward, backward from the saved log-sum.
//
// p_ij = exp(scale <q_i, k_j> - lse_i) for j <= i,  o_i = sum_j p_ij v_j
// ds_ij = p_ij (<do_i, v_j> - delta_i) scale,  delta_i = <do_i, o_i>
// dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dv_j = sum_i p_ij do_i
// Mapping: one workgroup per (batch, head, tile of 16 rows), which walks the other side 64 rows at a
// time: first lanes are those 64 rows (scores of 16 x 64 into workgroup memory), then lanes are channels.
// Order of summation: ascending, independent of the grid.
// Writes: overwrite.
// Limits: head width <= 128; query i of a run stands at position run.position + i, keys at 0, 1, ...

const TILE = 16u;
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

var<workgroup> sh_p: array<f32, 1024>; // TILE x SPAN
var<workgroup> sh_ds: array<f32, 1024>; // TILE x SPAN
var<workgroup> sh_max: array<f32, 16>;
var<workgroup> sh_sum: array<f32, 16>;
var<workgroup> sh_shrink: array<f32, 16>;

// Offset of channel 0 of `head` in a row of a (rows, heads * head_width) matrix.
fn channel(row: u32, head: u32) -> u32 {
    return (row * dims.heads + head) * dims.head_width;
}

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (dims.q_rows + TILE - 1u) / TILE;
    for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {
        let first = (item % tiles) * TILE;
        let head = (item / tiles) % dims.heads;
        let batch = item / (tiles * dims.heads);
        let q_base = batch * dims.q_rows;
        let kv_base = batch * dims.kv_rows;
        let last_row = dims.q_rows - 1u;
        let keys = run.position + min(first + TILE, dims.q_rows);
        var low: array<f32, 16>; // channel lane
        var high: array<f32, 16>; // channel lane + 64
        workgroupBarrier();
        if (lane < TILE) {
            sh_max[lane] = HIDDEN;
            sh_sum[lane] = 0.0;
        }
        for (var j0 = 0u; j0 < keys; j0 += SPAN) {
            let key = j0 + lane;
            let k_at = channel(kv_base + min(key, keys - 1u), head);
            var score: array<f32, 16>;
            for (var d = 0u; d < dims.head_width; d++) {
                let k_value = k[k_at + d];
                for (var r = 0u; r < TILE; r++) {
                    score[r] = fma(q[channel(q_base + min(first + r, last_row), head) + d], k_value, score[r]);
                }
            }
            workgroupBarrier();
            for (var r = 0u; r < TILE; r++) {
                let seen = key <= run.position + first + r && key < keys;
                score[r] = select(HIDDEN, score[r] * dims.scale, seen);
                sh_p[r * SPAN + lane] = score[r];
            }
            workgroupBarrier();
            if (lane < TILE) {
                var largest = sh_max[lane];
                for (var j = 0u; j < SPAN; j++) {
                    largest = max(largest, sh_p[lane * SPAN + j]);
                }
                sh_shrink[lane] = exp(max(sh_max[lane] - largest, -100.0));
                sh_max[lane] = largest;
            }
            workgroupBarrier();
            for (var r = 0u; r < TILE; r++) {
                let p = exp(max(score[r] - sh_max[r], -100.0));
                sh_p[r * SPAN + lane] = select(p, 0.0, score[r] == HIDDEN);
            }
            workgroupBarrier();
            if (lane < TILE) {
                var sum = sh_sum[lane] * sh_shrink[lane];
                for (var j = 0u; j < SPAN; j++) {
                    sum += sh_p[lane * SPAN + j];
                }
                sh_sum[lane] = sum;
            }
            let span = min(SPAN, keys - j0);
            for (var r = 0u; r < TILE; r++) {
                low[r] *= sh_shrink[r];
                high[r] *= sh_shrink[r];
            }
            for (var j = 0u; j < span; j++) {
                let v_at = channel(kv_base + j0 + j, head);
                if (lane < dims.head_width) {
                    let v_value = v[v_at + lane];
                    for (var r = 0u; r < TILE; r++) {
                        low[r] = fma(sh_p[r * SPAN + j], v_value, low[r]);
                    }
                }
                if (lane + 64u < dims.head_width) {
                    let v_value = v[v_at + lane + 64u];
                    for (var r = 0u; r < TILE; r++) {
                        high[r] = fma(sh_p[r * SPAN + j], v_value, high[r]);
                    }
                }
            }
        }
        workgroupBarrier();
        for (var r = 0u; r < TILE; r++) {
            if (first + r < dims.q_rows) {
                let at = channel(q_base + first + r, head);
                if (lane < dims.head_width) {
                    o[at + lane] = low[r] / sh_sum[r];
                }
                if (lane + 64u < dims.head_width) {
                    o[at + lane + 64u] = high[r] / sh_sum[r];
                }
                if (lane == 0u) {
                    lse[(q_base + first + r) * dims.heads + head] = sh_max[r] + log(sh_sum[r]);
                }
            }
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

@compute @workgroup_size(64)
fn backward_queries(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (dims.q_rows + TILE - 1u) / TILE;
    for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {
        let first = (item % tiles) * TILE;
        let head = (item / tiles) % dims.heads;
        let base = (item / (tiles * dims.heads)) * dims.q_rows;
        let last_row = dims.q_rows - 1u;
        let keys = min(first + TILE, dims.q_rows);
        var low: array<f32, 16>;
        var high: array<f32, 16>;
        for (var j0 = 0u; j0 < keys; j0 += SPAN) {
            let key = j0 + lane;
            let k_at = channel(base + min(key, keys - 1u), head);
            var score: array<f32, 16>;
            var dp: array<f32, 16>;
            for (var d = 0u; d < dims.head_width; d++) {
                let k_value = k[k_at + d];
                let v_value = v[k_at + d];
                for (var r = 0u; r < TILE; r++) {
                    let at = channel(base + min(first + r, last_row), head) + d;
                    score[r] = fma(q[at], k_value, score[r]);
                    dp[r] = fma(dout[at], v_value, dp[r]);
                }
            }
            workgroupBarrier();
            for (var r = 0u; r < TILE; r++) {
                let row = (base + min(first + r, last_row)) * dims.heads + head;
                let p = exp(clamp(score[r] * dims.scale - saved_lse[row], -100.0, 0.0));
                let ds = p * (dp[r] - delta[row]) * dims.scale;
                sh_ds[r * SPAN + lane] = select(0.0, ds, key <= first + r && key < keys);
            }
            workgroupBarrier();
            let span = min(SPAN, keys - j0);
            for (var j = 0u; j < span; j++) {
                let at = channel(base + j0 + j, head);
                if (lane < dims.head_width) {
                    let k_value = k[at + lane];
                    for (var r = 0u; r < TILE; r++) {
                        low[r] = fma(sh_ds[r * SPAN + j], k_value, low[r]);
                    }
                }
                if (lane + 64u < dims.head_width) {
                    let k_value = k[at + lane + 64u];
                    for (var r = 0u; r < TILE; r++) {
                        high[r] = fma(sh_ds[r * SPAN + j], k_value, high[r]);
                    }
                }
            }
        }
        for (var r = 0u; r < TILE; r++) {
            let at = channel(base + first + r, head);
            if (first + r < dims.q_rows && lane < dims.head_width) {
                dq[at + lane] = low[r];
            }
            if (first + r < dims.q_rows && lane + 64u < dims.head_width) {
                dq[at + lane + 64u] = high[r];
            }
        }
    }
}

@compute @workgroup_size(64)
fn backward_keys_values(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (dims.q_rows + TILE - 1u) / TILE;
    for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {
        let first = (item % tiles) * TILE;
        let head = (item / tiles) % dims.heads;
        let base = (item / (tiles * dims.heads)) * dims.q_rows;
        let last_row = dims.q_rows - 1u;
        var dk_low: array<f32, 16>;
        var dk_high: array<f32, 16>;
        var dv_low: array<f32, 16>;
        var dv_high: array<f32, 16>;
        // Queries before this tile of keys do not see it.
        for (var i0 = first; i0 < dims.q_rows; i0 += SPAN) {
            let query = i0 + lane;
            let q_row = base + min(query, last_row);
            let q_at = channel(q_row, head);
            var score: array<f32, 16>;
            var dp: array<f32, 16>;
            for (var d = 0u; d < dims.head_width; d++) {
                let q_value = q[q_at + d];
                let do_value = dout[q_at + d];
                for (var r = 0u; r < TILE; r++) {
                    let at = channel(base + min(first + r, last_row), head) + d;
                    score[r] = fma(q_value, k[at], score[r]);
                    dp[r] = fma(do_value, v[at], dp[r]);
                }
            }
            let row_lse = saved_lse[q_row * dims.heads + head];
            let row_delta = delta[q_row * dims.heads + head];
            workgroupBarrier();
            for (var r = 0u; r < TILE; r++) {
                let seen = first + r <= query && query < dims.q_rows;
                let p = select(0.0, exp(clamp(score[r] * dims.scale - row_lse, -100.0, 0.0)), seen);
                sh_p[r * SPAN + lane] = p;
                sh_ds[r * SPAN + lane] = p * (dp[r] - row_delta) * dims.scale;
            }
            workgroupBarrier();
            let span = min(SPAN, dims.q_rows - i0);
            for (var j = 0u; j < span; j++) {
                let at = channel(base + i0 + j, head);
                if (lane < dims.head_width) {
                    let q_value = q[at + lane];
                    let do_value = dout[at + lane];
                    for (var r = 0u; r < TILE; r++) {
                        dk_low[r] = fma(sh_ds[r * SPAN + j], q_value, dk_low[r]);
                        dv_low[r] = fma(sh_p[r * SPAN + j], do_value, dv_low[r]);
                    }
                }
                if (lane + 64u < dims.head_width) {
                    let q_value = q[at + lane + 64u];
                    let do_value = dout[at + lane + 64u];
                    for (var r = 0u; r < TILE; r++) {
                        dk_high[r] = fma(sh_ds[r * SPAN + j], q_value, dk_high[r]);
                        dv_high[r] = fma(sh_p[r * SPAN + j], do_value, dv_high[r]);
                    }
                }
            }
        }
        for (var r = 0u; r < TILE; r++) {
            let at = channel(base + first + r, head);
            if (first + r < dims.q_rows && lane < dims.head_width) {
                dk[at + lane] = dk_low[r];
                dv[at + lane] = dv_low[r];
            }
            if (first + r < dims.q_rows && lane + 64u < dims.head_width) {
                dk[at + lane + 64u] = dk_high[r];
                dv[at + lane + 64u] = dv_high[r];
            }
        }
    }
}
