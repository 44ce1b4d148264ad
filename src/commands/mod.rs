//! One file per verb of the command line: arguments in, the library's answer out.

pub mod devices;
pub mod eval;
pub mod generate;
pub mod grow;
pub mod inspect;
pub mod plan;
pub mod selftest;
pub mod settings;
pub mod train;

use crate::checkpoint::{Checkpoint, Store};
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::device::Gpu;
use crate::gpu::engine::Engine;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Opens the adapter, says which it is, and makes sure that its numbers were checked once.
fn open_engine(request: &AdapterRequest) -> Result<Engine> {
    let gpu = Gpu::open(request)?;
    eprintln!("adapter: {} ({})", gpu.describe(), gpu.why);
    let engine = Engine::new(gpu)?;
    selftest::once_per_adapter(&engine)?;
    Ok(engine)
}

/// Reads a checkpoint file, or the newest valid one of a run directory.
fn load(path: &Path) -> Result<(PathBuf, Checkpoint)> {
    if !path.is_dir() {
        return Ok((path.to_path_buf(), Checkpoint::read(path)?));
    }
    let latest = Store::new(path).latest()?;
    for warning in latest.warnings {
        eprintln!("warning: {warning}");
    }
    latest.found.ok_or_else(|| {
        Error::input(format!("{} holds no checkpoint; give a run directory or a .safetensors file", path.display()))
    })
}

/// Writes to stdout; a reader that has gone away (`| head`) ends the program quietly.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Error::io("write to", Path::new("stdout"), &e)),
        Ok(()) => Ok(()),
    }
}
