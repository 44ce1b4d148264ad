//! `tokenformer devices`: every adapter of this machine, what it can do, and which one would run.

use crate::error::Result;
use crate::gpu::adapter::{self, AdapterRequest};
use crate::gpu::listing::{choice_lines, describe};

/// Prints the list to standard output.
///
/// # Errors
/// No adapter (with what to install), or a request that matches none.
pub fn run(request: &AdapterRequest) -> Result<()> {
    let candidates = adapter::enumerate(request)?;
    let mut text: String = candidates.iter().map(describe).collect();
    let choice = adapter::choose_from(candidates, request);
    if let Ok((chosen, why)) = &choice {
        text += &choice_lines(chosen, why);
    }
    super::print(&text)?;
    choice.map(|_| ())
}
