//! Programs submitted in short chunks, so that no watchdog ends them.
//!
//! Systems end work that takes long (Windows and amdgpu after two seconds, macOS sooner while it draws), so a program is
//! submitted in chunks that are planned by the time of earlier ones. Where it is cut changes no bit: the order of
//! dispatches is the same.

use super::device::WAIT_LIMIT;
use super::engine::{Engine, Program};
use super::heartbeat::Heartbeat;
use crate::error::Result;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long a chunk may take before the GPU counts as hung; on a software adapter, whose driver compiles when a kernel first
/// runs: on a busy machine that alone took lavapipe more than half a minute.
const PATIENCE: [Duration; 2] = [Duration::from_secs(30), WAIT_LIMIT];
/// A wait shorter than this says that the chunk was done before.
const ALREADY_DONE: Duration = Duration::from_micros(50);

/// One submission of a program.
#[derive(Debug)]
struct Chunk {
    submission: wgpu::SubmissionIndex,
    cost: f64,
    /// Of its first and last dispatch, for messages.
    kernels: [String; 2],
    dispatches: usize,
}

/// Submissions that were not waited for yet, in order.
#[derive(Debug, Default)]
pub struct Submission(Vec<Chunk>);

impl Submission {
    /// Puts another submission, submitted later, behind this one.
    pub fn then(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Submissions.
    pub fn chunks(&self) -> usize {
        self.0.len()
    }
}

/// What is done between the dispatches of a program, while the device works on those before.
pub(crate) struct Breaks<'a> {
    /// After how many dispatches, ascending.
    after: &'a [usize],
    /// Which of them are over.
    done: usize,
    /// What is done at the break of this number, which may submit commands of its own.
    act: Option<&'a mut dyn FnMut(usize) -> Result<()>>,
}

impl<'a> Breaks<'a> {
    pub(crate) fn new(after: &'a [usize], act: &'a mut dyn FnMut(usize) -> Result<()>) -> Self {
        Self { after, done: 0, act: Some(act) }
    }

    /// Nothing is done.
    pub(crate) fn none() -> Self {
        Self { after: &[], done: 0, act: None }
    }

    /// What of a range of dispatches is before the next break.
    fn until_next(&self, range: Range<usize>) -> Range<usize> {
        let next = self.after.get(self.done..).unwrap_or_default().iter().find(|&&after| after > range.start);
        range.start..next.map_or(range.end, |&next| range.end.min(next))
    }

    /// So many dispatches were submitted.
    fn reached(&mut self, dispatches: usize) -> Result<()> {
        while self.after.get(self.done).is_some_and(|&after| after <= dispatches) {
            self.done += 1;
            self.act.as_mut().map_or(Ok(()), |act| act(self.done - 1))?;
        }
        Ok(())
    }
}

/// The first chunk of a program, encoded while the device works on something else.
pub(crate) struct Ahead {
    commands: wgpu::CommandBuffer,
    dispatches: usize,
}

impl Engine {
    /// Runs one dispatch of a program and waits for it.
    pub fn run_one(&self, program: &Program, dispatch: usize) -> Result<()> {
        let mut encoder = self.encoder();
        program.encode_range(&mut encoder, dispatch..dispatch + 1);
        let submission = self.submit(encoder)?;
        self.gpu.wait(submission)
    }

    /// Runs a program and waits for it.
    pub fn run(&self, program: &Program) -> Result<()> {
        self.wait(self.start(self.encoder(), program)?)
    }

    /// Submits `encoder` and after it `program`, in chunks, without waiting; but the first time, to learn how long
    /// chunks take.
    ///
    /// # Errors
    /// Anything wgpu found wrong with the commands, or earlier; those of [`Engine::wait`].
    pub fn start(&self, encoder: wgpu::CommandEncoder, program: &Program) -> Result<Submission> {
        self.start_with(encoder, program, &mut Breaks::none())
    }

