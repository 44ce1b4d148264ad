//! Byte-level BPE with the ranks of OpenAI, which are part of the program.
//!
//! Source: the tables and patterns of `tiktoken_ext/openai_public.py` of tiktoken. The crate gives the ranks only: its patterns
//! give up on a text of a million spaces, and take most of the time.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;
use tiktoken_rs::{CoreBPE, cl100k_base, o200k_base, r50k_base};

use super::added::{Added, AddedToken};
use super::bpe::{ByteBpe, Merges};
use super::level::ByteLevel;
use super::split::Pattern;
use super::table::Table;
use crate::error::{Error, Result};

/// Which ranks; in JSON with the SHA-256 of them, so that a program with others refuses a model of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub enum Tiktoken {
    /// `r50k_base`, of GPT-2.
    Gpt2,
    /// `cl100k_base`, of GPT-3.5 and GPT-4.
    Cl100k,
    /// `o200k_base`, of GPT-4o.
    O200k,
}

/// How it is written.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    sha256: String,
}

struct Loaded {
    level: ByteLevel,
    added: Added,
    table: Table,
}

type Ready = LazyLock<Result<Loaded>>;

impl Tiktoken {
    /// All of them.
    const ALL: [Self; 3] = [Self::Gpt2, Self::Cl100k, Self::O200k];

    /// As settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt2",
            Self::Cl100k => "cl100k",
            Self::O200k => "o200k",
        }
    }

    /// SHA-256 of the ranks as OpenAI publishes them, in hexadecimal.
    pub fn sha256(self) -> &'static str {
        match self {
            Self::Gpt2 => "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
            Self::Cl100k => "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
            Self::O200k => "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        }
    }

    /// One above its largest token, `n_vocab` of tiktoken.
    pub fn vocab_size(self) -> usize {
        match self {
            Self::Gpt2 => 50_257,
            Self::Cl100k => 100_277,
            Self::O200k => 200_019,
        }
    }

    /// `<|endoftext|>`.
    pub fn end_of_text(self) -> u32 {
        match self {
            Self::Gpt2 => 50_256,
            Self::Cl100k => 100_257,
            Self::O200k => 199_999,
        }
    }

    fn special(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::Gpt2 => &[("<|endoftext|>", 50_256)],
            Self::Cl100k => &[
                ("<|endoftext|>", 100_257),
                ("<|fim_prefix|>", 100_258),
                ("<|fim_middle|>", 100_259),
                ("<|fim_suffix|>", 100_260),
                ("<|endofprompt|>", 100_276),
            ],
            Self::O200k => &[("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)],
        }
    }

    fn pattern(self) -> Pattern {
        match self {
            Self::Gpt2 => Pattern::Gpt2,
            Self::Cl100k => Pattern::Cl100k,
            Self::O200k => Pattern::O200k,
        }
    }

    fn ready(self) -> Result<&'static Loaded> {
        static GPT2: Ready = LazyLock::new(|| Tiktoken::Gpt2.load());
        static CL100K: Ready = LazyLock::new(|| Tiktoken::Cl100k.load());
        static O200K: Ready = LazyLock::new(|| Tiktoken::O200k.load());
        let ready = match self {
            Self::Gpt2 => &GPT2,
            Self::Cl100k => &CL100K,
            Self::O200k => &O200K,
        };
        ready.as_ref().map_err(Clone::clone)
    }

    fn ranks(self) -> Result<CoreBPE> {
        let ranks = match self {
            Self::Gpt2 => r50k_base(),
            Self::Cl100k => cl100k_base(),
            Self::O200k => o200k_base(),
        };
        ranks.map_err(|e| Error::defect(format!("the ranks of {} cannot be read: {e}", self.name())))
    }

    fn load(self) -> Result<Loaded> {
        let ranks = self.ranks()?;
        let (mut tokens, mut table) = (FxHashMap::default(), Table::default());
        // Ranks have no holes; special tokens come after them.
        for id in 0.. {
            let Ok(bytes) = ranks.decode_bytes(&[id]) else { break };
            if self.special().iter().any(|&(_, special)| special == id) {
                break;
            }
            table.set(id, &bytes);
            tokens.insert(bytes.into_boxed_slice(), id);
        }
        let special = self.special().iter();
        let added: Vec<AddedToken> =
            special.map(|&(name, id)| AddedToken { id, name: name.to_owned(), special: true, raw: true }).collect();
        added.iter().for_each(|token| table.set(token.id, token.name.as_bytes()));
        let bpe = ByteBpe::new(tokens, Merges::Ranks, true, self.pattern())
            .ok_or_else(|| Error::defect(format!("the ranks of {} lack a byte", self.name())))?;
        Ok(Loaded { level: ByteLevel { bpe, composes: false }, added: Added::new(added)?, table })
    }

    pub(super) fn encode(self, text: &str, allow_special: bool) -> Result<Vec<u32>> {
        let ready = self.ready()?;
        ready.level.encode(text, &ready.added, allow_special)
    }

    pub(super) fn bytes(self, token: u32) -> Option<Vec<u8>> {
        self.ready().ok()?.table.get(token).map(<[u8]>::to_vec)
    }

    /// The token of these bytes, which is its rank; special ones have none.
    pub(super) fn rank(self, bytes: &[u8]) -> Option<u32> {
        self.ready().ok()?.level.bpe.token(bytes)
    }

    pub(super) fn is_special(self, token: u32) -> bool {
        self.special().iter().any(|&(_, id)| id == token)
    }
}

