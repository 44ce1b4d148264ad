//! Curves over an axis: their mean, the band between least and most, and marks where something happened.
//!
//! Drawn for a phone: a picture is 440 units wide with letters of 14, so that they can be read at a third of the width of
//! a page. Names are in a legend outside the picture, where they cannot collide.

use super::escape::{html, slug};
use super::place::{Area, beside};
use super::scale::Linear;
use super::svg::{Anchor, Label, NAMESPACE, Svg, vertical};

/// Width of a picture.
pub(crate) const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 52.0;

/// Most curves with a band that can be seen well.
const MOST_BANDS: usize = 6;

/// Colours that people with any colour vision tell apart, after Okabe and Ito; more curves get the same with dashes.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#3aa0d8", "#7a3e9d"];

/// What is drawn in a colour on white, and in which colour on black.
pub(crate) const ON_BLACK: [(&str, &str); 13] = [
    ("#0072b2", "#4db2f0"),
    ("#d55e00", "#ff8c42"),
    ("#009e73", "#2ecc9b"),
    ("#cc79a7", "#e59ac4"),
    ("#8a6d00", "#d4b13a"),
    ("#3aa0d8", "#9bd3f5"),
    ("#7a3e9d", "#bd93e3"),
    ("#333333", "#e0e0e0"),
    ("#333", "#e0e0e0"),
    ("#999999", "#8b8f96"),
    ("#e2e2e2", "#33373e"),
    ("#555", "#8b8f96"),
    ("white", "#16181c"),
];

/// How a curve is drawn everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// Of its line, band and marks.
    pub colour: &'static str,
    dashes: &'static str,
}

impl Style {
    /// Of what the others are compared with.
    pub(crate) const REFERENCE: Self = Self { colour: "#333333", dashes: "none" };
    /// Of what stands behind.
    pub(crate) const FAINT: Self = Self { colour: "#999999", dashes: "none" };

    /// Of the value that no curve goes below.
    pub(crate) const FLOOR: Self = Self { colour: "#333333", dashes: "2 4" };

    /// The style of the curve with this number; the first 21 look different.
    pub(crate) fn numbered(number: usize) -> Self {
        let colour = COLOURS.get(number % COLOURS.len()).copied().unwrap_or(Self::REFERENCE.colour);
        let dashes = ["none", "7 3", "2 3"].get(number / COLOURS.len()).copied().unwrap_or("9 3 2 3");
        Self { colour, dashes }
    }

    /// Its line beside a name in a legend.
    pub(crate) fn swatch(self) -> String {
        format!(
            "<svg class=\"swatch\" width=\"34\" height=\"12\" viewBox=\"0 0 34 12\" aria-hidden=\"true\"><line x1=\"1\" y1=\"6\" \
             x2=\"33\" y2=\"6\" stroke=\"{}\" stroke-width=\"3\" stroke-dasharray=\"{}\"/></svg>",
            self.colour, self.dashes
        )
    }
}

/// A point of a curve that several runs make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// Position on the axis.
    pub x: f64,
    /// Mean of the runs.
    pub mean: f64,
    /// Least of them.
    pub least: f64,
    /// Most of them.
    pub most: f64,
}

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    /// How it is drawn.
    pub style: Style,
    /// Its points, by rising x.
    pub points: Vec<Spread>,
    /// Positions that are marked on the axis.
    pub marks: Vec<f64>,
}

/// What a chart shows of its curves: x from `left` to `right`, y from `low` to `high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Frame {
    left: f64,
    right: f64,
    low: f64,
    high: f64,
}

impl Frame {
    /// All of x from 0, and y from the lowest point to where the curves are a fifth of the way along, so that the fall at the
    /// start does not flatten everything after it; `None` without a point.
    pub(crate) fn of(curves: &[Curve]) -> Option<Self> {
        Self::after(0.0, curves)
    }

