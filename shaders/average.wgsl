// Exponential moving average of the parameters.
//
// e <- e + w (p - e), with w = update.average.
// Mapping: one element per invocation, striding over the whole grid.
// Writes: e in place; nothing when the finite flag is down, for then the step changed no parameter.
#import "stats.wgsl"
#import "update.wgsl"

struct AverageDims {
    n: u32,
}

@group(0) @binding(0) var<uniform> dims: AverageDims;
@group(0) @binding(1) var<uniform> update: UpdateScalars;
@group(0) @binding(2) var<storage, read> stats: Stats;
@group(0) @binding(3) var<storage, read> p: array<f32>; // (n)
@group(0) @binding(4) var<storage, read_write> e: array<f32>; // (n)

@compute @workgroup_size(256)
fn average(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let n = select(0u, dims.n, stats.finite == 1.0);
    for (var i = id.x; i < n; i += groups.x * 256u) {
        e[i] += update.average * (p[i] - e[i]);
    }
}
