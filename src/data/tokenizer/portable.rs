//! Any tokenizer in the forms that other programs read: as a `tokenizer.json`, and as lists of tokens and merges.

use serde_json::{Map, Value, json};

use super::outline::{Merge, Model, Outline};
use super::split::{O200K, Pattern};
use super::{Tiktoken, Tokenizer, file};
use crate::error::{Error, Result};

/// The pattern of `cl100k_base` as a `tokenizer.json` can have it: `\z`, since `$` is the end of a line there.
const CL100K: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// A byte-level BPE as lists. Tokens are written in the alphabet of GPT-2, where every byte is a character.
#[derive(Debug)]
pub(crate) struct Lists {
    /// Every token by number; a number that is no token has none.
    pub(crate) tokens: Vec<Option<Listed>>,
    /// What is merged first comes first: two tokens with a blank between them.
    pub(crate) merges: Vec<String>,
    /// How a text is cut before.
    pub(crate) words: Words,
    /// Whether a piece that is a token is that token, whatever the merges make of it.
    pub(crate) whole_pieces: bool,
}

/// A token in [`Lists`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// In the alphabet of GPT-2, or its name where it is added.
    pub(crate) name: String,
    /// Whether it is looked for in a text by its name.
    pub(crate) added: bool,
    /// Whether it stands for no text.
    pub(crate) special: bool,
}

/// How a text is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// As GPT-2 does.
    Gpt2,
    /// As `cl100k_base` of GPT-4 does.
    Cl100k,
    /// As Llama 3 does: digits in threes.
    Llama3,
    /// As Qwen 2 does: digits by themselves.
    Qwen2,
    /// As GPT-4o does.
    O200k,
}

impl From<Pattern> for Words {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::Gpt2 => Self::Gpt2,
            Pattern::Cl100k => Self::Cl100k,
            Pattern::Gpt4 { digits: 1 } => Self::Qwen2,
            Pattern::Gpt4 { .. } => Self::Llama3,
            Pattern::O200k => Self::O200k,
        }
    }
}

impl Tokenizer {
    /// A `tokenizer.json` of Hugging Face that gives the same tokens.
    ///
    /// Of characters that are no tokens it makes nothing, where this program refuses the text. Names of special tokens in a text
    /// are tokens to transformers by default.
    ///
    /// # Errors
    /// None of what a user can give.
    pub(crate) fn to_tokenizer_json(&self) -> Result<String> {
        let json = match self {
            Self::TokenizerJson(tokenizer) => return Ok(tokenizer.text().to_owned()),
            Self::Byte => {
                let vocab =
                    file::alphabet().into_iter().zip(0..).map(|(c, id): (_, u32)| (c.to_string(), json!(id))).collect();
                let bytes =
                    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
                whole(&bytes, &bytes, &bpe(vocab, &[], false), &[])
            }
            Self::Char(tokenizer) => {
                let vocab =
                    tokenizer.chars().iter().zip(0..).map(|(c, id): (_, u32)| (c.to_string(), json!(id))).collect();
                whole(&Value::Null, &json!({"type": "Fuse"}), &bpe(vocab, &[], false), &[])
            }
            Self::Tiktoken(tokenizer) => of_ranks(*tokenizer, &ranked(*tokenizer)?),
        };
        let text = serde_json::to_string(&json);
        text.map_err(|e| Error::defect(format!("the tokenizer cannot be written: {e}")))
    }

    /// The lists of a byte-level BPE with known words; `None` for another tokenizer.
    ///
    /// # Errors
    /// None of what a user can give.
    pub(crate) fn lists(&self) -> Result<Option<Lists>> {
        match self {
            Self::Byte | Self::Char(_) => Ok(None),
            Self::Tiktoken(tokenizer) => ranked(*tokenizer).map(Some),
            Self::TokenizerJson(tokenizer) => {
                let Some(pattern) = tokenizer.pattern() else { return Ok(None) };
                let Outline { model, added, .. } = Outline::read(tokenizer.text())?;
                let Model::Bpe { vocab, merges, whole_pieces, .. } = model else { return Ok(None) };
                let mut tokens = vec![None; tokenizer.vocab_size()];
                let mut set = |id: u32, listed| tokens.get_mut(id as usize).map(|place| *place = Some(listed));
                for (name, id) in vocab {
                    set(id, Listed { name, added: false, special: false });
                }
                for token in added {
                    set(token.id, Listed { name: token.name, added: true, special: token.special });
                }
                let merges = merges.into_iter().map(|Merge(first, second)| format!("{first} {second}")).collect();
                Ok(Some(Lists { tokens, merges, words: pattern.into(), whole_pieces }))
            }
        }
    }
}

