//! What is said where a model is measured on other data than its run knew.

use crate::console::warn;
use crate::data::TokenSource;
use crate::error::Result;
use crate::train::DataPosition;
use clap::ValueEnum;
use std::fmt::{self, Display, Formatter};

/// Part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Split {
    /// What the model was trained on.
    Train,
    /// What it was not.
    Val,
}

/// Whether the tokens of `source`, which is called `measured`, are others than those of that part of the run's data, which
/// is said; `None` where these are not known.
pub(super) fn tell_of_change(
    known: &DataPosition,
    source: &TokenSource,
    split: Split,
    measured: &str,
) -> Result<Option<bool>> {
    let Some(fingerprint) = known.fingerprint.as_ref() else { return Ok(None) };
    let part = if split == Split::Train { &fingerprint.train } else { &fingerprint.val };
    let difference = part.difference(&source.contents()?);
    if let Some(changed) = &difference {
        warn(format_args!(
            "{measured} is not what the run knew as its {split} split, the {}: it {changed}, so this loss is of other text",
            known.description
        ));
    }
    Ok(Some(difference.is_some()))
}

impl Display for Split {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Train { "training" } else { "validation" })
    }
}
