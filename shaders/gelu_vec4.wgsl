// GELU and its derivative of four numbers; imported by kernels that apply it. The formulas are those of gelu.wgsl.

fn gauss4(x: vec4<f32>) -> vec4<f32> {
    return exp(-0.5 * x * x);
}

fn normal_cdf4(x: vec4<f32>, e: vec4<f32>) -> vec4<f32> {
    let k = 1.0 / (1.0 + 0.31 * abs(x));
    var p = k * 0.035841075713;
    p = (p - 0.14160190526) * k;
    p = (p + 0.15506323096) * k;
    p = (p - 0.014899083772) * k;
    p = (p + 0.11010780566) * k;
    p = (p + 0.10777181985) * k;
    p = (p + 0.12406021956) * k;
    let tail = e * (p + 0.12365691856) * k;
    return select(tail, 1.0 - tail, x >= vec4<f32>());
}

fn gelu_tanh_inner4(x: vec4<f32>) -> vec4<f32> {
    // Beyond 9 tanh is 1 in f32; clamped because tanh of large arguments is not safe everywhere.
    let inner = 0.7978845608 * (x + 0.044715 * x * x * x);
    return tanh(clamp(inner, vec4<f32>(-9.0), vec4<f32>(9.0)));
}

fn gelu4(x: vec4<f32>, use_tanh: bool) -> vec4<f32> {
    if (use_tanh) {
        return 0.5 * x * (1.0 + gelu_tanh_inner4(x));
    }
    return x * normal_cdf4(x, gauss4(x));
}

struct GeluWithSlope {
    value: vec4<f32>,
    slope: vec4<f32>,
}

fn gelu_with_slope4(x: vec4<f32>, use_tanh: bool) -> GeluWithSlope {
    if (use_tanh) {
        let h = gelu_tanh_inner4(x);
        let slope = 0.5 * (1.0 + h) + 0.5 * x * (1.0 - h * h) * 0.7978845608 * (1.0 + 0.134145 * x * x);
        return GeluWithSlope(0.5 * x * (1.0 + h), slope);
    }
    let e = gauss4(x);
    let cdf = normal_cdf4(x, e);
    return GeluWithSlope(x * cdf, cdf + 0.3989422804 * x * e);
}
