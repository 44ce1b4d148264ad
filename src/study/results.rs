//! What runs measured, read from the `metrics.jsonl` of their directories, and all of a study's in one value.

use super::budget::{Axis, Timeline};
use super::curve;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::train::{GrowthRecord, metrics};
use serde_json::Value;
use std::path::Path;

/// A growth as it went in one run.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredGrowth {
    /// What was measured at the moment of growth.
    pub record: GrowthRecord,
    /// Tokens until validation is back at its loss right before the growth, 0 where the growth raised it by [`RISE`] at
    /// most, between evaluations by linear interpolation; `None` where it did not come back.
    pub recovery_tokens: Option<f64>,
}

impl MeasuredGrowth {
    /// Loss right after the growth minus right before, on the validation batches.
    pub fn spike(&self) -> f64 {
        self.record.loss_after - self.record.loss_before
    }
}

/// A growth that raises the loss by less, in nats per token, has nothing to recover from: the next evaluations differ by more.
pub(crate) const RISE: f64 = 1e-3;

/// What one run measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// Validation loss in nats per token, by steps done, ascending.
    pub losses: Vec<(u64, f64)>,
    /// Its growths, in order.
    pub growths: Vec<MeasuredGrowth>,
    /// Seconds of training, all starts of the run together; what a crash made it do again counts once.
    pub wall_seconds: f64,
    /// Adapters it ran on.
    pub adapters: Vec<String>,
}

impl Measured {
    /// Reads the metrics of the run in `dir`, whose steps have so many tokens.
    ///
    /// # Errors
    /// An input error where they cannot be read or are none.
    pub fn read(dir: &Path, tokens_per_step: u64) -> Result<Self> {
        let path = dir.join(metrics::FILE);
        let text = std::fs::read_to_string(&path).map_err(|cause| {
            Error::input(format!("{}; give the directory of a run", Error::io("read", &path, &cause)))
        })?;
        let mut found = Self::default();
        let mut records: Vec<GrowthRecord> = Vec::new();
        let mut last_seconds = 0.0;
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let step = line.get("step").and_then(Value::as_u64);
            match (line.get("kind").and_then(Value::as_str), step) {
                (Some("run"), _) => {
                    // Seconds start again with each start.
                    found.wall_seconds += std::mem::take(&mut last_seconds);
                    let adapter = line.get("adapter").and_then(Value::as_str).unwrap_or("unknown").to_owned();
                    if !found.adapters.contains(&adapter) {
                        found.adapters.push(adapter);
                    }
                }
                (Some("train"), _) => {
                    last_seconds = line.get("seconds").and_then(Value::as_f64).unwrap_or(last_seconds)
                }
                (Some("eval"), Some(step)) => {
                    // JSON has no infinity: what is not finite was written as null.
                    let loss = line.get("val_loss").and_then(Value::as_f64).unwrap_or(f64::INFINITY);
                    found.losses.retain(|(at, _)| *at < step);
                    found.losses.push((step, loss));
                }
                (Some("growth"), Some(_)) => {
                    let record = line.get("record").cloned().unwrap_or(Value::Null);
                    records.push(serde_json::from_value(record).map_err(|cause| {
                        Error::input(format!("{} has a growth that is none: {cause}; train it again", path.display()))
                    })?);
                }
                _ => {}
            }
        }
        found.wall_seconds += last_seconds;
        found.growths = records.into_iter().map(|record| found.growth(record, tokens_per_step)).collect();
        Ok(found)
    }

    fn growth(&self, record: GrowthRecord, tokens_per_step: u64) -> MeasuredGrowth {
        let tokens = |step: u64| (step - record.at_step) as f64 * tokens_per_step as f64;
        let later = self.losses.iter().filter(|(step, _)| *step > record.at_step);
        let after = std::iter::once((0.0, record.loss_after)).chain(later.map(|(step, loss)| (tokens(*step), *loss)));
        let after: Vec<(f64, f64)> = after.collect();
        // A loss that is not a number after the growth is no small rise.
        let flat = record.loss_after - record.loss_before <= RISE;
        let recovery_tokens = if flat { Some(0.0) } else { curve::first_at_or_below(&after, record.loss_before) };
        // That file names its directory, so its digest would tell two studies of one file apart.
        MeasuredGrowth { record: GrowthRecord { file_before: None, ..record }, recovery_tokens }
    }

    /// The validation curve on an axis, from the last growth on where that is what the axis counts.
    pub fn curve(&self, timeline: &Timeline, axis: Axis) -> Vec<(f64, f64)> {
        self.losses.iter().filter_map(|(step, loss)| Some((timeline.at(axis, *step)?, *loss))).collect()
    }

    /// Loss at a step that was evaluated.
    pub(crate) fn loss_at(&self, step: u64) -> Option<f64> {
        self.losses.iter().find(|(at, _)| *at == step).map(|(_, loss)| *loss).filter(|loss| loss.is_finite())
    }
}

/// One run of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Seed of initialisation and data order.
    pub seed: u64,
    /// Peak learning rate.
    pub rate: f64,
    /// `None` where it diverged.
    pub measured: Option<Measured>,
}

/// One learning rate that was tried with one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Peak learning rate.
    pub rate: f64,
    /// Seed.
    pub seed: u64,
    /// Steps of the trial.
    pub steps: u64,
    /// Validation loss at its end; `None` where it diverged.
    pub loss: Option<f64>,
    /// Seconds of training.
    pub wall_seconds: f64,
}

