//! Whether an overflow to f16 gives infinity, which mixed precision depends on: a step is left out and the loss scale
//! halved where a gradient is not finite. A device that stores the largest f16 instead would train on wrong numbers.
//!
//! Stores are those of training: the conversion of parameters, and products with f16 results.

use crate::error::{Error, Result};
use crate::gpu::engine::Engine;
use crate::graph::plan::Plan;
use crate::graph::{Class, Graph};
use crate::kernel::Dtype;
use crate::ops::matmul::{Layout, Product};
use crate::runtime::device::Device;
use crate::runtime::memory::Memory;
use half::f16;

/// f16 ends at 65504: what overflows whichever way it is rounded, and what f16 holds exactly.
const CONVERTED: [f32; 7] = [1e6, 70_000.0, -1e6, 65_504.0, -70_000.0, -65_504.0, 1.0];
/// Whole vectors of four, and some elements more than that.
const LENGTHS: [usize; 2] = [512, 517];
/// Factors whose products overflow (1e6, 280000, 250000, 70000) or are exact.
const ROWS: [f32; 4] = [1000.0, 280.0, -1000.0, 1.0];
const COLUMNS: [f32; 4] = [1000.0, 250.0, 1.0, -1.0];
const STORED: &str = "stored";

/// Stores numbers past the end of f16 and reads what arrived.
///
/// # Errors
/// A device error that names what was stored wrongly, and those of the device.
pub fn check(device: &Device) -> Result<()> {
    for length in LENGTHS {
        let values = cycled(&CONVERTED, length);
        judge(device, &values, &converted(device, &values)?)?;
    }
    let (rows, columns) = (cycled(&ROWS, 67), cycled(&COLUMNS, 130));
    let values: Vec<f32> = rows.iter().flat_map(|x| columns.iter().map(move |y| x * y)).collect();
    judge(device, &values, &multiplied(device, &rows, &columns)?)
}

fn cycled(values: &[f32], length: usize) -> Vec<f32> {
    values.iter().copied().cycle().take(length).collect()
}

fn judge(device: &Device, values: &[f32], stored: &[u16]) -> Result<()> {
    let Some(fault) = fault(values, stored) else { return Ok(()) };
    Err(Error::device(format!(
        "{} {fault}, so that mixed precision would not see an overflow; use --precision f32, or update its driver",
        device.engine.gpu.describe()
    )))
}

/// What is wrong with the bits in which `values` were stored as f16.
fn fault(values: &[f32], stored: &[u16]) -> Option<String> {
    if values.len() != stored.len() {
        return Some(format!("stored {} of {} numbers as f16", stored.len(), values.len()));
    }
    // Bits are compared, since compilers may take NaN and infinity for absent.
    let wrong = values.iter().zip(stored).find(|(value, bits)| f16::from_f32(**value).to_bits() != **bits);
    wrong.map(|(value, bits)| format!("stores {value} in f16 as {}", f16::from_bits(*bits)))
}

fn graph(device: &Device) -> Graph {
    let mut g = Graph::forward_only(&device.kernels);
    g.set_precision(Dtype::F16);
    g
}

fn converted(device: &Device, values: &[f32]) -> Result<Vec<u16>> {
    let mut g = graph(device);
    let from = g.state("values", &[values.len()]);
    let to = g.typed(STORED, &[values.len()], Dtype::F16, Class::State);
    g.cast(from, to)?;
    run(&device.engine, &g, &[("values", values)])
}

fn multiplied(device: &Device, rows: &[f32], columns: &[f32]) -> Result<Vec<u16>> {
    let mut g = graph(device);
    let (m, n) = (rows.len(), columns.len());
    let [a, b] = [("rows", m), ("columns", n)].map(|(name, length)| {
        let numbers = g.state(name, &[length]);
        (numbers, g.activation("factors", &[length]))
    });
    for (numbers, factors) in [a, b] {
        g.cast(numbers, factors)?;
    }
    let product = g.typed(STORED, &[m, n], Dtype::F16, Class::State);
    Product::new(Layout::NN, [m, n, 1]).record(&mut g, a.1, b.1, product)?;
    run(&device.engine, &g, &[("rows", rows), ("columns", columns)])
}

fn run(engine: &Engine, g: &Graph, inputs: &[(&str, &[f32])]) -> Result<Vec<u16>> {
    let plan = Plan::new(g)?;
    let (memory, programs) = Memory::allocate(engine, &[&plan])?;
    for (name, values) in inputs {
        engine.write_all(memory.named(name)?, values)?;
    }
    for program in &programs {
        engine.run(program)?;
    }
    engine.read_halves(memory.named(STORED)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_but_infinity_is_refused_for_an_overflow() {
        let [largest, infinity, nan] = [0x7bff, 0x7c00, 0x7e00];
        let minus = |bits: u16| bits | 0x8000;
        let values = [1e6, 70_000.0, -1e6, 65_504.0];
        let sound = [infinity, infinity, minus(infinity), largest];
        assert_eq!(fault(&values, &sound), None);
        for (at, bits, said) in [
            (0, largest, "stores 1000000 in f16 as 65504"),
            (1, largest, "stores 70000 in f16 as 65504"),
            (0, nan, "stores 1000000 in f16 as NaN"),
            (1, minus(infinity), "stores 70000 in f16 as -inf"),
            (2, infinity, "stores -1000000 in f16 as inf"),
            (2, 0, "stores -1000000 in f16 as 0"),
            (3, infinity, "stores 65504 in f16 as inf"),
        ] {
            let mut stored = sound;
            stored[at] = bits;
            assert_eq!(fault(&values, &stored).as_deref(), Some(said));
        }
        assert_eq!(fault(&values, &sound[..3]).as_deref(), Some("stored 3 of 4 numbers as f16"));
    }
}
