// The statistics of an optimizer step, in device memory from the loss to the update; ops/stats.rs has the same fields.
struct Stats {
    loss: f32,
    norm: f32,
    clip_factor: f32,
    finite: f32, // 1 or 0
    loss_scale: f32,
    spare: array<f32, 3>,
}
