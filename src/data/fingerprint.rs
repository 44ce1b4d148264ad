//! What a data set is, told by its contents: its parts and its tokenizer.

use serde::{Deserialize, Serialize};

use super::contents::Contents;
use super::source::Part;
use super::{Dataset, TokenSource, Tokenizer};
use crate::error::Result;

/// All that the losses of a run depend on in its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// What is trained on.
    pub train: Contents,
    /// What is validated on.
    pub val: Contents,
    /// What is validated on of the data that the model knew before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_val: Option<Contents>,
    /// SHA-256 of the tokenizer; `None` for shards, whose tokenizer is not known.
    pub tokenizer: Option<String>,
    /// Where rows are drawn from several sources, what is of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Share>,
}

/// One of several sources, which lie one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Its tokens that are trained on.
    pub tokens: u64,
    /// Its tokens that are validated on.
    pub val_tokens: u64,
    /// Share of rows that are drawn from it.
    pub share: f64,
}

impl Fingerprint {
    /// Of `data`.
    ///
    /// # Errors
    /// A token of a shard outside its vocabulary.
    pub fn of(data: &Dataset) -> Result<Self> {
        let tokenizer = data.tokenizer.as_ref().map(Tokenizer::sha256).transpose()?;
        let parts = data.train.parts().iter().zip(data.val.parts());
        let share = |(train, val): (&Part, &Part)| Share {
            tokens: train.len as u64,
            val_tokens: val.len as u64,
            share: train.share,
        };
        let sources = parts.map(share).collect();
        let old_val = data.old_val.as_ref().map(TokenSource::contents).transpose()?;
        Ok(Self { train: data.train.contents()?, val: data.val.contents()?, old_val, tokenizer, sources })
    }

    /// Whether training on `other` is training on the same tokens, validated on the same ones.
    pub fn same_data(&self, other: &Self) -> bool {
        let of = |data: &Self| (data.train.clone(), data.val.clone(), data.tokenizer.clone(), data.sources.clone());
        of(self) == of(other)
    }

    /// Tokens of all that is trained or validated on.
    pub(crate) fn tokens(&self) -> u64 {
        self.train.tokens.saturating_add(self.val.tokens)
    }

    /// What `now` has otherwise, in words. Old data count where both have some: whether there are any is a setting.
    pub fn difference(&self, now: &Self) -> Option<String> {
        let parts = [
            ("training part", Some(&self.train), Some(&now.train)),
            ("validation part", Some(&self.val), Some(&now.val)),
            ("old data", self.old_val.as_ref(), now.old_val.as_ref()),
        ];
        let mut changed: Vec<String> = parts
            .into_iter()
            .filter_map(|(name, before, now)| Some((name, before?, now?)))
            .filter_map(|(name, before, now)| Some(format!("the {name} {}", before.difference(now)?)))
            .collect();
        if self.tokenizer != now.tokenizer {
            changed.push("the tokenizer is another".to_owned());
        }
        if self.sources != now.sources {
            let shares = |data: &Self| match &data.sources[..] {
                [] => "one source".to_owned(),
                sources => {
                    let shares: Vec<String> =
                        sources.iter().map(|of| format!("{} %", (of.share * 1000.0).round() / 10.0)).collect();
                    format!("sources of {}", shares.join(", "))
                }
            };
            changed.push(format!("rows were drawn from {} and are drawn from {}", shares(self), shares(now)));
        }
        (!changed.is_empty()).then(|| changed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{TokenizerKind, builtin};

    #[test]
    fn text_split_and_tokenizer_tell_data_apart() {
        let of = |seed, kind: TokenizerKind, val_fraction| {
            Fingerprint::of(&builtin(seed, 200, &kind, val_fraction).unwrap()).unwrap()
        };
        let first = of(1, TokenizerKind::Char, 0.1);
        assert!(first.same_data(&of(1, TokenizerKind::Char, 0.1)));
        for other in [of(2, TokenizerKind::Char, 0.1), of(1, TokenizerKind::Byte, 0.1), of(1, TokenizerKind::Char, 0.2)]
        {
            assert!(!first.same_data(&other) && first.difference(&other).is_some());
        }
        let said = first.difference(&of(1, TokenizerKind::Char, 0.2)).unwrap();
        assert!(said.contains("the validation part had ") && !said.contains("tokenizer"), "{said}");
        let json = serde_json::to_string(&first).unwrap();
        assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), first);
    }
}
