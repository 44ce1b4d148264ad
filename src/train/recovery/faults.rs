//! Faults put into a run, and what it makes of them. Compiled for tests only.

use super::{Job, MAX_LOSSES, MAX_ROLLBACKS, Opener};
use crate::checkpoint::RunLock;
use crate::config::{BadSteps, GrowthConfig, RunConfig};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::program::Spoil;
use crate::graph::{grad_name, moment_names};
use crate::model::graphs;
use crate::runtime::device::Device;
use crate::train::disk::{self, Start};
use crate::train::run::hooks::Hooks;
use crate::train::trainer::Trainer;
use crate::train::{Checkpoint, Store, cohorts, metrics};
use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What goes wrong, before which step.
#[derive(Debug, Clone, PartialEq)]
enum Fault {
    /// The device goes away.
    Lose,
    /// A value of a named tensor, before the step or between its gradients and its update.
    Spoil { name: String, at: usize, value: f32, late: bool },
    /// A value of what a dispatch of the step's first program wrote, right after it ran: activations and their gradients.
    SpoilOutput { dispatch: usize, at: usize, value: f32 },
    /// Nothing, this time.
    Pass,
    /// The device goes away while a run is set up.
    LoseBefore,
}

/// The faults of a run that are still to come, with their steps.
struct Planned(RefCell<Vec<(u64, Fault)>>);

impl Planned {
    /// Takes the first fault of `step` that is `wanted`: a step that is taken again meets the next one.
    fn due(&self, step: u64, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut planned = self.0.borrow_mut();
        let at = planned.iter().position(|(at, fault)| *at == step && wanted(fault))?;
        Some(planned.remove(at).1)
    }
}

impl Hooks for Planned {
    fn before_claim(&self, step: u64) -> Result<()> {
        let lost = self.due(step, |fault| *fault == Fault::LoseBefore);
        lost.map_or(Ok(()), |_| Err(Error::lost("a test closed it")))
    }

    fn before_step(&self, trainer: &Trainer, step: u64) -> Result<()> {
        match self.due(step, |fault| !matches!(fault, Fault::Spoil { late: true, .. })) {
            Some(Fault::Lose) => trainer.engine().gpu.device.destroy(),
            Some(Fault::Spoil { name, at, value, .. }) => spoil(trainer, &name, at, value)?,
            Some(Fault::SpoilOutput { dispatch, at, value }) => {
                let word = trainer.engine().allocate("spoil", 4)?;
                trainer.engine().write(&word, &[value]);
                Spoil { dispatch, at: at as u64, word }.next();
            }
            Some(Fault::Pass | Fault::LoseBefore) | None => {}
        }
        Ok(())
    }

    fn before_update(&self, trainer: &Trainer, step: u64) -> Result<()> {
        match self.due(step, |fault| matches!(fault, Fault::Spoil { late: true, .. })) {
            Some(Fault::Spoil { name, at, value, .. }) => spoil(trainer, &name, at, value),
            _ => Ok(()),
        }
    }
}

fn spoil(trainer: &Trainer, name: &str, at: usize, value: f32) -> Result<()> {
    let block = trainer.memory().named(name)?;
    let at = at as u64 % (block.bytes() / 4);
    trainer.engine().write(&block.part(4 * at, 4), &[value]);
    Ok(())
}

fn open() -> Result<Device> {
    Device::open(&AdapterRequest::default())
}

fn config(dir: &Path, steps: usize) -> RunConfig {
    let mut config = RunConfig { out_dir: dir.to_path_buf(), ..RunConfig::default() };
    (config.model.num_layers, config.model.hidden_size, config.model.num_attention_heads) = (2, 16, 2);
    (config.model.qkv_slot_num, config.model.proj_slot_num, config.model.ffn_slot_num) = (12, 16, 20);
    config.model.seq_length = 16;
    config.data.corpus_sentences = 200;
    let train = &mut config.train;
    (train.batch_size, train.max_steps, train.warmup_fraction) = (2, steps, 0.0);
    (train.eval_interval, train.eval_batches, train.sample_tokens, train.log_interval) = (0, 1, 0, 1000);
    train.checkpoint_interval = 4;
    config
}

