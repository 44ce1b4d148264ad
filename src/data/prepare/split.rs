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

/// Numbers that a document may have.
const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

/// The number that a document with this text is chosen by: the first 8 bytes of a SHA-256, so as good as drawn.
pub(super) fn number_of(text: &[u8]) -> u64 {
    let digest = Sha256::digest(text.get(..HASHED).unwrap_or(text));
    digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// A share, in two digits, that a document of this number falls into.
pub(super) fn share_with(number: u64) -> String {
    let share = (number as f64 / TWO_TO_64).max(1e-12);
    let decimals = (1.0 - share.log10().floor()).max(2.0);
    let unit = 10_f64.powf(-decimals);
    let above = ((share / unit).floor() + 1.0) * unit;
    format!("{:.*}", decimals as usize, above.min(0.99))
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

    /// The part that a document of this number is in.
    pub(super) fn of(number: u64, val_fraction: f64) -> Self {
        // 2^64 times the share; a cast keeps it in range.
        if number < (val_fraction * TWO_TO_64) as u64 { Self::Val } else { Self::Train }
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
        let numbers: Vec<u64> = (0..4000).map(|n| number_of(format!("{n}").as_bytes())).collect();
        let chosen = |share: f64| numbers.iter().filter(|number| Split::of(**number, share) == Split::Val).count();
        assert_eq!((chosen(0.0), chosen(0.1), chosen(0.5)), (0, 408, 2070));
        let long = "x".repeat(HASHED);
        assert_eq!(number_of(long.as_bytes()), number_of((long.clone() + "y").as_bytes()));
    }

    #[test]
    fn a_share_that_takes_a_document_is_told() {
        for (share, told) in [(0.137, "0.14"), (0.9, "0.91"), (0.00512, "0.0052"), (0.995, "0.99")] {
            assert_eq!(share_with((share * TWO_TO_64) as u64), told);
        }
    }
}
