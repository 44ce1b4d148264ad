//! Grows a checkpoint to more parameter tokens and shows that no logit changes. Seconds on any adapter:
//!
//! ```sh
//! cargo run --release --example grow
//! ```

use std::sync::atomic::AtomicBool;
use tokenformer::config::{GrowthConfig, GrowthPolicy, RunConfig};
use tokenformer::error::{Error, Result};
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::runtime::device::Device;
use tokenformer::train;
use tokenformer::train::Checkpoint;
use tokenformer::train::disk::{self, Start};
use tokenformer::train::evaluate::logits;

fn main() -> Result<()> {
    let device = Device::open(&AdapterRequest::default())?;
    println!("adapter: {}", device.engine.gpu.describe());

    // A checkpoint of a few steps, so that nothing in it is what it was at the start.
    let dir = tempfile::tempdir().map_err(|e| Error::input(format!("no temporary directory: {e}")))?;
    let mut config = RunConfig::preset("quickstart")?;
    config.out_dir = dir.path().to_owned();
    config.growth.clear();
    config.train.max_steps = 10;
    config.train.batch_size = 2;
    config.train.eval_batches = 1;
    config.train.sample_tokens = 0;
    let data = disk::dataset(&config, None)?;
    config.model.resolve_vocab(data.vocab_size)?;
    let summary = train::run(&device, &config, &data, Start::fresh(&config), &AtomicBool::new(false))?;

    let (start, config) = Start::resumed(Checkpoint::read(&summary.checkpoint)?)?;
    let tokens = data.val.window(0, config.model.seq_length)?;
    for policy in [GrowthPolicy::Preserving, GrowthPolicy::Official] {
        let growth = GrowthConfig { policy, ffn_slot_num: Some(192), ..GrowthConfig::default() };
        let before = &start.host;
        // Refused in a sentence where the model cannot grow so; the seed decides what is random.
        let after = before.grown(&growth, start.standing.step, 1)?;
        let [was, is] = [before, &after].map(|host| logits(&device, &host.model, &host.params, &tokens));
        let (was, is) = (was?, is?);
        let change = was.iter().zip(&is).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!(
            "{policy:?}: {} -> {} parameters, largest change of {} logits: {change:.1e}",
            before.model.param_count(),
            after.model.param_count(),
            was.len()
        );
        let same = was.iter().zip(&is).all(|(a, b)| a.to_bits() == b.to_bits());
        if policy == GrowthPolicy::Preserving && !same {
            return Err(Error::defect("a preserving growth changed a logit"));
        }
    }
    Ok(())
}
