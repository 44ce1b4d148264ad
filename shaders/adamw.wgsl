// AdamW with decoupled weight decay, bias correction and global-norm clipping, for one range of rows.
//
// g <- clip g;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
// p <- p (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps),  c1 = 1 - b1^t,  c2 = 1 - b2^t
// Mapping: four elements per invocation, 64 apart. Rows appended by growth are a range of their own with their own
// cohort: t counts from when they were added, lr may be scaled.
// Writes: p, m and v in place; nothing at all when the finite flag is down or the cohort is frozen.

struct Dims {
    first: u32,
    n: u32,
    cohort: u32,
    decay: u32,
}

struct Update {
    lr: f32,
    beta1: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    eps: f32,
    weight_decay: f32,
    spare: f32,
    cohorts: array<vec4<f32>, 32>, // c1, c2, learning-rate scale, 1 if trained
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<uniform> update: Update;
@group(0) @binding(2) var<storage, read> stats: array<f32>; // (8): loss, norm, clip factor, finite flag, ...
@group(0) @binding(3) var<storage, read> grad: array<f32>; // (n of the whole tensor)
@group(0) @binding(4) var<storage, read_write> p: array<f32>; // the same
@group(0) @binding(5) var<storage, read_write> m: array<f32>; // the same
@group(0) @binding(6) var<storage, read_write> v: array<f32>; // the same

struct Scalars {
    clip: f32,
    lr: f32,
    shrink: f32,
    c1: f32,
    c2: f32,
}

fn step(at: u32, x: Scalars) {
    let g = grad[at] * x.clip;
    let m_new = update.beta1 * m[at] + update.one_minus_beta1 * g;
    let v_new = update.beta2 * v[at] + update.one_minus_beta2 * g * g;
    m[at] = m_new;
    v[at] = v_new;
    p[at] = p[at] * x.shrink - x.lr * (m_new / x.c1) / (sqrt(v_new / x.c2) + update.eps);
}

@compute @workgroup_size(64)
fn adamw(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let cohort = update.cohorts[min(dims.cohort, 31u)];
    let lr = update.lr * cohort.z;
    let shrink = select(1.0, 1.0 - lr * update.weight_decay, dims.decay == 1u);
    let x = Scalars(stats[2], lr, shrink, cohort.x, cohort.y);
    let count = select(0u, dims.n, stats[3] == 1.0 && cohort.w == 1.0);
    for (var first = group.x * 256u; first < count; first += groups.x * 256u) {
        let at = dims.first + first + lane;
        if (first + 256u <= count) {
            step(at, x);
            step(at + 64u, x);
            step(at + 128u, x);
            step(at + 192u, x);
        } else {
            for (var i = first + lane; i < count; i += 64u) {
                step(dims.first + i, x);
            }
        }
    }
}
