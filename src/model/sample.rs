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
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// A negative or non-finite temperature, or a top-p outside (0, 1].
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
        Ok(())
    }

    /// Draws the token at `position` of the output.
    pub fn draw(&self, logits: &[f32], position: u64) -> u32 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        let logit = |i: usize| logits.get(i).copied().unwrap_or(f32::MIN);
        // Ties by index, so that the result does not depend on the sort.
        order.sort_by(|&a, &b| logit(b).total_cmp(&logit(a)).then(a.cmp(&b)));
        let best = order.first().copied().unwrap_or(0);
        if self.temperature == 0.0 {
            return best as u32;
        }
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let largest = f64::from(logit(best));
        let weights: Vec<f64> =
            order.iter().map(|&i| ((f64::from(logit(i)) - largest) / self.temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = 0.0;
        let within = weights.iter().take_while(|&&w| {
            let before = kept;
            kept += w / total;
            before < self.top_p
        });
        let within = within.count().max(1);
        let mass: f64 = weights.iter().take(within).sum();
        let mut left = Rng::new(self.seed, Stream::Sample, position).uniform() * mass;
        for (&token, weight) in order.iter().zip(&weights).take(within) {
            left -= weight;
            if left < 0.0 {
                return token as u32;
            }
        }
        order.get(within - 1).copied().unwrap_or(best) as u32
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

    const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 3 };

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
}
