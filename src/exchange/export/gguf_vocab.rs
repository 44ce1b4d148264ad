//! The tokenizer in a file for llama.cpp.

use super::gguf_value::Value;
use crate::console::warn;
use crate::data::{Tokenizer, Words};
use crate::error::{Error, Result};

/// Kinds of tokens, as llama.cpp numbers them.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Keys and values that describe `tokenizer` to llama.cpp, with `vocab_size` tokens: what the model has more is padding.
///
/// # Errors
/// An input error: no tokenizer, or one that llama.cpp does not have.
pub(super) fn keys(tokenizer: Option<&Tokenizer>, vocab_size: usize) -> Result<Vec<(&'static str, Value)>> {
    let tokenizer = tokenizer.ok_or_else(|| {
        Error::input(
            "the model was trained on token shards and has no tokenizer, without which llama.cpp takes no model: export with --to hf \
             or safetensors",
        )
    })?;
    let single = |tokens: Vec<String>| {
        // Greedy matching of whole tokens, none of which ends a text.
        let types = vec![NORMAL; tokens.len()];
        vec![("tokenizer.ggml.model", Value::Text("rwkv".to_owned()))]
            .into_iter()
            .chain(padded(tokens, types, vocab_size))
            .collect()
    };
    match tokenizer {
        Tokenizer::Byte => Ok(single((0..=u8::MAX).map(|byte| format!("\\x{byte:02x}")).collect())),
        Tokenizer::Char(tokenizer) => Ok(single(tokenizer.chars().iter().map(|&c| escaped(c)).collect())),
        Tokenizer::Tiktoken(_) | Tokenizer::TokenizerJson(_) => byte_level(tokenizer, vocab_size),
    }
}

/// As llama.cpp reads tokens of this kind: what is not plain ASCII byte by byte.
fn escaped(c: char) -> String {
    match c {
        '!'..='~' if c != '\\' => c.to_string(),
        ' ' => c.to_string(),
        _ => c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\x{byte:02x}")).collect(),
    }
}

fn padded(mut tokens: Vec<String>, mut types: Vec<i32>, vocab_size: usize) -> [(&'static str, Value); 2] {
    for id in tokens.len()..vocab_size {
        tokens.push(format!("[PAD{id}]"));
        types.push(UNUSED);
    }
    [("tokenizer.ggml.tokens", Value::Texts(tokens)), ("tokenizer.ggml.token_type", Value::Integers(types))]
}

fn byte_level(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Vec<(&'static str, Value)>> {
    let lists = tokenizer.lists()?.ok_or_else(|| {
        Error::input(format!(
            "the tokenizer of the model ({}) is no byte-level BPE with words as llama.cpp cuts them, so it cannot be in a GGUF: \
             export with --to hf, and convert that",
            tokenizer.describe()
        ))
    })?;
    let words = match (lists.words, lists.whole_pieces) {
        (Words::Gpt2, _) => "gpt-2",
        (Words::Llama3, true) => "llama-bpe",
        (Words::Cl100k | Words::Llama3, _) => "dbrx",
        (Words::Qwen2, _) => "qwen2",
        (Words::O200k, _) => "gpt-4o",
    };
    let (mut tokens, mut types) = (Vec::new(), Vec::new());
    for (token, id) in lists.tokens.into_iter().zip(0_u32..) {
        let (name, kind) = match token {
            None => (format!("[PAD{id}]"), UNUSED),
            Some(token) if token.special => (token.name, CONTROL),
            Some(token) if token.added => (token.name, USER_DEFINED),
            Some(token) => (token.name, NORMAL),
        };
        tokens.push(name);
        types.push(kind);
    }
    let mut keys = vec![
        ("tokenizer.ggml.model", Value::Text("gpt2".to_owned())),
        ("tokenizer.ggml.pre", Value::Text(words.to_owned())),
        ("tokenizer.ggml.merges", Value::Texts(lists.merges)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
    ];
    keys.extend(padded(tokens, types, vocab_size));
    match tokenizer.end_of_text() {
        Some(end) => {
            keys.extend(
                ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"].map(|key| (key, Value::Word(end))),
            );
        }
        None => warn(
            "the tokenizer has no token that ends a text, and llama.cpp takes token 11 for it: generate with --ignore-eos",
        ),
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::TokenizerKind;

    #[test]
    fn characters_are_written_so_that_they_are_read_back() {
        assert_eq!(['a', ' ', '\'', '\\', '\n', 'é'].map(escaped), ["a", " ", "'", "\\x5c", "\\x0a", "\\xc3\\xa9"]);
    }

    #[test]
    fn every_token_of_the_model_has_a_name() {
        for (kind, padding) in [(TokenizerKind::Byte, 3), (TokenizerKind::Char, 0), (TokenizerKind::Bpe(270), 1)] {
            let tokenizer = Tokenizer::of(&kind, &["some text, some more text"]).unwrap();
            let vocab = tokenizer.vocab_size() + padding;
            let keys = keys(Some(&tokenizer), vocab).unwrap();
            let tokens = keys.iter().find(|(key, _)| *key == "tokenizer.ggml.tokens").unwrap();
            let Value::Texts(tokens) = &tokens.1 else { panic!("{tokens:?}") };
            assert_eq!(tokens.len(), vocab, "{kind:?}");
            assert_eq!(tokens.iter().filter(|token| token.starts_with("[PAD")).count(), padding);
        }
    }
}
