//! The findings in plain words: what the intervals allow to say, and nothing more.

use super::words;
use crate::report::number;
use crate::study::budget::Axis;
use crate::study::comparison::{Comparison, Comparisons, Finding, Place, Row};
use crate::study::results::Findings;
use crate::study::statistics::LEVEL;

/// A point of comparison and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paragraph {
    /// What is equal, and how much of it.
    pub heading: String,
    /// One sentence for each arm, and one about the reference where something must be known of it.
    pub sentences: Vec<String>,
}

/// How much was compared, and how far that can be trusted.
pub(crate) fn summary(findings: &Findings, all: &Comparisons) -> Vec<String> {
    let reference = findings.name(findings.reference);
    let (better, worse) = (all.count_of(Finding::Better), all.count_of(Finding::Worse));
    let survive = all.rows().filter(|row| row.survives).count();
    let most = findings.cases.iter().map(|case| case.final_losses().len()).max().unwrap_or(0);
    let mut said = Vec::new();
    if all.count == 0 {
        said.push(format!(
            "Nothing can be said: no arm has two seeds in common with \"{reference}\" at any point of comparison."
        ));
        return said;
    }
    let chance = all.count as f64 * (1.0 - LEVEL);
    said.push(format!(
        "{} comparisons with \"{reference}\" were made, over up to {most} paired seeds. In {} the 95 % interval excludes 0: \
         better in {better}, worse in {worse}. If nothing differed, about {chance:.1} would by chance alone. {survive} still \
         {} where the confidence is spread over all comparisons (Bonferroni).",
        all.count,
        better + worse,
        if survive == 1 { "does" } else { "do" }
    ));
    let uncharged = all.points.iter().filter(|comparison| comparison.axis == Axis::MarginalFlops);
    let uncharged =
        uncharged.flat_map(|comparison| &comparison.rows).filter(|row| row.finding() == Finding::Better).count();
    if uncharged > 0 {
        said.push(format!(
            "{uncharged} of those {better} are at equal FLOPs after the last growth, where nothing is charged of what an arm \
             spent before it."
        ));
    }
    said.push(
        "An interval that includes 0 does not show that two arms are equal, only that these seeds do not tell them apart."
            .to_owned(),
    );
    said
}

/// A paragraph for each point.
pub(crate) fn paragraphs(findings: &Findings, all: &Comparisons) -> Vec<Paragraph> {
    all.points.iter().map(|comparison| paragraph(findings, comparison)).collect()
}

/// The heading of a comparison.
pub(crate) fn heading(comparison: &Comparison) -> String {
    let words = words::equal(comparison.axis);
    format!(
        "{}{}: {}",
        words.get(..1).unwrap_or("").to_uppercase(),
        words.get(1..).unwrap_or(""),
        comparison.axis.amount(comparison.point)
    )
}

fn paragraph(findings: &Findings, comparison: &Comparison) -> Paragraph {
    let reference = comparison.rows.get(findings.reference);
    let name = findings.name(findings.reference);
    let mut sentences = Vec::new();
    match reference.and_then(Row::place) {
        None => sentences.push(format!("The reference \"{name}\" does not reach this point, so nothing is compared.")),
        Some(Place::Middle(_)) => sentences.push(format!(
            "The reference \"{name}\" is in the middle of its schedule here, with a learning rate that has not come down, \
             which puts it at a disadvantage."
        )),
        Some(Place::End(_)) => {}
    }
    let others = || comparison.rows.iter().filter(|row| row.arm != findings.reference);
    for row in others() {
        sentences.extend(sentence(findings, row, name));
    }
    for (kind, said) in [
        (Finding::NoDifference, "No difference shown"),
        (Finding::OnePair, "One pair of runs, so no interval and no finding"),
        (Finding::NotReached, "No evaluation up to this point, so not compared"),
        (Finding::NoPair, "No seed in common with the reference"),
    ] {
        let all = others().filter(|row| row.finding() == kind);
        sentences.extend(all.map(|row| format!("{said}: {}.", listed(findings, row))));
    }
    Paragraph { heading: heading(comparison), sentences }
}

