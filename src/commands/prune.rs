//! `tokenformer prune`: a smaller model of a checkpoint, in a new file, and what each way to pick its tokens costs. The
//! input is only read.

use super::answer::{Answer, value};
use super::changed::{Split, tell_of_change};
use crate::config::{ModelConfig, PruneScore, PruneTo, RunConfig, TrainConfig};
use crate::console::{slowly, warn};
use crate::data::{Batch, Dataset, Tokenizer, train_batch, validation_batches};
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::model::prune::{self, Scores};
use crate::report::number;
use crate::report::table::Table;
use crate::runtime::device::Device;
use crate::train::evaluate::{Evaluator, logits};
use crate::train::growth::{Change, GrowthRecord, HostModel, PruneRules, Rules, max_change};
use crate::train::prune::{contributions, growths_ahead};
use crate::train::trainer::compared_rows;
use crate::train::{Checkpoint, disk};
use crate::tune;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Rows of a report, from the model as it is to the one that was asked for.
const ROWS: usize = 6;

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Run directory or checkpoint file to prune.
    #[arg(value_name = "IN")]
    input: PathBuf,
    #[command(flatten)]
    choice: super::Choice,
    /// File to write; without it there is only the report.
    #[arg(value_name = "OUT")]
    output: Option<PathBuf>,
    /// Share of the parameter tokens of every projection that stays.
    #[arg(long, value_name = "SHARE", value_parser = super::number, conflicts_with_all = ["qkv_slots", "proj_slots", "ffn_slots"])]
    keep: Option<f64>,
    /// Parameter tokens of each query, key and value projection that stay.
    #[arg(long, value_parser = super::whole::<usize>)]
    qkv_slots: Option<usize>,
    /// Parameter tokens of each output projection that stay.
    #[arg(long, value_parser = super::whole::<usize>)]
    proj_slots: Option<usize>,
    /// Parameter tokens of each feed-forward layer that stay.
    #[arg(long, value_parser = super::whole::<usize>)]
    ffn_slots: Option<usize>,
    /// What decides which tokens stay.
    #[arg(long, value_enum, default_value_t = PruneScore::Contribution)]
    score: PruneScore,
    /// Measure on this text file or token shard (.bin) instead of the data of the run.
    #[arg(short, long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Batches of training data for scores, and of validation data for losses; by default as many as the run validates on.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batches: Option<u32>,
    /// Seed of the random score.
    #[arg(long, default_value_t = 0, value_parser = super::whole::<u64>)]
    seed: u64,
}

/// What scores and losses are measured on.
struct Material {
    data: Dataset,
    /// Of the training split.
    train: Vec<Batch>,
    /// Of the validation split.
    val: Vec<Batch>,
}

/// Scores of the tokens, by each way to score them.
type AllScores = Vec<(PruneScore, Scores)>;

