//! The pictures of one run, or of several over each other.

use super::Shown;
use super::history::Kind;
use super::series::{At, Mark, Series};
use crate::report::chart::{Chart, Curve, Frame, Spread, Style};
use crate::report::number;
use crate::report::scale::unit;

/// Most points of a curve of speeds, which are means over the steps between them.
const MOST_SPEEDS: usize = 120;

/// What a course is drawn against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Steps,
    Tokens,
    Time,
    Flops,
}

impl Axis {
    pub(crate) const ALL: [Self; 4] = [Self::Steps, Self::Tokens, Self::Time, Self::Flops];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Tokens => "tokens",
            Self::Time => "time",
            Self::Flops => "FLOPs",
        }
    }

    /// A position of a run; not finite where it is not known.
    fn of(self, run: &Shown, at: At) -> f64 {
        match self {
            Self::Steps => at.step as f64,
            Self::Tokens => at.tokens,
            Self::Time => at.seconds,
            Self::Flops => run.costs.as_ref().map_or(f64::NAN, |costs| costs.at(at.step)),
        }
    }

    /// What the numbers on the axis count, for numbers up to `most`.
    fn unit(self, most: f64) -> (f64, &'static str) {
        let hours = [(86_400.0, " (days)"), (3600.0, " (hours)"), (60.0, " (minutes)")];
        match self {
            Self::Time => hours.into_iter().find(|(unit, _)| most >= 2.0 * unit).unwrap_or((1.0, " (seconds)")),
            Self::Steps | Self::Tokens => unit(most, true),
            Self::Flops => unit(most, false),
        }
    }
}

/// A picture with what it shows.
pub(crate) struct Figure {
    pub(crate) caption: String,
    pub(crate) picture: String,
}

/// The names of the curves of [`losses`].
pub(crate) fn legend(runs: &[Shown]) -> Vec<(Style, String)> {
    let [run] = runs else {
        return runs.iter().enumerate().map(|(index, run)| (Style::numbered(index), run.name.clone())).collect();
    };
    let name = |(kind, name, style, said): (Kind, &str, Style, &str)| {
        let there = !run.history.of(kind, name).marks().is_empty();
        there.then(|| (style, said.to_owned()))
    };
    let floor = run.history.entropy_floor.map(|_| (Style::FLOOR, "entropy of the data".to_owned()));
    curves_of_one().into_iter().filter_map(name).chain(floor).collect()
}

fn curves_of_one() -> [(Kind, &'static str, Style, &'static str); 3] {
    [
        (Kind::Train, "loss", Style::FAINT, "training"),
        (Kind::Eval, "val_loss", Style::numbered(0), "validation"),
        (Kind::Eval, "old_val_loss", Style::numbered(2), "validation on the old data"),
    ]
}

/// Losses against `axis`: of one run those of training and validation, of several that of validation, or where there are
/// not two of it that of training.
pub(crate) fn losses(runs: &[Shown], axis: Axis) -> Option<Figure> {
    let curves: Vec<Curve> = match runs {
        [run] => {
            let curve = |(kind, name, style, _)| curve(run, &run.history.of(kind, name), axis, style);
            curves_of_one().into_iter().map(curve).collect()
        }
        _ => {
            let of_run = |(index, run): (usize, &Shown)| {
                let marks = run.history.growths.iter().map(|grown| axis.of(run, grown.at));
                let validation = curve(run, &run.history.of(Kind::Eval, "val_loss"), axis, Style::numbered(index));
                let curve = match validation.points.len() {
                    0 | 1 => curve(run, &run.history.of(Kind::Train, "loss"), axis, Style::numbered(index)),
                    _ => validation,
                };
                Curve { marks: marks.filter(|x| x.is_finite()).collect(), ..curve }
            };
            runs.iter().enumerate().map(of_run).collect()
        }
    };
    let events = if let [run] = runs { growths(run, axis) } else { Vec::new() };
    let floor = if let [run] = runs { run.history.entropy_floor } else { None };
    let left = left(&curves);
    // By the means: one bad step would flatten everything.
    let frame = Frame::after(left, &curves.iter().map(of_means).collect::<Vec<_>>())?;
    let frame = floor.map_or(frame, |floor| frame.down_to(floor));
    let caption = format!("Loss against {}", axis.name());
    let y = if runs.len() > 1 { "validation loss, nats/token" } else { "loss, nats/token" };
    draw(&caption, axis, y, &curves, frame, &events, floor)
}

/// What changed at each growth, beside its line.
fn growths(run: &Shown, axis: Axis) -> Vec<(f64, String)> {
    let event = |grown: &super::history::Grown| {
        let x = axis.of(run, grown.at);
        x.is_finite().then(|| (x, format!("grown, \u{394}logit {}", change(grown.record.max_logit_change))))
    };
    run.history.growths.iter().filter_map(event).collect()
}

/// A change of a logit: "0", "3.1e-7".
pub(crate) fn change(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}") }
}

