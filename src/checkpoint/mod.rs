//! A training run on disk: what a checkpoint holds, how it becomes one safetensors file, where it is kept.
//!
//! [`Checkpoint`] is the value: parameters, AdamW moments and a [`Meta`] with everything else a run needs to continue
//! as if it had never stopped. `format` turns it into bytes with checksums, `read` back again, [`Store`] keeps a run's
//! checkpoints safely in its directory, [`RunLock`] keeps other writers out of it, and [`read_official`] reads
//! published TokenFormer weights under their own names. All that is written goes through [`Storage`]. Any Python user
//! can open the files with `safetensors.safe_open`. This room does not know the GPU, the model or the training loop,
//! and treats the run's config and tokenizer as opaque JSON.

mod checksum;
mod digest;
mod format;
mod lock;
mod official;
mod read;
mod size;
mod storage;
mod store;

pub use digest::FileDigest;
pub use lock::RunLock;
pub use official::{OfficialModel, official_name, read_official};
pub use read::{TensorEntry, Verdict, list_tensors, read_meta, verify};
pub use storage::{Files, Sink, Source, Storage, create_dirs, replace};
pub use store::{Keep, Latest, Store};

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::array::HostTensor;
use crate::error::{Error, Result};

/// The version of the file format written by this crate. It also reads version 1, which has no checksums.
pub const FORMAT: u32 = 2;

/// Everything a run needs to continue, or a model needs to be used.
/// ```no_run
/// use std::path::Path;
/// use tokenformer::checkpoint::Checkpoint;
///
/// // Compared with its checksums first; damage is an error that names the place.
/// let checkpoint = Checkpoint::read(Path::new("grown.safetensors"))?;
/// let embedding = &checkpoint.params["word_embeddings.weight"];
/// println!("step {}, embedding {:?}, grown {} times", checkpoint.meta.step, embedding.shape, checkpoint.meta.lineage.len());
/// # Ok::<(), tokenformer::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// What the run was and where it stood.
    pub meta: Meta,
    /// Parameters by name.
    pub params: BTreeMap<String, HostTensor>,
    /// AdamW's first moments, one for every parameter; empty in a weights-only file.
    pub moment1: BTreeMap<String, HostTensor>,
    /// AdamW's second moments, one for every parameter; empty in a weights-only file.
    pub moment2: BTreeMap<String, HostTensor>,
}

/// All of a checkpoint that is not a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the file format: [`FORMAT`], also where an older file was read.
    pub format: u32,
    /// Optimizer updates done.
    pub step: u64,
    /// Training tokens consumed so far.
    pub tokens_seen: u64,
    /// Seed of the run.
    pub seed: u64,
    /// The resolved config of the run; see [`Meta::config`] for typed access.
    pub config: serde_json::Value,
    /// The tokenizer, where the model has one of its own.
    pub tokenizer: Option<serde_json::Value>,
    /// Where in its data the run stood.
    pub data: DataPosition,
    /// Groups of parameter rows by age; the first is the original parameters.
    pub cohorts: Vec<Cohort>,
    /// Every growth so far, oldest first.
    pub lineage: Vec<GrowthRecord>,
    /// The adapter and driver the run used: equal bits are promised on this one only.
    pub adapter: String,
    /// Kernel of each class of matrix product, where one was chosen by measurement.
    #[serde(default)]
    pub kernels: BTreeMap<String, String>,
    /// Where dynamic loss scaling stood, in mixed precision.
    #[serde(default)]
    pub loss_scale: Option<LossScale>,
    /// What is usual of the training loss.
    #[serde(default)]
    pub losses: LossStatistics,
    /// How far the validation loss is on a plateau that a growth waits for.
    #[serde(default)]
    pub plateau: Plateau,
    /// The lowest validation loss so far, in nats per token.
    #[serde(with = "optional_number", default)]
    pub best_val_loss: Option<f64>,
    /// The program that wrote the file, such as `tokenformer 0.1.0`.
    pub created_by: String,
}

/// Where dynamic loss scaling stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// Factor on the loss, a power of two.
    pub scale: f32,
    /// Steps since it last changed.
    pub good_steps: u64,
}

/// Mean and variance of the training loss, with weights that fade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LossStatistics {
    /// Losses that were taken in.
    pub count: u64,
    /// In nats per token.
    #[serde(with = "number")]
    pub mean: f64,
    /// Its square.
    #[serde(with = "number")]
    pub variance: f64,
}

/// What a growth on a plateau of the validation loss goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    /// The loss that an improvement is measured from, in nats per token: the lowest since the last growth. `None` before
    /// the first evaluation.
    #[serde(with = "optional_number", default)]
    pub best: Option<f64>,
    /// Evaluations in a row without an improvement.
    pub evaluations: u64,
}

