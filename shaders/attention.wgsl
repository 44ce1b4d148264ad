// Causal attention without a T x T matrix: online softmax forward, backward from the saved log-sum.
//
// p_ij = exp(scale <q_i, k_j> - lse_i) for j <= i,  o_i = sum_j p_ij v_j
// ds_ij = p_ij (<do_i, v_j> - delta_i) scale,  delta_i = <do_i, o_i>
// dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dv_j = sum_i p_ij do_i
// Mapping: one workgroup per (batch, head, tile of 8 own rows: queries, or keys for dk and dv), which walks
// the other side 64 rows at a time: each lane takes 64 / LANES of those rows for the scores, then as many
// of 64 channels for the sums over them: one on GPUs, eight, written out, where a workgroup is a SIMD unit.
// Order of summation: ascending; the sum of a row's p by lane, then over lanes: independent of tile and
// grid; hidden keys add exact zeros. So a row has the same bits in a full pass and in any chunk over a cache.
// Writes: overwrite.
// Limits: head width <= 128; query i of a run stands at position run.position + i, keys at 0, 1, ...
#import "real.wgsl"

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

struct Run { position: u32 }

// Own and far, 0 and 1: q and k, do and v; for dk and dv k and q, v and do. All (batch * rows, heads * head_width).
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> own0: array<Real>;
@group(0) @binding(2) var<storage, read> far0: array<Real>;
@group(0) @binding(3) var<storage, read> far1: array<Real>;

@group(0) @binding(4) var<uniform> run: Run;
@group(0) @binding(5) var<storage, read_write> o: array<f32>; // in every precision: delta is taken from it
@group(0) @binding(5) var<storage, read_write> sum0: array<Real>; // dq or dk
@group(0) @binding(6) var<storage, read_write> lse: array<f32>; // (batch * q_rows, heads)

@group(0) @binding(4) var<storage, read> own1: array<Real>;
@group(0) @binding(6) var<storage, read> saved_lse: array<f32>; // (batch * q_rows, heads)
@group(0) @binding(7) var<storage, read> delta: array<f32>; // (batch * q_rows, heads)
@group(0) @binding(8) var<storage, read_write> sum1: array<Real>; // dv

// Two vec4 each: the tile's rows by channel, and by row of the other side.
var<workgroup> sh_own0: array<vec4<f32>, 256>;
var<workgroup> sh_own1: array<vec4<f32>, 256>;
var<workgroup> sh_p: array<vec4<f32>, 128>;
var<workgroup> sh_ds: array<vec4<f32>, 128>;
var<workgroup> sh_lane0: array<vec4<f32>, LANES>;
var<workgroup> sh_lane1: array<vec4<f32>, LANES>;

// A number for each row of the tile, or for each row or channel of a lane.
struct Pair { low: vec4<f32>, high: vec4<f32> }

// Offsets, of the same.
struct Places { low: vec4<u32>, high: vec4<u32> }

// The tile's rows with each row or channel of a lane; on GPUs a alone is used.
struct Block { a: Pair, b: Pair, c: Pair, d: Pair, e: Pair, f: Pair, g: Pair, h: Pair }

fn pair(x: f32) -> Pair { return Pair(vec4<f32>(x), vec4<f32>(x)); }
fn block(x: Pair) -> Block { return Block(x, x, x, x, x, x, x, x); }
fn plus(x: Pair, y: Pair) -> Pair { return Pair(x.low + y.low, x.high + y.high); }
fn larger(x: Pair, y: Pair) -> Pair { return Pair(max(x.low, y.low), max(x.high, y.high)); }
fn times(x: Pair, y: Pair) -> Pair { return Pair(x.low * y.low, x.high * y.high); }

fn madd(x: Pair, y: f32, z: Pair) -> Pair {
    return Pair(fma(x.low, vec4<f32>(y), z.low), fma(x.high, vec4<f32>(y), z.high));
}

fn scaled(x: Pair, y: Block) -> Block {
    if (LANES > 8u) { return block(times(x, y.a)); }
    return Block(
        times(x, y.a), times(x, y.b), times(x, y.c), times(x, y.d),
        times(x, y.e), times(x, y.f), times(x, y.g), times(x, y.h),
    );
}

fn outer4(x: Pair, y: Pair, z: Block) -> Block {
    return Block(
        madd(x, y.low.x, z.a), madd(x, y.low.y, z.b), madd(x, y.low.z, z.c), madd(x, y.low.w, z.d), z.e, z.f, z.g, z.h,
    );
}

