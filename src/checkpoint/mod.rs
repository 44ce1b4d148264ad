//! A training run on disk: what a checkpoint holds, how it becomes one safetensors file, where it is kept.
//!
//! [`Checkpoint`] is the value: parameters, AdamW moments and the [`Metadata`] with everything else a run needs to continue
//! as if it had never stopped. `format` turns it into bytes with checksums, `read` back again, [`Store`] keeps a run's
//! checkpoints safely in its directory, and [`RunLock`] keeps other writers out of it. All that is written goes through
//! [`Storage`]. Any Python user can open the files with `safetensors.safe_open`. This module does not know the GPU, the model
//! or the training loop: what a run says of itself is a type parameter here, written and read as JSON. The program's own is
//! [`crate::train::Meta`].

mod checksum;
mod digest;
mod format;
mod load;
mod lock;
mod made;
mod names;
pub(crate) mod number;
mod read;
mod size;
mod storage;
mod store;
mod weights;

pub use digest::FileDigest;
pub(crate) use load::read_strings;
pub use load::{Examined, Opened, examine, list_tensors, read_meta, verify};
pub(crate) use load::{Outline, outline};
pub(crate) use lock::{RunLock, check_lock, check_unlocked};
pub(crate) use made::write_made;
pub use read::{Checks, TensorEntry, Verified};
pub(crate) use storage::create_dirs;
pub use storage::{Files, Sink, Source, Storage, replace};
pub use store::{Keep, Latest, Store};
pub use weights::Weights;

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::array::HostTensor;

/// The version of the file format written by this crate. It also reads version 1, which has no checksums.
pub(crate) const FORMAT: u32 = 2;

/// Tensors by name.
type Tensors = BTreeMap<String, HostTensor>;

/// What a run says of itself in a checkpoint: all of it that is not a tensor.
///
/// Its JSON, with `"format"` before its own fields, is the `tokenformer` entry of the file's metadata.
pub trait Metadata: Serialize + DeserializeOwned {
    /// Optimizer updates done: what the checkpoint is numbered by.
    fn step(&self) -> u64;

    /// Whether it agrees with the parameters that it is stored with.
    ///
    /// # Errors
    /// What does not, as a clause: it reads on from "the checkpoint contradicts itself: ".
    fn check(&self, params: &BTreeMap<String, HostTensor>) -> Result<(), String>;
}

/// Everything a run needs to continue, or a model needs to be used.
///
/// ```no_run
/// use std::path::Path;
/// use tokenformer::train::Checkpoint; // with what a run of this program says of itself
///
/// // Compared with its checksums first; damage is an error that names the place.
/// let checkpoint = Checkpoint::read(Path::new("grown.safetensors"))?;
/// let embedding = &checkpoint.params["word_embeddings.weight"];
/// println!("step {}, embedding {:?}, grown {} times", checkpoint.meta.step, embedding.shape, checkpoint.meta.lineage.len());
/// # Ok::<(), tokenformer::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint<M> {
    /// What the run was and where it stood.
    pub meta: M,
    /// Parameters by name.
    pub params: BTreeMap<String, HostTensor>,
    /// AdamW's first moments, one for every parameter; empty in a weights-only file.
    pub moment1: BTreeMap<String, HostTensor>,
    /// AdamW's second moments, one for every parameter; empty in a weights-only file.
    pub moment2: BTreeMap<String, HostTensor>,
    /// Moving averages of the parameters, one for every parameter; empty where the run keeps none.
    pub averages: BTreeMap<String, HostTensor>,
}

impl<M: Metadata> Checkpoint<M> {
    /// Checks what the types cannot: sizes agree, moments match parameters, the metadata fits them.
    ///
    /// # Errors
    /// A clause naming what does not agree first; it reads on from "the checkpoint contradicts itself: ".
    fn check(&self) -> Result<(), String> {
        for (name, tensor) in self.params.iter().chain(&self.moment1).chain(&self.moment2).chain(&self.averages) {
            if tensor.shape.contains(&0) {
                return Err(format!("tensor {name:?} has shape {:?}; an axis of 0 is not allowed", tensor.shape));
            }
            if tensor.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(tensor.data.len()) {
                let (shape, held) = (&tensor.shape, tensor.data.len());
                return Err(format!("tensor {name:?} of shape {shape:?} holds {held} values"));
            }
        }
        if !(self.moment1.is_empty() && self.moment2.is_empty()) {
            same_shapes("first moments", &self.moment1, &self.params)?;
            same_shapes("second moments", &self.moment2, &self.params)?;
        }
        if !self.averages.is_empty() {
            same_shapes("averages", &self.averages, &self.params)?;
        }
        self.meta.check(&self.params)
    }
}

