//! One directory, from its request to its manifest.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use super::documents::Bad;
use super::encode::Encoder;
use super::feed::{Feed, ReadRules};
use super::flow::{self, Made};
use super::inputs::{self, Source};
use super::split::{Split, ValBy};
use super::state::{self, Identity, InputRecord, OutputState, Progress, Written};
use super::told::Told;
use super::writer::ShardWriter;
use super::{Outcome, Request, sample, settled, split};
use crate::console::{note, warn};
use crate::data::Tokenizer;
use crate::data::manifest::{Manifest, ManifestSource, ManifestSplit, TOKENIZER, VERSION};
use crate::data::shard;
use crate::error::{Error, Result};
use crate::report::number::grouped;

/// How often progress is noted on the disk.
const BETWEEN_NOTES: Duration = Duration::from_secs(5);
/// Bad records that are named.
const NAMED: u64 = 5;

/// Prepares a directory, goes on with one, or finds it finished. `stop` ends it where it can be gone on with. The caller has
/// locked the directory.
///
/// # Errors
/// Bad requests before anything is written; inputs that cannot be read; [`Error::Interrupted`] where it was stopped.
pub(crate) fn prepare(request: &Request, stop: &AtomicBool) -> Result<Outcome> {
    let sources = inputs::expand(&request.inputs, request.format, &request.out)?;
    let (val_by, val_fraction) = settled::split_rule(request, &sources)?;
    let dir = &request.out;
    let mut found = match state::look(dir) {
        Ok(OutputState::Others(name)) => {
            let dir = dir.display();
            return Err(Error::usage(format!(
                "{dir} holds other files, such as {name}: choose an empty or new folder with --out"
            )));
        }
        // Even where it cannot be read.
        _ if request.overwrite => OutputState::Nothing,
        found => found?,
    };
    let is_stdin = sources.iter().any(Source::is_stdin);
    if is_stdin && matches!(&found, OutputState::Begun(begun) if has_tokens(&begun.1)) {
        let dir = dir.display();
        return Err(Error::usage(format!(
            "{dir} was begun, but standard input cannot be gone on with: begin again with --overwrite"
        )));
    }
    let rules = ReadRules { val_fraction, val_from: None, cuts: true, text_key: request.text_key.clone() };
    let settle = |found: &OutputState| -> Result<_> {
        let tokenizer = settled::tokenizer(request, found, &sources, &rules, stop)?;
        Ok((settled::identity(request, &sources, val_by, val_fraction, &tokenizer)?, tokenizer))
    };
    let (mut identity, mut tokenizer) = settle(&found)?;
    // Where there are no tokens yet, as with an input that was refused, nothing is lost.
    if matches!(&found, OutputState::Begun(begun) if !has_tokens(&begun.1) && begun.0.difference(&identity).is_some()) {
        found = OutputState::Nothing;
        (identity, tokenizer) = settle(&found)?;
    }
    let mut progress = match &found {
        OutputState::Finished(manifest) => return finished(request, manifest, &identity),
        OutputState::Begun(begun) => going_on(dir, begun, &identity)?,
        _ => {
            begin(dir, &identity, &tokenizer)?;
            Progress::default()
        }
    };
    let val_from = match val_by {
        ValBy::Documents => None,
        ValBy::End => sources.first().map(|source| sample::val_from(source, val_fraction)).transpose()?,
    };
    let rules = ReadRules { val_from, cuts: tokenizer.cuts_at_words(), ..rules };
    let is_one_text = val_by == ValBy::End;
    let end = tokenizer.end_of_text().filter(|_| !is_one_text);
    let job = Job { request, sources: sources.into(), rules, tokenizer: &tokenizer, end, is_stdin, is_one_text };
    let (seconds, text_bytes, tokens) = job.run(&mut progress, stop)?;
    let manifest = manifest(&job, &identity, progress)?;
    state::finish(dir, &manifest)?;
    Ok(Outcome { manifest, was_finished: false, seconds, text_bytes, tokens })
}

/// Whether something was written that can be gone on with.
fn has_tokens(progress: &Option<Progress>) -> bool {
    progress.as_ref().is_some_and(|progress| progress.splits.iter().any(|written| written.tokens > 0))
}

/// A directory that is finished, if it is what is wanted.
fn finished(request: &Request, manifest: &Manifest, wanted: &Identity) -> Result<Outcome> {
    let known = |(index, source): (usize, &ManifestSource)| InputRecord {
        path: source.path.clone(),
        bytes: source.bytes,
        modified: wanted.sources.get(index).map_or(0, |known| known.modified),
    };
    let there = Identity {
        created_by: wanted.created_by.clone(),
        tokenizer: manifest.tokenizer.clone(),
        tokenizer_sha256: manifest.tokenizer_sha256.clone(),
        shard_tokens: manifest.shard_tokens,
        split: manifest.split.clone(),
        val_fraction: manifest.val_fraction,
        text_key: manifest.text_key.clone(),
        sources: manifest.sources.iter().enumerate().map(known).collect(),
    };
    let dir = request.out.display();
    if let Some(difference) = there.difference(wanted) {
        return Err(Error::usage(format!(
            "{dir} is finished, but {difference}: choose another --out, or replace it with --overwrite"
        )));
    }
    Ok(Outcome { manifest: manifest.clone(), was_finished: true, seconds: 0.0, text_bytes: 0, tokens: 0 })
}