// z + the products of each of x with each of y.
fn outer(x: Pair, y: Pair, z: Block) -> Block {
    if (LANES > 8u) { return Block(madd(x, y.low.x, z.a), z.b, z.c, z.d, z.e, z.f, z.g, z.h); }
    let w = outer4(x, y, z);
    return Block(
        w.a, w.b, w.c, w.d,
        madd(x, y.high.x, z.e), madd(x, y.high.y, z.f), madd(x, y.high.z, z.g), madd(x, y.high.w, z.h),
    );
}

fn own0_at(d: u32) -> Pair { return Pair(sh_own0[d * 2u], sh_own0[d * 2u + 1u]); }
fn own1_at(d: u32) -> Pair { return Pair(sh_own1[d * 2u], sh_own1[d * 2u + 1u]); }
fn p_at(j: u32) -> Pair { return Pair(sh_p[j * 2u], sh_p[j * 2u + 1u]); }
fn ds_at(j: u32) -> Pair { return Pair(sh_ds[j * 2u], sh_ds[j * 2u + 1u]); }
fn set_p(j: u32, x: Pair) { sh_p[j * 2u] = x.low; sh_p[j * 2u + 1u] = x.high; }
fn set_ds(j: u32, x: Pair) { sh_ds[j * 2u] = x.low; sh_ds[j * 2u + 1u] = x.high; }

// exp of a difference that is at most 0 up to rounding; far below, 0 without an underflow.
fn weight(x: vec4<f32>) -> vec4<f32> {
    return select(exp(clamp(x, vec4<f32>(-80.0), vec4<f32>(0.0))), vec4<f32>(), x < vec4<f32>(-80.0));
}

fn weights(x: Pair, y: Pair) -> Pair { return Pair(weight(x.low - y.low), weight(x.high - y.high)); }

fn count_from(first: u32, step: u32) -> Places {
    let low = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) * step;
    return Places(low, low + 4u * step);
}

// Offsets of a head of width `width` in rows `first`, `first + step`, ..., past `last` in that again.
fn places(first: u32, step: u32, last: u32, base: u32, head: u32, width: u32) -> Places {
    let rows = count_from(first, step);
    let low = (base + min(rows.low, vec4<u32>(last))) * dims.heads + head;
    return Places(low * width, ((base + min(rows.high, vec4<u32>(last))) * dims.heads + head) * width);
}

// Reads of a lane's eight places, or on GPUs its one.
fn at_far0(at: Places, d: u32) -> Pair {
    if (LANES > 8u) { return pair(f32(far0[at.low.x + d])); }
    let i = at.low + d; let j = at.high + d;
    return Pair(vec4(f32(far0[i.x]), f32(far0[i.y]), f32(far0[i.z]), f32(far0[i.w])), vec4(f32(far0[j.x]), f32(far0[j.y]), f32(far0[j.z]), f32(far0[j.w])));
}

fn at_far1(at: Places, d: u32) -> Pair {
    if (LANES > 8u) { return pair(f32(far1[at.low.x + d])); }
    let i = at.low + d; let j = at.high + d;
    return Pair(vec4(f32(far1[i.x]), f32(far1[i.y]), f32(far1[i.z]), f32(far1[i.w])), vec4(f32(far1[j.x]), f32(far1[j.y]), f32(far1[j.z]), f32(far1[j.w])));
}

fn stage0(at: Places, lane: u32) {
    for (var d = lane; d < dims.head_width; d += LANES) {
        let i = at.low + d; let j = at.high + d;
        sh_own0[d * 2u] = vec4<f32>(f32(own0[i.x]), f32(own0[i.y]), f32(own0[i.z]), f32(own0[i.w]));
        sh_own0[d * 2u + 1u] = vec4<f32>(f32(own0[j.x]), f32(own0[j.y]), f32(own0[j.z]), f32(own0[j.w]));
    }
}

fn stage1(at: Places, lane: u32) {
    for (var d = lane; d < dims.head_width; d += LANES) {
        let i = at.low + d; let j = at.high + d;
        sh_own1[d * 2u] = vec4<f32>(f32(own1[i.x]), f32(own1[i.y]), f32(own1[i.z]), f32(own1[i.w]));
        sh_own1[d * 2u + 1u] = vec4<f32>(f32(own1[j.x]), f32(own1[j.y]), f32(own1[j.z]), f32(own1[j.w]));
    }
}

// Products of the tile's rows of own0 (own1) with a lane's rows of far0 (far1).
fn dots0(at: Places) -> Block {
    var s = block(pair(0.0));
    var d = 0u;
    for (; d + 2u <= dims.head_width; d += 2u) {
        s = outer(own0_at(d), at_far0(at, d), s);
        s = outer(own0_at(d + 1u), at_far0(at, d + 1u), s);
    }
    for (; d < dims.head_width; d++) { s = outer(own0_at(d), at_far0(at, d), s); }
    return s;
}

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

