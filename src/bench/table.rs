//! Rows of text as Markdown with aligned columns, or as CSV.

/// A heading and rows, all of the same length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Name of each column.
    pub head: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    /// Markdown, columns of equal width; those that are empty or numbers in every row to the right, columns that are
    /// empty in every row left out.
    pub fn markdown(&self) -> String {
        let used = |&column: &usize| self.rows.iter().any(|row| !cell(row, column).is_empty());
        let columns: Vec<(usize, usize, bool)> = (0..self.head.len())
            .filter(used)
            .map(|column| {
                let cells = self.rows.iter().map(|row| cell(row, column));
                let number = |text: &str| text.is_empty() || text.parse::<f64>().is_ok();
                let right = cells.clone().all(number);
                let width = cells.chain([cell(&self.head, column)]).map(|text| escaped(text).chars().count()).max();
                (column, width.unwrap_or(0).max(3), right)
            })
            .collect();
        let line = |row: &[String]| {
            let cells = columns.iter().map(|&(column, width, right)| {
                let text = escaped(cell(row, column));
                if right { format!("{text:>width$}") } else { format!("{text:<width$}") }
            });
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = columns.iter().map(
            |&(_, width, right)| {
                if right { format!("{}:", "-".repeat(width - 1)) } else { "-".repeat(width) }
            },
        );
        let rule = format!("| {} |\n", rule.collect::<Vec<_>>().join(" | "));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        if columns.is_empty() { String::new() } else { line(&self.head) + &rule + &rows }
    }

    /// Comma-separated values with the heading, as RFC 4180 but with `\n` at the end of a line.
    pub fn csv(&self) -> String {
        let line = |row: &Vec<String>| row.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(",") + "\n";
        std::iter::once(&self.head).chain(&self.rows).map(line).collect()
    }
}

fn cell(row: &[String], column: usize) -> &str {
    row.get(column).map_or("", String::as_str)
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(head: &[&str], rows: &[&[&str]]) -> Table {
        let rows = rows.iter().map(|row| row.iter().map(|text| (*text).to_owned()).collect()).collect();
        Table { rows, ..Table::new(head) }
    }

    #[test]
    fn markdown_is_aligned_and_leaves_empty_columns_out() {
        let table = table(&["op", "empty", "ms"], &[&["matmul", "", "1.25"], &["a|é", "", "100.5"]]);
        let text = table.markdown();
        assert_eq!(
            text,
            "| op     |    ms |\n\
             | ------ | ----: |\n\
             | matmul |  1.25 |\n\
             | a\\|é   | 100.5 |\n"
        );
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{widths:?}");
        assert_eq!(Table::new(&["a"]).markdown(), "");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let table = table(&["a", "b"], &[&["x,y", "say \"hi\""], &["two\nlines", "plain"]]);
        assert_eq!(table.csv(), "a,b\n\"x,y\",\"say \"\"hi\"\"\"\n\"two\nlines\",plain\n");
    }
}
