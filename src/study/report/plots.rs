//! The pictures: validation curves and intervals.

use super::words;
use crate::report::chart::{Chart, Curve, Frame, Spread, Style, WIDTH, picture};
use crate::report::escape::clipped;
use crate::report::number::signed;
use crate::report::scale::{Linear, unit};
use crate::report::svg::{Anchor, Label, Svg};
use crate::study::budget::Axis;
use crate::study::comparison::{Comparison, Row};
use crate::study::results::{Findings, StudyCase};
use crate::study::statistics::mean;

/// Height of an arm in a picture of intervals: a line of text and one of marks.
const ROW: f64 = 44.0;

/// How an arm is drawn everywhere.
pub(crate) fn style(findings: &Findings, arm: usize) -> Style {
    if arm == findings.reference {
        return Style::REFERENCE;
    }
    Style::numbered(arm - usize::from(arm > findings.reference))
}

/// The validation curve of a case: mean, least and most of its runs, with its growths as marks.
fn curve(case: &StudyCase, axis: Axis, style: Style) -> Curve {
    let runs: Vec<_> = case.measured().map(|(_, run)| run).collect();
    let steps =
        runs.first().map(|run| run.losses.iter().map(|(step, _)| *step).collect::<Vec<_>>()).unwrap_or_default();
    let point = |step: u64| {
        let losses: Option<Vec<f64>> = runs.iter().map(|run| run.loss_at(step)).collect();
        let losses = losses?;
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let most = losses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Spread { x: case.timeline.at(axis, step)?, mean: mean(&losses)?, least, most })
    };
    let marks = case.timeline.growth_steps.iter().filter_map(|step| case.timeline.at(axis, *step)).collect();
    Curve { style, points: steps.into_iter().filter_map(point).collect(), marks }
}

/// Curves of all arms, each at its length that ends nearest to the longest run of the reference.
pub(crate) fn overview(findings: &Findings, axis: Axis) -> String {
    let end = findings.cases_of(findings.reference).iter().map(|case| case.end(axis)).fold(0.0, f64::max);
    let nearest = |arm: usize| {
        let distance = |case: &&StudyCase| (case.end(axis) - end).abs();
        findings.cases_of(arm).into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))
    };
    let mut cases: Vec<&StudyCase> = (0..findings.arms.len()).filter_map(nearest).collect();
    // The reference last, on top.
    cases.sort_by_key(|case| case.arm == findings.reference);
    let curves: Vec<Curve> = cases.into_iter().map(|case| curve(case, axis, style(findings, case.arm))).collect();
    losses(&curves, axis, "all arms", Frame::of(&curves))
}

/// One arm at all of its lengths beside the reference at its own, in the frame that all such pictures share.
pub(crate) fn beside_reference(findings: &Findings, arm: usize, axis: Axis) -> String {
    let of = |arm: usize, style: Style| findings.cases_of(arm).into_iter().map(move |case| curve(case, axis, style));
    let mut curves: Vec<Curve> = of(findings.reference, Style::FAINT).collect();
    if arm != findings.reference {
        curves.extend(of(arm, style(findings, arm)));
    }
    let all: Vec<Curve> = findings.cases.iter().map(|case| curve(case, axis, Style::FAINT)).collect();
    losses(&curves, axis, findings.name(arm), Frame::of(&all))
}

fn losses(curves: &[Curve], axis: Axis, name: &str, frame: Option<Frame>) -> String {
    let Some(frame) = frame else {
        return "<p>No run has a curve.</p>".to_owned();
    };
    let x = words::axis(axis);
    let chart = Chart {
        title: &format!("Validation loss against {x}: {name}"),
        id: &format!("{} {name}", axis.key()),
        x,
        unit: unit(frame.right(), axis == Axis::Tokens),
        y: "validation loss, nats/token",
        events: &[],
        floor: None,
    };
    chart.draw(curves, frame)
}

