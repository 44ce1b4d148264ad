//! GPT-NeoX and Pythia: their `config.json` says the model, and its tensors are those of `exchange::neox`.

use super::fit::{self, Shapes};
use super::{Found, Options, Take};
use crate::config::HEAD;
use crate::error::{Error, Result};
use crate::exchange::neox::{learnt, tensors};
use crate::exchange::neox_config::NeoxConfig;
use crate::exchange::piece::Piece;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

/// The file that says the model.
pub(super) const CONFIG: &str = "config.json";

/// The model that `config` says, of the tensors of these shapes.
///
/// # Errors
/// A configuration of a model that this program has not, other tensors than it says, and options that contradict it.
pub(super) fn model(path: &Path, config: &str, all: &Shapes, options: &Options) -> Result<Found> {
    let read = NeoxConfig::read(config).and_then(|config| config.model());
    let mut model = read.map_err(|cause| Error::input(format!("{}: {cause}", path.join(CONFIG).display())))?;
    options.check_heads(path, &model)?;
    model.seq_length = options.seq_length.unwrap_or(model.seq_length);
    let misfit = |what| Error::input(format!("{} has not the tensors that its {CONFIG} says: {what}", path.display()));
    fit::check_layers(model.num_layers, all).map_err(misfit)?;
    let mut assumed = Vec::new();
    // What its tensors are called in the file, by the name that they have here.
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    let mut found = Shapes::new();
    for (theirs, shape) in all {
        let Some(known) = learnt(theirs) else { continue };
        if known == HEAD && model.tie_word_embeddings {
            assumed.push(format!("{theirs} is left out: by its {CONFIG} the model's head is its embedding"));
            continue;
        }
        if let Some(other) = named.insert(known.clone(), theirs.clone()) {
            return Err(Error::input(format!("{} has both {other:?} and {theirs:?}, which are one", path.display())));
        }
        found.insert(known, shape.clone());
    }
    let tensors = tensors(&model);
    let expected = tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
    fit::check(&expected, &found).map_err(misfit)?;
    let takes = tensors.into_iter().flat_map(|tensor| takes(tensor, &named)).collect();
    Ok(Found { model, takes, form: "a GPT-NeoX of transformers".to_owned(), assumed })
}

/// How the parameters in a tensor are made of it.
fn takes(tensor: Piece, named: &BTreeMap<String, String>) -> Vec<(String, Take)> {
    let theirs = named.get(&tensor.name).cloned().unwrap_or_default();
    let tensor = Rc::new(tensor);
    let take = |name: &String| match tensor.parts.len() {
        1 => (name.clone(), Take::Whole(theirs.clone())),
        _ => (name.clone(), Take::Part(theirs.clone(), tensor.clone())),
    };
    tensor.parts.iter().map(take).collect()
}
