//! A `tokenizer.json` of Hugging Face, also one that was trained here.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

use crate::error::{Error, Result};
use crate::report::number::hexadecimal;

/// Names that tokenizers give to the end of a text, the commonest first.
const ENDS: [&str; 6] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[SEP]"];

/// A tokenizer of a file; cheap to clone. In JSON, the text of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileTokenizer(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    text: String,
    sha256: String,
    rules: tokenizers::Tokenizer,
    vocab_size: usize,
    end_of_text: Option<u32>,
}

impl PartialEq for FileTokenizer {
    fn eq(&self, other: &Self) -> bool {
        self.0.sha256 == other.0.sha256
    }
}

impl Eq for FileTokenizer {}

impl FileTokenizer {
    /// The tokenizer in the file at `path`.
    ///
    /// # Errors
    /// A file that cannot be read or is no tokenizer.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
        Self::parse(text).map_err(|e| Error::input(format!("{}: {e}", path.display())))
    }

    /// A byte-level BPE of at most `vocab_size` tokens, of which the first is the end of a text, for these texts, of which none
    /// need be in memory at once.
    ///
    /// # Errors
    /// None of what a text can be.
    pub fn trained_on(vocab_size: usize, texts: impl Iterator<Item = String> + Send) -> Result<Self> {
        let fail = |e: tokenizers::Error| Error::input(format!("no tokenizer can be trained on the text: {e}"));
        let mut trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab_size)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(ENDS[0], true)])
            .build();
        let bytes = ByteLevel::new(false, true, true);
        let mut tokenizer = TokenizerBuilder::<BPE, tokenizers::NormalizerWrapper, _, ByteLevel, _>::new()
            .with_model(BPE::default())
            .with_pre_tokenizer(Some(bytes))
            .with_decoder(Some(bytes))
            .build()
            .map_err(fail)?;
        tokenizer.train(&mut trainer, texts).map_err(fail)?;
        Self::parse(tokenizer.to_string(false).map_err(fail)?)
    }

    pub(super) fn parse(text: String) -> Result<Self> {
        let mut rules: tokenizers::Tokenizer =
            text.parse().map_err(|e| Error::input(format!("this is no tokenizer.json: {e}")))?;
        rules.set_encode_special_tokens(true);
        let largest = rules.get_vocab(true).into_values().max();
        let Some(largest) = largest else { return Err(Error::input("the tokenizer has no tokens")) };
        let end_of_text = ENDS.into_iter().find_map(|name| rules.token_to_id(name));
        let sha256 = hexadecimal(&Sha256::digest(&text));
        Ok(Self(Arc::new(Parsed { sha256, rules, vocab_size: largest as usize + 1, end_of_text, text })))
    }

    /// The file.
    pub(super) fn text(&self) -> &str {
        &self.0.text
    }

    /// One above its largest token.
    pub fn vocab_size(&self) -> usize {
        self.0.vocab_size
    }

    /// The token that ends a text.
    pub fn end_of_text(&self) -> Option<u32> {
        self.0.end_of_text
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.0.rules.encode_fast(text, false);
        let encoding = encoding.map_err(|e| Error::input(format!("the text cannot be made into tokens: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(super) fn bytes(&self, token: u32) -> Option<Vec<u8>> {
        self.0.rules.decode(&[token], false).ok().map(String::into_bytes)
    }
}

impl TryFrom<String> for FileTokenizer {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(text)
    }
}

impl From<FileTokenizer> for String {
    fn from(tokenizer: FileTokenizer) -> Self {
        tokenizer.0.text.clone()
    }
}