/// Trains with the planned faults; what the run ended in, and the bytes of its last checkpoint.
fn train(config: &mut RunConfig, planned: &[(u64, Fault)]) -> (Result<()>, Vec<u8>) {
    resolve(config);
    let ended = train_from(config, Start::fresh(config), planned);
    let last = Store::new(&config.out_dir).list().unwrap().pop();
    (ended, last.map_or(Vec::new(), |(_, path)| std::fs::read(path).unwrap()))
}

fn resolve(config: &mut RunConfig) -> Dataset {
    let data = disk::dataset(config, None).unwrap();
    config.model.resolve_vocab(data.vocab_size).unwrap();
    data
}

/// Goes on from `start` over the planned faults.
fn train_from(config: &RunConfig, start: Start, planned: &[(u64, Fault)]) -> Result<()> {
    let planned = Planned(RefCell::new(planned.to_vec()));
    let data = disk::dataset(config, None).unwrap();
    // The file that a run starts from may have other growths to come than were then asked for.
    let mut beginning = start.clone();
    beginning.standing.growths_left = 99;
    let origin = || Ok(beginning.clone());
    let go_on = super::resuming(config);
    let job = Job { config, data: &data, origin: &origin, stop: &AtomicBool::new(false), go_on };
    let mut lock = RunLock::take(&config.out_dir).unwrap();
    job.run_with(&planned, &mut Opener::new(open().unwrap(), &open), start, &mut lock).map(drop)
}

/// The training lines of a run, without times.
fn curve(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join(metrics::FILE)).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|l| l["kind"] == "train").map(|l| format!("{} {} {}", l["step"], l["loss"], l["grad_norm"])).collect()
}

/// How many of each fault: as many as the environment says, for the full form, or `few`.
fn count(few: usize) -> usize {
    std::env::var("TOKENFORMER_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(few)
}

#[test]
fn growths_are_done_once_and_as_last_told_where_the_gpu_is_lost() {
    let growth = |at_step, ffn| GrowthConfig { at_step, ffn_slot_num: Some(ffn), ..GrowthConfig::default() };
    let settings = |dir: &Path, growths: &[GrowthConfig]| {
        let mut config = RunConfig { growth: growths.to_vec(), ..config(dir, 14) };
        resolve(&mut config);
        config
    };
    let last = |config: &RunConfig| Store::new(&config.out_dir).latest().unwrap().found.unwrap().1;
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let plain = settings(dirs[0].path(), &[growth(6, 24), growth(10, 28)]);
    train_from(&plain, Start::fresh(&plain), &[]).unwrap();
    // Back to before the first growth, to between the two, and to after both.
    let lossy = settings(dirs[1].path(), &plain.growth);
    let losses = [(7, Fault::Lose), (11, Fault::Lose), (13, Fault::Lose)];
    train_from(&lossy, Start::fresh(&lossy), &losses).unwrap();
    let (wanted, found) = (last(&plain), last(&lossy));
    assert_eq!(found.meta.lineage.iter().map(|record| record.at_step).collect::<Vec<_>>(), [6, 10]);
    assert!((found.params, found.moment1, found.moment2) == (wanted.params, wanted.moment1, wanted.moment2));
    // From a file whose own settings have two growths to come.
    let file = dirs[0].path().join("checkpoints/before-growth-00000006.safetensors");
    for (dir, growths) in dirs[2..].iter().zip([vec![], vec![growth(9, 28)]]) {
        let (mut start, stored) = Start::resumed(Checkpoint::read(&file).unwrap()).unwrap();
        assert_eq!((start.standing.growths_left, stored.growth.len()), (2, 2));
        let config = RunConfig { growth: growths, out_dir: dir.path().to_path_buf(), ..stored };
        start.standing.growths_left = config.growth.len();
        train_from(&config, start, &[(7, Fault::Lose), (11, Fault::Lose)]).unwrap();
        assert_eq!(last(&config).meta.lineage.len(), config.growth.len());
    }
}

#[test]
fn a_run_that_loses_its_gpu_is_the_same_run() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let plain = train(&mut config(dirs[0].path(), 14), &[]);
    plain.0.unwrap();
    // Before there is a checkpoint, right after one, and in the middle.
    let losses = [(2, Fault::Lose), (4, Fault::Lose), (11, Fault::Lose)];
    let mut lossy = config(dirs[1].path(), 14);
    // The directory is part of what is stored.
    let (ended, bytes) = train(&mut lossy, &losses);
    ended.unwrap();
    assert_eq!(curve(dirs[0].path()), curve(dirs[1].path()));
    let tensors = |bytes: &[u8]| {
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        bytes[8 + header..].to_vec()
    };
    assert!(tensors(&plain.1) == tensors(&bytes), "parameters and moments are the same bits");
}

