//! A `tokenizer.json` of Hugging Face, also one that was trained here.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Arc, OnceLock};

use super::added::Added;
use super::bpe::{ByteBpe, Merges};
use super::foreign::Foreign;
use super::level::ByteLevel;
use super::outline::{Merge, Model, Outline};
use super::pack::{self, Packed};
use super::split::Pattern;
use super::table::Table;
use super::training;
use crate::console::warn;
use crate::error::{Error, Result};

/// What every tokenizer here must give back: words, blanks, signs, digits, letters of other scripts, an emoji.
const PROBE: &str = "The quick, brown\tfox -- it's 1234567890!\n\n  Ünïcode: Ελλάδα, 東京; 😀 {x = [1]}\r\n";

/// A tokenizer of a file; cheap to clone. In JSON, the packed text of the file with its hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct FileTokenizer(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    text: String,
    sha256: String,
    rules: Rules,
    added: Added,
    table: Table,
    packed: OnceLock<Packed>,
}

/// What makes tokens.
#[derive(Debug)]
enum Rules {
    Level(Box<ByteLevel>),
    Foreign(Box<Foreign>),
}

impl PartialEq for FileTokenizer {
    fn eq(&self, other: &Self) -> bool {
        self.0.sha256 == other.0.sha256
    }
}

impl Eq for FileTokenizer {}

impl FileTokenizer {
    /// A byte-level BPE of at most `vocab_size` tokens, of which the first is the end of a text, for these texts, of which none
    /// need be in memory at once; what comes after 2 GiB is not looked at. The same texts in the same order give the same file.
    ///
    /// # Errors
    /// None of what a text can be.
    pub fn trained_on(vocab_size: usize, texts: impl Iterator<Item = String> + Send) -> Result<Self> {
        let trained = Self::parse(training::train(vocab_size, texts)?)?;
        let learnt = trained.vocab_size();
        if learnt < vocab_size {
            warn(format_args!(
                "the text is too short for {vocab_size} tokens: bpe:{vocab_size} has learnt {learnt}, and nothing is left to \
                 merge"
            ));
        }
        Ok(trained)
    }

    pub(super) fn parse(text: String) -> Result<Self> {
        let outline = Outline::read(&text)?;
        let table = table(&outline);
        let level = level(&outline);
        let rules = match level {
            Some(level) => Rules::Level(Box::new(level)),
            None => Rules::Foreign(Box::new(Foreign::read(&text)?)),
        };
        let (added, sha256) = (Added::new(outline.added)?, pack::sha256(&text));
        let made = Self(Arc::new(Parsed { text, sha256, rules, added, table, packed: OnceLock::new() }));
        made.gives_text_back()?;
        Ok(made)
    }

    /// Refuses a tokenizer that loses capitals, blanks or characters: what a model says with it is not what it read.
    fn gives_text_back(&self) -> Result<()> {
        let tokens = self.encode(PROBE, false)?;
        let bytes: Vec<u8> = tokens.iter().filter_map(|&token| self.bytes(token)).flatten().collect();
        let back = String::from_utf8_lossy(&bytes);
        // Sentencepiece puts a blank before a text.
        if back == PROBE || back.strip_prefix(' ') == Some(PROBE) {
            return Ok(());
        }
        let differs = |(a, b): (char, char)| a != b;
        let at = PROBE.chars().zip(back.chars()).position(differs).unwrap_or(0);
        let excerpt = |text: &str| text.chars().skip(at).take(12).collect::<String>();
        let (was, is) = (excerpt(PROBE), excerpt(&back));
        Err(Error::input(format!(
            "it does not give text back as it was: {was:?} comes back as {is:?}; use a byte-level or sentencepiece tokenizer, \
             which lose nothing"
        )))
    }

    /// Whether its words are those of a known pattern.
    pub(super) fn has_known_words(&self) -> bool {
        matches!(self.0.rules, Rules::Level(_))
    }

    /// That pattern.
    pub(super) fn pattern(&self) -> Option<Pattern> {
        match &self.0.rules {
            Rules::Level(level) => Some(level.bpe.pattern()),
            Rules::Foreign(_) => None,
        }
    }

    /// As [`Tokenizer::cuts_at_words`](super::Tokenizer::cuts_at_words). Added tokens with a space in them would be found over a
    /// cut.
    pub(super) fn cuts_at_words(&self) -> bool {
        self.has_known_words() && !self.0.added.has_spaces()
    }

    /// The file.
    pub(in crate::data) fn text(&self) -> &str {
        &self.0.text
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// One above its largest token.
    pub fn vocab_size(&self) -> usize {
        self.0.table.len()
    }

    /// The token that ends a text.
    pub fn end_of_text(&self) -> Option<u32> {
        self.0.added.end_of_text()
    }

    pub(super) fn is_special(&self, token: u32) -> bool {
        self.0.added.is_special(token)
    }

    pub(super) fn encode(&self, text: &str, allow_special: bool) -> Result<Vec<u32>> {
        match &self.0.rules {
            Rules::Level(level) => level.encode(text, &self.0.added, allow_special),
            Rules::Foreign(foreign) => foreign.encode(text, &self.0.text, allow_special),
        }
    }

    pub(super) fn bytes(&self, token: u32) -> Option<Vec<u8>> {
        self.0.table.get(token).map(<[u8]>::to_vec)
    }
}

impl TryFrom<Packed> for FileTokenizer {
    type Error = Error;

