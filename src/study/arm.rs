//! One arm of a `study.toml`: its model, its growths and its lengths.
//!
//! An arm may change what it is and how it is trained, but not what makes it comparable: batches, seeds, rates and the
//! rhythm of evaluation belong to the study.

use crate::config::{GrowthConfig, LrSchedule, ModelConfig, RunConfig};
use crate::error::{Error, Result};
use crate::report::escape::slug;
use serde::Deserialize;
use toml::{Table, Value};

/// Most seeds, rates, lengths and arms of each kind: more is a slip of the pen.
pub(super) const MOST: usize = 100;

/// One way to train.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// Its name in the report.
    pub name: String,
    /// Model and training without growths, `max_steps`, rate and seed.
    pub config: RunConfig,
    /// Growths in order.
    pub growths: Vec<Growth>,
    /// How long it is trained; one run of each seed for each.
    pub lengths: Vec<Length>,
}

impl Arm {
    /// Its model at the start and after each growth.
    pub fn models(&self) -> Vec<ModelConfig> {
        let mut models = vec![self.config.model.clone()];
        for growth in &self.growths {
            let grown = models.last().and_then(|model| growth.config.check(model).ok());
            models.extend(grown);
        }
        models
    }
}

/// A growth and when it happens.
#[derive(Debug, Clone, PartialEq)]
pub struct Growth {
    /// When.
    pub when: When,
    /// What grows; its `at_step` is not used.
    pub config: GrowthConfig,
}

/// When a growth happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// At this share of the arm's tokens.
    Share(f64),
    /// After this many steps.
    Step(usize),
}

/// What sets the length of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Length {
    /// Training tokens.
    Tokens(f64),
    /// FLOPs of the whole training.
    Flops(f64),
    /// As many FLOPs as the first length of another arm.
    FlopsOf(String),
    /// FLOPs after the last growth.
    MarginalFlops(f64),
    /// As many FLOPs after the last growth as the first length of another arm has.
    MarginalFlopsOf(String),
}

impl Length {
    /// Whether it is measured by another arm.
    pub(crate) fn is_relative(&self) -> bool {
        matches!(self, Self::FlopsOf(_) | Self::MarginalFlopsOf(_))
    }
}

/// One entry of `lengths`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawLength {
    tokens: Option<f64>,
    flops: Option<f64>,
    flops_of: Option<String>,
    marginal_flops: Option<f64>,
    marginal_flops_of: Option<String>,
}

/// An `[[arm]]` without its `model`, `train` and growths.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawArm {
    pub(super) name: String,
    pub(super) lengths: Vec<RawLength>,
}

/// What must be the same in all arms, or tokens, batches and validation would not be.
const SHARED: [&str; 9] = [
    "max_steps",
    "max_seconds",
    "lr",
    "min_lr",
    "seed",
    "batch_size",
    "total_batch_tokens",
    "eval_interval",
    "eval_batches",
];

const FROM_LENGTHS: &str = "follows from the lengths";
const LISTED: &str = "is the same list for all arms: see [lr] and seeds";

/// Refuses what the shared `[train]` cannot set. Of `lr` and `min_lr` together the ratio counts, and a schedule ends there.
///
/// # Errors
/// A usage error naming the key and what sets it.
pub(super) fn check_shared(train: Option<&Value>) -> Result<()> {
    let given = |key: &str| train.and_then(|train| train.get(key)).is_some();
    let refuse = |key: &str, why: &str, more: &str| {
        let refused = format!("train.{key} is set, but {why}{more}");
        if given(key) { Err(Error::usage(refused)) } else { Ok(()) }
    };
    refuse("max_steps", FROM_LENGTHS, "")?;
    refuse("max_seconds", FROM_LENGTHS, "")?;
    refuse("seed", LISTED, ", and data.corpus_seed for the built-in corpus")?;
    let alone = "; beside train.min_lr it says by what ratio the rate decays";
    if given("min_lr") { Ok(()) } else { refuse("lr", LISTED, alone) }
}

