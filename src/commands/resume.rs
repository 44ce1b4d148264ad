//! What a run that goes on must have in common with what its checkpoint says, and what is said where it has not.

use super::run_dir;
use crate::checkpoint::read_meta;
use crate::config::{GrowthConfig, ModelConfig, RunConfig};
use crate::console::warn;
use crate::data::{Dataset, Fingerprint, Tokenizer, TokenizerKind, is_text};
use crate::error::{Error, Result};
use crate::train::disk::Start;
use crate::train::report::{self, Shown};
use crate::train::{Checkpoint, DataPosition, Meta, Standing, Store};
use std::cmp::Ordering;
use std::path::Path;

/// Flags may change how a model is trained and on what, not what it is. Dropout is of training alone.
pub(super) fn same_model(stored: &RunConfig, config: &RunConfig) -> Result<()> {
    let identity = |config: &RunConfig| -> Result<Vec<(String, serde_json::Value)>> {
        let json = |e| Error::defect(format!("the settings cannot be compared: {e}"));
        let model = ModelConfig { dropout: 0.0, ..config.model.clone() };
        let model = serde_json::to_value(&model).map_err(json)?;
        let model = model.as_object().into_iter().flatten();
        Ok(model.map(|(name, value)| (format!("model.{name}"), value.clone())).collect())
    };
    let (stored, given) = (identity(stored)?, identity(config)?);
    match stored.iter().zip(&given).find(|(was, is)| was != is) {
        Some(((name, was), (_, is))) => Err(Error::usage(format!(
            "{name} is {is}, but a resumed run keeps the model of its checkpoint, where it is {was}: drop that setting, or \
             make the model larger with `tokenformer grow` or a growth"
        ))),
        None => Ok(()),
    }
}

/// The tokenizer is part of a model, whatever its file is called. What is to be said of the file.
pub(super) fn same_tokenizer(
    stored: &RunConfig,
    config: &RunConfig,
    known: Option<&Tokenizer>,
) -> Result<Option<String>> {
    let Some(known) = known else { return Ok(None) };
    let (was, is) = (&stored.data.tokenizer, &config.data.tokenizer);
    // Made of the text, unless the data say their own.
    let Some(is) = is else { return Ok(None) };
    let was = was.as_ref().unwrap_or(&TokenizerKind::Char);
    let given = match is {
        // Data that were prepared name a tokenizer of their own, whatever the setting.
        TokenizerKind::File(path) if was == is && !path.exists() => return Ok(None),
        _ if was == is && !matches!(is, TokenizerKind::File(_)) => return Ok(None),
        TokenizerKind::File(_)
        | TokenizerKind::Gpt2
        | TokenizerKind::Cl100k
        | TokenizerKind::O200k
        | TokenizerKind::Byte => Some(Tokenizer::of(is, &[])),
        // Made of the text, and stored in the checkpoint.
        TokenizerKind::Bpe(_) | TokenizerKind::Char => None,
    };
    let makes_tokens = || {
        let data = &config.data;
        data.is_builtin()
            || data.path.iter().chain(data.sources.iter().map(|source| &source.path)).any(|path| is_text(path))
    };
    let described = match &given {
        // A prepared directory has its own.
        _ if was == is && !makes_tokens() => return Ok(None),
        None => "made of a text".to_owned(),
        Some(Ok(given)) if given == known => return Ok(None),
        Some(Ok(given)) => given.describe(),
        Some(Err(error)) if was == is => error.to_string(),
        Some(Err(error)) => return Err(error.clone()),
    };
    if was == is {
        return Ok(Some(format!(
            "the tokenizer {is} has changed since the run began ({described}); the run keeps the one in its checkpoint ({})",
            known.describe()
        )));
    }
    Err(Error::usage(format!(
        "data.tokenizer is {is} ({described}), but a resumed run keeps the tokenizer of its checkpoint, where it is {was} ({}): \
         drop that setting, or train a new model",
        known.describe()
    )))
}

/// The data of a resumed run are what they were, whatever they are called, or that they changed is accepted. What is to be
/// said of them.
pub(super) fn same_data(
    [stored, config]: [&RunConfig; 2],
    known: &DataPosition,
    data: &Dataset,
    path: &Path,
    accept: bool,
) -> Result<Option<String>> {
    let (now, path) = (&data.description, path.display());
    let Some(fingerprint) = &known.fingerprint else {
        return Ok(Some(format!(
            "{path} is of a version that did not record what its data contain, so whether the {now} is what it was trained \
             on is not known: the next checkpoint says it"
        )));
    };
    let Some(changed) = fingerprint.difference(&Fingerprint::of(data)?) else { return Ok(None) };
    let [was, is] = [stored, config].map(|config| config.data.val_fraction);
    let split = if was == is { String::new() } else { format!(" (data.val_fraction was {was} and is {is})") };
    let of = if known.description == *now { String::new() } else { format!(", the {}", known.description) };
    let sentence = format!("the {now} is not what {path} was trained on{of}: {changed}{split}");
    if accept {
        return Ok(Some(format!("{sentence}; the losses so far are forgotten")));
    }
    let back = if was == is {
        "give what it was trained on with --data FILE".to_owned()
    } else {
        format!("give it its part back with --set data.val_fraction={was}")
    };
    Err(Error::input(format!("{sentence}; {back}, or go on with this and --accept-data-change")))
}

