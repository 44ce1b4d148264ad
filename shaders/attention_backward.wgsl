// Backward of causal attention for software drivers: probabilities again from the saved log-sums.
//
// p_ij = exp(scale <q_i, k_j> - lse_i) for j <= i,  ds_ij = p_ij (<do_i, v_j> - delta_i) scale,  delta_i = <do_i, o_i>
// dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dv_j = sum_i p_ij do_i
// Mapping: see attention_tile.wgsl; own rows are queries for dq, keys for dk and dv.
// Order of summation: ascending; hidden pairs add exact zeros.
// Writes: overwrite.
// Limits: head width <= 128; as many keys as queries, from position 0.
#import "real.wgsl"
#import "attention_tile.wgsl"
#import "attention_undropped.wgsl"

@group(0) @binding(4) var<storage, read> own1: array<Real>;
@group(0) @binding(5) var<storage, read_write> sum0: array<Real>; // dq or dk
@group(0) @binding(6) var<storage, read> saved_lse: array<f32>; // (batch * q_rows, heads)
@group(0) @binding(7) var<storage, read> delta: array<f32>; // (batch * q_rows, heads)
@group(0) @binding(8) var<storage, read_write> sum1: array<Real>; // dv

var<workgroup> sh_own1: array<vec4<f32>, 256>;
var<workgroup> sh_ds: array<vec4<f32>, 128>;

fn own1_at(d: u32) -> Pair { return Pair(sh_own1[d * 2u], sh_own1[d * 2u + 1u]); }
fn ds_at(j: u32) -> Pair { return Pair(sh_ds[j * 2u], sh_ds[j * 2u + 1u]); }
fn set_ds(j: u32, x: Pair) { sh_ds[j * 2u] = x.low; sh_ds[j * 2u + 1u] = x.high; }

fn stage1(at: Places, lane: u32) {
    for (var d = lane; d < dims.head_width; d += LANES) {
        let i = at.low + d;
        let j = at.high + d;
        sh_own1[d * 2u] = vec4<f32>(f32(own1[i.x]), f32(own1[i.y]), f32(own1[i.z]), f32(own1[i.w]));
        sh_own1[d * 2u + 1u] = vec4<f32>(f32(own1[j.x]), f32(own1[j.y]), f32(own1[j.z]), f32(own1[j.w]));
    }
}

// Products of the tile's rows of own1 with a lane's rows of far1.
fn dots1(at: Places) -> Block {
    var s = block(pair(0.0));
    var d = 0u;
    for (; d + 2u <= dims.head_width; d += 2u) {
        s = outer(own1_at(d), at_far1(at, d), s);
        s = outer(own1_at(d + 1u), at_far1(at, d + 1u), s);
    }
    for (; d < dims.head_width; d++) { s = outer(own1_at(d), at_far1(at, d), s); }
    return s;
}

// start + the sum over `span` rows of far0 from `first` of ds, 0 past `last`, times channels c.
fn sums0(start: Block, c: Places, first: u32, span: u32, last: u32, base: u32) -> Block {
    var x = start;
    let wide = select(span, 0u, dims.head_width <= 32u);
    var j = 0u;
    for (; j < wide; j += 2u) {
        x = outer(ds_at(j), at_far0(c, row_at(first + j, last, base)), x);
        x = outer(ds_at(j + 1u), at_far0(c, row_at(first + j + 1u, last, base)), x);
    }
    for (; j < span; j += 2u) {
        x = outer4(ds_at(j), at_far0(c, row_at(first + j, last, base)), x);
        x = outer4(ds_at(j + 1u), at_far0(c, row_at(first + j + 1u, last, base)), x);
    }
    return x;
}

// Rows past the end repeat the last one, which is written last.
fn write0(at: Places, d: u32, x: Pair) {
    let i = at.low + d;
    let j = at.high + d;
    sum0[j.w] = Real(x.high.w); sum0[j.z] = Real(x.high.z); sum0[j.y] = Real(x.high.y); sum0[j.x] = Real(x.high.x);
    sum0[i.w] = Real(x.low.w); sum0[i.z] = Real(x.low.z); sum0[i.y] = Real(x.low.y); sum0[i.x] = Real(x.low.x);
}

fn write1(at: Places, d: u32, x: Pair) {
    let i = at.low + d;
    let j = at.high + d;
    sum1[j.w] = Real(x.high.w); sum1[j.z] = Real(x.high.z); sum1[j.y] = Real(x.high.y); sum1[j.x] = Real(x.high.x);
    sum1[i.w] = Real(x.low.w); sum1[i.z] = Real(x.low.z); sum1[i.y] = Real(x.low.y); sum1[i.x] = Real(x.low.x);
}

