//! Reading one golden case, and holding results against it.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tokenformer::array::HostTensor;

/// Largest error of a gradient that is zero, over the largest gradient: sixteen roundings of f32, as everywhere in these
/// tolerances.
const ZERO: f64 = 16.0 * (f32::EPSILON / 2.0) as f64;

/// Case names in the order of the index.
pub fn index(directory: &Path) -> Vec<String> {
    let path = directory.join("index.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let index: Value = serde_json::from_str(&text).unwrap();
    index["cases"].as_array().unwrap().iter().map(|c| c["case"].as_str().unwrap().to_string()).collect()
}

/// One case: its description, its tensors, and what was found so far.
pub struct Case {
    pub name: String,
    pub kind: String,
    pub config: Value,
    pub hyper: Value,
    pub doc: Value,
    pub directory: PathBuf,
    pub floats: BTreeMap<String, HostTensor>,
    pub ints: BTreeMap<String, (Vec<usize>, Vec<u32>)>,
    pub checked: usize,
    pub worst: f64,
    pub failures: Vec<String>,
    seen: BTreeSet<String>,
}

impl Case {
    pub fn open(directory: &Path, name: &str) -> Self {
        let doc: Value =
            serde_json::from_str(&std::fs::read_to_string(directory.join(format!("{name}.json"))).unwrap()).unwrap();
        let bytes = std::fs::read(directory.join(format!("{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (mut floats, mut ints) = (BTreeMap::new(), BTreeMap::new());
        for (tensor, view) in file.tensors() {
            let words = view.data().chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap()));
            let shape = view.shape().to_vec();
            match view.dtype() {
                Dtype::F32 => {
                    floats.insert(tensor, HostTensor { shape, data: words.map(f32::from_bits).collect() });
                }
                Dtype::I32 => {
                    ints.insert(tensor, (shape, words.collect()));
                }
                // Half-precision weights are read through the library, which is what the case is about.
                Dtype::F16 if doc["kind"] == "official_naming" => {}
                other => panic!("{name}: tensor {tensor} has the unexpected type {other:?}"),
            }
        }
        Self {
            name: name.to_string(),
            kind: doc["kind"].as_str().unwrap().to_string(),
            config: doc["config"].clone(),
            hyper: doc["hyper"].clone(),
            doc,
            directory: directory.to_path_buf(),
            floats,
            ints,
            checked: 0,
            worst: 0.0,
            failures: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    pub fn float(&self, name: &str) -> &HostTensor {
        self.floats.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.name))
    }

    pub fn int(&self, name: &str) -> &(Vec<usize>, Vec<u32>) {
        self.ints.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.name))
    }

    pub fn usize(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap_or_else(|| panic!("{}: no {key}", self.name)) as usize
    }

    pub fn f64(&self, key: &str) -> f64 {
        self.config[key].as_f64().unwrap_or_else(|| panic!("{}: no {key}", self.name))
    }

    pub fn is_expected(&self, tensor: &str) -> bool {
        self.doc["tensors"][tensor]["role"] == "expected"
    }

    /// Tensors of `prefix`, without it.
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, HostTensor> {
        let strip = |(name, t): (&String, &HostTensor)| Some((name.strip_prefix(prefix)?.to_string(), t.clone()));
        self.floats.iter().filter_map(strip).collect()
    }

    /// Largest element of the gradients that are expected.
    fn largest_gradient(&self) -> f64 {
        let tensors = self.doc["tensors"].as_object().unwrap();
        let gradients = tensors.iter().filter(|(name, _)| name.starts_with("grad."));
        gradients.filter_map(|(_, about)| about["max_abs"].as_f64()).fold(0.0, f64::max)
    }

    /// Applies the tolerances stored with an expected tensor.
    pub fn expect(&mut self, tensor: &str, got: &[f32]) {
        let about = &self.doc["tensors"][tensor];
        let atol = about["atol"].as_f64().unwrap_or_else(|| panic!("{}: {tensor} is not expected", self.name));
        // A gradient that is exactly zero is a difference of equal numbers, which are as large as other gradients.
        let atol = if atol == 0.0 { ZERO * self.largest_gradient() } else { atol };
        let want = &self.float(tensor).data;
        assert_eq!(got.len(), want.len(), "{}: {tensor} has the wrong length", self.name);
        let errors = || got.iter().zip(want).map(|(g, w)| (f64::from(*g) - f64::from(*w)).abs());
        // NaN must not be lost in a maximum.
        let largest = errors().fold(0.0, |m: f64, e| if e.is_nan() { f64::INFINITY } else { m.max(e) });
        let rms = (errors().map(|e| e * e).sum::<f64>() / got.len() as f64).sqrt();
        let rms_tol = about["rms_tol"].as_f64().unwrap_or(f64::INFINITY);
        if largest > atol || rms > rms_tol || rms.is_nan() {
            self.failures.push(format!(
                "{} {tensor}: largest error {largest:.3e} (allowed {atol:.3e}), rms {rms:.3e} (allowed {rms_tol:.3e})",
                self.name
            ));
        }
        self.worst = self.worst.max(largest / atol).max(rms / rms_tol);
        self.checked += 1;
        self.seen.insert(tensor.to_string());
    }

    /// Every expected tensor must have been compared.
    pub fn finish(&mut self) {
        let tensors = self.doc["tensors"].as_object().unwrap();
        let missed: Vec<&String> = tensors
            .keys()
            .filter(|n| self.doc["tensors"][*n]["role"] == "expected" && !self.seen.contains(*n))
            .collect();
        assert!(missed.is_empty(), "{}: never compared: {missed:?}", self.name);
    }
}
