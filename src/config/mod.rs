//! Everything a run can be told, and every check of it in one place.
//!
//! [`RunConfig`] is the whole of a run: the model, its training, its data and its growth. It comes from a
//! preset, a TOML file and `--set key=value` overrides, in that order, and is checked once by
//! [`RunConfig::validate`] before anything else happens. Not here: whether a file exists (the data module)
//! and whether a model fits a device (the plan).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

mod file;
mod growth;
mod growth_check;
mod growth_when;
mod model;
mod params;
mod preset;
mod prune;
mod size;
mod train;

pub(crate) use file::{check_keys, read_table};
pub use growth::{GrowthConfig, GrowthPolicy, InitKeys, InitValues, OptimizerRule, ResolvedGrowth, TauRule, TrainRule};
pub use growth_when::{GrowthWhen, PlateauRule};
pub use model::{Arch, MAX_HEAD_WIDTH, ModelConfig, Module, NormActivation};
pub use preset::PRESETS;
pub use prune::{PruneScore, PruneTo};
pub use train::{BadSteps, DataConfig, LrSchedule, Precision, TokenizerKind, TrainConfig};

/// A whole run. Keys a file leaves out come from its preset, or from [`RunConfig::default`].
/// ```
/// use tokenformer::config::RunConfig;
///
/// let mut config = RunConfig::from_toml("preset = \"quickstart\"\n[train]\nmax_steps = 1000\n", "my.toml")?;
/// config.apply_override("train.lr=3e-3")?;
/// assert_eq!((config.train.max_steps, config.train.lr), (1000, 3e-3));
///
/// // An unknown key is an error that names the nearest one.
/// let error = config.apply_override("train.max_step=10").unwrap_err();
/// assert!(error.to_string().contains("max_steps") && error.exit_code() == 1);
/// # Ok::<(), tokenformer::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunConfig {
    /// Directory of the run's checkpoints, metrics and resolved configuration.
    pub out_dir: PathBuf,
    /// The model at step 0.
    pub model: ModelConfig,
    /// How it is trained.
    pub train: TrainConfig,
    /// What it is trained on.
    pub data: DataConfig,
    /// Growths during the run, in the order in which they are done: each waits for those before it.
    pub growth: Vec<GrowthConfig>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            out_dir: PathBuf::from("runs/default"),
            model: ModelConfig::default(),
            train: TrainConfig::default(),
            data: DataConfig::default(),
            growth: Vec::new(),
        }
    }
}

impl RunConfig {
    /// Checks every setting on its own, then plays the growths through in order.
    ///
    /// # Errors
    /// A usage error: one sentence naming the setting, its value, the limit and the remedy.
    pub fn validate(&self) -> Result<()> {
        require(!self.out_dir.as_os_str().is_empty(), || {
            "out_dir is empty: name the directory the run is written to, such as runs/default".to_owned()
        })?;
        self.model.validate()?;
        self.train.validate(&self.model)?;
        self.data.validate()?;
        self.stages()?;
        // A run whose settings could not be read again could not be taken up again.
        self.to_toml().map(drop)
    }

    /// The model of each stage of the run: as it starts, then after each growth.
    ///
    /// # Errors
    /// A usage error when growths are out of order, past the end of the run, wait for a plateau that is never looked for,
    /// or are refused by [`GrowthConfig::check`].
    pub fn stages(&self) -> Result<Vec<ModelConfig>> {
        let mut stages = vec![self.model.clone()];
        let mut model = self.model.clone();
        let mut previous = None;
        for (number, growth) in (1..).zip(&self.growth) {
            growth.check_when(number, previous, &self.train)?;
            model = growth.check(&model)?;
            stages.push(model.clone());
            previous = growth.plateau().map_or(Some((number, growth.at_step)), |_| previous);
        }
        Ok(stages)
    }
}

/// The largest length, slot number or vocabulary accepted: products of a few such sizes still fit 64 bits.
const MAX_SIZE: usize = 1 << 24;

fn require(holds: bool, sentence: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::usage(sentence())) }
}

/// `min <= value <= max`; a zero is by far the commonest way to break it.
fn in_range(name: &str, value: usize, min: usize, max: usize) -> Result<()> {
    require((min..=max).contains(&value), || {
        format!("{name} is {value}, but must be between {min} and {max}: change it")
    })
}

/// Finite and above zero, also as the device has it.
fn positive(name: &str, value: f64) -> Result<()> {
    require(value.is_finite() && value > 0.0, || {
        format!("{name} is {value}, but must be a finite number above 0: change it or leave it out for the default")
    })?;
    in_32_bits(name, value)
}

/// Finite and not below zero, also as the device has it.
fn not_negative(name: &str, value: f64) -> Result<()> {
    require(value.is_finite() && value >= 0.0, || {
        format!(
            "{name} is {value}, but must be a finite number of at least 0: change it or leave it out for the default"
        )
    })?;
    if value == 0.0 { Ok(()) } else { in_32_bits(name, value) }
}

/// Neither infinite on the device nor 0: it may take numbers below the normal ones as 0.
fn in_32_bits(name: &str, value: f64) -> Result<()> {
    require((value as f32).is_normal(), || {
        format!(
            "{name} is {value:e}, but must be between {:e} and {:e}, as the device computes in 32 bits: change it or \
             leave it out for the default",
            f32::MIN_POSITIVE,
            f32::MAX
        )
    })
}

/// In 0..=1.
fn fraction(name: &str, value: f64) -> Result<()> {
    require((0.0..=1.0).contains(&value), || format!("{name} is {value}, but is a fraction: give a number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growing(steps: &[(usize, usize)]) -> RunConfig {
        let growth = |&(at_step, ffn): &(usize, usize)| GrowthConfig {
            at_step,
            ffn_slot_num: Some(ffn),
            ..GrowthConfig::default()
        };
        RunConfig { growth: steps.iter().map(growth).collect(), ..RunConfig::default() }
    }

    fn refusal(config: &RunConfig) -> String {
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn growths_are_played_through_in_order() {
        let stages = growing(&[(10, 640), (20, 768)]).stages().unwrap();
        assert_eq!(stages.iter().map(|m| m.ffn_slot_num).collect::<Vec<_>>(), [512, 640, 768]);
        assert!(stages.iter().all(|m| m.tau(Module::Mlp) == 512_f64.sqrt()));
        // 600 fits the model at step 0, but not the one it meets.
        assert!(refusal(&growing(&[(10, 640), (20, 600)])).contains("growth to 600 ffn slots from 640"));
    }

    #[test]
    fn growth_steps_ascend_inside_the_run() {
        assert!(refusal(&growing(&[(0, 640)])).contains("before its first step"));
        assert!(refusal(&growing(&[(20, 640), (20, 768)])).contains("not after growth 1 at step 20"));
        let end = RunConfig::default().train.max_steps;
        assert!(refusal(&growing(&[(end, 640)])).contains("max_steps"));
        // One on a plateau in between has no part in the order of steps, but in that of sizes.
        let mut mixed = growing(&[(20, 640), (0, 768), (30, 896)]);
        mixed.growth[1].when = GrowthWhen::Plateau;
        assert_eq!(mixed.stages().unwrap().len(), 4);
        mixed.growth[2].at_step = 20;
        assert!(refusal(&mixed).contains("growth 3 has at_step 20, which is not after growth 1 at step 20"));
    }
}