fn put0(at: Places, d: u32, x: Pair) {
    if (d < dims.head_width) { write0(at, d, x); }
}

// Both sums under one condition: SwiftShader's compiler takes twice the time for each condition after another beyond twenty.
fn put(at: Places, d: u32, x: Pair, y: Pair) {
    if (d < dims.head_width) {
        write0(at, d, x);
        write1(at, d, y);
    }
}

fn put0_block(at: Places, c: Places, x: Block) {
    put0(at, c.low.x, x.a);
    put0(at, c.low.y, x.b); put0(at, c.low.z, x.c); put0(at, c.low.w, x.d);
    put0(at, c.high.x, x.e); put0(at, c.high.y, x.f); put0(at, c.high.z, x.g); put0(at, c.high.w, x.h);
}

fn put_blocks(at: Places, c: Places, x: Block, y: Block) {
    put(at, c.low.x, x.a, y.a);
    put(at, c.low.y, x.b, y.b); put(at, c.low.z, x.c, y.c); put(at, c.low.w, x.d, y.d);
    put(at, c.high.x, x.e, y.e); put(at, c.high.y, x.f, y.f); put(at, c.high.z, x.g, y.g); put(at, c.high.w, x.h, y.h);
}

fn at_lse(at: Places) -> Pair {
    let i = at.low;
    let j = at.high;
    let low = vec4(saved_lse[i.x], saved_lse[i.y], saved_lse[i.z], saved_lse[i.w]);
    return Pair(low, vec4(saved_lse[j.x], saved_lse[j.y], saved_lse[j.z], saved_lse[j.w]));
}

fn at_delta(at: Places) -> Pair {
    let i = at.low;
    let j = at.high;
    let low = vec4(delta[i.x], delta[i.y], delta[i.z], delta[i.w]);
    return Pair(low, vec4(delta[j.x], delta[j.y], delta[j.z], delta[j.w]));
}

// ds of the tile's queries and one key; dp: <do, v>, dropped as the weights were.
fn set_query_ds(s: Pair, dp: Pair, tile_lse: Pair, tile_delta: Pair, key: u32, position: u32, keys: u32, j: u32) {
    let p = weights(seen(s, key, position, keys), tile_lse);
    let ds = Pair(p.low * (dp.low - tile_delta.low), p.high * (dp.high - tile_delta.high));
    set_ds(j, times(pair(dims.scale), ds));
}

@compute @workgroup_size(LANES)
fn backward_queries(
    @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (dims.q_rows + TILE - 1u) / TILE;
    let width = dims.head_width;
    for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {
        let first = (item % tiles) * TILE;
        let head = (item / tiles) % dims.heads;
        let base = (item / (tiles * dims.heads)) * dims.q_rows;
        let at = places(first, 1u, dims.q_rows - 1u, base, head, width);
        let l = at_lse(places(first, 1u, dims.q_rows - 1u, base, head, 1u));
        let e = at_delta(places(first, 1u, dims.q_rows - 1u, base, head, 1u));
        let keys = min(first + TILE, dims.q_rows);
        let masks = queries_masks(item / (tiles * dims.heads), head);
        workgroupBarrier();
        stage0(at, lane);
        stage1(at, lane);
        workgroupBarrier();
        var x0 = block(pair(0.0));
        var x1 = x0; // channels from 64
        for (var j0 = 0u; j0 < keys; j0 += SPAN) {
            let key = count_from(j0 + lane, LANES);
            let there = places(j0 + lane, LANES, keys - 1u, base, head, width);
            let s = dots0(there);
            let dp = dots1(there);
            let dp_a = dropped(dp.a, of_key(masks, first, key.low.x));
            set_query_ds(s.a, dp_a, l, e, key.low.x, first, keys, lane);
            let dp_b = dropped(dp.b, of_key(masks, first, key.low.y));
            set_query_ds(s.b, dp_b, l, e, key.low.y, first, keys, lane + 8u);
            let dp_c = dropped(dp.c, of_key(masks, first, key.low.z));
            set_query_ds(s.c, dp_c, l, e, key.low.z, first, keys, lane + 16u);
            let dp_d = dropped(dp.d, of_key(masks, first, key.low.w));
            set_query_ds(s.d, dp_d, l, e, key.low.w, first, keys, lane + 24u);
            let dp_e = dropped(dp.e, of_key(masks, first, key.high.x));
            set_query_ds(s.e, dp_e, l, e, key.high.x, first, keys, lane + 32u);
            let dp_f = dropped(dp.f, of_key(masks, first, key.high.y));
            set_query_ds(s.f, dp_f, l, e, key.high.y, first, keys, lane + 40u);
            let dp_g = dropped(dp.g, of_key(masks, first, key.high.z));
            set_query_ds(s.g, dp_g, l, e, key.high.z, first, keys, lane + 48u);
            let dp_h = dropped(dp.h, of_key(masks, first, key.high.w));
            set_query_ds(s.h, dp_h, l, e, key.high.w, first, keys, lane + 56u);
            workgroupBarrier();
            let span = min(SPAN, keys - j0);
            x0 = sums0(x0, channels(lane, head), j0, span, keys - 1u, base);
            if (width > 64u) { x1 = sums0(x1, channels(lane + 64u, head), j0, span, keys - 1u, base); }
            workgroupBarrier();
        }
        put0_block(at, count_from(lane, LANES), x0);
        put0_block(at, count_from(lane + 64u, LANES), x1);
    }
}

