//! `report.md`: the report in Markdown, with the pictures of intervals in files beside it.

use super::comparison::Comparisons;
use super::plot;
use super::results::Findings;
use super::tables::{self, Table};
use super::verdict;

/// The whole report.
pub fn render(findings: &Findings, all: &Comparisons) -> String {
    let mut text = format!("# {}\n\n", findings.title);
    for sentence in verdict::summary(findings, all) {
        text += &format!("{}\n\n", escaped(&sentence));
    }
    for paragraph in verdict::paragraphs(findings, all) {
        text += &format!("**{}.**\n\n", escaped(&paragraph.heading));
        for sentence in &paragraph.sentences {
            text += &format!("- {}\n", escaped(sentence));
        }
        text.push('\n');
    }
    text += "## Arms\n\n";
    for arm in &findings.arms {
        text += &format!("- **{}**: {}; lr {:e}\n", escaped(&arm.name), escaped(&arm.what), arm.rate);
    }
    text += "\n## Budgets\n\n";
    text += &table(&tables::spent(findings));
    text += "\n## Validation loss at the end of each run, nats/token\n\n";
    text += &table(&tables::ends(findings));
    let pictures = pictures(findings, all);
    for (index, compared) in all.tables.iter().enumerate() {
        let heading = verdict::heading(compared);
        text += &format!("\n## {heading}\n\n");
        if let Some((_, name, _)) = pictures.iter().find(|(of, ..)| *of == index) {
            text += &format!("![{heading}: difference from the reference]({name})\n\n");
        }
        text += &table(&tables::compared(findings, compared));
    }
    let growths = tables::growths(findings);
    if !growths.rows.is_empty() {
        text += "\n## Growths\n\n";
        text += &table(&growths);
    }
    if let Some(trials) = tables::trials(findings) {
        text += "\n## Learning-rate trials, validation loss at their end\n\n";
        text += &table(&trials);
    }
    text += "\n## How to read this\n\n";
    for sentence in verdict::limits(findings) {
        text += &format!("- {}\n", escaped(&sentence));
    }
    text += &format!("\nData: {}. Adapters: {}.\n", escaped(&findings.data), escaped(&findings.adapters().join("; ")));
    text
}

/// The pictures: index of the comparison, name of the file, and what is in it.
pub fn pictures(findings: &Findings, all: &Comparisons) -> Vec<(usize, String, String)> {
    let picture = |(index, compared)| {
        let picture = plot::intervals(findings, compared);
        (!picture.is_empty()).then(|| (index, format!("intervals-{}.svg", index + 1), plot::standalone(&picture)))
    };
    all.tables.iter().enumerate().filter_map(picture).collect()
}

/// A table of Markdown.
pub fn table(table: &Table) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| escaped(cell).replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = format!("|{}\n", "---|".repeat(table.head.len()));
    line(&table.head) + &rule + &table.rows.iter().map(|row| line(row)).collect::<String>()
}

/// Names may hold what Markdown takes for markup.
fn escaped(text: &str) -> String {
    let marks = |c: char| matches!(c, '*' | '_' | '`' | '<' | '[' | '\\' | '#');
    text.chars().flat_map(|c| marks(c).then_some('\\').into_iter().chain([c])).collect()
}
