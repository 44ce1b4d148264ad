//! `tokenformer completions` and `tokenformer man`: what a shell and a manual know of the arguments.

use crate::error::{Error, Result};
use clap::Args;
use clap_complete::Shell;
use std::path::PathBuf;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to write them for.
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder of the pages; it is made where it is not there.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the completions of `command`.
///
/// # Errors
/// Standard output that cannot be written to.
pub(crate) fn completions(mut command: clap::Command, args: &CompletionsArgs) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, env!("CARGO_PKG_NAME"), &mut text);
    super::write(&String::from_utf8_lossy(&text))
}

/// Writes a page of `command`, and one of each of its verbs.
///
/// # Errors
/// A folder that cannot be made or written to.
pub(crate) fn pages(command: clap::Command, args: &ManArgs) -> Result<()> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, &e))?;
    clap_mangen::generate_to(command, dir).map_err(|e| Error::io("write to", dir, &e))?;
    super::print(&format!("written to {}: `man -l {}`\n", dir.display(), dir.join("tokenformer.1").display()))
}
