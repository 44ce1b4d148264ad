//! The time a run has, `train.max_seconds`, and how far through its schedule that brings it.
//!
//! What a run with such a limit computes depends on how fast its machine is: of its steps only the rates that it wrote down say
//! what they were. One without a limit never asks what time it is here.

use crate::config::TrainConfig;
use std::time::{Duration, Instant};

/// How much the last step says of the next ones.
const NEWEST: f64 = 0.2;

/// How long a run has trained, and when it has to end.
#[derive(Debug)]
pub(crate) struct Clock {
    max_steps: f64,
    /// Seconds of training, infinite without a limit.
    limit: f64,
    /// What earlier processes had trained when this one began, and when that was.
    spent_before: f64,
    since: Instant,
    /// Seconds of a step; `None` before the first one.
    pace: Option<f64>,
    /// Whether it is the first step's, in which drivers may compile.
    is_first: bool,
    /// Seconds of the longest evaluation, sample or checkpoint so far.
    longest_pause: f64,
    /// How far in the schedule the last step was.
    place: f64,
}

impl Clock {
    /// Of a run that had trained for `spent` seconds.
    pub(super) fn new(train: &TrainConfig, spent: f64) -> Self {
        Self {
            max_steps: train.max_steps as f64,
            limit: train.seconds().unwrap_or(f64::INFINITY),
            spent_before: spent,
            since: Instant::now(),
            pace: None,
            is_first: true,
            longest_pause: 0.0,
            place: 0.0,
        }
    }

    /// The first step is about to be taken: what was before it is no training.
    pub(super) fn start(&mut self) {
        self.since = Instant::now();
    }

    fn has_limit(&self) -> bool {
        self.limit.is_finite()
    }

    /// Seconds trained; 0 of a run without a limit, which keeps its checkpoints the same bytes at any speed.
    pub(super) fn spent(&self) -> f64 {
        if self.has_limit() { self.spent_before + self.since.elapsed().as_secs_f64() } else { 0.0 }
    }

    /// [`Self::spent`] after a step; all of its time after the last one, which may end a little before that.
    pub(super) fn trained(&self) -> f64 {
        if self.is_over() { self.spent().max(self.limit) } else { self.spent() }
    }

    /// Where the next step stands in the schedule, as a step of `max_steps`: by the steps done or by the time, whichever is
    /// further. With the last step that there is time for it is the end, `max_steps`, so that its rate is the last one.
    /// `in_flight`: another step is still computing.
    pub(super) fn place(&mut self, step: u64, in_flight: bool) -> f64 {
        if !self.has_limit() {
            return step as f64;
        }
        self.place = placed(self.spent(), self.limit, self.pace.unwrap_or(0.0), in_flight) * self.max_steps;
        self.place = self.place.max(step as f64).min(self.max_steps);
        self.place
    }

    /// Of several ranks the first has the clock: it says where the step just taken stood.
    pub(super) fn hear(&mut self, place: f64) {
        self.place = place;
    }

    /// Whether the last step was the last one that there was time for.
    pub(crate) fn is_over(&self) -> bool {
        self.has_limit() && self.place >= self.max_steps
    }

    /// A step took so long, from its start to that of the next.
    pub(super) fn step_took(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.pace = Some(match self.pace {
            Some(pace) if !self.is_first => pace + NEWEST * (took - pace),
            Some(_) => {
                self.is_first = false;
                took
            }
            None => took,
        });
    }

    /// What was no step took so long.
    pub(super) fn paused(&mut self, took: Duration) {
        self.longest_pause = self.longest_pause.max(took.as_secs_f64());
    }

    /// Whether there is time for an evaluation, a sample or a checkpoint before the last step: the run has its own at its end.
    pub(super) fn has_room(&self) -> bool {
        !self.has_limit() || self.spent() + self.longest_pause + 2.0 * self.pace.unwrap_or(0.0) < self.limit
    }

    /// Steps of the whole run, as far as can be said.
    pub(super) fn steps(&self, done: u64) -> u64 {
        let by_time = self.pace.filter(|_| self.has_limit()).map_or(f64::INFINITY, |pace| {
            let left = (self.limit - self.spent()).max(0.0) / pace.max(1e-9);
            done as f64 + if self.is_over() { 0.0 } else { left }
        });
        by_time.min(self.max_steps) as u64
    }
}

/// The share of the schedule that a step begins at, after `spent` of `limit` seconds: 1 where the one behind it would end too
/// late, so that the last one ends within a step of the limit.
fn placed(spent: f64, limit: f64, pace: f64, in_flight: bool) -> f64 {
    // The end of a step is so many steps from its start: two with another in flight, but one on drivers that tell of no step
    // before all are done.
    let ahead = if in_flight { 1.5 } else { 1.0 };
    if spent + (ahead + 0.5) * pace >= limit {
        return 1.0;
    }
    (spent / (limit - ahead * pace)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs by a clock that is moved by hand: when it ends, in seconds, and where its steps stood. `overlaps`: a step begins
    /// while another computes.
    fn simulated(limit: f64, pace: f64, in_flight: bool, overlaps: bool) -> (f64, Vec<f64>) {
        let (mut now, mut places) = (0.0, Vec::new());
        loop {
            places.push(placed(now, limit, pace, in_flight));
            now += pace;
            if places.last() == Some(&1.0) {
                return (now + if overlaps { pace } else { 0.0 }, places);
            }
        }
    }

    #[test]
    fn the_last_step_ends_within_a_step_of_the_limit() {
        for (limit, pace) in [(60.0, 0.7), (60.0, 1.0), (1.0, 0.3), (5.0, 0.01)] {
            for (in_flight, overlaps) in [(false, false), (true, true), (true, false)] {
                let (ended, places) = simulated(limit, pace, in_flight, overlaps);
                assert!((ended - limit).abs() <= pace + 1e-9, "{limit} {pace} {in_flight} {overlaps}: {ended}");
                assert!(places[0] == 0.0 && places.is_sorted() && places.iter().filter(|at| **at == 1.0).count() == 1);
            }
        }
        assert_eq!(simulated(1.0, 7.0, false, false), (7.0, vec![1.0]));
    }

    #[test]
    fn a_run_without_a_limit_goes_by_its_steps() {
        let mut clock = Clock::new(&TrainConfig::default(), 0.0);
        clock.step_took(Duration::from_secs(1000));
        assert_eq!((clock.place(7, true), clock.spent(), clock.steps(7)), (7.0, 0.0, 2000));
        assert!(!clock.is_over() && clock.has_room());
        assert_eq!(clock.place(1999, true), 1999.0);
    }

    #[test]
    fn what_is_ahead_of_the_clock_counts() {
        let train = TrainConfig { max_steps: 100, max_seconds: 1000.0, ..TrainConfig::default() };
        let mut clock = Clock::new(&train, 500.0);
        let place = clock.place(10, false);
        assert!((50.0..51.0).contains(&place), "{place}");
        assert_eq!(clock.place(80, false), 80.0);
        clock.hear(100.0);
        assert!(clock.is_over());
    }

    #[test]
    fn the_pace_is_not_that_of_the_first_step() {
        let train = TrainConfig { max_seconds: 100.0, ..TrainConfig::default() };
        let mut clock = Clock::new(&train, 0.0);
        clock.step_took(Duration::from_secs(20));
        assert_eq!(clock.steps(1), 5);
        clock.step_took(Duration::from_secs(1));
        assert_eq!(clock.steps(2), 101);
        clock.paused(Duration::from_secs(98));
        assert!(!clock.has_room());
    }
}
