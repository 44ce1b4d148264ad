//! Takes the runs of a study that are not done yet.
//!
//! Each is an ordinary run in a directory of its own. One that was stopped or killed goes on from its newest
//! checkpoint, one that is finished is only read, and one whose settings are not those of the study is refused. So the
//! same command goes on with a study wherever it stood, bit for bit.

use super::changes::difference;
use super::comparison;
use super::plan::{PlannedRun, StudyPlan};
use super::results::{ArmResult, Findings, Measured, Run, StudyCase, Trial};
use crate::checkpoint::{Files, RunLock, replace};
use crate::config::RunConfig;
use crate::console::{note, warn};
use crate::data::{Dataset, Fingerprint};
use crate::error::{Error, Result};
use crate::report::number;
use crate::runtime::device::Device;
use crate::runtime::distributed::World;
use crate::train::Store;
use crate::train::disk::Start;
use crate::train::recovery::{Job, Opener};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// In the directory of a run that diverged: why.
const DIVERGED: &str = "diverged.txt";
/// In the directory of a study: what its data are.
pub(crate) const DATA: &str = "data.json";

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Begun,
    Done,
    Diverged,
}

/// Runs a study.
pub(crate) struct Runner<'a> {
    /// What is run.
    pub plan: &'a StudyPlan<'a>,
    /// What all runs are trained on.
    pub data: &'a Dataset,
    /// The processes that take the runs in turns.
    pub world: &'a World,
    /// Set when the study is to save and stop.
    pub stop: &'a AtomicBool,
    /// Opens the adapter again where it was lost.
    pub reopen: &'a dyn Fn() -> Result<Device>,
    /// Whether runs of other settings are replaced.
    pub overwrite: bool,
}

