//! The runs of a study: how many steps each arm takes for each of its lengths, and the configuration of every run.
//!
//! Everything that can be refused is refused here, before anything runs.

use super::arm::{Arm, Growth, Length, When};
use super::budget::{Axis, Timeline, most_steps};
use super::file::Study;
use super::results::StudyCase;
use crate::config::{GrowthConfig, RunConfig};
use crate::error::{Error, Result};
use crate::report::escape::slug;
use crate::train::cohorts;
use std::path::{Path, PathBuf};

/// The most steps of a run that are looked for.
const MOST_STEPS: u64 = 1 << 32;

/// One ordinary run.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedRun {
    /// Index of the arm.
    pub arm: usize,
    /// All of its settings.
    pub config: RunConfig,
}

/// A study with every number in it known.
#[derive(Debug)]
pub struct StudyPlan<'a> {
    /// What was asked for, with the vocabulary of the data.
    pub study: &'a Study,
    /// Arms at their lengths, in the order of the file.
    pub cases: Vec<StudyCase>,
}

impl<'a> StudyPlan<'a> {
    /// Counts everything. The arms' models have their vocabulary.
    ///
    /// # Errors
    /// A usage error naming the arm where it cannot be run as asked for.
    pub fn new(study: &'a Study) -> Result<Self> {
        let mut plan = Self { study, cases: Vec::new() };
        // First those that others may be measured by.
        let mut firsts = Vec::new();
        for (index, arm) in study.arms.iter().enumerate() {
            let first = arm.lengths.first().filter(|length| !length.is_relative());
            let case = first.map(|length| plan.case(index, arm, length, &firsts)).transpose();
            firsts.extend(case.map_err(|error| of_arm(arm, error))?);
        }
        for (index, arm) in study.arms.iter().enumerate() {
            for length in &arm.lengths {
                let case = plan.case(index, arm, length, &firsts).map_err(|error| of_arm(arm, error))?;
                let known = |other: &StudyCase| other.arm == index && other.steps == case.steps;
                if !plan.cases.iter().any(known) {
                    plan.cases.push(case);
                }
            }
            let first = plan.first_case(index)?.steps;
            plan.trial(index, first, 0).map_err(|error| match error {
                Error::Usage(why) => {
                    of_arm(arm, Error::usage(format!("a trial of lr.share of its first length: {why}")))
                }
                other => other,
            })?;
        }
        Ok(plan)
    }

    /// The arm at its first length.
    fn first_case(&self, arm: usize) -> Result<&StudyCase> {
        let missing = || Error::defect("an arm has no length");
        self.cases.iter().find(|case| case.arm == arm).ok_or_else(missing)
    }

    fn case(&self, index: usize, arm: &Arm, length: &Length, firsts: &[StudyCase]) -> Result<StudyCase> {
        let (axis, budget, said) = self.budget(length, firsts)?;
        let costs = arm_costs(arm)?;
        let line = |steps: u64| Timeline { growth_steps: growth_steps(arm, steps, steps), ..costs.clone() };
        let cost = |steps: u64| line(steps).at(axis, steps).unwrap_or(0.0);
        let mut steps = most_steps(budget, MOST_STEPS, cost);
        // A growth that moves with the length may let one more step come before it, which costs nothing after it.
        while steps > 1 && cost(steps) > 0.0 && cost(steps - 1) == cost(steps) {
            steps -= 1;
        }
        if steps == 0 || steps == MOST_STEPS {
            let step = costs.last_step(axis);
            return Err(Error::usage(format!(
                "{said} is {} of {}, but a run has 1 to {MOST_STEPS}: change the length",
                if steps == 0 { "less than a step" } else { "far more than the steps" },
                axis.amount(step)
            )));
        }
        for (number, at) in growth_steps(arm, steps, steps).into_iter().enumerate() {
            if at == 0 || at >= steps {
                return Err(Error::usage(format!(
                    "growth {} is at step {at}, but {said} is only {steps} steps: give it a longer length, or let it grow \
                     after step 1 and before step {steps}",
                    number + 1
                )));
            }
        }
        let config = self.config(arm, steps, steps, arm.config.train.lr, 0)?;
        let stages = config.stages()?;
        let parameters = [stages.first(), stages.last()].map(|model| model.map_or(0, |model| model.param_count()));
        Ok(StudyCase { arm: index, length: said, axis, steps, timeline: line(steps), parameters, runs: Vec::new() })
    }

