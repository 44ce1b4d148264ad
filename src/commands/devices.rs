//! `tokenformer devices`: every adapter of this machine, what it can do, and which one would run.

use super::target::SavedTarget;
use crate::error::Result;
use crate::gpu::adapter::{self, AdapterRequest};
use crate::gpu::device::Gpu;
use crate::gpu::listing::{choice_lines, describe};
use clap::Args;
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
pub(crate) fn run(request: &AdapterRequest, args: &DevicesArgs) -> Result<()> {
    let candidates = adapter::enumerate(request)?;
    let mut text: String = candidates.iter().map(describe).collect();
    let choice = adapter::choose_from(candidates, request);
    if let Ok((chosen, why)) = &choice {
        text += &choice_lines(chosen, why);
    }
    super::print(&text)?;
    choice?;
    args.save.as_ref().map_or(Ok(()), |file| SavedTarget::of(&Gpu::open(request)?).write(file))
}