// Offset of channel 0 in a row of the far side.
fn row_at(row: u32, last: u32, base: u32) -> u32 { return (base + min(row, last)) * dims.heads * dims.head_width; }

// start + the sum over `span` rows of far0 (far1) from `first` of ds (p), 0 past `last`, times channels c.
fn sums0(start: Block, c: Places, first: u32, span: u32, last: u32, base: u32) -> Block {
    var x = start;
    let wide = select(span, 0u, LANES == 8u && dims.head_width <= 32u);
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

fn sums1(start: Block, c: Places, first: u32, span: u32, last: u32, base: u32) -> Block {
    var x = start;
    let wide = select(span, 0u, LANES == 8u && dims.head_width <= 32u);
    var j = 0u;
    for (; j < wide; j += 2u) {
        x = outer(p_at(j), at_far1(c, row_at(first + j, last, base)), x);
        x = outer(p_at(j + 1u), at_far1(c, row_at(first + j + 1u, last, base)), x);
    }
    for (; j < span; j += 2u) {
        x = outer4(p_at(j), at_far1(c, row_at(first + j, last, base)), x);
        x = outer4(p_at(j + 1u), at_far1(c, row_at(first + j + 1u, last, base)), x);
    }
    return x;
}

// Rows past the end repeat the last one, which is written last.
fn put0(at: Places, d: u32, x: Pair) {
    if (d >= dims.head_width) { return; }
    let i = at.low + d; let j = at.high + d;
    sum0[j.w] = Real(x.high.w); sum0[j.z] = Real(x.high.z); sum0[j.y] = Real(x.high.y); sum0[j.x] = Real(x.high.x);
    sum0[i.w] = Real(x.low.w); sum0[i.z] = Real(x.low.z); sum0[i.y] = Real(x.low.y); sum0[i.x] = Real(x.low.x);
}

fn put0_block(at: Places, c: Places, x: Block) {
    put0(at, c.low.x, x.a);
    if (LANES > 8u) { return; }
    put0(at, c.low.y, x.b); put0(at, c.low.z, x.c); put0(at, c.low.w, x.d);
    put0(at, c.high.x, x.e); put0(at, c.high.y, x.f); put0(at, c.high.z, x.g); put0(at, c.high.w, x.h);
}

fn put_o(at: Places, d: u32, x: Pair) {
    if (d >= dims.head_width) { return; }
    let i = at.low + d; let j = at.high + d;
    o[j.w] = x.high.w; o[j.z] = x.high.z; o[j.y] = x.high.y; o[j.x] = x.high.x;
    o[i.w] = x.low.w; o[i.z] = x.low.z; o[i.y] = x.low.y; o[i.x] = x.low.x;
}

fn put_o_block(at: Places, c: Places, x: Block) {
    put_o(at, c.low.x, x.a);
    if (LANES > 8u) { return; }
    put_o(at, c.low.y, x.b); put_o(at, c.low.z, x.c); put_o(at, c.low.w, x.d);
    put_o(at, c.high.x, x.e); put_o(at, c.high.y, x.f); put_o(at, c.high.z, x.g); put_o(at, c.high.w, x.h);
}

fn put1(at: Places, d: u32, x: Pair) {
    if (d >= dims.head_width) { return; }
    let i = at.low + d; let j = at.high + d;
    sum1[j.w] = Real(x.high.w); sum1[j.z] = Real(x.high.z); sum1[j.y] = Real(x.high.y); sum1[j.x] = Real(x.high.x);
    sum1[i.w] = Real(x.low.w); sum1[i.z] = Real(x.low.z); sum1[i.y] = Real(x.low.y); sum1[i.x] = Real(x.low.x);
}

fn put1_block(at: Places, c: Places, x: Block) {
    put1(at, c.low.x, x.a);
    if (LANES > 8u) { return; }
    put1(at, c.low.y, x.b); put1(at, c.low.z, x.c); put1(at, c.low.w, x.d);
    put1(at, c.high.x, x.e); put1(at, c.high.y, x.f); put1(at, c.high.z, x.g); put1(at, c.high.w, x.h);
}

// A lane's channels of a head, the last one again past it.
fn channels(first: u32, head: u32) -> Places {
    let c = count_from(first, LANES);
    let last = vec4<u32>(dims.head_width - 1u);
    return Places(min(c.low, last) + head * dims.head_width, min(c.high, last) + head * dims.head_width);
}

// Shows every lane what each has. Call in uniform control flow.
fn share(lane: u32, mine: Pair) {
    workgroupBarrier();
    sh_lane0[lane] = mine.low;
    sh_lane1[lane] = mine.high;
    workgroupBarrier();
}

// Largest of each row over the lanes. Call in uniform control flow.
fn tile_max(lane: u32, mine: Pair) -> Pair {
    share(lane, mine);
    var all = mine;
    for (var i = 0u; i < LANES; i++) { all = larger(all, Pair(sh_lane0[i], sh_lane1[i])); }
    return all;
}

// Sum of each row over the lanes, ascending. Call in uniform control flow.
fn tile_sum(lane: u32, mine: Pair) -> Pair {
    share(lane, mine);
    var all = pair(0.0);
    for (var i = 0u; i < LANES; i++) { all = plus(all, Pair(sh_lane0[i], sh_lane1[i])); }
    return all;
}

// Scaled scores of the key at `key`, hidden from the tile's rows before it; the first stands at `position`.
fn seen(s: Pair, key: u32, position: u32, keys: u32) -> Pair {
    let row = count_from(position, 1u);
    let exists = vec4<bool>(key < keys);
    return Pair(
        select(vec4<f32>(HIDDEN), s.low * dims.scale, exists & (vec4<u32>(key) <= row.low)),
        select(vec4<f32>(HIDDEN), s.high * dims.scale, exists & (vec4<u32>(key) <= row.high)),
    );
}

fn seen_block(s: Block, key: Places, position: u32, keys: u32) -> Block {
    if (LANES > 8u) { return block(seen(s.a, key.low.x, position, keys)); }
    return Block(
        seen(s.a, key.low.x, position, keys), seen(s.b, key.low.y, position, keys),
        seen(s.c, key.low.z, position, keys), seen(s.d, key.low.w, position, keys),
        seen(s.e, key.high.x, position, keys), seen(s.f, key.high.y, position, keys),
        seen(s.g, key.high.z, position, keys), seen(s.h, key.high.w, position, keys),
    );
}

fn largest_of(s: Block) -> Pair {
    return larger(larger(larger(s.a, s.b), larger(s.c, s.d)), larger(larger(s.e, s.f), larger(s.g, s.h)));
}

// The weight of one key, put where the sums read it; returns sum + weight.
fn add_weight(s: Pair, largest: Pair, j: u32, sum: Pair) -> Pair {
    let p = weights(s, largest);
    set_p(j, p);
    return plus(sum, p);
}

@compute @workgroup_size(LANES)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (dims.q_rows + TILE - 1u) / TILE;
    let width = dims.head_width;
    for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {
        let first = (item % tiles) * TILE;
        let head = (item / tiles) % dims.heads;
        let batch = item / (tiles * dims.heads);
        let base = batch * dims.kv_rows;
        let at = places(first, 1u, dims.q_rows - 1u, batch * dims.q_rows, head, width);
        let keys = run.position + min(first + TILE, dims.q_rows);
        workgroupBarrier();
        stage0(at, lane);
        workgroupBarrier();
        var o0 = block(pair(0.0));
        var o1 = o0;
        var largest = pair(HIDDEN);
        var sum = pair(0.0);
        for (var j0 = 0u; j0 < keys; j0 += SPAN) {
            let key = count_from(j0 + lane, LANES);
            let dots = dots0(places(j0 + lane, LANES, keys - 1u, base, head, width));
            let s = seen_block(dots, key, run.position + first, keys);
            let now = tile_max(lane, larger(largest, largest_of(s)));
            let shrink = weights(largest, now);
            largest = now;
            sum = add_weight(s.a, now, lane, times(sum, shrink));
            if (LANES == 8u) {
                sum = add_weight(s.b, now, lane + 8u, sum); sum = add_weight(s.c, now, lane + 16u, sum);
                sum = add_weight(s.d, now, lane + 24u, sum); sum = add_weight(s.e, now, lane + 32u, sum);
                sum = add_weight(s.f, now, lane + 40u, sum); sum = add_weight(s.g, now, lane + 48u, sum);
                sum = add_weight(s.h, now, lane + 56u, sum);
            }
            workgroupBarrier();
            let span = min(SPAN, keys - j0);
            o0 = sums1(scaled(shrink, o0), channels(lane, head), j0, span, keys - 1u, base);
            if (width > 64u) { o1 = sums1(scaled(shrink, o1), channels(lane + 64u, head), j0, span, keys - 1u, base); }
        }
        sum = tile_sum(lane, sum);
        let norm = Pair(1.0 / sum.low, 1.0 / sum.high);
        put_o_block(at, count_from(lane, LANES), scaled(norm, o0));
        put_o_block(at, count_from(lane + 64u, LANES), scaled(norm, o1));
        if (lane == 0u) {
            let x = Pair(largest.low + log(sum.low), largest.high + log(sum.high));
            let to = places(first, 1u, dims.q_rows - 1u, batch * dims.q_rows, head, 1u);
            lse[to.high.w] = x.high.w; lse[to.high.z] = x.high.z; lse[to.high.y] = x.high.y; lse[to.high.x] = x.high.x;
            lse[to.low.w] = x.low.w; lse[to.low.z] = x.low.z; lse[to.low.y] = x.low.y; lse[to.low.x] = x.low.x;
        }
    }
}

