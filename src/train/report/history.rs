//! The course of a run as its metrics tell it, in bounded memory.

use super::series::{At, Series};
use crate::train::growth::GrowthRecord;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Most samples that are kept: the first, the last, and some between.
const MOST_SAMPLES: usize = 12;
/// Most bytes of a sample that are kept.
const MOST_BYTES: usize = 1 << 14;
/// Most events of a kind, and names of values: a run has far fewer.
const MOST_EVENTS: usize = 256;
/// Most bytes of the name of a value.
const LONGEST_NAME: usize = 64;

/// A growth, where its record can be read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grown {
    /// Where in the run.
    pub at: At,
    /// What was measured across it.
    pub record: GrowthRecord,
}

/// What a `run` line says of the process that wrote it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Process {
    /// Steps done before it.
    pub from_step: u64,
    /// Its adapter and driver.
    pub adapter: String,
    /// What it trained on.
    pub data: String,
    /// The version of the program.
    pub version: String,
    /// Parameters of its first model.
    pub parameters: u64,
    /// Processes that trained together.
    pub ranks: u64,
    /// Device memory of its first model, in bytes.
    pub memory: Option<u64>,
}

/// All that is drawn of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct History {
    /// Numbers of `train` lines by name.
    pub train: BTreeMap<String, Series>,
    /// Numbers of `eval` lines by name.
    pub eval: BTreeMap<String, Series>,
    /// Growths, oldest first.
    pub growths: Vec<Grown>,
    /// Samples: step and text.
    pub samples: Vec<(u64, String)>,
    /// Returns to a checkpoint: from which step, to which, and why.
    pub rollbacks: Vec<(u64, u64, String)>,
    /// The first process and the last.
    pub processes: Vec<Process>,
    /// Processes in all.
    pub starts: u64,
    /// Entropy of the data, where it is known.
    pub entropy_floor: Option<f64>,
    /// The lowest validation loss and its step, from all evaluations.
    pub best: Option<(u64, f64)>,
    /// Its bits per byte, where they are known.
    pub best_bits: Option<f64>,
    /// Lines of steps, evaluations and whatever else.
    pub lines: u64,
    now: At,
    /// Seconds of the processes before this one.
    before: f64,
}

fn number(line: &Map<String, Value>, key: &str) -> Option<f64> {
    line.get(key).and_then(Value::as_f64)
}

fn whole(line: &Map<String, Value>, key: &str) -> Option<u64> {
    line.get(key).and_then(Value::as_u64)
}

/// As much of a text as is kept.
fn text(line: &Map<String, Value>, key: &str) -> String {
    let text = line.get(key).and_then(Value::as_str).unwrap_or_default();
    text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= MOST_BYTES).map(|(_, c)| c).collect()
}

impl History {
    /// One more line of the metrics.
    pub(crate) fn add(&mut self, line: &Map<String, Value>) {
        self.lines += 1;
        match line.get("kind").and_then(Value::as_str) {
            Some("run") => self.begin(line),
            Some("train") => self.step(line),
            Some("eval") => self.evaluation(line),
            Some("growth") => self.growth(line),
            Some("sample") => self.sample(line),
            Some("rollback") if self.rollbacks.len() < MOST_EVENTS => {
                let [from, to] = ["from_step", "to_step"].map(|key| whole(line, key).unwrap_or(0));
                self.rollbacks.push((from, to, text(line, "why")));
            }
            _ => {}
        }
    }

    /// Where the last line is.
    pub(crate) fn now(&self) -> At {
        self.now
    }

    /// The last process.
    pub(crate) fn process(&self) -> Process {
        self.processes.last().cloned().unwrap_or_default()
    }

    /// Steps done before the first line.
    pub(crate) fn begun_after(&self) -> u64 {
        self.processes.first().map_or(0, |first| first.from_step)
    }

    /// Parameters of the model as it is now.
    pub(crate) fn parameters(&self) -> u64 {
        let grown = self.growths.last().map(|grown| grown.record.after.params);
        grown.unwrap_or_else(|| self.process().parameters)
    }

    /// Values of a name, of steps or of evaluations.
    pub(crate) fn of(&self, kind: Kind, name: &str) -> Series {
        let all = if kind == Kind::Train { &self.train } else { &self.eval };
        all.get(name).cloned().unwrap_or_default()
    }

    fn begin(&mut self, line: &Map<String, Value>) {
        let process = Process {
            from_step: whole(line, "from_step").unwrap_or(0),
            adapter: text(line, "adapter"),
            data: text(line, "data"),
            version: text(line, "version"),
            parameters: whole(line, "parameters").unwrap_or(0),
            ranks: whole(line, "ranks").unwrap_or(1),
            memory: whole(line, "memory"),
        };
        // What a run takes again is dropped by itself; this is for a file that another program put together.
        let step = process.from_step;
        self.train.values_mut().chain(self.eval.values_mut()).for_each(|series| series.cut(step));
        self.growths.retain(|grown| grown.at.step <= step);
        self.samples.retain(|(at, _)| *at <= step);
        if self.best.is_some_and(|(at, _)| at > step) {
            (self.best, self.best_bits) = (None, None);
        }
        self.before = self.now.seconds;
        let tokens = if step == 0 { 0.0 } else { f64::NAN };
        if self.starts == 0 || self.now.step > step {
            self.now = At { step, tokens, ..self.now };
        }
        self.entropy_floor = number(line, "entropy_floor").or(self.entropy_floor);
        self.starts += 1;
        self.processes.truncate(1);
        self.processes.push(process);
    }

