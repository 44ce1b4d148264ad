//! The tables of a report, as text that Markdown and HTML write each in their way.

use super::budget::{Axis, Timeline};
use super::comparison::{Comparisons, Row, Table as Compared, interval};
use super::results::{Case, Findings, Growth, Measured, Trial};
use super::statistics::{deviation, mean};
use super::{arm, plan, words};
use crate::config::{Arch, ModelConfig, Module};
use crate::train::growth::Rules;
use serde_json::Value;

/// A table of text. The first column names the row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Column headings.
    pub head: Vec<String>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { head: head.map(str::to_owned).into(), rows: Vec::new() }
    }
}

/// What an arm of a study file is, in words.
pub fn what(arm: &arm::Arm) -> String {
    let mut models = vec![arm.config.model.clone()];
    for growth in &arm.growths {
        let grown = models.last().and_then(|model| growth.config.check(model).ok());
        models.extend(grown);
    }
    of_models(&models)
}

/// A model and what it grows to, in words.
pub fn of_models(models: &[ModelConfig]) -> String {
    let Some(first) = models.first() else { return String::new() };
    let arch = match first.arch {
        Arch::Tokenformer => "TokenFormer",
        Arch::Transformer => "Transformer",
    };
    let shape = |model: &ModelConfig| match model.arch {
        Arch::Tokenformer => {
            let slots = [Module::Query, Module::Proj, Module::Mlp].map(|module| model.slots(module).to_string());
            format!("{} layers of {} tokens", model.num_layers, slots.join("/"))
        }
        Arch::Transformer => format!("{} layers of {} MLP units", model.num_layers, model.mlp_width()),
    };
    let shapes: Vec<String> = models.iter().map(shape).collect();
    format!("{arch}, width {}, {}", first.hidden_size, shapes.join(" \u{2192} "))
}

/// What the budgets table says of one arm at one length.
pub struct Budget<'a> {
    /// Name of the arm.
    pub name: &'a str,
    /// What set the length.
    pub length: &'a str,
    /// Steps.
    pub steps: u64,
    /// What they cost.
    pub timeline: &'a Timeline,
    /// Parameters at the start and at the end.
    pub parameters: [u64; 2],
    /// Mean seconds of a run, once known.
    pub seconds: Option<f64>,
}

/// What every arm costs at each of its lengths.
pub fn budgets(rows: &[Budget]) -> Table {
    let mut table = Table::new([
        "arm",
        "length",
        "steps",
        "tokens",
        "FLOPs",
        "tokens after growth",
        "FLOPs after growth",
        "parameters",
        "time of a run",
    ]);
    for row in rows {
        let since = row.steps.saturating_sub(row.timeline.last_growth());
        let at = |axis| row.timeline.at(axis, row.steps).unwrap_or(0.0);
        let [start, end] = row.parameters;
        let whole = words::whole(end);
        table.rows.push(vec![
            row.name.to_owned(),
            row.length.to_owned(),
            words::whole(row.steps),
            words::whole(at(Axis::Tokens) as u64),
            words::flops(at(Axis::Flops)),
            words::whole(row.timeline.tokens(since) as u64),
            words::flops(at(Axis::MarginalFlops)),
            if start == end { whole } else { format!("{} \u{2192} {whole}", words::whole(start)) },
            row.seconds.map_or("after the run".to_owned(), words::seconds),
        ]);
    }
    table
}

/// The budgets of a plan, before anything runs.
pub fn planned(plan: &plan::Plan) -> Table {
    let name = |case: &Case| plan.study.arms.get(case.arm).map_or("", |arm| arm.name.as_str());
    let rows: Vec<Budget> = plan
        .cases
        .iter()
        .map(|case| Budget {
            name: name(case),
            length: &case.length,
            steps: case.steps,
            timeline: &case.timeline,
            parameters: case.parameters,
            seconds: None,
        })
        .collect();
    let mut table = budgets(&rows);
    // Times come after the run.
    table.head.pop();
    table.rows.iter_mut().for_each(|row| drop(row.pop()));
    table
}

