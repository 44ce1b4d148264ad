//! The lowest loss a model can reach that sees a grammar's text through windows of `T` bytes.
//!
//! A window begins anywhere, so its first bytes must be guessed without knowing where in a sentence they
//! are. The best predictor keeps the probability of every position in the grammar (its belief) and updates
//! it by Bayes' rule with each byte. Few different beliefs can arise, since a word or two tell the position,
//! so they are enumerated with their probabilities: the result is exact, up to rounding, and not a sample.

use std::collections::BTreeMap;

use super::grammar::{Grammar, probability, total_weight};

/// A place in the grammar between two bytes: in `state`, after a proper prefix of its kernels' texts.
struct Node {
    /// Next byte, its probability, and the node after it.
    edges: Vec<(u8, f64, usize)>,
}

/// Probabilities of nodes, by rising node.
type Belief = BTreeMap<usize, f64>;

impl Grammar {
    /// Expected loss in nats per byte of the best predictor of bytes 2..=T+1 of a window of T+1 bytes that
    /// begins anywhere, given those before them in the window: what training with `seq_length` T measures.
    ///
    /// Falls towards [`entropy_per_byte`](Self::entropy_per_byte) as a constant over T. `seq_length` of 0 is 1.
    pub fn window_floor(&self, seq_length: usize) -> f64 {
        let nodes = nodes(self);
        let mut beliefs = vec![(1.0, stationary(&nodes))];
        let mut sum = 0.0;
        for position in 0..=seq_length.max(1) {
            let (entropy, after) = step(&nodes, &beliefs);
            beliefs = after;
            // The first byte is an input only: nothing predicts it.
            if position > 0 {
                sum += entropy;
            }
        }
        sum / seq_length.max(1) as f64
    }
}

/// The byte-level automaton of a grammar; node 0 is the start of a sentence.
fn nodes(grammar: &Grammar) -> Vec<Node> {
    let states = grammar.states();
    // Rising (state, length of prefix) is an order in which every edge but a sentence's last leads onwards.
    let mut ids = BTreeMap::new();
    for (state, kernels) in states.iter().enumerate() {
        let texts = kernels.iter().map(|choice| choice.text.as_bytes());
        ids.extend(texts.flat_map(|text| (0..text.len()).map(move |n| ((state, n, text.get(..n)), 0))));
    }
    for (id, slot) in ids.values_mut().enumerate() {
        *slot = id;
    }
    let build = |&(state, n, prefix): &(usize, usize, Option<&[u8]>)| {
        let mut edges: BTreeMap<u8, (f64, usize)> = BTreeMap::new();
        let kernels = states.get(state).map_or(&[][..], Vec::as_slice);
        let fits: Vec<_> = kernels.iter().filter(|c| c.text.as_bytes().get(..n) == prefix).cloned().collect();
        for choice in &fits {
            let text = choice.text.as_bytes();
            let Some(&byte) = text.get(n) else { continue };
            let after = if n + 1 < text.len() { (state, n + 1, text.get(..=n)) } else { first(choice.next) };
            let to = ids.get(&after).copied().unwrap_or(0);
            edges.entry(byte).or_insert((0.0, to)).0 += probability(choice, total_weight(&fits));
        }
        Node { edges: edges.into_iter().map(|(byte, (p, to))| (byte, p, to)).collect() }
    };
    ids.keys().map(build).collect()
}

fn first(state: Option<usize>) -> (usize, usize, Option<&'static [u8]>) {
    (state.unwrap_or(0), 0, Some(&[]))
}

/// How likely each node is at a byte chosen at random from an endless text.
fn stationary(nodes: &[Node]) -> Belief {
    let mut visits = vec![0.0; nodes.len()];
    if let Some(start) = visits.first_mut() {
        *start = 1.0;
    }
    for (from, node) in nodes.iter().enumerate() {
        let here = visits.get(from).copied().unwrap_or(0.0);
        for &(_, p, to) in node.edges.iter().filter(|edge| edge.2 != 0) {
            if let Some(there) = visits.get_mut(to) {
                *there += here * p;
            }
        }
    }
    let bytes: f64 = visits.iter().sum();
    visits.into_iter().map(|n| n / bytes).enumerate().collect()
}

