// Sums and maxima over one row by one workgroup; imported by kernels that work row by row.
//
// Mapping: LANES invocations a row: 64 on GPUs, 8 on software drivers, where one workgroup is one SIMD unit.
// Order of summation: each lane its own elements (lane, lane + LANES, ...) ascending, then eight parts of
// neighbouring lanes, then the parts. Zeros appended to a row therefore change no bit of its sum.
// Call in uniform control flow.

override LANES: u32 = 64;
// As many as a software driver has lanes: there each part is one lane's sum.
const PARTS = 8u;
var<workgroup> sh_row: array<f32, LANES>;
var<workgroup> sh_part: array<f32, 8>;

fn row_sum(lane: u32, value: f32) -> f32 {
    // Lanes may still read the parts of the row before.
    workgroupBarrier();
    sh_row[lane] = value;
    workgroupBarrier();
    if (lane < PARTS) {
        var sum = 0.0;
        for (var i = 0u; i < LANES / PARTS; i++) {
            sum += sh_row[lane * (LANES / PARTS) + i];
        }
        sh_part[lane] = sum;
    }
    workgroupBarrier();
    // Every lane adds them up for itself, which spares another barrier.
    let low = sh_part[0] + sh_part[1] + sh_part[2] + sh_part[3];
    return low + sh_part[4] + sh_part[5] + sh_part[6] + sh_part[7];
}

fn row_max(lane: u32, value: f32) -> f32 {
    workgroupBarrier();
    sh_row[lane] = value;
    workgroupBarrier();
    if (lane < PARTS) {
        var largest = sh_row[lane];
        for (var i = PARTS; i < LANES; i += PARTS) {
            largest = max(largest, sh_row[lane + i]);
        }
        sh_part[lane] = largest;
    }
    workgroupBarrier();
    let low = max(max(sh_part[0], sh_part[1]), max(sh_part[2], sh_part[3]));
    return max(low, max(max(sh_part[4], sh_part[5]), max(sh_part[6], sh_part[7])));
}
