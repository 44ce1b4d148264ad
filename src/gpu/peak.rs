//! The most floating-point operations a second that were measured on an adapter, kept for runs to say how much of it they
//! reach. `bench roofline` measures it.

use super::device::Gpu;
use crate::cache;
use crate::kernel::Dtype;
use std::collections::BTreeMap;

impl Gpu {
    fn peaks_file(&self) -> String {
        format!("peaks-{}.json", self.cache_key())
    }

    fn peaks(&self) -> BTreeMap<String, f64> {
        cache::read(&self.peaks_file()).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// The most that was measured with elements of a type, where that was done.
    pub(crate) fn measured_peak(&self, dtype: Dtype) -> Option<f64> {
        self.peaks().remove(dtype.name()).filter(|peak| peak.is_finite() && *peak > 0.0)
    }

    /// Keeps what was measured.
    pub(crate) fn keep_peak(&self, dtype: Dtype, flops_per_second: f64) {
        let mut peaks = self.peaks();
        peaks.insert(dtype.name().to_owned(), flops_per_second);
        if let Ok(text) = serde_json::to_string(&peaks) {
            cache::write(&self.peaks_file(), &text);
        }
    }
}
