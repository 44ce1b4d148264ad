//! The pictures: validation curves and intervals, as SVG to be put into HTML.
//!
//! Drawn for a phone: the picture is 440 units wide with letters of 14, so that they can be read at a third of the
//! width of a page. Names are in a legend outside the picture, where they cannot collide.

use super::budget::Axis;
use super::comparison::{Row, Table, interval};
use super::results::{Case, Findings};
use super::statistics::mean;
use super::words;

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 52.0;
/// Height of an arm in a picture of intervals: a line of text and one of marks.
const ROW: f64 = 44.0;

/// Most curves with a band that can be seen well.
const MOST_BANDS: usize = 6;

/// Colours that people with any colour vision tell apart, after Okabe and Ito; more arms get the same with dashes.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#3aa0d8", "#7a3e9d"];
const REFERENCE: &str = "#333333";

/// How an arm is drawn everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: &'static str,
    dashes: &'static str,
}

/// The style of an arm.
pub fn style(findings: &Findings, arm: usize) -> Style {
    if arm == findings.reference {
        return Style { colour: REFERENCE, dashes: "none" };
    }
    let number = arm - usize::from(arm > findings.reference);
    let colour = COLOURS.get(number % COLOURS.len()).copied().unwrap_or(REFERENCE);
    let dashes = ["none", "7 3", "2 3"].get(number / COLOURS.len()).copied().unwrap_or("9 3 2 3");
    Style { colour, dashes }
}

/// The line of an arm beside its name in a legend.
pub fn swatch(style: Style) -> String {
    format!(
        "<svg class=\"swatch\" width=\"34\" height=\"12\" viewBox=\"0 0 34 12\" aria-hidden=\"true\"><line x1=\"1\" y1=\"6\" \
         x2=\"33\" y2=\"6\" stroke=\"{}\" stroke-width=\"3\" stroke-dasharray=\"{}\"/></svg>",
        style.colour, style.dashes
    )
}

/// One curve: mean over the seeds, and the least and most of them.
struct Curve {
    style: Style,
    /// x, mean, least, most.
    points: Vec<(f64, f64, f64, f64)>,
    /// Where it grows.
    growths: Vec<f64>,
}

fn curve(case: &Case, axis: Axis, style: Style) -> Curve {
    let runs: Vec<_> = case.measured().map(|(_, run)| run).collect();
    let steps =
        runs.first().map(|run| run.losses.iter().map(|(step, _)| *step).collect::<Vec<_>>()).unwrap_or_default();
    let point = |step: u64| {
        let losses: Option<Vec<f64>> = runs.iter().map(|run| run.loss_at(step)).collect();
        let losses = losses?;
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let most = losses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some((case.timeline.at(axis, step)?, mean(&losses)?, least, most))
    };
    let growths = case.timeline.growth_steps.iter().filter_map(|step| case.timeline.at(axis, *step)).collect();
    Curve { style, points: steps.into_iter().filter_map(point).collect(), growths }
}

/// A range of numbers and where it lies in the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn at(self, value: f64) -> f64 {
        let span = self.high - self.low;
        self.from + (self.to - self.from) * if span > 0.0 { (value - self.low) / span } else { 0.5 }
    }

    /// Round numbers inside, about `count` of them, and the decimals they need.
    fn ticks(self, count: f64) -> (Vec<f64>, usize) {
        let span = self.high - self.low;
        if !(span.is_finite() && span > 0.0) {
            return (vec![self.low], 3);
        }
        let rough = span / count;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
        ((first..=last).map(|k| k as f64 * step).collect(), decimals)
    }
}

/// Curves of all arms, each at its length that ends nearest to the longest run of the reference.
pub fn overview(findings: &Findings, axis: Axis) -> String {
    let end = findings.cases_of(findings.reference).iter().map(|case| case.end(axis)).fold(0.0, f64::max);
    let nearest = |arm: usize| {
        let distance = |case: &&Case| (case.end(axis) - end).abs();
        findings.cases_of(arm).into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))
    };
    let cases = (0..findings.arms.len()).filter_map(nearest);
    // The reference last, on top.
    let mut curves: Vec<(bool, Curve)> =
        cases.map(|case| (case.arm == findings.reference, curve(case, axis, style(findings, case.arm)))).collect();
    curves.sort_by_key(|(is_reference, _)| *is_reference);
    lines(&curves.into_iter().map(|(_, curve)| curve).collect::<Vec<_>>(), axis, "all arms", None)
}

