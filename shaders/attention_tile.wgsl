// The parts that the attention kernels of software drivers share; imported by them.
//
// Mapping: one workgroup of 8 lanes, a SIMD unit, per (batch, head, tile of 8 own rows). It walks the far side 64 rows
// at a time: each lane takes 8 of those rows for the scores, then 8 of 64 channels for the sums over them, written out
// because llvmpipe keeps arrays that a loop indexes in memory.
// Order of summation: ascending; hidden rows add exact zeros.
// Limits: head width <= 128.
#import "real.wgsl"

// One SIMD unit of a software driver: with more, barriers between units had been most of the time of kernels of rows.
const LANES = 8u;
// With 8 keys or channels a lane: 64 accumulators for 8 + 8 reads. Of 16 rows and 4 keys, the 16 reads that all lanes share
// cost more than the products (13 of 23 ms of the scores, Mesa 26.1.6).
const TILE = 8u;
// Keys of a turn: eight a lane.
const SPAN = 64u;
const HIDDEN = -1.0e30; // the score of a key that must not be seen

struct AttentionDims {
    batch: u32,
    heads: u32,
    head_width: u32,
    q_rows: u32,
    kv_rows: u32, // rows per sequence of k and v: q_rows, or the capacity of a cache
    scale: f32,
    place: u32, // of dropout
}

// Own and far, 0 and 1: q and k, do and v; for dk and dv k and q, v and do. All (batch * rows, heads * head_width).
@group(0) @binding(0) var<uniform> dims: AttentionDims;
@group(0) @binding(1) var<storage, read> own0: array<Real>;
@group(0) @binding(2) var<storage, read> far0: array<Real>;
@group(0) @binding(3) var<storage, read> far1: array<Real>;

// Two vec4 each: the tile's rows by channel, and by row of the other side.
var<workgroup> sh_own0: array<vec4<f32>, 256>;
var<workgroup> sh_p: array<vec4<f32>, 128>;

// A number for each row of the tile, or for each row or channel of a lane.
struct Pair { low: vec4<f32>, high: vec4<f32> }

// Offsets, of the same.
struct Places { low: vec4<u32>, high: vec4<u32> }

// The tile's rows with each row or channel of a lane.
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
    let w = outer4(x, y, z);
    return Block(
        w.a, w.b, w.c, w.d,
        madd(x, y.high.x, z.e), madd(x, y.high.y, z.f), madd(x, y.high.z, z.g), madd(x, y.high.w, z.h),
    );
}

fn own0_at(d: u32) -> Pair { return Pair(sh_own0[d * 2u], sh_own0[d * 2u + 1u]); }
fn p_at(j: u32) -> Pair { return Pair(sh_p[j * 2u], sh_p[j * 2u + 1u]); }
fn set_p(j: u32, x: Pair) { sh_p[j * 2u] = x.low; sh_p[j * 2u + 1u] = x.high; }

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

// Reads of a lane's eight places.
fn at_far0(at: Places, d: u32) -> Pair {
    let i = at.low + d;
    let j = at.high + d;
    return Pair(vec4(f32(far0[i.x]), f32(far0[i.y]), f32(far0[i.z]), f32(far0[i.w])), vec4(f32(far0[j.x]), f32(far0[j.y]), f32(far0[j.z]), f32(far0[j.w])));
}

fn at_far1(at: Places, d: u32) -> Pair {
    let i = at.low + d;
    let j = at.high + d;
    return Pair(vec4(f32(far1[i.x]), f32(far1[i.y]), f32(far1[i.z]), f32(far1[i.w])), vec4(f32(far1[j.x]), f32(far1[j.y]), f32(far1[j.z]), f32(far1[j.w])));
}

fn stage0(at: Places, lane: u32) {
    for (var d = lane; d < dims.head_width; d += LANES) {
        let i = at.low + d;
        let j = at.high + d;
        sh_own0[d * 2u] = vec4<f32>(f32(own0[i.x]), f32(own0[i.y]), f32(own0[i.z]), f32(own0[i.w]));
        sh_own0[d * 2u + 1u] = vec4<f32>(f32(own0[j.x]), f32(own0[j.y]), f32(own0[j.z]), f32(own0[j.w]));
    }
}

// Products of the tile's rows of own0 with a lane's rows of far0.
fn dots0(at: Places) -> Block {
    var s = block(pair(0.0));
    // Two channels a turn: four were a tenth faster, and took Mesa 22.3.6 up to 7 s to compile.
    var d = 0u;
    for (; d + 2u <= dims.head_width; d += 2u) {
        s = outer(own0_at(d), at_far0(at, d), s);
        s = outer(own0_at(d + 1u), at_far0(at, d + 1u), s);
    }
    for (; d < dims.head_width; d++) { s = outer(own0_at(d), at_far0(at, d), s); }
    return s;
}

// Offset of channel 0 in a row of the far side.
fn row_at(row: u32, last: u32, base: u32) -> u32 { return (base + min(row, last)) * dims.heads * dims.head_width; }

// start + the sum over `span` rows of far1 from `first` of p, 0 past `last`, times channels c.
fn sums1(start: Block, c: Places, first: u32, span: u32, last: u32, base: u32) -> Block {
    var x = start;
    // Heads of up to 32 channels have four a lane: half of the products.
    let wide = select(span, 0u, dims.head_width <= 32u);
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

// A lane's channels of a head, the last one again past it.
fn channels(first: u32, head: u32) -> Places {
    let c = count_from(first, LANES);
    let last = vec4<u32>(dims.head_width - 1u);
    return Places(min(c.low, last) + head * dims.head_width, min(c.high, last) + head * dims.head_width);
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
