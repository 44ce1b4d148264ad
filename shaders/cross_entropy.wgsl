// Cross-entropy of a chunk of rows of logits, with its gradient written over the logits.
//
// loss_r = log sum_v exp(x_rv) - x_r,target   (nats)
// dx_rv  = (softmax(x_r)_v - [v = target]) weight scale,  weight = 1 / number of targets counted in the loss
// Mapping: one workgroup per row of the chunk. Order of summation: row.wgsl.
// Writes: losses overwritten; logits replaced by their gradient when dims.gradient is 1.
// Limits: target 0xffffffff is not counted: loss 0, gradient 0.
#import "row.wgsl"
#import "real.wgsl"
#import "stats.wgsl"

struct CrossEntropyDims {
    rows: u32,
    vocab: u32,
    first_row: u32,
    weight: f32,
    gradient: u32,
}

@group(0) @binding(0) var<uniform> dims: CrossEntropyDims;
@group(0) @binding(1) var<storage, read> targets: array<u32>; // (R)
@group(0) @binding(2) var<storage, read_write> logits: array<Real>; // (rows, vocab): the chunk
@group(0) @binding(3) var<storage, read_write> losses: array<f32>; // (R)
@group(0) @binding(4) var<storage, read> stats: Stats;

@compute @workgroup_size(LANES)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var row = group.x; row < dims.rows; row += groups.x) {
        let base = row * dims.vocab;
        let target_token = targets[dims.first_row + row];
        let counted = target_token != 0xffffffffu;
        // A target that is not counted is no row of the table: any logit will do.
        let picked = f32(logits[base + min(target_token, dims.vocab - 1u)]);
        // Not -infinity, which WGSL lets a compiler take for impossible.
        var largest = -1.0e30;
        for (var i = lane; i < dims.vocab; i += LANES) {
            largest = max(largest, f32(logits[base + i]));
        }
        largest = row_max(lane, largest);
        var sum = 0.0;
        for (var i = lane; i < dims.vocab; i += LANES) {
            sum += exp(f32(logits[base + i]) - largest);
        }
        sum = row_sum(lane, sum);
        if (lane == 0u) {
            losses[dims.first_row + row] = select(0.0, log(sum) + largest - picked, counted);
        }
        if (dims.gradient == 1u) {
            // All lanes read the target's logit above, and one of them writes over it now.
            storageBarrier();
            let weight = select(0.0, dims.weight * stats.loss_scale, counted);
            for (var i = lane; i < dims.vocab; i += LANES) {
                let p = exp(f32(logits[base + i]) - largest) / sum;
                logits[base + i] = Real(weight * (p - select(0.0, 1.0, i == target_token)));
            }
        }
    }
}