    /// What a length asks for: the axis, how much, and that in words.
    fn budget(&self, length: &Length, firsts: &[StudyCase]) -> Result<(Axis, f64, String)> {
        let of = |name: &String, axis: Axis| -> Result<(Axis, f64, String)> {
            let key = if axis == Axis::Flops { "flops_of" } else { "marginal_flops_of" };
            let other = self.study.arm_index(name, key)?;
            let case = firsts.iter().find(|case| case.arm == other).ok_or_else(|| {
                Error::usage(format!(
                    "{key} is \"{name}\", but the first length of that arm is measured by another one too: give it a first \
                     length in tokens or FLOPs"
                ))
            })?;
            let value = case.timeline.at(axis, case.steps).unwrap_or(0.0);
            let same = if axis == Axis::Flops { "the FLOPs" } else { "the FLOPs after growth" };
            Ok((axis, value, format!("{same} of \"{name}\", {}", axis.amount(value))))
        };
        Ok(match length {
            Length::Tokens(tokens) => (Axis::Tokens, *tokens, Axis::Tokens.amount(*tokens)),
            Length::Flops(flops) => (Axis::Flops, *flops, Axis::Flops.amount(*flops)),
            Length::MarginalFlops(flops) => {
                (Axis::MarginalFlops, *flops, format!("{} after growth", Axis::MarginalFlops.amount(*flops)))
            }
            Length::FlopsOf(name) => of(name, Axis::Flops)?,
            Length::MarginalFlopsOf(name) => of(name, Axis::MarginalFlops)?,
        })
    }

    /// The steps of a learning-rate trial of an arm whose first length has `full` steps.
    fn trial_steps(&self, full: u64) -> u64 {
        ((full as f64 * self.study.trials.share).round() as u64).max(1)
    }

    fn trial(&self, arm: usize, full: u64, seed: u64) -> Result<Vec<PlannedRun>> {
        let of = self.study.arms.get(arm).ok_or_else(|| Error::defect("no such arm"))?;
        let steps = self.trial_steps(full);
        let run = |&rate: &f64| Ok(PlannedRun { arm, config: self.config(of, steps, full, rate, seed)? });
        self.study.trials.rates.iter().map(run).collect()
    }

    /// The learning-rate trials of an arm, one list for each trial seed; none where there is one rate to choose from.
    ///
    /// # Errors
    /// None after [`StudyPlan::new`].
    pub fn trials(&self, arm: usize) -> Result<Vec<Vec<PlannedRun>>> {
        if self.study.trials.rates.len() < 2 {
            return Ok(Vec::new());
        }
        let full = self.first_case(arm)?.steps;
        self.study.trials.seeds.iter().map(|&seed| self.trial(arm, full, seed)).collect()
    }

    /// The run of a case with a seed, at the `rate` that was chosen for its arm.
    ///
    /// # Errors
    /// None after [`StudyPlan::new`].
    pub fn run(&self, case: &StudyCase, rate: f64, seed: u64) -> Result<PlannedRun> {
        let arm = self.study.arms.get(case.arm).ok_or_else(|| Error::defect("no such arm"))?;
        Ok(PlannedRun { arm: case.arm, config: self.config(arm, case.steps, case.steps, rate, seed)? })
    }

    /// Settings of a run of `steps`, where growths at a step are given for a run of `full` steps.
    fn config(&self, arm: &Arm, steps: u64, full: u64, rate: f64, seed: u64) -> Result<RunConfig> {
        let mut config = arm.config.clone();
        let at = growth_steps(arm, steps, full);
        let growth = |(growth, at): (&Growth, u64)| GrowthConfig {
            at_step: usize::try_from(at).unwrap_or(usize::MAX),
            ..growth.config.clone()
        };
        config.growth = arm.growths.iter().zip(at).map(growth).collect();
        let train = &mut config.train;
        let end = if train.lr > 0.0 { train.min_lr / train.lr } else { 1.0 };
        (train.lr, train.min_lr, train.seed) = (rate, rate * end, seed);
        train.max_steps = usize::try_from(steps).unwrap_or(usize::MAX);
        config.out_dir = directory(&self.study.out_dir, &arm.name, steps, rate, seed);
        config.validate()?;
        Ok(config)
    }
}

/// Where a run is kept: named by all that tells it from the other runs of its study.
fn directory(out: &Path, arm: &str, steps: u64, rate: f64, seed: u64) -> PathBuf {
    out.join("runs").join(slug(arm)).join(format!("steps-{steps}-lr-{rate:e}-seed-{seed}"))
}

/// Steps of the growths in a run of `steps`; those given as a step are for a run of `full` steps.
fn growth_steps(arm: &Arm, steps: u64, full: u64) -> Vec<u64> {
    let at = |when: When| match when {
        When::Share(share) => (share * steps as f64).round() as u64,
        When::Step(step) if steps == full => step as u64,
        When::Step(step) => (step as f64 * steps as f64 / full as f64).round() as u64,
    };
    arm.growths.iter().map(|growth| at(growth.when)).collect()
}

/// FLOPs of the stages of an arm; its growths are played through whenever they happen.
fn arm_costs(arm: &Arm) -> Result<Timeline> {
    let mut model = arm.config.model.clone();
    model.validate()?;
    let mut stages = vec![model.clone()];
    for (index, growth) in arm.growths.iter().enumerate() {
        let number = index + 1;
        model = growth.config.check(&model).map_err(|e| Error::usage(format!("growth {number}: {e}")))?;
        stages.push(model.clone());
    }
    let rules = arm.growths.iter().map(|growth| growth.config.resolve());
    Timeline::new(&arm.config, &cohorts::staged(stages, rules, None), Vec::new())
}

fn of_arm(arm: &Arm, error: Error) -> Error {
    match error {
        Error::Usage(sentence) => Error::usage(format!("arm \"{}\": {sentence}", arm.name)),
        other => other,
    }
}