// p, dropped, and ds of the tile's keys and one query.
fn set_key_p_ds(s: Pair, do_v: Pair, of_lse: f32, of_delta: f32, query: u32, first: u32, j: u32, factors: Factors) {
    let key = count_from(first, 1u);
    let exists = vec4<bool>(query < dims.q_rows);
    let p = Pair(
        select(vec4<f32>(), weight(s.low * dims.scale - of_lse), exists & (key.low <= vec4<u32>(query))),
        select(vec4<f32>(), weight(s.high * dims.scale - of_lse), exists & (key.high <= vec4<u32>(query))),
    );
    set_p(j, dropped(p, factors));
    let dp = dropped(do_v, factors);
    set_ds(j, Pair(p.low * (dp.low - of_delta) * dims.scale, p.high * (dp.high - of_delta) * dims.scale));
}

@compute @workgroup_size(LANES)
fn backward_keys_values(
    @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (dims.q_rows + TILE - 1u) / TILE;
    let width = dims.head_width;
    let last = dims.q_rows - 1u;
    for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {
        let first = (item % tiles) * TILE;
        let head = (item / tiles) % dims.heads;
        let base = (item / (tiles * dims.heads)) * dims.q_rows;
        let at = places(first, 1u, last, base, head, width);
        let masks = keys_values_masks(item / (tiles * dims.heads), head);
        workgroupBarrier();
        stage0(at, lane);
        stage1(at, lane);
        workgroupBarrier();
        var x0 = block(pair(0.0));
        var y0 = x0;
        var x1 = x0; // channels from 64
        var y1 = x0;
        // Queries before this tile of keys do not see it.
        for (var i0 = first; i0 < dims.q_rows; i0 += SPAN) {
            let query = count_from(i0 + lane, LANES);
            let there = places(i0 + lane, LANES, last, base, head, width);
            let l = at_lse(places(i0 + lane, LANES, last, base, head, 1u));
            let e = at_delta(places(i0 + lane, LANES, last, base, head, 1u));
            let s = dots0(there);
            let dp = dots1(there);
            set_key_p_ds(s.a, dp.a, l.low.x, e.low.x, query.low.x, first, lane, of_query(masks, query.low.x, first));
            set_key_p_ds(s.b, dp.b, l.low.y, e.low.y, query.low.y, first, lane + 8u, of_query(masks, query.low.y, first));
            set_key_p_ds(s.c, dp.c, l.low.z, e.low.z, query.low.z, first, lane + 16u, of_query(masks, query.low.z, first));
            set_key_p_ds(s.d, dp.d, l.low.w, e.low.w, query.low.w, first, lane + 24u, of_query(masks, query.low.w, first));
            set_key_p_ds(s.e, dp.e, l.high.x, e.high.x, query.high.x, first, lane + 32u, of_query(masks, query.high.x, first));
            set_key_p_ds(s.f, dp.f, l.high.y, e.high.y, query.high.y, first, lane + 40u, of_query(masks, query.high.y, first));
            set_key_p_ds(s.g, dp.g, l.high.z, e.high.z, query.high.z, first, lane + 48u, of_query(masks, query.high.z, first));
            set_key_p_ds(s.h, dp.h, l.high.w, e.high.w, query.high.w, first, lane + 56u, of_query(masks, query.high.w, first));
            workgroupBarrier();
            let span = min(SPAN, dims.q_rows - i0);
            x0 = sums0(x0, channels(lane, head), i0, span, last, base);
            y0 = sums1(y0, channels(lane, head), i0, span, last, base);
            if (width > 64u) {
                x1 = sums0(x1, channels(lane + 64u, head), i0, span, last, base);
                y1 = sums1(y1, channels(lane + 64u, head), i0, span, last, base);
            }
            workgroupBarrier();
        }
        put_blocks(at, count_from(lane, LANES), x0, y0);
        put_blocks(at, count_from(lane + 64u, LANES), x1, y1);
    }
}
