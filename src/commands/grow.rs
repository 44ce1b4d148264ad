//! `tokenformer grow`: make the model of a checkpoint larger, in a new file. The input is only read.

use super::answer::{Answer, value};
use super::changed::{Split, tell_of_change};
use crate::config::{GrowthConfig, GrowthPolicy, InitKeys, InitValues, ModelConfig, OptimizerRule, TauRule, TrainRule};
use crate::console::{note, warn};
use crate::error::Error;
use crate::gpu::adapter::AdapterRequest;
use crate::rng::{Rng, Stream};
use crate::train::evaluate::{logits, mean_loss};
use crate::train::growth::{Change, GrowthRecord, HostModel, Rules, max_change};
use crate::train::prune::growths_ahead;
use crate::train::trainer::{RunPlans, compared_rows};
use crate::train::{Checkpoint, cohorts, disk};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `grow`.
#[derive(Debug, Args)]
pub(crate) struct GrowArgs {
    /// Run directory or checkpoint file to grow.
    #[arg(value_name = "IN")]
    input: PathBuf,
    #[command(flatten)]
    choice: super::Choice,
    /// File to write.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Parameter tokens of each query, key and value projection, in all.
    #[arg(long, value_parser = super::whole::<usize>)]
    qkv_slots: Option<usize>,
    /// Parameter tokens of each output projection, in all.
    #[arg(long, value_parser = super::whole::<usize>)]
    proj_slots: Option<usize>,
    /// Parameter tokens of each feed-forward layer, in all.
    #[arg(long, value_parser = super::whole::<usize>)]
    ffn_slots: Option<usize>,
    /// Layers, in all.
    #[arg(long, value_parser = super::whole::<usize>)]
    layers: Option<usize>,
    /// Units of each MLP of a Transformer, in all.
    #[arg(long, value_parser = super::whole::<usize>)]
    intermediate_size: Option<usize>,
    /// What grows and how.
    #[arg(long, value_enum, default_value_t = GrowthPolicy::Preserving)]
    policy: GrowthPolicy,
    /// Keys of the new tokens.
    #[arg(long, value_enum)]
    init_keys: Option<InitKeys>,
    /// Values of the new tokens.
    #[arg(long, value_enum)]
    init_values: Option<InitValues>,
    /// Scale of what grows.
    #[arg(long, value_enum)]
    tau: Option<TauRule>,
    /// AdamW state: carried, or started again.
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerRule>,
    /// Learning rate of the new tokens or layers, as a multiple of the schedule's.
    #[arg(long, value_parser = super::number)]
    lr_scale: Option<f64>,
    /// What trains afterwards: all, or only the new tokens or layers.
    #[arg(long, value_enum)]
    train: Option<TrainRule>,
    /// Leave out the growths of the run that the grown model cannot do any more.
    #[arg(long)]
    drop_growths: bool,
    /// Seed of what is random.
    #[arg(long, default_value_t = 0, value_parser = super::whole::<u64>)]
    seed: u64,
}

impl GrowArgs {
    fn growth(&self) -> GrowthConfig {
        GrowthConfig {
            qkv_slot_num: self.qkv_slots,
            proj_slot_num: self.proj_slots,
            ffn_slot_num: self.ffn_slots,
            num_layers: self.layers,
            intermediate_size: self.intermediate_size,
            policy: self.policy,
            init_keys: self.init_keys,
            init_values: self.init_values,
            tau: self.tau,
            optimizer: self.optimizer,
            lr_scale: self.lr_scale,
            train: self.train,
            ..GrowthConfig::default()
        }
    }

    /// Those of the run's growths that stay in the file of the model `grown` at `step`. The ones that it cannot do are named.
    fn ahead(&self, growths: &[GrowthConfig], grown: &ModelConfig, step: u64) -> Vec<GrowthConfig> {
        let (ahead, impossible) = growths_ahead(growths, grown, step, "grown model");
        for (when, reason) in &impossible {
            let what = match self.drop_growths {
                true => "is left out of",
                false => "is still in",
            };
            warn(format_args!("the run's growth {when} {what} {}: {reason}", self.output.display()));
        }
        if impossible.is_empty() || self.drop_growths {
            return ahead;
        }
        note(
            "it can be resumed only without what it cannot do: grow with --drop-growths, or resume with --set growth=[]",
        );
        growths.to_vec()
    }
}

/// Grows, measures and writes.
///
/// # Errors
/// A refused growth, an output that exists, device and file errors. The input is never written.
pub(crate) fn run(request: &AdapterRequest, args: &GrowArgs) -> Answer {
    super::check_output("grow", &args.output)?;
    let super::Loaded { path, digest, mut meta, start, mut config, tokenizer, .. } =
        super::load(&args.input, args.choice)?;
    let growth = args.growth();
    let before = start.host;
    let grown = growth.check(&before.model)?;
    let rows = compared_rows(&before.model);
    let window = disk::dataset_to_measure(&config, tokenizer).and_then(|data| {
        let window = data.val.window(0, rows)?;
        let measured = format!("the {} split of the {}", Split::Val, data.description);
        tell_of_change(&meta.data, &data.val, Split::Val, &measured).map(|_| window)
    });
    let (tokens, source) = match window {
        Ok(tokens) => (tokens, "the first validation window of its data"),
        Err(_) => (random_tokens(rows, before.model.vocab_size), "random tokens, for lack of its data"),
    };
    let device = super::open_device(request)?;
    // Before anything new is made: a model that this device cannot train may not even fit the host.
    let cohorts = cohorts::grown(&before.cohorts, [&before.model, &grown], &growth.resolve(), start.standing.step);
    RunPlans::new(&grown, &config.train, &cohorts, 1, &device.kernels)?;
    let after = before.grown(&growth, start.standing.step, args.seed)?;

    let logits_before = logits(&device, &before.model, before.used(), &tokens)?;
    let logits_after = logits(&device, &after.model, after.used(), &tokens)?;
    let stored = |e| Error::defect(format!("the growth cannot be stored: {e}"));
    let change = Change {
        max_logit_change: max_change(&logits_before, &logits_after),
        loss_before: mean_loss(&logits_before, &tokens, before.model.vocab_size),
        loss_after: mean_loss(&logits_after, &tokens, after.model.vocab_size),
    };
    let rules = Rules::Growth(growth.resolve());
    let mut record = GrowthRecord::new(rules, start.standing.step, [&before.model, &after.model], change);
    record.file_before = Some(digest);
    let line = record.describe();
    config.growth = args.ahead(&config.growth, &after.model, start.standing.step);
    config.model = after.model.clone();
    meta.config = serde_json::to_value(&config).map_err(stored)?;
    meta.cohorts.clone_from(&after.cohorts);
    meta.forget_course();
    let (step, said) = (meta.step, value(&record)?);
    meta.lineage.push(record);
    let HostModel { params, moment1, moment2, averages, .. } = after;
    Checkpoint { meta, params, moment1, moment2, averages }.write(&args.output)?;
    super::print(&format!("{line}\nmeasured on {source}; written to {}\n", args.output.display()))?;
    Ok(json!({ "checkpoint": path, "output": args.output, "step": step, "measured_on": source, "growth": said }))
}

fn random_tokens(count: usize, vocab: usize) -> Vec<u32> {
    let mut rng = Rng::new(0, Stream::Validation, 0);
    (0..count).map(|_| rng.below(vocab as u64) as u32).collect()
}