#[test]
fn a_run_whose_gpu_is_lost_before_it_begins_replaces_the_old_one_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = config(dir.path(), 8);
    train(&mut old, &[]).0.unwrap();
    let mut new = config(dir.path(), 4);
    new.train.seed = 7;
    train(&mut new, &[(0, Fault::LoseBefore)]).0.unwrap();
    let kept = Store::new(dir.path()).latest().unwrap().found.unwrap().1;
    assert_eq!((kept.meta.step, kept.meta.seed, curve(dir.path()).len()), (4, 7, 4));
}

#[test]
fn a_gpu_that_keeps_failing_ends_the_run_with_exit_code_3() {
    let dir = tempfile::tempdir().unwrap();
    let again: Vec<_> = (0..MAX_LOSSES).map(|i| (5 + u64::from(i), Fault::Lose)).collect();
    let start = std::time::Instant::now();
    let error = train(&mut config(dir.path(), 12), &again).0.unwrap_err();
    assert!(error.exit_code() == 3 && error.to_string().contains("lost 3 times in a row"), "{error}");
    assert!(start.elapsed().as_secs() < 35);
}

#[test]
fn a_dropped_submission_is_noticed_within_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), 4);
    let data = disk::dataset(&config, None).unwrap();
    let mut model = config.model.clone();
    model.resolve_vocab(data.vocab_size).unwrap();
    let Device { engine, kernels, .. } = open().unwrap();
    let batch = crate::data::train_batch(&data.train, 1, 0, 2, model.seq_length).unwrap();
    for i in 0..count(10) {
        // A new trainer and a new mark: a dropped submission spoils what follows.
        let cohorts = vec![cohorts::first(&model)];
        let trainer = Trainer::new(&engine, &kernels, &model, &config.train, cohorts, 1).unwrap();
        let step = || trainer.step(std::slice::from_ref(&batch), 0, 1e-3);
        step().unwrap();
        // Gradients, update, or what reads the numbers.
        engine.drop_after(i as u32 % 3);
        let error = step().unwrap_err();
        assert!(matches!(error, Error::Lost(_)) && error.to_string().contains("left no mark"), "{i}: {error}");
        engine.accept_count();
    }
}

