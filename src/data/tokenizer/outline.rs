//! The parts of a `tokenizer.json`, read strictly: what is huge or of a wrong type is refused before anything is made of it.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::added::AddedToken;
use crate::error::{Error, Result};

/// Most bytes of a part that says how and not what; a table of characters in one takes a few hundred thousand.
const MAX_RULES: usize = 2 << 20;
/// Every token is below it.
const MAX_TOKENS: u32 = 1 << 22;

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default)]
    added_tokens: Option<Vec<AddedJson>>,
    #[serde(borrow, default)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    decoder: Option<&'a RawValue>,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct AddedJson {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct BpeJson {
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    vocab: FxHashMap<String, u32>,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
struct UnigramJson {
    #[serde(default)]
    unk_id: Option<usize>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    vocab: Vec<(String, f64)>,
}

/// Two tokens that become one.
pub(super) struct Merge(pub(super) String, pub(super) String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Merge;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a merge: two tokens, or both in a text with a blank between them")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
                let pair = text.split_once(' ').filter(|(_, second)| !second.contains(' '));
                let (first, second) = pair.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))?;
                Ok(Merge(first.to_owned(), second.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
                let missing = |at| serde::de::Error::invalid_length(at, &"a merge of two tokens");
                let first = list.next_element()?.ok_or_else(|| missing(0))?;
                let second = list.next_element()?.ok_or_else(|| missing(1))?;
                match list.next_element::<serde::de::IgnoredAny>()? {
                    Some(_) => Err(missing(3)),
                    None => Ok(Merge(first, second)),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// How text becomes tokens.
pub(super) enum Model {
    Bpe {
        vocab: FxHashMap<String, u32>,
        merges: Vec<Merge>,
        /// Whether a piece that is a token is that token.
        whole_pieces: bool,
        /// Whether nothing marks the beginning or the end of a word, and nothing is left to chance.
        plain: bool,
    },
    Unigram(Vec<String>),
}

/// What a `tokenizer.json` says.
pub(super) struct Outline {
    pub(super) model: Model,
    pub(super) added: Vec<AddedToken>,
    /// Whether an added token takes the blanks around it, or is a word only.
    pub(super) trims: bool,
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    /// Whether bytes that no token has are written `<0x0A>`.
    pub(super) byte_fallback: bool,
}

impl Outline {
    pub(super) fn read(text: &str) -> Result<Self> {
        let file: File = serde_json::from_str(text).map_err(|e| no_tokenizer(&e))?;
        let (normalizer, pre_tokenizer) =
            (rules("normalizer", file.normalizer)?, rules("pre_tokenizer", file.pre_tokenizer)?);
        // Written again, it has no escapes that hide a name.
        if normalizer.to_string().contains("\"Precompiled\"") {
            return Err(Error::input(
                "its normalizer is Precompiled, a table that replaces characters, so text does not come back as it was: use a \
                 byte-level or sentencepiece tokenizer without it",
            ));
        }
        let decoder = rules("decoder", file.decoder)?;
        let (model, byte_fallback) = model(file.model)?;
        let (mut added, mut trims) = (Vec::new(), false);
        for token in file.added_tokens.into_iter().flatten().filter(|token| !token.content.is_empty()) {
            trims |= token.single_word || token.lstrip || token.rstrip;
            let AddedJson { id, content: name, special, normalized, .. } = token;
            added.push(AddedToken { id, name, special, raw: !normalized });
        }
        let outline = Self { model, added, trims, normalizer, pre_tokenizer, decoder, byte_fallback };
        outline.check()?;
        Ok(outline)
    }

    /// Every token of the model and its name.
    pub(super) fn tokens(&self) -> Box<dyn Iterator<Item = (&str, u32)> + '_> {
        match &self.model {
            Model::Bpe { vocab, .. } => Box::new(vocab.iter().map(|(name, &id)| (name.as_str(), id))),
            Model::Unigram(vocab) => Box::new(vocab.iter().map(String::as_str).zip(0..)),
        }
    }

    /// The names of a vocabulary are all different, and so are its tokens.
    fn check(&self) -> Result<()> {
        let mut seen = FxHashSet::default();
        for (name, id) in self.tokens() {
            if id >= MAX_TOKENS {
                return Err(Error::input(format!(
                    "its token {name:?} is {id}, but tokens go up to {}",
                    MAX_TOKENS - 1
                )));
            }
            if !seen.insert(id) {
                return Err(Error::input(format!("its vocabulary has the token {id} twice, one of them {name:?}")));
            }
        }
        if seen.is_empty() {
            return Err(Error::input("its vocabulary is empty"));
        }
        // Tokens that are not in the vocabulary come after it, whatever they say: so every other reader has them.
        let mut known: FxHashMap<&str, u32> = self.tokens().collect();
        let mut next = u32::try_from(known.len()).unwrap_or(MAX_TOKENS);
        for AddedToken { id, name, .. } in &self.added {
            let meant = known.get(name.as_str()).copied().unwrap_or(next);
            if *id != meant || meant >= MAX_TOKENS {
                return Err(Error::input(format!(
                    "its added token {name:?} is {id}, but by its place it is {meant}: the file is damaged"
                )));
            }
            if known.insert(name, meant).is_none() {
                next += 1;
            }
        }
        Ok(())
    }
}

fn no_tokenizer(cause: &serde_json::Error) -> Error {
    Error::input(format!("this is no tokenizer.json: {cause}"))
}

fn rules(name: &str, raw: Option<&RawValue>) -> Result<Value> {
    let Some(raw) = raw else { return Ok(Value::Null) };
    let len = raw.get().len();
    if len > MAX_RULES {
        return Err(Error::input(format!("its {name} is {len} bytes long, but at most {MAX_RULES} are read")));
    }
    serde_json::from_str(raw.get()).map_err(|e| no_tokenizer(&e))
}

fn model(raw: &RawValue) -> Result<(Model, bool)> {
    let Kind { kind } = serde_json::from_str(raw.get()).map_err(|e| no_tokenizer(&e))?;
    match kind.as_deref() {
        // Old files do not say it.
        Some("BPE") | None => {
            let bpe: BpeJson = serde_json::from_str(raw.get()).map_err(|e| no_tokenizer(&e))?;
            let empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
            let prefix = bpe.continuing_subword_prefix.clone().unwrap_or_default();
            for (at, Merge(first, second)) in bpe.merges.iter().enumerate() {
                let rest = second.strip_prefix(&prefix);
                let made = rest.map(|rest| format!("{first}{rest}"));
                let all = [Some(first), Some(second), made.as_ref()];
                if let Some(missing) = all.iter().find(|name| !name.is_some_and(|name| bpe.vocab.contains_key(name))) {
                    let missing = missing.map_or(second, |name| name);
                    return Err(Error::input(format!(
                        "merge {at} of {first:?} and {second:?} needs {missing:?}, which is no token of its vocabulary"
                    )));
                }
            }
            let chance = bpe.dropout.unwrap_or(0.0);
            if chance != 0.0 {
                return Err(Error::input(format!(
                    "its dropout is {chance}, so that a text becomes other tokens every time: set it to null in the file"
                )));
            }
            let plain = empty(&bpe.continuing_subword_prefix) && empty(&bpe.end_of_word_suffix);
            let (vocab, merges, whole_pieces) = (bpe.vocab, bpe.merges, bpe.ignore_merges.unwrap_or(false));
            Ok((Model::Bpe { vocab, merges, whole_pieces, plain }, bpe.byte_fallback.unwrap_or(false)))
        }
        Some("Unigram") => {
            let unigram: UnigramJson = serde_json::from_str(raw.get()).map_err(|e| no_tokenizer(&e))?;
            let (tokens, unknown) = (unigram.vocab.len(), unigram.unk_id.unwrap_or(0));
            if unknown >= tokens.max(1) {
                return Err(Error::input(format!("its unk_id is {unknown}, but it has {tokens} tokens")));
            }
            if let Some((name, score)) = unigram.vocab.iter().find(|(_, score)| !score.is_finite()) {
                return Err(Error::input(format!("its token {name:?} has the score {score}, which is no number")));
            }
            let fallback = unigram.byte_fallback.unwrap_or(false);
            Ok((Model::Unigram(unigram.vocab.into_iter().map(|(name, _)| name).collect()), fallback))
        }
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(Error::input(format!(
                "its model is {other:?}, which does not give text back as it was: use one of BPE or Unigram"
            )))
        }
    }
}