impl Runner<'_> {
    /// Locks the study's directory and refuses what was run there with other settings or data. Of several ranks, rank 0 does.
    ///
    /// # Errors
    /// A usage error naming the setting; file errors.
    pub(crate) fn claim(&self) -> Result<RunLock> {
        let study = self.plan.study;
        if !self.world.is_root() {
            return Ok(RunLock::of_another());
        }
        crate::train::directory::check_writable(&study.out_dir)?;
        let mut lock = RunLock::take(&study.out_dir)?;
        for run in self.all_runs()? {
            self.state(&run)?;
        }
        let path = study.out_dir.join(DATA);
        let contents = Fingerprint::of(self.data)?;
        let found = serde_json::json!({"data": self.data.description, "fingerprint": contents}).to_string();
        let known: Option<serde_json::Value> =
            std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok());
        let known = known.map(|known| Fingerprint::deserialize(&known["fingerprint"]).ok());
        let out = study.out_dir.display();
        match known {
            Some(Some(known)) => {
                if let Some(changed) = known.difference(&contents) {
                    return Err(Error::usage(format!(
                        "{out} holds a study of other data than the {}: {changed}; choose another --out, or give it its own \
                         data again",
                        self.data.description
                    )));
                }
            }
            Some(None) => note(format_args!(
                "{out} is of a version that did not record what its data contain, so whether they are still the same is not \
                 known"
            )),
            None => {}
        }
        lock.keep()?;
        replace(&Files, &path, &found).map_err(|cause| Error::io("write", &path, &cause))?;
        Ok(lock)
    }

    /// Every run that may be needed, each once, at every learning rate that may be chosen.
    fn all_runs(&self) -> Result<Vec<PlannedRun>> {
        let (plan, study) = (self.plan, self.plan.study);
        let mut runs = Vec::new();
        for arm in 0..study.arms.len() {
            runs.extend(plan.trials(arm)?.into_iter().flatten());
        }
        for case in &plan.cases {
            for &seed in &study.seeds {
                for &rate in &study.trials.rates {
                    runs.push(plan.run(case, rate, seed)?);
                }
            }
        }
        Ok(runs)
    }

    /// The runs that are not done: with a rate that stands for the chosen one where that is not known yet.
    ///
    /// # Errors
    /// As [`Runner::claim`].
    pub(crate) fn pending(&self) -> Result<Vec<PlannedRun>> {
        let (plan, study) = (self.plan, self.plan.study);
        let mut runs = Vec::new();
        for arm in 0..study.arms.len() {
            runs.extend(plan.trials(arm)?.into_iter().flatten());
        }
        for case in &plan.cases {
            let rates = &study.trials.rates;
            for &seed in &study.seeds {
                let all: Vec<PlannedRun> =
                    rates.iter().map(|rate| plan.run(case, *rate, seed)).collect::<Result<_>>()?;
                let mut done = false;
                for run in &all {
                    done |= matches!(self.state(run)?, State::Done | State::Diverged);
                }
                runs.extend(all.into_iter().next().filter(|_| !done));
            }
        }
        let mut seen = BTreeSet::new();
        let mut pending = Vec::new();
        for run in runs {
            let state = self.state(&run)?;
            if matches!(state, State::New | State::Begun) && seen.insert(run.config.out_dir.clone()) {
                pending.push(run);
            }
        }
        Ok(pending)
    }

    /// Takes every run that is not done, trials of learning rates first, and reads all of them.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after saving when `stop` was set; device and file errors.
    pub(crate) fn run(&self, device: Device) -> Result<Findings> {
        let (plan, study) = (self.plan, self.plan.study);
        let mut opener = Opener::new(device, self.reopen);
        let mut progress = Progress { left: self.pending()?.len(), started: Instant::now(), done: 0 };
        let trials: Vec<_> = (0..study.arms.len()).map(|arm| plan.trials(arm)).collect::<Result<_>>()?;
        self.take_turns(0, trials.into_iter().flatten().flatten(), &mut opener, &mut progress)?;
        let mut arms = Vec::new();
        for (index, arm) in study.arms.iter().enumerate() {
            let mut trials = Vec::new();
            for run in plan.trials(index)?.iter().flatten() {
                let measured = self.finish(run, &mut opener, &mut progress, "trial")?;
                let steps = run.config.train.max_steps as u64;
                let loss = measured.as_ref().and_then(|measured| measured.loss_at(steps));
                let wall_seconds = measured.map_or(0.0, |measured| measured.wall_seconds);
                let (rate, seed) = (run.config.train.lr, run.config.train.seed);
                trials.push(Trial { rate, seed, steps, loss, wall_seconds });
            }
            let rate = best_rate(&study.trials.rates, &trials);
            let rate = rate.ok_or_else(|| {
                Error::Diverged(format!(
                    "every learning rate of lr.trials diverged for arm \"{}\": list smaller ones, the smallest is {:e}",
                    arm.name,
                    study.trials.rates.iter().copied().fold(f64::INFINITY, f64::min)
                ))
            })?;
            arms.push(ArmResult { name: arm.name.clone(), models: arm.models(), rate, trials });
        }
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); plan.cases.len()];
        let rate_of = |case: &StudyCase| arms.get(case.arm).map_or(0.0, |arm| arm.rate);
        // Seed by seed, so that a study that is stopped early has whole pairs.
        let all = study.seeds.iter().flat_map(|&seed| plan.cases.iter().map(move |case| (case, seed)));
        let all = all.map(|(case, seed)| plan.run(case, rate_of(case), seed)).collect::<Result<Vec<_>>>()?;
        self.take_turns(1, all.into_iter(), &mut opener, &mut progress)?;
        for &seed in &study.seeds {
            for (case, runs) in plan.cases.iter().zip(&mut runs) {
                let rate = rate_of(case);
                let measured = self.finish(&plan.run(case, rate, seed)?, &mut opener, &mut progress, "run")?;
                runs.push(Run { seed, rate, measured });
            }
        }
        let case = |(case, runs): (&StudyCase, Vec<Run>)| StudyCase { runs, ..case.clone() };
        self.findings(arms, plan.cases.iter().zip(runs).map(case).collect())
    }

    fn findings(&self, arms: Vec<ArmResult>, cases: Vec<StudyCase>) -> Result<Findings> {
        let study = self.plan.study;
        let reference = study.arm_index(&study.reference, "reference")?;
        let points = comparison::points(&cases, reference, &study.points);
        let (data, entropy_floor) = (self.data.description.clone(), self.data.entropy_floor);
        let title = "Does growing pay?".to_owned();
        Ok(Findings { title, arms, reference, points, data, entropy_floor, notes: Vec::new(), cases })
    }

    /// Takes all of these runs to their ends together with the other ranks, each of which trains alone: whoever is free takes
    /// the next one. Without other ranks nothing is done here.
    fn take_turns(
        &self,
        queue: u32,
        runs: impl Iterator<Item = PlannedRun>,
        opener: &mut Opener,
        progress: &mut Progress,
    ) -> Result<()> {
        let world = self.world;
        if world.size() == 1 {
            return Ok(());
        }
        let mut left: Vec<PlannedRun> = Vec::new();
        for run in runs {
            let is_listed = left.iter().any(|other| other.config.out_dir == run.config.out_dir);
            if !is_listed && matches!(self.state(&run)?, State::New | State::Begun) {
                left.push(run);
            }
        }
        // All have the same list before any of the runs goes on.
        world.barrier()?;
        progress.left = left.len();
        while let Some(run) = left.get(world.ticket(queue)? as usize) {
            self.finish(run, opener, progress, "run")?;
        }
        world.barrier()
    }

    /// Takes a run to its end, if it is not there; `None` where it diverged.
    fn finish(
        &self,
        run: &PlannedRun,
        opener: &mut Opener,
        progress: &mut Progress,
        kind: &str,
    ) -> Result<Option<Measured>> {
        let config = &run.config;
        let tokens = config.train.grad_accum(&config.model)? * config.train.batch_size * config.model.seq_length;
        let mut state = self.state(run)?;
        if matches!(state, State::New | State::Begun) {
            let name = self.plan.study.arms.get(run.arm).map_or("", |arm| &arm.name);
            let train = &config.train;
            let (steps, rate, seed) = (train.max_steps, train.lr, train.seed);
            note(format_args!("{kind} of \"{name}\", {steps} steps, lr {rate:e}, seed {seed}{}", progress.left()));
            state = self.train(config, state, opener)?;
            progress.one_done();
        }
        if state == State::Diverged {
            return Ok(None);
        }
        Measured::read(&config.out_dir, tokens as u64).map(Some)
    }

    fn train(&self, config: &RunConfig, state: State, opener: &mut Opener) -> Result<State> {
        let dir = &config.out_dir;
        let mut lock = RunLock::take(dir)?;
        let fresh = || Ok(Start::fresh(config));
        let go_on = "the same command, or on another adapter with another --out".to_owned();
        let job = Job { config, data: self.data, origin: &fresh, stop: self.stop, go_on };
        if state == State::New {
            // That of a run which is replaced.
            let _ = std::fs::remove_file(dir.join(DIVERGED));
        }
        let start = if state == State::New { fresh()? } else { latest(dir, &fresh)? };
        if self.stop.load(Ordering::Relaxed) {
            return Err(self.interrupted());
        }
        match job.run(opener, start, &mut lock) {
            Ok(_) => Ok(State::Done),
            Err(Error::Interrupted(_)) => Err(self.interrupted()),
            Err(Error::Diverged(why)) => {
                warn(&why);
                let path = dir.join(DIVERGED);
                replace(&Files, &path, &why).map_err(|cause| Error::io("write", &path, &cause))?;
                Ok(State::Diverged)
            }
            Err(other) => Err(other),
        }
    }

    fn interrupted(&self) -> Error {
        let out = self.plan.study.out_dir.display();
        Error::Interrupted(format!("stopped; everything is saved in {out}; give the same command again to go on"))
    }

    /// Where a run stands; a run of other settings in its place is refused, or counts as none with `overwrite`.
    fn state(&self, run: &PlannedRun) -> Result<State> {
        let dir = &run.config.out_dir;
        let settings = dir.join("config.toml");
        if !settings.exists() {
            return Ok(State::New);
        }
        let mut stored = RunConfig::read(&settings).map(|stored| RunConfig { out_dir: dir.clone(), ..stored });
        if let Ok(stored) = &mut stored {
            // It decides about memory and last bits, and earlier versions wrote the number that is chosen today.
            stored.train.loss_chunk_rows = run.config.train.loss_chunk_rows;
            // It changes no result, and earlier versions did not know it.
            stored.train.keep_best = run.config.train.keep_best;
        }
        let differs = match stored {
            Ok(stored) => difference(&stored, &run.config)?,
            Err(error) => Some(error.to_string()),
        };
        match differs {
            Some(_) if self.overwrite => Ok(State::New),
            Some(what) => Err(Error::usage(format!(
                "{} was run with other settings ({what}): choose another --out, change the study back, or replace what differs \
                 with --overwrite",
                dir.display()
            ))),
            None if dir.join(DIVERGED).exists() => Ok(State::Diverged),
            None => {
                let last = Store::new(dir).list()?.last().map(|(step, _)| *step);
                let done = last.is_some_and(|step| step >= run.config.train.max_steps as u64);
                Ok(if done { State::Done } else { State::Begun })
            }
        }
    }
}

