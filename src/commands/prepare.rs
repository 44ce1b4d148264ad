//! `tokenformer prepare`: token shards out of text.

use super::answer::{Answer, value};
use super::interrupt;
use crate::checkpoint::RunLock;
use crate::config::TokenizerKind;
use crate::console::note;
use crate::data::{self, Kind, MOST_SHARD_TOKENS, Outcome, Request, ValBy, Wanted};
use crate::error::Error;
use crate::report::number::{self, grouped};
use crate::report::shell;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `prepare`.
#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// Text: .txt, .md and .jsonl files, also packed (.gz, .zst), .parquet, folders of them, patterns, or - for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Folder for the shards, the tokenizer and the manifest; the same command goes on in it.
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Tokenizer: gpt2, cl100k, o200k, a tokenizer.json, bpe:N to train one of N tokens, byte or char.
    #[arg(long, default_value = "gpt2", value_name = "NAME|FILE")]
    tokenizer: TokenizerKind,
    /// What inputs are whose names do not say: txt, jsonl, jsonl.gz and so on.
    #[arg(long, value_name = "KIND")]
    format: Option<Kind>,
    /// The key of the text in lines of JSON, or its column in parquet.
    #[arg(long, default_value = "text", value_name = "KEY")]
    text_key: String,
    /// Tokens of a shard, such as 100M.
    #[arg(long, default_value = "100M", value_name = "N", value_parser = |text: &str| super::tokens(text, MOST_SHARD_TOKENS))]
    shard_tokens: u64,
    /// Share that is validated on [default: 0.0005 of documents, 0.1 of a single text].
    #[arg(long, value_name = "SHARE")]
    val_fraction: Option<f64>,
    /// Validate on documents by the hash of their text, or on the end of a single text [default: end for one .txt or .md].
    #[arg(long, value_enum, value_name = "documents|end")]
    val_by: Option<ValBy>,
    /// Leave out what is no document, such as a line that is no JSON, and count it.
    #[arg(long)]
    skip_bad: bool,
    /// Threads that make tokens [default: one for each core].
    #[arg(long, value_name = "N", value_parser = super::kept::<usize>)]
    threads: Option<usize>,
    /// Replace what was prepared in the folder.
    #[arg(long)]
    overwrite: bool,
}

/// Most threads: more have nothing to do.
const MOST_THREADS: usize = 1024;

/// Prepares.
///
/// # Errors
/// A bad request before anything is written; inputs that cannot be read; an interruption.
pub(crate) fn run(args: &PrepareArgs) -> Answer {
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if !(1..=MOST_THREADS).contains(&threads) {
        return Err(Error::usage(format!(
            "--threads is {threads}, but must be from 1 to {MOST_THREADS}: leave it out"
        )));
    }
    let request = Request {
        inputs: args.paths.clone(),
        format: args.format,
        out: args.out.clone(),
        tokenizer: Wanted::Kind(args.tokenizer.clone()),
        shard_tokens: args.shard_tokens,
        val_by: args.val_by,
        val_fraction: args.val_fraction,
        text_key: args.text_key.clone(),
        skip_bad: args.skip_bad,
        threads,
        overwrite: args.overwrite,
        by_content: false,
    };
    let lock = RunLock::take(&args.out)?;
    let stop = interrupt::flag(|| "what was noted is kept, and the same command goes on".to_owned())?;
    let outcome = data::prepare(&request, &stop)?;
    lock.remove();
    super::print(&described(&outcome, args))?;
    found(&outcome, args)
}

fn described(outcome: &Outcome, args: &PrepareArgs) -> String {
    let manifest = &outcome.manifest;
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<16}{value}\n"));
    for (name, split) in [("train", &manifest.train), ("val", &manifest.val)] {
        let (tokens, documents, shards) = (grouped(split.tokens), grouped(split.documents), split.shards.len());
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        line(
            name,
            format!(
                "{tokens} tokens of {documents} document{}, {} of text, in {shards} shard{}",
                plural(split.documents),
                number::bytes(split.bytes),
                plural(shards as u64)
            ),
        );
    }
    line("tokenizer", format!("{}, {} tokens", manifest.tokenizer, grouped(manifest.vocab_size as u64)));
    if manifest.skipped > 0 {
        line("left out", format!("{} records that are no documents", grouped(manifest.skipped)));
    }
    if outcome.was_finished {
        note(format_args!("{} was finished before and is left as it is", args.out.display()));
    } else {
        let rate = |count: u64| count as f64 / outcome.seconds.max(1e-3) / 1e6;
        let speed = format!("{:.1} MB/s, {:.2} M tokens/s", rate(outcome.text_bytes), rate(outcome.tokens));
        line("time", format!("{}, {speed}", number::seconds(outcome.seconds)));
    }
    line("next", format!("tokenformer train --data {}", shell::word(&args.out)));
    text
}

fn found(outcome: &Outcome, args: &PrepareArgs) -> Answer {
    let manifest = &outcome.manifest;
    Ok(json!({
        "dir": args.out,
        "was_finished": outcome.was_finished,
        "tokenizer": manifest.tokenizer,
        "vocab_size": manifest.vocab_size,
        "train": value(&manifest.train)?,
        "val": value(&manifest.val)?,
        "skipped": manifest.skipped,
        "seconds": outcome.seconds,
    }))
}
