//! The roofline as a picture: arithmetic intensity against speed, both logarithmic, under what was measured as the
//! most the device can do.
//!
//! Points carry numbers, the legend says what they are. A number is moved until it touches neither another number nor
//! a point.

use super::record::{Pass, Record, Report};
use crate::report::escape::clipped;
use crate::report::number::digits;
use crate::report::place::{Area, beside};
use crate::report::scale::Decades;
use crate::report::svg::{Anchor, Label, NAMESPACE, Point, Svg, vertical};

const WIDTH: f64 = 1180.0;
/// Least height; more where the legend is longer.
const HEIGHT: f64 = 620.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 70.0;
const PLOT_WIDTH: f64 = 640.0;
const LEGEND: f64 = LEFT + PLOT_WIDTH + 30.0;
const ROW: f64 = 16.0;
const RADIUS: f64 = 4.0;
/// Size of the small text, and the width of a character of it, generously.
const SMALL: u32 = 11;
const CHARACTER: f64 = 6.6;
/// Most points in the legend.
const MOST_NAMED: usize = 40;
const SLOPE: &str = "#2166ac";
const DOT: &str = "#1b7837";

/// One kernel.
struct Kernel {
    name: String,
    /// FLOP per byte.
    intensity: f64,
    gflops: f64,
}

/// A speed that nothing can exceed.
struct Ceiling {
    name: String,
    gflops: f64,
    colour: &'static str,
}

/// The picture as a complete SVG file.
///
/// Bandwidth is the larger of the copy and read figures of the report; ceilings are its multiply-add peaks; the best
/// sample counts for both. Points are the records with operations and bytes, named in the legend from the one with the
/// most operations on.
pub(crate) fn roofline(report: &Report) -> String {
    let bandwidth = report.records.iter().filter_map(|record| record.gbytes_best).fold(0.0, f64::max);
    let ceilings = ceilings(report);
    let kernels = kernels(report);
    let named = kernels.len().min(MOST_NAMED);
    let rows = ceilings.len() + 2 + named + usize::from(kernels.len() > named);
    let height = HEIGHT.max(TOP + BOTTOM + ROW * (rows as f64 + 1.0));
    let mut svg = Svg::new(&format!(
        "{NAMESPACE} width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"{SMALL}\""
    ));
    svg.add(format_args!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>"));
    svg.add(label((LEFT, 26.0), Anchor::Start, 14, "Roofline"));
    svg.add(label((LEFT, 44.0), Anchor::Start, SMALL, &fitting(&report.adapter.line(), WIDTH - LEFT)));
    let axes = Axes::new(&kernels, &ceilings, bandwidth, height);
    axes.draw(&mut svg);
    axes.roofs(&mut svg, &ceilings, bandwidth);
    axes.kernels(&mut svg, &kernels, &ceilings, named);
    legend(&mut svg, &ceilings, bandwidth, &kernels, named);
    svg.finish()
}

fn ceilings(report: &Report) -> Vec<Ceiling> {
    let colours = ["#b2182b", "#e08214", "#8073ac", "#35978f"];
    let peaks = report.records.iter().filter(|record| record.is_peak() && record.flops > 0);
    let ceiling = |(record, colour): (&Record, &&'static str)| {
        let gflops = record.gflops_best.filter(|gflops| *gflops > 0.0)?;
        let name = format!("{} {}: {} GFLOP/s", record.dtype, record.case, digits(gflops));
        Some(Ceiling { name, gflops, colour })
    };
    peaks.zip(colours.iter().cycle()).filter_map(ceiling).collect()
}

fn kernels(report: &Report) -> Vec<Kernel> {
    let mut records: Vec<&Record> =
        report.records.iter().filter(|record| !record.is_peak() && record.flops > 0 && record.bytes > 0).collect();
    records.sort_by_key(|record| std::cmp::Reverse(record.flops));
    let kernel = |record: &Record| {
        let gflops = record.gflops_median.filter(|gflops| *gflops > 0.0)?;
        // All kernels of a step have its case.
        let case = if record.calls.is_some() { "" } else { &record.case };
        let parts = [digits(gflops), record.op.clone(), case.to_owned(), record.candidate.clone()];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty() && part != "default").collect();
        let backward = if record.pass == Pass::ForwardBackward { " with backward" } else { "" };
        let name = format!("{}{backward}", parts.join(" "));
        Some(Kernel { name, intensity: record.flops as f64 / record.bytes as f64, gflops })
    };
    records.into_iter().filter_map(kernel).collect()
}

