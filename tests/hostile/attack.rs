//! Feeds a parser one hostile input after another and holds each to what is promised of every file.
//!
//! A case is a function of the seed and its number alone, so a failure names what replays it. The environment sets
//! the scale: `HOSTILE_CASES` (of each parser), `HOSTILE_THREADS`, `HOSTILE_SEED`, `HOSTILE_FIRST` (the first case),
//! and `HOSTILE_TRACE=1` names each case before it is tried, for faults that end the process.

use std::fmt::Debug;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokenformer::error::Error;

use crate::dice::Dice;
use crate::meter::peak_of;

/// Longest that a parser may take.
const MAX_TIME: Duration = Duration::from_millis(100);
/// Heap that a parser may take besides twice the size of its input.
const MAX_EXTRA: usize = 1 << 20;
/// Longest message: what a file says must not flood a terminal.
const MAX_MESSAGE: usize = 1000;
/// Stack of a thread that parses, that of a main thread on Windows.
const STACK: usize = 1 << 20;
/// Cases that a thread takes at a time.
const BLOCK: u64 = 256;

/// One parser under attack.
pub struct Target<M, P, C> {
    /// Its name, also that of its test.
    pub name: &'static str,
    /// Cases of the short form.
    pub cases: u64,
    /// Makes the input of a case.
    pub make: M,
    /// What is measured.
    pub parse: P,
    /// Whether it was right to accept or refuse, and what was parsed is sound; or why not.
    pub check: C,
    /// Parts of messages that the short form must have seen, so that no check lies behind another that stops everything.
    pub refusals: &'static [&'static str],
}

/// What became of one input.
pub struct Verdict {
    /// The message, where it was refused.
    pub refusal: Option<String>,
    /// The shortest of the times it took.
    pub time: Duration,
    /// Heap beyond twice the input, if any.
    pub extra: usize,
}

impl<I, T, M, P, C> Target<M, P, C>
where
    I: AsRef<[u8]> + Debug,
    M: Fn(&mut Dice) -> I + Sync,
    P: Fn(&I) -> Result<T, Error> + Sync,
    C: Fn(&I, Option<T>) -> Result<(), String> + Sync,
{
    /// Tries one input.
    ///
    /// # Errors
    /// What is wrong with the parser.
    pub fn judge(&self, input: &I) -> Result<Verdict, String> {
        let timed = || {
            let start = Instant::now();
            let (result, peak) = peak_of(|| (self.parse)(input));
            (result, peak, start.elapsed())
        };
        let whole = || {
            let (result, peak, mut time) = timed();
            // The machine may have been busy elsewhere: only what is slow every time is slow.
            for _ in 0..5 {
                if time > MAX_TIME / 20 {
                    time = time.min(timed().2);
                }
            }
            let refusal = result.as_ref().err().map(Error::to_string);
            refusal.as_deref().map_or(Ok(()), well_said)?;
            (self.check)(input, result.ok())?;
            Ok::<_, String>((refusal, peak, time))
        };
        let (refusal, peak, time) = match catch_unwind(AssertUnwindSafe(whole)) {
            Ok(done) => done?,
            Err(_) => return Err("it panicked".to_owned()),
        };
        let extra = peak.saturating_sub(2 * input.as_ref().len());
        if extra > MAX_EXTRA {
            let len = input.as_ref().len();
            return Err(format!("an input of {len} bytes took {peak} bytes of heap, at most 2 x {len} + {MAX_EXTRA}"));
        }
        if time > MAX_TIME {
            return Err(format!("it took {time:?}, at most {MAX_TIME:?}"));
        }
        Ok(Verdict { refusal, time, extra })
    }

    /// Runs the cases that the environment asks for, or those of the short form.
    pub fn attack(&self) {
        let (cases, long) = match setting("HOSTILE_CASES") {
            Some(cases) => (cases, true),
            None => (self.cases, false),
        };
        let (first, seed) = (setting("HOSTILE_FIRST").unwrap_or(0), setting("HOSTILE_SEED").unwrap_or(1));
        let threads = setting("HOSTILE_THREADS").unwrap_or(1);
        let run = Run { next: AtomicU64::new(first), end: first + cases, seed, start: Instant::now(), long };
        let total = Mutex::new(Tally { unseen: self.refusals.to_vec(), ..Tally::default() });
        let fault = Mutex::new(None);
        std::thread::scope(|scope| {
            for worker in 0..threads {
                let (run, total, fault) = (&run, &total, &fault);
                let work = move || {
                    if let Err((number, what)) = self.work(run, total, worker == 0) {
                        run.next.store(run.end, Ordering::Relaxed);
                        fault.lock().unwrap().get_or_insert((number, what));
                    }
                };
                std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).unwrap();
            }
        });
        if let Some((number, what)) = fault.into_inner().unwrap() {
            panic!(
                "{}, seed {seed}, case {number}: {what}\nreplay: HOSTILE_SEED={seed} HOSTILE_FIRST={number} \
                 HOSTILE_CASES=1 cargo test --release --test hostile {}",
                self.name, self.name
            );
        }
        let tally = total.into_inner().unwrap();
        report(&run, &format!("{}: {}", self.name, tally.said(run.start.elapsed())));
        // Said of the short form's number of cases: a replay of one sees little.
        if cases >= self.cases {
            assert!(tally.unseen.is_empty(), "{}: never refused with {:?}", self.name, tally.unseen);
            assert!(tally.accepted * 20 > cases, "{}: only {} of {cases} accepted", self.name, tally.accepted);
            assert!(tally.refused * 20 > cases, "{}: only {} of {cases} refused", self.name, tally.refused);
        }
    }

    fn work(&self, run: &Run, total: &Mutex<Tally>, reports: bool) -> Result<(), (u64, String)> {
        let trace = setting("HOSTILE_TRACE").is_some();
        let mut unseen = self.refusals.to_vec();
        let mut told = Instant::now();
        loop {
            let block = run.next.fetch_add(BLOCK, Ordering::Relaxed);
            if block >= run.end {
                return Ok(());
            }
            let mut tally = Tally::default();
            for number in block..run.end.min(block + BLOCK) {
                if trace {
                    report(run, &format!("{} case {number}", self.name));
                }
                let input = (self.make)(&mut Dice::new(run.seed, number));
                let fault = |what| (number, format!("{what}\ninput: {input:?}"));
                tally.add(self.judge(&input).map_err(fault)?, number, &mut unseen);
            }
            let mut total = total.lock().unwrap();
            total.merge(tally, &unseen);
            if reports && run.long && told.elapsed() > Duration::from_secs(60) {
                told = Instant::now();
                report(run, &format!("{}, up to case {block}: {}", self.name, total.said(run.start.elapsed())));
            }
        }
    }
}

