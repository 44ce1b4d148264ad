//! Text out of tokens as they come.

use super::Tokenizer;

/// Decodes tokens as they are sampled, holding back bytes until they complete a character.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    pending: Vec<u8>,
}

impl<'a> StreamDecoder<'a> {
    /// A decoder at the start of a text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, pending: Vec::new() }
    }

    /// The text that `token` completes; empty in the middle of a character.
    pub fn push(&mut self, token: u32) -> String {
        match self.tokenizer.bytes(token) {
            Some(bytes) => {
                self.pending.extend(bytes);
                self.complete()
            }
            None => self.finish() + "\u{fffd}",
        }
    }

    /// What is left at the end: U+FFFD for an unfinished character, else nothing.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    /// Takes every finished character out of `pending`, replacing bytes that can no longer become one.
    fn complete(&mut self) -> String {
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(rest) => {
                    text.push_str(rest);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let valid: Vec<u8> = self.pending.drain(..error.valid_up_to()).collect();
                    text.push_str(&String::from_utf8_lossy(&valid));
                    let Some(broken) = error.error_len() else { return text };
                    self.pending.drain(..broken);
                    text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
    }
}