struct Axes {
    x: Decades,
    y: Decades,
    height: f64,
}

impl Axes {
    fn new(kernels: &[Kernel], ceilings: &[Ceiling], bandwidth: f64, height: f64) -> Self {
        let ridges = ceilings.iter().map(|ceiling| ceiling.gflops / bandwidth);
        let x = Decades::over(kernels.iter().map(|kernel| kernel.intensity).chain(ridges).chain([0.1]));
        let speeds = kernels.iter().map(|kernel| kernel.gflops).chain(ceilings.iter().map(|ceiling| ceiling.gflops));
        Self { x, y: Decades::over(speeds), height }
    }

    fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }

    fn at(&self, intensity: f64, gflops: f64) -> Point {
        let x = LEFT + PLOT_WIDTH * self.x.share(intensity);
        (x, self.bottom() - (self.bottom() - TOP) * self.y.share(gflops))
    }

    fn draw(&self, svg: &mut Svg) {
        let (right, bottom, grid) = (LEFT + PLOT_WIDTH, self.bottom(), "stroke=\"#dddddd\"");
        for (decade, number) in self.x.ticks() {
            let (x, _) = self.at(decade, 1.0);
            svg.line((x, TOP), (x, bottom), grid);
            svg.add(label((x, bottom + 18.0), Anchor::Middle, SMALL, &number));
        }
        for (decade, number) in self.y.ticks() {
            let (_, y) = self.at(1.0, decade);
            svg.line((LEFT, y), (right, y), grid);
            svg.add(label((LEFT - 8.0, y + 4.0), Anchor::End, SMALL, &number));
        }
        let middle = ((LEFT + right) / 2.0, bottom + 46.0);
        svg.add(label(middle, Anchor::Middle, 13, "arithmetic intensity, FLOP/byte"));
        svg.add(vertical(22, (TOP + bottom) / 2.0, Some(13), "speed, GFLOP/s"));
    }

    /// The slope of the bandwidth up to the highest ceiling, and each ceiling from where it meets the slope.
    fn roofs(&self, svg: &mut Svg, ceilings: &[Ceiling], bandwidth: f64) {
        let ([least, most], [slowest, fastest]) = (self.x.ends(), self.y.ends());
        for ceiling in ceilings {
            let ridge = if bandwidth > 0.0 { (ceiling.gflops / bandwidth).clamp(least, most) } else { least };
            svg.line(self.at(ridge, ceiling.gflops), self.at(most, ceiling.gflops), &stroke(ceiling.colour));
        }
        if bandwidth > 0.0 {
            let top = ceilings.iter().map(|ceiling| ceiling.gflops).fold(0.0, f64::max);
            let top = if top > 0.0 { top } else { fastest };
            // From the left edge or the bottom, whichever the slope meets first.
            let from = least.max(slowest / bandwidth);
            let to = most.min(top / bandwidth);
            if from < to {
                svg.line(self.at(from, from * bandwidth), self.at(to, to * bandwidth), &stroke(SLOPE));
            }
        }
    }

    fn kernels(&self, svg: &mut Svg, kernels: &[Kernel], ceilings: &[Ceiling], named: usize) {
        let points: Vec<Point> = kernels.iter().map(|kernel| self.at(kernel.intensity, kernel.gflops)).collect();
        for &point in &points {
            svg.circle(point, RADIUS, &format!("fill=\"{DOT}\" fill-opacity=\"0.7\""));
        }
        let frame = Area { left: LEFT, right: LEFT + PLOT_WIDTH, top: TOP, bottom: self.bottom() };
        let covered = |ceiling: &Ceiling| {
            let (_, y) = self.at(1.0, ceiling.gflops);
            Area { top: y - 1.0, bottom: y + 1.0, ..frame }
        };
        let dots = points.iter().map(|&at| Area::around(at, 2.0 * RADIUS, 2.0 * RADIUS));
        let taken = dots.chain(ceilings.iter().map(covered)).collect();
        let numbers: Vec<String> = (1..=named).map(|number| number.to_string()).collect();
        let widths: Vec<f64> = numbers.iter().map(|number| CHARACTER * number.len() as f64 + 2.0).collect();
        let places = beside(&points, &widths, taken, frame);
        for ((&point, place), number) in points.iter().zip(places).zip(&numbers) {
            let Some(place) = place else { continue };
            let (x, y) = place.middle();
            if (x - point.0).hypot(y - point.1) > 1.3 * ROW {
                svg.line(point, (x, y), "stroke=\"#bbbbbb\" stroke-width=\"0.5\"");
            }
            svg.add(label((x, place.bottom - 1.0), Anchor::Middle, SMALL, number));
        }
    }
}

