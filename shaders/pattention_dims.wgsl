// What both schedules of Pattention's normalisation go by, and how they divide.
struct PattentionDims {
    rows: u32,
    n: u32,
    tau: f32,
    eps: f32,
    use_tanh: u32,
    zeros_rest: u32, // whether a row of zeros has a gradient of zero
}

@group(0) @binding(0) var<uniform> dims: PattentionDims;

// A row of zeros has weights of zero, not 0/0.
fn quotient(numerator: f32, denominator: f32) -> f32 {
    return select(0.0, numerator / denominator, denominator > 0.0);
}

// Of a backward. With eps the gradient of a row of zeros is upstream / eps, which f16 does not hold. Dropout makes such rows, and
// what reaches them is multiplied by its zeros: there they rest.
fn slope_factor(norm: f32) -> f32 {
    return select(quotient(dims.tau, norm + dims.eps), 0.0, dims.zeros_rest == 1u && norm == 0.0);
}