/// Prunes, measures and writes where that is asked for.
///
/// # Errors
/// A refused pruning, an output that exists, data that cannot be read, device and file errors. The input is never
/// written.
pub(crate) fn run(request: &AdapterRequest, args: &PruneArgs) -> Answer {
    args.output.as_ref().map_or(Ok(()), |output| super::check_output("prune", output))?;
    let super::Loaded { path, digest, mut meta, start, mut config, tokenizer, .. } =
        super::load(&args.input, args.choice)?;
    let before = start.host;
    let smaller = args.to().check(&before.model)?;
    let material = args.material(&config, tokenizer)?;
    if args.data.is_none() {
        let data = &material.data;
        for (source, split) in [(&data.train, Split::Train), (&data.val, Split::Val)] {
            tell_of_change(&meta.data, source, split, &format!("the {split} split of the {}", data.description))?;
        }
    }
    let mut device = super::open_device(request)?;
    // No timing for one use; what is known is used.
    device.kernels = tune::recall(&device.engine, &device.kernels);

    let scored = || args.scores(&device, &before, &config.train, &material.train);
    let scores = slowly(&format!("scoring tokens on {} batches", material.train.len()), scored)?;
    let stages = stages(&before.model, &smaller);
    let measured = || report(&device, &before, &stages, &scores, &config.train, &material);
    let (table, losses) = slowly(&format!("evaluating {} sizes", stages.len()), measured)?;
    let after = before.pruned(&kept_by(args.score, &scores, &smaller), &smaller);
    let tokens = material.data.val.window(0, compared_rows(&smaller))?;
    let of = |host: &HostModel| logits(&device, &host.model, host.used(), &tokens);
    let change = Change {
        max_logit_change: max_change(&of(&before)?, &of(&after)?),
        loss_before: losses.0,
        loss_after: losses.1.iter().find(|(score, _)| *score == args.score).map_or(f64::NAN, |(_, loss)| *loss),
    };
    let rules = Rules::Pruning(PruneRules::by(args.score));
    let mut record = GrowthRecord::new(rules, start.standing.step, [&before.model, &smaller], change);
    let mut text = format!("{}\n{}\n", table.markdown(), args.said(&material));
    text.push_str(&format!("by {}, {}\n", args.score.name(), record.describe()));
    let answer = |record: &GrowthRecord, output: Option<&PathBuf>| -> Answer {
        let by_score: serde_json::Map<_, _> =
            losses.1.iter().map(|(score, loss)| (score.name().to_owned(), json!(loss))).collect();
        Ok(json!({
            "checkpoint": path,
            "output": output,
            "step": start.standing.step,
            "score": args.score.name(),
            "loss_before": losses.0,
            "loss_after_by_score": by_score,
            "pruning": value(record)?,
        }))
    };
    let Some(output) = &args.output else {
        super::print(&(text + "nothing was written: name a file after the input to have this model\n"))?;
        return answer(&record, None);
    };
    let (ahead, dropped) = growths_ahead(&config.growth, &smaller, start.standing.step, "pruning");
    for (when, reason) in dropped {
        warn(format_args!("the run's growth {when} is not in {}: {reason}", output.display()));
    }
    (config.model, config.growth) = (after.model.clone(), ahead);
    let stored = |e| Error::defect(format!("the pruned model cannot be stored: {e}"));
    meta.config = serde_json::to_value(&config).map_err(stored)?;
    meta.cohorts.clone_from(&after.cohorts);
    record.file_before = Some(digest);
    let said = answer(&record, Some(output))?;
    meta.lineage.push(record);
    meta.forget_course();
    // The larger model's, which this one may never reach.
    meta.best_val_loss = None;
    let HostModel { params, moment1, moment2, averages, .. } = after;
    Checkpoint { meta, params, moment1, moment2, averages }.write(output)?;
    super::print(&format!("{text}written to {}\n", output.display()))?;
    Ok(said)
}

impl PruneArgs {
    fn to(&self) -> PruneTo {
        match self.keep {
            Some(share) => PruneTo::Share(share),
            None => PruneTo::Slots([self.qkv_slots, self.proj_slots, self.ffn_slots]),
        }
    }

    fn material(&self, config: &RunConfig, tokenizer: Option<Tokenizer>) -> Result<Material> {
        let mut config = config.clone();
        if let Some(path) = &self.data {
            config.data.name(Some(path.clone()), None);
        }
        let data = disk::dataset_to_measure(&config, tokenizer)?;
        let (RunConfig { model, train, .. }, seq) = (&config, config.model.seq_length);
        data.check_length(seq)?;
        let of_run = train.validation_rows(model)?;
        let rows = self.batches.map_or(of_run, |batches| (batches as usize).saturating_mul(train.batch_size));
        let count = rows.div_ceil(train.batch_size);
        let of_training = |index| train_batch(&data.train, train.seed, index, train.batch_size, model.seq_length);
        let of_training = (0..count as u64).map(of_training).collect::<Result<_>>()?;
        let val = validation_batches(&data.val, rows, train.batch_size, seq)?;
        Ok(Material { train: of_training, val, data })
    }

    fn scores(&self, device: &Device, host: &HostModel, train: &TrainConfig, batches: &[Batch]) -> Result<AllScores> {
        let score = |score| {
            let scores = match score {
                PruneScore::Weight => prune::weight(&host.model, host.used()),
                PruneScore::Contribution => contributions(device, host, train, batches)?,
                PruneScore::Random => prune::random(&host.model, self.seed),
            };
            Ok((score, scores))
        };
        PruneScore::ALL.into_iter().map(score).collect()
    }

