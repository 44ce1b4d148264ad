//! What matrix units do at most: f16 x f16 -> f32 products of fragments that never leave the registers.

use super::ceiling::{SWEEP_SHARE, peak, wrong};
use super::record::{Record, Report};
use super::timing::time;
use crate::console::note;
use crate::error::Result;
use crate::gpu::custom::Custom;
use crate::gpu::engine::{Block, Engine, Program};
use crate::gpu::timing::Stopwatch;
use crate::kernel::{Access, Dtype, MAX_WORKGROUPS, Parameters, declare, parameter_block, word};
use std::fmt::Write;

/// Turns of the loop.
const ROUNDS: usize = 128;
/// Products on each accumulator in a turn.
const UNROLLED: usize = 4;
/// Accumulators of a subgroup: products of two fragments of A with two of B.
const ACCUMULATORS: usize = 4;
/// Subgroups of a workgroup that are tried; as many lanes, where a driver chooses the size.
const SUBGROUPS: [u32; 4] = [1, 2, 4, 8];
/// A dispatch is made larger until it takes this long.
const DISPATCH_MS: f64 = 2.0;

/// Adds a record of op `mma` where the device has matrix units that can be used.
///
/// # Errors
/// A device error where a sum is not what so many products make.
pub(crate) fn peak_of_matrix_units(stopwatch: &Stopwatch, seconds: f64, report: &mut Report) -> Result<()> {
    let target = stopwatch.engine.gpu.target;
    let fragment = target.fragments.best(Dtype::F16).map(|fragment| fragment.side);
    let (Some(fragment), Some(&size)) = (fragment, target.lanes().first()) else { return Ok(()) };
    let [_, most] = target.subgroup_sizes;
    // Matrix operations need whole subgroups, whatever their size.
    let fits = |n: &u32| n * size <= target.invocations && (n * size).is_multiple_of(most);
    note(format_args!("matrix units: trying {} configurations", SUBGROUPS.len()));
    let mut best: Option<(f64, Mma)> = None;
    for subgroups in SUBGROUPS.into_iter().filter(fits) {
        let mma = Mma::new(stopwatch, fragment, subgroups, size)?;
        let rate = mma.flops as f64 / time(stopwatch, &mma.program, seconds * SWEEP_SHARE)?.best_ms();
        if best.as_ref().is_none_or(|(most, _)| rate > *most) {
            best = Some((rate, mma));
        }
    }
    let Some((_, mma)) = best else { return Ok(()) };
    let case = format!("{fragment}x{fragment}x{fragment} f16 -> f32");
    let record = Record { flops: mma.flops, config: Some(mma.config), ..peak("mma", &case, Dtype::F16) };
    report.add(record.timed(time(stopwatch, &mma.program, seconds)?));
    Ok(())
}

/// One configuration, checked.
struct Mma {
    program: Program,
    flops: u64,
    config: String,
}

impl Mma {
    fn new(stopwatch: &Stopwatch, fragment: u32, subgroups: u32, size: u32) -> Result<Self> {
        let engine = stopwatch.engine;
        let text = text(fragment, subgroups, subgroups * size);
        let mut groups = 64_u32;
        loop {
            let sums = engine.allocate("sums", 8 * u64::from(groups))?;
            let program = |store| prepare(engine, &text, &sums, groups, store);
            let checked = program(true)?;
            engine.run(&checked)?;
            let expected = (ROUNDS * UNROLLED * ACCUMULATORS) as f32 * fragment as f32;
            let found: Vec<f32> = engine.read(&sums)?;
            if let Some(sum) = found.iter().step_by(2).find(|&&sum| sum != expected) {
                let what = format!("a chain of matrix products gives {sum}, {expected} is right");
                return Err(wrong(engine, &what));
            }
            let wall = stopwatch.sample(&checked, 1)?.wall.as_secs_f64() * 1e3;
            if wall >= DISPATCH_MS || groups >= MAX_WORKGROUPS / 4 {
                // Each workgroup tells how many subgroups the driver made.
                let present: u64 = found.iter().skip(1).step_by(2).map(|&n| n as u64).sum();
                let products = (ROUNDS * UNROLLED * ACCUMULATORS) as u64 * present;
                let flops = products * 2 * u64::from(fragment).pow(3);
                let subgroups = present / u64::from(groups);
                let config = format!("{subgroups} subgroups a workgroup, {ACCUMULATORS} accumulators each");
                return Ok(Self { program: program(false)?, flops, config });
            }
            groups *= 4;
        }
    }
}