    /// As [`Self::of`], with x from `left`.
    pub(crate) fn after(left: f64, curves: &[Curve]) -> Option<Self> {
        let all = || curves.iter().flat_map(|curve| &curve.points);
        let right = all().map(|point| point.x).fold(left, f64::max);
        let low = all().map(|point| point.least).fold(f64::INFINITY, f64::min);
        let settled = left + 0.2 * (right - left);
        let late = all().filter(|point| point.x >= settled).map(|point| point.most).fold(f64::NEG_INFINITY, f64::max);
        (right > left && low.is_finite() && late.is_finite()).then(|| {
            let span = (late - low).max(1e-3);
            Self { left, right, low: low - 0.06 * span, high: late + 0.06 * span }
        })
    }

    /// All of the curves, x from `left` and y from 0; `None` where there is nothing above it.
    pub(crate) fn from_zero(left: f64, curves: &[Curve]) -> Option<Self> {
        let all = || curves.iter().flat_map(|curve| &curve.points);
        let right = all().map(|point| point.x).fold(left, f64::max);
        let high = 1.06 * all().map(|point| point.most).fold(0.0, f64::max);
        (right > left && high > 0.0 && high.is_finite()).then_some(Self { left, right, low: 0.0, high })
    }

    /// Largest x.
    pub(crate) fn right(self) -> f64 {
        self.right
    }

    /// With this y in it.
    pub(crate) fn down_to(mut self, y: f64) -> Self {
        self.low = self.low.min(y - 0.04 * (self.high - y).max(0.0));
        self
    }
}

/// The words of a chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chart<'a> {
    /// What it shows, for people who cannot see it.
    pub title: &'a str,
    /// What tells it from the other charts of its page.
    pub id: &'a str,
    /// Name of the axis.
    pub x: &'a str,
    /// What the numbers on the axis count, and its name as [`super::scale::unit`] gives it.
    pub unit: (f64, &'a str),
    /// Name of the vertical axis.
    pub y: &'a str,
    /// What happened at a position, in a few letters.
    pub events: &'a [(f64, String)],
    /// A value that no curve goes below.
    pub floor: Option<f64>,
}

impl Chart<'_> {
    /// The picture; later curves are on top.
    pub(crate) fn draw(&self, curves: &[Curve], frame: Frame) -> String {
        let (unit, unit_name) = self.unit;
        let bottom = HEIGHT - BOTTOM;
        let place = Place {
            x: Linear { low: frame.left / unit, high: frame.right / unit, from: LEFT, to: WIDTH - RIGHT },
            y: Linear { low: frame.low, high: frame.high, from: bottom, to: TOP },
            unit,
        };
        // Identifiers are the document's, not the picture's.
        let clip = format!("clip-{}", slug(self.id));
        let mut svg = picture(HEIGHT, self.title);
        svg.add(format_args!(
            "<clipPath id=\"{clip}\"><rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\"/></clipPath>",
            WIDTH - LEFT - RIGHT,
            HEIGHT - TOP - BOTTOM
        ));
        place.axes(&mut svg);
        svg.text(((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0), Anchor::Middle, &format!("{}{unit_name}", self.x));
        svg.add(vertical(14, (TOP + bottom) / 2.0, None, self.y));
        svg.add(format_args!("<g clip-path=\"url(#{clip})\">"));
        // Many bands on each other hide all of them.
        let opacity = if curves.len() > MOST_BANDS { 0.06 } else { 0.15 };
        curves.iter().for_each(|curve| place.band(&mut svg, curve, opacity));
        curves.iter().for_each(|curve| place.mean(&mut svg, curve));
        if let Some(floor) = self.floor {
            let at = place.y.at(floor);
            let Style { colour, dashes } = Style::FLOOR;
            let style = format!("stroke=\"{colour}\" stroke-dasharray=\"{dashes}\"");
            svg.line((LEFT, at), (WIDTH - RIGHT, at), &style);
        }
        svg.add("</g>");
        curves.iter().for_each(|curve| place.marks(&mut svg, curve));
        place.events(&mut svg, self.events);
        svg.finish()
    }
}

/// A picture of this height, as pages show it.
pub(crate) fn picture(height: f64, title: &str) -> Svg {
    Svg::new(&format!(
        "class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" font-size=\"14\" role=\"img\" aria-label=\"{}\"",
        html(title)
    ))
}