/// What stands before a row of the legend.
enum Marker<'a> {
    None,
    Line(&'a str),
    Number(usize),
}

fn legend(svg: &mut Svg, ceilings: &[Ceiling], bandwidth: f64, kernels: &[Kernel], named: usize) {
    let mut y = TOP + 8.0;
    let end = LEGEND + 22.0;
    let mut row = |marker: Marker, name: &str| {
        let middle = y - 4.0;
        match marker {
            Marker::None => {}
            Marker::Line(colour) => svg.add(format_args!(
                "<line x1=\"{LEGEND}\" y1=\"{middle:.1}\" x2=\"{end}\" y2=\"{middle:.1}\" {}/>",
                stroke(colour)
            )),
            Marker::Number(number) => svg
                .add(format_args!("<text x=\"{end}\" y=\"{middle:.1}\" dy=\"4\" text-anchor=\"end\">{number}</text>")),
        }
        svg.add(label((LEGEND + 30.0, y), Anchor::Start, SMALL, &fitting(name, WIDTH - LEGEND - 40.0)));
        y += ROW;
    };
    for ceiling in ceilings {
        row(Marker::Line(ceiling.colour), &ceiling.name);
    }
    row(Marker::Line(SLOPE), &format!("memory: {} GB/s", digits(bandwidth)));
    if named > 0 {
        row(Marker::None, "kernels, with their GFLOP/s:");
    }
    for (number, kernel) in (1..).zip(kernels.iter().take(named)) {
        row(Marker::Number(number), &kernel.name);
    }
    if kernels.len() > named {
        row(Marker::None, &format!("and {} smaller ones, without a number", kernels.len() - named));
    }
}

fn stroke(colour: &str) -> String {
    format!("stroke=\"{colour}\" stroke-width=\"2\"")
}

fn label(at: Point, anchor: Anchor, size: u32, text: &str) -> Label<'_> {
    Label { at, anchor, text, size: Some(size), class: None }
}

/// As much of a text as fits a width.
fn fitting(text: &str, width: f64) -> String {
    clipped(text, (width / CHARACTER) as usize, "...")
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{record, report};
    use super::*;
    use crate::report::svg::tests::assert_picture;

    fn peak(op: &str, gflops: f64, gbytes: Option<f64>) -> Record {
        let gflops_best = (gflops > 0.0).then_some(gflops);
        let flops = u64::from(gflops > 0.0);
        Record { op: op.into(), pass: Pass::Peak, flops, gflops_best, gbytes_best: gbytes, ..Record::default() }
    }

    #[test]
    fn a_full_picture_is_well_formed() {
        let mut records = vec![peak("fma", 124.5, None), peak("fma", 23.2, None), peak("copy", 0.0, Some(11.0))];
        records.extend((1..80).map(|i| record(&format!("<{i}> & \"co\" {}", "long ".repeat(30)), f64::from(i) * 1e-3)));
        let mut report = report(records);
        report.adapter.name = "GPU <&>".into();
        let svg = roofline(&report);
        assert_picture(&svg);
        for words in ["FLOP/byte", "GFLOP/s", "memory: 11.00 GB/s", "124.5", "and 39 smaller ones", "GPU &lt;&amp;&gt;"]
        {
            assert!(svg.contains(words), "{words}");
        }
    }

    #[test]
    fn pictures_of_nothing_are_well_formed() {
        assert_picture(&roofline(&report(Vec::new())));
        assert_picture(&roofline(&report(vec![record("a", 1.0)])));
        assert_picture(&roofline(&report(vec![peak("copy", 0.0, Some(11.0))])));
    }
}
