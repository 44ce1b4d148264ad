//! `tokenformer report`: the page of a run, or of several over each other, from their files alone.

use super::answer::Answer;
use crate::error::{Error, Result};
use crate::study::gather::Asked;
use crate::train::report::{self, Shown};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Runs to draw, over each other where there are several; NAME is what one is called there.
    #[arg(value_name = "[NAME=]RUN", required = true, num_args = 1..)]
    runs: Vec<String>,
    /// The page to write, or with the ending .svg the picture of the losses alone. A report that is there already is replaced.
    #[arg(short, long, value_name = "FILE", default_value = report::FILE)]
    out: PathBuf,
}

/// Most runs of a page: more curves cannot be told apart.
const MOST: usize = 21;

/// Reads the runs and writes the page.
///
/// # Errors
/// Metrics that cannot be read; an output that is somebody else's or cannot be written.
pub(crate) fn run(args: &ReportArgs) -> Answer {
    if args.runs.len() > MOST {
        return Err(Error::usage(format!(
            "{} runs are more than can be told apart, which is {MOST}: give fewer",
            args.runs.len()
        )));
    }
    if args.runs.iter().any(|run| run.rsplit('=').next() == Some("")) {
        return Err(Error::usage("\"\" names no run: give the directory of one"));
    }
    super::check_place(&args.out)?;
    report::check_own(&args.out)?;
    let read = |text: &String| {
        let Asked { name, dir } = Asked::parse(text);
        Shown::read(&super::run_dir::of(&dir), name)
    };
    let runs: Vec<Shown> = args.runs.iter().map(read).collect::<Result<_>>()?;
    let shown = args.out.display();
    let is_picture = args.out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("svg"));
    let text = match is_picture {
        true => report::picture(&runs).ok_or_else(|| {
            Error::input(format!(
                "{} has no two losses yet, and a line needs two: let it train further, or write a page with --out F.html",
                args.runs.join(", ")
            ))
        })?,
        false => report::page(&runs),
    };
    report::write(&args.out, &text)?;
    let lines: u64 = runs.iter().map(Shown::lines).sum();
    super::print(&format!(
        "{shown}: {} of {lines} lines of metrics\n",
        if is_picture { "a picture" } else { "a page" }
    ))?;
    Ok(json!({ "output": args.out, "runs": args.runs, "lines": lines }))
}
