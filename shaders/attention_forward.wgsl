// Causal attention without a T x T matrix, for software drivers: online softmax.
//
// p_ij = exp(scale <q_i, k_j> - lse_i) for j <= i,  o_i = sum_j p_ij v_j
// Mapping: see attention_tile.wgsl; own rows are queries.
// Order of summation: ascending; the sum of a row's p by lane, then over lanes: independent of tile and
// grid; hidden keys add exact zeros. So a row has the same bits in a full pass and in any chunk over a cache.
// Writes: overwrite.
// Limits: head width <= 128; query i of a run stands at position run.position + i, keys at 0, 1, ...
#import "real.wgsl"
#import "attention_tile.wgsl"
#import "attention_undropped.wgsl"

struct Run { position: u32 }

@group(0) @binding(4) var<uniform> run: Run;
@group(0) @binding(5) var<storage, read_write> o: array<f32>; // in every precision: delta is taken from it
@group(0) @binding(6) var<storage, read_write> lse: array<f32>; // (batch * q_rows, heads)

var<workgroup> sh_lane0: array<vec4<f32>, LANES>;
var<workgroup> sh_lane1: array<vec4<f32>, LANES>;

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

fn seen_block(s: Block, key: Places, position: u32, keys: u32) -> Block {
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
fn add_weight(s: Pair, largest: Pair, j: u32, sum: Pair, factors: Factors) -> Pair {
    let p = weights(s, largest);
    set_p(j, dropped(p, factors));
    return plus(sum, p);
}

// Rows past the end repeat the last one, which is written last.
fn put_o(at: Places, d: u32, x: Pair) {
    if (d >= dims.head_width) { return; }
    let i = at.low + d;
    let j = at.high + d;
    o[j.w] = x.high.w; o[j.z] = x.high.z; o[j.y] = x.high.y; o[j.x] = x.high.x;
    o[i.w] = x.low.w; o[i.z] = x.low.z; o[i.y] = x.low.y; o[i.x] = x.low.x;
}

fn put_o_block(at: Places, c: Places, x: Block) {
    put_o(at, c.low.x, x.a);
    put_o(at, c.low.y, x.b); put_o(at, c.low.z, x.c); put_o(at, c.low.w, x.d);
    put_o(at, c.high.x, x.e); put_o(at, c.high.y, x.f); put_o(at, c.high.z, x.g); put_o(at, c.high.w, x.h);
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
        let masks = forward_masks(batch, head);
        let own = run.position + first; // the first query
        workgroupBarrier();
        stage0(at, lane);
        workgroupBarrier();
        // Channels to 63 and from 64, in registers until the tile is done: before, o went through storage each 64 keys.
        var o0 = block(pair(0.0));
        var o1 = o0;
        var largest = pair(HIDDEN);
        var sum = pair(0.0);
        for (var j0 = 0u; j0 < keys; j0 += SPAN) {
            let key = count_from(j0 + lane, LANES);
            let dots = dots0(places(j0 + lane, LANES, keys - 1u, base, head, width));
            let s = seen_block(dots, key, run.position + first, keys);
            let now = tile_max(lane, larger(largest, largest_of(s)));
            // What was summed against the old maximum counts by this much against the new one.
            let shrink = weights(largest, now);
            largest = now;
            sum = add_weight(s.a, now, lane, times(sum, shrink), of_key(masks, own, key.low.x));
            sum = add_weight(s.b, now, lane + 8u, sum, of_key(masks, own, key.low.y));
            sum = add_weight(s.c, now, lane + 16u, sum, of_key(masks, own, key.low.z));
            sum = add_weight(s.d, now, lane + 24u, sum, of_key(masks, own, key.low.w));
            sum = add_weight(s.e, now, lane + 32u, sum, of_key(masks, own, key.high.x));
            sum = add_weight(s.f, now, lane + 40u, sum, of_key(masks, own, key.high.y));
            sum = add_weight(s.g, now, lane + 48u, sum, of_key(masks, own, key.high.z));
            sum = add_weight(s.h, now, lane + 56u, sum, of_key(masks, own, key.high.w));
            workgroupBarrier();
            let span = min(SPAN, keys - j0);
            o0 = sums1(scaled(shrink, o0), channels(lane, head), j0, span, keys - 1u, base);
            if (width > 64u) { o1 = sums1(scaled(shrink, o1), channels(lane + 64u, head), j0, span, keys - 1u, base); }
        }
        // Kept by lane and joined once: a row then has the same bits in a full pass and in chunks over a cache.
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
