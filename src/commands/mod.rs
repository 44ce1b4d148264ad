//! One file per verb of the command line: arguments in, the library's answer out.

mod answer;
pub(crate) mod bench;
mod budget;
mod changed;
pub mod cli;
pub(crate) mod compare;
pub(crate) mod devices;
mod environment;
pub(crate) mod eval;
mod examples;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod grow;
pub(crate) mod import;
pub(crate) mod inspect;
mod inspect_data;
mod interrupt;
pub(crate) mod lr_find;
pub(crate) mod manual;
mod numbers;
pub(crate) mod plan;
pub(crate) mod prepare;
pub(crate) mod presets;
pub(crate) mod probe;
mod prompt;
pub(crate) mod prune;
mod ranks;
pub(crate) mod report;
mod resume;
mod run_dir;
pub(crate) mod selftest;
pub(crate) mod settings;
mod stop;
pub(crate) mod study;
mod target;
pub(crate) mod train;
mod weights;
mod wording;

use crate::checkpoint::{Checks, FileDigest, Opened, Verified};
use crate::config::RunConfig;
use crate::console::{self, TerminalText, detail, note, warn};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::device::Gpu;
use crate::kernel::Dtype;
use crate::runtime::device::Device;
use crate::train::directory::{check_writable, is_run};
use crate::train::disk::Start;
use crate::train::{Meta, Store};
use clap::Args;
use numbers::{bytes, counted, kept, number, seconds, tokens, whole};
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
    /// That file by its content, as it was read.
    digest: FileDigest,
    /// All of it that is not a tensor.
    meta: Meta,
    /// The model and counters.
    start: Start,
    /// What the run was told.
    config: RunConfig,
    /// `None` for a model trained on token shards.
    tokenizer: Option<Tokenizer>,
}

/// Which checkpoint a command takes of what it is given, and on what terms.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Choice {
    /// Of a run, take the checkpoint with the lowest validation loss and not the newest.
    #[arg(long)]
    best: bool,
    /// Take a file as it is where its checksums do not match: another program changed it on purpose.
    #[arg(long)]
    accept_unverified: bool,
}

impl Choice {
    /// The newest of a run; with `accept_unverified` whatever is in the file.
    fn newest(accept_unverified: bool) -> Self {
        Self { best: false, accept_unverified }
    }

    /// The best checkpoint of the run `path`, if that is what is wanted.
    fn best_of(self, path: &Path) -> Result<Option<PathBuf>> {
        if !self.best {
            return Ok(None);
        }
        let (shown, best) = (path.display(), Store::new(path).best());
        if path.is_file() {
            return Err(Error::usage(format!(
                "--best takes a checkpoint of a run, and {shown} is a file: give its run"
            )));
        }
        if path.is_dir() && std::fs::symlink_metadata(&best).is_err() {
            return Err(no_best(path, "--best"));
        }
        Ok(Some(best))
    }
}

/// That `run` has none, asked for by `option`.
fn no_best(run: &Path, option: &str) -> Error {
    Error::input(format!(
        "{} has kept no best checkpoint: leave {option} out, or train with train.keep_best = true and an eval_interval",
        run.display()
    ))
}

/// Reads a checkpoint file, or the newest or best whole one of a run directory.
fn load(path: &Path, choice: Choice) -> Result<Loaded> {
    let (path, Opened { checkpoint, verified, digest }) = read(path, choice)?;
    tell_verified(&path, verified, choice);
    let meta = checkpoint.meta.clone();
    let checked = meta.tokenizer().and_then(|tokenizer| Ok((Start::resumed(checkpoint)?, tokenizer)));
    let ((start, config), tokenizer) = checked.map_err(|e| Error::input(format!("{}: {e}", path.display())))?;
    Ok(Loaded { path, digest, meta, start, config, tokenizer })
}

/// Says so where a file is not as it was written.
fn tell_verified(path: &Path, verified: Verified, choice: Choice) {
    if verified == Verified::SavedAgain {
        note(format_args!(
            "{}: another program has saved it again; all of it is as it was written, by its checksums",
            path.display()
        ));
    } else if choice.accept_unverified {
        warn(format_args!("{}: taken as it is, without a look at its checksums", path.display()));
    }
}

