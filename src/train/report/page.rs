//! The page of a run, and that of several.

use super::pictures::{Axis, change, course, legend, losses, thinned};
use super::{Shown, differences};
use crate::config::TrainConfig;
use crate::report::escape::clipped;
use crate::report::number::{self, grouped};
use crate::report::page::Page;
use crate::report::table::Table;

/// The whole page of these runs.
pub(crate) fn render(runs: &[Shown]) -> String {
    let mut page = match runs {
        [run] => Page::new(&run.name),
        _ => Page::new(&format!("{} runs", runs.len())),
    };
    if let [run] = runs {
        page.paragraph(&standing(run));
    } else {
        page.table(&overview(runs));
    }
    pictures(&mut page, runs);
    growths(&mut page, runs);
    if let [run] = runs {
        about(&mut page, run);
        samples(&mut page, run, true);
    } else {
        differing(&mut page, runs);
        if runs.iter().any(|run| !run.history.samples.is_empty()) {
            page.section("Samples");
        }
        for run in runs.iter().filter(|run| !run.history.samples.is_empty()) {
            page.subsection(&run.name);
            samples(&mut page, run, false);
        }
    }
    page.section("Settings");
    for run in runs {
        let name = if runs.len() > 1 { run.name.clone() } else { "config.toml".to_owned() };
        match &run.settings {
            Some(settings) => page.folded(&name, settings, false),
            None => page.note(&format!("The settings of {} cannot be read, so there are no FLOPs.", run.name)),
        }
    }
    page.note(&format!("Made of metrics.jsonl and config.toml by tokenformer {}.", env!("CARGO_PKG_VERSION")));
    page.finish()
}

/// Where a run stands, in a sentence or two.
fn standing(run: &Shown) -> String {
    let (history, now) = (&run.history, run.history.now());
    let of = run
        .config
        .as_ref()
        .filter(|config| config.train.max_steps != TrainConfig::NO_LIMIT)
        .map_or_else(String::new, |config| format!(" of {}", grouped(config.train.max_steps as u64)));
    let mut text = format!("Step {}{of}", grouped(now.step));
    if now.tokens > 0.0 {
        text += &format!(", {} tokens", grouped(now.tokens as u64));
    }
    text += &format!(", {} of training", number::seconds(now.seconds));
    if let Some(costs) = run.costs.as_ref().filter(|_| now.step > 0) {
        text += &format!(", {}", number::flops(costs.at(now.step)));
    }
    text += &format!("; {} parameters.", grouped(history.parameters()));
    text + &best(run).map_or_else(String::new, |best| format!(" Lowest validation loss: {best}."))
}

/// The lowest validation loss in words.
fn best(run: &Shown) -> Option<String> {
    let (step, loss) = run.history.best?;
    let bits = run.history.best_bits.map_or_else(String::new, |bits| format!(" ({bits:.4} bits per byte)"));
    Some(format!("{} nats/token{bits} after step {}", number::loss(loss), grouped(step)))
}

fn overview(runs: &[Shown]) -> Table {
    Table::of(
        runs,
        &[
            ("run", |run| run.name.clone()),
            ("lowest val loss", |run| run.history.best.map_or_else(String::new, |(_, loss)| number::loss(loss))),
            ("after step", |run| run.history.best.map_or_else(String::new, |(step, _)| grouped(step))),
            ("bits per byte", |run| run.history.best_bits.map_or_else(String::new, |bits| format!("{bits:.4}"))),
            ("steps", |run| grouped(run.history.now().step)),
            ("tokens", |run| grouped(run.history.now().tokens.max(0.0) as u64)),
            ("time", |run| number::seconds(run.history.now().seconds)),
            ("FLOPs", |run| {
                run.costs.as_ref().map_or_else(String::new, |costs| number::flops(costs.at(run.history.now().step)))
            }),
            ("parameters", |run| grouped(run.history.parameters())),
            ("adapter", |run| clipped(&run.history.process().adapter, 32, "\u{2026}")),
        ],
    )
}