    fn go_to(&mut self, line: &Map<String, Value>) -> At {
        if let Some(step) = whole(line, "step").filter(|step| *step > self.now.step) {
            self.now = At { step, tokens: f64::NAN, ..self.now };
        }
        self.now
    }

    fn step(&mut self, line: &Map<String, Value>) {
        self.go_to(line);
        self.now.tokens = number(line, "tokens").unwrap_or(f64::NAN);
        // A clock that went back is none.
        let seconds = self.before + number(line, "seconds").unwrap_or(0.0);
        self.now.seconds = self.now.seconds.max(seconds);
        note(&mut self.train, self.now, line, &["step", "tokens", "seconds"]);
    }

    fn evaluation(&mut self, line: &Map<String, Value>) {
        let at = self.go_to(line);
        note(&mut self.eval, at, line, &["step"]);
        if let Some(loss) = number(line, "val_loss").filter(|loss| loss.is_finite())
            && self.best.is_none_or(|(_, best)| loss < best)
        {
            (self.best, self.best_bits) = (Some((at.step, loss)), number(line, "bits_per_byte"));
        }
    }

    fn growth(&mut self, line: &Map<String, Value>) {
        let at = self.go_to(line);
        let record = line.get("record").cloned().and_then(|record| serde_json::from_value(record).ok());
        if let Some(record) = record.filter(|_| self.growths.len() < MOST_EVENTS) {
            self.growths.push(Grown { at, record });
        }
    }

    fn sample(&mut self, line: &Map<String, Value>) {
        let at = self.go_to(line);
        self.samples.push((at.step, text(line, "text")));
        if self.samples.len() > MOST_SAMPLES {
            // Every second one, and the last.
            let last = self.samples.len() - 1;
            let kept = std::mem::take(&mut self.samples).into_iter().enumerate();
            let kept = kept.filter(|(index, _)| index.is_multiple_of(2) || *index == last);
            self.samples = kept.map(|(_, sample)| sample).collect();
        }
    }
}

/// Whether something was measured in steps or in evaluations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Train,
    Eval,
}

fn note(all: &mut BTreeMap<String, Series>, at: At, line: &Map<String, Value>, but: &[&str]) {
    for (name, value) in line.iter().filter(|(name, _)| name.len() <= LONGEST_NAME && !but.contains(&name.as_str())) {
        let Some(value) = value.as_f64() else { continue };
        if let Some(series) = all.get_mut(name) {
            series.add(at, value);
        } else if all.len() < MOST_EVENTS {
            let mut series = Series::default();
            series.add(at, value);
            all.insert(name.clone(), series);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(lines: &[Value]) -> History {
        let mut history = History::default();
        lines.iter().for_each(|line| history.add(line.as_object().unwrap()));
        history
    }

    fn train(step: u64, loss: f64, seconds: f64) -> Value {
        json!({"kind": "train", "step": step, "loss": loss, "tokens": 10 * step, "seconds": seconds})
    }

    #[test]
    fn processes_add_up_and_what_is_taken_again_counts_once() {
        let run = |from: u64| json!({"kind": "run", "from_step": from, "adapter": "a", "parameters": 7});
        let eval =
            |step: u64, loss: f64| json!({"kind": "eval", "step": step, "val_loss": loss, "bits_per_byte": loss / 2.0});
        let history = of(&[
            run(0),
            train(1, 4.0, 2.0),
            train(2, 3.0, 4.0),
            eval(2, 1.0),
            run(1),
            train(2, 5.0, 1.0),
            eval(2, 2.0),
        ]);
        let loss: Vec<f64> = history.of(Kind::Train, "loss").marks().iter().map(|mark| mark.mean).collect();
        assert_eq!(loss, [4.0, 5.0]);
        assert_eq!((history.now().seconds, history.now().tokens, history.starts), (5.0, 20.0, 2));
        assert_eq!((history.best, history.best_bits), (Some((2, 2.0)), Some(1.0)));
    }

    #[test]
    fn samples_are_few_and_the_first_and_the_last_stay() {
        let sample = |step: u64| json!({"kind": "sample", "step": step, "text": "x".repeat(1 << 15)});
        let history = of(&(1..=1000).map(sample).collect::<Vec<_>>());
        let steps: Vec<u64> = history.samples.iter().map(|(step, _)| *step).collect();
        assert!(steps.len() <= MOST_SAMPLES && steps[0] == 1 && steps.last() == Some(&1000), "{steps:?}");
        assert!(history.samples.iter().all(|(_, text)| text.len() == MOST_BYTES));
    }

    #[test]
    fn a_line_may_hold_anything() {
        for line in [
            json!({}),
            json!({"kind": 7}),
            json!({"kind": "train", "step": -1, "loss": "x", "tokens": null}),
            json!({"kind": "growth", "step": 3, "record": {"at_step": "x"}}),
            json!({"kind": "sample", "text": [1]}),
            json!({"kind": "run", "adapter": 3, "from_step": 1e300}),
            json!({"kind": "eval", "step": u64::MAX, "val_loss": 1e308}),
        ] {
            of(&[line]);
        }
    }
}
