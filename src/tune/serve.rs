//! Kernels that are new to a driver are tried in processes of their own: some compilers never end, and some kernels cost
//! the device or the process.
//!
//! A process reads a [`TrialRequest`] a line and writes an [`Answer`] a line, after one [`Hello`](super::message::Hello). What gives no answer in time, or
//! ends, costs one candidate: the others go on in a new process. The driver keeps what it compiled, so that the process
//! that trains has it soon.

use super::child::Child;
use super::contest::{Contest, contest, usable};
use super::known::Known;
use super::message::{Answer, TrialRequest};
use super::trial::Trials;
use super::{Sandbox, threads};
use crate::console::{Parts, warn};
use crate::error::{Error, Result};
use crate::gpu::engine::Engine;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most processes at once: each holds a device.
const MOST_PROCESSES: usize = 8;
/// Threads that compile in one of them: the kernels for a result in f32 and in f16.
const THREADS: usize = 2;

/// What a test makes a process do with one candidate, whatever it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Never answers, like a compiler that does not end.
    Hang,
    /// Loses its device.
    Lose,
    /// Ends.
    Die,
    /// Has another result in its second run.
    Differ,
}

/// What a process has to say of the job in `line`, once it was tried on its device; `plants` are for tests.
///
/// # Errors
/// A line that is no job for this device; a device that computes the reference wrongly.
pub fn answer(engine: &Engine, line: &str, plants: &dyn Fn(&str) -> Option<Plant>) -> Result<Answer> {
    let unknown = || {
        Error::usage(format!("\"{line}\" names no kernel for {}: jobs come from this program", engine.gpu.describe()))
    };
    let job: TrialRequest = serde_json::from_str(line).map_err(|_| unknown())?;
    let target = engine.gpu.target;
    let candidate = usable(&target, &job.candidate).ok_or_else(unknown)?;
    let product = job.product(candidate).ok_or_else(unknown)?;
    let reference = contest(&target, product, false).into_iter().next().ok_or_else(unknown)?;
    let mut trials = Trials::new(engine, vec![Contest { product, candidates: vec![reference, candidate] }])?;
    trials.reference(0)?;
    match plants(&job.refusal()) {
        Some(Plant::Hang) => loop {
            std::thread::park();
        },
        Some(Plant::Die) => std::process::exit(9),
        Some(Plant::Lose) => engine.gpu.device.destroy(),
        Some(Plant::Differ) => trials.results.spoil = true,
        None => {}
    }
    let tried = trials.compile_ahead(THREADS, None).and_then(|()| trials.check(0, 1).map(drop));
    let ends = engine.gpu.check().is_err();
    Ok(Answer { fault: tried.err().map(|cause| cause.to_string()), ends })
}

/// Tries all jobs in processes, some at once, and adds what comes of it to `known`.
pub(super) fn run(sandbox: &Sandbox, limit: Duration, engine: &Engine, jobs: Vec<TrialRequest>, known: &mut Known) {
    let adapter = engine.gpu.cache_key();
    let software = engine.gpu.target.software;
    let most = if software { 1 } else { threads().div_ceil(THREADS).min(MOST_PROCESSES) };
    let processes = most.min(jobs.len());
    let parts = Mutex::new(Parts::new("trying kernels", jobs.len()));
    let (left, done, trouble) = (Mutex::new(VecDeque::from(jobs)), Mutex::new(Vec::new()), Mutex::new(None));
    let process = sandbox.process;
    let work = || {
        let mut idle: Option<Child> = None;
        while !lock(&left).is_empty() {
            let started = idle.take().map_or_else(|| Child::start(process, &adapter, limit), Ok);
            let mut child = match started {
                Ok(child) => child,
                // What is left is for the others, or for the next run.
                Err(cause) => {
                    lock(&trouble).get_or_insert(cause);
                    return;
                }
            };
            let Some(job) = lock(&left).pop_front() else { break };
            let (fault, ends) = match child.ask(&job) {
                Ok(Answer { fault, ends }) => (fault, ends),
                Err(fault) => (Some(fault), true),
            };
            if fault.is_some() {
                // A refusal is for all sizes.
                lock(&left).retain(|other| other.refusal() != job.refusal());
            }
            lock(&done).push((job, fault));
            lock(&parts).done(lock(&done).len());
            idle = (!ends).then_some(child);
        }
    };
    std::thread::scope(|scope| (0..processes).for_each(|_| drop(scope.spawn(work))));
    for (job, fault) in lock(&done).drain(..) {
        match fault {
            None => drop(known.works.insert(job.key())),
            // Two processes may have tried two sizes.
            Some(cause) => {
                if known.refused.insert(job.refusal()) {
                    warn(format_args!("{} is not used: {cause}", job.refusal()));
                }
            }
        }
    }
    if let (Some(cause), left @ 1..) = (lock(&trouble).take(), lock(&left).len()) {
        warn(format_args!(
            "{left} kernels are not used: they are new to this driver, and no process could be started to try \
             them ({cause})"
        ));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::contest::refusal;
    use super::*;
    use crate::kernel::{Candidate, Layout, ProductKind};

    #[test]
    fn jobs_are_kept_as_refusals_are() {
        let candidate: Candidate = "tiles-64x64x16-4x4".parse().unwrap();
        let mut keys = std::collections::BTreeSet::new();
        for (half, pair, size) in [
            (false, false, [64; 3]),
            (true, false, [64; 3]),
            (true, false, [64, 64, 65]),
            (true, true, [64; 3]),
            (true, true, [66, 64, 64]),
        ] {
            let product = ProductKind { layout: Layout::NT, size, half, pair };
            let job = TrialRequest::new(product, candidate);
            assert_eq!(job.refusal(), refusal(product, candidate));
            let text = serde_json::to_string(&job).unwrap();
            assert!(!text.contains('\n') && serde_json::from_str::<TrialRequest>(&text).unwrap() == job);
            let tried = job.product(candidate).unwrap();
            assert_eq!((tried.layout, tried.half, tried.pair), (product.layout, half, pair));
            assert_eq!(TrialRequest::new(tried, candidate), job);
            keys.insert(job.key());
        }
        assert_eq!(keys.len(), 5);
    }
}