    fn try_from(packed: Packed) -> Result<Self> {
        let made = Self::parse(packed.text()?)?;
        // What is written again is what was read.
        let _ = made.0.packed.set(packed);
        Ok(made)
    }
}

impl From<FileTokenizer> for Packed {
    fn from(tokenizer: FileTokenizer) -> Self {
        tokenizer.0.packed.get_or_init(|| Self::of(&tokenizer.0.text)).clone()
    }
}

/// What every token stands for.
fn table(outline: &Outline) -> Table {
    let by_byte = is_byte_level(outline);
    let mut table = Table::default();
    for (name, id) in outline.tokens() {
        let bytes = if by_byte { bytes_of(name) } else { None };
        let byte = || outline.byte_fallback.then(|| named_byte(name)).flatten();
        match bytes.or_else(|| byte().map(|byte| vec![byte])) {
            Some(bytes) => table.set(id, &bytes),
            None if by_byte => table.set(id, name.as_bytes()),
            None => table.set(id, blanks(name).as_bytes()),
        }
    }
    for token in &outline.added {
        let is_text = !by_byte && !token.special;
        table.set(token.id, if is_text { blanks(&token.name) } else { token.name.clone() }.as_bytes());
    }
    table
}

/// Sentencepiece has a sign for a blank.
fn blanks(name: &str) -> String {
    name.replace('\u{2581}', " ")
}

/// Whether tokens are written in the alphabet of GPT-2, where every byte is a character.
fn is_byte_level(outline: &Outline) -> bool {
    let of = |rules: &Value| parts(rules).iter().any(|part| part["type"] == "ByteLevel");
    of(&outline.decoder) || of(&outline.pre_tokenizer) || of(&outline.normalizer)
}

/// The parts of rules that may be a sequence.
fn parts(rules: &Value) -> Vec<&Value> {
    let list = ["pretokenizers", "normalizers", "decoders"].into_iter().find_map(|key| rules[key].as_array());
    match list {
        Some(list) if rules["type"] == "Sequence" => list.iter().collect(),
        _ if rules.is_null() => Vec::new(),
        _ => vec![rules],
    }
}

/// The bytes of a token in the alphabet of GPT-2.
fn bytes_of(name: &str) -> Option<Vec<u8>> {
    name.chars().map(byte_of).collect()
}

/// The character of every byte in that alphabet.
pub(super) fn alphabet() -> [char; 256] {
    let mut all = [char::REPLACEMENT_CHARACTER; 256];
    for c in (0..324).filter_map(char::from_u32) {
        if let Some(place) = byte_of(c).and_then(|byte| all.get_mut(usize::from(byte))) {
            *place = c;
        }
    }
    all
}

/// Printable characters of Latin-1 stand for themselves, and the characters from 256 on for all other bytes in order.
fn byte_of(c: char) -> Option<u8> {
    let shown = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(c) {
        code @ 0..256 => u8::try_from(code).ok().filter(|&byte| shown(byte)),
        code @ 256..324 => (0..=u8::MAX).filter(|&byte| !shown(byte)).nth(code as usize - 256),
        _ => None,
    }
}

/// The byte that `<0x0A>` stands for.
fn named_byte(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

/// A byte-level BPE with one of the known patterns, which is faster by hand than by the crate, and never gives up.
fn level(outline: &Outline) -> Option<ByteLevel> {
    let Model::Bpe { vocab, merges, whole_pieces, plain: true } = &outline.model else { return None };
    let composes = match parts(&outline.normalizer).as_slice() {
        [] => false,
        [one] if one["type"] == "NFC" => true,
        _ => return None,
    };
    let is_plain = |part: &Value, splits: bool| {
        part["type"] == "ByteLevel"
            && part["add_prefix_space"] == false
            && part["use_regex"].as_bool().unwrap_or(true) == splits
    };
    let pattern = match parts(&outline.pre_tokenizer).as_slice() {
        [level] if is_plain(level, true) => Pattern::Gpt2,
        [split, level] if is_plain(level, false) && split["type"] == "Split" => {
            let isolated = split["behavior"] == "Isolated" && split["invert"] == false;
            Pattern::named(split["pattern"]["Regex"].as_str()?).filter(|_| isolated)?
        }
        _ => return None,
    };
    if outline.trims {
        return None;
    }
    let tokens = vocab.iter().filter_map(|(name, &id)| Some((bytes_of(name)?.into_boxed_slice(), id))).collect();
    let pair = |(rank, Merge(first, second)): (u32, &Merge)| {
        let made = format!("{first}{second}");
        Some(((*vocab.get(first)?, *vocab.get(second)?), (rank, *vocab.get(&made)?)))
    };
    // Of a pair that is there twice, the last counts, as in the crate.
    let pairs: FxHashMap<_, _> = (0..).zip(merges).filter_map(pair).collect();
    let bpe = ByteBpe::new(tokens, Merges::Listed(pairs), *whole_pieces, pattern)?;
    Some(ByteLevel { bpe, composes })
}
