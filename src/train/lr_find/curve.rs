//! What a range test measured, and the learning rate that it suggests.

/// Share of a range over which a loss is smoothed for the suggestion, on either side.
const WINDOW: f64 = 0.05;
/// Weight of the last smoothed loss in the next one, while the test runs.
const MEMORY: f64 = 0.9;
/// How many times its lowest value the smoothed loss reaches before the test ends.
const DIVERGED: f64 = 4.0;

/// By how many standard deviations of a batch's loss the smoothed loss has to fall below the mean of the first losses: of noise
/// alone the least of a hundred smoothed values is about one below it, and in one test of a hundred 2.6.
const DEVIATIONS: f64 = 3.0;
/// The median distance of two draws from a normal distribution, in standard deviations.
const MEDIAN_DISTANCE: f64 = 0.9539;

/// One step of a test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The learning rate of the update after which the loss was measured.
    pub lr: f64,
    /// The training loss, nats per token.
    pub loss: f64,
}

/// Learning rate number `i` of `steps`: from `low` to `high`, each the same multiple of the one before.
pub(crate) fn rate([low, high]: [f64; 2], i: usize, steps: usize) -> f64 {
    let share = i as f64 / (steps.max(2) - 1) as f64;
    low * (high / low).powf(share)
}

/// Whether a test is to end: the loss, smoothed as it comes, is far above its lowest value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    mean: f64,
    weight: f64,
    lowest: f64,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { mean: 0.0, weight: 0.0, lowest: f64::INFINITY }
    }

    /// Whether the test ends with this loss.
    pub(crate) fn ends_with(&mut self, loss: f64) -> bool {
        self.mean = MEMORY * self.mean + (1.0 - MEMORY) * loss;
        self.weight = MEMORY * self.weight + (1.0 - MEMORY);
        let smoothed = self.mean / self.weight;
        self.lowest = self.lowest.min(smoothed);
        !smoothed.is_finite() || smoothed > DIVERGED * self.lowest
    }
}

/// What a test suggests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suggestion {
    /// Where the smoothed loss falls fastest, against the logarithm of the rate.
    pub lr: f64,
    /// Where it is lowest: at about this rate training begins to fail.
    pub lowest_lr: f64,
    /// How low it is there, nats per token.
    pub lowest_loss: f64,
}

/// The losses of a test, each the mean of those around it with weights that fall to both sides. Looking to both sides, unlike
/// a mean of what came before, this does not move the curve towards larger rates.
pub fn smoothed(points: &[Point]) -> Vec<f64> {
    let reach = half_window(points.len()) as isize;
    let at = |i: isize| {
        let (mut sum, mut weights) = (0.0, 0.0);
        // No further than to the nearer end: at the ends one side would weigh more.
        let reach = reach.min(i).min(points.len() as isize - 1 - i);
        for j in -reach..=reach {
            let weight = (reach + 1 - j.abs()) as f64;
            sum += weight * points[(i + j) as usize].loss;
            weights += weight;
        }
        sum / weights
    };
    (0..points.len() as isize).map(at).collect()
}

/// The standard deviation of a batch's loss, from the median distance of neighbours: falls and divergence have few points.
fn deviation(points: &[Point]) -> f64 {
    let mut distances: Vec<f64> = points.windows(2).map(|pair| (pair[1].loss - pair[0].loss).abs()).collect();
    distances.sort_by(f64::total_cmp);
    distances.get(distances.len() / 2).map_or(0.0, |median| median / MEDIAN_DISTANCE)
}

fn half_window(points: usize) -> usize {
    ((points as f64 * WINDOW).round() as usize).max(1)
}

