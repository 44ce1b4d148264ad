//! `report.html`: one page with everything on it.

use super::{plots, tables, verdict, words};
use crate::report::escape::html as escaped;
use crate::report::page::Page;
use crate::study::budget::Axis;
use crate::study::comparison::Comparisons;
use crate::study::results::{ArmResult, Findings};

/// The whole page.
pub(crate) fn render(findings: &Findings, all: &Comparisons) -> String {
    let mut page = Page::new(&findings.title);
    opening(&mut page, findings);
    page.section("What the runs show");
    verdict::summary(findings, all).iter().for_each(|sentence| page.paragraph(sentence));
    for paragraph in verdict::paragraphs(findings, all) {
        page.subsection(&paragraph.heading);
        page.list(&paragraph.sentences);
    }
    curves(&mut page, findings);
    comparisons(&mut page, findings, all);
    page.section("Validation loss at the end of each run");
    page.table(&tables::ends(findings));
    let growths = tables::growths(findings);
    if !growths.rows.is_empty() {
        page.section("Growths");
        page.note(
            "Spike: validation loss right after minus right before the growth, mean over the seeds (least to most). Recovery: \
             tokens until the loss is back where it was before. The logit change is the largest over the seeds.",
        );
        page.table(&growths);
    }
    if let Some(trials) = tables::trials(findings) {
        page.section("Learning-rate trials");
        page.note("Validation loss at the end of each trial.");
        page.table(&trials);
    }
    page.section("Budgets");
    page.table(&tables::spent(findings));
    page.section("How to read this");
    page.list(&verdict::limits(findings));
    let (data, adapters) = (&findings.data, findings.adapters().join("; "));
    page.note(&format!("Data: {data}. Adapters: {adapters}. tokenformer {}.", env!("CARGO_PKG_VERSION")));
    page.finish()
}

fn opening(page: &mut Page, findings: &Findings) {
    page.paragraph("Arms:");
    page.raw("<ul class=\"arms\">\n");
    for (index, arm) in findings.arms.iter().enumerate() {
        let reference = if index == findings.reference { " (the reference)" } else { "" };
        let (name, what) = (escaped(&arm.name), escaped(&words::models(&arm.models)));
        page.raw(&format!("<li><strong>{name}</strong>{reference}: {what}; lr {:e}</li>\n", arm.rate));
    }
    page.raw("</ul>\n");
    if let Some(floor) = findings.entropy_floor {
        page.paragraph(&format!("The data have an entropy of {floor:.4} nats/token, below which no loss can be."));
    }
}

fn curves(page: &mut Page, findings: &Findings) {
    page.section("Curves");
    page.note(
        "Line: mean over the seeds. Band: from the least to the most of them. Dot: the end of a run, with its learning rate \
         decayed. Triangle on the axis: a growth. The fall at the start is cut off.",
    );
    let named = |(index, arm): (usize, &ArmResult)| (plots::style(findings, index), arm.name.clone());
    page.legend(&findings.arms.iter().enumerate().map(named).collect::<Vec<_>>());
    page.raw("<div class=\"plots\">\n");
    for (axis, what) in [(Axis::Tokens, "tokens"), (Axis::Flops, "FLOPs")] {
        let caption = format!("Loss against {what}, each arm at the length that ends nearest to the reference");
        page.figure(&caption, &plots::overview(findings, axis));
    }
    page.raw("</div>\n");
    page.note("Each arm at all its lengths, against FLOPs, with the reference in grey.");
    page.raw("<div class=\"plots small\">\n");
    for (index, arm) in findings.arms.iter().enumerate().filter(|(index, _)| *index != findings.reference) {
        page.figure(&arm.name, &plots::beside_reference(findings, index, Axis::Flops));
    }
    page.raw("</div>\n");
}

fn comparisons(page: &mut Page, findings: &Findings, all: &Comparisons) {
    page.section("Comparisons");
    page.note(
        "Mean and standard deviation over the seeds; difference is arm minus reference over paired seeds, in nats/token, so \
         that below 0 is better. In the pictures a bar is the 95 % interval, and a filled dot says that it excludes 0.",
    );
    for comparison in &all.points {
        page.subsection(&verdict::heading(comparison));
        if let Some(picture) = plots::intervals(findings, comparison) {
            page.raw(&format!("<figure style=\"max-width: 620px\">{picture}</figure>\n"));
        }
        page.table(&tables::compared(findings, comparison));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::svg::tests::assert_well_formed;
    use crate::study::comparison::{compare, tests::findings};

    #[test]
    fn the_page_stands_alone() {
        let found = findings();
        let page = render(&found, &compare(&found));
        assert_well_formed(&page);
        for fetched in ["<script", "src=", "href=", "@import", "url(http"] {
            assert!(!page.contains(fetched), "{fetched}");
        }
        assert!(page.contains("grown &amp; &lt;new&gt;") && !page.contains("<new>") && !page.contains("<set>"));
    }
}
