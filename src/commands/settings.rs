//! The configuration of a run from preset, file and flags, in that order.

use crate::config::{Arch, Precision, RunConfig, TokenizerKind, preset_names};
use crate::error::{Error, Result};
use clap::Args;
use std::path::{Path, PathBuf};

/// The preset of a run that names none.
const USUAL: &str = "quickstart";
/// The preset of a model to be timed that names none.
const TIMED: &str = "bench-tiny";

/// Where settings come from.
#[derive(Debug, Default, Args)]
pub(crate) struct Settings {
    /// What to train on, as --data.
    #[arg(value_name = "FILE", conflicts_with = "data")]
    file: Option<PathBuf>,
    #[arg(short, long, help = format!("Start from a preset: {}", preset_names(USUAL)))]
    preset: Option<String>,
    /// Read settings from a TOML file (which may name a preset to start from).
    #[arg(short, long, value_name = "FILE", conflicts_with = "preset")]
    config: Option<PathBuf>,
    /// Train on this text file, on token shards (.bin: a file, a pattern such as 'fineweb_*.bin', A.bin,B.bin, or a directory),
    /// or on what `prepare` wrote.
    #[arg(short, long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// How text becomes tokens: byte, char, gpt2, cl100k, o200k, bpe:N (N tokens, trained on the text), or the path of a
    /// tokenizer.json.
    #[arg(long, value_name = "NAME|FILE")]
    tokenizer: Option<TokenizerKind>,
    /// Directory the run is written to.
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Architecture.
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Optimizer steps.
    #[arg(short = 'n', long, value_parser = super::whole::<usize>)]
    steps: Option<usize>,
    /// Sequences per micro-batch.
    #[arg(long, value_parser = super::whole::<usize>)]
    batch_size: Option<usize>,
    /// Peak learning rate.
    #[arg(long, value_parser = super::number)]
    lr: Option<f64>,
    /// Seed of everything random.
    #[arg(long, value_parser = super::kept::<u64>)]
    seed: Option<u64>,
    /// Type of activations: f32, or f16 in mixed precision with dynamic loss scaling.
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Compute activations again in the backward instead of keeping them: less memory, more time, the same bits.
    #[arg(long)]
    recompute: bool,
    /// Let ranks on adapters that compute other bits train together, each updating a share of the parameters.
    #[arg(long)]
    mixed: bool,
    /// Any other setting, such as train.grad_clip=0.5, growth=[] or data.val_path=none (repeatable).
    #[arg(short, long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Settings of a model that is timed and not trained: nothing is read or kept.
#[derive(Debug, Args)]
pub(crate) struct ModelSettings {
    #[arg(long, help = format!("Start from a preset: {}", preset_names(TIMED)))]
    preset: Option<String>,
    /// Read settings from a TOML file (which may name a preset to start from).
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    config: Option<PathBuf>,
    /// Sequences per micro-batch.
    #[arg(long, value_parser = super::whole::<usize>)]
    batch_size: Option<usize>,
    /// Type of activations: f32, or f16 in mixed precision with dynamic loss scaling.
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Compute activations again in the backward instead of keeping them.
    #[arg(long)]
    recompute: bool,
    /// Any other setting, such as model.num_layers=2 (repeatable).
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ModelSettings {
    /// Preset or file, then flags, without growths. Not yet validated.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub(crate) fn resolve(&self) -> Result<RunConfig> {
        let Self { preset, config, batch_size, precision, recompute, set } = self;
        let default = || TIMED.to_owned();
        let preset = if config.is_some() { None } else { Some(preset.clone().unwrap_or_else(default)) };
        let (config, set) = (config.clone(), set.clone());
        let (batch_size, precision, recompute) = (*batch_size, *precision, *recompute);
        let settings = Settings { preset, config, batch_size, precision, recompute, set, ..Settings::default() };
        let resolved = settings.resolve()?;
        Ok(RunConfig { growth: Vec::new(), ..resolved })
    }
}

impl Settings {
    /// Preset or file, then flags. Not yet validated: the vocabulary may depend on the data.
    ///
    /// # Errors
    /// Unknown presets and keys, and values of the wrong type.
    pub(crate) fn resolve(&self) -> Result<RunConfig> {
        let mut config = match (&self.config, &self.preset) {
            (Some(path), _) => RunConfig::read(path)?,
            (None, Some(name)) => RunConfig::preset(name)?,
            (None, None) => RunConfig::preset(USUAL)?,
        };
        self.apply(&mut config)?;
        Ok(config)
    }