/// A position in the training data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPosition {
    /// The data set in words, compared on resume: losses on another one say little of this one's.
    pub description: String,
    /// Index of the next batch, of `batch_size` rows; the order of rows is a pure function of the seed and their number.
    pub next_batch: u64,
}

/// Rows of parameters that were added at the same time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cohort {
    /// Updates from which their bias correction counts: those done when the rows were added, 0 for the
    /// original parameters.
    pub born_step: u64,
    /// Factor on the learning rate of these rows.
    #[serde(with = "number")]
    pub lr_scale: f64,
    /// Whether updates leave these rows as they are.
    pub frozen: bool,
    /// Parameter name to its rows, first (included) to end (excluded).
    pub rows: BTreeMap<String, [u64; 2]>,
}

/// One growth of the model, and what was measured across it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrowthRecord {
    /// Optimizer updates done before it.
    pub at_step: u64,
    /// The resolved growth settings.
    pub policy: serde_json::Value,
    /// Slots of query/key/value, proj and ffn before; 0 in a Transformer.
    pub slots_before: [u64; 3],
    /// Slots of query/key/value, proj and ffn after.
    pub slots_after: [u64; 3],
    /// Layers before; 0, as the three below, in a record from when only slots could grow.
    #[serde(default)]
    pub layers_before: u64,
    /// Layers after.
    #[serde(default)]
    pub layers_after: u64,
    /// Width of a Transformer's MLP before; 0 in a TokenFormer.
    #[serde(default)]
    pub intermediate_size_before: u64,
    /// Width of a Transformer's MLP after.
    #[serde(default)]
    pub intermediate_size_after: u64,
    /// Parameters of the model before.
    pub params_before: u64,
    /// Parameters of the model after.
    pub params_after: u64,
    /// Largest absolute change of a logit on the probe batch.
    #[serde(with = "number")]
    pub max_logit_change: f64,
    /// Loss on the probe batch before, in nats per token.
    #[serde(with = "number")]
    pub loss_before: f64,
    /// Loss on the probe batch after, in nats per token.
    #[serde(with = "number")]
    pub loss_after: f64,
    /// The checkpoint of the model before; `None` in a record from when none was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<FileDigest>,
}

impl Meta {
    /// Forgets how training went so far, and with which kernels, where the model becomes a larger or smaller one, of which
    /// that says little.
    pub fn forget_course(&mut self) {
        (self.losses, self.plateau) = (LossStatistics::default(), Plateau::default());
        self.kernels.clear();
    }

    /// The run's config as the caller's own type.
    ///
    /// # Errors
    /// An input error if the stored config does not fit `T`.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.config).map_err(|cause| {
            Error::input(format!(
                "the config inside the checkpoint (written by {}) does not fit this version of tokenformer: {cause}",
                self.created_by
            ))
        })
    }
}

