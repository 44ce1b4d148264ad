// Embedding lookup and its gradient.
//
// y_r = E[token_r].   dE[v] = or += sum over the rows r with token_r = v of dy_r.
// E is all rows of the embedding, or a part of them: forward leaves alone the rows of y whose token is in another part, and
// backward is given the starts of its own tokens.
// Mapping: forward one element per invocation; backward one workgroup per token and 64 columns.
// Order of summation: rows ascending: the host sorts row numbers by token, so no atomics are needed
// and every run adds in the same order.
// Writes: forward overwrites; backward adds when dims.accumulate is 1 and then leaves alone what has no rows.
// Limits: the host checks that tokens are below the vocabulary size.
#import "real.wgsl"

struct EmbeddingDims {
    rows: u32,
    vocab: u32, // rows of E
    columns: u32,
    accumulate: u32,
    first: u32, // the token of the first row
    last: u32, // the last token that there is
}

@group(0) @binding(0) var<uniform> dims: EmbeddingDims;
@group(0) @binding(1) var<storage, read> tokens: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> embed: array<f32>; // (vocab, columns)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (rows, columns): the residual stream

@group(0) @binding(1) var<storage, read> sorted_rows: array<u32>; // (rows): row numbers, by token
@group(0) @binding(2) var<storage, read> starts: array<u32>; // (vocab + 1): where each token's rows start
@group(0) @binding(3) var<storage, read> dy: array<Real>; // (rows, columns)
@group(0) @binding(4) var<storage, read_write> dembed: array<f32>; // (vocab, columns)

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.rows * dims.columns; i += groups.x * 64u) {
        // Clamped here, because indices are not checked on GPUs. Tokens before the part wrap around to large ones.
        let token = min(tokens[i / dims.columns], dims.last) - dims.first;
        if (token < dims.vocab) {
            y[i] = embed[token * dims.columns + i % dims.columns];
        }
    }
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column_tiles = (dims.columns + 63u) / 64u;
    for (var item = group.x; item < dims.vocab * column_tiles; item += groups.x) {
        let token = item / column_tiles;
        let column = (item % column_tiles) * 64u + lane;
        let end = starts[token + 1u];
        // Tokens without rows: a gradient that is added to is left alone, another one becomes 0.
        let adds = dims.accumulate == 1u;
        if (column < dims.columns && (starts[token] < end || !adds)) {
            var sum = 0.0;
            for (var i = starts[token]; i < end; i++) {
                sum += f32(dy[sorted_rows[i] * dims.columns + column]);
            }
            let at = token * dims.columns + column;
            dembed[at] = select(0.0, dembed[at], adds) + sum;
        }
    }
}