fn pictures(page: &mut Page, runs: &[Shown]) {
    page.section("Loss");
    let figures: Vec<_> = Axis::ALL.into_iter().filter_map(|axis| losses(runs, axis)).collect();
    if figures.is_empty() {
        page.paragraph("There are no two losses yet to draw a line between.");
        return;
    }
    page.legend(&legend(runs));
    page.raw("<div class=\"plots\">\n");
    figures.iter().for_each(|figure| page.figure(&figure.caption, &figure.picture));
    page.raw("</div>\n");
    let mut notes = vec!["A fall at the start that would flatten the rest is cut off.".to_owned()];
    notes.extend(thinned(runs));
    if runs.iter().any(|run| !run.history.growths.is_empty()) {
        notes.push(match runs {
            [_] => "Dashed line: a growth, with the largest change of a logit across it.".to_owned(),
            _ => "Triangle on the axis: a growth.".to_owned(),
        });
    }
    notes.push(
        "Time is that of the steps that counted, evaluations and samples between them included; FLOPs are those of the matrix \
         products of training."
            .to_owned(),
    );
    page.note(&notes.join(" "));
    page.section("Course");
    page.raw("<div class=\"plots\">\n");
    course(runs).iter().for_each(|figure| page.figure(&figure.caption, &figure.picture));
    page.raw("</div>\n");
}

fn growths(page: &mut Page, runs: &[Shown]) {
    let mut table = Table::new(["growth", "parameters", "logit change", "val loss before", "val loss after"]);
    for run in runs {
        for record in run.history.growths.iter().map(|grown| &grown.record) {
            let of = if runs.len() > 1 { format!("{}, ", run.name) } else { String::new() };
            table.rows.push(vec![
                format!("{of}after step {}", grouped(record.at_step)),
                format!("{} \u{2192} {}", grouped(record.before.params), grouped(record.after.params)),
                change(record.max_logit_change),
                number::loss(record.loss_before),
                number::loss(record.loss_after),
            ]);
        }
    }
    if !table.rows.is_empty() {
        page.section("Growths");
        page.table(&table);
    }
}

fn about(page: &mut Page, run: &Shown) {
    page.section("About the run");
    let (history, process) = (&run.history, run.history.process());
    let mut facts = vec![("adapter", process.adapter), ("data", process.data)];
    if process.ranks > 1 {
        facts.push(("ranks", process.ranks.to_string()));
    }
    if let Some(config) = &run.config {
        let (model, train) = (&config.model, &config.train);
        let layers =
            format!("{} layers x {}, {} tokens a sequence", model.num_layers, model.hidden_size, model.seq_length);
        facts.push(("model", format!("{:?}, {layers}", model.arch)));
        let update = train.total_batch_tokens.max(train.batch_size * model.seq_length);
        facts.push((
            "update",
            format!("{} tokens, learning rate {:e}, seed {}", grouped(update as u64), train.lr, train.seed),
        ));
    }
    if let Some(memory) = process.memory {
        facts.push(("device memory", number::bytes(memory)));
    }
    if history.starts > 1 {
        facts.push(("processes", format!("{}, the last from step {} on", history.starts, grouped(process.from_step))));
    }
    if let Some(imported) = &run.imported {
        facts.push(("origin", imported.clone()));
    }
    facts.push(("program", format!("tokenformer {}", process.version)));
    page.facts(&facts.into_iter().map(|(name, what)| (name.to_owned(), what)).collect::<Vec<_>>());
    if !run.lineage.is_empty() {
        page.subsection("Lineage");
        page.list(&run.lineage);
    }
    if !history.rollbacks.is_empty() {
        page.subsection("Returns to a checkpoint");
        let said = |(from, to, why): &(u64, u64, String)| {
            format!("from step {} to step {}: {why}", grouped(*from), grouped(*to))
        };
        page.list(&history.rollbacks.iter().map(said).collect::<Vec<_>>());
    }
}

fn samples(page: &mut Page, run: &Shown, heading: bool) {
    let samples = &run.history.samples;
    if samples.is_empty() {
        return;
    }
    if heading {
        page.section("Samples");
    }
    for (index, (step, text)) in samples.iter().enumerate() {
        page.folded(&format!("after step {}", grouped(*step)), text.trim(), heading && index + 1 == samples.len());
    }
}

/// The settings in which the runs differ.
fn differing(page: &mut Page, runs: &[Shown]) {
    let mut table = Table::new(std::iter::once("setting".to_owned()).chain(runs.iter().map(|run| run.name.clone())));
    table.rows = differences::of(runs);
    page.section("Settings that differ");
    if table.rows.is_empty() {
        page.paragraph("None.");
    } else {
        page.table(&table);
    }
}
