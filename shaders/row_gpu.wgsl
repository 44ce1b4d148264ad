// Sums and maxima over one row by one workgroup, for GPUs; imported by kernels that work row by row.
//
// Mapping: 128 lanes a row. Lane l has the vec4s l, l + 128, l + 256, ... of its row; of these it holds the first eight in
// registers, so a row of up to 4096 elements is read from memory once, and what is past them twice.
// Order of summation: each lane its vec4s ascending, each component for itself; then the four components; then 16 parts of
// the lanes p, p + 16, ...; then the parts. It depends on no width, so zeros appended to a row change no bit of its sum.
// Call in uniform control flow.

const LANES = 128u;
const PARTS = 16u;
// Elements from one vec4 of a lane to its next.
const STEP = 4u * LANES;
// Elements of a row that are held in registers.
const HELD = 8u * STEP;

// Written out where it is used: an array that a loop indexes would lie in memory.
alias Held = array<vec4<f32>, 8>;

var<workgroup> sh_row: array<vec2<f32>, LANES>;
var<workgroup> sh_part: array<vec2<f32>, PARTS>;

fn across(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

fn held_dots(x: Held, y: Held) -> vec4<f32> {
    let low = fma(x[3], y[3], fma(x[2], y[2], fma(x[1], y[1], x[0] * y[0])));
    return fma(x[7], y[7], fma(x[6], y[6], fma(x[5], y[5], fma(x[4], y[4], low))));
}

fn held_sums(x: Held) -> vec4<f32> {
    return x[0] + x[1] + x[2] + x[3] + x[4] + x[5] + x[6] + x[7];
}

// Two sums at once: what costs is the barriers. Two are enough: who writes sh_part again has met all who read it.
fn row_sums(lane: u32, value: vec2<f32>) -> vec2<f32> {
    sh_row[lane] = value;
    workgroupBarrier();
    if (lane < PARTS) {
        var sum = sh_row[lane];
        for (var i = lane + PARTS; i < LANES; i += PARTS) {
            sum += sh_row[i];
        }
        sh_part[lane] = sum;
    }
    workgroupBarrier();
    var sum = sh_part[0];
    for (var i = 1u; i < PARTS; i++) {
        sum += sh_part[i];
    }
    return sum;
}

fn row_sum(lane: u32, value: f32) -> f32 {
    return row_sums(lane, vec2<f32>(value, 0.0)).x;
}

fn row_max(lane: u32, value: f32) -> f32 {
    sh_row[lane] = vec2<f32>(value, 0.0);
    workgroupBarrier();
    if (lane < PARTS) {
        var largest = sh_row[lane].x;
        for (var i = lane + PARTS; i < LANES; i += PARTS) {
            largest = max(largest, sh_row[i].x);
        }
        sh_part[lane] = vec2<f32>(largest, 0.0);
    }
    workgroupBarrier();
    var largest = sh_part[0].x;
    for (var i = 1u; i < PARTS; i++) {
        largest = max(largest, sh_part[i].x);
    }
    return largest;
}