/// Numbers of every step against steps, of all runs.
pub(crate) fn course(runs: &[Shown]) -> Vec<Figure> {
    let of = |caption: &str, y: &str, series: &dyn Fn(&Shown) -> Series, zero: bool| {
        let style = |index: usize| if runs.len() > 1 { Style::numbered(index) } else { Style::numbered(0) };
        let of_run = |(index, run): (usize, &Shown)| curve(run, &series(run), Axis::Steps, style(index));
        let mut curves: Vec<Curve> = runs.iter().enumerate().map(of_run).collect();
        let means: Vec<Curve> = curves.iter().map(of_means).collect();
        let left = left(&curves);
        let most = means.iter().flat_map(|curve| &curve.points).map(|point| point.mean).fold(0.0, f64::max);
        // So that numbers fit beside the axis.
        let (unit, name) = match zero {
            true if most < 0.1 => small(most),
            true => unit(most, true),
            false => (1.0, ""),
        };
        let scaled = |curve: &mut Curve| {
            let values = curve.points.iter_mut().flat_map(|p| [&mut p.mean, &mut p.least, &mut p.most]);
            values.for_each(|value| *value /= unit);
        };
        curves.iter_mut().for_each(scaled);
        let means: Vec<Curve> = curves.iter().map(of_means).collect();
        let frame = if zero { Frame::from_zero(left, &means) } else { Frame::after(left, &means) };
        draw(caption, Axis::Steps, &format!("{y}{name}"), &curves, frame?, &[], None)
    };
    let train = |name: &'static str| move |run: &Shown| run.history.of(Kind::Train, name);
    [
        of("Training loss", "loss, nats/token", &train("loss"), false).filter(|_| runs.len() > 1),
        of("Learning rate", "learning rate", &train("lr"), true),
        of("Norm of the gradients, before clipping", "norm", &train("grad_norm"), false),
        of("Tokens a second, with evaluations and samples", "tokens/s", &speed, true),
        of("Loss scale", "loss scale", &train("loss_scale"), true),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The power of ten below `most`, and its name.
fn small(most: f64) -> (f64, &'static str) {
    let named = [
        (1e-2, " (\u{d7}10\u{207b}\u{b2})"),
        (1e-3, " (\u{d7}10\u{207b}\u{b3})"),
        (1e-4, " (\u{d7}10\u{207b}\u{2074})"),
        (1e-5, " (\u{d7}10\u{207b}\u{2075})"),
        (1e-6, " (\u{d7}10\u{207b}\u{2076})"),
    ];
    named.into_iter().find(|(unit, _)| most >= *unit).unwrap_or((1e-7, " (\u{d7}10\u{207b}\u{2077})"))
}

/// Tokens a second between neighbouring marks.
fn speed(run: &Shown) -> Series {
    let loss = run.history.of(Kind::Train, "loss");
    let ends: Vec<Mark> = loss.marks().to_vec();
    let step = ends.len().div_ceil(MOST_SPEEDS).max(1);
    let mut speed = Series::default();
    let ends: Vec<At> = ends.iter().step_by(step).map(|mark| mark.last).collect();
    for pair in ends.windows(2) {
        let [before, after] = pair else { continue };
        let rate = (after.tokens - before.tokens) / (after.seconds - before.seconds);
        // Of a run that went back, or was timed by another clock, it is none.
        if rate > 0.0 {
            speed.add(*after, rate);
        }
    }
    speed
}

fn curve(run: &Shown, series: &Series, axis: Axis, style: Style) -> Curve {
    let point = |mark: &Mark| {
        let x = f64::midpoint(axis.of(run, mark.first), axis.of(run, mark.last));
        x.is_finite().then_some(Spread { x, mean: mark.mean, least: mark.least, most: mark.most })
    };
    Curve { style, points: series.marks().iter().filter_map(point).collect(), marks: Vec::new() }
}

fn of_means(curve: &Curve) -> Curve {
    let point = |point: &Spread| Spread { least: point.mean, most: point.mean, ..*point };
    Curve { points: curve.points.iter().map(point).collect(), ..curve.clone() }
}

/// Where the axis begins: at 0, or where a run goes on that has no beginning here.
fn left(curves: &[Curve]) -> f64 {
    let all = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.x);
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    if least.is_finite() && least > 0.3 * most { least } else { 0.0 }
}

fn draw(
    caption: &str,
    axis: Axis,
    y: &str,
    curves: &[Curve],
    frame: Frame,
    events: &[(f64, String)],
    floor: Option<f64>,
) -> Option<Figure> {
    let x = axis.name();
    let chart = Chart { title: caption, id: caption, x, unit: axis.unit(frame.right()), y, events, floor };
    let drawn = curves.iter().any(|curve| curve.points.len() > 1);
    drawn.then(|| Figure { caption: caption.to_owned(), picture: chart.draw(curves, frame) })
}

/// How many values a point of the curves is of, where it is more than one.
pub(crate) fn thinned(runs: &[Shown]) -> Option<String> {
    let most = runs.iter().flat_map(|run| run.history.train.values().chain(run.history.eval.values()));
    let each = most.map(Series::each).max().filter(|each| *each > 1)?;
    Some(format!(
        "There are more values than a picture shows: a point is the mean of up to {} of them in a row, and the band around it \
         goes from the least to the most.",
        number::grouped(each)
    ))
}