/// Keeps the validation of a run that goes on with another batch, so that its losses go on as one curve and the best one stays
/// the best. A sentence where settings of the validation itself were changed.
pub(super) fn same_validation(stored: &RunConfig, config: &mut RunConfig) -> Result<Option<String>> {
    let rows = |config: &RunConfig| config.train.validation_rows(&config.model);
    let (was, is) = (rows(stored)?, rows(config)?);
    let of = |config: &RunConfig| (config.train.eval_batches, config.train.eval_rows);
    if was == is {
        return Ok(None);
    }
    if of(stored) == of(config) {
        config.train.eval_rows = was;
        return Ok(None);
    }
    Ok(Some(format!(
        "a validation is of {is} sequences now and was of {was}, so the best loss and the plateau so far are forgotten; \
         --set train.eval_rows={was} keeps them"
    )))
}

/// What is said of a run that has done all of its steps.
pub(super) fn complete(config: &RunConfig, path: &Path, start: &Start) -> Option<String> {
    let (step, steps, path) = (start.standing.step, config.train.max_steps as u64, path.display());
    if let Some(limit) = config.train.seconds().filter(|&limit| start.standing.seconds >= limit) {
        return Some(format!(
            "the run of {path} has trained {limit} s, all of its time, and is complete: give it more with --max-time, or use it as \
             it is"
        ));
    }
    (step == steps).then(|| {
        format!(
            "the run of {path} has done {step} of its {steps} steps and is complete: give it more with --steps, or use it as \
             it is"
        )
    })
}

/// Makes up for what a complete run had no time for, where it was ended right after its last checkpoint: the last model is kept
/// as the best one where it is that, and the page shows the end. As in a run, neither is worth an error.
pub(super) fn finish(config: &RunConfig, last: &Path, standing: &Standing) {
    let (dir, step, store) = (&config.out_dir, standing.step, Store::new(&config.out_dir));
    if !store.list().is_ok_and(|known| known.iter().any(|(_, path)| path == last)) {
        return;
    }
    let is_kept = || read_meta::<Meta>(&store.best()).is_ok_and(|meta| meta.step == step);
    if config.train.keep_best && standing.best_step == Some(step) && !is_kept() {
        let keep = |_held| store.save_best(&Checkpoint::read(last)?);
        run_dir::lock(dir)
            .and_then(keep)
            .unwrap_or_else(|error| warn(format_args!("the best model is not kept: {error}")));
    }
    let page = dir.join(report::FILE);
    let shown = Shown::read(dir, None).map(|shown| report::page(&[shown]));
    let written = shown.and_then(|text| match std::fs::read_to_string(&page) {
        Ok(there) if there == text => Ok(()),
        _ => run_dir::lock(dir).and_then(|_held| report::write(&page, &text)),
    });
    written.unwrap_or_else(|error| warn(format_args!("the page of the run is not written: {error}")));
}

/// There are steps left, and no growth that they have passed.
pub(super) fn still_ahead(config: &RunConfig, stored: &RunConfig, path: &Path, start: &Start) -> Result<()> {
    let (step, steps, path) = (start.standing.step, config.train.max_steps as u64, path.display());
    if step > steps {
        return Err(Error::usage(format!(
            "{path} has done {step} steps, and max_steps is {steps}, which counts all steps of the run: give it more than \
             {step} with --steps"
        )));
    }
    // One that is due now may be behind as well: the checkpoint may have been grown as a file. One of an earlier step is
    // not where the checkpoint has it still to come: one on a plateau was late.
    let behind = |growth: &&GrowthConfig| match (growth.at_step as u64).cmp(&step) {
        Ordering::Less => !stored.growth.contains(growth),
        Ordering::Equal => start.standing.lineage.iter().any(|grown| grown.at_step == step),
        Ordering::Greater => false,
    };
    // After one on a plateau they wait for that, whatever their step.
    let mut at_steps = config.growth.iter().take_while(|growth| growth.plateau().is_none());
    match at_steps.find(behind) {
        Some(growth) => Err(Error::usage(format!(
            "a growth has at_step {}, which {path} has behind it (step {step}, {} growths done): raise at_step or drop the \
             growth (--set growth=[])",
            growth.at_step,
            start.standing.lineage.len()
        ))),
        None => Ok(()),
    }
}
