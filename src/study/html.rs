//! `report.html`: one file with everything in it, no script, nothing fetched. Readable from 360 pixels of width on.

use super::budget::Axis;
use super::comparison::Comparisons;
use super::plot::{self, escaped};
use super::results::Findings;
use super::tables::{self, Table};
use super::verdict;

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

/// The whole page.
pub fn render(findings: &Findings, all: &Comparisons) -> String {
    let title = escaped(&findings.title);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n"
    );
    text += &opening(findings);
    text += "<h2>What the runs show</h2>\n";
    for sentence in verdict::summary(findings, all) {
        text += &format!("<p>{}</p>\n", escaped(&sentence));
    }
    for paragraph in verdict::paragraphs(findings, all) {
        text += &format!("<h3>{}</h3>\n{}", escaped(&paragraph.heading), list(&paragraph.sentences));
    }
    text += "<h2>Curves</h2>\n";
    text += &curves(findings);
    text += "<h2>Comparisons</h2>\n";
    text += "<p class=\"note\">Mean and standard deviation over the seeds; difference is arm minus reference over paired seeds, in \
             nats/token, so that below 0 is better. In the pictures a bar is the 95 % interval, and a filled dot says that it \
             excludes 0.</p>\n";
    for compared in &all.tables {
        text += &format!("<h3>{}</h3>\n", escaped(&verdict::heading(compared)));
        let picture = plot::intervals(findings, compared);
        if !picture.is_empty() {
            text += &format!("<figure style=\"max-width: 620px\">{picture}</figure>\n");
        }
        text += &table(&tables::compared(findings, compared));
    }
    text += &format!("<h2>Validation loss at the end of each run</h2>\n{}", table(&tables::ends(findings)));
    let growths = tables::growths(findings);
    if !growths.rows.is_empty() {
        text += "<h2>Growths</h2>\n<p class=\"note\">Spike: validation loss right after minus right before the growth, mean over \
                 the seeds (least to most). Recovery: tokens until the loss is back where it was before. The logit change is the \
                 largest over the seeds.</p>\n";
        text += &table(&growths);
    }
    if let Some(trials) = tables::trials(findings) {
        text += &format!(
            "<h2>Learning-rate trials</h2>\n<p class=\"note\">Validation loss at the end of each trial.</p>\n{}",
            table(&trials)
        );
    }
    text += &format!("<h2>Budgets</h2>\n{}", table(&tables::spent(findings)));
    text += &format!("<h2>How to read this</h2>\n{}", list(&verdict::limits(findings)));
    let (data, adapters) = (escaped(&findings.data), escaped(&findings.adapters().join("; ")));
    text += &format!(
        "<p class=\"note\">Data: {data}. Adapters: {adapters}. tokenformer {}.</p>\n",
        env!("CARGO_PKG_VERSION")
    );
    text + "</body>\n</html>\n"
}

fn opening(findings: &Findings) -> String {
    let mut text = String::from("<p>Arms:</p>\n<ul class=\"arms\">\n");
    for (index, arm) in findings.arms.iter().enumerate() {
        let reference = if index == findings.reference { " (the reference)" } else { "" };
        text += &format!(
            "<li><strong>{}</strong>{reference}: {}; lr {:e}</li>\n",
            escaped(&arm.name),
            escaped(&arm.what),
            arm.rate
        );
    }
    text += "</ul>\n";
    if let Some(floor) = findings.entropy_floor {
        text += &format!("<p>The data have an entropy of {floor:.4} nats/token, below which no loss can be.</p>\n");
    }
    text
}

fn curves(findings: &Findings) -> String {
    let mut text = String::from(
        "<p class=\"note\">Line: mean over the seeds. Band: from the least to the most of them. Dot: the end of a run, with its \
         learning rate decayed. Triangle on the axis: a growth. The fall at the start is cut off.</p>\n<ul class=\"legend\">\n",
    );
    for (index, arm) in findings.arms.iter().enumerate() {
        let swatch = plot::swatch(plot::style(findings, index));
        text += &format!("<li>{swatch}<span>{}</span></li>\n", escaped(&arm.name));
    }
    text += "</ul>\n<div class=\"plots\">\n";
    for (axis, what) in [(Axis::Tokens, "tokens"), (Axis::Flops, "FLOPs")] {
        text += &format!(
            "<figure><figcaption>Loss against {what}, each arm at the length that ends nearest to the reference</figcaption>{}\
             </figure>\n",
            plot::overview(findings, axis)
        );
    }
    text += "</div>\n<p class=\"note\">Each arm at all its lengths, against FLOPs, with the reference in grey.</p>\n\
             <div class=\"plots small\">\n";
    for (index, arm) in findings.arms.iter().enumerate().filter(|(index, _)| *index != findings.reference) {
        let picture = plot::beside_reference(findings, index, Axis::Flops);
        text += &format!("<figure><figcaption>{}</figcaption>{picture}</figure>\n", escaped(&arm.name));
    }
    text + "</div>\n"
}

fn list(sentences: &[String]) -> String {
    let items: String = sentences.iter().map(|sentence| format!("<li>{}</li>\n", escaped(sentence))).collect();
    format!("<ul>\n{items}</ul>\n")
}

fn table(table: &Table) -> String {
    let cells = |tag: &str, cells: &[String]| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect()
    };
    let rows: String = table.rows.iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n",
        cells("th", &table.head)
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::comparison::{compare, tests::findings};
    use super::*;

    /// Every tag closed by its own name, every attribute quoted, nothing unescaped.
    pub fn assert_well_formed(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        for piece in page.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').unwrap();
            let plain = ["&amp;", "&lt;", "&gt;", "&quot;"].iter().fold(text.to_owned(), |text, e| text.replace(e, ""));
            assert!(!plain.contains('&'), "{text}");
            assert!(tag.matches('"').count() % 2 == 0, "{tag}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') && !["!doctype", "meta"].contains(&name) {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn the_page_stands_alone() {
        let found = findings();
        let page = render(&found, &compare(&found));
        assert_well_formed(&page);
        for fetched in ["<script", "src=", "href=", "@import", "url(http"] {
            assert!(!page.contains(fetched), "{fetched}");
        }
        assert!(page.contains("grown &amp; &lt;new&gt;") && !page.contains("<new>") && !page.contains("<model>"));
    }
}
