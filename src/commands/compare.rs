//! `tokenformer compare`: the report of a study, of runs that were made on their own.

use crate::error::{Error, Result};
use crate::study::gather::{Asked, gather};
use crate::study::runner::DATA;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Finished runs; those that differ in their seed only, or have one NAME, are one arm.
    #[arg(value_name = "[NAME=]RUN", required = true, num_args = 1..)]
    runs: Vec<String>,
    /// Name of the arm the others are compared with; by default the first.
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// Directory of the report.
    #[arg(short, long, value_name = "DIR", default_value = "comparison")]
    out: PathBuf,
}

/// Reads the runs and writes the report.
///
/// # Errors
/// A run that is not finished or not comparable; files that cannot be read or written.
pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    for (file, whose) in [("config.toml", "a run"), (DATA, "a study")] {
        if args.out.join(file).exists() {
            return Err(Error::usage(format!(
                "--out {} is the directory of {whose}, but a report gets a directory of its own: choose another one",
                args.out.display()
            )));
        }
    }
    if let Some(empty) = args.runs.iter().find(|run| run.rsplit('=').next() == Some("")) {
        return Err(Error::usage(format!("{empty:?} names no run: give the directory of one")));
    }
    super::study::check_report(&args.out)?;
    let run = |Asked { name, dir }| Asked { name, dir: super::run_dir::of(&dir) };
    let asked: Vec<Asked> = args.runs.iter().map(|text| run(Asked::parse(text))).collect();
    super::study::write_report(&gather(&asked, args.reference.as_deref())?, &args.out)
}
