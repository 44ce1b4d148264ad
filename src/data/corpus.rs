//! The built-in corpus: children's-book sentences from a grammar, so that a first run needs no data.
//!
//! ```text
//! tom fed his big cat.
//! ida saw 25 owls.
//!
//! sentence  = name verb object          name  = one of 9 he-names, 9 she-names
//! object    = his|her  [adj] noun .     his after a he-name, her after a she-name
//!           | 20..99   [adj] nouns .    plural after a number
//! ```
//!
//! Weights are uneven everywhere. To predict it, a model learns the spelling of 51 words, the order of the
//! parts, agreement in number, and who the sentence is about. All choices that can meet differ in
//! their first letter, so nearly all of the uncertainty is in first letters and digits.
//!
//! | | |
//! |---|---|
//! | entropy of a sentence | 12.50 nats (1.6 million different sentences) |
//! | mean length | 19.07 bytes |
//! | entropy rate, the floor that runs report | 0.6554 nats per byte |
//! | best possible loss with windows of 64, 128, 256 bytes | 4.0, 2.0, 1.0 % above it |

use super::grammar::{Choice, Grammar};
use super::{Dataset, TokenSource, Tokenizer, TokenizerKind, text};
use crate::error::{Error, Result};

type Words = [(&'static str, u32)];

const HE: &Words =
    &[("tom", 10), ("ed", 8), ("bo", 7), ("gus", 6), ("hal", 5), ("ned", 5), ("al", 4), ("roy", 3), ("cy", 3)];
const SHE: &Words =
    &[("ida", 10), ("sue", 8), ("meg", 7), ("pam", 6), ("liz", 5), ("jo", 5), ("una", 4), ("flo", 3), ("vi", 3)];
const VERBS: &Words = &[
    ("saw", 10),
    ("fed", 9),
    ("got", 8),
    ("hid", 7),
    ("met", 6),
    ("led", 5),
    ("won", 5),
    ("drew", 4),
    ("kept", 4),
    ("paid", 3),
];
const ADJECTIVES: &Words = &[("red", 18), ("big", 16), ("shy", 14), ("wet", 12), ("fat", 10), ("new", 8), ("quick", 6)];
const NOUNS: &Words = &[
    ("cat", 10),
    ("dog", 9),
    ("hen", 8),
    ("pig", 8),
    ("ant", 7),
    ("owl", 7),
    ("jay", 6),
    ("elk", 6),
    ("yak", 5),
    ("lamb", 5),
    ("kid", 4),
    ("gnu", 4),
    ("mule", 3),
    ("toad", 3),
];
const TENS: &Words = &[("2", 9), ("3", 8), ("4", 7), ("5", 6), ("6", 5), ("7", 4), ("8", 3), ("9", 3)];
const UNITS: &Words =
    &[("0", 9), ("1", 5), ("2", 6), ("3", 5), ("4", 6), ("5", 9), ("6", 5), ("7", 5), ("8", 5), ("9", 5)];
/// Weight of `his` or `her` beside those of [`TENS`].
const POSSESSIVE: u32 = 30;

// The states; "he" and "she", "one" and "many" are what the grammar remembers.
const HE_VERB: usize = 1;
const SHE_VERB: usize = 2;
const HE_OBJECT: usize = 3;
const SHE_OBJECT: usize = 4;
const UNIT: usize = 5;
const ONE_ADJECTIVE: usize = 6;
const MANY_ADJECTIVE: usize = 7;
const ONE_NOUN: usize = 8;
const MANY_NOUN: usize = 9;

impl Grammar {
    /// The grammar of the built-in corpus.
    pub(crate) fn builtin() -> Self {
        let names = [words(HE, " ", Some(HE_VERB)), words(SHE, " ", Some(SHE_VERB))].concat();
        let object = |pronoun| [words(&[(pronoun, POSSESSIVE)], " ", Some(ONE_ADJECTIVE)), words(TENS, "", Some(UNIT))];
        Self::new(vec![
            names,
            words(VERBS, " ", Some(HE_OBJECT)),
            words(VERBS, " ", Some(SHE_OBJECT)),
            object("his").concat(),
            object("her").concat(),
            words(UNITS, " ", Some(MANY_ADJECTIVE)),
            [words(ADJECTIVES, " ", Some(ONE_NOUN)), words(NOUNS, ".\n", None)].concat(),
            [words(ADJECTIVES, " ", Some(MANY_NOUN)), words(NOUNS, "s.\n", None)].concat(),
            words(NOUNS, ".\n", None),
            words(NOUNS, "s.\n", None),
        ])
    }
}

fn words(list: &Words, end: &str, next: Option<usize>) -> Vec<Choice> {
    list.iter().map(|&(word, weight)| Choice { weight, text: format!("{word}{end}"), next }).collect()
}

/// The built-in corpus as a data set; its last `val_fraction` is for validation.
///
/// A character tokenizer covers the grammar's alphabet, so it is the same for every seed and length.
///
/// # Errors
/// A `val_fraction` out of range, or no sentences.
pub fn builtin(seed: u64, sentences: usize, kind: &TokenizerKind, val_fraction: f64) -> Result<Dataset> {
    let grammar = Grammar::builtin();
    let learnt_from = match kind {
        TokenizerKind::Bpe(_) => grammar.generate(seed, sentences),
        _ => grammar.alphabet(),
    };
    builtin_with(Tokenizer::of(kind, &[&learnt_from])?, seed, sentences, val_fraction)
}

/// [`builtin`] with a tokenizer of one's own, such as that of a checkpoint.
///
/// # Errors
/// As [`builtin`], and a tokenizer that lacks a character of the corpus.
pub(crate) fn builtin_with(tokenizer: Tokenizer, seed: u64, sentences: usize, val_fraction: f64) -> Result<Dataset> {
    if sentences == 0 {
        return Err(Error::usage("the built-in corpus is to have 0 sentences; it needs at least one"));
    }
    let grammar = Grammar::builtin();
    let written = grammar.generate(seed, sentences);
    let (train, val) = written.split_at(text::split_at(&written, val_fraction)?);
    let bytes = written.len();
    Ok(Dataset {
        train: TokenSource::from_text(train, &tokenizer)?,
        val: TokenSource::from_text(val, &tokenizer)?,
        vocab_size: tokenizer.vocab_size(),
        old_val: None,
        // The corpus is ASCII, so there a token is a byte.
        entropy_floor: matches!(tokenizer, Tokenizer::Byte | Tokenizer::Char(_)).then(|| grammar.entropy_per_byte()),
        tokenizer: Some(tokenizer),
        description: format!("built-in corpus of {sentences} sentences, {bytes} bytes, seed {seed}"),
        format: None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Every sentence with its probability, by following all choices.
    fn enumerate(grammar: &Grammar) -> Vec<(String, f64)> {
        let mut done = Vec::new();
        let mut open = vec![(String::new(), 1.0, 0)];
        while let Some((text, p, state)) = open.pop() {
            let choices = &grammar.states[state];
            let total: u32 = choices.iter().map(|choice| choice.weight).sum();
            for choice in choices {
                let (text, p) = (text.clone() + &choice.text, p * f64::from(choice.weight) / f64::from(total));
                match choice.next {
                    Some(next) => open.push((text, p, next)),
                    None => done.push((text, p)),
                }
            }
        }
        done
    }

    #[test]
    fn the_entropy_equals_brute_force_over_all_sentences() {
        let grammar = Grammar::builtin();
        let sentences = enumerate(&grammar);
        assert!(sentences.len() > 1_500_000);
        let sum = |value: &dyn Fn(&str, f64) -> f64| sentences.iter().map(|(s, p)| p * value(s, *p)).sum::<f64>();
        assert!((sum(&|_, _| 1.0) - 1.0).abs() < 1e-9);
        assert!((sum(&|_, p| -p.ln()) - grammar.entropy_per_sentence_nats()).abs() < 1e-9);
        assert!((sum(&|s, _| s.len() as f64) - grammar.mean_sentence_bytes()).abs() < 1e-9);
        // Unambiguous: no sentence has two derivations, and a full stop and line end close each and only it.
        let distinct: HashSet<&str> = sentences.iter().map(|(s, _)| s.as_str()).collect();
        assert_eq!(distinct.len(), sentences.len());
        assert!(sentences.iter().all(|(s, _)| s.is_ascii() && s.find(".\n") == Some(s.len() - 2)));
    }

    #[test]
    fn a_large_sample_has_the_stated_entropy() {
        let grammar = Grammar::builtin();
        let text = grammar.generate(5, 20_000);
        let rate = grammar.nats(&text).unwrap() / text.len() as f64;
        assert!((rate / grammar.entropy_per_byte() - 1.0).abs() < 0.01, "{rate}");
        assert!((grammar.entropy_per_byte() - 0.655_444).abs() < 1e-6);
        assert!(text.starts_with(&grammar.generate(5, 3)) && !text.starts_with(&grammar.generate(6, 3)));
    }

    #[test]
    fn grammatical_means_agreement() {
        let grammar = Grammar::builtin();
        assert!(grammar.nats("tom fed his big cat.\nida saw 25 owls.\n").is_some());
        for wrong in ["tom fed her cat.\n", "ida saw 25 owl.\n", "ida saw her owls.\n", "ida fed her big big cat.\n"] {
            assert_eq!(grammar.nats(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn as_a_data_set() {
        let data = builtin(1, 500, &TokenizerKind::Char, 0.1).unwrap();
        let text = Grammar::builtin().generate(1, 500);
        assert_eq!(data.train.len() + data.val.len(), text.len());
        let val = data.val.window(0, data.val.len()).unwrap();
        assert!(text.ends_with(&data.tokenizer.as_ref().unwrap().decode(&val)));
        assert_eq!(builtin(9, 1, &TokenizerKind::Char, 0.1).unwrap().tokenizer, data.tokenizer);
        assert!(data.check_length(128).is_ok() && data.check_length(2000).is_err());
        assert!(builtin(1, 0, &TokenizerKind::Byte, 0.1).is_err() && builtin(1, 9, &TokenizerKind::Byte, 1.0).is_err());
    }
}