fn read(path: &Path, choice: Choice) -> Result<(PathBuf, Opened<Meta>)> {
    let waived = |file: &Path| Start::resumed(Opened::read(file, Checks::Waived)?.checkpoint).map(drop);
    let open =
        |file: &Path, checks| Opened::<Meta>::read(file, checks).map(|opened| (opened.checkpoint.meta.step, opened));
    chosen(path, choice, &open, &waived)
}

/// Makes something of a checkpoint file; also its step.
type Open<'a, T> = dyn Fn(&Path, Checks) -> Result<(u64, T)> + 'a;

/// What `open` makes of a checkpoint file, or of the newest or best whole one of a run directory, with its step; `waived`
/// says whether a file could be taken without its checksums.
fn chosen<T>(
    path: &Path,
    choice: Choice,
    open: &Open<T>,
    waived: &dyn Fn(&Path) -> Result<()>,
) -> Result<(PathBuf, T)> {
    let path = &run_dir::of(path);
    if let Err(cause) = path.metadata() {
        if let Some(run) = Store::run_of(path).filter(|run| run.is_dir() && Store::new(run).best() == *path) {
            return Err(no_best(&run, "@best"));
        }
        let missing = Error::io("read", path, &cause);
        return Err(Error::input(format!("{missing}; give a run directory or a .safetensors file")));
    }
    let checks = if choice.accept_unverified { Checks::Waived } else { Checks::Required };
    let best = choice.best_of(path)?;
    let with_waiver = |file: &Path, error| with_waiver(choice, error, &|| waived(file).is_ok());
    let file = best.as_deref().or_else(|| Some(path.as_path()).filter(|path| !path.is_dir()));
    if let Some(file) = file {
        let (_, opened) = open(file, checks).map_err(|error| with_waiver(file, error))?;
        return Ok((file.to_path_buf(), opened));
    }
    newest(path, &|file| {
        open(file, checks).map_err(|error| match error {
            // Damage is passed over.
            Error::Damaged(_) => error,
            other => with_waiver(file, other),
        })
    })
}

/// `error` with the option that takes the file as it is, where that helps.
fn with_waiver(choice: Choice, error: Error, waived: &dyn Fn() -> bool) -> Error {
    let tip = "what another program changed on purpose is taken with --accept-unverified";
    match error {
        other if choice.accept_unverified => other,
        Error::Damaged(what) if waived() => Error::damaged(format!("{what}; {tip}")),
        Error::Foreign(what) if waived() => Error::foreign(format!("{what}; {tip}")),
        other => other,
    }
}

/// The newest whole checkpoint of the run `dir`, as `read` takes it; those that are damaged are named.
fn newest<T>(dir: &Path, read: &dyn Fn(&Path) -> Result<(u64, T)>) -> Result<(PathBuf, T)> {
    let latest = Store::new(dir).newest(read)?;
    for warning in latest.warnings {
        warn(warning);
    }
    latest.found.ok_or_else(|| no_checkpoint(dir))
}

fn no_checkpoint(dir: &Path) -> Error {
    let shown = dir.display();
    match Store::new(dir).foreign().unwrap_or_default().first() {
        Some(other) => Error::input(format!(
            "{shown} holds no checkpoint under a name that a run gives, but {}: give that file, or give it back its name",
            other.display()
        )),
        None => Error::input(format!("{shown} holds no checkpoint; give a run directory or a .safetensors file")),
    }
}

/// The output of `verb` is a new file, in a directory that exists and can be written.
fn check_output(verb: &str, output: &Path) -> Result<()> {
    let shown = output.display();
    if output.exists() {
        return Err(Error::usage(format!("{shown} exists and {verb} does not overwrite: choose another output")));
    }
    check_place(output)
}

/// `output` is in a directory that exists, can be written, and is not a run's own.
fn check_place(output: &Path) -> Result<()> {
    let shown = output.display();
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
    // By where it really is: a link may lead into a run.
    let real = folder.canonicalize().ok().and_then(|folder| Store::run_of(&folder.join("file")));
    if let Some(run) = real.filter(|run| is_run(run)) {
        return Err(Error::usage(format!(
            "{shown} would lie among the checkpoints of the run {}, which are that run's own: choose another output, and go on \
             with `train --resume` from there",
            run.display()
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