/// The budgets of what was run.
pub fn spent(findings: &Findings) -> Table {
    let seconds = |case: &Case| mean(&case.measured().map(|(_, run)| run.wall_seconds).collect::<Vec<_>>());
    let row = |case: &'_ Case| (seconds(case), case.parameters);
    let rows: Vec<Budget> = findings
        .cases
        .iter()
        .map(|case| {
            let (seconds, parameters) = row(case);
            let name = findings.name(case.arm);
            Budget { name, length: &case.length, steps: case.steps, timeline: &case.timeline, parameters, seconds }
        })
        .collect();
    budgets(&rows)
}

/// Losses at the end of every arm and length.
pub fn ends(findings: &Findings) -> Table {
    let mut table = Table::new(["arm", "tokens", "FLOPs", "mean loss", "std. dev.", "n"]);
    for case in &findings.cases {
        let losses: Vec<f64> = case.final_losses().into_iter().map(|(_, loss)| loss).collect();
        table.rows.push(vec![
            findings.name(case.arm).to_owned(),
            words::whole(case.end(Axis::Tokens) as u64),
            words::flops(case.end(Axis::Flops)),
            optional(mean(&losses)),
            optional(deviation(&losses)),
            counted(losses.len(), case.runs.len()),
        ]);
    }
    table
}

/// "3", or "2 of 3" where a run diverged.
fn counted(good: usize, all: usize) -> String {
    if good == all { good.to_string() } else { format!("{good} of {all} (others diverged)") }
}

fn optional(value: Option<f64>) -> String {
    value.map_or("\u{2013}".to_owned(), words::loss)
}

/// What an interval allows to say.
pub fn finding(row: &Row) -> &'static str {
    match (&row.reading, interval(row), row.difference) {
        (None, ..) => "not reached",
        (_, Some((_, (_, high))), _) if high < 0.0 => "better",
        (_, Some((_, (low, _))), _) if low > 0.0 => "worse",
        (_, Some(_), _) => "no difference shown",
        (_, None, Some(_)) => "one pair: no interval",
        (_, None, None) => "no pair",
    }
}

/// All arms at one point.
pub fn compared(findings: &Findings, table: &Compared) -> Table {
    let head = ["arm", "finding", "difference", "95 % interval", "mean loss", "std. dev.", "n", "read at"];
    let mut text = Table::new(head);
    for row in &table.rows {
        let reading = row.reading.as_ref();
        let is_reference = row.arm == findings.reference;
        text.rows.push(vec![
            findings.name(row.arm).to_owned(),
            if is_reference { "reference" } else { finding(row) }.to_owned(),
            row.difference.map_or("\u{2013}".to_owned(), |difference| words::signed(difference.mean)),
            interval(row).map_or("\u{2013}".to_owned(), |(_, (low, high))| {
                format!("{} to {}", words::signed(low), words::signed(high))
            }),
            optional(reading.and_then(|reading| reading.mean())),
            optional(reading.and_then(|reading| reading.deviation())),
            reading.map_or(0, |reading| reading.losses.len()).to_string(),
            reading.map_or("not reached".to_owned(), |reading| reading.place.words()),
        ]);
    }
    text
}

/// How many findings there are of a kind.
pub fn count(comparisons: &Comparisons, kind: &str) -> usize {
    comparisons.tables.iter().flat_map(|table| &table.rows).filter(|row| finding(row) == kind).count()
}

/// What each growth did.
pub fn growths(findings: &Findings) -> Table {
    let mut table = Table::new(["arm", "growth", "policy", "max |logit change|", "spike", "recovery, tokens", "runs"]);
    for case in &findings.cases {
        let steps = &case.timeline.growth_steps;
        for (number, at) in steps.iter().enumerate() {
            // The first ones may have been made in a file, and are not among those that a run measured.
            let own = |run: &Measured| number.checked_sub(steps.len().saturating_sub(run.growths.len()));
            let all: Vec<&Growth> = case.measured().filter_map(|(_, run)| run.growths.get(own(run)?)).collect();
            let Some(first) = all.first() else { continue };
            let values = |value: fn(&Growth) -> f64| all.iter().map(|growth| value(growth)).collect::<Vec<f64>>();
            let recovered: Vec<f64> = all.iter().filter_map(|growth| growth.recovery_tokens).collect();
            let never = all.len() - recovered.len();
            let recovery = match (mean(&recovered), never) {
                (None, _) => "not recovered by the end".to_owned(),
                (Some(tokens), 0) => words::whole(tokens as u64),
                (Some(tokens), never) => format!("{}; not in {never} of {}", words::whole(tokens as u64), all.len()),
            };
            let logits = values(|growth| growth.record.max_logit_change).into_iter().fold(0.0, f64::max);
            table.rows.push(vec![
                findings.name(case.arm).to_owned(),
                format!("step {} of {}", words::whole(*at), words::whole(case.steps)),
                policy(&first.record.rules),
                if logits == 0.0 { "0 in bits".to_owned() } else { format!("{logits:.1e}") },
                range(&values(Growth::spike)),
                recovery,
                all.len().to_string(),
            ]);
        }
    }
    table
}

