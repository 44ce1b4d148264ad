//! Whole optimizer steps, and where their time goes.
//!
//! Steps are taken by the same [`Trainer`] as in training, on random tokens, and as there: one is encoded and submitted before
//! the numbers of the one before it are read; in mixed precision these say the loss scale, so it is only encoded. Then the dispatches of a step are grouped
//! by kernel, and each group is run by itself, on memory that holds what a real step left there: what a kernel costs
//! depends on its data in few places (the gradient of the embedding, an update that gradients which are not finite
//! forbid), but there it does. Runs of a group change that memory, so it is restored before each.

use super::fma::fma_peak;
use super::probe::Probe;
use super::record::{Pass, Record, Report};
use super::timing::{Timed, hold, time};
use crate::config::{ModelConfig, RunConfig};
use crate::data::{Batch, TokenSource, token_index, train_batch};
use crate::error::{Error, Result, tell};
use crate::gpu::engine::Program;
use crate::gpu::timing::Stopwatch;
use crate::graph::plan::Plan;
use crate::kernel::Dtype;
use crate::kernel::KernelTable;
use crate::model::init::Tensors;
use crate::model::{graphs, init};
use crate::ops::adamw::{CohortStep, Update};
use crate::ops::stats::{Stats, fresh_stats};
use crate::rng::{Rng, Stream};
use crate::run::memory::Memory;
use crate::train::cohorts;
use crate::train::schedule::learning_rate;
use crate::train::trainer::{PendingStep, RunPlans, Trainer, upload_parameters, upload_rope};
use crate::tune::{self, Effort, Sandbox};
use std::collections::BTreeMap;
use std::time::Instant;

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

fn tokens(model: &ModelConfig, plans: &RunPlans) -> TokenSource {
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
    tell(format_args!("{} optimizer steps and more", WARM_UP + steps));
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
        ("activations", bytes.activations),
        ("workspace", bytes.workspace),
        ("uniform blocks", trainer.uniform_bytes()),
        ("all on the device", engine.allocated()),
    ] {
        report.fact(&format!("memory, {class}"), bytes as f64 * 1e-6, "MB");
    }
    let record = Record {
        op: "step".to_owned(),
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
        let lr = learning_rate(&self.config.train, self.taken);
        let first = self.trainer.encode_step(&batches)?;
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

/// The dispatches of one kernel in one of the two plans of a step.
struct Group {
    kernel: String,
    plan: Plan,
    /// Runs of the plan in a step.
    runs: usize,
}

/// The calls of `plan` by kernel, in the order in which kernels first run.
fn groups(plan: &Plan, runs: usize) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for call in &plan.calls {
        let kernel = call.kernel.name();
        match groups.iter_mut().find(|group| group.kernel == kernel) {
            Some(group) => group.plan.calls.push(call.clone()),
            None => groups.push(Group { kernel, plan: Plan { calls: vec![call.clone()], ..plan.clone() }, runs }),
        }
    }
    groups
}

/// Whether a kernel's time counts as that of matrix products.
fn is_matrix_product(kernel: &str) -> bool {
    kernel.starts_with("matmul")
}

/// What is needed to time the parts of a step.
struct Parts<'a> {
    stopwatch: &'a Stopwatch<'a>,
    config: &'a RunConfig,
    plans: &'a RunPlans,
    case: &'a str,
    seconds: f64,
}

/// What a step begins with.
struct Start<'a> {
    memory: Memory,
    micro: &'a Program,
    update: &'a Program,
    /// Those of parameters, in mixed precision.
    copies: &'a [Program],
    initial: Tensors,
}

