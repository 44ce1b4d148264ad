//! A small probabilistic grammar whose entropy is known exactly.
//!
//! A grammar is a list of states. In a state, one of its choices is drawn by weight, writes its text, and
//! names a later state or ends the sentence; a text is any number of sentences drawn independently.
//! No choice of a state begins with another of the same state, so a text can be read back in one way only,
//! from left to right. The entropy of a sentence is therefore that of its choices, and
//!
//! ```text
//! H(state) = sum_c p_c (-ln p_c + H(next_c))        L(state) = sum_c p_c (bytes_c + L(next_c))
//! entropy per byte = H(first state) / L(first state)
//! ```
//!
//! The words are in `corpus`.

use crate::rng::{Rng, Stream};

/// One way on from a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// Probability, in units of the sum over the state's choices.
    pub(super) weight: u32,
    /// What is written.
    pub(super) text: String,
    /// The state after it, always a later one; `None` ends the sentence.
    pub(super) next: Option<usize>,
}

/// An unambiguous weighted grammar of sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grammar {
    pub(super) states: Vec<Vec<Choice>>,
}

impl Grammar {
    /// A grammar that starts in the first of `states`; it must satisfy the rules above, which tests check.
    pub(super) fn new(states: Vec<Vec<Choice>>) -> Self {
        Self { states }
    }

    /// `sentences` sentences, one after the other; sentence `i` depends on `seed` and `i` only.
    pub(crate) fn generate(&self, seed: u64, sentences: usize) -> String {
        let mut text = String::new();
        for sentence in 0..sentences as u64 {
            let mut rng = Rng::new(seed, Stream::Corpus, sentence);
            let mut state = self.states.first();
            while let Some(choice) = state.and_then(|choices| draw(choices, &mut rng)) {
                text.push_str(&choice.text);
                state = choice.next.and_then(|next| self.states.get(next));
            }
        }
        text
    }

    /// Entropy of one sentence, in nats.
    pub(crate) fn entropy_per_sentence_nats(&self) -> f64 {
        self.expected(|choice, total| -probability(choice, total).ln())
    }

    /// Expected length of a sentence in bytes, its end included.
    pub(crate) fn mean_sentence_bytes(&self) -> f64 {
        self.expected(|choice, _| choice.text.len() as f64)
    }

    /// Entropy rate of the text in nats per byte: no model's expected loss is lower, whatever it has seen.
    pub(crate) fn entropy_per_byte(&self) -> f64 {
        self.entropy_per_sentence_nats() / self.mean_sentence_bytes()
    }

    /// Information in `text` given the grammar, in nats; `None` unless it is a series of whole sentences.
    ///
    /// Tells whether what a model wrote is grammatical, and the lowest loss possible on one given text.
    #[cfg(test)]
    pub(crate) fn nats(&self, text: &str) -> Option<f64> {
        let (mut rest, mut state, mut nats) = (text, None, 0.0);
        while !rest.is_empty() || state.is_some() {
            let choices = self.states.get(state.unwrap_or(0))?;
            let choice = choices.iter().find(|choice| rest.starts_with(&choice.text))?;
            nats -= probability(choice, total_weight(choices)).ln();
            rest = rest.get(choice.text.len()..)?;
            state = choice.next;
        }
        Some(nats)
    }

    /// Every byte the grammar can write, as sorted distinct characters.
    pub(super) fn alphabet(&self) -> String {
        let chars = self.states.iter().flatten().flat_map(|choice| choice.text.chars());
        chars.collect::<std::collections::BTreeSet<char>>().into_iter().collect()
    }

    /// Expected sum of `value(choice, total weight)` over the choices of a sentence.
    fn expected(&self, value: impl Fn(&Choice, f64) -> f64) -> f64 {
        let mut of = vec![0.0; self.states.len()];
        // Choices lead to later states only, so from the last state to the first all is known.
        for (at, choices) in self.states.iter().enumerate().rev() {
            let total = total_weight(choices);
            let after = |choice: &Choice| choice.next.and_then(|next| of.get(next)).copied().unwrap_or(0.0);
            let mean = choices.iter().map(|c| probability(c, total) * (value(c, total) + after(c))).sum();
            if let Some(slot) = of.get_mut(at) {
                *slot = mean;
            }
        }
        of.first().copied().unwrap_or(0.0)
    }
}

fn total_weight(choices: &[Choice]) -> f64 {
    choices.iter().map(|choice| f64::from(choice.weight)).sum()
}

fn probability(choice: &Choice, total: f64) -> f64 {
    f64::from(choice.weight) / total
}

fn draw<'a>(choices: &'a [Choice], rng: &mut Rng) -> Option<&'a Choice> {
    let mut left = rng.below(choices.iter().map(|choice| u64::from(choice.weight)).sum());
    choices.iter().find(|choice| match left.checked_sub(u64::from(choice.weight)) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What in a grammar would make its entropy wrong.
    pub(crate) fn fault(grammar: &Grammar) -> Option<String> {
        let states = &grammar.states;
        let faulty = |(at, choices): (usize, &Vec<Choice>)| {
            let later = |next: usize| next > at && next < states.len();
            let invalid = |c: &&Choice| c.weight == 0 || c.text.is_empty() || !c.next.is_none_or(later);
            let ambiguous = |c: &&Choice| choices.iter().filter(|other| c.text.starts_with(&other.text)).count() > 1;
            let bad = choices.iter().find(|c| invalid(c) || ambiguous(c));
            bad.map(|c| format!("state {at}: {:?}", c.text))
                .or(choices.is_empty().then(|| format!("state {at}: empty")))
        };
        states.iter().enumerate().find_map(faulty)
    }

    pub(crate) fn choice(weight: u32, text: &str, next: Option<usize>) -> Choice {
        Choice { weight, text: text.to_owned(), next }
    }

    /// Three sentences: "ab\n" 1/2, "b\n" 1/8, "bb\n" 3/8.
    pub(crate) fn tiny() -> Grammar {
        let last = vec![choice(1, "\n", None), choice(3, "b\n", None)];
        Grammar::new(vec![vec![choice(5, "ab\n", None), choice(5, "b", Some(1))], last])
    }

    #[test]
    fn a_tiny_grammar_by_hand() {
        let grammar = tiny();
        let by_hand = -[0.5_f64, 0.125, 0.375].iter().map(|p| p * p.ln()).sum::<f64>();
        assert!((grammar.entropy_per_sentence_nats() - by_hand).abs() < 1e-15);
        assert!((grammar.mean_sentence_bytes() - 2.875).abs() < 1e-15);
        assert!((grammar.nats("bb\nab\n").unwrap() + (0.375_f64 * 0.5).ln()).abs() < 1e-15);
        assert_eq!((grammar.nats("bb\na"), grammar.nats("b"), grammar.nats("")), (None, None, Some(0.0)));
    }

    #[test]
    fn the_builtin_grammar_keeps_the_rules_and_breaches_are_seen() {
        assert_eq!(fault(&Grammar::builtin()), None);
        let seen = |states| fault(&Grammar::new(states)).is_some();
        assert!(seen(vec![vec![]]));
        assert!(seen(vec![vec![choice(1, "cat", None), choice(1, "cats", None)]]));
        assert!(seen(vec![vec![choice(1, "cat", None), choice(2, "cat", None)]]));
        assert!(seen(vec![vec![choice(1, "cat", Some(0))]]));
        assert!(seen(vec![vec![choice(1, "cat", Some(1))]]));
        assert!(seen(vec![vec![choice(0, "cat", None)]]));
    }
}
