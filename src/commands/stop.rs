//! Text that ends a generation, found in text that comes in pieces.

/// Prints what comes until one of its texts does.
pub(super) struct StopText<'a> {
    stops: &'a [String],
    /// What may be the beginning of one of them.
    held: String,
}

impl<'a> StopText<'a> {
    /// Empty texts are none.
    pub(super) fn new(stops: &'a [String]) -> Self {
        Self { stops, held: String::new() }
    }

    /// What can be printed after `text` has come, and whether one of the texts has.
    pub(super) fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let stops = || self.stops.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops().filter_map(|stop| self.held.find(stop.as_str())).min() {
            let mut before = std::mem::take(&mut self.held);
            before.truncate(at);
            return (before, true);
        }
        let begins = |at: usize| self.held.get(at..).is_some_and(|end| stops().any(|stop| stop.starts_with(end)));
        let kept = self.held.char_indices().map(|(at, _)| at).find(|at| begins(*at)).unwrap_or(self.held.len());
        let rest = self.held.split_off(kept);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, at the end.
    pub(super) fn finish(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut stop = StopText::new(&stops);
        let mut out = String::new();
        for piece in pieces {
            let (text, ended) = stop.push(piece);
            out += &text;
            if ended {
                return (out, true);
            }
        }
        (out + &stop.finish(), false)
    }

    #[test]
    fn text_is_printed_up_to_a_stop_however_it_comes() {
        for pieces in [&["abc\n\nd"][..], &["a", "b", "c", "\n", "\n", "d"], &["abc\n", "\nd"]] {
            assert_eq!(run(&["\n\n"], pieces), ("abc".to_owned(), true));
            assert_eq!(run(&["\n\n", "c"], pieces), ("ab".to_owned(), true));
            assert_eq!(run(&["zz", ""], pieces), ("abc\n\nd".to_owned(), false));
        }
        // The beginning of a stop that does not come is printed in the end.
        assert_eq!(run(&["END"], &["E", "N", "o ", "EEN", "D!"]), ("ENo E".to_owned(), true));
        assert_eq!(run(&["END"], &["the EN"]), ("the EN".to_owned(), false));
        assert_eq!(run(&["\u{e9}a"], &["x\u{e9}", "\u{e9}", "a"]), ("x\u{e9}".to_owned(), true));
    }
}
