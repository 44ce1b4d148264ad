//! The command-line program: parse, run, one sentence and an exit code on failure.

use std::process::ExitCode;
use tokenformer::commands::cli::{Cli, parse};
use tokenformer::console::{fail, tell};
use tokenformer::error::Error;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    silence_device_select();
    let cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    match Cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match &error {
                // That is how it was asked to end.
                Error::Interrupted(sentence) => tell(sentence),
                other => fail(other),
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Where `XDG_RUNTIME_DIR` is not set (root on a server, containers), Mesa's device-select layer prints
/// "error: XDG_RUNTIME_DIR is invalid" before anything happens. The layer only reorders adapters, which
/// this program does itself, so it is switched off there. The environment of a running process cannot
/// be changed safely, so the program starts itself once more; if that fails, the noise stays.
#[cfg(target_os = "linux")]
fn silence_device_select() {
    use std::os::unix::process::CommandExt;
    const SWITCH: &str = "NODEVICE_SELECT";
    if std::env::var_os("XDG_RUNTIME_DIR").is_some() || std::env::var_os(SWITCH).is_some() {
        return;
    }
    // Not when started through a loader, whose file this would be.
    let Ok(program) = std::env::current_exe() else { return };
    if program.file_name().is_some_and(|name| name == env!("CARGO_PKG_NAME")) {
        let _ = std::process::Command::new(program).args(std::env::args_os().skip(1)).env(SWITCH, "1").exec();
    }
}
