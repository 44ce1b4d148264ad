//! What a checkpoint says of the run that wrote it: all of it that is not a tensor.

use crate::array::HostTensor;
use crate::checkpoint::{self, Metadata, number};
use crate::data::{Fingerprint, Tokenizer};
use crate::error::{Error, Result};
use crate::train::growth::cohorts::Cohort;
use crate::train::growth::plateau::Plateau;
use crate::train::growth::{GrowthRecord, Import};
use crate::train::run::loss_scale::LossScale;
use crate::train::run::spike::LossStatistics;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A checkpoint of a run of this program.
pub type Checkpoint = checkpoint::Checkpoint<Meta>;
/// Where the checkpoints of such a run are kept.
pub type Store = checkpoint::Store<Meta>;

/// Everything that a run needs to go on besides its tensors. Fields are written in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Optimizer updates done.
    pub step: u64,
    /// Training tokens consumed so far.
    pub tokens_seen: u64,
    /// Seed of the run.
    pub seed: u64,
    /// The resolved config of the run; see [`Meta::config`] for typed access.
    pub config: serde_json::Value,
    /// The tokenizer, where the model has one of its own; see [`Meta::tokenizer`] for typed access.
    pub tokenizer: Option<serde_json::Value>,
    /// Where in its data the run stood.
    pub data: DataPosition,
    /// Groups of parameter rows by age; the first is the original parameters.
    pub cohorts: Vec<Cohort>,
    /// Every growth so far, oldest first.
    pub lineage: Vec<GrowthRecord>,
    /// Where the model was imported from; `None` for one that was trained here from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Import>,
    /// The adapter and driver the run used: equal bits are promised on this one only.
    pub adapter: String,
    /// Kernel of each class of matrix product, where one was chosen by measurement.
    #[serde(default)]
    pub kernels: BTreeMap<String, String>,
    /// Seconds trained, of a run whose time is limited.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seconds: f64,
    /// Where dynamic loss scaling stood, in mixed precision.
    #[serde(default)]
    pub loss_scale: Option<LossScale>,
    /// Mean and variance of the training loss.
    #[serde(default)]
    pub losses: LossStatistics,
    /// How far the validation loss is on a plateau that a growth waits for.
    #[serde(default)]
    pub plateau: Plateau,
    /// The lowest validation loss so far, in nats per token.
    #[serde(with = "number::optional", default)]
    pub best_val_loss: Option<f64>,
    /// The step it was measured after.
    #[serde(default)]
    pub best_step: Option<u64>,
    /// The program that wrote the file, such as `tokenformer 0.1.0`.
    pub created_by: String,
}

fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

/// A position in the training data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DataPosition {
    /// The data set in words.
    pub description: String,
    /// Index of the next batch, of `batch_size` rows; the order of rows is a pure function of the seed and their number.
    pub next_batch: u64,
    /// The data set by its contents, compared on resume: losses on another one say little of this one's. `None` in files of
    /// versions that did not write it.
    #[serde(default)]
    pub fingerprint: Option<Fingerprint>,
}

impl Metadata for Meta {
    fn step(&self) -> u64 {
        self.step
    }

