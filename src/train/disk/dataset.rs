//! The data that a run or a checkpoint names, with the tokenizer that the model knows.

use crate::config::RunConfig;
use crate::data::{self, Dataset, Tokenizer, Wanted};
use crate::error::{Error, Result};
use std::path::Path;

/// The data a configuration names. `known` is the tokenizer of the checkpoint a run resumes from; see
/// [`dataset_of_trained`] for checkpoints in general.
///
/// # Errors
/// Those of `data`: missing, empty, not UTF-8, too short; a text as `old_path` where there is no tokenizer.
pub fn dataset(config: &RunConfig, known: Option<Tokenizer>) -> Result<Dataset> {
    let d = &config.data;
    let corpus_seed = d.corpus_seed.unwrap_or(config.train.seed);
    let large = d.path.as_deref().map(|path| large_text(config, path, known.as_ref())).transpose()?.flatten();
    let vocab_size = Some(config.model.vocab_size);
    let mut dataset = match (&d.path, known) {
        _ if large.is_some() => large.map_or_else(|| Err(Error::defect("a data set is gone")), Ok),
        (None, known) if !d.sources.is_empty() => {
            data::open_sources(&d.sources, known, d.tokenizer.as_ref(), d.val_fraction, vocab_size)
        }
        (None, Some(tokenizer)) => data::builtin_with(tokenizer, corpus_seed, d.corpus_sentences, d.val_fraction),
        (None, None) => data::builtin(corpus_seed, d.corpus_sentences, d.text_tokenizer(), d.val_fraction),
        (Some(path), Some(tokenizer)) => data::open_with(tokenizer, path, d.val_path.as_deref(), d.val_fraction),
        (Some(path), None) => data::open(path, d.val_path.as_deref(), d.tokenizer.as_ref(), d.val_fraction, vocab_size),
    }?;
    if let Some(old) = &d.old_path {
        if let Some(cause) = data::not_there(old) {
            let missing = Error::io("read", old, &cause);
            return Err(Error::input(format!(
                "data.old_path: {missing}; name it with --set data.old_path=FILE, or go on without it with \
                 --set data.old_path=none"
            )));
        }
        let old = match dataset.tokenizer.clone() {
            Some(tokenizer) => data::open_beside(tokenizer, old, d.val_fraction),
            // With a tokenizer of its own, its tokens would be others than those of the model.
            None if data::is_text(old) => Err(Error::input(format!(
                "{} is text, but the model is trained on token shards and has no tokenizer: name a token shard (.bin)",
                old.display()
            ))),
            None => data::open(old, None, None, d.val_fraction, Some(dataset.vocab_size)),
        };
        dataset.old_val = Some(old.map_err(|e| Error::input(format!("data.old_path: {e}")))?.val);
    }
    Ok(dataset)
}

/// The tokens of a large text, made once and kept in the cache folder.
fn large_text(config: &RunConfig, path: &Path, known: Option<&Tokenizer>) -> Result<Option<Dataset>> {
    let d = &config.data;
    let wanted = known.map_or_else(|| Wanted::Kind(d.text_tokenizer().clone()), |known| Wanted::Known(known.clone()));
    let cached = data::cached_text(path, d.val_path.as_deref(), d.val_fraction, wanted)?;
    let open = |text: data::CachedText| data::open_with(text.tokenizer, &text.train, Some(&text.val), d.val_fraction);
    let opened = cached.map(open).transpose()?;
    Ok(opened.map(|data| Dataset { description: data::describe(path, d.val_path.as_deref()), ..data }))
}

/// The data a configuration names, for a model that was trained with `tokenizer` (`None`: on token shards).
///
/// # Errors
/// As [`dataset`], and text for a model that knows no tokenizer.
pub(crate) fn dataset_of_trained(config: &RunConfig, tokenizer: Option<Tokenizer>) -> Result<Dataset> {
    let trained_on_shards = tokenizer.is_none();
    let mut data = dataset(config, tokenizer)?;
    if trained_on_shards && data.train.largest_of_shards().is_some() {
        // The model goes on without one: its tokens may be these, but nothing says so.
        data.tokenizer = None;
    }
    if trained_on_shards && data.tokenizer.is_some() {
        let text = config.data.path.as_deref().unwrap_or(Path::new("the built-in corpus"));
        return Err(Error::input(format!(
            "{} is text, but the checkpoint was trained on token shards and has no tokenizer: give a token shard (.bin) \
             with --data",
            text.display()
        )));
    }
    Ok(data)
}

/// [`dataset_of_trained`] without what the model knew before, which only a run is measured on.
///
/// # Errors
/// As there.
pub(crate) fn dataset_to_measure(config: &RunConfig, tokenizer: Option<Tokenizer>) -> Result<Dataset> {
    let mut config = config.clone();
    config.data.old_path = None;
    dataset_of_trained(&config, tokenizer)
}

/// The prompt of samples: as configured, or the tokenizer's usual one, or the first token of the data.
///
/// # Errors
/// A prompt with characters the tokenizer does not know.
pub fn sample_prompt(text: &str, data: &Dataset) -> Result<Vec<u32>> {
    let tokens = match &data.tokenizer {
        Some(tokenizer) if !text.is_empty() => {
            let encoded = tokenizer.encode(data::without_mark(text));
            encoded.map_err(|e| Error::input(format!("sample_prompt: {e}")))?
        }
        Some(tokenizer) => tokenizer.usual_prompt(),
        None => Vec::new(),
    };
    if tokens.is_empty() { data.train.window(0, 1) } else { Ok(tokens) }
}
