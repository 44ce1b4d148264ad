//! One table, and the forms it is written in.

use super::escape;
use crate::error::{Error, Result};

/// Cells of text under column headings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// Name of each column.
    pub head: Vec<String>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<String>>,
}

/// The heading of a column, and its cell for one thing.
pub(crate) type NamedCell<'c, T> = (&'c str, fn(&T) -> String);

impl Table {
    /// A table without rows.
    pub(crate) fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self { head: head.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// A table with a row for each of `things`, whose columns have a name and say what is in their cells.
    pub(crate) fn of<'a, T: 'a>(things: impl IntoIterator<Item = &'a T>, columns: &[NamedCell<T>]) -> Self {
        let row = |thing| columns.iter().map(|(_, cell)| cell(thing)).collect();
        Self { rows: things.into_iter().map(row).collect(), ..Self::new(columns.iter().map(|(name, _)| *name)) }
    }

    /// Markdown to be read as it stands, on a terminal: columns of equal width, those of numbers to the right, and those
    /// that are empty in every row left out.
    pub(crate) fn aligned(&self) -> String {
        let columns: Vec<Column> = (0..self.head.len()).filter_map(|index| self.column(index)).collect();
        if columns.is_empty() {
            return String::new();
        }
        let line = |row: &[String]| {
            let cells = columns.iter().map(|&Column { index, width, right }| {
                let text = escape::cell(cell(row, index));
                if right { format!("{text:>width$}") } else { format!("{text:<width$}") }
            });
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = columns.iter().map(
            |&Column { width, right, .. }| {
                if right { format!("{}:", "-".repeat(width - 1)) } else { "-".repeat(width) }
            },
        );
        let rule = format!("| {} |\n", rule.collect::<Vec<_>>().join(" | "));
        line(&self.head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }

    /// How a column is aligned; `None` where it is empty in every row.
    fn column(&self, index: usize) -> Option<Column> {
        let cells = || self.rows.iter().map(|row| cell(row, index));
        if cells().all(str::is_empty) {
            return None;
        }
        let right = cells().all(|text| text.is_empty() || text.parse::<f64>().is_ok());
        let width = cells().chain([cell(&self.head, index)]).map(|text| escape::cell(text).chars().count()).max();
        Some(Column { index, width: width.unwrap_or(0).max(3), right })
    }

    /// Markdown for a document: compact, with every cell's text as text.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|text| escape::cell(&escape::markdown(text))).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = format!("|{}\n", "---|".repeat(self.head.len()));
        line(&self.head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }

    /// An HTML table that scrolls sideways where it is wider than its page.
    pub(crate) fn html(&self) -> String {
        let cells = |tag: &str, cells: &[String]| -> String {
            cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape::html(cell))).collect()
        };
        let rows: String = self.rows.iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
        format!(
            "<div class=\"scroll\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n",
            cells("th", &self.head)
        )
    }

    /// Comma-separated values with the heading, as RFC 4180 but with `\n` at the end of a line.
    ///
    /// # Errors
    /// A defect where a row has more or fewer cells than the heading.
    pub(crate) fn csv(&self) -> Result<String> {
        let defect = |cause: &dyn std::fmt::Display| Error::defect(format!("a table is no CSV: {cause}"));
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in std::iter::once(&self.head).chain(&self.rows) {
            writer.write_record(row).map_err(|cause| defect(&cause))?;
        }
        let bytes = writer.into_inner().map_err(|cause| defect(&cause))?;
        String::from_utf8(bytes).map_err(|cause| defect(&cause))
    }
}

/// A column of [`Table::aligned`].
struct Column {
    index: usize,
    /// Characters.
    width: usize,
    /// Aligned to the right.
    right: bool,
}

fn cell(row: &[String], column: usize) -> &str {
    row.get(column).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table<const N: usize>(head: [&str; N], rows: &[[&str; N]]) -> Table {
        let rows = rows.iter().map(|row| row.map(str::to_owned).into()).collect();
        Table { rows, ..Table::new(head) }
    }

    #[test]
    fn aligned_columns_are_of_one_width_and_empty_ones_left_out() {
        let table = table(["op", "empty", "ms"], &[["matmul", "", "1.25"], ["a|é", "", "100.5"]]);
        let text = table.aligned();
        assert_eq!(
            text,
            "| op     |    ms |\n\
             | ------ | ----: |\n\
             | matmul |  1.25 |\n\
             | a\\|é   | 100.5 |\n"
        );
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{widths:?}");
        assert_eq!(Table::new(["a"]).aligned(), "");
    }

    #[test]
    fn documents_hold_text_as_text() {
        let table = table(["arm", "n"], &[["a_b|c", "1"], ["<x>", ""]]);
        assert_eq!(table.markdown(), "| arm | n |\n|---|---|\n| a\\_b\\|c | 1 |\n| \\<x> |  |\n");
        assert!(table.html().contains("<tr><td>&lt;x&gt;</td><td></td></tr>"));
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let table = table(["a", "b"], &[["x,y", "say \"hi\""], ["two\nlines", "plain"]]);
        assert_eq!(table.csv().unwrap(), "a,b\n\"x,y\",\"say \"\"hi\"\"\"\n\"two\nlines\",plain\n");
        let ragged = Table { rows: vec![vec!["x".into()]], ..Table::new(["a", "b"]) };
        assert_eq!(ragged.csv().unwrap_err().exit_code(), 70);
    }
}