/// The ranks of a `tokenizer` as lists: two tokens whose bytes together are a token merge to it, and its number is the rank.
fn ranked(tokenizer: Tiktoken) -> Result<Lists> {
    let alphabet = file::alphabet();
    let shown = |bytes: &[u8]| bytes.iter().filter_map(|&byte| alphabet.get(usize::from(byte))).collect::<String>();
    let (mut tokens, mut merges) = (Vec::with_capacity(tokenizer.vocab_size()), Vec::new());
    for id in (0..).take(tokenizer.vocab_size()) {
        let special = tokenizer.is_special(id);
        let Some(bytes) = tokenizer.bytes(id) else {
            tokens.push(None);
            continue;
        };
        let name = if special { String::from_utf8_lossy(&bytes).into_owned() } else { shown(&bytes) };
        tokens.push(Some(Listed { name, added: special, special }));
        if special {
            continue;
        }
        let split = |at: usize| {
            let (first, second) = bytes.split_at_checked(at)?;
            Some(((tokenizer.rank(first)?, tokenizer.rank(second)?), format!("{} {}", shown(first), shown(second))))
        };
        let mut pairs: Vec<((u32, u32), String)> = (1..bytes.len()).filter_map(split).collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(_, pair)| pair));
    }
    let words = match tokenizer {
        Tiktoken::Gpt2 => Words::Gpt2,
        Tiktoken::Cl100k => Words::Cl100k,
        Tiktoken::O200k => Words::O200k,
    };
    Ok(Lists { tokens, merges, words, whole_pieces: true })
}

fn of_ranks(tokenizer: Tiktoken, lists: &Lists) -> Value {
    let numbered = || lists.tokens.iter().zip(0_u32..).filter_map(|(token, id)| Some((token.as_ref()?, id)));
    let vocab = numbered().map(|(token, id)| (token.name.clone(), json!(id))).collect();
    let added: Vec<Value> = numbered()
        .filter(|(token, _)| token.added)
        .map(|(token, id)| {
            json!({
                "id": id, "content": token.name, "special": token.special,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let level = |splits: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": splits});
    let split = |pattern: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, level(false)]})
    };
    let words = match tokenizer {
        Tiktoken::Gpt2 => level(true),
        Tiktoken::Cl100k => split(CL100K),
        Tiktoken::O200k => split(O200K),
    };
    whole(&words, &level(true), &bpe(vocab, &lists.merges, lists.whole_pieces), &added)
}

fn bpe(vocab: Map<String, Value>, merges: &[String], whole_pieces: bool) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole_pieces, "vocab": vocab, "merges": merges,
    })
}

fn whole(words: &Value, decoder: &Value, model: &Value, added: &[Value]) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": words, "post_processor": null, "decoder": decoder, "model": model,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::TokenizerKind;

    const TEXT: &str =
        "It's  we'LL\r\n\n 12345 x,y!!\n/ \t\nÜnïcode: Ελλάδα, 東京; 😀😀 {x = [1]}  aaaaaaa http://x.y  \n \n";

    /// The same tokens by Hugging Face's own crate.
    fn by_their_crate(json: &str, text: &str) -> Vec<u32> {
        let theirs: tokenizers::Tokenizer = json.parse().unwrap();
        let encoding = theirs.encode(text, false).unwrap();
        assert_eq!(theirs.decode(encoding.get_ids(), false).unwrap(), text);
        encoding.get_ids().to_vec()
    }

    #[test]
    fn hugging_faces_crate_finds_the_same_tokens() {
        for kind in [TokenizerKind::Byte, TokenizerKind::Char, TokenizerKind::Gpt2, TokenizerKind::Bpe(300)] {
            let tokenizer = Tokenizer::of(&kind, &[TEXT]).unwrap();
            let json = tokenizer.to_tokenizer_json().unwrap();
            assert_eq!(by_their_crate(&json, TEXT), tokenizer.encode(TEXT).unwrap(), "{kind:?}");
        }
    }

    #[test]
    fn the_lists_have_every_token_and_its_merges() {
        let gpt2 = Tokenizer::Tiktoken(Tiktoken::Gpt2).lists().unwrap().unwrap();
        assert_eq!((gpt2.tokens.len(), gpt2.words, gpt2.whole_pieces), (50_257, Words::Gpt2, true));
        // "Ġt" is the first that was learnt.
        assert_eq!(gpt2.tokens[256].as_ref().unwrap().name, "\u{120}t");
        assert_eq!(gpt2.merges[0], "\u{120} t");
        assert!(gpt2.tokens[50_256].as_ref().unwrap().special);
        let own = Tokenizer::of(&TokenizerKind::Bpe(300), &[TEXT]).unwrap();
        let lists = own.lists().unwrap().unwrap();
        assert_eq!((lists.tokens.len(), lists.words, lists.whole_pieces), (own.vocab_size(), Words::Gpt2, false));
        assert!(lists.tokens[0].as_ref().unwrap().special);
        assert!(Tokenizer::Byte.lists().unwrap().is_none());
    }
}
