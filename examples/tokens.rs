//! The tokens of texts: one JSON string a line comes in, one JSON list of tokens goes out.
//!
//! ```sh
//! echo '"Hello world"' | cargo run --release --example tokens gpt2
//! ```
//!
//! With `special` after it, names of special tokens in a text are those tokens. `scripts/compare-tokenizers.py` asks it.

use std::io::{BufWriter, Write};
use tokenformer::data::{Tokenizer, TokenizerKind};
use tokenformer::error::{Error, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let kind: TokenizerKind = arguments.next().unwrap_or_else(|| "gpt2".to_owned()).parse()?;
    let tokenizer = Tokenizer::of(&kind, &[])?;
    let encode = if arguments.next().is_some() { Tokenizer::encode_with_special } else { Tokenizer::encode };
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lines() {
        let line = line.map_err(|e| Error::input(format!("standard input: {e}")))?;
        let text: String = serde_json::from_str(&line).map_err(|e| Error::input(format!("no JSON string: {e}")))?;
        let tokens = serde_json::json!(encode(&tokenizer, &text)?);
        writeln!(out, "{tokens}").map_err(|e| Error::input(format!("standard output: {e}")))?;
    }
    Ok(())
}
