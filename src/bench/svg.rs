//! The roofline as a picture: arithmetic intensity against speed, both logarithmic, under what was measured as the
//! most the device can do.
//!
//! Points carry numbers, the legend says what they are. A number is moved until it touches neither another number nor
//! a point.

use super::output::digits;
use super::record::{Record, Report};

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
/// Width of a character of the small text, generously.
const CHARACTER: f64 = 6.6;
/// Most points in the legend.
const MOST_NAMED: usize = 40;

/// One kernel.
struct Point {
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
/// sample counts for both. Points are
/// the records with operations and bytes, named in the legend from the one with the most operations on.
pub fn roofline(report: &Report) -> String {
    let bandwidth = report.records.iter().filter_map(|record| record.gbytes_best).fold(0.0, f64::max);
    let ceilings = ceilings(report);
    let points = points(report);
    let named = points.len().min(MOST_NAMED);
    let rows = ceilings.len() + 2 + named + usize::from(points.len() > named);
    let height = HEIGHT.max(TOP + BOTTOM + ROW * (rows as f64 + 1.0));
    let axes = Axes::new(&points, &ceilings, bandwidth, height);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    text += &label(LEFT, 26.0, "start", 14, "Roofline");
    text += &label(LEFT, 44.0, "start", 11, &clipped(&report.adapter.line(), WIDTH - LEFT));
    text += &axes.draw();
    text += &axes.roofs(&ceilings, bandwidth);
    text += &axes.points(&points, &ceilings, named);
    text += &legend(&ceilings, bandwidth, &points, named);
    text + "</svg>\n"
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

fn points(report: &Report) -> Vec<Point> {
    let mut records: Vec<&Record> =
        report.records.iter().filter(|record| !record.is_peak() && record.flops > 0 && record.bytes > 0).collect();
    records.sort_by_key(|record| std::cmp::Reverse(record.flops));
    let point = |record: &Record| {
        let gflops = record.gflops_median.filter(|gflops| *gflops > 0.0)?;
        // All kernels of a step have its case.
        let case = if record.calls.is_some() { "" } else { &record.case };
        let parts = [digits(gflops), record.op.clone(), case.to_owned(), record.candidate.clone()];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty() && part != "default").collect();
        let backward = if record.pass == "forward+backward" { " with backward" } else { "" };
        let name = format!("{}{backward}", parts.join(" "));
        Some(Point { name, intensity: record.flops as f64 / record.bytes as f64, gflops })
    };
    records.into_iter().filter_map(point).collect()
}

/// A range of whole decades.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Decades {
    first: i32,
    last: i32,
}

impl Decades {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let logs: Vec<f64> = values.filter(|x| *x > 0.0 && x.is_finite()).map(f64::log10).collect();
        let least = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if least > most {
            return Self { first: 0, last: 1 };
        }
        let first = least.floor() as i32;
        Self { first, last: (most.ceil() as i32).max(first + 1) }
    }

    /// Position of a value, 0 at the first and 1 at the last decade.
    fn share(self, value: f64) -> f64 {
        (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first)
    }
}

struct Axes {
    x: Decades,
    y: Decades,
    height: f64,
}

impl Axes {
    fn new(points: &[Point], ceilings: &[Ceiling], bandwidth: f64, height: f64) -> Self {
        let ridges = ceilings.iter().map(|ceiling| ceiling.gflops / bandwidth);
        let x = Decades::over(points.iter().map(|point| point.intensity).chain(ridges).chain([0.1]));
        let speeds = points.iter().map(|point| point.gflops).chain(ceilings.iter().map(|ceiling| ceiling.gflops));
        Self { x, y: Decades::over(speeds), height }
    }

    fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }

    fn at(&self, intensity: f64, gflops: f64) -> (f64, f64) {
        let x = LEFT + PLOT_WIDTH * self.x.share(intensity);
        (x, self.bottom() - (self.bottom() - TOP) * self.y.share(gflops))
    }

    fn draw(&self) -> String {
        let (right, bottom) = (LEFT + PLOT_WIDTH, self.bottom());
        let mut text = String::new();
        for decade in self.x.first..=self.x.last {
            let (x, _) = self.at(10_f64.powi(decade), 1.0);
            text += &line(x, TOP, x, bottom, "stroke=\"#dddddd\"");
            text += &label(x, bottom + 18.0, "middle", 11, &power(decade));
        }
        for decade in self.y.first..=self.y.last {
            let (_, y) = self.at(1.0, 10_f64.powi(decade));
            text += &line(LEFT, y, right, y, "stroke=\"#dddddd\"");
            text += &label(LEFT - 8.0, y + 4.0, "end", 11, &power(decade));
        }
        text += &label((LEFT + right) / 2.0, bottom + 46.0, "middle", 13, "arithmetic intensity, FLOP/byte");
        let middle = (TOP + bottom) / 2.0;
        let turned = format!("transform=\"rotate(-90 22 {middle:.1})\"");
        text + &format!(
            "<text x=\"22\" y=\"{middle:.1}\" text-anchor=\"middle\" font-size=\"13\" {turned}>speed, GFLOP/s</text>\n"
        )
    }

    /// The slope of the bandwidth up to the highest ceiling, and each ceiling from where it meets the slope.
    fn roofs(&self, ceilings: &[Ceiling], bandwidth: f64) -> String {
        let (least, most) = (10_f64.powi(self.x.first), 10_f64.powi(self.x.last));
        let mut text = String::new();
        for ceiling in ceilings {
            let ridge = if bandwidth > 0.0 { (ceiling.gflops / bandwidth).clamp(least, most) } else { least };
            let ((x1, y), (x2, _)) = (self.at(ridge, ceiling.gflops), self.at(most, ceiling.gflops));
            text += &line(x1, y, x2, y, &format!("stroke=\"{}\" stroke-width=\"2\"", ceiling.colour));
        }
        if bandwidth > 0.0 {
            let top = ceilings.iter().map(|ceiling| ceiling.gflops).fold(0.0, f64::max);
            let top = if top > 0.0 { top } else { 10_f64.powi(self.y.last) };
            // From the left edge or the bottom, whichever the slope meets first.
            let from = least.max(10_f64.powi(self.y.first) / bandwidth);
            let to = most.min(top / bandwidth);
            if from < to {
                let ((x1, y1), (x2, y2)) = (self.at(from, from * bandwidth), self.at(to, to * bandwidth));
                text += &line(x1, y1, x2, y2, &format!("stroke=\"{SLOPE}\" stroke-width=\"2\""));
            }
        }
        text
    }

    fn points(&self, points: &[Point], ceilings: &[Ceiling], named: usize) -> String {
        let places: Vec<(f64, f64)> = points.iter().map(|point| self.at(point.intensity, point.gflops)).collect();
        let mut text = String::new();
        for &(x, y) in &places {
            text += &format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{RADIUS}\" fill=\"{POINT}\" fill-opacity=\"0.7\"/>\n"
            );
        }
        let right = LEFT + PLOT_WIDTH;
        let covered = |ceiling: &Ceiling| {
            let (_, y) = self.at(1.0, ceiling.gflops);
            Box { left: LEFT, right, top: y - 1.0, bottom: y + 1.0 }
        };
        let lines: Vec<Box> = ceilings.iter().map(covered).collect();
        let shown = places.get(..named).unwrap_or_default();
        let frame = Box { left: LEFT, top: TOP, right: LEFT + PLOT_WIDTH, bottom: self.bottom() };
        for (number, (place, found)) in shown.iter().zip(numbers(&places, &lines, named, frame)).enumerate() {
            let Some(found) = found else { continue };
            let (x, y) = found.middle();
            if (x - place.0).hypot(y - place.1) > 1.3 * ROW {
                text += &line(place.0, place.1, x, y, "stroke=\"#bbbbbb\" stroke-width=\"0.5\"");
            }
            text += &label(x, found.bottom - 1.0, "middle", 11, &(number + 1).to_string());
        }
        text
    }
}

const SLOPE: &str = "#2166ac";
const POINT: &str = "#1b7837";

/// A rectangle that something covers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Box {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Box {
    fn around((x, y): (f64, f64), width: f64, height: f64) -> Self {
        Self { left: x - width / 2.0, right: x + width / 2.0, top: y - height / 2.0, bottom: y + height / 2.0 }
    }

    fn middle(self) -> (f64, f64) {
        ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0)
    }

    fn touches(self, other: Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn holds(self, other: Self) -> bool {
        self.left <= other.left && other.right <= self.right && self.top <= other.top && other.bottom <= self.bottom
    }
}

/// A free place for the number of each of the first `count` points, not on `lines`; `None` where the frame is full.
fn numbers(points: &[(f64, f64)], lines: &[Box], count: usize, frame: Box) -> Vec<Option<Box>> {
    let dots = points.iter().map(|&at| Box::around(at, 2.0 * RADIUS, 2.0 * RADIUS));
    let mut taken: Vec<Box> = dots.chain(lines.iter().copied()).collect();
    let place = |(number, &(x, y)): (usize, &(f64, f64))| {
        let width = CHARACTER * (number + 1).to_string().len() as f64 + 2.0;
        let rings = (0..40).map(|ring| 12.0 + 6.0 * f64::from(ring));
        let around =
            rings.flat_map(|radius| (0..16).map(move |turn| (radius, f64::from(turn) * std::f64::consts::TAU / 16.0)));
        let mut boxes = around
            .map(|(radius, angle)| Box::around((x + radius * angle.cos(), y - radius * angle.sin()), width, 12.0));
        let free = boxes.find(|found| frame.holds(*found) && !taken.iter().any(|other| other.touches(*found)));
        taken.extend(free);
        free
    };
    points.iter().take(count).enumerate().map(place).collect()
}

