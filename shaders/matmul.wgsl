// Matrix product C = op(A) op(B), in three layouts and two shapes of kernel.
//
// NN: A (m, k) B (k, n).  NT: A (m, k) B (n, k).  TN: A (k, m) B (k, n).  C (m, n), all row-major.
// Mapping: `registers` gives each workgroup 8 rows x 64 columns, each of its 8 invocations 8 x 8
// outputs in registers, lanes along n: fast where a workgroup is a SIMD unit (software drivers).
// `shared_tiles` gives each workgroup 64 x 64 outputs from tiles staged in workgroup memory: for GPUs.
// Order of summation: k ascending in one accumulator per output, in both, so zeros appended along k
// change no bit of the result.
// Writes: overwrite, or add to C when dims.accumulate is 1.
// Limits: k <= 32768 (see MAX_SUM in ops/matmul.rs); offsets and sizes in elements, below 2^29.

override TRANSPOSE_A: bool = false;
override TRANSPOSE_B: bool = false;

struct Dims {
    m: u32,
    n: u32,
    k: u32,
    a_offset: u32,
    b_offset: u32,
    c_offset: u32,
    a_stride: u32, // from row to row of A as stored
    b_stride: u32, // from row to row of B as stored
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> a: array<f32>; // (m, k), or (k, m) transposed
@group(0) @binding(2) var<storage, read> b: array<f32>; // (k, n), or (n, k) transposed
@group(0) @binding(3) var<storage, read_write> c: array<f32>; // (m, n)

fn a_index(row: u32, i: u32) -> u32 {
    return dims.a_offset + select(row * dims.a_stride + i, i * dims.a_stride + row, TRANSPOSE_A);
}

fn b_index(i: u32, column: u32) -> u32 {
    return dims.b_offset + select(i * dims.b_stride + column, column * dims.b_stride + i, TRANSPOSE_B);
}

// Edges read a valid element again instead of branching; store drops what is outside.
fn a_start(row: u32) -> u32 {
    return a_index(min(row, dims.m - 1u), 0u);
}

fn b_start(column: u32) -> u32 {
    return b_index(0u, min(column, dims.n - 1u));
}

fn store(row: u32, column: u32, value: f32) {
    if (row < dims.m && column < dims.n) {
        let at = dims.c_offset + row * dims.n + column;
        c[at] = value + select(0.0, c[at], dims.accumulate == 1u);
    }
}

fn store4(row: u32, column: u32, pitch: u32, value: vec4<f32>) {
    store(row, column, value.x);
    store(row, column + pitch, value.y);
    store(row, column + 2u * pitch, value.z);
    store(row, column + 3u * pitch, value.w);
}

// Written out, not looped: drivers keep arrays indexed in a loop in memory, and count the iterations.
@compute @workgroup_size(8)
fn registers(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let column_tiles = (dims.n + 63u) / 64u;
    let tiles = column_tiles * ((dims.m + 7u) / 8u);
    let a_step = select(1u, dims.a_stride, TRANSPOSE_A);
    let b_step = select(dims.b_stride, 1u, TRANSPOSE_B);
    for (var tile = group.x; tile < tiles; tile += groups.x) {
        let row = (tile / column_tiles) * 8u;
        let column = (tile % column_tiles) * 64u + local.x;
        var a_low = vec4<u32>(a_start(row), a_start(row + 1u), a_start(row + 2u), a_start(row + 3u));
        var a_high = vec4<u32>(a_start(row + 4u), a_start(row + 5u), a_start(row + 6u), a_start(row + 7u));
        var b_low = vec4<u32>(b_start(column), b_start(column + 8u), b_start(column + 16u), b_start(column + 24u));
        var b_high = vec4<u32>(b_start(column + 32u), b_start(column + 40u), b_start(column + 48u), b_start(column + 56u));
        var s00 = vec4<f32>();
        var s01 = vec4<f32>();
        var s10 = vec4<f32>();
        var s11 = vec4<f32>();
        var s20 = vec4<f32>();
        var s21 = vec4<f32>();
        var s30 = vec4<f32>();
        var s31 = vec4<f32>();
        var s40 = vec4<f32>();
        var s41 = vec4<f32>();
        var s50 = vec4<f32>();
        var s51 = vec4<f32>();
        var s60 = vec4<f32>();
        var s61 = vec4<f32>();
        var s70 = vec4<f32>();
        var s71 = vec4<f32>();
        for (var i = 0u; i < dims.k; i++) {
            let b0 = vec4<f32>(b[b_low.x], b[b_low.y], b[b_low.z], b[b_low.w]);
            let b1 = vec4<f32>(b[b_high.x], b[b_high.y], b[b_high.z], b[b_high.w]);
            let a0 = vec4<f32>(a[a_low.x], a[a_low.y], a[a_low.z], a[a_low.w]);
            let a1 = vec4<f32>(a[a_high.x], a[a_high.y], a[a_high.z], a[a_high.w]);
            s00 = fma(vec4<f32>(a0.x), b0, s00);
            s01 = fma(vec4<f32>(a0.x), b1, s01);
            s10 = fma(vec4<f32>(a0.y), b0, s10);
            s11 = fma(vec4<f32>(a0.y), b1, s11);
            s20 = fma(vec4<f32>(a0.z), b0, s20);
            s21 = fma(vec4<f32>(a0.z), b1, s21);
            s30 = fma(vec4<f32>(a0.w), b0, s30);
            s31 = fma(vec4<f32>(a0.w), b1, s31);
            s40 = fma(vec4<f32>(a1.x), b0, s40);
            s41 = fma(vec4<f32>(a1.x), b1, s41);
            s50 = fma(vec4<f32>(a1.y), b0, s50);
            s51 = fma(vec4<f32>(a1.y), b1, s51);
            s60 = fma(vec4<f32>(a1.z), b0, s60);
            s61 = fma(vec4<f32>(a1.z), b1, s61);
            s70 = fma(vec4<f32>(a1.w), b0, s70);
            s71 = fma(vec4<f32>(a1.w), b1, s71);
            a_low += vec4<u32>(a_step);
            a_high += vec4<u32>(a_step);
            b_low += vec4<u32>(b_step);
            b_high += vec4<u32>(b_step);
        }
        store4(row, column, 8u, s00);
        store4(row, column + 32u, 8u, s01);
        store4(row + 1u, column, 8u, s10);
        store4(row + 1u, column + 32u, 8u, s11);
        store4(row + 2u, column, 8u, s20);
        store4(row + 2u, column + 32u, 8u, s21);
        store4(row + 3u, column, 8u, s30);
        store4(row + 3u, column + 32u, 8u, s31);
        store4(row + 4u, column, 8u, s40);
        store4(row + 4u, column + 32u, 8u, s41);
        store4(row + 5u, column, 8u, s50);
        store4(row + 5u, column + 32u, 8u, s51);
        store4(row + 6u, column, 8u, s60);
        store4(row + 6u, column + 32u, 8u, s61);
        store4(row + 7u, column, 8u, s70);
        store4(row + 7u, column + 32u, 8u, s71);
    }
}

const DEPTH = 16u;
// Rows padded so that neighbouring invocations hit different banks.
const PITCH = 68u;
var<workgroup> sh_a: array<f32, 1088>; // DEPTH x PITCH
var<workgroup> sh_b: array<f32, 1088>; // DEPTH x PITCH

// Stages element e of the 64 x DEPTH tile of A and of B; neighbouring lanes read neighbouring words.
fn stage(e: u32, row0: u32, column0: u32, i0: u32) {
    let ar = select(e / DEPTH, e % 64u, TRANSPOSE_A);
    let ai = select(e % DEPTH, e / 64u, TRANSPOSE_A);
    let a_value = a[a_index(min(row0 + ar, dims.m - 1u), min(i0 + ai, dims.k - 1u))];
    sh_a[ai * PITCH + ar] = select(0.0, a_value, row0 + ar < dims.m && i0 + ai < dims.k);
    let bc = select(e % 64u, e / DEPTH, TRANSPOSE_B);
    let bi = select(e / 64u, e % DEPTH, TRANSPOSE_B);
    let b_value = b[b_index(min(i0 + bi, dims.k - 1u), min(column0 + bc, dims.n - 1u))];
    sh_b[bi * PITCH + bc] = select(0.0, b_value, column0 + bc < dims.n && i0 + bi < dims.k);
}

@compute @workgroup_size(256)
fn shared_tiles(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column_tiles = (dims.n + 63u) / 64u;
    let tiles = column_tiles * ((dims.m + 63u) / 64u);
    let tx = lane % 16u;
    let ty = lane / 16u;
    for (var tile = group.x; tile < tiles; tile += groups.x) {
        let row0 = (tile / column_tiles) * 64u;
        let column0 = (tile % column_tiles) * 64u;
        var s0 = vec4<f32>();
        var s1 = vec4<f32>();
        var s2 = vec4<f32>();
        var s3 = vec4<f32>();
        for (var i0 = 0u; i0 < dims.k; i0 += DEPTH) {
            workgroupBarrier();
            stage(lane, row0, column0, i0);
            stage(lane + 256u, row0, column0, i0);
            stage(lane + 512u, row0, column0, i0);
            stage(lane + 768u, row0, column0, i0);
            workgroupBarrier();
            for (var i = 0u; i < DEPTH; i++) {
                let at = i * PITCH + tx;
                let bv = vec4<f32>(sh_b[at], sh_b[at + 16u], sh_b[at + 32u], sh_b[at + 48u]);
                let from_a = i * PITCH + ty * 4u;
                s0 = fma(vec4<f32>(sh_a[from_a]), bv, s0);
                s1 = fma(vec4<f32>(sh_a[from_a + 1u]), bv, s1);
                s2 = fma(vec4<f32>(sh_a[from_a + 2u]), bv, s2);
                s3 = fma(vec4<f32>(sh_a[from_a + 3u]), bv, s3);
            }
        }
        let row = row0 + ty * 4u;
        store4(row, column0 + tx, 16u, s0);
        store4(row + 1u, column0 + tx, 16u, s1);
        store4(row + 2u, column0 + tx, 16u, s2);
        store4(row + 3u, column0 + tx, 16u, s3);
    }
}
