//! Curves over an axis: their mean, the band between least and most, and marks where something happened.
//!
//! Drawn for a phone: a picture is 440 units wide with letters of 14, so that they can be read at a third of the width of
//! a page. Names are in a legend outside the picture, where they cannot collide.

use super::escape::{html, slug};
use super::scale::Linear;
use super::svg::{Anchor, NAMESPACE, Svg, vertical};

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

/// What a chart shows of its curves: x from 0 to `right`, y from `low` to `high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Frame {
    right: f64,
    low: f64,
    high: f64,
}

impl Frame {
    /// All of x, and y from the lowest point to where the curves are a fifth of the way along, so that the fall at the
    /// start does not flatten everything after it; `None` without a point.
    pub(crate) fn of(curves: &[Curve]) -> Option<Self> {
        let all = || curves.iter().flat_map(|curve| &curve.points);
        let right = all().map(|point| point.x).fold(0.0, f64::max);
        let low = all().map(|point| point.least).fold(f64::INFINITY, f64::min);
        let late =
            all().filter(|point| point.x >= 0.2 * right).map(|point| point.most).fold(f64::NEG_INFINITY, f64::max);
        (right > 0.0 && low.is_finite() && late.is_finite()).then(|| {
            let span = (late - low).max(1e-3);
            Self { right, low: low - 0.06 * span, high: late + 0.06 * span }
        })
    }

    /// Largest x.
    pub(crate) fn right(self) -> f64 {
        self.right
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
}

impl Chart<'_> {
    /// The picture; later curves are on top.
    pub(crate) fn draw(&self, curves: &[Curve], frame: Frame) -> String {
        let (unit, unit_name) = self.unit;
        let bottom = HEIGHT - BOTTOM;
        let place = Place {
            x: Linear { low: 0.0, high: frame.right / unit, from: LEFT, to: WIDTH - RIGHT },
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
        svg.add("</g>");
        curves.iter().for_each(|curve| place.marks(&mut svg, curve));
        svg.finish()
    }
}

/// A picture of this height, as pages show it.
pub(crate) fn picture(height: f64, title: &str) -> Svg {
    Svg::new(&format!(
        "class=\"plot\" {NAMESPACE} viewBox=\"0 0 {WIDTH} {height}\" font-size=\"14\" role=\"img\" aria-label=\"{}\"",
        html(title)
    ))
}

/// A picture as a file of its own, with the letters and the background that it has in the page.
pub(crate) fn standalone(picture: &str) -> String {
    let style = "<style>svg { font-family: system-ui, sans-serif; fill: #1a1a1a; } .halo { paint-order: stroke; stroke: #fff; \
                 stroke-width: 4px; stroke-linejoin: round; }</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>";
    picture.replacen(">\n", &format!(">\n{style}\n"), 1)
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

    fn band(&self, svg: &mut Svg, curve: &Curve, opacity: f64) {
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
        let chart = Chart { title: "a \"<b>\" & c", id: "a <b>", x: "x & y", unit: (1.0, ""), y: "<loss>" };
        let text = chart.draw(&curves, Frame::of(&curves).unwrap());
        assert_picture(&text);
        assert_picture(&standalone(&text));
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