/// The rate at which the smoothed loss falls fastest, before it is lowest. `None` where it falls no further than batches differ.
pub fn suggest(points: &[Point]) -> Option<Suggestion> {
    let losses = smoothed(points);
    let lowest = (0..losses.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b]))?;
    let first = points.iter().take(2 * half_window(points.len()) + 1);
    let before = first.clone().map(|point| point.loss).sum::<f64>() / first.len() as f64;
    if before - losses[lowest] <= DEVIATIONS * deviation(points) {
        return None;
    }
    let reach = half_window(points.len());
    // The slope of a straight line through the points around one: of two alone it would be noise.
    let slope = |at: usize| {
        let around = at.saturating_sub(reach)..(at + reach + 1).min(lowest + 1);
        let n = around.len() as f64;
        let pairs = || around.clone().map(|i| (points[i].lr.ln(), losses[i]));
        let (x, y) = pairs().fold((0.0, 0.0), |(x, y), (log, loss)| (x + log / n, y + loss / n));
        let (up, down) = pairs()
            .fold((0.0, 0.0), |(up, down), (log, loss)| (up + (log - x) * (loss - y), down + (log - x) * (log - x)));
        up / down
    };
    let candidates = (0..lowest).map(|at| (at, slope(at))).filter(|(_, slope)| *slope < 0.0);
    let (steepest, _) = candidates.min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Suggestion { lr: points[steepest].lr, lowest_lr: points[lowest].lr, lowest_loss: losses[lowest] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    const RANGE: [f64; 2] = [1e-6, 1.0];

    /// A loss that falls around `best`, the steepest there, and rises from `worst` on.
    fn planted(best: f64, worst: f64, noise: f64, steps: usize) -> Vec<Point> {
        let mut rng = Rng::new(3, Stream::Test, 0);
        let points = (0..steps).map(|i| {
            let lr = rate(RANGE, i, steps);
            let fall = 1.0 / (1.0 + (-3.0 * (lr / best).ln()).exp());
            let noise = noise * (2.0 * rng.uniform() - 1.0);
            Point { lr, loss: 4.0 - 1.5 * fall + (lr / worst).powi(2) + noise }
        });
        points.collect()
    }

    #[test]
    fn rates_rise_by_the_same_multiple_from_end_to_end() {
        let rates: Vec<f64> = (0..7).map(|i| rate(RANGE, i, 7)).collect();
        for (i, rate) in rates.iter().enumerate() {
            assert!((rate / 10_f64.powi(i as i32 - 6) - 1.0).abs() < 1e-12, "{rates:?}");
        }
    }

    #[test]
    fn the_steepest_place_of_a_planted_curve_is_found_also_under_noise() {
        for (best, worst) in [(1e-3, 0.3), (3e-4, 0.02), (2e-2, 0.9)] {
            for noise in [0.0, 0.05, 0.2] {
                let found = suggest(&planted(best, worst, noise, 100)).unwrap();
                let off = (found.lr / best).ln().abs();
                // A step is a factor of 1.15.
                assert!(off < if noise == 0.0 { 0.15 } else { 0.8 }, "{best} with noise {noise}: {found:?}");
                assert!(found.lr < found.lowest_lr && found.lowest_lr < worst, "{found:?}");
            }
        }
    }

    /// Gradient descent on h x^2 / 2 multiplies x by 1 - lr h: one step is best at 1 / h, and from 2 / h on it diverges.
    #[test]
    fn on_a_quadratic_the_suggestion_is_below_what_diverges() {
        for h in [2.0, 50.0] {
            let (mut x, mut watch, mut points) = (1.0_f64, Watch::new(), Vec::new());
            for i in 0..100 {
                let lr = rate(RANGE, i, 100);
                x *= 1.0 - lr * h;
                points.push(Point { lr, loss: 0.5 * h * x * x + 1.0 });
                if watch.ends_with(0.5 * h * x * x + 1.0) {
                    break;
                }
            }
            let found = suggest(&points).unwrap();
            assert!(found.lr < 1.0 / h && found.lr > 0.005 / h, "{h}: {found:?}");
        }
    }

    #[test]
    fn a_test_ends_where_the_loss_has_grown_fourfold_or_is_no_number() {
        let ends = |losses: &[f64]| {
            let mut watch = Watch::new();
            losses.iter().position(|loss| watch.ends_with(*loss))
        };
        assert_eq!(ends(&[4.0, 3.0, 2.0, 3.0, 4.0, 5.0]), None);
        assert!(ends(&[vec![2.0; 20], vec![40.0; 20]].concat()).is_some_and(|at| (20..24).contains(&at)));
        assert_eq!(ends(&[2.0, f64::NAN]), Some(1));
    }

    #[test]
    fn a_loss_that_never_falls_suggests_nothing() {
        let rising: Vec<Point> = (0..30).map(|i| Point { lr: rate(RANGE, i, 30), loss: i as f64 }).collect();
        assert_eq!((suggest(&rising), suggest(&[])), (None, None));
        for seed in 0..20 {
            let mut rng = Rng::new(seed, Stream::Test, 0);
            let noise: Vec<Point> =
                (0..100).map(|i| Point { lr: rate(RANGE, i, 100), loss: 4.0 + rng.uniform() }).collect();
            assert_eq!(suggest(&noise), None, "seed {seed}");
        }
    }

    #[test]
    fn smoothing_moves_no_straight_line() {
        let line: Vec<Point> = (0..100).map(|i| Point { lr: 1.0, loss: f64::from(i) }).collect();
        assert!(smoothed(&line).iter().zip(&line).all(|(smooth, point)| (smooth - point.loss).abs() < 1e-9));
    }
}
