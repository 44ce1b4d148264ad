//! An HTML page in one file: no script, nothing fetched. Readable from 360 pixels of width on.

use super::escape::html;
use super::table::Table;

const STYLE: &str = "
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 12px; font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; }
h1 { font-size: 1.6em; line-height: 1.2; margin: .4em 0; }
h2 { font-size: 1.25em; margin: 1.8em 0 .5em; border-bottom: 1px solid #ccc; }
h3 { font-size: 1em; margin: 1.2em 0 .3em; }
p, li { max-width: 46em; overflow-wrap: anywhere; }
ul { padding-left: 1.2em; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 18px; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .95em; margin-bottom: 4px; overflow-wrap: anywhere; }
svg.plot { display: block; width: 100%; height: auto; font-family: system-ui, sans-serif; fill: #1a1a1a; }
svg .halo { paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 18px; }
.legend li { display: flex; gap: 8px; align-items: center; }
.swatch { flex: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9em; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 9em; position: sticky; left: 0; background: #fff; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
.note { color: #444; font-size: .95em; }
@media (max-width: 500px) { body { font-size: 15px; } th:first-child, td:first-child { min-width: 7em; max-width: 9em; } }
";

/// A page that is written from top to bottom.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// A page with its title as the heading.
    pub(crate) fn new(title: &str) -> Self {
        let title = html(title);
        let text = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
             <body>\n<h1>{title}</h1>\n"
        );
        Self { text }
    }

    /// A heading of a section.
    pub(crate) fn section(&mut self, heading: &str) {
        self.text += &format!("<h2>{}</h2>\n", html(heading));
    }

    /// A heading inside a section.
    pub(crate) fn subsection(&mut self, heading: &str) {
        self.text += &format!("<h3>{}</h3>\n", html(heading));
    }

    /// A paragraph.
    pub(crate) fn paragraph(&mut self, text: &str) {
        self.text += &format!("<p>{}</p>\n", html(text));
    }

    /// A paragraph about what is beside it.
    pub(crate) fn note(&mut self, text: &str) {
        self.text += &format!("<p class=\"note\">{}</p>\n", html(text));
    }

    /// One item for each sentence.
    pub(crate) fn list(&mut self, sentences: &[String]) {
        let items: String = sentences.iter().map(|sentence| format!("<li>{}</li>\n", html(sentence))).collect();
        self.text += &format!("<ul>\n{items}</ul>\n");
    }

    /// A table.
    pub(crate) fn table(&mut self, table: &Table) {
        self.text += &table.html();
    }

    /// What is HTML already.
    pub(crate) fn raw(&mut self, html: &str) {
        self.text += html;
    }

    /// The whole page.
    pub(crate) fn finish(self) -> String {
        self.text + "</body>\n</html>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::assert_well_formed;
    use super::*;

    #[test]
    fn everything_on_a_page_is_text() {
        let mut page = Page::new("a & <b>");
        page.section("<i>");
        page.subsection("<i>");
        page.paragraph("1 < 2");
        page.note("\"quoted\"");
        page.list(&["<li>".into()]);
        page.table(&Table { rows: vec![vec!["<td>".into()]], ..Table::new(["<th>"]) });
        let text = page.finish();
        assert_well_formed(&text);
        assert!(text.contains("<title>a &amp; &lt;b&gt;</title>") && !text.contains("<i>"), "{text}");
    }
}