/// Entropy of the next byte over all weighted beliefs, and the beliefs after it.
fn step(nodes: &[Node], beliefs: &[(f64, Belief)]) -> (f64, Vec<(f64, Belief)>) {
    let mut entropy = 0.0;
    // Beliefs equal to nine digits are one: reached along different ways, they differ by rounding.
    let mut merged: BTreeMap<Vec<(usize, u64)>, (f64, Belief)> = BTreeMap::new();
    for (weight, belief) in beliefs {
        let mut by_byte: BTreeMap<u8, Belief> = BTreeMap::new();
        for (node, p) in belief {
            for &(byte, q, to) in nodes.get(*node).map_or(&[][..], |node| &node.edges) {
                *by_byte.entry(byte).or_default().entry(to).or_insert(0.0) += p * q;
            }
        }
        for mut after in by_byte.into_values() {
            let p: f64 = after.values().sum();
            entropy -= weight * p * p.ln();
            after.values_mut().for_each(|q| *q /= p);
            let key = after.iter().map(|(&node, q)| (node, (q * 1e9).round() as u64)).collect();
            merged.entry(key).or_insert((0.0, after)).0 += weight * p;
        }
    }
    (entropy, merged.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::super::grammar::tests::tiny;
    use super::*;

    /// Probability of each string of `n` bytes at a random place of the tiny grammar's text.
    fn windows(n: usize) -> BTreeMap<String, f64> {
        let sentences = [("ab\n", 0.5), ("b\n", 0.125), ("bb\n", 0.375)];
        let mut found = BTreeMap::new();
        // A place is in a sentence with its probability, at each of its bytes, 2.875 bytes to a sentence.
        let places = sentences.iter().flat_map(|&(s, p)| (0..s.len()).map(move |at| (s[at..].to_owned(), p / 2.875)));
        let mut open: Vec<(String, f64)> = places.collect();
        while let Some((text, p)) = open.pop() {
            if text.len() >= n {
                *found.entry(text[..n].to_owned()).or_insert(0.0) += p;
            } else {
                open.extend(sentences.iter().map(|&(s, q)| (text.clone() + s, p * q)));
            }
        }
        found
    }

    #[test]
    fn the_window_floor_equals_brute_force() {
        let entropy = |n| -windows(n).values().map(|p| p * p.ln()).sum::<f64>();
        for seq in 1..9 {
            let expected = (entropy(seq + 1) - entropy(1)) / seq as f64;
            let found = tiny().window_floor(seq);
            assert!((found - expected).abs() < 1e-12, "{seq}: {found} is not {expected}");
        }
    }

    #[test]
    fn the_automaton_agrees_with_the_formulas_of_the_grammar() {
        let grammar = Grammar::builtin();
        let nodes = nodes(&grammar);
        let at = stationary(&nodes);
        assert!((1.0 / at[&0] - grammar.mean_sentence_bytes()).abs() < 1e-9);
        let rate: f64 = nodes
            .iter()
            .zip(at.values())
            .map(|(node, p)| p * node.edges.iter().map(|(_, q, _)| -q * q.ln()).sum::<f64>())
            .sum();
        assert!((rate - grammar.entropy_per_byte()).abs() < 1e-12);
    }

    #[test]
    fn the_floor_of_the_builtin_corpus_is_near_its_entropy_rate() {
        let grammar = Grammar::builtin();
        let rate = grammar.entropy_per_byte();
        let [short, long] = [64, 128].map(|seq| grammar.window_floor(seq) / rate);
        assert!((1.03..1.05).contains(&short) && (1.015..1.025).contains(&long), "{short} {long}");
        // What a window costs is a constant number of nats, paid in its first words.
        assert!((64.0 * (short - 1.0) - 128.0 * (long - 1.0)).abs() < 1e-6);
    }
}