/// One arm at all of its lengths beside the reference at its own, in the frame that all such pictures share.
pub fn beside_reference(findings: &Findings, arm: usize, axis: Axis) -> String {
    let grey = Style { colour: "#999999", dashes: "none" };
    let mut curves: Vec<Curve> =
        findings.cases_of(findings.reference).into_iter().map(|case| curve(case, axis, grey)).collect();
    if arm != findings.reference {
        curves.extend(findings.cases_of(arm).into_iter().map(|case| curve(case, axis, style(findings, arm))));
    }
    let all: Vec<Curve> = findings.cases.iter().map(|case| curve(case, axis, grey)).collect();
    lines(&curves, axis, findings.name(arm), frame(&all))
}

/// Both ranges of some curves: all of x, and y from the lowest point to where the curves are a fifth of the way along,
/// so that the fall at the start does not flatten everything after it.
fn frame(curves: &[Curve]) -> Option<[f64; 3]> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let right = all().map(|point| point.0).fold(0.0, f64::max);
    let low = all().map(|point| point.2).fold(f64::INFINITY, f64::min);
    let late = all().filter(|point| point.0 >= 0.2 * right).map(|point| point.3).fold(f64::NEG_INFINITY, f64::max);
    (right > 0.0 && low.is_finite() && late.is_finite()).then(|| {
        let span = (late - low).max(1e-3);
        [right, low - 0.06 * span, late + 0.06 * span]
    })
}

fn lines(curves: &[Curve], axis: Axis, name: &str, given: Option<[f64; 3]>) -> String {
    let Some([right, low, high]) = given.or_else(|| frame(curves)) else {
        return "<p>No run has a curve.</p>".to_owned();
    };
    let (unit, unit_name) = unit(axis, right);
    let x = Scale { low: 0.0, high: right / unit, from: LEFT, to: WIDTH - RIGHT };
    let y = Scale { low, high, from: HEIGHT - BOTTOM, to: TOP };
    // Identifiers are the document's, not the picture's.
    let clip = format!("clip-{}-{}", axis.key(), super::file::slug(name));
    let what = axis_name(axis);
    let mut text = open(HEIGHT, &format!("Validation loss against {what}: {name}"));
    text += &format!(
        "<clipPath id=\"{clip}\"><rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
        WIDTH - LEFT - RIGHT,
        HEIGHT - TOP - BOTTOM
    );
    text += &axes(x, y, HEIGHT - BOTTOM);
    text += &label((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0, "middle", &format!("{what}{unit_name}"));
    let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
    text += &format!(
        "<text x=\"14\" y=\"{middle:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle:.1})\">validation loss, \
         nats/token</text>\n<g clip-path=\"url(#{clip})\">\n"
    );
    // Many bands on each other hide all of them.
    let opacity = if curves.len() > MOST_BANDS { 0.06 } else { 0.15 };
    for curve in curves {
        text += &band(curve, x, y, unit, opacity);
    }
    for curve in curves {
        text += &stroke(curve, x, y, unit);
    }
    text += "</g>\n";
    for curve in curves {
        text += &marks(curve, x, y, unit);
    }
    text + "</svg>\n"
}

fn axis_name(axis: Axis) -> &'static str {
    match axis {
        Axis::Tokens => "training tokens",
        Axis::Flops => "training FLOPs",
        Axis::MarginalFlops => "FLOPs after the last growth",
    }
}

/// A power of 1000 that makes `most` readable, and its name.
fn unit(axis: Axis, most: f64) -> (f64, &'static str) {
    let steps =
        [(1e18, " (\u{d7}10\u{b9}\u{2078})"), (1e15, " (\u{d7}10\u{b9}\u{2075})"), (1e12, " (\u{d7}10\u{b9}\u{b2})")];
    let small = match axis {
        Axis::Tokens => [(1e9, " (billions)"), (1e6, " (millions)"), (1e3, " (thousands)")],
        _ => [(1e9, " (\u{d7}10\u{2079})"), (1e6, " (\u{d7}10\u{2076})"), (1e3, " (\u{d7}10\u{b3})")],
    };
    steps.into_iter().chain(small).find(|(unit, _)| most >= 2.0 * unit).unwrap_or((1.0, ""))
}

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg class=\"plot\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-size=\"14\" role=\"img\" \
         aria-label=\"{}\">\n",
        escaped(title)
    )
}

