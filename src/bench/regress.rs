//! Is this run slower than a baseline that was measured before?
//!
//! Machines differ in speed, and one machine does from day to day. So where both reports hold the f32 multiply-add peak
//! of their own run, each time is first multiplied by that peak: what is compared is how far a case is from what its
//! device could do. Records of peaks themselves are then not judged; in a report of nothing else, such as that of
//! `bench roofline`, they are, and by their times alone.
//!
//! The kernels of a training step are judged by what the step feels of them. One of a hundredth of a millisecond can take
//! ten times as long by chance, and nobody waits for it.

use super::record::{Record, Report};
use super::step::STEP;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// What a slower kernel must add to a step before it counts, as a part of the step's time in the baseline.
const PART_OF_A_STEP: f64 = 0.0005;

/// Refuses a run with a case that is more than `percent` slower than in `baseline`; a kernel of a step also has to cost
/// the step more than 0.05 %.
///
/// # Errors
/// An input error where the two do not hold the same cases; a device error that lists the slower ones.
pub(crate) fn regress(current: &Report, baseline: &Report, percent: f64) -> Result<()> {
    let (judged, before) = (judged(current), judged(baseline));
    same_cases(&judged, &before)?;
    let peak = |report: &Report| report.fma_peak("f32").and_then(|record| record.gflops_median);
    let only_peaks = judged.values().all(|record| record.is_peak());
    let (scale, how) = match (peak(current), peak(baseline)) {
        (Some(now), Some(then)) if !only_peaks => (now / then, " relative to the multiply-add peak"),
        _ => (1.0, ""),
    };
    let slower = judged.iter().filter_map(|(key, record)| {
        let unfelt = PART_OF_A_STEP * step_ms(&before, record);
        let before = before.get(key)?;
        let now_ms = record.median_ms * scale;
        let change = 100.0 * (now_ms / before.median_ms - 1.0);
        // Written so that NaN fails.
        let within = change <= percent || now_ms - before.median_ms <= unfelt;
        (!within).then(|| {
            format!("{} by {change:.0} % ({:.4} ms, was {:.4} ms)", record.label(), record.median_ms, before.median_ms)
        })
    });
    let slower: Vec<String> = slower.collect();
    if slower.is_empty() {
        return Ok(());
    }
    Err(Error::device(format!(
        "{} of {} cases are more than {percent} % slower than the baseline{how}: {}; measure again on an idle machine, \
         find the change that did it, or accept it with a new baseline (--out)",
        slower.len(),
        judged.len(),
        slower.join("; ")
    )))
}

/// What is judged, by key: kernels, or peaks where there is nothing else.
fn judged(report: &Report) -> BTreeMap<String, &Record> {
    let of = |peaks: bool| -> BTreeMap<String, &Record> {
        let records = report.records.iter().filter(|record| record.is_peak() == peaks);
        records.map(|record| (record.key(), record)).collect()
    };
    let kernels = of(false);
    if kernels.is_empty() { of(true) } else { kernels }
}

/// Time of the step that a kernel is part of; 0 for a kernel of none, which then counts however short it is.
fn step_ms(before: &BTreeMap<String, &Record>, kernel: &Record) -> f64 {
    let step_of = |record: &&&Record| record.op == STEP && record.case == kernel.case && record.dtype == kernel.dtype;
    before.values().find(step_of).map_or(0.0, |step| step.median_ms)
}

fn same_cases(current: &BTreeMap<String, &Record>, baseline: &BTreeMap<String, &Record>) -> Result<()> {
    let missing = |of: &BTreeMap<String, &Record>, in_: &BTreeMap<String, &Record>| -> Vec<String> {
        of.iter().filter(|(key, _)| !in_.contains_key(*key)).map(|(_, record)| record.label()).collect()
    };
    let (new, gone) = (missing(current, baseline), missing(baseline, current));
    let Some(first) = new.first().or(gone.first()) else { return Ok(()) };
    Err(Error::input(format!(
        "the baseline holds other cases than this run: {} are new and {} are gone, such as {first}; run with the options \
         of the baseline, or make a new one with --out",
        new.len(),
        gone.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::super::record::Pass;
    use super::super::record::tests::{record, report};
    use super::*;

    fn peak(gflops: f64) -> Record {
        Record {
            op: "fma".into(),
            pass: Pass::Peak,
            dtype: "f32".into(),
            gflops_median: Some(gflops),
            median_ms: 1.0 / gflops,
            ..Record::default()
        }
    }

    #[test]
    fn a_slower_case_is_named() {
        let baseline = report(vec![record("x", 1.0), record("y", 1.0)]);
        regress(&baseline, &baseline, 0.0).unwrap();
        let now = report(vec![record("y", 1.3), record("x", 0.5)]);
        regress(&now, &baseline, 31.0).unwrap();
        let error = regress(&now, &baseline, 25.0).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert!(text.contains("1 of 2 cases") && text.contains("matmul y") && text.contains("30 %"), "{text}");
        let lost = report(vec![record("y", f64::NAN), record("x", 1.0)]);
        assert!(regress(&lost, &baseline, 25.0).is_err());
    }

    #[test]
    fn a_slower_machine_is_no_regression() {
        let baseline = report(vec![peak(100.0), record("x", 1.0)]);
        regress(&report(vec![peak(50.0), record("x", 2.0)]), &baseline, 1.0).unwrap();
        let error = regress(&report(vec![peak(100.0), record("x", 2.0)]), &baseline, 50.0).unwrap_err();
        assert!(error.to_string().contains("relative to the multiply-add peak"), "{error}");
        // Where one has no peak, times are compared, and a peak more or less is no other case.
        assert!(regress(&report(vec![record("x", 2.0)]), &baseline, 50.0).is_err());
    }

    #[test]
    fn peaks_are_judged_where_there_is_nothing_else() {
        let baseline = report(vec![peak(100.0)]);
        regress(&baseline, &baseline, 1.0).unwrap();
        assert!(regress(&report(vec![peak(50.0)]), &baseline, 50.0).is_err());
    }

    #[test]
    fn a_kernel_that_a_step_does_not_feel_is_not_judged() {
        let of_a_step = |op: &str, case: &str, ms: f64| Record { op: op.into(), pass: Pass::Step, ..record(case, ms) };
        let step = |kernel_ms: f64, total_ms: f64| {
            report(vec![
                of_a_step(STEP, "tiny", total_ms),
                of_a_step("reduce:finish_norm", "tiny", kernel_ms),
                of_a_step("reduce:finish_norm", "of no step", 0.01),
            ])
        };
        let baseline = step(0.01, 100.0);
        regress(&step(0.059, 100.0), &baseline, 300.0).unwrap();
        let error = regress(&step(0.061, 100.0), &baseline, 300.0).unwrap_err().to_string();
        assert!(error.contains("1 of 3 cases") && error.contains("finish_norm tiny"), "{error}");
        assert!(regress(&step(0.01, 401.0), &baseline, 300.0).is_err());
        assert!(regress(&step(f64::NAN, 100.0), &baseline, 300.0).is_err());
        let mut alone = step(0.01, 100.0);
        alone.records[2].median_ms = 0.041;
        assert!(regress(&alone, &baseline, 300.0).unwrap_err().to_string().contains("of no step"));
    }

    #[test]
    fn other_cases_are_refused() {
        let (x, both) = (report(vec![record("x", 1.0)]), report(vec![record("x", 1.0), record("y", 1.0)]));
        for (now, baseline) in [(&x, &both), (&both, &x)] {
            let error = regress(now, baseline, 10.0).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("matmul y"), "{error}");
        }
    }
}