/// One run of a target.
struct Run {
    next: AtomicU64,
    end: u64,
    seed: u64,
    start: Instant,
    long: bool,
}

/// What a run has seen.
#[derive(Default)]
struct Tally {
    accepted: u64,
    refused: u64,
    /// The longest time, and its case.
    slowest: (Duration, u64),
    /// The most heap beyond twice the input, and its case.
    largest: (usize, u64),
    unseen: Vec<&'static str>,
}

impl Tally {
    fn add(&mut self, verdict: Verdict, number: u64, unseen: &mut Vec<&'static str>) {
        self.slowest = self.slowest.max((verdict.time, number));
        self.largest = self.largest.max((verdict.extra, number));
        match verdict.refusal {
            None => self.accepted += 1,
            Some(said) => {
                self.refused += 1;
                unseen.retain(|part| !said.contains(part));
            }
        }
    }

    fn merge(&mut self, other: Self, unseen: &[&str]) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.slowest = self.slowest.max(other.slowest);
        self.largest = self.largest.max(other.largest);
        self.unseen.retain(|part| unseen.contains(part));
    }

    fn said(&self, elapsed: Duration) -> String {
        let cases = self.accepted + self.refused;
        format!(
            "{cases} cases in {:.1} s, {:.0} a second; {} accepted, {} refused; slowest {:?} (case {}); most heap beyond \
             2 x input {} bytes (case {})",
            elapsed.as_secs_f64(),
            cases as f64 / elapsed.as_secs_f64(),
            self.accepted,
            self.refused,
            self.slowest.0,
            self.slowest.1,
            self.largest.0,
            self.largest.1
        )
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")))
}

/// Past the capture of `cargo test` where a run takes long.
fn report(run: &Run, line: &str) {
    if run.long {
        let _ = writeln!(std::io::stderr(), "{line}");
    } else {
        println!("{line}");
    }
}

/// One short line without control characters.
fn well_said(message: &str) -> Result<(), String> {
    if message.is_empty() || message.len() > MAX_MESSAGE || message.contains(char::is_control) {
        return Err(format!("its message is not one short line: {message:?}"));
    }
    Ok(())
}