#[test]
fn numbers_that_are_not_finite_are_never_stored() {
    let names = |model: &crate::config::ModelConfig| -> Vec<String> {
        let shapes = model.param_shapes();
        shapes.into_iter().map(|(name, _)| name).collect()
    };
    let rounds = count(10);
    let mut rng = crate::rng::Rng::new(9, crate::rng::Stream::Test, 0);
    for round in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), 10);
        let all = names(&config.model);
        let name = &all[rng.below(all.len() as u64) as usize];
        let value = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][round % 3];
        let (name, late) = match round % 6 {
            0 => ("word_embeddings.weight".to_owned(), false),
            1 => (name.clone(), false),
            2 => (grad_name(name), true),
            3 => (graphs::STATS_NAME.to_owned(), true),
            4 => (moment_names(name).0, false),
            _ => ("what a dispatch wrote".to_owned(), false),
        };
        let at = if name == graphs::STATS_NAME { 0 } else { rng.below(1 << 20) as usize };
        let step = 1 + rng.below(8);
        let fault = match round % 6 {
            5 => Fault::SpoilOutput { dispatch: rng.below(1 << 20) as usize, at, value },
            _ => Fault::Spoil { name: name.clone(), at, value, late },
        };
        let (ended, _) = train(&mut config, &[(step, fault)]);
        for (_, path) in Store::new(dir.path()).list().unwrap() {
            let stored = Checkpoint::read(&path).unwrap();
            let finite = stored.params.values().all(|tensor| tensor.data.iter().all(|x| x.is_finite()));
            assert!(finite, "{name}[{at}] = {value} before step {step} was stored in {}", path.display());
        }
        if let Err(error) = ended {
            assert_eq!(error.exit_code(), 4, "{name}[{at}] = {value} before step {step}: {error}");
        }
    }
}

#[test]
fn three_bad_steps_go_back_and_step_over_their_data() {
    let dir = tempfile::tempdir().unwrap();
    let name = "layers.1.mlp.key_param_tokens".to_owned();
    let fault = Fault::Spoil { name: name.clone(), at: 3, value: f32::NAN, late: false };
    let (ended, _) = train(&mut config(dir.path(), 12), &[(5, fault.clone())]);
    ended.unwrap();
    let text = std::fs::read_to_string(dir.path().join(metrics::FILE)).unwrap();
    let line = text.lines().find(|line| line.contains("rollback")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["from_step"], &line["to_step"], &line["skipped_batches"]), (&8.into(), &4.into(), &4.into()));
    let (_, path) = Store::new(dir.path()).list().unwrap().pop().unwrap();
    let stored = Checkpoint::read(&path).unwrap();
    assert_eq!(stored.meta.data.next_batch, 12 + 4, "a resumed run steps over them as well");
    assert_eq!(Start::resumed(stored).unwrap().0.standing.position.rows, (12 + 4) * 2);

    let dir = tempfile::tempdir().unwrap();
    let again: Vec<_> = (0..MAX_ROLLBACKS).map(|_| (5, fault.clone())).collect();
    let error = train(&mut config(dir.path(), 12), &again).0.unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let said = error.to_string();
    assert!(said.contains(&format!("the first tensor that is not finite is \"{name}\" of layer 1")), "{said}");
}

#[test]
fn every_return_steps_over_the_data_of_those_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let name = "layers.1.mlp.key_param_tokens".to_owned();
    let fault = Fault::Spoil { name, at: 3, value: f32::NAN, late: false };
    // Twice back to step 4: over 4 batches, and then over as many after them.
    train(&mut config(dir.path(), 12), &[(5, fault.clone()), (5, fault)]).0.unwrap();
    let stored = Store::new(dir.path()).latest().unwrap().found.unwrap().1;
    assert_eq!(stored.meta.data.next_batch, 12 + 4 + 4);
}

#[test]
fn a_run_that_never_gets_past_its_bad_steps_ends() {
    let spoil = |step, value| (step, Fault::Spoil { name: "norm.weight".to_owned(), at: 3, value, late: false });
    let spike = |step| spoil(step, 1e4);
    let cases = [
        // By turns at two steps, and so not once past the later one.
        (50, vec![(62, Fault::Pass), spike(64), spike(62), (62, Fault::Pass), spike(64)], 64),
        // The step after it is a good one and read with it, for the checkpoint.
        (4, vec![[spike(62), spoil(63, 1.0)]; 3].concat(), 62),
    ];
    for (interval, planned, last) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), 70);
        (config.train.spike_zscore, config.train.lr, config.train.checkpoint_interval) = (8.0, 1e-4, interval);
        let error = train(&mut config, &planned).0.unwrap_err();
        let said = error.to_string();
        assert!(error.exit_code() == 4 && said.contains(&format!("the loss of step {} is", last + 1)), "{said}");
    }
}