impl TryFrom<Stored> for Tiktoken {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self> {
        let Stored { name, sha256 } = stored;
        let Some(known) = Self::ALL.into_iter().find(|known| known.name() == name) else {
            return Err(Error::input(format!(
                "the tokenizer {name:?} is none that this program has: use a newer version of it"
            )));
        };
        if known.sha256() != sha256 {
            return Err(Error::input(format!(
                "the tokenizer {name} has ranks with the SHA-256 {sha256:?}, but this program has those with {}: use the \
                 version that wrote the file",
                known.sha256()
            )));
        }
        Ok(known)
    }
}

impl From<Tiktoken> for Stored {
    fn from(tokenizer: Tiktoken) -> Self {
        Self { name: tokenizer.name().to_owned(), sha256: tokenizer.sha256().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::number::hexadecimal;
    use base64::Engine;
    use sha2::{Digest, Sha256};

    #[test]
    fn ranks_are_those_of_openai() {
        for tokenizer in Tiktoken::ALL {
            let ranks = tokenizer.ranks().unwrap();
            let mut hash = Sha256::new();
            for id in (0..).take_while(|&id| !tokenizer.is_special(id)) {
                let Ok(bytes) = ranks.decode_bytes(&[id]) else { break };
                let token = base64::engine::general_purpose::STANDARD.encode(bytes);
                hash.update(format!("{token} {id}\n"));
            }
            assert_eq!(hexadecimal(&hash.finalize()), tokenizer.sha256(), "{}", tokenizer.name());
        }
    }

    #[test]
    fn names_of_special_tokens_are_text_unless_allowed() {
        let gpt2 = Tiktoken::Gpt2;
        assert_eq!(gpt2.encode("Hello world<|endoftext|>", true).unwrap(), [15496, 995, 50256]);
        assert_eq!(gpt2.encode("<|endoftext|>", false).unwrap(), [27, 91, 437, 1659, 5239, 91, 29]);
        assert_eq!(gpt2.bytes(50256).unwrap(), b"<|endoftext|>");
        assert_eq!((gpt2.bytes(50257), gpt2.bytes(u32::MAX)), (None, None));
    }

    #[test]
    fn other_ranks_are_refused() {
        let json = serde_json::to_string(&Tiktoken::Gpt2).unwrap();
        assert_eq!(serde_json::from_str::<Tiktoken>(&json).unwrap(), Tiktoken::Gpt2);
        let other = serde_json::from_str::<Tiktoken>(&json.replace("306cd2", "306cd3")).unwrap_err().to_string();
        assert!(other.contains("306cd3") && other.contains("306cd2") && other.contains("gpt2"), "{other}");
        let unknown = serde_json::from_str::<Tiktoken>(&json.replace("gpt2", "gpt9")).unwrap_err().to_string();
        assert!(unknown.contains("\"gpt9\" is none that this program has"), "{unknown}");
    }
}