/// One way to train, and what was found about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ArmResult {
    /// Its name.
    pub name: String,
    /// Its model at the start and after each growth.
    pub models: Vec<ModelConfig>,
    /// The learning rate that was chosen.
    pub rate: f64,
    /// The rates that were tried; empty where there was nothing to choose.
    pub trials: Vec<Trial>,
}

/// An arm at one of its lengths.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyCase {
    /// Index of the arm.
    pub arm: usize,
    /// What set the length, in words.
    pub length: String,
    /// What it was set in.
    pub axis: Axis,
    /// Steps.
    pub steps: u64,
    /// What they cost.
    pub timeline: Timeline,
    /// Parameters at the start and at the end.
    pub parameters: [u64; 2],
    /// One run for each seed, in their order; none before they are made.
    pub runs: Vec<Run>,
}

impl StudyCase {
    /// Position of its end on an axis.
    pub fn end(&self, axis: Axis) -> f64 {
        self.timeline.at(axis, self.steps).unwrap_or(0.0)
    }

    /// Its runs that did not diverge.
    pub fn measured(&self) -> impl Iterator<Item = (u64, &Measured)> {
        self.runs.iter().filter_map(|run| Some((run.seed, run.measured.as_ref()?)))
    }

    /// Validation loss at the end of each run that has one, with its seed.
    pub(crate) fn final_losses(&self) -> Vec<(u64, f64)> {
        self.measured().filter_map(|(seed, run)| Some((seed, run.loss_at(self.steps)?))).collect()
    }
}

/// Everything a report is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Findings {
    /// Heading of the report.
    pub title: String,
    /// Arms in the order of the file.
    pub arms: Vec<ArmResult>,
    /// Arms at their lengths.
    pub cases: Vec<StudyCase>,
    /// Index of the arm that the others are compared with.
    pub reference: usize,
    /// Where arms are compared, by axis.
    pub points: Vec<(Axis, f64)>,
    /// The data in words.
    pub data: String,
    /// Entropy of the data, where it is known.
    pub entropy_floor: Option<f64>,
    /// What else a reader must know.
    pub notes: Vec<String>,
}

impl Findings {
    /// The name of an arm.
    pub(crate) fn name(&self, arm: usize) -> &str {
        self.arms.get(arm).map_or("", |arm| &arm.name)
    }

    /// The cases of an arm, shortest first.
    pub(crate) fn cases_of(&self, arm: usize) -> Vec<&StudyCase> {
        let mut cases: Vec<&StudyCase> = self.cases.iter().filter(|case| case.arm == arm).collect();
        cases.sort_by_key(|case| case.steps);
        cases
    }

    /// Every adapter that a run was on.
    pub(crate) fn adapters(&self) -> Vec<String> {
        let runs = self.cases.iter().flat_map(StudyCase::measured);
        let mut all: Vec<String> = runs.flat_map(|(_, run)| run.adapters.iter().cloned()).collect();
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn growth(at: u64, before: f64, after: f64) -> Value {
        json!({"kind": "growth", "step": at, "record": {
            "at_step": at, "policy": {}, "slots_before": [1, 1, 1], "slots_after": [2, 2, 2], "params_before": 1,
            "params_after": 2, "max_logit_change": 0.5, "loss_before": before, "loss_after": after,
        }})
    }

    fn read(lines: &[Value]) -> Measured {
        let dir = tempfile::tempdir().unwrap();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(dir.path().join(metrics::FILE), text).unwrap();
        Measured::read(dir.path(), 10).unwrap()
    }

    fn eval(step: u64, loss: f64) -> Value {
        json!({"kind": "eval", "step": step, "val_loss": loss})
    }

    #[test]
    fn curves_growths_and_times_of_every_start_are_read() {
        let train = |step: u64, seconds: f64| json!({"kind": "train", "step": step, "seconds": seconds});
        let run = json!({"kind": "run", "from_step": 0, "adapter": "a"});
        let found = read(&[
            run.clone(),
            eval(0, 4.0),
            train(0, 1.0),
            train(1, 2.0),
            run,
            train(2, 1.5),
            growth(3, 2.0, 3.0),
            eval(4, 2.5),
            eval(6, 1.5),
        ]);
        assert_eq!(found.losses, [(0, 4.0), (4, 2.5), (6, 1.5)]);
        assert_eq!((found.wall_seconds, found.adapters.len()), (3.5, 1));
        let [grown] = &found.growths[..] else { panic!() };
        // Half-way between the steps 4 and 6: two steps after the growth.
        assert_eq!((grown.spike(), grown.recovery_tokens), (1.0, Some(20.0)));
    }

    #[test]
    fn recovery_may_take_nothing_or_not_come() {
        assert_eq!(read(&[growth(3, 2.0, 2.0), eval(4, 2.5)]).growths[0].recovery_tokens, Some(0.0));
        assert_eq!(read(&[growth(3, 2.0, 2.0005), eval(4, 2.5)]).growths[0].recovery_tokens, Some(0.0));
        assert_eq!(read(&[growth(3, 2.0, 2.5), eval(4, 2.1)]).growths[0].recovery_tokens, None);
    }

    #[test]
    fn a_loss_that_is_not_finite_is_no_result() {
        let found = read(&[json!({"kind": "eval", "step": 3, "val_loss": null})]);
        assert_eq!((found.losses.len(), found.loss_at(3)), (1, None));
    }
}
