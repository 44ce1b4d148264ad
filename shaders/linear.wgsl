// The bias of a linear layer, and its gradient.
//
// forward: y = b on every row, to which the product is added.   backward: db = or += sum over rows of dy.
// Mapping: forward one element per invocation; backward one workgroup per 8 columns, 8 lanes each. For GPUs bias_parts
// adds up 64 rows of 64 columns a workgroup, one lane a column, and bias_sums the parts of a column, one lane a column.
// Order of summation: 8 interleaved partial sums over rows, then ascending; in parts: ascending, then parts ascending.
// Writes: forward overwrites; backward adds when dims.accumulate is 1; parts are overwritten.
#import "real.wgsl"

struct LinearDims {
    rows: u32,
    columns: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> dims: LinearDims;
@group(0) @binding(1) var<storage, read> bias: array<f32>; // (columns)
@group(0) @binding(2) var<storage, read_write> y: array<Real>; // (rows, columns)

@group(0) @binding(1) var<storage, read> dy: array<Real>; // (rows, columns)
@group(0) @binding(2) var<storage, read_write> dbias: array<f32>; // (columns)
@group(0) @binding(2) var<storage, read_write> parts: array<f32>; // (rows / 64, columns)
@group(0) @binding(1) var<storage, read> all_parts: array<f32>; // (rows / 64, columns)

@compute @workgroup_size(64)
fn start_with_bias(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < dims.rows * dims.columns; i += groups.x * 64u) {
        y[i] = Real(bias[i % dims.columns]);
    }
}

var<workgroup> sh_part: array<f32, 64>;

@compute @workgroup_size(64)
fn backward_bias(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var column0 = group.x * 8u; column0 < dims.columns; column0 += groups.x * 8u) {
        let column = column0 + lane % 8u;
        // Lanes past the last column repeat it: they must meet the barriers.
        let at = min(column, dims.columns - 1u);
        var sum = 0.0;
        for (var row = lane / 8u; row < dims.rows; row += 8u) {
            sum += f32(dy[row * dims.columns + at]);
        }
        // The columns before may still be read.
        workgroupBarrier();
        sh_part[lane] = sum;
        workgroupBarrier();
        if (lane < 8u && column < dims.columns) {
            for (var part = 1u; part < 8u; part++) {
                sum += sh_part[part * 8u + lane];
            }
            dbias[column] = select(0.0, dbias[column], dims.accumulate == 1u) + sum;
        }
    }
}

// Rows of a part: 4096 rows give 64 times as many workgroups as columns alone. ops/linear.rs has the same number.
const CHUNK = 64u;

@compute @workgroup_size(64)
fn bias_parts(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column_blocks = (dims.columns + 63u) / 64u;
    let blocks = (dims.rows + CHUNK - 1u) / CHUNK * column_blocks;
    for (var block = group.x; block < blocks; block += groups.x) {
        let chunk = block / column_blocks;
        let column = block % column_blocks * 64u + lane;
        if (column < dims.columns) {
            let end = min((chunk + 1u) * CHUNK, dims.rows);
            var sum = 0.0;
            for (var row = chunk * CHUNK; row < end; row++) {
                sum += f32(dy[row * dims.columns + column]);
            }
            parts[chunk * dims.columns + column] = sum;
        }
    }
}

@compute @workgroup_size(64)
fn bias_sums(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let end = (dims.rows + CHUNK - 1u) / CHUNK * dims.columns;
    for (var column = id.x; column < dims.columns; column += groups.x * 64u) {
        var sum = select(0.0, dbias[column], dims.accumulate == 1u);
        for (var at = column; at < end; at += dims.columns) {
            sum += all_parts[at];
        }
        dbias[column] = sum;
    }
}
