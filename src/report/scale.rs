//! Axes: from a range of numbers to positions in a picture, and the numbers that are written beside them.

/// A linear axis: `low` is at position `from`, `high` at `to`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Linear {
    /// Least number.
    pub low: f64,
    /// Largest number.
    pub high: f64,
    /// Position of the least.
    pub from: f64,
    /// Position of the largest.
    pub to: f64,
}

impl Linear {
    /// The position of a value.
    pub(crate) fn at(self, value: f64) -> f64 {
        let span = self.high - self.low;
        self.from + (self.to - self.from) * if span > 0.0 { (value - self.low) / span } else { 0.5 }
    }

    /// Round numbers inside, about `count` of them, and the decimals they need.
    pub(crate) fn ticks(self, count: f64) -> (Vec<f64>, usize) {
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

/// A logarithmic axis of whole decades, from 10^first to 10^last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decades {
    /// Exponent of the least number.
    pub first: i32,
    /// Exponent of the largest.
    pub last: i32,
}

impl Decades {
    /// The decades that hold all values that are above 0.
    pub(crate) fn over(values: impl Iterator<Item = f64>) -> Self {
        let logs: Vec<f64> = values.filter(|x| *x > 0.0 && x.is_finite()).map(f64::log10).collect();
        let least = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if least > most {
            return Self { first: 0, last: 1 };
        }
        let first = least.floor() as i32;
        Self { first, last: (most.ceil() as i32).max(first + 1) }
    }

    /// Position of a value: 0 at the first decade, 1 at the last.
    pub(crate) fn share(self, value: f64) -> f64 {
        (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first)
    }

    /// Least and largest number.
    pub(crate) fn ends(self) -> [f64; 2] {
        [self.first, self.last].map(|exponent| 10_f64.powi(exponent))
    }

    /// Each decade's number, and how it is written: 0.01, 1, 1000.
    pub(crate) fn ticks(self) -> impl Iterator<Item = (f64, String)> {
        (self.first..=self.last).map(|exponent| {
            let value = 10_f64.powi(exponent);
            let decimals = if exponent < 0 { exponent.unsigned_abs() as usize } else { 0 };
            (value, format!("{value:.decimals$}"))
        })
    }
}

/// A unit that makes numbers up to `most` readable on an axis, and its name with a space before it: thousands and
/// millions of what is counted, powers of ten of anything else.
pub(crate) fn unit(most: f64, counted: bool) -> (f64, &'static str) {
    let steps =
        [(1e18, " (\u{d7}10\u{b9}\u{2078})"), (1e15, " (\u{d7}10\u{b9}\u{2075})"), (1e12, " (\u{d7}10\u{b9}\u{b2})")];
    let small = if counted {
        [(1e9, " (billions)"), (1e6, " (millions)"), (1e3, " (thousands)")]
    } else {
        [(1e9, " (\u{d7}10\u{2079})"), (1e6, " (\u{d7}10\u{2076})"), (1e3, " (\u{d7}10\u{b3})")]
    };
    steps.into_iter().chain(small).find(|(unit, _)| most >= 2.0 * unit).unwrap_or((1.0, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = |low, high| Linear { low, high, from: 0.0, to: 100.0 };
        assert_eq!(scale(0.0, 10.0).ticks(5.0), (vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0], 0));
        let (ticks, decimals) = scale(-0.013, 0.013).ticks(4.0);
        assert_eq!((ticks.len(), decimals), (3, 2));
        assert_eq!(scale(2.0, 2.0).ticks(4.0).0, [2.0]);
        assert_eq!(scale(2.0, 4.0).at(3.0), 50.0);
    }

    #[test]
    fn decades_cover_all_values() {
        assert_eq!(Decades::over([0.3, 20.0].into_iter()), Decades { first: -1, last: 2 });
        assert_eq!(Decades::over([10.0].into_iter()), Decades { first: 1, last: 2 });
        assert_eq!(Decades::over([f64::NAN, 0.0].into_iter()), Decades { first: 0, last: 1 });
        let written: Vec<String> = Decades { first: -2, last: 3 }.ticks().map(|(_, text)| text).collect();
        assert_eq!(written, ["0.01", "0.1", "1", "10", "100", "1000"]);
    }

    #[test]
    fn large_numbers_get_a_unit() {
        assert_eq!((unit(1999.0, true), unit(2000.0, true)), ((1.0, ""), (1e3, " (thousands)")));
        assert_eq!(unit(3e12, false), (1e12, " (\u{d7}10\u{b9}\u{b2})"));
    }
}
