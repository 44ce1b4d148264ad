//! `tokenformer devices`: every adapter of this machine, what it can do, and which one would run.

use super::answer::Answer;
use super::target::SavedTarget;
use crate::gpu::adapter::{self, AdapterRequest, FoundAdapter, backend_name, type_name};
use crate::gpu::device::Gpu;
use crate::gpu::listing::{choice_lines, describe};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Arguments of `devices`.
#[derive(Debug, Args)]
pub(crate) struct DevicesArgs {
    /// Write what the chosen adapter can do to a file, for `plan --target FILE` on a machine without it.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// Prints the list to standard output, and saves the chosen one where that is asked for.
///
/// # Errors
/// No adapter (with what to install), a request that matches none, or a file that cannot be written.
pub(crate) fn run(request: &AdapterRequest, args: &DevicesArgs) -> Answer {
    let candidates = adapter::enumerate(request)?;
    let mut text: String = candidates.iter().map(describe).collect();
    let mut adapters: Vec<Value> = candidates.iter().map(facts).collect();
    let choice = adapter::choose_from(candidates, request);
    if let Ok((chosen, why)) = &choice {
        text += &choice_lines(chosen, why);
    }
    super::print(&text)?;
    let (chosen, why) = choice?;
    if let Some(file) = &args.save {
        SavedTarget::of(&Gpu::open(request)?).write(file)?;
    }
    for adapter in adapters.iter_mut().filter_map(Value::as_object_mut) {
        adapter.insert("chosen".to_owned(), (adapter.get("index") == Some(&chosen.index.into())).into());
    }
    Ok(json!({ "adapters": adapters, "chosen": chosen.index, "why": why }))
}

/// An adapter for programs.
fn facts(found: &FoundAdapter) -> Value {
    let limits = found.adapter.limits();
    json!({
        "index": found.index,
        "name": found.info.name,
        "backend": backend_name(found.info.backend),
        "type": type_name(found.info.device_type),
        "driver": found.info.driver,
        "driver_info": found.info.driver_info,
        "can_compute": found.lacks().is_none(),
        "max_buffer": limits.max_buffer_size,
        "max_binding": limits.max_storage_buffer_binding_size,
        "max_storage_buffers": limits.max_storage_buffers_per_shader_stage,
        "f16": found.has_f16(),
    })
}
