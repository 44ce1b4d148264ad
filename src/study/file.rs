//! `study.toml`: what is compared, as a person writes it.
//!
//! Shared `[model]`, `[train]` and `[data]` are those of a run; every `[[arm]]` lays its own `model` and `train` over
//! them and lists its growths. Keys and types are held against a template, so that an error names the nearest key.
//! What the arms cost and whether they can be run is [`super::plan`]'s matter.

use super::arm::{self, Arm, MOST, RawArm, RawLength};
use super::budget::Axis;
use crate::config::{DataConfig, RunConfig, check_in, read_table};
use crate::error::{Error, Result};
use crate::report::escape::slug;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Every key; those of `model`, `train`, `data` and growths are a run's, and left out.
const TEMPLATE: &str = r#"
out_dir = "studies/out"
preset = "quickstart"
reference = "transformer"
seeds = [1]
lengths = [{ tokens = 1.0, flops = 1.0, flops_of = "x", marginal_flops = 1.0, marginal_flops_of = "x" }]
[lr]
trials = [0.1]
seeds = [1]
share = 0.5
[compare]
tokens = [1.0]
flops = [1.0]
marginal_flops = [1.0]
[model]
[train]
[data]
[[arm]]
name = "x"
lengths = [{ tokens = 1.0, flops = 1.0, flops_of = "x", marginal_flops = 1.0, marginal_flops_of = "x" }]
growth = []
[arm.model]
[arm.train]
"#;

/// A study, read and checked but for what depends on the data.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// Directory of the runs and the report.
    pub out_dir: PathBuf,
    /// Name of the arm that the others are compared with.
    pub reference: String,
    /// Seeds of initialisation and data order; every arm runs with each, so that differences are paired.
    pub seeds: Vec<u64>,
    /// How the learning rate of each arm is chosen.
    pub trials: Trials,
    /// Where arms are compared; empty lists are chosen by [`super::comparison`].
    pub points: Points,
    /// What all arms share: data, seeds and rhythm.
    pub data: DataConfig,
    /// What is compared.
    pub arms: Vec<Arm>,
}

/// The learning rates that every arm tries.
#[derive(Debug, Clone, PartialEq)]
pub struct Trials {
    /// Peak learning rates.
    pub rates: Vec<f64>,
    /// Seeds of the trial runs.
    pub seeds: Vec<u64>,
    /// Length of a trial as a share of the arm's first length.
    pub share: f64,
}

/// Budgets at which arms are compared.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Points {
    /// Training tokens.
    pub tokens: Vec<f64>,
    /// FLOPs of the whole training.
    pub flops: Vec<f64>,
    /// FLOPs after the last growth.
    pub marginal_flops: Vec<f64>,
}

impl Points {
    /// Those on an axis.
    pub fn on(&self, axis: Axis) -> &[f64] {
        match axis {
            Axis::Tokens => &self.tokens,
            Axis::Flops => &self.flops,
            Axis::MarginalFlops => &self.marginal_flops,
        }
    }
}

/// `[lr]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct RawTrials {
    trials: Vec<f64>,
    seeds: Vec<u64>,
    share: f64,
}

impl Default for RawTrials {
    fn default() -> Self {
        Self { trials: Vec::new(), seeds: Vec::new(), share: 0.5 }
    }
}

/// The top level without the tables of runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct Raw {
    out_dir: PathBuf,
    preset: Option<String>,
    reference: Option<String>,
    seeds: Vec<u64>,
    lengths: Vec<RawLength>,
    lr: RawTrials,
    compare: Points,
    arm: Vec<RawArm>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            out_dir: PathBuf::from("studies/out"),
            preset: None,
            reference: None,
            seeds: vec![1, 2, 3],
            lengths: Vec::new(),
            lr: RawTrials::default(),
            compare: Points::default(),
            arm: Vec::new(),
        }
    }
}

impl Study {
    /// Reads a study file, of at most 64 KiB as every configuration.
    ///
    /// # Errors
    /// An input error where it cannot be read, is no TOML, or has an unknown key or a value of another type; a usage
    /// error where what it asks for makes no sense.
    pub fn read(path: &Path, data: Option<&Path>) -> Result<Self> {
        let name = path.display().to_string();
        let led = |error: Error| match error {
            Error::Usage(sentence) => Error::usage(format!("{name}: {sentence}")),
            other => Error::input(format!("{name}: {other}")),
        };
        Self::from_table(read_table(path)?, data).map_err(led)
    }

    /// As [`Study::read`], of the text of a file.
    ///
    /// # Errors
    /// As there.
    pub fn from_toml(text: &str) -> Result<Self> {
        let table = text.parse().map_err(|e: toml::de::Error| Error::input(e.message().to_owned()))?;
        Self::from_table(table, None)
    }

