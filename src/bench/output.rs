//! A report as text: Markdown for people, CSV, JSON and JSON lines for programs.

use super::record::{Record, Report};
use crate::error::Result;
use crate::report::escape::json_lines;
use crate::report::number::digits;
use crate::report::table::Table;

/// Form of the results on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table to read.
    #[default]
    Md,
    /// One line a case, with a heading.
    Csv,
    /// The whole report: adapter, host, facts, records.
    Json,
    /// One JSON object a line, each a record.
    Jsonl,
}

/// The report in a format, ending in a line break.
///
/// # Errors
/// None that can be met.
pub(crate) fn render(report: &Report, format: Format) -> Result<String> {
    match format {
        Format::Md => Ok(markdown(report)),
        Format::Csv => Table::of(&report.records, &ALL).csv(),
        Format::Json => report.json(),
        Format::Jsonl => json_lines(&report.records),
    }
}

fn markdown(report: &Report) -> String {
    let mut text = format!("{}; {}, {} cores\n\n", report.adapter.line(), report.date, report.host.cores);
    let (parts, whole): (Vec<&Record>, Vec<&Record>) =
        report.records.iter().partition(|record| record.share_percent.is_some());
    text += &Table::of(whole, &SHORT).aligned();
    if !report.facts.is_empty() {
        text.push('\n');
    }
    for fact in &report.facts {
        text += &format!("- {}: {} {}\n", fact.name, digits(fact.value), fact.unit);
    }
    if !parts.is_empty() {
        text += &format!("\n{}", Table::of(parts, &PARTS).aligned());
    }
    if !report.drifts.is_empty() {
        text.push('\n');
    }
    for drift in &report.drifts {
        text += &format!("- {drift}\n");
    }
    for line in &report.summary {
        text += &format!("\n{line}\n");
    }
    text
}

/// Name of a column, and its cell of a record.
type Column = (&'static str, fn(&Record) -> String);

/// Of the kernels of a step.
const PARTS: [Column; 9] = [
    ("kernel", |record| record.op.clone()),
    ("calls", |record| shown(record.calls)),
    ("ms", |record| digits(record.median_ms)),
    ("share %", |record| percent(record.share_percent)),
    ("GFLOP/s", |record| rate(record.gflops_median)),
    ("best GFLOP/s", |record| rate(record.gflops_best)),
    ("spread %", |record| percent(Some(record.spread_percent))),
    ("clock", |record| record.clock.name().to_owned()),
    ("note", Record::remark),
];

/// What fits a screen.
const SHORT: [Column; 16] = [
    ("op", |record| record.op.clone()),
    ("case", |record| record.case.clone()),
    ("pass", |record| record.pass.name().to_owned()),
    ("dtype", |record| record.dtype.clone()),
    ("candidate", |record| record.candidate.clone()),
    ("config", |record| shown(record.config.as_ref())),
    ("ms", |record| digits(record.median_ms)),
    ("GFLOP/s", |record| rate(record.gflops_median)),
    ("best", |record| rate(record.gflops_best)),
    ("of peak %", |record| percent(record.peak_percent)),
    ("GB/s", |record| rate(record.gbytes_median)),
    ("best GB/s", |record| rate(record.gbytes_best)),
    ("tokens/s", |record| rate(record.tokens_per_second)),
    ("spread %", |record| percent(Some(record.spread_percent))),
    ("clock", |record| record.clock.name().to_owned()),
    ("note", Record::remark),
];

/// Every field; samples separated by semicolons.
const ALL: [Column; 28] = [
    ("op", |record| record.op.clone()),
    ("case", |record| record.case.clone()),
    ("pass", |record| record.pass.name().to_owned()),
    ("layout", |record| shown(record.layout.as_ref())),
    ("m", |record| shown(record.m)),
    ("n", |record| shown(record.n)),
    ("k", |record| shown(record.k)),
    ("dtype", |record| record.dtype.clone()),
    ("candidate", |record| record.candidate.clone()),
    ("config", |record| shown(record.config.as_ref())),
    ("flops", |record| record.flops.to_string()),
    ("bytes", |record| record.bytes.to_string()),
    ("gflops_median", |record| shown(record.gflops_median)),
    ("gflops_best", |record| shown(record.gflops_best)),
    ("gbytes_median", |record| shown(record.gbytes_median)),
    ("gbytes_best", |record| shown(record.gbytes_best)),
    ("tokens_per_second", |record| shown(record.tokens_per_second)),
    ("calls", |record| shown(record.calls)),
    ("share_percent", |record| shown(record.share_percent)),
    ("peak_percent", |record| shown(record.peak_percent)),
    ("samples_ms", |record| record.samples_ms.iter().map(f64::to_string).collect::<Vec<_>>().join(";")),
    ("median_ms", |record| record.median_ms.to_string()),
    ("best_ms", |record| record.best_ms.to_string()),
    ("spread_percent", |record| record.spread_percent.to_string()),
    ("repeats", |record| record.repeats.to_string()),
    ("clock", |record| record.clock.name().to_owned()),
    ("unsteady", |record| record.unsteady.to_string()),
    ("note", |record| shown(record.note.as_ref())),
];

/// A value where there is one.
fn shown(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn percent(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.1}")).unwrap_or_default()
}

fn rate(value: Option<f64>) -> String {
    value.map(digits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{record, report};
    use super::*;

    #[test]
    fn every_format_has_every_case() {
        let mut awkward = record("a, \"b\"", 1.0);
        awkward.note = Some("x | y".into());
        let report = report(vec![awkward, record("b", 2.0)]);
        let csv = render(&report, Format::Csv).unwrap();
        let columns: Vec<_> = csv.lines().next().unwrap().split(',').collect();
        for field in [
            "op",
            "case",
            "pass",
            "layout",
            "m",
            "n",
            "k",
            "dtype",
            "candidate",
            "gflops_median",
            "samples_ms",
            "clock",
        ] {
            assert!(columns.contains(&field), "{field}");
        }
        assert_eq!(csv.lines().count(), 3);
        assert!(csv.contains("matmul,\"a, \"\"b\"\"\",forward,NN,8,8,8,f32,registers,,1024,768,"), "{csv}");

        let jsonl = render(&report, Format::Jsonl).unwrap();
        let read: Vec<Record> = jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, report.records);

        let json = render(&report, Format::Json).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);

        let md = render(&report, Format::Md).unwrap();
        assert!(md.contains("x \\| y") && !md.contains("tokens/s"), "{md}");
    }

    #[test]
    fn the_heading_of_the_csv_matches_the_fields_of_the_json() {
        let csv = Table::of(&[record("a", 1.0)], &ALL);
        let json = serde_json::to_value(record("a", 1.0)).unwrap();
        let fields: std::collections::BTreeSet<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(csv.head.iter().cloned().collect::<std::collections::BTreeSet<_>>(), fields);
        assert_eq!(csv.head.len(), csv.rows[0].len());
    }
}
