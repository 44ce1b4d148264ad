//! Ctrl-C, and the signals by which a system ends a program: the first one is for the training loop to see, the second
//! ends the process at once.

use crate::console::{tell, tell_last};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Exit code of an interrupted run.
const INTERRUPTED: i32 = 130;
/// How long a terminal that takes no lines may keep a process that is to end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A flag that the first Ctrl-C, SIGTERM, SIGHUP, or SIGUSR1 (Slurm's warning before the end of a job) sets. A signal that the
/// process was started to ignore, as by `nohup`, stays ignored. `safe` says what is left where a second one ends the process.
///
/// # Errors
/// A system that does not let signals be watched.
pub(super) fn flag(safe: impl Fn() -> String + Send + Sync + 'static) -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let (seen, safe) = (flag.clone(), Arc::new(safe));
    let goes_on = move || {
        let first = !seen.swap(true, Ordering::Relaxed);
        if first {
            tell_soon(|| tell("stopping after this step; interrupt again to stop at once"));
        } else {
            let safe = safe.clone();
            tell_soon(move || tell_last(format!("stopped at once; {}", safe())));
        }
        first
    };
    watch(goes_on).map_err(|e| Error::usage(format!("cannot watch for Ctrl-C: {e}")))?;
    Ok(flag)
}

/// Makes a write past a limit on the size of files (`ulimit -f`) an error as any other, which by default ends the process
/// without a word.
pub(super) fn write_past_limits_fails() {
    #[cfg(unix)]
    {
        let noticed = Arc::new(AtomicBool::new(false));
        // Where it cannot be watched for, the process ends as it would have.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, noticed);
    }
}

/// Tells a line, in a thread of its own: a terminal may take none, as after Ctrl-S, and a directory may not answer.
fn tell_soon(tell: impl FnOnce() + Send + 'static) {
    let (done, told) = channel();
    let telling = move || {
        tell();
        let _ = done.send(());
    };
    if thread::Builder::new().name("last words".to_owned()).spawn(telling).is_ok() {
        let _ = told.recv_timeout(LAST_WORDS);
    }
}

/// Calls `goes_on` for each signal, and ends the process when it says no.
#[cfg(unix)]
fn watch(goes_on: impl Fn() -> bool + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    let ignored = ignored_signals();
    let heeded = [SIGINT, SIGTERM, SIGHUP, SIGUSR1].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = signal_hook::iterator::Signals::new(heeded)?;
    let watching = move || {
        for _ in signals.forever() {
            if !goes_on() {
                // Without the exit handlers of a driver that is in the middle of its work.
                signal_hook::low_level::exit(INTERRUPTED);
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watching).map(drop)
}

#[cfg(not(unix))]
fn watch(goes_on: impl Fn() -> bool + Send + 'static) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || {
        if !goes_on() {
            std::process::exit(INTERRUPTED);
        }
    })
}

/// The signals that this process was started to ignore, one bit each; none where the system does not say (only Linux
/// does).
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