fn legend(ceilings: &[Ceiling], bandwidth: f64, points: &[Point], named: usize) -> String {
    let mut text = String::new();
    let mut y = TOP + 8.0;
    let mut row = |marker: String, name: &str| {
        let name = clipped(name, WIDTH - LEGEND - 40.0);
        let line = marker.replace("{y}", &format!("{:.1}", y - 4.0)) + &label(LEGEND + 30.0, y, "start", 11, &name);
        y += ROW;
        line
    };
    let stroke = |colour: &str| {
        let end = LEGEND + 22.0;
        format!(
            "<line x1=\"{LEGEND}\" y1=\"{{y}}\" x2=\"{end}\" y2=\"{{y}}\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"
        )
    };
    for ceiling in ceilings {
        text += &row(stroke(ceiling.colour), &ceiling.name);
    }
    text += &row(stroke(SLOPE), &format!("memory: {} GB/s", digits(bandwidth)));
    if named > 0 {
        text += &row(String::new(), "kernels, with their GFLOP/s:");
    }
    for (number, point) in points.iter().take(named).enumerate() {
        let number =
            format!("<text x=\"{}\" y=\"{{y}}\" dy=\"4\" text-anchor=\"end\">{}</text>\n", LEGEND + 22.0, number + 1);
        text += &row(number, &point.name);
    }
    if points.len() > named {
        text += &row(String::new(), &format!("and {} smaller ones, without a number", points.len() - named));
    }
    text
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64, style: &str) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>\n")
}

fn label(x: f64, y: f64, anchor: &str, size: u32, text: &str) -> String {
    let text = escaped(text);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{text}</text>\n")
}

/// 0.01, 1, 1000: a power of ten as a number.
fn power(decade: i32) -> String {
    if decade < 0 {
        format!("{:.*}", decade.unsigned_abs() as usize, 10_f64.powi(decade))
    } else {
        format!("{}", 10_f64.powi(decade))
    }
}

/// As much of a text as fits a width.
fn clipped(text: &str, width: f64) -> String {
    let most = (width / CHARACTER) as usize;
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{record, report};
    use super::*;

    fn peak(op: &str, gflops: f64, gbytes: Option<f64>) -> Record {
        let gflops_best = (gflops > 0.0).then_some(gflops);
        let flops = u64::from(gflops > 0.0);
        Record { op: op.into(), pass: "peak".into(), flops, gflops_best, gbytes_best: gbytes, ..Record::default() }
    }

    /// Every tag closed by its own name, every attribute quoted, nothing unescaped.
    fn assert_well_formed(svg: &str) {
        let mut open: Vec<&str> = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').expect("a tag ends");
            assert!(
                !text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").replace("&quot;", "").contains('&')
            );
            assert!(tag.matches('"').count() % 2 == 0, "{tag}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_full_picture_is_well_formed() {
        let mut records = vec![peak("fma", 124.5, None), peak("fma", 23.2, None), peak("copy", 0.0, Some(11.0))];
        records.extend((1..80).map(|i| record(&format!("<{i}> & \"co\" {}", "long ".repeat(30)), f64::from(i) * 1e-3)));
        let mut report = report(records);
        report.adapter.name = "GPU <&>".into();
        let svg = roofline(&report);
        assert_well_formed(&svg);
        for words in ["FLOP/byte", "GFLOP/s", "memory: 11.00 GB/s", "124.5", "and 39 smaller ones", "GPU &lt;&amp;&gt;"]
        {
            assert!(svg.contains(words), "{words}");
        }
    }

    #[test]
    fn pictures_of_nothing_are_well_formed() {
        assert_well_formed(&roofline(&report(Vec::new())));
        assert_well_formed(&roofline(&report(vec![record("a", 1.0)])));
        assert_well_formed(&roofline(&report(vec![peak("copy", 0.0, Some(11.0))])));
    }

    #[test]
    fn numbers_touch_neither_each_other_nor_points() {
        let frame = Box { left: 0.0, top: 0.0, right: 600.0, bottom: 400.0 };
        let points: Vec<(f64, f64)> = (0..60).map(|i| (300.0 + f64::from(i % 3), 200.0 + f64::from(i / 20))).collect();
        let places: Vec<Box> = numbers(&points, &[], 60, frame).into_iter().map(Option::unwrap).collect();
        for (i, place) in places.iter().enumerate() {
            assert!(frame.holds(*place));
            assert!(places.iter().skip(i + 1).all(|other| !place.touches(*other)));
            let dot = |at: &(f64, f64)| Box::around(*at, 2.0 * RADIUS, 2.0 * RADIUS);
            assert!(points.iter().all(|at| !place.touches(dot(at))));
        }
    }

    #[test]
    fn decades_cover_all_values() {
        assert_eq!(Decades::over([0.3, 20.0].into_iter()), Decades { first: -1, last: 2 });
        assert_eq!(Decades::over([10.0].into_iter()), Decades { first: 1, last: 2 });
        assert_eq!(Decades::over([f64::NAN, 0.0].into_iter()), Decades { first: 0, last: 1 });
        assert_eq!((power(-2), power(0), power(3)), ("0.01".into(), "1".into(), "1000".into()));
    }
}
