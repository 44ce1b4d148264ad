// GELU and its derivative; imported by kernels that apply it.
//
// gelu(x) = x Phi(x),  gelu'(x) = Phi(x) + x phi(x),  phi(x) = exp(-x^2/2) / sqrt(2 pi).
// Phi(-t) = exp(-t^2/2) k P(k), k = 1 / (1 + 0.31 t), t >= 0; P is our fit of the least maximum of the
// relative error up to t = 14: 1.7e-7 exactly evaluated, 5e-7 in f32. The tanh form is the
// approximation of the JAX variant.

fn gauss(x: f32) -> f32 {
    return exp(-0.5 * x * x);
}

fn normal_cdf(x: f32, e: f32) -> f32 {
    let k = 1.0 / (1.0 + 0.31 * abs(x));
    var p = 0.035841075713;
    p = p * k - 0.14160190526;
    p = p * k + 0.15506323096;
    p = p * k - 0.014899083772;
    p = p * k + 0.11010780566;
    p = p * k + 0.10777181985;
    p = p * k + 0.12406021956;
    p = p * k + 0.12365691856;
    let tail = e * p * k;
    return select(tail, 1.0 - tail, x >= 0.0);
}

fn gelu_tanh_inner(x: f32) -> f32 {
    // Beyond 9 tanh is 1 in f32; clamped because tanh of large arguments is not safe everywhere.
    return tanh(clamp(0.7978845608 * (x + 0.044715 * x * x * x), -9.0, 9.0));
}

fn gelu(x: f32, use_tanh: bool) -> f32 {
    if (use_tanh) {
        return 0.5 * x * (1.0 + gelu_tanh_inner(x));
    }
    return x * normal_cdf(x, gauss(x));
}

fn gelu_slope(x: f32, use_tanh: bool) -> f32 {
    if (use_tanh) {
        let h = gelu_tanh_inner(x);
        return 0.5 * (1.0 + h) + 0.5 * x * (1.0 - h * h) * 0.7978845608 * (1.0 + 0.134145 * x * x);
    }
    let e = gauss(x);
    return normal_cdf(x, e) + 0.3989422804 * x * e;
}

// gelu(x) and gelu'(x).
fn gelu_with_slope(x: f32, use_tanh: bool) -> vec2<f32> {
    if (use_tanh) {
        return vec2<f32>(gelu(x, true), gelu_slope(x, true));
    }
    let e = gauss(x);
    let cdf = normal_cdf(x, e);
    return vec2<f32>(x * cdf, cdf + 0.3989422804 * x * e);
}
