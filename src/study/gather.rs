//! Finished runs, from wherever they are, as what a report is made of.
//!
//! Runs that differ in nothing but their seed are one arm; a name before the directory says which belong together
//! where that is not enough. What each stage of a run was is put together from its settings and its growth records.

use super::budget::{Axis, Timeline};
use super::comparison;
use super::file::Points;
use super::results::{ArmResult, Findings, Measured, Run, StudyCase};
use crate::checkpoint::read_meta;
use crate::config::{Arch, ModelConfig, ResolvedGrowth, RunConfig};
use crate::data::{Fingerprint, describe, describe_sources};
use crate::error::{Error, Result};
use crate::report::escape::slug;
use crate::train::growth::{Rules, Shape};
use crate::train::{DataPosition, GrowthRecord, Meta, Store, cohorts};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A run as it was asked for: `NAME=DIRECTORY` or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The arm it belongs to, where that was said.
    pub name: Option<String>,
    /// Its directory.
    pub dir: PathBuf,
}

impl Asked {
    /// Reads an argument.
    pub(crate) fn parse(text: &str) -> Self {
        match text.split_once('=') {
            // A directory may have an equals sign in its name.
            Some((name, dir)) if !name.is_empty() && !Path::new(text).exists() => {
                Self { name: Some(name.to_owned()), dir: dir.into() }
            }
            _ => Self { name: None, dir: text.into() },
        }
    }
}

/// One run, read.
struct Gathered {
    asked: Asked,
    config: RunConfig,
    models: Vec<ModelConfig>,
    /// The rules of each growth.
    rules: Vec<ResolvedGrowth>,
    timeline: Timeline,
    measured: Measured,
    /// What its data contain, where its checkpoint says it.
    contents: Option<Fingerprint>,
}

/// Reads `runs` and puts them in arms, the first of which, or the one called `reference`, is the reference.
///
/// # Errors
/// A run that cannot be read, is not finished, or whose losses are not comparable with those of the first; two runs of
/// one arm with one seed; no arm called `reference`.
pub(crate) fn gather(runs: &[Asked], reference: Option<&str>) -> Result<Findings> {
    let runs: Vec<Gathered> = runs.iter().map(read).collect::<Result<_>>()?;
    let Some(first) = runs.first() else {
        return Err(Error::usage("there are no runs to compare: give two directories of runs, or more"));
    };
    for run in &runs {
        comparable(first, run)?;
    }
    let mut arms: Vec<(ArmResult, Vec<Gathered>)> = Vec::new();
    let data = described(&first.config);
    let own_corpora = first.config.data.is_builtin() && first.config.data.corpus_seed.is_none();
    for run in runs {
        let unnamed = |other: &Gathered| other.asked.name.is_none() && Identity::of(other) == Identity::of(&run);
        let same = |(arm, members): &&mut (ArmResult, Vec<Gathered>)| match &run.asked.name {
            Some(name) => arm.name == *name,
            None => members.first().is_some_and(unnamed),
        };
        match arms.iter_mut().find(same) {
            Some((_, members)) => members.push(run),
            None => {
                let name = run.asked.name.clone().unwrap_or_else(|| directory_name(&run.asked.dir));
                let taken = arms.iter().filter(|(arm, _)| arm.name == name).count();
                let name = if taken > 0 { run.asked.dir.display().to_string() } else { name };
                let (models, rate) = (run.models.clone(), run.config.train.lr);
                arms.push((ArmResult { name, models, rate, trials: Vec::new() }, vec![run]));
            }
        }
    }
    let mut cases: Vec<StudyCase> = Vec::new();
    for (index, (_, members)) in arms.iter_mut().enumerate() {
        for run in members.drain(..) {
            add(&mut cases, index, run)?;
        }
    }
    let arms: Vec<ArmResult> = arms.into_iter().map(|(arm, _)| arm).collect();
    let reference = match reference {
        None => 0,
        Some(name) => {
            arms.iter().position(|arm| arm.name == name || slug(&arm.name) == slug(name)).ok_or_else(|| {
                let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
                Error::usage(format!(
                    "--reference is \"{name}\", but the arms are {}: use one of them",
                    names.join(", ")
                ))
            })?
        }
    };
    let points = comparison::points(&cases, reference, &Points::default());
    let mut notes = vec![
        "These runs were made on their own: whether each had its learning rate chosen as carefully as the others is not \
         known here."
            .to_owned(),
    ];
    if own_corpora {
        notes.push("Each seed has a built-in corpus of its own, also for validation: losses of different seeds differ by that \
                    too, paired differences do not."
            .to_owned());
    }
    Ok(Findings { title: "Runs compared".to_owned(), arms, cases, reference, points, data, entropy_floor: None, notes })
}

