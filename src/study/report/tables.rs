//! The tables of a report.

use super::words;
use crate::config::{GrowthConfig, InitKeys, TauRule};
use crate::report::number;
use crate::report::table::Table;
use crate::study::budget::Axis;
use crate::study::comparison::Comparison;
use crate::study::plan::StudyPlan;
use crate::study::results::{Findings, Measured, MeasuredGrowth, StudyCase, Trial};
use crate::study::statistics::{deviation, mean};
use crate::train::growth::Rules;
use serde_json::Value;

/// What every arm costs at each of its lengths.
fn budgets<'a>(cases: &[StudyCase], name: impl Fn(usize) -> &'a str) -> Table {
    let head = ["arm", "length", "steps", "tokens", "FLOPs", "tokens after growth", "FLOPs after growth", "parameters"];
    let mut table = Table::new(head);
    for case in cases {
        let since = case.steps.saturating_sub(case.timeline.last_growth());
        let [start, end] = case.parameters.map(number::grouped);
        table.rows.push(vec![
            name(case.arm).to_owned(),
            case.length.clone(),
            number::grouped(case.steps),
            number::grouped(case.end(Axis::Tokens) as u64),
            number::flops(case.end(Axis::Flops)),
            number::grouped(case.timeline.tokens(since) as u64),
            number::flops(case.end(Axis::MarginalFlops)),
            if start == end { end } else { format!("{start} \u{2192} {end}") },
        ]);
    }
    table
}

/// The budgets of a plan, before anything runs.
pub fn planned(plan: &StudyPlan) -> Table {
    budgets(&plan.cases, |arm| plan.study.arms.get(arm).map_or("", |arm| &arm.name))
}

/// The budgets of what was run, with the mean time of a run.
pub fn spent(findings: &Findings) -> Table {
    let mut table = budgets(&findings.cases, |arm| findings.name(arm));
    table.head.push("time of a run".to_owned());
    for (row, case) in table.rows.iter_mut().zip(&findings.cases) {
        let seconds = mean(&case.measured().map(|(_, run)| run.wall_seconds).collect::<Vec<_>>());
        row.push(seconds.map_or("after the run".to_owned(), number::seconds));
    }
    table
}

