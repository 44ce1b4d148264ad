//! Training a byte-level BPE as Hugging Face does.

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, PostProcessorWrapper, TokenizerBuilder, TokenizerImpl};

use crate::error::{Error, Result};

/// Most bytes of text that are learnt from: the trainer counts in 31 bits.
const MOST: usize = 1 << 31;

/// The `tokenizer.json` of a byte-level BPE of at most `vocab_size` tokens: `<|endoftext|>`, the 256 bytes, and what was
/// learnt of these texts.
pub(super) fn train(vocab_size: usize, texts: impl Iterator<Item = String> + Send) -> Result<String> {
    let fail = |e: tokenizers::Error| Error::input(format!("no tokenizer can be trained on the text: {e}"));
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab_size)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from("<|endoftext|>", true)])
        .build();
    let bytes = ByteLevel::new(false, true, true);
    type Rules = TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, PostProcessorWrapper, ByteLevel>;
    let mut tokenizer: Rules = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_pre_tokenizer(Some(bytes))
        .with_decoder(Some(bytes))
        .build()
        .map_err(fail)?;
    let mut seen = 0_usize;
    let texts = texts.take_while(move |text| {
        seen = seen.saturating_add(text.len());
        seen <= MOST
    });
    tokenizer.train(&mut trainer, texts).map_err(fail)?;
    tokenizer.to_string(false).map_err(fail)
}
