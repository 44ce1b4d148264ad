//! Choosing the next token from logits: temperature, top-k, top-p, and a seeded draw.
//!
//! Logits are the model's; a draw is a pure function of them, the settings, the seed and the position.

use crate::error::{Error, Result};
use crate::rng::{Rng, Stream};

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 always takes the most likely token.
    pub temperature: f64,
    /// Only the k most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 for all.
    pub top_p: f64,
    /// Only tokens at least this share as likely as the most likely one; 0 for all.
    pub min_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// A negative or non-finite temperature, a top-p outside (0, 1], or a min-p outside [0, 1].
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(Error::usage(format!(
                "temperature {} is not a number from 0 up; use 0 for the most likely token, 1 for the model's own \
                 probabilities",
                self.temperature
            )));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::usage(format!("top-p {} is outside (0, 1]; use 1 to keep every token", self.top_p)));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Err(Error::usage(format!("min-p {} is outside [0, 1]; use 0 to keep every token", self.min_p)));
        }
        Ok(())
    }

    /// Draws the token at `position` of the output. Sorts only as many tokens as it looks at.
    pub fn draw(&self, logits: &[f32], position: u64) -> u32 {
        let mut ranked = Ranked::new(logits);
        let best = ranked.at(0).unwrap_or(0);
        if self.temperature == 0.0 {
            return best as u32;
        }
        let largest = f64::from(ranked.logit(best));
        let weight = |logit: f32| ((f64::from(logit) - largest) / self.temperature).exp();
        let most = if self.top_k > 0 { self.top_k.min(logits.len()) } else { logits.len() };
        let weight_at = |ranked: &mut Ranked, rank: usize| ranked.at(rank).map_or(0.0, |i| weight(ranked.logit(i)));
        let total: f64 = if most < logits.len() {
            (0..most).map(|rank| weight_at(&mut ranked, rank)).sum()
        } else {
            logits.iter().map(|&logit| weight(logit)).sum()
        };
        let (within, mass) = if self.top_p < 1.0 || self.min_p > 0.0 {
            let (mut within, mut mass, mut reached) = (0, 0.0, 0.0);
            while within < most {
                let next = weight_at(&mut ranked, within);
                // The most likely one has the weight 1.
                if within > 0 && (reached >= self.top_p || next < self.min_p) {
                    break;
                }
                mass += next;
                reached += next / total;
                within += 1;
            }
            (within, mass)
        } else {
            (most, total)
        };
        let mut left = Rng::new(self.seed, Stream::Sample, position).uniform() * mass;
        for rank in 0..within {
            left -= weight_at(&mut ranked, rank);
            // Rounding may leave a little of the mass: it is the last one's.
            if left < 0.0 || rank + 1 == within {
                return ranked.at(rank).unwrap_or(best) as u32;
            }
        }
        best as u32
    }
}

/// Tokens from the most likely one down, sorted as far as somebody looked.
struct Ranked<'a> {
    logits: &'a [f32],
    order: Vec<usize>,
    sorted: usize,
}

/// Tokens sorted at first: most draws need no more.
const FIRST: usize = 64;

impl<'a> Ranked<'a> {
    fn new(logits: &'a [f32]) -> Self {
        Self { logits, order: (0..logits.len()).collect(), sorted: 0 }
    }

    fn logit(&self, token: usize) -> f32 {
        self.logits.get(token).copied().unwrap_or(f32::MIN)
    }

