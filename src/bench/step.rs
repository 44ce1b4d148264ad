//! Whole optimizer steps, and where their time goes.
//!
//! Steps are taken by the same [`Trainer`] as in training, on random tokens, and as there: one is encoded and submitted before
//! the numbers of the one before it are read; in mixed precision these say the loss scale, so it is only encoded.
//! Then [`super::step_parts`] times the kernels of a step by themselves.

use super::fma::fma_peak;
use super::probe::Probe;
use super::record::{Pass, Record, Report};
use super::step_parts::Parts;
use super::timing::{Timed, hold};
use crate::config::{ModelConfig, RunConfig};
use crate::console::note;
use crate::data::{Batch, TokenSource, train_batch};
use crate::error::{Error, Result};
use crate::gpu::timing::Stopwatch;
use crate::kernel::Dtype;
use crate::kernel::KernelTable;
use crate::model::init;
use crate::rng::{Rng, Stream};
use crate::train::cohorts;
use crate::train::schedule::learning_rate;
use crate::train::trainer::{PendingStep, RunPlans, Trainer};
use crate::tune::{self, Effort, Sandbox};
use std::collections::BTreeMap;
use std::time::Instant;

/// The operator of a record of a whole step.
pub(super) const STEP: &str = "step";

/// Steps before the clock starts.
const WARM_UP: usize = 2;
/// Random tokens that batches are drawn from, at least.
const TOKENS: usize = 1 << 16;

/// What is timed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen<'a> {
    /// The model and its training.
    pub config: &'a RunConfig,
    /// What is spent on choosing kernels first.
    pub effort: Effort,
    /// Steps that are timed.
    pub steps: usize,
    /// For each case.
    pub seconds: f64,
}

/// Adds the multiply-add peak, the step, and one record for each kernel of it; kernels are chosen first, in `sandbox`.
///
/// # Errors
/// Those of planning and allocating the model; a device error where a step gives no finite numbers.
pub(crate) fn run(
    stopwatch: &Stopwatch,
    kernels: &KernelTable,
    sandbox: &Sandbox,
    chosen: &Chosen,
    report: &mut Report,
) -> Result<()> {
    let Chosen { config, effort, steps, seconds } = *chosen;
    let cohorts = [cohorts::first(&config.model)];
    let plans = |kernels: &KernelTable| RunPlans::new(&config.model, &config.train, &cohorts, 1, kernels);
    let products = plans(kernels)?.products();
    let kernels = tune::tune(stopwatch.engine, kernels, sandbox, &products, effort, &BTreeMap::new())?;
    let plans = plans(&kernels)?;
    let peak = fma_peak(stopwatch, Dtype::F32, seconds)?;
    // The most that was seen: other work on the machine only ever lowers it.
    let peak_gflops = peak.gflops_best.unwrap_or(f64::NAN);
    report.add(peak);
    let case = case_name(&config.model, &plans);
    let source = tokens(&config.model, &plans);
    let probe = Probe::new(stopwatch)?;
    let mut host_ms = 0.0;
    probe.around("steps", report, |report| {
        let (record, host) = steps_record(stopwatch, config, &plans, &source, steps, seconds, report)?;
        host_ms = host;
        report.add(Record { case: case.clone(), ..record });
        Ok(())
    })?;
    let record = report.records.last().cloned().unwrap_or_default();
    let (step_ms, gflops) = (record.median_ms, record.gflops_median.unwrap_or(0.0));
    let tokens_per_second = record.tokens_per_second.unwrap_or(0.0);
    report.fact("tokens", tokens_per_second, "1/s");
    // Of all operations that ran, what is computed again for the backward among them.
    report.fact(
        "hardware FLOP utilisation",
        100.0 * gflops / peak_gflops,
        "% of the f32 multiply-add peak of this run",
    );
    report.fact(
        "host work of a step",
        100.0 * host_ms / step_ms,
        "% of a step: making batches and commands, most of it while the GPU works on another",
    );
    report.summary.push(names(&kernels));
    let parts = Parts { stopwatch, config, plans: &plans, case: &case, seconds };
    probe.around("kernels of a step", report, |report| parts.add(&source, step_ms, report))
}

/// Which kernels the tuning chose.
fn names(kernels: &KernelTable) -> String {
    let names = kernels.names();
    let list: Vec<String> = names.iter().map(|(class, candidate)| format!("{class}: {candidate}")).collect();
    if list.is_empty() { "kernels of matrix products: the default ones".to_owned() } else { list.join("; ") }
}

fn case_name(model: &ModelConfig, plans: &RunPlans) -> String {
    let (shape, arch) = (plans.shape, format!("{:?}", model.arch).to_lowercase());
    format!(
        "{arch} {}x{}, {} parameters, {}x{}x{} tokens",
        model.num_layers,
        model.hidden_size,
        model.param_count(),
        shape.grad_accum,
        shape.batch,
        shape.seq
    )
}

