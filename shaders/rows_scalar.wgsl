// Rows of activations, four neighbouring elements at a time: the form for rows of any width.
//
// Where the width of a row is a multiple of 4, rows_vec4.wgsl takes the place of this file: a load or a store is then
// one instruction. What is computed, and in which order, is the same in both, so a row that grows from the one form into
// the other keeps its bits.
// Elements past the end of a row are read as 0 and not written.
#import "real.wgsl"

// What an index into a bound array counts: here, single elements.
alias Unit = Real;
alias Unit32 = f32;

// Whether lanes hold parts of rows in registers. Here they read all of it again: with four guarded stores for each vec4,
// what is written out for eight of them took a software driver half a minute to compile.
const HOLDS = false;
const HELD_SHARE = 0u;

// Where a unit of the vec4 lies that starts at element i of a row; the row has n elements and starts at base.
fn unit_at(base: u32, i: u32, unit: u32, n: u32) -> u32 {
    return base + min(i + unit, n - 1u);
}

fn has_unit(i: u32, unit: u32, n: u32) -> bool {
    return i + unit < n;
}

fn from_units(x: Unit, y: Unit, z: Unit, w: Unit, i: u32, n: u32) -> vec4<f32> {
    let inside = vec4<u32>(i, i + 1u, i + 2u, i + 3u) < vec4<u32>(n);
    return select(vec4<f32>(), vec4<f32>(f32(x), f32(y), f32(z), f32(w)), inside);
}

fn from_units32(x: Unit32, y: Unit32, z: Unit32, w: Unit32, i: u32, n: u32) -> vec4<f32> {
    let inside = vec4<u32>(i, i + 1u, i + 2u, i + 3u) < vec4<u32>(n);
    return select(vec4<f32>(), vec4<f32>(x, y, z, w), inside);
}

// One component as it is stored; `all` is for the other form.
fn to_unit(component: f32, all: vec4<f32>) -> Unit {
    return Real(component);
}

fn to_unit32(component: f32, all: vec4<f32>) -> Unit32 {
    return component;
}
