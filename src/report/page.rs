//! An HTML page in one file: no script, nothing fetched. Readable from 360 pixels of width on.

use super::chart::{ON_BLACK, Style};
use super::escape::html;
use super::table::Table;

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1a1a1a; --page: #fff; --rule: #ccc; --row: #ddd; --soft: #444; --well: #f4f4f4; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 12px; font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); }
h1 { font-size: 1.6em; line-height: 1.2; margin: .4em 0; }
h2 { font-size: 1.25em; margin: 1.8em 0 .5em; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1em; margin: 1.2em 0 .3em; }
p, li { max-width: 46em; overflow-wrap: anywhere; }
ul { padding-left: 1.2em; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 18px; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .95em; margin-bottom: 4px; overflow-wrap: anywhere; }
svg.plot { display: block; width: 100%; height: auto; font-family: system-ui, sans-serif; fill: var(--text); }
svg .halo { paint-order: stroke; stroke: var(--page); stroke-width: 4px; stroke-linejoin: round; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 18px; }
.legend li { display: flex; gap: 8px; align-items: center; }
.swatch { flex: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9em; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--row); text-align: right; vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 9em; position: sticky; left: 0; background: var(--page); }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
.note { color: var(--soft); font-size: .95em; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts td:first-child { position: static; color: var(--soft); }
details { margin: .5em 0; }
summary { cursor: pointer; }
pre { margin: .4em 0; padding: 10px; background: var(--well); border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere;
  unicode-bidi: isolate; font: 13px/1.45 ui-monospace, monospace; }
@media (max-width: 500px) { body { font-size: 15px; } th:first-child, td:first-child { min-width: 7em; max-width: 9em; } }
";

/// What the page has in the place of these colours for people who like it dark.
fn dark() -> String {
    let root = ":root { --text: #e4e4e4; --page: #16181c; --rule: #4a4f57; --row: #33373e; --soft: #b3b7bd; --well: #22252b; }";
    let swapped = ON_BLACK.iter().map(|(light, dark)| {
        format!("[stroke=\"{light}\"] {{ stroke: {dark}; }} [fill=\"{light}\"] {{ fill: {dark}; }}\n")
    });
    format!("@media (prefers-color-scheme: dark) {{\n{root}\n{}}}\n", swapped.collect::<String>())
}

/// What a page of this program has in its head.
pub(crate) const MARK: &str = "<meta name=\"generator\" content=\"tokenformer\">";
/// Nothing is loaded and nothing runs, whatever came into the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

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
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n{MARK}\n<meta \
             http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n<meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}{}</style>\n</head>\n\
             <body>\n<h1>{title}</h1>\n",
            dark()
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

    /// Names with what each stands for.
    pub(crate) fn facts(&mut self, facts: &[(String, String)]) {
        let row =
            |(name, what): &(String, String)| format!("<tr><td>{}</td><td>{}</td></tr>\n", html(name), html(what));
        let rows: String = facts.iter().map(row).collect();
        self.text += &format!("<table class=\"facts\">\n<tbody>\n{rows}</tbody>\n</table>\n");
    }

    /// Text with its line ends, shown under its name once that is opened.
    pub(crate) fn folded(&mut self, name: &str, text: &str, open: bool) {
        let open = if open { " open" } else { "" };
        let (name, text) = (html(name), html(&text.replace("\r\n", "\n")));
        self.text += &format!("<details{open}>\n<summary>{name}</summary>\n<pre>\n{text}</pre>\n</details>\n");
    }

    /// How curves are drawn, and whose they are.
    pub(crate) fn legend(&mut self, names: &[(Style, String)]) {
        let item =
            |(style, name): &(Style, String)| format!("<li>{}<span>{}</span></li>\n", style.swatch(), html(name));
        let items: String = names.iter().map(item).collect();
        self.text += &format!("<ul class=\"legend\">\n{items}</ul>\n");
    }

    /// A picture with its caption.
    pub(crate) fn figure(&mut self, caption: &str, picture: &str) {
        self.text += &format!("<figure><figcaption>{}</figcaption>{picture}</figure>\n", html(caption));
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
        page.facts(&[("<td>".into(), "</table>".into())]);
        page.folded("<summary>", "</pre><script>\u{1b}[2J\0", true);
        page.legend(&[(Style::FAINT, "<li>".into())]);
        page.figure("<figure>", "");
        page.table(&Table { rows: vec![vec!["<td>".into()]], ..Table::new(["<th>"]) });
        let text = page.finish();
        assert_well_formed(&text);
        assert!(
            !text.contains("<script") && !text.contains('\u{1b}') && text.contains("\u{fffd}[2J\u{fffd}"),
            "{text}"
        );
        assert!(text.contains("<title>a &amp; &lt;b&gt;</title>") && !text.contains("<i>"), "{text}");
    }
}