/// Losses at the end of every arm and length.
pub fn ends(findings: &Findings) -> Table {
    let mut table = Table::new(["arm", "tokens", "FLOPs", "mean loss", "std. dev.", "n"]);
    for case in &findings.cases {
        let losses: Vec<f64> = case.final_losses().into_iter().map(|(_, loss)| loss).collect();
        table.rows.push(vec![
            findings.name(case.arm).to_owned(),
            number::grouped(case.end(Axis::Tokens) as u64),
            number::flops(case.end(Axis::Flops)),
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
    value.map_or("\u{2013}".to_owned(), number::loss)
}

/// All arms at one point.
pub fn compared(findings: &Findings, comparison: &Comparison) -> Table {
    let head = ["arm", "finding", "difference", "95 % interval", "mean loss", "std. dev.", "n", "read at"];
    let mut text = Table::new(head);
    for row in &comparison.rows {
        let reading = row.reading.as_ref();
        let is_reference = row.arm == findings.reference;
        text.rows.push(vec![
            findings.name(row.arm).to_owned(),
            if is_reference { "reference" } else { words::finding(row.finding()) }.to_owned(),
            row.difference.map_or("\u{2013}".to_owned(), |difference| number::signed(difference.mean)),
            row.interval().map_or("\u{2013}".to_owned(), |(_, ends)| words::span(ends)),
            optional(reading.and_then(|reading| reading.mean())),
            optional(reading.and_then(|reading| reading.deviation())),
            reading.map_or(0, |reading| reading.losses.len()).to_string(),
            reading.map_or("not reached".to_owned(), |reading| words::place(reading.place)),
        ]);
    }
    text
}

/// What each growth did.
pub fn growths(findings: &Findings) -> Table {
    let mut table = Table::new(["arm", "growth", "policy", "max |logit change|", "spike", "recovery, tokens", "runs"]);
    for case in &findings.cases {
        let steps = &case.timeline.growth_steps;
        for (index, at) in steps.iter().enumerate() {
            // The first ones may have been made in a file, and are not among those that a run measured.
            let own = |run: &Measured| index.checked_sub(steps.len().saturating_sub(run.growths.len()));
            let all: Vec<&MeasuredGrowth> = case.measured().filter_map(|(_, run)| run.growths.get(own(run)?)).collect();
            let Some(first) = all.first() else { continue };
            let values =
                |value: fn(&MeasuredGrowth) -> f64| all.iter().map(|growth| value(growth)).collect::<Vec<f64>>();
            let recovered: Vec<f64> = all.iter().filter_map(|growth| growth.recovery_tokens).collect();
            let never = all.len() - recovered.len();
            let recovery = match (mean(&recovered), never) {
                (None, _) => "not recovered by the end".to_owned(),
                (Some(tokens), 0) => number::grouped(tokens as u64),
                (Some(tokens), never) => format!("{}; not in {never} of {}", number::grouped(tokens as u64), all.len()),
            };
            let logits = values(|growth| growth.record.max_logit_change).into_iter().fold(0.0, f64::max);
            table.rows.push(vec![
                findings.name(case.arm).to_owned(),
                format!("step {} of {}", number::grouped(*at), number::grouped(case.steps)),
                policy(&first.record.rules),
                if logits == 0.0 { "0 in bits".to_owned() } else { format!("{logits:.1e}") },
                range(&values(MeasuredGrowth::spike)),
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
    let middle = mean(values).map_or(String::new(), number::signed);
    if least == most { middle } else { format!("{middle} ({} to {})", number::signed(least), number::signed(most)) }
}

/// The name of a policy, and the rules that are not its own.
fn policy(rules: &Rules) -> String {
    let name = rules.json().get("policy").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Rules::Growth(rules) = rules else { return name };
    let own = GrowthConfig { policy: rules.policy, ..GrowthConfig::default() }.resolve();
    let keys = rules.init_keys.filter(|_| rules.init_keys != own.init_keys).map(|keys| match keys {
        InitKeys::Zero => "zero keys",
        InitKeys::Random => "random keys",
    });
    let tau = rules.tau.filter(|_| rules.tau != own.tau).map(|tau| match tau {
        TauRule::Keep => "tau kept",
        TauRule::SqrtN => "tau = \u{221a}N",
    });
    [Some(name.as_str()), keys, tau].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Every learning rate that was tried; `None` where there was nothing to choose.
pub fn trials(findings: &Findings) -> Option<Table> {
    let mut rates: Vec<f64> = findings.arms.first()?.trials.iter().map(|trial| trial.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    if rates.is_empty() {
        return None;
    }
    let tried = rates.iter().map(|rate| format!("lr {rate:e}"));
    let head = ["arm".to_owned(), "steps of a trial".to_owned()].into_iter().chain(tried);
    let mut table = Table::new(head.chain(["chosen".to_owned()]));
    for arm in &findings.arms {
        let loss = |rate: f64| {
            let of: Vec<&Trial> = arm.trials.iter().filter(|trial| trial.rate == rate).collect();
            let losses: Option<Vec<f64>> = of.iter().map(|trial| trial.loss).collect();
            losses.and_then(|losses| mean(&losses)).map_or("diverged".to_owned(), number::loss)
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
    use super::*;
    use crate::config::GrowthPolicy;
    use crate::study::comparison::{Finding, compare, tests::findings};
    use serde_json::json;

    #[test]
    fn every_table_has_full_rows() {
        let found = findings();
        let all = compare(&found);
        let tables = [spent(&found), ends(&found), growths(&found), compared(&found, &all.points[0])];
        for table in tables {
            assert!(table.rows.iter().all(|row| row.len() == table.head.len()), "{table:?}");
        }
        assert_eq!(compared(&found, &all.points[0]).rows[1][1], "better");
        assert_eq!(compared(&found, &all.points[0]).rows[2][7], "not reached");
        assert_eq!((all.count_of(Finding::Better), trials(&found)), (3, None));
    }

    #[test]
    fn a_policy_is_named_with_what_is_unusual_about_it() {
        let of = |growth: GrowthConfig| policy(&Rules::Growth(growth.resolve()));
        let usual = GrowthConfig::default;
        assert_eq!(of(usual()), "preserving");
        assert_eq!(of(GrowthConfig { tau: Some(TauRule::SqrtN), ..usual() }), "preserving, tau = \u{221a}N");
        let official = GrowthConfig { policy: GrowthPolicy::Official, ..usual() };
        assert_eq!(of(official.clone()), "official");
        let unusual = GrowthConfig { init_keys: Some(InitKeys::Zero), tau: Some(TauRule::Keep), ..official };
        assert_eq!(of(unusual), "official, zero keys, tau kept");
        assert_eq!(of(GrowthConfig { policy: GrowthPolicy::ZeroUnits, ..usual() }), "zero_units");
        assert_eq!(policy(&Rules::of(json!({"policy": "of another version", "tau": "keep"}))), "of another version");
    }
}