/// A name with what must be known about its run.
fn listed(findings: &Findings, row: &Row) -> String {
    let middle = matches!(row.place(), Some(Place::Middle(_)));
    let span = row.interval().map(|(_, ends)| words::span(ends));
    let parts: Vec<String> = span.into_iter().chain(middle.then(|| "mid-schedule".to_owned())).collect();
    let name = format!("\"{}\"", findings.name(row.arm));
    if parts.is_empty() { name } else { format!("{name} ({})", parts.join(", ")) }
}

/// The sentence about an arm whose interval excludes 0.
fn sentence(findings: &Findings, row: &Row, reference: &str) -> Option<String> {
    let (difference, (low, high)) = row.interval().filter(|(difference, _)| difference.excludes_zero())?;
    let (word, least, most) = if high < 0.0 { ("better", -high, -low) } else { ("worse", low, high) };
    let place = match row.place() {
        Some(Place::Middle(share)) => format!(
            ", read in the middle of its schedule ({:.0} % of its steps), which puts it at a disadvantage",
            100.0 * share
        ),
        _ => String::new(),
    };
    Some(format!(
        "\"{}\" is {word} than \"{reference}\" by {} to {} nats/token (95 % interval, n = {}){place}.",
        findings.name(row.arm),
        number::loss(least),
        number::loss(most),
        difference.n
    ))
}

/// What the numbers do not show, whatever they are.
pub(crate) fn limits(findings: &Findings) -> Vec<String> {
    let mut said = vec![
        "Intervals are Student's t over paired seeds (arm minus reference with the same seed, same order of data). They cover \
         what seeds change and nothing else: another size, data set or length may differ."
            .to_owned(),
        "FLOPs are counted from the dispatches of a step: matrix products and causal attention. Work by element, evaluations \
         and the growth itself are not counted. \"After growth\" is after the last growth; an arm that does not grow has all of \
         its training there."
            .to_owned(),
        "\"End, decayed\" is the end of a run whose learning rate came down by its own schedule. \"Mid-schedule\" is read \
         between evaluations of a longer run by a straight line; its rate had not come down, so it looks worse than a run of \
         that length would. Nothing is extrapolated."
            .to_owned(),
    ];
    if findings.arms.iter().any(|arm| !arm.trials.is_empty()) {
        said.push(
            "Every arm tried the same list of learning rates; the choice was made on the validation loss that is also reported, \
             which flatters all arms a little. A chosen rate at an end of the list may not be the best there is."
                .to_owned(),
        );
    }
    said.extend(findings.notes.iter().cloned());
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::comparison::{compare, tests::findings};

    #[test]
    fn only_what_intervals_allow_is_said() {
        let mut found = findings();
        let text = |found: &Findings| {
            let said = paragraphs(found, &compare(found));
            said.iter().map(|p| format!("{}: {}", p.heading, p.sentences.join(" "))).collect::<Vec<_>>()
        };
        let said = text(&found);
        assert!(
            said[0].starts_with("Equal tokens: 1,000 tokens: \"grown & <new>\" is better than \"base\" by 0.49"),
            "{said:?}"
        );
        assert!(said[0].ends_with("No evaluation up to this point, so not compared: \"short\"."), "{said:?}");
        assert!(said[2].contains("The reference \"base\" is in the middle of its schedule"), "{said:?}");
        // One seed in two that is far off.
        for case in &mut found.cases {
            case.runs.truncate(2);
        }
        let far = found.cases[1].runs[1].measured.as_mut().unwrap();
        far.losses.iter_mut().for_each(|(_, loss)| *loss += 1.0);
        let said = text(&found);
        assert!(said[0].contains("No difference shown: \"grown & <new>\" ("), "{said:?}");
        for case in &mut found.cases {
            case.runs.truncate(1);
        }
        assert!(text(&found)[0].contains("One pair of runs, so no interval and no finding: \"grown"));
        assert!(summary(&found, &compare(&found))[0].starts_with("Nothing can be said"));
    }

    #[test]
    fn the_number_of_comparisons_is_said() {
        let found = findings();
        let said = summary(&found, &compare(&found));
        assert!(
            said[0].starts_with("3 comparisons with \"base\" were made, over up to 3 paired seeds. In 3 the 95 %"),
            "{said:?}"
        );
        assert!(said[0].contains("about 0.2 would by chance"), "{said:?}");
    }
}