/// Refuses `moments` unless it has exactly the names and shapes of `params`.
fn same_shapes(what: &str, moments: &Tensors, params: &Tensors) -> Result<(), String> {
    for (name, param) in params {
        match moments.get(name) {
            None => return Err(format!("parameter {name:?} has no {what}")),
            Some(moment) if moment.shape != param.shape => {
                let (got, want) = (&moment.shape, &param.shape);
                return Err(format!("the {what} of {name:?} have shape {got:?}, the parameter has {want:?}"));
            }
            Some(_) => {}
        }
    }
    match moments.keys().find(|name| !params.contains_key(*name)) {
        Some(name) => Err(format!("there are {what} of {name:?}, which is not a parameter")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// What some run says of itself, with every kind of value that could be lost on the way.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct Said {
        pub step: u64,
        pub seed: u64,
        pub config: serde_json::Value,
        /// Of the tensor of this name, so many rows.
        pub rows: BTreeMap<String, u64>,
        #[serde(with = "number")]
        pub loss: f64,
    }

    impl Metadata for Said {
        fn step(&self) -> u64 {
            self.step
        }

        fn check(&self, params: &Tensors) -> Result<(), String> {
            let fits = |(name, rows): (&String, &u64)| params.get(name).is_some_and(|t| t.rows() as u64 >= *rows);
            if self.rows.iter().all(fits) { Ok(()) } else { Err("there are no such rows".to_owned()) }
        }
    }

    /// A small trained model.
    pub(super) fn sample(step: u64) -> Checkpoint<Said> {
        let tensor = |shape: &[usize], first: f32| {
            let mut tensor = HostTensor::zeros(shape);
            tensor.data.iter_mut().enumerate().for_each(|(i, x)| *x = first + i as f32 / 3.0);
            tensor
        };
        let tensors = |first| {
            BTreeMap::from([
                ("layers.0.mlp.key_param_tokens".to_owned(), tensor(&[5, 3], first)),
                ("norm.bias".to_owned(), tensor(&[3], -first)),
            ])
        };
        let meta = Said {
            step,
            seed: 0x8000_0000_0000_0001,
            config: serde_json::json!({"lr": 0.1 + 0.2, "z": 1, "a": [null, "é\"\n"]}),
            rows: BTreeMap::from([("layers.0.mlp.key_param_tokens".to_owned(), 5)]),
            loss: f64::NEG_INFINITY,
        };
        let (moment1, moment2) = (tensors(f32::MIN_POSITIVE / 2.0), tensors(-0.0));
        Checkpoint { meta, params: tensors(1.0), moment1, moment2, averages: tensors(0.5) }
    }

    #[test]
    fn inconsistencies_are_named() {
        let refused = |spoil: &dyn Fn(&mut Checkpoint<Said>)| {
            let mut checkpoint = sample(1);
            spoil(&mut checkpoint);
            checkpoint.check().unwrap_err()
        };
        assert_eq!(sample(1).check(), Ok(()));
        let said = refused(&|c| c.moment2.clear());
        assert_eq!(said, "parameter \"layers.0.mlp.key_param_tokens\" has no second moments");
        let said = refused(&|c| c.moment1.get_mut("norm.bias").unwrap().shape = vec![1, 3]);
        assert_eq!(said, "the first moments of \"norm.bias\" have shape [1, 3], the parameter has [3]");
        let said = refused(&|c| drop(c.averages.remove("norm.bias")));
        assert_eq!(said, "parameter \"norm.bias\" has no averages");
        let said = refused(&|c| c.meta.rows.extend([("norm.bias".to_owned(), 4)]));
        assert_eq!(said, "there are no such rows");
        let said = refused(&|c| c.params.get_mut("norm.bias").unwrap().data.truncate(2));
        assert_eq!(said, "tensor \"norm.bias\" of shape [3] holds 2 values");
    }
}