/// Height of a line in the legend of [`standalone`], and where it begins.
const LEGEND: f64 = 26.0;
const EDGE: f64 = 16.0;

/// A chart as a file of its own, with the letters and the background that it has in the page, and the names of its curves.
pub(crate) fn standalone(picture: &str, names: &[(Style, String)]) -> String {
    let style = "<style>svg { font-family: system-ui, sans-serif; fill: #1a1a1a; } .halo { paint-order: stroke; stroke: #fff; \
                 stroke-width: 4px; stroke-linejoin: round; }</style>";
    let mut legend = Svg::default();
    let (mut x, mut y) = (EDGE, -10.0);
    for (style, name) in names {
        let Style { colour, dashes } = *style;
        if x > EDGE && x + 32.0 + width(name) > WIDTH {
            (x, y) = (EDGE, y - LEGEND);
        }
        let line = format!("stroke=\"{colour}\" stroke-width=\"3\" stroke-dasharray=\"{dashes}\"");
        legend.line((x, y), (x + 26.0, y), &line);
        legend.text((x + 32.0, y + 4.5), Anchor::Start, name);
        x += 50.0 + width(name);
    }
    let above = if names.is_empty() { 0.0 } else { LEGEND - 10.0 - y };
    let ground = format!("<rect y=\"{}\" width=\"100%\" height=\"100%\" fill=\"#fff\"/>", 0.0 - above);
    let (plain, taller) = (format!("0 0 {WIDTH} {HEIGHT}"), format!("0 {} {WIDTH} {}", 0.0 - above, HEIGHT + above));
    picture.replacen("<svg ", &format!("<svg {NAMESPACE} "), 1).replacen(&plain, &taller, 1).replacen(
        ">\n",
        &format!(">\n{style}\n{ground}\n{}", legend.elements()),
        1,
    )
}

/// About how wide a text is.
fn width(text: &str) -> f64 {
    7.2 * text.chars().count() as f64
}

/// Where the numbers of a chart are in its picture.
struct Place {
    x: Linear,
    y: Linear,
    unit: f64,
}

