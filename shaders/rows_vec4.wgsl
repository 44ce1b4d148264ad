// Rows of activations, four neighbouring elements at a time: the form for rows whose width is a multiple of 4.
//
// Stands in for rows_scalar.wgsl, which says what the functions mean. A unit is a vec4 here, and each vec4 of a row has
// one: the first, number 0.
#import "real.wgsl"

alias Unit = vec4<Real>;
alias Unit32 = vec4<f32>;

const HOLDS = true;
const HELD_SHARE = 1u;

fn unit_at(base: u32, i: u32, unit: u32, n: u32) -> u32 {
    return (base + i) / 4u;
}

fn has_unit(i: u32, unit: u32, n: u32) -> bool {
    return unit == 0u && i < n;
}

fn from_units(x: Unit, y: Unit, z: Unit, w: Unit, i: u32, n: u32) -> vec4<f32> {
    return vec4<f32>(x);
}

fn from_units32(x: Unit32, y: Unit32, z: Unit32, w: Unit32, i: u32, n: u32) -> vec4<f32> {
    return x;
}

fn to_unit(component: f32, all: vec4<f32>) -> Unit {
    return vec4<Real>(all);
}

fn to_unit32(component: f32, all: vec4<f32>) -> Unit32 {
    return all;
}
