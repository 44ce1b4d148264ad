//! Two reports against each other, case by case.

use super::output::Format;
use super::record::{Record, Report};
use crate::error::Result;
use crate::report::escape::json_lines;
use crate::report::number::digits;
use crate::report::table::Table;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One case of both reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pair {
    /// The case in a few words.
    pub case: String,
    /// Median in the first report, milliseconds.
    pub a_ms: f64,
    /// Median in the second, milliseconds.
    pub b_ms: f64,
    /// Median of the second over that of the first: above 1, the second is slower.
    pub ratio: f64,
    /// Interquartile range over median in the first, percent.
    pub a_spread_percent: f64,
    /// The same in the second.
    pub b_spread_percent: f64,
}

/// Two reports, case by case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Matched {
    /// Adapter of the first report.
    pub a_adapter: String,
    /// Adapter of the second.
    pub b_adapter: String,
    /// Cases of both, in the order of the first.
    pub pairs: Vec<Pair>,
    /// Cases of the first only.
    pub only_a: Vec<String>,
    /// Cases of the second only.
    pub only_b: Vec<String>,
}

/// Matches the records of two reports by [`Record::key`]. Of several with one key, the first counts.
pub(crate) fn compare(a: &Report, b: &Report) -> Matched {
    let mut of_b: BTreeMap<String, &Record> = BTreeMap::new();
    for record in &b.records {
        of_b.entry(record.key()).or_insert(record);
    }
    let mut matched = Matched { a_adapter: a.adapter.line(), b_adapter: b.adapter.line(), ..Matched::default() };
    let mut seen = BTreeSet::new();
    for record in &a.records {
        if !seen.insert(record.key()) {
            continue;
        }
        match of_b.get(&record.key()) {
            Some(other) => matched.pairs.push(Pair {
                case: record.label(),
                a_ms: record.median_ms,
                b_ms: other.median_ms,
                ratio: other.median_ms / record.median_ms,
                a_spread_percent: record.spread_percent,
                b_spread_percent: other.spread_percent,
            }),
            None => matched.only_a.push(record.label()),
        }
    }
    let missing = b.records.iter().filter(|record| seen.insert(record.key()));
    matched.only_b = missing.map(Record::label).collect();
    matched
}

impl Matched {
    /// Both in a format, ending in a line break.
    ///
    /// # Errors
    /// None that can be met.
    pub(crate) fn render(&self, format: Format) -> Result<String> {
        match format {
            Format::Md => Ok(self.markdown()),
            Format::Csv => self.table(f64::to_string).csv(),
            Format::Json => json_lines(std::slice::from_ref(self)),
            Format::Jsonl => json_lines(&self.pairs),
        }
    }

    fn markdown(&self) -> String {
        let mut text = format!("a: {}\nb: {}\n\n", self.a_adapter, self.b_adapter);
        text += &self.table(|&value| digits(value)).aligned();
        for (name, cases) in [("a", &self.only_a), ("b", &self.only_b)] {
            if !cases.is_empty() {
                text += &format!("\nonly in {name}: {}\n", cases.join("; "));
            }
        }
        text
    }

    fn table(&self, number: impl Fn(&f64) -> String) -> Table {
        let mut table = Table::new(["case", "a ms", "b ms", "b / a", "spread a %", "spread b %"]);
        for pair in &self.pairs {
            let numbers = [pair.a_ms, pair.b_ms, pair.ratio, pair.a_spread_percent, pair.b_spread_percent];
            table.rows.push(std::iter::once(pair.case.clone()).chain(numbers.iter().map(&number)).collect());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{record, report};
    use super::*;

    #[test]
    fn cases_are_matched_by_what_they_are() {
        let mut a = report(vec![record("x", 2.0), record("y", 1.0), record("x", 9.0)]);
        a.adapter.name = "first".into();
        let b = report(vec![record("z", 1.0), record("x", 3.0)]);
        let matched = compare(&a, &b);
        assert_eq!(matched.pairs.len(), 1);
        assert_eq!(matched.pairs[0].ratio, 1.5);
        assert_eq!((matched.only_a.len(), matched.only_b.len()), (1, 1));
        assert!(matched.only_a[0].contains(" y ") && matched.only_b[0].contains(" z "));

        let text = matched.render(Format::Md).unwrap();
        assert!(text.starts_with("a: first") && text.contains("1.500") && text.contains("only in b: "), "{text}");
        assert_eq!(matched.render(Format::Jsonl).unwrap().lines().count(), 1);
        let json = matched.render(Format::Json).unwrap();
        assert_eq!(serde_json::from_str::<Matched>(&json).unwrap(), matched);
        assert!(matched.render(Format::Csv).unwrap().starts_with("case,a ms,"));
    }
}