/// Where an earlier process stopped, if that one did what is wanted.
fn going_on(dir: &Path, begun: &(Identity, Option<Progress>), wanted: &Identity) -> Result<Progress> {
    let (identity, progress) = begun;
    if let Some(difference) = identity.difference(wanted) {
        return Err(Error::usage(format!(
            "{} was begun, but {difference}: go on as before, choose another --out, or begin again with --overwrite",
            dir.display()
        )));
    }
    let progress = progress.clone().unwrap_or_default();
    if progress.position.source > wanted.sources.len() {
        return Err(Error::input(format!("{} is damaged: begin again with --overwrite", dir.display())));
    }
    let tokens: u64 = progress.splits.iter().map(|written| written.tokens).sum();
    note(format_args!("going on in {} after {} tokens", dir.display(), grouped(tokens)));
    Ok(progress)
}

fn begin(dir: &Path, identity: &Identity, tokenizer: &Tokenizer) -> Result<()> {
    state::clear(dir)?;
    state::write_text(&dir.join(TOKENIZER), &tokenizer.to_file_text()?)?;
    state::write_identity(dir, identity)
}

struct Job<'a> {
    request: &'a Request,
    sources: Arc<[Source]>,
    rules: ReadRules,
    tokenizer: &'a Tokenizer,
    end: Option<u32>,
    is_stdin: bool,
    /// Whether the input is one text, a part of which is validated on.
    is_one_text: bool,
}

impl Job<'_> {
    /// Makes all tokens; how long that took, and of how many bytes how many were made.
    fn run(&self, progress: &mut Progress, stop: &AtomicBool) -> Result<(f64, u64, u64)> {
        let Request { out, shard_tokens, threads, .. } = self.request;
        let width = shard::width_for(self.tokenizer.vocab_size());
        let [train, val] = &progress.splits;
        let open =
            |split, at: &Written| ShardWriter::resume(out, split, width, *shard_tokens, at.shards.clone(), at.open);
        let mut shards = [open(Split::Train, train)?, open(Split::Val, val)?];
        let passed: u64 = self.sources.iter().take(progress.position.source).map(|source| source.bytes).sum();
        let read = Arc::new(AtomicU64::new(passed));
        let mut told = Told::new(self.sources.iter().map(|source| source.bytes).sum(), read.clone());
        let feed = Feed::new(self.sources.clone(), self.rules.clone(), progress.position, read);
        let encoder = Encoder {
            tokenizer: self.tokenizer,
            end: self.end,
            width,
            cuts: self.rules.cuts,
            text_key: &self.rules.text_key,
            val_fraction: self.rules.val_fraction,
        };
        let mut noted = Instant::now();
        let tokens_of =
            |made: &Made| made.encoded.tokens.iter().map(|tokens| (tokens.len() / width) as u64).sum::<u64>();
        let (mut text_bytes, mut tokens) = (0, 0);
        let counts = std::cell::RefCell::new((&mut text_bytes, &mut tokens));
        let whole = flow::run(
            feed,
            *threads,
            stop,
            &|batch| encoder.encode(batch),
            &mut |made| {
                self.judge(&made, progress.skipped)?;
                let whole_shards = shards.iter().map(|shards| shards.done.len()).sum::<usize>();
                for (shards, tokens) in shards.iter_mut().zip(&made.encoded.tokens) {
                    shards.write(tokens)?;
                }
                add(progress, &made, &shards, width);
                {
                    let mut counts = counts.borrow_mut();
                    *counts.0 += made.encoded.bytes.iter().sum::<u64>();
                    *counts.1 += tokens_of(&made);
                }
                let finished_one = shards.iter().map(|shards| shards.done.len()).sum::<usize>() > whole_shards;
                if !self.is_stdin && (finished_one || noted.elapsed() >= BETWEEN_NOTES) {
                    save(out, &mut shards, progress)?;
                    noted = Instant::now();
                }
                Ok(())
            },
            &mut || {
                let counts = counts.borrow();
                (told.text_bytes, told.tokens) = (*counts.0, *counts.1);
                told.say();
            },
        );
        let seconds = told.seconds();
        drop(told);
        match whole {
            Ok(true) => {
                for (shards, written) in shards.iter_mut().zip(&mut progress.splits) {
                    shards.end()?;
                    (written.shards, written.open) = (shards.done.clone(), 0);
                }
                Ok((seconds, text_bytes, tokens))
            }
            stopped => {
                // What was written last may not have been noted; the first failure is the one to report.
                let saved = if self.is_stdin { Ok(()) } else { save(out, &mut shards, progress) };
                stopped?;
                saved?;
                Err(self.interrupted(progress))
            }
        }
    }

    fn interrupted(&self, progress: &Progress) -> Error {
        let tokens: u64 = progress.splits.iter().map(|written| written.tokens).sum();
        Error::Interrupted(match self.is_stdin {
            true => "interrupted: standard input cannot be gone on with, begin again with --overwrite".to_owned(),
            false => format!("interrupted: {} tokens are kept, and the same command goes on", grouped(tokens)),
        })
    }

    /// Refuses records that are no documents, or says which are left out; `before` were.
    fn judge(&self, made: &Made, before: u64) -> Result<()> {
        let Some(source) = self.sources.get(made.at.source) else { return Ok(()) };
        let named = |bad: &Bad| match bad.record {
            Some(record) => format!("{}:{record}: {}", source.shown(), bad.why),
            None => format!("{}: {}", source.shown(), bad.why),
        };
        let Some(first) = made.encoded.bad.first() else { return Ok(()) };
        // Its start is written, or its end would be without it.
        if self.is_one_text || made.at.within.is_some() || made.after.within.is_some() {
            return Err(Error::input(format!(
                "{}; mend it or leave the file out, and begin again with --overwrite",
                named(first)
            )));
        }
        if !self.request.skip_bad {
            let more = match made.encoded.bad_count {
                1 => String::new(),
                count => format!(" (and {} more nearby)", count - 1),
            };
            return Err(Error::input(format!(
                "{}{more}; mend it, or leave out what is no document with --skip-bad",
                named(first)
            )));
        }
        let room = NAMED.saturating_sub(before);
        for bad in made.encoded.bad.iter().take(usize::try_from(room).unwrap_or_default()) {
            warn(format_args!("{}; it is left out", named(bad)));
        }
        Ok(())
    }
}