fn at_lse(at: Places) -> Pair {
    let i = at.low; let j = at.high;
    let low = vec4(saved_lse[i.x], saved_lse[i.y], saved_lse[i.z], saved_lse[i.w]);
    return Pair(low, vec4(saved_lse[j.x], saved_lse[j.y], saved_lse[j.z], saved_lse[j.w]));
}

fn at_delta(at: Places) -> Pair {
    let i = at.low; let j = at.high;
    let low = vec4(delta[i.x], delta[i.y], delta[i.z], delta[i.w]);
    return Pair(low, vec4(delta[j.x], delta[j.y], delta[j.z], delta[j.w]));
}

// ds of the tile's queries and one key.
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
        workgroupBarrier();
        stage0(at, lane);
        stage1(at, lane);
        workgroupBarrier();
        var x0 = block(pair(0.0));
        var x1 = x0;
        for (var j0 = 0u; j0 < keys; j0 += SPAN) {
            let key = count_from(j0 + lane, LANES);
            let there = places(j0 + lane, LANES, keys - 1u, base, head, width);
            let s = dots0(there);
            let dp = dots1(there);
            set_query_ds(s.a, dp.a, l, e, key.low.x, first, keys, lane);
            if (LANES == 8u) {
                set_query_ds(s.b, dp.b, l, e, key.low.y, first, keys, lane + 8u);
                set_query_ds(s.c, dp.c, l, e, key.low.z, first, keys, lane + 16u);
                set_query_ds(s.d, dp.d, l, e, key.low.w, first, keys, lane + 24u);
                set_query_ds(s.e, dp.e, l, e, key.high.x, first, keys, lane + 32u);
                set_query_ds(s.f, dp.f, l, e, key.high.y, first, keys, lane + 40u);
                set_query_ds(s.g, dp.g, l, e, key.high.z, first, keys, lane + 48u);
                set_query_ds(s.h, dp.h, l, e, key.high.w, first, keys, lane + 56u);
            }
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

// p and ds of the tile's keys and one query.
fn set_key_p_ds(s: Pair, dp: Pair, of_lse: f32, of_delta: f32, query: u32, first: u32, j: u32) {
    let key = count_from(first, 1u);
    let exists = vec4<bool>(query < dims.q_rows);
    let p = Pair(
        select(vec4<f32>(), weight(s.low * dims.scale - of_lse), exists & (key.low <= vec4<u32>(query))),
        select(vec4<f32>(), weight(s.high * dims.scale - of_lse), exists & (key.high <= vec4<u32>(query))),
    );
    set_p(j, p);
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
            set_key_p_ds(s.a, dp.a, l.low.x, e.low.x, query.low.x, first, lane);
            if (LANES == 8u) {
                set_key_p_ds(s.b, dp.b, l.low.y, e.low.y, query.low.y, first, lane + 8u);
                set_key_p_ds(s.c, dp.c, l.low.z, e.low.z, query.low.z, first, lane + 16u);
                set_key_p_ds(s.d, dp.d, l.low.w, e.low.w, query.low.w, first, lane + 24u);
                set_key_p_ds(s.e, dp.e, l.high.x, e.high.x, query.high.x, first, lane + 32u);
                set_key_p_ds(s.f, dp.f, l.high.y, e.high.y, query.high.y, first, lane + 40u);
                set_key_p_ds(s.g, dp.g, l.high.z, e.high.z, query.high.z, first, lane + 48u);
                set_key_p_ds(s.h, dp.h, l.high.w, e.high.w, query.high.w, first, lane + 56u);
            }
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
        put0_block(at, count_from(lane, LANES), x0);
        put0_block(at, count_from(lane + 64u, LANES), x1);
        put1_block(at, count_from(lane, LANES), y0);
        put1_block(at, count_from(lane + 64u, LANES), y1);
    }
}
