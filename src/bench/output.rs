//! A report as text: Markdown for people, CSV, JSON and JSON lines for programs.

use super::record::{Record, Report};
use super::table::Table;
use crate::error::{Error, Result};
use serde::Serialize;

/// Form of the results on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
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
pub fn render(report: &Report, format: Format) -> Result<String> {
    match format {
        Format::Md => Ok(markdown(report)),
        Format::Csv => Ok(full_table(&report.records).csv()),
        Format::Json => report.json(),
        Format::Jsonl => lines(&report.records),
    }
}

/// One JSON object a line.
///
/// # Errors
/// None that can be met: there is nothing in it that JSON cannot hold.
pub fn lines<T: Serialize>(records: &[T]) -> Result<String> {
    let line = |record| serde_json::to_string(record).map(|text| text + "\n");
    records.iter().map(line).collect::<Result<_, _>>().map_err(|cause| Error::input(format!("no JSON: {cause}")))
}

fn markdown(report: &Report) -> String {
    let mut text = format!("{}; {}, {} cores\n\n", report.adapter.line(), report.date, report.host.cores);
    let (parts, whole): (Vec<&Record>, Vec<&Record>) =
        report.records.iter().partition(|record| record.share_percent.is_some());
    text += &short_table(&whole).markdown();
    if !report.facts.is_empty() {
        text.push('\n');
    }
    for fact in &report.facts {
        text += &format!("- {}: {} {}\n", fact.name, digits(fact.value), fact.unit);
    }
    if !parts.is_empty() {
        text += &format!("\n{}", parts_table(&parts).markdown());
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

/// The kernels of a step.
fn parts_table(records: &[&Record]) -> Table {
    let mut table =
        Table::new(&["kernel", "calls", "ms", "share %", "GFLOP/s", "best GFLOP/s", "spread %", "clock", "note"]);
    for record in records {
        table.rows.push(vec![
            record.op.clone(),
            record.calls.map(|calls| calls.to_string()).unwrap_or_default(),
            digits(record.median_ms),
            record.share_percent.map(|share| format!("{share:.1}")).unwrap_or_default(),
            optional(record.gflops_median),
            optional(record.gflops_best),
            format!("{:.1}", record.spread_percent),
            record.clock.name().to_owned(),
            record.remark(),
        ]);
    }
    table
}

/// What fits a screen.
fn short_table(records: &[&Record]) -> Table {
    let mut table = Table::new(&[
        "op",
        "case",
        "pass",
        "dtype",
        "candidate",
        "config",
        "ms",
        "GFLOP/s",
        "best",
        "of peak %",
        "GB/s",
        "best GB/s",
        "tokens/s",
        "spread %",
        "clock",
        "note",
    ]);
    for record in records {
        table.rows.push(vec![
            record.op.clone(),
            record.case.clone(),
            record.pass.clone(),
            record.dtype.clone(),
            record.candidate.clone(),
            record.config.clone().unwrap_or_default(),
            digits(record.median_ms),
            optional(record.gflops_median),
            optional(record.gflops_best),
            record.peak_percent.map(|share| format!("{share:.1}")).unwrap_or_default(),
            optional(record.gbytes_median),
            optional(record.gbytes_best),
            optional(record.tokens_per_second),
            format!("{:.1}", record.spread_percent),
            record.clock.name().to_owned(),
            record.remark(),
        ]);
    }
    table
}

/// Every field; samples separated by semicolons.
fn full_table(records: &[Record]) -> Table {
    let mut table = Table::new(&[
        "op",
        "case",
        "pass",
        "layout",
        "m",
        "n",
        "k",
        "dtype",
        "candidate",
        "config",
        "flops",
        "bytes",
        "gflops_median",
        "gflops_best",
        "gbytes_median",
        "gbytes_best",
        "tokens_per_second",
        "calls",
        "share_percent",
        "peak_percent",
        "samples_ms",
        "median_ms",
        "best_ms",
        "spread_percent",
        "repeats",
        "clock",
        "unsteady",
        "note",
    ]);
    let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    let size = |value: Option<usize>| value.map(|value| value.to_string()).unwrap_or_default();
    for record in records {
        table.rows.push(vec![
            record.op.clone(),
            record.case.clone(),
            record.pass.clone(),
            record.layout.clone().unwrap_or_default(),
            size(record.m),
            size(record.n),
            size(record.k),
            record.dtype.clone(),
            record.candidate.clone(),
            record.config.clone().unwrap_or_default(),
            record.flops.to_string(),
            record.bytes.to_string(),
            number(record.gflops_median),
            number(record.gflops_best),
            number(record.gbytes_median),
            number(record.gbytes_best),
            number(record.tokens_per_second),
            size(record.calls),
            number(record.share_percent),
            number(record.peak_percent),
            record.samples_ms.iter().map(f64::to_string).collect::<Vec<_>>().join(";"),
            record.median_ms.to_string(),
            record.best_ms.to_string(),
            record.spread_percent.to_string(),
            record.repeats.to_string(),
            record.clock.name().to_owned(),
            record.unsteady.to_string(),
            record.note.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn optional(value: Option<f64>) -> String {
    value.map(digits).unwrap_or_default()
}

/// Four significant digits, without an exponent.
pub fn digits(value: f64) -> String {
    let magnitude = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let decimals = (3.0 - magnitude).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{record, report};
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        for (value, text) in
            [(0.0, "0.000"), (1.0, "1.000"), (15.317, "15.32"), (12_345.6, "12346"), (0.001_234_5, "0.001234")]
        {
            assert_eq!(digits(value), text);
        }
    }

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
        let csv = full_table(&[record("a", 1.0)]);
        let json = serde_json::to_value(record("a", 1.0)).unwrap();
        let fields: std::collections::BTreeSet<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(csv.head.iter().cloned().collect::<std::collections::BTreeSet<_>>(), fields);
        assert_eq!(csv.head.len(), csv.rows[0].len());
    }
}
