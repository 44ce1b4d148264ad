//! `tokenformer probe-kernels`: tries kernels that are new to a driver, for the process that asks on standard input.
//!
//! Nothing but answers goes to standard output. It ends with its input, also while a compiler hangs.

use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::device::Gpu;
use crate::gpu::engine::Engine;
use crate::tune::message::Hello;
use crate::tune::serve::{Plant, answer};
use serde::Serialize;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Name of the verb.
const VERB: &str = "probe-kernels";
/// What tests plant, as in `hang:NT tiles-64x64x16-4x4,lose:NN ...`; changes what this process answers, and nothing else.
const PLANTS: &str = "TOKENFORMER_TEST_PLANT";
/// What a kernel that is being tried has once the input has ended.
const GRACE: Duration = Duration::from_secs(2);

/// The command that starts such a process with this program, for the adapter of `request`.
///
/// # Errors
/// A program that cannot tell where it is.
pub(crate) fn command(request: &AdapterRequest) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(VERB);
    for (flag, value) in [("--adapter", &request.adapter), ("--backend", &request.backend)] {
        command.args(value.iter().map(|value| format!("{flag}={value}")));
    }
    Ok(command)
}

/// Answers until the input ends or the device is lost.
///
/// # Errors
/// Device errors, which end it: the process that asks starts another.
pub(crate) fn run(request: &AdapterRequest) -> Result<()> {
    let (sender, jobs) = channel();
    std::thread::spawn(move || listen(sender));
    #[cfg(target_os = "linux")]
    std::thread::spawn(watch_memory);
    let engine = Engine::new(Gpu::open(request)?)?;
    say(&Hello { adapter: engine.gpu.cache_key() })?;
    for job in jobs {
        let answer = answer(&engine, &job, &planted)?;
        say(&answer)?;
        if answer.ends {
            break;
        }
    }
    Ok(())
}

/// Passes lines on until there are no more, and then ends the process even if its other thread does not.
fn listen(sender: Sender<String>) {
    let lines = std::io::stdin().lock().lines().map_while(|line| line.ok());
    for line in lines {
        if sender.send(line).is_err() {
            break;
        }
    }
    drop(sender);
    std::thread::sleep(GRACE);
    // Not by `exit`, which calls what a driver has registered and may wait for its compiler. A signal that leaves no
    // memory dump comes first.
    #[cfg(unix)]
    let _ = signal_hook::low_level::raise(KILL);
    std::process::abort();
}

/// Ends the process when it takes more memory than any sound compiler needs: several such at once would take a machine's.
#[cfg(target_os = "linux")]
fn watch_memory() {
    loop {
        std::thread::sleep(Duration::from_millis(100));
        // Pages of 4 KiB, or larger ones.
        let pages =
            std::fs::read_to_string("/proc/self/statm").ok().and_then(|s| s.split(' ').nth(1)?.parse::<u64>().ok());
        if pages.is_some_and(|pages| pages > MOST_MEMORY / 4096) {
            let _ = signal_hook::low_level::raise(KILL);
        }
    }
}

/// Bytes that a process may hold in memory.
#[cfg(target_os = "linux")]
const MOST_MEMORY: u64 = 4 << 30;

#[cfg(unix)]
const KILL: i32 = 9;

fn say(message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(message).unwrap_or_default();
    line.push('\n');
    let mut out = std::io::stdout().lock();
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    written.map_err(|cause| Error::io("write to", Path::new("stdout"), &cause))
}

fn planted(candidate: &str) -> Option<Plant> {
    let plants = std::env::var(PLANTS).ok()?;
    let (kind, _) = plants.split(',').filter_map(|plant| plant.split_once(':')).find(|(_, name)| *name == candidate)?;
    match kind {
        "hang" => Some(Plant::Hang),
        "lose" => Some(Plant::Lose),
        "die" => Some(Plant::Die),
        "differ" => Some(Plant::Differ),
        _ => None,
    }
}
