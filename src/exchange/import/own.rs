//! Checkpoints of this program that another one changed: other values, another type, stale checksums.

use super::fit::{self, Shapes};
use super::{Found, Options, Take};
use crate::config::RunConfig;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::train::Meta;
use crate::train::growth::GrowthRecord;
use std::path::Path;

/// How the names of an optimizer's tensors begin.
const OPTIMIZER: &str = "optimizer.";

/// The model that `meta` says, with the tokenizer and the growths that it says.
///
/// # Errors
/// A configuration of another model than the tensors, and options that contradict it.
pub(super) fn model(
    path: &Path,
    meta: &Meta,
    all: &Shapes,
    options: &Options,
) -> Result<(Found, Option<Tokenizer>, Vec<GrowthRecord>)> {
    let within = |cause: Error| Error::input(format!("{}: {cause}", path.display()));
    let config: RunConfig = meta.config().map_err(within)?;
    let mut model = config.model;
    model.validate().map_err(within)?;
    options.check_heads(path, &model)?;
    model.seq_length = options.seq_length.unwrap_or(model.seq_length);
    let found: Shapes =
        all.iter().filter(|(name, _)| !name.starts_with(OPTIMIZER)).map(|(n, s)| (n.clone(), s.clone())).collect();
    fit::check(&model.param_shapes().into_iter().collect(), &found)
        .map_err(|what| within(Error::input(format!("its configuration is of another model: {what}"))))?;
    let takes = found.into_keys().map(|name| (name.clone(), Take::Whole(name))).collect();
    let assumed = vec![format!(
        "taken as it is, without a look at its checksums; the {} steps that it says it was trained are behind it, and training \
         starts anew",
        meta.step
    )];
    let found = Found { model, takes, form: format!("a checkpoint of {}", meta.created_by), assumed };
    Ok((found, meta.tokenizer().map_err(within)?, meta.lineage.clone()))
}