/// Counts what was written.
fn add(progress: &mut Progress, made: &Made, shards: &[ShardWriter; 2], width: usize) {
    let encoded = &made.encoded;
    let counts = encoded.tokens.iter().zip(encoded.documents).zip(encoded.bytes).zip(shards);
    for (written, (((tokens, documents), bytes), shards)) in progress.splits.iter_mut().zip(counts) {
        written.tokens += (tokens.len() / width) as u64;
        written.documents += documents;
        written.bytes += bytes;
        let new = shards.done.get(written.shards.len()..).unwrap_or_default();
        written.shards.extend(new.iter().cloned());
        written.open = shards.open_tokens();
    }
    if progress.documents.len() <= made.at.source {
        progress.documents.resize(made.at.source + 1, 0);
    }
    if let Some(count) = progress.documents.get_mut(made.at.source) {
        *count += encoded.documents.iter().sum::<u64>();
    }
    progress.skipped += encoded.bad_count;
    progress.least = Some(progress.least.unwrap_or(u64::MAX).min(encoded.least));
    progress.position = made.after;
}

fn save(dir: &Path, shards: &mut [ShardWriter; 2], progress: &Progress) -> Result<()> {
    shards.iter_mut().try_for_each(ShardWriter::sync)?;
    state::write_progress(dir, progress)
}

fn manifest(job: &Job<'_>, identity: &Identity, progress: Progress) -> Result<Manifest> {
    let [train, val] = progress.splits.map(|Written { tokens, documents, bytes, shards, .. }| ManifestSplit {
        tokens,
        documents,
        bytes,
        shards,
    });
    if train.tokens == 0 {
        state::clear(&job.request.out)?;
        let why = if val.tokens > 0 {
            "every document is validated on: make --val-fraction smaller"
        } else {
            "there is no text in the input: give files with some"
        };
        return Err(Error::input(why));
    }
    if val.tokens == 0 && identity.val_fraction > 0.0 {
        let (documents, share) = (grouped(train.documents), identity.val_fraction);
        warn(format_args!(
            "none of {documents} document{} falls into the share of {share} that is validated on: --val-fraction {} takes one",
            if train.documents == 1 { "" } else { "s" },
            split::share_with(progress.least.unwrap_or_default())
        ));
    }
    // The one text has a part in both.
    let documents = |index| progress.documents.get(index).map_or(0, |count| if job.is_one_text { 1 } else { *count });
    let source = |(index, known): (usize, &InputRecord)| ManifestSource {
        path: known.path.clone(),
        bytes: known.bytes,
        documents: documents(index),
    };
    Ok(Manifest {
        version: VERSION,
        tokenizer: identity.tokenizer.clone(),
        tokenizer_sha256: identity.tokenizer_sha256.clone(),
        vocab_size: job.tokenizer.vocab_size(),
        end_of_text: job.end,
        split: identity.split.clone(),
        val_fraction: identity.val_fraction,
        shard_tokens: identity.shard_tokens,
        text_key: identity.text_key.clone(),
        train,
        val,
        sources: identity.sources.iter().enumerate().map(source).collect(),
        skipped: progress.skipped,
        created_by: identity.created_by.clone(),
    })
}
