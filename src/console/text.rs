//! Text from files and models, fit for a terminal: commands to it are written out.

/// One character as a terminal may have it.
fn visible(c: char) -> String {
    if c.is_control() { c.escape_debug().to_string() } else { c.to_string() }
}

/// What a file says, fit for one line of a terminal: line breaks and commands to the terminal are written out.
pub(crate) fn legible(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// The same with tabs.
pub(super) fn line(text: &str) -> String {
    text.split('\t').map(legible).collect::<Vec<_>>().join("\t")
}

/// Text that comes in pieces, with its line breaks and tabs. A carriage return and a line feed are a line break, also where a
/// piece ends between them; a carriage return alone would overwrite its line, and is written out.
#[derive(Debug, Default)]
pub(crate) struct TerminalText {
    /// The last piece ended in a carriage return.
    returned: bool,
}

impl TerminalText {
    /// The next piece.
    pub(crate) fn piece(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if std::mem::take(&mut self.returned) && c != '\n' {
                out.push_str("\\r");
            }
            match c {
                '\r' => self.returned = true,
                '\n' | '\t' => out.push(c),
                c => out.push_str(&visible(c)),
            }
        }
        out
    }

    /// What is left at the end.
    pub(crate) fn rest(&mut self) -> &'static str {
        if std::mem::take(&mut self.returned) { "\\r" } else { "" }
    }

    /// A text that is there as a whole.
    pub(crate) fn whole(text: &str) -> String {
        let mut terminal = Self::default();
        let shown = terminal.piece(text);
        shown + terminal.rest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_to_a_terminal_are_written_out_and_lines_are_kept() {
        let shown = TerminalText::whole("a\tb\n\u{1b}[31m\r\n\n\u{9b}c\r");
        assert_eq!(shown, "a\tb\n\\u{1b}[31m\n\n\\u{9b}c\\r");
        assert_eq!((legible("a\tb\r\n"), line("a\tb\r")), ("a\\tb\\r\\n".to_owned(), "a\tb\\r".to_owned()));
    }

    #[test]
    fn a_line_break_may_come_in_two_pieces() {
        let text = "one\r\ntwo\rthree\r\r\n\r";
        for first in 0..=text.len() {
            let mut terminal = TerminalText::default();
            let (before, after) = text.split_at(first);
            let shown = [terminal.piece(before), terminal.piece(after), terminal.rest().to_owned()].concat();
            assert_eq!(shown, "one\ntwo\\rthree\\r\n\\r", "{first}");
        }
    }
}
