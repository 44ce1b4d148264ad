//! Programs on their way: in short pieces, each of which leaves a mark.
//!
//! Systems end work that takes long (Windows and amdgpu after two seconds, macOS sooner while it draws), so a program is
//! submitted in pieces that are planned by the time of earlier ones. Where it is cut changes no bit: the order of
//! dispatches is the same.
//!
//! Drivers have ended work and reported success (on Metal a command buffer killed by the watchdog looks like a
//! finished one). So each submission ends with one addition to a counter, the *pulse*, and the host compares it with the
//! number of submissions when it reads what they computed.

use super::device::WAIT_LIMIT;
use super::engine::{Block, Dispatch, Engine, Program};
use crate::error::{Error, Result};
use crate::kernel::{Access, Kernel};
use std::ops::Range;
use std::time::{Duration, Instant};

static PULSE: Kernel = Kernel::new("pulse.wgsl", "pulse", &[Access::Write]);

/// What a piece is planned to take.
pub const PIECE: Duration = Duration::from_millis(200);
/// The same where somebody works at the display that this GPU draws.
pub const POLITE_PIECE: Duration = Duration::from_millis(20);
/// How long a piece may take before the GPU counts as hung; on a software adapter, whose driver compiles when a kernel first
/// runs: on a busy machine that alone took lavapipe more than half a minute.
const PATIENCE: [Duration; 2] = [Duration::from_secs(30), WAIT_LIMIT];
/// Units of cost a second until something was measured; see [`Dispatch::cost`].
const FIRST_RATE: [f64; 2] = [1e11, 1e10];
/// A wait shorter than this says that the piece was done before.
const ALREADY_DONE: Duration = Duration::from_micros(50);

/// How much goes into a piece.
#[derive(Debug)]
pub(super) struct Pace {
    /// What a piece is planned to take.
    pub(super) piece: Duration,
    /// Seconds of a unit of cost.
    unit: f64,
    measured: bool,
}

impl Pace {
    pub(super) fn new(software: bool) -> Self {
        Self { piece: PIECE, unit: 1.0 / FIRST_RATE[usize::from(software)], measured: false }
    }

    /// Learns from a piece: at once from one that was slower than expected, slowly from faster ones.
    fn learn(&mut self, cost: f64, took: Duration) {
        let unit = took.as_secs_f64() / cost.max(1.0);
        self.unit = if unit > self.unit || !self.measured { unit } else { 0.9 * self.unit + 0.1 * unit };
        self.measured = true;
    }

    /// Ranges of dispatches of the given costs that are planned to fit a piece each; at least one dispatch in each.
    fn cut(&self, costs: impl Iterator<Item = f64>) -> Vec<Range<usize>> {
        let most = self.piece.as_secs_f64() / self.unit;
        let mut pieces: Vec<Range<usize>> = Vec::new();
        let mut sum = 0.0;
        for (i, cost) in costs.enumerate() {
            sum += cost;
            match pieces.last_mut() {
                Some(last) if sum <= most => last.end = i + 1,
                _ => {
                    pieces.push(i..i + 1);
                    sum = cost;
                }
            }
        }
        pieces
    }
}

/// One submission of a program.
#[derive(Debug)]
struct Piece {
    submission: wgpu::SubmissionIndex,
    cost: f64,
    /// Of its first and last dispatch, for messages.
    kernels: [String; 2],
    dispatches: usize,
}

/// Submissions that were not waited for yet, in order.
#[derive(Debug, Default)]
pub struct Flight(Vec<Piece>);

impl Flight {
    /// Puts another flight, submitted later, behind this one.
    pub fn then(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Submissions.
    pub fn pieces(&self) -> usize {
        self.0.len()
    }
}

/// The first piece of a program, encoded while the device works on something else.
pub struct Ahead {
    commands: wgpu::CommandBuffer,
    dispatches: usize,
}

/// The counter that every submission adds to.
pub(super) struct Pulse {
    pub(super) count: Block,
    program: Program,
}

impl Pulse {
    pub(super) fn new(engine: &Engine) -> Result<Self> {
        let count = engine.allocate("pulse", 4)?;
        let blocks = vec![count.clone()];
        let program = engine.prepare(&[Dispatch { kernel: &PULSE, dims: vec![0; 4], blocks, groups: 1, cost: 0.0 }])?;
        Ok(Self { count, program })
    }

    pub(super) fn beat(&self, encoder: &mut wgpu::CommandEncoder) {
        let pass = wgpu::ComputePassDescriptor { label: Some("pulse"), timestamp_writes: None };
        self.program.encode(&mut encoder.begin_compute_pass(&pass));
    }

    /// Compares the counter with the submissions made.
    pub(super) fn compare(counted: u32, submitted: u32) -> Result<()> {
        match submitted.wrapping_sub(counted) {
            0 => Ok(()),
            missing => Err(Error::lost(format!(
                "the GPU reported work as done that it had not done: of {submitted} submissions {missing} left no mark"
            ))),
        }
    }
}

impl Engine {
    /// Submits `encoder` and after it `program`, in pieces, without waiting; but the first time, to learn how long
    /// pieces take.
    ///
    /// # Errors
    /// Anything wgpu found wrong with the commands, or earlier; those of [`Engine::land`].
    pub fn start(&self, encoder: wgpu::CommandEncoder, program: &Program) -> Result<Flight> {
        let ahead = self.encode_ahead(encoder, program)?;
        self.start_encoded(ahead, program)
    }

