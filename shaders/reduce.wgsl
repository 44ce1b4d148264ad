// Sums over whole tensors: the loss, and the global gradient norm with its finite flag.
//
// sum_losses: stats.loss += weight * sum of losses.
// square_sums: per workgroup, the sum of squares of a range of a tensor, and how many values of it are not finite;
// square_sums_of_blocks: of blocks that may lie in several tensors.
// finish_norm: norm = sqrt(sum of all parts) / scale; clip factor = min(1, clip / (norm + 1e-6)) / scale; finite flag.
// Mapping: square_sums one part per workgroup; the others one workgroup.
// Order of summation: row.wgsl, then parts ascending by lane.
// Writes: sum_losses adds, the others overwrite.
// Limits: finite is tested on exponent bits, because compilers may assume that NaN does not occur.
#import "row.wgsl"
#import "stats.wgsl"

struct ReduceDims {
    n: u32,
    first_part: u32,
    value: f32, // sum_losses: weight; finish_norm: clipping threshold, 0 for none
}

struct BlocksDims {
    first: u32, // the first element of the first block here
    length: u32, // elements of a block
    blocks: u32,
    end: u32, // where the last block here ends, at the latest
    first_part: u32,
    before: u32, // elements of the block that lie elsewhere, before these
    goes_on: u32, // whether the block goes on elsewhere
}

@group(0) @binding(0) var<uniform> dims: ReduceDims;
@group(0) @binding(0) var<uniform> blocks_dims: BlocksDims;
@group(0) @binding(1) var<storage, read> values: array<f32>; // (n)
@group(0) @binding(2) var<storage, read_write> stats: Stats;
@group(0) @binding(2) var<storage, read_write> parts: array<f32>; // (parts, 2): sum of squares, non-finite values
@group(0) @binding(3) var<storage, read_write> carried: array<f32>; // (2, LANES): square_sums_of_blocks

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

@compute @workgroup_size(LANES)
fn sum_losses(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < dims.n; i += LANES) {
        sum += values[i];
    }
    sum = row_sum(lane, sum);
    if (lane == 0u) {
        stats.loss += sum * dims.value;
    }
}

// Sum of squares and non-finite values, with those from `first` to `end`, a lane's.
fn with_squares(before: vec2<f32>, first: u32, end: u32) -> vec2<f32> {
    var sum = before.x;
    var bad = before.y;
    var i = first;
    // Four in a turn, added in the order of one: a third to a half of the time on lavapipe (Mesa 26.1.6).
    for (; i + 3u * LANES < end; i += 4u * LANES) {
        let x = vec4<f32>(values[i], values[i + LANES], values[i + 2u * LANES], values[i + 3u * LANES]);
        let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u);
        let finite = bits != vec4<u32>(0x7f800000u);
        // The sum stays finite whatever is in the tensor; `bad` tells of the rest, by its bits.
        let y = select(vec4<f32>(), x, finite);
        sum = fma(y.w, y.w, fma(y.z, y.z, fma(y.y, y.y, fma(y.x, y.x, sum))));
        bad = select(1.0, bad, all(finite));
    }
    for (; i < end; i += LANES) {
        let x = values[i];
        if (is_finite(x)) {
            sum = fma(x, x, sum);
        } else {
            bad = 1.0;
        }
    }
    return vec2<f32>(sum, bad);
}

@compute @workgroup_size(LANES)
fn square_sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // A range that lies together, read front to back: workgroups that stride over the whole tensor were slower on lavapipe.
    let share = (dims.n + groups.x - 1u) / groups.x;
    let end = min((group.x + 1u) * share, dims.n);
    let own = with_squares(vec2<f32>(), group.x * share + lane, end);
    let sum = row_sum(lane, own.x);
    let bad = row_sum(lane, own.y);
    if (lane == 0u) {
        parts[(dims.first_part + group.x) * 2u] = sum;
        parts[(dims.first_part + group.x) * 2u + 1u] = bad;
    }
}

// The same of blocks of a sum that lies in several tensors. A block that does goes on from the sums of the lanes, so its sum
// is that of a block in one.
@compute @workgroup_size(LANES)
fn square_sums_of_blocks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var block = group.x; block < blocks_dims.blocks; block += groups.x) {
        let first = blocks_dims.first + block * blocks_dims.length;
        let end = min(first + blocks_dims.length, blocks_dims.end);
        var before = vec2<f32>();
        if (blocks_dims.before > 0u) {
            before = vec2<f32>(carried[lane], carried[LANES + lane]);
        }
        // A lane takes every so-manieth element of the block, wherever the block began.
        let own = with_squares(before, first + (lane + LANES - blocks_dims.before % LANES) % LANES, end);
        if (blocks_dims.goes_on == 1u) {
            carried[lane] = own.x;
            carried[LANES + lane] = own.y;
        }
        let sum = row_sum(lane, own.x);
        let bad = row_sum(lane, own.y);
        if (lane == 0u) {
            parts[(blocks_dims.first_part + block) * 2u] = sum;
            parts[(blocks_dims.first_part + block) * 2u + 1u] = bad;
        }
    }
}

@compute @workgroup_size(LANES)
fn finish_norm(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    var bad = 0.0;
    for (var i = lane; i < dims.n; i += LANES) {
        sum += values[i * 2u];
        bad += values[i * 2u + 1u];
    }
    sum = row_sum(lane, sum);
    bad = row_sum(lane, bad);
    if (lane == 0u) {
        // The sum as well: squares of finite numbers may overflow.
        let finite = bad == 0.0 && is_finite(sum) && is_finite(stats.loss);
        // Gradients are larger than they should be by the loss scale, a power of two.
        let scale = stats.loss_scale;
        let norm = select(0.0, sqrt(sum) / scale, finite);
        stats.norm = norm;
        // 1e-6 as PyTorch's clip_grad_norm_ has it.
        stats.clip_factor = select(1.0, min(1.0, dims.value / (norm + 1.0e-6)), dims.value > 0.0) / scale;
        stats.finite = select(0.0, 1.0, finite);
    }
}
