//! `tokenformer lr-find`: a learning rate for a run, from a short test of many. No run is read or written.

use super::answer::Answer;
use super::settings::Settings;
use super::train::check_limits;
use crate::config::{Precision, RunConfig};
use crate::console::{note, warn};
use crate::error::Error;
use crate::gpu::adapter::AdapterRequest;
use crate::kernel::Dtype;
use crate::report::number;
use crate::train::cohorts::{self, Stage};
use crate::train::lr_find::{Measured, Range, measure, picture, smoothed, suggest};
use crate::train::{disk, report};
use crate::tune;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Steps of a test that names none.
const STEPS: usize = 100;

/// Arguments of `lr-find`.
#[derive(Debug, Args)]
pub(crate) struct LrFindArgs {
    #[command(flatten)]
    settings: Settings,
    /// The first learning rate.
    #[arg(long, value_name = "LR", default_value_t = 1e-6, value_parser = super::number)]
    min_lr: f64,
    /// The last learning rate.
    #[arg(long, value_name = "LR", default_value_t = 1.0, value_parser = super::number)]
    max_lr: f64,
    /// The picture to write. One of an earlier test is replaced.
    #[arg(long, value_name = "FILE", default_value = "lr-find.svg")]
    picture: PathBuf,
}

/// Tests, draws, and prints the rate at which the loss fell fastest.
///
/// # Errors
/// Settings or data that no run could start with, before a device is opened; a picture that is somebody else's file; a loss
/// that never fell.
pub(crate) fn run(request: &AdapterRequest, args: &LrFindArgs) -> Answer {
    let range = Range { rates: [args.min_lr, args.max_lr], steps: args.settings.steps().unwrap_or(STEPS) };
    range.check()?;
    super::check_place(&args.picture)?;
    report::check_own(&args.picture)?;
    let mut config = args.settings.resolve()?;
    // How the run goes on does not matter here, and its own number of steps is another.
    config.growth.clear();
    config.validate()?;
    let data = disk::dataset(&config, None)?;
    config.model.resolve_vocab(data.vocab_size)?;
    config.validate()?;
    data.check_length(config.model.seq_length)?;
    data.oversized(config.model.vocab_size).into_iter().for_each(warn);

    let mut device = super::open_device(request)?;
    // No timing for one use; what is known is used.
    device.kernels = tune::recall(&device.engine, &device.kernels);
    let RunConfig { model, train, .. } = &config;
    let stage = Stage { model: model.clone(), cohorts: vec![cohorts::first(model)] };
    check_limits(&device.kernels, &[stage], train)?;
    if train.precision == Precision::F16 {
        super::selftest::once_per_adapter(&device, request, Dtype::F16)?;
    }
    let [low, high] = range.rates;
    note(format_args!(
        "data: {}\nmodel: {:?}, {} parameters; {} steps of {} tokens, learning rate from {low:e} to {high:e}",
        data.told(),
        model.arch,
        model.param_count(),
        range.steps,
        train.total_batch_tokens.max(train.batch_size * model.seq_length)
    ));
    let Measured { points, diverged } = measure(&device, &config, &data, range)?;
    let found = suggest(&points);
    if let Some(text) = picture(&points, found) {
        report::write(&args.picture, &text)?;
    }
    let Some(found) = found else {
        return Err(nothing(points.len(), range));
    };
    let last = points.last().map_or(high, |point| point.lr);
    let ended = if diverged { "ended at" } else { "did not diverge up to" };
    note(format_args!(
        "the smoothed loss is lowest, {}, at {:.1e}, and {ended} {last:.1e}; picture: {}",
        number::loss(found.lowest_loss),
        found.lowest_lr,
        args.picture.display()
    ));
    super::print(&format!("{:.1e}\n", found.lr))?;
    let of_points = points.iter().zip(smoothed(&points));
    let of_points: Vec<_> = of_points.map(|(point, smooth)| json!([point.lr, point.loss, smooth])).collect();
    Ok(json!({
        "suggested_lr": found.lr,
        "lowest_loss_lr": found.lowest_lr,
        "lowest_loss": found.lowest_loss,
        "diverged_lr": diverged.then_some(last),
        "steps": points.len(),
        "picture": args.picture,
        "points": of_points,
    }))
}

/// Why there is no suggestion.
fn nothing(steps: usize, range: Range) -> Error {
    let [low, high] = range.rates;
    Error::input(format!(
        "the loss fell at no learning rate in the {steps} steps from {low:e} up to {high:e}: start lower with --min-lr, or take \
         more --steps"
    ))
}