impl Parts<'_> {
    /// Adds a record for each kernel, with times, calls and operations of a whole step.
    fn add(&self, source: &TokenSource, step_ms: f64, report: &mut Report) -> Result<()> {
        let (engine, plans) = (self.stopwatch.engine, self.plans);
        let mut groups: Vec<Group> = groups(&plans.micro, plans.shape.grad_accum);
        let of_micro = groups.len();
        groups.extend(self::groups(&plans.update, 1));
        let all: Vec<&Plan> = [&plans.micro, &plans.update]
            .into_iter()
            .chain(groups.iter().map(|group| &group.plan))
            .chain(&plans.copies)
            .collect();
        let (memory, programs) = Memory::allocate(engine, &all)?;
        let [micro, update, parts @ ..] = programs.as_slice() else {
            return Err(Error::defect("plans and programs differ in number"));
        };
        let (parts, copies) = parts.split_at(groups.len());
        let initial = init::initial(&self.config.model, self.config.train.seed);
        let start = Start { memory, micro, update, copies, initial };
        self.restore(&start, source)?;
        let micro_ms = time(self.stopwatch, micro, self.seconds)?.median_ms() * plans.shape.grad_accum as f64;
        self.restore(&start, source)?;
        let whole_ms = micro_ms + time(self.stopwatch, update, self.seconds)?.median_ms();
        self.updated(&start)?;
        let mut records: Vec<Record> = Vec::new();
        for (i, (group, program)) in groups.iter().zip(parts).enumerate() {
            self.restore(&start, source)?;
            records.push(self.part(group, program)?);
            if i >= of_micro {
                self.updated(&start)?;
            }
        }
        let sum: f64 = records.iter().map(|record| record.median_ms).sum();
        let products: f64 =
            records.iter().filter(|record| is_matrix_product(&record.op)).map(|record| record.median_ms).sum();
        records.sort_by(|a, b| b.median_ms.total_cmp(&a.median_ms));
        for mut record in records {
            record.share_percent = Some(100.0 * record.median_ms / sum);
            report.add(record);
        }
        report.fact("kernels of a step, one after the other", whole_ms, "ms");
        report.fact("kernels of a step, each kind by itself", sum, "ms");
        let share = 100.0 * products / sum;
        if whole_ms <= step_ms {
            let idle = 100.0 * (1.0 - whole_ms / step_ms);
            report.fact("without a kernel", idle, "% of a step: host, submissions, uploads, waits");
        } else {
            report.summary.push(format!(
                "The kernels of a step took {whole_ms:.1} ms in a chain but a whole step {step_ms:.1} ms: the machine's speed \
                 changed meanwhile, so how long a step is without a kernel cannot be told. Measure again on an idle one."
            ));
        }
        report.fact("matrix products", share, "% of the time of all kernels");
        report.summary.push(format!("matrix products {share:.1} %, everything else {:.1} %", 100.0 - share));
        Ok(())
    }

    /// Memory as the first step leaves it.
    fn restore(&self, start: &Start, source: &TokenSource) -> Result<()> {
        let engine = self.stopwatch.engine;
        self.fill(start, source)?;
        let mut encoder = engine.encoder();
        engine.clear(&mut encoder, start.memory.gradients());
        engine.wait(engine.start(encoder, start.micro)?)?;
        engine.run(start.update)?;
        self.updated(start)
    }

    /// Refuses times of an update that was none: AdamW does nothing where a gradient is not finite.
    fn updated(&self, start: &Start) -> Result<()> {
        let engine = self.stopwatch.engine;
        let stats = engine.read(start.memory.named(graphs::STATS_NAME)?)?;
        if Stats::from_words(&stats).is_finite() {
            return Ok(());
        }
        Err(Error::device(format!(
            "the gradients of a step are not finite on {}, so the time of its update would be that of nothing; run \
             `tokenformer selftest`",
            engine.gpu.describe()
        )))
    }

    /// Parameters, tokens and scalars as at the first step.
    fn fill(&self, Start { memory, copies, initial, .. }: &Start, source: &TokenSource) -> Result<()> {
        let (engine, model, train) = (self.stopwatch.engine, &self.config.model, &self.config.train);
        upload_parameters(engine, memory, model, initial)?;
        copies.iter().try_for_each(|program| engine.run(program))?;
        upload_rope(engine, memory, model)?;
        let batch = train_batch(source, 1, 0, self.plans.shape.batch, self.plans.shape.seq)?;
        let index = token_index(&batch.tokens, model.vocab_size)?;
        engine.write(memory.named(graphs::SORTED_ROWS)?, &index.rows);
        engine.write(memory.named(graphs::TOKEN_STARTS)?, &index.starts);
        engine.write(memory.named(graphs::STATS_NAME)?, &fresh_stats(1.0));
        engine.write(memory.named(graphs::TOKENS)?, &batch.tokens);
        engine.write(memory.named(graphs::TARGETS)?, &batch.targets);
        let update = Update {
            lr: train.lr,
            beta1: train.beta1,
            beta2: train.beta2,
            eps: train.adam_eps,
            weight_decay: train.weight_decay,
            cohorts: vec![CohortStep { t: 1, lr_scale: 1.0, frozen: false }],
        };
        engine.write(memory.named(graphs::UPDATE)?, &update.words()?);
        Ok(())
    }

    fn part(&self, group: &Group, program: &Program) -> Result<Record> {
        let mut timed = time(self.stopwatch, program, self.seconds)?;
        for ms in &mut timed.samples_ms {
            *ms *= group.runs as f64;
        }
        let record = Record {
            op: group.kernel.clone(),
            case: self.case.to_owned(),
            pass: Pass::Step,
            dtype: self.plans.shape.precision.name().to_owned(),
            candidate: "default".to_owned(),
            flops: group.plan.flops() * group.runs as u64,
            bytes: group.plan.traffic() * group.runs as u64,
            calls: Some(group.plan.calls.len() * group.runs),
            ..Record::default()
        };
        Ok(record.timed(timed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::adapter::AdapterRequest;
    use crate::kernel::{KernelTable, Target};
    use crate::run::device::Device;

    #[test]
    fn groups_hold_every_call_once() {
        let config = RunConfig::preset("bench-tiny").unwrap();
        let cohorts = [cohorts::first(&config.model)];
        let kernels = KernelTable::defaults(Target::WEBGPU);
        let plans = RunPlans::new(&config.model, &config.train, &cohorts, 1, &kernels).unwrap();
        let groups = groups(&plans.micro, 2);
        assert_eq!(groups.iter().map(|group| group.plan.calls.len()).sum::<usize>(), plans.micro.calls.len());
        assert_eq!(groups.iter().map(|group| group.plan.flops()).sum::<u64>(), plans.micro.flops());
        assert!(groups.iter().any(|group| is_matrix_product(&group.kernel)));
        for group in &groups {
            assert!(group.plan.calls.iter().all(|call| call.kernel.name() == group.kernel));
        }
    }

    #[test]
    fn an_update_that_does_nothing_is_not_timed() {
        let Device { engine, kernels } = Device::open(&AdapterRequest::default()).unwrap();
        let mut config = RunConfig::preset("bench-tiny").unwrap();
        config.model = ModelConfig { num_layers: 1, seq_length: 16, ..config.model };
        config.train.batch_size = 2;
        let cohorts = [cohorts::first(&config.model)];
        let plans = RunPlans::new(&config.model, &config.train, &cohorts, 1, &kernels).unwrap();
        let (memory, programs) = Memory::allocate(&engine, &[&plans.micro, &plans.update]).unwrap();
        let initial = init::initial(&config.model, config.train.seed);
        let start = Start { memory, micro: &programs[0], update: &programs[1], copies: &[], initial };
        let stopwatch = Stopwatch::new(&engine).unwrap();
        let parts = Parts { stopwatch: &stopwatch, config: &config, plans: &plans, case: "", seconds: 0.0 };
        let source = tokens(&config.model, &plans);
        parts.restore(&start, &source).unwrap();
        // What kernels that work in place come to after some hundred runs.
        start.memory.gradients().iter().for_each(|block| engine.write(block, &[f32::NAN]));
        engine.run(start.update).unwrap();
        let said = parts.updated(&start).unwrap_err().to_string();
        assert!(said.contains("the time of its update would be that of nothing"), "{said}");
        parts.restore(&start, &source).unwrap();
    }
}
