//! What a run reads. Files are opened by `data`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{TokenizerKind, fraction, in_range, require};
use crate::error::Result;

/// Most data sets that are mixed.
const MOST_SOURCES: usize = 64;
/// The smallest weight, and one over the largest: their sum stays a number.
const LEAST_WEIGHT: f64 = 1e-9;

/// What a run reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataConfig {
    /// Training text (UTF-8), token shards (`.bin`: a file, a pattern, `A,B` or a directory) or a prepared directory; absent is
    /// the built-in corpus.
    pub path: Option<PathBuf>,
    /// Validation data, named likewise; absent takes those of the directory, or splits `val_fraction` off the end of the
    /// training data.
    pub val_path: Option<PathBuf>,
    /// Several data sets in place of `path`: each row of a batch draws one by its weight, then a window in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<DataSource>,
    /// What the model knew before: the loss on its last `val_fraction` is reported beside the other.
    pub old_path: Option<PathBuf>,
    /// How text becomes tokens, and what made the tokens of shards; absent is the tokenizer of a prepared directory, or `char`
    /// for text.
    pub tokenizer: Option<TokenizerKind>,
    /// Share of the data held back for validation.
    pub val_fraction: f64,
    /// Sentences of the built-in corpus.
    pub corpus_sentences: usize,
    /// Seed of the built-in corpus; absent is the seed of the run. Runs of several seeds on one corpus set it.
    pub corpus_seed: Option<u64>,
}

/// One of several data sets that a run trains on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataSource {
    /// What `data.path` may be.
    pub path: PathBuf,
    /// How often rows are drawn from it, beside the weights of the others.
    #[serde(default = "usual_weight")]
    pub weight: f64,
}

fn usual_weight() -> f64 {
    1.0
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            path: None,
            val_path: None,
            sources: Vec::new(),
            old_path: None,
            tokenizer: None,
            val_fraction: 0.1,
            corpus_sentences: 20_000,
            corpus_seed: None,
        }
    }
}

impl DataConfig {
    /// What makes tokens of a text.
    pub fn text_tokenizer(&self) -> &TokenizerKind {
        self.tokenizer.as_ref().unwrap_or(&TokenizerKind::Char)
    }

    /// Whether it is the built-in corpus.
    pub fn is_builtin(&self) -> bool {
        self.path.is_none() && self.sources.is_empty()
    }

    /// Names what is trained on in place of all that was named.
    pub fn name(&mut self, path: Option<PathBuf>, val_path: Option<PathBuf>) {
        (self.path, self.val_path, self.sources) = (path, val_path, Vec::new());
    }

    /// Checks the settings, not the files.
    ///
    /// # Errors
    /// A usage error naming the setting, its value, the limit and the remedy.
    pub fn validate(&self) -> Result<()> {
        require(self.path.is_none() || self.sources.is_empty(), || {
            "data.path and data.sources are both set, but a run trains on one of them: drop one with --set data.path=none or \
             --set data.sources=none"
                .to_owned()
        })?;
        let count = self.sources.len();
        require(count <= MOST_SOURCES, || {
            format!(
                "data.sources has {count} entries, but at most {MOST_SOURCES} are mixed: put those of one weight together"
            )
        })?;
        for DataSource { path, weight } in &self.sources {
            let name = || format!("the weight of {} in data.sources", path.display());
            require(!path.as_os_str().is_empty(), || "an entry of data.sources has no path: name its data".to_owned())?;
            require((LEAST_WEIGHT..=1.0 / LEAST_WEIGHT).contains(weight), || {
                format!("{} is {weight}, but must be between {LEAST_WEIGHT:e} and {:e}", name(), 1.0 / LEAST_WEIGHT)
            })?;
        }
        require(self.path.is_some() || self.val_path.is_none(), || {
            "val_path is set but path is not: give the training data a path too, or drop val_path".to_owned()
        })?;
        in_range("corpus_sentences", self.corpus_sentences, 1, 10_000_000)?;
        let seed = self.corpus_seed.unwrap_or(0);
        require(i64::try_from(seed).is_ok(), || {
            format!("corpus_seed is {seed}, but a seed in a file is at most {}: choose a smaller one", i64::MAX)
        })?;
        let share = self.val_fraction;
        // Also where it goes unused: a NaN would not survive the checkpoint's JSON.
        fraction("val_fraction", share)?;
        require(self.old_path.is_none() || (share > 0.0 && share < 1.0), || {
            format!(
                "val_fraction is {share}, but must be above 0 and below 1 to validate on a part of old_path: use 0.1"
            )
        })?;
        require(self.val_path.is_some() || (share > 0.0 && share < 1.0), || {
            format!("val_fraction is {share}, but must be above 0 and below 1: use 0.1, or set val_path")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_data_come_from_somewhere() {
        assert!(DataConfig { val_fraction: 0.0, ..DataConfig::default() }.validate().is_err());
        let split = DataConfig {
            path: Some("a".into()),
            val_path: Some("b".into()),
            val_fraction: 0.0,
            ..DataConfig::default()
        };
        assert!(split.validate().is_ok());
        assert!(DataConfig { old_path: Some("c".into()), ..split.clone() }.validate().is_err());
        assert!(DataConfig { path: None, ..split }.validate().is_err());
    }

    #[test]
    fn sources_stand_in_for_a_path_and_have_weights() {
        let source = |weight| DataSource { path: "a".into(), weight };
        let of = |sources| DataConfig { sources, ..DataConfig::default() };
        assert_eq!(of(vec![source(0.3), source(2.0)]).validate(), Ok(()));
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let said = of(vec![source(weight)]).validate().unwrap_err().to_string();
            assert!(said.contains("the weight of a in data.sources is"), "{said}");
        }
        assert!(of(vec![source(1.0); 65]).validate().is_err());
        let both = DataConfig { path: Some("b".into()), ..of(vec![source(1.0)]) };
        assert!(both.validate().unwrap_err().to_string().contains("--set data.path=none"));
        let read: DataSource = toml::from_str("path = 'x'").unwrap();
        assert_eq!(read.weight, 1.0);
    }
}
