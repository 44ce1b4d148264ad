//! `report.md`: the report in Markdown, with the pictures of intervals in files beside it.

use super::{plots, tables, verdict, words};
use crate::report::chart::standalone;
use crate::report::escape::markdown as escaped;
use crate::study::comparison::Comparisons;
use crate::study::results::Findings;

/// The whole report.
pub(crate) fn render(findings: &Findings, all: &Comparisons) -> String {
    let mut text = format!("# {}\n\n", findings.title);
    for sentence in verdict::summary(findings, all) {
        text += &format!("{}\n\n", escaped(&sentence));
    }
    for paragraph in verdict::paragraphs(findings, all) {
        text += &format!("**{}.**\n\n{}\n", escaped(&paragraph.heading), list(&paragraph.sentences));
    }
    text += "## Arms\n\n";
    for arm in &findings.arms {
        let what = words::models(&arm.models);
        text += &format!("- **{}**: {}; lr {:e}\n", escaped(&arm.name), escaped(&what), arm.rate);
    }
    text += "\n## Budgets\n\n";
    text += &tables::spent(findings).markdown();
    text += "\n## Validation loss at the end of each run, nats/token\n\n";
    text += &tables::ends(findings).markdown();
    let pictures = pictures(findings, all);
    for (index, comparison) in all.points.iter().enumerate() {
        let heading = verdict::heading(comparison);
        text += &format!("\n## {heading}\n\n");
        if let Some(Picture { file, .. }) = pictures.iter().find(|picture| picture.point == index) {
            text += &format!("![{heading}: difference from the reference]({file})\n\n");
        }
        text += &tables::compared(findings, comparison).markdown();
    }
    let growths = tables::growths(findings);
    if !growths.rows.is_empty() {
        text += "\n## Growths\n\n";
        text += &growths.markdown();
    }
    if let Some(trials) = tables::trials(findings) {
        text += "\n## Learning-rate trials, validation loss at their end\n\n";
        text += &trials.markdown();
    }
    text += &format!("\n## How to read this\n\n{}", list(&verdict::limits(findings)));
    text += &format!("\nData: {}. Adapters: {}.\n", escaped(&findings.data), escaped(&findings.adapters().join("; ")));
    text
}

fn list(sentences: &[String]) -> String {
    sentences.iter().map(|sentence| format!("- {}\n", escaped(sentence))).collect()
}

/// A picture that lies beside the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Index of the comparison.
    pub point: usize,
    /// Name of its file.
    pub file: String,
    /// What is in it.
    pub svg: String,
}

/// The intervals of each comparison that has any.
pub(crate) fn pictures(findings: &Findings, all: &Comparisons) -> Vec<Picture> {
    let picture = |(point, comparison)| {
        let svg = standalone(&plots::intervals(findings, comparison)?, &[]);
        Some(Picture { point, file: format!("intervals-{}.svg", point + 1), svg })
    };
    all.points.iter().enumerate().filter_map(picture).collect()
}
