//! Every other tokenizer of Hugging Face, by their own crate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use tokenizers::{PostProcessorWrapper, Tokenizer};

use crate::error::{Error, Result};

/// A tokenizer as the crate reads it. Padding, truncation, and what is put around a text are left out.
#[derive(Debug)]
pub(super) struct Foreign {
    ordinary: Tokenizer,
    /// Made where special tokens are allowed for the first time.
    with_special: OnceLock<Result<Tokenizer>>,
}

impl Foreign {
    pub(super) fn read(text: &str) -> Result<Self> {
        Ok(Self { ordinary: read(text, false)?, with_special: OnceLock::new() })
    }

    /// `text` is what it was read from.
    pub(super) fn encode(&self, text: &str, file: &str, allow_special: bool) -> Result<Vec<u32>> {
        let with_special = || self.with_special.get_or_init(|| read(file, true)).as_ref().map_err(Clone::clone);
        let rules = if allow_special { with_special()? } else { &self.ordinary };
        let fail = |e: &dyn std::fmt::Display| Error::input(format!("the text cannot be made into tokens: {e}"));
        guarded(|| rules.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()))?.map_err(|e| fail(&e))
    }
}

fn read(text: &str, allow_special: bool) -> Result<Tokenizer> {
    let fail = |e: &dyn std::fmt::Display| Error::input(format!("this is no tokenizer.json: {e}"));
    let mut rules: Tokenizer = guarded(|| text.parse())?.map_err(|e: tokenizers::Error| fail(&e))?;
    rules.with_padding(None).with_post_processor(None::<PostProcessorWrapper>);
    rules.with_truncation(None).map_err(|e| fail(&e))?;
    rules.set_encode_special_tokens(!allow_special);
    Ok(rules)
}

/// What a file can make the crate do is not all known to us.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| Error::input("the tokenizer contradicts itself: its file is damaged, or not for this use"))
}