/// Puts a run with the runs of its arm of the same length and growths.
fn add(cases: &mut Vec<StudyCase>, arm: usize, run: Gathered) -> Result<()> {
    let steps = run.config.train.max_steps as u64;
    let parameters = [run.models.first(), run.models.last()].map(|model| model.map_or(0, ModelConfig::param_count));
    let same = |case: &&mut StudyCase| case.arm == arm && case.steps == steps && case.timeline == run.timeline;
    let seed = run.config.train.seed;
    let found = Run { seed, rate: run.config.train.lr, measured: Some(run.measured) };
    match cases.iter_mut().find(same) {
        Some(case) if case.runs.iter().any(|other| other.seed == seed) => Err(Error::usage(format!(
            "{} is another run with seed {seed} of the same arm, but seeds are what differs within one: leave it out, or \
             name the arms, as in base=runs/a other=runs/b",
            run.asked.dir.display()
        ))),
        Some(case) => {
            case.runs.push(found);
            case.runs.sort_by_key(|run| run.seed);
            Ok(())
        }
        None => {
            let length = Axis::Tokens.amount(run.timeline.tokens(steps));
            cases.push(StudyCase {
                arm,
                length,
                axis: Axis::Tokens,
                steps,
                timeline: run.timeline,
                parameters,
                runs: vec![found],
            });
            Ok(())
        }
    }
}

fn directory_name(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    full.file_name().map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn read(asked: &Asked) -> Result<Gathered> {
    let mut config = RunConfig::read_or(&asked.dir.join("config.toml"), "give the directory of a run")?;
    config.model.validate()?;
    config.train.validate(&config.model)?;
    let train = &config.train;
    let tokens = (train.grad_accum(&config.model)? * train.batch_size * config.model.seq_length) as u64;
    let measured = Measured::read(&asked.dir, tokens)?;
    let steps = train.max_steps as u64;
    if measured.loss_at(steps).is_none() {
        let reached = measured.losses.last().map_or(0, |(step, _)| *step);
        return Err(Error::usage(format!(
            "{0} was last evaluated at step {reached}, but its run has {steps} steps, and only finished runs are compared: \
             finish it with `tokenformer train --resume {0}`, or leave it out",
            asked.dir.display()
        )));
    }
    let Meta { lineage: records, data: DataPosition { fingerprint: contents, .. }, .. } = newest(&asked.dir)?;
    if contents.is_none() {
        config.train.count_micro_batches(&config.model);
    }
    let models = models(&config.model, &records);
    let rules = |record: &GrowthRecord| {
        let dir = asked.dir.display();
        match &record.rules {
            Rules::Growth(rules) => Ok(*rules),
            Rules::Pruning(_) => Err(Error::usage(format!(
                "{dir} was pruned at step {}, and what a run cost before that is not counted: leave it out, or compare runs \
                 that only grew",
                record.at_step
            ))),
            Rules::Other(json) => ResolvedGrowth::deserialize(json).map_err(|e| {
                Error::input(format!("a growth in the lineage of {dir} has damaged rules: {e}; leave it out"))
            }),
        }
    };
    let rules = records.iter().map(rules).collect::<Result<Vec<_>>>()?;
    let stages = cohorts::staged(models.clone(), rules.iter().copied(), None);
    let timeline = Timeline::new(&config, &stages, records.iter().map(|record| record.at_step).collect())?;
    Ok(Gathered { asked: asked.clone(), config, models, rules, timeline, measured, contents })
}

/// What the newest checkpoint says of a run: also of growths that were made in a file, of which its metrics know nothing.
fn newest(dir: &Path) -> Result<Meta> {
    let latest = Store::new(dir).newest(&|path| read_meta::<Meta>(path).map(|meta| (meta.step, meta)))?;
    let (_, meta) = latest.found.ok_or_else(|| {
        Error::input(format!(
            "{} holds no checkpoint, which tells how its model grew: give the directory of a run",
            dir.display()
        ))
    })?;
    Ok(meta)
}

/// The model at the start and after each growth. `known` is any of them: a resumed run has a later one in its settings.
fn models(known: &ModelConfig, records: &[GrowthRecord]) -> Vec<ModelConfig> {
    let size = |value: u64, fallback: usize| if value == 0 { fallback } else { value as usize };
    let model = |Shape { slots: [qkv, proj, ffn], layers, intermediate_size: units, .. }: Shape| ModelConfig {
        qkv_slot_num: size(qkv, known.qkv_slot_num),
        proj_slot_num: size(proj, known.proj_slot_num),
        ffn_slot_num: size(ffn, known.ffn_slot_num),
        num_layers: size(layers, known.num_layers),
        intermediate_size: size(units, known.intermediate_size),
        ..known.clone()
    };
    let Some(first) = records.first() else { return vec![known.clone()] };
    let shapes = std::iter::once(first.before).chain(records.iter().map(|record| record.after));
    shapes.map(model).collect()
}

/// What the runs of one arm have in common: everything but the seed, where they lie and what they print.
#[derive(PartialEq)]
struct Identity<'a> {
    /// The model at the start and after each growth.
    models: Vec<ModelConfig>,
    /// When it grew.
    growth_steps: &'a [u64],
    /// By which rules.
    rules: &'a [ResolvedGrowth],
    /// All other settings.
    settings: RunConfig,
}

