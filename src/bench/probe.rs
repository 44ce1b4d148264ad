//! Whether a GPU kept its speed while a series of cases was timed.
//!
//! A ranking across a change of clocks is noise. A fixed kernel of multiply-adds is timed before a series, when clocks are
//! up, and after it, at the clocks that the series left; a series across which it changed is marked. Software adapters have no clocks of their own: nothing is probed there.

use super::fma::Fma;
use super::record::{Drift, Report};
use super::timing::{Timed, time, time_as_it_is};
use crate::console;
use crate::error::Result;
use crate::gpu::engine::Program;
use crate::gpu::timing::Stopwatch;
use std::fmt;

/// Percent by which the probe may change across a series.
pub(crate) const MOST_DRIFT: f64 = 3.0;
/// Seconds of one reading of the probe.
const SECONDS: f64 = 0.3;

/// How a reading is taken.
type Time = fn(&Stopwatch, &Program, f64) -> Result<Timed>;

/// The kernel, on one device.
pub(crate) struct Probe<'a> {
    stopwatch: &'a Stopwatch<'a>,
    /// `None` on software adapters.
    fma: Option<Fma>,
}

impl<'a> Probe<'a> {
    /// Prepares the kernel and finds it right.
    ///
    /// # Errors
    /// A device error where a sum is not what so many multiply-adds make.
    pub(super) fn new(stopwatch: &'a Stopwatch<'a>) -> Result<Self> {
        let software = stopwatch.engine.gpu.target.software;
        let fma = (!software).then(|| Fma::fixed(stopwatch)).transpose()?;
        Ok(Self { stopwatch, fma })
    }

    /// Runs `series`, which adds its records to the report, between two readings of the probe.
    ///
    /// # Errors
    /// Those of `series` and of the device.
    pub(super) fn around(
        &self,
        name: &str,
        report: &mut Report,
        series: impl FnOnce(&mut Report) -> Result<()>,
    ) -> Result<()> {
        let first = report.records.len();
        let before = self.gflops(time)?;
        series(report)?;
        if let (Some(before), Some(after)) = (before, self.gflops(time_as_it_is)?) {
            note(report, first, Drift::new(name, before, after));
        }
        Ok(())
    }

    fn gflops(&self, time: Time) -> Result<Option<f64>> {
        let Some(fma) = &self.fma else { return Ok(None) };
        let ms = time(self.stopwatch, &fma.program, SECONDS)?.median_ms();
        Ok(Some(fma.flops as f64 / ms * 1e-6))
    }
}

/// Adds a drift to the report and marks the records of its series, those from `first` on.
fn note(report: &mut Report, first: usize, drift: Drift) {
    console::note(format_args!("{drift}"));
    let unsteady = drift.is_large();
    report.records[first..].iter_mut().for_each(|record| record.unsteady |= unsteady);
    report.drifts.push(drift);
}

impl Drift {
    fn new(series: &str, gflops_before: f64, gflops_after: f64) -> Self {
        let drift = 100.0 * (gflops_before / gflops_after - 1.0);
        Self { series: series.to_owned(), gflops_before, gflops_after, drift }
    }

    /// Whether figures of the series are not to be compared; so they are where it is not a number.
    pub(crate) fn is_large(&self) -> bool {
        self.drift.is_nan() || self.drift.abs() > MOST_DRIFT
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { series, gflops_before, gflops_after, drift } = self;
        write!(
            f,
            "drift over {series}: {drift:+.1} % (probe {gflops_before:.0} GFLOP/s before, {gflops_after:.0} after)"
        )?;
        if self.is_large() { write!(f, ": unsteady, measure again") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{record, report};
    use super::*;
    use crate::gpu::adapter::AdapterRequest;
    use crate::gpu::device::Gpu;
    use crate::gpu::engine::Engine;

    #[test]
    fn only_the_records_of_an_unsteady_series_are_marked() {
        let mut report = report(vec![record("a", 1.0)]);
        note(&mut report, 0, Drift::new("first", 100.0, 97.2));
        report.records.push(record("b", 1.0));
        note(&mut report, 1, Drift::new("second", 100.0, 97.0));
        report.records.push(record("c", 1.0));
        note(&mut report, 2, Drift::new("third", 97.5, 100.0));
        let unsteady: Vec<bool> = report.records.iter().map(|record| record.unsteady).collect();
        assert_eq!(unsteady, [false, true, false]);
        assert!((report.drifts[0].drift - 2.88).abs() < 0.01 && (report.drifts[2].drift + 2.5).abs() < 0.01);
        assert!(
            report.drifts[1]
                .to_string()
                .starts_with("drift over second: +3.1 % (probe 100 GFLOP/s before, 97 after): unst")
        );
        assert!(Drift::new("", 1.0, f64::NAN).is_large());
        assert_eq!(report.records[1].remark(), "unsteady");
    }

    #[test]
    fn software_adapters_are_not_probed_and_gpus_are() {
        for software in [true, false] {
            let mut gpu = Gpu::open(&AdapterRequest::default()).unwrap();
            gpu.target.software = software;
            let engine = Engine::new(gpu).unwrap();
            let stopwatch = Stopwatch::new(&engine).unwrap();
            let mut report = Report::default();
            Probe::new(&stopwatch).unwrap().around("x", &mut report, |_| Ok(())).unwrap();
            assert_eq!(report.drifts.len(), usize::from(!software));
        }
    }
}
