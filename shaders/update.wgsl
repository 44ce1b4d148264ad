// Scalars of an optimizer step, which the host writes before each; ops/adamw.rs has the same fields.
struct CohortScalars {
    c1: f32,
    c2: f32,
    lr_scale: f32,
    trained: f32, // 1 or 0
}

struct UpdateScalars {
    lr: f32,
    beta1: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    eps: f32,
    weight_decay: f32,
    average: f32, // 1 - decay of the moving average of the parameters
    cohorts: array<CohortScalars, 32>,
}