    /// As [`Engine::start`], and does in between what `breaks` says.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn start_with(
        &self,
        encoder: wgpu::CommandEncoder,
        program: &Program,
        breaks: &mut Breaks,
    ) -> Result<Submission> {
        let ahead = self.encode_ahead(encoder, program, breaks)?;
        self.start_encoded(ahead, program, breaks)
    }

    /// Encodes `encoder` and after it the first chunk of `program`, for [`Engine::start_encoded`]: most of what the host does
    /// for a program, and nothing of it waits for the device.
    ///
    /// # Errors
    /// Anything wgpu found wrong earlier.
    pub(crate) fn encode_ahead(
        &self,
        mut encoder: wgpu::CommandEncoder,
        program: &Program,
        breaks: &Breaks,
    ) -> Result<Ahead> {
        let first = self.budget().cut(program.costs(0)).into_iter().next().unwrap_or(0..0);
        let first = breaks.until_next(first);
        if !first.is_empty() {
            program.encode_range(&mut encoder, first.clone());
        }
        self.gpu.check()?;
        Ok(Ahead { commands: self.finish(encoder), dispatches: first.end })
    }

    /// Submits what was encoded of `program`, and the rest of it as [`Engine::start`] does.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn start_encoded(&self, ahead: Ahead, program: &Program, breaks: &mut Breaks) -> Result<Submission> {
        let mut all = Submission::default();
        let (mut encoded, mut next) = (Some(ahead), 0);
        while next < program.dispatches() || encoded.is_some() {
            let learning = !self.budget().measured;
            let (range, submission) = if let Some(Ahead { commands, dispatches }) = encoded.take() {
                (0..dispatches, self.submit_encoded(commands)?)
            } else {
                // Cut again for each chunk, because the one before may have taught something.
                let range = self.budget().cut(program.costs(next)).into_iter().next().unwrap_or(0..1);
                let range = breaks.until_next(next + range.start..next + range.end);
                let mut encoder = self.encoder();
                program.encode_range(&mut encoder, range.clone());
                (range, self.submit(encoder)?)
            };
            next = range.end;
            if range.is_empty() {
                breaks.reached(next)?;
                continue;
            }
            let chunk = Chunk {
                submission,
                cost: program.costs(range.start).take(range.len()).sum(),
                kernels: [range.start, range.end - 1].map(|i| program.kernel_name(i)),
                dispatches: range.len(),
            };
            let mut one = Submission(vec![chunk]);
            if learning {
                self.wait(std::mem::take(&mut one))?;
            }
            all.then(one);
            breaks.reached(next)?;
        }
        Ok(all)
    }

    /// Waits for every chunk.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::error::Error::Lost) where one takes longer than half a minute, ten on a software adapter, with its kernels, or the GPU is
    /// lost.
    pub fn wait(&self, submission: Submission) -> Result<()> {
        let patience = self.patience();
        for Chunk { submission, cost, kernels: [first, last], dispatches } in submission.0 {
            let start = Instant::now();
            self.gpu.wait_within(submission, patience, || {
                format!(
                    "{dispatches} kernels from {first} to {last}, planned for {} ms",
                    self.budget().chunk_time.as_millis()
                )
            })?;
            let took = start.elapsed();
            if took > ALREADY_DONE {
                self.budget().learn(cost, took);
            }
        }
        Ok(())
    }

    /// How long a submission may take before the GPU counts as hung. A software adapter that is taken for a GPU still
    /// compiles when a kernel first runs.
    pub fn patience(&self) -> Duration {
        PATIENCE[usize::from(self.gpu.info.device_type == wgpu::DeviceType::Cpu)]
    }

    /// Plans chunks for `chunk` each from now on.
    pub fn set_chunk_time(&self, chunk_time: Duration) {
        self.budget().chunk_time = chunk_time;
    }

    /// What a chunk is planned to take.
    pub(crate) fn chunk_time(&self) -> Duration {
        self.budget().chunk_time
    }

    /// Waits for all work and compares the heartbeat with the submissions made.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::error::Error::Lost) where work was dropped.
    pub(crate) fn check_heartbeat(&self) -> Result<()> {
        let order = self.order();
        let counted: Vec<u32> = self.read_count()?;
        Heartbeat::compare(counted.first().copied().unwrap_or_default(), order.submitted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::adapter::AdapterRequest;
    use super::super::budget::CHUNK_TIME;
    use super::super::device::Gpu;
    use super::super::program::Dispatch;
    use super::*;
    use crate::kernel::{Access, Kernel};

    static COPY: Kernel = Kernel::new("elementwise.wgsl", "copy", &[Access::Read, Access::Write]);

    /// It reads what was written meanwhile, counts as one submission, and as none where it is thrown away.
    #[test]
    fn what_was_encoded_ahead_runs_when_it_is_submitted() {
        let engine = Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap();
        let [from, to] = ["from", "to"].map(|name| engine.allocate(name, 16).unwrap());
        let blocks = vec![from.clone(), to.clone()];
        let copy = || Dispatch { kernel: &COPY, dims: vec![4, 0, 0, 0], blocks: blocks.clone(), groups: 1, cost: 1.0 };
        let program = engine.prepare(&[copy(), copy(), copy()]).unwrap();
        engine.write(&from, &[1.0_f32; 4]);
        // In one chunk, and then in three: no submission may take any time.
        for (value, chunk) in [(2.0_f32, CHUNK_TIME), (3.0, Duration::ZERO)] {
            engine.set_chunk_time(chunk);
            drop(engine.encode_ahead(engine.encoder(), &program, &Breaks::none()).unwrap());
            let ahead = engine.encode_ahead(engine.encoder(), &program, &Breaks::none()).unwrap();
            assert_eq!(ahead.dispatches, if chunk == CHUNK_TIME { 3 } else { 1 });
            engine.write(&from, &[value; 4]);
            engine.wait(engine.start_encoded(ahead, &program, &mut Breaks::none()).unwrap()).unwrap();
            assert_eq!(engine.read(&to).unwrap(), [value; 4]);
            engine.check_heartbeat().unwrap();
        }
        let nothing = engine.prepare(&[]).unwrap();
        assert_eq!(engine.start(engine.encoder(), &nothing).unwrap().chunks(), 0);
        engine.check_heartbeat().unwrap();
        let ahead = engine.encode_ahead(engine.encoder(), &program, &Breaks::none()).unwrap();
        engine.drop_after(0);
        engine.wait(engine.start_encoded(ahead, &program, &mut Breaks::none()).unwrap()).unwrap();
        let said = engine.check_heartbeat().unwrap_err().to_string();
        assert!(said.contains("left no mark"), "{said}");
    }
}