parameter_block! {
    /// The parameter block of the kernel below.
    struct Dims {
        rounds: u32,
        store: u32,
        value: f32,
    }
}

fn prepare(engine: &Engine, text: &str, sums: &Block, groups: u32, store: bool) -> Result<Program> {
    let parameters = Dims { rounds: word(ROUNDS), store: u32::from(store), value: 1.0 }.into();
    Custom { text, entry: "multiply", constants: &[], parameters, blocks: &[(1, Access::Write, sums)], groups }
        .prepare(engine)
}

/// The operands differ from product to product, and their values are known at run time only.
fn text(fragment: u32, subgroups: u32, invocations: u32) -> String {
    let fields = declare(Dims::FIELDS);
    let elements = fragment * fragment;
    let mut body = String::new();
    for i in 0..UNROLLED {
        for (accumulator, (y, x)) in [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().enumerate() {
            // Another pair of operands each time round.
            let (y, x) = ((y + i) % 2, (x + i / 2) % 2);
            let _ = writeln!(body, "acc{accumulator} = coopMultiplyAdd(a{y}, b{x}, acc{accumulator});");
        }
    }
    let declare = |name: &str, role: char, i: u32| {
        format!(
            "let {name}{i} = coopLoadT<coop_mat{fragment}x{fragment}<f16, {role}>>(&sh[{}], {fragment}u);\n",
            i * elements
        )
    };
    let operands: String = (0..2).map(|i| declare("a", 'A', i) + &declare("b", 'B', i)).collect();
    let accumulators: String =
        (0..ACCUMULATORS).map(|i| format!("var acc{i} = coop_mat{fragment}x{fragment}<f32, C>();\n")).collect();
    let stores: String = (0..ACCUMULATORS)
        .map(|i| {
            format!(
                "workgroupBarrier();\ncoopStoreT(acc{i}, &sh_out[at], stride);\nworkgroupBarrier();\nsum += sh_out[at];\n"
            )
        })
        .collect();
    format!(
        "enable f16;
enable wgpu_cooperative_matrix;
struct Dims {{
{fields}
}}
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
var<workgroup> sh: array<f16, {}>;
var<workgroup> sh_out: array<f32, {}>;
@compute @workgroup_size({invocations})
fn multiply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {{
    for (var i = lane; i < {}u; i += {invocations}u) {{ sh[i] = f16(dims.value); }}
    workgroupBarrier();
    {operands}{accumulators}for (var round = 0u; round < dims.rounds; round++) {{
    {body}}}
    // The sums of all are equal: those that a driver makes besides may share a place.
    let at = min(subgroup, {}u) * {elements}u;
    let stride = {fragment}u;
    var sum = 0.0;
    {stores}if (lane == 0u && (dims.store == 1u || sum < 0.0)) {{
        sums[2u * group.x] = sum;
        sums[2u * group.x + 1u] = f32(subgroups);
    }}
}}
",
        2 * elements,
        subgroups * elements,
        2 * elements,
        subgroups - 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    #[test]
    fn the_kernels_are_valid() {
        for (fragment, size) in [(8, 32), (16, 32), (16, 64)] {
            let text = text(fragment, 2, 2 * size);
            let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
            Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap();
        }
    }
}