    /// The file to train on that was given.
    pub(crate) fn data(&self) -> Option<&Path> {
        self.data.as_deref().or(self.file.as_deref())
    }

    /// Whether it is said how many steps a run has.
    pub(crate) fn names_steps(&self) -> bool {
        self.steps.is_some() || self.set.iter().any(|set| set.starts_with("train.max_steps"))
    }

    /// The directory given by `--out`.
    pub(crate) fn out(&self) -> Option<&Path> {
        self.out.as_deref()
    }

    /// The steps given by `--steps`.
    pub(crate) fn steps(&self) -> Option<usize> {
        self.steps
    }

    /// The file given by `--config`.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Flags over an existing configuration, when resuming. The `own` settings of the run may be given by name.
    ///
    /// # Errors
    /// `--preset` and `--config` have no place there.
    pub(crate) fn over(&self, mut config: RunConfig, own: bool) -> Result<RunConfig> {
        if self.preset.is_some() || self.config.is_some() && !own {
            return Err(Error::usage(
                "a resumed run takes its settings from its checkpoint: drop --preset and --config, or use --set for a \
                 single setting; edits to the run's own config.toml are taken with --config-edits take",
            ));
        }
        self.apply(&mut config)?;
        Ok(config)
    }

    fn apply(&self, config: &mut RunConfig) -> Result<()> {
        for (flag, path) in [("--data", self.data()), ("--out", self.out())] {
            if let Some(path) = path.filter(|path| path.to_str().is_none()) {
                return Err(Error::usage(format!(
                    "{flag} {} is not UTF-8, as the settings of a run must be: use another path",
                    path.display()
                )));
            }
        }
        if let Some(path) = self.data() {
            check_data(path)?;
            // A setting of that name would be none.
            let is_word = path.to_str().is_some_and(|text| ["none", "null"].contains(&text.to_lowercase().as_str()));
            config.data.name(Some(if is_word { Path::new(".").join(path) } else { path.to_path_buf() }), None);
        }
        config.data.tokenizer = self.tokenizer.clone().or_else(|| config.data.tokenizer.take());
        config.model.arch = self.arch.unwrap_or(config.model.arch);
        config.out_dir = self.out.clone().unwrap_or_else(|| config.out_dir.clone());
        config.train.max_steps = self.steps.unwrap_or(config.train.max_steps);
        config.train.batch_size = self.batch_size.unwrap_or(config.train.batch_size);
        config.train.lr = self.lr.unwrap_or(config.train.lr);
        config.train.seed = self.seed.unwrap_or(config.train.seed);
        config.train.recompute |= self.recompute;
        config.train.mixed_adapters |= self.mixed;
        config.train.shard_optimizer |= self.mixed;
        config.train.precision = self.precision.unwrap_or(config.train.precision);
        self.set.iter().try_for_each(|assignment| config.apply_override(assignment))
    }
}

/// Refuses what is plainly no data, but something else of a run.
fn check_data(path: &Path) -> Result<()> {
    let shown = path.display();
    let (what, remedy) = match path.extension().and_then(|extension| extension.to_str()) {
        _ if path.join("checkpoints").is_dir() => ("a run", format!("go on with it by --resume {shown}")),
        Some("toml") => ("a file of settings", format!("read it with --config {shown}")),
        Some("safetensors") => ("a checkpoint", format!("go on with it by --resume {shown}")),
        _ => return Ok(()),
    };
    Err(Error::usage(format!("{shown} is {what} and no data to train on: {remedy}")))
}
