//! Everything a run can be told, and every check of it in one place.
//!
//! [`RunConfig`] is the whole of a run: the model, its training, its data and its growth. It comes from a
//! preset, a TOML file and `--set key=value` overrides, in that order, and is checked once by
//! [`RunConfig::validate`] before anything else happens. Not here: whether a model can grow so ([`crate::model::grow`],
//! where `validate` is, because it plays the growths through), whether a file exists (the data module) and whether a model
//! fits a device (the plan).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

mod data;
mod file;
mod growth;
mod growth_when;
mod keys;
mod model;
mod optimizer;
mod params;
mod preset;
mod prune;
mod size;
mod spelled;
mod synonyms;
mod tokenizer;
mod train;

pub use data::{DataConfig, DataSource};
pub(crate) use file::{flag_of, read_table};
pub(crate) use growth::growth_policies;
pub use growth::{GrowthConfig, GrowthPolicy, InitKeys, InitValues, OptimizerRule, ResolvedGrowth, TauRule, TrainRule};
pub use growth_when::{GrowthWhen, PlateauRule};
pub(crate) use keys::check_in;
pub use model::{Arch, ModelConfig, Module, NormActivation};
pub use optimizer::{MuonAdjust, Optimizer};
pub(crate) use params::{EMBEDDING, HEAD};
pub use params::{Linear, Norm, Parameter, Role};
pub(crate) use preset::preset_names;
pub use preset::{PRESETS, Preset};
pub use prune::{PruneScore, PruneTo};
pub(crate) use spelled::{meant, remedy as number_remedy};
pub use tokenizer::TokenizerKind;
pub use train::{BadSteps, LrSchedule, Precision, TrainConfig};

/// A whole run. Keys a file leaves out come from its preset, or from [`RunConfig::default`].
///
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

/// The largest length, slot number or vocabulary accepted: products of a few such sizes still fit 64 bits.
pub(crate) const MAX_SIZE: usize = 1 << 24;

pub(crate) fn require(holds: bool, sentence: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::usage(sentence())) }
}

/// `min <= value <= max`; a zero is by far the commonest way to break it.
fn in_range(name: &str, value: usize, min: usize, max: usize) -> Result<()> {
    require((min..=max).contains(&value), || {
        format!("{name} is {value}, but must be between {min} and {max}: change it")
    })
}

/// Finite and above zero, also as the device has it.
pub(crate) fn positive(name: &str, value: f64) -> Result<()> {
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