/// Paired differences of all arms at a point, with their intervals; `None` where there is no difference to show.
pub(crate) fn intervals(findings: &Findings, comparison: &Comparison) -> Option<String> {
    let rows: Vec<&Row> = comparison.rows.iter().filter(|row| row.arm != findings.reference).collect();
    let ends = rows.iter().filter_map(|row| {
        let difference = row.difference?;
        let (low, high) = difference.ends.unwrap_or((difference.mean, difference.mean));
        Some(low.abs().max(high.abs()))
    });
    let most = 1.08 * ends.fold(0.0, f64::max);
    if most == 0.0 {
        return None;
    }
    let x = Linear { low: -most, high: most, from: 12.0, to: WIDTH - 12.0 };
    let bottom = ROW * rows.len() as f64 + 6.0;
    let (reference, equal) = (findings.name(findings.reference), words::equal(comparison.axis));
    let mut svg = picture(bottom + 44.0, &format!("Differences from {reference} at {equal}"));
    let (ticks, decimals) = x.ticks(6.0);
    for tick in ticks {
        let at = x.at(tick);
        svg.line((at, 0.0), (at, bottom), "stroke=\"#e2e2e2\"");
        // Numbers at the edge would be cut off.
        if (30.0..WIDTH - 30.0).contains(&at) {
            let number = if tick == 0.0 { "0".to_owned() } else { format!("{tick:+.decimals$}") };
            svg.text((at, bottom + 16.0), Anchor::Middle, &number.replace('-', "\u{2212}"));
        }
    }
    svg.line((x.at(0.0), 0.0), (x.at(0.0), bottom), "stroke=\"#333\" stroke-width=\"1.5\"");
    svg.text((12.0, bottom + 38.0), Anchor::Start, "\u{2190} better");
    svg.text((WIDTH / 2.0, bottom + 38.0), Anchor::Middle, "difference, nats/token");
    svg.text((WIDTH - 12.0, bottom + 38.0), Anchor::End, "worse \u{2192}");
    for (index, row) in rows.iter().enumerate() {
        difference(&mut svg, findings, row, x, ROW * index as f64);
    }
    Some(svg.finish())
}

/// One arm: its name and numbers above, its mark and interval below.
fn difference(svg: &mut Svg, findings: &Findings, row: &Row, x: Linear, top: f64) {
    let colour = style(findings, row.arm).colour;
    let (words_at, marks_at) = (top + 16.0, top + 31.0);
    let name = clipped(findings.name(row.arm), 32, "\u{2026}");
    let numbers = match (row.difference, row.interval()) {
        (None, _) => "not reached".to_owned(),
        (Some(difference), None) => signed(difference.mean),
        (Some(_), Some((_, ends))) => words::span(ends),
    };
    let label = |x, anchor, text| Label { at: (x, words_at), anchor, text, size: None, class: Some("halo") };
    svg.add(label(12.0, Anchor::Start, &name));
    svg.add(label(WIDTH - 12.0, Anchor::End, &numbers));
    let Some(difference) = row.difference else { return };
    if let Some((low, high)) = difference.ends {
        svg.line((x.at(low), marks_at), (x.at(high), marks_at), &format!("stroke=\"{colour}\" stroke-width=\"3\""));
    }
    // Hollow where the interval holds 0.
    let fill = if difference.excludes_zero() { colour } else { "white" };
    let style = format!("fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2\"");
    svg.circle((x.at(difference.mean), marks_at), 5.0, &style);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::standalone;
    use crate::report::svg::tests::assert_picture;
    use crate::study::comparison::{compare, tests::findings};

    #[test]
    fn pictures_are_well_formed_whatever_arms_are_called() {
        let found = findings();
        let mut pictures = vec![overview(&found, Axis::Tokens), overview(&found, Axis::Flops)];
        pictures.extend((0..3).map(|arm| beside_reference(&found, arm, Axis::Flops)));
        pictures.extend(compare(&found).points.iter().map(|point| intervals(&found, point).unwrap()));
        for picture in pictures {
            assert_picture(&picture);
            assert_picture(&standalone(&picture, &[]));
        }
    }

    #[test]
    fn arms_look_different() {
        let mut found = findings();
        found.arms = vec![found.arms[0].clone(); 15];
        let mut styles: Vec<String> = (0..15).map(|arm| style(&found, arm).swatch()).collect();
        styles.sort();
        styles.dedup();
        assert_eq!(styles.len(), 15);
    }
}
