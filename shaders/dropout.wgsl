// Dropout of rows: of the embedding, and of what a layer adds to the residual stream.
//
// y = x f,  f the factors of dropout_mask.wgsl, 0 or 1 / (1 - p).  dx = dy f, by the same kernel.
// Mapping: one invocation per two columns of a row.
// Writes: overwrites, or adds when dims.accumulate is 1.
#import "real.wgsl"
#import "dropout_mask.wgsl"

struct DropoutDims {
    rows: u32,
    columns: u32,
    seq: u32, // rows of a sequence
    place: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> dims: DropoutDims;
@group(0) @binding(3) var<uniform> draw: DropoutDraw;

@group(0) @binding(1) var<storage, read> x: array<Real>; // (rows, columns)
@group(0) @binding(2) var<storage, read_write> y: array<Real>; // (rows, columns)

@group(0) @binding(1) var<storage, read> x_residual: array<f32>; // (rows, columns): the residual stream, f32 in every precision
@group(0) @binding(2) var<storage, read_write> y_residual: array<f32>; // (rows, columns)

fn factors_at(row: u32, column: u32) -> vec2<f32> {
    return dropout_across(dropout_mask(draw, dims.place, row / dims.seq, 0u), row % dims.seq, column);
}

@compute @workgroup_size(64)
fn dropout(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let pairs = (dims.columns + 1u) / 2u;
    let adds = dims.accumulate == 1u;
    for (var i = id.x; i < dims.rows * pairs; i += groups.x * 64u) {
        let column = i % pairs * 2u;
        let f = factors_at(i / pairs, column);
        let at = i / pairs * dims.columns + column;
        y[at] = Real(f32(x[at]) * f.x + select(0.0, f32(y[at]), adds));
        if (column + 1u < dims.columns) {
            y[at + 1u] = Real(f32(x[at + 1u]) * f.y + select(0.0, f32(y[at + 1u]), adds));
        }
    }
}

@compute @workgroup_size(64)
fn dropout_residual(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let pairs = (dims.columns + 1u) / 2u;
    for (var i = id.x; i < dims.rows * pairs; i += groups.x * 64u) {
        let column = i % pairs * 2u;
        let f = factors_at(i / pairs, column);
        let at = i / pairs * dims.columns + column;
        y_residual[at] = x_residual[at] * f.x;
        if (column + 1u < dims.columns) {
            y_residual[at + 1u] = x_residual[at + 1u] * f.y;
        }
    }
}