/// What is left to do.
struct Progress {
    left: usize,
    started: Instant,
    done: usize,
}

impl Progress {
    fn left(&self) -> String {
        if self.done == 0 {
            return format!(" ({} runs left)", self.left);
        }
        let each = self.started.elapsed().as_secs_f64() / self.done as f64;
        format!(" ({} runs left, about {})", self.left, number::seconds(each * self.left as f64))
    }

    fn one_done(&mut self) {
        self.done += 1;
        self.left = self.left.saturating_sub(1);
    }
}

/// The newest valid checkpoint of a run, or its beginning.
fn latest(dir: &Path, fresh: &dyn Fn() -> Result<Start>) -> Result<Start> {
    let latest = Store::new(PathBuf::from(dir)).latest()?;
    latest.warnings.iter().for_each(warn);
    match latest.found {
        Some((_, checkpoint)) => Ok(Start::resumed(checkpoint)?.0),
        None => fresh(),
    }
}

/// The rate with the lowest mean loss over the trial seeds, the first of equals; a rate that diverged once is out.
/// Without trials the only rate there is.
fn best_rate(rates: &[f64], trials: &[Trial]) -> Option<f64> {
    if trials.is_empty() {
        return rates.first().copied();
    }
    let mean = |rate: f64| {
        let losses: Option<Vec<f64>> = trials.iter().filter(|t| t.rate == rate).map(|t| t.loss).collect();
        losses.and_then(|losses| super::statistics::mean(&losses))
    };
    let known = rates.iter().filter_map(|&rate| Some((rate, mean(rate)?)));
    known.reduce(|best, next| if next.1 < best.1 { next } else { best }).map(|(rate, _)| rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(rate: f64, seed: u64, loss: Option<f64>) -> Trial {
        Trial { rate, seed, steps: 1, loss, wall_seconds: 0.0 }
    }

    #[test]
    fn the_lowest_mean_wins_and_a_rate_that_diverged_is_out() {
        let rates = [1.0, 2.0, 3.0];
        let trials = [
            trial(1.0, 1, Some(2.0)),
            trial(2.0, 1, Some(1.0)),
            trial(3.0, 1, None),
            trial(1.0, 2, Some(2.0)),
            trial(2.0, 2, Some(2.9)),
            trial(3.0, 2, Some(0.1)),
        ];
        assert_eq!(best_rate(&rates, &trials), Some(2.0));
        assert_eq!(best_rate(&rates, &[trial(1.0, 1, Some(1.0)), trial(2.0, 1, Some(1.0))]), Some(1.0));
        assert_eq!(best_rate(&rates, &[trial(1.0, 1, None)]), None);
        assert_eq!(best_rate(&rates[..1], &[]), Some(1.0));
    }
}
