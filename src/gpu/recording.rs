//! A program with the contents of its buffers as JSON, for other implementations of WebGPU: `scripts/compilers/dawn.mjs`
//! says what is in it.

use super::block::Allocation;
use super::engine::{Block, Engine, Program};
use crate::error::Result;
use crate::kernel::Kernel;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;

/// A program that has not run yet, with its buffers as they are now; and where `results` are in it: number of the buffer, offset
/// and size in bytes.
pub(crate) fn record(engine: &Engine, program: &Program, results: &[&Block]) -> Result<(Value, Vec<[u64; 3]>)> {
    let mut buffers: Vec<Arc<Allocation>> = Vec::new();
    let mut place = |block: &Block| {
        let known = buffers.iter().position(|allocation| Arc::ptr_eq(allocation, &block.allocation));
        let buffer = known.unwrap_or_else(|| {
            buffers.push(block.allocation.clone());
            buffers.len() - 1
        });
        [buffer as u64, block.offset, block.bound]
    };
    let mut steps = Vec::new();
    for step in &program.steps {
        let kernel: &Kernel = step.kernel.unwrap();
        let (code, constants) = engine.source(kernel)?;
        steps.push(json!({
            "name": kernel.name(),
            "code": code,
            "entry": kernel.entry,
            "constants": constants,
            "groups": step.groups,
            "parameters": step.dims,
            "blocks": step.blocks.iter().map(&mut place).collect::<Vec<_>>(),
            "access": kernel.bindings.iter().map(|access| format!("{access:?}")).collect::<Vec<_>>(),
        }));
    }
    let places = results.iter().map(|block| place(block)).collect();
    let contents = buffers.iter().map(|allocation| {
        let words: Vec<u32> = engine.gpu.read(&allocation.buffer, 0, (allocation.bytes / 4) as usize, None)?;
        Ok(BASE64_STANDARD.encode(bytemuck::cast_slice(&words)))
    });
    Ok((json!({ "buffers": contents.collect::<Result<Vec<_>>>()?, "steps": steps }), places))
}