    fn from_table(mut given: Table, data: Option<&Path>) -> Result<Self> {
        let shared = take(&mut given, &["model", "train", "data"]);
        arm::check_shared(shared.get("train"))?;
        let of_arms = arm_tables(&mut given);
        let template: Table = TEMPLATE.parse().map_err(|e| Error::defect(format!("the template is broken: {e}")))?;
        check_tables(&given, &template)?;
        let one_line = |e: toml::de::Error| Error::input(e.message().replace('\n', " "));
        let raw: Raw = given.try_into().map_err(one_line)?;

        let mut base = raw.preset.as_deref().map_or_else(|| Ok(RunConfig::default()), RunConfig::preset)?;
        base.growth.clear();
        let mut base = base.overridden(shared).map_err(Error::input)?;
        if let Some(path) = data {
            base.data.name(Some(path.to_path_buf()), None);
        }
        // One corpus for all seeds, or they would have validation data of their own.
        let corpus_seed = base.data.corpus_seed.unwrap_or(base.train.seed);
        base.data.corpus_seed = Some(corpus_seed).filter(|_| base.data.is_builtin());
        base.train.sample_tokens = 0;
        (base.train.keep_last, base.train.keep_best) = (1, false);

        let (Some(first), true) = (raw.arm.first(), raw.arm.len() <= MOST) else {
            let found = raw.arm.len();
            return Err(Error::usage(format!(
                "there are {found} arms, but a study has 1 to {MOST}: change the [[arm]] tables"
            )));
        };
        let reference = raw.reference.clone().unwrap_or_else(|| first.name.clone());
        let arms = raw.arm.iter().zip(of_arms).map(|(arm, tables)| arm::arm(arm, tables, &base, &raw.lengths));
        let study = Self {
            out_dir: raw.out_dir,
            reference,
            trials: Trials {
                seeds: if raw.lr.seeds.is_empty() { raw.seeds.iter().copied().take(1).collect() } else { raw.lr.seeds },
                rates: raw.lr.trials,
                share: raw.lr.share,
            },
            seeds: raw.seeds,
            points: raw.compare,
            data: base.data.clone(),
            arms: arms.collect::<Result<_>>()?,
        };
        study.check()?;
        Ok(study)
    }

    /// What needs no counting of FLOPs.
    fn check(&self) -> Result<()> {
        several("seeds", &self.seeds, "list at least one, better three or more, such as seeds = [1, 2, 3]")?;
        several("lr.seeds", &self.trials.seeds, "leave it out for the first seed")?;
        several("lr.trials", &self.trials.rates, "list the learning rates that every arm tries, such as [1e-3, 3e-3]")?;
        if !(self.trials.share > 0.0 && self.trials.share <= 1.0) {
            return Err(Error::usage(format!(
                "lr.share is {}, but is the length of a trial as a share of a run: give a number above 0, at most 1",
                self.trials.share
            )));
        }
        let lists = [
            ("tokens", &self.points.tokens),
            ("flops", &self.points.flops),
            ("marginal_flops", &self.points.marginal_flops),
        ];
        let mut points = lists.into_iter().flat_map(|(key, list)| list.iter().map(move |point| (key, point)));
        if let Some((key, wrong)) = points.find(|(_, x)| !(x.is_finite() && **x > 0.0)) {
            return Err(Error::usage(format!(
                "compare.{key} has {wrong}, but must be above 0 and finite: change or drop it"
            )));
        }
        for (index, arm) in self.arms.iter().enumerate() {
            if self.arms.iter().take(index).any(|other| slug(&other.name) == slug(&arm.name)) {
                return Err(Error::usage(format!(
                    "arm \"{}\" has the name of another one, or one that differs in signs only, but its name is where its \
                     runs are kept: rename one of them",
                    arm.name
                )));
            }
        }
        self.arm_index(&self.reference, "reference").map(drop)
    }

    /// The number of the arm called `name`, which `key` names.
    ///
    /// # Errors
    /// A usage error with the names there are.
    pub(crate) fn arm_index(&self, name: &str, key: &str) -> Result<usize> {
        self.arms.iter().position(|arm| arm.name == name).ok_or_else(|| {
            let names: Vec<String> = self.arms.iter().map(|arm| format!("\"{}\"", arm.name)).collect();
            Error::usage(format!("{key} is \"{name}\", but no arm has that name: use one of {}", names.join(", ")))
        })
    }
}

fn take(table: &mut Table, keys: &[&str]) -> Table {
    keys.iter().filter_map(|key| table.remove_entry(*key)).collect()
}

/// What the tables of each arm are to a run: `model` and `train`, and its growths.
fn arm_tables(given: &mut Table) -> Vec<(Table, Option<Value>)> {
    let Some(Value::Array(arms)) = given.get_mut("arm") else { return Vec::new() };
    let of_arm = |arm: &mut Value| match arm {
        Value::Table(arm) => (take(arm, &["model", "train"]), arm.remove("growth")),
        _ => Default::default(),
    };
    arms.iter_mut().map(of_arm).collect()
}

/// Keys and types of all that is no run's; those of an arm are led by its name.
fn check_tables(given: &Table, template: &Table) -> Result<()> {
    let of_arm = template.get("arm").and_then(|arms| arms.as_array()?.first()?.as_table());
    let (Some(of_arm), Some(Value::Array(arms))) = (of_arm, given.get("arm")) else {
        return check_in(given, template, template, "").map_err(Error::input);
    };
    for (index, arm) in arms.iter().enumerate() {
        let Value::Table(arm) = arm else { continue };
        let name = arm.get("name").and_then(Value::as_str);
        let named = name.map_or_else(|| format!("arm {}", index + 1), |name| format!("arm \"{name}\""));
        check_in(arm, of_arm, template, "arm").map_err(|why| Error::input(format!("{named}: {why}")))?;
        if arm.get("name").is_none() {
            return Err(Error::usage(format!("arm {} has no name: give it one, such as name = \"wide\"", index + 1)));
        }
    }
    check_in(given, template, template, "").map_err(Error::input)
}

/// At least one of a list, not too many, none twice.
fn several<T: PartialEq + std::fmt::Display>(name: &str, list: &[T], remedy: &str) -> Result<()> {
    if list.is_empty() || list.len() > MOST {
        return Err(Error::usage(format!("{name} has {} entries, but needs 1 to {MOST}: {remedy}", list.len())));
    }
    match list.iter().enumerate().find(|(index, entry)| list.iter().take(*index).any(|other| other == *entry)) {
        Some((_, twice)) => Err(Error::usage(format!("{name} has {twice} twice: drop one of them"))),
        None => Ok(()),
    }
}