impl<'a> Identity<'a> {
    fn of(run: &'a Gathered) -> Self {
        let mut settings = run.config.clone();
        settings.model = ModelConfig::default();
        settings.growth.clear();
        settings.train.seed = 0;
        settings.train.sample_prompt.clear();
        // A resumed run names what a fresh one leaves to the device.
        settings.train.loss_chunk_rows = 0;
        settings.train.keep_best = true;
        settings.out_dir = PathBuf::new();
        if run.contents.is_some() {
            // Contents are compared in their place.
            settings.data.name(None, None);
        }
        let models = run.models.iter().map(Self::model).collect();
        Self { models, growth_steps: &run.timeline.growth_steps, rules: &run.rules, settings }
    }

    /// A model without what follows from the rest of it: scales, and the slots of a Transformer, which has none.
    fn model(model: &ModelConfig) -> ModelConfig {
        let mut model = ModelConfig { tau_qkv: None, tau_proj: None, tau_ffn: None, ..model.clone() };
        if model.arch == Arch::Transformer {
            (model.qkv_slot_num, model.proj_slot_num, model.ffn_slot_num) = (1, 1, 1);
        }
        model
    }
}

/// Losses of two runs are of the same tokens: by the contents of their files, where both are known, or else by their names.
fn comparable(first: &Gathered, run: &Gathered) -> Result<()> {
    let shown = |run: &Gathered| run.asked.dir.display().to_string();
    let generated = |run: &Gathered| run.config.data.is_builtin();
    let known = first.contents.as_ref().zip(run.contents.as_ref()).filter(|_| !generated(first) || !generated(run));
    if let Some(changed) = known.and_then(|(first, run)| first.difference(run)) {
        let data = |run: &Gathered| described(&run.config);
        return Err(Error::usage(format!(
            "{} is of the {} and {} of the {}, which are not the same: {changed}; compare runs of the same data",
            shown(first),
            data(first),
            shown(run),
            data(run)
        )));
    }
    let of = |run: &Gathered| -> Result<Vec<(&str, String)>> {
        let (data, train, model) = (&run.config.data, &run.config.train, &run.config.model);
        let path =
            |path: &Option<PathBuf>| path.as_ref().map_or("built-in".to_owned(), |path| path.display().to_string());
        let by_name = [
            ("data.path", path(&data.path)),
            ("data.val_path", path(&data.val_path)),
            ("data.tokenizer", data.text_tokenizer().to_string()),
            ("data.val_fraction", data.val_fraction.to_string()),
            ("data.corpus_sentences", data.corpus_sentences.to_string()),
            ("data.corpus_seed", format!("{:?}", data.corpus_seed)),
            ("model.vocab_size", model.vocab_size.to_string()),
        ];
        let rows = train.validation_rows(model)?.to_string();
        let always = [("model.seq_length", model.seq_length.to_string()), ("sequences of a validation", rows)];
        let by_name = by_name.into_iter().filter(|_| known.is_none());
        Ok(by_name.chain(always).collect())
    };
    match of(first)?.into_iter().zip(of(run)?).find(|(a, b)| a != b) {
        None => Ok(()),
        Some(((key, a), (_, b))) => Err(Error::usage(format!(
            "{} has {key} {a} and {} has {b}, so their losses are of different tokens: compare runs with the same validation",
            shown(first),
            shown(run)
        ))),
    }
}

/// The data of a run in words.
fn described(config: &RunConfig) -> String {
    let data = &config.data;
    if !data.sources.is_empty() {
        return describe_sources(&data.sources);
    }
    data.path.as_deref().map_or("built-in corpus".to_owned(), |path| describe(path, data.val_path.as_deref()))
}
