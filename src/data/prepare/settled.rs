//! What a request comes to for the inputs that were found: how validation is chosen, and which tokenizer makes the tokens.

use std::sync::atomic::AtomicBool;

use sha2::{Digest, Sha256};

use super::feed::ReadRules;
use super::inputs::Source;
use super::kind::Format;
use super::split::ValBy;
use super::state::{Identity, InputRecord, OutputState};
use super::{Request, Wanted, sample};
use crate::config::TokenizerKind;
use crate::console::note;
use crate::data::Tokenizer;
use crate::data::manifest::TOKENIZER;
use crate::error::{Error, Result};
use crate::report::number::{self, hexadecimal};

/// The program that writes.
const PROGRAM: &str = concat!("tokenformer ", env!("CARGO_PKG_VERSION"));

/// How validation is chosen, and its share.
pub(super) fn split_rule(request: &Request, sources: &[Source]) -> Result<(ValBy, f64)> {
    let single = matches!(sources, [only] if only.kind.format == Format::Text && !only.is_stdin());
    let is_file = request.inputs.first().is_some_and(|path| path.is_file());
    let val_by = request.val_by.unwrap_or(if single && is_file { ValBy::End } else { ValBy::Documents });
    if val_by == ValBy::End && !single {
        return Err(Error::usage(
            "--val-by end cuts one text in two, and these are several documents: use --val-by documents, or give one .txt or .md file",
        ));
    }
    let val_fraction = request.val_fraction.unwrap_or(val_by.usual_fraction());
    if !(0.0..1.0).contains(&val_fraction) {
        return Err(Error::usage(format!(
            "--val-fraction is {val_fraction}, but must be from 0 to below 1: use {}",
            val_by.usual_fraction()
        )));
    }
    Ok((val_by, val_fraction))
}

/// The tokenizer that is asked for: of the directory where it was made for these inputs, else a new one.
pub(super) fn tokenizer(
    request: &Request,
    found: &OutputState,
    sources: &[Source],
    rules: &ReadRules,
    stop: &AtomicBool,
) -> Result<Tokenizer> {
    let kind = match &request.tokenizer {
        Wanted::Known(tokenizer) => return Ok(tokenizer.clone()),
        Wanted::Kind(kind) => kind,
    };
    let made_here = matches!(kind, TokenizerKind::Bpe(_) | TokenizerKind::Char);
    let asked = match found {
        OutputState::Begun(begun) => Some(&begun.0.tokenizer),
        OutputState::Finished(manifest) => Some(&manifest.tokenizer),
        _ => None,
    };
    if made_here && asked == Some(&kind.to_string()) {
        return Tokenizer::read_file(&request.out.join(TOKENIZER), "make its directory again")
            .map_err(|error| Error::input(format!("{error}; begin again with --overwrite")));
    }
    if made_here && asked.is_none() && sources.iter().any(Source::is_stdin) {
        return Err(Error::usage(format!(
            "{kind} is made from the text before it makes tokens of it, and standard input can be read only once: give a file"
        )));
    }
    match kind {
        // The directory is refused in a moment, for which any will do.
        TokenizerKind::Bpe(_) | TokenizerKind::Char if asked.is_some() => Ok(Tokenizer::Byte),
        TokenizerKind::Bpe(_) => {
            let texts = sample::texts(sources, rules, stop)?;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let bytes: usize = texts.iter().map(|text| text.len()).sum();
            note(format_args!("training the tokenizer {kind} on {} of text", number::bytes(bytes as u64)));
            Tokenizer::of(kind, &texts)
        }
        TokenizerKind::Char => Tokenizer::of(kind, &[&sample::characters(sources, rules, stop)?]),
        _ => Tokenizer::of(kind, &[]),
    }
}

pub(super) fn identity(
    request: &Request,
    sources: &[Source],
    val_by: ValBy,
    val_fraction: f64,
    tokenizer: &Tokenizer,
) -> Result<Identity> {
    let known = |source: &Source| match request.by_content {
        true => InputRecord { path: "text".to_owned(), bytes: source.bytes, modified: 0 },
        false => InputRecord::of(source),
    };
    let name = match &request.tokenizer {
        Wanted::Kind(kind) => kind.to_string(),
        Wanted::Known(_) => "of a model".to_owned(),
    };
    Ok(Identity {
        created_by: PROGRAM.to_owned(),
        tokenizer: name,
        tokenizer_sha256: hexadecimal(&Sha256::digest(tokenizer.to_file_text()?)),
        shard_tokens: request.shard_tokens,
        split: val_by.name().to_owned(),
        val_fraction,
        text_key: request.text_key.clone(),
        sources: sources.iter().map(known).collect(),
    })
}
