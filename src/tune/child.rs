//! A process that tries kernels, seen from the one that asks; see [`super::probe`].

use super::message::{Answer, Hello, TrialRequest};
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Starts a process that answers trial requests.
pub(crate) type Process<'a> = &'a (dyn Fn() -> std::io::Result<Command> + Sync);

/// Longest wait until a process has opened the adapter.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for a process to end by itself: drivers save what they compiled.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A process that waits for jobs.
pub(super) struct Child {
    process: std::process::Child,
    /// Closed, it makes the process end.
    jobs: Option<ChildStdin>,
    lines: Receiver<String>,
    limit: Duration,
    /// Whether it may be asked to end, and not only be killed.
    sound: bool,
}

impl Child {
    /// Starts a process and waits until it has opened `adapter`; it has `limit` for each job.
    ///
    /// # Errors
    /// A process that does not start, or that opens another adapter.
    pub(super) fn start(process: Option<Process>, adapter: &str, limit: Duration) -> Result<Self> {
        let failed = |cause: &dyn std::fmt::Display| Error::device(format!("its start failed: {cause}"));
        let command = process.map(|process| process()).ok_or_else(|| failed(&"there is no command for it"))?;
        let mut command = command.map_err(|cause| failed(&cause))?;
        // What drivers print is of no use to the person who waits; with TOKENFORMER_VERBOSE it may be.
        let verbose = std::env::var_os("TOKENFORMER_VERBOSE").is_some_and(|value| !value.is_empty() && value != "0");
        let errors = if verbose { Stdio::inherit() } else { Stdio::null() };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        #[cfg(unix)]
        {
            // An interrupt at the terminal is for the run: a process that died of it would cost a good kernel.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let mut process = command.spawn().map_err(|cause| failed(&cause))?;
        let (jobs, output) = (process.stdin.take(), process.stdout.take());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let read = output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(|line| line.ok());
            // Until nobody listens any more.
            let _ = read.into_iter().try_for_each(|line| sender.send(line));
        });
        let mut child = Self { process, jobs, lines, limit, sound: false };
        let hello: Hello = child.receive(START_LIMIT).map_err(|cause| failed(&cause))?;
        if hello.adapter != adapter {
            return Err(failed(&format!("it opened the adapter {} instead of {adapter}", hello.adapter)));
        }
        child.sound = true;
        Ok(child)
    }

    /// What it says of a job.
    ///
    /// # Errors
    /// No answer in time, or its end, as what it says of the candidate. It answers no more.
    pub(super) fn ask(&mut self, job: &TrialRequest) -> Result<Answer, String> {
        self.sound = false;
        let mut line = serde_json::to_string(job).unwrap_or_default();
        line.push('\n');
        // What cannot be written is for a process that has ended, which shows when its answer is read.
        let _ = self.jobs.as_mut().map(|jobs| jobs.write_all(line.as_bytes()).and_then(|()| jobs.flush()));
        let answer = self.receive(self.limit)?;
        self.sound = true;
        Ok(answer)
    }

    /// The next message. Lines that are none are a driver's.
    fn receive<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T, String> {
        let end = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Ok(message) = serde_json::from_str(&line) {
                        return Ok(message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("no answer within {:.0} s: the driver hangs", limit.as_secs_f64()));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.ended(END_LIMIT);
                    return Err(status.map_or_else(
                        || "the process that tried it closed its output".to_owned(),
                        |status| format!("the process that tried it ended ({status})"),
                    ));
                }
            }
        }
    }

    /// How it ended, if it does in time.
    fn ended(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            match self.process.try_wait() {
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if !(self.sound && self.ended(END_LIMIT).is_some()) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kernel::{Layout, ProductKind};

    fn job() -> TrialRequest {
        let product = ProductKind { layout: Layout::NN, size: [64; 3], half: false, pair: false };
        TrialRequest::new(product, "tiles-64x64x16-4x4".parse().unwrap())
    }

    /// A process of this shell script, which has half a second for each job.
    fn child(script: &str) -> Result<Child> {
        let command = || {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Ok(command)
        };
        Child::start(Some(&command), "here", Duration::from_millis(500))
    }

    const HELLO: &str = r#"echo '{"adapter":"here"}'"#;

    #[test]
    fn answers_are_read_among_what_drivers_print() {
        let script = format!(
            r#"echo "MESA: noise"; {HELLO}; while read job; do echo noise; echo '{{"fault":null,"ends":false}}'; done"#
        );
        let mut child = child(&script).unwrap();
        for _ in 0..3 {
            let answer = child.ask(&job()).unwrap();
            assert!(answer.fault.is_none() && !answer.ends);
        }
        drop(child.jobs.take());
        assert!(child.ended(END_LIMIT).unwrap().success(), "it ends with its input");
    }

    #[test]
    fn silence_and_ends_are_faults() {
        for (rest, said) in [
            ("read job; sleep 100", "no answer within 0 s"),
            ("read job; exit 7", "ended (exit status: 7)"),
            ("exit 7", "ended (exit status: 7)"),
            ("read job; kill -9 $$", "ended (signal: 9"),
        ] {
            let start = Instant::now();
            let mut child = child(&format!("{HELLO}; {rest}")).unwrap();
            let fault = child.ask(&job()).unwrap_err();
            assert!(fault.contains(said), "{rest}: {fault}");
            let pid = child.process.id();
            drop(child);
            assert!(start.elapsed() < Duration::from_secs(4), "{rest}");
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{rest} left a process");
        }
    }

    #[test]
    fn a_process_that_does_not_start_or_opens_another_adapter_is_an_error() {
        let said = |script: &str| child(script).map(drop).unwrap_err().to_string();
        assert!(said(r#"echo '{"adapter":"there"}'; read job"#).contains("opened the adapter there instead of here"));
        assert!(said("exit 3").contains("exit status: 3"));
        let missing = || Ok(Command::new("/no/such/program"));
        assert!(Child::start(Some(&missing), "here", Duration::from_secs(1)).is_err());
        assert!(Child::start(None, "here", Duration::from_secs(1)).is_err());
    }
}
