//! What is known of the candidates of an adapter: kept on disk, by driver, program version and text of the kernels.

use super::contest::{refusal, trial_types, usable};
use crate::cache;
use crate::gpu::engine::Engine;
use crate::kernel::{Candidate, Layout, ProductKind, ShapeClass, Target};
use crate::ops::matmul::candidates::{candidates, kernel};
use crate::ops::matmul::source::{ProductForm, Vectors};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is kept of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Fastest {
    /// Name of the fastest.
    pub candidate: String,
    /// How fast it was.
    pub gflops: f64,
}

/// What is known of the candidates of an adapter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The fastest, by class.
    pub fastest: BTreeMap<String, Fastest>,
    /// The fastest that cuts no sums, of the classes whose fastest does.
    #[serde(default)]
    pub fastest_uncut: BTreeMap<String, Fastest>,
    /// Wrong on this adapter, or not taken by its driver: never tried again. By layout and type of the operands.
    pub refused: BTreeSet<String>,
    /// Tried in a process of their own, and right there.
    #[serde(default)]
    pub works: BTreeSet<String>,
    /// Name of the file; nothing is kept without one.
    #[serde(skip)]
    pub file: String,
}

impl Known {
    /// What earlier runs found out about the adapter of `engine`.
    pub(super) fn load(engine: &Engine) -> Self {
        let hash = cache::fingerprint(kernel_texts(&engine.gpu.target));
        let file = format!("matmul-{}-{}-{hash:016x}.json", engine.gpu.cache_key(), env!("CARGO_PKG_VERSION"));
        let kept: Self = cache::read(&file).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self { file, ..kept }
    }

    /// For later runs.
    pub(super) fn keep(&self) {
        if !self.file.is_empty() {
            cache::write(&self.file, &serde_json::to_string_pretty(self).unwrap_or_default());
        }
    }

    /// The fastest of a class, where this device can run it.
    pub(super) fn of(&self, class: ShapeClass, target: &Target) -> Option<Candidate> {
        usable(target, &self.fastest.get(&class.to_string())?.candidate)
    }

    /// The fastest of a class that does not cut sums, where the fastest does.
    pub(super) fn uncut(&self, class: ShapeClass, target: &Target) -> Option<Candidate> {
        usable(target, &self.fastest_uncut.get(&class.to_string())?.candidate)
    }

    /// Whether a candidate was refused for products like this.
    pub(super) fn refuses(&self, product: ProductKind, candidate: Candidate) -> bool {
        self.refused.contains(&refusal(product, candidate))
    }

    /// As if these classes had never been met: also what was refused is tried again.
    pub(crate) fn forget(&mut self, classes: &[(ShapeClass, ProductKind)]) {
        for (class, _) in classes {
            self.fastest.remove(&class.to_string());
            self.fastest_uncut.remove(&class.to_string());
        }
        self.refused.clear();
        self.works.clear();
    }
}

/// The WGSL of every candidate of a device: what is known of its kernels holds for these texts.
pub(crate) fn kernel_texts(target: &Target) -> Vec<&'static str> {
    let half = target.f16;
    let of_layout = |layout| {
        let list = candidates(target, ProductKind { layout, size: [256; 3], half, pair: false }, true);
        let kernels = move |candidate: Candidate| {
            let forms = [
                Some((candidate, ProductForm::Whole)),
                candidate.paired().map(|candidate| (candidate, ProductForm::Pair)),
            ];
            forms.into_iter().flatten().flat_map(move |(candidate, form)| {
                let of = move |types| kernel(candidate, layout, types, Vectors::ALL, form);
                trial_types(half).into_iter().map(of)
            })
        };
        list.into_iter().flat_map(kernels).filter_map(|kernel| kernel.text)
    };
    Layout::ALL.into_iter().flat_map(of_layout).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong in one layout or type may be right in the others.
    #[test]
    fn refusals_are_of_one_layout_and_type() {
        let of = |layout, half, pair| ProductKind { layout, size: [64; 3], half, pair };
        let candidate = Target::WEBGPU.default_candidate(of(Layout::NN, false, false));
        let forms = [(true, false), (false, false), (true, true), (false, true)];
        let names = Layout::ALL.map(|layout| forms.map(|(half, pair)| refusal(of(layout, half, pair), candidate)));
        assert_eq!(names.as_flattened().iter().collect::<BTreeSet<_>>().len(), 12);
    }
}