    /// On what the numbers were measured.
    fn said(&self, material: &Material) -> String {
        let Material { data, train, val } = material;
        format!(
            "validation loss in nats/token, by the score that picks the tokens; on {} batches of the validation split of \
             the {}\ncontribution is of {} batches of its training split, random of seed {}",
            val.len(),
            data.description,
            train.len(),
            self.seed
        )
    }
}

/// The models on the way from `before` to `after`, both included, in even steps of their tokens.
fn stages(before: &ModelConfig, after: &ModelConfig) -> Vec<ModelConfig> {
    let between = |at: usize| {
        let part = |from: usize, to: usize| from - (from - to) * at / (ROWS - 1);
        ModelConfig {
            qkv_slot_num: part(before.qkv_slot_num, after.qkv_slot_num),
            proj_slot_num: part(before.proj_slot_num, after.proj_slot_num),
            ffn_slot_num: part(before.ffn_slot_num, after.ffn_slot_num),
            ..after.clone()
        }
    };
    let mut stages: Vec<ModelConfig> = (0..ROWS).map(between).collect();
    stages.dedup();
    stages
}

fn kept_by(score: PruneScore, scores: &AllScores, model: &ModelConfig) -> prune::Kept {
    let found = scores.iter().find(|(name, _)| *name == score);
    found.map_or_else(prune::Kept::new, |(_, scores)| prune::kept(scores, model))
}

/// Losses of a pruned model by the score that picked its tokens.
type Losses = Vec<(PruneScore, f64)>;

/// The validation loss of each stage by each score; apart from the table that before, and those of the last.
fn report(
    device: &Device,
    host: &HostModel,
    stages: &[ModelConfig],
    scores: &AllScores,
    train: &TrainConfig,
    material: &Material,
) -> Result<(Table, (f64, Losses))> {
    let fixed = ["tokens kept", "qkv", "proj", "ffn", "parameters"].map(str::to_owned);
    let head = fixed.into_iter().chain(PruneScore::ALL.map(|score| score.name().to_owned())).collect();
    let mut table = Table { head, rows: Vec::new() };
    let whole = Evaluator::new(device, &host.model, train)?.mean(host.used(), &material.val)?;
    let mut losses: Losses = PruneScore::ALL.map(|score| (score, whole)).into();
    for (at, stage) in stages.iter().enumerate() {
        if at > 0 {
            let probe = Evaluator::new(device, stage, train)?;
            for (score, loss) in &mut losses {
                let kept = kept_by(*score, scores, stage);
                *loss = probe.mean(&prune::tensors(host.used(), &kept), &material.val)?;
            }
        }
        let numbers = [stage.qkv_slot_num, stage.proj_slot_num, stage.ffn_slot_num];
        let share = 100.0 * tokens(stage) as f64 / tokens(&host.model) as f64;
        let mut row = vec![format!("{share:.0} %")];
        row.extend(numbers.map(|n| n.to_string()));
        row.push(number::grouped(stage.param_count()));
        row.extend(losses.iter().map(|(_, loss)| number::loss(*loss)));
        table.rows.push(row);
    }
    Ok((table, (whole, losses)))
}

/// Parameter tokens of a layer.
fn tokens(model: &ModelConfig) -> usize {
    crate::config::Module::ALL.map(|module| model.slots(module)).iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_goes_from_all_tokens_to_those_asked_for() {
        let before = ModelConfig::default();
        let after = PruneTo::Slots([Some(126), None, Some(12)]).check(&before).unwrap();
        let stages = stages(&before, &after);
        let slots = |model: &ModelConfig| [model.qkv_slot_num, model.proj_slot_num, model.ffn_slot_num];
        let expected =
            [[128, 128, 512], [128, 128, 412], [128, 128, 312], [127, 128, 212], [127, 128, 112], [126, 128, 12]];
        assert_eq!(stages.iter().map(slots).collect::<Vec<_>>(), expected);
        assert_eq!(super::stages(&before, &PruneTo::Slots([Some(127), None, None]).check(&before).unwrap()).len(), 2);
    }
}
