//! The picture of a range test: the loss against the logarithm of the rate.

use super::curve::{Point, Suggestion, smoothed};
use crate::report::chart::{Chart, Curve, Frame, Spread, Style, standalone};

/// How far above the first loss a curve is drawn: what comes after it would flatten all before.
const MOST: f64 = 1.1;

/// The losses, smoothed and as they were, with a line at the suggestion; `None` where there are no two points to draw.
pub(crate) fn picture(points: &[Point], suggestion: Option<Suggestion>) -> Option<String> {
    let smooth = smoothed(points);
    let first = *smooth.first()?;
    let shown = smooth.iter().position(|loss| *loss > MOST * first).map_or(points.len(), |at| at + 1);
    let curve = |style: Style, losses: &mut dyn Iterator<Item = f64>| {
        let spread = |(point, loss): (&Point, f64)| Spread { x: point.lr.log10(), mean: loss, least: loss, most: loss };
        Curve { style, points: points.iter().zip(losses).take(shown).map(spread).collect(), marks: Vec::new() }
    };
    let measured = curve(Style::FAINT, &mut points.iter().map(|point| point.loss));
    let smooth = curve(Style::numbered(0), &mut smooth.iter().copied());
    let left = points.first()?.lr.log10();
    let frame = Frame::after(left, std::slice::from_ref(&smooth))?;
    let events: Vec<(f64, String)> = suggestion.iter().map(|s| (s.lr.log10(), format!("{:.1e}", s.lr))).collect();
    let chart = Chart {
        title: "training loss against the learning rate",
        id: "lr-find",
        x: "learning rate, as a power of ten",
        unit: (1.0, ""),
        y: "loss (nats/token)",
        events: &events,
        floor: None,
    };
    let curves = [measured, smooth];
    let names = [(Style::FAINT, "loss".to_owned()), (Style::numbered(0), "smoothed".to_owned())];
    Some(standalone(&chart.draw(&curves, frame), &names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::svg::tests::assert_picture;

    #[test]
    fn a_picture_shows_the_fall_and_not_all_of_what_follows() {
        let points: Vec<Point> = (0..60)
            .map(|i| Point { lr: 10_f64.powf(f64::from(i) / 10.0 - 6.0), loss: if i < 50 { 4.0 } else { 400.0 } })
            .collect();
        let suggestion = Suggestion { lr: 3.2e-4, lowest_lr: 1e-2, lowest_loss: 2.0 };
        let text = picture(&points, Some(suggestion)).unwrap();
        assert_picture(&text);
        assert!(text.contains(">3.2e-4<") && text.contains("xmlns") && !text.contains(">400"), "{text}");
        assert_eq!((picture(&[], None), picture(&points[..1], None)), (None, None));
    }
}
