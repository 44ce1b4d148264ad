// Rotary position embedding in place, NeoX half-rotation of the first 2 * half channels of each head.
//
// (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin) for channels (j, j + half); the inverse turns by -angle.
// The derivative of a rotation is its inverse, so the backward is this kernel with dims.inverse = 1.
// Mapping: one channel pair per invocation.
// Writes: in place.
// FUSED: with fused multiply-adds, written out, as the attention kernels of GPUs rotate what they load: the same bits.
// Limits: the position of row r is run.position + r mod seq, below the rows of the table.
#import "real.wgsl"

override FUSED: bool = false;

struct RotaryDims {
    rows: u32,
    heads: u32,
    head_width: u32,
    half: u32,
    seq: u32,
    inverse: u32,
}

struct Run {
    position: u32,
}

@group(0) @binding(0) var<uniform> dims: RotaryDims;
@group(0) @binding(1) var<storage, read> table: array<f32>; // (positions, 2 half): cosines, then sines
@group(0) @binding(2) var<uniform> run: Run;
@group(0) @binding(3) var<storage, read_write> x: array<Real>; // (rows, heads * head_width)

@compute @workgroup_size(64)
fn rotate(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let per_row = dims.heads * dims.half;
    for (var i = id.x; i < dims.rows * per_row; i += groups.x * 64u) {
        let row = i / per_row;
        let head = (i % per_row) / dims.half;
        let j = i % dims.half;
        let entry = (run.position + row % dims.seq) * 2u * dims.half + j;
        let c = table[entry];
        let s = table[entry + dims.half] * select(1.0, -1.0, dims.inverse == 1u);
        let at = (row * dims.heads + head) * dims.head_width + j;
        let x1 = f32(x[at]);
        let x2 = f32(x[at + dims.half]);
        // Software drivers keep the form without fma: training goes on there with the bits that it has.
        if (FUSED) {
            x[at] = Real(fma(x1, c, -(x2 * s)));
            x[at + dims.half] = Real(fma(x2, c, x1 * s));
        } else {
            x[at] = Real(x1 * c - x2 * s);
            x[at + dims.half] = Real(x2 * c + x1 * s);
        }
    }
}