    /// The token of this rank; ties go by its number, so that the result does not depend on the sort.
    fn at(&mut self, rank: usize) -> Option<usize> {
        if rank >= self.sorted && rank < self.order.len() {
            let logit = |i: &usize| self.logits.get(*i).copied().unwrap_or(f32::MIN);
            let ranks = |a: &usize, b: &usize| logit(b).total_cmp(&logit(a)).then(a.cmp(b));
            let end = (4 * self.sorted).clamp(FIRST, self.order.len().max(FIRST)).max(rank + 1).min(self.order.len());
            let rest = self.order.get_mut(self.sorted..).unwrap_or_default();
            let count = end - self.sorted;
            if count < rest.len() {
                rest.select_nth_unstable_by(count, ranks);
            }
            if let Some(next) = rest.get_mut(..count) {
                next.sort_unstable_by(ranks);
            }
            self.sorted = end;
        }
        self.order.get(rank).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for position in 0..20_000 {
            counts[sampling.draw(logits, position) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 3 };

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()];
        let got = frequencies(PLAIN, &logits);
        assert!(got.iter().zip([0.5, 0.3, 0.2]).all(|(g, w)| (g - w).abs() < 0.02), "{got:?}");
        let sharp = frequencies(Sampling { temperature: 0.5, ..PLAIN }, &logits);
        assert!((sharp[0] - 0.25 / 0.38).abs() < 0.02, "{sharp:?}");
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.2_f32.ln(), 0.5_f32.ln(), 0.3_f32.ln()];
        assert_eq!(frequencies(Sampling { top_k: 2, ..PLAIN }, &logits)[0], 0.0);
        let nucleus = frequencies(Sampling { top_p: 0.6, ..PLAIN }, &logits);
        assert_eq!(nucleus[0], 0.0);
        assert!((nucleus[1] - 0.625).abs() < 0.02, "{nucleus:?}");
        assert_eq!(frequencies(Sampling { top_p: 0.4, ..PLAIN }, &logits)[0], 0.0);
        assert_eq!(frequencies(Sampling { top_p: 0.4, ..PLAIN }, &logits)[2], 0.0);
        assert_eq!(Sampling { temperature: 0.0, ..PLAIN }.draw(&logits, 0), 1);
    }

    #[test]
    fn min_p_keeps_what_is_likely_beside_the_most_likely() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()];
        let kept = frequencies(Sampling { min_p: 0.5, ..PLAIN }, &logits);
        assert!(kept[2] == 0.0 && (kept[0] - 0.625).abs() < 0.02, "{kept:?}");
        assert_eq!(frequencies(Sampling { min_p: 1.0, ..PLAIN }, &logits)[1..], [0.0, 0.0]);
        assert!(Sampling { min_p: f64::NAN, ..PLAIN }.validate().is_err());
    }

    /// The draw by a sort of the whole vocabulary, as it was before.
    fn by_sorting(sampling: &Sampling, logits: &[f32], position: u64) -> u32 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if sampling.temperature == 0.0 {
            return order[0] as u32;
        }
        if sampling.top_k > 0 {
            order.truncate(sampling.top_k);
        }
        let largest = f64::from(logits[order[0]]);
        let weights: Vec<f64> =
            order.iter().map(|&i| ((f64::from(logits[i]) - largest) / sampling.temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = 0.0;
        let within = weights.iter().take_while(|&&w| {
            let before = kept;
            kept += w / total;
            before < sampling.top_p
        });
        let within = within.count().max(1);
        let mass: f64 = weights.iter().take(within).sum();
        let mut left = Rng::new(sampling.seed, Stream::Sample, position).uniform() * mass;
        for (&token, weight) in order.iter().zip(&weights).take(within) {
            left -= weight;
            if left < 0.0 {
                return token as u32;
            }
        }
        order[within - 1] as u32
    }

    #[test]
    fn draws_are_those_of_a_sort_of_the_whole_vocabulary() {
        let mut rng = Rng::new(5, Stream::Test, 0);
        let mut compared = 0;
        for vocabulary in [1, 2, 65, 256, 3000] {
            for spread in [0.0, 0.1, 3.0] {
                // Flat, nearly flat and peaked, with ties.
                let logits: Vec<f32> =
                    rng.normals(vocabulary, spread).into_iter().map(|x| (x * 64.0).round() / 64.0).collect();
                for (temperature, top_k, top_p) in [
                    (1.0, 0, 1.0),
                    (0.8, 0, 1.0),
                    (0.8, 20, 1.0),
                    (0.8, 0, 0.9),
                    (1.3, 300, 0.99),
                    (0.5, 1, 1.0),
                    (0.0, 0, 1.0),
                    (1.0, 9999, 0.5),
                    (1e-3, 0, 1.0),
                ] {
                    let sampling = Sampling { temperature, top_k, top_p, min_p: 0.0, seed: 7 };
                    for position in 0..40 {
                        let (new, old) = (sampling.draw(&logits, position), by_sorting(&sampling, &logits, position));
                        assert_eq!(new, old, "{vocabulary} tokens, {sampling:?}, position {position}");
                        compared += 1;
                    }
                }
            }
        }
        assert_eq!(compared, 5 * 3 * 9 * 40);
    }
}
