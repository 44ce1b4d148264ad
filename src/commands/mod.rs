//! One file per verb of the command line: arguments in, the library's answer out.

mod answer;
pub(crate) mod bench;
pub mod cli;
pub(crate) mod compare;
pub(crate) mod devices;
pub(crate) mod eval;
mod examples;
pub(crate) mod generate;
pub(crate) mod grow;
pub(crate) mod inspect;
mod interrupt;
pub(crate) mod manual;
mod numbers;
pub(crate) mod plan;
pub(crate) mod presets;
pub(crate) mod probe;
mod prompt;
pub(crate) mod prune;
mod run_dir;
pub(crate) mod selftest;
pub(crate) mod settings;
mod stop;
pub(crate) mod study;
mod target;
pub(crate) mod train;
mod wording;

use crate::config::RunConfig;
use crate::console::{self, TerminalText, detail, note, warn};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::device::Gpu;
use crate::kernel::Dtype;
use crate::runtime::device::Device;
use crate::train::directory::check_writable;
use crate::train::disk::Start;
use crate::train::{Checkpoint, Meta, Store};
use numbers::{counted, kept, number, whole};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Opens the adapter, says which it is, and makes sure that its numbers were checked once.
fn open_device(request: &AdapterRequest) -> Result<Device> {
    let device = Device::open(request)?;
    let gpu = &device.engine.gpu;
    tell_adapter(gpu);
    selftest::once_per_adapter(&device, request, Dtype::F32)?;
    Ok(device)
}

/// The adapter in a line of a terminal; with `-v` all of it, and why it was chosen.
fn tell_adapter(gpu: &Gpu) {
    if console::is_verbose() {
        return detail(format_args!("adapter: {} ({})", gpu.describe(), gpu.why));
    }
    note(format_args!("adapter: {}", gpu.describe_briefly()));
}

/// A checkpoint, read and checked.
struct Loaded {
    /// The file it is in.
    path: PathBuf,
    /// All of it that is not a tensor.
    meta: Meta,
    /// The model and counters.
    start: Start,
    /// What the run was told.
    config: RunConfig,
    /// `None` for a model trained on token shards.
    tokenizer: Option<Tokenizer>,
}

/// Reads a checkpoint file, or the newest valid one of a run directory.
fn load(path: &Path) -> Result<Loaded> {
    let (path, checkpoint) = read(path)?;
    let meta = checkpoint.meta.clone();
    let checked = meta.tokenizer().and_then(|tokenizer| Ok((Start::resumed(checkpoint)?, tokenizer)));
    let ((start, config), tokenizer) = checked.map_err(|e| Error::input(format!("{}: {e}", path.display())))?;
    Ok(Loaded { path, meta, start, config, tokenizer })
}

fn read(path: &Path) -> Result<(PathBuf, Checkpoint)> {
    if let Err(cause) = path.metadata() {
        let missing = Error::io("read", path, &cause);
        return Err(Error::input(format!("{missing}; give a run directory or a .safetensors file")));
    }
    if !path.is_dir() {
        return Ok((path.to_path_buf(), Checkpoint::read(path)?));
    }
    let path = &run_dir::of(path);
    let latest = Store::new(path).latest()?;
    for warning in latest.warnings {
        warn(warning);
    }
    latest.found.ok_or_else(|| no_checkpoint(path))
}

fn no_checkpoint(dir: &Path) -> Error {
    Error::input(format!("{} holds no checkpoint; give a run directory or a .safetensors file", dir.display()))
}

/// The output of `verb` is a new file, in a directory that exists and can be written.
fn check_output(verb: &str, output: &Path) -> Result<()> {
    let shown = output.display();
    if output.exists() {
        return Err(Error::usage(format!("{shown} exists and {verb} does not overwrite: choose another output")));
    }
    let folder = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        let folder = folder.display();
        return Err(Error::input(format!(
            "cannot write {shown}: {folder} is not a directory; create it or choose another output"
        )));
    }
    check_writable(folder)
}

/// Writes lines to stdout. Names of files and arms may hold commands to a terminal, which are written out.
fn print(text: &str) -> Result<()> {
    write(&TerminalText::whole(text))
}

/// Writes text that is wanted as it is to stdout: to a terminal as [`print`] does, elsewhere byte for byte.
fn print_text(text: &str) -> Result<()> {
    if std::io::stdout().is_terminal() { print(text) } else { write(text) }
}

/// As [`print_text`], for text that comes in pieces.
#[derive(Default)]
struct Pieces(TerminalText);

impl Pieces {
    fn print(&mut self, text: &str) -> Result<()> {
        if std::io::stdout().is_terminal() { write(&self.0.piece(text)) } else { write(text) }
    }

    fn end(mut self, text: &str) -> Result<()> {
        self.print(text)?;
        write(self.0.rest())
    }
}

/// A reader that has gone away (`| head`) ends the program quietly.
fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Error::io("write to", Path::new("stdout"), &e)),
        Ok(()) => Ok(()),
    }
}
