//! From the documents of a batch to the bytes of their tokens.

use super::batch::{BATCH, Batch};
use super::cut;
use super::documents::{self, Bad, Document};
use super::split::Split;
use crate::data::Tokenizer;
use crate::error::{Error, Result};

/// Bad records of a batch that are named.
const NAMED: usize = 5;

/// How tokens are made.
pub(super) struct Encoder<'a> {
    pub tokenizer: &'a Tokenizer,
    /// Follows each document.
    pub end: Option<u32>,
    /// Bytes of a token, 2 or 4.
    pub width: usize,
    /// Whether a text may be cut.
    pub cuts: bool,
    pub text_key: &'a str,
    pub val_fraction: f64,
}

/// What a batch came to, for training and validation.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// Tokens, little-endian.
    pub tokens: [Vec<u8>; 2],
    pub documents: [u64; 2],
    /// Bytes of their text.
    pub bytes: [u64; 2],
    /// The first few that are none.
    pub bad: Vec<Bad>,
    /// All that are none.
    pub bad_count: u64,
}

impl Encoder<'_> {
    /// The tokens of `batch`.
    ///
    /// # Errors
    /// A defect: a token that does not fit its width.
    pub(super) fn encode(&self, batch: &Batch) -> Result<Encoded> {
        let mut encoded = Encoded::default();
        let mut failed = Ok(());
        let takes_bytes = *self.tokenizer == Tokenizer::Byte;
        documents::each(batch, self.text_key, takes_bytes, &mut |found| {
            let added = found.and_then(|document| {
                self.add(&document, &mut encoded).map_err(|why| Bad { record: document.record, why })
            });
            match added {
                Ok(Ok(())) => {}
                Ok(Err(defect)) => failed = Err(defect),
                Err(bad) => {
                    encoded.bad_count += 1;
                    if encoded.bad.len() < NAMED {
                        encoded.bad.push(bad);
                    }
                }
            }
        });
        failed.map(|()| encoded)
    }

    /// Appends the tokens of a document; without any of them where it has none.
    fn add(&self, document: &Document<'_>, to: &mut Encoded) -> Result<Result<()>, String> {
        let split = document.split.unwrap_or_else(|| Split::of(&document.text, self.val_fraction)) as usize;
        let (Some(tokens), Some(documents), Some(bytes)) =
            (to.tokens.get_mut(split), to.documents.get_mut(split), to.bytes.get_mut(split))
        else {
            return Ok(Err(Error::defect("a document is in no split")));
        };
        let before = tokens.len();
        let failed = |error: Error, tokens: &mut Vec<u8>| {
            tokens.truncate(before);
            Err(error.to_string())
        };
        match str::from_utf8(&document.text) {
            Ok(text) => {
                let size = if self.cuts { BATCH } else { usize::MAX };
                for piece in cut::pieces(text, size) {
                    match self.tokenizer.encode(piece) {
                        Ok(made) => {
                            if let Err(defect) = self.append(&made, tokens) {
                                return Ok(Err(defect));
                            }
                        }
                        Err(error) => return failed(error, tokens),
                    }
                }
            }
            // Only the byte tokenizer is given what is not UTF-8.
            Err(_) => tokens.extend(document.text.iter().flat_map(|&byte| u16::from(byte).to_le_bytes())),
        }
        *bytes += document.text.len() as u64;
        if document.ends {
            *documents += 1;
            return Ok(self.append(self.end.as_slice(), tokens));
        }
        Ok(Ok(()))
    }

    fn append(&self, made: &[u32], tokens: &mut Vec<u8>) -> Result<()> {
        tokens.reserve(made.len() * self.width);
        if self.width == 4 {
            tokens.extend(made.iter().flat_map(|token| token.to_le_bytes()));
            return Ok(());
        }
        let all = made.iter().fold(0, |all, token| all | token);
        if all > u32::from(u16::MAX) {
            return Err(Error::defect("a token is above the vocabulary of its tokenizer"));
        }
        tokens.extend(made.iter().flat_map(|&token| (token as u16).to_le_bytes()));
        Ok(())
    }
}
