//! Turns what wgpu reports, by callback or by panic, into one kept sentence.
//!
//! With `-v` or `TOKENFORMER_VERBOSE=1` the full text of every report also goes to standard error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, PoisonError};

use crate::console::{self, tell};
use crate::error::Error;

/// The first thing that went wrong on one device; later reports are usually its consequences.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstError(Arc<Mutex<Option<Error>>>);

impl FirstError {
    /// Collects uncaptured errors and the loss of `device` from now on.
    pub(super) fn watch(&self, device: &wgpu::Device) {
        let slot = self.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            verbose(&error);
            slot.keep(match error {
                // Nobody says how much was asked for.
                wgpu::Error::OutOfMemory { .. } => Error::out_of_memory(0, sentence(&error)),
                _ => Error::device(sentence(&error)),
            });
        }));
        let slot = self.clone();
        device.set_device_lost_callback(move |reason, message| {
            slot.keep(Error::lost(match reason {
                wgpu::DeviceLostReason::Destroyed => "the GPU device was closed while still in use".to_owned(),
                wgpu::DeviceLostReason::Unknown => lost(&message),
            }));
        });
    }

    /// The kept error.
    pub(super) fn first(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, error: Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// What to tell a user whose GPU went away.
pub(super) fn lost(cause: &str) -> String {
    let cause = cause.trim().trim_end_matches('.').to_lowercase();
    let cause = if cause.is_empty() { "no reason given".into() } else { cause };
    format!("the GPU was lost ({cause}): its driver was reset, took too long or ran out of memory")
}

/// An error of wgpu with its causes, in one line.
pub(super) fn plain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = first_lines(&cause.to_string());
        if !parts.contains(&text) {
            parts.push(text);
        }
        next = cause.source();
    }
    parts.join(": ")
}

/// `run`'s value, or `None` if it panicked, without the panic's message on the screen.
///
/// For wgpu calls only: `Device::poll` panics when the driver reports a lost device.
pub(super) fn without_panic<T>(run: impl FnOnce() -> T) -> Option<T> {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() || is_verbose() {
                usual(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(before);
    outcome.ok()
}

/// The cause of a reported error in one line, without the source excerpt.
pub(in crate::gpu) fn cause(error: &wgpu::Error) -> String {
    match error {
        wgpu::Error::OutOfMemory { source }
        | wgpu::Error::Validation { source, .. }
        | wgpu::Error::Internal { source, .. } => plain(source.as_ref()),
    }
}

fn sentence(error: &wgpu::Error) -> String {
    match error {
        wgpu::Error::OutOfMemory { source } => {
            format!("out of GPU memory: {}; use a smaller batch_size", plain(source.as_ref()))
        }
        wgpu::Error::Validation { source, .. } => format!(
            "the GPU refused a command: {}; this is a bug in tokenformer, please report it with the output \
             of TOKENFORMER_VERBOSE=1",
            plain(source.as_ref())
        ),
        wgpu::Error::Internal { source, .. } => {
            format!("the GPU driver failed: {}; a newer driver or another --backend may help", plain(source.as_ref()))
        }
    }
}

/// The lines before a source excerpt or a list, joined.
fn first_lines(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines = lines.take_while(|line| !line.starts_with(['┌', '│', '='])).take(3);
    lines.map(|line| line.trim_end_matches('.')).collect::<Vec<_>>().join(" ")
}

fn is_verbose() -> bool {
    console::is_verbose()
        || std::env::var_os("TOKENFORMER_VERBOSE").is_some_and(|value| !value.is_empty() && value != "0")
}

fn verbose(error: &wgpu::Error) {
    if is_verbose() {
        tell(error);
        if let wgpu::Error::OutOfMemory { source } = error {
            tell(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_becomes_nothing_and_the_next_call_works() {
        assert_eq!(without_panic(|| [1, 2].get(2).copied().unwrap()), None);
        assert_eq!(without_panic(|| 3), Some(3));
    }

    #[test]
    fn a_loss_is_kept_before_its_consequences() {
        let fault = FirstError::default();
        fault.keep(Error::lost(lost("Parent device is lost.")));
        fault.keep(Error::device("a later error"));
        let kept = fault.first().unwrap().to_string();
        assert!(kept.starts_with("the GPU was lost (parent device is lost):"), "{kept}");
    }

    #[test]
    fn source_excerpts_stay_out_of_the_sentence() {
        let text = "Shader 'x' parsing error: expected ')'\n  ┌─ wgsl:3:1\n  │\n3 │ fn\n";
        assert_eq!(first_lines(text), "Shader 'x' parsing error: expected ')'");
    }
}