impl Checkpoint {
    /// Checks what the types cannot: sizes agree, moments match parameters, cohorts stay inside them.
    ///
    /// # Errors
    /// A sentence naming the first offending tensor or cohort; it reads on from "the checkpoint is inconsistent: ".
    fn check(&self) -> Result<(), String> {
        for (name, tensor) in self.params.iter().chain(&self.moment1).chain(&self.moment2) {
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
        for (index, cohort) in self.meta.cohorts.iter().enumerate() {
            for (name, &[first, end]) in &cohort.rows {
                let Some(tensor) = self.params.get(name) else {
                    return Err(format!("cohort {index} has rows of {name:?}, which is not a parameter"));
                };
                if first > end || end > tensor.rows() as u64 {
                    let rows = tensor.rows();
                    return Err(format!("cohort {index} has rows {first}..{end} of {name:?}, which has {rows} rows"));
                }
            }
        }
        Ok(())
    }
}

/// Refuses `moments` unless it has exactly the names and shapes of `params`.
fn same_shapes(
    what: &str,
    moments: &BTreeMap<String, HostTensor>,
    params: &BTreeMap<String, HostTensor>,
) -> Result<(), String> {
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

/// An `f64` in JSON, exactly: finite values as numbers; JSON has no others, so they become `"NaN"`, `"inf"`, `"-inf"`.
mod number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Repr {
        Finite(f64),
        Word(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.collect_str(value) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Repr::deserialize(deserializer)? {
            Repr::Finite(value) => Ok(value),
            Repr::Word(word) => word.parse().map_err(|_| D::Error::custom(format!("{word:?} is not a number"))),
        }
    }
}

/// An optional `f64`, as [`number`] or `null`.
mod optional_number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Number(#[serde(with = "super::number")] f64);

    #[allow(clippy::ref_option, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Number).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Number>::deserialize(deserializer)?.map(|number| number.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small trained and grown model, with every kind of value that could be lost on the way.
    pub(super) fn sample(step: u64) -> Checkpoint {
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
        let growth = GrowthRecord {
            at_step: 7,
            policy: serde_json::json!({"init_keys": "zero", "tau": "keep"}),
            slots_before: [4, 4, 3],
            slots_after: [4, 4, 5],
            layers_before: 1,
            layers_after: 2,
            intermediate_size_before: 0,
            intermediate_size_after: 7,
            params_before: 12,
            params_after: 18,
            max_logit_change: 5e-324,
            loss_before: f64::NEG_INFINITY,
            loss_after: f64::INFINITY,
            before: Some(FileDigest { name: "before-growth-00000007.safetensors".into(), sha256: "0f".repeat(32) }),
        };
        let rows = BTreeMap::from([("layers.0.mlp.key_param_tokens".to_owned(), [3, 5])]);
        let meta = Meta {
            format: FORMAT,
            step,
            tokens_seen: u64::MAX,
            seed: 0x8000_0000_0000_0001,
            config: serde_json::json!({"lr": 0.1 + 0.2, "z": 1, "a": [null, "é\"\n"]}),
            tokenizer: Some(serde_json::json!({"kind": "char"})),
            data: DataPosition { description: "corpus".into(), next_batch: 9 },
            cohorts: vec![Cohort { born_step: 7, lr_scale: 1.0 / 3.0, frozen: true, rows }],
            lineage: vec![growth],
            adapter: "llvmpipe".into(),
            loss_scale: Some(LossScale { scale: 1024.0, good_steps: 3 }),
            losses: LossStatistics { count: 9, mean: 0.1 + 0.2, variance: 1.0 / 3.0 },
            plateau: Plateau { best: Some(f64::INFINITY), evaluations: u64::MAX },
            kernels: BTreeMap::from([("NN 8x8x8".to_owned(), "lanes8-8x8-u1".to_owned())]),
            best_val_loss: Some(2.0_f64.sqrt()),
            created_by: "tokenformer 0.1.0".into(),
        };
        Checkpoint { meta, params: tensors(1.0), moment1: tensors(f32::MIN_POSITIVE / 2.0), moment2: tensors(-0.0) }
    }

    #[test]
    fn losses_that_json_cannot_hold_survive_it() {
        let mut meta = sample(1).meta;
        let back: Meta = serde_json::from_str(&serde_json::to_string(&meta).unwrap()).unwrap();
        assert_eq!(back, meta);
        (meta.best_val_loss, meta.lineage[0].loss_after) = (Some(f64::NAN), f64::NAN);
        let back: Meta = serde_json::from_str(&serde_json::to_string(&meta).unwrap()).unwrap();
        assert!(back.best_val_loss.unwrap().is_nan() && back.lineage[0].loss_after.is_nan());
    }

    #[test]
    fn what_older_files_do_not_say_is_left_open() {
        let mut meta = sample(1).meta;
        let mut json = serde_json::to_value(&meta).unwrap();
        json.as_object_mut().unwrap().remove("plateau");
        let fields = json["lineage"][0].as_object_mut().unwrap();
        fields.retain(|key, _| !key.starts_with("layers") && !key.starts_with("intermediate") && key != "before");
        let record = &mut meta.lineage[0];
        (record.layers_before, record.layers_after, record.intermediate_size_after) = (0, 0, 0);
        (record.before, meta.plateau) = (None, Plateau::default());
        assert_eq!(serde_json::from_value::<Meta>(json).unwrap(), meta);
    }

    #[test]
    fn inconsistencies_are_named() {
        let refused = |spoil: &dyn Fn(&mut Checkpoint)| {
            let mut checkpoint = sample(1);
            spoil(&mut checkpoint);
            checkpoint.check().unwrap_err()
        };
        assert_eq!(sample(1).check(), Ok(()));
        let said = refused(&|c| c.moment2.clear());
        assert_eq!(said, "parameter \"layers.0.mlp.key_param_tokens\" has no second moments");
        let said = refused(&|c| c.moment1.get_mut("norm.bias").unwrap().shape = vec![1, 3]);
        assert_eq!(said, "the first moments of \"norm.bias\" have shape [1, 3], the parameter has [3]");
        let said = refused(&|c| c.meta.cohorts[0].rows.extend([("norm.bias".to_owned(), [0, 4])]));
        assert_eq!(said, "cohort 0 has rows 0..4 of \"norm.bias\", which has 3 rows");
        let said = refused(&|c| c.params.get_mut("norm.bias").unwrap().data.truncate(2));
        assert_eq!(said, "tensor \"norm.bias\" of shape [3] holds 2 values");
    }
}
