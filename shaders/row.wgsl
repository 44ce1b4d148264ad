// Sums and maxima over one row by one workgroup of 64; imported by kernels that work row by row.
//
// Order of summation: each lane its own elements (lane, lane + 64, ...), then a binary tree over lanes.
// Zeros appended to a row therefore change no bit of its sum. Call in uniform control flow.

const LANES = 64u;
var<workgroup> sh_row: array<f32, 64>;

fn row_sum(lane: u32, value: f32) -> f32 {
    workgroupBarrier();
    sh_row[lane] = value;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lane < half) {
            sh_row[lane] += sh_row[lane + half];
        }
        workgroupBarrier();
    }
    return sh_row[0];
}

fn row_max(lane: u32, value: f32) -> f32 {
    workgroupBarrier();
    sh_row[lane] = value;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lane < half) {
            sh_row[lane] = max(sh_row[lane], sh_row[lane + half]);
        }
        workgroupBarrier();
    }
    return sh_row[0];
}