    /// The rows of every cohort are rows of a parameter.
    fn check(&self, params: &BTreeMap<String, HostTensor>) -> Result<(), String> {
        for (index, cohort) in self.cohorts.iter().enumerate() {
            for (name, &[first, end]) in &cohort.rows {
                let Some(tensor) = params.get(name) else {
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

impl Meta {
    /// Forgets how training went so far, and with which kernels, where the model becomes a larger or smaller one, of which
    /// that says little.
    pub(crate) fn forget_course(&mut self) {
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

    /// The tokenizer, where the model has one of its own.
    ///
    /// # Errors
    /// An input error if the stored tokenizer is not one.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        let parse = |value: &serde_json::Value| {
            Tokenizer::deserialize(value)
                .map_err(|e| Error::input(format!("the tokenizer in the checkpoint is damaged: {e}")))
        };
        self.tokenizer.as_ref().map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::FileDigest;
    use crate::data::{Contents, Share};
    use crate::train::growth::{Rules, Shape};
    use serde_json::json;

    /// Of a run that grew, with every kind of value that could be lost on the way.
    fn sample() -> Meta {
        let slots = |ffn| [4, 4, ffn];
        let growth = GrowthRecord {
            at_step: 7,
            rules: Rules::of(json!({"init_keys": "zero", "tau": "keep"})),
            before: Shape { slots: slots(3), layers: 1, intermediate_size: 0, params: 12 },
            after: Shape { slots: slots(5), layers: 2, intermediate_size: 7, params: 18 },
            max_logit_change: 5e-324,
            loss_before: f64::NEG_INFINITY,
            loss_after: f64::INFINITY,
            file_before: Some(FileDigest { name: "before-growth-00000007.safetensors".into(), sha256: "0f".repeat(2) }),
        };
        let contents = |tokens, sha256: &str| Contents { tokens, sha256: sha256.into() };
        let fingerprint = Fingerprint {
            train: contents(u64::MAX, "0a"),
            val: contents(2, "0b"),
            old_val: Some(contents(3, "0c")),
            tokenizer: Some("0d".into()),
            sources: vec![Share { tokens: 1, val_tokens: 2, share: 0.1 + 0.2 }],
        };
        let rows = BTreeMap::from([("layers.0.mlp.key_param_tokens".to_owned(), [3, 5])]);
        Meta {
            step: 9,
            tokens_seen: u64::MAX,
            seed: 0x8000_0000_0000_0001,
            config: json!({"lr": 0.1 + 0.2, "z": 1, "a": [null, "é\"\n"]}),
            tokenizer: Some(json!({"kind": "char"})),
            data: DataPosition { description: "corpus".into(), next_batch: 9, fingerprint: Some(fingerprint) },
            cohorts: vec![Cohort { born_step: 7, lr_scale: 1.0 / 3.0, frozen: true, rows }],
            lineage: vec![growth],
            imported: None,
            adapter: "llvmpipe".into(),
            loss_scale: Some(LossScale { scale: 1024.0, good_steps: 3 }),
            losses: LossStatistics { count: 9, mean: 0.1 + 0.2, variance: 1.0 / 3.0 },
            plateau: Plateau { best: Some(f64::INFINITY), evaluations: u64::MAX },
            seconds: 0.0,
            kernels: BTreeMap::from([("NN 8x8x8".to_owned(), "lanes8-8x8-u1".to_owned())]),
            best_val_loss: Some(2.0_f64.sqrt()),
            best_step: Some(8),
            created_by: "tokenformer 0.1.0".into(),
        }
    }

    /// As version 0.1.0 wrote it: names and order are part of the format.
    const WRITTEN: &str = concat!(
        r#"{"step":9,"tokens_seen":18446744073709551615,"seed":9223372036854775809,"#,
        r#""config":{"a":[null,"é\"\n"],"lr":0.30000000000000004,"z":1},"tokenizer":{"kind":"char"},"#,
        r#""data":{"description":"corpus","next_batch":9,"#,
        r#""fingerprint":{"train":{"tokens":18446744073709551615,"sha256":"0a"},"val":{"tokens":2,"sha256":"0b"},"#,
        r#""old_val":{"tokens":3,"sha256":"0c"},"tokenizer":"0d","#,
        r#""sources":[{"tokens":1,"val_tokens":2,"share":0.30000000000000004}]}},"#,
        r#""cohorts":[{"born_step":7,"lr_scale":0.3333333333333333,"frozen":true,"#,
        r#""rows":{"layers.0.mlp.key_param_tokens":[3,5]}}],"#,
        r#""lineage":[{"at_step":7,"policy":{"init_keys":"zero","tau":"keep"},"#,
        r#""slots_before":[4,4,3],"slots_after":[4,4,5],"layers_before":1,"layers_after":2,"#,
        r#""intermediate_size_before":0,"intermediate_size_after":7,"params_before":12,"params_after":18,"#,
        r#""max_logit_change":5e-324,"loss_before":"-inf","loss_after":"inf","#,
        r#""before":{"name":"before-growth-00000007.safetensors","sha256":"0f0f"}}],"#,
        r#""adapter":"llvmpipe","kernels":{"NN 8x8x8":"lanes8-8x8-u1"},"#,
        r#""loss_scale":{"scale":1024.0,"good_steps":3},"#,
        r#""losses":{"count":9,"mean":0.30000000000000004,"variance":0.3333333333333333},"#,
        r#""plateau":{"best":"inf","evaluations":18446744073709551615},"#,
        r#""best_val_loss":1.4142135623730951,"best_step":8,"created_by":"tokenformer 0.1.0"}"#
    );

    #[test]
    fn names_order_and_numbers_are_those_of_the_format() {
        assert_eq!(serde_json::to_string(&sample()).unwrap(), WRITTEN);
        assert_eq!(serde_json::from_str::<Meta>(WRITTEN).unwrap(), sample());
    }

    #[test]
    fn an_imported_model_says_where_it_is_from() {
        let file = FileDigest { name: "model.safetensors".into(), sha256: "0f".repeat(2) };
        let import = Import { name: "pythia-70m".into(), form: "GPT-NeoX".into(), files: vec![file] };
        let meta = Meta { imported: Some(import), ..sample() };
        let written = concat!(
            r#""before":{"name":"before-growth-00000007.safetensors","sha256":"0f0f"}}],"#,
            r#""imported":{"name":"pythia-70m","form":"GPT-NeoX","#,
            r#""files":[{"name":"model.safetensors","sha256":"0f0f"}]},"adapter":"llvmpipe""#
        );
        let json = serde_json::to_string(&meta).unwrap();
        assert!(json.contains(written), "{json}");
        assert_eq!(serde_json::from_str::<Meta>(&json).unwrap(), meta);
    }

    #[test]
    fn losses_that_json_cannot_hold_survive_it() {
        let mut meta = sample();
        (meta.best_val_loss, meta.lineage[0].loss_after) = (Some(f64::NAN), f64::NAN);
        let back: Meta = serde_json::from_str(&serde_json::to_string(&meta).unwrap()).unwrap();
        assert!(back.best_val_loss.unwrap().is_nan() && back.lineage[0].loss_after.is_nan());
    }

    #[test]
    fn what_older_files_do_not_say_is_left_open() {
        let mut meta = sample();
        let mut json = serde_json::to_value(&meta).unwrap();
        json.as_object_mut().unwrap().remove("plateau");
        json["data"].as_object_mut().unwrap().remove("fingerprint");
        json.as_object_mut().unwrap().remove("best_step");
        let fields = json["lineage"][0].as_object_mut().unwrap();
        fields.retain(|key, _| !key.starts_with("layers") && !key.starts_with("intermediate") && key != "before");
        let record = &mut meta.lineage[0];
        for shape in [&mut record.before, &mut record.after] {
            (shape.layers, shape.intermediate_size) = (0, 0);
        }
        (record.file_before, meta.plateau, meta.best_step, meta.data.fingerprint) =
            (None, Plateau::default(), None, None);
        assert_eq!(serde_json::from_value::<Meta>(json).unwrap(), meta);
    }

    #[test]
    fn a_cohort_has_rows_that_there_are() {
        let param = |rows: usize| HostTensor::zeros(&[rows, 3]);
        let params = BTreeMap::from([("layers.0.mlp.key_param_tokens".to_owned(), param(5))]);
        let mut meta = sample();
        assert_eq!(meta.check(&params), Ok(()));
        meta.cohorts[0].rows.extend([("norm.bias".to_owned(), [0, 4])]);
        assert_eq!(meta.check(&params).unwrap_err(), "cohort 0 has rows of \"norm.bias\", which is not a parameter");
        let params = [params, BTreeMap::from([("norm.bias".to_owned(), param(3))])].into_iter().flatten().collect();
        assert_eq!(meta.check(&params).unwrap_err(), "cohort 0 has rows 0..4 of \"norm.bias\", which has 3 rows");
    }
}
