//! The text that a generation continues: of the command line, of a file, or of standard input.

use crate::console::warn;
use crate::data::{Tokenizer, without_mark};
use crate::error::{Error, Result};
use clap::Args;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most bytes of a prompt that is read: no context is so long.
const MOST_BYTES: u64 = 16 << 20;

/// Where a prompt comes from.
#[derive(Debug, Args)]
pub(super) struct PromptArgs {
    /// Text to continue, or - for standard input; by default the token that ends a text, or a line break where there is none
    /// such, or the first token of a tokenizer that knows none.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Continue the text of this file, as it is.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Take the names of special tokens in the prompt, such as <|endoftext|>, for those tokens and not for text.
    #[arg(long)]
    allow_special: bool,
}

impl PromptArgs {
    /// Tokens of the prompt, at least one.
    ///
    /// # Errors
    /// A prompt that is empty, cannot be read, is not UTF-8, or has what `tokenizer` does not know.
    pub(super) fn tokens(&self, tokenizer: &Tokenizer, context: usize) -> Result<Vec<u32>> {
        let (text, from) = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) if text == "-" => {
                (read(std::io::stdin().lock(), Path::new("standard input"))?, "--prompt -")
            }
            (Some(text), _) => match text.strip_prefix("FILE:") {
                Some(file) => {
                    return Err(Error::usage(format!(
                        "--prompt names a file as nanoGPT does: give --prompt-file {file}"
                    )));
                }
                None => (text.clone(), "--prompt"),
            },
            (None, Some(file)) => {
                let open = File::open(file).map_err(|e| Error::io("read", file, &e))?;
                (read(open, file)?, "--prompt-file")
            }
            (None, None) => return Ok(tokenizer.usual_prompt()),
        };
        let text = without_mark(&text);
        if text.is_empty() {
            return Err(Error::usage(format!("{from} is empty: give at least one character, such as a line break")));
        }
        let encode = if self.allow_special { Tokenizer::encode_with_special } else { Tokenizer::encode };
        let tokens = encode(tokenizer, text).map_err(|e| Error::input(format!("{from}: {e}")))?;
        if tokens.len() > context {
            warn(format_args!(
                "the prompt has {} tokens, and the model reads the last {context} of them (seq_length)",
                tokens.len()
            ));
        }
        Ok(tokens)
    }
}

/// All of `source`.
fn read(source: impl Read, name: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    source.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", name, &e))?;
    let shown = name.display();
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::input(format!("{shown} has more than {MOST_BYTES} bytes: give a shorter prompt")));
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| Error::input(format!("{shown} is not UTF-8 text: give a prompt that is")))?;
    Ok(text)
}