#[test]
fn bad_windows_with_good_steps_between_are_not_in_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let name = "layers.0.attention.proj.value_param_tokens".to_owned();
    let spoil = |step| (step, Fault::Spoil { name: name.clone(), at: 3, value: f32::NAN, late: false });
    let more = u64::from(MAX_ROLLBACKS) + 1;
    let planned: Vec<_> = (1..=more).map(|i| spoil(8 * i + 1)).collect();
    train(&mut config(dir.path(), 8 * more as usize + 8), &planned).0.unwrap();
    let text = std::fs::read_to_string(dir.path().join(metrics::FILE)).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("rollback")).count() as u64, more);
}

#[test]
fn a_spike_of_the_loss_goes_back_or_ends_the_run() {
    // A parameter that is finite and far too large, for one step: a rollback has the good one again.
    let name = "norm.weight".to_owned();
    let fault = |step| (step, Fault::Spoil { name: name.clone(), at: 3, value: 1e4, late: false });
    let spiky = |dir: &Path| {
        let mut config = config(dir, 70);
        (config.train.spike_zscore, config.train.lr) = (8.0, 1e-4);
        config
    };
    let dir = tempfile::tempdir().unwrap();
    train(&mut spiky(dir.path()), &[fault(61)]).0.unwrap();
    let text = std::fs::read_to_string(dir.path().join(metrics::FILE)).unwrap();
    let rollbacks: Vec<serde_json::Value> =
        text.lines().filter(|line| line.contains("rollback")).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rollbacks.len(), 1, "{rollbacks:?}");
    assert_eq!((&rollbacks[0]["from_step"], &rollbacks[0]["to_step"]), (&62.into(), &60.into()));
    assert!(rollbacks[0]["why"].as_str().unwrap().contains("standard deviations above its mean"));

    let dir = tempfile::tempdir().unwrap();
    let mut stopped = spiky(dir.path());
    stopped.train.on_bad_steps = BadSteps::Stop;
    let error = train(&mut stopped, &[fault(61)]).0.unwrap_err();
    assert!(error.exit_code() == 4 && error.to_string().contains("the loss of step 62 is"), "{error}");

    // What the run goes on with becomes usual.
    let dir = tempfile::tempdir().unwrap();
    let mut skipping = spiky(dir.path());
    skipping.train.on_bad_steps = BadSteps::Skip;
    train(&mut skipping, &[fault(61)]).0.unwrap();
    let losses = Store::new(dir.path()).latest().unwrap().found.unwrap().1.meta.losses;
    assert!(losses.count == 70 && losses.mean > 10.0, "{losses:?}");

    let dir = tempfile::tempdir().unwrap();
    let again: Vec<_> = (0..MAX_ROLLBACKS).map(|_| fault(61)).collect();
    let error = train(&mut spiky(dir.path()), &again).0.unwrap_err();
    assert!(error.exit_code() == 4 && !error.to_string().contains("GPU may be at fault"), "{error}");
}

#[test]
fn a_bad_step_ends_the_run_where_that_was_asked_for_and_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), 8);
    config.train.on_bad_steps = BadSteps::Stop;
    let name = grad_name("layers.0.attention.query.value_param_tokens");
    let fault = Fault::Spoil { name, at: 0, value: f32::INFINITY, late: true };
    let error = train(&mut config, &[(2, fault)]).0.unwrap_err();
    assert!(error.exit_code() == 4 && error.to_string().contains("step 3 were not finite"), "{error}");
    // The gradient was spoilt from outside, so the step run again shows nothing.
    assert!(error.to_string().contains("the GPU may be at fault"), "{error}");
}
