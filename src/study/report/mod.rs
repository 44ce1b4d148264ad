//! The report of a study: what the intervals allow to say, in words, tables and pictures.
//!
//! | file | idea |
//! |---|---|
//! | [`tables`] | every table of the report |
//! | [`verdict`] | the findings in sentences, and what the numbers do not show |
//! | [`words`] | what a report calls things |
//! | [`plots`] | curves and intervals as pictures |
//! | [`html`], [`markdown`], [`jsonl`] | the files that are written |
//!
//! Nothing here decides: what is compared and what was found is in [`super::comparison`].

pub(super) mod html;
pub(super) mod jsonl;
pub(super) mod markdown;
pub(super) mod plots;
pub mod tables;
pub(super) mod verdict;
pub(super) mod words;

use super::comparison::Comparisons;
use super::results::Findings;
use crate::error::Result;
pub use jsonl::is_results;

/// The report for programs.
pub const RESULTS: &str = "results.jsonl";
/// The report as one page.
pub const PAGE: &str = "report.html";
/// The report as Markdown, with pictures beside it.
pub const MARKDOWN: &str = "report.md";

/// Name and text of every file of a report, in the order in which they are to be written: an interrupted report is known
/// by [`RESULTS`], so the page and the Markdown come after it.
///
/// # Errors
/// None that can be met: no number is one that JSON cannot hold.
pub fn files(findings: &Findings, all: &Comparisons) -> Result<Vec<(String, String)>> {
    let pictures = markdown::pictures(findings, all).into_iter().map(|picture| (picture.file, picture.svg));
    let texts = [
        (RESULTS, jsonl::render(findings, all)?),
        (MARKDOWN, markdown::render(findings, all)),
        (PAGE, html::render(findings, all)),
    ];
    Ok(pictures.chain(texts.map(|(name, text)| (name.to_owned(), text))).collect())
}

/// The findings as plain text, for a terminal.
pub fn plain(findings: &Findings, all: &Comparisons) -> String {
    let mut text: String = verdict::summary(findings, all).iter().map(|sentence| format!("{sentence}\n")).collect();
    for paragraph in verdict::paragraphs(findings, all) {
        text += &format!("\n{}\n", paragraph.heading);
        text.extend(paragraph.sentences.iter().map(|sentence| format!("- {sentence}\n")));
    }
    text
}
