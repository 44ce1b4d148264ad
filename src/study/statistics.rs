//! Mean, standard deviation, and Student's interval of paired differences.
//!
//! A paired difference is that of two runs with the same seed. The interval takes the differences as independent and
//! normal, which a handful of seeds can neither show nor disprove.

/// Confidence of an interval.
pub(crate) const LEVEL: f64 = 0.95;

/// Mean of some numbers; `None` without any.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() { None } else { Some(values.iter().sum::<f64>() / values.len() as f64) }
}

/// Standard deviation with n - 1; `None` for fewer than two numbers.
pub(crate) fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Mean of paired differences with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    /// Pairs.
    pub n: usize,
    /// Mean difference.
    pub mean: f64,
    /// Ends of the interval of [`LEVEL`]; `None` for one pair, of which nothing can be said.
    pub ends: Option<(f64, f64)>,
}

impl Interval {
    /// The interval of `confidence` of some differences; `None` without any.
    pub(crate) fn of(differences: &[f64], confidence: f64) -> Option<Self> {
        let (n, mean) = (differences.len(), mean(differences)?);
        let ends = deviation(differences).map(|deviation| {
            let half = student(confidence, n - 1) * deviation / (n as f64).sqrt();
            (mean - half, mean + half)
        });
        Some(Self { n, mean, ends })
    }

    /// Whether 0 is outside.
    pub(crate) fn excludes_zero(&self) -> bool {
        self.ends.is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }
}

/// The t with which Student's distribution of `dof` degrees of freedom has `confidence` of its mass in -t..t.
pub(crate) fn student(confidence: f64, dof: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while within(high, dof) < confidence && high < 1e12 {
        high *= 2.0;
    }
    // As many halvings as a double has bits.
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if within(middle, dof) < confidence { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Mass of Student's distribution in -t..t, by the finite sums for whole degrees of freedom (Abramowitz and Stegun,
/// Handbook of Mathematical Functions, 26.7.3 and 26.7.4).
fn within(t: f64, dof: usize) -> f64 {
    let angle = (t / (dof as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = dof % 2 == 1;
    // 1 + 1/2 cos^2 + (1 3)/(2 4) cos^4 ..., or cos + 2/3 cos^3 + (2 4)/(3 5) cos^5 ..., up to cos^(dof - 2).
    let (mut power, mut term) = if odd { (1, cosine) } else { (0, 1.0) };
    let mut sum = 0.0;
    while power + 2 <= dof {
        sum += term;
        term *= cosine * cosine * (power + 1) as f64 / (power + 2) as f64;
        power += 2;
    }
    if odd { (angle + sine * sum) * std::f64::consts::FRAC_2_PI } else { sine * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Confidence, degrees of freedom and t.
    const STUDENT: [(f64, usize, f64); 9] = [
        (0.95, 1, 12.706_204_736_174_694),
        (0.95, 2, 4.302_652_729_749_462),
        (0.95, 3, 3.182_446_305_283_707_8),
        (0.95, 4, 2.776_445_105_197_793_4),
        (0.95, 9, 2.262_157_162_798_205),
        (0.95, 30, 2.042_272_456_301_237_8),
        (0.99, 2, 9.924_843_200_918_287),
        (0.9975, 2, 19.962_480_451_643_184),
        (0.999, 5, 6.868_826_625_881_276),
    ];

    /// Deviation of a, mean difference, interval of all five pairs, interval of the last three.
    const PAIRED: [f64; 6] = [
        0.013_612_494_260_788_5,
        0.011_6,
        -0.003_237_754_896_795_295,
        0.026_437_754_896_795_312,
        0.010_609_328_398_198_16,
        0.028_057_338_268_468_69,
    ];

    #[track_caller]
    fn close(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-9 * want.abs().max(1.0), "{got} is not {want}");
    }

    #[test]
    fn students_t_is_that_of_the_tables() {
        // scipy.stats.t.ppf(0.5 + confidence / 2, dof)
        for (confidence, dof, t) in STUDENT {
            close(student(confidence, dof), t);
        }
    }

    #[test]
    fn an_interval_is_that_of_a_paired_t_test() {
        // numpy.std(x, ddof=1); scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
        let a = [1.912, 1.934, 1.921, 1.899, 1.927];
        let b = [1.905, 1.941, 1.898, 1.880, 1.911];
        let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
        let found = Interval::of(&differences, LEVEL).unwrap();
        close(deviation(&a).unwrap(), PAIRED[0]);
        close(found.mean, PAIRED[1]);
        let (low, high) = found.ends.unwrap();
        close(low, PAIRED[2]);
        close(high, PAIRED[3]);
        assert!(!found.excludes_zero() && found.n == 5);
        let three = Interval::of(&differences[2..], LEVEL).unwrap();
        let (low, high) = three.ends.unwrap();
        close(low, PAIRED[4]);
        close(high, PAIRED[5]);
        assert!(three.excludes_zero());
    }

    #[test]
    fn one_pair_has_no_interval_and_none_no_mean() {
        let one = Interval::of(&[0.25], LEVEL).unwrap();
        assert_eq!((one.n, one.mean, one.ends, one.excludes_zero()), (1, 0.25, None, false));
        assert_eq!((Interval::of(&[], LEVEL), mean(&[]), deviation(&[1.0])), (None, None, None));
        // Equal differences leave no doubt about seeds.
        assert!(Interval::of(&[0.5, 0.5], LEVEL).unwrap().excludes_zero());
    }
}
