//! Which documents, or which part of a text, are validated on.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes of a document that its choice is made by: enough to tell documents apart, and the start of one that is larger than
/// memory.
pub(super) const HASHED: usize = 1 << 20;

/// How it is chosen what is validated on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ValBy {
    /// Each document by itself, by the SHA-256 of its text: more files move none.
    Documents,
    /// The end of the one text there is, as nanoGPT.
    End,
}

impl ValBy {
    /// The share that is validated on where none is given.
    pub(super) fn usual_fraction(self) -> f64 {
        match self {
            Self::Documents => 0.0005,
            Self::End => 0.1,
        }
    }

    /// Its name in the manifest.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::End => "end",
        }
    }
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Split {
    Train,
    Val,
}

impl Split {
    pub(super) const ALL: [Self; 2] = [Self::Train, Self::Val];

    /// The part that a document with this text is in.
    pub(super) fn of(text: &[u8], val_fraction: f64) -> Self {
        let digest = Sha256::digest(text.get(..HASHED).unwrap_or(text));
        let number = digest.iter().take(8).fold(0, |number: u64, &byte| number << 8 | u64::from(byte));
        // 2^64 times the share; a cast keeps it in range.
        if number < (val_fraction * 18_446_744_073_709_551_616.0) as u64 { Self::Val } else { Self::Train }
    }

    /// What the names of its shards begin with.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_only_the_text_counts() {
        let chosen =
            |share: f64| (0..4000).filter(|n| Split::of(format!("{n}").as_bytes(), share) == Split::Val).count();
        assert_eq!((chosen(0.0), chosen(0.1), chosen(0.5)), (0, 408, 2070));
        let long = "x".repeat(HASHED);
        assert_eq!(Split::of(long.as_bytes(), 0.3), Split::of((long.clone() + "y").as_bytes(), 0.3));
    }
}