/// Reads an arm: what is `raw` of it, its tables of a run and its growths, over the shared settings `base` and `lengths`.
///
/// # Errors
/// As [`super::file::Study::read`], led by the name of the arm.
pub(super) fn arm(
    raw: &RawArm,
    (tables, growths): (Table, Option<Value>),
    base: &RunConfig,
    lengths: &[RawLength],
) -> Result<Arm> {
    let name = raw.name.trim().to_owned();
    if slug(&name).is_empty() || name.chars().count() > 60 || name.contains(char::is_control) {
        return Err(Error::usage(format!(
            "an arm has the name \"{name}\", but a name has 1 to 60 characters and a letter or digit among them: change it"
        )));
    }
    let input = |sentence: String| Error::input(format!("arm \"{name}\": {sentence}"));
    let usage = |sentence: String| Error::usage(format!("arm \"{name}\": {sentence}"));
    let inside = |table: &str, key: &str| tables.get(table).and_then(|t| t.get(key)).is_some();
    let own = SHARED.iter().find(|key| inside("train", key)).map(|key| format!("train.{key}"));
    let own = own.or_else(|| inside("model", "seq_length").then(|| "model.seq_length".to_owned()));
    if let Some(key) = own {
        let why = match key.as_str() {
            "train.max_steps" | "train.max_seconds" => FROM_LENGTHS,
            "train.lr" | "train.min_lr" | "train.seed" => LISTED,
            _ => "must be the same in all arms, or their batches would differ: set it in the shared table",
        };
        return Err(usage(format!("{key} is set, but {why}")));
    }
    let config = base.overridden(tables).map_err(input)?;
    if config.train.lr_schedule == LrSchedule::Constant {
        return Err(usage(
            "train.lr_schedule is \"constant\", which never decays, but arms are compared at the end of their schedules: use \
             \"cosine\" or \"wsd\""
                .to_owned(),
        ));
    }
    let growths = growths.map_or_else(|| Ok(Vec::new()), |value| self::growths(value, base)).map_err(input)?;
    let lengths = if raw.lengths.is_empty() { lengths } else { &raw.lengths };
    let lengths: Vec<Length> = lengths.iter().map(length).collect::<Result<_, String>>().map_err(usage)?;
    if lengths.is_empty() || lengths.len() > MOST {
        return Err(usage(format!(
            "there are {} lengths, but it needs 1 to {MOST}: give it lengths, such as lengths = [{{ tokens = 1e6 }}]",
            lengths.len()
        )));
    }
    Ok(Arm { name, config, growths, lengths })
}

fn growths(value: Value, base: &RunConfig) -> Result<Vec<Growth>, String> {
    let Value::Array(mut entries) = value else {
        return Err("growth must be a list of tables, each under [[arm.growth]]".to_owned());
    };
    let mut whens = Vec::new();
    for entry in &mut entries {
        let Value::Table(table) = entry else { continue };
        if let Some(when) = table.get("when").filter(|when| when.as_str() != Some("step")) {
            return Err(format!(
                "a growth has when = {when}, but what an arm costs must be known before it is trained: leave when out and give \
                 at or at_step"
            ));
        }
        let share = table.remove("at");
        whens.push(match (share, table.get("at_step")) {
            (Some(_), Some(_)) => return Err("a growth has both at and at_step: give one of them".to_owned()),
            (None, None) => {
                return Err("a growth has neither at nor at_step: give at = 0.5 for the middle of the run".to_owned());
            }
            (None, Some(Value::Integer(step))) => When::Step(usize::try_from(*step).unwrap_or(0)),
            (None, Some(_)) => When::Step(0),
            (Some(share), None) => {
                let number = share.as_float().or_else(|| share.as_integer().map(|n| n as f64));
                let fits = number.filter(|share| *share > 0.0 && *share < 1.0);
                When::Share(fits.ok_or_else(|| {
                    format!(
                        "growth.at is {share}, but is the share of the run before it: give a number above 0, below 1"
                    )
                })?)
            }
        });
    }
    let given = Table::from_iter([("growth".to_owned(), Value::Array(entries))]);
    let configs = base.overridden(given)?.growth;
    Ok(whens.into_iter().zip(configs).map(|(when, config)| Growth { when, config }).collect())
}

fn length(raw: &RawLength) -> Result<Length, String> {
    let RawLength { tokens, flops, flops_of, marginal_flops, marginal_flops_of } = raw.clone();
    let numbers = [("tokens", tokens), ("flops", flops), ("marginal_flops", marginal_flops)];
    for (key, value) in numbers.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        if !(value.is_finite() && value >= 1.0) {
            return Err(format!("lengths has {key} = {value}, but must be finite and at least 1: change it"));
        }
    }
    let all = [
        tokens.map(Length::Tokens),
        flops.map(Length::Flops),
        flops_of.map(Length::FlopsOf),
        marginal_flops.map(Length::MarginalFlops),
        marginal_flops_of.map(Length::MarginalFlopsOf),
    ];
    let mut given = all.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(length), None) => Ok(length),
        (None, _) => {
            Err("lengths has an empty entry: give it tokens, flops, flops_of, marginal_flops or marginal_flops_of"
                .into())
        }
        (Some(_), Some(_)) => {
            Err("lengths has an entry with two keys, but only one can set it: make two entries of it".to_owned())
        }
    }
}
