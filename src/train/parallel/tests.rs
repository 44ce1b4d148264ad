//! Ranks that are threads, each with a device of its own, against one that does everything.

use crate::array::HostTensor;
use crate::config::{ModelConfig, Optimizer, Precision, TrainConfig};
use crate::data::Batch;
use crate::gpu::adapter::AdapterRequest;
use crate::model::init;
use crate::model::init::Tensors;
use crate::rng::{Rng, Stream};
use crate::runtime::device::Device;
use crate::runtime::distributed::{World, on_threads};
use crate::train::cohorts;
use crate::train::trainer::Trainer;

/// Gradients of about 100,000 elements: more than one bucket.
fn model() -> ModelConfig {
    ModelConfig {
        vocab_size: 40,
        num_layers: 2,
        hidden_size: 64,
        num_attention_heads: 2,
        seq_length: 8,
        qkv_slot_num: 64,
        proj_slot_num: 64,
        ffn_slot_num: 128,
        ..ModelConfig::default()
    }
}

fn batch(number: u64) -> Batch {
    let mut rng = Rng::named(number, Stream::Test, "batch");
    let mut tokens = || (0..16).map(|_| rng.below(40) as u32).collect::<Vec<_>>();
    Batch { tokens: tokens(), targets: tokens() }
}

/// Loss and norm of three steps, and what they came to: parameters, both moments and what is kept of averages, bit for bit.
fn trained(world: &World, train: &TrainConfig) -> (Vec<[u32; 2]>, Vec<u32>) {
    trained_with(0.0, world, train)
}

fn trained_with(dropout: f64, world: &World, train: &TrainConfig) -> (Vec<[u32; 2]>, Vec<u32>) {
    let Device { engine, kernels, .. } = Device::open(&AdapterRequest::default()).unwrap();
    let mut model = ModelConfig { dropout, ..model() };
    model.freeze_tau();
    let params = init::initial(&model, 5);
    let cohorts = vec![cohorts::first(&model)];
    let trainer = Trainer::of_rank(world, &engine, &kernels, &model, train, cohorts, 1).unwrap();
    trainer.load_parameters(&params).unwrap();
    let moments: Tensors = params
        .iter()
        .map(|(name, p)| (name.clone(), HostTensor { data: vec![1e-6; p.data.len()], ..p.clone() }))
        .collect();
    trainer.load_moments(&moments, &moments).unwrap();
    let mut seen = Vec::new();
    for step in 0..3 {
        let batches: Vec<Batch> = trainer.own_micro_batches().map(|i| batch(100 * step + i)).collect();
        let stats = trainer.step(&batches, step, 1e-2).unwrap();
        seen.push([stats.loss, stats.grad_norm].map(f32::to_bits));
    }
    let [m, v] = trainer.moments().unwrap();
    let all = [trainer.parameters().unwrap(), m, v, trainer.averages().unwrap()];
    (seen, all.iter().flat_map(|of| of.values()).flat_map(|of| of.data.iter().map(|x| x.to_bits())).collect())
}

fn train(gradient_leaves: usize) -> TrainConfig {
    TrainConfig {
        batch_size: 2,
        total_batch_tokens: 12 * 16,
        gradient_leaves,
        grad_clip: 0.5,
        ..TrainConfig::default()
    }
}

#[test]
fn any_number_of_ranks_makes_the_bits_of_one() {
    for (leaves, counts) in [(4, &[2, 4][..]), (6, &[3]), (12, &[3])] {
        let train = train(leaves);
        let alone = trained(&World::alone(), &train);
        for &ranks in counts {
            let sharded = TrainConfig { shard_optimizer: true, ..train.clone() };
            for train in [&train, &sharded] {
                for of_rank in on_threads(ranks, |world| trained(world, train)) {
                    assert!(of_rank == alone, "{leaves} leaves on {ranks} ranks, sharded {}", train.shard_optimizer);
                }
            }
        }
    }
}

/// A mask is of a sequence in the update, whichever rank computes it.
#[test]
fn dropout_on_ranks_makes_the_bits_of_one() {
    let train = train(4);
    let alone = trained_with(0.2, &World::alone(), &train);
    assert!(alone != trained(&World::alone(), &train));
    for ranks in [2, 4] {
        assert!(
            on_threads(ranks, |world| trained_with(0.2, world, &train)).iter().all(|of_rank| *of_rank == alone),
            "{ranks}"
        );
    }
}

/// All ranks update whole matrices, and each keeps the average of all that was updated wherever.
#[test]
fn muon_and_averages_on_ranks_make_the_bits_of_one() {
    let averaged = TrainConfig { ema_decay: 0.5, ..train(4) };
    let sharded = TrainConfig { shard_optimizer: true, ..averaged.clone() };
    let muon = TrainConfig { optimizer: Optimizer::Muon, muon_lr: 1e-2, ..averaged.clone() };
    let mut seen = vec![trained(&World::alone(), &train(4))];
    for (alone, on_ranks) in [(&averaged, &averaged), (&averaged, &sharded), (&muon, &muon)] {
        let alone = trained(&World::alone(), alone);
        for of_rank in on_threads(2, |world| trained(world, on_ranks)) {
            assert!(of_rank == alone, "{:?}, sharded {}", on_ranks.optimizer, on_ranks.shard_optimizer);
        }
        seen.push(alone);
    }
    assert!(seen[0] != seen[1] && seen[1] == seen[2] && seen[2] != seen[3]);
}

/// There the ranks' copies of parameters in f16 are made anew from what others updated.
#[test]
fn mixed_precision_on_ranks_makes_the_bits_of_one() {
    let train = TrainConfig { precision: Precision::F16, ..train(4) };
    let alone = trained(&World::alone(), &train);
    for shard_optimizer in [false, true] {
        let train = TrainConfig { shard_optimizer, ..train.clone() };
        assert!(
            on_threads(2, |world| trained(world, &train)).iter().all(|of_rank| *of_rank == alone),
            "{shard_optimizer}"
        );
    }
}

/// Another tree, another sum; and in f16 all ranks have the same one.
#[test]
fn leaves_and_the_type_of_transfers_change_bits_and_little_else() {
    let [one, four] = [1, 4].map(|leaves| trained(&World::alone(), &train(leaves)));
    let half = TrainConfig { transfer_precision: Precision::F16, ..train(4) };
    let of_ranks = on_threads(2, |world| trained(world, &half));
    assert!(of_ranks[0] == of_ranks[1] && of_ranks[0] != four && one != four);
    for ((a, b), c) in one.0.iter().zip(&four.0).zip(&of_ranks[0].0) {
        let [a, b, c] = [a, b, c].map(|bits| bits.map(f32::from_bits));
        assert!(
            (0..2).all(|i| (a[i] - b[i]).abs() < 1e-4 * a[i] && (b[i] - c[i]).abs() < 1e-3 * a[i]),
            "{a:?} {b:?} {c:?}"
        );
    }
}