/// Grid, ticks and their numbers.
fn axes(x: Scale, y: Scale, bottom: f64) -> String {
    let mut text = String::new();
    let (ticks, decimals) = y.ticks(5.0);
    for tick in ticks {
        let at = y.at(tick);
        text += &line(LEFT, at, WIDTH - RIGHT, at, "stroke=\"#e2e2e2\"");
        text += &label(LEFT - 6.0, at + 4.5, "end", &format!("{tick:.decimals$}"));
    }
    let (ticks, decimals) = x.ticks(5.0);
    for tick in ticks {
        let at = x.at(tick);
        text += &line(at, bottom, at, bottom + 5.0, "stroke=\"#555\"");
        text += &label(at, bottom + 19.0, "middle", &format!("{tick:.decimals$}"));
    }
    text + &line(LEFT, bottom, WIDTH - RIGHT, bottom, "stroke=\"#555\"")
}

fn band(curve: &Curve, x: Scale, y: Scale, unit: f64, opacity: f64) -> String {
    let there = curve.points.iter().map(|(at, _, least, _)| (at, least));
    let back = curve.points.iter().rev().map(|(at, _, _, most)| (at, most));
    let corners: Vec<String> =
        there.chain(back).map(|(at, value)| format!("{:.1},{:.1}", x.at(at / unit), y.at(*value))).collect();
    let (points, colour) = (corners.join(" "), curve.style.colour);
    format!("<polygon points=\"{points}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>\n")
}

fn stroke(curve: &Curve, x: Scale, y: Scale, unit: f64) -> String {
    let points: Vec<String> =
        curve.points.iter().map(|(at, mean, ..)| format!("{:.1},{:.1}", x.at(at / unit), y.at(*mean))).collect();
    format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" stroke-dasharray=\"{}\"/>\n",
        points.join(" "),
        curve.style.colour,
        curve.style.dashes
    )
}

/// A dot at the decayed end, and a triangle on the axis for each growth.
fn marks(curve: &Curve, x: Scale, y: Scale, unit: f64) -> String {
    let mut text = String::new();
    let colour = curve.style.colour;
    if let Some((at, mean, ..)) = curve.points.last().filter(|(_, mean, ..)| *mean <= y.high) {
        text +=
            &format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>\n", x.at(at / unit), y.at(*mean));
    }
    for growth in &curve.growths {
        let (at, bottom) = (x.at(growth / unit), y.from);
        text += &format!(
            "<path d=\"M{:.1} {bottom} l5 -9 h-10 z\" fill=\"{colour}\" fill-opacity=\"0.85\" stroke=\"white\"/>\n",
            at
        );
    }
    text
}

/// Paired differences of all arms at a point, with their intervals.
pub fn intervals(findings: &Findings, table: &Table) -> String {
    let rows: Vec<&Row> = table.rows.iter().filter(|row| row.arm != findings.reference).collect();
    let ends = rows.iter().filter_map(|row| {
        let difference = row.difference?;
        let (low, high) = difference.ends.unwrap_or((difference.mean, difference.mean));
        Some(low.abs().max(high.abs()))
    });
    let most = ends.fold(0.0, f64::max);
    if most == 0.0 {
        return String::new();
    }
    let most = 1.08 * most;
    let x = Scale { low: -most, high: most, from: 12.0, to: WIDTH - 12.0 };
    let bottom = ROW * rows.len() as f64 + 6.0;
    let height = bottom + 44.0;
    let reference = findings.name(findings.reference);
    let mut text = open(height, &format!("Differences from {reference} at {}", table.axis.words()));
    let (ticks, decimals) = x.ticks(6.0);
    for tick in ticks {
        let at = x.at(tick);
        text += &line(at, 0.0, at, bottom, "stroke=\"#e2e2e2\"");
        // Numbers at the edge would be cut off.
        if (30.0..WIDTH - 30.0).contains(&at) {
            let number = if tick == 0.0 { "0".to_owned() } else { format!("{tick:+.decimals$}") };
            text += &label(at, bottom + 16.0, "middle", &number.replace('-', "\u{2212}"));
        }
    }
    text += &line(x.at(0.0), 0.0, x.at(0.0), bottom, "stroke=\"#333\" stroke-width=\"1.5\"");
    text += &label(12.0, bottom + 38.0, "start", "\u{2190} better");
    text += &label(WIDTH / 2.0, bottom + 38.0, "middle", "difference, nats/token");
    text += &label(WIDTH - 12.0, bottom + 38.0, "end", "worse \u{2192}");
    for (index, row) in rows.iter().enumerate() {
        text += &difference(findings, row, x, ROW * index as f64);
    }
    text + "</svg>\n"
}