impl Place {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x.at(x / self.unit), self.y.at(y))
    }

    /// Grid, ticks and their numbers.
    fn axes(&self, svg: &mut Svg) {
        let bottom = self.y.from;
        let (ticks, decimals) = self.y.ticks(5.0);
        for tick in ticks {
            let at = self.y.at(tick);
            svg.line((LEFT, at), (WIDTH - RIGHT, at), "stroke=\"#e2e2e2\"");
            svg.text((LEFT - 6.0, at + 4.5), Anchor::End, &format!("{tick:.decimals$}"));
        }
        let (ticks, decimals) = self.x.ticks(5.0);
        for tick in ticks {
            let at = self.x.at(tick);
            svg.line((at, bottom), (at, bottom + 5.0), "stroke=\"#555\"");
            svg.text((at, bottom + 19.0), Anchor::Middle, &format!("{tick:.decimals$}"));
        }
        svg.line((LEFT, bottom), (WIDTH - RIGHT, bottom), "stroke=\"#555\"");
    }

    /// A line from top to bottom for each event, with its words beside it where there is room.
    fn events(&self, svg: &mut Svg, events: &[(f64, String)]) {
        let (top, bottom) = (TOP, self.y.from);
        let at: Vec<f64> = events.iter().map(|(x, _)| self.x.at(x / self.unit)).collect();
        for x in &at {
            svg.line((*x, top), (*x, bottom), "stroke=\"#d55e00\" stroke-dasharray=\"5 4\"");
        }
        let points: Vec<_> = at.iter().map(|x| (*x, top + 8.0)).collect();
        let widths: Vec<f64> = events.iter().map(|(_, words)| 0.86 * width(words)).collect();
        let lines = at.iter().map(|x| Area::around((*x, (top + bottom) / 2.0), 2.0, bottom - top)).collect();
        let frame = Area { left: LEFT, right: WIDTH - RIGHT, top, bottom };
        for ((_, words), area) in events.iter().zip(beside(&points, &widths, lines, frame)) {
            let Some((x, y)) = area.map(Area::middle) else { continue };
            let label =
                Label { at: (x, y + 4.0), anchor: Anchor::Middle, text: words, size: Some(12), class: Some("halo") };
            svg.add(label);
        }
    }

    fn band(&self, svg: &mut Svg, curve: &Curve, opacity: f64) {
        if curve.points.iter().all(|point| point.least == point.most) {
            return;
        }
        let there = curve.points.iter().map(|point| self.at(point.x, point.least));
        let back = curve.points.iter().rev().map(|point| self.at(point.x, point.most));
        let style = format!("fill=\"{}\" fill-opacity=\"{opacity}\"", curve.style.colour);
        svg.polygon(there.chain(back), &style);
    }

    fn mean(&self, svg: &mut Svg, curve: &Curve) {
        let Style { colour, dashes } = curve.style;
        let style = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" stroke-dasharray=\"{dashes}\"");
        svg.polyline(curve.points.iter().map(|point| self.at(point.x, point.mean)), &style);
    }

    /// A dot at the end, and a triangle on the axis for each mark.
    fn marks(&self, svg: &mut Svg, curve: &Curve) {
        let colour = curve.style.colour;
        if let Some(end) = curve.points.last().filter(|point| point.mean <= self.y.high) {
            svg.circle(self.at(end.x, end.mean), 3.5, &format!("fill=\"{colour}\""));
        }
        for mark in &curve.marks {
            let (at, bottom) = (self.x.at(mark / self.unit), self.y.from);
            svg.add(format_args!(
                "<path d=\"M{at:.1} {bottom} l5 -9 h-10 z\" fill=\"{colour}\" fill-opacity=\"0.85\" stroke=\"white\"/>"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::assert_picture;
    use super::*;

    fn curve(points: &[(f64, f64)]) -> Curve {
        let spread = |&(x, mean): &(f64, f64)| Spread { x, mean, least: mean - 0.1, most: mean + 0.1 };
        Curve { style: Style::numbered(0), points: points.iter().map(spread).collect(), marks: vec![5.0] }
    }

    #[test]
    fn a_chart_is_well_formed_whatever_it_is_called() {
        let curves = [curve(&[(0.0, 4.0), (5.0, 2.0), (10.0, 1.5)]), curve(&[(0.0, 3.0)]), curve(&[])];
        let events = [(4.0, "<grown>".to_owned()), (9.9, "x".repeat(90))];
        let (floor, unit) = (Some(1.0), (1.0, ""));
        let chart =
            Chart { title: "a \"<b>\" & c", id: "a <b>", x: "x & y", unit, y: "<loss>", events: &events, floor };
        let text = chart.draw(&curves, Frame::of(&curves).unwrap());
        assert_picture(&text);
        let alone = standalone(&text, &[(Style::FAINT, "<name>".to_owned())]);
        assert_picture(&alone);
        assert!(
            alone.contains("viewBox=\"0 -26 440 326\"") && alone.contains("xmlns") && !text.contains("xmlns"),
            "{alone}"
        );
        assert!(text.contains("&lt;grown&gt;") && !text.contains("xxxx"), "{text}");
        assert!(text.contains("id=\"clip-a-b\"") && text.contains("url(#clip-a-b)"), "{text}");
    }

    #[test]
    fn the_fall_at_the_start_is_cut_off() {
        let frame = Frame::of(&[curve(&[(0.0, 90.0), (2.0, 2.0), (10.0, 1.0)])]).unwrap();
        assert!(frame.high < 2.3 && frame.low < 0.9 && frame.right() == 10.0, "{frame:?}");
        assert_eq!((Frame::of(&[]), Frame::of(&[curve(&[])])), (None, None));
    }

    #[test]
    fn styles_look_different() {
        let mut styles: Vec<String> = (0..21).map(|number| Style::numbered(number).swatch()).collect();
        styles.push(Style::REFERENCE.swatch());
        styles.sort();
        styles.dedup();
        assert_eq!(styles.len(), 22);
    }
}
