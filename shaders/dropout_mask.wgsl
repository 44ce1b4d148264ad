// Masks of dropout, each a pure function of (seed, step, sequence, place, head, row, column): computed where they are needed
// and stored nowhere. A backward, a recomputed layer, a resumed run and every cut of an update have the same bits.
//
// factor = 1 / (1 - p) where word >= threshold = p 2^32, else 0
// word: one of the four of h(h(key, place, sequence) ^ (row / 2, column / 2, head, 0)), which are for 2 x 2 elements: attention
// walks along keys forward and along queries for dk and dv, and takes two words of each hash both ways.
// h is pcg4d (Jarzynski and Olano, Hash Functions for GPU Rendering, JCGT 9(3), 2020): a bijection of 128 bits, so no two
// elements of a mask share a word, in 12 products of 32 bits. Philox, the usual choice, takes 20 to 40 products of 64 bits, which
// WGSL does not have. `src/ops/dropout.rs` has the same in Rust; tests hold its masks to 4 standard deviations.

struct DropoutDraw {
    key0: u32, // of seed and step
    key1: u32,
    sequence: u32, // the number within the update of the first sequence of the micro-batch
    threshold: u32,
    scale: f32, // 1 / (1 - p)
    spare_a: u32,
    spare_b: u32,
    spare_c: u32,
}

struct DropoutMask {
    counter: vec4<u32>,
    threshold: u32,
    scale: f32,
}

fn dropout_hash(x: vec4<u32>) -> vec4<u32> {
    var v = x * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4<u32>(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// The mask of a head of sequence `sequence` of the micro-batch.
fn dropout_mask(draw: DropoutDraw, place: u32, sequence: u32, head: u32) -> DropoutMask {
    let stream = dropout_hash(vec4<u32>(draw.key0, draw.key1, place, draw.sequence + sequence));
    return DropoutMask(stream ^ vec4<u32>(0u, 0u, head, 0u), draw.threshold, draw.scale);
}

fn dropout_words(mask: DropoutMask, row: u32, column: u32) -> vec4<u32> {
    return dropout_hash(mask.counter ^ vec4<u32>(row / 2u, column / 2u, 0u, 0u));
}

fn dropout_factors(mask: DropoutMask, words: vec2<u32>) -> vec2<f32> {
    return select(vec2<f32>(), vec2<f32>(mask.scale), words >= vec2<u32>(mask.threshold));
}

// Factors of (row, column) and (row, column + 1); column is even.
fn dropout_across(mask: DropoutMask, row: u32, column: u32) -> vec2<f32> {
    let words = dropout_words(mask, row, column);
    return dropout_factors(mask, select(words.xy, words.zw, vec2<bool>(row % 2u == 1u)));
}

// Factors of (row, column) and (row + 1, column); row is even.
fn dropout_down(mask: DropoutMask, row: u32, column: u32) -> vec2<f32> {
    let words = dropout_words(mask, row, column);
    return dropout_factors(mask, select(words.xz, words.yw, vec2<bool>(column % 2u == 1u)));
}