    /// Encodes `encoder` and after it the first piece of `program`, for [`Engine::start_encoded`]: most of what the host does
    /// for a program, and nothing of it waits for the device.
    ///
    /// # Errors
    /// Anything wgpu found wrong earlier.
    pub fn encode_ahead(&self, mut encoder: wgpu::CommandEncoder, program: &Program) -> Result<Ahead> {
        let first = self.pace().cut(program.costs(0)).into_iter().next().unwrap_or(0..0);
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
    pub fn start_encoded(&self, ahead: Ahead, program: &Program) -> Result<Flight> {
        let mut flight = Flight::default();
        let (mut encoded, mut next) = (Some(ahead), 0);
        while next < program.dispatches() || encoded.is_some() {
            let learning = !self.pace().measured;
            let (range, submission) = if let Some(Ahead { commands, dispatches }) = encoded.take() {
                (0..dispatches, self.submit_encoded(commands)?)
            } else {
                // Cut again for each piece, because the one before may have taught something.
                let range = self.pace().cut(program.costs(next)).into_iter().next().unwrap_or(0..1);
                let range = next + range.start..next + range.end;
                let mut encoder = self.encoder();
                program.encode_range(&mut encoder, range.clone());
                (range, self.submit(encoder)?)
            };
            next = range.end;
            if range.is_empty() {
                continue;
            }
            let piece = Piece {
                submission,
                cost: program.costs(range.start).take(range.len()).sum(),
                kernels: [range.start, range.end - 1].map(|i| program.kernel_name(i)),
                dispatches: range.len(),
            };
            let mut one = Flight(vec![piece]);
            if learning {
                self.land(std::mem::take(&mut one))?;
            }
            flight.then(one);
        }
        Ok(flight)
    }

    /// Waits for every piece.
    ///
    /// # Errors
    /// [`Error::Lost`] where one takes longer than half a minute, ten on a software adapter, with its kernels, or the GPU is
    /// lost.
    pub fn land(&self, flight: Flight) -> Result<()> {
        let patience = self.patience();
        for Piece { submission, cost, kernels: [first, last], dispatches } in flight.0 {
            let start = Instant::now();
            self.gpu.wait_within(submission, patience, || {
                format!("{dispatches} kernels from {first} to {last}, planned for {} ms", self.pace().piece.as_millis())
            })?;
            let took = start.elapsed();
            if took > ALREADY_DONE {
                self.pace().learn(cost, took);
            }
        }
        Ok(())
    }

    /// How long a submission may take before the GPU counts as hung. A software adapter that is taken for a GPU still
    /// compiles when a kernel first runs.
    pub fn patience(&self) -> Duration {
        PATIENCE[usize::from(self.gpu.info.device_type == wgpu::DeviceType::Cpu)]
    }

    /// Plans pieces for `piece` each from now on.
    pub fn set_piece(&self, piece: Duration) {
        self.pace().piece = piece;
    }

    /// What a piece is planned to take.
    pub fn piece(&self) -> Duration {
        self.pace().piece
    }

    /// Waits for all work and compares the pulse with the submissions made.
    ///
    /// # Errors
    /// [`Error::Lost`] where work was dropped.
    pub fn check_pulse(&self) -> Result<()> {
        let order = self.order();
        let counted: Vec<u32> = self.read_count()?;
        Pulse::compare(counted.first().copied().unwrap_or_default(), order.submitted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::adapter::AdapterRequest;
    use super::super::device::Gpu;
    use super::*;

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
        // In one piece, and then in three: no submission may take any time.
        for (value, piece) in [(2.0_f32, PIECE), (3.0, Duration::ZERO)] {
            engine.set_piece(piece);
            drop(engine.encode_ahead(engine.encoder(), &program).unwrap());
            let ahead = engine.encode_ahead(engine.encoder(), &program).unwrap();
            assert_eq!(ahead.dispatches, if piece == PIECE { 3 } else { 1 });
            engine.write(&from, &[value; 4]);
            engine.land(engine.start_encoded(ahead, &program).unwrap()).unwrap();
            assert_eq!(engine.read(&to).unwrap(), [value; 4]);
            engine.check_pulse().unwrap();
        }
        let nothing = engine.prepare(&[]).unwrap();
        assert_eq!(engine.start(engine.encoder(), &nothing).unwrap().pieces(), 0);
        engine.check_pulse().unwrap();
        let ahead = engine.encode_ahead(engine.encoder(), &program).unwrap();
        engine.drop_after(0);
        engine.land(engine.start_encoded(ahead, &program).unwrap()).unwrap();
        let said = engine.check_pulse().unwrap_err().to_string();
        assert!(said.contains("left no mark"), "{said}");
    }

    #[test]
    fn pieces_follow_what_was_measured_and_never_split_a_dispatch() {
        let mut pace = Pace::new(true);
        let costs = [3.9e8, 3.9e8, 3.9e8, 3.9e8, 3.9e8, 9e9, 1.0];
        assert_eq!(pace.cut(costs.into_iter()), [0..5, 5..6, 6..7]);
        pace.learn(1e9, Duration::from_millis(500));
        assert_eq!(pace.cut(costs.into_iter()), [0..1, 1..2, 2..3, 3..4, 4..5, 5..6, 6..7]);
        for _ in 0..100 {
            pace.learn(1e9, Duration::from_millis(10));
        }
        assert_eq!(pace.cut(costs.into_iter()).len(), 1);
        pace.learn(1e9, Duration::from_millis(500));
        assert_eq!(pace.cut(costs.into_iter()).len(), 7, "slower pieces are believed at once");
    }

    #[test]
    fn a_missing_mark_is_an_error() {
        assert_eq!(Pulse::compare(3, 3), Ok(()));
        let said = Pulse::compare(u32::MAX, 1).unwrap_err().to_string();
        assert!(said.contains("of 1 submissions 2 left no mark"), "{said}");
    }
}