/// One arm: its name and numbers above, its mark and interval below.
fn difference(findings: &Findings, row: &Row, x: Scale, top: f64) -> String {
    let Style { colour, .. } = style(findings, row.arm);
    let (words_at, marks_at) = (top + 16.0, top + 31.0);
    let background = |text: String| text.replace("<text", "<text class=\"halo\"");
    let numbers = match (row.difference, interval(row)) {
        (None, _) => "not reached".to_owned(),
        (Some(difference), None) => words::signed(difference.mean),
        (Some(_), Some((_, (low, high)))) => format!("{} to {}", words::signed(low), words::signed(high)),
    };
    let mut text = background(label(12.0, words_at, "start", &clipped(findings.name(row.arm), 32)));
    text += &background(label(WIDTH - 12.0, words_at, "end", &numbers));
    let Some(difference) = row.difference else { return text };
    if let Some((low, high)) = difference.ends {
        text += &line(x.at(low), marks_at, x.at(high), marks_at, &format!("stroke=\"{colour}\" stroke-width=\"3\""));
    }
    // Hollow where the interval holds 0.
    let fill = if difference.excludes_zero() { colour } else { "white" };
    text + &format!(
        "<circle cx=\"{:.1}\" cy=\"{marks_at:.1}\" r=\"5\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
        x.at(difference.mean)
    )
}

/// A picture as a file of its own, with the letters and the background that it has in the page.
pub fn standalone(picture: &str) -> String {
    let style = "<style>svg { font-family: system-ui, sans-serif; fill: #1a1a1a; } .halo { paint-order: stroke; stroke: #fff; \
                 stroke-width: 4px; stroke-linejoin: round; }</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>";
    picture.replacen(">\n", &format!(">\n{style}\n"), 1)
}

fn clipped(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['\u{2026}']).collect()
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64, style: &str) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>\n")
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n", escaped(text))
}

/// Text for HTML and SVG, also inside attributes.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::comparison::{compare, tests::findings};
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = |low, high| Scale { low, high, from: 0.0, to: 100.0 };
        assert_eq!(scale(0.0, 10.0).ticks(5.0), (vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0], 0));
        let (ticks, decimals) = scale(-0.013, 0.013).ticks(4.0);
        assert_eq!((ticks.len(), decimals), (3, 2));
        assert_eq!(scale(2.0, 2.0).ticks(4.0).0, [2.0]);
        assert_eq!(scale(2.0, 4.0).at(3.0), 50.0);
    }

    #[test]
    fn pictures_are_well_formed_whatever_arms_are_called() {
        let found = findings();
        let mut pictures = vec![overview(&found, Axis::Tokens), overview(&found, Axis::Flops)];
        pictures.extend((0..3).map(|arm| beside_reference(&found, arm, Axis::Flops)));
        pictures.extend(compare(&found).tables.iter().map(|table| intervals(&found, table)));
        for picture in pictures {
            super::super::html::tests::assert_well_formed(&picture);
            super::super::html::tests::assert_well_formed(&standalone(&picture));
            assert!(picture.starts_with("<svg") && !picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        }
    }

    #[test]
    fn arms_look_different() {
        let mut found = findings();
        found.arms = vec![found.arms[0].clone(); 15];
        let mut styles: Vec<String> = (0..15).map(|arm| swatch(style(&found, arm))).collect();
        styles.sort();
        styles.dedup();
        assert_eq!(styles.len(), 15);
    }
}
