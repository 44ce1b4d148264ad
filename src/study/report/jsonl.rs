//! `results.jsonl`: every number of a report, one JSON object a line, in one order.
//!
//! Two studies of one file on one adapter write the same bytes but for `wall_seconds`, the only field that is a time.

use super::words;
use crate::error::Result;
use crate::report::escape::json_lines;
use crate::study::budget::Axis;
use crate::study::comparison::{Comparisons, Place};
use crate::study::results::{Findings, Measured, MeasuredGrowth, StudyCase};
use serde_json::{Value, json};

/// Whether a text begins as [`render`] has it.
pub(crate) fn is_results(text: &str) -> bool {
    let first = text.lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok());
    first.is_some_and(|line| line["kind"] == "study")
}

/// The lines.
///
/// # Errors
/// None that can be met: no number is one that JSON cannot hold.
pub(crate) fn render(findings: &Findings, all: &Comparisons) -> Result<String> {
    let mut lines = vec![json!({
        "kind": "study", "reference": findings.name(findings.reference), "data": findings.data,
        "entropy_floor": findings.entropy_floor, "adapters": findings.adapters(), "comparisons": all.count,
        "version": env!("CARGO_PKG_VERSION"),
    })];
    for arm in &findings.arms {
        lines.push(json!({"kind": "arm", "arm": arm.name, "what": words::models(&arm.models), "lr": arm.rate}));
        for trial in &arm.trials {
            lines.push(json!({
                "kind": "trial", "arm": arm.name, "lr": trial.rate, "seed": trial.seed, "steps": trial.steps,
                "val_loss": trial.loss, "chosen": trial.rate == arm.rate, "wall_seconds": trial.wall_seconds,
            }));
        }
    }
    for case in &findings.cases {
        lines.push(budget(findings, case));
        for run in &case.runs {
            let mut line = json!({
                "kind": "run", "arm": findings.name(case.arm), "steps": case.steps, "seed": run.seed, "lr": run.rate,
                "diverged": run.measured.is_none(),
            });
            if let Some(measured) = &run.measured {
                line["val_loss"] = json!(measured.loss_at(case.steps));
                line["curve"] = curve(case, measured);
                line["growths"] = growths(measured);
                line["wall_seconds"] = json!(measured.wall_seconds);
            }
            lines.push(line);
        }
    }
    for comparison in &all.points {
        for row in &comparison.rows {
            let (place, share) = match row.place() {
                None => ("not reached", None),
                Some(Place::End(short)) => ("end", Some(1.0 - short)),
                Some(Place::Middle(share)) => ("middle", Some(share)),
            };
            let ends = row.interval().map(|(_, (low, high))| [low, high]);
            lines.push(json!({
                "kind": "comparison", "equal": comparison.axis.key(), "at": comparison.point, "arm": findings.name(row.arm),
                "place": place, "share": share, "losses": row.reading.as_ref().map(|reading| reading.losses.clone()),
                "mean": row.reading.as_ref().and_then(|reading| reading.mean()),
                "standard_deviation": row.reading.as_ref().and_then(|reading| reading.deviation()),
                "n": row.difference.map_or(0, |difference| difference.n),
                "difference": row.difference.map(|difference| difference.mean), "interval_95": ends,
                "excludes_zero_after_bonferroni": row.survives,
            }));
        }
    }
    json_lines(&lines)
}

fn budget(findings: &Findings, case: &StudyCase) -> Value {
    let since = case.steps.saturating_sub(case.timeline.last_growth());
    json!({
        "kind": "budget", "arm": findings.name(case.arm), "length": case.length, "steps": case.steps,
        "tokens": case.end(Axis::Tokens), "flops": case.end(Axis::Flops), "tokens_after_growth": case.timeline.tokens(since),
        "flops_after_growth": case.end(Axis::MarginalFlops), "growth_steps": case.timeline.growth_steps,
        "flops_per_step": case.timeline.flops_per_step, "tokens_per_step": case.timeline.tokens_per_step,
        "parameters_start": case.parameters[0], "parameters_end": case.parameters[1],
    })
}

fn curve(case: &StudyCase, measured: &Measured) -> Value {
    let point = |(step, loss): &(u64, f64)| {
        json!({
            "step": step, "tokens": case.timeline.tokens(*step), "flops": case.timeline.flops(*step),
            "flops_after_growth": case.timeline.at(Axis::MarginalFlops, *step), "val_loss": loss,
        })
    };
    measured.losses.iter().map(point).collect()
}

fn growths(measured: &Measured) -> Value {
    let growth = |growth: &MeasuredGrowth| {
        json!({
            "record": growth.record, "spike": growth.spike(), "recovery_tokens": growth.recovery_tokens,
        })
    };
    measured.growths.iter().map(growth).collect()
}
