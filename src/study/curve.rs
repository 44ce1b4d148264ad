//! A validation curve read between its points, and never outside them.

/// The value at `x` of the straight lines through `points`, whose first coordinates ascend; exactly that of a point
/// where `x` is one, `None` before the first and after the last.
pub(crate) fn at(points: &[(f64, f64)], x: f64) -> Option<f64> {
    if let Some((_, y)) = points.iter().find(|(at, _)| *at == x) {
        return Some(*y);
    }
    let (left, right) = points.iter().zip(points.iter().skip(1)).find(|((a, _), (b, _))| *a < x && x < *b)?;
    let share = (x - left.0) / (right.0 - left.0);
    Some(left.1 + share * (right.1 - left.1))
}

/// The first `x` at which the lines through `points` come down to `level`; `None` where they do not.
pub(crate) fn first_at_or_below(points: &[(f64, f64)], level: f64) -> Option<f64> {
    let mut before: Option<(f64, f64)> = None;
    for &(x, y) in points {
        if y <= level {
            return Some(before.map_or(x, |(x0, y0)| x0 + (x - x0) * (y0 - level) / (y0 - y)));
        }
        before = Some((x, y));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURVE: [(f64, f64); 3] = [(0.0, 4.0), (10.0, 2.0), (30.0, 1.0)];

    #[test]
    fn points_are_exact_and_lines_run_between_them() {
        for (x, y) in CURVE {
            assert_eq!(at(&CURVE, x), Some(y));
        }
        assert_eq!((at(&CURVE, 5.0), at(&CURVE, 15.0)), (Some(3.0), Some(1.75)));
    }

    #[test]
    fn nothing_is_read_outside() {
        for x in [-1e-9, 30.000_001, f64::INFINITY, f64::NAN] {
            assert_eq!(at(&CURVE, x), None);
        }
        assert_eq!((at(&[], 0.0), at(&[(1.0, 2.0)], 1.0), at(&[(1.0, 2.0)], 1.5)), (None, Some(2.0), None));
    }

    #[test]
    fn a_level_is_reached_once() {
        assert_eq!(first_at_or_below(&CURVE, 3.0), Some(5.0));
        assert_eq!(first_at_or_below(&CURVE, 4.0), Some(0.0));
        assert_eq!(first_at_or_below(&CURVE, 1.0), Some(30.0));
        assert_eq!(first_at_or_below(&CURVE, 0.9), None);
    }
}
