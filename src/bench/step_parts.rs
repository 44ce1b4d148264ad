//! Where the time of a step goes: its dispatches grouped by kernel, each group timed by itself.

use super::record::{Pass, Record, Report};
use super::timing::time;
use crate::config::RunConfig;
use crate::data::{TokenSource, token_index, train_batch};
use crate::error::{Error, Result};
use crate::gpu::engine::Program;
use crate::gpu::timing::Stopwatch;
use crate::graph::plan::Plan;
use crate::model::init::Tensors;
use crate::model::{graphs, init};
use crate::ops::adamw::{CohortStep, Update};
use crate::ops::stats::{Stats, fresh_stats};
use crate::runtime::memory::Memory;
use crate::train::trainer::{RunPlans, upload_parameters, upload_rope};

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
pub(super) struct Parts<'a> {
    pub(super) stopwatch: &'a Stopwatch<'a>,
    pub(super) config: &'a RunConfig,
    pub(super) plans: &'a RunPlans,
    pub(super) case: &'a str,
    pub(super) seconds: f64,
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
    pub(super) fn add(&self, source: &TokenSource, step_ms: f64, report: &mut Report) -> Result<()> {
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
            average_decay: train.average_decay(1),
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
    use super::super::step::tokens;
    use super::*;
    use crate::config::ModelConfig;
    use crate::gpu::adapter::AdapterRequest;
    use crate::kernel::{KernelTable, Target};
    use crate::runtime::device::Device;
    use crate::train::cohorts;

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
        let Device { engine, kernels, .. } = Device::open(&AdapterRequest::default()).unwrap();
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