/// Mean, and the least and the most where they differ.
fn range(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let middle = mean(values).map_or(String::new(), words::signed);
    if least == most { middle } else { format!("{middle} ({} to {})", words::signed(least), words::signed(most)) }
}

/// A policy, and its scale rule where that is not the policy's own.
fn policy(rules: &Rules) -> String {
    let rules = rules.json();
    let word = |key: &str| rules.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, keys, tau) = (word("policy"), word("init_keys"), word("tau"));
    let mut more = Vec::new();
    let usual = if name == "official" { ("random", "sqrt_n") } else { ("zero", "keep") };
    if !keys.is_empty() && keys != usual.0 {
        more.push(format!("{keys} keys"));
    }
    if !tau.is_empty() && tau != usual.1 {
        more.push(if tau == "sqrt_n" { "tau = \u{221a}N".to_owned() } else { "tau kept".to_owned() });
    }
    if more.is_empty() { name } else { format!("{name}, {}", more.join(", ")) }
}

/// Every learning rate that was tried; `None` where there was nothing to choose.
pub fn trials(findings: &Findings) -> Option<Table> {
    let rates: Vec<f64> = findings.arms.first()?.trials.iter().map(|trial| trial.rate).collect();
    let mut rates: Vec<f64> = rates.into_iter().collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    if rates.is_empty() {
        return None;
    }
    let mut head = vec!["arm".to_owned(), "steps of a trial".to_owned()];
    head.extend(rates.iter().map(|rate| format!("lr {rate:e}")));
    head.push("chosen".to_owned());
    let mut table = Table { head, rows: Vec::new() };
    for arm in &findings.arms {
        let loss = |rate: f64| {
            let of: Vec<&Trial> = arm.trials.iter().filter(|trial| trial.rate == rate).collect();
            let losses: Option<Vec<f64>> = of.iter().map(|trial| trial.loss).collect();
            losses.and_then(|losses| mean(&losses)).map_or("diverged".to_owned(), words::loss)
        };
        let mut row = vec![arm.name.clone(), arm.trials.first().map_or(0, |trial| trial.steps).to_string()];
        row.extend(rates.iter().map(|rate| loss(*rate)));
        let edge = rates.len() > 1 && [rates.first(), rates.last()].contains(&Some(&arm.rate));
        row.push(format!("{:e}{}", arm.rate, if edge { ", an end of the list" } else { "" }));
        table.rows.push(row);
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::super::comparison::{compare, tests::findings};
    use super::*;
    use serde_json::json;

    #[test]
    fn every_table_has_full_rows() {
        let found = findings();
        let all = compare(&found);
        let tables = [spent(&found), ends(&found), growths(&found), compared(&found, &all.tables[0])];
        for table in tables {
            assert!(table.rows.iter().all(|row| row.len() == table.head.len()), "{table:?}");
        }
        assert_eq!(compared(&found, &all.tables[0]).rows[1][1], "better");
        assert_eq!(compared(&found, &all.tables[0]).rows[2][7], "not reached");
        assert_eq!((count(&all, "better"), trials(&found)), (3, None));
    }

    #[test]
    fn a_policy_is_named_with_what_is_unusual_about_it() {
        let of = |json| policy(&Rules::of(json));
        let rules = |policy: &str, keys: &str, tau: &str| json!({"policy": policy, "init_keys": keys, "tau": tau});
        assert_eq!(of(rules("preserving", "zero", "keep")), "preserving");
        assert_eq!(of(rules("preserving", "zero", "sqrt_n")), "preserving, tau = \u{221a}N");
        assert_eq!(of(rules("official", "random", "sqrt_n")), "official");
        assert_eq!(of(json!({"policy": "stack"})), "stack");
    }
}