pub(super) fn tokens(model: &ModelConfig, plans: &RunPlans) -> TokenSource {
    let mut rng = Rng::named(13, Stream::Test, "tokens");
    let count = TOKENS.max(2 * plans.shape.seq);
    TokenSource::from_tokens((0..count).map(|_| rng.below(model.vocab_size as u64) as u32).collect())
}

/// The batches of a step, drawn as in training.
fn batches(source: &TokenSource, plans: &RunPlans, step: usize) -> Result<Vec<Batch>> {
    let shape = plans.shape;
    let batch = |i| train_batch(source, 1, (step * shape.grad_accum + i) as u64, shape.batch, shape.seq);
    (0..shape.grad_accum).map(batch).collect()
}

/// The step as a whole, by the wall clock, and the median of what the host did for each, milliseconds.
fn steps_record(
    stopwatch: &Stopwatch,
    config: &RunConfig,
    plans: &RunPlans,
    source: &TokenSource,
    steps: usize,
    seconds: f64,
    report: &mut Report,
) -> Result<(Record, f64)> {
    let (engine, model, train) = (stopwatch.engine, &config.model, &config.train);
    let trainer = Trainer::new(engine, &plans.kernels, model, train, vec![cohorts::first(model)], 1)?;
    trainer.load_parameters(&init::initial(model, train.seed))?;
    note(format_args!("{} optimizer steps and more", WARM_UP + steps));
    let mut steps_taken =
        Steps { trainer: &trainer, config, plans, source, taken: 0, pending: None, last: Instant::now() };
    for _ in 0..WARM_UP {
        steps_taken.next()?;
    }
    if !engine.gpu.target.software {
        stopwatch.raise_clocks()?;
        // The first of them has a part of what was before it.
        steps_taken.next()?;
        hold(|| Ok(steps_taken.next()?[0]), seconds)?;
    }
    let times = (0..steps).map(|_| steps_taken.next()).collect::<Result<Vec<_>>>()?;
    steps_taken.end()?;
    let (samples_ms, host_ms): (Vec<f64>, Vec<f64>) = times.into_iter().map(|[step, host]| (step, host)).unzip();
    let bytes = trainer.bytes();
    for (class, bytes) in [
        ("parameters", bytes.parameters),
        ("gradients", bytes.gradients),
        ("moments", bytes.moments),
        ("averages", bytes.averages),
        ("activations", bytes.activations),
        ("workspace", bytes.workspace),
        ("uniform blocks", trainer.uniform_bytes()),
        ("all on the device", engine.allocated()),
    ] {
        report.fact(&format!("memory, {class}"), bytes as f64 * 1e-6, "MB");
    }
    let record = Record {
        op: STEP.to_owned(),
        pass: Pass::Step,
        dtype: plans.shape.precision.name().to_owned(),
        candidate: if train.recompute { "recompute" } else { "default" }.to_owned(),
        flops: plans.flops_per_step(),
        ..Record::default()
    };
    let mut record = record.timed(Timed { samples_ms, repeats: 1, ..Timed::default() });
    let tokens = (plans.shape.rows() * plans.shape.grad_accum) as f64;
    record.tokens_per_second = Some(tokens / record.median_ms * 1e3);
    Ok((record, super::timing::quantile(&host_ms, 0.5)))
}

/// Steps, taken as in training.
struct Steps<'a> {
    trainer: &'a Trainer<'a>,
    config: &'a RunConfig,
    plans: &'a RunPlans,
    source: &'a TokenSource,
    taken: usize,
    pending: Option<PendingStep>,
    /// When the last one was submitted and the one before it finished.
    last: Instant,
}

impl Steps<'_> {
    /// Submits a step and finishes the one before it: milliseconds since it was called last, and of the host's work for the step
    /// that was submitted.
    fn next(&mut self) -> Result<[f64; 2]> {
        let start = Instant::now();
        let batches = batches(self.source, self.plans, self.taken)?;
        let lr = learning_rate(&self.config.train, self.taken as f64);
        let first = self.trainer.encode_step(&batches, self.taken as u64)?;
        let mut host = start.elapsed();
        if self.trainer.is_mixed() {
            self.end()?;
        }
        let start = Instant::now();
        let submitted = self.trainer.start_encoded(first, &batches, self.taken as u64, lr)?;
        host += start.elapsed();
        self.taken += 1;
        let before = self.pending.replace(submitted);
        self.finish(before)?;
        let step = self.last.elapsed();
        self.last = Instant::now();
        Ok([step, host].map(|time| time.as_secs_f64() * 1e3))
    }

    /// Finishes what was submitted.
    fn end(&mut self) -> Result<()> {
        let last = self.pending.take();
        self.finish(last)
    }

    fn finish(&self, step: Option<PendingStep>) -> Result<()> {
        let Some(step) = step else { return Ok(()) };
        let engine = self.trainer.engine();
        let stats = step.finish(engine)?;
        if stats.finite {
            return Ok(());
        }
        Err(Error::device(format!(
            "a step has loss {} and gradient norm {} on {}: nothing more was timed; run `tokenformer selftest`",
            stats.loss,
            stats.grad_norm,
            engine.gpu.describe()
        )))
    }
}
